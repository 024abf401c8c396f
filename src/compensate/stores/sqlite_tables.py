"""The SQLite store's statements: what is read, and what is written inside a transaction that somebody else opens."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterable, Sequence
from math import inf
from typing import Any, Final, Generic, TypeVar

from compensate.codec.records import from_rows, to_rows
from compensate.core.events import Event
from compensate.core.standing import PLAIN, Standing
from compensate.core.states import COMPLETED, ENDS, ROLLED_BACK
from compensate.errors import CorruptLog
from compensate.stores.base import NewSaga, SagaRecord, StoredSaga
from compensate.stores.common import (
    another,
    check_end,
    checked,
    exists,
    fits,
    in_hand,
    not_found,
    not_over,
    refusal,
)

T = TypeVar("T")

RECORD: Final = (
    "SELECT number, id, name, fingerprint, status, paused, parked, epoch, owner, last_seq, created_at, updated_at,"
    " deaths, died FROM sagas"
)
_DRAINED: Final = "EXISTS (SELECT 1 FROM owners AS o WHERE o.owner = sagas.owner AND o.drained)"
_DIED: Final = f"(sagas.died OR (sagas.owner IS NOT NULL AND NOT {_DRAINED}))"
"""Whether a saga that another owner may claim has lost its process."""
_EVENTS: Final = (
    "SELECT seq, epoch, at, type, node, attempt, data, checksum FROM events"
    " WHERE saga = ? AND seq >= ? ORDER BY seq"
)
_FREE: Final = (
    f"SELECT number, id, name, fingerprint, status, paused, parked, epoch, owner, last_seq, created_at, updated_at,"
    f" deaths, {_DIED} AS dead, deaths + {_DIED} AS suspicion FROM sagas"
    # The first two terms are those of the index `sagas_open`.
    " WHERE sagas.status <> 'completed' AND sagas.status <> 'rolled_back'"
    " AND (sagas.status <> 'stuck' OR (:parked AND sagas.parked))"
    " AND (sagas.owner IS NULL OR (sagas.owner <> :owner AND NOT EXISTS"
    " (SELECT 1 FROM owners WHERE owners.owner = sagas.owner AND owners.lease_until > :now)))"
    " AND suspicion >= :least AND (:below IS NULL OR suspicion < :below)"
    # As `claim_order` says.
    " ORDER BY suspicion, CASE WHEN suspicion >= 3 AND suspicion % 2 THEN -sagas.created_at"
    " ELSE sagas.created_at END, sagas.id LIMIT :limit"
)
_APPEND: Final = (
    "UPDATE sagas SET last_seq = ?, updated_at = ? WHERE number = ? AND epoch = ? AND last_seq = ?"
    " AND created_at = ?"
)
_TURN: Final = (
    "UPDATE sagas SET last_seq = ?, updated_at = ?, status = ?, paused = ?, parked = ?, deaths = ?, died = 0,"
    " owner = CASE WHEN ? THEN NULL ELSE owner END WHERE number = ? AND epoch = ? AND last_seq = ?"
    " AND created_at = ?"
)
_INSERT: Final = "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
_CREATE: Final = (
    "INSERT INTO sagas (id, name, fingerprint, status, paused, parked, deaths, epoch, owner, last_seq, created_at,"
    " updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, 1, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING"
)

MOST_KNOWN: Final = 50_000
"""Sagas whose end of log is kept in memory."""


# -- reading ---------------------------------------------------------------


def record_of(row: Sequence[Any]) -> SagaRecord:
    """The record in a row of `RECORD`."""
    _, saga_id, name, print_, status, paused, parked, epoch, owner, last_seq, created_at, updated_at = row[
        :12
    ]
    return SagaRecord(
        saga_id,
        name,
        print_,
        status,
        bool(paused),
        bool(parked),
        epoch,
        owner,
        last_seq,
        created_at,
        updated_at,
        row[12],
        bool(row[13]),
    )


class Reader:
    """Reads through one connection; every method expects a transaction, so that it sees one state."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._cursor = connection.cursor()
        self._checked: set[str] = set()
        """Fingerprints of dags that were checked."""

    def close(self) -> None:
        """Let the connection go: while a cursor lives, SQLite keeps the file open."""
        self._cursor.close()

    def rows(self, sql: str, values: Sequence[Any] | dict[str, Any] = ()) -> list[Any]:
        """All rows of a query."""
        return self._cursor.execute(sql, values).fetchall()

    def record(self, saga_id: str) -> tuple[int, SagaRecord]:
        """A saga's number and record. Raises `SagaNotFound`."""
        try:
            rows = self.rows(f"{RECORD} WHERE id = ?", (saga_id,))
        except UnicodeEncodeError:
            rows = []  # nobody can have an id that is no text
        if not rows:
            raise not_found(saga_id)
        return rows[0][0], record_of(rows[0])

    def saga(self, number: int, record: SagaRecord, dags: dict[str, bytes | None]) -> StoredSaga:
        """A saga. `dags` holds those already read. Raises `CorruptLog`, `UnsupportedVersion`."""
        print_ = record.fingerprint
        try:
            if print_ not in dags:
                rows = self.rows("SELECT body FROM dags WHERE fingerprint = ?", (print_,))
                dags[print_] = bytes(rows[0][0]) if rows else None
            events = from_rows(record.id, self._cursor.execute(_EVENTS, (number, 1)))
            return checked(record, dags[print_], events, self._checked)
        except TypeError:
            # Columns have no fixed types in SQLite: somebody wrote text where a number or bytes belong.
            raise CorruptLog(
                f"saga {record.id}: its record or its dag was altered; nothing was run; restore it from a copy"
            ) from None

    def events(self, saga_id: str, after: int) -> list[Event]:
        """The events above `after`. Raises `SagaNotFound`, `CorruptLog`, `UnsupportedVersion`."""
        number, record = self.record(saga_id)
        if after > record.last_seq:
            return []
        if after <= 0:
            found = from_rows(saga_id, self.rows(_EVENTS, (number, 1)))
        else:
            # The row before is read too: the checksum of the next one covers its.
            rows = self.rows(_EVENTS, (number, after))
            if not rows or rows[0][0] != after:
                raise CorruptLog(f"saga {saga_id}: event {after} is missing; restore it from a copy")
            found = from_rows(saga_id, rows[1:], rows[0][7], after)
        check_end(record, found[-1].seq if found else max(after, 0))
        return found

    def free(
        self, owner: str, now: float, limit: int, parked: bool, least: int, below: int | None
    ) -> list[Any]:
        """Rows of `RECORD`, with `died` as after a claim, for sagas that `owner` could claim."""
        values = {
            "owner": owner,
            "now": now,
            "limit": limit,
            "parked": parked,
            "least": least,
            "below": below,
        }
        return self.rows(_FREE, values)

    def is_free(self, record: SagaRecord, owner: str, now: float) -> bool:
        """Whether `owner` may claim this very saga."""
        return (
            record.owner is None
            or record.owner == owner
            or not self.rows("SELECT 1 FROM owners WHERE owner = ? AND lease_until > ?", (record.owner, now))
        )

    def owners(self) -> list[str]:
        """All owners that joined and did not leave."""
        return [row[0] for row in self.rows("SELECT owner FROM owners")]


