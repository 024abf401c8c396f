"""Durable sagas for Python: actions with undos, a log of every step, and an honest end after any failure.

PYTEST_DONT_REWRITE: programs may import this before they start pytest, whose plugin loader would else warn of it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from compensate.authoring import (
    Action,
    ActionRegistry,
    Ctx,
    DagBuilder,
    Reader,
    Saga,
    action,
    action_constant,
    action_node,
    constant,
    constant_node,
    fan_out,
    inject_error_action,
    no_op_undo,
    output,
    param,
    saga,
    saga_from_dag,
    subsaga_node,
)
from compensate.core import events
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
    Refused,
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

if TYPE_CHECKING:
    from compensate.codec.document import StateDocument, read_go_document
    from compensate.inspection.documents import state_document
    from compensate.inspection.saga_log import SagaLog
    from compensate.inspection.snapshot import Snapshot
    from compensate.inspection.timeline import TraceRecord
    from compensate.interop.go_documents import import_document, imported_name
    from compensate.render.lines import event_line
    from compensate.runtime.blocking import BlockingRun, Connection, connect
    from compensate.runtime.coordinator import Coordinator
    from compensate.runtime.executor import SagaExecutor
    from compensate.runtime.inject import Inject
    from compensate.runtime.runs import Run
    from compensate.runtime.setting import Observer
    from compensate.stores import Store, open_store, reading, store_exists
    from compensate.stores.base import Page, SagaRecord
    from compensate.stores.file import FileStore
    from compensate.stores.memory import MemoryStore
    from compensate.stores.sqlite import SqliteStore

__version__ = "0.1.0"

_LATER: Final = {
    "BlockingRun": "compensate.runtime.blocking",
    "Connection": "compensate.runtime.blocking",
    "Coordinator": "compensate.runtime.coordinator",
    "FileStore": "compensate.stores.file",
    "Inject": "compensate.runtime.inject",
    "MemoryStore": "compensate.stores.memory",
    "Observer": "compensate.runtime.setting",
    "Page": "compensate.stores.base",
    "Run": "compensate.runtime.runs",
    "SagaExecutor": "compensate.runtime.executor",
    "SagaLog": "compensate.inspection.saga_log",
    "SagaRecord": "compensate.stores.base",
    "Snapshot": "compensate.inspection.snapshot",
    "SqliteStore": "compensate.stores.sqlite",
    "StateDocument": "compensate.codec.document",
    "Store": "compensate.stores",
    "TraceRecord": "compensate.inspection.timeline",
    "connect": "compensate.runtime.blocking",
    "event_line": "compensate.render.lines",
    "import_document": "compensate.interop.go_documents",
    "imported_name": "compensate.interop.go_documents",
    "open_store": "compensate.stores",
    "read_go_document": "compensate.codec.document",
    "reading": "compensate.stores",
    "state_document": "compensate.inspection.documents",
    "store_exists": "compensate.stores",
}
"""What runs sagas, and where it is: imported when it is asked for. Who only defines sagas does not pay for it."""


def __getattr__(name: str) -> Any:
    module = _LATER.get(name)
    if module is None:
        raise AttributeError(f"module 'compensate' has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(module), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})


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
    "DagBuilder",
    "DefinitionError",
    "DeserializeFailed",
    "Event",
    "Fenced",
    "FileStore",
    "IllegalRequest",
    "Inject",
    "InjectedError",
    "MemoryStore",
    "NameInvalid",
    "NoEffect",
    "NotFound",
    "Observer",
    "Page",
    "ParamsInvalid",
    "Permanent",
    "Reader",
    "Refused",
    "Retry",
    "RolledBack",
    "Run",
    "Saga",
    "SagaError",
    "SagaExecutor",
    "SagaExists",
    "SagaLog",
    "SagaNotFound",
    "SagaRecord",
    "SerializeFailed",
    "Snapshot",
    "SqliteStore",
    "StateDocument",
    "Stopped",
    "Store",
    "StoreError",
    "StoreUrlInvalid",
    "Stuck",
    "SubsagaCreateFailed",
    "TraceRecord",
    "Unavailable",
    "Unknown",
    "UnsupportedVersion",
    "action",
    "action_constant",
    "action_node",
    "connect",
    "constant",
    "constant_node",
    "event_line",
    "events",
    "fan_out",
    "import_document",
    "imported_name",
    "inject_error_action",
    "no_op_undo",
    "open_store",
    "output",
    "param",
    "read_go_document",
    "reading",
    "saga",
    "saga_from_dag",
    "state_document",
    "store_exists",
    "subsaga_node",
]
