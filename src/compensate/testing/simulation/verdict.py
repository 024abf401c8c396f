"""The judgement on a history: the independent checker's, on every saga, and what was seen while it was played."""

from __future__ import annotations

from collections import Counter

from compensate.codec.records import decode_dag
from compensate.core import events as e
from compensate.core.events import Event
from compensate.testing.checker import check, check_starts
from compensate.testing.simulation.history import History


def violations(history: History) -> list[str]:
    """Each violated line, in words; empty if all is well."""
    tape = history.tape
    found = list(tape.troubles)
    dag = decode_dag(history.saga.encoded)
    for saga_id, events in history.logs.items():
        found += _while_paused(saga_id, events)
        found += [
            f"{violation} [{saga_id}]"
            for violation in check(
                dag,
                events,
                [effect for effect in tape.effects if effect.saga == saga_id],
                saga_id=saga_id,
                durables=[durable for durable in tape.durables if durable.saga == saga_id],
                calls=[call for call in tape.calls if call.saga in ("", saga_id)],
                crashes=history.scenario.crashes,
            )
        ]
    found += map(str, check_starts(history.acknowledged, history.logs))
    return found


def _while_paused(saga_id: str, events: list[Event]) -> list[str]:
    """Nothing starts while a saga is paused."""
    found: list[str] = []
    paused = False
    for event in events:
        if event.type in (e.SAGA_PAUSED, e.SAGA_RESUMED):
            paused = event.type == e.SAGA_PAUSED
        elif paused and event.type in (e.STARTED, e.UNDO_STARTED):
            found.append(
                f"pause: {event.node} started while the saga was paused (event {event.seq}) [{saga_id}]"
            )
    return found


def line(violation: str) -> str:
    """The line that a violation violates: `S2`, `liveness`, `runtime` and so on."""
    return violation.partition(":")[0]


def lines(found: list[str]) -> Counter[str]:
    """How often each line is violated."""
    return Counter(map(line, found))
