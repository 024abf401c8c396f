"""The check by decoding: two values are equal only if nothing at all tells them apart, classes included.

Used where decoding runs somebody's code (`__post_init__`, pydantic validators) or tests limits, and by tests.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any, cast

import msgspec

from compensate.codec.checks import NotFaithful, is_fixed, key_text
from compensate.codec.models import is_model


def assert_equal(before: object, after: object, *, int_as_float: bool = False) -> None:
    """Compare a value with what came back for it, classes included.

    Args:
        before: The value.
        after: What came back.
        int_as_float: Let an int come back as the equal float, as it does where `float` is annotated.

    Raises:
        NotFaithful: They differ; the path leads to the first difference.
    """
    if int_as_float and type(before) is int and type(after) is float and before == after:
        return
    if type(before) is not type(after):
        raise NotFaithful(
            f"it is a `{type(before).__qualname__}` and comes back as a `{type(after).__qualname__}`"
        )
    parts = _parts(type(before), before, after)
    if parts is None:
        if not _equal(before, after):
            raise NotFaithful(f"this `{type(before).__qualname__}` comes back with another value")
        return
    for name, left, right in parts:
        try:
            assert_equal(left, right, int_as_float=int_as_float)
        except NotFaithful as refused:
            refused.path.append(name)
            raise


def _parts(cls: type[Any], before: Any, after: Any) -> Iterable[tuple[str, object, object]] | None:
    """The parts of two values of one class, side by side; None for what has no parts to compare."""
    if cls is list or issubclass(cls, tuple):
        if len(before) != len(after):
            raise NotFaithful(f"it has {len(before)} items and comes back with {len(after)}")
        return ((f"[{i}]", left, right) for i, (left, right) in enumerate(zip(before, after, strict=True)))
    if cls is dict:
        if list(before) != list(after):
            raise NotFaithful("its keys come back different, or in another order")
        keys = ((f"{key_text(key)} (key)", key, other) for key, other in zip(before, after, strict=True))
        values = ((key_text(key), before[key], after[key]) for key in before)
        return [*keys, *values]
    if issubclass(cls, msgspec.Struct):
        return _attributes(cls.__struct_fields__, before, after)
    if is_model(cls):
        names = [
            name
            for name in ("__dict__", "__pydantic_extra__", "__pydantic_private__")
            if hasattr(before, name)
        ]
        return [("", getattr(before, name), getattr(after, name)) for name in names]
    if dataclasses.is_dataclass(cls):
        return _attributes((field.name for field in dataclasses.fields(cls)), before, after)
    return None


def _attributes(names: Iterable[str], before: object, after: object) -> list[tuple[str, object, object]]:
    return [(f".{name}", getattr(before, name), getattr(after, name)) for name in names]


def _moment(value: dt.datetime | dt.time) -> tuple[object, ...]:
    zone = value.tzinfo
    kind = zone if zone is None else "fixed" if is_fixed(zone) else (type(zone), value.tzname())
    return value.replace(tzinfo=None), value.fold, kind, value.utcoffset()


_FORMS: dict[type, Callable[[Any], object]] = {
    float: repr,  # tells -0.0 from 0.0
    Decimal: Decimal.as_tuple,  # tells 1.0 from 1.00
    dt.datetime: _moment,
    dt.time: _moment,
}


def _equal(before: object, after: object) -> bool:
    form = _FORMS.get(type(before))
    if form is not None:
        return before == after and form(before) == form(after)
    if isinstance(before, set | frozenset):
        items, others = cast("frozenset[object]", before), cast("frozenset[object]", after)
        return items == others and _classes(items) == _classes(others)
    return bool(before == after)


def _classes(items: frozenset[object]) -> list[str]:
    return sorted(f"{type(item).__module__}.{type(item).__qualname__}" for item in items)
