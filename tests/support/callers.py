"""Processes whose callers all use one id at once, and a parent that starts, kills and questions them.

A worker has one coordinator. In each round it is told an id and a list of calls, makes all of them at once, and says
what each of them came to. `python -m tests.support.callers` forks workers, which costs far less than starting Python.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, Literal, Self, cast

import msgspec

from compensate import Coordinator, RolledBack, SagaError
from tests.support.gates import Gates
from tests.support.outside import Outside
from tests.support.shapes import SAGAS, Deps, Job

ROOT = Path(__file__).parents[2]
SOCKET = "socket"
OUTSIDE = "outside.db"
OUTPUT = "output"

HUNG = "hung"
"""The answer of a call that got none."""

PATIENCE = 60.0
"""Seconds after which a call is taken to wait for ever; far more than any of them needs."""

Kind = Literal["run", "start", "other", "result", "rollback", "adopt", "events"]


class Call(msgspec.Struct, frozen=True):
    """One caller.

    Attributes:
        kind: What it calls. `other`: a start with other params.
        after: Seconds after which it calls.
        patience: Seconds after which it gives up by cancelling itself; 0: never.
    """

    kind: Kind
    after: float = 0.0
    patience: float = 0.0


class Round(msgspec.Struct, frozen=True):
    """What a worker is told."""

    id: str
    shape: str
    job: Job
    calls: list[Call]


class Order(msgspec.Struct, frozen=True):
    """What a worker is.

    Attributes:
        folder: Where everything lies.
        url: Of the store.
        name: Its name.
        drain: As for the coordinator.
    """

    folder: str
    url: str
    name: str
    drain: float


class Hello(msgspec.Struct, frozen=True, tag="hello"):
    """A worker is there."""

    name: str
    pid: int


class Answers(msgspec.Struct, frozen=True, tag="answers"):
    """What the calls of a round came to, in order."""

    id: str
    answers: list[str]
    stacks: str = ""


class Closed(msgspec.Struct, frozen=True, tag="closed"):
    """A worker's coordinator has closed, at a signal."""

    seconds: float


Said = Hello | Answers | Closed

# -- a worker --------------------------------------------------------------


async def _call(c: Coordinator, what: Round, call: Call) -> str:
    await asyncio.sleep(call.after)
    saga = SAGAS[what.shape].with_id(what.id)
    if call.kind == "run":
        return await c.run(saga, what.job)
    if call.kind == "start":
        return await (await c.start(saga, what.job)).result()
    if call.kind == "other":
        return await c.run(saga, Job(size=what.job.size + 1))
    if call.kind == "rollback":
        return str(await (await c.rollback(what.id, reason="a caller wants it")).result())
    if call.kind == "adopt":
        return str(await (await c.adopt(what.id)).result())
    if call.kind == "events":
        return [event async for event in c.attach(what.id).events()][-1].type
    return str(await c.attach(what.id).result())


async def _answer(c: Coordinator, what: Round, call: Call) -> str:
    try:
        if call.patience:
            return await asyncio.wait_for(_call(c, what, call), call.patience)
        return await _call(c, what, call)
    except (RolledBack, SagaError) as error:
        return type(error).__name__
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def _stacks() -> str:
    """What every task of this process waits for: the places along its chain of awaits."""
    lines: list[str] = []
    for task in asyncio.all_tasks():
        lines.append(f"{task.get_name()}:")
        awaited: Any = task.get_coro()
        while awaited is not None:
            frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "ag_frame", None)
            if frame is not None:
                lines.append(f"    {frame.f_code.co_qualname} line {frame.f_lineno}")
            awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "ag_await", None)
    return "\n".join(lines)


async def _round(c: Coordinator, what: Round) -> Answers:
    tasks = [asyncio.create_task(_answer(c, what, call), name=call.kind) for call in what.calls]
    _, pending = await asyncio.wait(tasks, timeout=PATIENCE)
    stacks = _stacks() if pending else ""
    return Answers(what.id, [task.result() if task.done() else HUNG for task in tasks], stacks)


