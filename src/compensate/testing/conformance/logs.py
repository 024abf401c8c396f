"""Checks of what is written, and read again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from compensate.codec.records import fingerprint
from compensate.core import events as e
from compensate.core.events import Event
from compensate.core.standing import Standing
from compensate.errors import (
    CompensateError,
    Conflict,
    CorruptLog,
    Fenced,
    IllegalRequest,
    SagaExists,
    SagaNotFound,
)
from compensate.stores.base import Done, NewSaga
from compensate.testing.conformance.tools import (
    COMPLETED,
    DAG,
    LATER,
    LEASE,
    NOW,
    ODD_IDS,
    ROLLING_BACK,
    RUNNING,
    STUCK,
    Place,
    check,
    done,
    ids,
    new,
    opened,
    refused,
    saga_event,
    steps,
)


@check
async def a_created_saga_loads_as_it_was_written(place: Place) -> None:
    """Record, dag and events; every kind of payload."""
    payloads: list[tuple[str, str, e.Data]] = [
        ("", e.SAGA_CREATED, e.Created(b'{"a":[1,2.5,null,"\xc3\xa9"]}', None)),
        ("a", e.STARTED, None),
        (
            "a",
            e.FAILED,
            e.Failed(e.ErrorInfo("mod.E", 'it\'s "bad"\n', "tb"), retry_at=NOW + 0.1, clean=True),
        ),
        ("a", e.IN_DOUBT, e.InDoubt("timeout", e.ErrorInfo("T"), 1.5)),
        ("a", e.SUPPLIED, e.Supplied(b"[1]", "me", "seen")),
        ("b/c[0]", e.COMPLETED, e.Completed(b"null")),
        ("b", e.EXPANDED, e.Expanded(3)),
        ("", e.SAGA_ROLLBACK, e.Rollback("request", "", "me", "why", NOW)),
        ("a", e.UNDO_STARTED, None),
        ("a", e.UNDO_FAILED, e.UndoFailed(None, 2.25, True)),
        ("a", e.RESOLVED, e.Decided("me", "by hand")),
        ("", e.SAGA_STUCK, e.SagaStuck((e.StuckNode("a", "lost", ("retry", "skip")),), "code missing")),
    ]
    events = [
        Event(seq, 1, NOW + seq / 3, kind, node, 1, data)
        for seq, (node, kind, data) in enumerate(payloads, 1)
    ]
    standing = Standing("stuck", parked=True)
    async with opened(place) as store:
        await store.join("one", NOW, LEASE)
        await done(store.create(NewSaga("s", "order", fingerprint(DAG), DAG, events, standing, NOW), "one"))
        found = await store.load("s")
        assert found.dag == DAG
        assert found.events == events
        assert found.events == await store.events("s")
        record = found.record
        assert (record.id, record.name, record.fingerprint) == ("s", "order", fingerprint(DAG))
        assert (record.status, record.paused, record.parked) == ("stuck", False, True)
        assert (record.epoch, record.owner, record.last_seq) == (1, None, len(events))
        assert (record.created_at, record.updated_at) == (NOW, events[-1].at)


@check
async def appended_events_follow_in_order(place: Place) -> None:
    """And `events(after)` gives the rest, from anywhere."""
    async with opened(place) as store:
        await store.join("one", NOW, LEASE)
        await done(store.create(new("s"), "one"))
        await done(store.append("s", 1, 1, steps(2, 3), RUNNING))
        await done(store.append("s", 1, 4, steps(5, 1, at=NOW + 9), ROLLING_BACK))
        expected = [*new("s").events, *steps(2, 3), *steps(5, 1, at=NOW + 9)]
        found = await store.load("s")
        assert found.events == expected
        assert (found.record.status, found.record.owner) == ("rolling_back", "one")
        assert (found.record.last_seq, found.record.updated_at) == (5, NOW + 9)
        for after in range(7):
            assert await store.events("s", after) == expected[after:]


@check
async def writes_are_there_after_the_store_was_closed_and_opened(place: Place) -> None:
    """Also those that nobody waited for, and those of a store that was closed twice."""
    async with opened(place) as store:
        await store.join("one", NOW, LEASE)
        waiting = [store.create(new(f"s{number}"), "one") for number in range(20)]
        waiting += [store.append(f"s{number}", 1, 1, steps(2), RUNNING) for number in range(20)]
        await store.close()
        for write in waiting:
            await done(write)
    async with opened(place) as store:
        for number in range(20):
            assert (await store.load(f"s{number}")).events == [*new("s").events, *steps(2)]


@check
async def appends_of_one_saga_that_do_not_wait_for_one_another_keep_their_order(place: Place) -> None:
    """Each relies on the one before."""
    async with opened(place) as store:
        await store.join("one", NOW, LEASE)
        waiting = [store.create(new("s"), "one")]
        waiting += [store.append("s", 1, seq - 1, steps(seq, 1), RUNNING) for seq in range(2, 12)]
        waiting.append(
            store.append("s", 1, 11, saga_event(12, e.SAGA_ROLLBACK, e.Rollback("request")), ROLLING_BACK)
        )
        waiting += [store.append("s", 1, seq - 1, steps(seq, 1), ROLLING_BACK) for seq in range(13, 20)]
        for write in waiting:
            await done(write)
        found = await store.load("s")
        assert [event.seq for event in found.events] == list(range(1, 20))
        assert found.record.status == "rolling_back"


@check
async def a_refused_call_changes_nothing(place: Place) -> None:
    """`Conflict`, `Fenced`, `SagaExists`, events that leave a gap or are of another epoch, and no events."""
    async with opened(place) as store:
        await store.join("one", NOW, LEASE)
        await store.join("two", NOW, LEASE)
        await done(store.create(new("s"), "one"))
        await done(store.append("s", 1, 1, steps(2, 2), RUNNING))
        before = await store.load("s")
        error = await refused(Conflict, lambda: store.append("s", 1, 2, steps(3), RUNNING))
        assert "s" in str(error)
        await refused(Conflict, lambda: store.append("s", 1, 4, steps(5), RUNNING))
        await refused(Conflict, lambda: store.append("s", 1, 3, [], COMPLETED))
        await refused(Conflict, lambda: store.append("s", 1, 3, steps(5), COMPLETED))
        await refused(Conflict, lambda: store.append("s", 1, 3, [*steps(4), *steps(7)], COMPLETED))
        await refused(Conflict, lambda: store.append("s", 1, 3, steps(4, epoch=2), COMPLETED))
        await refused(Fenced, lambda: store.append("s", 2, 3, steps(4, epoch=2), COMPLETED))
        await refused(Fenced, lambda: store.append("s", 0, 3, steps(4, epoch=0), COMPLETED))
        await refused(SagaExists, lambda: store.create(new("s", NOW + 1, "completed", "other"), "two"))
        await refused(IllegalRequest, lambda: store.delete("s"))
        assert await store.claim_one("s", "two", NOW) is None
        await done(store.release("s", 7))
        assert await store.load("s") == before
        await refused(Conflict, lambda: store.create(replaced(new("gap"), steps(2)), "one"))
        await refused(Conflict, lambda: store.create(replaced(new("gap"), []), "one"))
        await refused(SagaNotFound, lambda: store.load("gap"))
        await done(store.append("s", 1, 3, steps(4), RUNNING))


def replaced(saga: NewSaga, events: list[Event]) -> NewSaga:
    """The same with other events."""
    return NewSaga(saga.id, saga.name, saga.fingerprint, saga.dag, events, saga.standing, saga.at)


@check
async def a_saga_that_is_not_there_is_not_found(place: Place) -> None:
    """By whatever asks for it; giving it up does nothing."""
    async with opened(place) as store:
        await store.join("one", NOW, LEASE)
        await refused(SagaNotFound, partial(store.append, "none", 1, 1, steps(2), RUNNING))
        await refused(SagaNotFound, lambda: store.load("none"))
        await refused(SagaNotFound, lambda: store.events("none"))
        await refused(SagaNotFound, lambda: store.claim_one("none", "one", NOW))
        await refused(SagaNotFound, lambda: store.delete("none"))
        await refused(SagaNotFound, lambda: store.post("none", "rollback", b"{}", NOW))
        await done(store.release("none", 1))


@check
async def one_bad_write_among_many_does_not_disturb_the_others(place: Place) -> None:
    """All at once, so that a store that groups writes has good and bad ones in one group."""
    async with opened(place) as store:
        await store.join("one", NOW, LEASE)
        await done(store.create(new("taken"), "one"))
        calls: list[tuple[type[CompensateError] | None, Callable[[], Done]]] = []
        for number in range(10):
            s = f"s{number}"
            calls += [
                (None, partial(store.create, new(s), "one")),
                (SagaExists, partial(store.create, new("taken"), "one")),
                (Conflict, partial(store.append, s, 1, 9, steps(10), RUNNING)),
                (Fenced, partial(store.append, s, 2, 1, steps(2, epoch=2), RUNNING)),
                (None, partial(store.append, s, 1, 1, steps(2), RUNNING)),
                (SagaNotFound, partial(store.append, "none", 1, 1, steps(2), RUNNING)),
                (Conflict, partial(store.append, s, 1, 1, steps(2), RUNNING)),
                (None, partial(store.append, s, 1, 3, steps(4), RUNNING)),
            ]

        async def one(call: Callable[[], Done]) -> None:
            await done(call())

        results = await asyncio.gather(*(one(call) for _, call in calls), return_exceptions=True)
        for (expected, _), result in zip(calls, results, strict=True):
            assert expected is (None if result is None else type(result)), result
        for number in range(10):
            assert (await store.load(f"s{number}")).events == [*new("s").events, *steps(2, 4)]


@check
async def the_record_says_how_the_saga_stands(place: Place) -> None:
    """Paused, parked, ended: as it was given with the events."""
    async with opened(place) as store:
        await store.join("one", NOW, LEASE)
        await done(store.create(new("s"), "one"))

        async def append(
            seq: int, kind: str, data: e.Data, standing: Standing
        ) -> tuple[bool, bool, str | None]:
            await done(store.append("s", 1, seq - 1, saga_event(seq, kind, data), standing))
            record = (await store.load("s")).record
            assert (record.status, record.last_seq) == (standing.status, seq)
            return record.paused, record.parked, record.owner

        assert await append(2, e.SAGA_PAUSED, e.Decided("me"), Standing("running", paused=True)) == (
            True,
            False,
            "one",
        )
        rollback = e.Rollback("request")
        assert await append(3, e.SAGA_ROLLBACK, rollback, Standing("rolling_back", paused=True)) == (
            True,
            False,
            "one",
        )
        assert await append(4, e.SAGA_RESUMED, e.Decided("me"), ROLLING_BACK) == (False, False, "one")
        parked = e.SagaStuck(parked="no action 'reserve'")
        assert await append(5, e.SAGA_STUCK, parked, Standing("stuck", parked=True)) == (False, True, None)
        assert await append(6, e.SAGA_UNPARKED, None, ROLLING_BACK) == (False, False, None)
        assert await append(7, e.SAGA_STUCK, e.SagaStuck(), STUCK) == (False, False, None)
        await done(store.create(new("over", status="completed"), "one"))
        assert (await store.load("over")).record.owner is None


@check
async def odd_ids_neither_collide_nor_get_lost(place: Place) -> None:
    """Quotes, slashes, other scripts, ids that differ in case alone, 200 characters."""
    async with opened(place) as store:
        await store.join("one", NOW, LEASE)
        for saga_id in ODD_IDS:
            await done(store.create(new(saga_id, name=saga_id), "one"))
            await done(store.append(saga_id, 1, 1, steps(2), RUNNING))
        for saga_id in ODD_IDS:
            record = (await store.load(saga_id)).record
            assert (record.id, record.name, record.last_seq) == (saga_id, saga_id, 3)
            assert [found.id for found in (await store.page(name=saga_id)).records] == [saga_id]
        found = await store.page(limit=1_000)
        assert sorted(record.id for record in found.records) == sorted(ODD_IDS)
        claimed = await store.claim("two", LATER, limit=1_000)
        assert sorted(ids(claimed)) == sorted(ODD_IDS)


@check
async def a_dag_that_does_not_have_its_fingerprint_is_refused(place: Place) -> None:
    """The saga would run another graph than the one that it was started with."""
    async with opened(place) as store:
        wrong = NewSaga("s", "order", "0" * 32, DAG, new("s").events, RUNNING, NOW)
        await done(store.create(wrong, "one"))
        await refused(CorruptLog, lambda: store.load("s"))
