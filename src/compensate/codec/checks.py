"""Checks that a value will come back as it was: one closure a type, built once.

On its own msgspec would write NaN as null, a tuple as a list and a zone as its offset. The closures compare classes
exactly, and look at a value itself only where its class does not settle the matter.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import inspect
import math
import types
from collections.abc import Callable, Iterable
from decimal import Decimal
from functools import cached_property
from operator import attrgetter
from typing import Any, cast

Check = Callable[[Any], None]
NormalizeSets = Callable[[Any], Any]

MAX_DEPTH = 256  # of untyped JSON: what was written on a short stack must still be readable on a long one
_NONE = type(None)
_SCALARS = frozenset((str, int, bool, _NONE))


class NotFaithful(Exception):
    """A value would not come back as it was. `path` collects the way to it, innermost first."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why
        self.path: list[str] = []

    def at(self) -> str:
        """The way from the whole value to the offending part."""
        return "value" + "".join(reversed(self.path))


class Unsupported(Exception):
    """A type cannot be stored; the message names the part, why, and what to use instead."""


@dataclasses.dataclass(slots=True)
class TypeCheck:
    """What is known of one part of a type.

    Attributes:
        types: The exact classes that values of it have.
        plain: Being of one of `types` is all that a value needs.
        check: Raises `NotFaithful`.
        normalize_sets: Gives an equal JSON form with sets in a fixed order; used only for types that hold sets.
        int_like: Is written as a JSON integer though `types` does not say `int`.
    """

    types: tuple[type, ...]
    check: Check
    plain: bool = False
    normalize_sets: NormalizeSets = lambda value: value
    int_like: bool = False


def wrong_class(value: object, expected: tuple[type, ...]) -> NotFaithful:
    """The refusal of a value whose class is not exactly one of those annotated."""
    got, names = type(value).__qualname__, " | ".join(cls.__qualname__ for cls in expected)
    for cls in expected:
        if isinstance(value, cls):
            return NotFaithful(
                f"it is a `{got}`, and would come back as a plain `{cls.__qualname__}` without what `{got}` adds; "
                f"convert it to `{cls.__qualname__}`, or annotate `{got}`"
            )
    return NotFaithful(f"it is a `{got}` where `{names}` is annotated; convert it, or correct the annotation")


def key_text(key: object) -> str:
    """How a dict key shows in a path."""
    text = ascii(key)
    return f"[{text}]" if len(text) <= 40 else f"[{text[:36]}...]"


# -- leaves ---------------------------------------------------------------------------------------------------------


def check_float(value: Any) -> None:
    """Finite floats; an int (which Python's typing allows for `float`) if it is exactly a float."""
    if type(value) is float:
        if not math.isfinite(value):
            raise NotFaithful("it is NaN or infinite, which JSON cannot carry; use None or a text for it")
    elif type(value) is int:
        try:
            exact = float(value) == value
        except OverflowError:
            exact = False
        if not exact:
            raise NotFaithful("it is an int too large to be exact as the annotated `float`; annotate `int`")
    else:
        raise wrong_class(value, (float,))


def check_float_key(value: Any) -> None:
    """Finite floats only: a key `1` would not be read as `1.0` is written."""
    if type(value) is not float:
        raise wrong_class(value, (float,))
    check_float(value)


def check_decimal(value: Any) -> None:
    """Finite decimals."""
    if type(value) is not Decimal:
        raise wrong_class(value, (Decimal,))
    if not value.is_finite():
        raise NotFaithful(
            "it is a NaN or infinite Decimal, which does not compare as it was; use None for it"
        )


def _check_zone(value: dt.datetime | dt.time) -> None:
    zone = value.tzinfo
    if value.fold:
        raise NotFaithful("its `fold` would be lost; store the UTC time, `value.astimezone(timezone.utc)`")
    if zone is None or zone is dt.UTC:
        return
    if not is_fixed(zone):
        raise NotFaithful(
            f"its zone, a `{type(zone).__qualname__}`, would come back as a bare offset without a name; store "
            "`value.astimezone(timezone.utc)`, and the zone's name in a field of its own"
        )
    offset = zone.utcoffset(None)
    if offset is None or offset.seconds % 60 or offset.microseconds:
        raise NotFaithful(
            "its zone's offset is not of whole minutes, as JSON's times need; store the UTC time"
        )


def is_fixed(zone: dt.tzinfo) -> bool:
    """Whether this zone is an offset and nothing more, so that the offset alone brings it back."""
    cls = type(zone)
    if cls is dt.timezone:
        return zone.tzname(None) == dt.timezone(zone.utcoffset(None) or dt.timedelta()).tzname(None)
    # What pydantic reads times into; it would else be refused wherever a model's time is passed on.
    return cls.__module__.startswith("pydantic_core") and cls.__name__ == "TzInfo"


