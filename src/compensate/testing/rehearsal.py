"""Rehearsals: one saga run in one scenario, from a fresh world to its end, on the real runtime and virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, Final

import msgspec

from compensate.authoring import Saga
from compensate.core import states as s
from compensate.core.events import Event
from compensate.core.log import Fold
from compensate.core.standing import Standing
from compensate.core.states import SagaStatus
from compensate.errors import DeserializeFailed, IllegalRequest, RolledBack, SagaNotFound, Stuck
from compensate.inspection.snapshot import Snapshot
from compensate.runtime.coordinator import Coordinator
from compensate.runtime.log import muted
from compensate.runtime.runs import Run
from compensate.stores.base import Done, NewSaga
from compensate.stores.memory import MemoryStore
from compensate.testing.faults import Fault, Stage, come_late, instrument, settle
from compensate.testing.virtual_time import Life, Strangers, VirtualLoop, VirtualTime

__tracebackhide__ = True  # in pytest's tracebacks, as in `proof`

SAGA_ID: Final = "proof"
"""The id under which the saga runs in every scenario, so that keys are the same in all of them."""

DAY: Final = 86_400.0
LONGEST: Final = 400 * DAY
"""Virtual seconds after which a saga counts as never ending."""

AFTERMATH: Final = 60.0
"""Virtual seconds between a saga's end and the look at the world: for effects that come by a way of their own."""

NOT_SEEN: Final = object()
"""Stands for a snapshot that was not taken."""


class Scene(msgspec.Struct, frozen=True):
    """A scenario to be.

    Attributes:
        kind: What it is counted as.
        point: What happens, in words.
        node: Which node it is about; `""` for the saga as a whole.
        faults: What goes wrong.
        roll_back: Roll the saga back on request when it has completed.
        end_at: The write, from 1, at which the process ends; 0: it does not.
        end_before: Whether it ends before that write is durable; else after it.
        back_at_once: Whether the next process rolls the saga back before it goes on with anything.
        watch: Look at the world around every call; one action at a time.
        check_values: Hold values against the codec.
    """

    kind: str
    point: str
    node: str = ""
    faults: tuple[Fault, ...] = ()
    roll_back: bool = False
    end_at: int = 0
    end_before: bool = False
    back_at_once: bool = False
    watch: bool = False
    check_values: bool = False


class Outcome:
    """What came of a scenario.

    Attributes:
        before: The world before.
        completed: The world when the saga had completed; `NOT_SEEN` if it did not.
        after: The world at the end.
        looked_again: The same, looked at twice; in a watched run.
        stuck_at: The nodes at which it was stuck, before the faults were lifted.
        fold_when_stuck: Its state then.
        fold: Its state at the end; `None` if it was never stored.
        events: Its log.
        writes: The events of each write, also of one that was lost.
        hung: Whether it did not end.
        ended: Whether the process was ended as planned.
    """

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.before: Any = NOT_SEEN
        self.completed: Any = NOT_SEEN
        self.after: Any = NOT_SEEN
        self.looked_again: Any = NOT_SEEN
        self.stuck_at: tuple[str, ...] = ()
        self.fold_when_stuck: Fold | None = None
        self.fold: Fold | None = None
        self.events: list[Event] = []
        self.writes: list[Sequence[Event]] = []
        self.hung = False
        self.ended = False

    @property
    def status(self) -> SagaStatus | None:
        """How the saga ended."""
        return None if self.fold is None else self.fold.status


class ProofStore(MemoryStore):
    """A store in memory that ends the process at a write, before or after it is durable."""

    def __init__(self, end_at: int, end_before: bool) -> None:
        super().__init__()
        self.writes: list[Sequence[Event]] = []
        self.ended = False
        self.life: Life | None = None
        self._end_at = end_at
        self._end_before = end_before

    def create(self, saga: NewSaga, owner: str) -> Done:
        """As `Store.create`."""
        return self._write(saga.events, lambda: MemoryStore.create(self, saga, owner))

    def append(
        self,
        saga_id: str,
        epoch: int,
        expected_seq: int,
        events: Sequence[Event],
        standing: Standing,
        created_at: float | None = None,
    ) -> Done:
        """As `Store.append`."""
        return self._write(
            events,
            lambda: MemoryStore.append(self, saga_id, epoch, expected_seq, events, standing, created_at),
        )

    def _write(self, events: Sequence[Event], write: Callable[[], Done]) -> Done:
        self.writes.append(list(events))
        here = len(self.writes) == self._end_at
        if not (here and self._end_before):
            write()
        if not here:
            return None
        self.ended = True
        assert self.life is not None
        self.life.end()
        return asyncio.get_running_loop().create_future()  # nobody ever hears of it


