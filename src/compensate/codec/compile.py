"""Which types can be stored: each type is compiled once into its checks, when a definition is made.

msgspec's own description of the type is walked, so that what is checked and what is decoded cannot differ. Each part
either gets a check from `compensate.codec.checks` or is refused with the reason and with what to use instead.
"""

from __future__ import annotations

import copy
import dataclasses
import datetime as dt
import enum
import os
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from typing import Any, cast, get_origin
from uuid import UUID

import msgspec
from msgspec import inspect as mi

from compensate.codec import checks
from compensate.codec.checks import Check, TypeCheck, Unsupported
from compensate.codec.losses import SECRET, is_secret, refuse_losses
from compensate.codec.models import ENCODER, is_model

_NONE = type(None)
_LIMITS = ("gt", "ge", "lt", "le", "multiple_of", "min_length", "max_length", "pattern", "tz")

_EXACT: dict[type[mi.Type], type] = {
    mi.NoneType: _NONE,
    mi.BoolType: bool,
    mi.IntType: int,
    mi.StrType: str,
    mi.BytesType: bytes,
    mi.ByteArrayType: bytearray,
    mi.DateType: dt.date,
    mi.TimeDeltaType: dt.timedelta,
    mi.UUIDType: UUID,
}
_CHECKED: dict[type[mi.Type], tuple[type, Check]] = {
    mi.FloatType: (float, checks.check_float),
    mi.DecimalType: (Decimal, checks.check_decimal),
    mi.DateTimeType: (dt.datetime, checks.check_datetime),
    mi.TimeType: (dt.time, checks.check_time),
}
_KEYS = (
    mi.StrType, mi.IntType, mi.FloatType, mi.DecimalType, mi.UUIDType, mi.EnumType, mi.LiteralType, mi.DateType,
    mi.DateTimeType, mi.TimeType, mi.TimeDeltaType, mi.BytesType,
)  # fmt: skip
_INSTEAD: tuple[tuple[tuple[Any, ...], str], ...] = (
    ((BaseException,), "store its text (`str`), and raise it where it belongs"),
    ((os.PathLike,), "use `str`"),
    ((complex,), "use `tuple[float, float]`"),
    ((dict,), "use `dict`"),
    ((list, Iterable), "use `list[...]`, `tuple[...]` or `set[...]`"),
    ((str, int, float, bytes, tuple, set, frozenset), "use the built-in class that it extends, or an enum"),
    ((cast("Any", Callable), type), "pass its name (`str`) and look it up in the action"),
)


@dataclasses.dataclass(slots=True)
class CompiledType:
    """The compiled checks of a whole type.

    Attributes:
        node: Of the type itself.
        sets: It holds a set somewhere, whose order differs between processes and has to be fixed.
        own_code: Decoding runs code or tests limits, so that only decoding proves that a value comes back.
    """

    node: TypeCheck
    sets: bool
    own_code: bool


def compile_type(root: mi.Type, prove_leaf: Check | None = None) -> CompiledType:
    """Compile the checks of a type.

    Args:
        root: msgspec's description of it.
        prove_leaf: Called with each leaf too; given to find out which one the encoder refused.

    Raises:
        Unsupported: It holds something that cannot be stored faithfully.
    """
    infos = _all_parts(root)
    sets = any(isinstance(info, mi.SetType | mi.FrozenSetType) for info in infos)
    return CompiledType(
        _Compiler(prove_leaf).node(root, "the type itself"), sets, any(map(_runs_code, infos))
    )


def _all_parts(root: mi.Type) -> list[mi.Type]:
    seen: dict[int, mi.Type] = {}
    todo = [root]
    while todo:
        info = todo.pop()
        if id(info) not in seen:
            seen[id(info)] = info
            todo.extend(_children(info))
    return list(seen.values())


def _children(info: mi.Type) -> Iterator[mi.Type]:
    for name in info.__struct_fields__:
        child: object = getattr(info, name)
        for part in cast("tuple[object, ...]", child) if isinstance(child, tuple) else (child,):
            if isinstance(part, mi.Field):
                yield part.type
            elif isinstance(part, mi.Type):
                yield part


def _runs_code(info: mi.Type) -> bool:
    if any(getattr(info, limit, None) is not None for limit in _LIMITS):
        return True
    if isinstance(info, mi.EnumType):
        usual = cast("Any", enum.Enum._missing_).__func__
        return issubclass(info.cls, enum.Flag) or getattr(info.cls._missing_, "__func__", None) is not usual
    if isinstance(info, mi.DataclassType | mi.StructType):
        return hasattr(_class_of(info), "__post_init__")
    return isinstance(info, mi.CustomType) and is_model(info.cls)


def _class_of(info: Any) -> type[Any]:
    return cast("type[Any]", get_origin(info.cls) or info.cls)


