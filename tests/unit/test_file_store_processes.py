"""The file store between real processes: owners that live, are killed, or are stopped in the middle of a write."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from compensate.core.standing import PLAIN
from compensate.errors import Fenced, Unavailable
from compensate.stores.base import StoredSaga
from compensate.stores.file import FileStore
from compensate.testing.conformance.tools import LATER, LEASE, NOW, done, ids, new, steps

SUPPORT = Path(__file__).parent.parent / "support"


@asynccontextmanager
async def process(script: str, *arguments: str) -> AsyncGenerator[Process]:
    running = await asyncio.create_subprocess_exec(
        sys.executable, str(SUPPORT / script), *arguments, stdout=PIPE, env={**os.environ, "PYTHONPATH": "."}
    )
    try:
        yield running
    finally:
        if running.returncode is None:
            running.kill()
            await running.wait()


@asynccontextmanager
async def opened(folder: Path) -> AsyncGenerator[FileStore]:
    store = FileStore(folder)
    await store.open()
    await store.join("me", NOW, 1e9)
    try:
        yield store
    finally:
        await store.close()


async def line(running: Process) -> str:
    assert running.stdout is not None
    return (await running.stdout.readline()).decode().strip()


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


async def stopped(running: Process) -> None:
    """Wait until the process has stopped itself."""
    for _ in range(2_000):
        if state(running.pid) == "T":
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it did not stop")


async def test_sagas_of_a_living_process_cannot_be_claimed_and_those_of_a_killed_one_at_once(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path) as store, process("sqlite_owner.py", f"file:///{tmp_path}", "owner") as owner:
        assert await line(owner) == "ready"
        acknowledged = [int(await line(owner)) for _ in range(20)]
        assert await store.claim("me", NOW, limit=99) == []
        assert await store.claim_one("s0", "me", NOW) is None
        with pytest.raises(Unavailable, match="another living process goes by the owner name owner"):
            await store.join("owner", NOW, LEASE)
        owner.send_signal(signal.SIGKILL)
        assert await owner.wait() == -signal.SIGKILL
        assert owner.stdout is not None
        acknowledged += [int(number) for number in (await owner.stdout.read()).split()]
        claimed = await store.claim("me", NOW, limit=99)
        assert ids(claimed) == [f"s{number}" for number in range(10)]
        first = claimed[0]
        assert isinstance(first, StoredSaga)
        assert first.record.epoch == 2
        assert first.record.last_seq in (acknowledged[-1], acknowledged[-1] + 2)
        seq = first.record.last_seq
        await done(store.append("s0", 2, seq, steps(seq + 1, epoch=2), PLAIN["running"]))


async def test_a_process_that_was_stopped_beyond_its_lease_is_fenced_when_it_goes_on(tmp_path: Path) -> None:
    async with process("file_owner.py", str(tmp_path), "before") as owner:
        assert await line(owner) == "owns"
        await stopped(owner)
        async with opened(tmp_path) as store:
            assert await store.claim("me", NOW, limit=9) == []  # it lives, and has its lease
            assert ids(await store.claim("me", LATER, limit=9)) == ["s"]
            owner.send_signal(signal.SIGCONT)
            assert [await line(owner), await line(owner)] == ["Fenced", "Fenced"]
            assert [event.epoch for event in await store.events("s")] == [1]
            await done(store.append("s", 2, 1, steps(2, epoch=2), PLAIN["running"]))


@pytest.mark.parametrize("where", ["write", "sync"])
async def test_a_process_stopped_in_the_middle_of_an_append_is_waited_for_and_fenced_after_it(
    where: str, tmp_path: Path
) -> None:
    async with opened(tmp_path) as store, process("file_owner.py", str(tmp_path), where) as owner:
        assert await line(owner) == "owns"
        await stopped(owner)
        claiming = asyncio.create_task(store.claim_one("s", "me", LATER))
        await asyncio.sleep(0.1)
        assert not claiming.done()  # nobody can claim in the middle of a write
        owner.send_signal(signal.SIGCONT)
        claimed = await claiming
        assert claimed is not None
        assert claimed.record.last_seq == 3
        assert [await line(owner), await line(owner)] == ["appended", "Fenced"]
        with pytest.raises(Fenced):
            await done(store.append("s", 1, 3, steps(4), PLAIN["running"]))
        assert [event.epoch for event in await store.events("s")] == [1, 1, 1]


@pytest.mark.parametrize("where", ["write", "sync"])
async def test_a_process_killed_in_the_middle_of_an_append_leaves_a_sound_log(
    where: str, tmp_path: Path
) -> None:
    async with opened(tmp_path) as store, process("file_owner.py", str(tmp_path), where) as owner:
        assert await line(owner) == "owns"
        await stopped(owner)
        owner.send_signal(signal.SIGKILL)
        assert await owner.wait() == -signal.SIGKILL
        claimed = await store.claim("me", NOW, limit=9)
        assert ids(claimed) == ["s"]
        assert [event.seq for event in await store.events("s")] == [1, 2, 3]


async def test_two_processes_write_to_one_folder_without_harm(tmp_path: Path) -> None:
    async with opened(tmp_path) as store, process("sqlite_owner.py", f"file:///{tmp_path}", "owner") as owner:
        assert await line(owner) == "ready"
        await done(store.create(new("mine"), "me"))
        theirs = 0
        for number in range(200):
            seq = 1 + 2 * number
            await done(store.append("mine", 1, seq, steps(seq + 1), PLAIN["running"]))
            if number % 10 == 0:
                theirs = int(await line(owner))
        owner.kill()
        await owner.wait()
        assert (await store.load("mine")).record.last_seq == 401
        assert (await store.load("s0")).record.last_seq >= theirs


FORKING = """
import asyncio, os, signal, sys, time
from compensate.stores.file import FileStore
from compensate.testing.conformance.tools import NOW, done, new

async def main():
    store = FileStore(sys.argv[1])
    await store.open()
    await store.join("owner", NOW, 1e9)
    await done(store.create(new("s"), "owner"))
    assert store._lock.take()
    if os.fork() == 0:
        try:
            await store.load("s")
        except Exception as error:
            print(type(error).__name__, error, flush=True)
        os.close(1)
        time.sleep(60)
        os._exit(0)
    await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_the_child_of_a_fork_neither_uses_its_parents_store_nor_keeps_its_locks_alive(
    tmp_path: Path,
) -> None:
    running = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "ignore", "-c", FORKING, str(tmp_path), stdout=PIPE, start_new_session=True
    )
    try:
        said = await line(running)
        assert said.startswith("Unavailable ")
        assert "forked" in said
        running.send_signal(signal.SIGKILL)
        assert await running.wait() == -signal.SIGKILL
        async with opened(tmp_path) as store:
            assert ids(await store.claim("me", NOW, limit=9)) == ["s"]
    finally:
        os.killpg(running.pid, signal.SIGKILL)
