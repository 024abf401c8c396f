"""Starting, killing and judging the processes of `victim`."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import msgspec

from compensate.codec.records import decode_dag
from compensate.stores import open_store
from compensate.stores.base import StoredSaga
from compensate.testing.checker import check, check_ended
from compensate.testing.recorder import Effect, StoreCall
from tests.support.outside import Outside
from tests.support.shapes import NOTES, UNDOABLE
from tests.support.victim import GIVEN_UP, LOG, OUTSIDE, REPORT, WHERE, Order, Start, Told

ROOT = Path(__file__).parents[2]


def url_of(kind: str, folder: Path) -> str:
    """The url of the store of a test: `sqlite`, `sqlite-thread` or `file`."""
    return f"file:///{folder / 'sagas'}" if kind == "file" else f"sqlite:///{folder / 'sagas.db'}"


def told(folder: Path) -> Told:
    """What the last process that ended by itself has to say."""
    return msgspec.json.decode((folder / REPORT).read_bytes(), type=Told)


def where(folder: Path) -> str:
    """The point at which the last process was stopped."""
    return (folder / WHERE).read_text().partition(" ")[2]


def log_of(folder: Path) -> str:
    """What the processes in this folder reported."""
    return (folder / LOG).read_text() if (folder / LOG).exists() else ""


class Process:
    """A Python process of its own that does an order."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.victim", msgspec.json.encode(order).decode()],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.pid = self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()

    def says(self, beginning: str) -> str:
        """Wait until it says something that begins so; the rest of it."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(beginning):
                return line[len(beginning) :].strip()
        _, errors = self._process.communicate()
        raise AssertionError(f"it ended ({self._process.returncode}) and never said {beginning!r}:\n{errors}")

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def ended(self) -> int:
        """Wait for its end; its exit code, or the negative number of the signal that ended it."""
        _, errors = self._process.communicate()
        assert not errors, errors
        return self._process.returncode


def live_out(order: Order) -> Told:
    """Run a process to its own end."""
    with Process(order) as process:
        assert process.ended() == 0
    return told(Path(order.folder))


class Nursery:
    """Forks processes from one that has everything loaded."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.victim", "--nursery"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, order: Order) -> int:
        """Do an order in a process of its own; its exit code, or the negative number of the signal that ended it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(msgspec.json.encode(order).decode() + "\n")
        self._process.stdin.flush()
        code = int(self._process.stdout.readline())
        assert code in (0, -9, GIVEN_UP), (Path(order.folder) / "output").read_text()
        return code

    def close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            _close(pipe)
        self._process.wait()


def _close(pipe: IO[str]) -> None:
    pipe.close()


# -- judging ---------------------------------------------------------------


async def _load(url: str, ids: Iterable[str]) -> list[StoredSaga]:
    store = open_store(url)
    await store.open()
    try:
        return [await store.load(saga_id) for saga_id in ids]
    finally:
        await store.close()


def load(url: str, *ids: str) -> list[StoredSaga]:
    """Sagas as they are stored, read when no process is left."""
    return asyncio.run(_load(url, ids))


def judge(folder: Path, url: str, starts: Iterable[Start], ends: dict[str, str]) -> None:
    """Check every saga against the outside record and the guarantee, and that it ended as it must.

    Args:
        folder: Where everything lies.
        url: Of the store.
        starts: The sagas.
        ends: How each must have ended, by its id.
    """
    starts = list(starts)
    outside = Outside(folder / OUTSIDE)
    try:
        effects, durables, calls = outside.effects(), outside.durables(), outside.calls()
    finally:
        outside.close()
    for start, stored in zip(starts, load(url, *(start.id for start in starts)), strict=True):
        saga_id = start.id
        mine = [effect for effect in effects if effect.saga == saga_id]
        violations = check(
            decode_dag(stored.dag),
            stored.events,
            mine,
            saga_id=saga_id,
            durables=[durable for durable in durables if durable.saga == saga_id],
            calls=[c for c in calls if c.saga == saga_id or any(k.saga == saga_id for k in c.claimed)],
        )
        assert not violations, "\n".join(map(str, violations))
        assert not check_ended({saga_id: stored.events})
        assert stored.record.status == ends[saga_id], (saga_id, stored.record.status)
        assert stored.record.owner is None
        changes = Counter((x.node, x.direction) for x in mine if x.kind == "effect")
        assert all(count == 1 for count in changes.values()), f"done more than once: {changes}"
        done = {node for node, direction in changes if direction == "do"}
        undone = {node for node, direction in changes if direction == "undo"}
        if ends[saga_id] == "completed":
            assert done == UNDOABLE[start.shape] | NOTES.get(start.shape, frozenset())
            assert not undone
        else:
            assert undone == done - NOTES.get(start.shape, frozenset()), (done, undone)


def kill(process: Process) -> None:
    """End it with SIGKILL, from outside; it must end by that."""
    process.signal(signal.SIGKILL)
    assert process.ended() == -signal.SIGKILL


def stopped(process: Process) -> None:
    """Wait until it is stopped, by whomever."""
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)


def until(true: Callable[[], bool], what: str) -> None:
    """Wait for something that other processes bring about. Patient: it is no measure of time."""
    for _ in range(6_000):
        if true():
            return
        time.sleep(0.01)
    raise AssertionError(f"it never came to this: {what}")


def calls(folder: Path, actor: str, call: str) -> list[StoreCall]:
    """What one process asked of its store."""
    outside = Outside(folder / OUTSIDE)
    try:
        return [each for each in outside.calls() if each.actor == actor and each.call == call]
    finally:
        outside.close()


def effects(folder: Path) -> list[Effect]:
    """What user code did, in order."""
    outside = Outside(folder / OUTSIDE)
    try:
        return outside.effects()
    finally:
        outside.close()
