"""`prove_saga`: shows of a user's saga that it keeps its world whole, whatever goes wrong and wherever."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final

from compensate.authoring import Saga
from compensate.core import events as e
from compensate.core.events import Event
from compensate.core.plan import ACTION, Plan
from compensate.core.policy import qualified
from compensate.errors import DefinitionError, InjectedError, ParamsInvalid
from compensate.testing.faults import Fault, Kind
from compensate.testing.judge import Judge
from compensate.testing.rehearsal import Outcome, Rehearsal, Scene
from compensate.testing.report import Finding, Proof, SagaNotProven, TooManyScenarios
from compensate.testing.worlds import FakeWorld

__tracebackhide__ = True  # pytest shows the test and what was found, and not the frames of this module

LIMIT: Final = 2_000
"""How many scenarios are run at most, unless said otherwise."""

_FORWARD: Final[tuple[Kind, ...]] = ("fail", "lost", "twice", "slow")
_BACKWARD: Final[tuple[Kind, ...]] = ("undo_twice", "undo_slow", "undo_fails_once", "undo_fails")

_KINDS: Final[dict[Kind, str]] = {
    "fail": "an action fails before its effect",
    "lost": "an action's reply is lost",
    "twice": "an action runs twice",
    "slow": "an action is slow",
    "late": "an action comes after its undo",
    "undo_twice": "an undo runs twice",
    "undo_slow": "an undo is slow",
    "undo_fails_once": "an undo fails once",
    "undo_fails": "an undo fails for good",
}


def prove_saga(
    saga: Saga[..., Any],
    params: Mapping[str, Any] | None = None,
    *,
    world: Callable[..., Any] | FakeWorld | None = None,
    setup: Callable[[], Any] | None = None,
    deps: Any = None,
    tombstones: bool | None = None,
    limit: int = LIMIT,
) -> Proof:
    """Prove that a saga leaves its world whole: completed as it would be undisturbed, or rolled back as if never begun.

    The saga is run many times on the real runtime, each time in a fresh world with one thing going wrong, and the
    world is looked at in the end. Retries, time limits and delays pass in virtual time. `docs/testing.md` says exactly
    what is tried, and what is not. Works in any test, `async` or not; it blocks until it is done.

    Args:
        saga: What to prove.
        params: Its params by name.
        world: Gives a snapshot of everything that the saga may change: any value that can be compared and copied. It
            is called with what `setup` gave if it takes an argument. Or a `FakeWorld`, which is then emptied before
            each scenario. May be left out if `setup` gives a `FakeWorld`.
        setup: Called before each scenario to make the world fresh; what it gives goes to `world` and `deps`. It may
            give a context manager, which ends with the scenario.
        deps: What actions get as `ctx.deps`. If it can be called it is called for each process, with what `setup` gave
            if it takes an argument. By default it is what `setup` gave.
        tombstones: Whether to try actions whose effect comes after their undo, which only a participant with
            tombstones stands. By default only for a `FakeWorld`.
        limit: How many scenarios are too many.

    Returns:
        What was tried.

    Raises:
        SagaNotProven: Something is wrong; says which node, at which point, and how the world differs. Also if a fault
            could not be made to happen, or the world never changed.
        TooManyScenarios: More than `limit`.
        ParamsInvalid: The params do not fit the saga.
    """
    try:
        look, fresh, keeps = _places(world, setup)
        rehearsal = Rehearsal(saga, params or {}, look, fresh, deps)
        prover = _Prover(rehearsal, keeps if tombstones is None else tombstones, limit)
        return _in_a_thread(prover.run) if _in_a_loop() else prover.run()
    except (SagaNotProven, TooManyScenarios, DefinitionError, ParamsInvalid) as error:
        # The message says all there is to say. Where in this library it was raised would only bury it.
        raise error.with_traceback(None) from error.__cause__


def _places(
    world: Callable[..., Any] | FakeWorld | None, setup: Callable[[], Any] | None
) -> tuple[Callable[..., Any], Callable[[], Any] | None, bool | None]:
    """How to look at the world, how to make it fresh, and whether it keeps tombstones (`None`: its setup knows)."""
    if isinstance(world, FakeWorld):
        fake = world
        if setup is not None:
            raise DefinitionError(
                "prove_saga: a FakeWorld given as world= is emptied before each scenario; with a setup= of your own "
                "let that make it, and give world=FakeWorld.snapshot or leave world= out"
            )

        def empty() -> FakeWorld:
            fake.clear()
            return fake

        return FakeWorld.snapshot, empty, fake.tombstones
    if world is not None:
        return world, setup, None
    if setup is None:
        raise DefinitionError("prove_saga: give world=, a function that takes a snapshot, or a FakeWorld")
    return _snapshot_of_fake, setup, None


def _snapshot_of_fake(given: Any) -> Any:
    if not isinstance(given, FakeWorld):
        raise DefinitionError(
            f"prove_saga: setup gave a {type(given).__name__}; give world=, a function that takes a snapshot of it"
        )
    return given.snapshot()


def _in_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _in_a_thread(run: Callable[[], Proof]) -> Proof:
    """The caller's thread has an event loop that runs already; asyncio allows no second one there."""
    box: list[Proof | BaseException] = []

    def work() -> None:
        try:
            box.append(run())
        except BaseException as error:
            box.append(error)

    thread = threading.Thread(target=work, name="prove_saga", daemon=True)
    thread.start()
    thread.join()
    if isinstance(box[0], BaseException):
        raise box[0]
    return box[0]


