"""Which type is found inside another one, by the steps that a path takes through its JSON."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final, Union, cast, get_args, get_origin, get_type_hints, is_typeddict

from msgspec import inspect as mi

from compensate.authoring.refs import fields_of
from compensate.authoring.signatures import members, subclass_of
from compensate.codec.values import type_name
from compensate.core.dag import Path


class _Absent:
    """There is clearly no such part."""


ABSENT: Final = _Absent
"""What `type_at` gives where values of the type can have no such part."""

_SCALARS: Final = (bool, int, float, str, bytes)


def type_at(tp: Any, path: Path) -> Any:
    """The type of what a path leads to.

    Only what is sure counts: `Any` where it is not known, `ABSENT` where values of the type have no such part.
    """
    for step in path:
        if tp is ABSENT:
            return ABSENT
        tp = _step(tp, step)
    return tp


def _step(tp: Any, step: str | int) -> Any:
    found: list[Any] = []
    for one in members(tp):
        part = ABSENT if one is type(None) else _part(one, step)
        if part is Any:
            return Any
        if part is not ABSENT:
            found.append(part)
    return Union[tuple(found)] if found else ABSENT  # noqa: UP007 - of a list


def _part(tp: Any, step: str | int) -> Any:
    if tp is Any:
        return Any
    try:
        fields = fields_of(tp)
    except Exception:  # annotations are code: they fail in every way
        return Any
    cls: Any = get_origin(tp) or tp
    if fields is not None:
        for at, part in fields.values():
            if at == step:
                return part
        return Any if _takes_more(cls, step) else ABSENT
    if is_typeddict(cls):
        return get_type_hints(cls).get(str(step), ABSENT)
    if not subclass_of(cls, object):
        return Any
    args = get_args(tp)
    if cls is tuple and args and args[-1] is not ...:
        return args[step] if isinstance(step, int) and step < len(args) else ABSENT
    if subclass_of(cls, Mapping):
        return args[1] if len(args) == 2 else Any
    if cls in _SCALARS or (cls in (list, tuple, set, frozenset) and isinstance(step, str)):
        return ABSENT
    if subclass_of(cls, Collection) and isinstance(step, int):
        return args[0] if args else Any
    return Any


def _takes_more(cls: Any, step: str | int) -> bool:
    """Whether there may be more in its JSON than its fields: a tag, or what a pydantic model lets pass."""
    config = getattr(cls, "__struct_config__", None)
    if config is not None:
        return bool(config.tag is not None and (config.array_like or config.tag_field == step))
    model = getattr(cls, "model_config", None)
    return isinstance(model, dict) and cast("dict[str, object]", model).get("extra") == "allow"


def clash_of_parts(tp: Any, parts: Collection[str] | int) -> str:
    """Why an object with these fields (or a list of so many items) is clearly no value of a type; `""` if it may be."""
    reasons: list[str] = []
    for one in members(tp):
        reason = _no_list(one, parts) if isinstance(parts, int) else _no_object(one, parts)
        if not reason:
            return ""
        reasons.append(reason)
    return reasons[0]


def _no_list(tp: Any, count: int) -> str:
    cls: Any = get_origin(tp) or tp
    args = get_args(tp)
    if cls is tuple and args and args[-1] is not ... and len(args) != count:
        return f"`{type_name(tp)}` has {len(args)} items, and {count} are given"
    if cls in (*_SCALARS, type(None), dict) or is_typeddict(cls) or hasattr(cls, "__dataclass_fields__"):
        return f"`{type_name(tp)}` is no list"
    return ""


def _no_object(tp: Any, names: Collection[str]) -> str:
    cls: Any = get_origin(tp) or tp
    if cls in (*_SCALARS, type(None), list, tuple, set, frozenset):
        return f"`{type_name(tp)}` has no fields"
    lacking: str | None = None
    models = getattr(cls, "__pydantic_fields__", None)
    if isinstance(models, dict):
        named = cast("dict[str, Any]", models)
        lacking = next((name for name, f in named.items() if f.is_required() and name not in names), None)
    elif tp is not Any:
        try:
            info = mi.type_info(tp)
        except Exception:  # annotations are code: they fail in every way
            return ""
        if isinstance(info, mi.StructType | mi.DataclassType | mi.TypedDictType):
            lacking = next(
                (f.encode_name for f in info.fields if f.required and f.encode_name not in names), None
            )
    return "" if lacking is None else f"`{type_name(tp)}` needs the field {lacking!r}, which is not given"
