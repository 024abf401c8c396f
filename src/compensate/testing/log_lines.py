"""The lines of the guarantee that a log shows by itself, checked in one walk over its events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from compensate.core import events as e
from compensate.core.dag import Dag
from compensate.core.events import Event
from compensate.testing.shape import Leaf, Shape, Unknown, Worker, count_of, is_within
from compensate.testing.violations import Report

_ENDS: Final = (e.SAGA_COMPLETED, e.SAGA_ROLLED_BACK, e.SAGA_STUCK)
_DECISIONS: Final = (e.RETRIED, e.SKIPPED, e.RESOLVED, e.SUPPLIED)


@dataclass
class Track:
    """What the log has said of one leaf so far."""

    leaf: Leaf
    last: Event | None = None
    started: Event | None = None  # the first time
    success: Event | None = None
    output: bytes = b""
    undo_started: Event | None = None  # the first time
    undone: Event | None = None
    decided: Event | None = None  # an operator's skip or resolve
    running: str = ""  # "do" or "undo" while one is
    doubted: bool = False
    clean: bool = False
    passed_over: bool = False  # on a branch that was not taken
    failures: int = 0  # that count, since an operator last said retry
    retry_at: float | None = None
    rerun: bool = False  # in the rollback, to learn its output; that has a count of its own
    deaths: int = 0  # of its process, in a row, while its action runs; or its undo, once that has started
    given_up: str = ""  # "do" or "undo": what is not run again, for deaths

    @property
    def owes_undo(self) -> bool:
        """Whether an undo has to run before the saga is rolled back."""
        if self.leaf.node.undo == "none" or self.started is None:
            return False
        if self.success is not None:
            return True
        if self.leaf.node.undo == "unknown":
            return not self.clean
        return self.doubted

    @property
    def settled(self) -> bool:
        """Whether a rollback is through with it."""
        return not self.running and (
            not self.owes_undo or self.undone is not None or self.decided is not None
        )

    @property
    def went_well(self) -> bool:
        """Whether what depends on it may start."""
        return self.passed_over or (self.success is not None and self.undo_started is None)


class Walk:
    """Goes through a log, keeps what it says of each leaf, and reports what it violates.

    Args:
        dag: The saga's.
        events: Its log.
        report: Where violations go.
        crashes: At how many deaths in a row a node is given up; `None`: not known.
    """

    def __init__(self, dag: Dag, events: Sequence[Event], report: Report, crashes: int | None = None) -> None:
        self.events = events
        self.report = report
        self.crashes = crashes
        self._let_go: Event | None = None
        expanded = {x.node: x.data.count for x in events if isinstance(x.data, e.Expanded)}
        self.shape = Shape(dag, expanded)
        self.tracks = {path: Track(leaf) for path, leaf in self.shape.leaves.items()}
        self.skipped: set[str] = set()
        self.branches: dict[str, Event] = {}
        self.expanded: dict[str, Event] = {}
        self.outputs: dict[str, bytes] = {}
        self.params = b"{}"
        self.deadline: float | None = None
        self.rollback: Event | None = None
        self.end: Event | None = None
        self.ends: list[tuple[Event, Event | None]] = []
        """Each end, and the decision that followed it."""
        self._well = 0  # leaves that went well
        self._unsettled = 0
        self._last: Event | None = None

    def run(self) -> None:
        """Walk."""
        for event in self.events:
            self._envelope(event)
            if self.end is not None:
                self._after_end(event, self.end)
            if self._let_go is not None and event.type != e.SAGA_ROLLBACK:
                self.report.add(
                    "S1", f"{self._let_go.node} was let go going forward, and no rollback began", [event]
                )
            self._let_go = None
            if event.type.startswith("saga_"):
                self._saga_event(event)
            elif event.type in (e.BRANCH_TAKEN, e.BRANCH_SKIPPED):
                self._branch(event)
            elif event.type == e.EXPANDED:
                self._expansion(event)
            else:
                self._node_event(event)
            self._last = event
        self.worker = self._worker()

    def _worker(self) -> Worker:
        return Worker(self.shape, self.params, self.outputs, self.skipped)

    def _envelope(self, event: Event) -> None:
        last = self._last
        seq = 1 if last is None else last.seq + 1
        if event.seq != seq:
            self.report.add("S12", f"seq {event.seq} stands where {seq} belongs", [last, event])
        if (event.type == e.SAGA_CREATED) != (last is None):
            self.report.add("S12", "a log begins with saga_created, and has one", [event])
        if last is not None and event.epoch < last.epoch:
            self.report.add("S9", f"epoch {event.epoch} after epoch {last.epoch}", [last, event])

    # -- the saga ----------------------------------------------------------

    def _after_end(self, event: Event, end: Event) -> None:
        parked = isinstance(end.data, e.SagaStuck) and bool(end.data.parked)
        requested = isinstance(event.data, e.Rollback) and event.data.cause == "request"
        legal = (
            (end.type == e.SAGA_COMPLETED and requested)
            or (end.type == e.SAGA_STUCK and (event.type in _DECISIONS or requested))
            or (parked and event.type == e.SAGA_UNPARKED)
        )
        if legal:
            self.ends[-1] = (end, event)
        else:
            self.report.add("S1", f"{event.type} after {end.type}, with no decision between", [end, event])
        self.end = None

    def _saga_event(self, event: Event) -> None:
        if isinstance(event.data, e.Created):
            self.params, self.deadline = event.data.params, event.data.deadline
        elif event.type == e.SAGA_ROLLBACK:
            self._rollback(event)
        elif event.type in _ENDS:
            self.end = event
            self.ends.append((event, None))
            running = [track for track in self.tracks.values() if track.running]
            for track in running:
                self.report.add("S1", f"{event.type} while {track.leaf.path} is running", [track.last, event])
            if event.type == e.SAGA_COMPLETED:
                self._completed(event)
            elif event.type == e.SAGA_ROLLED_BACK:
                self._rolled_back(event)
            else:
                self._stuck(event)

    def _rollback(self, event: Event) -> None:
        if self.rollback is not None:
            self.report.add("S1", "rollback began twice", [self.rollback, event])
        if self._last is not None and self._last.type != e.SAGA_COMPLETED:
            for track in self.tracks.values():
                if track.leaf.node.pivot and track.success is not None:
                    self.report.add(
                        "pivot", f"rollback began after the pivot {track.leaf.path}", [track.success, event]
                    )
        data = event.data
        for path, track in self.tracks.items():
            if (
                isinstance(data, e.Rollback)
                and data.cause == "failure"
                and data.node == path
                and track.given_up
            ):
                self.report.add(
                    "crash", f"{path} was given up for deaths, and the saga rolled back by itself", [event]
                )
            if track.leaf.node.undo != "output":
                track.deaths = 0  # it is not run again
        self.rollback = event

    def _completed(self, end: Event) -> None:
        if self.rollback is not None:
            self.report.add("S1", "completed after rollback began", [self.rollback, end])
            return
        for track in self.tracks.values():
            if not track.went_well and not track.running:
                self.report.add("S1", f"completed, but {track.leaf.path} did not succeed", [track.last, end])
        for path in self.shape.fans:
            if path not in self.expanded and not self._passed_over(path):
                self.report.add("S1", f"completed, but the fan-out {path} was not expanded", [end])

    def _rolled_back(self, end: Event) -> None:
        if self.rollback is None:
            self.report.add("S1", "rolled back, but no rollback began", [end])
        for track in self.tracks.values():
            if not track.settled and not track.running:
                self.report.add(
                    "S2",
                    f"rolled back, but {track.leaf.path} may have taken effect and is not undone",
                    [track.started, track.last, end],
                )

    def _stuck(self, end: Event) -> None:
        data = end.data
        if not isinstance(data, e.SagaStuck) or not (data.nodes or data.parked):
            self.report.add("S1", "stuck without naming a node or a reason", [end])
            return
        named = {node.node for node in data.nodes}
        for node in data.nodes:
            self._stuck_node(node, end)
        if data.parked:
            return
        held = 0
        for name in named & self.tracks.keys():
            held |= self.tracks[name].leaf.before
        for path, track in self.tracks.items():
            if path in named or track.running:
                continue
            waits = self.rollback is not None and not track.settled and not held >> track.leaf.bit & 1
            ready = self.rollback is None and track.started is None and not track.leaf.before & ~self._well
            if waits or (ready and not track.passed_over):
                self.report.add("S1", f"stuck, but {path} could still go on", [track.last, end])

    def _stuck_node(self, node: e.StuckNode, end: Event) -> None:
        track = self.tracks.get(node.node)
        if track is None:
            known = node.node in self.shape.fans or node.node in self.shape.branches
            if not known and node.node not in self.shape.subsagas:
                self.report.add("S1", f"stuck at {node.node!r}, which is no node", [end])
        elif track.went_well or (self.rollback is not None and track.settled):
            self.report.add("S1", f"stuck at {node.node}, which needs nothing", [track.last, end])
        if not node.choices:
            self.report.add("S1", f"stuck at {node.node} with no choice named", [end])

    # -- nodes -------------------------------------------------------------

    def _passed_over(self, path: str) -> bool:
        return any(is_within(path, skipped) for skipped in self.skipped)

    def _branch(self, event: Event) -> None:
        path = event.node
        if path not in self.shape.branches:
            self.report.add("S6", f"a branch was decided at {path}, which has none", [event])
            return
        if path in self.branches:
            self.report.add("S5", f"the branch at {path} was decided twice", [self.branches[path], event])
            return
        self.branches[path] = event
        flag, scope, before = self.shape.branches[path]
        self._wait_for(path, before, event)
        try:
            taken = bool(self._worker().value(flag, scope))
        except Unknown as unknown:
            self.report.add(
                "S6", f"the branch at {path} was decided by what is not known: {unknown}", [event]
            )
            taken = event.type == e.BRANCH_TAKEN
        if taken != (event.type == e.BRANCH_TAKEN):
            self.report.add("S6", f"the branch at {path} was decided against its flag", [event])
        if event.type == e.BRANCH_SKIPPED:
            self.skipped.add(path)
            for leaf in self.shape.within(path):
                self._update(self.tracks[leaf.path], passed_over=True)

    def _expansion(self, event: Event) -> None:
        path = event.node
        if path not in self.shape.fans:
            self.report.add("S6", f"{path} was expanded, and is no fan-out", [event])
            return
        if path in self.expanded:
            self.report.add("S5", f"the fan-out {path} was expanded twice", [self.expanded[path], event])
            return
        self.expanded[path] = event
        if self.rollback is not None:
            self.report.add(
                "S4", f"the fan-out {path} was expanded after rollback began", [self.rollback, event]
            )
        node, scope, before = self.shape.fans[path]
        self._wait_for(path, before, event)
        try:
            items: Any = self._worker().value(node.each.items, scope) if node.each is not None else []
        except Unknown as unknown:
            self.report.add(
                "S6", f"the fan-out {path} was expanded over what is not known: {unknown}", [event]
            )
            return
        count = event.data.count if isinstance(event.data, e.Expanded) else -1
        size = count_of(items)
        if size != count:
            self.report.add(
                "S6", f"the fan-out {path} was expanded to {count}, which is not its list", [event]
            )

    def _node_event(self, event: Event) -> None:
        track = self.tracks.get(event.node)
        if track is None:
            self.report.add("S12", f"{event.type} at {event.node!r}, which runs no action", [event])
            return
        {
            e.STARTED: self._started,
            e.COMPLETED: self._succeeded,
            e.SUPPLIED: self._succeeded,
            e.FAILED: self._failed,
            e.IN_DOUBT: self._in_doubt,
            e.UNDO_STARTED: self._undo_started,
            e.UNDONE: self._undone,
            e.UNDO_FAILED: self._undo_failed,
            e.RETRIED: self._retried,
            e.SKIPPED: self._decided,
            e.RESOLVED: self._decided,
        }[event.type](track, event)
        track.last = event
        self._update(track)

    def _update(self, track: Track, *, passed_over: bool = False) -> None:
        track.passed_over = track.passed_over or passed_over
        bit = 1 << track.leaf.bit
        self._well = self._well | bit if track.went_well else self._well & ~bit
        self._unsettled = self._unsettled & ~bit if track.settled else self._unsettled | bit

    def _wait_for(self, path: str, before: int, event: Event) -> None:
        """Check that what something depends on went well: only then does the log record all of its inputs."""
        for leaf in self.shape.leaves_of(before & ~self._well):
            self.report.add(
                "S6",
                f"{path} went ahead of {leaf.path}, on which it depends",
                [event, self.tracks[leaf.path].last],
            )

    def _started(self, track: Track, event: Event) -> None:
        path = track.leaf.path
        if self.rollback is not None:
            rerun = track.doubted and track.success is None and track.leaf.node.undo == "output"
            if track.started is None or not rerun or track.decided is not None:
                self.report.add(
                    "S4", f"{path} started after rollback began", [self.rollback, track.last, event]
                )
        else:
            self._wait_for(path, track.leaf.before, event)
            self._check_branches(track, event)
        self._check_given_up(track, event)
        if track.success is not None:
            self.report.add("S5", f"{path} started again after its success", [track.success, event])
        for leaf in self.shape.leaves_of(track.leaf.after):
            later = self.tracks[leaf.path].started
            if later is not None:
                self.report.add("S7", f"{path} was invoked after {leaf.path} had started", [later, event])
        if self.rollback is not None and not track.rerun:
            track.rerun, track.failures, track.retry_at = True, 0, None
        self._check_time(track, event)
        track.started = track.started or event
        track.running, track.clean = "do", False

    def _check_branches(self, track: Track, event: Event) -> None:
        path = track.leaf.path
        for branch in self.shape.branches:
            if not is_within(path, branch):
                continue
            decided = self.branches.get(branch)
            if decided is None or decided.type == e.BRANCH_SKIPPED:
                self.report.add("S6", f"{path} started, but its branch was not taken", [decided, event])

    def _succeeded(self, track: Track, event: Event) -> None:
        if track.success is not None:
            self.report.add("S5", f"{track.leaf.path} succeeded twice", [track.success, event])
        elif isinstance(event.data, e.Completed | e.Supplied):
            track.success, track.output = event, event.data.output
            self.outputs[track.leaf.path] = event.data.output
        if event.type == e.COMPLETED and track.running != "do":
            self.report.add("S8", f"{track.leaf.path} completed without having started", [track.last, event])
        track.running, track.doubted, track.failures, track.retry_at = "", False, 0, None
        track.deaths, track.given_up = 0, ""

    def _check_given_up(self, track: Track, event: Event) -> None:
        if track.given_up:
            self.report.add(
                "crash", f"{track.leaf.path} was given up for deaths, and runs again", [track.last, event]
            )

    def _died(self, track: Track, event: Event, deaths: int, *, given_up: bool) -> None:
        """What ran when its process ended. It counts as a death unless the process shut down or let the saga go."""
        path = track.leaf.path
        if deaths and deaths != track.deaths + 1:
            self.report.add(
                "crash", f"{path} has its death {deaths} in a row, after {track.deaths}", [track.last, event]
            )
        reached = deaths > 0 if self.crashes is None else deaths >= self.crashes
        if given_up != reached and (given_up or self.crashes is not None):
            what = "was given up" if given_up else "is to be run again"
            self.report.add("crash", f"{path} {what} after {deaths} deaths", [event])
        track.deaths = 0 if given_up else deaths or track.deaths
        if given_up:
            track.given_up = "undo" if event.type == e.UNDO_FAILED else "do"

    def _failed(self, track: Track, event: Event) -> None:
        assert isinstance(event.data, e.Failed)
        track.running, track.deaths = "", 0
        track.clean = event.data.clean
        track.doubted = track.doubted and not track.clean
        self._count(track, event, event.data.retry_at, track.leaf.node.retry.attempts)

    def _in_doubt(self, track: Track, event: Event) -> None:
        assert isinstance(event.data, e.InDoubt)
        track.running, track.doubted, track.clean = "", True, False
        if event.data.reason in ("crash", "cut_off"):
            self._died(track, event, event.data.deaths, given_up=event.data.given_up)
            if event.data.reason == "cut_off" and event.data.deaths:
                self.report.add(
                    "crash", f"{track.leaf.path} was cut off, and that counts as a death", [event]
                )
        else:
            track.deaths = 0
            self._count(track, event, event.data.retry_at, track.leaf.node.retry.attempts)

    def _count(self, track: Track, event: Event, retry_at: float | None, allowed: int | None) -> None:
        track.failures += 1
        track.retry_at = retry_at
        if retry_at is not None and allowed is not None and track.failures >= allowed:
            self.report.add(
                "retry",
                f"{track.leaf.path} is to be tried again after {track.failures} of {allowed}",
                [event],
            )

    def _check_time(self, track: Track, event: Event) -> None:
        """Clocks of two coordinators may differ, so only times by the same one are compared."""
        last = track.last
        if (
            track.retry_at is not None
            and last is not None
            and last.epoch == event.epoch
            and event.at < track.retry_at
        ):
            self.report.add("retry", f"{track.leaf.path} was tried again before its time", [last, event])
        track.retry_at = None

    # -- undos -------------------------------------------------------------

    def _undo_started(self, track: Track, event: Event) -> None:
        path = track.leaf.path
        if self.rollback is None:
            self.report.add("S1", f"{path} is being undone, but no rollback began", [event])
        if track.leaf.node.undo == "none" or track.started is None:
            self.report.add("S2", f"{path} is being undone, and has nothing to undo", [event])
        elif track.leaf.node.undo == "output" and track.success is None:
            self.report.add(
                "S6", f"the undo of {path} takes its output, which is not known", [track.last, event]
            )
        if track.running == "do":
            self.report.add("S3", f"{path} is being undone while its action is running", [track.last, event])
        for leaf in self.shape.leaves_of(track.leaf.after & self._unsettled):
            later = self.tracks[leaf.path]
            state = f"its {later.running} is running" if later.running else "is not undone"
            self.report.add(
                "S3",
                f"{path} is being undone before {leaf.path}, which depends on it: {state}",
                [later.last, event],
            )
        if track.given_up != "do":
            self._check_given_up(track, event)
        if track.undo_started is None:
            track.failures = 0
            track.retry_at = None
            track.deaths, track.given_up = 0, ""
        self._check_time(track, event)
        track.undo_started = track.undo_started or event
        track.running = "undo"

    def _undone(self, track: Track, event: Event) -> None:
        if track.running != "undo":
            self.report.add(
                "S8", f"{track.leaf.path} was undone without an undo_started", [track.last, event]
            )
        track.running, track.undone, track.deaths = "", event, 0

    def _undo_failed(self, track: Track, event: Event) -> None:
        assert isinstance(event.data, e.UndoFailed)
        track.running = ""
        if event.data.interrupted:
            self._died(track, event, event.data.deaths, given_up=event.data.given_up)
        else:
            track.deaths = 0
            self._count(track, event, event.data.retry_at, track.leaf.node.undo_retry.attempts)

    # -- an operator -------------------------------------------------------

    def _retried(self, track: Track, event: Event) -> None:
        track.failures, track.retry_at = 0, None
        track.deaths, track.given_up = 0, ""

    def _decided(self, track: Track, event: Event) -> None:
        track.decided = event
        track.deaths, track.given_up = 0, ""
        if self.rollback is None:
            self._let_go = event
