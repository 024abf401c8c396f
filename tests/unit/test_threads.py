"""Plain functions in worker threads: what they raise, and what their time limits count."""

from __future__ import annotations

import asyncio
import threading

import pytest

from compensate import Coordinator, RolledBack, action, fan_out, saga

done: list[int] = []
go_on = threading.Event()


@pytest.fixture(autouse=True)
def _forget() -> None:
    done.clear()
    go_on.clear()


@action
def first_of_none() -> int:
    return next(iter([]))


@saga
def empty() -> int:
    return first_of_none()


async def test_stop_iteration_in_a_thread_is_a_failure_like_any_other() -> None:
    async with Coordinator("memory://", sagas=[empty]) as coordinator:
        with pytest.raises(RolledBack, match="StopIteration"):
            await asyncio.wait_for(coordinator.run(empty), 10)


@action(timeout=0.3)
def short(i: int) -> int:
    threading.Event().wait(0.2)
    done.append(i)
    return i


@saga
def queue(numbers: list[int]) -> list[int]:
    return fan_out(short, numbers)


async def test_waiting_for_a_free_thread_does_not_count_against_a_time_limit() -> None:
    async with Coordinator("memory://", sagas=[queue], threads=1) as coordinator:
        assert await coordinator.run(queue, [0, 1, 2, 3]) == [0, 1, 2, 3]


@action
def held(i: int) -> int:
    go_on.wait(10)
    done.append(i)
    return i


@saga
def many(numbers: list[int]) -> list[int]:
    return fan_out(held, numbers)


async def test_what_still_waited_for_a_thread_at_the_close_is_never_called() -> None:
    before = set(threading.enumerate())
    async with Coordinator("memory://", sagas=[many], threads=1, drain=0.05) as coordinator:
        await coordinator.start(many, [0, 1, 2, 3])
        await asyncio.sleep(0.02)
        workers = [thread for thread in threading.enumerate() if thread not in before]
        assert len(workers) == 1
    go_on.set()
    workers[0].join(10)
    assert done == [0]
