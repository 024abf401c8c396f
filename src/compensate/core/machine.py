"""The machine: the one place that decides what a saga does next.

It does no I/O. The runtime tells it facts (`succeed`, `fail`, ...); each becomes
an event, applied at once and kept in `unsaved` until the runtime has made it
durable. `next` decides; its decisions are events too, and the commands that it
returns are to be carried out only once those events are durable (S8). Recovery is
`apply` over the stored events, then `interrupted`, then `next`. After a failed
append the machine is thrown away and folded anew from the log (S10).
"""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heappop
from typing import Final, cast

from compensate.core import events as e
from compensate.core import states as s
from compensate.core.commands import Ask, CancelAction, Command, Finish, RunAction, RunUndo, WaitUntil
from compensate.core.events import Event
from compensate.core.facts import Facts
from compensate.core.flow import NEVER
from compensate.core.log import VERBS
from compensate.core.plan import ACTION, LAST, ROOT, Plan
from compensate.core.standing import PLAIN, Standing
from compensate.errors import CorruptLog, IllegalRequest

UNBOUNDED: Final = 1 << 60
"""Room for any number of actions."""


class Machine(Facts):
    """One saga: its state, and what is to be done.

    Args:
        plan: The dag, laid flat.
        saga_id: The saga's id; keys and jitter are made of it.
        epoch: Fencing token under which new events are written.
        grace: Seconds for which a rollback by request or deadline waits for running actions.
        crashes: A node is given up when its process has died so many times in a row while it ran.
    """

    def __init__(
        self, plan: Plan, saga_id: str, epoch: int = 1, grace: float = 30.0, *, crashes: int = 5
    ) -> None:
        super().__init__(plan, saga_id, epoch)
        self.grace = grace
        self.crashes = crashes

    @classmethod
    def fold(
        cls,
        plan: Plan,
        saga_id: str,
        events: Iterable[Event],
        epoch: int,
        grace: float = 30.0,
        *,
        crashes: int = 5,
        lingering: set[int] | None = None,
    ) -> Machine:
        """Build the machine of a stored saga, to go on under `epoch`.

        `lingering`: what no log holds: nodes that timed out and whose threads have not ended. They hold back from the
        first event on, so it is too late to tell afterwards. Another process that ran the saga meanwhile did not know
        of these threads, so its log may hold what they would have held back; then they hold back only what is to come.

        Raises:
            CorruptLog: The events are not a possible log.
        """
        events = list(events)
        machine = cls(plan, saga_id, 0, grace, crashes=crashes)
        try:
            if lingering:
                machine._lingering = lingering
            for event in events:
                machine.apply(event)
        except CorruptLog:
            if not lingering:
                raise
            machine = cls(plan, saga_id, 0, grace, crashes=crashes)
            for event in events:
                machine.apply(event)
        if lingering is not None:
            machine._lingering = lingering
        if epoch < machine.epoch:
            raise CorruptLog(
                f"saga {saga_id}: its log holds epoch {machine.epoch}, above its row's epoch {epoch}"
            )
        machine.epoch = epoch
        return machine

    @property
    def standing(self) -> Standing:
        """How the saga stands, `unsaved` events included; a store writes it together with them."""
        status = self.status or s.RUNNING
        deaths, undo_deaths = self.deaths, self.undo_deaths
        if not (deaths or undo_deaths or self.paused or status == s.STUCK):
            return PLAIN[status]
        most = max((*deaths.values(), *undo_deaths.values()), default=0)
        return Standing(status, self.paused, self.is_parked, most)

    # -- requests ----------------------------------------------------------

    def roll_back(self, now: float, *, who: str = "", why: str = "", grace: float | None = None) -> bool:
        """Begin the rollback of a saga that is running, completed, or stuck going forward, on request.

        A node that was given up because its process died is not run again to learn its output; it stays given up.

        Returns:
            `False` if a pivot is in flight: ask again when something has landed.

        Raises:
            IllegalRequest: A pivot completed or is in doubt, or the saga is parked, rolling back or rolled back, or
                stuck rolling back.
        """
        stuck_forward = self.status == s.STUCK and self.rollback is None and not self.is_parked
        if self.status not in (s.RUNNING, s.COMPLETED) and not stuck_forward:
            raise self._illegal("rolled back", self._why_not())
        if self._pivots_done:
            pivot = next(self.plan.names[i] for i in self.plan.pivots if self.state[i] == s.COMPLETED)
            raise self._illegal("rolled back", f"its pivot {pivot!r} has completed, and it only goes forward")
        if not self.may_turn_back():
            if stuck_forward:
                raise self._illegal("rolled back", f"its pivot is in doubt; {self._why_not()}")
            return False
        until = now + (self.grace if grace is None else grace)
        self._record(e.SAGA_ROLLBACK, now, e.Rollback("request", who=who, why=why, grace_until=until))
        return True

    def pause(self, now: float, *, who: str = "", why: str = "") -> None:
        """Start nothing more until `resume`; what runs may land. Does nothing if paused already."""
        if self.status in s.ENDS:
            raise self._illegal("paused", self._why_not())
        if not self.paused:
            self._record(e.SAGA_PAUSED, now, e.Decided(who, why))

    def resume(self, now: float, *, who: str = "", why: str = "") -> None:
        """Go on after `pause`. Does nothing if not paused.

        Raises:
            IllegalRequest: The saga is stuck: what it is stuck at has to be decided first.
        """
        if self.paused and self.status == s.STUCK:
            raise self._illegal(
                "resumed", "it is stuck; decide about its nodes first, or bring missing code back"
            )
        if self.paused:
            self._record(e.SAGA_RESUMED, now, e.Decided(who, why))

    def retry(self, node: str, now: float, *, who: str = "", why: str = "") -> None:
        """Try a stuck node again, with all its attempts."""
        self._decide_stuck(e.RETRIED, node, now, e.Decided(who, why))

    def skip(self, node: str, now: float, *, who: str = "", why: str = "") -> None:
        """Leave a stuck node's effect as it is. Going forward, the saga is rolled back from there."""
        self._decide_stuck(e.SKIPPED, node, now, e.Decided(who, why))

    def resolve(
        self, node: str, now: float, *, who: str = "", why: str = "", output: bytes | None = None
    ) -> None:
        """A stuck node was undone by hand; or, with `output`, this (JSON) is what its action returned.

        Without `output`, a saga that goes forward is rolled back from there.
        """
        if output is None:
            self._decide_stuck(e.RESOLVED, node, now, e.Decided(who, why))
        else:
            self._decide_stuck(e.SUPPLIED, node, now, e.Supplied(output, who, why))

    def _decide_stuck(self, kind: str, node: str, now: float, data: e.Data) -> None:
        i = self.plan.index.get(node)
        if i is None:
            raise IllegalRequest(f"saga {self.saga_id}: it has no node {node[:80]!r}")
        choices = self.choices(i)
        if VERBS[kind] not in choices:
            can = f"for this node one can: {', '.join(choices)}" if choices else "the node is not stuck"
            raise IllegalRequest(
                f"saga {self.saga_id}: {VERBS[kind]} makes no sense for node {node!r} ({self.state[i]}); {can}"
            )
        self._record_node(kind, i, 0, now, data)
        if self._let_go:  # nothing can follow a node that has no output
            decided = cast(e.Decided, data)
            until = now + self.grace
            self._record(
                e.SAGA_ROLLBACK, now, e.Rollback("request", node, decided.who, decided.why, grace_until=until)
            )

    def park(self, reason: str, now: float) -> None:
        """Code that this saga needs is not there: stuck until it is back. Only before anything was dispatched."""
        self._record(e.SAGA_STUCK, now, e.SagaStuck(parked=reason))

    def unpark(self, now: float) -> None:
        """The code is back."""
        self._record(e.SAGA_UNPARKED, now, None)

    def _why_not(self) -> str:
        if self.status != s.STUCK:
            return f"it is {(self.status or '').replace('_', ' ')} already"
        return "it is stuck; " + (
            "bring the missing code back" if self.is_parked else "decide about its stuck nodes first"
        )

    def _illegal(self, what: str, why: str) -> IllegalRequest:
        return IllegalRequest(f"saga {self.saga_id} cannot be {what}: {why}")

    # -- the short way -----------------------------------------------------

    @property
    def calm(self) -> bool:
        """Whether exactly one node runs and nothing else is going on: then `advance` and `retreat` may be used."""
        return self.executing == 1 and not (
            self.unsaved
            or self._ready
            or self._asks
            or self.paused
            or self._given_up
            or self._late
            or self._alarm != NEVER
            or self.doubted
            or self.undo_deaths
            or self._lingering
            or self.plan.pivots
        )

    def advance(self, i: int, output: bytes, now: float) -> int:
        """`succeed` and `next` in one, for a link of a chain; the events are the same.

        Only while `calm`, and nothing has been recorded since node `i` started.

        Returns:
            The node whose action is to be run next, once `unsaved` is durable; `LAST`: the saga has completed; -1: ask
            `next`.
        """
        plan = self.plan
        j = plan.successor[i]
        if j == -1 or self.rollback is not None:
            self.succeed(i, output, now)
            return -1
        if j == LAST:
            self.succeed(i, output, now)
            self._record(e.SAGA_COMPLETED, now, None)
            return LAST
        names = plan.names
        seq = self.seq
        self.unsaved = [
            Event(seq + 1, self.epoch, now, e.COMPLETED, names[i], self.attempt[i], e.Completed(output)),
            Event(seq + 2, self.epoch, now, e.STARTED, names[j], 1, None),
        ]
        self.seq = seq + 2
        state = self.state
        state[i] = s.COMPLETED
        state[j] = s.RUNNING
        self.output[i] = output
        self.attempt[j] = 1
        self._missing[j] = 0
        return j

    def retreat(self, i: int, now: float) -> int:
        """`undo_succeed` and `next` in one, for a link of a chain; as `advance`.

        Returns:
            The node whose undo is to be run next, once `unsaved` is durable; -1: ask `next`.
        """
        plan = self.plan
        j = plan.predecessor[i]
        if j < 0 or not plan.undoable[j] or self._live[j] != 1 or self.state[j] != s.COMPLETED:
            self.undo_succeed(i, now)
            return -1
        names = plan.names
        seq = self.seq
        self.unsaved = [
            Event(seq + 1, self.epoch, now, e.UNDONE, names[i], self.undo_attempt[i], None),
            Event(seq + 2, self.epoch, now, e.UNDO_STARTED, names[j], 1, None),
        ]
        self.seq = seq + 2
        self.state[i] = s.UNDONE
        self.state[j] = s.UNDOING
        self.undo_attempt[j] = 1
        self._live[j] = 0
        return j

    @property
    def starved(self) -> bool:
        """Whether something is ready for which `next` had no room."""
        return bool(self._ready)

    # -- decisions ---------------------------------------------------------

    def next(self, now: float, room: int = UNBOUNDED) -> list[Command]:
        """Decide. The events of the decisions are in `unsaved`: make them durable, then carry the commands out.

        Args:
            now: The time, by the coordinator's clock.
            room: How many more actions and undos may run at once.
        """
        commands: list[Command] = []
        if self.paused or (self.status != s.RUNNING and self.status != s.ROLLING_BACK):
            return commands
        if self._alarm <= now:
            self._ring(now, commands)
        if self.rollback is None:
            if self._late or len(self._given_up) > len(self._convicted):
                self._consider_turning_back(now)
            if self._asks and self._ask(commands):
                return commands
        ready = self._ready
        while ready and room > 0:
            i = ready.popleft()
            if not self._queued[i]:
                continue
            if i in self._lingering:
                self._queued[i] = 0
                self._held.add(i)
                continue
            commands.append(self._start(i, now))
            room -= 1
        if not self.executing and not ready and not commands:
            self._finish(now, commands)
        if self._alarm != NEVER and self.status not in s.ENDS:
            commands.append(WaitUntil(self._alarm))
        return commands

    def _start(self, i: int, now: float) -> Command:
        if self.rollback is not None and (
            self.state[i] != s.IN_DOUBT or self.plan.action(i).undo == "unknown"
        ):
            attempt = self.undo_attempt.get(i, 0) + 1
            self._record_node(e.UNDO_STARTED, i, attempt, now, None)
            return RunUndo(i, attempt)
        attempt = self.attempt[i] + 1
        event = Event(self.seq + 1, self.epoch, now, e.STARTED, self.plan.names[i], attempt, None)
        self._on_started(i, event)
        self.seq += 1
        self.unsaved.append(event)
        return RunAction(i, attempt)

    def _ask(self, commands: list[Command]) -> bool:
        for i in dict.fromkeys(self._asks):  # a log read again may have queued a node twice
            question = self.question(i)
            if question is not None:
                commands.append(Ask(i, question))
        self._asks.clear()
        return bool(commands)

    def _consider_turning_back(self, now: float) -> None:
        if not self.may_turn_back():
            return
        failed = [i for i in self._given_up if i not in self._convicted]
        if failed:
            first = failed[0]
            data = e.Rollback("failure", self.plan.names[first], why=self._given_up[first])
        else:
            data = e.Rollback("deadline", why="its deadline passed", grace_until=now + self.grace)
        self._record(e.SAGA_ROLLBACK, now, data)

    def _ring(self, now: float, commands: list[Command]) -> None:
        """Some time has come: of a retry, of the deadline, of the end of a grace."""
        while self._timers and self._timers[0][0] <= now:
            at, i = heappop(self._timers)
            if self._due.get(i) == at:
                del self._due[i]
                self._queue(i)
        if self._to_cancel <= now:
            self._to_cancel = NEVER
            for i, state in enumerate(self.state):
                if state == s.RUNNING and self.plan.kinds[i] == ACTION and i not in self._rerun:
                    commands.append(CancelAction(i))
        if self._deadline() <= now:
            self._late = True
        self._reset_alarm()

    def _finish(self, now: float, commands: list[Command]) -> None:
        """Nothing runs and nothing can be started: wait, or record the end."""
        if self._due or self._lingering:
            return
        if self.rollback is None:
            if self.state[self.plan.end] == s.COMPLETED:
                self._record(e.SAGA_COMPLETED, now, None)
            elif self._unanswerable and not self._given_up:
                self._record(e.SAGA_STUCK, now, e.SagaStuck(parked=self._unanswerable))
            else:
                self._record(e.SAGA_STUCK, now, self._stuck())
        elif not self._live[ROOT]:
            self._record(e.SAGA_ROLLED_BACK, now, None)
        else:
            self._record(e.SAGA_STUCK, now, self._stuck())
        commands.append(Finish(cast(s.SagaStatus, self.status)))

    def _stuck(self) -> e.SagaStuck:
        assert self._given_up, "nothing to do, nothing awaited, no node given up, and yet no end"
        return e.SagaStuck(
            tuple(
                e.StuckNode(self.plan.names[i], why, self.choices(i))
                for i, why in sorted(self._given_up.items())
            )
        )
