"""Constraints of `Annotated` types that msgspec does not know: those of annotated_types and of pydantic.

msgspec enforces its own `Meta` and ignores all other metadata. This module compiles the rest into one check of a
value, with which `compensate.codec.values` completes both encoding and decoding. pydantic models are left out: pydantic
enforces what their fields say. Neither library is imported here unless an annotation brings it.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from decimal import Decimal
from types import FunctionType, LambdaType, NoneType
from typing import Annotated, Any, Literal, get_args, get_origin
from uuid import UUID

from compensate.codec.checks import Check, NotFaithful, Unsupported, key_text
from compensate.codec.models import is_model, reasons
from compensate.codec.typing_parts import field_types, is_class, is_union, unwrap

_LEAVES = frozenset(
    (str, int, float, bool, bytes, Decimal, UUID, dt.datetime, dt.date, dt.time, dt.timedelta, NoneType)
)
_ITEMS = (list, tuple, set, frozenset)


def constraints(tp: Any) -> Check | None:
    """The check of everything in a type that msgspec would ignore; `None` if there is no such thing.

    The check expects values of the right classes and raises `NotFaithful`, with the path to the offending part.

    Args:
        tp: An annotation that msgspec can read.

    Raises:
        Unsupported: Metadata that claim to constrain values in a way that cannot be enforced.
    """
    compiler = _Compiler()
    check = compiler.check(tp, "the type itself")
    return check if compiler.found else None


class _Compiler:
    def __init__(self) -> None:
        self.found = False
        self.classes: dict[Any, _Later] = {}  # a class may hold itself

    def check(self, tp: Any, part: str) -> Check | None:
        """The check of one part of a type."""
        base, metadata = unwrap(tp)
        checks = [*self.of_metadata(base, metadata, part)]
        if checks:
            self.found = True
        inner = self.inside(base, part)
        return _all_of(checks if inner is None else [inner, *checks])

    def inside(self, base: Any, part: str) -> Check | None:
        """The check of the parts of a value."""
        if is_union(base):
            return self.union(get_args(base), part)
        origin: Any = get_origin(base) or base
        if origin is Literal or not is_class(origin) or is_model(origin):
            return None
        fields = field_types(base)
        if fields is not None:
            return self.fields(base, origin, fields)
        args = get_args(base)
        if is_class(origin, Mapping):
            return self.mapping(args, part) if len(args) == 2 else None
        if is_class(origin, tuple) and not (len(args) == 2 and args[1] is ...):
            checks = [self.check(arg, f"{part}, item {i}") for i, arg in enumerate(args)]
            return _each_place(checks) if any(checks) else None
        if args and is_class(origin, Iterable):
            item = self.check(args[0], f"{part}, its items")
            name = "{{item}}" if is_class(origin, AbstractSet) else "[{}]"
            return None if item is None else _each_item(item, name)
        return None

    def mapping(self, args: tuple[Any, ...], part: str) -> Check | None:
        key = self.check(args[0], f"{part}, its keys")
        item = self.check(args[1], f"{part}, its values")
        return None if key is None and item is None else _each_pair(key, item)

    def fields(self, tp: Any, origin: Any, fields: Mapping[str, Any]) -> Check | None:
        later = self.classes.get(tp)
        if later is None:
            later = self.classes[tp] = _Later()
            checks = {
                name: check
                for name, each in fields.items()
                if (check := self.check(each, f"`{origin.__qualname__}.{name}`")) is not None
            }
            whole = [_each_key(checks) if is_class(origin, dict) else _each_field(checks)] if checks else []
            if "__pydantic_validator__" in vars(origin):
                self.found = True  # msgspec reads it as a plain dataclass, past the validators
                whole.append(_made_anew(origin))
            later.inner = _all_of(whole)
            later.ready = True
        return later if later.inner is not None or not later.ready else None

    def union(self, alternatives: tuple[Any, ...], part: str) -> Check | None:
        _refuse_crash(alternatives, part)
        members = [(_classes(one), self.check(one, part)) for one in alternatives]
        if not any(check for _, check in members):
            return None

        def check(value: Any) -> None:
            fitting = [inner for classes, inner in members if type(value) in classes]
            fitting = fitting or [inner for classes, inner in members if isinstance(value, classes)]
            refusal: NotFaithful | None = None
            for inner in fitting:
                try:
                    if inner is not None:
                        inner(value)
                except NotFaithful as refused:
                    refusal = refusal or refused
                else:
                    return
            if refusal is not None:
                raise refusal

        return check

    # -- metadata ----------------------------------------------------------

    def of_metadata(self, base: Any, metadata: Iterable[Any], part: str) -> Iterator[Check]:
        """The checks for what stands behind a type in `Annotated`."""
        optional = is_union(base) and NoneType in get_args(base)
        validators: list[Any] = []
        for one in _flat(metadata):
            if _by_pydantic(one):
                validators.append(one)
                continue
            check = _native(one)
            if check is not None:
                yield _unless_none(check) if optional else check
            elif _claims(one):
                raise Unsupported(
                    f"{part}: `{type(one).__qualname__}` seems to constrain values in a way that is not known here and "
                    "would be ignored; use annotated_types (such as Predicate), pydantic's or msgspec's constraints, "
                    "or check the value in an action"
                )
        if validators:
            yield _adapter(base, validators, part)


def _refuse_crash(alternatives: tuple[Any, ...], part: str) -> None:
    """Refuse a union of a text with msgspec's `pattern` and a list or dict.

    `msgspec.inspect.type_info` (0.22) ends the whole process with a segmentation fault when it is given one.
    """
    patterned = any(
        type(one).__module__ == "msgspec" and getattr(one, "pattern", None) is not None
        for alternative in alternatives
        for one in unwrap(alternative)[1]
    )
    classes = [cls for one in alternatives for cls in _classes(one)]
    if patterned and any(is_class(cls, Iterable) and not is_class(cls, str) for cls in classes):
        raise Unsupported(
            f"{part}: msgspec cannot describe a union of a text with `Meta(pattern=...)` and a list or dict; put the "
            "pattern into pydantic's `StringConstraints`, or check it in an action"
        )


class _Later:
    """The check of a class, which is called by its own parts before it is complete."""

    __slots__ = ("inner", "ready")

    def __init__(self) -> None:
        self.inner: Check | None = None
        self.ready = False

    def __call__(self, value: Any) -> None:
        if self.inner is not None:
            self.inner(value)


# -- kinds of metadata -----------------------------------------------------


def _flat(metadata: Iterable[Any]) -> Iterator[Any]:
    """Single constraints: what `Field(...)`, `Len(...)` and `Interval(...)` stand for."""
    for one in metadata:
        by_pydantic = _is_pydantics(one)
        if by_pydantic and type(one).__name__ == "FieldInfo":
            yield from _flat(one.metadata)
        elif not by_pydantic and getattr(one, "__is_annotated_types_grouped_metadata__", False):
            yield from _flat(one)
        else:
            yield one


def _is_pydantics(one: Any) -> bool:
    """Whether metadata are of one of pydantic's classes."""
    return type(one).__module__.partition(".")[0] in ("pydantic", "pydantic_core")