class _Compiler:
    def __init__(self, prove_leaf: Check | None) -> None:
        self.prove_leaf = prove_leaf
        self.classes: dict[int, TypeCheck] = {}  # by id of the description: a class may hold itself

    def node(self, info: mi.Type, part: str) -> TypeCheck:
        kind = type(info)
        if kind in _EXACT:
            cls = _EXACT[kind]
            return self.leaf(TypeCheck((cls,), checks.exact(cls), plain=True))
        if kind in _CHECKED:
            return self.leaf(TypeCheck((_CHECKED[kind][0],), _CHECKED[kind][1]))
        build = _BUILDERS.get(kind)
        if build is None:
            raise Unsupported(
                f"{part}: `{kind.__name__.removesuffix('Type')}` is not supported; use bytes or str"
            )
        return build(self, info, part)

    def leaf(self, node: TypeCheck) -> TypeCheck:
        """The node itself, or one that also asks the encoder about each value."""
        if self.prove_leaf is None:
            return node
        check, prove = node.check, self.prove_leaf

        def both(value: Any) -> None:
            check(value)
            prove(value)

        return TypeCheck(node.types, both, int_like=node.int_like)

    def any_(self, info: mi.Type, part: str) -> TypeCheck:
        return self.leaf(TypeCheck((str, int, bool, _NONE, float, list, dict), checks.check_json))

    def literal(self, info: mi.LiteralType, part: str) -> TypeCheck:
        return checks.literal(info.values)

    def enum_(self, info: mi.EnumType, part: str) -> TypeCheck:
        cls = info.cls
        if not all(type(member.value) in (int, str) for member in cls.__members__.values()):
            raise Unsupported(
                f"{part}: the enum `{cls.__qualname__}` has values that are neither plain int nor plain str; "
                "give its members int or str values"
            )
        int_like = any(type(member.value) is int for member in cls.__members__.values())
        return self.leaf(TypeCheck((cls,), checks.exact(cls), plain=True, int_like=int_like))

    def list_(self, info: mi.ListType, part: str) -> TypeCheck:
        item = self.node(info.item_type, f"{part}, its items")
        return TypeCheck((list,), checks.sequence(list, item), normalize_sets=_normalize_items(item))

    def tuple_(self, info: mi.VarTupleType, part: str) -> TypeCheck:
        item = self.node(info.item_type, f"{part}, its items")
        return TypeCheck((tuple,), checks.sequence(tuple, item), normalize_sets=_normalize_items(item))

    def set_(self, info: mi.SetType | mi.FrozenSetType, part: str) -> TypeCheck:
        cls = set if isinstance(info, mi.SetType) else frozenset
        item = self.node(info.item_type, f"{part}, its items")
        normalize_items = _normalize_items(item)

        def normalize_sets(value: Any) -> Any:
            return sorted(normalize_items(value), key=ENCODER.encode)

        return TypeCheck((cls,), checks.sequence(cls, item, "{{item}}"), normalize_sets=normalize_sets)

    def places(self, info: mi.TupleType, part: str) -> TypeCheck:
        items = tuple(self.node(item, f"{part}, item {i}") for i, item in enumerate(info.item_types))
        names = tuple(f"[{i}]" for i in range(len(items)))
        return TypeCheck(
            (tuple,), checks.positions(tuple, items, names), normalize_sets=_normalize_places(items)
        )

    def named_tuple(self, info: mi.NamedTupleType, part: str) -> TypeCheck:
        cls = _class_of(info)

        def fill(node: TypeCheck) -> None:
            fields = self.fields(info.fields, cls)
            items = tuple(fields.values())
            node.check = checks.positions(cls, items, tuple(f".{name}" for name in fields))
            node.normalize_sets = _normalize_places(items)

        return self.once(info, cls, fill)

    def dict_(self, info: mi.DictType, part: str) -> TypeCheck:
        key_info = info.key_type
        if isinstance(key_info, mi.AnyType):
            key_info = mi.StrType()
        while isinstance(key_info, mi.Metadata):
            key_info = key_info.type
        single = isinstance(key_info, _KEYS)
        if isinstance(key_info, mi.LiteralType):
            single = {type(value) for value in key_info.values} in ({str}, {int})
        if not single:
            raise Unsupported(
                f"{part}: its keys would be turned into strings and not come back as they were; "
                "use keys of one kind among str, int, UUID, enum, Decimal or date, or a list of pairs"
            )
        key = self.node(key_info, f"{part}, its keys")
        if isinstance(key_info, mi.FloatType):
            key = self.leaf(TypeCheck((float,), checks.check_float_key))
        item = self.node(info.value_type, f"{part}, its values")

        def normalize_sets(value: Any) -> Any:
            return {name: item.normalize_sets(each) for name, each in value.items()}

        return TypeCheck((dict,), checks.mapping(key, item), normalize_sets=normalize_sets)

    def typed_dict(self, info: mi.TypedDictType, part: str) -> TypeCheck:
        cls = _class_of(info)

        def fill(node: TypeCheck) -> None:
            known = self.fields(info.fields, cls)
            required = frozenset(field.name for field in info.fields if field.required)
            node.check = checks.typed_dict(cls, known, required)
            node.normalize_sets = lambda value: {
                name: known[name].normalize_sets(each) for name, each in value.items()
            }

        return self.once(info, dict, fill)

    def dataclass(self, info: mi.DataclassType, part: str) -> TypeCheck:
        cls = _class_of(info)
        if not hasattr(cls, "__dataclass_fields__"):
            raise Unsupported(f"{part}: `{cls.__qualname__}` is an attrs class; make it a dataclass")

        return self.object_(info, cls, lambda value: object.__new__(cls), object.__setattr__)

    def struct(self, info: mi.StructType, part: str) -> TypeCheck:
        cls = _class_of(info)
        if cls.__struct_config__.omit_defaults:
            raise Unsupported(
                f"{part}: `{cls.__qualname__}` omits defaults, so that a stored value would change when a default is "
                "changed later; remove omit_defaults=True"
            )
        return self.object_(info, cls, copy.copy, msgspec.structs.force_setattr)

    def object_(
        self, info: Any, cls: type, blank: Callable[[Any], Any], put: Callable[[Any, str, Any], None]
    ) -> TypeCheck:
        def fill(node: TypeCheck) -> None:
            fields = self.fields(info.fields, cls)
            node.check = checks.fields(cls, fields)

            def normalize_sets(value: Any) -> Any:
                normalized = blank(value)  # never stored: set fields hold lists here
                for name, field in fields.items():
                    put(normalized, name, field.normalize_sets(getattr(value, name)))
                return normalized

            node.normalize_sets = normalize_sets

        return self.once(info, cls, fill)

    def once(self, info: mi.Type, cls: type, fill: Callable[[TypeCheck], None]) -> TypeCheck:
        """The node of a class; it is known before it is filled, so that the class may hold itself."""
        node = self.classes.get(id(info))
        if node is None:
            node = self.classes[id(info)] = TypeCheck((cls,), checks.exact(cls))
            fill(node)
        return node

    def fields(self, fields: tuple[mi.Field, ...], cls: type) -> dict[str, TypeCheck]:
        return {field.name: self.node(field.type, f"`{cls.__qualname__}.{field.name}`") for field in fields}

    def union(self, info: mi.UnionType, part: str) -> TypeCheck:
        if any(isinstance(each, mi.AnyType) or getattr(each, "cls", None) is object for each in info.types):
            return self.any_(info, part)
        return checks.union([self.node(each, part) for each in info.types])

    def metadata(self, info: mi.Metadata, part: str) -> TypeCheck:
        return self.node(info.type, part)

    def custom(self, info: mi.CustomType, part: str) -> TypeCheck:
        cls = _class_of(info)
        if cls is object:
            return self.any_(info, part)
        if is_model(cls):
            refuse_losses(cls)
            return self.leaf(TypeCheck((cls,), checks.exact(cls), plain=True))
        if is_secret(cls):
            raise Unsupported(f"{part}: {SECRET}")
        instead = "make it a dataclass, a msgspec.Struct or a pydantic model"
        for bases, advice in _INSTEAD:
            if issubclass(cls, bases):
                instead = advice
                break
        raise Unsupported(
            f"{part}: values of `{cls.__qualname__}` have no JSON form that would bring them back; {instead}"
        )


