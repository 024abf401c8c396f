"""Whoever is cancelled takes nobody else along: actions that swallow it, callers that stop waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence

import pytest

from compensate import Coordinator, RolledBack, Unavailable, action, saga
from compensate.core.events import Event
from compensate.core.standing import Standing
from compensate.stores.base import StoredSaga
from compensate.stores.memory import MemoryStore

calls: list[str] = []
listening: list[asyncio.Event] = []


@pytest.fixture(autouse=True)
def _forget() -> None:
    calls.clear()
    listening[:] = [asyncio.Event()]


async def _swallow(name: str) -> str:
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        calls.append(f"{name} was cancelled")
    return name


@action
async def left() -> str:
    return await _swallow("left")


@left.undo
async def undo_left(name: str) -> None:
    await asyncio.sleep(0)
    calls.append("undo left")


@action
async def right() -> str:
    return await _swallow("right")


@right.undo
async def undo_right(name: str) -> None:
    await asyncio.sleep(0)
    calls.append("undo right")


@action
async def join(one: str, other: str) -> str:
    return one + other


@saga
def both() -> str:
    return join(left(), right())


@saga
def one() -> str:
    return left()


async def test_actions_side_by_side_that_swallow_their_cancellation_are_undone() -> None:
    async with Coordinator("memory://", sagas=[both]) as coordinator:
        run = await coordinator.start(both)
        await asyncio.sleep(0.01)
        await coordinator.rollback(run.id, grace=0)
        with pytest.raises(RolledBack):
            await asyncio.wait_for(run.result(), 10)
    assert sorted(calls) == ["left was cancelled", "right was cancelled", "undo left", "undo right"]


async def test_a_lone_action_that_swallows_its_cancellation_is_undone() -> None:
    async with Coordinator("memory://", sagas=[one]) as coordinator:
        run = await coordinator.start(one)
        await asyncio.sleep(0.01)
        await coordinator.rollback(run.id, grace=0)
        with pytest.raises(RolledBack):
            await asyncio.wait_for(run.result(), 10)
    assert calls == ["left was cancelled", "undo left"]


class Slow(MemoryStore):
    """Says only after a while that a write is durable."""

    writing = 0

    def append(
        self,
        saga_id: str,
        epoch: int,
        expected_seq: int,
        events: Sequence[Event],
        standing: Standing,
        created_at: float | None = None,
    ) -> Awaitable[None]:
        super().append(saga_id, epoch, expected_seq, events, standing, created_at)
        return self._later()

    async def _later(self) -> None:
        self.writing += 1
        await asyncio.sleep(0.03)
        self.writing -= 1


@action
async def wait() -> int:
    await asyncio.sleep(0.1)
    return 1


@action
async def pass_on(x: int) -> int:
    return x


@saga
def chain() -> int:
    return pass_on(wait())


async def test_a_request_whose_caller_gives_up_during_the_write_is_carried_out_and_harms_nobody() -> None:
    store = Slow()
    async with Coordinator(store, sagas=[chain]) as coordinator:
        run = await coordinator.start(chain)
        asking = asyncio.ensure_future(coordinator.pause(run.id))
        await asyncio.sleep(0.01)
        assert store.writing == 1
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await asyncio.sleep(0.2)
        assert (await coordinator.get(run.id)).record.paused
        await coordinator.resume(run.id)
        assert await asyncio.wait_for(run.result(), 10) == 1


async def test_a_caller_that_gives_up_while_another_request_is_written_does_not_break_that_one() -> None:
    store = Slow()
    async with Coordinator(store, sagas=[chain]) as coordinator:
        run = await coordinator.start(chain)
        first = asyncio.ensure_future(coordinator.pause(run.id))
        await asyncio.sleep(0.01)
        second = asyncio.ensure_future(coordinator.resume(run.id))
        await asyncio.sleep(0.01)
        assert store.writing == 1
        second.cancel()
        await first
        with pytest.raises(asyncio.CancelledError):
            await second
        await coordinator.resume(run.id)
        assert await asyncio.wait_for(run.result(), 10) == 1


@action
async def never_listens() -> int:
    while not listening[0].is_set():
        try:
            await listening[0].wait()
        except asyncio.CancelledError:
            calls.append("not now")
    return 1


@saga
def stubborn() -> int:
    return never_listens()


async def test_an_action_that_never_listens_to_cancellation_does_not_keep_its_coordinator_from_closing() -> (
    None
):
    store = MemoryStore()
    coordinator = Coordinator(store, sagas=[stubborn], drain=0.05)
    await coordinator.__aenter__()
    run = await coordinator.start(stubborn)
    await asyncio.sleep(0.01)
    await asyncio.wait_for(coordinator.close(), 10)
    assert calls
    assert await store.claim_one(run.id, "another", 0.0) is None  # nobody may have it while that works on
    listening[0].set()
    await asyncio.sleep(0.05)
    assert await store.claim_one(run.id, "another", 0.0) is not None
    assert [event.type for event in await store.events(run.id)] == ["saga_created", "started"]


class Fails(MemoryStore):
    """Fails one append at once, though it was done; and is slow to read."""

    failed = failing = False
    appended_before_read = 0

    def append(
        self,
        saga_id: str,
        epoch: int,
        expected_seq: int,
        events: Sequence[Event],
        standing: Standing,
        created_at: float | None = None,
    ) -> None:
        super().append(saga_id, epoch, expected_seq, events, standing, created_at)
        if self.failing:
            self.appended_before_read += 1
        elif not self.failed and any(event.type == "saga_paused" for event in events):
            self.failed = self.failing = True
            raise Unavailable("the reply was lost")

    async def load(self, saga_id: str) -> StoredSaga:
        if self.failing:
            await asyncio.sleep(0.05)
            self.failing = False
        return await super().load(saga_id)


async def test_nothing_is_written_while_the_log_is_read_again_after_a_write_that_failed_at_once() -> None:
    store = Fails()
    async with Coordinator(store, sagas=[chain]) as coordinator:
        run = await coordinator.start(chain)
        pausing = asyncio.ensure_future(coordinator.pause(run.id))
        await asyncio.sleep(0.01)
        assert store.failing
        await coordinator.resume(run.id)
        await pausing
        assert await asyncio.wait_for(run.result(), 10) == 1
    assert store.appended_before_read == 0
