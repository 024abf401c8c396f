"""A store that fails for a while, or whose files are taken away: nothing is lost, nobody is misled, nothing spins."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from compensate import Coordinator, Stopped, Stuck, Unavailable, action, saga
from compensate.core.events import Event
from compensate.core.standing import Standing
from compensate.stores.base import StoredSaga
from compensate.stores.memory import MemoryStore
from compensate.testing.virtual_time import VirtualTime


@action
async def pass_on(x: int) -> int:
    return x


@saga
def chain(x: int) -> int:
    return pass_on.options(name="second")(pass_on(x))


class Full(MemoryStore):
    """Has no room for appends for a minute, and can be read all the while."""

    def __init__(self, time: VirtualTime) -> None:
        super().__init__()
        self.virtual = time
        self.room_at = time.now() + 60
        self.refused: list[float] = []

    def append(
        self,
        saga_id: str,
        epoch: int,
        expected_seq: int,
        events: Sequence[Event],
        standing: Standing,
        created_at: float | None = None,
    ) -> None:
        if self.virtual.now() < self.room_at:
            self.refused.append(self.virtual.now())
            raise Unavailable("the disk is full")
        super().append(saga_id, epoch, expected_seq, events, standing, created_at)


def test_while_appends_keep_failing_they_are_tried_ever_more_slowly_and_the_saga_ends_when_they_succeed(
    virtual_time: VirtualTime,
) -> None:
    loop = virtual_time.new_loop()
    store = Full(virtual_time)

    async def run() -> int:
        async with Coordinator(store, sagas=[chain], clock=virtual_time) as coordinator:
            return await coordinator.run(chain, 1)

    assert loop.run_until_complete(run()) == 1
    pauses = [after - before for before, after in zip(store.refused, store.refused[1:], strict=False)]
    assert 10 < len(store.refused) < 30
    assert pauses[0] <= 0.1
    assert pauses == sorted(pauses)
    assert virtual_time.now() < store.room_at + 10
    loop.close()


async def test_a_start_is_not_acknowledged_once_the_sqlite_file_is_gone_and_goes_on_when_it_is_back(
    tmp_path: Path,
) -> None:
    path, away = tmp_path / "s.db", tmp_path / "away.db"
    async with Coordinator(f"sqlite:///{path}", sagas=[chain]) as coordinator:
        assert await coordinator.run(chain, 1) == 1
        path.rename(away)
        with pytest.raises(Unavailable, match="removed or replaced"):
            await coordinator.start(chain.with_id("lost"), 2)
        with pytest.raises(Unavailable, match="removed or replaced"):  # many at once go by another way
            await asyncio.gather(*(coordinator.start(chain, n) for n in range(5)))
        path.touch()
        with pytest.raises(Unavailable, match="removed or replaced"):
            await coordinator.start(chain.with_id("lost"), 2)
        away.rename(path)
        assert await coordinator.run(chain.with_id("lost"), 2) == 2


async def test_no_write_hangs_while_the_sqlite_file_cannot_be_reached(tmp_path: Path) -> None:
    folder, away = tmp_path / "folder", tmp_path / "away"
    folder.mkdir()
    async with Coordinator(f"sqlite:///{folder}/s.db", sagas=[chain]) as coordinator:
        folder.rename(away)
        folder.touch()  # where the folder was is a file
        results = await asyncio.wait_for(
            asyncio.gather(*(coordinator.start(chain, n) for n in range(5)), return_exceptions=True), 10
        )
        assert [type(result) for result in results] == [Unavailable] * 5
        folder.unlink()
        away.rename(folder)
        assert await coordinator.run(chain, 2) == 2


class Away(MemoryStore):
    """Can neither be read nor appended to while it is away."""

    away = False
    missed = 0

    def append(
        self,
        saga_id: str,
        epoch: int,
        expected_seq: int,
        events: Sequence[Event],
        standing: Standing,
        created_at: float | None = None,
    ) -> None:
        self._look()
        super().append(saga_id, epoch, expected_seq, events, standing, created_at)

    async def load(self, saga_id: str) -> StoredSaga:
        self._look()
        return await super().load(saga_id)

    def _look(self) -> None:
        if self.away:
            self.missed += 1
            raise Unavailable("the store is away")


@pytest.mark.parametrize("drain", [0.0, 0.05])
async def test_a_request_that_a_failing_store_keeps_waiting_is_answered_when_the_coordinator_is_shut_down(
    drain: float,
) -> None:
    store = Away()
    async with Coordinator(store, drain=drain) as coordinator:
        run = await coordinator.start(held, 1)
        await asyncio.sleep(0)
        store.away = True
        pausing = asyncio.create_task(coordinator.pause(run.id))
        while store.missed < 2:  # noqa: ASYNC110 - the store is asked from within
            await asyncio.sleep(0.001)
    with pytest.raises(Stopped):
        await asyncio.wait_for(pausing, 10)


class LosesOne(MemoryStore):
    """Refuses one append that records an event of a certain type."""

    losing = ""
    lost = 0

    def append(
        self,
        saga_id: str,
        epoch: int,
        expected_seq: int,
        events: Sequence[Event],
        standing: Standing,
        created_at: float | None = None,
    ) -> None:
        if any(event.type == self.losing for event in events):
            self.losing = ""
            self.lost += 1
            raise Unavailable("the append was lost")
        super().append(saga_id, epoch, expected_seq, events, standing, created_at)


@action
async def hold(x: int) -> int:
    await asyncio.sleep(60)
    return x


@saga
def held(x: int) -> int:
    return pass_on(hold(x))


async def _leave_running(store: MemoryStore) -> str:
    async with Coordinator(store, sagas=[held], drain=0) as coordinator:
        return (await coordinator.start(held, 1)).id


async def test_a_saga_is_parked_also_when_the_append_that_says_so_is_lost_at_first() -> None:
    store = LosesOne()
    saga_id = await _leave_running(store)
    store.losing = "saga_stuck"
    async with Coordinator(store, poll=0.01) as coordinator:
        with pytest.raises(Stuck, match="parked"):
            await asyncio.wait_for(coordinator.attach(saga_id).result(), 10)
        assert (await coordinator.get(saga_id)).record.parked
    assert store.lost == 1


async def test_a_parked_saga_goes_on_and_is_paused_as_asked_also_when_that_append_is_lost_at_first() -> None:
    store = LosesOne()
    saga_id = await _leave_running(store)
    async with Coordinator(store):
        assert (await store.load(saga_id)).record.parked
    store.losing = "saga_unparked"
    async with Coordinator(store, sagas=[held], recover=False, drain=0) as coordinator:
        await coordinator.pause(saga_id)
        record = (await coordinator.get(saga_id)).record
        assert (record.status, record.parked, record.paused) == ("running", False, True)
    assert store.lost == 1
