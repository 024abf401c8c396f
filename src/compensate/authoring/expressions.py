"""From an argument, which may hold references at any depth, to the expression that the dag stores."""

from __future__ import annotations

import types
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, get_args, get_origin, get_type_hints, is_typeddict

import msgspec
from msgspec import Raw

from compensate.authoring.refs import MARK, Source, fields_of, source_of
from compensate.authoring.signatures import bare_type, members, misfit, subclass_of
from compensate.codec import TypeCodec, type_codec
from compensate.codec.values import type_name
from compensate.core.dag import Expr, Fields, Items, Value
from compensate.errors import DefinitionError, SerializeFailed

_MARK = MARK.encode()
_codec = lru_cache(maxsize=256)(type_codec)


def _any(value: Any) -> Any:
    """For the checkers: forget what `isinstance` taught them, since what is inside is not known."""
    return value


_PLAIN = (str, int, float, bool, bytes, types.NoneType)


def compose(value: Any, codec: TypeCodec[Any], tracer: object, where: str) -> Expr:
    """The expression for a value that is to be read with `codec`.

    Lists, tuples, dicts, dataclasses, Structs, named tuples and typed dicts may hold references; a value without any is
    encoded whole.

    Args:
        value: What the author's code gave.
        codec: Of the parameter that it is for.
        tracer: The trace whose references may occur.
        where: For messages.

    Raises:
        DefinitionError: A type that clearly does not fit, a value that cannot be stored, a reference where none can be.
    """
    source = source_of(value)
    if source is not None:
        own(source, tracer, where)
        if reason := misfit(source.type, codec.type):
            raise DefinitionError(f"{where}: {source.shown} does not fit {type_name(codec.type)}: {reason}")
        return source.ref()
    if not holds_reference(value):
        return Value(Raw(encode_plain(value, codec, where)))
    for tp in members(codec.type):
        parts = _parts(value, tp, where)
        if parts is not None:
            break
    else:
        raise DefinitionError(
            f"{where}: a {type(value).__name__} of references does not fit {type_name(codec.type)}"
        )
    if isinstance(parts, list):
        return Items(tuple(_inner(part, tp, tracer, f"{where}[{i}]") for i, (part, tp) in enumerate(parts)))
    return Fields({name: _inner(part, tp, tracer, f"{where}.{name}") for name, (part, tp) in parts.items()})


def own(source: Source, tracer: object, where: str) -> None:
    """Refuse a reference that another trace made."""
    if source.tracer is not tracer:
        raise DefinitionError(
            f"{where}: {source.shown} belongs to another saga; give it to this one as a param (of a subsaga, only the "
            "output is visible outside)"
        )


def encode_plain(value: Any, codec: TypeCodec[Any], where: str) -> bytes:
    """The JSON of a value that is known now."""
    try:
        data = codec.encode(value)
    except SerializeFailed as error:
        raise DefinitionError(f"{where}: {error}") from error
    return refuse_mark(data, where)


def refuse_mark(data: bytes, where: str) -> bytes:
    """Refuse a text into which a reference was formatted."""
    if _MARK in data:
        raise DefinitionError(
            f"{where}: a text holds the repr of a reference, which has no value before the saga runs; make the text in "
            "an action"
        )
    return data


def _inner(part: Any, tp: Any, tracer: object, where: str) -> Expr:
    if type(part) is Value:  # a Struct's tag
        return part
    try:
        codec = _codec(tp, where="value")
    except TypeError:  # not hashable
        codec = type_codec(tp, where="value")
    return compose(part, codec, tracer, where)


def holds_reference(value: Any) -> bool:
    """Whether there is a reference in the value, at any depth."""
    open_ = [value]
    seen: set[int] = set()
    while open_:
        one: Any = open_.pop()
        if source_of(one) is not None:
            return True
        if isinstance(one, _PLAIN) or id(one) in seen:
            continue
        seen.add(id(one))  # a list may hold itself; the codec says so
        if isinstance(one, dict):
            open_.extend(_any(one).values())
        elif isinstance(one, list | tuple):
            open_.extend(_any(one))
        else:
            open_.extend(_get(one, name) for name in _field_names(one.__class__))
    return False


@lru_cache(maxsize=256)
def _field_names(cls: type) -> tuple[str, ...]:
    return tuple(fields_of(cls) or ())


def _get(value: Any, name: str) -> Any:
    return getattr(value, name, None)


_Parts = list[tuple[Any, Any]] | dict[str, tuple[Any, Any]]


def _parts(value: Any, tp: Any, where: str) -> _Parts | None:
    """The parts of a value with the type of each, read as `tp`; `None` if it does not fit."""
    cls: Any = get_origin(tp) or bare_type(tp)
    fields = fields_of(type(value))
    if fields is not None and not isinstance(value, dict):
        if tp is not Any and type(value) is not cls:
            return None
        return _field_parts(value, fields if tp is Any else fields_of(tp) or fields)
    if isinstance(value, dict):
        return _dict_parts(_any(value), tp, cls, where)
    if not isinstance(value, list | tuple):
        return None
    items: list[Any] = _any(value)
    args = get_args(tp)
    if cls is tuple and not (len(args) == 2 and args[1] is ...):
        if args and len(args) != len(items):
            raise DefinitionError(f"{where}: {len(items)} items are given for {type_name(tp)}")
        return list(zip(items, args or (Any,) * len(items), strict=True))
    if tp is not Any and (not subclass_of(cls, object) or subclass_of(cls, str, bytes, Mapping)):
        return None
    if tp is not Any and not hasattr(cls, "__iter__"):
        return None
    item = args[0] if args else Any
    return [(one, item) for one in items]


def _field_parts(value: Any, fields: Mapping[str, tuple[str | int, Any]]) -> _Parts:
    parts = {step: (_get(value, name), tp) for name, (step, tp) in fields.items()}
    config = getattr(value, "__struct_config__", None)
    tag = None if config is None else config.tag
    if all(isinstance(step, int) for step in parts):
        placed = list(parts.values())
        return placed if tag is None else [(_tag(tag), Any), *placed]
    named = {str(step): part for step, part in parts.items()}
    return named if tag is None or config is None else {config.tag_field: (_tag(tag), Any), **named}


def _tag(tag: object) -> Value:
    return Value(Raw(msgspec.json.encode(tag)))


def _dict_parts(value: dict[Any, Any], tp: Any, cls: Any, where: str) -> _Parts | None:
    if tp is not Any and not subclass_of(cls, Mapping):
        return None
    for key in value:
        if type(key) is not str:
            raise DefinitionError(
                f"{where}: a dict that holds references needs str keys, not {type(key).__name__}"
            )
    if is_typeddict(cls):
        hints = get_type_hints(cls, include_extras=False)
        if unknown := set(value) - set(hints):
            raise DefinitionError(f"{where}: `{type_name(tp)}` has no key {min(unknown)!r}")
        return {key: (one, hints[key]) for key, one in value.items()}
    args = get_args(tp)
    if len(args) == 2 and bare_type(args[0]) not in (str, Any):
        raise DefinitionError(
            f"{where}: a dict that holds references needs str keys, not {type_name(args[0])}"
        )
    return {key: (one, args[1] if len(args) == 2 else Any) for key, one in value.items()}
