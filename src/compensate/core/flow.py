"""The flow of a saga through its graph: what is next when something completes, what is next when something is undone.

Forward, a node is ready when nothing is missing of what it depends on. Backward, it comes to its turn when nothing
that depends on it is left (S3). Both are kept by counting edges: each event costs O(edges of its node), and the start
of a rollback looks at every node once. Nothing recurses. Which events are possible is the business of `log`; what is
done of all that is ready, of `machine`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from copy import copy
from heapq import heappush
from typing import Final, Literal, Self, TypeAlias, cast

from compensate.core import events as e
from compensate.core import states as s
from compensate.core.dag import ConstantNode
from compensate.core.plan import ACTION, FAN_BEGIN, Plan

NEVER: Final = float("inf")
"""The time of an alarm that is not set."""

Question: TypeAlias = Literal["when", "items"]
"""What the machine asks: does the branch go on, or which items does the fan-out have."""


class Flow:
    """The state of one saga, and what is ready in it.

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
        deaths: How often in a row the process died while the action of a node ran, for nodes that are to be run again.
        undo_deaths: The same for undos.
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
    executing: int = 0
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
        self._convicted: dict[int, str] = {}
        self._unlearnable: dict[int, str] = {}
        """Nodes in doubt whose action is not run again to learn its output, and why: it killed its process too often,
        or it returned what the log cannot hold."""
        self.deaths: dict[int, int] = {}
        self.undo_deaths: dict[int, int] = {}
        self._rerun: set[int] = set()
        self._due: dict[int, float] = {}
        self._timers: list[tuple[float, int]] = []
        self._taken: set[int] = set()
        self._lingering: set[int] = set()
        self._held: set[int] = set()

    # -- a plan that grows -------------------------------------------------

    def take_up(self) -> None:
        """Take up the nodes that were added to the plan; none of them has started."""
        known = len(self.state)
        added = len(self.plan.names) - known
        pending: list[s.NodeState] = [s.PENDING]
        self.state.extend(pending * added)
        self.output.extend([None] * added)
        self.attempt.extend([0] * added)
        self._queued.extend(bytes(added))
        self._missing.extend(self.plan.missing[known:])

    def sketch(self) -> Self:
        """A copy to look ahead on: its plan may grow, and it takes no events."""
        other = copy(self)
        other.plan = self.plan.copy()
        other.state, other.output, other.attempt = self.state[:], self.output[:], self.attempt[:]
        other._queued, other._missing = self._queued[:], self._missing[:]
        return other

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
        """Node `i` has its output: what waited only for it is next. Brackets and constants complete on the way.

        What becomes ready is queued in the order of the dag; the elements of a fan-out in the order of its items.
        """
        plan = self.plan
        missing = self._missing
        open_: list[int] | None = None
        at = 0
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
            if open_ is None or at == len(open_):
                return
            i = open_[at]
            at += 1

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
        self._held.clear()
        self._given_up.clear()
        # Only an action whose output the undo needs is run again.
        self.deaths = {i: n for i, n in self.deaths.items() if self.plan.action(i).undo == "output"}
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
        if self.has_to_undo(i):
            self._queue_undo(i)
        elif self.state[i] != s.UNDO_FAILED:
            self._settle(i)

    def _queue_undo(self, i: int) -> None:
        """Undo node `i` next, unless its undo needs an output that running the action again would not give."""
        why = self._unlearnable.get(i)
        if why is not None and self.state[i] == s.IN_DOUBT and self.plan.action(i).undo == "output":
            self._given_up[i] = why
        else:
            self._queue(i)

    def has_to_undo(self, i: int) -> bool:
        """Whether the undo of node `i` is still to be run, in a rollback."""
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
                    if self.has_to_undo(dep):
                        self._queue_undo(dep)
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

    @property
    def given_up(self) -> Mapping[int, str]:
        """The nodes that are given up now and why, in the order in which that happened."""
        return self._given_up

    def choices(self, i: int) -> tuple[str, ...]:
        """The operator's verbs that are legal for node `i` now: values of `VERBS`."""
        if i not in self._given_up and not self._decidable_while_paused(i):
            return ()
        if self.rollback is None:
            # Without its output nothing can follow a node, so to skip or resolve it is to roll the saga back.
            leave = self.state[i] == s.IN_DOUBT and (i in self._convicted or i not in self._given_up)
            return _ALL if leave and self.may_turn_back() else ("retry", "resolve with output")
        return _ALL if self.state[i] == s.IN_DOUBT else ("retry", "skip", "resolve")

    def _decidable_while_paused(self, i: int) -> bool:
        """Whether the saga is paused and node `i`, which is in doubt or not undone, waits to be run again."""
        if not self.paused or i in self._lingering:
            return False
        if self.rollback is None:
            return self.state[i] == s.IN_DOUBT
        return self.state[i] == s.UNDO_FAILED or (
            self.state[i] == s.IN_DOUBT and not self._live[i] and self.has_to_undo(i)
        )

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


_ALL: Final = ("retry", "skip", "resolve", "resolve with output")
_EXECUTING: Final = frozenset({s.RUNNING, s.UNDOING})
