"""Telling a history: the scenario, then everything that happened, in order."""

from __future__ import annotations

from collections.abc import Iterator

from compensate.testing.recorder import Effect, StoreCall
from compensate.testing.simulation.history import History
from compensate.testing.simulation.loop import EPOCH
from compensate.testing.simulation.scenario import NodeSpec, walk


def tell(history: History) -> str:
    """A history in lines of text."""
    return "\n".join([*_scenario(history), *_records(history), *_logs(history)])


def _scenario(history: History) -> Iterator[str]:
    scenario = history.scenario
    bare = NodeSpec("")
    yield (
        f"seed {scenario.seed}, {scenario.world} world, sagas {scenario.sagas}, skews {scenario.skews}, "
        f"shuffle {scenario.shuffle}, in place {scenario.in_place}, room {scenario.room}, grace {scenario.grace}, "
        f"deadline {scenario.deadline}, wait {scenario.wait}"
    )
    for path, node in walk(scenario.nodes):
        said = [
            f"{field}={getattr(node, field)!r}"
            for field in NodeSpec.__struct_fields__
            if field not in ("name", "nodes") and getattr(node, field) != getattr(bare, field)
        ]
        yield f"node {path}: {' '.join(said)}"
    for fault in scenario.faults:
        when = f"at write or read {fault.nth}" if fault.nth else f"at {fault.at:.3f}"
        yield f"fault {fault.kind} {when} of c{fault.who}, length {fault.length:.3f}, saga s{fault.saga}"


def _records(history: History) -> Iterator[str]:
    records: list[Effect | StoreCall] = [*history.tape.effects, *history.tape.calls]
    told = dict(history.tape.told)
    for record in sorted(records, key=lambda record: record.order):
        for order in [order for order in told if order < record.order]:
            yield f"     {told.pop(order)}"
        if isinstance(record, Effect):
            yield (
                f"{record.order:4} {record.actor} {record.saga} {record.direction} {record.node} {record.kind} "
                f"(attempt {record.attempt or '?'}, durable up to {record.durable})"
            )
            continue
        if record.call == "claim" and record.outcome == "ok" and not record.claimed:
            continue
        events = "; ".join(f"{event.seq} {event.type} {event.node}".rstrip() for event in record.events)
        claims = ", ".join(f"{c.saga} at epoch {c.epoch} after {c.last_seq}" for c in record.claimed)
        yield (
            f"{record.order:4} {record.actor} {record.call} {record.saga} epoch {record.epoch} [{events}{claims}] "
            f"-> {record.outcome or 'no answer'}" + (f" at {record.done}" if record.done else "")
        )
    yield from (f"     {line}" for line in told.values())


def _logs(history: History) -> Iterator[str]:
    for saga_id, events in history.logs.items():
        for event in events:
            yield (
                f"{saga_id} {event.seq:3} epoch {event.epoch} {event.at - EPOCH:8.3f} {event.type} {event.node} "
                f"{event.attempt or ''} {'' if event.data is None else str(event.data)[:90]}"
            ).rstrip()
