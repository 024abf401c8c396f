"""Drives the core's machine by hand: a test says how each action and undo ends, and when the process dies."""

from __future__ import annotations

from typing import Any

from compensate.core import events as e
from compensate.core.commands import Ask, CancelAction, Finish, RunAction, RunUndo, WaitUntil
from compensate.core.dag import ActionNode, Dag, Node
from compensate.core.events import Event
from compensate.core.log import Fold
from compensate.core.machine import Machine
from compensate.core.plan import Plan

BOOM = e.ErrorInfo("shop.Boom", "boom")


def node(name: str, *after: str, undo: str = "output", **more: Any) -> ActionNode:
    """An action node that waits for `after`."""
    return ActionNode(name, f"do_{name}", after=after, undo=undo, **more)  # type: ignore[arg-type]


def dag(*nodes: Node, name: str = "d", **more: Any) -> Dag:
    return Dag(name, nodes, **more)


def chain(*names: str, **more: Any) -> Dag:
    return dag(*(node(name, *names[k - 1 : k] if k else (), **more) for k, name in enumerate(names)))


class Run:
    """One saga whose world is the test.

    Attributes:
        doing: Paths of the running actions.
        undoing: Paths of the running undos.
        lingering: Paths of timed-out nodes whose threads still run.
        order: Every command given out, as `do a`, `undo a`, `cancel a`.
        log: What is durable.
        commits: How many appends it took.
        end: The status that the machine finished with; `None` while it goes on.
    """

    def __init__(
        self,
        graph: Dag,
        answers: dict[str, bool | int] | None = None,
        *,
        deadline: float | None = None,
        grace: float = 30.0,
        room: int | None = None,
        crashes: int = 5,
    ) -> None:
        self.plan = Plan(graph)
        self.answers = {} if answers is None else answers
        self.room = room
        self.grace = grace
        self.crashes = crashes
        self.now = 100.0
        self.log: list[Event] = []
        self.commits = 0
        self.order: list[str] = []
        self.doing: list[str] = []
        self.lingering: set[str] = set()
        self.undoing: list[str] = []
        self.wait: float | None = None
        self.end: str | None = None
        self.machine = Machine(self.plan, "s", grace=grace, crashes=crashes)
        self.machine.create(b"{}", self.now, deadline)
        self.go()

    def i(self, path: str) -> int:
        return self.machine.plan.index[path]

    def state(self, path: str) -> str:
        return self.machine.state[self.i(path)]

    @property
    def status(self) -> str | None:
        return self.machine.status

    def stuck(self) -> dict[str, tuple[str, ...]]:
        """The stuck nodes and what may be done about them."""
        assert self.machine.stuck is not None
        return {n.node: n.choices for n in self.machine.stuck.nodes}

    def go(self) -> Run:
        """Let the machine decide until it waits for the world."""
        while True:
            room = 1 << 60 if self.room is None else self.room - len(self.doing) - len(self.undoing)
            commands = self.machine.next(self.now, room)
            events = self.machine.take()
            self.log += events
            self.commits += bool(events)
            self.wait = None
            asked = False
            for command in commands:
                asked |= self._carry_out(command)
            if not asked:
                return self

    def _carry_out(self, command: object) -> bool:
        names = self.machine.plan.names
        match command:
            case RunAction(i, _):
                assert names[i] not in self.lingering, "it is tried again beside its own thread"
                self.doing.append(names[i])
                self.order.append(f"do {names[i]}")
            case RunUndo(i, _):
                for path in self.lingering:
                    assert i != self.i(path), "it is undone beside its own thread"
                    assert i not in self.machine.plan.ancestors(self.i(path)), (
                        "S3: a dependant's thread still runs"
                    )
                self.undoing.append(names[i])
                self.order.append(f"undo {names[i]}")
            case CancelAction(i):
                self.order.append(f"cancel {names[i]}")
            case WaitUntil(at):
                self.wait = at
            case Finish(status):
                self.end = status
            case Ask(i, "when"):
                self.machine.decide(i, bool(self.answers[names[i]]), self.now)
                return True
            case Ask(i, _):
                self.machine.expand(i, int(self.answers[names[i]]), self.now)
                return True
            case _:
                raise AssertionError(command)
        return False

    # -- how things end ----------------------------------------------------

    def ok(self, *paths: str, output: bytes = b"1") -> Run:
        for path in paths:
            self.doing.remove(path)
            self.machine.succeed(self.i(path), output, self.now)
            self.go()
        return self

    def fail(self, path: str, **how: Any) -> Run:
        self.doing.remove(path)
        self.machine.fail(self.i(path), BOOM, self.now, **how)
        return self.go()

    def doubt(self, path: str, reason: e.Doubt = "unknown", **how: Any) -> Run:
        self.doing.remove(path)
        self.machine.doubt(self.i(path), reason, self.now, **how)
        return self.go()

    def undone(self, *paths: str) -> Run:
        for path in paths:
            self.undoing.remove(path)
            self.machine.undo_succeed(self.i(path), self.now)
            self.go()
        return self

    def undo_fail(self, path: str, **how: Any) -> Run:
        self.undoing.remove(path)
        self.machine.undo_fail(self.i(path), BOOM, self.now, **how)
        return self.go()

    def linger(self, path: str, **how: Any) -> Run:
        """The running action or undo of `path` times out, and its thread runs on."""
        self.machine.linger(self.i(path))
        self.lingering.add(path)
        return self.doubt(path, "timeout", **how) if path in self.doing else self.undo_fail(path, **how)

    def landed(self, path: str) -> Run:
        """The thread of `path` ends at last."""
        self.lingering.remove(path)
        self.machine.landed(self.i(path))
        return self.go()

    def roll_back(self, **how: Any) -> Run:
        assert self.machine.roll_back(self.now, **how)
        self.end = None
        return self.go()

    def decide(self, verb: str, path: str, output: bytes | None = None) -> Run:
        """An operator's `retry`, `skip`, `resolve` or `resolve with output`."""
        if verb == "resolve with output":
            self.machine.resolve(path, self.now, who="ann", why="w", output=output or b"7")
        else:
            getattr(self.machine, verb)(path, self.now, who="ann", why="w")
        self.end = None
        return self.go()

    def pass_time(self, seconds: float) -> Run:
        self.now += seconds
        return self.go()

    def until(self) -> Run:
        """Let time pass until the machine wants to be asked again."""
        assert self.wait is not None
        self.now = max(self.now, self.wait)
        return self.go()

    def crash(self, *, died: bool = True) -> Run:
        """The process dies, or releases the saga; another one goes on from what is durable."""
        self.crash_before_next(died=died)
        return self.go()

    def crash_before_next(self, *, died: bool = True) -> None:
        """The process dies; another one has read the log and decided nothing yet."""
        self.doing.clear()
        self.undoing.clear()
        self.lingering.clear()
        self.machine.take()
        self.machine = Machine.fold(
            self.plan, "s", self.log, self.machine.epoch + 1, self.grace, crashes=self.crashes
        )
        self.machine.interrupted(self.now, died=died)

    def fold(self) -> Fold:
        """The durable log, folded anew."""
        fold = Fold(self.plan, "s")
        for event in self.log:
            fold.apply(event)
        return fold

    def finish(self) -> Run:
        """Everything succeeds from now on; operators resolve. Until the end."""
        while self.end not in ("completed", "rolled_back"):
            if self.doing:
                self.ok(self.doing[0])
            elif self.undoing:
                self.undone(self.undoing[0])
            elif self.lingering:
                self.landed(min(self.lingering))
            elif self.machine.paused:
                self.machine.resume(self.now)
                self.go()
            elif self.status == "stuck":
                path, choices = next(iter(self.stuck().items()))
                self.decide("resolve with output" if "resolve with output" in choices else "resolve", path)
            else:
                assert self.wait is not None, (self.status, self.log[-5:])
                self.until()
        return self

    def types(self, path: str = "") -> list[str]:
        """The types of the log's events about `path`."""
        return [event.type for event in self.log if event.node == path]
