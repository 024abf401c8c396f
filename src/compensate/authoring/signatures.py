"""Reading the functions that authors decorate: types resolved, codecs built, mistakes refused with their place."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from os.path import dirname
from types import CodeType, FrameType, UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from compensate.authoring.context import Ctx
from compensate.codec import TypeCodec, type_codec
from compensate.codec.values import type_name
from compensate.errors import DefinitionError, SerializeFailed

_HERE = dirname(__file__)  # noqa: PTH120 - pathlib would cost every import of the package 3 ms
_LIBRARY = dirname(inspect.__file__)  # noqa: PTH120
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class Signature:
    """What a decorated function takes and returns.

    Attributes:
        bare: The signature without the `Ctx` parameter, for binding arguments.
        params: Codec of each parameter, in order, without the `Ctx`.
        hints: The resolved annotations.
        takes_ctx: Whether the first parameter is a `Ctx`.
        deps: What deps it cannot do without, in words; see `needed_deps`.
    """

    __slots__ = ("bare", "deps", "hints", "params", "takes_ctx", "where")

    def __init__(self, fn: Callable[..., Any], where: str) -> None:
        self.where = where
        self.hints = resolve_hints(fn, where)
        params = list(inspect.signature(fn).parameters.values())
        self.takes_ctx = bool(params) and is_ctx(self.hints.get(params[0].name))
        self.deps = needed_deps(self.hints[params[0].name]) if self.takes_ctx else ""
        if self.takes_ctx:
            if params[0].kind in (*_VARIADIC, inspect.Parameter.KEYWORD_ONLY):
                raise DefinitionError(f"{where}: the Ctx must be the first positional parameter")
            del params[0]
        self.params: dict[str, TypeCodec[Any]] = {}
        for param in params:
            if param.kind in _VARIADIC:
                stars = "*" if param.kind is inspect.Parameter.VAR_POSITIONAL else "**"
                raise DefinitionError(
                    f"{where}: {stars}{param.name} cannot be stored by name; take a list or a dict instead"
                )
            if param.name not in self.hints:
                raise DefinitionError(f"{where}: {_unannotated(fn, param, first=not self.params)}")
            hint = self.hints[param.name]
            if is_ctx(hint):
                raise DefinitionError(f"{where}: parameter {param.name} is a Ctx; the Ctx goes first")
            codec = type_codec(hint, where=f"{where}, parameter {param.name}")
            self.params[param.name] = codec
            if codec.limited and param.default is not inspect.Parameter.empty:
                _check_default(codec, param.default)
        self.bare = inspect.Signature(params)

    def output(self) -> TypeCodec[Any]:
        """Codec of the return annotation."""
        if "return" not in self.hints:
            raise DefinitionError(
                f"{self.where}: it has no return annotation; say its type (`-> None` if it returns nothing)"
            )
        return type_codec(self.hints["return"], where=f"{self.where}, its return value")


def _check_default(codec: TypeCodec[Any], default: object) -> None:
    """Refuse a default that breaks what its own annotation says."""
    try:
        codec.encode(default)
    except SerializeFailed as error:
        raise DefinitionError(f"{error}; this is its default") from error


def _unannotated(fn: Callable[..., Any], param: inspect.Parameter, *, first: bool) -> str:
    """What is wrong with a parameter without annotation, and what to write."""
    name = param.name
    if first and name in ("self", "cls"):
        return (
            f"parameter {name} has no annotation: a method cannot be decorated; write a plain function outside of the "
            "class, and put the object into deps, which an action gets as ctx.deps (`ctx: Ctx[Deps]`)"
        )
    if first and name in ("ctx", "context"):
        return f"parameter {name} has no annotation; if it is the context, write `{name}: Ctx[Deps]`, else say its type"
    return f"parameter {name} has no annotation; say its type"


def bind_error(signature: inspect.Signature, kwargs: Mapping[str, object], error: TypeError) -> str:
    """Why arguments do not fit; an unknown keyword first, since Python names what is missing first."""
    unknown = [name for name in kwargs if name not in signature.parameters]
    text = f"{error}"
    if unknown and unknown[0] not in text:
        return f"got an unexpected keyword argument {unknown[0]!r}, and {text}"
    return text


def signature_text(signature: inspect.Signature, params: Mapping[str, TypeCodec[Any]]) -> str:
    """What is taken, for people: `(order: shop.Order)`."""
    # With the types themselves: under `from __future__ import annotations` the signature holds their source.
    given = signature.parameters.values()
    parameters = [each.replace(annotation=params[each.name].type) for each in given]
    return f"{signature.replace(parameters=parameters, return_annotation=inspect.Signature.empty)}"


def is_ctx(hint: Any) -> bool:
    """Whether an annotation is `Ctx` or `Ctx[...]`."""
    return hint is Ctx or get_origin(hint) is Ctx


def needed_deps(ctx: Any) -> str:
    """The `Deps` of an annotation `Ctx[Deps]` whose functions cannot work without deps, in words; else empty.

    `Ctx`, and `Ctx` of `None`, `Any`, `object`, a type parameter or a union with one of these, can do without.
    """
    for deps in get_args(ctx):
        if not {type(None), Any, object} & set(members(deps)) and not isinstance(deps, TypeVar):
            return type_name(deps)
    return ""


def resolve_hints(fn: Callable[..., Any], where: str) -> dict[str, Any]:
    """The annotations of a function, postponed ones resolved, with the names of functions around it in reach."""
    try:
        return get_type_hints(fn, localns=_names_around(inspect.unwrap(fn)), include_extras=True)
    except Exception as error:  # annotations are code: they fail in every way
        raise DefinitionError(
            f"{where}: an annotation cannot be resolved: {error}; import or define what it names, outside of "
            "`if TYPE_CHECKING`"
        ) from error


def _names_around(fn: Callable[..., Any]) -> dict[str, Any]:
    """Local names of the functions in which `fn` is written, if they are running; inner ones win."""
    scope: dict[str, Any] = {}
    code: CodeType | None = getattr(fn, "__code__", None)
    frame = author_frame()
    while code is not None and frame is not None:
        outer = frame.f_code
        if outer.co_filename == code.co_filename and code.co_qualname.startswith(
            f"{outer.co_qualname}.<locals>."
        ):
            scope = {**frame.f_locals, **scope}
        frame = frame.f_back
    return scope


def author_frame() -> FrameType | None:
    """The innermost frame that runs code outside of this package and of Python's own library."""
    frame: FrameType | None = inspect.currentframe()
    while frame is not None and _not_authors(frame.f_code.co_filename):
        frame = frame.f_back
    return frame


