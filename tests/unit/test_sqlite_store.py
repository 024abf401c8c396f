"""What the SQLite store promises beyond the contract of all stores."""

# ruff: noqa: ASYNC220, ASYNC240  # a test may block the loop that it has for itself

import asyncio
import os
import re
import resource
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from compensate.core import events as e
from compensate.core.events import Event
from compensate.core.standing import PLAIN
from compensate.errors import (
    Conflict,
    CorruptLog,
    Fenced,
    SagaExists,
    Unavailable,
    UnsupportedVersion,
)
from compensate.stores import sqlite_commit, sqlite_schema
from compensate.stores.base import Done, StoredSaga
from compensate.stores.sqlite import SqliteStore
from compensate.testing.conformance.tools import LATER, LEASE, NOW, done, ids, new, opened, saga_event, steps

ROOT = Path(__file__).parents[2]


class At:
    """A place for `opened`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def store(self) -> SqliteStore:
        return SqliteStore(self.path)

    def damage(self, saga_id: str) -> bool:
        raise NotImplementedError(saga_id)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sagas.db"


@contextmanager
def raw(path: Path) -> Generator[sqlite3.Connection]:
    """A connection as any other program would have."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


async def filled(path: Path, *, sagas: int = 1, events: int = 5) -> None:
    async with opened(At(path)) as store:
        await store.join("one", NOW, LEASE)
        for number in range(sagas):
            await done(store.create(new(f"s{number}"), "one"))
            await done(store.append(f"s{number}", 1, 1, steps(2, events - 1), PLAIN["running"]))


# -- the file --------------------------------------------------------------


async def test_the_files_are_for_their_owners_eyes_alone(path: Path) -> None:
    before = os.umask(0)
    try:
        store = SqliteStore(path)
        await store.open()
        await store.join("one", NOW, LEASE)
        await done(store.create(new("s"), "one"))
        names = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
        assert names == {
            "sagas.db": 0o600,
            "sagas.db-wal": 0o600,
            "sagas.db-shm": 0o600,
            "sagas.db-owners": 0o700,
        }
        locks = [stat.S_IMODE(file.stat().st_mode) for file in (path.parent / "sagas.db-owners").iterdir()]
        assert locks == [0o600]
        await store.leave("one")
        assert list((path.parent / "sagas.db-owners").iterdir()) == []
        await store.close()
        assert sorted(file.name for file in path.parent.iterdir()) == ["sagas.db", "sagas.db-owners"]
    finally:
        os.umask(before)


async def test_commits_are_synced_in_full_and_checkpoints_kept_off_their_path(path: Path) -> None:
    store = SqliteStore(path)
    await store.open()
    assert store._writer is not None
    connection = store._writer._connection
    values = {
        name: connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("journal_mode", "synchronous", "wal_autocheckpoint", "fullfsync", "busy_timeout")
    }
    assert values == {
        "journal_mode": "wal",
        "synchronous": 2,
        "wal_autocheckpoint": 0,
        "fullfsync": 1,
        "busy_timeout": 0,
    }
    await store.close()


def schema_of(connection: sqlite3.Connection) -> list[tuple[Any, ...]]:
    rows = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name")
    pragmas = connection.execute("SELECT * FROM pragma_user_version, pragma_application_id").fetchone()
    # A migration that adds a column leaves other white space than a schema written at once.
    plain = [
        (*row[:3], re.sub(r"\s+(?=[,)])|(?<=\()\s+", "", " ".join((row[3] or "").split()))) for row in rows
    ]
    return [*plain, pragmas]


def test_the_schema_built_at_once_equals_all_migrations_in_turn(tmp_path: Path) -> None:
    schemas: list[list[tuple[Any, ...]]] = []
    for at_once in (True, False):
        with raw(tmp_path / f"{at_once}.db") as connection:
            sqlite_schema.build(connection, 0, at_once=at_once)
            schemas.append(schema_of(connection))
    assert schemas[0] == schemas[1]
    assert schemas[0][-1] == (sqlite_schema.VERSION, sqlite_schema.APPLICATION_ID)
    assert len(schemas[0]) > 8


async def test_an_opened_file_carries_the_schema_and_its_version(path: Path, tmp_path: Path) -> None:
    await filled(path)
    with raw(tmp_path / "other.db") as other, raw(path) as connection:
        sqlite_schema.build(other, 0)
        assert schema_of(connection) == schema_of(other)


