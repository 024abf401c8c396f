"""What all stores share: the checks of a loaded saga, cursors, and the words of their refusals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, get_args

from compensate.codec.records import fingerprint, from_json, to_json
from compensate.core.events import Event
from compensate.core.names import LONGEST
from compensate.core.states import SagaStatus
from compensate.errors import (
    CompensateError,
    Conflict,
    CorruptLog,
    DeserializeFailed,
    Fenced,
    IllegalRequest,
    SagaExists,
    SagaNotFound,
)
from compensate.stores.base import SagaRecord, StoredSaga

STATUSES: Final = frozenset(get_args(SagaStatus))


def claim_order(suspicion: int, created_at: float, saga_id: str) -> tuple[int, float, str]:
    """Sorts sagas as `Store.claim` takes them."""
    youngest_first = suspicion >= 3 and suspicion % 2 == 1
    return suspicion, -created_at if youngest_first else created_at, saga_id


def fits(events: Sequence[Event], epoch: int, expected_seq: int) -> bool:
    """Whether `events` can stand behind `expected_seq`, written under `epoch`."""
    seq = expected_seq
    for event in events:
        seq += 1
        if event.seq != seq or event.epoch != epoch:
            return False
    return seq > expected_seq


def checked(record: SagaRecord, dag: bytes | None, events: list[Event], dags: set[str]) -> StoredSaga:
    """The saga, if its parts agree.

    Args:
        record: Its record.
        dag: Its dag, encoded; `None` if the store has lost it.
        events: Its log.
        dags: Fingerprints of dags already checked; grows.

    Raises:
        CorruptLog: They disagree; says where.
    """
    check_end(record, events[-1].seq if events else 0)
    if record.status not in STATUSES:
        raise CorruptLog(f"saga {record.id}: its record says status {record.status!r}, which does not exist")
    if record.epoch < events[-1].epoch:
        raise CorruptLog(
            f"saga {record.id}: its record is at epoch {record.epoch}, "
            f"below event {events[-1].seq} at epoch {events[-1].epoch}; nothing was run; restore it from a copy"
        )
    if dag is None:
        raise CorruptLog(f"saga {record.id}: its dag {record.fingerprint} is missing; restore it from a copy")
    if record.fingerprint not in dags:
        if fingerprint(dag) != record.fingerprint:
            raise CorruptLog(
                f"saga {record.id}: its dag does not have the fingerprint {record.fingerprint}: it was altered "
                f"after it was written; nothing was run; restore it from a copy"
            )
        dags.add(record.fingerprint)
    return StoredSaga(record, dag, events)


def check_end(record: SagaRecord, last_seq: int) -> None:
    """Refuse a log whose end is missing, or that goes on behind its end."""
    if last_seq != record.last_seq:
        what = (
            f"event {last_seq + 1} is missing"
            if last_seq < record.last_seq
            else "its log goes on behind that"
        )
        raise CorruptLog(
            f"saga {record.id}: its record says that event {record.last_seq} is the last, but {what}; "
            "nothing was run; restore it from a copy, or have it looked at"
        )


# -- refusals --------------------------------------------------------------


def not_found(saga_id: str) -> SagaNotFound:
    """Nobody has that id."""
    asked = repr(saga_id)
    if len(saga_id) > LONGEST:
        asked = f"{saga_id[:40]!r}… ({len(saga_id)} characters; none is so long)"
    return SagaNotFound(f"no saga {asked} in this store; check the id and the store's url")


def exists(saga_id: str) -> SagaExists:
    """Somebody has that id."""
    return SagaExists(
        f"saga {saga_id!r} exists in this store; nothing was changed; use another id, or load it"
    )


def another(saga_id: str) -> Fenced:
    """The saga that is written to is gone, and another one has its id."""
    return Fenced(
        f"saga {saga_id}: it was deleted, and another saga was started under its id; nothing was written; stop working "
        "on it"
    )


def refusal(
    saga_id: str, epoch: int, expected_seq: int, events: Sequence[Event], at: int, last_seq: int
) -> CompensateError:
    """Why an append cannot be: the saga is at epoch `at` and `last_seq`."""
    if at != epoch:
        return Fenced(
            f"saga {saga_id}: it is at epoch {at}, this append came from epoch {epoch}: another coordinator has "
            "adopted it; nothing was written; stop working on it"
        )
    if last_seq != expected_seq:
        return Conflict(
            f"saga {saga_id}: its last event is {last_seq}, this append expected {expected_seq}; nothing was "
            "written; read the log again"
        )
    shown = ", ".join(f"{event.seq}@{event.epoch}" for event in events[:5]) or "none"
    return Conflict(
        f"saga {saga_id}: its events must go on from seq {expected_seq + 1} without gaps, in epoch {epoch}; given "
        f"(seq@epoch): {shown}; nothing was written"
    )


def not_over(saga_id: str, status: SagaStatus) -> IllegalRequest:
    """It cannot be deleted."""
    return IllegalRequest(
        f"saga {saga_id}: it is {status.replace('_', ' ')}; only a completed or rolled back saga can be deleted; "
        "nothing was changed"
    )


def in_hand(saga_id: str, owner: str) -> IllegalRequest:
    """It cannot be deleted now."""
    return IllegalRequest(
        f"saga {saga_id}: {owner} has claimed it and may go on with it; nothing was changed; try again later"
    )


# -- cursors ---------------------------------------------------------------


def cursor_at(record: SagaRecord) -> str:
    """The cursor that continues behind `record`."""
    return to_json([record.created_at, record.id]).decode()


def cursor_key(cursor: str) -> tuple[float, str]:
    """Creation time and id of the record behind which `cursor` continues.

    Raises:
        IllegalRequest: It is no cursor.
    """
    try:
        key: Any = from_json(cursor.encode())
        at, saga_id = key
        if isinstance(saga_id, str):
            return float(at), saga_id
    except (DeserializeFailed, TypeError, ValueError):
        pass
    raise IllegalRequest(
        f"page: {cursor[:80]!r} is no cursor; pass on the `cursor` of the page before, or None"
    )