def _not_authors(filename: str) -> bool:
    return filename.startswith(_HERE) or (filename.startswith(_LIBRARY) and "-packages" not in filename)


def author_line() -> str:
    """Where the author's code calls us, as `file.py:12`."""
    frame = author_frame()
    return f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame is not None else "<unknown>"


def written_at(fn: Callable[..., Any]) -> str:
    """Where a function is written, as `file.py:12`."""
    code: CodeType | None = getattr(inspect.unwrap(fn), "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code is not None else "<unknown>"


def check_text(text: object, where: str) -> None:
    """Refuse a text of a definition that cannot be stored; `None` stands for none."""
    if text is None:
        return
    if not isinstance(text, str):
        raise DefinitionError(f"{where} is {text!r}; give a text")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise DefinitionError(
            f"{where} is {ascii(text)[:60]}, which holds a lone surrogate and cannot be stored; decode the text "
            "properly first"
        ) from None


def require_function(fn: object, what: str) -> None:
    """Refuse what cannot be decorated: anything but a plain `def` or `async def`."""
    where = f"{what} at {author_line()}"
    if not inspect.isfunction(fn):
        raise DefinitionError(f"{where}: {fn!r} is no function; decorate a plain `def` or `async def`")
    if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
        raise DefinitionError(f"{where}: {fn.__name__} is a generator; return a value instead of yielding")


# -- do types fit ----------------------------------------------------------


def subclass_of(cls: Any, *kinds: type) -> bool:
    """Whether this is a class, and one of these."""
    return isinstance(cls, type) and issubclass(cls, kinds)


_LISTS = (list, tuple, set, frozenset)


def members(tp: Any) -> tuple[Any, ...]:
    """The alternatives of a union; the type itself if it is none."""
    tp = bare_type(tp)
    if get_origin(tp) in (Union, UnionType):
        return tuple(inner for arg in get_args(tp) for inner in members(arg))
    return (tp,)


def bare_type(tp: Any) -> Any:
    """A type without `Annotated`, aliases and `NewType`; `Any` for `object`, which says as little."""
    while True:
        if get_origin(tp) is Annotated:
            tp = get_args(tp)[0]
        elif hasattr(tp, "__supertype__"):
            tp = tp.__supertype__
        elif type(tp).__name__ == "TypeAliasType":
            tp = tp.__value__
        else:
            return type(None) if tp is None else Any if tp is object else tp


def misfit(given: Any, wanted: Any, *, stored: bool = True) -> str:
    """Why values of one type clearly cannot be given as the other; empty if they may.

    Only what is sure is refused: the static checkers see the rest. What they cannot see is that a subclass, fine in
    Python, would be read back as its base and lose what it adds.

    Args:
        given: The type at hand.
        wanted: The annotation that it meets.
        stored: Whether values go there as JSON, to be read as `wanted`; else they are handed over as they are.
    """
    if given is wanted:
        return ""
    reasons: list[str] = []
    for one in members(given):
        for other in members(wanted):
            reason = _misfit(one, other, stored)
            if not reason:
                return ""
            reasons.append(reason)
    return reasons[0]


def _misfit(given: Any, wanted: Any, stored: bool) -> str:
    if given == wanted or Any in (given, wanted) or object in (given, wanted):
        return ""
    one, other = get_origin(given) or given, get_origin(wanted) or wanted
    if not isinstance(one, type) or not isinstance(other, type):
        return ""
    if one is other or (stored and one in _LISTS and other in _LISTS):
        return _misfit_inside(given, wanted, stored)
    if (one, other) == (int, float) or (not stored and issubclass(one, other)):
        return ""
    if _has_fields(one) and _has_fields(other) and issubclass(one, other):
        return f"it would be read back as {other.__qualname__} and lose what {one.__qualname__} adds"
    if _closed(one) and _closed(other) and (one is bool or not issubclass(one, other)):
        return f"{type_name(given)} is no {type_name(wanted)}"
    return ""


def _misfit_inside(given: Any, wanted: Any, stored: bool) -> str:
    ones, others = get_args(given), get_args(wanted)
    if len(ones) != len(others):
        return ""
    for one, other in zip(ones, others, strict=True):
        if one is not ... and other is not ... and (reason := misfit(one, other, stored=stored)):
            return reason
    return ""


def _has_fields(cls: type) -> bool:
    return (
        hasattr(cls, "__dataclass_fields__")
        or hasattr(cls, "__struct_fields__")
        or hasattr(cls, "model_fields")
    )


def _closed(cls: type) -> bool:
    return _has_fields(cls) or cls in (bool, int, float, str, bytes, list, dict, type(None))
