"""A sample of a type, to find out when a definition is made whether its own serializers lose something.

What a serializer writes cannot be told from its code. So a model that has one is built once from sample values, written
and read: a sample that does not come back proves that the type loses something. Where no sample can be built (its
validators refuse what was tried), each value is still proven when it is stored.
"""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Mapping
from decimal import Decimal
from types import NoneType
from typing import Any, Final, Literal, get_args, get_origin
from uuid import UUID

from compensate.codec.models import is_model
from compensate.codec.typing_parts import field_types, is_class, is_union, unwrap

NO_SAMPLE: Final[Any] = object()
"""What `sample` gives for a type of which it can build no value."""

_DEEPEST: Final = 6
_PLAIN: Final[dict[Any, Any]] = {
    str: "Sample text",
    int: 1234567,
    float: 1.123456789,
    bool: True,
    bytes: b"sample",
    NoneType: None,
    Any: "Sample text",
    object: "Sample text",
    Decimal: Decimal("1.123456789"),
    UUID: UUID(int=7),
    dt.datetime: dt.datetime(2024, 2, 29, 12, 34, 56, 789123, tzinfo=dt.UTC),
    dt.date: dt.date(2024, 2, 29),
    dt.time: dt.time(12, 34, 56, 789123),
    dt.timedelta: dt.timedelta(days=1, seconds=2, microseconds=3),
}


def writes_itself(tp: Any) -> bool:
    """Whether a type holds a pydantic model with serializers that its author wrote."""
    open_ = [tp]
    seen: set[Any] = set()
    while open_:
        base, _ = unwrap(open_.pop())
        open_.extend(one for one in get_args(base) if not isinstance(one, str | int | bytes))
        origin: Any = get_origin(base) or base
        if not is_class(origin) or origin in seen:
            continue
        seen.add(origin)
        if is_model(origin):
            decorators = origin.__pydantic_decorators__
            if decorators.model_serializers or decorators.field_serializers:
                return True
            for field in origin.__pydantic_fields__.values():
                if any(type(one).__name__ in ("PlainSerializer", "WrapSerializer") for one in field.metadata):
                    return True
                open_.append(field.annotation)
        else:
            open_.extend((field_types(base) or {}).values())
    return False


def sample(tp: Any, depth: int = 0) -> Any:
    """A value of a type; `NO_SAMPLE` if none can be built."""
    try:
        return _sample(tp, depth)
    except Exception:  # validators refuse in their own ways
        return NO_SAMPLE


def _sample(tp: Any, depth: int) -> Any:
    base, _ = unwrap(tp)
    if base in _PLAIN:
        return _PLAIN[base]
    origin: Any = get_origin(base) or base
    args: tuple[Any, ...] = get_args(base)
    if depth > _DEEPEST:
        raise ValueError("nested too deep")
    if origin is Literal:
        return args[0]
    if is_union(base):
        others = sorted((one for one in args if one is not NoneType), key=lambda one: not writes_itself(one))
        return _sample(others[0], depth)
    if not is_class(origin):
        raise TypeError(f"no sample of {base}")
    if is_class(origin, enum.Enum):
        return next(iter(origin))
    if is_model(origin):
        fields = origin.__pydantic_fields__
        given = {name: _sample(field.annotation, depth + 1) for name, field in fields.items()}
        return origin.model_validate(given, by_name=True, by_alias=False)
    parts = field_types(base)
    if parts is not None:
        return origin(**{name: _sample(one, depth + 1) for name, one in parts.items()})
    if is_class(origin, Mapping):
        return {_sample(args[0], depth + 1): _sample(args[1], depth + 1)} if args else {}
    if is_class(origin, tuple) and not (len(args) == 2 and args[1] is ...):
        return tuple(_sample(one, depth + 1) for one in args)
    item: list[Any] = [_sample(args[0], depth + 1)] if args else []
    make: Any = origin if origin in (list, tuple, set, frozenset) else list
    return make(item)
