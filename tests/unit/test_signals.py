"""`stop_on`: whoever handled a signal before goes on hearing it, and handles it again afterwards."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import permutations
from types import FrameType
from typing import Any

import pytest

from compensate import Coordinator, DefinitionError, Stopped, action, saga

NUMBER = signal.SIGUSR1


@action
async def one() -> int:
    return 1


@saga
def quick() -> int:
    return one()


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    before = signal.getsignal(NUMBER)
    yield
    signal.signal(NUMBER, before)


def coordinator(**settings: Any) -> Coordinator:
    return Coordinator("memory://", sagas=[quick], stop_on=[NUMBER], drain=0, **settings)


def kill() -> None:
    os.kill(os.getpid(), NUMBER)


async def closed(c: Coordinator) -> None:
    async with asyncio.timeout(20):
        await c.serve()


class Server:
    """A handler as a server installs it."""

    def __init__(self) -> None:
        self.heard: list[tuple[int, bool]] = []

    def handle(self, number: int, frame: FrameType | None) -> None:
        self.heard.append((number, type(frame) is FrameType))


async def test_a_handler_from_before_is_called_as_python_calls_it_and_put_back() -> None:
    server = Server()
    handler = server.handle
    signal.signal(NUMBER, handler)
    async with coordinator() as c:
        kill()
        await closed(c)
        assert server.heard == [(NUMBER, True)]
    assert signal.getsignal(NUMBER) is handler
    kill()
    assert len(server.heard) == 2


async def test_a_handler_that_the_loop_has_from_before_is_called_and_stays() -> None:
    heard: list[str] = []
    again = asyncio.Event()

    def hear() -> None:
        heard.append("loop")
        if len(heard) == 2:
            again.set()

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(NUMBER, hear)
    try:
        before = signal.getsignal(NUMBER)
        async with coordinator() as c:
            kill()
            await closed(c)
        await asyncio.sleep(0)
        assert heard == ["loop"]
        assert signal.getsignal(NUMBER) is before
        kill()
        async with asyncio.timeout(20):
            await again.wait()
        assert heard == ["loop", "loop"]
    finally:
        loop.remove_signal_handler(NUMBER)


@pytest.mark.parametrize("former", [signal.SIG_DFL, signal.SIG_IGN])
async def test_the_default_is_not_carried_out_and_is_put_back(former: signal.Handlers) -> None:
    signal.signal(NUMBER, former)
    async with coordinator() as c:
        kill()
        await c.serve()
    assert c.closed
    assert signal.getsignal(NUMBER) is former


async def test_serve_returns_at_ctrl_c_and_the_program_goes_on() -> None:
    before = signal.getsignal(signal.SIGINT)
    async with Coordinator("memory://", stop_on=[signal.SIGINT], drain=0) as c:
        os.kill(
            os.getpid(), signal.SIGINT
        )  # the one that asyncio.run has is not called: it would cancel this task
        await c.serve()
    assert signal.getsignal(signal.SIGINT) is before


async def test_a_handler_that_raises_raises() -> None:
    def leave(number: int, frame: FrameType | None) -> None:
        raise LookupError("the server's own way to stop")

    signal.signal(NUMBER, leave)
    async with coordinator() as c:
        with pytest.raises(LookupError):
            kill()
        await closed(c)


@pytest.mark.parametrize("order", list(permutations(range(3))))
async def test_several_coordinators_hear_it_and_close_in_any_order(order: tuple[int, ...]) -> None:
    server = Server()
    handler = server.handle
    signal.signal(NUMBER, handler)
    several = [await coordinator().__aenter__() for _ in range(3)]
    for k in order[:1]:
        await several[k].close()
    kill()
    for c in several:
        await closed(c)
    assert len(server.heard) == 1
    assert signal.getsignal(NUMBER) is handler
    again = [await coordinator().__aenter__() for _ in range(3)]
    for k in order:
        await again[k].close()
    assert signal.getsignal(NUMBER) is handler


async def test_a_handler_from_afterwards_stays_where_it_is() -> None:
    server, later = Server(), Server()
    signal.signal(NUMBER, server.handle)
    async with coordinator():
        ours = signal.getsignal(NUMBER)
        handler = later.handle
        signal.signal(NUMBER, handler)
        kill()
        assert len(later.heard) == 1
    assert signal.getsignal(NUMBER) is handler
    signal.signal(NUMBER, ours)  # as it is put back by a server that ends after the coordinator
    kill()
    assert len(server.heard) == 1
    async with coordinator() as c:  # whose former handler is that of a coordinator that is closed
        kill()
        await closed(c)
    assert len(server.heard) == 2


async def test_a_handler_that_calls_ours_is_heard_by_both() -> None:
    async with coordinator() as c:
        ours = signal.getsignal(NUMBER)
        assert callable(ours)
        called: list[int] = []

        def handler(number: int, frame: FrameType | None) -> None:
            called.append(number)
            ours(number, frame)

        signal.signal(NUMBER, handler)
        kill()
        await closed(c)
        assert called == [NUMBER]
        assert signal.getsignal(NUMBER) is handler


_ENDS = {
    "the default, put back by a server that ends after the coordinator": (
        "signal.SIG_DFL",
        "signal.signal(signal.SIGTERM, ours)",
        -signal.SIGTERM,
    ),
    "the default, of a coordinator that was never closed": ("signal.SIG_DFL", "", -signal.SIGTERM),
    "a handler that exits": ("lambda *_: sys.exit(5)", "signal.signal(signal.SIGTERM, ours)", 5),
    "ignored": ("signal.SIG_IGN", "signal.signal(signal.SIGTERM, ours)", 0),
}


@pytest.mark.parametrize("which", _ENDS)
def test_after_the_end_the_process_ends_as_it_would_have(which: str) -> None:
    former, put_back, code = _ENDS[which]
    close = "await c.close()" if put_back else "pass"
    script = f"""