class Rehearsal:
    """What all scenarios of a proof share.

    Args:
        saga: Which.
        params: Its params by name.
        world: Takes a snapshot; given what `setup` gave if it takes an argument.
        setup: Makes a fresh world; may be `async`, or give a context manager.
        deps: Given to the actions; called for each process if it can be called.
    """

    def __init__(
        self,
        saga: Saga[..., Any],
        params: Mapping[str, Any],
        world: Callable[..., Any],
        setup: Callable[[], Any] | None,
        deps: Any,
    ) -> None:
        self.saga = saga
        self.params = dict(params)
        self.time = VirtualTime(stranger_patience=None)
        self.loop: VirtualLoop = self.time.new_loop()
        self._strangers = Strangers()
        self.given: Any = None
        """What `setup` gave last."""
        self._world = world
        self._setup = setup
        self._deps = deps

    def close(self) -> None:
        """End loop and threads."""
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()
        self.time.close()

    def perform(self, scene: Scene) -> Outcome:
        """Run one scenario. What `setup`, `world` or `deps` raise is passed on."""
        self.time.watchdog.progress()
        run = self.loop.run_until_complete
        stack = AsyncExitStack()
        with self._strangers.welcomed():
            given: Any = self._ready(self._setup()) if self._setup is not None else None
            if hasattr(given, "__aenter__"):
                given = run(stack.enter_async_context(given))
            elif hasattr(given, "__enter__"):
                given = stack.enter_context(given)
        self.given = given
        try:
            return self._perform(scene, given)
        finally:
            run(stack.aclose())

    def _perform(self, scene: Scene, given: Any) -> Outcome:
        def look() -> Any:
            seen = _call_with(self._world, given)
            return _copied_later(seen) if inspect.isawaitable(seen) else _copied(seen)

        stage = Stage(
            self.time,
            scene.faults,
            look=look,
            strangers=self._strangers,
            watch=scene.watch,
            check_values=scene.check_values,
        )
        outcome = Outcome(stage)
        outcome.before = stage.last_seen = self._ready(look())
        performance = _Performance(self, scene, outcome, given)
        try:
            with muted():  # thousands of faults on order are no news
                self.loop.run_until_complete(performance.play())
            outcome.after = self._ready(look())
            if scene.watch:
                outcome.looked_again = self._ready(look())
                stage.stray(outcome.after, "before the end")
        finally:
            performance.clear_away()
        return outcome

    def _ready(self, value: Any) -> Any:
        return self.loop.run_until_complete(settle(value)) if inspect.isawaitable(value) else value

    async def deps(self, given: Any) -> Any:
        """The resources of a new process."""
        if self._deps is None:
            return given
        return await settle(_call_with(self._deps, given)) if callable(self._deps) else self._deps