def _normalize_items(item: TypeCheck) -> Callable[[Any], list[Any]]:
    return lambda value: [item.normalize_sets(each) for each in value]


def _normalize_places(items: tuple[TypeCheck, ...]) -> Callable[[Any], list[Any]]:
    return lambda value: [item.normalize_sets(each) for item, each in zip(items, value, strict=True)]


_BUILDERS: dict[type[mi.Type], Callable[[_Compiler, Any, str], TypeCheck]] = {
    mi.AnyType: _Compiler.any_,
    mi.LiteralType: _Compiler.literal,
    mi.EnumType: _Compiler.enum_,
    mi.ListType: _Compiler.list_,
    mi.VarTupleType: _Compiler.tuple_,
    mi.SetType: _Compiler.set_,
    mi.FrozenSetType: _Compiler.set_,
    mi.TupleType: _Compiler.places,
    mi.NamedTupleType: _Compiler.named_tuple,
    mi.DictType: _Compiler.dict_,
    mi.TypedDictType: _Compiler.typed_dict,
    mi.DataclassType: _Compiler.dataclass,
    mi.StructType: _Compiler.struct,
    mi.UnionType: _Compiler.union,
    mi.Metadata: _Compiler.metadata,
    mi.CustomType: _Compiler.custom,
}
