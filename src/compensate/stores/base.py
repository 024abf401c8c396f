"""What every store promises, in words and as a protocol.

A store keeps, for each saga, a record (who owns it, how it stands) and its log.
It decides nothing about sagas; it never sorts, guesses or skips.

**Durability.** What a call has acknowledged survives the end of the process and
of the machine (memory store excepted). A write is acknowledged when the call
returns, or, if it returned an awaitable, when that is done.

**Ownership.** A coordinator joins under an owner name and keeps its lease by
renewing it. A saga that has not ended belongs to one owner. It can be claimed
when its owner is not alive: its lease ran out, or the store knows by a surer sign
(a lock that died with the process). Each claim raises the saga's epoch by one.
A saga that ends is released in the same write.

**Deaths.** An owner that is no longer alive has died, unless it left: `leave`
releases its sagas, except those named in `keep`, and marks the owner as drained.
The end of a drained owner is no death, and neither is `release`, nor that an owner
claims its own saga again. A claim of a saga whose recorded owner has died marks
the saga as `died`; so does the forgetting of a dead owner, and the joining of a
new process under its name. The mark stands until the next append, also through
releases and further claims, because only an append can record the death.
`SagaRecord.suspicion` adds that death to the recorded ones; claims order and
select sagas by it.

**Fencing.** `append` checks epoch and sequence in the transaction that writes,
under the saga's row lock. No event of an older epoch is ever added after a claim.

**Errors.** `Fenced`: somebody claimed the saga; stop. `Conflict`: the log is not
where the caller thought; read it again. `Unavailable`: the outcome is unknown;
read the log again before anything else (S10). `CorruptLog`, `UnsupportedVersion`:
never retried. A failed call changes nothing, except that after `Unavailable` the
write may have happened.
"""

from __future__ import annotations

from collections.abc import Awaitable, Collection, Iterator, Sequence
from typing import Literal, Protocol, TypeAlias

import msgspec

from compensate.core.events import Event
from compensate.core.standing import Standing
from compensate.core.states import SagaStatus
from compensate.errors import CompensateError

Done: TypeAlias = Awaitable[None] | None
"""`None`: durable on return. Otherwise durable when awaited, or raises there.

An embedded store commits in place while it is idle, which saves the hop to its writer thread, and groups commits
under load."""

Verb = Literal["rollback", "pause", "resume", "retry", "skip", "resolve"]


class NewSaga(msgspec.Struct, frozen=True):
    """What is stored when a saga is created.

    Attributes:
        id: The saga's id, already checked.
        name: Name of its definition.
        fingerprint: `codec.records.fingerprint(dag)`; checked when the saga is loaded.
        dag: The dag, encoded. Stores keep equal dags once.
        events: The first events, from seq 1, in epoch 1.
        standing: How the saga stands after them.
        at: When, in seconds since the epoch.
    """

    id: str
    name: str
    fingerprint: str
    dag: bytes
    events: Sequence[Event]
    standing: Standing
    at: float


class SagaRecord(msgspec.Struct, frozen=True):
    """How a saga stands.

    Attributes:
        id: The saga's id.
        name: Name of its definition.
        fingerprint: Of its dag.
        status: As of `last_seq`.
        paused: Whether it is paused.
        parked: Whether it is stuck only until code that knows it is back.
        epoch: Fencing token of its present or last owner.
        owner: Who owns it; `None` when nobody does.
        last_seq: Seq of its last event.
        created_at: Seconds since the epoch.
        updated_at: When the last event was written.
        deaths: As of `last_seq`: see `Standing.deaths`.
        died: Whether an owner of it has died since the last event was written.
    """

    id: str
    name: str
    fingerprint: str
    status: SagaStatus
    paused: bool
    parked: bool
    epoch: int
    owner: str | None
    last_seq: int
    created_at: float
    updated_at: float
    deaths: int = 0
    died: bool = False

    @property
    def suspicion(self) -> int:
        """How many processes in a row have died while one node of it ran, the last one included if it has just died."""
        return self.deaths + self.died


class StoredSaga(msgspec.Struct, frozen=True):
    """A saga as stored: its record, its dag (encoded), its whole log."""

    record: SagaRecord
    dag: bytes
    events: list[Event]

    @property
    def died(self) -> bool:
        """Whether what ran at the end of the log was running when its process died."""
        return self.record.died


class Damaged(msgspec.Struct, frozen=True):
    """A saga that was claimed but cannot be read, and why. The others go on."""

    saga_id: str
    error: CompensateError


class Page(msgspec.Struct, frozen=True):
    """Some records of sagas, newest first. It can be iterated, and its length is the number of its records.

    Attributes:
        records: Id, name, status, owner and times of each saga.
        cursor: Given to `list`, continues behind the last record; `None`: there are no more.
    """

    records: list[SagaRecord]
    cursor: str | None

    def __iter__(self) -> Iterator[SagaRecord]:
        return iter(self.records)

    def __len__(self) -> int:
        return len(self.records)


class Request(msgspec.Struct, frozen=True):
    """What an operator asked of a saga that somebody else owns.

    Attributes:
        number: Given by the store.
        saga_id: Whose.
        verb: What is asked.
        data: Its arguments as JSON.
    """

    number: int
    saga_id: str
    verb: Verb
    data: bytes


class Answer(msgspec.Struct, frozen=True):
    """What became of a request. `error`: why it was refused; empty: it was carried out."""

    error: str = ""