class _Performance:
    """One scenario under way."""

    def __init__(self, rehearsal: Rehearsal, scene: Scene, outcome: Outcome, given: Any) -> None:
        self._rehearsal = rehearsal
        self._scene = scene
        self._outcome = outcome
        self._given = given
        self._saga = instrument(rehearsal.saga, outcome.stage).with_id(SAGA_ID)
        self._store = ProofStore(scene.end_at, scene.end_before)
        self._lives: list[Life] = []

    async def play(self) -> None:
        """One process after the other, until the saga has ended."""
        outcome, store = self._outcome, self._store
        outcome.writes = store.writes
        while True:
            life = store.life = Life(self._rehearsal.loop)
            self._lives.append(life)
            client = life.spawn(self._process())
            await asyncio.wait({client, life.over}, timeout=LONGEST, return_when=asyncio.FIRST_COMPLETED)
            if life.ended:
                await self._threads_end()
                await store.leave(f"process-{len(self._lives)}")
                continue
            outcome.hung = not client.done()
            if client.done():
                client.result()
            break
        outcome.ended = store.ended
        await come_late(outcome.stage)
        await asyncio.sleep(AFTERMATH)
        if self._scene.watch:
            await outcome.stage.strangers_leave()
        try:
            stored = await store.load(SAGA_ID)
        except SagaNotFound:
            return
        outcome.events = stored.events
        outcome.fold = Snapshot(stored).fold

    async def _threads_end(self) -> None:
        """A thread cannot be ended; so it is let finish, as if the process had ended just after."""
        until = self._rehearsal.time.elapsed + AFTERMATH  # real seconds, while a thread works
        while self._rehearsal.time.busy and self._rehearsal.time.elapsed < until:  # noqa: ASYNC110 - threads ring no bell
            await asyncio.sleep(0.01)

    def clear_away(self) -> None:
        """End what is left of the processes."""
        for life in self._lives:
            life.bury()
        self._rehearsal.loop.complaints.clear()  # tasks that a process left behind

    async def _process(self) -> None:
        """What one process does: recover, start the saga (again), and see it to its end."""
        scene, rehearsal = self._scene, self._rehearsal
        first = len(self._lives) == 1
        coordinator: Coordinator = Coordinator(
            self._store,
            deps=await rehearsal.deps(self._given),
            sagas=[self._saga],
            owner=f"process-{len(self._lives)}",
            lease=DAY,
            poll=DAY,
            recover=first or not scene.back_at_once,
            max_actions=1 if scene.watch else 1_000,
            clock=rehearsal.time,
            observers=[self._outcome.stage.observe, self._note_progress],
        )
        async with coordinator:
            if scene.back_at_once and not first:
                await self._roll_back(coordinator)
            else:
                run = await coordinator.start(self._saga, **rehearsal.params)
                if await self._end(run) == s.COMPLETED:
                    self._outcome.completed = await settle(self._outcome.stage.look())
                    if scene.roll_back:
                        await self._roll_back(coordinator)
            await self._decide(coordinator)

    async def _end(self, run: Run[Any]) -> SagaStatus:
        """Wait for the end."""
        try:
            await run.result()
        except RolledBack:
            return s.ROLLED_BACK
        except Stuck:
            return s.STUCK
        except DeserializeFailed as error:
            self._outcome.stage.unfaithful.append(("", f"the saga's result cannot be read: {error}"))
        return s.COMPLETED

    def _note_progress(self, saga_id: str, events: Sequence[Event]) -> None:
        """Tell the watchdog of virtual time that something has happened."""
        del saga_id, events
        self._rehearsal.time.watchdog.progress()

    async def _roll_back(self, coordinator: Coordinator) -> None:
        with contextlib.suppress(IllegalRequest):  # its pivot has completed meanwhile; the judge looks
            await coordinator.rollback(SAGA_ID, reason="the proof asks for it", who="prove_saga")
        await self._end(coordinator.attach(SAGA_ID))

    async def _decide(self, coordinator: Coordinator) -> None:
        """If the saga is stuck: note it, lift the faults, and be the operator who says `retry`."""
        snapshot = await coordinator.get(SAGA_ID)
        outcome = self._outcome
        if snapshot.status != s.STUCK:
            return
        outcome.stuck_at = tuple(node.node for node in snapshot.stuck())
        outcome.fold_when_stuck = snapshot.fold
        outcome.stage.lifted = True
        for node in outcome.stuck_at:
            await coordinator.retry(SAGA_ID, node, reason="the fault is lifted", who="prove_saga")
        await self._end(coordinator.attach(SAGA_ID))


def _copied(seen: Any) -> Any:
    """A snapshot of its own, so that it does not change with the world."""
    try:
        return copy.deepcopy(seen)
    except Exception as error:
        error.add_note(
            "prove_saga: world= has to give a snapshot that can be copied: plain dicts and lists, say"
        )
        raise


async def _copied_later(value: Any) -> Any:
    return _copied(await value)


def _call_with(fn: Callable[..., Any], given: Any) -> Any:
    """Call with the value that `setup` gave, if it gave one and the function has a place for it."""
    if given is None:
        return fn()
    try:
        inspect.signature(fn).bind(given)
    except TypeError:
        return fn()
    except ValueError:
        pass  # a builtin that does not say
    return fn(given)
