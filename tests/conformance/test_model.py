"""Any sequence of calls leaves a store as a simple model of it says.

The stores run on their own; the model below knows nothing of how they work.
"""

from __future__ import annotations

import asyncio
import math
import tempfile
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from compensate.core import events as e
from compensate.core.events import Event
from compensate.core.standing import PLAIN, Standing
from compensate.core.states import ENDS, SagaStatus
from compensate.errors import CompensateError, Conflict, Fenced, IllegalRequest, SagaExists, SagaNotFound
from compensate.stores.base import Store, StoredSaga
from compensate.testing.conformance import Place
from compensate.testing.conformance.tools import ODD_IDS, done, new
from tests.conformance.places import PLACES

OWNERS = ("one", "two", "it's")
IDS = ("a", "b", *ODD_IDS[:2], ODD_IDS[-1])
STATUSES: tuple[SagaStatus, ...] = ("running", "rolling_back", "completed", "rolled_back", "stuck")


@dataclass
class Saga:
    """What the model knows of one saga."""

    at: float
    owner: str | None
    status: SagaStatus
    epoch: int = 1
    parked: bool = False
    paused: bool = False
    deaths: int = 0
    died: bool = False
    events: list[Event] = field(default_factory=list)


class StoreMachine(RuleBasedStateMachine):
    """One store, two views of it where there can be two; time only goes forward."""

    place: Callable[[Path], Place]

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        place = type(self).place(Path(self.folder.name))
        self.stores: list[Store] = [place.store(), place.store()]
        for store in self.stores:
            self.run(store.open())
        self.home = {owner: self.stores[number % 2] for number, owner in enumerate(OWNERS)}
        self.now = 1_000.0
        self.leases: dict[str, float] = {}
        self.drained: set[str] = set()
        self.sagas: dict[str, Saga] = {}

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(coroutine)

    def teardown(self) -> None:
        for store in self.stores:
            self.run(store.close())
        self.runner.close()
        self.folder.cleanup()

    def alive(self, owner: str | None) -> bool:
        return owner is not None and self.now < self.leases.get(owner, 0.0)

    def attempt(self, expected: type[CompensateError] | None, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run; it must raise just what the model expects."""
        result: Any = None
        raised: CompensateError | None = None
        try:
            result = self.run(coroutine)
        except CompensateError as error:
            raised = error
        assert (None if raised is None else type(raised)) is expected, raised
        return result

    @rule(seconds=st.sampled_from([0.5, 5.0, 20.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(owner=st.sampled_from(OWNERS))
    def join(self, owner: str) -> None:
        self.run(self.home[owner].join(owner, self.now, 10.0))
        if owner not in self.leases:
            for saga in self.sagas.values():
                assert saga.owner != owner
        self.leases[owner] = self.now + 10.0
        self.drained.discard(owner)

    @rule(owner=st.sampled_from(OWNERS))
    def renew(self, owner: str) -> None:
        assert self.run(self.home[owner].renew(owner, self.now, 10.0)) == self.alive(owner)
        if self.alive(owner) and owner not in self.drained:
            self.leases[owner] = self.now + 10.0

    @rule(owner=st.sampled_from(OWNERS), keep=st.sets(st.sampled_from(IDS), max_size=2))
    def leave(self, owner: str, keep: set[str]) -> None:
        if owner not in self.leases:
            keep = set()
        self.run(self.home[owner].leave(owner, keep))
        if keep:
            self.drained.add(owner)
            self.leases[owner] = math.inf
        else:
            self.drained.discard(owner)
            self.leases.pop(owner, None)
        for saga_id, saga in self.sagas.items():
            if saga.owner == owner and saga_id not in keep:
                saga.owner = None

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), saga_id=st.sampled_from(IDS), status=st.sampled_from(["running", "completed"]))
    def create(self, data: st.DataObject, saga_id: str, status: SagaStatus) -> None:
        owner = data.draw(st.sampled_from(sorted(self.leases)))
        saga = new(saga_id, self.now, status)

        async def call() -> None:
            await done(self.home[owner].create(saga, owner))

        self.attempt(SagaExists if saga_id in self.sagas else None, call())
        if saga_id not in self.sagas:
            held = None if status in ENDS else owner
            self.sagas[saga_id] = Saga(self.now, held, status, events=list(saga.events))

    @rule(
        saga_id=st.sampled_from(IDS),
        behind=st.sampled_from([0, 0, 0, 0, -1, 1]),
        older=st.sampled_from([0, 0, 0, 0, -1, 1]),
        kinds=st.lists(
            st.sampled_from([e.STARTED, e.COMPLETED, e.SAGA_PAUSED]),
            min_size=1,
            max_size=4,
        ),
        status=st.sampled_from(STATUSES),
        paused=st.booleans(),
        parked=st.booleans(),
        deaths=st.sampled_from([0, 0, 2, 3]),
        view=st.integers(0, 1),
    )
    def append(
        self,
        saga_id: str,
        behind: int,
        older: int,
        kinds: list[str],
        status: SagaStatus,
        paused: bool,
        parked: bool,
        deaths: int,
        view: int,
    ) -> None:
        saga = self.sagas.get(saga_id)
        epoch = (saga.epoch if saga else 1) + older
        seq = (len(saga.events) if saga else 1) + behind
        payload: dict[str, e.Data] = {
            e.COMPLETED: e.Completed(b"[1]"),
            e.SAGA_PAUSED: e.Decided("me"),
        }
        parked = parked and status == "stuck"
        plain = not (paused or parked or deaths)
        standing = PLAIN[status] if plain else Standing(status, paused, parked, deaths)
        events = [
            Event(number, epoch, self.now, kind, "" if kind.startswith("saga") else "n", 1, payload.get(kind))
            for number, kind in enumerate(kinds, seq + 1)
        ]

        async def call() -> None:
            await done(self.stores[view].append(saga_id, epoch, seq, events, standing))

        expected = SagaNotFound if saga is None else Fenced if older else Conflict if behind else None
        self.attempt(expected, call())
        if saga is None or expected is not None:
            return
        saga.events += events
        saga.status, saga.paused, saga.parked, saga.deaths = status, paused, parked, deaths
        saga.died = False
        if status in ENDS:
            saga.owner = None

    @precondition(lambda self: self.leases)
    @rule(
        data=st.data(),
        limit=st.integers(1, 4),
        parked=st.booleans(),
        least=st.sampled_from([0, 0, 1, 2]),
        below=st.sampled_from([None, None, 2, 3]),
    )
    def claim(self, data: st.DataObject, limit: int, parked: bool, least: int, below: int | None) -> None:
        owner = data.draw(st.sampled_from(sorted(self.leases)))
        free = [
            (deaths, -saga.at if deaths in (3, 5) else saga.at, saga_id)
            for saga_id, saga in self.sagas.items()
            if (saga.status in ("running", "rolling_back") or (parked and saga.parked))
            and saga.owner != owner
            and not self.alive(saga.owner)
            for deaths in [saga.deaths + (saga.died or saga.owner is not None)]
            if least <= deaths and (below is None or deaths < below)
        ]
        call = self.home[owner].claim(owner, self.now, limit=limit, parked=parked, least=least, below=below)
        claimed = self.run(call)
        assert [found.record.id for found in claimed] == [saga_id for *_, saga_id in sorted(free)[:limit]]
        for found in claimed:
            self.taken(found, owner)

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), saga_id=st.sampled_from(IDS))
    def claim_one(self, data: st.DataObject, saga_id: str) -> None:
        owner = data.draw(st.sampled_from(sorted(self.leases)))
        saga = self.sagas.get(saga_id)
        expected = SagaNotFound if saga is None else None
        found = self.attempt(expected, self.home[owner].claim_one(saga_id, owner, self.now))
        if saga is not None and saga.owner != owner and self.alive(saga.owner):
            assert found is None
        elif saga is not None:
            self.taken(found, owner)

    def taken(self, found: StoredSaga, owner: str) -> None:
        saga = self.sagas[found.record.id]
        saga.died = saga.died or saga.owner not in (None, owner)
        saga.owner = owner
        saga.epoch += 1
        assert (found.record.owner, found.record.epoch) == (owner, saga.epoch)
        assert found.events == saga.events
        assert found.died is saga.died

    @rule(saga_id=st.sampled_from(IDS), older=st.sampled_from([0, 0, 1]))
    def release(self, saga_id: str, older: int) -> None:
        saga = self.sagas.get(saga_id)
        epoch = (saga.epoch if saga else 1) - older

        async def call() -> None:
            await done(self.stores[0].release(saga_id, epoch))

        self.run(call())
        if saga is not None and not older:
            saga.owner = None

    @rule(saga_id=st.sampled_from(IDS))
    def delete(self, saga_id: str) -> None:
        saga = self.sagas.get(saga_id)
        expected: type[CompensateError] | None = None
        if saga is None:
            expected = SagaNotFound
        elif saga.status not in ("completed", "rolled_back") or saga.owner in self.leases:
            expected = IllegalRequest
        self.attempt(expected, self.stores[0].delete(saga_id))
        if expected is None:
            del self.sagas[saga_id]

    @invariant()
    def all_is_as_the_model_says(self) -> None:
        for store in self.stores:
            page = self.run(store.page(limit=100))
            order = sorted(self.sagas, key=lambda saga_id: (-self.sagas[saga_id].at, saga_id))
            assert [record.id for record in page.records] == order
            for record in page.records:
                saga = self.sagas[record.id]
                assert (record.owner, record.status, record.epoch) == (saga.owner, saga.status, saga.epoch)
                assert (record.paused, record.parked) == (saga.paused, saga.parked)
                assert (record.deaths, record.died) == (saga.deaths, saga.died)
                found = self.run(store.load(record.id))
                assert found.record == record
                assert found.events == saga.events
                assert record.updated_at == saga.events[-1].at


@pytest.mark.parametrize("kind", PLACES)
def test_any_sequence_of_calls_leaves_the_store_as_its_model(kind: str, deep: bool) -> None:
    machine = type(f"{kind}Machine", (StoreMachine,), {"place": staticmethod(PLACES[kind])})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=500 if deep else 25, stateful_step_count=40, deadline=None, derandomize=True
        ),
    )
