"""Durable sagas for Python: actions with undos, a log of every step, and an honest end after any failure."""

from compensate.authoring import (
    Action,
    ActionRegistry,
    Ctx,
    Saga,
    action,
    constant,
    fan_out,
    saga,
)
from compensate.core.dag import Dag
from compensate.core.events import Event
from compensate.core.policy import Retry
from compensate.errors import (
    ActionFailed,
    ActionNotFound,
    CompensateError,
    Conflict,
    CorruptLog,
    DefinitionError,
    DeserializeFailed,
    Fenced,
    IllegalRequest,
    InjectedError,
    NameInvalid,
    NoEffect,
    NotFound,
    ParamsInvalid,
    Permanent,
    RolledBack,
    SagaError,
    SagaExists,
    SagaNotFound,
    SerializeFailed,
    Stopped,
    StoreError,
    StoreUrlInvalid,
    Stuck,
    SubsagaCreateFailed,
    Unavailable,
    Unknown,
    UnsupportedVersion,
)
from compensate.runtime.blocking import BlockingRun, Connection, connect
from compensate.runtime.coordinator import Coordinator
from compensate.runtime.executor import SagaExecutor
from compensate.runtime.inject import Inject
from compensate.runtime.runs import Run, Snapshot
from compensate.stores import open_store

__version__ = "0.1.0"

__all__ = [
    "Action",
    "ActionFailed",
    "ActionNotFound",
    "ActionRegistry",
    "BlockingRun",
    "CompensateError",
    "Conflict",
    "Connection",
    "Coordinator",
    "CorruptLog",
    "Ctx",
    "Dag",
    "DefinitionError",
    "DeserializeFailed",
    "Event",
    "Fenced",
    "IllegalRequest",
    "Inject",
    "InjectedError",
    "NameInvalid",
    "NoEffect",
    "NotFound",
    "ParamsInvalid",
    "Permanent",
    "Retry",
    "RolledBack",
    "Run",
    "Saga",
    "SagaError",
    "SagaExecutor",
    "SagaExists",
    "SagaNotFound",
    "SerializeFailed",
    "Snapshot",
    "Stopped",
    "StoreError",
    "StoreUrlInvalid",
    "Stuck",
    "SubsagaCreateFailed",
    "Unavailable",
    "Unknown",
    "UnsupportedVersion",
    "action",
    "connect",
    "constant",
    "fan_out",
    "open_store",
    "saga",
]
