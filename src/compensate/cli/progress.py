"""A saga as far as it is known here: fed with events, drawn by `tree`, told by `lines`, written by `documents`."""

from __future__ import annotations

from collections.abc import Iterable

from compensate.core import events as e
from compensate.core import states as s
from compensate.core.events import Event
from compensate.core.log import Fold
from compensate.runtime.runs import Snapshot


class Times:
    """When the last attempt of a node's action and undo began and ended; `None`: not (yet)."""

    __slots__ = ("did", "do", "undid", "undo")

    def __init__(self) -> None:
        self.do: float | None = None
        self.did: float | None = None
        self.undo: float | None = None
        self.undid: float | None = None


_BEGINS = {e.STARTED: "do", e.UNDO_STARTED: "undo"}
_ENDS = {
    e.COMPLETED: "did",
    e.FAILED: "did",
    e.IN_DOUBT: "did",
    e.SUPPLIED: "did",
    e.UNDONE: "undid",
    e.UNDO_FAILED: "undid",
}


class Progress:
    """One saga's state, order and times.

    Args:
        snapshot: As it was read; events that come later are fed.

    Attributes:
        fold: State, attempts, errors of each node.
        times: Of each node that ran, by path.
        undone_in: 1 for the node whose undo started first.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self.id = snapshot.id
        self.name = snapshot.record.name
        self.created_at = snapshot.record.created_at
        self.owner = snapshot.record.owner
        self.fold: Fold = snapshot.fold
        self.times: dict[str, Times] = {}
        self.undo_order: dict[str, int] = {}
        self.touched: dict[str, int] = {}
        """Seq of the last event about a node."""
        self.last_at = snapshot.record.updated_at
        for event in snapshot.events:
            self._time(event)

    def feed(self, events: Iterable[Event]) -> list[Event]:
        """Take events that follow; returns those that were new."""
        new: list[Event] = []
        for event in events:
            if event.seq == self.fold.seq + 1:
                self.fold.apply(event)
                self._time(event)
                new.append(event)
        return new

    def _time(self, event: Event) -> None:
        self.last_at = event.at
        if not event.node:
            return
        self.touched[event.node] = event.seq
        times = self.times.setdefault(event.node, Times())
        kind = event.type
        if kind in _BEGINS:
            setattr(times, _BEGINS[kind], event.at)
            setattr(times, "did" if kind == e.STARTED else "undid", None)
            if kind == e.UNDO_STARTED:
                self.undo_order.setdefault(event.node, len(self.undo_order) + 1)
        elif kind in _ENDS:
            setattr(times, _ENDS[kind], event.at)

    @property
    def status(self) -> s.SagaStatus:
        """How the saga stands."""
        return self.fold.status or s.RUNNING

    @property
    def ended(self) -> bool:
        """Whether nothing runs until somebody decides."""
        return self.status in s.ENDS

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

    def failures(self, path: str) -> int:
        """How often the node's action, or in rollback its undo, has failed since it was last told to be retried."""
        i = self.fold.plan.index[path]
        return self.fold.undo_failures.get(i) or self.fold.failures.get(i, 0)
