"""`SagaLog`: a log in the hand."""

from __future__ import annotations

import pytest

from compensate.core import events as e
from compensate.core.dag import ActionNode, Dag, Ref
from compensate.core.events import Event
from compensate.errors import CorruptLog, IllegalRequest
from compensate.inspection.saga_log import SagaLog

TRIP = Dag(
    "trip",
    (
        ActionNode("hotel", "book_hotel", undo="output"),
        ActionNode("flight", "book_flight", {"h": Ref("hotel")}),
    ),
)
AT = 1_750_000_000.25

EVENTS = [
    Event(1, 1, AT, e.SAGA_CREATED, data=e.Created(b'{"to":"Oslo"}')),
    Event(2, 1, AT + 1, e.STARTED, "hotel", 1),
    Event(3, 1, AT + 2, e.COMPLETED, "hotel", 1, e.Completed(b'"room 7"')),
    Event(4, 1, AT + 2, e.STARTED, "flight", 1),
    Event(5, 1, AT + 3, e.FAILED, "flight", 1, e.Failed(e.ErrorInfo("builtins.OSError", "sold out"))),
    Event(6, 1, AT + 3, e.SAGA_ROLLBACK, data=e.Rollback("failure", "flight", why="sold out")),
    Event(7, 2, AT + 4, e.UNDO_STARTED, "hotel", 1),
    Event(8, 2, AT + 5, e.UNDONE, "hotel", 1),
    Event(9, 2, AT + 5, e.SAGA_ROLLED_BACK),
]


def recorded(count: int = len(EVENTS)) -> SagaLog:
    log = SagaLog(TRIP, "t1")
    for event in EVENTS[:count]:
        log.record(event)
    return log


def test_it_holds_what_was_recorded_in_order() -> None:
    log = recorded()
    assert log.events == tuple(EVENTS)
    assert len(log) == 9
    assert log.status == "rolled_back"


def test_it_is_empty_before_the_saga_is_created() -> None:
    log = SagaLog(TRIP, "t1")
    assert log.events == ()
    assert log.status is None
    assert not log.rolling_back
    assert repr(log) == "<SagaLog of t1: 0 events, not created>"


def test_rolling_back_begins_with_the_rollback_and_stays() -> None:
    assert [recorded(count).rolling_back for count in range(10)] == [False] * 6 + [True] * 4


def test_recovering_gives_the_same_log() -> None:
    again = SagaLog.recover(TRIP, "t1", EVENTS)
    assert again.events == recorded().events
    assert str(again) == str(recorded())


@pytest.mark.parametrize(
    ("count", "event", "why"),
    [
        (0, Event(1, 1, AT, e.STARTED, "hotel", 1), "the saga is None"),
        (1, Event(2, 1, AT, e.STARTED, "flight", 1), "what it depends on has not completed"),
        (1, Event(2, 1, AT, e.STARTED, "ferry", 1), "the dag has no such node"),
        (1, Event(3, 1, AT, e.STARTED, "hotel", 1), "expected seq 2"),
        (2, Event(3, 1, AT, e.STARTED, "hotel", 2), "the node is running"),
        (2, Event(3, 1, AT, e.COMPLETED, "hotel", 2, e.Completed(b"1")), "the running attempt is 1"),
        (3, Event(4, 1, AT, e.COMPLETED, "hotel", 1, e.Completed(b"1")), "the node is completed"),
        (3, Event(4, 1, AT, e.UNDO_STARTED, "hotel", 1), "its turn to be undone has not come"),
        (6, Event(7, 1, AT, e.STARTED, "flight", 2), "rollback has begun"),
        (8, Event(9, 1, AT, e.SAGA_ROLLED_BACK), "its epoch is below 2"),
        (9, Event(10, 2, AT, e.STARTED, "hotel", 2), "the saga is rolled_back"),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(count: int, event: Event, why: str) -> None:
    log = recorded(count)
    with pytest.raises(IllegalRequest, match=why):
        log.record(event)
    assert log.events == tuple(EVENTS[:count])
    for rest in EVENTS[count:]:
        log.record(rest)
    assert log.status == "rolled_back"


def test_recovering_refuses_a_log_with_a_gap() -> None:
    with pytest.raises(CorruptLog, match="saga t1: event 4 "):
        SagaLog.recover(TRIP, "t1", [*EVENTS[:2], *EVENTS[3:]])


def test_it_prints_one_line_an_event() -> None:
    assert recorded().pretty().splitlines() == [
        "saga t1",
        "dag trip",
        "status rolled_back, going back, 9 events",
        '2025-06-15T15:06:40.250Z #1 saga: created with {"to":"Oslo"}',
        "2025-06-15T15:06:41.250Z #2 hotel: started",
        "2025-06-15T15:06:42.250Z #3 hotel: completed",
        "2025-06-15T15:06:42.250Z #4 flight: started",
        "2025-06-15T15:06:43.250Z #5 flight: failed: OSError: sold out",
        "2025-06-15T15:06:43.250Z #6 saga: rolling back: flight failed: sold out",
        "2025-06-15T15:06:44.250Z #7 hotel: undoing",
        "2025-06-15T15:06:45.250Z #8 hotel: undone",
        "2025-06-15T15:06:45.250Z #9 saga: rolled back",
    ]


def test_texts_with_line_breaks_do_not_break_the_lines_of_the_log() -> None:
    log = recorded(4)
    log.record(Event(5, 1, AT, e.FAILED, "flight", 1, e.Failed(e.ErrorInfo("E", "sold\nout\x1b[31m"))))
    assert len(log.pretty().splitlines()) == 3 + 5
    assert "\x1b" not in str(log)
