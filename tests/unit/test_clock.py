"""The clock that waits go by: one that is set back delays nothing."""

from __future__ import annotations

import asyncio
import time

import pytest

from compensate import Coordinator, Retry, SagaExecutor, action, saga
from compensate.runtime.clock import SteadyClock


class Wall:
    """The machine's clock, and by how much it was set."""

    off = 0.0

    def now(self) -> float:
        return time.time() + self.off


tries: list[float] = []


@action(retry=Retry(2, first=0.4, jitter=0))
async def twice(x: int) -> int:
    tries.append(time.monotonic())
    if len(tries) == 1:
        raise OSError("once more")
    return x


@saga
def tried(x: int) -> int:
    return twice(x)


@pytest.mark.parametrize("off", [-0.3, -3600.0])
@pytest.mark.parametrize("coordinated", [False, True])
async def test_a_clock_that_is_set_back_prolongs_no_wait(off: float, coordinated: bool) -> None:
    tries.clear()
    wall = Wall()

    async def run() -> int:
        if not coordinated:
            return await SagaExecutor(tried, clock=wall).execute(1)
        async with Coordinator("memory://", sagas=[tried], clock=wall) as c:
            return await c.run(tried, 1)

    running = asyncio.create_task(run())
    await asyncio.sleep(0.35)
    wall.off = off
    assert await running == 1
    assert 0.39 < tries[1] - tries[0] < 0.6


async def test_the_steady_clock_goes_on_while_the_one_below_is_behind_and_joins_it_again() -> None:
    wall = Wall()
    steady = SteadyClock(wall)
    first = steady.now()
    wall.off = -3600.0
    await asyncio.sleep(0.1)
    assert 0.05 < steady.now() - first < 1
    await asyncio.sleep(0.1)
    assert 0.15 < steady.now() - first < 1
    wall.off = 0.0
    assert abs(steady.now() - time.time()) < 0.1
    wall.off = 3600.0
    assert 3599 < steady.now() - first < 3601


async def test_a_clock_that_a_test_holds_still_stays_so() -> None:
    class Still:
        def now(self) -> float:
            return 1_000.0

    steady = SteadyClock(Still())
    assert {steady.now() for _ in range(10)} == {1_000.0}
