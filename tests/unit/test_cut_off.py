"""Tasks that somebody else cancels: no saga waits for ever, and nothing is undone or begun beside what still runs."""

from __future__ import annotations

import asyncio
import threading

import pytest

from compensate import Coordinator, RolledBack, SagaExecutor, action, saga

log: list[str] = []
doors: dict[str, asyncio.Event] = {}
exits: dict[str, threading.Event] = {}


@pytest.fixture(autouse=True)
def _forget() -> None:
    log.clear()
    doors.clear()
    exits.clear()


@action
async def cancels_itself(x: int) -> int:
    log.append("begun")
    if log.count("begun") == 1:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)
    return x


@cancels_itself.undo(unknown=True)
async def undo_it(x: int | None) -> None:
    log.append("undone")


@action
async def plain(x: int) -> int:
    return x


@action
async def add(x: int, y: int) -> int:
    return x + y


@saga
def alone(x: int) -> int:
    return cancels_itself(x)


@saga
def beside(x: int) -> int:
    return add(cancels_itself(x), plain(x))


async def test_a_saga_whose_task_somebody_else_cancels_is_gone_on_with(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with Coordinator("memory://", poll=0.01) as coordinator:
        run = await coordinator.start(alone, 1)
        assert await asyncio.wait_for(run.result(), 10) == 1
        doubts = [event.type async for event in run.events() if event.type == "in_doubt"]
    assert log == ["begun", "begun"]
    assert len(doubts) == 1
    assert "cut off" in caplog.text


async def test_an_action_side_by_side_whose_task_somebody_else_cancels_is_in_doubt() -> None:
    async with Coordinator("memory://") as coordinator:
        run = await coordinator.start(beside, 1)
        with pytest.raises(RolledBack, match="cancels_itself"):
            await asyncio.wait_for(run.result(), 10)
        states = [(event.type, event.node) async for event in run.events() if event.type == "in_doubt"]
    assert states == [("in_doubt", "cancels_itself")]
    assert log == ["begun", "undone"]


@action
async def left(x: int) -> int:
    return await _held("left", x)


@action
async def right(x: int) -> int:
    return await _held("right", x)


@left.undo(unknown=True)
async def undo_left(x: int | None) -> None:
    log.append("undo left")


@right.undo(unknown=True)
async def undo_right(x: int | None) -> None:
    log.append("undo right")


async def _held(name: str, x: int) -> int:
    log.append(f"{name} begins")
    try:
        await doors.setdefault("open", asyncio.Event()).wait()
    finally:
        await asyncio.sleep(0.01)
        log.append(f"{name} ends")
    return x


@saga
def both(x: int) -> int:
    return add(left(x), right(x))


async def test_when_an_executor_is_cancelled_nothing_runs_on_behind_its_back() -> None:
    executor = SagaExecutor(both)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(executor.execute(1), 0.05)
    assert log == ["left begins", "right begins", "left ends", "right ends"]
    log.clear()
    await executor.rollback()
    assert sorted(log) == ["undo left", "undo right"]


@action
def in_a_thread(x: int) -> int:
    log.append("thread begins")
    exits["it"].wait()
    log.append("thread ends")
    return x


@in_a_thread.undo(unknown=True)
async def undo_thread(x: int | None) -> None:
    log.append("undo")


@saga
def threaded(x: int) -> int:
    return in_a_thread(x)


async def test_an_undo_waits_for_the_thread_that_a_cancelled_executor_has_left() -> None:
    exits["it"] = threading.Event()
    executor = SagaExecutor(threaded)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(executor.execute(1), 0.05)
    undoing = asyncio.ensure_future(executor.rollback())
    await asyncio.sleep(0.05)
    assert log == ["thread begins"]
    exits["it"].set()
    await asyncio.wait_for(undoing, 10)
    assert log == ["thread begins", "thread ends", "undo"]
