"""The log, folded: what a saga's events amount to, and which events cannot be.

`Fold.apply` takes one event after the other. It checks each against the transition
tables and against the rules above them (sequence, epochs, S3, S4, S7) and refuses
what cannot be (S12).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Final, cast

from compensate.core import events as e
from compensate.core import states as s
from compensate.core.events import Event
from compensate.core.flow import Flow
from compensate.core.plan import ACTION, FAN_BEGIN, ROOT
from compensate.errors import CorruptLog


class Fold(Flow):
    """What a saga's events amount to."""

    _let_go = False
    """An operator has skipped or resolved a node going forward: the rollback begins with the next event."""

    # -- events ------------------------------------------------------------

    def apply(self, event: Event) -> None:
        """Take one event of the log.

        Raises:
            CorruptLog: The event cannot follow what came before. The machine is then of no further use.
        """
        if event.seq != self.seq + 1:
            raise self._corrupt(event, f"expected seq {self.seq + 1}")
        if event.epoch < self.epoch:
            raise self._corrupt(event, f"its epoch is below {self.epoch}")
        if self._let_go and event.type != e.SAGA_ROLLBACK:
            raise self._corrupt(event, "a node was skipped or resolved going forward, and no rollback begins")
        node = event.node
        if node:
            i = self.plan.index.get(node)
            if i is None:
                raise self._corrupt(event, "the dag has no such node")
            self._check_node(i, event)
            self._apply_node(i, event)
        else:
            self._check_saga(event)
            self._apply_saga(event)
        self.seq = event.seq
        self.epoch = event.epoch

    def _check_node(self, i: int, event: Event) -> None:
        """Refuse what the machine never decides; it needs no such check of itself."""
        kind = event.type
        if kind not in _ANSWERS and self.plan.kinds[i] != ACTION:
            raise self._corrupt(event, "the node runs no action")
        if kind == e.UNDO_STARTED and self.state[i] != s.UNDO_FAILED:
            takes_none = self.plan.action(i).undo == "unknown"
            if not self.has_to_undo(i) or (self.state[i] == s.IN_DOUBT and not takes_none):
                raise self._corrupt(event, "there is nothing to undo, or no output to undo it with")
        if kind == e.STARTED and self.rollback is not None and self.plan.action(i).undo != "output":
            raise self._corrupt(event, "rollback has begun, and the node's undo needs no output")
        if kind == e.FAILED and i in self.doubted and not cast(e.Failed, event.data).clean:
            raise self._corrupt(event, "the node is in doubt, and a plain failure does not clear that")
        if kind in _STARTS and i in self._given_up:
            raise self._corrupt(event, "its attempts were used up, and nobody decided to retry")

    def _check_saga(self, event: Event) -> None:
        """Refuse an end that has not come, and a rollback that must not begin."""
        kind = event.type
        if kind == e.SAGA_ROLLBACK:
            if not self.may_turn_back():
                raise self._corrupt(event, "a pivot completed or is in flight")
            if self.status == s.STUCK and (self.rollback is not None or self.is_parked):
                raise self._corrupt(event, "rollback has begun, or code is missing")
        elif kind in _ENDINGS:
            if self.executing:
                raise self._corrupt(event, "actions or undos still run")
            if kind == e.SAGA_COMPLETED and self.state[self.plan.end] != s.COMPLETED:
                raise self._corrupt(event, "not every node has completed")
            if kind == e.SAGA_ROLLED_BACK and self.rollback is not None and self._live[ROOT]:
                raise self._corrupt(event, "not every node is undone")
            if kind == e.SAGA_STUCK and not (self._given_up or cast(e.SagaStuck, event.data).parked):
                raise self._corrupt(event, "no node was given up")

    def _apply_node(self, i: int, event: Event) -> None:
        handler = self._HANDLERS.get(event.type)
        if handler is None:
            raise self._corrupt(event, "no event of a node has that type")
        if self.status not in _OPEN and not (self.status == s.STUCK and event.type in s.UNSTICK):
            raise self._corrupt(event, f"the saga is {self.status}")
        handler(self, i, event)

    def _after(self, i: int, event: Event) -> s.NodeState:
        """The state that the tables give for the event."""
        after = s.NODE[event.type].get(self.state[i])
        if after is None:
            raise self._corrupt(event, f"the node is {self.state[i]}")
        return after

    def _apply_saga(self, event: Event) -> None:
        kind = event.type
        if kind == e.SAGA_CREATED:
            if self.status is not None:
                raise self._corrupt(event, "the saga exists already")
            self._open(cast(e.Created, event.data))
            return
        if kind == e.SAGA_UNPARKED:
            if not self.is_parked:
                raise self._corrupt(event, "the saga is not parked")
            self._unstick()
            return
        moves = s.SAGA.get(kind)
        after = None if moves is None or self.status is None else moves.get(self.status)
        if after is None:
            raise self._corrupt(event, f"the saga is {self.status}")
        self.status = after
        if kind == e.SAGA_ROLLBACK:
            self.rollback = cast(e.Rollback, event.data)
            self.stuck = None
            self._let_go = False
            self._turn_back()
        elif kind == e.SAGA_STUCK:
            self.stuck = cast(e.SagaStuck, event.data)
        elif kind in (e.SAGA_PAUSED, e.SAGA_RESUMED):
            self.paused = kind == e.SAGA_PAUSED

    def _open(self, created: e.Created) -> None:
        self.created = created
        self.params = created.params
        self.status = s.RUNNING
        if created.deadline is not None:
            self._reset_alarm()
        self._complete(ROOT)

    def _corrupt(self, event: Event, why: str) -> CorruptLog:
        what = f"{event.type} {event.node}".rstrip()
        return CorruptLog(
            f"saga {self.saga_id}: event {event.seq} ({what}, attempt {event.attempt}) cannot be: {why}; "
            "nothing was run; restore the log from a copy, or have it looked at"
        )

    # One method for each type of event: check it, change the state, and queue what follows from it.

    def _on_started(self, i: int, event: Event) -> None:
        after = _STARTED.get(self.state[i])
        if after is None:
            raise self._corrupt(event, f"the node is {self.state[i]}")
        attempt = event.attempt
        if attempt != self.attempt[i] + 1:
            raise self._corrupt(event, f"{self.attempt[i]} attempts came before")
        if self._missing[i]:
            raise self._corrupt(event, "what it depends on has not completed")
        if self.rollback is not None:
            self._check_rerun(i, event)
        self.state[i] = after
        self.attempt[i] = attempt
        self.executing += 1
        self._queued[i] = 0
        if self._due:
            self._due.pop(i, None)

    def _check_rerun(self, i: int, event: Event) -> None:
        """After rollback began only a node in doubt is run again, in its turn, to learn its output (S4)."""
        if self.state[i] != s.IN_DOUBT or self._live[i]:
            raise self._corrupt(event, "rollback has begun")
        if i not in self._rerun:
            self._rerun.add(i)
            self.failures.pop(i, None)

    def _on_completed(self, i: int, event: Event) -> None:
        self._land(i, event)
        self.output[i] = cast(e.Completed, event.data).output
        if self.doubted:
            self.doubted.discard(i)
            self.deaths.pop(i, None)
        if self.rollback is not None:
            self._turn(i)
        else:
            if self.plan.pivots:
                self._pass_pivot(i)
            self._forward_from(i)

    def _land(self, i: int, event: Event) -> None:
        """The running action of node `i` has come to something."""
        after = s.NODE[event.type].get(self.state[i])
        if after is None:
            raise self._corrupt(event, f"the node is {self.state[i]}")
        if event.attempt != self.attempt[i]:
            raise self._corrupt(event, f"the running attempt is {self.attempt[i]}")
        self.state[i] = after
        self.executing -= 1

    def _on_failed(self, i: int, event: Event) -> None:
        self._land(i, event)
        data = cast(e.Failed, event.data)
        self.errors[i] = data
        self.failures[i] = self.failures.get(i, 0) + 1
        self.deaths.pop(i, None)
        if data.clean:
            self.doubted.discard(i)
        self._after_failure(i, data.retry_at, data.error)

    def _on_in_doubt(self, i: int, event: Event) -> None:
        self._land(i, event)
        data = cast(e.InDoubt, event.data)
        self.errors[i] = data
        self.doubted.add(i)
        if data.reason in ("crash", "cut_off"):
            if self._died(i, event, self.deaths, data.deaths, given_up=data.given_up):
                self._convicted[i] = self._unlearnable[i] = self._given_up[i]
            elif self.rollback is not None:
                self._turn(i)
            else:
                self._queue(i)
            return
        self.deaths.pop(i, None)
        self.failures[i] = self.failures.get(i, 0) + 1
        if data.reason == "unstorable":
            self._unlearnable[i] = f"{data.error.type}: {data.error.message}" if data.error else "unstorable"
        self._after_failure(i, data.retry_at, data.error)

    def _died(self, i: int, event: Event, counts: dict[int, int], deaths: int, *, given_up: bool) -> bool:
        """The process ended while node `i` ran. Counts a death; returns whether the node is given up for deaths."""
        if deaths and deaths != counts.get(i, 0) + 1:
            raise self._corrupt(event, f"{counts.get(i, 0)} deaths in a row came before")
        if given_up:
            counts.pop(i, None)
            self._given_up[i] = _died_so_often(deaths)
        elif deaths:
            counts[i] = deaths
        return given_up

    def _after_failure(self, i: int, retry_at: float | None, error: e.ErrorInfo | None) -> None:
        if retry_at is not None:
            self._wait(i, retry_at)
        elif self.rollback is None or (i in self._rerun and self.state[i] == s.IN_DOUBT):
            self._given_up[i] = f"{error.type}: {error.message}" if error else "in doubt"
        else:
            self._turn(i)

    def _on_undo_started(self, i: int, event: Event) -> None:
        after = self._after(i, event)
        if event.attempt != self.undo_attempt.get(i, 0) + 1:
            raise self._corrupt(event, f"{self.undo_attempt.get(i, 0)} attempts came before")
        if self.rollback is None or self._live[i]:
            raise self._corrupt(event, "its turn to be undone has not come")
        self.state[i] = after
        self.undo_attempt[i] = event.attempt
        self.executing += 1
        self._queued[i] = 0
        if self.deaths:
            self.deaths.pop(i, None)
        if self._due:
            self._due.pop(i, None)

    def _land_undo(self, i: int, event: Event) -> None:
        after = self._after(i, event)
        if event.attempt != self.undo_attempt.get(i, 0):
            raise self._corrupt(event, f"the running attempt is {self.undo_attempt.get(i, 0)}")
        self.state[i] = after
        self.executing -= 1

    def _on_undone(self, i: int, event: Event) -> None:
        self._land_undo(i, event)
        if self.undo_deaths:
            self.undo_deaths.pop(i, None)
        self._settle(i)

    def _on_undo_failed(self, i: int, event: Event) -> None:
        self._land_undo(i, event)
        data = cast(e.UndoFailed, event.data)
        self.undo_errors[i] = data
        if data.interrupted:
            if not self._died(i, event, self.undo_deaths, data.deaths, given_up=data.given_up):
                self._queue(i)
            return
        self.undo_deaths.pop(i, None)
        self.undo_failures[i] = self.undo_failures.get(i, 0) + 1
        if data.retry_at is not None:
            self._wait(i, data.retry_at)
        else:
            self._given_up[i] = f"{data.error.type}: {data.error.message}" if data.error else "undo failed"

    def _answered(self, i: int, event: Event) -> int:
        """The machine asked about node `i` and got an answer; returns its begin bracket, or itself."""
        after = self._after(i, event)
        begin = self.plan.partner.get(i, i)
        if self._missing[begin] or self.rollback is not None:
            raise self._corrupt(event, "its turn has not come")
        if self.question(begin) != ("items" if event.type == e.EXPANDED else "when"):
            raise self._corrupt(event, "nobody asked")
        self.state[i] = after
        return begin

    def _on_branch_taken(self, i: int, event: Event) -> None:
        begin = self._answered(i, event)
        self._taken.add(begin)
        kind = self.plan.kinds[begin]
        if kind == ACTION:
            self._queue(i)
        elif kind == FAN_BEGIN:
            self._asks.append(begin)
        else:
            self._complete(begin)

    def _on_branch_skipped(self, i: int, event: Event) -> None:
        begin = self._answered(i, event)
        self.state[begin] = s.SKIPPED
        self._forward_from(i)

    def _on_expanded(self, i: int, event: Event) -> None:
        begin = self._answered(i, event)
        if not self._own_plan:
            self.plan = self.plan.copy()
            self._own_plan = True
        count = cast(e.Expanded, event.data).count
        self.plan.expand(i, count)
        self.take_up()
        self._missing[i] += count
        self._complete(begin)

    def _decided(self, i: int, event: Event) -> None:
        """An operator decided about a stuck node, or one that waits while the saga is paused: the saga goes on."""
        after = self._after(i, event)
        if VERBS[event.type] not in self.choices(i):
            raise self._corrupt(event, "the node is not stuck, or not in a way that this would mend")
        self.state[i] = after
        for of in (
            self._given_up,
            self._convicted,
            self._unlearnable,
            self.deaths,
            self.undo_deaths,
            self._due,
        ):
            of.pop(i, None)
        self._queued[i] = 0
        self._unstick()

    def _on_retried(self, i: int, event: Event) -> None:
        self._decided(i, event)
        self.failures.pop(i, None)
        self.undo_failures.pop(i, None)
        self._queue(i)

    def _on_let_go(self, i: int, event: Event) -> None:
        self._decided(i, event)
        if self.rollback is None:
            self._let_go = True
        elif i not in self._lingering:  # a thread that still runs holds back what the node depends on (S3)
            self._settle(i)

    def _on_supplied(self, i: int, event: Event) -> None:
        self._decided(i, event)
        self.doubted.discard(i)
        self.output[i] = cast(e.Supplied, event.data).output
        if self.rollback is not None:
            self._turn(i)
        else:
            self._pass_pivot(i)
            self._forward_from(i)

    @property
    def is_parked(self) -> bool:
        """Whether the saga is stuck only until code that knows it is back."""
        return self.status == s.STUCK and self.stuck is not None and bool(self.stuck.parked)

    def _unstick(self) -> None:
        if self.status == s.STUCK:
            self.status = s.RUNNING if self.rollback is None else s.ROLLING_BACK
            self.stuck = None

    _HANDLERS: ClassVar[dict[str, Callable[[Fold, int, Event], None]]] = {
        e.STARTED: _on_started,
        e.COMPLETED: _on_completed,
        e.FAILED: _on_failed,
        e.IN_DOUBT: _on_in_doubt,
        e.UNDO_STARTED: _on_undo_started,
        e.UNDONE: _on_undone,
        e.UNDO_FAILED: _on_undo_failed,
        e.BRANCH_TAKEN: _on_branch_taken,
        e.BRANCH_SKIPPED: _on_branch_skipped,
        e.EXPANDED: _on_expanded,
        e.RETRIED: _on_retried,
        e.SKIPPED: _on_let_go,
        e.RESOLVED: _on_let_go,
        e.SUPPLIED: _on_supplied,
    }


def _died_so_often(deaths: int) -> str:
    return f"its process died {deaths} {'time' if deaths == 1 else 'times'} while it ran"


_ANSWERS: Final = frozenset({e.BRANCH_TAKEN, e.BRANCH_SKIPPED, e.EXPANDED})
_STARTS: Final = frozenset({e.STARTED, e.UNDO_STARTED})
_ENDINGS: Final = frozenset({e.SAGA_COMPLETED, e.SAGA_ROLLED_BACK, e.SAGA_STUCK})
_OPEN: Final = frozenset({s.RUNNING, s.ROLLING_BACK})
_STARTED: Final = s.NODE[e.STARTED]

VERBS: Final = {
    e.RETRIED: "retry",
    e.SKIPPED: "skip",
    e.RESOLVED: "resolve",
    e.SUPPLIED: "resolve with output",
}
"""The operator's verb behind each of the events that record one."""