def check_datetime(value: Any) -> None:
    """Naive, or with a nameless fixed offset of whole minutes."""
    if type(value) is not dt.datetime:
        raise wrong_class(value, (dt.datetime,))
    if value.tzinfo is not dt.UTC or value.fold:
        _check_zone(value)


def check_time(value: Any) -> None:
    """As `check_datetime`."""
    if type(value) is not dt.time:
        raise wrong_class(value, (dt.time,))
    _check_zone(value)


def check_json(whole: object, depth: int = 0) -> None:
    """Plain JSON data, as `Any` and `object` hold."""
    cls = type(whole)
    if cls in _SCALARS:
        return
    value: Any = whole
    if cls is float:
        check_float(value)
    elif depth >= MAX_DEPTH and cls in (list, dict):
        raise NotFaithful(f"untyped data are nested more than {MAX_DEPTH} deep, or in a circle; flatten them")
    elif cls is list:
        if not _SCALARS.issuperset(map(type, value)):
            for index, item in enumerate(value):
                try:
                    check_json(item, depth + 1)
                except NotFaithful as refused:
                    refused.path.append(f"[{index}]")
                    raise
    elif cls is dict:
        for key, item in value.items():
            try:
                if type(key) is not str:
                    raise NotFaithful(
                        f"its key is a `{type(key).__qualname__}` and would come back as a str; use str keys"
                    )
                check_json(item, depth + 1)
            except NotFaithful as refused:
                refused.path.append(key_text(key))
                raise
    else:
        raise NotFaithful(
            f"it is a `{cls.__qualname__}` where nothing more than JSON data (None, bool, int, float, str, list, dict "
            f"with str keys) is annotated; annotate `{cls.__qualname__}` itself"
        )


# -- checks of containers and classes -------------------------------------------------------------------------------


def exact(cls: type) -> Check:
    """The check that a value is of exactly this class."""

    def check(value: Any) -> None:
        if type(value) is not cls:
            raise wrong_class(value, (cls,))

    return check


def literal(values: tuple[object, ...]) -> TypeCheck:
    """A Literal; 1 and True are told apart."""
    pairs = {(type(value), value) for value in values}
    classes = tuple({type(value) for value in values})

    def check(value: Any) -> None:
        if type(value) not in classes:
            raise wrong_class(value, classes)
        if (type(value), value) not in pairs:
            raise NotFaithful(
                "it is none of the annotated Literal values; correct the value or the annotation"
            )

    return TypeCheck(classes, check)


def sequence(cls: Any, item: TypeCheck, part: str = "[{}]") -> Check:
    """The check of a list, a set or a tuple of any length."""
    fits = frozenset(item.types).issuperset if item.plain else None

    def check(value: Any) -> None:
        if type(value) is not cls:
            raise wrong_class(value, (cls,))
        if fits is not None and fits(map(type, value)):
            return
        for index, each in enumerate(value):
            try:
                item.check(each)
            except NotFaithful as refused:
                refused.path.append(part.format(index))
                raise

    return check


def positions(cls: Any, items: tuple[TypeCheck, ...], names: tuple[str, ...]) -> Check:
    """The check of a tuple or NamedTuple with a type for each place."""
    count = len(items)
    numbered = tuple(zip(items, names, strict=True))

    def check(value: Any) -> None:
        if type(value) is not cls:
            raise wrong_class(value, (cls,))
        if len(value) != count:
            raise NotFaithful(f"it has {len(value)} items where {count} are annotated")
        for (node, name), each in zip(numbered, value, strict=True):
            try:
                node.check(each)
            except NotFaithful as refused:
                refused.path.append(name)
                raise

    return check


def mapping(key: TypeCheck, item: TypeCheck) -> Check:
    """The check of a dict."""
    key_fits = frozenset(key.types).issuperset if key.plain else None
    item_fits = frozenset(item.types).issuperset if item.plain else None
    cls: Any = dict

    def check(value: Any) -> None:
        if type(value) is not cls:
            raise wrong_class(value, (cls,))
        keys_fit = key_fits is not None and key_fits(map(type, value))
        if keys_fit and item_fits is not None and item_fits(map(type, value.values())):
            return
        for name, each in value.items():
            try:
                key.check(name)
                item.check(each)
            except NotFaithful as refused:
                refused.path.append(key_text(name))
                raise

    return check


