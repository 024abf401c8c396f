"""Real processes and a saga that kills each process that runs it: its neighbours complete, and it is found out."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from compensate.codec.records import decode_dag
from compensate.core import events as e
from compensate.stores import open_store
from compensate.stores.base import StoredSaga
from compensate.testing.checker import check
from tests.support.crash_loop import KILLED

ROOT = Path(__file__).parents[2]
STORES = ("sqlite", "file")
LONG = 3600.0
"""Seconds of an action that never ends within a test."""

pytestmark = [pytest.mark.slow, pytest.mark.time_limit(300)]


class Service:
    """A store, and the worker processes on it.

    Args:
        kind: `sqlite` or `file`.
        folder: Where the store lies.
        kills: What kills its process: `do`, `undo` or `none`.
    """

    def __init__(self, kind: str, folder: Path, kills: str) -> None:
        self.url = f"file:///{folder / 'sagas'}" if kind == "file" else f"sqlite:///{folder / 'sagas.db'}"
        self.kills = kills
        self.workers: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for worker in self.workers:
            if worker.poll() is None:
                worker.kill()
            ended(worker)

    def begin(self, what: str, seconds: float, drain: float = 0.0, healthy: int = 0) -> subprocess.Popen[str]:
        arguments = [what, self.url, self.kills, str(seconds), str(drain), str(healthy)]
        return subprocess.Popen(
            [sys.executable, "-m", "tests.support.crash_loop", *arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, healthy: int) -> None:
        """Store the sagas."""
        process = self.begin("start", LONG, healthy=healthy)
        self.workers.append(process)
        assert ended(process) == 0

    def work(self, seconds: float, drain: float = 0.0) -> subprocess.Popen[str]:
        """A worker that has taken up the sagas."""
        worker = self.begin("work", seconds, drain)
        self.workers.append(worker)
        assert worker.stdout is not None
        assert worker.stdout.readline() == "up\n"
        return worker

    def work_off(self, workers: int, seconds: float) -> int:
        """Work with so many processes, each started again when it dies, until nothing is left; how many died."""
        deaths = 0
        going = [self.begin("work", seconds) for _ in range(workers)]
        self.workers += going
        while going:
            time.sleep(0.01)
            for worker in [worker for worker in going if worker.poll() is not None]:
                going.remove(worker)
                assert worker.returncode in (0, KILLED)
                if worker.returncode == KILLED:
                    deaths += 1
                    assert deaths < 50, "the guilty saga is never given up"
                    going.append(self.begin("work", seconds))
                    self.workers.append(going[-1])
        return deaths

    def sagas(self) -> dict[str, StoredSaga]:
        """All sagas, each checked against the guarantee."""
        return {stored.record.id: checked(stored) for stored in asyncio.run(_load_all(self.url))}


def ended(process: subprocess.Popen[str]) -> int:
    """Wait for its end; its exit code."""
    if process.stdout is not None:
        process.stdout.close()
    return process.wait()


async def _load_all(url: str) -> list[StoredSaga]:
    store = open_store(url)
    await store.open()
    try:
        return [await store.load(record.id) for record in (await store.page(limit=1_000)).records]
    finally:
        await store.close()


def checked(stored: StoredSaga) -> StoredSaga:
    assert check(decode_dag(stored.dag), stored.events, saga_id=stored.record.id, crashes=5) == []
    return stored


def deaths_of(stored: StoredSaga) -> list[int]:
    """The deaths that its log counts."""
    interrupted = [x.data for x in stored.events if isinstance(x.data, e.InDoubt | e.UndoFailed)]
    return [data.deaths for data in interrupted if data.deaths]


PLACES = [
    pytest.param(
        kind, workers, marks=() if (kind, workers) in (("sqlite", 3), ("file", 1)) else pytest.mark.deep
    )
    for kind in STORES
    for workers in (1, 3)
]


@pytest.mark.parametrize("direction", ["do", "undo"])
@pytest.mark.parametrize(("kind", "workers"), PLACES)
def test_a_saga_that_kills_its_process_is_found_out_and_200_others_complete(
    kind: str, workers: int, direction: str, tmp_path: Path
) -> None:
    with Service(kind, tmp_path, direction) as service:
        service.start(200)
        assert service.work_off(workers, 0.3) == 5
        sagas = service.sagas()
    guilty = sagas.pop("guilty")
    assert len(sagas) == 200
    assert {saga.record.status for saga in sagas.values()} == {"completed"}
    assert max((max(deaths_of(saga), default=0) for saga in sagas.values()), default=0) < 5
    assert any(deaths_of(saga) for saga in sagas.values()), "no healthy saga was ever in flight at a death"
    assert guilty.record.status == "stuck"
    assert deaths_of(guilty) == [1, 2, 3, 4, 5]
    stuck = guilty.events[-1].data
    assert isinstance(stuck, e.SagaStuck)
    (node,) = stuck.nodes
    assert (node.node, node.reason) == ("parse", "its process died 5 times while it ran")
    assert set(node.choices) >= {"retry", "skip", "resolve"}


@pytest.mark.parametrize("drain", [0.0, 0.2])
@pytest.mark.parametrize("kind", STORES)
def test_twenty_deploys_in_a_row_convict_nobody(kind: str, drain: float, tmp_path: Path) -> None:
    with Service(kind, tmp_path, "none") as service:
        service.start(10)
        for _ in range(20):
            worker = service.work(LONG, drain)
            worker.send_signal(signal.SIGTERM)
            assert ended(worker) == 0
        assert service.work_off(1, 0.0) == 0
        sagas = service.sagas()
    assert len(sagas) == 10
    for stored in sagas.values():
        assert stored.record.status == "completed"
        assert deaths_of(stored) == []
        cut_off = [x for x in stored.events if isinstance(x.data, e.InDoubt) and x.data.reason == "cut_off"]
        assert len(cut_off) == 21, "it was not in flight at each deploy"


@pytest.mark.parametrize("kind", STORES)
def test_three_kills_in_a_row_convict_nobody(kind: str, tmp_path: Path) -> None:
    with Service(kind, tmp_path, "none") as service:
        service.start(10)
        for _ in range(3):
            worker = service.work(LONG)
            worker.kill()
            assert ended(worker) == -signal.SIGKILL
        assert service.work_off(1, 0.0) == 0
        sagas = service.sagas()
    assert len(sagas) == 10
    for stored in sagas.values():
        assert stored.record.status == "completed"
        assert deaths_of(stored)[:2] == [1, 2]
