"""References: what a call returns while a saga is traced, in place of an output that does not exist yet."""

from __future__ import annotations

import inspect
import re
import traceback
from collections.abc import Callable
from typing import Any, Final, NoReturn, get_args, get_origin, get_type_hints, is_typeddict

import msgspec

from compensate.authoring.signatures import author_line, bare_type, members, subclass_of
from compensate.codec.values import type_name
from compensate.core.dag import Path, Ref
from compensate.errors import CompensateError, DefinitionError

MARK: Final = "<compensate reference "
"""Begins the `repr` of a reference, so that one that was formatted into a text is noticed when that is stored."""


class Source:
    """What a reference stands for.

    Attributes:
        tracer: The trace that it belongs to.
        node: The node's name; empty for the saga's params.
        path: Steps into the output, as JSON.
        type: The Python type found there; `Any` if it is not known.
        shown: As the author wrote it, for messages.
    """

    __slots__ = ("node", "path", "shown", "tracer", "type")

    def __init__(self, tracer: object, node: str, path: Path, type: Any, shown: str) -> None:
        self.tracer = tracer
        self.node = node
        self.path = path
        self.type = type
        self.shown = shown

    def ref(self) -> Ref:
        """The reference as the dag stores it."""
        return Ref(self.node, self.path)


def _refusal(doing: str, instead: str) -> Callable[..., NoReturn]:
    def refuse(self: Any, *_: object, **__: object) -> NoReturn:
        shown = self._compensate_source.shown
        raise DefinitionError(
            f"{author_line()}: {doing} {shown} cannot be done here: a saga is traced before it runs, so {shown} only "
            f"stands for a value to come; {instead}"
        )

    return refuse


_COMPUTE = "compute it in an action that takes it as an argument, and use that action's output"
_BRANCH = "let an action return a bool and use `.when(flag)`, or decide inside an action"
_REFUSED: tuple[tuple[str, str, str], ...] = (
    ("testing", _BRANCH, "bool contains"),
    ("comparing", _BRANCH, "eq ne lt le gt ge"),
    (
        "iterating over",
        "use `fan_out(action, items)`, or pass the whole list to an action",
        "iter reversed aiter next",
    ),
    ("taking the length of", _COMPUTE, "len length_hint"),
    ("formatting", "pass it to an action and make the text there", "str format bytes fspath"),
    ("hashing", "use node names as keys, or a list", "hash"),
    ("awaiting", "leave out `await`: inside a saga function a call makes a node", "await aenter aexit"),
    ("entering", _COMPUTE, "enter exit"),
    ("calling", "call an action with it; methods run inside actions", "call"),
    (
        "changing",
        "an output never changes; return another value from an action",
        "setattr delattr setitem delitem",
    ),
    ("copying", "pass it on as it is", "copy deepcopy reduce reduce_ex"),
    (
        "computing with",
        _COMPUTE,
        (
            "add radd sub rsub mul rmul matmul rmatmul truediv rtruediv floordiv rfloordiv mod rmod divmod rdivmod pow "
            "rpow lshift rlshift rshift rrshift and rand xor rxor or ror neg pos abs invert int float complex index "
            "round trunc floor ceil"
        ),
    ),
)


class Reference:
    """Stands for the output of a node, or a part of it, while a saga is traced.

    Its fields and items may be passed on. Everything that needs the value itself is refused: there is none before the
    saga runs.
    """

    __slots__ = ("_compensate_source",)
    _compensate_source: Source

    def __init__(self, source: Source) -> None:
        object.__setattr__(self, "_compensate_source", source)

    def __getattr__(self, name: str) -> Reference:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)  # Python asking what kind of object this is
        return _part(self._compensate_source, name, attribute=True)

    def __getitem__(self, key: object) -> Reference:
        return _part(self._compensate_source, key, attribute=False)

    # isinstance() and class patterns ask for this; without it they would quietly say no.
    __class__: Any = property(_refusal("asking for the class of", _BRANCH))

    def __repr__(self) -> str:
        return f"{MARK}{self._compensate_source.shown}>"


def source_of(value: object) -> Source | None:
    """What a reference stands for; `None` if the value is no reference."""
    return value._compensate_source if type(value) is Reference else None  # pyright: ignore[reportPrivateUsage]


def refuse_mistaken(error: TypeError, fn: Callable[..., Any], name: str) -> None:
    """Say of an error that a saga function raised what it comes from: a reference where a value was expected.

    Python's own functions ask no reference before they refuse its type: `"".join([reference])`.

    Args:
        error: What was raised while the function was traced.
        fn: The saga function.
        name: The saga's name, for messages.

    Raises:
        DefinitionError: It was about a reference; with the author's line.
    """
    own = fn.__code__.co_filename
    lines = [
        line for frame, line in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename == own
    ]
    if (
        lines
        and not isinstance(error, CompensateError)
        and re.search(rf"\b{Reference.__name__}\b", str(error))
    ):
        raise DefinitionError(
            f"{own}:{lines[-1]}: in saga {name}: {error}: a saga is traced before it runs, so a result only stands "
            f"for a value to come; {_COMPUTE}"
        ) from error


for _doing, _instead, _names in _REFUSED:
    for _name in _names.split():
        setattr(Reference, f"__{_name}__", _refusal(_doing, _instead))


