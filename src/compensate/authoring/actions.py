"""Actions: forward work with its undo, as the author declares them."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Coroutine, Iterable, Mapping
from inspect import Parameter
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Generic,
    Literal,
    ParamSpec,
    Self,
    TypeAlias,
    TypeVar,
    cast,
    final,
    overload,
)

from compensate.authoring.context import Ctx
from compensate.authoring.naming import ByName, found_at, refuse_pickling
from compensate.authoring.options import ConfiguredAction
from compensate.authoring.placement import DEFAULT, NodeOptions
from compensate.authoring.signatures import (
    Signature,
    check_text,
    is_ctx,
    members,
    misfit,
    needed_deps,
    require_function,
    resolve_hints,
    written_at,
)
from compensate.authoring.tracing import add_node
from compensate.codec import TypeCodec
from compensate.codec.values import type_name
from compensate.core.dag import ActionNode, Each, Expr, Undo
from compensate.core.names import check_name
from compensate.core.policy import ONCE, UNDO, Retry
from compensate.errors import DefinitionError, InjectedError

P = ParamSpec("P")
T = TypeVar("T")
V = TypeVar("V")
D = TypeVar("D")
R = TypeVar("R", bound="Coroutine[Any, Any, None] | None")


class Action(Generic[P, T]):
    """Forward work of a node: a function under a name, with an optional undo. Made by `@action`.

    Calling it inside a `@saga` function makes a node and returns a reference to the output, which static checkers see
    as the output itself. It is expected to be idempotent under its key: after a crash it may run again.

    Attributes:
        name: Under which registries and stored dags know it.
        fn: The bare function, for unit tests and for whoever runs it.
        is_async: Whether `fn` is a coroutine function; a plain `def` runs in a worker thread.
        takes_ctx: Whether `fn` takes a `Ctx` first.
        params: Codec of each parameter in signature order, without the `Ctx`.
        positional: Names of positional-only parameters; `fn` takes them by place and all others by name.
        keyword: Names of the others.
        keyword_only: Those of them that have no place.
        output: Codec of what it returns.
        retry: When its action is tried again.
        timeout: Seconds for one attempt, or `None`.
        unknown: Exception classes that leave the node in doubt when its action raises one.
        pivot: Whether the saga only goes forward after its success.
        label: For pictures.
        undo_fn: The undo, or `None`.
        undo_is_async: As `is_async`.
        undo_takes_ctx: As `takes_ctx`.
        undo_kind: `none`, `output` (takes the output) or `unknown` (takes the output or `None`).
        undo_retry: When its undo is tried again.
        undo_timeout: Seconds for one attempt of the undo, or `None`.
        where: Where it is written, for messages.
        needs_deps: Which deps its functions cannot do without, in words: `action book (shop.py:7) takes Ctx[Deps]`;
            empty if it runs without any.
    """

    if TYPE_CHECKING:
        fn: Callable[..., Any]
    else:
        fn = ByName()

    def __init__(
        self,
        fn: Callable[..., Any],
        *,
        name: str | None = None,
        retry: Retry = ONCE,
        timeout: float | None = None,
        unknown: type[BaseException] | Iterable[type[BaseException]] = TimeoutError,
        pivot: bool = False,
        label: str = "",
    ) -> None:
        require_function(fn, "@action")
        self.name = check_name(fn.__name__ if name is None else name, f"action at {written_at(fn)}: name")
        self.where = f"action {self.name} ({written_at(fn)})"
        self.bare_fn = fn
        self.is_async = inspect.iscoroutinefunction(fn)
        signature = Signature(fn, f"action {self.name}")
        self.signature = signature.bare
        self.needs_deps = f"{self.where} takes Ctx[{signature.deps}]" if signature.deps else ""
        self.takes_ctx = signature.takes_ctx
        self.params: dict[str, TypeCodec[Any]] = signature.params
        kinds = signature.bare.parameters
        self.positional = tuple(n for n, p in kinds.items() if p.kind is Parameter.POSITIONAL_ONLY)
        self.keyword = tuple(n for n, p in kinds.items() if p.kind is not Parameter.POSITIONAL_ONLY)
        self.keyword_only = frozenset(n for n, p in kinds.items() if p.kind is Parameter.KEYWORD_ONLY)
        self.output: TypeCodec[Any] = signature.output()
        _check_settings(self.where, label, retry)
        self.retry = retry
        self.timeout = check_timeout(timeout, self.where)
        self.unknown = _exception_classes(unknown, self.where)
        self.pivot = bool(pivot)
        self.label = label
        self.undo_fn: Callable[..., Any] | None = None
        self.undo_is_async = False
        self.undo_takes_ctx = False
        self.undo_kind: Undo = "none"
        self.undo_retry = UNDO
        self.undo_timeout: float | None = None
        self.placed_in = ""
        """What first used it, in words: its undo can no longer change."""
        self.__name__ = fn.__name__
        self.__qualname__ = fn.__qualname__
        self.__module__ = fn.__module__
        self.__doc__ = fn.__doc__
        self.__wrapped__ = fn

    def __repr__(self) -> str:
        return f"<{self.where}>"

    def __reduce__(self) -> str:
        """Pickled as its name in its module, as a function is."""
        if found_at(self.__module__, self.__qualname__) is not self:
            raise refuse_pickling(self.where, self.__module__, self.__qualname__)
        return str(self.__qualname__)

    def clone(self) -> Action[P, T]:
        """Another action with the same settings, which can be changed; `copy.copy` gives the action itself."""
        made: Action[P, T] = object.__new__(type(self))
        made.__dict__.update(self.__dict__)
        return made

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def call_args(self, values: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments with which to call `fn` (after its `Ctx`) for these parameter values.

        A parameter that is not given keeps its default.
        """
        if not self.positional:
            return (), dict(values)
        args = tuple(values[name] for name in self.positional if name in values)
        return args, {name: value for name, value in values.items() if name not in self.positional}

    # -- placing it in a saga ----------------------------------------------

    def make_node(
        self, name: str, inputs: dict[str, Expr], settings: NodeOptions = DEFAULT, *, each: Each | None = None
    ) -> ActionNode:
        """This action as a node of a dag."""
        where = f"node {name}"
        _check_settings(where, settings.label, settings.retry, settings.undo_retry)
        timeout = check_timeout(settings.timeout, where)
        undo_timeout = check_timeout(settings.undo_timeout, where)
        return ActionNode(
            name,
            self.name,
            inputs,
            label=self.label if settings.label is None else settings.label,
            when=settings.when,
            each=each,
            undo=self.undo_kind,
            retry=settings.retry or self.retry,
            timeout=self.timeout if timeout is None else timeout,
            undo_retry=settings.undo_retry or self.undo_retry,
            undo_timeout=self.undo_timeout if undo_timeout is None else undo_timeout,
            pivot=self.pivot,
        )

    def bind(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The value of each parameter that is given; `TypeError` if the arguments do not fit."""
        return self.signature.bind(*args, **kwargs).arguments

    @property
    def actions(self) -> dict[str, Action[..., Any]]:
        """The action itself, under its name."""
        return {self.name: self}

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """Make a node in the saga that is being traced; returns a reference to its output.

        Raises:
            DefinitionError: Outside of a `@saga` function (call `.fn(...)` there), or the arguments do not fit.
        """
        return add_node(self, DEFAULT, args, kwargs)  # type: ignore[no-any-return]

    def options(
        self,
        *,
        name: str | None = None,
        label: str | None = None,
        retry: Retry | None = None,
        timeout: float | None = None,
        undo_retry: Retry | None = None,
        undo_timeout: float | None = None,
    ) -> ConfiguredAction[P, T]:
        """This action with other settings for one node; call the result. What is not given stays.

        Args:
            name: The node's name; by default the action's name, then `name_2`, `name_3` and so on.
            label: For pictures.
            retry: When the action is tried again.
            timeout: Seconds for one attempt.
            undo_retry: When the undo is tried again.
            undo_timeout: Seconds for one attempt of the undo.
        """
        placed: ConfiguredAction[P, T] = ConfiguredAction(self, DEFAULT)
        return placed.options(
            name=name,
            label=label,
            retry=retry,
            timeout=timeout,
            undo_retry=undo_retry,
            undo_timeout=undo_timeout,
        )

    def after(self, *nodes: object) -> ConfiguredAction[P, T]:
        """This action, to start only after other nodes have completed, given as references or by name."""
        placed: ConfiguredAction[P, T] = ConfiguredAction(self, DEFAULT)
        return placed.after(*nodes)

    def when(self, flag: bool) -> ConfiguredAction[P, T | None]:
        """This action, to run only if `flag` (a reference to a `bool`) is true; skipped, its output is `None`.

        The decision is recorded in the log and never taken again.
        """
        placed: ConfiguredAction[P, T] = ConfiguredAction(self, DEFAULT)
        return placed.when(flag)

    # -- its undo ----------------------------------------------------------

    @overload
    def undo(self, fn: Callable[[Ctx[D], T], R], /) -> Callable[[Ctx[D], T], R]: ...
    @overload
    def undo(self, fn: Callable[[T], R], /) -> Callable[[T], R]: ...
    @overload
    def undo(
        self, /, *, unknown: Literal[True], retry: Retry = ..., timeout: float | None = ...
    ) -> UndoDecorator[T | None]: ...
    @overload
    def undo(
        self, /, *, unknown: Literal[False] = ..., retry: Retry = ..., timeout: float | None = ...
    ) -> UndoDecorator[T]: ...
    def undo(
        self,
        fn: Callable[..., Any] | None = None,
        /,
        *,
        unknown: bool = False,
        retry: Retry = UNDO,
        timeout: float | None = None,
    ) -> Any:
        """Declare the undo: `@reserve.undo`, or `@reserve.undo(unknown=True, retry=..., timeout=...)`.

        The undo takes a `Ctx` if its first parameter is one, then the action's recorded output. With `unknown=True`
        it takes the output or `None` and runs, with `None`, for every node that started and is not known to be
        clean. Without, a node in doubt is re-run under its key to learn the output, and then undone.

        Args:
            fn: The undo, when used without parentheses.
            unknown: Whether it can do without the output (it then works by `ctx.do_key` and `ctx.inputs`).
            retry: When it is tried again; five attempts by default.
            timeout: Seconds for one attempt.

        Raises:
            DefinitionError: There is an undo already, the action is in use, or the undo's parameters do not fit.
        """
        decorator: UndoDecorator[Any] = UndoDecorator(self, unknown, retry, timeout)
        if fn is None:
            return decorator
        self.declare_undo(fn, unknown=unknown, retry=retry, timeout=timeout)
        return fn

    def declare_undo(
        self, fn: Callable[..., Any], *, unknown: bool, retry: Retry, timeout: float | None
    ) -> None:
        """What `undo` does, without the types."""
        require_function(fn, f"undo of {self.where}")
        where = f"undo of {self.where}, {fn.__name__} ({written_at(fn)})"
        if self.undo_fn is not None:
            raise DefinitionError(
                f"{where}: the action has the undo {self.undo_fn.__name__} already; keep one of them"
            )
        if self.placed_in:
            raise DefinitionError(
                f"{where}: {self.placed_in} without it; declare the undo before the action is used"
            )
        _check_settings(where, None, retry)
        self.undo_takes_ctx, deps = _check_undo(fn, where, self.output.type, unknown)
        if deps and not self.needs_deps:
            self.needs_deps = f"{where} takes Ctx[{deps}]"
        self.undo_fn = fn
        self.undo_is_async = inspect.iscoroutinefunction(fn)
        self.undo_kind = "unknown" if unknown or fn is no_op_undo else "output"
        self.undo_retry = retry
        self.undo_timeout = check_timeout(timeout, where)


def no_op_undo(output: object) -> None:
    """An undo that does nothing, for effects that may stay: `quote.undo(no_op_undo)`.

    The node counts as undone. Its output is never needed, so a node in doubt is not re-run to learn it.
    """


class UndoDecorator(Generic[V]):
    """What `action.undo(...)` returns: takes the undo, which takes a `V`."""

    def __init__(self, action: Action[..., Any], unknown: bool, retry: Retry, timeout: float | None) -> None:
        self._action = action
        self._unknown = unknown
        self._retry = retry
        self._timeout = timeout

    @overload
    def __call__(self, fn: Callable[[Ctx[D], V], R], /) -> Callable[[Ctx[D], V], R]: ...
    @overload
    def __call__(self, fn: Callable[[V], R], /) -> Callable[[V], R]: ...
    def __call__(self, fn: Callable[..., Any], /) -> Any:
        """Declare the undo; returns it as it was."""
        self._action.declare_undo(fn, unknown=self._unknown, retry=self._retry, timeout=self._timeout)
        return fn


@final
class _Whatever:
    """A class that nobody uses: a first parameter that takes it is an `object`, and no `Ctx`."""


_Taking: TypeAlias = Action[Concatenate[object, P], T]


class ActionDecorator:
    """What `action(...)` with settings returns: takes the function."""

    def __init__(self, **settings: Any) -> None:
        self._settings = settings

    @overload
    def __call__(
        self, fn: Callable[Concatenate[_Whatever, P], Coroutine[Any, Any, T]], /
    ) -> _Taking[P, T]: ...
    @overload
    def __call__(self, fn: Callable[Concatenate[_Whatever, P], T], /) -> _Taking[P, T]: ...
    @overload
    def __call__(self, fn: Callable[Concatenate[Ctx[D], P], Coroutine[Any, Any, T]], /) -> Action[P, T]: ...
    @overload
    def __call__(self, fn: Callable[Concatenate[Ctx[D], P], T], /) -> Action[P, T]: ...
    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, T]], /) -> Action[P, T]: ...
    @overload
    def __call__(self, fn: Callable[P, T], /) -> Action[P, T]: ...
    def __call__(self, fn: Callable[..., Any], /) -> Action[..., Any]:
        """Make the action."""
        return Action(fn, **self._settings)


@overload
def action(fn: Callable[Concatenate[_Whatever, P], Coroutine[Any, Any, T]], /) -> _Taking[P, T]: ...
@overload
def action(fn: Callable[Concatenate[_Whatever, P], T], /) -> _Taking[P, T]: ...
@overload
def action(fn: Callable[Concatenate[Ctx[D], P], Coroutine[Any, Any, T]], /) -> Action[P, T]: ...
@overload
def action(fn: Callable[Concatenate[Ctx[D], P], T], /) -> Action[P, T]: ...
@overload
def action(fn: Callable[P, Coroutine[Any, Any, T]], /) -> Action[P, T]: ...
@overload
def action(fn: Callable[P, T], /) -> Action[P, T]: ...
@overload
def action(
    *,
    name: str | None = ...,
    retry: Retry = ...,
    timeout: float | None = ...,
    unknown: type[BaseException] | Iterable[type[BaseException]] = ...,
    pivot: bool = ...,
    label: str = ...,
) -> ActionDecorator: ...
def action(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    retry: Retry = ONCE,
    timeout: float | None = None,
    unknown: type[BaseException] | Iterable[type[BaseException]] = TimeoutError,
    pivot: bool = False,
    label: str = "",
) -> Action[..., Any] | ActionDecorator:
    """Make a function an action: `@action`, or `@action(retry=Retry(5), timeout=10)`.

    Works on `def` (runs in a worker thread) and `async def`. Each parameter and the return value need an annotation
    that can be stored. A first parameter annotated `Ctx[Deps]` gets the context and is not part of the inputs.

    Write `object`, not `Any`, for what may be anything (`Ctx[object]`, `dict[str, object]`): mypy cannot tell the kinds
    of functions apart where it finds `Any`, and then checks no calls of the action.

    Args:
        fn: The function, when used without parentheses.
        name: Under which registries and stored dags know the action; by default the function's own name. Stored
            sagas look for it, so give the old name when you rename the function.
        retry: When the action is tried again; never by default.
        timeout: Seconds for one attempt. One that takes longer is in doubt.
        unknown: Exception classes after which nobody can tell whether the action took effect, such as the read timeout
            of an HTTP client: they leave the node in doubt, as raising `Unknown` does. What is given here takes the
            place of the default, `TimeoutError`; an error that is a `NoEffect` too stays clean.
        pivot: The saga only goes forward once this action has succeeded.
        label: For pictures.

    Raises:
        DefinitionError: No function, an annotation missing or of a type that cannot be stored, variadic parameters.
        NameInvalid: The name cannot be used.
    """
    decorator = ActionDecorator(
        name=name, retry=retry, timeout=timeout, unknown=unknown, pivot=pivot, label=label
    )
    return decorator if fn is None else decorator(fn)


def check_timeout(timeout: object, where: str) -> float | None:
    """Refuse a time limit that is none."""
    if timeout is None:
        return None
    if not isinstance(timeout, int | float) or not 0 < timeout < math.inf:
        raise DefinitionError(f"{where}: timeout is {timeout!r}; give seconds above 0, or None for no limit")
    return float(timeout)


def _exception_classes(given: object, where: str) -> tuple[type[BaseException], ...]:
    listed = cast("Iterable[object]", given if isinstance(given, Iterable) else (given,))
    classes: list[type[BaseException]] = []
    for one in listed:
        if not (isinstance(one, type) and issubclass(one, BaseException)):
            raise DefinitionError(
                f"{where}: unknown holds {one!r}; give exception classes, as unknown=(ConnectionError, TimeoutError)"
            )
        classes.append(one)
    return tuple(classes)


def _check_settings(where: str, label: object, *retries: object) -> None:
    """Refuse what a stored dag could not be read back with."""
    check_text(label, f"{where}: label")
    for retry in retries:
        if retry is not None and not isinstance(retry, Retry):
            raise DefinitionError(f"{where}: retry is {retry!r}; give Retry(...), as Retry(3)")


def _check_undo(fn: Callable[..., Any], where: str, output: Any, unknown: bool) -> tuple[bool, str]:
    """Whether the undo takes a `Ctx`, and the deps that it needs.

    Refuses an undo that cannot be called with the output, as far as can be seen.
    """
    hints = resolve_hints(fn, where)
    params = list(inspect.signature(fn).parameters.values())
    takes_ctx = bool(params) and is_ctx(hints.get(params[0].name))
    deps = needed_deps(hints[params[0].name]) if takes_ctx else ""
    try:
        bound = inspect.signature(fn).bind(*((None,) * (1 + takes_ctx)))
    except TypeError as error:
        raise DefinitionError(
            f"{where}: it must take {'the Ctx and ' if takes_ctx else ''}the action's output and nothing else: {error}"
        ) from None
    given = list(bound.arguments)[-1]
    if given not in hints:
        return takes_ctx, deps
    wanted = hints[given]
    if reason := misfit(output, wanted, stored=False):
        raise DefinitionError(
            f"{where}: parameter {given} is {type_name(wanted)}, but the action returns {type_name(output)}: {reason}"
        )
    if unknown and not {type(None), Any, object} & set(members(wanted)):
        raise DefinitionError(
            f"{where}: with unknown=True it may be given None; annotate {given} as {type_name(wanted)} | None"
        )
    return takes_ctx, deps


# -- ready-made actions ----------------------------------------------------


def action_constant(value: V, *, name: str = "action_constant") -> Action[[], V]:
    """An action that returns a value known beforehand (the Go library's `ActionConstant`).

    Inside a saga `constant(value)` is cheaper, since nothing runs; this is for graphs whose nodes must all be actions.

    Args:
        value: What it returns, in every run.
        name: Its name; two constants in one registry need two.

    Raises:
        DefinitionError: The value's type cannot be stored.
    """

    async def emit() -> Any:
        return value

    emit.__annotations__["return"] = type(value)
    return Action(emit, name=name)


def inject_error_action(*, name: str = "inject_error") -> Action[[], None]:
    """An action that always fails (the Go library's `ActionInjectError`), for drills: `InjectedError`."""

    async def fail() -> None:
        raise InjectedError(f"action {name}: injected, as asked for")

    return Action(fail, name=name)
