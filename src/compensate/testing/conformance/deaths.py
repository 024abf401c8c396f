"""Checks of which end of an owner counts as a death, and of how sagas are claimed by it."""

from __future__ import annotations

import threading

from compensate.core import events as e
from compensate.core.standing import Standing
from compensate.stores.base import NewSaga, Store, StoredSaga
from compensate.testing.conformance.tools import (
    COMPLETED,
    LATER,
    LEASE,
    NOW,
    RUNNING,
    STUCK,
    Place,
    check,
    done,
    ids,
    new,
    opened,
    saga_event,
    steps,
)

LATE = LATER + LEASE
"""When leases taken at `LATER` have run out too."""


async def _claimed(store: Store, owner: str, now: float) -> StoredSaga:
    """The one saga that can be claimed."""
    (found,) = await store.claim(owner, now, limit=10)
    assert isinstance(found, StoredSaga)
    return found


def _suspect(saga_id: str, deaths: int, at: float = NOW) -> NewSaga:
    plain = new(saga_id, at)
    return NewSaga(
        saga_id,
        plain.name,
        plain.fingerprint,
        plain.dag,
        plain.events,
        Standing("running", deaths=deaths),
        at,
    )


@check
async def deaths_are_recorded_as_they_are_given(place: Place) -> None:
    """With the creation and with each append, whatever the events say."""
    async with opened(place) as store:
        await store.join("one", NOW, LEASE)
        await done(store.create(_suspect("s", 2), "one"))
        assert (await store.load("s")).record.deaths == 2
        for seq, deaths in ((2, 3), (3, 3), (4, 0), (5, 1)):
            standing = Standing("running", deaths=deaths) if deaths else RUNNING
            await done(store.append("s", 1, seq - 1, steps(seq, 1), standing))
            record = (await store.load("s")).record
            assert (record.deaths, record.died, record.suspicion) == (deaths, False, deaths)
            assert (await store.page()).records == [record]
        await done(store.append("s", 1, 5, saga_event(6, e.SAGA_STUCK, e.SagaStuck()), STUCK))
        assert (await store.load("s")).record.deaths == 0


@check
async def a_claim_from_a_dead_owner_says_that_it_died(place: Place) -> None:
    """Both kinds of claims; and it is stored."""
    async with opened(place) as store:
        await store.join("one", NOW, LEASE)
        await store.join("two", NOW, LEASE * 9)
        for saga_id in ("a", "b"):
            await done(store.create(new(saga_id), "one"))
        assert not (await store.load("a")).died
        one = await store.claim_one("a", "two", LATER)
        assert one is not None
        many = await _claimed(store, "two", LATER)
        for saga in (one, many):
            assert saga.died
            assert saga.record.suspicion == 1
            assert saga == await store.load(saga.record.id)


@check
async def who_released_a_saga_or_claims_its_own_did_not_die(place: Place) -> None:
    """Nor who left; and a saga that nobody has, because it had ended, lost no process."""
    async with opened(place) as store:
        await store.join("one", NOW, LEASE)
        await store.join("two", NOW, LEASE * 9)
        for saga_id in ("own", "released", "left", "over"):
            await done(store.create(new(saga_id), "one"))
        for now in (NOW, LATER):  # its lease has run out; its process has not ended
            own = await store.claim_one("own", "one", now)
            assert own is not None
            assert not own.died
        await done(store.release("released", 1))
        await done(store.append("over", 1, 1, saga_event(2, e.SAGA_STUCK, e.SagaStuck()), STUCK))
        assert not (await _claimed(store, "two", NOW)).died
        await store.leave("one")
        for saga_id in ("own", "left", "over"):
            found = await store.claim_one(saga_id, "two", NOW)
            assert found is not None
            assert not found.died, saga_id


@check
async def a_death_stands_until_the_next_append(place: Place) -> None:
    """Through releases, leaving and further claims: only an append can record it."""
    async with opened(place) as store:
        await store.join("one", NOW, LEASE)
        await store.join("two", NOW, LEASE * 9)
        await done(store.create(new("s"), "one"))
        assert (await _claimed(store, "two", LATER)).died
        await done(store.release("s", 2))
        await store.join("three", NOW, LEASE * 9)
        assert (await _claimed(store, "three", LATER)).died
        await store.leave("three")
        again = await store.claim_one("s", "two", LATER)
        assert again is not None
        assert again.died
        await done(store.append("s", 4, 1, steps(2, 1, epoch=4), RUNNING))
        assert not (await store.load("s")).died
        await done(store.release("s", 4))
        assert not (await _claimed(store, "one", LATER)).died