def _standing_of(record: SagaRecord) -> Standing | None:
    """The standing that a record says, as the machine gives it for plain cases; `None` if an owner died since."""
    if record.died:
        return None
    if record.paused or record.parked or record.deaths:
        return Standing(record.status, record.paused, record.parked, record.deaths)
    return PLAIN.get(record.status)


# -- writing ---------------------------------------------------------------


class Write(Generic[T]):
    """One write, and what became of it once its transaction is over.

    Attributes:
        run: Does it; `None` for appends. Checks before it changes anything: what raises has changed nothing.
        result: What `run` returned.
        error: Why it was refused or failed.
        future: Resolved when it is durable; `None` if it is committed in place.
    """

    __slots__ = ("error", "future", "result", "run")

    def __init__(self, run: Callable[[Tables], T] | None) -> None:
        self.run = run
        self.result: T | None = None
        self.error: Exception | None = None
        self.future: Any = None


class Append(Write[None]):
    """Events for one saga."""

    __slots__ = ("created_at", "epoch", "events", "expected_seq", "saga_id", "standing")

    def __init__(
        self,
        saga_id: str,
        epoch: int,
        expected_seq: int,
        events: Sequence[Event],
        standing: Standing,
        created_at: float | None = None,
    ) -> None:
        self.run = None
        self.result = None
        self.error = None
        self.future = None
        self.saga_id = saga_id
        self.epoch = epoch
        self.expected_seq = expected_seq
        self.events = events
        self.standing = standing
        self.created_at = created_at


