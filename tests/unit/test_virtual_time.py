"""Time that a test turns: it jumps when nothing real can happen, and only then."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

import pytest

from compensate.testing.virtual_time import Life, VirtualLoop, VirtualTime

T = TypeVar("T")


@pytest.fixture
def loop(virtual_time: VirtualTime) -> Iterator[VirtualLoop]:
    loop = virtual_time.new_loop()
    yield loop
    loop.close()


def within_seconds(loop: VirtualLoop, coroutine: Coroutine[Any, Any, T]) -> T:
    began = time.monotonic()
    result = loop.run_until_complete(coroutine)
    assert time.monotonic() - began < 60
    return result


def test_a_year_passes_at_once(loop: VirtualLoop) -> None:
    within_seconds(loop, asyncio.sleep(365 * 86_400))
    assert loop.virtual.elapsed == pytest.approx(365 * 86_400)


def test_timers_ring_in_their_order(loop: VirtualLoop) -> None:
    order: list[int] = []

    async def ring(after: int) -> None:
        await asyncio.sleep(after)
        order.append(after)

    async def all_of_them() -> None:
        await asyncio.gather(*(ring(after) for after in (3_000, 5, 700_000, 1)))

    within_seconds(loop, all_of_them())
    assert order == [1, 5, 3_000, 700_000]


@pytest.mark.parametrize("patience", [0.0, 2.0])
def test_time_does_not_jump_while_a_thread_works(patience: float) -> None:
    virtual_time = VirtualTime(thread_patience=patience)
    loop = virtual_time.new_loop()
    rung: list[float] = []

    def work() -> list[float]:
        time.sleep(0.05)
        return list(rung)

    async def beside() -> list[float]:
        loop.call_later(1_000, rung.append, 1.0)
        seen: list[float] = await asyncio.to_thread(work)
        await asyncio.sleep(2_000)
        return seen

    assert within_seconds(loop, beside()) == []
    assert rung == [1.0]
    loop.close()
    virtual_time.close()


@pytest.mark.parametrize("patience", [0.0, 2.0])
def test_a_thread_sleeps_in_virtual_time_and_asks_the_loop(patience: float) -> None:
    virtual_time = VirtualTime(thread_patience=patience)
    loop = virtual_time.new_loop()

    async def answer() -> str:
        await asyncio.sleep(30)
        return threading.current_thread().name

    def work() -> str:
        virtual_time.sleep(500)
        return str(virtual_time.call_in_loop(answer))

    assert (
        within_seconds(loop, asyncio.wait_for(asyncio.to_thread(work), 10_000))
        == threading.current_thread().name
    )
    assert 530 <= virtual_time.elapsed < 1_000
    loop.close()
    virtual_time.close()


def test_time_does_not_jump_while_the_other_end_of_a_socket_may_answer(loop: VirtualLoop) -> None:
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listening.accept()
        with connection:
            time.sleep(0.05)
            connection.sendall(b"here\n")

    server = threading.Thread(target=serve)
    server.start()

    async def ask() -> bytes:
        reader, writer = await asyncio.open_connection(*listening.getsockname())
        async with asyncio.timeout(20):
            line = await reader.readline()
        writer.close()
        await writer.wait_closed()
        return line

    assert within_seconds(loop, ask()) == b"here\n"
    server.join()
    listening.close()


def test_an_error_in_a_thread_is_raised_where_it_is_awaited(loop: VirtualLoop) -> None:
    def fail() -> None:
        raise LookupError("gone")

    with pytest.raises(LookupError, match="gone"):
        within_seconds(loop, asyncio.to_thread(fail))


def test_an_ended_process_runs_nothing_more_not_even_finally(loop: VirtualLoop) -> None:
    seen: list[str] = []

    async def work() -> None:
        try:
            while True:
                await asyncio.sleep(10)
                seen.append("worked")
        finally:
            seen.append("cleaned up")

    async def never_begun() -> None:
        seen.append("begun")

    async def story() -> Life:
        life = Life(loop)
        life.spawn(work())
        await asyncio.sleep(25)
        life.spawn(never_begun())
        life.end()
        await asyncio.sleep(1_000)
        await life.over
        return life

    life = within_seconds(loop, story())
    assert seen == ["worked", "worked"]
    life.bury()
    assert seen == ["worked", "worked", "cleaned up"]
    assert loop.complaints == []


def test_only_asyncios_own_loops_can_be_put_on_virtual_time(virtual_time: VirtualTime) -> None:
    class Other(asyncio.AbstractEventLoop):
        """Made without what a loop has to have."""

        __abstractmethods__: frozenset[str] = frozenset()

    other: Any = Other
    with pytest.raises(TypeError, match="not a Other"), virtual_time.installed(other()):
        pass
