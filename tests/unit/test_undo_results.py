"""What an undo returns: what can be awaited is awaited, work that nobody has done is refused, a value is a value."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import gc
import io
import sqlite3
import types
import warnings
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from contextlib import asynccontextmanager
from typing import Any
from unittest import mock

import pytest

from compensate import Ctx, Retry, RolledBack, SagaExecutor, Stuck, action, saga

ran: list[str] = []


async def work() -> None:
    await asyncio.sleep(0)
    ran.append("work")


@types.coroutine
def old_style() -> Generator[Any, Any, None]:
    yield from work().__await__()


def generator() -> Iterator[None]:
    ran.append("work")
    yield


async def async_generator() -> AsyncIterator[None]:
    ran.append("work")
    yield


@asynccontextmanager
async def entered() -> AsyncGenerator[None]:
    ran.append("work")
    yield


class Pages:
    def __aiter__(self) -> Pages:
        return self

    async def __anext__(self) -> None:
        ran.append("work")
        raise StopAsyncIteration


class Entered:
    async def __aenter__(self) -> None:
        ran.append("work")

    async def __aexit__(self, *exc: object) -> None:
        pass

    def method(self) -> None:
        ran.append("work")


class Response(Entered, Pages):
    """As clients have them: the request has been made."""

    async def aclose(self) -> None:
        pass


def looped() -> list[Any]:
    items: list[Any] = [1]
    items.append(items)
    return items


def ended() -> concurrent.futures.Future[int]:
    future: concurrent.futures.Future[int] = concurrent.futures.Future()
    future.set_result(1)
    return future


def broken() -> concurrent.futures.Future[int]:
    future: concurrent.futures.Future[int] = concurrent.futures.Future()
    future.set_exception(OSError("no"))
    return future


AWAITED: dict[str, Callable[[], Any]] = {
    "coroutine": work,
    "old style coroutine": old_style,
    "coroutine of a coroutine": lambda: asyncio.wait_for(work(), 5),
}
REFUSED: dict[str, Callable[[], Any]] = {
    "list": lambda: [1, work()],
    "tuple": lambda: (work(), work()),
    "set": lambda: {work()},
    "frozenset": lambda: frozenset([work()]),
    "dict": lambda: {"a": work()},
    "nested": lambda: [{"a": (work(),)}],
    "open futures": lambda: [concurrent.futures.Future[int]()],
    "failed futures": lambda: [broken()],
    "generator": generator,
    "generator expression": lambda: (ran.pop() for _ in "a"),
    "map": lambda: map(ran.append, "a"),
    "filter": lambda: filter(ran.append, "a"),
    "zip": lambda: zip("a", "b", strict=True),
    "async generator": async_generator,
    "async iterator": Pages,
    "asynccontextmanager": entered,
    "async context manager": Entered,
    "partial": lambda: functools.partial(ran.append, "a"),
    "lambda": lambda: lambda: ran.append("a"),
    "coroutine function": lambda: work,
    "method": lambda: Entered().method,
    "builtin method": lambda: ran.clear,
}
DONE: dict[str, Callable[[], Any]] = {
    "number": lambda: 1,
    "text": lambda: "done",
    "list": lambda: [1, None, "a", {"b": (2,)}],
    "list that holds itself": looped,
    "ended futures": lambda: [ended()],
    "object": object,
    "class": lambda: Entered,
    "mock": mock.Mock,
    "magic mock": mock.MagicMock,
    "mock with async methods": lambda: mock.NonCallableMagicMock(spec=Response),
    "response of a client": Response,
    "file": lambda: io.BytesIO(b"a"),
    "cursor": lambda: sqlite3.connect(":memory:").execute("SELECT 1"),
}
WAYS = ("async", "async with ctx", "def", "def with ctx")


async def roll_back(make: Callable[[], Any], way: str) -> BaseException:
    """Roll back a saga whose undo returns what `make` makes."""

    @action(name="act")
    async def act() -> int:
        return 1

    decorate: Any = act.undo(retry=Retry(1))

    async def undo(value: int) -> Any:
        return make()

    async def undo_ctx(ctx: Ctx[None], value: int) -> Any:
        return make()

    def undo_def(value: int) -> Any:
        return make()

    def undo_def_ctx(ctx: Ctx[None], value: int) -> Any:
        return make()

    undos: dict[str, Any] = dict(zip(WAYS, (undo, undo_ctx, undo_def, undo_def_ctx), strict=True))
    decorate(undos[way])

    @action
    async def fail(value: int) -> int:
        raise ValueError

    @saga
    def turned_back() -> int:
        return fail(act())

    try:
        await SagaExecutor(turned_back).execute()
    except (RolledBack, Stuck) as error:
        return error
    raise AssertionError


@pytest.fixture(autouse=True)
def _forget() -> None:
    ran.clear()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", AWAITED)
async def test_what_can_be_awaited_is_awaited(kind: str, way: str) -> None:
    assert isinstance(await roll_back(AWAITED[kind], way), RolledBack)
    assert ran == ["work"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", REFUSED)
async def test_work_that_nobody_has_done_fails_the_undo(kind: str, way: str) -> None:
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        error = await roll_back(REFUSED[kind], way)
        gc.collect()
    assert isinstance(error, Stuck)
    assert "the undo returned a" in str(error)
    assert "or return None" in str(error)
    assert not ran
    assert not [one for one in warned if "never awaited" in str(one.message)]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", DONE)
async def test_a_value_is_no_work(kind: str, way: str) -> None:
    assert isinstance(await roll_back(DONE[kind], way), RolledBack)
