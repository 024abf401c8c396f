"""The log, folded: what a saga's events amount to, and which events cannot be.

`Fold.apply` takes one event after the other and keeps, besides the state of each
node, the queues from which `machine` decides. It checks every event against the
transition tables and against the rules above them (sequence, epochs, S3, S4, S7)
and refuses what cannot be (S12). Each event costs O(edges of its node); the start
of a rollback looks at every node once. Nothing recurses.
"""

from __future__ import annotations

from collections import deque
from heapq import heappush
from typing import Final, Literal, TypeAlias, cast

from compensate.core import events as e
from compensate.core import states as s
from compensate.core.dag import ConstantNode
from compensate.core.events import Event
from compensate.core.plan import ACTION, FAN_BEGIN, ROOT, Plan
from compensate.errors import CorruptLog

NEVER: Final = float("inf")
"""The time of an alarm that is not set."""

Question: TypeAlias = Literal["when", "items"]
"""What the machine asks: does the branch go on, or which items does the fan-out have."""


class Fold:
    """What a saga's events amount to.

    Args:
        plan: The dag, laid flat.
        saga_id: The saga's id; keys and jitter are made of it.

    Attributes:
        epoch: Highest epoch seen.
        state: State of each node, by index.
        output: JSON of each completed action node.
        attempt: How often each action was started.
        rollback: How the rollback began; `None` while going forward.
        executing: How many actions and undos run.
    """

    # What most sagas never touch stands on the class: a saga's making is on the path of every saga.
    epoch = 0
    seq = 0
    status: s.SagaStatus | None = None
    paused = False
    params = b""
    created: e.Created | None = None
    rollback: e.Rollback | None = None
    stuck: e.SagaStuck | None = None
    executing = 0
    _alarm = NEVER
    _to_cancel = NEVER
    _late = False
    _pivots_done = 0
    _own_plan = False

    def __init__(self, plan: Plan, saga_id: str) -> None:
        n = len(plan.names)
        self.plan = plan
        self.saga_id = saga_id
        self.state: list[s.NodeState] = [s.PENDING] * n
        self.output: list[bytes | None] = [None] * n
        self.attempt: list[int] = [0] * n
        self.undo_attempt: dict[int, int] = {}
        self.failures: dict[int, int] = {}
        self.undo_failures: dict[int, int] = {}
        self.errors: dict[int, e.Failed | e.InDoubt] = {}
        self.undo_errors: dict[int, e.UndoFailed] = {}
        self.doubted: set[int] = set()
        self._missing = plan.missing[:]
        self._live: list[int] = []
        self._ready: deque[int] = deque()
        self._queued = bytearray(n)
        self._asks: list[int] = []
        self._given_up: dict[int, str] = {}
        self._rerun: set[int] = set()
        self._due: dict[int, float] = {}
        self._timers: list[tuple[float, int]] = []
        self._taken: set[int] = set()
        self._lingering: set[int] = set()
        self._held: set[int] = set()

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
            if not self._has_to_undo(i) or (self.state[i] == s.IN_DOUBT and not takes_none):
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
        handler = _HANDLERS.get(event.type)
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
            if self.status != s.STUCK or self.stuck is None or not self.stuck.parked:
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
        if data.clean:
            self.doubted.discard(i)
        self._after_failure(i, data.retry_at, data.error)

    def _on_in_doubt(self, i: int, event: Event) -> None:
        self._land(i, event)
        data = cast(e.InDoubt, event.data)
        self.errors[i] = data
        self.doubted.add(i)
        if data.reason == "crash":
            if self.rollback is not None:
                self._turn(i)
            else:
                self._queue(i)
            return
        self.failures[i] = self.failures.get(i, 0) + 1
        self._after_failure(i, data.retry_at, data.error)

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
        self._settle(i)

    def _on_undo_failed(self, i: int, event: Event) -> None:
        self._land_undo(i, event)
        data = cast(e.UndoFailed, event.data)
        self.undo_errors[i] = data
        if data.interrupted:
            self._queue(i)
            return
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
        self.state.extend([s.PENDING] * count)
        self.output.extend([None] * count)
        self.attempt.extend([0] * count)
        self._queued.extend(bytes(count))
        self._missing.extend([1] * count)
        self._missing[i] += count
        self._complete(begin)

    def _decided(self, i: int, event: Event) -> None:
        """An operator decided about a stuck node: the saga goes on."""
        after = self._after(i, event)
        if VERBS[event.type] not in self.choices(i):
            raise self._corrupt(event, "the node is not stuck, or not in a way that this would mend")
        self.state[i] = after
        del self._given_up[i]
        self._unstick()

    def _on_retried(self, i: int, event: Event) -> None:
        self._decided(i, event)
        self.failures.pop(i, None)
        self.undo_failures.pop(i, None)
        self._queue(i)

    def _on_let_go(self, i: int, event: Event) -> None:
        self._decided(i, event)
        if i not in self._lingering:  # a thread that still runs holds back what the node depends on (S3)
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

    def _unstick(self) -> None:
        if self.status == s.STUCK:
            self.status = s.RUNNING if self.rollback is None else s.ROLLING_BACK
            self.stuck = None

    # -- forward -----------------------------------------------------------

    def _complete(self, i: int) -> None:
        """A bracket has nothing more to wait for."""
        self.state[i] = s.COMPLETED
        self._forward_from(i)

    def _pass_pivot(self, i: int) -> None:
        if i in self.plan.pivots:
            self._pivots_done += 1
            self._reset_alarm()

    def _forward_from(self, i: int) -> None:
        """Node `i` has its output: what waited only for it is next. Brackets and constants complete on the way."""
        plan = self.plan
        missing = self._missing
        open_: list[int] | None = None
        while True:
            for j in plan.dependants[i]:
                left = missing[j] = missing[j] - 1
                if left:
                    continue
                if j in plan.asks:
                    self._asks.append(j)
                elif plan.kinds[j] == ACTION:
                    self._queued[j] = 1
                    self._ready.append(j)
                else:
                    self.state[j] = s.COMPLETED
                    if open_ is None:
                        open_ = [j]
                    else:
                        open_.append(j)
            if not open_:
                return
            i = open_.pop()

    def _queue(self, i: int) -> None:
        self._queued[i] = 1
        self._ready.append(i)

    def _wait(self, i: int, until: float) -> None:
        self._due[i] = until
        heappush(self._timers, (until, i))
        self._alarm = min(self._alarm, until)

    def _deadline(self) -> float:
        if (
            self.rollback is not None
            or self._pivots_done
            or self.created is None
            or self.created.deadline is None
        ):
            return NEVER
        return self.created.deadline

    def _reset_alarm(self) -> None:
        timer = self._timers[0][0] if self._timers else NEVER
        deadline = NEVER if self._late else self._deadline()
        self._alarm = min(timer, self._to_cancel, deadline)

    # -- backward ----------------------------------------------------------

    def _turn_back(self) -> None:
        """Begin the rollback: count, for each node that came alive, the dependants that did; undo from the far end."""
        deps = self.plan.deps
        self._ready.clear()
        self._asks.clear()
        self._queued = bytearray(len(self.state))
        self._due.clear()
        self._timers.clear()
        self._given_up.clear()
        live = self._live = [0] * len(self.state)
        alive = [i for i, state in enumerate(self.state) if state != s.PENDING]
        for i in alive:
            for dep in deps[i]:
                live[dep] += 1
        assert self.rollback is not None
        self._to_cancel = NEVER if self.rollback.grace_until is None else self.rollback.grace_until
        self._reset_alarm()
        for i in [i for i in alive if not live[i]]:
            self._turn(i)

    def _turn(self, i: int) -> None:
        """Node `i` may have come to its turn to be undone: queue it, or pass over it if there is nothing to undo."""
        if (
            self._live[i]
            or i in self._lingering
            or (self.state[i] in _EXECUTING and self.plan.kinds[i] == ACTION)
        ):
            return
        if self._has_to_undo(i):
            self._queue(i)
        elif self.state[i] != s.UNDO_FAILED:
            self._settle(i)

    def _has_to_undo(self, i: int) -> bool:
        if self.plan.kinds[i] != ACTION:
            return False
        undo = self.plan.action(i).undo
        state = self.state[i]
        if undo == "none":
            return False
        if state == s.COMPLETED or state == s.IN_DOUBT:
            return True
        return state == s.FAILED and undo == "unknown" and not cast(e.Failed, self.errors[i]).clean

    def _settle(self, i: int) -> None:
        """Nothing of node `i` is left: what it depends on may come to its turn."""
        live = self._live
        open_ = [i]
        while open_:
            for dep in self.plan.deps[open_.pop()]:
                live[dep] -= 1
                if live[dep] or dep in self._lingering:
                    continue
                if self.state[dep] == s.PENDING:
                    continue  # behind a bracket that was cut short or skipped: it holds nothing back
                if self.plan.kinds[dep] == ACTION:
                    if self.state[dep] in _EXECUTING:
                        continue
                    if self._has_to_undo(dep):
                        self._queue(dep)
                        continue
                open_.append(dep)

    # -- looking -----------------------------------------------------------

    def question(self, i: int) -> Question | None:
        """What has to be asked before node (or begin bracket) `i` goes on."""
        if i not in self.plan.asks or self.state[i] != s.PENDING:
            return None
        spec = self.plan.specs[i]
        if (
            i not in self._taken
            and not isinstance(spec, ConstantNode)
            and spec is not None
            and spec.when is not None
        ):
            return "when"
        return "items" if self.plan.kinds[i] == FAN_BEGIN else None

    def unblocked(self, i: int) -> bool:
        """Whether everything that node `i` depends on has completed."""
        return not self._missing[i]

    def choices(self, i: int) -> tuple[str, ...]:
        """The operator's verbs that are legal for node `i` now: values of `VERBS`."""
        if i not in self._given_up:
            return ()
        if self.rollback is None:
            return ("retry", "resolve with output")
        if self.state[i] == s.IN_DOUBT:
            return ("retry", "skip", "resolve", "resolve with output")
        return ("retry", "skip", "resolve")

    def may_turn_back(self) -> bool:
        """Whether a rollback may begin: not after a pivot completed, nor while one is in flight (its end decides)."""
        pivots = self.plan.pivots
        if not pivots:
            return True
        if self._pivots_done:
            return False
        for i in pivots:
            state = self.state[i]
            if state == s.RUNNING:
                return False
            if state == s.IN_DOUBT and (i not in self._given_up or self.plan.action(i).undo == "none"):
                return False
        return True

    @property
    def pivot_passed(self) -> bool:
        """Whether a pivot has completed: from then on the saga only goes forward."""
        return self._pivots_done > 0


