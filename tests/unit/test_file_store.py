"""The file store beyond the contract that all stores keep: its files, and what damage does to them."""

from __future__ import annotations

import asyncio
import json
import os
import re
import stat
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from compensate.codec.document import document_of, read_go_document
from compensate.core import events as e
from compensate.core.standing import PLAIN
from compensate.errors import (
    Conflict,
    CorruptLog,
    SagaExists,
    StoreError,
    Unavailable,
    UnsupportedVersion,
)
from compensate.stores.base import Damaged, StoredSaga
from compensate.stores.disk import Disk
from compensate.stores.file import LAG, FileStore
from compensate.stores.file_log import frame
from compensate.testing.conformance.tools import LEASE, NOW, done, end, ids, new, saga_event, steps
from tests.support.disks import Counting, Hasty


@asynccontextmanager
async def opened(folder: Path, disk: Disk | None = None) -> AsyncGenerator[FileStore]:
    store = FileStore(folder, disk=disk)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def make(folder: Path, saga_id: str = "s", appends: int = 2) -> bytes:
    """A folder with one saga of `1 + 2 * appends` events; its log. There is no document."""
    async with opened(folder) as store:
        await done(store.create(new(saga_id), "nobody"))
        for number in range(appends):
            seq = 1 + 2 * number
            await done(store.append(saga_id, 1, seq, steps(seq + 1), PLAIN["running"]))
    (folder / f"{saga_id}.json").unlink()
    return (folder / f"{saga_id}.log").read_bytes()


async def read(folder: Path, saga_id: str = "s") -> StoredSaga:
    async with opened(folder) as store:
        return await store.load(saga_id)


def everything(folder: Path) -> list[Path]:
    return list(folder.rglob("*"))


# -- the files -------------------------------------------------------------


async def test_the_folder_and_every_file_are_for_their_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        async with opened(tmp_path / "a" / "b") as store:
            await store.join("me", NOW, LEASE)
            await done(store.create(new("s"), "me"))
            await store.post("s", "pause", b"{}", NOW)
            await store.close()
            await store.open()
    finally:
        os.umask(before)
    found = everything(tmp_path)
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in found}
    names = {path.name for path in found}
    assert names >= {"a", "b", "s.log", "s.json", ".lock", ".owners", ".owners.data", ".requests.data"}
    assert {oct(mode) for path, mode in modes.items() if path.is_dir()} == {"0o700"}
    assert {oct(mode) for path, mode in modes.items() if not path.is_dir()} == {"0o600"}


async def test_the_log_is_readable_line_by_line(tmp_path: Path) -> None:
    log = await make(tmp_path)
    lines = log.decode().splitlines()
    assert all(re.match(r"[0-9a-f]{8} \{", line) for line in lines)
    head, created, first, _ = (json.loads(line[9:]) for line in lines)
    assert (head["format"], head["id"], head["name"], head["dag"]["dag"]["name"]) == (
        1,
        "s",
        "order",
        "order",
    )
    assert [event["type"] for event in created["events"]] == ["saga_created"]
    assert created["owner"] == "nobody"
    assert [event["seq"] for event in first["events"]] == [2, 3]
    assert first["events"][1]["data"] == {"output": {"hold": "x"}}


async def test_an_append_costs_one_sync_and_a_creation_one_of_the_file_and_one_of_the_folder(
    tmp_path: Path,
) -> None:
    disk = Counting()
    async with opened(tmp_path, disk) as store:
        await store.join("me", NOW, LEASE)
        disk.take()
        await done(store.create(new("s"), "me"))
        assert disk.take() == ["write", "sync", "rename", "sync_folder"]
        for seq in (1, 3, 5):
            await done(store.append("s", 1, seq, steps(seq + 1), PLAIN["running"]))
            assert disk.take() == ["write", "sync"]
        await done(store.append("s", 1, 7, saga_event(8, e.SAGA_COMPLETED), PLAIN["completed"]))
        assert disk.take() == ["write", "sync"]
        await store.claim_one("s", "me", NOW)
        assert disk.take() == ["write", "sync"]
        await done(store.release("s", 2))
        assert disk.take() == ["write", "sync"]


