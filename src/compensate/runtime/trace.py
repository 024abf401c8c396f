"""The trace: what ran when, read off a log."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal, cast

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
    plan = fold.plan
    return [
        plan.names[i]
        for i, state in enumerate(fold.state)
        if plan.kinds[i] == ACTION and state == s.COMPLETED
    ]


def failed_nodes(fold: Fold, events: Iterable[Event]) -> list[str]:
    """See `SagaExecutor.failed_nodes`.

    The state of a node does not tell: a failed node whose undo ran is `undone`.
    """
    do: set[str] = set()
    """Nodes whose action ended badly when it last ended."""
    final: set[str] = set()
    """Those of them that are not tried again by themselves."""
    caused: set[str] = set()
    undo: set[str] = set()
    for event in events:
        kind, node = event.type, event.node
        if kind in (e.FAILED, e.IN_DOUBT):
            do.add(node)
            (final.add if _is_final(event.data) else final.discard)(node)
        elif kind in (e.COMPLETED, e.SUPPLIED):
            do.discard(node)
            final.discard(node)
        elif kind == e.RETRIED:
            final.discard(node)
        elif kind == e.SAGA_ROLLBACK:
            # An action in doubt is run again in the rollback to learn its output: that does not make it a success.
            caused |= final
        elif kind == e.UNDO_FAILED:
            if not cast(e.UndoFailed, event.data).interrupted:
                undo.add(node)
        elif kind == e.UNDONE:
            undo.discard(node)
    failed = do | caused | undo
    plan = fold.plan
    return [
        name for name, kind in zip(plan.names, plan.kinds, strict=True) if kind == ACTION and name in failed
    ]


def _is_final(data: e.Data) -> bool:
    if isinstance(data, e.InDoubt) and data.reason == "crash":
        return False
    return isinstance(data, e.Failed | e.InDoubt) and data.retry_at is None
