"""Group commit: one writer that commits in place while it is idle, and in groups under load.

A commit in place costs no hop between threads, but holds the event loop for its fsync. So only the first write of
an otherwise idle turn of the loop is committed in place, and only while commits are quick. Every other write waits
for the end of the turn; then all that wait go into one transaction. Its statements run on the loop (they touch
memory only, and would fight over the interpreter's lock from a thread); its COMMIT, which waits for the disk, runs
in the writer thread. Writes that come meanwhile make the next group.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from time import monotonic, perf_counter, sleep
from typing import Any, Final

from compensate.errors import CompensateError, Unavailable
from compensate.stores.sqlite_schema import BUSY, LONGEST_LOG, connect, failure, is_busy
from compensate.stores.sqlite_tables import Stale, Tables, Write

LONGEST_GROUP: Final = 1_000
"""Most writes in one transaction."""

SLOW: Final = 0.002
"""Seconds: while commits take longer than this on average, none is made in place."""

_WEIGHT: Final = 0.2
"""Of the newest commit in that average."""

_LOOK: Final = 64
"""After so many commits in place, the log's size is looked at."""

_NAP: Final = 0.001
"""Seconds between looks whether another process has ended its transaction."""

_PATIENCE: Final = 2
"""Turns of the loop that a group waits for the tasks that the group before has woken."""

_Group = list[Write[Any]]


class _Gone(sqlite3.DatabaseError):
    """The system would go on writing to a file without a name, and all of that would be lost."""


