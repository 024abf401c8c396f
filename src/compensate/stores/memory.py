"""A store in memory: for tests, for drills, and for sagas that need not outlive the process.

Coordinators of one process and one event loop may share it. Nothing survives the process.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from heapq import nsmallest
from math import inf

from compensate.codec.records import from_rows, to_rows
from compensate.core.events import Event
from compensate.core.standing import Standing
from compensate.core.states import COMPLETED, ENDS, ROLLED_BACK, STUCK, SagaStatus
from compensate.errors import CompensateError
from compensate.stores.base import (
    Answer,
    Damaged,
    Done,
    NewSaga,
    Page,
    Request,
    SagaRecord,
    StoredSaga,
    Verb,
)
from compensate.stores.common import (
    another,
    checked,
    claim_order,
    cursor_at,
    cursor_key,
    exists,
    fits,
    in_hand,
    not_found,
    not_over,
    refusal,
)


class _Saga:
    """One saga. When it was last updated stands in its last event."""

    __slots__ = (
        "created_at",
        "dag",
        "died",
        "epoch",
        "events",
        "fingerprint",
        "id",
        "last_seq",
        "name",
        "owner",
        "standing",
    )

    def __init__(self, new: NewSaga, owner: str | None) -> None:
        self.id = new.id
        self.name = new.name
        self.fingerprint = new.fingerprint
        self.dag = new.dag
        self.standing = new.standing
        self.died = False
        self.epoch = 1
        self.owner = owner
        self.events = list(new.events)
        self.last_seq = len(self.events)
        self.created_at = float(new.at)

    @property
    def status(self) -> SagaStatus:
        return self.standing.status

    def record(self) -> SagaRecord:
        return SagaRecord(
            self.id,
            self.name,
            self.fingerprint,
            self.standing.status,
            self.standing.paused,
            self.standing.parked,
            self.epoch,
            self.owner,
            self.last_seq,
            self.created_at,
            float(self.events[-1].at),
            self.standing.deaths,
            self.died,
        )


class MemoryStore:
    """Keeps sagas in memory. Every write is done when its call returns."""

    url = "memory://"

    def __init__(self) -> None:
        self._sagas: dict[str, _Saga] = {}
        self._open: dict[str, _Saga] = {}
        """Those that are neither completed nor rolled back."""
        self._leases: dict[str, float] = {}
        self._drained: set[str] = set()
        self._requests: dict[int, tuple[Request, Answer | None]] = {}
        self._posted = 0
        self._dags: set[str] = set()
        """Fingerprints that were checked."""

    async def open(self) -> None:
        """Do nothing; may be called again."""

    async def close(self) -> None:
        """Do nothing: whoever still holds the store may open it again and finds everything there."""

    # -- owners ------------------------------------------------------------

    async def join(self, owner: str, now: float, lease: float) -> None:
        """As `Store.join`."""
        self._drained.discard(owner)
        self._leases[owner] = now + lease

    async def renew(self, owner: str, now: float, lease: float) -> bool:
        """As `Store.renew`."""
        if not self._alive(owner, now):
            return False
        if owner not in self._drained:
            self._leases[owner] = now + lease
        return True

    async def leave(self, owner: str, keep: Collection[str] = ()) -> None:
        """As `Store.leave`. The process is this one, so only `retire` ends an owner that kept sagas."""
        for saga in self._sagas.values():
            if saga.owner == owner and saga.id not in keep:
                saga.owner = None
        if keep:
            self._drained.add(owner)
            self._leases[owner] = inf
        else:
            self._drained.discard(owner)
            self._leases.pop(owner, None)

    def retire(self, owner: str) -> None:
        """As `Store.retire`."""
        if owner in self._drained:
            self._leases.pop(owner, None)

    def _died(self, saga: _Saga, claimant: str) -> bool:
        """Whether a saga that `claimant` may claim has lost its process."""
        return saga.died or (saga.owner not in (None, claimant) and saga.owner not in self._drained)

    def _alive(self, owner: str, now: float) -> bool:
        until = self._leases.get(owner)
        return until is not None and now < until

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
        free = [
            (claim_order(saga.standing.deaths + self._died(saga, owner), saga.created_at, saga.id), saga)
            for saga in self._open.values()
            if (saga.status != STUCK or (parked and saga.standing.parked))
            and saga.owner != owner
            and (saga.owner is None or not self._alive(saga.owner, now))
        ]
        claimed: list[StoredSaga | Damaged] = []
        asked = [
            (order, saga) for order, saga in free if order[0] >= least and (below is None or order[0] < below)
        ]
        for _, saga in nsmallest(limit, asked, key=lambda one: one[0]):
            self._take(saga, owner)
            try:
                claimed.append(self._load(saga))
            except CompensateError as error:
                claimed.append(Damaged(saga.id, error))
        return claimed

    async def claim_one(self, saga_id: str, owner: str, now: float) -> StoredSaga | None:
        """As `Store.claim_one`."""
        saga = self._find(saga_id)
        if saga.owner is not None and saga.owner != owner and self._alive(saga.owner, now):
            return None
        self._load(saga)
        self._take(saga, owner)
        return self._load(saga)

    def _take(self, saga: _Saga, owner: str) -> None:
        saga.died = self._died(saga, owner)
        saga.owner = owner
        saga.epoch += 1

    def release(self, saga_id: str, epoch: int, created_at: float | None = None) -> Done:
        """As `Store.release`."""
        saga = self._sagas.get(saga_id)
        if saga is not None and saga.epoch == epoch and created_at in (None, saga.created_at):
            saga.owner = None
        return None

    # -- logs --------------------------------------------------------------

    def create(self, saga: NewSaga, owner: str) -> Done:
        """As `Store.create`."""
        if saga.id in self._sagas:
            raise exists(saga.id)
        if not fits(saga.events, 1, 0):
            raise refusal(saga.id, 1, 0, saga.events, 1, 0)
        made = self._sagas[saga.id] = _Saga(saga, None if saga.standing.status in ENDS else owner)
        if saga.standing.status not in (COMPLETED, ROLLED_BACK):
            self._open[saga.id] = made
        return None

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
        saga = self._sagas.get(saga_id)
        if saga is None:
            raise not_found(saga_id)
        if created_at is not None and saga.created_at != created_at:
            raise another(saga_id)
        if saga.epoch != epoch or saga.last_seq != expected_seq:
            raise refusal(saga_id, epoch, expected_seq, events, saga.epoch, saga.last_seq)
        # `fits` spelled out, as this stands on the path of every action.
        seq = expected_seq
        for event in events:
            seq += 1
            if event.seq != seq or event.epoch != epoch:
                raise refusal(saga_id, epoch, expected_seq, events, epoch, expected_seq)
        if seq == expected_seq:
            raise refusal(saga_id, epoch, expected_seq, events, epoch, expected_seq)
        saga.events += events
        saga.last_seq = seq
        saga.died = False
        if standing is not saga.standing:
            self._turn(saga, standing)
        return None

    def _turn(self, saga: _Saga, standing: Standing) -> None:
        """The saga stands in another way."""
        saga.standing = standing
        status = standing.status
        if status in ENDS:
            saga.owner = None
        if status in (COMPLETED, ROLLED_BACK):
            self._open.pop(saga.id, None)
        else:
            self._open[saga.id] = saga

    # -- reading -----------------------------------------------------------

    def _find(self, saga_id: str) -> _Saga:
        saga = self._sagas.get(saga_id)
        if saga is None:
            raise not_found(saga_id)
        return saga

    def _load(self, saga: _Saga) -> StoredSaga:
        events = from_rows(saga.id, to_rows(saga.events, 0))
        return checked(saga.record(), saga.dag, events, self._dags)

    async def load(self, saga_id: str) -> StoredSaga:
        """As `Store.load`."""
        return self._load(self._find(saga_id))

    async def events(self, saga_id: str, after: int = 0) -> list[Event]:
        """As `Store.events`."""
        return self._load(self._find(saga_id)).events[max(after, 0) :]

    async def page(
        self,
        *,
        status: SagaStatus | None = None,
        name: str | None = None,
        cursor: str | None = None,
        limit: int = 100,
    ) -> Page:
        """As `Store.page`."""
        sagas = [
            saga
            for saga in self._sagas.values()
            if (status is None or saga.status == status) and (name is None or saga.name == name)
        ]
        if cursor is not None:
            at, saga_id = cursor_key(cursor)
            sagas = [saga for saga in sagas if (-saga.created_at, saga.id) > (-at, saga_id)]
        found = nsmallest(limit + 1, sagas, key=lambda saga: (-saga.created_at, saga.id))
        records = [saga.record() for saga in found[:limit]]
        return Page(records, cursor_at(records[-1]) if len(found) > limit else None)

    async def delete(self, saga_id: str) -> None:
        """As `Store.delete`."""
        saga = self._find(saga_id)
        if saga.status not in (COMPLETED, ROLLED_BACK):
            raise not_over(saga_id, saga.status)
        if saga.owner is not None and saga.owner in self._leases:
            raise in_hand(saga_id, saga.owner)
        del self._sagas[saga_id]
        self._requests = {
            number: kept for number, kept in self._requests.items() if kept[0].saga_id != saga_id
        }

    # -- operators' requests -----------------------------------------------

    async def post(self, saga_id: str, verb: Verb, data: bytes, now: float) -> int:
        """As `Store.post`."""
        self._find(saga_id)
        self._posted += 1
        self._requests[self._posted] = (Request(self._posted, saga_id, verb, data), None)
        return self._posted

    async def requests(self, owner: str) -> Sequence[Request]:
        """As `Store.requests`."""
        return [
            request
            for request, answer in self._requests.values()
            if answer is None and self._sagas[request.saga_id].owner == owner
        ]

    async def answer(self, number: int, answer: Answer) -> None:
        """As `Store.answer`."""
        kept = self._requests.get(number)
        if kept is not None and kept[1] is None:
            self._requests[number] = (kept[0], answer)

    async def answered(self, number: int) -> Answer | None:
        """As `Store.answered`."""
        kept = self._requests.get(number)
        return None if kept is None else kept[1]
