"""Every kind of exception at every moment, out of coroutines and threads, actions and undos.

Each action keeps a record of its effects outside of the library, and is honest: where its exception says that nothing
happened, nothing has. So a saga that says `rolled_back` while an effect stands has leaked it (S2). What the log says of
the first attempt is held against a table that is written by hand below.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import pytest

from compensate import (
    Coordinator,
    Ctx,
    Fenced,
    NoEffect,
    Permanent,
    Retry,
    RolledBack,
    Saga,
    Stopped,
    Stuck,
    Unavailable,
    Unknown,
    action,
    saga,
)
from compensate.core import events as e
from compensate.core.events import Event
from compensate.stores.memory import MemoryStore

Moment: TypeAlias = Literal["running", "limit", "grace", "drain", "outside"]
MOMENTS: tuple[Moment, ...] = ("running", "limit", "grace", "drain", "outside")

# -- the kinds of exceptions -------------------------------------------------


class Falsy(Exception):
    def __len__(self) -> int:
        return 0


class Undecided(Exception):
    def __bool__(self) -> bool:
        raise ValueError("its truth is not to be had")


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("it cannot be printed")

    __repr__ = __str__


class Odd(BaseException):
    pass


class Listed(Exception):
    """Named in `@action(unknown=...)`."""


class NotSent(Listed, NoEffect):
    pass


class Declined(NoEffect, Permanent):
    pass


class Lost(Unknown, Permanent):
    pass


class SlowReply(TimeoutError):
    pass


def _nested(error: BaseException) -> BaseException:
    for _ in range(30):
        error = BaseExceptionGroup("g", [error])
    return error


def _wrapped(error: BaseException) -> BaseException:
    wrapper = RuntimeError("the driver's own")
    wrapper.__cause__ = error
    return wrapper


@dataclass(frozen=True)
class Kind:
    """An exception and what it says while its action simply runs."""

    make: Callable[[], BaseException]
    state: Literal["failed", "in_doubt"]
    clean: bool = False
    final: bool = False


def group(*errors: BaseException) -> BaseException:
    return BaseExceptionGroup("several", errors)


KINDS: dict[str, Kind] = {
    "plain": Kind(lambda: ValueError("no"), "failed"),
    "os": Kind(lambda: OSError(5, "no"), "failed"),
    "recursion": Kind(RecursionError, "failed"),
    "falsy": Kind(lambda: Falsy("no"), "failed"),
    "undecided": Kind(lambda: Undecided("no"), "failed"),
    "mute": Kind(lambda: Mute("no"), "failed"),
    "another was rolled back": Kind(lambda: RolledBack("other", saga_id="other"), "failed"),
    "plain from a cancellation": Kind(lambda: _wrapped(asyncio.CancelledError()), "failed"),
    "plain from doubt": Kind(lambda: _wrapped(Unknown("perhaps")), "failed"),
    "no effect": Kind(lambda: NoEffect("nothing"), "failed", clean=True),
    "permanent": Kind(lambda: Permanent("never"), "failed", final=True),
    "declined": Kind(lambda: Declined("no money"), "failed", clean=True, final=True),
    "not sent": Kind(lambda: NotSent("nothing"), "failed", clean=True),
    "unknown": Kind(lambda: Unknown("perhaps"), "in_doubt"),
    "lost": Kind(lambda: Lost("perhaps"), "in_doubt", final=True),
    "time-out": Kind(lambda: TimeoutError("its own"), "in_doubt"),
    "slow reply": Kind(lambda: SlowReply("its own"), "in_doubt"),
    "listed": Kind(lambda: Listed("perhaps"), "in_doubt"),
    "odd": Kind(lambda: Odd("odd"), "in_doubt"),
    "generator exit": Kind(GeneratorExit, "in_doubt"),
    "cancelled within": Kind(asyncio.CancelledError, "in_doubt"),
    "another is stuck": Kind(lambda: Stuck("other", saga_id="other"), "in_doubt"),
    "another's store": Kind(lambda: Unavailable("other"), "in_doubt"),
    "another is fenced": Kind(lambda: Fenced("other"), "in_doubt"),
    "another is stopped": Kind(lambda: Stopped("other"), "in_doubt"),
    "group, plain": Kind(lambda: group(ValueError("a"), OSError("b")), "failed"),
    "group, doubt": Kind(lambda: group(ValueError("a"), Unknown("b")), "in_doubt"),
    "group, clean": Kind(lambda: group(NoEffect("a"), NotSent("b")), "failed", clean=True),
    "group, half clean": Kind(lambda: group(NoEffect("a"), ValueError("b")), "failed"),
    "group, final": Kind(lambda: group(ValueError("a"), group(Permanent("b"))), "failed", final=True),
    "group, declined": Kind(lambda: group(Declined("a"), NoEffect("b")), "failed", clean=True, final=True),
    "group, cancelled": Kind(lambda: group(ValueError("a"), asyncio.CancelledError()), "in_doubt"),
    "group, deep": Kind(lambda: _nested(Unknown("b")), "in_doubt"),
    "group, deep and clean": Kind(lambda: _nested(NoEffect("b")), "failed", clean=True),
    "group, deep and final": Kind(lambda: _nested(Permanent("b")), "failed", final=True),
}


def expected(kind: Kind, moment: Moment) -> tuple[str, bool]:
    """What is recorded of an action's first attempt, and whether it is known to be clean.

    Nothing is recorded of what a shutdown cuts off; recovery finds that it started. Of what somebody else cancels it is
    recorded that nobody knows: a bare cancellation is left to recovery too.
    """
    if moment == "running":
        return kind.state, kind.clean
    if moment in ("limit", "grace"):
        return ("failed", True) if kind.clean else ("in_doubt", False)
    return "in_doubt", False


# -- the world outside -------------------------------------------------------


@dataclass
class World:
    """What stands outside of the library, and what happened there in order."""

    moment: Moment = "running"
    effects: dict[str, str] = field(default_factory=dict)
    log: list[tuple[str, str]] = field(default_factory=list)
    raised: set[str] = field(default_factory=set)
    waiting: set[str] = field(default_factory=set)
    open: threading.Event = field(default_factory=threading.Event)

    def first(self, key: str) -> bool:
        known = ("called", key) in self.log
        self.log.append(("called", key))
        return not known

    def do(self, key: str) -> None:
        self.effects[key] = key
        self.log.append(("effect", key))

    def undo(self, key: str) -> None:
        self.effects.pop(key, None)
        self.log.append(("undone", key))


world = World()


@pytest.fixture(autouse=True)
def _new_world() -> Iterator[None]:
    world.__init__()  # type: ignore[misc]
    yield
    world.open.set()


def _begin(key: str, name: str) -> BaseException:
    """Take effect, if that is what the exception goes with."""
    kind = KINDS[name]
    says_nothing_happened = kind.clean or (world.moment == "running" and kind.state == "failed")
    if not says_nothing_happened:
        world.do(key)
    return kind.make()


def _again(key: str) -> str:
    """The same call once more: an honest action looks for its key."""
    if key in world.effects:
        return key
    raise NoEffect("nothing was made under this key")


async def _wait_async(key: str, error: BaseException) -> None:
    if world.moment == "running":
        world.raised.add(key)
        raise error
    world.waiting.add(key)
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        world.raised.add(key)
        raise error  # noqa: B904 - like a driver that turns a cancellation into an error of its own


def _wait_in_thread(key: str, error: BaseException) -> None:
    if world.moment != "running":
        world.waiting.add(key)
        assert world.open.wait(30)
    world.raised.add(key)
    raise error


UNKNOWN = (TimeoutError, Listed)


@action(unknown=UNKNOWN)
async def act(ctx: Ctx[object], kind: str) -> str:
    if not world.first(ctx.key):
        return _again(ctx.key)
    await _wait_async(ctx.key, _begin(ctx.key, kind))
    raise AssertionError


@act.undo(unknown=True)
async def undo_act(ctx: Ctx[object], made: str | None) -> None:
    world.undo(ctx.do_key)


@action(unknown=UNKNOWN)
def act_in_thread(ctx: Ctx[object], kind: str) -> str:
    if not world.first(ctx.key):
        return _again(ctx.key)
    _wait_in_thread(ctx.key, _begin(ctx.key, kind))
    raise AssertionError


@act_in_thread.undo
def undo_act_in_thread(made: str) -> None:
    world.undo(made)


@action
async def beside(kind: str) -> str:
    return kind


@action
async def join(left: str, right: str) -> str:
    return left


@saga
def alone(kind: str) -> str:
    return act.options(name="node")(kind)


@saga
def in_crew(kind: str) -> str:
    return join(act.options(name="node")(kind), beside(kind))


@saga
def threaded(kind: str) -> str:
    return act_in_thread.options(name="node")(kind)


@saga
def alone_limited(kind: str) -> str:
    return act.options(name="node", timeout=0.05)(kind)


@saga
def in_crew_limited(kind: str) -> str:
    return join(act.options(name="node", timeout=0.05)(kind), beside(kind))


@saga
def threaded_limited(kind: str) -> str:
    return act_in_thread.options(name="node", timeout=0.05)(kind)


WAYS: dict[str, tuple[Saga[[str], str], Saga[[str], str]]] = {
    "alone": (alone, alone_limited),
    "in a crew": (in_crew, in_crew_limited),
    "in a thread": (threaded, threaded_limited),
}


# -- running it --------------------------------------------------------------


async def _until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not true():  # noqa: ASYNC110 - what is waited for happens in threads too
            await asyncio.sleep(0.005)


async def _interrupt(coordinator: Coordinator, ids: list[str], moment: Moment) -> None:
    """Bring the moment about, once all actions wait."""
    await _until(lambda: len(world.waiting) == len(ids))
    if moment == "grace":
        for saga_id in ids:
            await coordinator.rollback(saga_id, grace=0)
    elif moment == "outside":
        tasks = {task.get_name(): task for task in asyncio.all_tasks()}
        for saga_id in ids:
            tasks[f"saga {saga_id}"].cancel()


@asynccontextmanager
async def _coordinator(store: MemoryStore, drain: float) -> AsyncGenerator[Coordinator]:
    coordinator = Coordinator(
        store,
        sagas=[*(way for ways in WAYS.values() for way in ways), *UNDOS],
        poll=0.02,
        drain=drain,
        threads=2 * len(KINDS),
    )
    async with coordinator:
        yield coordinator


async def _ends(coordinator: Coordinator, ids: list[str]) -> None:
    for saga_id in ids:
        with suppress(RolledBack, Stuck):
            await asyncio.wait_for(coordinator.attach(saga_id).result(), 30)


def _first_outcome(events: list[Event], started: str, ends: tuple[str, ...]) -> Event:
    seen = [event for event in events if event.node == "node"]
    assert seen[0].type == started or seen[1].type == started or started == e.UNDO_STARTED
    return next(event for event in seen if event.type in ends and event.attempt == 1)


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("way", WAYS)
async def test_what_comes_out_of_an_action_means_what_the_table_says_and_leaks_nothing(
    way: str, moment: Moment
) -> None:
    if (way, moment) == ("in a crew", "outside"):
        way = "alone"  # the tasks of a crew have no names by which code outside could find them
    world.moment = moment
    definition = WAYS[way][moment == "limit"]
    store = MemoryStore()
    ids = list(KINDS)
    async with _coordinator(store, 0.05 if moment == "drain" else 10) as coordinator:
        for name in KINDS:
            await coordinator.start(definition.with_id(name), name)
        if moment != "running":
            await _interrupt(coordinator, ids, moment)
        if moment == "limit" and way == "in a thread":
            await asyncio.sleep(0.1)
        if moment in ("limit", "grace", "outside") and way == "in a thread":
            await _until_doubted(coordinator, ids, moment)
        if moment != "drain":
            world.open.set()
            await _ends(coordinator, ids)
    if moment == "drain":
        cut_off = [await store.events(name) for name in KINDS]
        assert all(events[-1].type in (e.STARTED, e.COMPLETED) for events in cut_off), (
            "an outcome of a cut-off call"
        )
        world.open.set()
        await _until(lambda: len(world.raised) == len(KINDS))
        async with _coordinator(store, 10) as coordinator:
            await _ends(coordinator, ids)
    assert len(world.raised) == len(KINDS), "not every exception was raised"
    await _check(store, moment, way)


async def _until_doubted(coordinator: Coordinator, ids: list[str], moment: Moment) -> None:
    """Threads go on behind their time limit or cancellation: let them end only when that is recorded."""
    for saga_id in ids:
        async with asyncio.timeout(30):
            async for event in coordinator.attach(saga_id).events():
                if event.node == "node" and event.type == e.IN_DOUBT:
                    break


async def _check(store: MemoryStore, moment: Moment, way: str) -> None:
    wrong: list[str] = []
    for name, kind in KINDS.items():
        stored = await store.load(name)
        first = _first_outcome(stored.events, e.STARTED, (e.FAILED, e.IN_DOUBT, e.COMPLETED))
        wanted, clean = expected(kind, moment)
        if way == "in a thread" and moment in ("limit", "grace"):
            wanted, clean = "in_doubt", False  # what the thread raises comes after that was recorded
        key = f"{name}/node/do"
        if (first.type, getattr(first.data, "clean", False)) != (wanted, clean):
            wrong.append(f"{name}: {first.type} {first.data}, not {wanted}, clean={clean}")
        if stored.record.status == "rolled_back" and key in world.effects:
            wrong.append(f"{name}: rolled back, and its effect stands")
        if stored.record.status == "completed" and key not in world.effects:
            wrong.append(f"{name}: completed without its effect")
        if stored.record.status not in ("rolled_back", "completed"):
            wrong.append(f"{name}: {stored.record.status}")
        order = [what for what, which in world.log if which == key]
        if "undone" in order and "effect" in order[order.index("undone") :]:
            wrong.append(f"{name}: its effect came after its undo: {order}")
    assert not wrong, "\n".join(wrong)


# -- undos -------------------------------------------------------------------


@action
async def make(ctx: Ctx[object], kind: str) -> str:
    world.do(ctx.key)
    return kind


@make.undo(retry=Retry(3, first=0))
async def unmake(ctx: Ctx[object], kind: str) -> None:
    if world.first(ctx.key):
        await _wait_async(ctx.do_key, KINDS[kind].make())
    world.undo(ctx.do_key)


@action
async def make_2(ctx: Ctx[object], kind: str) -> str:
    world.do(ctx.key)
    return kind


@make_2.undo(retry=Retry(3, first=0))
def unmake_in_thread(ctx: Ctx[object], kind: str) -> None:
    if world.first(ctx.key):
        _wait_in_thread(ctx.do_key, KINDS[kind].make())
    world.undo(ctx.do_key)


@action
async def fail(made: str) -> str:
    raise ValueError("turn back")


@saga
def undone(kind: str) -> str:
    return fail(make.options(name="node")(kind))


@saga
def undone_in_thread(kind: str) -> str:
    return fail(make_2.options(name="node")(kind))


@saga
def undone_limited(kind: str) -> str:
    return fail(make.options(name="node", undo_timeout=0.05)(kind))


@saga
def undone_in_thread_limited(kind: str) -> str:
    return fail(make_2.options(name="node", undo_timeout=0.05)(kind))


UNDOS = (undone, undone_in_thread, undone_limited, undone_in_thread_limited)


@pytest.mark.parametrize("moment", ["running", "limit", "drain", "outside"])
@pytest.mark.parametrize("threads", [False, True], ids=["coroutine", "thread"])
async def test_what_comes_out_of_an_undo_is_a_failure_or_nothing_and_leaks_nothing(
    moment: Moment, threads: bool
) -> None:
    world.moment = moment
    definition = UNDOS[threads + 2 * (moment == "limit")]
    store = MemoryStore()
    ids = list(KINDS)
    async with _coordinator(store, 0.05 if moment == "drain" else 10) as coordinator:
        for name in KINDS:
            await coordinator.start(definition.with_id(name), name)
        if moment != "running":
            await _interrupt(coordinator, ids, moment)
        if moment in ("limit", "outside") and threads:
            for saga_id in ids:
                async with asyncio.timeout(30):
                    async for event in coordinator.attach(saga_id).events():
                        if event.type == e.UNDO_FAILED:
                            break
        if moment != "drain":
            world.open.set()
            await _ends(coordinator, ids)
    if moment == "drain":
        for name in KINDS:
            assert (await store.events(name))[-1].type == e.UNDO_STARTED, "an outcome of a cut-off undo"
        world.open.set()
        await _until(lambda: len(world.raised) == len(KINDS))
        async with _coordinator(store, 10) as coordinator:
            await _ends(coordinator, ids)
    assert len(world.raised) == len(KINDS), "not every exception was raised"
    wrong: list[str] = []
    for name, kind in KINDS.items():
        stored = await store.load(name)
        first = next(event for event in stored.events if event.type in (e.UNDONE, e.UNDO_FAILED))
        assert isinstance(first.data, e.UndoFailed), name
        # What is left of a thread is heard by nobody; it was recorded before that its task was cancelled.
        unheard = moment == "outside" and (threads or name.startswith("cancelled"))
        cut_off = moment == "drain" or unheard
        final = kind.final and not cut_off and not (threads and moment == "limit")
        if first.data.interrupted != cut_off:
            wrong.append(f"{name}: recorded as {first.data}")
        if stored.record.status != ("stuck" if final else "rolled_back"):
            wrong.append(f"{name}: {stored.record.status}")
        if (f"{name}/node/do" in world.effects) != final:
            wrong.append(f"{name}: {stored.record.status}, and its effect does not match that")
    assert not wrong, "\n".join(wrong)
