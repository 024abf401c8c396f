"""Virtual time never turns the event loop for ever: it gets on, or the test ends and says what waits."""

# ruff: noqa: ASYNC110 - what polls is the matter here

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable

import pytest

from compensate import Ctx, Retry, RolledBack, SagaExecutor, action, saga
from compensate.testing import FakeWorld, VirtualTime, VirtualTimeStalled, prove_saga, stalls
from compensate.testing.bench import VirtualCoordinator


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limits of a shorter patience: what is counted is the same."""
    monkeypatch.setattr(stalls, "WAKE_UPS", 5_000)
    monkeypatch.setattr(stalls, "TURNS", 50_000)
    monkeypatch.setattr(stalls, "PATIENT_TURNS", 10_000)


async def polls_the_wall_clock() -> None:
    until = time.time() + 4 * 3600
    while time.time() < until:
        await asyncio.sleep(1)


async def polls_the_monotonic_clock() -> None:
    until = time.monotonic() + 4 * 3600
    while time.monotonic() < until:
        await asyncio.sleep(0.001)


async def awaits_what_never_comes() -> None:
    await asyncio.Event().wait()


async def spins_on_the_wall_clock() -> None:
    until = time.time() + 4 * 3600
    while time.time() < until:
        await asyncio.sleep(0)


STALLS = [polls_the_wall_clock, polls_the_monotonic_clock, awaits_what_never_comes, spins_on_the_wall_clock]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("way", STALLS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("direction", ["action", "undo"])
def test_a_test_that_would_never_end_says_which_node_waits_and_where(
    coordinator: VirtualCoordinator, way: Callable[[], Awaitable[None]], direction: str
) -> None:
    @action
    async def approve() -> str:
        if direction == "action":
            await way()
        return "yes"

    @approve.undo
    async def withdraw(output: str) -> None:
        await way()

    @action
    async def refuse(after: str) -> None:
        raise RuntimeError("no")

    @saga
    def approval() -> None:
        return refuse(approve())

    with coordinator as c:
        with pytest.raises(VirtualTimeStalled) as caught:
            c.run(approval.with_id("a1"))
        told = str(caught.value)
        assert f"saga a1: the {direction} of node 'approve' is running" in told
        assert f"{way.__name__}, {__file__}:" in told or ".wait, " not in told
        assert way.__name__ in told
        assert "ctx.now()" in told


@pytest.mark.usefixtures("quick")
async def test_it_ends_a_test_on_a_loop_of_somebody_else_too(coordinator: VirtualCoordinator) -> None:
    def whole() -> None:
        async def main() -> None:
            @action
            async def approve() -> None:
                await polls_the_wall_clock()

            @saga
            def approval() -> None:
                return approve()

            async with coordinator as c:
                await c.run(approval)

        with pytest.raises(VirtualTimeStalled, match="polls_the_wall_clock"):
            asyncio.run(main())

    thread = threading.Thread(target=whole)
    thread.start()
    while thread.is_alive():
        await asyncio.sleep(0.01)


@pytest.mark.usefixtures("quick")
def test_an_executor_on_virtual_time_is_watched_too(virtual_time: VirtualTime) -> None:
    @action
    async def approve() -> None:
        await polls_the_wall_clock()

    @saga
    def approval() -> None:
        return approve()

    loop = virtual_time.new_loop()
    try:
        with pytest.raises(VirtualTimeStalled, match="polls_the_wall_clock"):
            loop.run_until_complete(SagaExecutor(approval, clock=virtual_time).execute())
        for task in asyncio.all_tasks(loop):
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                loop.run_until_complete(task)
    finally:
        loop.close()


@pytest.mark.usefixtures("quick")
def test_a_proof_of_such_a_saga_ends_too() -> None:
    @action
    async def approve(ctx: Ctx[FakeWorld]) -> str:
        await polls_the_wall_clock()
        ctx.deps.apply(ctx.key, "yes")
        return "yes"

    @saga
    def approval() -> str:
        return approve()

    with pytest.raises(VirtualTimeStalled, match="polls_the_wall_clock"):
        prove_saga(approval, {}, world=FakeWorld())


def test_a_loop_in_which_nothing_can_happen_any_more_ends(
    virtual_time: VirtualTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("compensate.testing.virtual_time._LAST_PATIENCE", 0.2)
    loop = virtual_time.new_loop()
    task = loop.create_task(awaits_what_never_comes(), name="waiter")
    with pytest.raises(
        VirtualTimeStalled, match=r"no timer is set.*\n.*'waiter' waits in awaits_what_never_comes"
    ):
        loop.run_until_complete(task)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)
    loop.close()


@pytest.mark.usefixtures("quick")
def test_attempts_that_fail_for_ever_are_no_progress(coordinator: VirtualCoordinator) -> None:
    @action(retry=Retry(None, first=60))
    async def hopeless() -> None:
        raise OSError("down")

    @saga
    def waits() -> None:
        return hopeless()

    with coordinator as c, pytest.raises(VirtualTimeStalled, match="no saga got any further"):
        c.run(waits)


# -- what is no stall -----------------------------------------------------------------------------


def test_an_action_that_polls_the_loops_clock_ends_at_once(
    coordinator: VirtualCoordinator, virtual_time: VirtualTime
) -> None:
    @action
    async def approve() -> float:
        loop = asyncio.get_running_loop()
        until = loop.time() + 4 * 3600
        while loop.time() < until:
            await asyncio.sleep(1)
        return loop.time()

    @saga
    def approval() -> float:
        return approve()

    with coordinator as c:
        assert 4 * 3600 <= c.run(approval) < 4 * 3600 + 2
    assert virtual_time.elapsed >= 4 * 3600


@pytest.mark.usefixtures("quick")
def test_polling_the_loops_clock_without_sleeping_ends(coordinator: VirtualCoordinator) -> None:
    @action
    async def approve() -> float:
        loop = asyncio.get_running_loop()
        began = loop.time()
        while loop.time() < began + 0.05:
            await asyncio.sleep(0)
        return loop.time() - began

    @saga
    def approval() -> float:
        return approve()

    with coordinator as c:
        assert c.run(approval) >= 0.05


def test_time_does_not_run_past_a_thread_that_the_action_has_started_itself(
    coordinator: VirtualCoordinator,
) -> None:
    @action(timeout=5)
    async def works_in_a_thread() -> str:
        result: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        loop = asyncio.get_running_loop()

        def work() -> None:
            time.sleep(0.1)
            loop.call_soon_threadsafe(result.set_result, "done")

        threading.Thread(target=work).start()
        return await result

    @action(timeout=5)
    async def polls_a_thread() -> str:
        done = threading.Event()
        threading.Timer(0.1, done.set).start()
        while not done.is_set():
            await asyncio.sleep(0.5)
        return "done"

    @saga
    def both() -> list[str]:
        return [works_in_a_thread(), polls_a_thread()]

    with coordinator as c:
        assert c.run(both) == ["done", "done"]


def test_a_thread_that_idles_holds_time_up_once_and_for_a_short_time(
    coordinator: VirtualCoordinator, virtual_time: VirtualTime
) -> None:
    end = threading.Event()

    @action(retry=Retry(200, first=3600, longest=3600))
    async def fails_often(ctx: Ctx[None]) -> int:
        if ctx.attempt == 1:
            threading.Thread(target=end.wait, daemon=True).start()
        if ctx.attempt < 200:
            raise OSError("down")
        return ctx.attempt

    @saga
    def waits() -> int:
        return fails_often()

    began = time.monotonic()
    with coordinator as c:
        assert c.run(waits) == 200
    end.set()
    assert virtual_time.elapsed >= 199 * 3600 * 0.99
    assert time.monotonic() - began < 60, "each of the 199 waits would take half a second"


@pytest.mark.usefixtures("quick")
def test_progress_is_counted_anew_for_each_saga_and_each_wait(coordinator: VirtualCoordinator) -> None:
    @action
    async def naps() -> None:
        for _ in range(1_000):
            await asyncio.sleep(1)

    @saga
    def nap() -> None:
        return naps()

    with coordinator as c:
        for _ in range(20):
            c.run(nap)
        for _ in range(20):
            c.advance(500 * 86_400)


@pytest.mark.usefixtures("quick")
def test_a_coordinator_closes_after_a_stall(coordinator: VirtualCoordinator) -> None:
    cancelled: list[bool] = []

    @action
    async def approve() -> None:
        try:
            await polls_the_wall_clock()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    @saga
    def approval() -> None:
        return approve()

    with pytest.raises(VirtualTimeStalled), coordinator as c:
        c.run(approval)
    assert cancelled


def test_a_deadline_still_ends_a_saga_that_polls(coordinator: VirtualCoordinator) -> None:
    @action
    async def approve() -> None:
        await polls_the_wall_clock()

    @saga
    def approval() -> None:
        return approve()

    with coordinator as c, pytest.raises(RolledBack):
        c.run(approval.options(deadline=3600))
