"""Reading an SQLite store that this process may not write: a read-only folder, or a file of somebody else.

A database in WAL mode is read through its `-shm` file, which SQLite makes where it is missing. Where it cannot be made,
or would then belong to the wrong user and keep the right one out, there are three cases:

- `-shm` and `-wal` are there: somebody uses the database, or has died while using it. Both are opened read-only.
- There is nothing in the write-ahead log: the database file is whole by itself, and is read as immutable.
- There is something in the log, and no `-shm` (a copy of a folder, say): both files are copied and the copy is opened.

In the last two cases no lock tells a process that begins to write from us. So the files are looked at before and after
each transaction, and what was read while they changed is thrown away.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from compensate.errors import StoreError, Unavailable
from compensate.stores.disk import ReadOnly, not_ours
from compensate.stores.sqlite_schema import BUSY, VERSION, check, failure
from compensate.stores.sqlite_tables import Reader

_SIDES: Final = ("", "-wal", "-shm", "-journal")

_State = tuple[tuple[int, int, int, int] | None, ...]


def check_writable(path: Path, url: str) -> None:
    """Check, before anything is touched, that this process may write the database and the files beside it.

    Raises:
        ReadOnly: It may not.
    """
    if not os.access(path, os.F_OK):
        return  # whether it can be made is another question
    for place in (path, path.parent):
        if not os.access(place, os.W_OK):
            raise not_ours(url, place)


class Looking:
    """A store that is only read.

    Args:
        path: Of the database file.
        url: Names the store in errors.
    """

    def __init__(self, path: Path, url: str) -> None:
        self._path = path
        self._url = url
        self._copy: TemporaryDirectory[str] | None = None
        self._connection: sqlite3.Connection | None = None
        self._reader: Reader | None = None
        self._state: _State = ()
        self._shared = False
        """The locks of SQLite hold between us and those who write."""

    @contextmanager
    def snapshot(self, doing: str = "reading") -> Generator[Reader]:
        """A transaction that reads. Nothing is written, made or removed beside the database.

        Raises:
            Unavailable: It cannot be read, or was written meanwhile.
            CorruptLog: It is damaged, or some other program's.
            UnsupportedVersion: A newer version wrote it.
        """
        try:
            connection, reader = self._opened()
            connection.execute("BEGIN")
            try:
                yield reader
            finally:
                connection.execute("ROLLBACK")
        except (StoreError, sqlite3.Error) as error:
            self._check_unchanged(doing)  # what was read in between may look like damage
            if isinstance(error, sqlite3.Error):
                raise failure(error, self._url, doing) from error
            raise
        self._check_unchanged(doing)

    def _check_unchanged(self, doing: str) -> None:
        if not self._shared and self._state and self._look() != self._state:
            self.close()
            raise Unavailable(f"{self._url}: {doing}: it was written meanwhile; try again")

    def _opened(self) -> tuple[sqlite3.Connection, Reader]:
        state = self._look()
        if self._connection is not None and self._reader is not None and self._same(state):
            return self._connection, self._reader
        self.close()
        if not os.access(self._path, os.R_OK):
            raise not_ours(self._url, self._path, "read")
        self._state = state
        connection = self._connect(state)
        try:
            if check(connection, self._url) < VERSION:
                raise ReadOnly(
                    f"{self._url}: an older version of compensate made it, and it cannot be brought up to date, since "
                    "this process may not write it; open it once as a user who may"
                )
        except BaseException:
            connection.close()
            raise
        self._connection, self._reader = connection, Reader(connection)
        return self._connection, self._reader

    def _look(self) -> _State:
        """What the files are at this moment."""
        found: list[tuple[int, int, int, int] | None] = []
        for side in _SIDES:
            try:
                status = Path(f"{self._path}{side}").stat()
            except OSError:
                found.append(None)
            else:
                found.append((status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns))
        return tuple(found)

    def _same(self, state: _State) -> bool:
        if self._shared:  # its content may change, as long as it is the same file
            return all(
                (one and one[:2]) == (other and other[:2])
                for one, other in zip(state[:3], self._state[:3], strict=True)
            )
        return state == self._state

    def _connect(self, state: _State) -> sqlite3.Connection:
        _, wal, shm, journal = state
        self._shared = False
        if wal is not None and shm is not None:
            with suppress(sqlite3.Error):
                connection = _open(self._path, "mode=ro")
                self._shared = True
                return connection
        if not any(log is not None and log[2] for log in (wal, journal)):
            return _open(self._path, "mode=ro&immutable=1")
        self._copy = TemporaryDirectory(prefix="compensate-")
        copy = Path(self._copy.name) / "copy.db"
        try:
            for side in ("", "-wal", "-journal"):
                with suppress(FileNotFoundError):
                    shutil.copyfile(f"{self._path}{side}", f"{copy}{side}")
        except OSError as error:
            raise Unavailable(
                f"{self._url}: its write-ahead log can be read from a copy only, and none can be made: {error}; read "
                "it as a user who may write it"
            ) from error
        return _open(copy, "mode=rw")

    def close(self) -> None:
        """Close it, and remove the copy."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._copy is not None:
            self._copy.cleanup()
            self._copy = None
        self._state = ()
        self._shared = False


def _open(path: Path, options: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{path.as_uri()}?{options}", uri=True, timeout=BUSY, isolation_level=None, check_same_thread=False
    )
    try:
        for pragma in ("query_only = ON", "temp_store = MEMORY", "trusted_schema = OFF"):
            connection.execute(f"PRAGMA {pragma}").close()
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()  # it is opened only now
    except BaseException:
        connection.close()
        raise
    return connection
