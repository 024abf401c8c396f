"""Checks of lists, deletion and requests."""

from __future__ import annotations

from functools import partial

from compensate.errors import (
    IllegalRequest,
    SagaNotFound,
)
from compensate.stores.base import Answer, Request
from compensate.testing.conformance.tools import (
    DAG,
    LEASE,
    NOW,
    Place,
    check,
    done,
    end,
    ids,
    new,
    opened,
    refused,
)


@check
async def pages_show_the_newest_first(place: Place) -> None:
    """By creation, then by id; filtered by status and name; the last page has no cursor."""
    async with opened(place) as store:
        for number in range(7):
            name = "trip" if number % 3 == 0 else "order"
            await done(store.create(new(f"s{number}", at=NOW + number // 2, name=name), "one"))
        await end(store, "s3", "completed")
        expected = ["s6", "s4", "s5", "s2", "s3", "s0", "s1"]

        async def walk(limit: int, **asked: str) -> list[str]:
            found: list[str] = []
            cursor = None
            while True:
                page = await store.page(cursor=cursor, limit=limit, **asked)  # type: ignore[arg-type]
                assert len(page.records) <= limit
                found += [record.id for record in page.records]
                cursor = page.cursor
                if cursor is None:
                    return found

        for limit in (1, 2, 3, 7, 8):
            assert await walk(limit) == expected
        assert (await store.page(limit=7)).cursor is None
        assert await walk(1, name="trip") == ["s6", "s3", "s0"]
        assert await walk(1, status="completed") == ["s3"]
        assert await walk(1, status="completed", name="order") == []
        assert (await store.page()).records[4] == (await store.load("s3")).record
        await refused(IllegalRequest, lambda: store.page(cursor="nonsense"))


@check
async def a_saga_created_while_paging_appears_at_most_once(place: Place) -> None:
    """And those that were there before appear exactly once."""
    async with opened(place) as store:
        for number in range(10):
            await done(store.create(new(f"s{number}", at=NOW + number), "one"))
        seen: list[str] = []
        cursor = None
        for number in range(10, 100):
            page = await store.page(cursor=cursor, limit=3)
            seen += [record.id for record in page.records]
            cursor = page.cursor
            if cursor is None:
                break
            for at in (NOW + number, NOW + 5, NOW - number):
                await done(store.create(new(f"s{number}-{at}", at=at), "one"))
            if number > 15:
                assert len(seen) > 10, "paging makes no headway"
        assert len(seen) == len(set(seen))
        assert {f"s{number}" for number in range(10)} <= set(seen)


@check
async def a_saga_that_is_over_can_be_deleted(place: Place) -> None:
    """With its requests; its id can be used again. One in somebody's hands cannot."""
    async with opened(place) as store:
        await store.join("one", NOW, LEASE)
        number = 0
        for saga_id in ("a", "b"):
            await done(store.create(new(saga_id), "one"))
            number = await store.post(saga_id, "pause", b"{}", NOW)
            await end(store, saga_id, "completed")
        await store.claim_one("b", "one", NOW)
        await refused(IllegalRequest, lambda: store.delete("b"))
        await done(store.release("b", 2))
        await store.delete("b")
        await refused(SagaNotFound, lambda: store.load("b"))
        await refused(SagaNotFound, lambda: store.delete("b"))
        assert await store.answered(number) is None
        assert [record.id for record in (await store.page()).records] == ["a"]
        await done(store.create(new("b", NOW + 5), "one"))
        found = await store.load("b")
        assert (found.record.epoch, found.record.last_seq, found.record.created_at) == (1, 1, NOW + 5)
        assert [request.saga_id for request in await store.requests("one")] == []
        for status in ("stuck", "running", "rolling_back"):
            await done(store.create(new(status, status=status), "one"))
            await refused(IllegalRequest, partial(store.delete, status))
    async with opened(place) as store:
        assert (await store.load("b")).dag == DAG


@check
async def a_request_reaches_the_owner_and_its_answer_the_asker(place: Place) -> None:
    """Oldest first, until it is answered; whoever owns the saga by then."""
    async with opened(place) as first, opened(place) as second:
        await first.join("one", NOW, LEASE)
        await first.join("two", NOW, LEASE)
        await done(first.create(new("a"), "one"))
        await done(first.create(new("b"), "two"))
        numbers = [
            await second.post("a", "rollback", b'{"why":"called"}', NOW),
            await second.post("b", "pause", b"{}", NOW),
            await second.post("a", "resolve", b'{"node":"x"}', NOW),
        ]
        assert len(set(numbers)) == 3
        assert list(await first.requests("one")) == [
            Request(numbers[0], "a", "rollback", b'{"why":"called"}'),
            Request(numbers[2], "a", "resolve", b'{"node":"x"}'),
        ]
        assert await second.answered(numbers[0]) is None
        await first.answer(numbers[0], Answer())
        await first.answer(numbers[2], Answer("it is over"))
        await first.answer(numbers[2], Answer("changed my mind"))
        await first.answer(9_999, Answer())
        assert await second.answered(numbers[0]) == Answer("")
        assert await second.answered(numbers[2]) == Answer("it is over")
        assert await second.answered(9_999) is None
        assert list(await first.requests("one")) == []
        await first.leave("two")
        assert ids(await first.claim("one", NOW, limit=10)) == ["b"]
        assert [request.number for request in await first.requests("one")] == [numbers[1]]
