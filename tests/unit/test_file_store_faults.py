"""The file store on a disk that fails, fills up or loses power: at every single call, one after the other."""

from __future__ import annotations

import errno
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from compensate.core import events as e
from compensate.core.standing import PLAIN
from compensate.errors import SagaExists, SagaNotFound, Unavailable
from compensate.stores.base import Answer
from compensate.stores.disk import Disk
from compensate.stores.file import FileStore
from compensate.testing.conformance.tools import LEASE, NOW, done, new, saga_event, steps
from tests.support.disks import Counting, Failing, PowerCut, Volatile


def quiet(folder: Path, disk: Disk) -> FileStore:
    """A store that writes documents only when it is opened and closed, so that every run makes the same calls."""
    store = FileStore(folder, disk=disk)
    store._lag = 1e9
    return store


class Life:
    """Two sagas, from creation to deletion, with everything that writes. Every step can be taken again.

    Attributes:
        acknowledged: Last seq of each saga that a call has acknowledged; 0 once it was deleted.
        unknown: What the last call of unknown outcome may have made of it.
        failures: How often a call was `Unavailable`.
    """

    def __init__(self, store: FileStore) -> None:
        self.store = store
        self.acknowledged: dict[str, int] = {}
        self.unknown: dict[str, int] = {}
        self.failures = 0

    async def live(self, mend: Callable[[], None] = lambda: None) -> None:
        """From beginning to end; after a failure `mend` is called, and the step taken again."""
        for step in self.steps():
            for _ in range(4):
                try:
                    await step()
                    break
                except Unavailable:
                    self.failures += 1
                    mend()
            else:
                raise AssertionError("it does not recover")

    def steps(self) -> list[Callable[[], Awaitable[object]]]:
        store = self.store
        return [
            store.open,
            lambda: store.join("me", NOW, LEASE),
            lambda: self.create("a"),
            lambda: self.append("a", 1),
            lambda: self.append("a", 3),
            lambda: self.create("b"),
            lambda: self.append("b", 1),
            lambda: store.renew("me", NOW, LEASE),
            lambda: store.post("b", "pause", b"{}", NOW),
            lambda: store.answer(1, Answer()),
            lambda: self.end("a", 5),
            self.claim,
            store.close,
            store.open,
            lambda: self.delete("a"),
            lambda: store.leave("me"),
            store.close,
        ]

    async def create(self, saga_id: str) -> None:
        self.unknown[saga_id] = 1
        try:
            await done(self.store.create(new(saga_id), "me"))
        except SagaExists:
            assert self.failures
        self.acknowledged[saga_id] = 1

    async def append(self, saga_id: str, seq: int) -> None:
        self.unknown[saga_id] = seq + 2
        if (await self.store.load(saga_id)).record.last_seq == seq:
            await done(self.store.append(saga_id, 1, seq, steps(seq + 1), PLAIN["running"]))
        self.acknowledged[saga_id] = seq + 2

    async def end(self, saga_id: str, seq: int) -> None:
        self.unknown[saga_id] = seq + 1
        if (await self.store.load(saga_id)).record.last_seq == seq:
            events = saga_event(seq + 1, e.SAGA_COMPLETED)
            await done(self.store.append(saga_id, 1, seq, events, PLAIN["completed"]))
        self.acknowledged[saga_id] = seq + 1

    async def claim(self) -> None:
        claimed = await self.store.claim_one("b", "me", NOW)
        assert claimed is not None
        await done(self.store.release("b", claimed.record.epoch))

    async def delete(self, saga_id: str) -> None:
        self.unknown[saga_id] = 0
        try:
            await self.store.delete(saga_id)
        except SagaNotFound:
            assert self.failures
        self.acknowledged[saga_id] = 0

    async def check(self, store: FileStore) -> None:
        """Everything acknowledged is there, at most the call of unknown outcome besides; and it can go on."""
        for saga_id, unknown in self.unknown.items():
            acknowledged = self.acknowledged.get(saga_id, 0)
            try:
                record = (await store.load(saga_id)).record
            except SagaNotFound:
                assert 0 in (acknowledged, unknown), saga_id
                continue
            assert record.last_seq in (acknowledged, unknown), saga_id
            seq = record.last_seq
            await done(
                store.append(
                    saga_id, record.epoch, seq, steps(seq + 1, 2, record.epoch), PLAIN[record.status]
                )
            )
            assert [event.seq for event in await store.events(saga_id)] == list(range(1, seq + 3))


async def calls_of_a_life(folder: Path) -> list[str]:
    disk = Counting()
    life = Life(quiet(folder, disk))
    await life.live()
    assert life.failures == 0
    assert life.acknowledged == {"a": 0, "b": 3}
    return disk.calls


async def test_a_life_makes_every_kind_of_call(tmp_path: Path) -> None:
    calls = await calls_of_a_life(tmp_path)
    assert set(calls) == {"write", "sync", "sync_folder", "rename", "unlink"}
    assert len(calls) > 50


@pytest.mark.parametrize("error", ["ENOSPC", "EIO", "EFBIG"])
async def test_one_failing_call_is_unavailable_and_the_same_store_goes_on(error: str, tmp_path: Path) -> None:
    calls = await calls_of_a_life(tmp_path / "0")
    for number, call in enumerate(calls, 1):
        disk = Failing({number}, getattr(errno, error))
        life = Life(quiet(tmp_path / str(number), disk))
        await life.live()
        assert disk.failed == [call]
        assert life.acknowledged == {"a": 0, "b": 3}
        await check_after(tmp_path / str(number), life)