@check
async def the_least_suspicious_are_claimed_first(place: Place) -> None:
    """Then the oldest; at 3 deaths the youngest. `least` and `below` choose by suspicion, the last death included."""
    async with opened(place) as store:
        for at, deaths in enumerate((3, 0, 2, 2, 0, 3, 4)):
            # An owner that never joined is not alive, and did not leave.
            await done(store.create(_suspect(f"{deaths}-{at}", deaths, NOW + at), "gone"))
        await store.join("one", NOW, LEASE * 9)
        # Their last owner died, which makes one death more of each.
        assert ids(await store.claim("one", NOW, limit=9, below=1)) == []
        assert ids(await store.claim("one", NOW, limit=1, below=3)) == ["0-1"]
        assert ids(await store.claim("one", NOW, limit=9, least=5)) == ["4-6"]
        assert ids(await store.claim("one", NOW, limit=1, least=2)) == ["2-3"]
        assert ids(await store.claim("one", NOW, limit=9)) == ["0-4", "2-2", "3-0", "3-5"]
        assert await store.claim("one", NOW, limit=9) == []


@check
async def an_owner_that_leaves_can_keep_sagas(place: Place) -> None:
    """It needs no lease for them, and its store may be closed. Once it is retired they are free, and it did not die."""
    async with opened(place) as first, opened(place) as second:
        await first.join("one", NOW, LEASE)
        await second.join("two", NOW, LEASE * 99)
        for saga_id in ("kept", "let go"):
            await done(first.create(new(saga_id), "one"))
        await first.leave("one", {"kept"})
        assert await first.renew("one", NOW, LEASE)
        free = await _claimed(second, "two", LATER)
        assert (free.record.id, free.died) == ("let go", False)
        await done(first.append("kept", 1, 1, steps(2, 1), RUNNING))
        if first is not second:
            await first.close()
        assert await second.claim("two", LATE, limit=10) == []
        assert await second.claim_one("kept", "two", LATE) is None
        assert (await second.load("kept")).record.owner == "one"
        thread = threading.Thread(target=first.retire, args=("one",))
        thread.start()
        thread.join()
        kept = await _claimed(second, "two", LATE)
        assert (kept.record.id, kept.record.epoch, kept.died) == ("kept", 2, False)
        first.retire("one")
        first.retire("nobody that joined")
        assert kept == await second.load("kept")


@check
async def an_owner_that_kept_sagas_can_let_them_go(place: Place) -> None:
    """By leaving again."""
    async with opened(place) as store:
        await store.join("one", NOW, LEASE)
        await store.join("two", NOW, LEASE * 99)
        for saga_id in ("a", "b"):
            await done(store.create(new(saga_id), "one"))
        await store.leave("one", ["a", "b"])
        assert await store.claim("two", LATE, limit=10) == []
        await store.leave("one", ["a"])
        assert ids(await store.claim("two", LATE, limit=10)) == ["b"]
        await store.leave("one")
        assert not (await _claimed(store, "two", LATE)).died
        assert not await store.renew("one", NOW, LEASE)


@check
async def a_death_is_known_when_its_name_is_taken_up_again(place: Place) -> None:
    """By a new process that joins under the name of the dead one; unless that one had left."""
    if place.store() is place.store():
        return  # in memory nothing outlives the process
    for saga_id, left in (("a", False), ("b", True)):
        async with opened(place) as first:
            await first.join("one", NOW, LEASE)
            await done(first.create(new(saga_id), "one"))
            if left:
                await first.leave("one", [saga_id])
        first.retire("one")
        async with opened(place) as second:
            await second.join("one", NOW, LEASE)
            other = f"the other of {saga_id}"
            await second.join(other, NOW, LEASE)
            claimed = await _claimed(second, other, NOW)
            assert (claimed.record.id, claimed.died) == (saga_id, not left)
            await done(second.append(saga_id, 2, 1, steps(2, 1, epoch=2), COMPLETED))
