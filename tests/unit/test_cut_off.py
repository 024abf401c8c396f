"""Tasks that somebody else cancels: no saga waits for ever, and nothing is undone or begun beside what still runs."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
from collections.abc import Callable

import pytest

from compensate import Coordinator, IllegalRequest, RolledBack, SagaExecutor, Stopped, action, saga
from compensate.stores.memory import MemoryStore

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
        cleaned = doors.get("cleaned")
        await (asyncio.sleep(0.01) if cleaned is None else cleaned.wait())
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


async def _cut_off_while_it_cleans_up(executor: SagaExecutor[int], *, again: bool) -> asyncio.Task[int]:
    cleaned = doors["cleaned"] = asyncio.Event()
    executing = asyncio.create_task(executor.execute(1))
    while len(log) < 2:  # noqa: ASYNC110 - actions begin in the turns of the loop
        await asyncio.sleep(0)
    executing.cancel()
    await asyncio.sleep(0.001)
    if again:
        executing.cancel()
        await asyncio.wait([executing])
    assert not [line for line in log if line.endswith("ends")]
    asyncio.get_running_loop().call_later(0.02, cleaned.set)
    return executing


@pytest.mark.parametrize("again", [False, True])
async def test_an_executor_that_was_cut_off_undoes_nothing_before_its_actions_have_cleaned_up(
    again: bool,
) -> None:
    executor = SagaExecutor(both)
    executing = await _cut_off_while_it_cleans_up(executor, again=again)
    await executor.rollback()
    assert log[:4] == ["left begins", "right begins", "left ends", "right ends"]
    assert sorted(log[4:]) == ["undo left", "undo right"]
    with pytest.raises(asyncio.CancelledError):
        await executing


@action
async def given(x: int) -> int:
    return x


@given.undo
async def give_back(x: int) -> None:
    log.append("undo begins")
    await doors.setdefault("open", asyncio.Event()).wait()
    log.append("undo ends")


@saga
def once(x: int) -> int:
    return given(x)


async def test_a_rollback_that_was_cut_off_is_not_said_to_be_done_and_is_gone_on_with() -> None:
    executor = SagaExecutor(once)
    assert await executor.execute(1) == 1
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(executor.rollback(), 0.01)
    assert log == ["undo begins"]
    doors["open"].set()
    with pytest.raises(RolledBack):
        await executor.execute()
    assert log == ["undo begins", "undo begins", "undo ends"]
    assert executor.events[-1].type == "saga_rolled_back"


@action
async def waits(x: int) -> int:
    log.append("waits")
    await asyncio.sleep(60)
    return x


@saga
def waits_side_by_side(x: int) -> int:
    return add(waits(x), waits.options(name="other")(x))


def test_an_event_loop_that_is_closed_under_a_running_saga_makes_no_further_noise() -> None:
    loop = asyncio.new_event_loop()

    async def begin() -> None:
        coordinator = Coordinator("memory://")
        await coordinator.__aenter__()
        await coordinator.start(waits_side_by_side, 1)
        while len(log) < 2:  # noqa: ASYNC110 - actions begin in the turns of the loop
            await asyncio.sleep(0)

    loop.run_until_complete(begin())
    loop.set_exception_handler(lambda _loop, _context: None)  # asyncio's own: tasks were pending
    loop.close()
    gc.collect()  # what other tests have left
    complaints: list[object] = []
    hook, sys.unraisablehook = sys.unraisablehook, lambda args: complaints.append(args.exc_value)
    try:
        del loop
        gc.collect()
    finally:
        sys.unraisablehook = hook
    assert log == ["waits", "waits"]
    assert complaints == []


async def test_an_undo_waits_for_the_thread_that_a_cut_off_saga_has_left_also_after_a_refused_request() -> (
    None
):
    exits["it"] = threading.Event()
    async with Coordinator("memory://", sagas=[threaded], poll=60) as coordinator:
        run = await coordinator.start(threaded, 1)
        while not log:  # noqa: ASYNC110 - a thread tells
            await asyncio.sleep(0.001)
        driver = next(task for task in asyncio.all_tasks() if task.get_name() == f"saga {run.id}")
        driver.cancel()
        await asyncio.wait([driver])
        with pytest.raises(IllegalRequest, match="no node"):
            await coordinator.skip(run.id, "unheard of")
        await coordinator.rollback(run.id)
        await asyncio.sleep(0.05)
        assert log == ["thread begins"]
        exits["it"].set()
        with pytest.raises(RolledBack):
            await asyncio.wait_for(run.result(), 10)
    assert log == ["thread begins", "thread ends", "undo"]


async def test_a_thread_that_fails_in_the_moment_in_which_its_saga_is_cut_off_is_heard() -> None:
    entered, go = threading.Event(), threading.Event()

    @action
    def fail(x: int) -> int:
        entered.set()
        go.wait(10)
        raise ValueError("heard")

    @saga
    def failing(x: int) -> int:
        return fail(x)

    executing = asyncio.create_task(SagaExecutor(failing).execute(1))
    while not entered.is_set():  # noqa: ASYNC110 - a thread sets it
        await asyncio.sleep(0.001)
    go.set()
    time.sleep(0.1)  # noqa: ASYNC251 - its end is on its way to the loop, which must not see it yet
    executing.cancel()
    await asyncio.wait({executing})
    assert executing.cancelled()
    del executing
    gc.collect()  # what nobody has heard is told of now, and fails the test


@pytest.mark.parametrize("anew", [False, True])
async def test_a_rollback_that_was_cut_off_is_gone_on_with_by_asking_for_it_again(anew: bool) -> None:
    store = MemoryStore()
    executor: SagaExecutor[int] = SagaExecutor(once, store=store)
    await executor.execute(1)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(executor.rollback(), 0.01)
    doors["open"].set()
    if anew:
        executor = await SagaExecutor.from_stored(store, executor.id, once.actions.values())
    await executor.rollback()
    assert log == ["undo begins", "undo begins", "undo ends"]
    assert executor.fold.status == "rolled_back"
    with pytest.raises(IllegalRequest, match="rolled back already"):
        await executor.rollback()
    with pytest.raises(RolledBack):
        await executor.execute()


@pytest.mark.parametrize("cut_off", [False, True])
async def test_a_second_rollback_waits_for_the_first_and_goes_on_if_that_is_cut_off(cut_off: bool) -> None:
    executor = SagaExecutor(once)
    await executor.execute(1)
    first = asyncio.create_task(executor.rollback())
    while not log:  # noqa: ASYNC110 - undos begin in the turns of the loop
        await asyncio.sleep(0)
    second = asyncio.create_task(executor.rollback())
    await asyncio.sleep(0.01)
    assert not second.done()
    if cut_off:
        first.cancel()
        await asyncio.wait([first])
    doors["open"].set()
    await asyncio.wait_for(second, 5)
    assert log == ["undo begins"] * (1 + cut_off) + ["undo ends"]
    assert executor.fold.status == "rolled_back"


def _raw(error: Stopped) -> BaseException:
    return error


def _wrapped(error: Stopped) -> BaseException:
    wrapped = RuntimeError("the inner saga gave no answer")
    wrapped.__cause__ = error
    return wrapped


def _grouped(error: Stopped) -> BaseException:
    return ExceptionGroup("several", [ValueError("another"), error])


@pytest.mark.parametrize("shape", [_raw, _wrapped, _grouped])
@pytest.mark.parametrize("way", ["forward", "undo"])
async def test_an_action_whose_inner_saga_is_stopped_has_not_failed(
    shape: Callable[[Stopped], BaseException], way: str
) -> None:
    entered, stopped, again = asyncio.Event(), 0, asyncio.Event()
    coordinator = Coordinator("memory://")  # the actions see the one that is named so when they run

    @action
    async def waits() -> int:
        entered.set()
        await again.wait()
        return 1

    @action
    async def pass_on(x: int) -> int:
        return x

    @saga
    def inner() -> int:
        return pass_on(waits())

    async def ask() -> int:
        nonlocal stopped
        try:
            return await coordinator.run(inner.with_id("inner"))
        except Stopped as error:
            stopped += 1
            raise shape(error)  # noqa: B904 - its cause is part of the shape

    @action
    async def outer_do() -> int:
        return await ask() if way == "forward" else 1

    @outer_do.undo
    async def outer_undo(_: int) -> None:
        if way == "undo":
            await ask()

    @action
    async def fails(x: int) -> int:
        if way == "undo":
            raise ValueError("no")
        return x

    @saga
    def outer() -> int:
        return fails(outer_do())

    store = MemoryStore()
    coordinator = Coordinator(store, sagas=[outer, inner], drain=5)
    async with coordinator:
        await coordinator.start(outer.with_id("outer"))
        await entered.wait()
        coordinator.stop()
        again.set()
    events = await store.events("outer")
    assert stopped == 1
    assert not {"failed", "undo_failed"} & {event.type for event in events if event.node == "outer_do"}
    coordinator = Coordinator(store, sagas=[outer, inner])
    async with coordinator:
        ended = await asyncio.wait_for(coordinator.attach("outer").ended(), 20)
    assert ended == ("completed" if way == "forward" else "rolled_back")
