"""What goes on after its cancellation: until it has ended nobody undoes it, runs it again or has its saga."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from compensate import (
    Coordinator,
    IllegalRequest,
    NoEffect,
    Retry,
    RolledBack,
    SagaExecutor,
    Stuck,
    action,
    connect,
    saga,
)
from compensate.stores import open_store

STORES = ["memory://", "sqlite:///{}/s.db", "file:///{}/s"]


class World:
    def __init__(self) -> None:
        self.standing: set[str] = set()
        self.told: list[str] = []


WORLD = World()


@pytest.fixture
def world() -> World:
    WORLD.__init__()  # type: ignore[misc]  # the actions below have no other way to it
    return WORLD


@action
async def late() -> int:
    """Cleans up for longer than a shutdown waits, and has its effect in the end."""
    WORLD.told.append("began")
    try:
        await asyncio.sleep(60)
    finally:
        await asyncio.sleep(1.6)
        WORLD.standing.add("late")
        WORLD.told.append("landed")
    return 1


@late.undo(unknown=True)
async def take_back(output: int | None) -> None:
    WORLD.told.append("undone")
    if "late" not in WORLD.standing:
        raise NoEffect("nothing to take back")
    WORLD.standing.discard("late")


@action
def late_thread() -> int:
    WORLD.told.append("began")
    time.sleep(1.6)
    WORLD.standing.add("late")
    WORLD.told.append("landed")
    return 1


@late_thread.undo(unknown=True)
async def take_back_thread(output: int | None) -> None:
    WORLD.told.append("undone")
    WORLD.standing.discard("late")


@action
async def other() -> int:
    await asyncio.sleep(60)
    return 1


@saga
def alone() -> int:
    return late()


@saga
def beside() -> list[int]:
    return [late(), other()]


@saga
def threaded() -> int:
    return late_thread()


async def until_told(what: str) -> None:
    for _ in range(1_500):
        if what in WORLD.told:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"{what} was not told: {WORLD.told}")


@pytest.mark.parametrize("url", STORES)
@pytest.mark.parametrize("which", [alone, beside])
async def test_a_saga_whose_coroutine_goes_on_after_the_end_of_its_coordinator_stays_owned(
    url: str, which: object, tmp_path: Path, world: World
) -> None:
    definition = alone if which is alone else beside
    store = open_store(url.format(tmp_path))
    if url == "memory://":
        await store.open()
    async with Coordinator(store, sagas=[definition], drain=0) as a:
        await a.start(definition.with_id("s"))
        await until_told("began")
    assert "landed" not in world.told  # it goes on
    again = store if url == "memory://" else open_store(url.format(tmp_path))
    async with Coordinator(again, sagas=[definition], poll=0.05, recover=False) as b:
        run = await b.rollback("s", reason="not wanted any more")
        assert await asyncio.wait_for(run.ended(), 20) == "rolled_back"
    assert world.told == ["began", "landed", "undone"]
    assert world.standing == set()


def test_a_connection_that_is_closed_over_a_coroutine_that_does_not_end_lets_the_saga_go(
    tmp_path: Path, world: World
) -> None:
    url = f"sqlite:///{tmp_path}/s.db"
    over = False

    @action
    async def deaf() -> int:
        WORLD.told.append("began")
        while not over:
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                continue
        return 1

    @saga
    def hanging() -> int:
        return deaf()

    with connect(url, sagas=[hanging], drain=0) as c:
        c.start(hanging.with_id("s"))
        while "began" not in world.told:
            time.sleep(0.01)
    with connect(url, sagas=[hanging], drain=0, poll=0.05) as d:
        for _ in range(500):
            if world.told == ["began", "began"]:
                break
            time.sleep(0.01)
        assert d.get("s").record.epoch == 2
    assert world.told == ["began", "began"]


@pytest.mark.parametrize("url", STORES)
async def test_others_do_not_get_the_saga_of_an_executor_whose_thread_still_works(
    url: str, tmp_path: Path, world: World
) -> None:
    store = open_store(url.format(tmp_path))
    await store.open()
    executor = SagaExecutor(threaded, saga_id="s", store=store)
    running = asyncio.create_task(executor.execute())
    await until_told("began")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    another = await SagaExecutor.from_stored(store, "s", threaded.actions.values())
    with pytest.raises(IllegalRequest, match="owns it"):
        await another.rollback("not wanted any more")
    assert "undone" not in world.told
    await until_told("landed")
    for _ in range(200):
        try:
            await another.rollback("not wanted any more")
            break
        except IllegalRequest:
            await asyncio.sleep(0.01)
    assert world.told == ["began", "landed", "undone"]
    assert not [event for event in another.events if getattr(event.data, "deaths", 0)]
    await store.close()


# -- what cancels its own task -------------------------------------------------


async def handled_and_timed_out() -> None:
    async def fails() -> None:
        raise ValueError("one of two is down")

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(fails())
            group.create_task(asyncio.sleep(5))
    except* ValueError:
        pass
    task = asyncio.current_task()
    assert task is not None
    task.cancel()  # what a task group leaves behind before Python 3.13 when its body had already ended
    try:
        await asyncio.sleep(5)
    except asyncio.CancelledError as error:
        raise ConnectionError("no answer") from error


async def cancels_itself() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(5)


@pytest.mark.parametrize("where", ["do", "undo"])
@pytest.mark.parametrize(("how", "most"), [(handled_and_timed_out, 6), (cancels_itself, 12)])
async def test_whoever_cancels_its_own_task_each_time_does_not_run_for_ever(
    how: object, most: int, where: str, tmp_path: Path
) -> None:
    calls = 0
    fails = handled_and_timed_out if how is handled_and_timed_out else cancels_itself

    @action(retry=Retry(3, first=0.01))
    async def step() -> int:
        nonlocal calls
        if where == "do":
            calls += 1
            await fails()
        return 1

    @step.undo(retry=Retry(3, first=0.01))
    async def unstep(output: int) -> None:
        nonlocal calls
        calls += 1
        await fails()

    @action
    async def end(before: int) -> int:
        raise ValueError("no")

    @saga
    def steps() -> int:
        return end(step())

    async with Coordinator(f"sqlite:///{tmp_path}/s.db", sagas=[steps], poll=0.02) as c:
        with pytest.raises((RolledBack, Stuck)):
            await asyncio.wait_for(c.run(steps), 30)
    assert 1 <= calls <= most
