"""Checks of who owns a saga, and who may write to it."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from functools import partial

from msgspec import structs

from compensate.core import events as e
from compensate.core.standing import Standing
from compensate.errors import (
    CorruptLog,
    Fenced,
)
from compensate.stores.base import Damaged, Store, StoredSaga
from compensate.testing.conformance.tools import (
    LATER,
    LEASE,
    NOW,
    ROLLING_BACK,
    RUNNING,
    Place,
    check,
    done,
    end,
    ids,
    new,
    opened,
    refused,
    saga_event,
    steps,
)


@check
async def a_live_owner_is_never_robbed(place: Place) -> None:
    """Until the instant when its lease has run out."""
    async with opened(place) as first, opened(place) as second:
        await first.join("one", NOW, LEASE)
        await second.join("two", NOW, LEASE * 9)
        await done(first.create(new("s"), "one"))
        for now in (NOW, LATER - 0.001):
            assert await second.claim("two", now, limit=10) == []
            assert await second.claim_one("s", "two", now) is None
        await done(first.append("s", 1, 1, steps(2), RUNNING))
        assert ids(await second.claim("two", LATER, limit=10)) == ["s"]
        record = (await first.load("s")).record
        assert (record.owner, record.epoch, record.last_seq) == ("two", 2, 3)
        await refused(Fenced, lambda: first.append("s", 1, 3, steps(4), RUNNING))
        await done(second.append("s", 2, 3, steps(4, epoch=2), RUNNING))
        assert [event.epoch for event in await first.events("s")] == [1, 1, 1, 2, 2]


@check
async def claim_one_takes_a_saga_whose_owner_is_not_alive(place: Place) -> None:
    """Whatever its status; also from its own owner, and one that nobody has."""
    async with opened(place) as store:
        await store.join("one", NOW, LEASE)
        await store.join("two", NOW, LEASE * 9)
        for status in ("completed", "rolled_back", "stuck"):
            await done(store.create(new(status), "one"))
            await end(store, status, status)
            taken = await store.claim_one(status, "two", NOW)
            assert taken is not None
            assert (taken.record.owner, taken.record.epoch, len(taken.events)) == ("two", 2, 2)
            assert await store.claim_one(status, "one", NOW) is None
        await done(store.create(new("s"), "one"))
        own = await store.claim_one("s", "one", NOW)
        assert own is not None
        assert own.record.epoch == 2
        assert await store.claim_one("s", "two", NOW) is None
        late = await store.claim_one("s", "two", LATER)
        assert late is not None
        assert (late.record.owner, late.record.epoch) == ("two", 3)
        assert late == await store.load("s")


@check
async def each_claim_raises_the_epoch_by_one(place: Place) -> None:
    """And the claimed saga comes whole, as it is now stored."""
    async with opened(place) as store:
        await done(store.create(new("s"), "nobody that joined"))
        for epoch in range(2, 8):
            owner = f"owner-{epoch}"
            await store.join(owner, NOW, LEASE)
            (claimed,) = await store.claim(owner, NOW, limit=10)
            assert isinstance(claimed, StoredSaga)
            assert (claimed.record.epoch, claimed.record.owner) == (epoch, owner)
            assert claimed == await store.load("s")
            seq = claimed.record.last_seq
            await done(store.append("s", epoch, seq, steps(seq + 1, epoch=epoch), RUNNING))
            await store.leave(owner)
        assert [event.epoch for event in await store.events("s")] == [
            1,
            *(n for n in range(2, 8) for _ in "ab"),
        ]


@check
async def an_owner_that_leaves_releases_its_sagas(place: Place) -> None:
    """Others can claim them at once."""
    async with opened(place) as store:
        await store.join("one", NOW, LEASE)
        await store.join("two", NOW, LEASE)
        await done(store.create(new("a"), "one"))
        await done(store.create(new("b"), "two"))
        await store.leave("one")
        assert (await store.load("a")).record.owner is None
        assert ids(await store.claim("two", NOW, limit=10)) == ["a"]
        assert not await store.renew("one", NOW, LEASE)


@check
async def a_released_saga_can_be_claimed_at_once(place: Place) -> None:
    """A release by an epoch that has passed does nothing."""
    async with opened(place) as store:
        await store.join("one", NOW, LEASE)
        await store.join("two", NOW, LEASE)
        await done(store.create(new("s"), "one"))
        await done(store.release("s", 1))
        assert ids(await store.claim("two", NOW, limit=10)) == ["s"]
        await done(store.release("s", 1))
        assert (await store.load("s")).record.owner == "two"
        assert await store.claim("one", NOW, limit=10) == []


@check
async def sagas_that_have_ended_are_not_claimed_and_parked_ones_only_when_asked_for(place: Place) -> None:
    """A stuck saga that is not parked waits for an operator."""
    async with opened(place) as store:
        await store.join("one", NOW, LEASE)
        for status in ("completed", "rolled_back", "stuck"):
            await done(store.create(new(status), "one"))
            await end(store, status, status)
        await done(store.create(new("parked"), "one"))
        await end(store, "parked", "stuck", parked="no such action")
        await done(store.create(new("back"), "one"))
        await done(
            store.append("back", 1, 1, saga_event(2, e.SAGA_ROLLBACK, e.Rollback("request")), ROLLING_BACK)
        )
        await store.leave("one")
        assert ids(await store.claim("two", NOW, limit=10)) == ["back"]
        assert ids(await store.claim("two", NOW, limit=10, parked=True)) == ["parked"]
        assert await store.claim("two", NOW, limit=10, parked=True) == []


@check
async def a_saga_that_goes_on_after_its_end_can_be_claimed_again(place: Place) -> None:
    """As when a completed saga is rolled back."""
    async with opened(place) as store:
        await store.join("one", NOW, LEASE)
        await done(store.create(new("s"), "one"))
        await end(store, "s", "completed")
        taken = await store.claim_one("s", "one", NOW)
        assert taken is not None
        again = saga_event(3, e.SAGA_ROLLBACK, e.Rollback("request"), epoch=2)
        await done(store.append("s", 2, 2, again, ROLLING_BACK))
        assert await store.claim("two", LATER - 1, limit=10) == []
        assert ids(await store.claim("two", LATER, limit=10)) == ["s"]


@check
async def the_oldest_sagas_are_claimed_first(place: Place) -> None:
    """As many as asked for, each once; and an owner's own are left alone, even when its lease has run out."""
    async with opened(place) as store:
        for number in (3, 1, 4, 0, 2):
            await done(store.create(new(f"s{number}", at=NOW + number // 2), "gone"))
        await store.join("one", NOW, LEASE)
        assert ids(await store.claim("one", NOW, limit=2)) == ["s0", "s1"]
        assert ids(await store.claim("one", LATER, limit=2)) == ["s2", "s3"]
        assert ids(await store.claim("one", LATER, limit=2)) == ["s4"]
        assert await store.claim("one", LATER, limit=2) == []


@check
async def a_renewed_lease_holds_and_one_that_ran_out_cannot_be_renewed(place: Place) -> None:
    """Its owner joins again, and keeps what nobody claimed."""
    async with opened(place) as first, opened(place) as second:
        await first.join("one", NOW, LEASE)
        await second.join("two", NOW, LEASE * 9)
        for saga_id in ("a", "b"):
            await done(first.create(new(saga_id), "one"))
        assert await first.renew("one", LATER - 1, LEASE)
        assert await second.claim("two", LATER, limit=10) == []
        assert not await first.renew("one", LATER - 1 + LEASE, LEASE)
        late = LATER + LEASE
        assert ids(await second.claim("two", late, limit=1)) == ["a"]
        await first.join("one", late, LEASE)
        assert await second.claim("two", late, limit=10) == []
        await done(first.append("b", 1, 1, steps(2), RUNNING))
        await refused(Fenced, lambda: first.append("a", 1, 1, steps(2), RUNNING))
        assert not await second.renew("three", NOW, LEASE)


@check
async def nothing_of_an_older_epoch_is_added_after_a_claim(place: Place) -> None:
    """While the old owner appends as fast as it can; and nothing that it was told is done gets lost (S9, S11)."""
    async with opened(place) as first, opened(place) as second:
        await first.join("one", NOW, LEASE)
        await second.join("two", NOW, LEASE * 9)
        names = [f"s{number}" for number in range(8)]
        for saga_id in names:
            await done(first.create(new(saga_id), "one"))
        acknowledged = dict.fromkeys(names, 1)
        busy = {saga_id: asyncio.Event() for saga_id in names}
        claimed: dict[str, StoredSaga] = {}

        async def write(saga_id: str) -> None:
            try:
                while True:
                    seq, late = acknowledged[saga_id], saga_id in claimed
                    await done(first.append(saga_id, 1, seq, steps(seq + 1), RUNNING))
                    assert not late, (
                        f"{saga_id}: an append of epoch 1 was accepted after the claim at epoch 2"
                    )
                    acknowledged[saga_id] += 2
                    if seq > 8:
                        busy[saga_id].set()
                    await asyncio.sleep(0)
            finally:
                busy[saga_id].set()

        writers = [asyncio.create_task(write(saga_id)) for saga_id in names]
        try:
            await asyncio.gather(*(busy[saga_id].wait() for saga_id in names))
            await _claim_all(second, claimed, len(names))
            for writer in writers:
                await refused(Fenced, partial(asyncio.wait_for, writer, None))
        finally:
            for writer in writers:
                writer.cancel()
            await asyncio.gather(*writers, return_exceptions=True)
        for saga_id, saga in claimed.items():
            assert acknowledged[saga_id] == saga.record.last_seq, (
                "an event was lost, or added behind the claim"
            )
            events = await second.events(saga_id)
            assert [event.epoch for event in events] == [1] * (len(events) - 2) + [2, 2]


async def _claim_all(store: Store, claimed: dict[str, StoredSaga], count: int) -> None:
    """Claim so many sagas, a few at a time, and append to each."""
    for _ in range(1_000):
        for saga in await store.claim("two", LATER, limit=3):
            assert isinstance(saga, StoredSaga)
            claimed[saga.record.id] = saga
            seq = saga.record.last_seq
            await done(store.append(saga.record.id, 2, seq, steps(seq + 1, epoch=2), RUNNING))
        if len(claimed) == count:
            return
        await asyncio.sleep(0)
    raise AssertionError(f"of {count} sagas whose owner's lease has run out, {len(claimed)} could be claimed")


@check
async def a_damaged_saga_does_not_hide_the_others(place: Place) -> None:
    """It is claimed and shown as damaged; nothing of it is returned as if it were whole."""
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(opened(place))
        await store.join("one", NOW, LEASE)
        for saga_id in ("a", "b", "c"):
            await done(store.create(new(saga_id), "one"))
            await done(store.append(saga_id, 1, 1, steps(2, 6), RUNNING))
        await store.leave("one")
        await store.close()
        if not place.damage("b"):
            return
        await store.open()
        error = await refused(CorruptLog, lambda: store.load("b"))
        assert "b" in str(error)
        await refused(CorruptLog, lambda: store.events("b"))
        await store.join("two", NOW, LEASE)
        await refused(CorruptLog, lambda: store.claim_one("b", "two", NOW))
        found = await store.claim("two", NOW, limit=10)
        assert ids(found) == ["a", "b", "c"]
        assert [type(saga) for saga in found] == [StoredSaga, Damaged, StoredSaga]
        assert [record.id for record in (await store.page()).records] == ["a", "b", "c"]


@check
async def who_wrote_to_a_deleted_saga_writes_nothing_into_a_later_one_with_its_id(place: Place) -> None:
    """Neither epoch nor seq tell the two apart, and two stores may be open: what `created_at` says is checked."""
    async with opened(place) as first, opened(place) as second:
        await done(first.create(structs.replace(new("s"), at=NOW), "one"))
        await done(second.append("s", 1, 1, saga_event(2, e.SAGA_COMPLETED), Standing("completed"), NOW))
        await second.delete("s")
        await done(second.create(structs.replace(new("s"), at=NOW + 1), "two"))
        await refused(Fenced, lambda: first.append("s", 1, 1, steps(2), RUNNING, NOW))
        await done(first.release("s", 1, NOW))
        record = (await first.load("s")).record
        assert (record.owner, record.last_seq, record.created_at) == ("two", 1, NOW + 1)
        await done(second.append("s", 1, 1, steps(2), RUNNING, NOW + 1))
        await refused(Fenced, lambda: first.append("s", 1, 3, steps(4), RUNNING, NOW))
        await done(second.append("s", 1, 3, steps(4), RUNNING, NOW + 1))
        assert len(await first.events("s")) == 5
        await done(second.release("s", 1, NOW + 1))
        assert (await first.load("s")).record.owner is None