async def test_a_newer_schema_is_refused_and_nothing_changed(path: Path) -> None:
    await filled(path)
    with raw(path) as connection:
        connection.execute(f"PRAGMA user_version = {sqlite_schema.VERSION + 1}")
    before = path.read_bytes()
    with pytest.raises(UnsupportedVersion, match="upgrade compensate"):
        await SqliteStore(path).open()
    assert path.read_bytes() == before


async def test_a_file_that_is_no_database_is_refused_changed_in_nothing_and_let_go(path: Path) -> None:
    path.write_text("this is a diary\n" * 100)
    before = len(list(Path("/dev/fd").iterdir()))
    with pytest.raises(CorruptLog, match="no SQLite database") as refused:
        await SqliteStore(path).open()
    assert path.read_text() == "this is a diary\n" * 100
    assert len(list(Path("/dev/fd").iterdir())) == before, (
        f"something is open though {refused.value!r} was raised"
    )


async def test_another_programs_database_is_refused_and_nothing_changed(path: Path) -> None:
    with raw(path) as connection:
        connection.execute("CREATE TABLE songs (title)")
    before = path.read_bytes()
    with pytest.raises(CorruptLog, match="no store of sagas"):
        await SqliteStore(path).open()
    assert path.read_bytes() == before


async def test_a_path_that_cannot_be_is_unavailable_and_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="does not exist; create it"):
        await SqliteStore(tmp_path / "none" / "sagas.db").open()
    with pytest.raises(Unavailable, match="it is a folder"):
        await SqliteStore(tmp_path).open()


async def test_a_store_that_is_not_open_says_so(path: Path) -> None:
    store = SqliteStore(path)
    with pytest.raises(Unavailable, match="not open"):
        await store.load("s")
    with pytest.raises(Unavailable, match="not open"):
        store.append("s", 1, 1, steps(2), PLAIN["running"])
    await store.open()
    await store.close()
    await store.close()
    with pytest.raises(Unavailable, match="closed"):
        store.append("s", 1, 1, steps(2), PLAIN["running"])


def test_many_processes_may_make_the_file_at_once(path: Path) -> None:
    code = (
        "import asyncio; from compensate.stores import open_store\n"
        f"async def main():\n s = open_store('sqlite:///{path}')\n await s.open()\n await s.close()\n"
        "asyncio.run(main())"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE) for _ in range(4)]
    for process in processes:
        _, errors = process.communicate()
        assert process.returncode == 0, errors.decode()


# -- damage ----------------------------------------------------------------

DAMAGES: dict[str, tuple[str, str]] = {
    "an edited payload": (
        "UPDATE events SET data = CAST('{\"output\":1}' AS BLOB) WHERE seq = 3",
        "event 3 .* altered",
    ),
    "an edited node": ("UPDATE events SET node = 'other' WHERE seq = 2", "event 2 .* altered"),
    "an edited time": ("UPDATE events SET at = at + 1 WHERE seq = 4", "event 4 .* altered"),
    "an edited epoch": ("UPDATE events SET epoch = 0 WHERE seq = 4", "event 4 .* altered"),
    "a payload cut short": (
        "UPDATE events SET data = substr(data, 1, 5) WHERE seq = 3",
        "event 3 .* altered",
    ),
    "a blob for a type": ("UPDATE events SET type = x'ff00' WHERE seq = 3", "event 3 .* altered"),
    "a type that is no text": (
        "UPDATE events SET type = CAST(x'ff' AS TEXT) WHERE seq = 3",
        "does not decode",
    ),
    "a payload that is no blob": (
        "UPDATE events SET data = 'text' WHERE seq = 3",
        "after event 2 is no event row",
    ),
    "a record with words for numbers": ("UPDATE sagas SET epoch = 'one'", "altered"),
    "a dag that is no blob": ("UPDATE dags SET body = 'text'", "altered"),
    "a missing row": ("DELETE FROM events WHERE seq = 3", "event 3 is missing"),
    "a missing first row": ("DELETE FROM events WHERE seq = 1", "event 1 is missing"),
    "a missing last row": ("DELETE FROM events WHERE seq = 5", "event 5 is missing"),
    "no rows": ("DELETE FROM events", "event 1 is missing"),
    "swapped rows": (
        (
            "UPDATE events SET seq = CASE seq WHEN 2 THEN -4 WHEN 4 THEN -2 END WHERE seq IN (2, 4);"
            "UPDATE events SET seq = -seq WHERE seq < 0"
        ),
        "event 2 .* altered",
    ),
    "a row too many": (
        "INSERT INTO events SELECT saga, 6, epoch, at, type, node, attempt, data, checksum FROM events WHERE seq = 5",
        "event 6 .* altered",
    ),
    "a record that lags": ("UPDATE sagas SET last_seq = 4", "goes on behind"),
    "a record of an older epoch": ("UPDATE sagas SET epoch = 0", "epoch 0"),
    "an unknown status": ("UPDATE sagas SET status = 'fine'", "'fine'"),
    "a missing dag": ("DELETE FROM dags", "dag .* missing"),
    "an edited dag": ("UPDATE dags SET body = CAST(replace(body, 'order', 'other') AS BLOB)", "altered"),
}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_damage_is_refused_with_the_place_named(damage: str, path: Path) -> None:
    sql, words = DAMAGES[damage]
    await filled(path)
    with raw(path) as connection:
        for statement in sql.split(";"):
            assert connection.execute(statement).rowcount > 0
    async with opened(At(path)) as store:
        with pytest.raises(CorruptLog, match=f"s0.*({words})"):
            await store.load("s0")