async def test_a_disk_that_fails_for_a_while_leaves_the_store_consistent(tmp_path: Path) -> None:
    calls = await calls_of_a_life(tmp_path / "0")
    truncations = 0
    for number in range(1, len(calls) + 1):
        disk = Failing(set(range(number, number + 1_000)), errno.ENOSPC)
        life = Life(quiet(tmp_path / str(number), disk))
        broken = 2

        def mend(disk: Failing = disk) -> None:
            nonlocal broken
            broken -= 1
            if not broken:
                disk.when = set()

        await life.live(mend)
        assert disk.failed
        truncations += disk.failed.count("truncate")
        disk.when = set()
        await check_after(tmp_path / str(number), life)
    assert truncations > 5  # failed writes that could not be taken back at once


async def check_after(folder: Path, life: Life) -> None:
    store = FileStore(folder)
    await store.open()
    await life.check(store)
    await store.close()


@pytest.mark.parametrize(
    "keep",
    [lambda size: 0, lambda size: 1, lambda size: size // 2, lambda size: size - 1, lambda size: size],
    ids=["nothing", "one byte", "half", "all but one byte", "all"],
)
async def test_nothing_acknowledged_is_lost_when_the_power_goes_at_any_call(
    keep: Callable[[int], int], tmp_path: Path
) -> None:
    calls = await calls_of_a_life(tmp_path / "0")
    for number in range(1, len(calls) + 1):
        disk = Volatile(number, keep)
        life = Life(quiet(tmp_path / str(number), disk))
        with pytest.raises(PowerCut):
            await life.live()
        assert disk.cut
        life.store._liveness.close()  # its process is gone
        await check_after(tmp_path / str(number), life)


async def appended_twice(folder: Path, when: set[int]) -> tuple[FileStore, Failing, bytes]:
    """A store whose second append fails at the calls `when`, counted from its write; and the log before it."""
    disk = Failing(set(), errno.EIO)
    store = quiet(folder, disk)
    await store.open()
    await done(store.create(new("s"), "me"))
    await done(store.append("s", 1, 1, steps(2), PLAIN["running"]))
    before = (folder / "s.log").read_bytes()
    disk.when = {disk.count + number for number in when}
    with pytest.raises(Unavailable, match=r"appending to saga s: \[Errno 5\]"):
        await done(store.append("s", 1, 3, steps(4), PLAIN["running"]))
    return store, disk, before


@pytest.mark.parametrize(("call", "kind"), [(1, "write"), (2, "sync")])
async def test_an_append_that_fails_is_taken_back(call: int, kind: str, tmp_path: Path) -> None:
    # After a failed fsync the system may hold pages that never reach the disk and call the next fsync a success.
    store, disk, before = await appended_twice(tmp_path, {call})
    assert disk.failed == [kind]
    assert (tmp_path / "s.log").read_bytes() == before
    assert (await store.load("s")).record.last_seq == 3
    await done(store.append("s", 1, 3, steps(4), PLAIN["running"]))
    await store.close()


async def test_a_saga_whose_failed_append_cannot_be_taken_back_is_left_alone_until_it_can(
    tmp_path: Path,
) -> None:
    store, disk, before = await appended_twice(tmp_path, set(range(2, 1_000)))
    await store_another(tmp_path)
    assert disk.failed == ["sync", "truncate"]
    with pytest.raises(Unavailable, match=r"s\.log: a write failed and cannot be taken back"):
        await store.load("s")
    with pytest.raises(Unavailable, match=r"s\.log: a write failed and cannot be taken back"):
        await store.claim_one("s", "me", NOW)
    with pytest.raises(Unavailable, match="cannot be taken back"):
        await done(store.append("s", 1, 3, steps(4), PLAIN["running"]))
    assert (await store.load("other")).record.last_seq == 1
    assert {record.id for record in (await store.page()).records} == {"s", "other"}
    disk.when = set()
    assert (await store.load("s")).record.last_seq == 3
    assert (tmp_path / "s.log").read_bytes() == before
    await store.close()


async def store_another(folder: Path) -> None:
    other = quiet(folder, Disk())
    await other.open()
    await done(other.create(new("other"), "me"))
    await other.close()


async def test_a_failed_append_on_which_another_process_has_built_stays(tmp_path: Path) -> None:
    store, disk, _ = await appended_twice(tmp_path, {2, 3})
    other = quiet(tmp_path, Disk())
    await other.open()
    assert (await other.load("s")).record.last_seq == 5
    await done(other.append("s", 1, 5, steps(6), PLAIN["running"]))
    await other.close()
    disk.when = set()
    assert (await store.load("s")).record.last_seq == 7
    await store.close()


FULL = """
import asyncio, resource, sys
from compensate.errors import Unavailable
from compensate.stores import open_store
from compensate.core.standing import PLAIN
from compensate.testing.conformance.tools import done, new, steps

async def main():
    store = open_store(sys.argv[1])
    await store.open()
    await done(store.create(new("s"), "me"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
    seq = 1
    while True:
        try:
            await done(store.append("s", 1, seq, steps(seq + 1), PLAIN["running"]))
        except Unavailable as error:
            print(error)
            break
        seq += 2
    assert (await store.load("s")).record.last_seq == seq
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await done(store.append("s", 1, seq, steps(seq + 1), PLAIN["running"]))
    assert (await store.load("s")).record.last_seq == seq + 2
    print("went on")

asyncio.run(main())
"""


def test_a_file_that_may_not_grow_is_unavailable_and_goes_on_when_it_may(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", FULL, f"file:///{tmp_path / 'store'}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    said, went_on = ran.stdout.splitlines()
    assert "appending to saga s: [Errno 27]" in said
    assert went_on == "went on"
