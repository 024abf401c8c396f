"""The blocking twin: whatever user code raises, and wherever a connection is used, nobody waits for ever."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from compensate import (
    Connection,
    Coordinator,
    Ctx,
    IllegalRequest,
    RolledBack,
    Stopped,
    Unavailable,
    action,
    connect,
    open_store,
    saga,
)
from compensate.core.events import Event

pytestmark = pytest.mark.time_limit(60)


class Usage(SystemExit):
    """As command line parsers have them."""


class World:
    """What the actions below do, and what they were seen to do."""

    def __init__(self) -> None:
        self.exits: dict[str, BaseException] = {}
        self.seen: list[str] = []
        self.began = threading.Event()
        self.connection: Connection | None = None

    def step(self, what: str) -> None:
        self.seen.append(what)
        if what in self.exits:
            raise self.exits[what]


@action
def threaded(ctx: Ctx[World], x: int) -> int:
    ctx.deps.step("do")
    return x


@threaded.undo
def _(ctx: Ctx[World], output: int) -> None:
    ctx.deps.step("undo")


@action
async def on_loop(ctx: Ctx[World], x: int) -> int:
    ctx.deps.step("do")
    return x


@on_loop.undo
async def _(ctx: Ctx[World], output: int) -> None:
    ctx.deps.step("undo")


@action
async def refuse(x: int) -> int:
    if x < 0:
        raise ValueError("below zero")
    return x


@action
async def wait(ctx: Ctx[World]) -> int:
    ctx.deps.began.set()
    await asyncio.sleep(3_600)
    return 1


@saga
def in_thread(x: int) -> int:
    return refuse(threaded(x))


@saga
def in_loop(x: int) -> int:
    return refuse(on_loop(x))


@saga
def beside_each_other(x: int) -> list[int]:
    return [threaded(x), on_loop(x), refuse(x)]


@saga
def endless() -> int:
    return wait()


SAGAS = {"thread": in_thread, "loop": in_loop}
EXITS = [SystemExit(7), SystemExit("usage: tool"), Usage(3), KeyboardInterrupt()]


def _threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "compensate"]


@pytest.fixture(autouse=True)
def no_loop_is_left() -> Iterator[None]:
    yield
    assert not _threads()


def events_of(url: str, saga_id: str) -> list[str]:
    async def read() -> list[str]:
        store = open_store(url)
        await store.open()
        try:
            return [event.type for event in (await store.load(saga_id)).events]
        finally:
            await store.close()

    return asyncio.run(read())


@pytest.mark.parametrize("error", EXITS, ids=repr)
@pytest.mark.parametrize("how", SAGAS)
@pytest.mark.parametrize("moment", ["do", "undo"])
@pytest.mark.parametrize("waiting", ["run", "result"])
def test_an_exit_in_an_action_or_undo_is_raised_where_its_saga_is_waited_for(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    error: BaseException,
    how: str,
    moment: str,
    waiting: str,
) -> None:
    url, world = f"sqlite:///{tmp_path}/s.db", World()
    world.exits[moment] = error
    one, x = SAGAS[how].with_id("a"), -1 if moment == "undo" else 1
    with pytest.raises(type(error)) as raised, connect(url, deps=world, sagas=[one], drain=0.5) as c:
        c.run(one, x) if waiting == "run" else c.start(one, x).result()
    assert raised.value is error
    assert not [record for record in caplog.records if record.name == "asyncio"]
    assert getattr(raised.value, "code", None) == getattr(error, "code", None)
    assert world.seen == ["do", "undo"] if moment == "undo" else ["do"]
    last = "undo_started" if moment == "undo" else "started"
    assert [kind for kind in events_of(url, "a") if not kind.startswith("saga_")][-1] == last

    world.exits.clear()
    with connect(url, deps=world, sagas=[one]) as c:  # no outcome was recorded: it goes on
        if moment == "undo":
            with pytest.raises(RolledBack):
                c.attach("a").result()
        else:
            assert c.attach("a").result() == 1
    assert world.seen[-1] == moment


@pytest.mark.parametrize("how", ["do", "undo"])
def test_an_exit_of_one_of_several_at_once_is_raised(tmp_path: Path, how: str) -> None:
    world = World()
    world.exits[how] = SystemExit(9)
    connection = connect(f"file:///{tmp_path}/f", deps=world, sagas=[beside_each_other], drain=0.5)
    with pytest.raises(SystemExit, match="9"), connection as c:
        c.run(beside_each_other, -1 if how == "undo" else 1)
    assert how in world.seen


@pytest.mark.parametrize("how", SAGAS)
def test_those_who_wait_for_other_sagas_are_told_that_the_connection_ended(tmp_path: Path, how: str) -> None:
    world = World()
    world.exits["do"] = SystemExit(7)
    told: list[BaseException] = []

    def other(c: Connection) -> None:
        try:
            c.run(endless)
        except BaseException as error:
            told.append(error)

    with connect(f"sqlite:///{tmp_path}/s.db", deps=world, sagas=[endless, SAGAS[how]], drain=0.1) as c:
        thread = threading.Thread(target=other, args=(c,))
        thread.start()
        assert world.began.wait(30)
        with pytest.raises(SystemExit, match="7"):
            c.run(SAGAS[how], 1)
        thread.join(30)
        with pytest.raises(Stopped) as refused:
            c.run(endless)
        assert isinstance(refused.value.__cause__, SystemExit)
    assert [type(error) for error in told] == [Stopped]
    assert isinstance(told[0].__cause__, SystemExit)


@pytest.mark.parametrize("how", SAGAS)
def test_an_exit_that_nobody_waited_for_is_raised_at_the_end(how: str) -> None:
    world = World()
    world.exits["do"] = SystemExit(7)
    c = connect("memory://", deps=world, sagas=[SAGAS[how]], drain=0.1).__enter__()
    c.start(SAGAS[how], 1)
    until(lambda: not c.coordinator._open)
    assert world.seen == ["do"]
    with pytest.raises(Stopped) as refused:
        c.start(in_loop, 1)
    assert isinstance(refused.value.__cause__, SystemExit)
    with pytest.raises(SystemExit, match="7"):
        c.__exit__(None, None, None)


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_an_observer_that_exits_is_no_hang_either() -> None:
    def observer(saga_id: str, events: list[Event]) -> None:
        if events[-1].type == "saga_completed":
            raise SystemExit(5)

    try:
        with connect("memory://", sagas=[in_loop], deps=World(), observers=[observer], drain=0.1) as c:
            c.run(in_loop, 1)
    except (SystemExit, Stopped):
        pass


def test_an_action_that_stops_the_loop_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    @action
    async def stop_loop() -> int:
        asyncio.get_running_loop().stop()
        await asyncio.sleep(0.01)
        return 1

    @saga
    def stops() -> int:
        return stop_loop()

    with connect("memory://", sagas=[stops]) as c:
        assert c.run(stops) == 1
    assert "something stopped the event loop" in caplog.text


# -- on its own loop --------------------------------------------------------


@action
async def calls(ctx: Ctx[World], what: str) -> str:
    return attempt(ctx.deps, what)


@calls.undo
async def _(ctx: Ctx[World], output: str) -> None:
    ctx.deps.seen.append(attempt(ctx.deps, "get"))


def attempt(world: World, what: str) -> str:
    c = world.connection
    assert c is not None
    uses: dict[str, Callable[[], Any]] = {
        "run": lambda: c.run(in_loop, 1),
        "start": lambda: c.start(in_loop, 1),
        "result": lambda: c.attach("x").result(),
        "events": lambda: list(c.attach("x").events()),
        "get": lambda: c.get("x"),
        "list": c.list,
        "rollback": lambda: c.rollback("x"),
        "exit": lambda: c.__exit__(None, None, None),
        "enter": c.__enter__,
    }
    try:
        uses[what]()
    except IllegalRequest as error:
        return str(error)
    return "not refused"


@saga
def calls_itself(what: str, x: int) -> str:
    said = calls(what)
    refuse(x)
    return said


@pytest.mark.parametrize(
    "what", ["run", "start", "result", "events", "get", "list", "rollback", "exit", "enter"]
)
def test_use_on_its_own_event_loop_is_refused(what: str) -> None:
    world = World()
    with connect("memory://", sagas=[calls_itself], deps=world) as c:
        world.connection = c
        said = c.run(calls_itself, what, 1)
        assert ("open already" if what == "enter" else "own event loop") in said
        assert c.run(calls_itself, "get", 1)  # the connection is as before


def test_use_in_an_async_undo_or_an_observer_is_refused() -> None:
    world = World()

    def observer(saga_id: str, events: list[Event]) -> None:
        if world.connection is not None:
            world.seen.append(attempt(world, "get"))

    with connect("memory://", sagas=[calls_itself], deps=world, observers=[observer]) as c:
        world.connection = c

        @saga
        def back(x: int) -> int:
            calls("get")
            return refuse(x)

        until_failed = back.with_id("b")
        with pytest.raises(RolledBack):
            c.run(until_failed, -1)
    assert len(world.seen) > 2
    assert all("own event loop" in said for said in world.seen)


def test_use_in_a_plain_action_works() -> None:
    world = World()

    @action
    def nested(ctx: Ctx[World], x: int) -> int:
        assert ctx.deps.connection is not None
        return ctx.deps.connection.run(in_thread, x)

    @saga
    def outer(x: int) -> int:
        return nested(x)

    with connect("memory://", sagas=[outer, in_thread], deps=world) as c:
        world.connection = c
        assert c.run(outer, 4) == 4


def test_a_connection_in_a_running_loop_warns(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> int:
        with connect("memory://", sagas=[in_loop], deps=World()) as c:
            return c.run(in_loop, 2)

    assert asyncio.run(main()) == 2
    assert "blocks that loop" in caplog.text


# -- forks ------------------------------------------------------------------


def in_child(work: Callable[[], str]) -> tuple[int, str]:
    """What a forked child came to; it ends as a program does, not by `os._exit`, where `work` raises."""
    reading, writing = os.pipe()
    with _fork_allowed():
        pid = os.fork()
    if pid == 0:  # pragma: no cover - the coverage of a child is not collected
        code = 1
        try:
            os.write(writing, work().encode())
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as said:
        text = said.read()
    return os.waitpid(pid, 0)[1], text


@contextmanager
def _fork_allowed() -> Generator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the point of the test is a fork beside threads
        yield


@pytest.mark.parametrize("store", ["sqlite", "file"])
def test_a_forked_child_is_refused_and_touches_nothing_of_its_parent(tmp_path: Path, store: str) -> None:
    url, world = f"{store}:///{tmp_path}/s", World()
    with connect(url, deps=world, sagas=[in_loop, endless], drain=0.1) as c:
        waiting = c.start(endless.with_id("w"))
        assert world.began.wait(30)
        generator = waiting.events()
        next(generator)

        def use() -> str:
            world.connection = c
            said = [attempt(world, what) for what in ("run", "result", "get", "list")]
            try:
                next(generator)
            except IllegalRequest as error:
                said.append(str(error))
            c.__exit__(None, None, None)
            return "\n".join(said)

        status, said = in_child(use)
        assert status == 0
        lines = said.split("\n")
        assert len(lines) == 5
        assert all(f"belongs to process {os.getpid()}" in line for line in lines)

        async def other() -> None:
            async with Coordinator(url, deps=World(), sagas=[endless]) as second:
                assert second.execution("w") is None  # its owner's lock is still held

        asyncio.run(other())
        assert c.run(in_loop, 3) == 3
        assert waiting.status() == "running"


def test_a_forked_child_may_leave_the_block_and_end(tmp_path: Path) -> None:
    script = tmp_path / "forks.py"
    script.write_text(
        "import os, sys, warnings\n"
        "warnings.simplefilter('ignore')\n"
        "from compensate import action, connect, saga\n"
        "@action\n"
        "async def one(x: int) -> int:\n"
        "    return x\n"
        "@saga\n"
        "def s(x: int) -> int:\n"
        "    return one(x)\n"
        "pid = -1\n"
        "with connect('sqlite:///s.db', sagas=[s]) as c:\n"
        "    c.run(s.with_id('a'), 1)\n"
        "    pid = os.fork()\n"
        "    if pid:\n"
        "        assert os.waitpid(pid, 0)[1] == 0\n"
        "        assert c.run(s.with_id('b'), 2) == 2\n"
        "if pid == 0:\n"
        "    with connect('sqlite:///s.db', sagas=[s]) as own:\n"
        "        assert own.run(s.with_id('c'), 3) == 3\n"
        "    sys.exit(0)\n"
        "with connect('sqlite:///s.db', sagas=[s]) as c:\n"
        "    assert [c.attach(i).result() for i in 'abc'] == [1, 2, 3]\n"
        "print('whole')\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False
    )
    assert (done.returncode, done.stdout) == (0, "whole\n"), done.stderr


# -- interrupted, abandoned, refused ------------------------------------------


def test_ctrl_c_gives_the_wait_up_and_leaves_the_saga(tmp_path: Path) -> None:
    url, world = f"sqlite:///{tmp_path}/s.db", World()

    def press() -> None:
        world.began.wait(30)
        os.kill(os.getpid(), signal.SIGINT)

    presser = threading.Thread(target=press)
    with connect(url, deps=world, sagas=[endless], drain=0.1) as c:
        presser.start()
        with pytest.raises(KeyboardInterrupt):
            c.run(endless.with_id("a"))
        assert c.get("a").status == "running"
    presser.join()
    assert events_of(url, "a")[-1] == "started"


def test_ctrl_c_while_it_drains_closes_at_once_with_the_store(tmp_path: Path) -> None:
    url, world = f"sqlite:///{tmp_path}/s.db", World()
    c = connect(url, deps=world, sagas=[endless], drain=3_600).__enter__()
    c.start(endless.with_id("a"))
    assert world.began.wait(30)

    def press() -> None:
        until(lambda: not c.coordinator._open)
        os.kill(os.getpid(), signal.SIGINT)

    presser = threading.Thread(target=press)
    presser.start()
    with pytest.raises(KeyboardInterrupt):
        c.__exit__(None, None, None)
    presser.join()
    with connect(url, deps=world, sagas=[endless], drain=0) as second:
        assert second.coordinator.execution("a") is not None  # nobody holds its owner's lock any more


def test_events_may_be_left_half_way(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    with connect("memory://", deps=world, sagas=[endless], drain=0.1) as c:
        run = c.start(endless)
        for event in run.events():
            if event.type == "started":
                break
        kept = run.events()
        next(kept)
    with pytest.raises(Stopped):
        list(kept)
    assert not [record for record in caplog.records if record.name == "asyncio"]


def test_who_waits_while_the_connection_is_closed_under_an_action_that_does_not_listen_is_told() -> None:
    began = threading.Event()
    over = threading.Event()

    @action
    async def deaf() -> int:
        began.set()
        while not over.is_set():
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                continue
        return 1

    @saga
    def stubborn() -> int:
        return deaf()

    told: list[BaseException] = []

    def other(c: Connection) -> None:
        try:
            c.wait(c.coordinator.run(stubborn))
        except BaseException as error:
            told.append(error)

    logging.getLogger("asyncio").disabled = True  # it complains of the task that nothing can end
    try:
        with connect("memory://", sagas=[stubborn], drain=0) as c:
            thread = threading.Thread(target=other, args=(c,))
            thread.start()
            assert began.wait(30)
        thread.join(30)
        gc.collect()
    finally:
        logging.getLogger("asyncio").disabled = False
    assert [type(error) for error in told] == [Stopped]


def test_an_error_while_it_is_entered_leaves_nothing_behind(tmp_path: Path) -> None:
    connection = connect(f"sqlite:///{tmp_path}/no/such/folder/s.db")
    with pytest.raises(Unavailable):
        connection.__enter__()
    with pytest.raises(Stopped):
        connection.list()


def test_stop_on_outside_the_main_thread_is_refused_before_anything_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(IllegalRequest, match="main thread only"):
        connect(f"sqlite:///{path}", stop_on=[signal.SIGTERM]).__enter__()
    told: list[BaseException] = []

    async def main() -> None:
        async with Coordinator(f"sqlite:///{path}", stop_on=[signal.SIGTERM, signal.SIGUSR1]):
            pass

    async def serve() -> None:
        async with Coordinator("memory://") as c:
            await c.serve()

    def run() -> None:
        for work in (main, serve):
            try:
                asyncio.run(work())
            except IllegalRequest as error:
                told.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(30)
    assert len(told) == 2
    assert "SIGTERM, SIGUSR1" in str(told[0])
    assert not path.exists()
    assert signal.getsignal(signal.SIGTERM) is before