async def test_events_behind_a_seq_are_checked_from_there_on(path: Path) -> None:
    await filled(path)
    async with opened(At(path)) as store:
        assert [event.seq for event in await store.events("s0", 3)] == [4, 5]
    with raw(path) as connection:
        connection.execute("UPDATE events SET node = 'x' WHERE seq = 4")
    async with opened(At(path)) as store:
        with pytest.raises(CorruptLog, match="event 4"):
            await store.events("s0", 3)


async def test_events_of_an_unknown_type_ask_for_an_upgrade(path: Path) -> None:
    async with opened(At(path)) as store:
        await done(store.create(new("s"), "one"))
        await done(store.append("s", 1, 1, [Event(2, 1, NOW, "teleported", "reserve", 1)], PLAIN["running"]))
        with pytest.raises(UnsupportedVersion, match=r"event 2.*teleported"):
            await store.load("s")


# -- commits ---------------------------------------------------------------


async def test_a_chain_of_ten_costs_eleven_commits_and_none_waits_for_a_thread(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_commit, "SLOW", float("inf"))  # however slow this disk is
    store = SqliteStore(path)
    await store.open()
    await store.join("one", NOW, LEASE)
    before = store.commits
    writes: list[Callable[[], Done]] = [partial(store.create, new("s"), "one")]
    writes += [
        partial(store.append, "s", 1, seq, steps(seq + 1), PLAIN["running"]) for seq in range(1, 19, 2)
    ]
    writes.append(partial(store.append, "s", 1, 19, saga_event(20, e.SAGA_COMPLETED), PLAIN["completed"]))
    for write in writes:
        await asyncio.sleep(0)  # the action: the loop turns
        assert write() is None, "durable on return"
    assert len(writes) == 11
    assert store.commits - before == 11
    assert store.checkpoints == 0
    await store.close()


async def test_concurrent_appends_share_their_commits(path: Path) -> None:
    store = SqliteStore(path)
    await store.open()
    await store.join("one", NOW, LEASE)
    before = store.commits

    async def one(saga_id: str) -> None:
        await done(store.create(new(saga_id), "one"))
        for seq in range(1, 11):
            await done(store.append(saga_id, 1, seq, steps(seq + 1, 1), PLAIN["running"]))

    await asyncio.gather(*(one(f"s{number}") for number in range(200)))
    # 2,200 writes: the first in place, then a group for each round.
    assert store.commits - before <= 12
    for number in range(200):
        assert (await store.load(f"s{number}")).record.last_seq == 11
    await store.close()


