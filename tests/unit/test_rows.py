"""An event's row is what a store reads back."""

from __future__ import annotations

import pytest

from compensate.codec.records import from_rows, to_rows
from compensate.core import events as e
from compensate.core.events import Event
from compensate.errors import CorruptLog


@pytest.mark.parametrize("at", [0, 5, -3, 1_700_000_000])
def test_a_time_of_whole_seconds_is_read_back_as_the_float_that_it_becomes_in_a_store(at: int) -> None:
    events = [Event(1, 1, at, e.SAGA_CREATED, "", 0, e.Created(b"{}")), Event(2, 1, at, e.STARTED, "a", 1)]
    stored = [
        (*row[:2], float(row[2]), *row[3:]) for row in to_rows(events, 0)
    ]  # as SQLite's REAL columns do
    read = from_rows("s", stored)
    assert read == events
    assert all(type(event.at) is float for event in read)


def test_times_that_differ_within_one_append_are_each_covered_by_the_checksum() -> None:
    events = [Event(k, 1, 0.1 * k, e.STARTED, f"n{k}", 1) for k in range(1, 5)]
    rows = to_rows(events, 0)
    assert from_rows("s", rows) == events
    for k, row in enumerate(rows):
        altered = [*rows]
        altered[k] = (*row[:2], row[2] + 1e-9, *row[3:])
        with pytest.raises(CorruptLog):
            from_rows("s", altered)