def _by_pydantic(one: Any) -> bool:
    if hasattr(one, "__get_pydantic_core_schema__") or hasattr(one, "__prepare_pydantic_annotations__"):
        return True
    return _is_pydantics(one) and _is_metadata(one)


def _is_metadata(one: Any) -> bool:
    library = sys.modules.get("annotated_types")
    return library is not None and isinstance(one, library.BaseMetadata | library.GroupedMetadata)


def _claims(one: Any) -> bool:
    """Whether metadata of an unknown kind look as if they were to be enforced."""
    if isinstance(one, FunctionType | LambdaType):
        return True
    if _is_metadata(one):
        return type(one).__name__ not in ("Unit", "DocInfo")
    if isinstance(one, type):
        return False
    return any(callable(getattr(one, name, None)) for name in ("is_valid", "validate", "__validate__"))


def _native(one: Any) -> Check | None:
    """The check for a constraint of annotated_types; `None` for anything else."""
    library = sys.modules.get("annotated_types")
    if library is None:
        return None
    for name, holds, words in _NATIVE:
        if isinstance(one, getattr(library, name)):
            return _holding(one, holds, words(one))
    return None


def _holding(one: Any, holds: Callable[[Any, Any], bool], words: str) -> Check:
    def check(value: Any) -> None:
        try:
            held = bool(holds(one, value))
        except Exception as error:
            raise NotFaithful(f"it {words}: this cannot be told: {type(error).__name__}") from error
        if not held:
            raise NotFaithful(f"it {words}")

    return check


def _divides(one: Any, value: Any) -> bool:
    step = one.multiple_of
    if isinstance(value, float) or isinstance(step, float):
        rest = abs(value) % abs(step)
        return bool(min(rest, abs(step) - rest) <= 1e-9 * max(1.0, abs(value)))
    return bool(value % step == 0)


def _has_zone(one: Any, value: Any) -> bool:
    if one.tz is None:
        return value.tzinfo is None
    if one.tz is ...:
        return value.tzinfo is not None
    if isinstance(one.tz, str):
        return value.tzinfo is not None and one.tz in (value.tzname(), getattr(value.tzinfo, "key", None))
    return bool(value.utcoffset() == one.tz.utcoffset(value))