class _Prover:
    def __init__(self, rehearsal: Rehearsal, tombstones: bool | None, limit: int) -> None:
        self._rehearsal = rehearsal
        self._saga = rehearsal.saga
        self._tombstones = tombstones
        self._limit = limit
        self._count = 0

    def run(self) -> Proof:
        try:
            self._saga.encode_params(**self._rehearsal.params)
            return self._run()
        finally:
            self._rehearsal.close()

    def _run(self) -> Proof:
        first = self._perform(Scene("undisturbed", "nothing goes wrong", check_values=True))
        judge = Judge(self._saga, first)
        self._stop_at(judge.undisturbed())
        plan = _Plan(self._saga, first)
        values = first.stage.values + self._check_params()
        watched = self._perform(
            Scene(
                "watched", "nothing goes wrong, one action at a time", roll_back=not plan.pivots, watch=True
            )
        )
        self._stop_at(judge.watched(watched))
        back_scene = plan.rolled_back()
        back = self._perform(back_scene)
        plan.learn_back(back_scene, back)
        late = self._tombstones
        if late is None:
            late = isinstance(self._rehearsal.given, FakeWorld) and self._rehearsal.given.tombstones
        scenes = [back_scene, *plan.scenes(late)]
        if len(scenes) > self._limit:
            raise TooManyScenarios(
                f"saga {self._saga.name} with these params takes {len(scenes)} scenarios ({len(plan.nodes)} nodes, "
                f"{len(first.writes)} writes forward), above limit={self._limit}; prove it with params that make "
                "fewer nodes, or raise the limit"
            )
        findings = [*judge.strays(watched), *judge.judge(back_scene, back)]
        for scene in scenes[1:]:
            findings += judge.judge(scene, self._perform(scene))
        if findings:
            raise SagaNotProven(self._saga.name, findings, self._count)
        kinds = Counter(scene.kind for scene in scenes)
        return Proof(
            self._saga.name,
            self._count,
            sum(len(scene.faults) or bool(scene.end_at) for scene in scenes),
            {"undisturbed": self._count - len(scenes), **kinds},
            values,
            plan.nodes,
            plan.not_run,
            plan.not_undone,
            late,
        )

    def _perform(self, scene: Scene) -> Outcome:
        self._count += 1
        return self._rehearsal.perform(scene)

    def _stop_at(self, findings: list[Finding]) -> None:
        """What makes all that would follow meaningless."""
        if findings:
            raise SagaNotProven(self._saga.name, findings, self._count)

    def _check_params(self) -> int:
        """Params that do not survive the codec are refused before anything runs."""
        for name, value in self._rehearsal.params.items():
            self._saga.params[name].decode(self._saga.params[name].encode(value))
        return len(self._rehearsal.params)


