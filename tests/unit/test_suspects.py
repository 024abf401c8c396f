"""Sagas near which processes have died run after the others, one at a time, least suspicious first."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from compensate import (
    Coordinator,
    DefinitionError,
    RolledBack,
    Saga,
    SagaExecutor,
    Stuck,
    Unavailable,
    action,
    saga,
)
from compensate.core import events as e
from compensate.core.machine import Machine
from compensate.stores.base import Damaged, NewSaga, StoredSaga
from compensate.stores.memory import MemoryStore

NOW = 1_000.0


class World:
    """Notes which sagas run, and lets them go on when it is told to."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.running: list[str] = []
        self.started: list[str] = []
        self.most = 0
        self.free = asyncio.Event()
        self.gates: dict[str, asyncio.Event] = {}

    async def call(self, name: str) -> str:
        self.running.append(name)
        self.started.append(name)
        self.most = max(self.most, len(self.running))
        try:
            if not self.free.is_set():
                await self.gates.setdefault(name, asyncio.Event()).wait()
        finally:
            self.running.remove(name)
        return name

    def let_go(self, name: str) -> None:
        self.gates.setdefault(name, asyncio.Event()).set()


world = World()


@pytest.fixture(autouse=True)
def fresh_world() -> None:
    world.reset()


@action
async def call(name: str) -> str:
    return await world.call(name)


@call.undo
async def back(name: str) -> None:
    await world.call(f"undo {name}")


@saga
def calling(name: str) -> str:
    return call(name)


async def until(true: Callable[[], bool]) -> None:
    for _ in range(2_000):
        if true():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it never came to this")


def put(store: MemoryStore, name: str, deaths: int, *, at: float = NOW, paused: bool = False) -> None:
    """Store a saga whose action was running when its process died once more after so many deaths."""
    of: Saga[..., Any] = calling
    machine = Machine(of.plan, name, 1)
    machine.create(of.encode_params(name), at)
    machine.next(at)
    for _ in range(deaths):
        machine.interrupted(at, died=True)
        machine.next(at)
    if paused:
        machine.pause(at)
    store.create(
        NewSaga(name, of.name, of.fingerprint, of.encoded, machine.take(), machine.standing, at),
        "a dead process",
    )


def coordinator(store: MemoryStore, **how: Any) -> Coordinator:
    settings: dict[str, Any] = {"poll": 0.02, "drain": 0.0, **how}
    return Coordinator(store, sagas=[calling], **settings)