_NATIVE: tuple[tuple[str, Callable[[Any, Any], bool], Callable[[Any], str]], ...] = (
    ("Gt", lambda one, value: value > one.gt, lambda one: f"must be greater than {one.gt!r}"),
    ("Ge", lambda one, value: value >= one.ge, lambda one: f"must be at least {one.ge!r}"),
    ("Lt", lambda one, value: value < one.lt, lambda one: f"must be less than {one.lt!r}"),
    ("Le", lambda one, value: value <= one.le, lambda one: f"must be at most {one.le!r}"),
    ("MultipleOf", _divides, lambda one: f"must be a multiple of {one.multiple_of!r}"),
    ("MinLen", lambda one, value: len(value) >= one.min_length, lambda one: f"must have at least {one.min_length}"
     " items or characters"),
    ("MaxLen", lambda one, value: len(value) <= one.max_length, lambda one: f"must have at most {one.max_length}"
     " items or characters"),
    ("Timezone", _has_zone, lambda one: f"must have the time zone that {one!r} says"),
    ("Predicate", lambda one, value: one.func(value), lambda one: f"must satisfy {one!r}"),
)  # fmt: skip


def _adapter(base: Any, metadata: list[Any], part: str) -> Check:
    """The check by pydantic. The classes of a value are checked already, so only what is left is asked of pydantic."""
    names = ", ".join(type(one).__qualname__ for one in metadata)
    try:
        from pydantic import TypeAdapter
    except ImportError:
        raise Unsupported(
            f"{part}: {names} needs pydantic, which is not installed; install it, or drop the constraint"
        ) from None
    adapter: TypeAdapter[Any] | None = None
    why = ""
    leaves = set(get_args(base) if is_union(base) else (base,)) <= _LEAVES
    for root in (base, Any) if leaves else (Any,):
        try:
            constrained: Any = Annotated
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                adapter = TypeAdapter(constrained[(root, *metadata)])
            break
        except Exception as error:  # whatever the metadata do when pydantic asks them for a schema
            why = f"{type(error).__name__}: {error}".splitlines()[0]
    if adapter is None:
        raise Unsupported(
            f"{part}: {names} cannot be enforced on values of this type ({why}); put the value into a pydantic model, "
            "or check it in an action"
        )
    validate = adapter.validate_python

    def check(value: Any) -> None:
        try:
            found = validate(value)
        except Exception as error:
            raise NotFaithful(f"it breaks its annotation: {reasons(error)}") from error
        if found is not value and not (
            found == value and (type(found) is type(value) or {type(found), type(value)} == {int, float})
        ):
            raise NotFaithful(
                f"the validator of its annotation ({names}) would change it; give the value that the validator makes "
                "of it"
            )

    return check


def _made_anew(cls: Any) -> Check:
    """The check of a pydantic dataclass: its own validators, which msgspec's decoder passes by."""
    names = [field.name for field in dataclasses.fields(cls) if field.init]

    def check(value: Any) -> None:
        try:
            cls(**{name: getattr(value, name) for name in names})
        except Exception as error:
            raise NotFaithful(f"`{cls.__qualname__}` does not accept it: {reasons(error)}") from error

    return check


# -- combining -------------------------------------------------------------


def _classes(tp: Any) -> tuple[type, ...]:
    """The classes of the values of one member of a union."""
    base, _ = unwrap(tp)
    if base is None:
        return (NoneType,)
    if is_union(base):
        return tuple(cls for one in get_args(base) for cls in _classes(one))
    origin: Any = get_origin(base) or base
    if origin is Literal:
        values: tuple[Any, ...] = get_args(base)
        return tuple(value.__class__ for value in values)
    if not is_class(origin):
        return (object,)
    if field_types(base) is not None and is_class(origin, dict):
        return (dict,)
    return (float, int) if origin is float else (origin,)


def _all_of(checks: list[Check]) -> Check | None:
    if len(checks) < 2:
        return checks[0] if checks else None

    def check(value: Any) -> None:
        for one in checks:
            one(value)

    return check


def _unless_none(inner: Check) -> Check:
    def check(value: Any) -> None:
        if value is not None:
            inner(value)

    return check


def _at(name: str, check: Check, value: Any) -> None:
    try:
        check(value)
    except NotFaithful as refused:
        refused.path.append(name)
        raise


def _each_item(item: Check, name: str) -> Check:
    def check(value: Any) -> None:
        for index, each in enumerate(value):
            _at(name.format(index), item, each)

    return check


def _each_place(items: list[Check | None]) -> Check:
    def check(value: Any) -> None:
        for index, (item, each) in enumerate(zip(items, value, strict=False)):
            if item is not None:
                _at(f"[{index}]", item, each)

    return check


def _each_pair(key: Check | None, item: Check | None) -> Check:
    def check(value: Any) -> None:
        for name, each in value.items():
            if key is not None:
                _at(f"{key_text(name)} (key)", key, name)
            if item is not None:
                _at(key_text(name), item, each)

    return check


def _each_key(known: Mapping[str, Check]) -> Check:
    def check(value: Any) -> None:
        for name, inner in known.items():
            if name in value:
                _at(key_text(name), inner, value[name])

    return check


def _each_field(known: Mapping[str, Check]) -> Check:
    def check(value: Any) -> None:
        for name, inner in known.items():
            _at(f".{name}", inner, getattr(value, name))

    return check