# -- parts -----------------------------------------------------------------


def _part(source: Source, key: object, *, attribute: bool) -> Reference:
    shown = f"{source.shown}.{key}" if attribute else f"{source.shown}[{key!r}]"
    problems: list[str] = []
    for tp in members(source.type):
        if tp is type(None):
            continue
        found = field_of(tp, key) if attribute and isinstance(key, str) else _item(tp, key)
        if isinstance(found, str):
            problems.append(found)
            continue
        return Reference(Source(source.tracer, source.node, (*source.path, found[0]), found[1], shown))
    raise DefinitionError(f"{author_line()}: {shown}: {problems[0] if problems else 'it is None'}")


def fields_of(tp: Any) -> dict[str, tuple[str | int, Any]] | None:
    """Fields of a class: each one's step in JSON and its type. `None` for a type without fields."""
    tp = bare_type(tp)
    cls: Any = get_origin(tp) or tp
    if not subclass_of(cls, object):
        return None
    if hasattr(cls, "__struct_fields__"):
        return _struct_fields(tp, cls)
    if hasattr(cls, "__dataclass_fields__"):
        info: Any = msgspec.inspect.type_info(tp)
        hints = _hints(cls)
        return {f.name: (f.encode_name, hints.get(f.name, Any)) for f in info.fields}
    if subclass_of(cls, tuple) and hasattr(cls, "_fields"):
        hints = _hints(cls)
        return {name: (i, hints.get(name, Any)) for i, name in enumerate(cls._fields)}
    models: Any = inspect.getattr_static(cls, "__pydantic_fields__", None)
    if models is not None:
        return {name: (name, field.annotation) for name, field in models.items()}
    return None


def _struct_fields(tp: Any, cls: Any) -> dict[str, tuple[str | int, Any]]:
    config = cls.__struct_config__
    fields = msgspec.structs.fields(tp)
    if not config.array_like:
        return {f.name: (f.encode_name, f.type) for f in fields}
    first = 0 if config.tag is None else 1
    return {f.name: (i, f.type) for i, f in enumerate(fields, first)}


def _hints(cls: type) -> dict[str, Any]:
    hints = get_type_hints(cls, include_extras=True)
    # What a type parameter stands for is not followed: its values are of unknown type.
    return {name: Any if getattr(tp, "__parameters__", ()) else tp for name, tp in hints.items()}


def field_of(tp: Any, name: str) -> tuple[str | int, Any] | str:
    """The step to a field and its type; else what is wrong, in words."""
    fields = fields_of(tp)
    if tp is Any:
        return (
            f"its type is Any, so it is not known where {name!r} is stored; annotate the value with a class"
        )
    if not fields:
        return f"`{type_name(tp)}` has no fields; methods and properties run inside actions: pass one the whole value"
    if name not in fields:
        return (
            f"`{type_name(tp)}` has no field {name!r}, it has {', '.join(fields)}; methods and properties run inside "
            "actions"
        )
    return fields[name]


def _item(tp: Any, key: object) -> tuple[str | int, Any] | str:
    if type(key) not in (str, int):
        return f"an item is taken by a literal str or int, not by {type(key).__name__}; take others inside an action"
    assert isinstance(key, str | int)
    if tp is Any:
        return (key, Any) if isinstance(key, str) or key >= 0 else _FROM_END
    cls: Any = get_origin(tp) or tp
    args = get_args(tp)
    if is_typeddict(cls):
        hints = get_type_hints(cls)
        if key in hints:
            return key, hints[str(key)]
        return f"`{type_name(tp)}` has no key {key!r}, it has {', '.join(hints)}"
    if not subclass_of(cls, object):
        return f"`{type_name(tp)}` has no items"
    if subclass_of(cls, tuple):
        return _tuple_item(tp, cls, args, key)
    if hasattr(cls, "keys"):
        return _dict_item(tp, args, key)
    if hasattr(cls, "__getitem__") and not subclass_of(cls, str, bytes):
        if not isinstance(key, int):
            return f"`{type_name(tp)}` is a list; give a position, not {key!r}"
        return _FROM_END if key < 0 else (key, args[0] if args else Any)
    return f"`{type_name(tp)}` has no items; pass the whole value to an action"


_FROM_END: Final = (
    "a position counted from the end is not known before the saga runs; take it inside an action"
)


def _tuple_item(tp: Any, cls: Any, args: tuple[Any, ...], key: str | int) -> tuple[str | int, Any] | str:
    if not isinstance(key, int):
        return f"`{type_name(tp)}` is a tuple; give a position, not {key!r}"
    types: list[Any] = [part for _, part in (fields_of(tp) or {}).values()] or list(args)
    if not types or (len(types) == 2 and types[1] is ...):
        return _FROM_END if key < 0 else (key, types[0] if types else Any)
    if not -len(types) <= key < len(types):
        return f"`{type_name(tp)}` has {len(types)} items; there is none at {key}"
    return key % len(types), types[key]


def _dict_item(tp: Any, args: tuple[Any, ...], key: str | int) -> tuple[str | int, Any] | str:
    keys, value = args if len(args) == 2 else (Any, Any)
    if bare_type(keys) not in (type(key), Any):
        return f"`{type_name(tp)}` has keys of type {type_name(keys)}; look {key!r} up inside an action"
    return str(key), value