def _identity(path: Path) -> tuple[int, int] | None:
    """Which file has that name; `None` if none has, or nobody can get at it."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


class GroupCommit:
    """The one writer of a store.

    Args:
        connection: For writing; nobody else's from now on.
        path: Of the file.
        url: Names the store in errors.
        loop: The loop on which all calls are made.

    Attributes:
        commits: Transactions that changed something and were committed; each costs one fsync.
        checkpoints: Checkpoints made while open.
    """

    def __init__(
        self, connection: sqlite3.Connection, path: Path, url: str, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.commits = 0
        self.checkpoints = 0
        self._path = path
        self._wal = Path(f"{path}-wal")
        self._url = url
        self._loop = loop
        self._file = _identity(path)
        self._take(connection)
        self._queue: _Group = []
        self._busy = False
        """The connection is the thread's."""
        self._turning = False
        """A turn's end is scheduled."""
        self._patience = 0
        self._pace = 0.0
        self._enough = LONGEST_LOG
        self._unseen = 0
        self._closed = False
        self._inbox: SimpleQueue[tuple[Callable[[_Group], None], _Group] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def _take(self, connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA busy_timeout = 0")  # the loop never waits for another process
        self._connection = connection
        self._cursor = connection.cursor()
        self._execute = self._cursor.execute
        self._tables = Tables(connection)
        self._changes = connection.total_changes

    def _drop(self) -> None:
        self._tables.close()
        self._cursor.close()
        self._connection.close()

    # -- on the loop -------------------------------------------------------

    def submit(self, write: Write[Any]) -> asyncio.Future[None] | None:
        """Commit a write in place (`None`), or see that it is committed with others.

        Raises:
            CompensateError: It was refused or failed, in place. Otherwise the future raises.
        """
        if self._closed:
            raise Unavailable(f"{self._url}: it is closed; nothing was written; open it again")
        if self._busy or self._turning or self._queue or self._pace > SLOW:
            return self._enqueue(write)
        self._turning = True
        self._loop.call_soon(self._turn)
        began = perf_counter()
        try:
            self._begin()
        except sqlite3.Error:
            return self._enqueue(write)  # the thread waits, or finds out
        self._attempt([write])
        self._measure(perf_counter() - began)
        if write.error is not None:
            raise write.error
        return None

    def _enqueue(self, write: Write[Any]) -> asyncio.Future[None]:
        write.future = self._loop.create_future()
        self._queue.append(write)
        if not self._turning and not self._busy:
            self._turning = True
            self._loop.call_soon(self._turn)
        return write.future  # type: ignore[no-any-return]

    def _turn(self) -> None:
        """The end of a turn: begin the next group, or be idle."""
        self._turning = False
        if self._busy:
            return
        if self._queue:
            self._begin_group()
        elif self._patience:
            self._patience -= 1
            self._turning = True
            self._loop.call_soon(self._turn)

    def _begin_group(self) -> None:
        group = self._queue[:LONGEST_GROUP]
        del self._queue[:LONGEST_GROUP]
        began = perf_counter()
        try:
            self._begin()
        except sqlite3.Error:
            self._hand_over(self._transact, group)
            return
        if len(group) == 1 and self._pace <= SLOW:
            self._attempt(group)
            self._landed(group, perf_counter() - began)
            return
        try:
            self._tables.apply(group)
        except Exception:
            self._roll_back()
            self._hand_over(self._transact, group)
            return
        self._hand_over(self._commit, group)

    def _hand_over(self, job: Callable[[_Group], None], group: _Group) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=f"writer of {self._url}", daemon=True)
            self._thread.start()
        self._busy = True
        self._inbox.put((job, group))

    def _landed(self, group: _Group, seconds: float) -> None:
        """A group is over: tell everybody, then look after the log."""
        self._busy = False
        for write in group:
            future = write.future
            if future.done():
                continue  # its task was cancelled meanwhile
            if write.error is None:
                future.set_result(None)
            else:
                future.set_exception(write.error)
        self._patience = _PATIENCE if len(group) > 1 else 0
        if group:
            self._measure(seconds, look=len(group) > 1)
        # Behind the tasks that were just woken, so that their next writes make one group.
        if not self._turning:
            self._turning = True
            self._loop.call_soon(self._turn)

    def _measure(self, seconds: float, *, look: bool = False) -> None:
        self._pace += _WEIGHT * (seconds - self._pace)
        self._unseen += 1
        if look or self._unseen >= _LOOK:
            self._unseen = 0
            if self._log_size() > self._enough and not self._busy:
                self._hand_over(self._checkpoint, [])

    def _log_size(self) -> int:
        try:
            return self._wal.stat().st_size
        except OSError:  # it is not there, or nobody can get at it
            return 0

    async def close(self) -> None:
        """Commit what waits, then close the connection."""
        if self._closed:
            return
        last: Write[None] = Write(lambda tables: None)
        future = self._enqueue(last)
        self._closed = True
        with suppress(CompensateError):
            await future
        if self._thread is not None:
            self._inbox.put(None)
            self._thread.join()  # not long: at most a checkpoint
        self._drop()  # the last connection to the file makes a checkpoint

    # -- with the connection in hand: on the loop or in the thread ----------

    def _begin(self) -> None:
        """Begin a transaction, unless its commit would reach a file that nobody can find any more."""
        if self._file is None or _identity(self._path) != self._file:
            raise _Gone(
                "the file was removed or replaced while it was open, or cannot be reached; put it back, or begin anew"
            )
        self._execute("BEGIN IMMEDIATE")

    def _attempt(self, group: _Group) -> None:
        """Apply and commit, in the transaction that was begun; again, or one by one, if that fails."""
        try:
            self._tables.apply(group)
        except Exception as error:
            self._roll_back()
            if len(group) > 1:
                # One of them may be at fault: it must not take the others with it.
                for write in group:
                    write.error = None
                    self._transact([write])
            elif isinstance(error, Stale):
                self._again(group[0])
            else:
                group[0].error = self._named(error, "writing")
            return
        self._commit(group)

    def _again(self, write: Write[Any]) -> None:
        """What was remembered was stale, and is forgotten now."""
        try:
            self._begin()
            self._tables.apply([write])
        except Exception as error:
            self._roll_back()
            write.error = self._named(error, "writing")
            return
        self._commit([write])

    def _commit(self, group: _Group) -> None:
        try:
            self._execute("COMMIT")
        except Exception as error:
            self._roll_back()
            for write in group:
                write.error = self._named(error, "committing")
            return
        changes = self._connection.total_changes
        if changes != self._changes:
            self._changes = changes
            self.commits += 1

    def _roll_back(self) -> None:
        """Leave the transaction, whatever state it is in, and forget what was remembered of it."""
        self._tables.forget()
        try:
            if self._connection.in_transaction:
                self._execute("ROLLBACK")
            self._changes = self._connection.total_changes
        except sqlite3.Error:
            self._drop()
            self._take(connect(self._path))

    def _named(self, error: Exception, doing: str) -> Exception:
        if isinstance(error, sqlite3.Error):
            return failure(error, self._url, doing)
        if isinstance(error, Stale):
            return Unavailable(f"{self._url}: {doing}: a saga changed under a lock; read the log again")
        return error

    # -- in the thread -----------------------------------------------------

    def _work(self) -> None:
        while (task := self._inbox.get()) is not None:
            job, group = task
            began = perf_counter()
            try:
                job(group)
            except Exception as error:
                for write in group:
                    write.error = self._named(error, "writing")
            try:
                self._loop.call_soon_threadsafe(self._landed, group, perf_counter() - began)
            except RuntimeError:
                return  # the loop is closed; nobody waits

    def _transact(self, group: _Group) -> None:
        """A whole transaction; waits for other processes."""
        until = monotonic() + BUSY
        while True:
            try:
                self._begin()
                break
            except sqlite3.Error as error:
                # SQLite's own waiting looks ten times a second: too seldom to meet the gaps of one who writes a lot.
                if is_busy(error) and monotonic() < until:
                    sleep(_NAP)
                    continue
                self._roll_back()
                for write in group:
                    write.error = self._named(error, "beginning to write")
                return
        self._attempt(group)

    def _checkpoint(self, _group: _Group) -> None:
        """Move the log into the database, so that the log starts anew. Nobody writes meanwhile, so it ends."""
        _, frames, moved = self._execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        self.checkpoints += 1
        # The next commit begins the log anew, and cuts the file. If somebody still reads some of it: try later.
        self._enough = LONGEST_LOG if frames == moved else self._log_size() + LONGEST_LOG