async def test_a_write_that_sqlite_cannot_take_fails_alone(path: Path) -> None:
    async with opened(At(path)) as store:
        for number in range(6):
            await done(store.create(new(f"s{number}"), "one"))
        odd: dict[int, Event] = {
            2: Event(2, 1, NOW, e.STARTED, "\ud800", 1),
            4: Event(2, 1, NOW, e.STARTED, "reserve", 1 << 70),
        }

        async def one(number: int) -> None:
            events = [odd[number]] if number in odd else steps(2, 1)
            await done(store.append(f"s{number}", 1, 1, events, PLAIN["running"]))

        results = await asyncio.gather(*(one(number) for number in range(6)), return_exceptions=True)
        assert [number for number, result in enumerate(results) if result is not None] == [2, 4]
        lengths = [(await store.load(f"s{number}")).record.last_seq for number in range(6)]
        assert lengths == [2, 2, 1, 2, 1, 2]


async def test_slow_commits_leave_the_loop_for_the_writer_thread(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_commit, "SLOW", 0.0)  # every commit takes longer
    async with opened(At(path)) as store:
        await done(store.create(new("s"), "one"))
        write = store.append("s", 1, 1, steps(2), PLAIN["running"])
        assert write is not None
        await write
        assert (await store.load("s")).record.last_seq == 3


async def test_the_write_ahead_log_is_moved_into_the_database_before_it_grows_long(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_commit, "LONGEST_LOG", 1 << 20)
    monkeypatch.setattr(sqlite_schema, "LONGEST_LOG", 1 << 20)
    store = SqliteStore(path)
    await store.open()
    await done(store.create(new("s"), "one"))
    longest = 0
    for seq in range(2, 1_500):
        data = e.Completed(b'"' + b"x" * 8_000 + b'"')
        await done(
            store.append(
                "s", 1, seq - 1, [Event(seq, 1, NOW, e.COMPLETED, "reserve", 1, data)], PLAIN["running"]
            )
        )
        await asyncio.sleep(0)
        longest = max(longest, Path(f"{path}-wal").stat().st_size)
    assert store.checkpoints >= 3
    assert longest < 4 << 20, f"{longest} bytes; 30 MB were written"
    assert len(await store.events("s")) == 1_499
    await store.close()


