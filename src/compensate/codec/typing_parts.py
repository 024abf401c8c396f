"""Taking annotations apart: what `Annotated`, aliases, unions and classes with fields hold."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from types import UnionType
from typing import (
    Annotated,
    Any,
    Generic,
    Protocol,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

_QUALIFIERS = ("Required", "NotRequired", "ReadOnly", "Final", "ClassVar")


def unwrap(tp: Any) -> tuple[Any, tuple[Any, ...]]:
    """A type without `Annotated`, aliases, `NewType` and qualifiers, and the metadata that stood around it."""
    metadata: tuple[Any, ...] = ()
    while True:
        origin = get_origin(tp)
        if origin is Annotated:
            metadata = (*get_args(tp)[1:], *metadata)
            tp = get_args(tp)[0]
        elif getattr(origin, "_name", None) in _QUALIFIERS:
            tp = get_args(tp)[0]
        elif hasattr(tp, "__supertype__"):
            tp = tp.__supertype__
        elif type(origin).__name__ == "TypeAliasType":
            alias: Any = origin
            tp = substitute(alias.__value__, dict(zip(alias.__type_params__, get_args(tp), strict=False)))
        elif type(tp).__name__ == "TypeAliasType":
            tp = tp.__value__
        elif isinstance(tp, TypeVar):
            tp = Any if tp.__bound__ is None else tp.__bound__
        else:
            return tp, metadata


def is_class(tp: Any, *kinds: Any) -> bool:
    """Whether this is a class, and one of these. A plain `bool`: the checkers are to go on knowing nothing of it."""
    return isinstance(tp, type) and (not kinds or issubclass(tp, kinds))


def is_union(tp: Any) -> bool:
    """Whether this is `A | B` or `Optional[A]`."""
    return get_origin(tp) in (Union, UnionType)


def is_typed_dict(tp: Any) -> bool:
    """Whether this is a TypedDict, that of typing_extensions included."""
    return is_typeddict(tp) or type(tp).__name__ == "_TypedDictMeta"


def substitute(tp: Any, known: Mapping[Any, Any]) -> Any:
    """A type with its type parameters replaced."""
    if isinstance(tp, TypeVar):
        return known.get(tp, tp)
    parameters = getattr(tp, "__parameters__", ())
    if isinstance(tp, type) or not parameters:
        return tp
    return tp[tuple(known.get(one, Any) for one in parameters)]


def field_types(tp: Any) -> dict[str, Any] | None:
    """The type of each field of a dataclass, msgspec Struct, NamedTuple or TypedDict; `None` for other types."""
    cls: Any = get_origin(tp) or tp
    if not is_class(cls):
        return None
    if is_typed_dict(cls):
        return _substituted(tp, cls, get_type_hints(cls, include_extras=True))
    names: tuple[str, ...]
    if hasattr(cls, "__struct_fields__"):
        names = cls.__struct_fields__
    elif hasattr(cls, "__dataclass_fields__"):
        names = tuple(field.name for field in dataclasses.fields(cls))
    elif is_class(cls, tuple) and hasattr(cls, "_fields"):
        names = cls._fields
    else:
        return None
    found = _substituted(tp, cls, get_type_hints(cls, include_extras=True))
    declared: Mapping[str, Any] = cls.__dict__.get("__pydantic_fields__", {})
    for name, field in declared.items():  # a pydantic dataclass keeps constraints beside the annotation too
        if name in found and getattr(field, "metadata", None):
            found[name] = Annotated[(field.annotation, *field.metadata)]
    return {name: found.get(name, Any) for name in names}


def _substituted(tp: Any, cls: Any, hints: dict[str, Any]) -> dict[str, Any]:
    """The hints of a class, its type parameters and those of its bases replaced by what they stand for."""
    known: dict[Any, dict[Any, Any]] = {}
    open_ = [tp]
    while open_:
        one = open_.pop()
        origin: Any = get_origin(one) or one
        parameters = getattr(origin, "__parameters__", ())
        known[origin] = dict(zip(parameters, get_args(one), strict=False))
        bases = [base for base in getattr(origin, "__orig_bases__", ()) if _is_class(base)]
        open_.extend(substitute(base, known[origin]) for base in bases)
    found = dict(hints)
    for owner in reversed(cls.__mro__):
        for name in inspect.get_annotations(owner):
            if name in hints:
                found[name] = substitute(hints[name], known.get(owner, {}))
    return found


def _is_class(base: Any) -> bool:
    return isinstance(get_origin(base), type) and get_origin(base) not in (Generic, Protocol)
