"""The lines of the guarantee that need a record of what was asked of the store: S9, S10, S11."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from compensate.core import events as e
from compensate.core.events import Event
from compensate.testing.recorder import OK, OPEN, Effect, StoreCall
from compensate.testing.shape import same
from compensate.testing.violations import Report

_WRITES: Final = ("append", "create")
_READS: Final = ("load", "events", "claim_one", "claim")


def fencing(saga_id: str, events: Sequence[Event], calls: Sequence[StoreCall], report: Report) -> None:
    """S9: after an adoption nothing of an older epoch is appended."""
    adopted: dict[int, StoreCall] = {}
    claims = [(call, c) for call in calls if call.outcome == OK for c in call.claimed if c.saga == saga_id]
    for call, claim in claims:
        if claim.epoch in adopted:
            report.add("S9", f"epoch {claim.epoch} was given to two adoptions")
        adopted[claim.epoch] = call
        late = [event for event in events if event.seq > claim.last_seq and event.epoch < claim.epoch]
        if late:
            report.add("S9", f"appended below epoch {claim.epoch}, which had been adopted", late)
        for append in calls:
            if append.call == "append" and append.outcome == OK and append.saga == saga_id:
                late = [event for event in append.events if event not in events]
                if append.order > call.done and append.epoch < claim.epoch and late:
                    report.add(
                        "S9", f"an append of epoch {append.epoch} was accepted after {claim.epoch}", late
                    )


def careful(
    saga_id: str,
    events: Sequence[Event],
    calls: Sequence[StoreCall],
    effects: Sequence[Effect],
    report: Report,
) -> None:
    """S10: after a failed append nothing is dispatched before the log has been read again."""
    for failed in calls:
        if failed.call not in _WRITES or failed.saga != saga_id or failed.outcome in (OK, OPEN):
            continue
        if failed.call == "create" and _stored_before(failed, calls):
            continue
        mine = [call for call in calls if call.actor == failed.actor and call.order > failed.done]
        reads = [call for call in mine if _reads(call, saga_id)]
        reads += [
            call
            for call in calls
            if call.actor == failed.actor and _claims_above(call, saga_id, failed.epoch)
        ]
        read = min((call.done for call in reads), default=None)
        for call in mine:
            if call.call == "append" and call.saga == saga_id and (read is None or call.order < read):
                report.add(
                    "S10", f"appended again after {failed.outcome}, and the log was not read", call.events
                )
        for effect in effects:
            within = effect.order > failed.done and (read is None or effect.order < read)
            mine_too = effect.kind == "begin" and effect.actor == failed.actor
            if within and mine_too and not _acknowledged(effect, saga_id, calls, failed.done):
                report.add(
                    "S10", f"{effect.node} ran after {failed.outcome}, before the log was read", [], [effect]
                )


def _stored_before(failed: StoreCall, calls: Iterable[StoreCall]) -> bool:
    """Whether its coordinator has stored the saga: then this was a second start, and it was told so."""
    return any(
        call.call == "create" and call.saga == failed.saga and call.actor == failed.actor
        for call in calls
        if call.outcome == OK
    )


def _claims_above(call: StoreCall, saga_id: str, epoch: int) -> bool:
    """Whether a call claimed the saga anew: whoever goes on under a higher epoch has read the log with that claim."""
    return call.outcome == OK and any(c.saga == saga_id and c.epoch > epoch for c in call.claimed)


def _reads(call: StoreCall, saga_id: str) -> bool:
    """Whether a call told how the log stands; being told that there is none counts, and so does making it."""
    if call.call == "create":
        return call.saga == saga_id and call.outcome == OK
    found = call.saga == saga_id or any(claim.saga == saga_id for claim in call.claimed)
    return call.call in _READS and found and call.outcome in (OK, "SagaNotFound")


def _acknowledged(effect: Effect, saga_id: str, calls: Iterable[StoreCall], before: int) -> bool:
    """Whether its start had been acknowledged before: then it was dispatched before the failure."""
    kind = e.STARTED if effect.direction == "do" else e.UNDO_STARTED
    return any(
        event.type == kind and event.node == effect.node and effect.attempt in (0, event.attempt)
        for call in calls
        if call.call in _WRITES and call.saga == saga_id and call.outcome == OK and call.done < before
        for event in call.events
    )


def survival(saga_id: str, events: Sequence[Event], calls: Iterable[StoreCall], report: Report) -> None:
    """S11: what was acknowledged is in the log."""
    kept = {event.seq: event for event in events}
    for call in calls:
        if call.call in _WRITES and call.saga == saga_id and call.outcome == OK:
            lost = [event for event in call.events if kept.get(event.seq) != event]
            if lost:
                what = "start" if call.call == "create" else "append"
                report.add("S11", f"an acknowledged {what} is not in the log", lost)


def starts(acknowledged: Mapping[str, bytes], logs: Mapping[str, Sequence[Event]], report: Report) -> None:
    """S11: every acknowledged start is stored, with the params that it was given."""
    for saga_id, params in acknowledged.items():
        events = logs.get(saga_id, ())
        created = events[0].data if events else None
        if not isinstance(created, e.Created):
            report.add("S11", f"the start of {saga_id} was acknowledged, and it is not stored", events[:1])
        elif not same(json.loads(created.params), json.loads(params)):
            report.add("S11", f"{saga_id} was started with other params than are stored", events[:1])