_ANSWERS: Final = frozenset({e.BRANCH_TAKEN, e.BRANCH_SKIPPED, e.EXPANDED})
_STARTS: Final = frozenset({e.STARTED, e.UNDO_STARTED})
_ENDINGS: Final = frozenset({e.SAGA_COMPLETED, e.SAGA_ROLLED_BACK, e.SAGA_STUCK})
_EXECUTING: Final = frozenset({s.RUNNING, s.UNDOING})
_OPEN: Final = frozenset({s.RUNNING, s.ROLLING_BACK})
_STARTED: Final = s.NODE[e.STARTED]

VERBS: Final = {
    e.RETRIED: "retry",
    e.SKIPPED: "skip",
    e.RESOLVED: "resolve",
    e.SUPPLIED: "resolve with output",
}
"""The operator's verb behind each of the events that record one."""

_HANDLERS: Final = {
    e.STARTED: Fold._on_started,
    e.COMPLETED: Fold._on_completed,
    e.FAILED: Fold._on_failed,
    e.IN_DOUBT: Fold._on_in_doubt,
    e.UNDO_STARTED: Fold._on_undo_started,
    e.UNDONE: Fold._on_undone,
    e.UNDO_FAILED: Fold._on_undo_failed,
    e.BRANCH_TAKEN: Fold._on_branch_taken,
    e.BRANCH_SKIPPED: Fold._on_branch_skipped,
    e.EXPANDED: Fold._on_expanded,
    e.RETRIED: Fold._on_retried,
    e.SKIPPED: Fold._on_let_go,
    e.RESOLVED: Fold._on_let_go,
    e.SUPPLIED: Fold._on_supplied,
}