class Stale(Exception):
    """Another process changed a saga that we thought we knew."""


class _Known:
    """The end of one saga's log, as last seen."""

    __slots__ = ("checksum", "created_at", "epoch", "last_seq", "number", "standing")

    def __init__(
        self,
        number: int,
        epoch: int,
        last_seq: int,
        checksum: int,
        standing: Standing | None,
        created_at: float,
    ) -> None:
        self.number = number
        self.created_at = created_at
        """Tells its saga from a later one with the same id, which may have the same number, epoch and seq."""
        self.epoch = epoch
        self.last_seq = last_seq
        self.checksum = checksum
        self.standing = standing
        """As its record says; `None`: the record has to be written anew, as it says that an owner died."""


class Tables:
    """Writes, inside a transaction that somebody else begins and ends.

    The ends of the logs of sagas in hand are remembered, so that an append reads nothing. Every update carries the
    epoch and seq that it relies on; where it finds others, everything is rolled back, forgotten and done again.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.reader = Reader(connection)
        self._cursor = connection.cursor()
        self._known: dict[str, _Known] = {}
        self._events: list[tuple[Any, ...]] = []
        self._appends: list[tuple[Any, ...]] = []
        self._turns: list[tuple[Any, ...]] = []

    def close(self) -> None:
        """Let the connection go."""
        self.reader.close()
        self._cursor.close()

    def forget(self) -> None:
        """Forget what was remembered and gathered: the transaction was rolled back."""
        self._known.clear()
        self._events.clear()
        self._appends.clear()
        self._turns.clear()

    def apply(self, writes: Iterable[Write[Any]]) -> None:
        """Do the writes. One that is refused changes nothing and gets its error; the others go on.

        Raises:
            Stale: Roll back, forget, and apply again.
            sqlite3.Error: Roll back and forget; none was done.
        """
        for write in writes:
            try:
                if isinstance(write, Append):
                    self._append(write)
                elif write.run is not None:
                    self._flush()
                    write.result = write.run(self)
            except (sqlite3.Error, Stale):
                raise
            except Exception as error:
                write.error = error
        self._flush()
        if len(self._known) > MOST_KNOWN:
            self._known.clear()

    def _flush(self) -> None:
        for sql, rows in ((_APPEND, self._appends), (_TURN, self._turns)):
            if rows:
                if self._cursor.executemany(sql, rows).rowcount != len(rows):
                    raise Stale
                rows.clear()
        if self._events:
            self._cursor.executemany(_INSERT, self._events)
            self._events.clear()

    def _append(self, write: Append) -> None:
        saga_id, epoch, seq, events = write.saga_id, write.epoch, write.expected_seq, write.events
        known, created_at = self._known.get(saga_id), write.created_at
        if (
            known is None
            or known.epoch != epoch
            or known.last_seq != seq
            or (created_at is not None and known.created_at != created_at)
        ):
            known = self._look(saga_id)
            if created_at is not None and known.created_at != created_at:
                raise another(saga_id)
            if known.epoch != epoch or known.last_seq != seq:
                raise refusal(saga_id, epoch, seq, events, known.epoch, known.last_seq)
        last = seq
        for event in events:
            last += 1
            if event.seq != last or event.epoch != epoch:
                last = seq
                break
        if last == seq:
            raise refusal(saga_id, epoch, seq, events, epoch, seq)
        number = known.number
        rows = to_rows(events, known.checksum)
        for row in rows:
            self._events.append((number, *row))
        at = rows[-1][2]
        standing = write.standing
        if standing is not known.standing:
            status = standing.status
            ended = status in ENDS
            self._turns.append(
                (
                    last,
                    at,
                    status,
                    standing.paused,
                    standing.parked,
                    standing.deaths,
                    ended,
                    number,
                    epoch,
                    seq,
                    known.created_at,
                )
            )
            if ended:
                del self._known[saga_id]
                return
            known.standing = standing
        else:
            self._appends.append((last, at, number, epoch, seq, known.created_at))
        known.last_seq = last
        known.checksum = rows[-1][7]

    def _look(self, saga_id: str) -> _Known:
        """Read the end of a saga's log, and remember it."""
        self._flush()
        number, record = self.reader.record(saga_id)
        rows = self.reader.rows(
            "SELECT checksum FROM events WHERE saga = ? AND seq = ?", (number, record.last_seq)
        )
        if not rows:
            check_end(record, record.last_seq - 1)
        known = self._known[saga_id] = _Known(
            number,
            record.epoch,
            record.last_seq,
            rows[0][0],
            _standing_of(record),
            record.created_at,
        )
        return known

    def create(self, saga: NewSaga, owner: str) -> None:
        """Store a new saga. Raises `SagaExists`, `Conflict`."""
        if not fits(saga.events, 1, 0):
            raise refusal(saga.id, 1, 0, saga.events, 1, 0)
        rows = to_rows(saga.events, 0)
        last_seq, at, checksum = rows[-1][0], rows[-1][2], rows[-1][7]
        standing = saga.standing
        ended = standing.status in ENDS
        cursor = self._cursor.execute(
            _CREATE,
            (
                saga.id,
                saga.name,
                saga.fingerprint,
                standing.status,
                standing.paused,
                standing.parked,
                standing.deaths,
                None if ended else owner,
                last_seq,
                saga.at,
                at,
            ),
        )
        if not cursor.rowcount:
            raise exists(saga.id)
        number = cursor.lastrowid
        assert number is not None
        cursor.execute("INSERT OR IGNORE INTO dags VALUES (?, ?)", (saga.fingerprint, saga.dag))
        self._events.extend((number, *row) for row in rows)
        if not ended:
            self._known[saga.id] = _Known(number, 1, last_seq, checksum, standing, float(saga.at))

    def release(self, saga_id: str, epoch: int, created_at: float | None = None) -> None:
        """Make a saga nobody's."""
        self._cursor.execute(
            "UPDATE sagas SET owner = NULL WHERE id = ?1 AND epoch = ?2 AND created_at = ifnull(?3, created_at)",
            (saga_id, epoch, created_at),
        )
        self._known.pop(saga_id, None)

    def claim(
        self, owner: str, now: float, limit: int, parked: bool, least: int, below: int | None
    ) -> list[tuple[int, SagaRecord]]:
        """Claim sagas; their numbers, and their records as they are then."""
        rows = self.reader.free(owner, now, limit, parked, least, below)
        for row in rows:
            self._known.pop(row[1], None)
        self._cursor.executemany(
            "UPDATE sagas SET epoch = epoch + 1, owner = ?, died = ? WHERE number = ?",
            [(owner, row[13], row[0]) for row in rows],
        )
        return [(row[0], record_of((*row[:7], row[7] + 1, owner, *row[9:]))) for row in rows]

    def claim_one(self, saga_id: str, owner: str, now: float) -> StoredSaga | None:
        """Claim one saga. Raises as `Store.claim_one`."""
        number, record = self.reader.record(saga_id)
        if not self.reader.is_free(record, owner, now):
            return None
        self.reader.saga(number, record, {})  # what cannot be read is not claimed
        self._known.pop(saga_id, None)
        if record.owner != owner:
            self._cursor.execute(f"UPDATE sagas SET died = {_DIED} WHERE number = ?", (number,))
        self._cursor.execute(
            "UPDATE sagas SET epoch = epoch + 1, owner = ? WHERE number = ?", (owner, number)
        )
        return self.reader.saga(*self.reader.record(saga_id), {})

    def join(self, owner: str, lease_until: float, *, anew: bool) -> None:
        """Make an owner known; `anew`: it begins, so sagas left by an earlier life of that name are nobody's."""
        if anew:
            self._cursor.execute(f"UPDATE sagas SET died = {_DIED}, owner = NULL WHERE owner = ?", (owner,))
        self._cursor.execute(
            "INSERT OR REPLACE INTO owners (owner, lease_until, drained) VALUES (?, ?, 0)",
            (owner, lease_until),
        )

    def renew(self, owner: str, now: float, lease_until: float) -> bool:
        """Prolong a lease that has not run out."""
        cursor = self._cursor.execute(
            "UPDATE owners SET lease_until = CASE WHEN drained THEN lease_until ELSE ? END"
            " WHERE owner = ? AND lease_until > ?",
            (lease_until, owner, now),
        )
        return cursor.rowcount > 0

    def leave(self, owner: str, keep: Collection[str], *, locked: bool) -> None:
        """Release an owner's sagas and forget it; or, but for those in `keep`, and mark it as drained.

        `locked`: its process holds a lock, so that its end will be seen and it needs no lease.
        """
        owned = self.reader.rows("SELECT number, id FROM sagas WHERE owner = ?", (owner,))
        self._cursor.executemany(
            "UPDATE sagas SET owner = NULL WHERE number = ?",
            [(number,) for number, saga_id in owned if saga_id not in keep],
        )
        if not keep:
            self._cursor.execute("DELETE FROM owners WHERE owner = ?", (owner,))
        elif locked:
            self._cursor.execute(
                "UPDATE owners SET drained = 1, lease_until = ? WHERE owner = ?", (inf, owner)
            )
        else:
            self._cursor.execute("UPDATE owners SET drained = 1 WHERE owner = ?", (owner,))

    def bury(self, dead: Collection[str]) -> None:
        """Forget owners whose process is gone; what they own can be claimed. What a drained one kept is released."""
        self._cursor.executemany(
            f"UPDATE sagas SET owner = NULL WHERE owner = ? AND {_DRAINED}", [(owner,) for owner in dead]
        )
        self._cursor.executemany("DELETE FROM owners WHERE owner = ?", [(owner,) for owner in dead])

    def delete(self, saga_id: str) -> None:
        """Forget a saga. Raises as `Store.delete`."""
        number, record = self.reader.record(saga_id)
        if record.status not in (COMPLETED, ROLLED_BACK):
            raise not_over(saga_id, record.status)
        if record.owner is not None and record.owner in self.reader.owners():
            raise in_hand(saga_id, record.owner)
        self._known.pop(saga_id, None)
        for sql in (
            "DELETE FROM requests WHERE saga = ?",
            "DELETE FROM events WHERE saga = ?",
            "DELETE FROM sagas WHERE number = ?",
        ):
            self._cursor.execute(sql, (number,))

    def sweep(self) -> None:
        """Remove dags that no saga has."""
        self._cursor.execute("DELETE FROM dags WHERE fingerprint NOT IN (SELECT fingerprint FROM sagas)")

    def post(self, saga_id: str, verb: str, data: bytes, now: float) -> int:
        """Leave a request; its number. Raises `SagaNotFound`."""
        number, _ = self.reader.record(saga_id)
        cursor = self._cursor.execute(
            "INSERT INTO requests (saga, verb, data, at) VALUES (?, ?, ?, ?)", (number, verb, data, now)
        )
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def answer(self, number: int, error: str) -> None:
        """Answer a request that has no answer."""
        self._cursor.execute(
            "UPDATE requests SET error = ? WHERE number = ? AND error IS NULL", (error, number)
        )
