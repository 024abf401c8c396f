"""Events, dags and the log's rows as bytes.

An event is stored as a row: its envelope as columns, its payload as JSON, and a
checksum over all of them that also covers the checksum before, so that a row that
was edited, cut short, swapped or taken out is noticed when the log is read (S12).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, TypeAlias, cast
from zlib import crc32

import msgspec
from msgspec import Raw

from compensate.core import events as e
from compensate.core.dag import Dag, Path, SubsagaNode
from compensate.core.events import Event
from compensate.errors import CorruptLog, DefinitionError, DeserializeFailed, UnsupportedVersion

DAG_VERSION: Final = 2
"""Version of the stored form of dags. A dag with a higher one is refused.

A dag is stored with the lowest version whose readers understand it: 2 is for fan-outs of subsagas, which a reader of
version 1 would take for plain subsagas; all others are stored with 1.
"""

Row: TypeAlias = tuple[int, int, float, str, str, int, bytes, int]
"""seq, epoch, at, type, node, attempt, data, checksum."""

UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding raises of bytes that are no JSON, not of the type, or nested too deeply to be read."""

_encode = msgspec.json.Encoder().encode
_NO_DATA: Final = b""


# -- events ----------------------------------------------------------------


class _Value(msgspec.Struct, frozen=True):
    """The stored form of payloads that carry a user's value: as JSON, not as bytes."""

    output: Raw


class _Params(msgspec.Struct, frozen=True, omit_defaults=True):
    params: Raw
    deadline: float | None = None


class _Supplied(msgspec.Struct, frozen=True, omit_defaults=True):
    output: Raw
    who: str = ""
    why: str = ""


_STORED: Final[dict[type, type]] = {e.Completed: _Value, e.Created: _Params, e.Supplied: _Supplied}
_DECODERS: Final[dict[str, Any]] = {
    kind: None if payload is None else msgspec.json.Decoder(_STORED.get(payload, payload))
    for kind, payload in e.PAYLOADS.items()
}


def encode_data(data: e.Data) -> bytes:
    """The payload of an event as JSON; empty for none."""
    if data is None:
        return _NO_DATA
    if type(data) is e.Completed:
        return b'{"output":%b}' % data.output
    if type(data) is e.Created:
        return _encode(_Params(Raw(data.params), data.deadline))
    if type(data) is e.Supplied:
        return _encode(_Supplied(Raw(data.output), data.who, data.why))
    return _encode(data)


def decode_data(kind: str, data: bytes) -> e.Data:
    """The payload of an event of type `kind`.

    Raises:
        UnsupportedVersion: The type is unknown to this version.
        CorruptLog: The JSON is damaged or does not fit the type.
    """
    try:
        decoder = _DECODERS[kind]
    except KeyError:
        raise UnsupportedVersion(
            f"event type {kind!r} is unknown to this version of compensate; upgrade before running this saga"
        ) from None
    if decoder is None:
        if data:
            raise CorruptLog(
                f"an event of type {kind!r} carries no data, but the row has {len(data)} bytes of it"
            )
        return None
    payload: Any
    try:
        payload = decoder.decode(data)
    except UNREADABLE as error:
        raise CorruptLog(f"the data of an event of type {kind!r} does not decode: {error}") from None
    if type(payload) is _Value:
        return e.Completed(bytes(payload.output))
    if type(payload) is _Params:
        return e.Created(bytes(payload.params), payload.deadline)
    if type(payload) is _Supplied:
        return e.Supplied(bytes(payload.output), payload.who, payload.why)
    return cast(e.Data, payload)


def to_rows(events: Iterable[Event], checksum: int) -> list[Row]:
    """Rows for events that follow the row with `checksum` (0 before the first)."""
    rows: list[Row] = []
    seen: float | None = None
    at, shown = 0.0, ""
    for event in events:
        if (
            event.at is not seen
        ):  # events of one step share their time, and showing it is a third of the checksum
            seen = event.at
            at = float(seen)  # an int comes back as a float
            shown = repr(at)
        data = encode_data(event.data)
        checksum = _checksum(
            checksum, event.seq, event.epoch, shown, event.type, event.node, event.attempt, data
        )
        rows.append((event.seq, event.epoch, at, event.type, event.node, event.attempt, data, checksum))
    return rows


def from_rows(
    saga_id: str, rows: Iterable[Sequence[Any]], checksum: int = 0, last_seq: int = 0
) -> list[Event]:
    """Events from rows in order; the inverse of `to_rows`.

    Args:
        saga_id: Named in errors.
        rows: As `Row`, ordered by seq.
        checksum: Checksum of the row before the first.
        last_seq: Its seq.

    Raises:
        CorruptLog: A row is missing, damaged or out of order; says which.
        UnsupportedVersion: A row was written by a newer version.
    """
    events: list[Event] = []
    for row in rows:
        try:
            seq, epoch, at, kind, node, attempt, data, stored = row
            data = bytes(data)
            computed = _checksum(checksum, seq, epoch, repr(at), kind, node, attempt, data)
        except (TypeError, ValueError, AttributeError, UnicodeError):
            raise CorruptLog(
                f"saga {saga_id}: the row after event {last_seq} is no event row; {_ADVICE}"
            ) from None
        if seq != last_seq + 1:
            raise CorruptLog(f"saga {saga_id}: event {last_seq + 1} is missing (next is {seq}); {_ADVICE}")
        if computed != stored:
            raise CorruptLog(
                f"saga {saga_id}: event {seq} ({kind} {node}) was altered after it was written; {_ADVICE}"
            )
        try:
            events.append(Event(seq, epoch, at, kind, node, attempt, decode_data(kind, data)))
        except CorruptLog as error:
            raise CorruptLog(f"saga {saga_id}: event {seq}: {error}; {_ADVICE}") from None
        except UnsupportedVersion as error:
            raise UnsupportedVersion(f"saga {saga_id}: event {seq}: {error}") from None
        checksum, last_seq = stored, seq
    return events


