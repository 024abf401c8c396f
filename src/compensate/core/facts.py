"""The facts: what the runtime tells of the world outside, each recorded as an event.

An event is applied at once and kept in `unsaved` until the runtime has made it
durable. Whether and when a failed attempt is tried again is said in its event, so
that a crash forgets neither.
"""

from __future__ import annotations

from collections.abc import Container, Sequence

from compensate.core import events as e
from compensate.core import states as s
from compensate.core.events import Event
from compensate.core.log import Fold
from compensate.core.names import key
from compensate.core.plan import ACTION, Plan
from compensate.core.policy import Retry


class Facts(Fold):
    """A log that is being written.

    Args:
        plan: The dag, laid flat.
        saga_id: The saga's id; keys and jitter are made of it.
        epoch: Fencing token under which new events are written.

    Attributes:
        unsaved: Events recorded but not yet durable.
    """

    _unanswerable = ""
    crashes = 5
    """A node is given up when its process has died so many times in a row while it ran."""

    def __init__(self, plan: Plan, saga_id: str, epoch: int = 1) -> None:
        super().__init__(plan, saga_id)
        self.epoch = epoch
        self.unsaved: list[Event] = []

    def take(self) -> list[Event]:
        """The events that are to be made durable now; `unsaved` is empty afterwards."""
        events = self.unsaved
        self.unsaved = []
        return events

    def _record_node(self, kind: str, i: int, attempt: int, now: float, data: e.Data) -> None:
        event = Event(self.seq + 1, self.epoch, now, kind, self.plan.names[i], attempt, data)
        self._apply_node(i, event)
        self.seq += 1
        self.unsaved.append(event)

    def _record(self, kind: str, now: float, data: e.Data) -> None:
        event = Event(self.seq + 1, self.epoch, now, kind, "", 0, data)
        self._apply_saga(event)
        self.seq += 1
        self.unsaved.append(event)

    # -- facts -------------------------------------------------------------

    def create(self, params: bytes, now: float, deadline: float | None = None) -> None:
        """The saga begins. `params`: a JSON object; `deadline`: seconds since the epoch."""
        created = e.Created(params, deadline)
        self._open(created)
        self.seq = 1
        self.unsaved.append(Event(1, self.epoch, now, e.SAGA_CREATED, "", 0, created))

    def succeed(self, i: int, output: bytes, now: float) -> None:
        """The running action of node `i` returned `output` (JSON)."""
        self._record_node(e.COMPLETED, i, self.attempt[i], now, e.Completed(output))

    def fail(
        self,
        i: int,
        error: e.ErrorInfo,
        now: float,
        *,
        kinds: Sequence[Sequence[str]] = (),
        clean: bool = False,
        permanent: bool = False,
    ) -> None:
        """The running action of node `i` raised.

        Args:
            i: Index of the node.
            error: What it raised.
            now: The time.
            kinds: For each leaf of the error (itself, if it is no group) the qualified names of its class and bases.
                `Retry.on` and `never` are held against each: all leaves must allow another attempt.
            clean: It said that nothing under its key happened (`NoEffect`): clears earlier doubts.
            permanent: Do not try again.
        """
        if i in self.doubted and not clean:
            self.doubt(i, "failed_after_doubt", now, error=error, kinds=kinds, permanent=permanent)
            return
        # Run again in a rollback, a node that turns out clean needs neither another attempt nor an undo.
        again = not permanent and not (clean and self.rollback is not None)
        retry_at = self._retry_at(i, kinds, now) if again else None
        self._record_node(e.FAILED, i, self.attempt[i], now, e.Failed(error, retry_at, clean))

    def doubt(
        self,
        i: int,
        reason: e.Doubt,
        now: float,
        *,
        error: e.ErrorInfo | None = None,
        kinds: Sequence[Sequence[str]] = (),
        permanent: bool = False,
    ) -> None:
        """The running action of node `i` may or may not have taken effect. Arguments as for `fail`."""
        retry_at = None if permanent else self._retry_at(i, kinds, now)
        self._record_node(e.IN_DOUBT, i, self.attempt[i], now, e.InDoubt(reason, error, retry_at))

    def _retry_at(self, i: int, kinds: Sequence[Sequence[str]], now: float) -> float | None:
        if self.rollback is not None and i not in self._rerun:
            return None  # S4: nothing starts again; it is undone
        failures = self.failures.get(i, 0) + 1
        retry = self.plan.action(i).retry
        if not _allows(retry, failures, kinds):
            return None
        return now + retry.delay(failures, key(self.saga_id, self.plan.names[i], "do"))

    def undo_succeed(self, i: int, now: float) -> None:
        """The running undo of node `i` returned."""
        self._record_node(e.UNDONE, i, self.undo_attempt[i], now, None)

    def undo_fail(
        self,
        i: int,
        error: e.ErrorInfo,
        now: float,
        *,
        kinds: Sequence[Sequence[str]] = (),
        permanent: bool = False,
    ) -> None:
        """The running undo of node `i` raised or timed out. Arguments as for `fail`."""
        failures = self.undo_failures.get(i, 0) + 1
        retry = self.plan.action(i).undo_retry
        retry_at = None
        if not permanent and _allows(retry, failures, kinds):
            retry_at = now + retry.delay(failures, key(self.saga_id, self.plan.names[i], "undo"))
        self._record_node(e.UNDO_FAILED, i, self.undo_attempt[i], now, e.UndoFailed(error, retry_at))

    def interrupted(self, now: float, except_for: Container[int] = (), *, died: bool) -> None:
        """The saga was just folded from its log: what ran then does not run any more.

        Args:
            now: The time.
            except_for: Nodes that run on in this process.
            died: Whether the process in which they ran died. Then each of those nodes has one more death in a row,
                and is given up at `crashes` of them (an action that is not run again in the rollback is not counted).
                Otherwise the process shut down or released the saga, or this
                process lost an append; this neither counts as a death nor resets the count.
        """
        self._shorten_waits(now)
        for i, state in enumerate(self.state):
            if self.plan.kinds[i] != ACTION or i in except_for:
                continue
            if state == s.RUNNING:
                again = self.rollback is None or self.plan.action(i).undo == "output"
                deaths = self.deaths.get(i, 0) + 1 if died and again else 0
                data = e.InDoubt(
                    "crash" if died else "cut_off", deaths=deaths, given_up=deaths >= self.crashes
                )
                self._record_node(e.IN_DOUBT, i, self.attempt[i], now, data)
            elif state == s.UNDOING:
                deaths = self.undo_deaths.get(i, 0) + 1 if died else 0
                failed = e.UndoFailed(interrupted=True, deaths=deaths, given_up=deaths >= self.crashes)
                self._record_node(e.UNDO_FAILED, i, self.undo_attempt[i], now, failed)

    def _shorten_waits(self, now: float) -> None:
        """Wait for no attempt longer than its policy says, should the clock have been set back since it failed."""
        for i, at in list(self._due.items()):
            spec = self.plan.action(i)
            name = self.plan.names[i]
            if self.state[i] == s.UNDO_FAILED:
                delay = spec.undo_retry.delay(self.undo_failures[i], key(self.saga_id, name, "undo"))
            else:
                delay = spec.retry.delay(self.failures[i], key(self.saga_id, name, "do"))
            latest = now + delay
            if latest < at:
                self._wait(i, latest)

    def decide(self, i: int, taken: bool, now: float) -> None:
        """The answer to `Ask(i, "when")`."""
        self._record_node(e.BRANCH_TAKEN if taken else e.BRANCH_SKIPPED, self._end(i), 0, now, None)

    def expand(self, i: int, count: int, now: float) -> None:
        """The answer to `Ask(i, "items")`: the fan-out has `count` elements."""
        self._record_node(e.EXPANDED, self._end(i), 0, now, e.Expanded(count))

    def cannot_answer(self, i: int, why: str, now: float) -> None:
        """What was asked about node `i` cannot be evaluated: the dag is wrong, and asking again would end the same.

        The saga is rolled back; where a pivot forbids that it is parked once nothing runs.
        """
        if self.may_turn_back():
            self._record(e.SAGA_ROLLBACK, now, e.Rollback("failure", self.plan.names[i], why=why))
        else:
            self._unanswerable = f"node {self.plan.names[i]!r}: {why}"

    def _end(self, i: int) -> int:
        return i if self.plan.kinds[i] == ACTION else self.plan.partner[i]

    def record_again(self, event: Event, now: float) -> None:
        """Tell a fact once more whose event was lost in a failed append.

        Raises:
            CorruptLog: It does not fit: the log holds it already, or has gone another way. Nothing was changed.
        """
        if event.node:
            self._record_node(event.type, self.plan.index[event.node], event.attempt, now, event.data)
        else:
            self._record(event.type, now, event.data)

    @property
    def lingering(self) -> set[int]:
        """Nodes that timed out and whose threads have not ended."""
        return self._lingering

    def linger(self, i: int) -> None:
        """Node `i` timed out but its thread cannot be stopped.

        Until `landed`, it is neither tried again nor undone, nor is anything undone that it depends on (S3). To be told
        before the outcome is, lest the node be settled first.
        """
        self._lingering.add(i)

    def landed(self, i: int) -> None:
        """The thread of node `i` has ended."""
        self._lingering.discard(i)
        if i in self._held:
            self._held.discard(i)
            self._queue(i)
        elif (
            self.rollback is not None
            and i not in self._due
            and i not in self._given_up
            and not self._queued[i]
        ):
            self._turn(i)


def _allows(retry: Retry, failures: int, kinds: Sequence[Sequence[str]]) -> bool:
    """Whether every leaf of what was raised allows another attempt."""
    return all(retry.allows(failures, names) for names in kinds or ((),))
