"""The coordinator: starting, following, deciding, adopting; alone and beside others on one store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from compensate import (
    ActionFailed,
    Coordinator,
    Ctx,
    IllegalRequest,
    Page,
    ParamsInvalid,
    Permanent,
    Retry,
    RolledBack,
    SagaExists,
    SagaNotFound,
    SagaRecord,
    Stopped,
    Stuck,
    action,
    connect,
    fan_out,
    saga,
)
from compensate.core import events as e
from compensate.stores.memory import MemoryStore


@dataclass
class World:
    """What the actions of these tests work on."""

    done: list[str] = field(default_factory=list)
    blocked: set[str] = field(default_factory=set)
    failing: set[str] = field(default_factory=set)
    gates: dict[str, asyncio.Event] = field(default_factory=dict)
    most: int = 0
    running: int = 0

    def gate(self, name: str) -> asyncio.Event:
        return self.gates.setdefault(name, asyncio.Event())


@action
async def make(ctx: Ctx[World], name: str) -> str:
    world = ctx.deps
    world.done.append(f"make {name}")
    world.running += 1
    world.most = max(world.most, world.running)
    try:
        if name in world.blocked:
            await world.gate(name).wait()
        await asyncio.sleep(0)
    finally:
        world.running -= 1
    if name in world.failing:
        raise ValueError(f"no {name}")
    return name


@make.undo(retry=Retry(2, first=0.0))
async def unmake(ctx: Ctx[World], name: str) -> None:
    ctx.deps.done.append(f"unmake {name}")
    if f"un{name}" in ctx.deps.failing:
        raise Permanent(f"{name} stays")


@action
async def join(parts: list[str]) -> str:
    return "+".join(parts)


@saga
def two(first: str, second: str) -> str:
    one = make(first)
    return join([one, make.after(one)(second)])


@saga
def many(names: list[str]) -> str:
    return join(fan_out(make, names))


async def until(what: Callable[[], object]) -> None:
    while True:
        if what():
            return
        await asyncio.sleep(0.001)


async def test_starting_the_same_id_again_gives_the_same_saga() -> None:
    world = World()
    async with Coordinator("memory://", deps=world, sagas=[two, many]) as c:
        runs = await asyncio.gather(*(c.start(two.with_id("x"), "a", "b") for _ in range(5)))
        assert [await run.result() for run in runs] == ["a+b"] * 5
        assert world.done == ["make a", "make b"]
        assert await c.run(two.with_id("x"), "a", second="b") == "a+b"
        with pytest.raises(SagaExists, match="other params"):
            await c.run(two.with_id("x"), "a", "c")
        with pytest.raises(SagaExists, match="another definition"):
            await c.run(many.with_id("x"), ["a"])
        assert world.done == ["make a", "make b"]


async def test_two_starts_of_one_id_at_once_on_a_store_that_groups_writes(tmp_path: Path) -> None:
    world = World()
    async with Coordinator(f"sqlite:///{tmp_path}/s.db", deps=world, sagas=[two]) as c:
        ids = [f"x{k}" for k in range(20)]
        runs = await asyncio.gather(*(c.start(two.with_id(i), "a", "b") for i in ids for _ in range(3)))
        assert {await run.result() for run in runs} == {"a+b"}
        assert len(world.done) == 40


async def test_params_that_do_not_fit_store_nothing() -> None:
    async with Coordinator("memory://", deps=World(), sagas=[two]) as c:
        with pytest.raises(ParamsInvalid, match="two"):
            await c.run(two.with_id("x"), "a", 3)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
        with pytest.raises(SagaNotFound):
            await c.get("x")


async def test_a_run_can_be_followed_event_by_event() -> None:
    world = World(blocked={"b"})
    async with Coordinator("memory://", deps=world, sagas=[two]) as c:
        run = await c.start(two, "a", "b")
        seen = []
        async for event in run.events():
            seen.append((event.seq, event.type, event.node))
            if event.node == "make_2" and event.type == e.STARTED:
                world.gate("b").set()
        assert [seq for seq, _, _ in seen] == list(range(1, len(seen) + 1))
        assert seen[-1][1] == e.SAGA_COMPLETED
        assert [event async for event in run.events(after=len(seen) - 1)] != []


async def test_a_failure_rolls_back_and_keeps_the_original_error() -> None:
    world = World(failing={"b"})
    async with Coordinator("memory://", deps=world, sagas=[two]) as c:
        run = await c.start(two.with_id("x"), "a", "b")
        with pytest.raises(RolledBack) as caught:
            await run.result()
        assert isinstance(caught.value.__cause__, ValueError)
        assert caught.value.node == "make_2"
        assert world.done == ["make a", "make b", "unmake a"]
        with pytest.raises(RolledBack) as later:  # from the log: data, no live object
            await c.attach("x").result()
        assert isinstance(later.value.__cause__, ActionFailed)
        assert later.value.__cause__.type == "builtins.ValueError"


async def test_a_completed_saga_is_rolled_back_on_request_once() -> None:
    world = World()
    async with Coordinator("memory://", deps=world, sagas=[two]) as c:
        await c.run(two.with_id("x"), "a", "b")
        run = await c.rollback("x", reason="customer called", who="ann")
        with pytest.raises(RolledBack, match="customer called"):
            await run.result()
        assert world.done == ["make a", "make b", "unmake b", "unmake a"]
        with pytest.raises(IllegalRequest, match="it is rolled back already"):
            await c.rollback("x")
        with pytest.raises(SagaNotFound):
            await c.rollback("y")


@pytest.mark.parametrize("verb", ["retry", "skip", "resolve"])
async def test_a_stuck_saga_says_what_can_be_chosen_and_goes_on_after_the_choice(verb: str) -> None:
    world = World(failing={"b", "una"})
    async with Coordinator("memory://", deps=world, sagas=[two]) as c:
        run = await c.start(two.with_id("x"), "a", "b")
        with pytest.raises(Stuck) as caught:
            await run.result()
        assert caught.value.nodes == ("make",)
        (stuck,) = (await c.get("x")).stuck()
        assert verb in stuck.choices
        with pytest.raises(IllegalRequest):
            await c.skip("x", "make_2")
        world.failing.discard("una")
        run = await getattr(c, verb)("x", "make", reason="seen to", who="eve")
        with pytest.raises(RolledBack):
            await run.result()
        snapshot = await c.get("x")
        assert snapshot.nodes["make"] == {"retry": "undone", "skip": "skipped", "resolve": "resolved"}[verb]
        about = [event.data for event in snapshot.events if event.node == "make"]
        assert [data for data in about if isinstance(data, e.Decided)] == [e.Decided("eve", "seen to")]


async def test_a_paused_saga_starts_nothing_and_goes_on_when_resumed() -> None:
    world = World(blocked={"a"})
    async with Coordinator("memory://", deps=world, sagas=[two]) as c:
        run = await c.start(two.with_id("x"), "a", "b")
        await until(lambda: world.running)
        await c.pause("x", reason="look", who="ann")
        world.gate("a").set()
        await until(lambda: not world.running)
        await asyncio.sleep(0.02)
        assert world.done == ["make a"]
        assert (await c.get("x")).record.paused
        await c.resume("x")
        assert await run.result() == "a+b"


async def test_a_saga_past_its_deadline_is_rolled_back() -> None:
    world = World(blocked={"b"})
    async with Coordinator("memory://", deps=world, sagas=[two], grace=0.01) as c:
        run = await c.start(two.options(deadline=0.05), "a", "b")
        # b is cancelled and in doubt; its undo needs the output, so it is run again under its key to learn it.
        await until(lambda: world.done.count("make b") == 2)
        world.gate("b").set()
        with pytest.raises(RolledBack, match="deadline"):
            await run.result()
        assert world.done == ["make a", "make b", "make b", "unmake b", "unmake a"]


async def test_no_more_actions_run_at_once_than_allowed_and_all_get_their_turn() -> None:
    world = World()
    async with Coordinator("memory://", deps=world, sagas=[many], max_actions=7) as c:
        runs = [await c.start(many, [f"{k}.{i}" for i in range(20)]) for k in range(10)]
        for run in runs:
            await run.result()
        assert world.most == 7
        assert len(world.done) == 200


async def test_what_another_process_owns_is_decided_there(tmp_path: Path) -> None:
    world = World(blocked={"b"})
    url = f"sqlite:///{tmp_path}/s.db"
    async with (
        Coordinator(url, deps=world, sagas=[two], poll=0.01) as owner,
        Coordinator(url, deps=World(), sagas=[two], poll=0.01) as other,
    ):
        run = await owner.start(two.with_id("x"), "a", "b")
        await until(lambda: "make b" in world.done)
        assert other.execution("x") is None
        await other.pause("x", who="ann")
        assert (await owner.get("x")).record.paused
        await other.resume("x")
        world.failing.add("b")
        world.gate("b").set()
        with pytest.raises(RolledBack):
            await other.attach("x").result()
        with pytest.raises(RolledBack):
            await run.result()
        with pytest.raises(IllegalRequest):
            await other.rollback("x")
        assert (await owner.get("x")).record.epoch >= 1


async def test_what_its_owner_left_is_adopted_within_a_poll(tmp_path: Path) -> None:
    world = World(blocked={"b"})
    url = f"sqlite:///{tmp_path}/s.db"
    async with Coordinator(url, deps=world, sagas=[two], poll=0.01) as heir:
        async with Coordinator(url, deps=world, sagas=[two], drain=0.0) as first:
            run = await first.start(two.with_id("x"), "a", "b")
            await until(lambda: "make b" in world.done)
        with pytest.raises(Stopped):
            await run.result()
        world.gate("b").set()
        assert await heir.attach("x").result() == "a+b"
        snapshot = await heir.get("x")
        assert snapshot.record.epoch > 1
        assert world.done == ["make a", "make b", "make b"]
        assert [event.data for event in snapshot.events if event.type == e.IN_DOUBT] == [e.InDoubt("cut_off")]


async def test_leaving_waits_for_what_runs_and_starts_nothing_more() -> None:
    world = World(blocked={"a"})
    store = MemoryStore()
    async with Coordinator(store, deps=world, sagas=[two], drain=10.0) as c:
        await c.start(two.with_id("x"), "a", "b")
        await until(lambda: world.running)
        asyncio.get_running_loop().call_later(0.02, world.gate("a").set)
    assert world.done == ["make a"]
    stored = await store.load("x")
    assert stored.events[-1].type == e.COMPLETED
    assert stored.record.owner is None
    async with Coordinator(store, deps=world, sagas=[two]) as c:
        assert await c.attach("x").result() == "a+b"
    assert world.done == ["make a", "make b"]


async def test_a_saga_whose_action_is_unknown_is_parked_and_goes_on_when_it_is_back() -> None:
    world = World(blocked={"a"})
    store = MemoryStore()
    async with Coordinator(store, deps=world, sagas=[two], drain=0.0) as c:
        await c.start(two.with_id("x"), "a", "b")
        await until(lambda: world.running)
    world.gate("a").set()

    @action
    async def another(x: int) -> int:
        return x

    @saga
    def unlike(x: int) -> int:
        return another(x)

    async with Coordinator(store, deps=world, sagas=[unlike]) as c:
        with pytest.raises(Stuck, match="make"):
            await c.attach("x").result()
        assert await c.run(unlike, 1) == 1
        assert (await c.get("x")).record.parked
    async with Coordinator(store, deps=world, sagas=[two]) as c:
        assert await c.attach("x").result() == "a+b"


async def test_sagas_are_listed_page_by_page_and_by_filter() -> None:
    world = World(failing={"z"})
    async with Coordinator("memory://", deps=world, sagas=[two, many]) as c:
        for k in range(5):
            await c.run(two.with_id(f"t{k}"), "a", "b")
        with pytest.raises(RolledBack):
            await c.run(many.with_id("m"), ["z"])
        page = await c.list(limit=4)
        rest = await c.list(limit=4, cursor=page.cursor)
        assert len(page.records) == 4
        assert {record.id for record in [*page.records, *rest.records]} == {"t0", "t1", "t2", "t3", "t4", "m"}
        assert rest.cursor is None
        assert [record.id for record in (await c.list(status="rolled_back")).records] == ["m"]
        assert len((await c.list(name="two")).records) == 5


async def test_a_coordinator_that_was_left_refuses_work() -> None:
    async with Coordinator("memory://", deps=World(), sagas=[two]) as c:
        pass
    with pytest.raises(Stopped):
        await c.run(two, "a", "b")


@pytest.mark.parametrize("kind", [RuntimeError, StopIteration, GeneratorExit, BaseException])
async def test_an_observer_that_raises_disturbs_nothing(
    kind: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    def observe(saga_id: str, events: Any) -> None:
        raise kind("not now")

    async with Coordinator("memory://", deps=World(), sagas=[two], observers=[observe]) as c:
        assert await asyncio.wait_for(c.run(two, "a", "b"), 10) == "a+b"
    assert "an observer raised" in caplog.text


def test_the_blocking_twin_runs_follows_and_decides(tmp_path: Path) -> None:
    world = World(failing={"una"})
    with connect(f"sqlite:///{tmp_path}/s.db", deps=world, sagas=[two]) as c:
        assert c.run(two.with_id("x"), "a", "b") == "a+b"
        run = c.start(two.with_id("y"), "c", "d")
        assert run.result() == "c+d"
        assert [event.type for event in run.events()][-1] == e.SAGA_COMPLETED
        with pytest.raises(Stuck):
            c.rollback("x", reason="no").result()
        with pytest.raises(RolledBack):
            c.skip("x", "make", reason="let it be").result()
        assert {record.id for record in c.list().records} == {"x", "y"}
        assert c.get("x").nodes["make"] == "skipped"


async def test_a_page_is_iterated_and_continued_behind_its_cursor() -> None:
    async with Coordinator("memory://", deps=World(), sagas=[many]) as c:
        for k in range(5):
            await c.start(many.with_id(f"o{k}"), ["a"])
        first = await c.list(limit=3)
        rest = await c.list(limit=3, cursor=first.cursor)
        assert (len(first), len(rest), rest.cursor) == (3, 2, None)
        assert isinstance(first, Page)
        assert all(isinstance(record, SagaRecord) for record in first)
        assert sorted(record.id for page in (first, rest) for record in page) == [f"o{k}" for k in range(5)]
        assert list(await c.list(name="none")) == []