def typed_dict(cls: type, known: dict[str, TypeCheck], required: frozenset[str]) -> Check:
    """The check of a TypedDict: no missing key, no other key."""
    exactly: Any = dict

    def check(value: Any) -> None:
        if type(value) is not exactly:
            raise wrong_class(value, (dict,))
        for name, each in value.items():
            try:
                node = known.get(name) if type(name) is str else None
                if node is None:
                    raise NotFaithful(
                        f"`{cls.__qualname__}` has no such key, so it would be lost; add or remove it"
                    )
                node.check(each)
            except NotFaithful as refused:
                refused.path.append(key_text(name))
                raise
        missing = required - value.keys()
        if missing:
            raise NotFaithful(f"the key {min(missing)!r}, which `{cls.__qualname__}` requires, is missing")

    return check


def fields(cls: type, fields: dict[str, TypeCheck]) -> Check:
    """The check of a dataclass or struct: its exact class, its fields, and nothing beside them."""
    # One C call and one comparison serve all fields whose class is all there is to check.
    quick = {name: node.types[0] for name, node in fields.items() if node.plain and len(node.types) == 1}
    names = tuple(quick)
    classes = tuple(quick.values())
    slow = tuple((name, node) for name, node in fields.items() if name not in quick)
    every = tuple(fields.items())
    slots = sum(type(getattr(cls, name, None)) is types.MemberDescriptorType for name in fields)
    room = len(fields) - slots if cls.__dictoffset__ else None
    defaults = _defaults(cls, fields) if room is not None else {}
    defaulted = defaults.keys()
    get = _getter(names)

    def walk(value: Any, parts: tuple[tuple[str, TypeCheck], ...]) -> None:
        for name, node in parts:
            try:
                try:
                    each = getattr(value, name)
                except AttributeError:
                    raise NotFaithful(
                        f"this field of `{cls.__qualname__}` is not set; set it, or give it a default"
                    ) from None
                node.check(each)
            except NotFaithful as refused:
                refused.path.append("." + name)
                raise

    def check(value: Any) -> None:
        if type(value) is not cls:
            raise wrong_class(value, (cls,))
        try:
            fit = tuple(map(type, get(value))) == classes
        except AttributeError:
            fit = False
        if not fit:
            walk(value, every)
        elif slow:
            walk(value, slow)
        if room is not None:
            own = value.__dict__
            if len(own) > room:
                _no_extras(value, fields)
            if defaulted and not own.keys() >= defaulted:
                # The decoder leaves plain defaults to the class, and the encoder writes only what the value itself
                # has: such a field would be lost, and read later as whatever the default is then.
                for name in defaults:
                    own.setdefault(name, defaults[name])

    return check


def _defaults(cls: type, fields: Iterable[str]) -> dict[str, Any]:
    """The defaults that instances have from their class rather than in their own `__dict__`."""
    found = {name: inspect.getattr_static(cls, name, dataclasses.MISSING) for name in fields}
    return {
        name: default
        for name, default in found.items()
        if default is not dataclasses.MISSING and not hasattr(default, "__get__")
    }


def _getter(names: tuple[str, ...]) -> Callable[[Any], tuple[Any, ...]]:
    if len(names) > 1:
        return cast("Callable[[Any], tuple[Any, ...]]", attrgetter(*names))
    return lambda value: tuple(getattr(value, name) for name in names)


def _no_extras(value: object, fields: dict[str, TypeCheck]) -> None:
    cls = type(value)
    for name in vars(value):
        if name not in fields and not isinstance(getattr(cls, name, None), cached_property):
            refused = NotFaithful(
                "this attribute is no field of its class, so it would be lost; make it a field"
            )
            refused.path.append("." + name)
            raise refused


def union(members: list[TypeCheck]) -> TypeCheck:
    """A union, decided by the value's exact class; msgspec has refused those that JSON cannot tell apart."""
    table: dict[type, list[TypeCheck]] = {}
    for node in members:
        for cls in node.types:
            table.setdefault(cls, []).append(node)
    # An int passes for a float only where no other member would be read from it.
    if float in table and int not in table and not any(node.int_like for node in members):
        table[int] = table[float]
    allowed = tuple(dict.fromkeys(cls for node in members for cls in node.types))
    if all(node.plain for node in members):
        check = _one_of(allowed)
        return TypeCheck(allowed, check, plain=True)

    def check_each(value: object) -> None:
        nodes = table.get(type(value))
        if nodes is None:
            raise wrong_class(value, allowed)
        refusal: NotFaithful | None = None
        for node in nodes:
            try:
                node.check(value)
            except NotFaithful as refused:
                refusal = refused
            else:
                return
        if refusal is not None:
            raise refusal

    def normalize_sets(value: Any) -> Any:
        return table[type(value)][0].normalize_sets(value)

    return TypeCheck(
        allowed, check_each, normalize_sets=normalize_sets, int_like=any(node.int_like for node in members)
    )


def _one_of(classes: tuple[type, ...]) -> Check:
    def check(value: Any) -> None:
        if type(value) not in classes:
            raise wrong_class(value, classes)

    return check
