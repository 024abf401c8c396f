"""Stores that a process may read and not write: looking works and changes nothing, all else says why it does not."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from compensate import Coordinator, action, connect, saga
from tests.support import denied
from tests.support.cli import SHOP

pytestmark = [pytest.mark.slow, pytest.mark.time_limit(300)]


@action
async def pack(item: str) -> str:
    return item


@saga
def order(item: str) -> str:
    return pack(item)


@pytest.fixture
def place(tmp_path: Path) -> Generator[Path]:
    """A folder that is made read-only by `seal`, and can be removed at the end."""
    inside = tmp_path / "place"
    inside.mkdir()
    shutil.copy(SHOP, tmp_path / "shop.py")
    yield inside
    for path in (inside, *inside.rglob("*")):
        path.chmod(0o700)


def seal(place: Path, *, owner: int | None = None) -> dict[str, tuple[int, int, bytes]]:
    """Take the permission to write away; what is there, to be compared with what is there afterwards."""
    for path in (*place.rglob("*"), place):
        if owner is not None and os.geteuid() == 0:
            os.chown(path, owner, owner)
            path.chmod(0o755 if path.is_dir() else 0o644)
        else:
            path.chmod(0o555 if path.is_dir() else 0o444)
    denied.assert_denied(place)
    return found(place)


def found(place: Path) -> dict[str, tuple[int, int, bytes]]:
    return {
        str(path): (path.stat().st_mtime_ns, path.stat().st_ino, path.read_bytes())
        for path in place.rglob("*")
        if path.is_file()
    }


def fill(url: str) -> None:
    async def main() -> None:
        async with Coordinator(url, sagas=[order]) as c:
            await c.run(order.with_id("o1"), "book")

    asyncio.run(main())


Commands = list[tuple[str, ...]]


def compensate(place: Path, url: str, commands: Commands) -> list[tuple[int, str, str]]:
    return denied.commands(place.parent, [[*words, "--store", url] for words in commands])


LOOKS: list[tuple[tuple[str, ...], str]] = [
    (("ls",), "o1"),
    (("ls", "--json"), '"id": "o1"'),
    (("show", "o1"), "pack"),
    (("show", "o1", "--json"), '"status": "completed"'),
    (("events", "o1"), "completed"),
    (("events", "o1", "--json"), '"saga_completed"'),
    (("events", "o1", "--follow"), "completed"),
    (("graph", "o1"), "pack"),
    (("check", "shop"), "no saga is"),
]


def look(place: Path, url: str) -> None:
    done = compensate(place, url, [words for words, _ in LOOKS])
    for (words, said), (code, out, err) in zip(LOOKS, done, strict=True):
        assert (code, said in out) == (0, True), (words, code, out, err)


WRITES: Commands = [
    ("run", "shop:order", "--params", '{"item": "x"}'),
    ("resume", "o1", "--app", "shop"),
    ("resume", "--all", "--app", "shop"),
    ("rollback", "o1", "--app", "shop"),
    ("pause", "o1"),
    ("delete", "o1"),
    ("delete", "o1", "--json"),
]


def refuse_writes(place: Path, url: str) -> None:
    for words, (code, _, err) in zip(WRITES, compensate(place, url, WRITES), strict=True):
        assert code == 6, (words, code, err)
        assert "read-only" in err, (words, err)
        assert "nothing was changed" in err, (words, err)
        if "--json" in words:
            assert json.loads(err)["error"]["code"] == 6


def leave_in_log(path: Path) -> None:
    """Let what `fill` wrote stand in the write-ahead log alone, with nobody who has the file open: as after a crash."""
    whole = path.with_name("whole.db")
    path.rename(whole)
    with sqlite3.connect(whole) as source:
        statements = list(source.iterdump())
        application, version = (
            source.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
        )
    source.close()
    target = sqlite3.connect(path, isolation_level=None)
    target.execute("PRAGMA journal_mode = WAL")
    target.execute("PRAGMA wal_autocheckpoint = 0")
    target.execute(f"PRAGMA application_id = {application}")
    target.execute(f"PRAGMA user_version = {version}")
    target.executescript("\n".join(statements))
    for side in ("", "-wal", "-shm"):
        shutil.copy(f"{path}{side}", f"{path}{side}.kept")
    target.close()
    for side in ("", "-wal", "-shm"):
        Path(f"{path}{side}.kept").rename(f"{path}{side}")
    whole.unlink()
    assert Path(f"{path}-wal").stat().st_size > 4_096


def _clean(path: Path) -> None:
    assert not Path(f"{path}-wal").exists()


def _in_log(path: Path) -> None:
    leave_in_log(path)


def _in_log_without_index(path: Path) -> None:
    leave_in_log(path)
    Path(f"{path}-shm").unlink()


@pytest.mark.parametrize("owner", [None, 65_534], ids=["read-only", "of another user"])
@pytest.mark.parametrize("state", [_clean, _in_log, _in_log_without_index])
def test_an_sqlite_store_that_may_not_be_written_can_be_looked_at(
    place: Path, state: Callable[[Path], None], owner: int | None
) -> None:
    path = place / "s.db"
    url = f"sqlite:///{path}"
    fill(url)
    state(path)
    before = seal(place, owner=owner)
    look(place, url)
    refuse_writes(place, url)
    assert found(place) == before


def test_an_sqlite_file_in_a_folder_that_may_be_written_gets_no_side_files(place: Path) -> None:
    path = place / "s.db"
    url = f"sqlite:///{path}"
    fill(url)
    path.chmod(0o444)
    before = found(place)
    look(place, url)
    refuse_writes(place, url)
    assert found(place) == before, "the owner of the file could not write side files of another user"


def test_a_living_writer_is_followed_by_a_process_that_may_not_write(place: Path) -> None:
    path = place / "s.db"
    url = f"sqlite:///{path}"

    with connect(url, sagas=[order]) as c:
        c.run(order.with_id("o1"), "book")
        before = {one: one.stat().st_mode for one in (place, *place.rglob("*"))}
        for k in range(2, 4):
            for one in before:
                one.chmod(0o444 if one.is_file() else 0o555)
            denied.assert_denied(path)
            c.run(order.with_id(f"o{k}"), "book")
            assert Path(f"{path}-shm").exists()
            [(code, out, err)] = compensate(place, url, [("ls", "--json")])
            assert code == 0, err
            assert {one["id"] for one in json.loads(out)["sagas"]} == {f"o{n}" for n in range(1, k + 1)}
        for one, mode in before.items():
            one.chmod(mode)


@pytest.mark.parametrize("lock", [True, False])
@pytest.mark.parametrize("owner", [None, 65_534], ids=["read-only", "of another user"])
def test_a_file_store_that_may_not_be_written_can_be_looked_at(
    place: Path, owner: int | None, lock: bool
) -> None:
    url = f"file:///{place}"
    fill(url)
    (place / ".new-left").write_bytes(b"what a crash left")
    if not lock:
        (place / ".lock").unlink()
    before = seal(place, owner=owner)
    look(place, url)
    refuse_writes(place, url)
    assert found(place) == before


@pytest.mark.parametrize("store", ["sqlite", "file"])
def test_a_store_that_may_not_be_read_says_so(place: Path, store: str) -> None:
    path = place / "s"
    url = f"{store}:///{path}"
    fill(url)
    path.chmod(0)
    [(code, _, err)] = compensate(place, url, [("ls",)])
    path.chmod(0o700)
    assert code == 6
    assert "may not read" in err
    place.chmod(0)
    [(code, _, err)] = compensate(place, url, [("ls",)])
    place.chmod(0o700)
    assert (code, "Permission denied" in err or "may not" in err) == (6, True), err
