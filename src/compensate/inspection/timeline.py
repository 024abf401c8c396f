"""The timeline of a saga, read off its log: every attempt, and when each node last ran."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal, cast

import msgspec

from compensate.core import events as e
from compensate.core import states as s
from compensate.core.events import Event
from compensate.core.log import Fold
from compensate.core.names import Direction
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


class Span(msgspec.Struct):
    """When a node's action, or its undo, last began and ended.

    Attributes:
        began: Seconds since the epoch.
        ended: The same; `None` while it runs, or if a crash cut it off.
    """

    began: float
    ended: float | None = None


_BEGINS: Final[dict[str, tuple[Direction, s.NodeState]]] = {
    e.STARTED: ("do", s.RUNNING),
    e.UNDO_STARTED: ("undo", s.UNDOING),
}
_ENDS: Final[dict[str, tuple[Direction, s.NodeState]]] = {
    e.COMPLETED: ("do", s.COMPLETED),
    e.FAILED: ("do", s.FAILED),
    e.IN_DOUBT: ("do", s.IN_DOUBT),
    e.UNDONE: ("undo", s.UNDONE),
    e.UNDO_FAILED: ("undo", s.UNDO_FAILED),
}


class Timeline:
    """What ran when in one saga. It can follow the saga: `feed` takes the events that come later.

    Args:
        fold: The saga's state, as far as `events` go. `feed` applies later events to it.
        events: The saga's log.

    Attributes:
        fold: State, attempts and errors of each node.
        attempts: Every attempt, in the order in which they started.
        undo_order: By path: 1 for the node whose undo started first, and so on.
        last_seq: By path: seq of the last event about the node.
        created_at: When the saga was created, in seconds since the epoch.
        last_at: The time of its last event.
    """

    def __init__(self, fold: Fold, events: Iterable[Event] = ()) -> None:
        self.fold = fold
        self.attempts: list[TraceRecord] = []
        self.undo_order: dict[str, int] = {}
        self.last_seq: dict[str, int] = {}
        self.created_at = self.last_at = 0.0
        self._spans: dict[tuple[str, Direction], Span] = {}
        self._open: dict[tuple[str, Direction], int] = {}
        """The index in `attempts` of the attempt that runs now."""
        for event in events:
            self._take(event)

    @property
    def id(self) -> str:
        """The saga's id."""
        return self.fold.saga_id

    @property
    def name(self) -> str:
        """The name of its definition."""
        return self.fold.plan.dag.name

    @property
    def status(self) -> s.SagaStatus:
        """How the saga stands."""
        return self.fold.status or s.RUNNING

    @property
    def ended(self) -> bool:
        """Whether nothing runs until somebody decides."""
        return self.status in s.ENDS

    def feed(self, events: Iterable[Event]) -> list[Event]:
        """Take events that follow; those that are known already are passed over.

        Args:
            events: Events of this saga, in order.

        Returns:
            Those that were new.
        """
        new: list[Event] = []
        for event in events:
            if event.seq == self.fold.seq + 1:
                self.fold.apply(event)
                self._take(event)
                new.append(event)
        return new

    def span(self, path: str, direction: Direction) -> Span | None:
        """When the last attempt of a node's action or undo began and ended; `None` if it never ran.

        If an operator gave the output of a node in doubt, its action ended then.
        """
        return self._spans.get((path, direction))

    def took(self, event: Event) -> float | None:
        """The seconds that an attempt took, if `event` ends one and is the last event that was taken."""
        if event.type not in _ENDS:
            return None
        span = self.span(event.node, _ENDS[event.type][0])
        return None if span is None or span.began > event.at else event.at - span.began

    def next_attempt(self, path: str) -> float | None:
        """When a node that failed is tried again; `None`: it is not."""
        fold = self.fold
        i = fold.plan.index.get(path)
        if i is None or fold.status in s.ENDS:
            return None
        state = fold.state[i]
        if state == s.UNDO_FAILED:
            failed = fold.undo_errors.get(i)
            return None if failed is None else failed.retry_at
        if state not in (s.FAILED, s.IN_DOUBT):
            return None
        error = fold.errors[i]
        # Whatever failed before a rollback began is not tried again.
        if fold.rollback is not None and state == s.FAILED:
            return None
        return error.retry_at

    def _take(self, event: Event) -> None:
        self.last_at = event.at
        kind, node = event.type, event.node
        if not node:
            if kind == e.SAGA_CREATED:
                self.created_at = event.at
            return
        self.last_seq[node] = event.seq
        if kind in _BEGINS:
            direction, state = _BEGINS[kind]
            if direction == "undo":
                self.undo_order.setdefault(node, len(self.undo_order) + 1)
            self._spans[node, direction] = Span(event.at)
            self._open[node, direction] = len(self.attempts)
            action = self.fold.plan.action(self.fold.plan.index[node]).action
            self.attempts.append(
                TraceRecord(node, action, direction, event.attempt, event.at, None, state, None)
            )
        elif kind in _ENDS:
            direction, state = _ENDS[kind]
            self._spans[node, direction].ended = event.at
            i = self._open[node, direction]
            error = getattr(event.data, "error", None)
            self.attempts[i] = msgspec.structs.replace(
                self.attempts[i], ended_at=event.at, state=state, error=error
            )
        elif kind == e.SUPPLIED and (node, "do") in self._spans:
            self._spans[node, "do"].ended = event.at


def trace(fold: Fold, events: Iterable[Event]) -> list[TraceRecord]:
    """Every attempt of the log, in the order in which they started."""
    return Timeline(fold, events).attempts


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
