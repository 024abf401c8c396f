"""Sagas: functions that are traced once into a dag."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from functools import cached_property
from inspect import Parameter
from typing import Any, Generic, ParamSpec, Self, TypeVar, overload

import msgspec
from msgspec import Raw

from compensate.authoring.actions import Action
from compensate.authoring.expressions import compose
from compensate.authoring.fan_out import fan_out
from compensate.authoring.fitting import check_known
from compensate.authoring.naming import found_at, refuse_pickling
from compensate.authoring.notebook import page, picture
from compensate.authoring.options import ConfiguredAction
from compensate.authoring.placement import DEFAULT, NodeOptions
from compensate.authoring.refs import refuse_mistaken, source_of
from compensate.authoring.signatures import (
    Signature,
    bind_error,
    check_text,
    require_function,
    signature_text,
    written_at,
)
from compensate.authoring.source import check_source
from compensate.authoring.tracing import Tracer, add_node
from compensate.codec import TypeCodec
from compensate.codec.records import UNREADABLE, check_keys, encode_dag, fingerprint, join_fields, to_json
from compensate.core.dag import Dag, Each, Expr, SubsagaNode, validate
from compensate.core.names import check_name, check_saga_id
from compensate.core.plan import Plan
from compensate.errors import (
    DefinitionError,
    DeserializeFailed,
    ParamsInvalid,
    SerializeFailed,
    SubsagaCreateFailed,
)

P = ParamSpec("P")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_params_decoder = msgspec.json.Decoder(dict[str, Raw])


class Definition:
    """A saga's dag with the types of what goes in and comes out. Shared by a saga and its variants.

    Attributes:
        dag: The graph.
        signature: Of the params, for binding arguments.
        params: Codec of each param.
        output: Codec of what it returns; `None` if it returns nothing.
        actions: Every action that it uses, subsagas included, by name.
        where: Where it is written, for messages.
        found: Module and qualified name of its function, under which the saga is found again.
    """

    def __init__(
        self,
        dag: Dag,
        signature: inspect.Signature,
        params: Mapping[str, TypeCodec[Any]],
        output: TypeCodec[Any] | None,
        actions: Mapping[str, Action[..., Any]],
        where: str,
        found: tuple[str, str] = ("", ""),
    ) -> None:
        self.dag = dag
        self.found = found
        self.signature = signature
        self.params = dict(params)
        self.output = output
        self.actions = dict(actions)
        self.where = where
        kinds = [p.kind for p in signature.parameters.values()]
        self.by_place = Parameter.KEYWORD_ONLY not in kinds
        self._fields = [(to_json(name) + b":", codec.encode) for name, codec in self.params.items()]

    def encode_by_place(self, args: tuple[Any, ...]) -> bytes:
        """The params as JSON, one value each, in order."""
        parts = [field + encode(arg) for (field, encode), arg in zip(self._fields, args, strict=True)]
        return b"{" + b",".join(parts) + b"}"

    @property
    def module(self) -> str:
        """Name of the module in which it is written; `""` if it was made of a dag."""
        return self.found[0]

    @property
    def built(self) -> bool:
        """Whether it was made of a dag, and not written as a function."""
        return not self.module

    def same_as(self, other: Definition) -> bool:
        """Whether the two are one saga: the same definition, or made of equal dags with equal types."""
        if self is other or not (self.built and other.built):
            return self is other
        return self.encoded == other.encoded and self._types() == other._types()

    def akin_to(self, other: Definition) -> bool:
        """Whether the two are graphs that were made at run time: of dags, or by one `@saga` inside a function."""
        return (self.module, self.built or self.where) == (other.module, other.built or other.where)

    def _types(self) -> tuple[list[Any], Any]:
        return [codec.type for codec in self.params.values()], self.output and self.output.type

    @cached_property
    def encoded(self) -> bytes:
        """The stored form of the dag."""
        return encode_dag(self.dag)

    @cached_property
    def fingerprint(self) -> str:
        """What tells this dag from others."""
        return fingerprint(self.encoded)

    @cached_property
    def plan(self) -> Plan:
        """The dag laid flat."""
        return Plan(self.dag)


class Saga(Generic[P, T_co]):
    """The definition of a saga, made by `@saga`: give it to a coordinator to run it.

    Called inside another `@saga` function it makes a subsaga node: names of its own, undone node by node, and only its
    output visible outside.

    Attributes:
        definition: The dag and its types.
        saga_id: The id to run under, from `with_id`; `None` lets the coordinator make one.
        deadline: Seconds after the start at which the saga is rolled back, or `None`. Only a saga that is started has
            one: a saga with a deadline is refused as a subsaga.
    """

    def __init__(
        self,
        definition: Definition,
        *,
        deadline: float | None = None,
        saga_id: str | None = None,
        settings: NodeOptions = DEFAULT,
    ) -> None:
        if deadline is not None and not (0 < deadline < math.inf):
            raise DefinitionError(
                f"{definition.where}: deadline is {deadline}; give seconds above 0, or None"
            )
        self.definition = definition
        self.deadline = None if deadline is None else float(deadline)
        self.saga_id = saga_id
        self._settings = settings
        self.__module__, self.__qualname__ = definition.found  # where pickle looks for it

    def __reduce__(self) -> str | tuple[Any, ...]:
        """Pickled as its name in its module; a variant (`with_id`, `options`) as that and its settings.

        Raises:
            PicklingError: No saga of this definition stands under its function's name in its module.
        """
        module, qualname = self.definition.found
        found = found_at(module, qualname)
        if found is self:
            return qualname
        if not isinstance(found, Saga) or found.definition is not self.definition:
            raise refuse_pickling(self.where, module, qualname)
        return _variant, (found, self.deadline, self.saga_id, self._settings)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __repr__(self) -> str:
        return f"<{self.where}>" if self.saga_id is None else f"<{self.where}, id {self.saga_id}>"

    # -- what it is --------------------------------------------------------

    @property
    def name(self) -> str:
        """The definition's name."""
        return self.definition.dag.name

    @property
    def where(self) -> str:
        """Where it is written, for messages."""
        return self.definition.where

    @property
    def dag(self) -> Dag:
        """The graph."""
        return self.definition.dag

    @property
    def encoded(self) -> bytes:
        """The stored form of the dag."""
        return self.definition.encoded

    @property
    def fingerprint(self) -> str:
        """What tells this dag from others."""
        return self.definition.fingerprint

    @property
    def plan(self) -> Plan:
        """The dag laid flat; made once."""
        return self.definition.plan

    @property
    def signature(self) -> inspect.Signature:
        """Of the params."""
        return self.definition.signature

    @property
    def takes(self) -> str:
        """The params with their types, for people: `(order: shop.Order)`."""
        return signature_text(self.definition.signature, self.definition.params)

    @property
    def params(self) -> dict[str, TypeCodec[Any]]:
        """Codec of each param."""
        return self.definition.params

    @property
    def output(self) -> TypeCodec[Any] | None:
        """Codec of what it returns; `None` if it returns nothing."""
        return self.definition.output

    @property
    def actions(self) -> dict[str, Action[..., Any]]:
        """Every action that it uses, subsagas included, by name."""
        return self.definition.actions

    def _repr_svg_(self) -> str:
        return picture(self.dag)

    def _repr_html_(self) -> str:
        return page(self.dag)

    # -- variants ----------------------------------------------------------

    def with_id(self, saga_id: str) -> Saga[P, T_co]:
        """The same saga, to run under this id. Starting an id twice with equal params is the same as once.

        Raises:
            NameInvalid: It cannot be an id.
        """
        return Saga(
            self.definition, deadline=self.deadline, saga_id=check_saga_id(saga_id), settings=self._settings
        )

    def options(
        self, *, name: str | None = None, label: str | None = None, deadline: float | None = None
    ) -> Saga[P, T_co]:
        """The same saga with other settings. What is not given stays.

        Args:
            name: Name of its node when it is called as a subsaga.
            label: Of that node, for pictures.
            deadline: Seconds after the start at which it is rolled back.
        """
        changes = {key: value for key, value in (("name", name), ("label", label)) if value is not None}
        return Saga(
            self.definition,
            deadline=self.deadline if deadline is None else deadline,
            saga_id=self.saga_id,
            settings=msgspec.structs.replace(self._settings, **changes),
        )

    # -- as a subsaga ------------------------------------------------------

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T_co:
        """Make a subsaga node in the saga that is being traced; returns a reference to the output.

        Raises:
            DefinitionError: Outside of a `@saga` function, or the arguments do not fit.
        """
        return add_node(self, self._settings, args, kwargs)  # type: ignore[no-any-return]

    def after(self, *nodes: object) -> ConfiguredAction[P, T_co]:
        """As a subsaga that starts only after these nodes; see `Action.after`."""
        placed: ConfiguredAction[P, T_co] = ConfiguredAction(self, self._settings)
        return placed.after(*nodes)

    def when(self, flag: bool) -> ConfiguredAction[P, T_co | None]:
        """As a subsaga that runs only if the flag is true; see `Action.when`."""
        placed: ConfiguredAction[P, T_co] = ConfiguredAction(self, self._settings)
        return placed.when(flag)

    def bind(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The value of each param, defaults included; `TypeError` if the arguments do not fit."""
        params = self.definition.params
        if not kwargs and len(args) == len(params) and self.definition.by_place:
            return dict(zip(params, args, strict=True))
        bound = self.definition.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return bound.arguments

    def check_inner(self, where: str) -> None:
        """Refuse to be a subsaga with what only a saga that is started has.

        Raises:
            SubsagaCreateFailed: It has an id or a deadline.
        """
        if self.saga_id is not None:
            raise SubsagaCreateFailed(
                f"{where}: {self.where} has the id {self.saga_id!r}, but a subsaga is a part of the saga "
                "around it and has no id of its own; leave out with_id(), or name its node: options(name=...)"
            )
        if self.deadline is not None:
            raise SubsagaCreateFailed(
                f"{where}: {self.where} has a deadline of {self.deadline:g} s, but a subsaga is a part of the "
                "saga around it and has no deadline of its own; set timeout= on its actions or a deadline on the "
                "saga around it, and give this one its deadline where it is started: options(deadline=...)"
            )

    def make_node(
        self, name: str, inputs: dict[str, Expr], settings: NodeOptions = DEFAULT, *, each: Each | None = None
    ) -> SubsagaNode:
        """This saga as a node of a dag.

        Raises:
            SubsagaCreateFailed: The settings are an action's, or it has an id or a deadline.
        """
        self.check_inner(f"node {name}")
        check_text(settings.label, f"node {name}: label")
        tried = (settings.retry, settings.timeout, settings.undo_retry, settings.undo_timeout)
        if any(one is not None for one in tried):
            raise SubsagaCreateFailed(
                f"node {name}: retries and time limits belong to actions; set them inside {self.where}"
            )
        return SubsagaNode(name, self.dag, inputs, label=settings.label or "", when=settings.when, each=each)

    # -- its params --------------------------------------------------------

    def encode_params(self, *args: P.args, **kwargs: P.kwargs) -> bytes:
        """The params as the log keeps them: a JSON object with every param, defaults included.

        Raises:
            ParamsInvalid: An argument is missing, unknown, or not of its type.
        """
        definition = self.definition
        try:
            if definition.by_place and not kwargs and len(args) == len(definition.params):
                # Every saga's start comes by here, most of them this way.
                return definition.encode_by_place(args)
            values = self.bind(*args, **kwargs)
        except TypeError as error:
            why = bind_error(definition.signature, kwargs, error)
            raise ParamsInvalid(f"saga {self.name}: {why}; it takes {self.takes}") from None
        except SerializeFailed as error:
            raise ParamsInvalid(f"{error}") from error
        params = definition.params
        try:
            return join_fields((name, params[name].encode(value)) for name, value in values.items())
        except SerializeFailed as error:
            raise ParamsInvalid(f"{error}") from error

    def read_params(self, data: bytes) -> bytes:
        """Params from JSON that somebody wrote: checked against their types, defaults filled in, as `encode_params`.

        Raises:
            ParamsInvalid: No JSON object, or a param is missing, unknown, or not of its type; or a key stands twice
                in one object, at whatever depth.
        """
        try:
            given = _params_decoder.decode(data)
        except UNREADABLE as error:
            raise ParamsInvalid(f"saga {self.name}: params are a JSON object by name: {error}") from None
        try:
            check_keys(data)
        except DeserializeFailed as error:
            raise ParamsInvalid(f"saga {self.name}: {error}") from None
        values: dict[str, Any] = {}
        for name, codec in self.params.items():
            default = self.signature.parameters[name].default
            if name in given:
                try:
                    values[name] = codec.decode(bytes(given[name]))
                except DeserializeFailed as error:
                    reason = error.__cause__ or error
                    raise ParamsInvalid(f"saga {self.name}, parameter {name}: {reason}") from error
            elif default is Parameter.empty:
                raise ParamsInvalid(f"saga {self.name}: param {name!r} is missing; it takes {self.takes}")
            else:
                values[name] = default
        if unknown := given.keys() - self.params.keys():
            raise ParamsInvalid(f"saga {self.name}: no param {min(unknown)!r}; it takes {self.takes}")
        try:
            return join_fields((name, self.params[name].encode(value)) for name, value in values.items())
        except SerializeFailed as error:
            raise ParamsInvalid(f"{error}") from error


def _variant(
    saga: Saga[..., Any], deadline: float | None, saga_id: str | None, settings: NodeOptions
) -> Saga[..., Any]:
    """A saga with other settings, as pickle makes it anew."""
    return Saga(saga.definition, deadline=deadline, saga_id=saga_id, settings=settings)


# -- making them -----------------------------------------------------------


@overload
def saga(fn: Callable[P, T], /) -> Saga[P, T]: ...
@overload
def saga(
    *, name: str | None = ..., deadline: float | None = ...
) -> Callable[[Callable[P, T]], Saga[P, T]]: ...
def saga(
    fn: Callable[..., Any] | None = None, /, *, name: str | None = None, deadline: float | None = None
) -> Any:
    """Make a function a saga: `@saga`, or `@saga(name="fulfil", deadline=3600)`.

    The function is called once, now, with references in place of its params. Each action that it calls becomes a node,
    each reference that it passes on an edge, and what it returns the saga's output. It must be a plain `def`, and may
    not look at values: there are none yet. Every such look is refused, but for `is`, which Python lets nobody refuse:
    `result is None` is always false here.

    Args:
        fn: The function, when used without parentheses.
        name: Under which stored sagas are found; by default the function's own name.
        deadline: Seconds after the start at which the saga is rolled back.

    Raises:
        DefinitionError: The function cannot be traced, a type cannot be stored, or the dag cannot run.
        NameInvalid: The name cannot be used.
    """

    def decorate(fn: Callable[..., Any]) -> Saga[..., Any]:
        return Saga(_trace(fn, name), deadline=deadline)

    return decorate if fn is None else decorate(fn)


def _trace(fn: Callable[..., Any], name: str | None) -> Definition:
    require_function(fn, "@saga")
    name = check_name(fn.__name__ if name is None else name, f"saga at {written_at(fn)}: name")
    where = f"saga {name} ({written_at(fn)})"
    if inspect.iscoroutinefunction(fn):
        raise DefinitionError(
            f"{where}: it is traced, not run, so it cannot be async; write `def` and drop the awaits"
        )
    signature = Signature(fn, f"saga {name}")
    if signature.takes_ctx:
        raise DefinitionError(f"{where}: a saga takes no Ctx; its actions do")
    codec = signature.output()
    check_source(fn, name, _makes_node)
    positional = sum(p.kind is not Parameter.KEYWORD_ONLY for p in signature.bare.parameters.values())
    tracer = Tracer()
    try:
        returned = tracer.run(fn, signature.params, positional)
    except TypeError as error:
        refuse_mistaken(error, fn, name)
        raise
    output = _output(returned, codec, tracer, where)
    dag = Dag(name, tuple(tracer.nodes), tuple(signature.params), output)
    try:
        validate(dag)
    except DefinitionError as error:
        raise type(error)(f"{where}: {error}") from None
    for one in tracer.actions.values():
        one.placed_in = one.placed_in or f"saga {name} was traced"
    check_known(dag, tracer.actions.__getitem__, {}, where)
    check_storable(dag, where)
    nothing = codec.type is type(None)
    return Definition(
        dag,
        signature.bare,
        signature.params,
        None if nothing else codec,
        tracer.actions,
        where,
        (fn.__module__, fn.__qualname__),
    )


def check_storable(dag: Dag, where: str) -> None:
    """Refuse a dag with text that cannot be stored: a label, a path, the name of a param.

    Raises:
        DefinitionError: It cannot be encoded.
    """
    try:
        encode_dag(dag)
    except UnicodeEncodeError as error:
        raise DefinitionError(
            f"{where}: the text {ascii(error.object)[:60]} holds a lone surrogate and cannot be stored; decode it "
            "properly first"
        ) from None


def _makes_node(found: object) -> bool:
    """Whether a call of this makes a node in a saga function."""
    return isinstance(found, Action | Saga | ConfiguredAction) or found is fan_out


def _output(returned: Any, codec: TypeCodec[Any], tracer: Tracer, where: str) -> Expr | None:
    if codec.type is not type(None):
        return compose(returned, codec, tracer, f"{where}, its return value")
    source = source_of(returned)
    if returned is None or (source is not None and source.type is type(None)):
        return None
    raise DefinitionError(f"{where}: it returns {returned!r} but is annotated `-> None`")
