"""The SQLite file: making it, opening it, bringing its schema up to date, and naming what is wrong with it."""

from __future__ import annotations

import os
import re
import sqlite3
import time
from pathlib import Path
from typing import Final

from compensate.errors import CorruptLog, StoreError, Unavailable, UnsupportedVersion

APPLICATION_ID: Final = 0x73616761
"""Stands in the file's header: this is a store of sagas."""

VERSION: Final = 2
"""Version of the schema."""

BUSY: Final = 5.0
"""Seconds to wait for another process that writes."""

LONGEST_LOG: Final = 8 << 20
"""Bytes of write-ahead log that call for a checkpoint."""

_SQL: Final = Path(__file__).with_name("sql")
_COMMENT: Final = re.compile(r"^--.*$", re.MULTILINE)
_WRONG: Final = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def statements(name: str) -> list[str]:
    """The statements of `sql/<name>.sql`."""
    text = _COMMENT.sub("", (_SQL / f"{name}.sql").read_text(encoding="utf-8"))
    return [statement.strip() for statement in text.split(";") if statement.strip()]


def code(error: sqlite3.Error) -> int | None:
    """SQLite's primary result code; `None` if the error is not SQLite's own."""
    number: int | None = getattr(error, "sqlite_errorcode", None)
    return None if number is None else number & 0xFF


def is_busy(error: sqlite3.Error) -> bool:
    """Whether another process was in the way."""
    return code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def failure(error: sqlite3.Error, url: str, doing: str) -> StoreError:
    """What an error of SQLite means to our callers."""
    number = code(error)
    if number in _WRONG:
        return CorruptLog(
            f"{url}: {doing}: the file is damaged or no SQLite database ({error}); restore it from a copy"
        )
    if number is None and isinstance(error, sqlite3.OperationalError):
        return CorruptLog(f"{url}: {doing}: a value does not decode ({error}); restore the file from a copy")
    if is_busy(error):
        return Unavailable(
            f"{url}: {doing}: another process kept the file locked for {BUSY:g} s; try again, or look for "
            "a program that holds a transaction open on it"
        )
    return Unavailable(f"{url}: {doing}: {error}; check the disk, then read the log again before going on")


def connect(path: Path, *, reading: bool = False) -> sqlite3.Connection:
    """A connection in autocommit mode, set up for durable commits of one fsync each.

    It may be handed from thread to thread; only one may use it at a time.
    """
    connection = sqlite3.connect(path, timeout=BUSY, isolation_level=None, check_same_thread=False)
    try:
        for pragma in (
            "synchronous = FULL",
            "fullfsync = ON",  # on macOS a plain fsync stops at the drive's cache
            "checkpoint_fullfsync = ON",
            # Checkpoints are ours to make, off the path of a commit: each costs fsyncs.
            "wal_autocheckpoint = 0",
            f"journal_size_limit = {LONGEST_LOG}",
            "cache_size = -16000",
            "temp_store = MEMORY",
            "trusted_schema = OFF",
            f"query_only = {'ON' if reading else 'OFF'}",
        ):
            connection.execute(f"PRAGMA {pragma}").close()
    except BaseException:
        connection.close()
        raise
    return connection


def prepare(path: Path, url: str) -> sqlite3.Connection:
    """The connection for writing, on a file that is made or brought up to date first.

    Raises:
        Unavailable: It cannot be opened or made.
        UnsupportedVersion: A newer version wrote it. Nothing was changed.
        CorruptLog: It is damaged, or some other program's. Nothing was changed.
    """
    _make(path, url)
    # Turning a file to WAL does not wait for others that do the same; so we do.
    tries = int(BUSY / 0.02)
    for left in range(tries, -1, -1):
        try:
            return _prepared(path, url)
        except sqlite3.Error as error:
            if left == 0 or not is_busy(error):
                raise failure(error, url, "opening it") from error
            time.sleep(BUSY / tries)
    raise AssertionError  # the loop returns or raises


def _make(path: Path, url: str) -> None:
    """Make the file for its owner's eyes alone; SQLite gives its side files the same mode."""
    try:
        # Only a file that is not there is opened here: closing one that another connection of this process has
        # open would drop that connection's locks.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except FileExistsError:
        if path.is_dir():
            raise Unavailable(f"{url}: it is a folder; name a file in it") from None
    except FileNotFoundError:
        raise Unavailable(f"{url}: the folder {path.parent} does not exist; create it first") from None
    except OSError as error:
        raise Unavailable(f"{url}: the file cannot be made: {error}") from error


def _prepared(path: Path, url: str) -> sqlite3.Connection:
    connection = connect(path)
    try:
        version = check(connection, url)
        mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode != "wal":
            raise Unavailable(
                f"{url}: SQLite cannot keep a write-ahead log there (journal mode {mode}), as on some network "
                "file systems; put the file on a local disk"
            )
        if version < VERSION:
            connection.execute("BEGIN IMMEDIATE")
            # Again: another process may have been faster.
            build(connection, check(connection, url))
            connection.execute("COMMIT")
    except BaseException:
        connection.close()
        raise
    return connection


def check(connection: sqlite3.Connection, url: str) -> int:
    """The schema version of the file; 0 if it is empty.

    Raises:
        UnsupportedVersion: A newer version wrote it.
        CorruptLog: It is some other program's.
    """
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    application: int = connection.execute("PRAGMA application_id").fetchone()[0]
    if application != APPLICATION_ID:
        things: int = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if application or version or things:
            raise CorruptLog(
                f"{url}: it is an SQLite database, but no store of sagas (application id {application:#x}); "
                "nothing was changed; name another file"
            )
    if version > VERSION:
        raise UnsupportedVersion(
            f"{url}: its schema has version {version}; this compensate knows versions up to {VERSION}; "
            "nothing was changed; upgrade compensate"
        )
    return version


def build(connection: sqlite3.Connection, version: int, *, at_once: bool = True) -> None:
    """Bring the schema from `version` to today's, inside an open transaction.

    An empty file gets it `at_once`, or by every migration in turn; both come to the same.
    """
    names = [f"migration_{number}" for number in range(version + 1, VERSION + 1)]
    if version == 0 and at_once:
        names = ["schema"]
    for name in names:
        for statement in statements(name):
            connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {VERSION}")