import asyncio, os, signal, sys
from compensate import Coordinator
signal.signal(signal.SIGTERM, {former})
async def main():
    global ours
    c = Coordinator("memory://", stop_on=[signal.SIGTERM])
    await c.__aenter__()
    ours = signal.getsignal(signal.SIGTERM)
    {close}
asyncio.run(main())
{put_back}
os.kill(os.getpid(), signal.SIGTERM)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == code, done.stderr


@pytest.mark.parametrize(
    ("stop_on", "said"),
    [
        ([signal.SIGKILL], "cannot be caught"),
        ([signal.SIGSTOP], "cannot be caught"),
        ([4_711], "stop_on"),
        (["SIGTERM"], "stop_on"),
        (signal.SIGTERM, "a sequence"),
    ],
    ids=str,
)
def test_what_is_no_signal_to_stop_on_is_refused(stop_on: Any, said: str) -> None:
    with pytest.raises(DefinitionError, match=said):
        Coordinator("memory://", stop_on=stop_on)


async def test_a_second_signal_while_it_drains_changes_nothing_and_is_handed_on() -> None:
    server = Server()
    signal.signal(NUMBER, server.handle)
    began, go_on = asyncio.Event(), asyncio.Event()
    landed: list[int] = []

    @action
    async def held() -> int:
        began.set()
        await go_on.wait()
        landed.append(7)
        return 7

    @saga
    def slow() -> int:
        return held()

    async with Coordinator("memory://", sagas=[slow], stop_on=[NUMBER], drain=60) as c:
        run = await c.start(slow)
        await began.wait()
        for heard in (1, 2):
            kill()
            assert len(server.heard) == heard
            await asyncio.sleep(0)
        go_on.set()
        with pytest.raises(Stopped):
            await run.result()
    assert landed == [7], "the drain went on waiting for it"
