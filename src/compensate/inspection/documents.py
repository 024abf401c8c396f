"""Sagas, records and events as JSON data, for programs; and a saga as the state document of the Go library."""

from __future__ import annotations

from typing import Any

from compensate.codec import records as r
from compensate.codec.document import StateDocument, document_of
from compensate.core import events as e
from compensate.core import states as s
from compensate.core.events import Event
from compensate.core.plan import ACTION
from compensate.errors import CompensateError
from compensate.inspection.snapshot import Snapshot
from compensate.inspection.timeline import Timeline
from compensate.render.lines import clock_time
from compensate.stores.base import SagaRecord, StoredSaga


def of_record(record: SagaRecord) -> dict[str, Any]:
    """How a saga stands."""
    return {
        "id": record.id,
        "name": record.name,
        "status": record.status,
        "paused": record.paused,
        "parked": record.parked,
        "owner": record.owner,
        "epoch": record.epoch,
        "fingerprint": record.fingerprint,
        "last_seq": record.last_seq,
        "created_at": clock_time(record.created_at),
        "updated_at": clock_time(record.updated_at),
    }


def of_event(event: Event) -> dict[str, Any]:
    """One event; `data` as the log holds it."""
    data = r.encode_data(event.data)
    return {
        "seq": event.seq,
        "epoch": event.epoch,
        "at": clock_time(event.at),
        "type": event.type,
        "node": event.node,
        "attempt": event.attempt,
        "data": r.from_json(data) if data else None,
    }


def of_saga(snapshot: Snapshot) -> dict[str, Any]:
    """A whole saga: record, params, output, nodes, and what an operator can choose."""
    timeline = Timeline(snapshot.fold, snapshot.events)
    fold = snapshot.fold
    rollback = fold.rollback
    return {
        **of_record(snapshot.record),
        "deadline": None
        if fold.created is None or fold.created.deadline is None
        else clock_time(fold.created.deadline),
        "params": snapshot.params(),
        "output": _output(snapshot),
        "rollback": None
        if rollback is None
        else {"cause": rollback.cause, "node": rollback.node, "who": rollback.who, "why": rollback.why},
        "parked_because": fold.stuck.parked if fold.stuck is not None else "",
        "stuck": [
            {"node": node.node, "reason": node.reason, "choices": list(node.choices)}
            for node in snapshot.stuck()
        ],
        "nodes": _nodes(snapshot, timeline),
    }


def state_document(saga: Snapshot | StoredSaga) -> StateDocument:
    """The state document of any saga; its `json()` is what the Go library would write.

    It is made of the saga's log alone, so the two always agree.

    Args:
        saga: As it was read.
    """
    return document_of(saga.record.id, saga.record.name, saga.events)


def _output(snapshot: Snapshot) -> Any:
    if snapshot.status != s.COMPLETED:
        return None
    try:
        return snapshot.output()
    except CompensateError:
        return None  # a saga without output


def _nodes(snapshot: Snapshot, timeline: Timeline) -> list[dict[str, Any]]:
    fold, plan = snapshot.fold, snapshot.fold.plan
    nodes: list[dict[str, Any]] = []
    for path, i in plan.index.items():
        if plan.kinds[i] != ACTION:
            continue
        failed, undo_failed = fold.errors.get(i), fold.undo_errors.get(i)
        output = fold.output[i]
        again = timeline.next_attempt(path)
        nodes.append(
            {
                "node": path,
                "action": plan.action(i).action,
                "state": fold.state[i],
                "attempts": fold.attempt[i],
                "undo_attempts": fold.undo_attempt.get(i, 0),
                "next_attempt_at": None if again is None else clock_time(again),
                "error": _error(failed.error if failed else None),
                "doubt": failed.reason if isinstance(failed, e.InDoubt) else None,
                "undo_error": _error(undo_failed.error if undo_failed else None),
                "output": None if output is None else r.from_json(output),
                **_times(timeline, path),
            }
        )
    return nodes


def _times(timeline: Timeline, path: str) -> dict[str, str | None]:
    do, undo = timeline.span(path, "do"), timeline.span(path, "undo")
    times = {
        "started_at": None if do is None else do.began,
        "ended_at": None if do is None else do.ended,
        "undo_started_at": None if undo is None else undo.began,
        "undo_ended_at": None if undo is None else undo.ended,
    }
    return {name: None if at is None else clock_time(at) for name, at in times.items()}


def _error(error: e.ErrorInfo | None) -> dict[str, str] | None:
    if error is None:
        return None
    return {"type": error.type, "message": error.message, "traceback": error.traceback}
