"""What a chain of ten costs on SQLite: exactly so many durable commits, counted by four parties that do not ask one
another: the store, SQLite's own trace, the write-ahead log as it lies on the disk, and the system's calls.
"""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from compensate import Coordinator, Ctx, RolledBack, SagaExecutor, action, saga
from compensate.stores.sqlite import SqliteStore

ROOT = Path(__file__).parents[2]
ACTIONS = 10


@action
async def count(number: int, limit: int) -> int:
    if number == limit:
        raise ValueError("this one fails")
    return number + 1


@count.undo
async def discount(ctx: Ctx[None], number: int) -> None:
    assert number


@saga
def ten(limit: int) -> int:
    number = count(0, limit)
    for _ in range(ACTIONS - 1):
        number = count(number, limit)
    return number


FORWARD = 100
BACK = ACTIONS - 1

WAYS = [
    pytest.param(FORWARD, 11, id="forward"),  # the creation and each completion
    pytest.param(BACK, 20, id="back"),  # the creation, nine completions, the failure, nine undos
]


def commits_in_log(wal: Path) -> int:
    """Commits in a write-ahead log: frames that give the size of the database after them (SQLite's file format)."""
    data = wal.read_bytes()
    magic, version, page = struct.unpack(">III", data[:12])
    assert magic in (0x377F0682, 0x377F0683)
    assert version == 3_007_000
    salts = data[16:24]
    commits, at = 0, 32
    while at + 24 + page <= len(data) and data[at + 8 : at + 16] == salts:
        commits += struct.unpack(">I", data[at + 4 : at + 8])[0] > 0
        at += 24 + page
    return commits


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every statement that SQLite itself says that it runs, on any connection made from now on."""
    statements: list[str] = []
    connect: Callable[..., sqlite3.Connection] = sqlite3.connect

    def tracing(*args: object, **kwargs: object) -> sqlite3.Connection:
        connection = connect(*args, **kwargs)
        connection.set_trace_callback(statements.append)
        return connection

    monkeypatch.setattr(sqlite3, "connect", tracing)
    return statements


async def run(executor: SagaExecutor[int], limit: int) -> None:
    if limit == FORWARD:
        assert await executor.execute(limit) == ACTIONS
    else:
        with pytest.raises(RolledBack, match="this one fails"):
            await executor.execute(limit)


@pytest.mark.parametrize(("limit", "commits"), WAYS)
async def test_a_chain_of_ten_costs_exactly_so_many_commits(
    tmp_path: Path, traced: list[str], limit: int, commits: int
) -> None:
    path = tmp_path / "sagas.db"
    store = SqliteStore(path)
    await store.open()
    before, written = store.commits, commits_in_log(Path(f"{path}-wal"))
    del traced[:]
    await run(SagaExecutor(ten, saga_id="s", store=store), limit)
    assert store.commits - before == commits
    assert [statement for statement in traced if statement.startswith("COMMIT")] == ["COMMIT"] * commits
    assert store.checkpoints == 0
    assert commits_in_log(Path(f"{path}-wal")) - written == commits
    await store.close()


@pytest.mark.parametrize(("limit", "commits"), WAYS)
async def test_a_coordinator_adds_none(tmp_path: Path, limit: int, commits: int) -> None:
    store = SqliteStore(tmp_path / "sagas.db")
    async with Coordinator(store, sagas=[ten], poll=60) as c:
        before = store.commits
        if limit == FORWARD:
            assert await c.run(ten, limit) == ACTIONS
        else:
            with pytest.raises(RolledBack):
                await c.run(ten, limit)
        assert store.commits - before == commits


SCRIPT = """
import asyncio, os, sys
from pathlib import Path
from tests.acceptance.test_commits import run, ten
from compensate import SagaExecutor
from compensate.stores.sqlite import SqliteStore

async def main(path, limit):
    store = SqliteStore(path)
    await store.open()
    os.write(2, b"<begin>")
    await run(SagaExecutor(ten, saga_id="s", store=store), limit)
    os.write(2, b"<end>")
    os._exit(0)  # closing makes a checkpoint, which is no commit

asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
"""


def syncs_of(command: list[str], folder: Path) -> list[str]:
    """The syncs that a process makes between two marks, as the system sees them."""
    trace = folder / "trace"
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed (Debian: apt-get install strace)")
    done = subprocess.run(
        [strace, "-f", "-y", "-e", "trace=fsync,fdatasync,sync_file_range,write", "-o", str(trace), *command],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = trace.read_text().split('"<begin>"')[1].split('"<end>"')[0].splitlines()
    return [match[1] for line in lines if (match := re.search(r"(f(?:data)?sync\(.*?\))", line))]


@pytest.mark.slow
@pytest.mark.parametrize(("limit", "commits"), WAYS)
def test_each_commit_is_one_sync_of_the_write_ahead_log_and_nothing_else_is_synced(
    tmp_path: Path, limit: int, commits: int
) -> None:
    path = tmp_path / "sagas.db"
    syncs = syncs_of([sys.executable, "-c", SCRIPT, str(path), str(limit)], tmp_path)
    assert len(syncs) == commits
    assert {Path(sync.partition("<")[2].rstrip(">)")).name for sync in syncs} == {"sagas.db-wal"}