_ADVICE: Final = "nothing was run; restore it from a copy, or have it looked at"


def _checksum(
    before: int, seq: int, epoch: int, at: str, kind: str, node: str, attempt: int, data: bytes
) -> int:
    return crc32(data, crc32(f"{before}|{seq}|{epoch}|{at}|{kind}|{node}|{attempt}|".encode()))


# -- dags ------------------------------------------------------------------


class _StoredDag(msgspec.Struct, frozen=True):
    version: int
    dag: Raw


_dag_decoder = msgspec.json.Decoder(Dag)
_stored_dag_decoder = msgspec.json.Decoder(_StoredDag)
_sorted = msgspec.json.Encoder(order="sorted")


DEEPEST: Final = 100
"""Levels of subsagas in a stored dag. What reads it goes down by recursion, on whatever stack there is then."""


def encode_dag(dag: Dag) -> bytes:
    """A dag as JSON with its version; equal dags give equal bytes.

    Raises:
        DefinitionError: Its subsagas are nested too deep.
    """
    level = [dag]
    version = 1
    for _ in range(DEEPEST + 1):
        nodes = [node for outer in level for node in outer.nodes if isinstance(node, SubsagaNode)]
        if any(node.each is not None for node in nodes):
            version = DAG_VERSION
        level = list({id(node.dag): node.dag for node in nodes}.values())
    if level:
        raise DefinitionError(
            f"dag {dag.name}: its subsagas are nested too deep to be stored; {DEEPEST} levels are the most; "
            "flatten it"
        )
    return _sorted.encode({"version": version, "dag": dag})


def decode_dag(data: bytes) -> Dag:
    """The inverse of `encode_dag`.

    Raises:
        UnsupportedVersion: Written by a newer version.
        CorruptLog: Damaged.
    """
    try:
        stored = _stored_dag_decoder.decode(data)
        if stored.version > DAG_VERSION:
            raise UnsupportedVersion(
                f"a stored dag has version {stored.version}; this compensate reads up to {DAG_VERSION}: upgrade"
            )
        return _dag_decoder.decode(stored.dag)
    except UNREADABLE as error:
        raise CorruptLog(f"a stored dag does not decode: {error}; {_ADVICE}") from None


def fingerprint(encoded_dag: bytes) -> str:
    """What tells one dag from another: a hash of its stored form."""
    from hashlib import sha256  # loads OpenSSL: not at every import of the package

    return sha256(encoded_dag).hexdigest()[:32]


# -- plain JSON ------------------------------------------------------------

_raw_list = msgspec.json.Decoder(list[Raw])
_raw_dict = msgspec.json.Decoder(dict[str, Raw])
_plain = msgspec.json.Decoder()

NULL: Final = b"null"


def to_json(value: object) -> bytes:
    """Plain data of the library's own (never a user's value) as JSON."""
    return _encode(value)


def from_json(data: bytes) -> Any:
    """Plain data from JSON.

    Raises:
        DeserializeFailed: It is no JSON.
    """
    try:
        return _plain.decode(data)
    except UNREADABLE as error:
        raise DeserializeFailed(f"no JSON: {error}") from None


def check_keys(data: bytes) -> None:
    """Check that no object in a JSON text has a key twice: decoders keep the last value and drop the others.

    Args:
        data: JSON that somebody wrote, and that has been found to decode.

    Raises:
        DeserializeFailed: One has; names the key.
    """
    import json  # only for what people write by hand

    def pairs(items: list[tuple[str, Any]]) -> None:
        seen: set[str] = set()
        for key, _ in items:
            if key in seen:
                raise DeserializeFailed(f"the key {key!r} is given twice in one object; give it once")
            seen.add(key)

    try:
        json.loads(data.decode(), object_pairs_hook=pairs, parse_int=str, parse_float=str)
    except (ValueError, RecursionError) as error:
        if isinstance(error, DeserializeFailed):
            raise
        raise DeserializeFailed(f"no JSON that can be checked: {error}") from None


def same(one: bytes, other: bytes) -> bool:
    """Whether two JSON texts say the same; the order of an object's fields says nothing."""
    return one == other or from_json(one) == from_json(other)


def select(data: bytes, path: Path) -> bytes:
    """The part of a JSON value to which `path` leads.

    Raises:
        DeserializeFailed: The value has no such part.
    """
    if not path:
        return data
    raw: Raw | bytes = data
    for step in path:
        try:
            raw = _raw_dict.decode(raw)[step] if isinstance(step, str) else _raw_list.decode(raw)[step]
        except (*UNREADABLE, LookupError) as error:
            shown = "".join(f".{s}" if isinstance(s, str) else f"[{s}]" for s in path)
            raise DeserializeFailed(f"the value has no {shown}: {error}") from None
    return bytes(raw)


def split(data: bytes) -> list[bytes]:
    """The items of a JSON list.

    Raises:
        DeserializeFailed: It is no list.
    """
    try:
        return [bytes(item) for item in _raw_list.decode(data)]
    except UNREADABLE as error:
        raise DeserializeFailed(f"a list was expected: {error}") from None


def join(items: Iterable[bytes]) -> bytes:
    """A JSON list of JSON values."""
    return b"[" + b",".join(items) + b"]"


def join_fields(fields: Iterable[tuple[str, bytes]]) -> bytes:
    """A JSON object of JSON values."""
    return b"{" + b",".join(_encode(name) + b":" + value for name, value in fields) + b"}"
