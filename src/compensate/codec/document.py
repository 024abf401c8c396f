"""The state document: a saga in the JSON form of the Go library, for people and for other programs.

It is derived from the log and says less than that. Written by us it has further fields that the Go library passes
over: `last_seq`, and where there is something to say `paused`, `in_doubt`, `stuck` and `parked`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final, Literal

import msgspec
from msgspec import Raw

from compensate.codec.records import NULL
from compensate.core import events as e
from compensate.core import states as s
from compensate.core.events import Event, StuckNode
from compensate.errors import CorruptLog, DeserializeFailed

DocumentStatus = Literal["running", "completed", "failed", "rolling_back", "rolled_back"]

STATUS: Final[dict[s.SagaStatus, DocumentStatus]] = {
    s.RUNNING: "running",
    s.ROLLING_BACK: "rolling_back",
    s.COMPLETED: "completed",
    s.ROLLED_BACK: "rolled_back",
    # The Go library knows no "stuck"; its "failed" says the same: not completed, and not all is undone.
    s.STUCK: "failed",
}
"""The Go library's word for each status."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TIME: Final = re.compile(r"(\d{4}-\d\d-\d\d)[Tt](\d\d:\d\d:\d\d)(?:\.(\d+))?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_GONE: Final = frozenset({s.UNDONE, s.RESOLVED})


class CompletedAction(msgspec.Struct, frozen=True):
    """An action that completed and was not undone: the path of its node, and its output as JSON."""

    name: str
    output: Raw = Raw(NULL)


class StateDocument(msgspec.Struct, frozen=True, omit_defaults=True):
    """A saga as the document shows it.

    Attributes:
        saga_id: Its id.
        saga_name: Name of its definition.
        status: In the Go library's words; see `STATUS`.
        context: Its params.
        completed_actions: What completed and stands, in the order in which it completed.
        created_at: As RFC 3339.
        updated_at: Time of the last event.
        last_seq: Seq of the last event that went into it; 0 in documents of the Go library.
        paused: Whether the saga is paused.
        in_doubt: Nodes whose action may or may not have taken effect.
        stuck: Nodes that need an operator, why, and what can be chosen.
        parked: Why the saga waits for code that knows it.
    """

    saga_id: str
    saga_name: str
    status: DocumentStatus
    context: Raw
    completed_actions: list[CompletedAction] | None
    created_at: str
    updated_at: str
    last_seq: int = 0
    paused: bool = False
    in_doubt: list[str] = []
    stuck: tuple[StuckNode, ...] = ()
    parked: str = ""

    @property
    def completed(self) -> list[CompletedAction]:
        """`completed_actions`; the Go library writes `null` where there are none."""
        return self.completed_actions or []

    @property
    def created(self) -> float:
        """`created_at` in seconds since the epoch."""
        return _seconds(self.created_at, "created_at")

    @property
    def updated(self) -> float:
        """`updated_at` in seconds since the epoch."""
        return _seconds(self.updated_at, "updated_at")

    def json(self) -> bytes:
        """As it is written to files: indented, with a line break at the end."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"


def document_of(saga_id: str, saga_name: str, events: Iterable[Event]) -> StateDocument:
    """The document of a saga whose log begins with `events`.

    Raises:
        CorruptLog: They do not begin with the saga's creation.
    """
    status: s.SagaStatus | None = None
    back = paused = False
    stuck = e.SagaStuck()
    state: dict[str, s.NodeState] = {}
    outputs: dict[str, Raw] = {}
    params = NULL
    created_at = updated_at = 0.0
    last_seq = 0
    for event in events:
        kind, node, data = event.type, event.node, event.data
        last_seq, updated_at = event.seq, event.at
        if node:
            before = state.get(node, s.PENDING)
            after = state[node] = s.NODE.get(kind, {}).get(before, before)
            if isinstance(data, e.Completed | e.Supplied):
                outputs[node] = Raw(data.output)
            elif after in _GONE:
                outputs.pop(node, None)
        elif isinstance(data, e.Created):
            status, params, created_at = s.RUNNING, data.params, event.at
        elif status is not None:
            status = s.SAGA.get(kind, {}).get(status, status)
            back = back or kind == e.SAGA_ROLLBACK
            paused = kind == e.SAGA_PAUSED or (paused and kind != e.SAGA_RESUMED)
            if isinstance(data, e.SagaStuck):
                stuck = data
        if kind in s.UNSTICK and status == s.STUCK:
            status = s.ROLLING_BACK if back else s.RUNNING
    if status is None:
        raise CorruptLog(f"saga {saga_id}: its log does not begin with its creation")
    if status != s.STUCK:
        stuck = e.SagaStuck()
    return StateDocument(
        saga_id,
        saga_name,
        STATUS[status],
        Raw(params),
        [CompletedAction(name, output) for name, output in outputs.items()],
        _time(created_at),
        _time(updated_at),
        last_seq,
        paused,
        [node for node, its in state.items() if its == s.IN_DOUBT],
        stuck.nodes,
        stuck.parked,
    )


def read_go_document(text: str | bytes) -> StateDocument:
    """Read a document, written by the Go library or by us.

    Raises:
        DeserializeFailed: It is none; names the field.
    """
    try:
        document = _decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise DeserializeFailed(f"state document: {error}") from None
    for field in ("saga_id", "saga_name"):
        if not getattr(document, field):
            raise DeserializeFailed(f"state document: `$.{field}` is empty")
    seen: set[str] = set()
    for position, action in enumerate(document.completed):
        where = f"`$.completed_actions[{position}].name`"
        if not action.name:
            raise DeserializeFailed(f"state document: {where} is empty")
        if action.name in seen:
            raise DeserializeFailed(
                f"state document: {where}: {action.name!r} is there twice; a saga completes an action once"
            )
        seen.add(action.name)
    _ = document.created, document.updated
    return document


_decode: Final = msgspec.json.Decoder(StateDocument).decode


def _time(at: float) -> str:
    try:
        return datetime.fromtimestamp(at, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        return "0001-01-01T00:00:00Z"  # a time that no calendar holds; Go's own word for "none"


def _seconds(text: str, field: str) -> float:
    """RFC 3339, which allows any number of digits after the seconds (Go writes up to nine)."""
    match = _TIME.fullmatch(text)
    try:
        if match is None:
            raise ValueError
        day, clock, fraction, zone = match.groups()
        moment = datetime.fromisoformat(f"{day}T{clock}{'+00:00' if zone in 'zZ' else zone}")
    except ValueError:
        raise DeserializeFailed(
            f"state document: `$.{field}`: {text[:80]!r} is no time; RFC 3339 was expected, like 2025-07-01T12:00:00Z"
        ) from None
    return (moment - _EPOCH).total_seconds() + (float(f"0.{fraction}") if fraction else 0.0)