class Counting(MemoryStore):
    """Counts the looks for sagas, and holds those for suspects up until told otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.looks = 0
        self.open_for_suspects = True

    async def claim(self, owner: str, now: float, **how: Any) -> list[StoredSaga | Damaged]:
        if "below" in how:
            self.looks += 1
        elif not self.open_for_suspects:
            return []
        return await super().claim(owner, now, **how)


async def test_suspects_run_after_the_others_one_at_a_time_least_suspicious_first() -> None:
    store = Counting()
    for number, (name, deaths) in enumerate({"d3": 3, "d2": 2, "d1": 1, "d0": 0, "young": 1}.items()):
        put(store, name, deaths, at=NOW + number)
    async with coordinator(store) as c:
        assert not {"d1", "d2", "d3", "young"} & set(
            c._host.live
        )  # it is open, and only the others were claimed
        assert set(c._host.live) == {"d0"}
        for name in ("d1", "young", "d2", "d3"):
            await until(lambda name=name: name in world.running)  # type: ignore[misc]
            looks = store.looks
            await until(lambda looks=looks: store.looks > looks + 2)  # type: ignore[misc]
            assert world.running == ["d0", name]  # looking again brings no second one
            world.let_go(name)
            await until(lambda name=name: name not in world.running)  # type: ignore[misc]
        world.let_go("d0")
        for name in ("d0", "d1", "d2", "d3", "young"):
            assert await c.attach(name).result() == name


async def test_many_suspects_do_not_wait_for_a_look_each() -> None:
    store = Counting()
    for number in range(200):
        put(store, f"s{number}", 1, at=NOW + number)
    world.free.set()
    async with coordinator(store, poll=0.5) as c:
        await until(lambda: not c._host.live and all(x.status == "completed" for x in store._sagas.values()))
    assert store.looks < 50
    assert world.most == 1
    assert len(world.started) == 200


async def test_a_suspect_that_had_its_time_makes_room_and_runs_on() -> None:
    store = MemoryStore()
    put(store, "slow", 1)
    put(store, "next", 1, at=NOW + 1)
    async with coordinator(store) as c:
        c._adoption.suspects.trial = 0.05
        await until(lambda: world.running == ["slow", "next"])
        world.free.set()
        world.let_go("slow")
        world.let_go("next")
        assert await c.attach("slow").result() == "slow"


async def test_a_paused_suspect_keeps_nobody_waiting() -> None:
    store = MemoryStore()
    put(store, "paused", 1, paused=True)
    put(store, "next", 1, at=NOW + 1)
    async with coordinator(store) as c:
        await until(lambda: world.running == ["next"])
        world.let_go("next")
        await c.attach("next").result()
        await c.resume("paused")
        world.let_go("paused")
        assert await c.attach("paused").result() == "paused"


@pytest.mark.parametrize("recover", [True, False])
async def test_starting_the_id_of_a_suspect_again_does_not_run_it_before_its_turn(recover: bool) -> None:
    store = MemoryStore()
    for name in ("a", "b"):
        put(store, name, 1)
    async with coordinator(store, recover=recover, poll=0.05) as c:
        a = await c.start(calling.with_id("a"), "a")
        b = await c.start(calling.with_id("b"), "b")
        assert world.started == []
        for name in ("a", "b"):
            await until(lambda name=name: world.running == [name])  # type: ignore[misc]
            world.let_go(name)
        assert (await a.result(), await b.result()) == ("a", "b")


async def test_a_fresh_saga_does_not_wait_for_suspects() -> None:
    store = MemoryStore()
    put(store, "suspect", 2)
    async with coordinator(store) as c:
        await until(lambda: world.running == ["suspect"])
        world.let_go("new")
        assert await c.run(calling.with_id("new"), "new") == "new"
        assert world.running == ["suspect"]


async def test_at_the_last_death_it_is_stuck_and_an_operator_can_let_it_go() -> None:
    store = MemoryStore()
    put(store, "guilty", 4)
    async with coordinator(store) as c:
        with pytest.raises(Stuck, match="its process died 5 times while it ran"):
            await c.attach("guilty").result()
        await c.skip("guilty", "call", who="ann", reason="seen to")
        with pytest.raises(RolledBack):
            await c.attach("guilty").result()
    assert world.started == []


async def test_a_saga_stuck_for_deaths_can_be_rolled_back_and_stays_stuck_at_that_node() -> None:
    store = MemoryStore()
    put(store, "guilty", 1)
    async with coordinator(store, crashes=2) as c:
        with pytest.raises(Stuck, match="its process died 2 times"):
            await c.attach("guilty").result()
        run = await c.rollback("guilty", who="ann")
        with pytest.raises(Stuck, match="its process died 2 times"):
            await run.result()
        await c.resolve("guilty", "call", who="ann", reason="undone by hand")
        with pytest.raises(RolledBack):
            await c.attach("guilty").result()
    assert world.started == []


async def test_a_coordinator_that_is_closed_and_one_that_vanishes() -> None:
    """Only the second one died; however often the first happens, nobody is suspected for it."""
    store = MemoryStore()
    async with coordinator(store) as c:
        await c.start(calling.with_id("s"), "s")
        await until(lambda: world.running == ["s"])
    for _ in range(6):
        async with coordinator(store):
            await until(lambda: world.running == ["s"])
    record = (await store.load("s")).record
    assert (record.owner, record.deaths, record.died) == (None, 0, False)
    lost = coordinator(store, owner="lost")
    await lost.__aenter__()
    await until(lambda: world.running == ["s"])
    del store._leases["lost"]  # as if its process had ended: its lease runs out
    async with coordinator(store) as c:
        await until(lambda: world.running == ["s", "s"])
        world.free.set()
        world.let_go("s")
        assert await c.attach("s").result() == "s"
    await lost.close()
    assert interruptions((await store.load("s")).events) == [*[("cut_off", 0)] * 7, ("crash", 1)]


@pytest.mark.parametrize("crashes", [0, -1])
def test_a_limit_that_cannot_be_reached_is_refused(crashes: int) -> None:
    with pytest.raises(DefinitionError, match="crashes"):
        Coordinator("memory://", crashes=crashes)
    with pytest.raises(DefinitionError, match="crashes"):
        SagaExecutor(calling, crashes=crashes)


def interruptions(events: list[e.Event]) -> list[tuple[str, int]]:
    return [(x.data.reason, x.data.deaths) for x in events if isinstance(x.data, e.InDoubt)]


async def test_an_executor_that_is_cancelled_lets_its_saga_go_and_one_that_is_replaced_died() -> None:
    store = MemoryStore()
    first = SagaExecutor(calling, saga_id="s", store=store)
    running = asyncio.ensure_future(first.execute("s"))
    await until(lambda: world.running == ["s"])
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert (await store.load("s")).record.owner is None
    running = asyncio.ensure_future(first.execute("s"))
    await until(lambda: world.running == ["s"])
    # As if its process were dead: nobody hears of it any more.
    second = await SagaExecutor.from_stored(store, "s", [call])
    world.free.set()
    assert await second.execute() == "s"
    assert interruptions((await store.load("s")).events) == [("cut_off", 0), ("crash", 1)]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_an_executor_gives_a_node_up_too() -> None:
    store = MemoryStore()
    put(store, "s", 2)
    executor = await SagaExecutor.from_stored(store, "s", [call], crashes=3)
    with pytest.raises(Stuck, match="its process died 3 times"):
        await executor.execute()
    assert world.started == []


class _LosesReleases(MemoryStore):
    """The first releases fail, and nobody knows whether they were done: they were not."""

    left = 1
    lost = 0

    def release(self, *args: Any, **kwargs: Any) -> Any:
        if self.left:
            self.left -= 1
            self.lost += 1
            raise Unavailable("the line broke")
        return super().release(*args, **kwargs)


@pytest.mark.parametrize("recover", [True, False])
async def test_a_suspect_whose_release_fails_is_not_left_alone(recover: bool) -> None:
    store = _LosesReleases()
    put(store, "s", 2)
    async with Coordinator(store, sagas=[calling], poll=0.3, recover=recover) as c:
        world.free.set()
        with pytest.raises(Unavailable):
            await c.adopt("s")
        assert store.lost == 1
        assert await asyncio.wait_for(c.attach("s").result(), 20) == "s"
