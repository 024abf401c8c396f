"""`Timeline`: what ran when, read at once or followed event by event."""

from compensate import Coordinator, Permanent, Snapshot, action, saga
from compensate.codec import records as r
from compensate.core import events as e
from compensate.core.dag import ActionNode, Dag
from compensate.core.events import Event
from compensate.core.log import Fold
from compensate.core.plan import Plan
from compensate.inspection.timeline import Timeline
from compensate.stores.base import StoredSaga


@action
async def reserve() -> int:
    return 1


@reserve.undo
async def release(number: int) -> None: ...


@action
async def pay(number: int) -> None:
    raise Permanent(f"declined {number}")


@saga
def order() -> None:
    pay(reserve())


async def rolled_back() -> StoredSaga:
    async with Coordinator("memory://", sagas=[order]) as c:
        run = await c.start(order.with_id("s"))
        assert await run.ended() == "rolled_back"
        return await c.store.load("s")


async def test_a_timeline_that_follows_a_saga_is_that_of_the_whole_log() -> None:
    stored = await rolled_back()
    whole = Snapshot(stored)
    at_once = Timeline(whole.fold, whole.events)
    assert [(record.node, record.direction, record.state) for record in at_once.attempts] == [
        ("reserve", "do", "completed"),
        ("pay", "do", "failed"),
        ("reserve", "undo", "undone"),
    ]
    for count in range(1, len(stored.events)):
        begun = Timeline(Fold(Plan(r.decode_dag(stored.dag)), "s"))
        assert begun.feed(stored.events[:count]) == stored.events[:count]
        # What is known already is passed over.
        assert begun.feed(stored.events) == stored.events[count:]
        assert begun.ended
        assert begun.attempts == at_once.attempts
        assert (begun.undo_order, begun.last_seq) == (at_once.undo_order, at_once.last_seq)
        assert (begun.created_at, begun.last_at) == (stored.record.created_at, stored.record.updated_at)
        for node in ("reserve", "pay"):
            assert begun.span(node, "do") == at_once.span(node, "do")
            assert begun.span(node, "undo") == at_once.span(node, "undo")


async def test_a_timeline_says_how_long_an_attempt_took_and_whose_undo_never_ran() -> None:
    stored = await rolled_back()
    timeline = Timeline(Fold(Plan(r.decode_dag(stored.dag)), "s"))
    took: dict[str, float | None] = {}
    for event in stored.events:
        timeline.feed([event])
        took[f"{event.type} {event.node}".strip()] = timeline.took(event)
    ends = {"completed reserve", "failed pay", "undone reserve"}
    assert {key for key, seconds in took.items() if seconds is not None} == ends
    assert timeline.span("pay", "undo") is None
    assert timeline.undo_order == {"reserve": 1}


def test_an_action_whose_output_an_operator_gives_ends_then() -> None:
    dag = Dag("d", (ActionNode("a", "a", undo="output"),))
    events = [
        Event(1, 1, 100.0, e.SAGA_CREATED, data=e.Created(b"{}")),
        Event(2, 1, 101.0, e.STARTED, "a", 1),
        Event(3, 1, 103.0, e.IN_DOUBT, "a", 1, e.InDoubt("timeout")),
        Event(4, 1, 103.0, e.SAGA_ROLLBACK, data=e.Rollback("failure", "a", why="it timed out")),
        # In a rollback the action is run again, to learn the output that its undo takes.
        Event(5, 1, 104.0, e.STARTED, "a", 2),
        Event(6, 1, 106.0, e.IN_DOUBT, "a", 2, e.InDoubt("timeout")),
        Event(7, 1, 106.0, e.SAGA_STUCK, data=e.SagaStuck((e.StuckNode("a", "it timed out", ("retry",)),))),
        Event(8, 1, 110.0, e.SUPPLIED, "a", 2, e.Supplied(b"1", "ann", "seen in the console")),
    ]
    timeline = Timeline(Fold(Plan(dag), "s"))
    timeline.feed(events)
    span = timeline.span("a", "do")
    assert span is not None
    assert (span.began, span.ended) == (104.0, 110.0)
    assert [(one.attempt, one.state, one.ended_at) for one in timeline.attempts] == [
        (1, "in_doubt", 103.0),
        (2, "in_doubt", 106.0),
    ]
