"""A process that runs sagas until they end, or until it is killed.

Argument: an `Order` as JSON. With `--nursery` it reads one order a line instead, and forks a process for each, which
costs far less than starting Python; it answers each line with the process's wait status.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Awaitable
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import msgspec

from compensate import Coordinator, RolledBack, Run, Stopped, Stuck, Unavailable
from compensate.core.events import Event
from compensate.core.standing import Standing
from compensate.stores import open_store, sqlite_commit
from compensate.stores.base import Done, NewSaga, Store
from compensate.testing.recording_store import RecordingStore
from tests.support.gates import Gates, Stop, gate_files, gate_sqlite
from tests.support.outside import Outside
from tests.support.shapes import SAGAS, Deps, Job

REPORT = "report.json"
WHERE = "where"
GO = "go"
OUTSIDE = "outside.db"
LOG = "log"

GIVEN_UP = 3
"""Exit code of a process whose store stays unavailable."""


class Start(msgspec.Struct, frozen=True):
    """A saga to be run.

    Attributes:
        shape: Which definition.
        id: Under which id.
        job: Its params.
        then_undo: Ask for its rollback once it has completed.
    """

    shape: str
    id: str
    job: Job = Job()
    then_undo: bool = False


class Order(msgspec.Struct, frozen=True):
    """What a process is to do.

    Attributes:
        folder: Where everything lies.
        url: Of the store.
        actor: Its name in the records, and as owner.
        starts: What it starts, or goes on with.
        stop: Where it is stopped.
        counted: Which points it counts, if nothing stops it.
        gated: Make points of the store's seams.
        in_thread: Have SQLite's commits made by the writer thread, always.
        lease: As for the coordinator.
        poll: As for the coordinator.
        drain: As for the coordinator.
        serve: Go on until SIGTERM.
    """

    folder: str
    url: str
    actor: str
    starts: list[Start] = []
    stop: Stop | None = None
    counted: str = ""
    gated: bool = True
    in_thread: bool = False
    lease: float = 30.0
    poll: float = 60.0
    drain: float = 10.0
    serve: bool = False


class Told(msgspec.Struct):
    """What a process says of itself when it ends by itself.

    Attributes:
        ends: What became of each saga.
        passed: The points that were counted.
        fired: How often an error was given.
        waiting: Sagas that were left resumable.
    """

    ends: dict[str, str] = {}
    passed: list[str] = []
    fired: int = 0
    waiting: list[str] = []


class GatedStore(RecordingStore):
    """Makes a point of every append and create, with what is in it."""

    def __init__(self, store: Store, outside: Outside, actor: str, gates: Gates) -> None:
        super().__init__(store, outside, actor)
        self._gates = gates

    def create(self, saga: NewSaga, owner: str) -> Done:
        self._gates("create begins")
        return self._then("create is durable", super().create(saga, owner))

    def append(
        self,
        saga_id: str,
        epoch: int,
        expected_seq: int,
        events: Any,
        standing: Standing,
        created_at: float | None = None,
    ) -> Done:
        what = _what(events)
        self._gates(f"append begins {what}")
        return self._then(
            f"append is durable {what}",
            super().append(saga_id, epoch, expected_seq, events, standing, created_at),
        )

    def _then(self, label: str, done: Done) -> Done:
        if done is not None:
            return self._durable(label, done)
        self._gates(label)
        return None

    async def _durable(self, label: str, done: Awaitable[None]) -> None:
        await done
        self._gates(label)


def _what(events: list[Event]) -> str:
    return " ".join(f"{event.type}:{event.node}" for event in events)


class Victim:
    """The life of one process."""

    def __init__(self, order: Order) -> None:
        folder = Path(order.folder)
        self.order = order
        self.folder = folder
        self.told = Told()
        self.gates = Gates(order.stop, folder / WHERE, order.counted)
        # Before the gates: what lies outside is never stopped.
        self.outside = Outside(folder / OUTSIDE)
        if order.gated and order.url.startswith("sqlite:"):
            gate_sqlite(self.gates, order.url.removeprefix("sqlite:///"))
        elif order.gated:
            gate_files(self.gates)
        # Not by its pace, so that the points of a run are the same each time.
        sqlite_commit.SLOW = -1.0 if order.in_thread else float("inf")  # type: ignore[misc]

    async def live(self) -> None:
        """Live; again, as another, if the store was not available."""
        for left in range(3, -1, -1):
            actor = self.order.actor + "+" * (3 - left)
            try:
                await self.coordinate(actor)
                break
            except Unavailable:
                if not left:
                    logging.getLogger(__name__).exception("the store stays unavailable")
                    raise SystemExit(GIVEN_UP) from None
        self.told.passed = self.gates.passed
        self.told.fired = self.gates.fired
        (self.folder / REPORT).write_bytes(msgspec.json.encode(self.told))

    async def coordinate(self, actor: str) -> None:
        order = self.order
        store = GatedStore(open_store(order.url), self.outside, actor, self.gates)
        coordinator = Coordinator(
            store,
            deps=Deps(self.outside, self.gates, actor, self.folder / GO),
            sagas=SAGAS.values(),
            owner=actor,
            lease=order.lease,
            poll=order.poll,
            drain=order.drain,
            observers=[self.outside.observer(actor)],
            stop_on=[signal.SIGTERM],
        )
        async with coordinator as c:
            tell = asyncio.create_task(tell_when_it_stops(c))
            say("open")
            await asyncio.gather(*(self.run(c, start) for start in order.starts))
            if order.serve:
                say("served")
                await c.serve()
        await tell

    async def run(self, c: Coordinator, start: Start) -> None:
        """Start a saga, or go on with it, and wait for its end."""
        try:
            run = await begin(c, start)
            self.told.ends[start.id] = await end_of(run)
            if start.then_undo and self.told.ends[start.id] == "completed":
                run = await c.rollback(start.id, reason="no longer wanted", who="test")
                self.told.ends[start.id] = await end_of(run)
        except Stopped:
            self.told.waiting.append(start.id)


async def begin(c: Coordinator, start: Start, tries: int = 20) -> Run[str]:
    """Start a saga; again, while the outcome is unknown."""
    try:
        return await c.start(SAGAS[start.shape].with_id(start.id), start.job)
    except Unavailable:
        if not tries:
            raise
    await asyncio.sleep(0.01)
    return await begin(c, start, tries - 1)


async def end_of(run: Run[Any]) -> str:
    try:
        await run.result()
    except RolledBack:
        return "rolled_back"
    except Stuck:
        return "stuck"
    return "completed"


async def tell_when_it_stops(c: Coordinator) -> None:
    with suppress(Stopped):
        while True:
            c.check_running("")
            await asyncio.sleep(0.005)
    say("stops")


def say(text: str) -> None:
    os.write(1, f"{text}\n".encode())


def live(order: Order) -> None:
    logging.basicConfig(filename=Path(order.folder) / LOG, level=logging.WARNING, force=True)
    asyncio.run(Victim(order).live())


def nursery() -> None:
    """Fork a process for each order. This process never runs a loop or a thread, so that it may be forked."""
    for line in sys.stdin.buffer:
        order = msgspec.json.decode(line, type=Order)
        child = os.fork()
        if child == 0:
            code: int | str | None = 1
            try:
                log = os.open(Path(order.folder) / "output", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
                os.dup2(log, 1)
                os.dup2(log, 2)
                live(order)
                code = 0
            except SystemExit as error:
                code = error.code
            except BaseException:
                sys.excepthook(*cast("Any", sys.exc_info()))
            finally:
                sys.stderr.flush()
                os._exit(code if isinstance(code, int) else 1)
        _, status = os.waitpid(child, 0)
        say(str(os.waitstatus_to_exitcode(status)))


if __name__ == "__main__":
    if sys.argv[1] == "--nursery":
        nursery()
    else:
        live(msgspec.json.decode(sys.argv[1], type=Order))
