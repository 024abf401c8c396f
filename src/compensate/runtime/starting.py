"""Starting an id that is taken: whether the stored saga is the one that is being started."""

from __future__ import annotations

from inspect import Parameter
from typing import Any, Final, cast

import msgspec
from msgspec import Raw

from compensate.authoring import Saga
from compensate.codec import TypeCodec
from compensate.codec import records as r
from compensate.core.events import Created
from compensate.errors import DeserializeFailed, SagaExists, SerializeFailed, Unavailable
from compensate.runtime.execution import Execution
from compensate.stores.base import StoredSaga

_fields: Final = msgspec.json.Decoder(dict[str, Raw])


def check_start(first: Execution) -> None:
    """Of a start that failed in the store, say so to all who waited for it: one after the other would wait long.

    Raises:
        Unavailable: It failed, and its outcome is unknown.
    """
    error = first.lost
    if isinstance(error, Unavailable) and not first.cut_off:
        raise Unavailable(str(error)) from error


def check_same(saga: Saga[..., Any], stored: StoredSaga, params: bytes) -> None:
    """Refuse to start an id that is taken by a saga other than the one that is being started.

    Raises:
        SagaExists: It is, and in what they differ.
    """
    created, record = stored.events[0].data, stored.record
    assert isinstance(created, Created)
    what = difference(saga, record.name, created.params, params)
    if what:
        raise SagaExists(
            f"saga {record.id}: the id is taken by {what}; that one is {record.status}; nothing was changed; "
            "choose another id, or look at it with get()"
        )


def difference(saga: Saga[..., Any], name: str, stored: bytes, params: bytes) -> str:
    """Why a stored saga is not the one that is being started; `""` if it is.

    It is if it has the same name and equal params. The graph does not count: a stored saga runs the graph that is
    stored with it, so a client that repeats its start after a deploy gets the saga that it started before. Params are
    equal if their values are, decoded by the types of today, or, where one of them does not decode, their JSON. A param
    that was added since has its default in the stored saga. A param that was removed since counts as a difference:
    nothing says what the caller would have given for it.

    Args:
        saga: What is being started.
        name: The stored saga's name.
        stored: Its params.
        params: Those of the start.
    """
    if name != saga.name:
        return f"a saga {name!r}, and this start is of another definition, {saga.name!r}"
    if stored == params:
        return ""
    there, here = _fields.decode(stored), _fields.decode(params)
    differing = [f"{field!r}, which {saga.name!r} no longer takes" for field in there if field not in here]
    for field, given in here.items():
        was = _default(saga, field) if field not in there else bytes(there[field])
        if was is None:
            differing.append(f"{field!r}, which the stored saga does not have")
        elif not _equal_params(saga.params[field], was, bytes(given)):
            differing.append(repr(field))
    return "" if not differing else f"a saga {name!r} with other params ({', '.join(differing)})"


def _default(saga: Saga[..., Any], field: str) -> bytes | None:
    """What a param that a stored saga lacks stands at; `None` if it has no default."""
    default = saga.signature.parameters[field].default
    if default is Parameter.empty:
        return None
    try:
        return saga.params[field].encode(default)
    except SerializeFailed:
        return None


def _equal_params(codec: TypeCodec[Any], one: bytes, other: bytes) -> bool:
    if one == other:
        return True
    try:
        return _equal(codec.decode(one), codec.decode(other))
    except DeserializeFailed:
        return _equal(r.from_json(one), r.from_json(other))


def _equal(one: Any, other: Any) -> bool:
    """Whether two values are equal, where `True` is not 1."""
    if isinstance(one, dict) and isinstance(other, dict):
        mine: dict[Any, Any] = {**one}
        return mine.keys() == other.keys() and all(_equal(mine[key], other[key]) for key in mine)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        items, others = cast("list[Any]", one), cast("list[Any]", other)
        return len(items) == len(others) and all(map(_equal, items, others))
    if isinstance(one, bool) is not isinstance(other, bool):
        return False
    try:
        return bool(one == other)
    except Exception:  # a comparison of the user's that raises says nothing
        return False
