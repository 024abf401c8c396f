"""A store in one SQLite file, for one or several processes of one machine.

Every acknowledged write has reached the disk (write-ahead log, synchronous=FULL). Leases and epochs are checked in
the transaction that writes, so they hold between processes too. An owner's process also holds a lock in the folder
`<file>-owners`; when it dies, even by `kill -9`, its sagas can be claimed at once.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Collection, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

from compensate.core.events import Event
from compensate.core.standing import Standing
from compensate.core.states import SagaStatus
from compensate.errors import CorruptLog, Unavailable, UnsupportedVersion
from compensate.stores.base import (
    Answer,
    Damaged,
    Done,
    NewSaga,
    Page,
    Request,
    StoredSaga,
    Verb,
)
from compensate.stores.common import cursor_at, cursor_key
from compensate.stores.disk import not_ours
from compensate.stores.liveness import Liveness
from compensate.stores.sqlite_commit import GroupCommit
from compensate.stores.sqlite_looking import Looking, check_writable
from compensate.stores.sqlite_schema import connect, failure, prepare
from compensate.stores.sqlite_tables import RECORD, Append, Reader, Tables, Write, record_of

T = TypeVar("T")

LARGEST: Final = (1 << 63) - 1
"""SQLite's largest integer."""


class SqliteStore:
    """Keeps sagas in an SQLite file, which is made if it is not there, for its owner's eyes alone.

    Args:
        path: The file. Its folder must exist, on a local disk.

    Attributes:
        url: How it was named.
    """

    def __init__(self, path: str | Path) -> None:
        self.url = f"sqlite:///{path}"
        self._path = Path(path).absolute()
        self._liveness = Liveness(Path(f"{self._path}-owners"))
        self._joined: set[str] = set()
        self._deleted = False
        self._writer: GroupCommit | None = None
        self._reading: sqlite3.Connection | None = None
        self._reader: Reader | None = None
        self._looking: Looking | None = None
        """It is open to be read alone."""

    @property
    def commits(self) -> int:
        """How many transactions this store has committed since it was opened; each cost one fsync."""
        return 0 if self._writer is None else self._writer.commits

    @property
    def checkpoints(self) -> int:
        """How often the write-ahead log was moved into the database since it was opened."""
        return 0 if self._writer is None else self._writer.checkpoints

    async def open(self) -> None:
        """As `Store.open`. Opening an open store does nothing."""
        if self._reading is not None:
            return
        check_writable(self._path, self.url)
        connection = prepare(self._path, self.url)
        try:
            self._reading = connect(self._path, reading=True)
        except sqlite3.Error as error:
            connection.close()
            raise failure(error, self.url, "opening it") from error
        self._reader = Reader(self._reading)
        self._writer = GroupCommit(connection, self._path, self.url, asyncio.get_running_loop())
        with self._snapshot() as reader:
            self._liveness.sweep(reader.owners())

    async def look(self) -> None:
        """Open it to be read alone: nothing is made or written. For a file or folder that may not be written."""
        self._looking = Looking(self._path, self.url)
        with self._looking.snapshot("opening it"):
            pass

    async def close(self) -> None:
        """As `Store.close`. Owners that did not leave count as dead from now on."""
        if self._looking is not None:
            self._looking.close()
            self._looking = None
        writer, reading, reader = self._writer, self._reading, self._reader
        if writer is None or reading is None or reader is None:
            return
        self._reading = self._reader = None
        try:
            if self._deleted:
                await self._write(Tables.sweep)
        finally:
            reader.close()
            reading.close()
            await writer.close()
            self._liveness.close()
            self._joined.clear()

    # -- owners ------------------------------------------------------------

    async def join(self, owner: str, now: float, lease: float) -> None:
        """As `Store.join`."""
        try:
            held = self._liveness.hold(owner)
        except OSError as error:
            raise Unavailable(
                f"{self.url}: no lock file for owner {owner} can be made: {error}; check the folder's permissions"
            ) from error
        if not held:
            raise Unavailable(
                f"{self.url}: another living process goes by the owner name {owner}; take another"
            )
        anew = owner not in self._joined
        await self._write(lambda tables: tables.join(owner, now + lease, anew=anew))
        self._joined.add(owner)

    async def renew(self, owner: str, now: float, lease: float) -> bool:
        """As `Store.renew`."""
        return await self._write(lambda tables: tables.renew(owner, now, now + lease))

    async def leave(self, owner: str, keep: Collection[str] = ()) -> None:
        """As `Store.leave`."""
        locked = bool(keep) and self._liveness.keep(owner)
        await self._write(lambda tables: tables.leave(owner, keep, locked=locked))
        if not keep:
            self._joined.discard(owner)
            self._liveness.drop(owner)

    def retire(self, owner: str) -> None:
        """As `Store.retire`."""
        self._liveness.retire(owner)

    async def claim(
        self,
        owner: str,
        now: float,
        *,
        limit: int,
        parked: bool = False,
        least: int = 0,
        below: int | None = None,
    ) -> list[StoredSaga | Damaged]:
        """As `Store.claim`."""
        await self._bury(owner)
        with self._snapshot() as reader:
            if not reader.free(owner, now, 1, parked, least, below):
                return []  # a look costs no write
        claimed = await self._write(lambda tables: tables.claim(owner, now, limit, parked, least, below))
        dags: dict[str, bytes | None] = {}
        found: list[StoredSaga | Damaged] = []
        with self._snapshot() as reader:
            for number, record in claimed:
                try:
                    found.append(reader.saga(number, record, dags))
                except (CorruptLog, UnsupportedVersion) as error:
                    found.append(Damaged(record.id, error))
                except sqlite3.Error as error:
                    found.append(Damaged(record.id, failure(error, self.url, f"reading saga {record.id}")))
        return found

    async def claim_one(self, saga_id: str, owner: str, now: float) -> StoredSaga | None:
        """As `Store.claim_one`."""
        await self._bury(owner)
        return await self._write(lambda tables: tables.claim_one(saga_id, owner, now))

    async def _bury(self, owner: str) -> None:
        """Forget the owners whose processes are gone."""
        with self._snapshot() as reader:
            others = [other for other in reader.owners() if other != owner]
        dead = self._liveness.seize(others)
        if not dead:
            return
        try:
            await self._write(lambda tables: tables.bury(dead))
        except BaseException:
            self._liveness.spare(dead)
            raise
        self._liveness.bury(dead)

    def release(self, saga_id: str, epoch: int, created_at: float | None = None) -> Done:
        """As `Store.release`."""
        return self._submit(Write(lambda tables: tables.release(saga_id, epoch, created_at)))

    # -- logs --------------------------------------------------------------

    def create(self, saga: NewSaga, owner: str) -> Done:
        """As `Store.create`."""
        return self._submit(Write(lambda tables: tables.create(saga, owner)))

    def append(
        self,
        saga_id: str,
        epoch: int,
        expected_seq: int,
        events: Sequence[Event],
        standing: Standing,
        created_at: float | None = None,
    ) -> Done:
        """As `Store.append`."""
        return self._submit(Append(saga_id, epoch, expected_seq, events, standing, created_at))

    def _submit(self, write: Write[Any]) -> Done:
        if self._looking is not None:
            raise not_ours(self.url, self._path)
        if self._writer is None:
            raise self._not_open()
        return self._writer.submit(write)

    async def _write(self, run: Callable[[Tables], T]) -> T:
        write = Write(run)
        done = self._submit(write)
        if done is not None:
            await done
        return write.result  # type: ignore[return-value]  # it ran, or an error was raised

    # -- reading -----------------------------------------------------------

    @contextmanager
    def _snapshot(self, doing: str = "reading") -> Generator[Reader]:
        """A transaction that reads; nothing may be awaited inside. Names what goes wrong."""
        if self._looking is not None:
            with self._looking.snapshot(doing) as looking:
                yield looking
            return
        reading, reader = self._reading, self._reader
        if reading is None or reader is None:
            raise self._not_open()
        try:
            reading.execute("BEGIN")
            yield reader
        except sqlite3.Error as error:
            raise failure(error, self.url, doing) from error
        finally:
            if reading.in_transaction:
                reading.execute("ROLLBACK")

    def _not_open(self) -> Unavailable:
        return Unavailable(f"{self.url}: it is not open; nothing was done; await open() first")

    async def load(self, saga_id: str) -> StoredSaga:
        """As `Store.load`."""
        with self._snapshot(f"reading saga {saga_id}") as reader:
            return reader.saga(*reader.record(saga_id), {})

    async def events(self, saga_id: str, after: int = 0) -> list[Event]:
        """As `Store.events`."""
        with self._snapshot(f"reading saga {saga_id}") as reader:
            return reader.events(saga_id, after)

    async def page(
        self,
        *,
        status: SagaStatus | None = None,
        name: str | None = None,
        cursor: str | None = None,
        limit: int = 100,
    ) -> Page:
        """As `Store.page`."""
        at, saga_id = (None, None) if cursor is None else cursor_key(cursor)
        terms: dict[str, tuple[Any, ...]] = {
            "status = ?": (status,),
            "name = ?": (name,),
            # So put, the index leads straight to where the page begins.
            "created_at <= ? AND NOT (created_at = ? AND id <= ?)": (at, at, saga_id),
        }
        asked = {term: values for term, values in terms.items() if values[0] is not None}
        where = " WHERE " + " AND ".join(asked) if asked else ""
        values = [value for values in asked.values() for value in values]
        most = min(limit, LARGEST - 1) + 1
        with self._snapshot() as reader:
            try:
                rows = reader.rows(f"{RECORD}{where} ORDER BY created_at DESC, id LIMIT ?", [*values, most])
            except UnicodeEncodeError:
                rows = []  # nobody can have a name that is no text
        records = [record_of(row) for row in rows[:limit]]
        return Page(records, cursor_at(records[-1]) if len(rows) > limit else None)

    async def delete(self, saga_id: str) -> None:
        """As `Store.delete`."""
        await self._write(lambda tables: tables.delete(saga_id))
        self._deleted = True

    # -- operators' requests -----------------------------------------------

    async def post(self, saga_id: str, verb: Verb, data: bytes, now: float) -> int:
        """As `Store.post`."""
        return await self._write(lambda tables: tables.post(saga_id, verb, data, now))

    async def requests(self, owner: str) -> Sequence[Request]:
        """As `Store.requests`."""
        with self._snapshot() as reader:
            rows = reader.rows(
                "SELECT requests.number, sagas.id, verb, data FROM requests JOIN sagas ON sagas.number = saga"
                " WHERE error IS NULL AND owner = ? ORDER BY requests.number",
                (owner,),
            )
        return [Request(number, saga_id, verb, bytes(data)) for number, saga_id, verb, data in rows]

    async def answer(self, number: int, answer: Answer) -> None:
        """As `Store.answer`."""
        await self._write(lambda tables: tables.answer(number, answer.error))

    async def answered(self, number: int) -> Answer | None:
        """As `Store.answered`."""
        with self._snapshot() as reader:
            rows = reader.rows("SELECT error FROM requests WHERE number = ? AND error IS NOT NULL", (number,))
        return Answer(rows[0][0]) if rows else None
