"""What an exception, a time limit or a cancellation means for a node: the rows of `runtime.calls.outcomes`."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from compensate import (
    Coordinator,
    Ctx,
    NoEffect,
    Permanent,
    Retry,
    RolledBack,
    SagaExecutor,
    Stuck,
    Unknown,
    action,
    saga,
)
from compensate.core import events as e
from compensate.core.events import Event
from compensate.stores.memory import MemoryStore


class Odd(BaseException):
    """Neither an `Exception` nor anything that ends a program."""


def _definition(error: BaseException, *, sync: bool, undo: bool) -> Any:
    """A saga whose only action (or whose undo) raises `error`."""

    def do_it(x: int) -> int:
        if not undo:
            raise error
        return x

    async def do_it_async(x: int) -> int:
        return do_it(x)

    def undo_it(x: int) -> None:
        raise error

    async def undo_it_async(x: int) -> None:
        raise error

    chosen: Any = do_it if sync else do_it_async
    act: Any = action(name="act")(chosen)
    if undo:
        act.undo(retry=Retry(1))(undo_it if sync else undo_it_async)

    @action
    async def fail(x: int) -> int:
        raise ValueError("turn back")

    def whole(x: int) -> int:
        made: int = act(x)
        return fail(made) if undo else made

    return saga(name="whole")(whole)


async def _events(definition: Any) -> list[Event]:
    executor: SagaExecutor[int] = SagaExecutor(definition, store=MemoryStore())
    with pytest.raises((RolledBack, Stuck)):
        await executor.execute(1)
    return executor.events


def _of(events: list[Event], node: str = "act") -> list[tuple[str, Any]]:
    return [(event.type, event.data) for event in events if event.node == node]


@pytest.mark.parametrize("sync", [False, True], ids=["async", "sync"])
@pytest.mark.parametrize(
    ("error", "kind", "clean", "reason"),
    [
        (ValueError("no"), e.FAILED, False, None),
        (TimeoutError("the other side's"), e.IN_DOUBT, None, "unknown"),
        (Permanent("never"), e.FAILED, False, None),
        (NoEffect("nothing"), e.FAILED, True, None),
        (Unknown("perhaps"), e.IN_DOUBT, None, "unknown"),
        (Odd("odd"), e.IN_DOUBT, None, "unknown"),
        (asyncio.CancelledError(), e.IN_DOUBT, None, "cancelled"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
async def test_what_an_action_raises_says_what_became_of_it(
    error: BaseException, kind: str, clean: bool | None, reason: str | None, sync: bool
) -> None:
    events = _of(await _events(_definition(error, sync=sync, undo=False)))
    assert [kind_ for kind_, _ in events] == [e.STARTED, kind]
    data = events[1][1]
    if kind == e.FAILED:
        assert data.clean is clean
        assert data.error.type.endswith(type(error).__qualname__)
    else:
        assert data.reason == reason


@pytest.mark.parametrize("sync", [False, True], ids=["async", "sync"])
@pytest.mark.parametrize(
    "error", [ValueError("no"), Permanent("never"), Unknown("?"), Odd("odd"), asyncio.CancelledError()]
)
async def test_whatever_an_undo_raises_it_has_failed(error: BaseException, sync: bool) -> None:
    events = _of(await _events(_definition(error, sync=sync, undo=True)))
    assert [kind for kind, _ in events] == [e.STARTED, e.COMPLETED, e.UNDO_STARTED, e.UNDO_FAILED]


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), SystemExit(3)], ids=["KeyboardInterrupt", "SystemExit"]
)
@pytest.mark.parametrize("sync", [False, True], ids=["async", "sync"])
@pytest.mark.parametrize("undo", [False, True], ids=["do", "undo"])
def test_what_ends_the_program_is_no_outcome(error: BaseException, sync: bool, undo: bool) -> None:
    store = MemoryStore()
    definition = _definition(error, sync=sync, undo=undo)
    executor: SagaExecutor[int] = SagaExecutor(definition, store=store, saga_id="s")
    with pytest.raises(type(error)):
        asyncio.run(executor.execute(1))
    kinds = [event.type for event in asyncio.run(store.load("s")).events if event.node == "act"]
    assert kinds[-1] == (
        e.UNDO_STARTED if undo else e.STARTED
    )  # the log says that it started; recovery sees to it


async def test_cancelling_the_wait_does_not_touch_the_saga() -> None:
    go_on = asyncio.Event()

    @action
    async def wait(x: int) -> int:
        await go_on.wait()
        return x

    @saga
    def waiting(x: int) -> int:
        return wait(x)

    async with Coordinator("memory://", sagas=[waiting]) as c:
        run = await c.start(waiting, 1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(run.result(), 0.01)
        go_on.set()
        assert await run.result() == 1
        assert [event.type for event in (await c.get(run.id)).events].count(e.STARTED) == 1


async def test_cancelling_the_executor_leaves_a_saga_that_goes_on() -> None:
    calls: list[int] = []
    called = asyncio.Event()
    go_on = asyncio.Event()

    @action
    async def wait(x: int) -> int:
        calls.append(x)
        called.set()
        await go_on.wait()
        return x

    @saga
    def waiting(x: int) -> int:
        return wait(x)

    executor = SagaExecutor(waiting)
    task = asyncio.create_task(executor.execute(1))
    await called.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go_on.set()
    assert await executor.execute() == 1
    assert calls == [1, 1]
    assert [kind for kind, _ in _of(executor.events, "wait")] == [
        e.STARTED,
        e.IN_DOUBT,
        e.STARTED,
        e.COMPLETED,
    ]


async def test_a_coroutine_over_its_time_limit_is_cancelled_and_in_doubt() -> None:
    seen: list[str] = []

    @action(timeout=0.01)
    async def slow(ctx: Ctx[None], x: int) -> int:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise
        return x

    @slow.undo(unknown=True)
    async def undo(ctx: Ctx[None], x: int | None) -> None:
        seen.append(f"undo {x} {ctx.do_key == ctx.key.replace('/undo', '/do')}")

    @saga
    def whole(x: int) -> int:
        return slow(x)

    executor = SagaExecutor(whole)
    with pytest.raises(RolledBack) as caught:
        await executor.execute(1)
    assert "time limit of 0.01 s" in str(caught.value)
    assert seen == ["cancelled", "undo None True"]
    assert _of(executor.events, "slow")[1][1].reason == "timeout"


async def test_nothing_is_undone_while_the_thread_of_a_timed_out_action_goes_on() -> None:
    seen: list[str] = []
    told = threading.Event()
    let_go = threading.Event()

    @action
    async def before(x: int) -> int:
        return x

    @before.undo
    async def undo_before(x: int) -> None:
        seen.append("undo before")

    @action(timeout=0.05)
    def slow(ctx: Ctx[None], x: int) -> int:
        while not ctx.expired:
            time.sleep(0.001)
        seen.append("told")
        told.set()
        let_go.wait()
        seen.append("late effect")
        return x

    @slow.undo(unknown=True)
    def undo_slow(x: int | None) -> None:
        seen.append("undo slow")

    @saga
    def whole(x: int) -> int:
        return slow(before(x))

    executor = SagaExecutor(whole)
    running = asyncio.create_task(executor.execute(1))
    await asyncio.to_thread(told.wait)
    await asyncio.sleep(0.05)
    assert seen == ["told"]
    assert executor.execution_state()["slow"] == "in_doubt"
    let_go.set()
    with pytest.raises(RolledBack):
        await running
    assert seen == ["told", "late effect", "undo slow", "undo before"]


async def test_what_ran_out_of_its_grace_is_cancelled_and_undone_in_doubt() -> None:
    seen: list[str] = []
    started = asyncio.Event()

    @action
    async def endless(x: int) -> int:
        started.set()
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise
        return x

    @endless.undo(unknown=True)
    async def undo(x: int | None) -> None:
        seen.append(f"undo {x}")

    @saga
    def whole(x: int) -> int:
        return endless(x)

    async with Coordinator("memory://", sagas=[whole]) as c:
        run = await c.start(whole, 1)
        await started.wait()
        await c.rollback(run.id, reason="too slow", who="ann", grace=0.01)
        with pytest.raises(RolledBack) as caught:
            await run.result()
        assert caught.value.reason == "too slow"
        assert seen == ["cancelled", "undo None"]
        events = (await c.get(run.id)).events
        assert _of(events, "endless")[1][1].reason == "cancelled"
        assert next(event.data for event in events if event.type == e.SAGA_ROLLBACK).who == "ann"  # type: ignore[union-attr]


async def test_an_action_that_ignores_its_cancellation_and_returns_has_completed() -> None:
    started = asyncio.Event()
    undone: list[int] = []

    @action
    async def stubborn(x: int) -> int:
        started.set()
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            return x + 1
        return x

    @stubborn.undo
    async def undo(x: int) -> None:
        undone.append(x)

    @saga
    def whole(x: int) -> int:
        return stubborn(x)

    async with Coordinator("memory://", sagas=[whole]) as c:
        run = await c.start(whole, 1)
        await started.wait()
        await c.rollback(run.id, grace=0.0)
        with pytest.raises(RolledBack):
            await run.result()
        assert undone == [2]


async def test_an_output_that_cannot_be_stored_leaves_the_node_in_doubt_and_is_undone() -> None:
    undone: list[Any] = []

    @action
    async def wrong(x: int) -> int:
        return "text"  # type: ignore[return-value]

    @wrong.undo(unknown=True)
    async def undo(x: int | None) -> None:
        undone.append(x)

    @saga
    def whole(x: int) -> int:
        return wrong(x)

    executor = SagaExecutor(whole)
    with pytest.raises(RolledBack):
        await executor.execute(1)
    assert _of(executor.events, "wrong")[1][1].reason == "unstorable"
    assert undone == [None]


# -- what undos return -------------------------------------------------------


class Client:
    """A client whose methods are coroutines, as most are; whoever forgets to await them does nothing."""

    def __init__(self) -> None:
        self.rooms: set[int] = set()

    async def delete(self, room: int) -> None:
        await asyncio.sleep(0)
        self.rooms.discard(room)

    def delete_at_once(self, room: int) -> None:
        self.rooms.discard(room)


client = Client()


async def _twice(room: int) -> Any:
    return client.delete(room)


def _on_a_pool(room: int) -> Any:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(client.delete_at_once, room)


class _Awaitable:
    def __init__(self, room: int) -> None:
        self.room = room

    def __await__(self) -> Any:
        return client.delete(self.room).__await__()


async def _as_task(room: int) -> Any:
    return asyncio.create_task(client.delete(room))


async def _fails(room: int) -> None:
    raise ConnectionError("the client's own")


def _in_a_generator(room: int) -> Any:
    client.delete_at_once(room)
    yield room


UNDO_RETURNS: dict[str, Callable[[int], Any]] = {
    "a coroutine": client.delete,
    "a coroutine that returns one": _twice,
    "an object that can be awaited": _Awaitable,
    "a future of a pool": _on_a_pool,
    "a task": _as_task,
}


def _room_saga(undo: Callable[[int], Any], *, timeout: float | None = None) -> Any:
    @action
    async def book(room: int) -> int:
        client.rooms.add(room)
        return room

    def undo_it(made: int) -> Any:
        return undo(made)

    async def undo_async(made: int) -> Any:
        return undo(made)

    book.undo(retry=Retry(1), timeout=timeout)(undo_async if timeout is None else undo_it)

    @action
    async def refuse(room: int) -> None:
        raise ValueError("no")

    @saga
    def trip(room: int) -> None:
        refuse(book(room))

    return trip


@pytest.mark.parametrize("how", UNDO_RETURNS)
@pytest.mark.parametrize("limit", [None, 10.0], ids=["coroutine", "thread with a limit"])
async def test_what_an_undo_returns_is_awaited_if_it_can_be(how: str, limit: float | None) -> None:
    client.rooms.clear()
    with pytest.raises(RolledBack):
        await SagaExecutor(_room_saga(UNDO_RETURNS[how], timeout=limit)).execute(1)
    assert client.rooms == set()


@pytest.mark.parametrize(
    ("undo", "error"),
    [
        (_fails, "ConnectionError"),
        (_in_a_generator, "TypeError"),
        (lambda room: asyncio.sleep(60), "TimedOut"),
    ],
    ids=["fails", "a generator", "too late"],
)
async def test_an_undo_whose_awaitable_fails_has_failed(undo: Callable[[int], Any], error: str) -> None:
    executor = SagaExecutor(_room_saga(undo, timeout=0.2))
    with pytest.raises(Stuck):
        await executor.execute(1)
    recorded = executor.error("book")
    assert recorded is not None
    assert recorded.type.endswith(error)


# -- cancellations that come out as something else -----------------------------


class _Transaction:
    """A resource whose clean-up fails because its connection is gone."""

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, *error: object) -> None:
        raise OSError("the connection is gone")


async def _by_aexit() -> None:
    async with _Transaction():
        await asyncio.sleep(60)


async def _by_finally() -> None:
    try:
        await asyncio.sleep(60)
    finally:
        raise OSError("while cleaning up")


async def _by_a_sibling() -> None:
    async def sibling() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise OSError("a sibling was disturbed") from None

    async with asyncio.TaskGroup() as group:
        group.create_task(sibling())
        group.create_task(asyncio.sleep(60))


async def _by_a_wrapper() -> None:
    try:
        await _by_finally()
    except OSError as error:
        raise RuntimeError("the service's own") from error


async def _by_a_shield() -> None:
    inner = asyncio.ensure_future(asyncio.sleep(60))
    try:
        await asyncio.shield(inner)
    except asyncio.CancelledError:
        inner.cancel()
        raise LookupError("no answer") from None


async def _by_a_permanent_one() -> None:
    try:
        await asyncio.sleep(60)
    except BaseException as error:
        raise Permanent("the service is gone") from error


CANCELLED = (_by_aexit, _by_finally, _by_a_sibling, _by_a_wrapper, _by_a_shield, _by_a_permanent_one)


@pytest.mark.parametrize("cancelled", CANCELLED, ids=lambda one: one.__name__)
@pytest.mark.parametrize("limit", [0.05, None], ids=["limit", "grace"])
async def test_a_cancelled_call_is_in_doubt_whatever_comes_out_of_it(
    cancelled: Callable[[], Awaitable[None]], limit: float | None
) -> None:
    effects: set[str] = set()
    waiting = asyncio.Event()

    @action(timeout=limit)
    async def book(ctx: Ctx[object]) -> str:
        if ctx.key not in effects:
            effects.add(ctx.key)
            waiting.set()
            await cancelled()
        return ctx.key

    @book.undo
    async def unbook(key: str) -> None:
        effects.discard(key)

    @saga
    def trip() -> str:
        return book()

    async with Coordinator("memory://", sagas=[trip]) as coordinator:
        run = await coordinator.start(trip)
        await asyncio.wait_for(waiting.wait(), 10)
        if limit is None:
            await coordinator.rollback(run.id, grace=0)
        with pytest.raises(RolledBack):
            await asyncio.wait_for(run.result(), 10)
        assert [event.type async for event in run.events() if event.node == "book"][1] == e.IN_DOUBT
    assert effects == set()


@pytest.mark.parametrize("cancelled", CANCELLED, ids=lambda one: one.__name__)
@pytest.mark.parametrize("crew", [False, True], ids=["alone", "beside another"])
async def test_an_executor_that_is_cancelled_raises_that_and_leaks_nothing(
    cancelled: Callable[[], Awaitable[None]], crew: bool
) -> None:
    effects: set[str] = set()
    waiting = asyncio.Event()

    @action
    async def book(ctx: Ctx[object]) -> str:
        if ctx.key not in effects:
            effects.add(ctx.key)
            waiting.set()
            await cancelled()
        return ctx.key

    @book.undo
    async def unbook(key: str) -> None:
        effects.discard(key)

    @action
    async def other() -> str:
        return ""

    @saga
    def trip() -> str:
        return book()

    @saga
    def two() -> list[str]:
        return [book(), other()]

    executor = SagaExecutor(two if crew else trip)
    running = asyncio.create_task(executor.execute())
    await asyncio.wait_for(waiting.wait(), 10)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(running, 10)
    assert running.cancelled()
    assert effects, "the fault came before the effect"
    assert e.FAILED not in [event.type for event in executor.events]
    await asyncio.wait_for(executor.rollback(), 10)
    assert effects == set()


async def test_a_task_group_that_fails_by_itself_means_what_its_leaves_mean() -> None:
    async def refuse() -> None:
        raise ConnectionError("refused")

    @action(retry=Retry(3, first=0))
    async def grouped(ctx: Ctx[object]) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(refuse())
                await asyncio.sleep(60 if ctx.attempt % 2 else 0)
        except* KeyError:
            raise

    @saga
    def whole() -> None:
        grouped()

    executor = SagaExecutor(whole)
    with pytest.raises(RolledBack):
        await asyncio.wait_for(executor.execute(), 10)
    assert [event.type for event in executor.events if event.node == "grouped"] == [e.STARTED, e.FAILED] * 3
