"""A coordinator with `stop_on` in the lifespan of a real uvicorn, which handles the same signals itself."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from compensate import Coordinator, open_store
from compensate.stores.base import StoredSaga
from tests.support import served
from tests.support.processes import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.time_limit(120)]


@contextmanager
def server(folder: Path) -> Generator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "uvicorn", "tests.support.served:app", "--uds", str(folder / "socket")]
    environment = {**os.environ, "SERVED_STORE": f"sqlite:///{folder}/sagas.db"}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            wait_until(lambda: answers(folder), process)
            yield process
        finally:
            process.kill()


def answers(folder: Path) -> bool:
    try:
        return get(folder, "/warm/0").endswith("0.0")
    except (FileNotFoundError, ConnectionRefusedError):
        return False


def get(folder: Path, path: str) -> str:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(folder / "socket"))
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        return b"".join(iter(lambda: connection.recv(65_536), b"")).decode()


def wait_until(true: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 60
    while not true():
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < end
        time.sleep(0.02)


async def stored(folder: Path, saga_id: str) -> StoredSaga | None:
    store = open_store(f"sqlite:///{folder}/sagas.db")
    await store.open()
    try:
        found = [r.id for r in (await store.page()).records]
        return await store.load(saga_id) if saga_id in found else None
    finally:
        await store.close()


def works_at_second(folder: Path, saga_id: str) -> bool:
    saga = asyncio.run(stored(folder, saga_id))
    return saga is not None and saga.events[-1].node == "second"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_uvicorn_ends_at_a_signal_with_its_sagas_drained_and_resumable(
    tmp_path: Path, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    got: dict[str, str] = {}
    with server(tmp_path) as process:
        ids = [f"long{k}" for k in range(4)]
        threads = [
            threading.Thread(target=lambda i=i: got.update({i: get(tmp_path, f"/{i}/600")})) for i in ids
        ]
        for thread in threads:
            thread.start()
        wait_until(lambda: all(works_at_second(tmp_path, i) for i in ids), process)
        assert get(tmp_path, "/quick/0").endswith("0.0")
        process.send_signal(number)
        code = process.wait(60)
        for thread in threads:
            thread.join(30)
    assert code in (0, -number), "uvicorn raises the signal again once it has shut down, where it can"
    assert len(got) == 4
    assert all("503 Service Unavailable" in said and number.name in said for said in got.values()), got

    for i in ids:
        saga = asyncio.run(stored(tmp_path, i))
        assert saga is not None
        assert (saga.record.status, saga.record.owner) == (
            "running",
            None,
        )  # released, by the drain's own hand
        assert saga.events[-1].type == "started"
    monkeypatch.setenv("SERVED_PACE", "0")

    async def resume() -> list[float]:
        async with Coordinator(f"sqlite:///{tmp_path}/sagas.db", sagas=[served.job]) as c:
            return [await c.attach(i).result() for i in [*ids, "quick"]]

    assert asyncio.run(resume()) == [600.0] * 4 + [0.0]
