"""The trace: what ran when, read off a log."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

import msgspec

from compensate.core import events as e
from compensate.core import states as s
from compensate.core.events import Event
from compensate.core.log import Fold
from compensate.core.plan import ACTION


class TraceRecord(msgspec.Struct, frozen=True):
    """One attempt of an action or undo.

    Attributes:
        node: Path of the node.
        action: Name of its action.
        direction: Whether the action or its undo ran.
        attempt: From 1.
        started_at: Seconds since the epoch.
        ended_at: The same; `None` while it runs, or if it was cut off by a crash nobody has noticed yet.
        state: What it led to; `running` or `undoing` while it runs.
        error: What it raised.
    """

    node: str
    action: str
    direction: Literal["do", "undo"]
    attempt: int
    started_at: float
    ended_at: float | None
    state: s.NodeState
    error: e.ErrorInfo | None


_ENDS: Final[dict[str, tuple[Literal["do", "undo"], s.NodeState]]] = {
    e.COMPLETED: ("do", s.COMPLETED),
    e.FAILED: ("do", s.FAILED),
    e.IN_DOUBT: ("do", s.IN_DOUBT),
    e.UNDONE: ("undo", s.UNDONE),
    e.UNDO_FAILED: ("undo", s.UNDO_FAILED),
}


def trace(fold: Fold, events: Iterable[Event]) -> list[TraceRecord]:
    """Every attempt of the log, in the order in which they started."""
    records: list[TraceRecord] = []
    at: dict[tuple[str, str, int], int] = {}
    for event in events:
        if event.type in (e.STARTED, e.UNDO_STARTED):
            direction: Literal["do", "undo"] = "do" if event.type == e.STARTED else "undo"
            state: s.NodeState = s.RUNNING if direction == "do" else s.UNDOING
            at[event.node, direction, event.attempt] = len(records)
            action = fold.plan.action(fold.plan.index[event.node]).action
            records.append(
                TraceRecord(event.node, action, direction, event.attempt, event.at, None, state, None)
            )
        elif event.type in _ENDS:
            ended, state = _ENDS[event.type]
            i = at[event.node, ended, event.attempt]
            error = getattr(event.data, "error", None)
            records[i] = msgspec.structs.replace(records[i], ended_at=event.at, state=state, error=error)
    return records


def completed_nodes(fold: Fold) -> list[str]:
    """Action nodes whose effect stands, in the order of the dag."""
    return _nodes(fold, frozenset({s.COMPLETED}))


def failed_nodes(fold: Fold) -> list[str]:
    """Action nodes that failed, are in doubt, or could not be undone, in the order of the dag."""
    return _nodes(fold, frozenset({s.FAILED, s.IN_DOUBT, s.UNDO_FAILED}))


def _nodes(fold: Fold, states: frozenset[s.NodeState]) -> list[str]:
    plan = fold.plan
    return [
        plan.names[i] for i, state in enumerate(fold.state) if plan.kinds[i] == ACTION and state in states
    ]