async def test_reading_and_looking_for_work_write_nothing(tmp_path: Path) -> None:
    await make(tmp_path)
    disk = Counting()
    async with opened(tmp_path, disk) as store:
        await store.join("me", NOW, LEASE)
        assert ids(await store.claim("me", NOW, limit=9)) == ["s"]
        disk.take()
        assert await store.claim("me", NOW, limit=9) == []
        await store.load("s")
        await store.page()
        await store.requests("me")
        assert disk.take() == []


async def test_values_with_line_breaks_between_tokens_stay_on_one_line(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await done(store.create(new("s"), "me"))
        said = [
            e.Event(2, 1, NOW, e.STARTED, "reserve", 1),
            e.Event(3, 1, NOW, e.SUPPLIED, "reserve", 0, e.Supplied(b'{\r\n "a":\n "b\\nc"\n}', "me", "why")),
        ]
        await done(store.append("s", 1, 1, said, PLAIN["running"]))
        data = (await store.load("s")).events[2].data
        assert isinstance(data, e.Supplied)
        assert json.loads(data.output) == {"a": "b\nc"}
    assert len((tmp_path / "s.log").read_bytes().splitlines()) == 3


# -- torn and damaged logs -------------------------------------------------


async def test_a_last_line_torn_at_any_byte_is_dropped_and_cut_off_before_the_next_append(
    tmp_path: Path,
) -> None:
    whole = await make(tmp_path)
    log = tmp_path / "s.log"
    last = whole.rstrip(b"\n").rfind(b"\n") + 1
    assert len(whole) - last > 100
    for cut in range(last, len(whole)):
        log.write_bytes(whole[:cut])
        async with opened(tmp_path, Hasty()) as store:
            assert (await store.load("s")).record.last_seq == 3, cut
            await done(store.append("s", 1, 3, steps(4), PLAIN["running"]))
        (tmp_path / "s.json").unlink()
        assert log.read_bytes() == whole, cut


async def test_nothing_is_left_of_a_torn_line_behind_a_shorter_one(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await done(store.create(new("s"), "me"))
        await done(store.append("s", 1, 1, steps(2, 40), PLAIN["running"]))
    (tmp_path / "s.json").unlink()
    log = tmp_path / "s.log"
    whole = log.read_bytes()
    log.write_bytes(whole[:-2])
    async with opened(tmp_path) as store:
        await done(store.release("s", 1))
    assert len(log.read_bytes()) < len(whole) - 1_000
    assert (await read(tmp_path)).record.owner is None


async def test_a_last_line_with_blocks_that_never_reached_the_disk_is_dropped(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await done(store.create(new("s"), "me"))
        await done(store.append("s", 1, 1, steps(2, 40), PLAIN["running"]))
    (tmp_path / "s.json").unlink()
    log = tmp_path / "s.log"
    whole = log.read_bytes()
    last = whole.rstrip(b"\n").rfind(b"\n") + 1
    block = (last // 512 + 2) * 512
    assert block + 512 < len(whole)
    holes = [(block, block + 512), (last, block), (block, len(whole)), (last, len(whole))]
    for begin, stop in holes:
        log.write_bytes(whole[:begin] + bytes(stop - begin) + whole[stop:])
        assert (await read(tmp_path)).record.last_seq == 1, (begin, stop)
        (tmp_path / "s.json").unlink(missing_ok=True)
    log.write_bytes(whole[: block + 5] + bytes(100) + whole[block + 105 :])
    with pytest.raises(CorruptLog, match="line 3"):
        await read(tmp_path)


def alter(path: Path, at: int, byte: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(bytes([byte]))


async def test_damage_at_any_byte_is_refused_with_file_and_line(tmp_path: Path) -> None:
    whole = await make(tmp_path)
    log = tmp_path / "s.log"
    async with opened(tmp_path) as store:
        for at in range(len(whole)):
            line = whole.count(b"\n", 0, at) + 1
            for altered in {whole[at] ^ 1, whole[at] ^ 0x20, 0x0A, 0x30} - {whole[at]}:
                alter(log, at, altered)
                with pytest.raises(CorruptLog) as refused:
                    await store.load("s")
                assert f"{log}, line {line}:" in str(refused.value), (at, altered)
                with pytest.raises(CorruptLog):
                    await done(store.append("s", 1, 5, steps(6), PLAIN["running"]))
                assert log.read_bytes() == whole[:at] + bytes([altered]) + whole[at + 1 :]
                alter(log, at, whole[at])
        assert (await store.load("s")).record.last_seq == 5


@pytest.mark.parametrize("line", [0, 1, 2])
async def test_a_line_taken_out_swapped_or_repeated_is_refused(line: int, tmp_path: Path) -> None:
    whole = await make(tmp_path, appends=3)
    log = tmp_path / "s.log"
    lines = whole.splitlines(keepends=True)
    out = [*lines[:line], *lines[line + 1 :]]
    swapped = [*lines[:line], lines[line + 1], lines[line], *lines[line + 2 :]]
    repeated = [*lines[: line + 1], *lines[line:]]
    for made in (out, swapped, repeated):
        log.write_bytes(b"".join(made))
        with pytest.raises(
            CorruptLog, match=re.escape(f"{log}, line {line + (2 if made is repeated else 1)}:")
        ):
            await read(tmp_path)


async def test_a_log_cut_short_is_refused_when_its_document_knows_better(tmp_path: Path) -> None:
    whole = await make(tmp_path)
    assert (await read(tmp_path)).record.last_seq == 5
    assert json.loads((tmp_path / "s.json").read_bytes())["last_seq"] == 5
    log = tmp_path / "s.log"
    log.write_bytes(b"".join(whole.splitlines(keepends=True)[:-1]))
    with pytest.raises(CorruptLog, match=r"ends at event 3, but its document shows event 5"):
        await read(tmp_path)


async def test_a_log_that_is_hardly_there_is_damaged_and_not_a_new_saga(tmp_path: Path) -> None:
    whole = await make(tmp_path)
    log = tmp_path / "s.log"
    head = whole.index(b"\n") + 1
    for cut in (0, 1, head - 1, head, head + 1, whole.index(b"\n", head)):
        log.write_bytes(whole[:cut])
        async with opened(tmp_path) as store:
            with pytest.raises(CorruptLog, match=r"s\.log, line [12]:"):
                await store.load("s")
            with pytest.raises(SagaExists):
                await done(store.create(new("s"), "me"))


async def test_a_renamed_log_is_refused(tmp_path: Path) -> None:
    await make(tmp_path)
    (tmp_path / "s.log").rename(tmp_path / "other.log")
    with pytest.raises(CorruptLog, match=r"other\.log, line 1: it is the log of another saga, 's'"):
        await read(tmp_path, "other")


def relined(log: bytes, change: dict[str, str]) -> bytes:
    """The log with changes to its text, and checksums as if it had been written so."""
    made, checksum = b"", 0
    for line in log.decode().splitlines():
        text = line[9:]
        for old, put in change.items():
            text = text.replace(old, put)
        framed, checksum = frame(text.encode(), checksum)
        made += framed
    assert made != log
    return made


@pytest.mark.parametrize(
    ("change", "kind", "why"),
    [
        (
            {'"format":1': '"format":2'},
            UnsupportedVersion,
            r"s\.log: format 2; this compensate reads up to 1",
        ),
        ({'"type":"started"': '"type":"begun"'}, UnsupportedVersion, r"s\.log, line 3, event 2: .*'begun'"),
        ({'"format":1,': ""}, CorruptLog, r"s\.log, line 1:"),
        ({'"status":"running"': '"status":"walking"'}, CorruptLog, r"s\.log, line 2:.*walking"),
        ({'{"seq":2,': '{"seq":4,'}, CorruptLog, r"s\.log, line 3, event 2: it has seq 4"),
        (
            {'{"seq":3,"epoch":1,"at":1000.0,"status"': '{"seq":4,"epoch":1,"at":1,"status"'},
            CorruptLog,
            "line 3:",
        ),
        ({'"data":{"output"': '"data":{"out"'}, CorruptLog, r"s\.log, line 3, event 3:"),
        ({'"fingerprint":"': '"fingerprint":"0'}, CorruptLog, "fingerprint"),
    ],
)
async def test_what_no_store_of_this_version_writes_is_refused(
    change: dict[str, str], kind: type[StoreError], why: str, tmp_path: Path
) -> None:
    log = await make(tmp_path)
    (tmp_path / "s.log").write_bytes(relined(log, change))
    with pytest.raises(kind, match=why):
        await read(tmp_path)


async def test_damage_is_reported_once_to_each_claimant_and_hides_no_other_saga(tmp_path: Path) -> None:
    whole = await make(tmp_path, "bad")
    await make(tmp_path, "good")
    (tmp_path / "bad.log").write_bytes(b"x" + whole[1:])
    (tmp_path / "good.json").unlink(missing_ok=True)
    async with opened(tmp_path) as store:
        for owner in ("me", "you"):
            await store.join(owner, NOW, LEASE)
        claimed = await store.claim("me", NOW, limit=9)
        assert sorted(ids(claimed)) == ["bad", "good"]
        assert [type(saga) for saga in claimed] == [Damaged, StoredSaga]
        assert await store.claim("me", NOW, limit=9) == []
        assert ids(await store.claim("you", NOW, limit=9)) == ["bad"]
        (tmp_path / "bad.log").write_bytes(whole)  # restored from a copy
        assert ids(await store.claim("me", NOW, limit=9)) == ["bad"]


async def test_a_store_notices_an_edit_behind_its_back_between_two_calls(tmp_path: Path) -> None:
    await make(tmp_path)
    log = tmp_path / "s.log"
    async with opened(tmp_path) as store:
        await store.load("s")
        log.write_bytes(log.read_bytes().replace(b"reserve[2]", b"reserve[8]"))
        with pytest.raises(CorruptLog):
            await done(store.append("s", 1, 5, steps(6), PLAIN["running"]))


@pytest.mark.parametrize("name", [".owners.data", ".requests.data"])
async def test_a_folder_of_a_newer_version_is_refused_and_a_damaged_one_named(
    name: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_text('{"format": 2}')
    with pytest.raises(UnsupportedVersion, match=re.escape(name)):
        await FileStore(tmp_path).open()
    assert path.read_text() == '{"format": 2}'
    path.write_text('{"format": 1, "lea')
    with pytest.raises(CorruptLog, match=re.escape(name)):
        await FileStore(tmp_path).open()
    path.unlink()
    async with opened(tmp_path):
        pass


async def test_every_json_file_in_the_folder_is_a_state_document_at_any_time(tmp_path: Path) -> None:
    class Looking(Disk):
        looks = 0

        def look(self) -> None:
            self.looks += 1
            for path in tmp_path.glob("*.json"):
                assert read_go_document(path.read_bytes()).saga_id in ("s", "t"), path.name

        def rename(self, old: Path, new: Path) -> None:
            self.look()  # what is half written has its temporary name
            super().rename(old, new)
            self.look()

    disk = Looking()
    async with opened(tmp_path, disk) as store:
        await store.join("me", NOW, LEASE)
        for name in ("s", "t"):
            await done(store.create(new(name), "me"))
        await store.post("s", "pause", b"{}", NOW)
        await store.renew("me", NOW, LEASE)
    disk.look()
    assert disk.looks > 8
    assert {path.name for path in everything(tmp_path) if path.suffix == ".json"} == {"s.json", "t.json"}


async def test_a_place_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "inner"):
        store = FileStore(place)
        with pytest.raises(Unavailable, match="file"):
            await store.open()
        with pytest.raises(Unavailable, match="not open"):
            await store.load("s")


async def test_left_overs_of_writes_that_were_cut_off_are_removed(tmp_path: Path) -> None:
    await make(tmp_path)
    left = tmp_path / ".new-s.json.part"
    left.write_text("{")
    async with opened(tmp_path):
        assert not left.exists()


# -- documents -------------------------------------------------------------


async def shown(folder: Path, saga_id: str = "s") -> Any:
    return json.loads((folder / f"{saga_id}.json").read_bytes())


async def test_the_document_follows_the_log_by_itself(tmp_path: Path) -> None:
    async def until(last_seq: int) -> None:
        for _ in range(300):
            await asyncio.sleep(LAG / 4)
            if (tmp_path / "s.json").exists() and (await shown(tmp_path))["last_seq"] == last_seq:
                return
        raise AssertionError(f"the document never came to event {last_seq}")

    async with opened(tmp_path) as store:
        await done(store.create(new("s"), "me"))
        await done(store.append("s", 1, 1, steps(2), PLAIN["running"]))
        await until(3)
        await end_at(store, 3)
        await until(4)
        assert (await shown(tmp_path))["status"] == "completed"


async def end_at(store: FileStore, seq: int) -> None:
    await done(store.append("s", 1, seq, saga_event(seq + 1, e.SAGA_COMPLETED), PLAIN["completed"]))


async def test_closing_leaves_every_document_as_its_log_says(tmp_path: Path) -> None:
    async with opened(tmp_path, Hasty()) as store:
        for number in range(100):
            await done(store.create(new(f"s{number}"), "me"))
        for number in range(0, 100, 2):
            await end(store, f"s{number}", "completed")
    async with opened(tmp_path, Hasty()) as store:
        for number in range(100):
            stored = await store.load(f"s{number}")
            expected = document_of(stored.record.id, stored.record.name, stored.events).json()
            assert (tmp_path / f"s{number}.json").read_bytes() == expected


async def test_opening_rebuilds_documents_that_are_missing_or_behind(tmp_path: Path) -> None:
    await make(tmp_path)
    assert (await read(tmp_path)).record.last_seq == 5
    assert (await shown(tmp_path))["last_seq"] == 5
    old = (tmp_path / "s.json").read_bytes().replace(b'"last_seq": 5', b'"last_seq": 3')
    (tmp_path / "s.json").write_bytes(old)
    os.utime(tmp_path / "s.json", ns=(0, 0))
    await read(tmp_path)
    assert (await shown(tmp_path))["last_seq"] == 5


async def test_a_document_of_another_program_is_kept_when_a_saga_takes_its_name(tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text('{"saga_id": "s", "status": "completed"}')
    async with opened(tmp_path) as store:
        assert (await store.page()).records == []
        await done(store.create(new("s"), "me"))
    assert (tmp_path / "s.json.before").read_text() == '{"saga_id": "s", "status": "completed"}'
    assert (await shown(tmp_path))["last_seq"] == 1


async def test_deleting_leaves_no_file_of_the_saga(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await done(store.create(new("s"), "me"))
        await end(store, "s", "completed")
        await store.close()
        await store.open()
        assert (tmp_path / "s.json").exists()
        await store.delete("s")
        assert [path for path in everything(tmp_path) if path.name.startswith("s.")] == []
        await done(store.create(new("s"), "me"))


async def test_a_refused_append_leaves_the_log_as_it_was(tmp_path: Path) -> None:
    before = await make(tmp_path)
    async with opened(tmp_path) as store:
        with pytest.raises(Conflict):
            await done(store.append("s", 1, 3, steps(4), PLAIN["running"]))
    assert (tmp_path / "s.log").read_bytes() == before


# -- the folder's lock -----------------------------------------------------


async def test_a_write_waits_for_the_lock_of_another_without_holding_up_the_loop(tmp_path: Path) -> None:
    async with opened(tmp_path) as store, opened(tmp_path) as other:
        await done(store.create(new("s"), "me"))
        assert other._lock.take()
        waiting = store.append("s", 1, 1, steps(2), PLAIN["running"])
        assert waiting is not None
        await asyncio.sleep(0.02)
        assert (tmp_path / "s.log").read_bytes().count(b"\n") == 2
        other._lock.drop()
        await waiting
        assert (await other.load("s")).record.last_seq == 3


async def test_a_lock_that_is_never_given_up_makes_the_store_unavailable_and_nothing_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("compensate.stores.file._PAUSES", (0.001,) * 5)
    before = await make(tmp_path)
    async with opened(tmp_path) as store, opened(tmp_path) as other:
        assert other._lock.take()
        for call in (
            store.append("s", 1, 5, steps(6), PLAIN["running"]),
            store.load("s"),
            store.claim("me", NOW, limit=1),
        ):
            assert call is not None
            with pytest.raises(Unavailable, match="another process has kept the folder locked"):
                await call
        other._lock.drop()
        assert (tmp_path / "s.log").read_bytes() == before
        await done(store.append("s", 1, 5, steps(6), PLAIN["running"]))