async def _work(order: Order) -> None:
    folder = Path(order.folder)
    outside = Outside(folder / OUTSIDE)
    reader, writer = await asyncio.open_unix_connection(folder / SOCKET)

    def say(said: Said) -> None:
        writer.write(msgspec.json.encode(said) + b"\n")

    c = Coordinator(
        order.url,
        deps=Deps(outside, Gates(None, folder / "where"), order.name, folder / "go"),
        sagas=list(SAGAS.values()),
        owner=order.name,
        poll=0.05,
        grace=0.5,
        drain=order.drain,
        stop_on=[signal.SIGTERM],
    )
    async with c:
        serving = asyncio.create_task(c.serve())
        say(Hello(order.name, os.getpid()))
        rounds: set[asyncio.Task[None]] = set()

        async def answer(what: Round) -> None:
            say(await _round(c, what))
            await writer.drain()

        async def listen() -> None:
            while line := await reader.readline():
                rounds.add(asyncio.create_task(answer(msgspec.json.decode(line, type=Round))))

        listening = asyncio.create_task(listen())
        await asyncio.wait([serving, listening], return_when=asyncio.FIRST_COMPLETED)
        began = time.monotonic()
        await c.close()
        if rounds:
            await asyncio.wait(rounds)
        say(Closed(time.monotonic() - began))
        await writer.drain()


def _nursery() -> None:
    """Fork a worker for each order. This process never runs a loop or a thread, so that it may be forked."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin.buffer:
        order = msgspec.json.decode(line, type=Order)
        if os.fork() == 0:
            code = 1
            try:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                log = os.open(Path(order.folder) / OUTPUT, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
                os.dup2(log, 1)
                os.dup2(log, 2)
                os.close(0)
                logging.basicConfig(level=logging.ERROR, format="%(asctime)s %(process)d %(message)s")
                asyncio.run(_work(order))
                code = 0
            except BaseException:
                sys.excepthook(*cast("Any", sys.exc_info()))
            finally:
                sys.stderr.flush()
                os._exit(code)


# -- the parent ------------------------------------------------------------


class Worker:
    """A worker as its parent sees it."""

    def __init__(
        self, name: str, pid: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.name = name
        self.pid = pid
        self._reader = reader
        self._writer = writer

    def tell(self, what: Round) -> None:
        """Let it make the calls of a round."""
        self._writer.write(msgspec.json.encode(what) + b"\n")

    def kill(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    async def says(self) -> Said | None:
        """What it says next; `None`: it has ended."""
        try:
            line = await self._reader.readline()
        except ConnectionResetError:
            line = b""
        if not line:
            self.close()
            return None
        return cast("Said", msgspec.json.decode(line, type=Said))

    def close(self) -> None:
        """Close the connection; one that has not ended closes its coordinator then."""
        self._writer.close()

    def dismiss(self) -> None:
        """Let it close and end."""
        self._writer.write_eof()


class Workers:
    """Makes workers.

    Args:
        folder: Where everything lies.
        url: Of the store.
        drain: As for the coordinators.
    """

    def __init__(self, folder: Path, url: str, drain: float) -> None:
        self.folder = folder
        self.made = 0
        self._url = url
        self._drain = drain
        self._all: list[Worker] = []
        self._arrived: asyncio.Queue[Worker] = asyncio.Queue()

    async def __aenter__(self) -> Self:
        self._nursery = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.support.callers", cwd=ROOT, stdin=asyncio.subprocess.PIPE
        )
        self._server = await asyncio.start_unix_server(self._arrive, self.folder / SOCKET)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for worker in self._all:
            worker.close()
        assert self._nursery.stdin is not None
        self._nursery.stdin.close()
        await self._nursery.wait()

    async def _arrive(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hello = msgspec.json.decode(await reader.readline(), type=Said)
        assert isinstance(hello, Hello)
        worker = Worker(hello.name, hello.pid, reader, writer)
        self._all.append(worker)
        self._arrived.put_nowait(worker)

    async def make(self) -> Worker:
        """Make one, and wait until its coordinator is open."""
        self.made += 1
        order = Order(str(self.folder), self._url, f"worker{self.made}", self._drain)
        assert self._nursery.stdin is not None
        self._nursery.stdin.write(msgspec.json.encode(order) + b"\n")
        return await self._arrived.get()


if __name__ == "__main__":
    _nursery()
