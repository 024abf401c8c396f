"""For tests: prove a saga, fake a participant, turn time, check a store. See `docs/testing.md`.

Names are loaded when they are first used, so that the pytest plugin costs nothing in a run that does not use it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compensate.testing.bench import VirtualCoordinator
    from compensate.testing.conformance import CHECKS, Check, Place
    from compensate.testing.differences import Change, difference
    from compensate.testing.proof import prove_saga
    from compensate.testing.report import Finding, Proof, SagaNotProven, TooManyScenarios
    from compensate.testing.stalls import VirtualTimeStalled
    from compensate.testing.virtual_time import VirtualTime
    from compensate.testing.worlds import FakeWorld, Tombstones

_WHERE = {
    "CHECKS": "conformance",
    "Change": "differences",
    "Check": "conformance",
    "FakeWorld": "worlds",
    "Finding": "report",
    "Place": "conformance",
    "Proof": "report",
    "SagaNotProven": "report",
    "Tombstones": "worlds",
    "TooManyScenarios": "report",
    "VirtualCoordinator": "bench",
    "VirtualTime": "virtual_time",
    "VirtualTimeStalled": "stalls",
    "difference": "differences",
    "prove_saga": "proof",
}

__all__ = [
    "CHECKS",
    "Change",
    "Check",
    "FakeWorld",
    "Finding",
    "Place",
    "Proof",
    "SagaNotProven",
    "Tombstones",
    "TooManyScenarios",
    "VirtualCoordinator",
    "VirtualTime",
    "VirtualTimeStalled",
    "difference",
    "prove_saga",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
