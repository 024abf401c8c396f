"""Sagas, records and events as JSON data, for programs."""

from __future__ import annotations

from typing import Any

from compensate.cli.output import Command
from compensate.cli.progress import Progress
from compensate.codec import records as r
from compensate.core import events as e
from compensate.core import states as s
from compensate.core.events import Event
from compensate.core.plan import ACTION
from compensate.errors import CompensateError
from compensate.render.lines import clock_time
from compensate.runtime.runs import Snapshot
from compensate.stores.base import SagaRecord


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


def of_saga(snapshot: Snapshot, command: Command, apps: list[str]) -> dict[str, Any]:
    """A whole saga: record, params, output, nodes, and what an operator can do."""
    progress = Progress(snapshot)
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
            {
                "node": node.node,
                "reason": node.reason,
                "choices": list(node.choices),
                "commands": commands(snapshot.id, node, command, apps),
            }
            for node in snapshot.stuck()
        ],
        "nodes": _nodes(snapshot, progress),
    }


def commands(saga_id: str, node: e.StuckNode, command: Command, apps: list[str]) -> list[str]:
    """The commands to type for each legal choice."""
    typed: list[str] = []
    for choice in node.choices:
        verb, _, with_output = choice.partition(" ")
        flags = ["--output", "JSON"] if with_output else []
        typed.append(command(verb, saga_id, node.node, flags=flags, apps=apps))
    return typed


def _output(snapshot: Snapshot) -> Any:
    if snapshot.status != s.COMPLETED:
        return None
    try:
        return snapshot.output()
    except CompensateError:
        return None  # a saga without output


def _nodes(snapshot: Snapshot, progress: Progress) -> list[dict[str, Any]]:
    fold, plan = snapshot.fold, snapshot.fold.plan
    nodes: list[dict[str, Any]] = []
    for path, i in plan.index.items():
        if plan.kinds[i] != ACTION:
            continue
        failed, undo_failed = fold.errors.get(i), fold.undo_errors.get(i)
        output = fold.output[i]
        again = progress.next_attempt(path)
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
                **_times(progress, path),
            }
        )
    return nodes


def _times(progress: Progress, path: str) -> dict[str, Any]:
    times = progress.times.get(path)
    fields = {"started_at": "do", "ended_at": "did", "undo_started_at": "undo", "undo_ended_at": "undid"}
    found = {name: None if times is None else getattr(times, field) for name, field in fields.items()}
    return {name: None if at is None else clock_time(at) for name, at in found.items()}


def _error(error: e.ErrorInfo | None) -> dict[str, str] | None:
    if error is None:
        return None
    return {"type": error.type, "message": error.message, "traceback": error.traceback}