class _Plan:
    """Which scenarios there are for a saga, read off its undisturbed run."""

    def __init__(self, saga: Saga[..., Any], first: Outcome) -> None:
        assert first.fold is not None
        self._plan: Plan = first.fold.plan
        self._first = first
        self.nodes = tuple(
            dict.fromkeys(node for node, direction, _ in first.stage.calls if direction == "do")
        )
        actions = [name for i, name in enumerate(self._plan.names) if self._plan.kinds[i] == ACTION]
        self.not_run = tuple(name for name in actions if name not in self.nodes)
        self.pivots = [node for node in self.nodes if self._spec(node).pivot]
        self.undone: tuple[str, ...] = ()
        self._back = Scene("", "")
        self._turned = self._back_writes = 0

    @property
    def not_undone(self) -> tuple[str, ...]:
        return tuple(n for n in self.nodes if self._spec(n).undo != "none" and n not in self.undone)

    def _spec(self, node: str) -> Any:
        return self._plan.action(self._plan.index[node])

    def rolled_back(self) -> Scene:
        """The plainest way to have everything undone that can be."""
        if not self.pivots:
            return Scene("rolled back on request", "it is rolled back after it has completed", roll_back=True)
        pivot = self.pivots[0]
        fault = Fault(pivot, "fail")
        return Scene("rolled back at the pivot", f"{fault}", pivot, (fault,))

    def learn_back(self, scene: Scene, back: Outcome) -> None:
        """Take in how the rollback went."""
        self._back = scene
        calls = back.stage.calls
        self.undone = tuple(dict.fromkeys(node for node, direction, _ in calls if direction == "undo"))
        turned = [i for i, events in enumerate(back.writes, start=1) if _has(events, e.SAGA_ROLLBACK)]
        self._turned = turned[0] if turned else len(back.writes) + 1
        self._back_writes = len(back.writes)
        self._writes_back = back.writes

    def scenes(self, late: bool) -> list[Scene]:
        """All of them."""
        scenes: list[Scene] = []
        for node in self.nodes:
            scenes += self._at(node, late)
        scenes += self._ends(
            self._first.writes, range(1, len(self._first.writes) + 1), "forward", Scene("", "")
        )
        scenes += self._ends(
            self._writes_back, range(self._turned, self._back_writes + 1), "back", self._back
        )
        return scenes

    def _at(self, node: str, late: bool) -> list[Scene]:
        spec = self._spec(node)
        scenes = [self._scene(node, kind) for kind in _FORWARD]
        if node in self.undone:
            once = spec.undo_retry.allows(1, [qualified(kind) for kind in InjectedError.__mro__])
            scenes += [self._scene(node, kind) for kind in _BACKWARD if once or kind != "undo_fails_once"]
            if not spec.pivot:
                scenes.append(self._without_output(node, spec.undo == "unknown"))
                if late:
                    scenes.append(self._scene(node, "late"))
        return scenes

    def _scene(self, node: str, kind: Kind) -> Scene:
        fault = Fault(node, kind)
        name = _KINDS[kind]
        if kind in ("fail", "lost", "late"):
            return Scene(name, str(fault), node, (fault,))
        if kind in ("twice", "slow"):
            return Scene(name, str(fault), node, (fault,), roll_back=not self.pivots)
        return Scene(name, str(fault), node, (fault, *self._back.faults), roll_back=self._back.roll_back)

    def _without_output(self, node: str, unknown: bool) -> Scene:
        """The process ends when the action has taken effect and nothing is recorded of it; then it is rolled back."""
        writes = self._first.writes
        at = next(i for i, events in enumerate(writes, start=1) if _has(events, e.COMPLETED, node))
        way = "undone with no output" if unknown else "run again to learn its output, and undone"
        return Scene(
            f"an action in doubt is {way}",
            f"the process ends between the effect of {node} and its record, and {node} is {way}",
            node,
            end_at=at,
            end_before=True,
            back_at_once=True,
        )

    def _ends(self, writes: Any, where: range, way: str, base: Scene) -> list[Scene]:
        return [
            Scene(
                f"the process ends at a log write, going {way}",
                f"the process ends {'before' if before else 'after'} write {at} ({_words(writes[at - 1])})",
                faults=base.faults,
                roll_back=base.roll_back,
                end_at=at,
                end_before=before,
            )
            for at in where
            for before in (True, False)
        ]


def _has(events: Any, kind: str, node: str = "") -> bool:
    return any(event.type == kind and event.node == node for event in events)


def _words(events: list[Event]) -> str:
    words = [f"{event.type} {event.node}".rstrip() for event in events]
    return ", ".join(words[:4]) + (", …" if len(words) > 4 else "")