class Store(Protocol):
    """The contract that every store keeps and that the conformance suite checks. See the module's words."""

    @property
    def url(self) -> str:
        """How this store is named."""
        ...

    async def open(self) -> None:
        """Open or create it. Only after this may anything else be called.

        Raises:
            Unavailable: It cannot be opened.
            UnsupportedVersion: A newer version wrote it. Nothing was changed.
            CorruptLog: It is damaged, or no store of this kind.
        """
        ...

    async def close(self) -> None:
        """Finish what was acknowledged or queued, then close. Safe to call twice."""
        ...

    # -- owners ------------------------------------------------------------

    async def join(self, owner: str, now: float, lease: float) -> None:
        """Make `owner` known and alive until `now + lease`. A name is one coordinator's alone, and never used again.

        Joining again through the same open store, after the lease ran out, keeps the sagas that nobody claimed.

        Raises:
            Unavailable: Another living process goes by that name.
        """
        ...

    async def renew(self, owner: str, now: float, lease: float) -> bool:
        """Prolong the lease. `False`: it had run out, and sagas may have been claimed; the caller joins again."""
        ...

    async def leave(self, owner: str, keep: Collection[str] = ()) -> None:
        """Release the sagas of `owner`, and forget it, or keep it alive for the sagas in `keep`.

        Without `keep` every saga is released and the owner is forgotten. With `keep` those sagas stay with the owner,
        because a thread of its process still works on them. The owner is then marked as drained and counts as alive
        without a lease, also after this store is closed, until its process ends or `retire` is called; from then on
        anybody can claim those sagas. May be called again.

        Where the store cannot see the end of a process (no file locks), the lease that the owner has decides.
        """
        ...

    def retire(self, owner: str) -> None:
        """End an owner that left and kept sagas: the last thread that worked on them has ended.

        May be called from any thread, also after `close`, and for an owner that is not known any more. It waits for
        nothing.
        """
        ...

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
        """Claim sagas that have not ended and whose owner is not alive.

        Those with the least suspicion come first, among equals the oldest. At a suspicion of 3, 5, 7 ... the youngest
        comes first: of two sagas that have died together so far, each is then tried without the other some time.

        A damaged saga is claimed and returned as `Damaged`; it never hides the others.

        Args:
            owner: Has joined. Sagas that it owns already are left alone, even if its own lease ran out.
            now: The time.
            limit: The most to claim.
            parked: Claim parked sagas too.
            least: Only sagas of at least this suspicion.
            below: Only sagas of less than this suspicion.
        """
        ...

    async def claim_one(self, saga_id: str, owner: str, now: float) -> StoredSaga | None:
        """Claim one saga, whatever its status; `None` if a live owner other than `owner` has it.

        Raises:
            SagaNotFound: There is none.
            CorruptLog: It cannot be read. It is not claimed then.
        """
        ...

    def release(self, saga_id: str, epoch: int, created_at: float | None = None) -> Done:
        """Give a saga up so that others can claim it at once.

        Does nothing if `epoch` is no longer its epoch, or there is no such saga, or only one that was created at
        another time than `created_at`.
        """
        ...

    # -- logs --------------------------------------------------------------

    def create(self, saga: NewSaga, owner: str) -> Done:
        """Store a new saga at epoch 1, owned by `owner` (by nobody if its status is an end), with its standing.

        Raises:
            SagaExists: The id is taken. Nothing was changed.
            Conflict: Its events do not go from seq 1 without gaps in epoch 1.
        """
        ...

    def append(
        self,
        saga_id: str,
        epoch: int,
        expected_seq: int,
        events: Sequence[Event],
        standing: Standing,
        created_at: float | None = None,
    ) -> Done:
        """Add events behind `expected_seq`, atomically; all or nothing. Takes the mark `died` away.

        Args:
            saga_id: Whose log.
            epoch: Must be the saga's epoch.
            expected_seq: Must be the seq of its last event.
            events: With gap-free seqs from `expected_seq + 1`; at least one.
            standing: How the saga stands after them; written as it is.
            created_at: As the saga's record says. It tells a saga from one that was started under the same id after
                the first had been deleted, and whose epoch and seq may be the same. `None`: any will do.

        Raises:
            SagaNotFound: There is no such saga.
            Fenced: The epoch is another, or the saga was created at another time.
            Conflict: The last seq is another, or the events do not go on from it without gaps in this epoch.
            Unavailable: The outcome is unknown.
        """
        ...

    # -- reading -----------------------------------------------------------

    async def load(self, saga_id: str) -> StoredSaga:
        """A saga as it stands.

        Raises:
            SagaNotFound: There is none.
            CorruptLog: It cannot be read; says where.
        """
        ...

    async def events(self, saga_id: str, after: int = 0) -> list[Event]:
        """The events with a seq above `after`. Raises as `load`."""
        ...

    async def page(
        self,
        *,
        status: SagaStatus | None = None,
        name: str | None = None,
        cursor: str | None = None,
        limit: int = 100,
    ) -> Page:
        """Records, newest first by creation, then by id; a saga created while paging appears at most once.

        Raises:
            IllegalRequest: `cursor` is none.
        """
        ...

    async def delete(self, saga_id: str) -> None:
        """Forget a saga that has ended.

        Raises:
            SagaNotFound: There is none.
            IllegalRequest: It has not ended, is stuck, or a coordinator has claimed it to go on with it.
        """
        ...

    # -- operators' requests -----------------------------------------------

    async def post(self, saga_id: str, verb: Verb, data: bytes, now: float) -> int:
        """Leave a request for the owner of a saga; returns its number.

        Raises:
            SagaNotFound: There is none.
        """
        ...

    async def requests(self, owner: str) -> Sequence[Request]:
        """Requests for sagas of `owner` that nobody has answered, oldest first."""
        ...

    async def answer(self, number: int, answer: Answer) -> None:
        """Say what became of a request. The first answer stands; an unknown number is passed over."""
        ...

    async def answered(self, number: int) -> Answer | None:
        """What became of a request; `None`: nothing yet."""
        ...
