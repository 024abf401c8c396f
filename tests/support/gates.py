"""Points that a process passes, at one of which it is held, killed or given an error.

The store's seams become such points: every statement of an SQLite store's writing connection, every system call with
which a file store changes the disk. Nothing of the library is changed for it.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
import sqlite3
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, cast

import msgspec

_REAL = {name: getattr(os, name) for name in ("write", "open", "close", "pwrite")}


class Stop(msgspec.Struct, frozen=True):
    """Where a process is stopped, and how.

    Attributes:
        at: Labels of the points that count (`fnmatch`).
        hit: The how-manieth of them it is.
        how: `hold`: announce it and wait to be killed. `kill`: SIGKILL itself. `say`: announce it and go on.
            `freeze`: SIGSTOP itself, and go on when it is continued. `error`: the system call fails.
            `limit`: no file may grow while this COMMIT runs (EFBIG). `full`: the database may not while this
            transaction runs (SQLITE_FULL).
        number: The error, for `error`.
        more: After the error so many more points that count fail too; at the next one the process kills itself.
        room: Bytes that may still be written, for `limit`.
    """

    at: str
    hit: int = 1
    how: Literal["hold", "kill", "say", "freeze", "error", "limit", "full"] = "hold"
    number: int = errno.ENOSPC
    more: int = 0
    room: int = 0


class Gates:
    """The points of one process.

    Args:
        stop: Where to stop; `None`: nowhere, the points are only counted.
        where: File into which the label of the point is written when the process stops there.
        counted: Labels of the points to note, when nothing stops the process.
    """

    def __init__(self, stop: Stop | None, where: Path, counted: str = "") -> None:
        self.stop = stop
        self.passed: list[str] = []
        self.fired = 0
        self._hits = 0
        self._where = where
        self._counted = counted

    def __call__(self, label: str) -> None:
        """Pass a point; may never come back, or raise `OSError`."""
        stop = self.stop
        if stop is None:
            if self._counted and fnmatchcase(label, self._counted):
                self.passed.append(label)
            return
        if stop.how in ("limit", "full") or not self.due(label):
            return
        self._tell(label)
        if stop.how in ("say", "freeze"):
            self.fired += 1
            _REAL["write"](1, f"passes {label}\n".encode())
            if stop.how == "freeze":
                os.kill(os.getpid(), signal.SIGSTOP)
            return
        if stop.how == "error" and self._hits <= stop.hit + stop.more:
            self.fired += 1
            raise OSError(stop.number, f"{os.strerror(stop.number)} (at {label})")
        if stop.how != "hold":
            os.kill(os.getpid(), signal.SIGKILL)
        else:
            _REAL["write"](1, f"held at {label}\n".encode())
        while True:  # until the signal has ended us
            time.sleep(3600)

    def due(self, label: str) -> bool:
        """Whether this is the point at which something is to happen."""
        stop = self.stop
        if stop is None or not fnmatchcase(label, stop.at):
            return False
        self._hits += 1
        return self._hits == stop.hit or (stop.more > 0 and self._hits > stop.hit)

    def _tell(self, label: str) -> None:
        file = _REAL["open"](self._where, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        _REAL["write"](file, f"{self._hits} {label}".encode())
        _REAL["close"](file)


# -- SQLite ----------------------------------------------------------------

_READS = ("SELECT", "PRAGMA")


class _Cursor(sqlite3.Cursor):
    """Passes a point before and after each statement that may write."""

    @property
    def gated(self) -> _Connection:
        """The connection, as what it is."""
        return cast("_Connection", self.connection)

    def execute(self, sql: str, parameters: Any = (), /) -> _Cursor:
        if self.gated.reading or sql.lstrip().startswith(_READS):
            super().execute(sql, parameters)
            return self
        gates = self.gated.gates
        gates(f"store before {_word(sql)}")
        stop = gates.stop
        if stop is None or stop.how not in ("limit", "full") or not gates.due(f"store {_word(sql)}"):
            super().execute(sql, parameters)
        elif stop.how == "limit":
            self._without_room(sql, stop.room)
        else:
            super().execute(sql, parameters)
            super().execute("PRAGMA max_page_count = 1")  # as small as may be: what there is
        gates(f"store after {_word(sql)}")
        return self

    def executemany(self, sql: str, parameters: Iterable[Any], /) -> _Cursor:
        gates = self.gated.gates
        gates(f"store before {_word(sql)}")
        try:
            super().executemany(sql, parameters)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
                gates.fired += 1
                super().execute("PRAGMA max_page_count = 1073741823")  # there is room again
            raise
        gates(f"store after {_word(sql)}")
        return self

    def _without_room(self, sql: str, room: int) -> None:
        with _no_growth(self.gated.wal, room):
            try:
                super().execute(sql)
            except sqlite3.Error:
                self.gated.gates.fired += 1
                raise


class _Connection(sqlite3.Connection):
    gates: Gates
    wal: Path
    reading = False

    def cursor(self, factory: Any = _Cursor) -> Any:
        return super().cursor(factory)

    def execute(self, sql: str, parameters: Any = (), /) -> Any:
        if sql == "PRAGMA query_only = ON":
            self.reading = True
        return self.cursor().execute(sql, parameters)


def gate_sqlite(gates: Gates, path: str) -> None:
    """Make every statement that writes to the database at `path` a point before and a point after it."""
    connect: Callable[..., sqlite3.Connection] = sqlite3.connect
    factory = type("Gated", (_Connection,), {"gates": gates, "wal": Path(f"{path}-wal")})

    def gated(database: Any, *args: Any, **kwargs: Any) -> sqlite3.Connection:
        if os.fspath(database) == path:
            kwargs["factory"] = factory
        return connect(database, *args, **kwargs)

    setattr(sqlite3, "connect", gated)  # noqa: B010  # the checkers know its overloads


def _word(statement: str) -> str:
    return " ".join(statement.split()[:3])


@contextmanager
def _no_growth(file: Path, room: int) -> Generator[None]:
    """No file of this process may become longer than this one is, and some room. For the time of one COMMIT."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = file.stat().st_size if file.exists() else 0
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# -- files -----------------------------------------------------------------

_CALLS = ("pwrite", "fdatasync", "fsync", "ftruncate", "replace", "unlink", "mkdir")


def gate_files(gates: Gates) -> None:
    """Make every system call that changes a file or folder a point before and a point after it.

    A write is a point in its middle too: half of it has been written there.
    """
    for name in _CALLS:
        setattr(os, name, _gated(gates, name, getattr(os, name)))
    real_open, gated_open = os.open, _gated(gates, "create", os.open)

    def open_(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        made = flags & os.O_CREAT and not Path(path).exists()
        return int((gated_open if made else real_open)(path, flags, *args, **kwargs))

    os.open = open_


def _gated(gates: Gates, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        label = f"{name} {_subject(args[0])}"
        gates(f"store before {label}")
        if name == "pwrite" and len(args[1]) > 1 and (gates.stop is None or gates.stop.how != "error"):
            half = real(args[0], args[1][: len(args[1]) // 2], args[2])
            gates(f"store within {label}")
            written = half + real(args[0], args[1][half:], args[2] + half)
            gates(f"store after {label}")
            return written
        result = real(*args, **kwargs)
        gates(f"store after {label}")
        return result

    return call


def _subject(what: Any) -> str:
    """What a call is about, by the ending of its file: `.log`, `.json`, a folder."""
    path = Path(f"/proc/self/fd/{what}").readlink() if isinstance(what, int) else Path(what)
    return path.suffix or ("folder" if path.is_dir() else path.name)