async def test_a_group_whose_commit_fails_is_unavailable_and_the_store_goes_on_afterwards(path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    store = SqliteStore(path)
    try:
        await store.open()
        await store.join("one", NOW, LEASE)
        for number in range(8):
            await done(store.create(new(f"s{number}"), "one"))
        size = Path(f"{path}-wal").stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, limits[1]))  # the disk is full

        async def one(number: int) -> None:
            await done(store.append(f"s{number}", 1, 1, steps(2), PLAIN["running"]))

        commits = store.commits
        results = await asyncio.gather(*(one(number) for number in range(8)), return_exceptions=True)
        assert [type(result) for result in results] == [Unavailable] * 8
        await asyncio.sleep(0.01)  # idle again, so this one is tried in place
        with pytest.raises(Unavailable):
            await one(0)
        assert store.commits == commits
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        for number in range(8):
            assert (await store.load(f"s{number}")).record.last_seq == 1
            with pytest.raises(Conflict):  # nothing is remembered of what was lost
                await done(store.append(f"s{number}", 1, 3, steps(4), PLAIN["running"]))
        await asyncio.gather(*(one(number) for number in range(8)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
        await store.close()
    async with opened(At(path)) as again:
        for number in range(8):
            assert (await again.load(f"s{number}")).record.last_seq == 3


# -- other processes -------------------------------------------------------


async def test_a_write_waits_for_another_process_that_writes(path: Path) -> None:
    async with opened(At(path)) as store:
        await done(store.create(new("s"), "one"))
        with raw(path) as other:
            other.execute("BEGIN IMMEDIATE")
            write = store.append("s", 1, 1, steps(2), PLAIN["running"])
            assert write is not None, "it was not committed in place: the loop would have waited"
            await asyncio.sleep(0.05)
            assert not asyncio.ensure_future(write).done()
            other.execute("COMMIT")
            await write
        assert (await store.load("s")).record.last_seq == 3


async def test_a_write_that_waits_too_long_is_unavailable(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_commit, "BUSY", 0.05)
    async with opened(At(path)) as store:
        await done(store.create(new("s"), "one"))
        with raw(path) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(Unavailable, match="locked"):
                await done(store.append("s", 1, 1, steps(2), PLAIN["running"]))
        await done(store.append("s", 1, 1, steps(2), PLAIN["running"]))


async def test_what_is_remembered_of_a_saga_does_not_outlive_a_claim_by_another(path: Path) -> None:
    async with opened(At(path)) as first, opened(At(path)) as second:
        await first.join("one", NOW, LEASE)
        await second.join("two", NOW, LEASE * 9)
        for number in range(5):
            await done(first.create(new(f"s{number}"), "one"))
        assert len(await second.claim("two", LATER, limit=3)) == 3

        async def one(number: int) -> None:
            await done(first.append(f"s{number}", 1, 1, steps(2), PLAIN["running"]))

        results = await asyncio.gather(*(one(number) for number in range(5)), return_exceptions=True)
        assert [type(result) for result in results] == [Fenced, Fenced, Fenced, type(None), type(None)]


class Other:
    """Another process that owns ten sagas."""

    def __init__(self, path: Path, owner: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.sqlite_owner", f"sqlite:///{path}", owner],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        assert self.process.stdout is not None
        self.lines = self.process.stdout
        assert self.lines.readline() == "ready\n"
        self.acknowledged = 0

    def hear(self) -> None:
        """Wait for one more append that it was told is done."""
        self.acknowledged = int(self.lines.readline())

    def kill(self) -> int:
        """Kill it; the seq of the last append that it was told is done."""
        self.process.kill()
        said = [line for line in self.lines.read().splitlines(keepends=True) if line.endswith("\n")]
        assert self.process.wait() == -signal.SIGKILL
        self.lines.close()
        if said:
            self.acknowledged = int(said[-1])
        return self.acknowledged


async def test_an_owner_in_another_process_is_not_robbed_and_once_killed_is_succeeded_at_once(
    path: Path,
) -> None:
    other = Other(path, "one")
    try:
        async with opened(At(path)) as store:
            await store.join("two", NOW, LEASE)
            for _ in range(3):
                other.hear()
                assert await store.claim("two", NOW, limit=20) == []
                assert await store.claim_one("s0", "two", NOW) is None
            with pytest.raises(Unavailable, match="another living process"):
                await store.join("one", NOW, LEASE)
            with pytest.raises(SagaExists):
                await done(store.create(new("s0"), "two"))
            acknowledged = other.kill()
            assert acknowledged > 3
            # Its lease runs for days yet.
            claimed = await store.claim("two", NOW, limit=20)
            assert ids(claimed) == [f"s{number}" for number in range(10)]
            first = claimed[0]
            assert isinstance(first, StoredSaga)
            assert (first.record.epoch, first.record.owner) == (2, "two")
            assert acknowledged <= first.record.last_seq <= acknowledged + 2
            locks = list(Path(f"{path}-owners").iterdir())
            assert len(locks) == 1, "the lock of the dead was cleared away"
    finally:
        other.process.kill()
        other.process.wait()
        other.lines.close()


async def test_a_killed_owners_single_saga_can_be_claimed_at_once(path: Path) -> None:
    other = Other(path, "one")
    other.hear()
    other.kill()
    async with opened(At(path)) as store:
        await store.join("two", NOW, LEASE)
        taken = await store.claim_one("s3", "two", NOW)
        assert taken is not None
        assert taken.record.epoch == 2


async def test_a_forked_child_does_not_keep_its_dead_parents_sagas(path: Path) -> None:
    async with opened(At(path)) as store:
        await store.join("two", NOW, LEASE)
        code = (
            "import asyncio, os, sys, time\n"
            "from compensate.stores import open_store\n"
            "async def main():\n"
            " global s\n"
            f" s = open_store('sqlite:///{path}')\n"
            " await s.open()\n"
            f" await s.join('one', {NOW}, 1e6)\n"
            " from compensate.testing.conformance.tools import new, done\n"
            " await done(s.create(new('s'), 'one'))\n"
            "asyncio.run(main())\n"
            "if os.fork() == 0: print(os.getpid(), flush=True)\n"
            "time.sleep(60)\n"
        )
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        child = int(process.stdout.readline())
        try:
            process.kill()
            assert process.wait() == -signal.SIGKILL
            os.kill(child, 0)  # it lives
            assert ids(await store.claim("two", NOW, limit=5)) == ["s"]
        finally:
            process.kill()
            os.kill(child, signal.SIGKILL)
            process.stdout.close()
