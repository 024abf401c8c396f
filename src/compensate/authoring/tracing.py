"""Tracing: running a saga function once, with references in place of values, and writing down the nodes it makes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from typing import Any, TypeVar, get_args, get_origin

import msgspec
from msgspec import Raw

from compensate.authoring.expressions import compose, holds_reference, own, refuse_mark
from compensate.authoring.placement import NodeOptions, NodeSource
from compensate.authoring.refs import Reference, Source, source_of
from compensate.authoring.signatures import author_line, bind_error, check_text, members, misfit, subclass_of
from compensate.codec import TypeCodec, encode_any, type_codec
from compensate.codec.values import type_name
from compensate.core.dag import PARAMS, ConstantNode, Each, Expr, Node, dependencies
from compensate.core.names import check_name
from compensate.errors import DefinitionError, SerializeFailed

V = TypeVar("V")


class Tracer:
    """The saga that is being traced: its nodes so far.

    A node is named as its options say, else after its action, constant or saga: `reserve`, then `reserve_2`,
    `reserve_3`, in the order of the calls.
    """

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.actions: dict[str, Any] = {}
        self._names: set[str] = set()
        self._counts: dict[str, int] = {}

    def run(self, fn: Callable[..., Any], params: Mapping[str, TypeCodec[Any]], positional: int) -> Any:
        """Call the saga function with references to its params, the first `positional` by place."""
        given = {
            name: Reference(Source(self, PARAMS, (name,), codec.type, name)) for name, codec in params.items()
        }
        args = [given.pop(name) for name in list(given)[:positional]]
        token = _current.set(self)
        try:
            return fn(*args, **given)
        finally:
            _current.reset(token)

    def add(
        self,
        target: NodeSource,
        settings: NodeOptions,
        args: Iterable[Any],
        kwargs: Mapping[str, Any],
        *,
        fan: bool,
    ) -> Any:
        """Make a node of an action or saga; returns a reference to its output."""
        where = f"{author_line()}: {target.name}"
        given = self._bind(target, where, args, kwargs)
        each: Each | None = None
        if fan:
            param = next(iter(target.params))
            each = Each(
                param, self._items(given.pop(param), target.params[param], f"{where}, parameter {param}")
            )
        inputs = {
            name: compose(value, target.params[name], self, f"{where}, parameter {name}")
            for name, value in given.items()
        }
        self._use(target, where)
        name = self._name(settings.name, target.name, where)
        node = target.make_node(name, inputs, settings, each=each)
        tp: Any = type(None) if target.output is None else target.output.type
        if fan:
            tp = list[tp]
        elif settings.flag is not None:
            own_flag = source_of(settings.flag)
            assert own_flag is not None
            own(own_flag, self, f"{where}.when")
            tp = tp | None if tp is not Any else Any
        return self._append(node, settings.after, tp, where)

    def constant(self, value: Any, name: str | None, label: str) -> Any:
        """Make a constant node."""
        where = f"{author_line()}: constant"
        check_text(label, f"{where}: label")
        if holds_reference(value):
            raise DefinitionError(
                f"{where}: a constant is known now, and this holds a reference; pass it on as it is"
            )
        try:
            data = refuse_mark(encode_any(value, where=where), where)
        except SerializeFailed as error:
            raise DefinitionError(f"{error}") from error
        node = ConstantNode(self._name(name, "constant", where), Raw(data), label=label)
        return self._append(node, (), Any if type(value) in (list, dict) else type(value), where)

    # -- parts of it -------------------------------------------------------

    def _bind(
        self, target: NodeSource, where: str, args: Iterable[Any], kwargs: Mapping[str, Any]
    ) -> dict[str, Any]:
        try:
            return target.bind(*args, **kwargs)
        except TypeError as error:
            taken = ", ".join(f"{name}: {type_name(codec.type)}" for name, codec in target.params.items())
            why = bind_error(target.signature, kwargs, error)
            raise DefinitionError(f"{where}: {why}; it takes ({taken})") from None

    def _items(self, items: Any, codec: TypeCodec[Any], where: str) -> Expr:
        """The expression for the list of a fan-out."""
        source = source_of(items)
        if source is None:
            if type(items) not in (list, tuple):
                raise DefinitionError(f"{where}: fan_out takes a list of items, not {type(items).__name__}")
            tp: Any = list[codec.type]  # type: ignore[name-defined]
            return compose(list(items), type_codec(tp, where=where), self, where)
        own(source, self, where)
        kinds = members(source.type)
        lists = [kind for kind in kinds if kind is Any or _is_list(kind)]
        if not lists:
            raise DefinitionError(
                f"{where}: fan_out takes a list of items, and {source.shown} is {type_name(source.type)}"
            )
        for kind in lists:
            if get_args(kind) and (reason := misfit(get_args(kind)[0], codec.type)):
                raise DefinitionError(f"{where}: an item of {source.shown} does not fit: {reason}")
        return source.ref()

    def _use(self, target: NodeSource, where: str) -> None:
        for name, action in target.actions.items():
            if self.actions.setdefault(name, action) is not action:
                raise DefinitionError(
                    f"{where}: another action is named {name} in this saga; stored sagas find actions by name, so "
                    "give one of them another: @action(name=...)"
                )

    def _name(self, wanted: str | None, default: str, where: str) -> str:
        if wanted is not None:
            name = check_name(wanted, f"{where}: node name")
            if name in self._names:
                raise DefinitionError(
                    f"{where}: a node is named {name!r} already; give this one another name"
                )
        else:
            count = self._counts.get(default, 0) + 1
            name = default if count == 1 else f"{default}_{count}"
            while name in self._names:
                count += 1
                name = f"{default}_{count}"
            self._counts[default] = count
        self._names.add(name)
        return name

    def _append(self, node: Node, after: Iterable[object], tp: Any, where: str) -> Any:
        names = [self._node_name(one, node, where) for one in after]
        self.nodes.append(with_after(node, names))
        return Reference(Source(self, node.name, (), tp, node.name))

    def _node_name(self, one: object, node: Node, where: str) -> str:
        source = source_of(one)
        if source is not None:
            own(source, self, f"{where}.after")
            if source.node == PARAMS:
                raise DefinitionError(f"{where}.after({source.shown}): the params are there from the start")
            return source.node
        if not isinstance(one, str):
            raise DefinitionError(
                f"{where}.after takes references and names of nodes, not {type(one).__name__}"
            )
        if one not in self._names or one == node.name:
            raise DefinitionError(f"{where}.after({one!r}): no node of that name was made before this one")
        return one


_current: ContextVar[Tracer | None] = ContextVar("compensate_tracer", default=None)


def add_node(
    target: NodeSource,
    settings: NodeOptions,
    args: Iterable[Any],
    kwargs: Mapping[str, Any],
    *,
    fan: bool = False,
) -> Any:
    """Make a node in the saga that is being traced; returns a reference to its output."""
    tracer = _current.get()
    if tracer is None:
        if hasattr(target, "fn"):
            instead = f"to run the bare function, as in a unit test, call {target.name}.fn(...)"
        else:
            instead = f"to run the saga write `await coordinator.run({target.name}, ...)`, or use `connect` in a script"
        raise DefinitionError(
            f"{author_line()}: {target.name} is called outside of a @saga function; {instead}"
        )
    return tracer.add(target, settings, args, kwargs, fan=fan)


def constant(value: V, *, name: str | None = None, label: str = "") -> V:
    """Make a constant node: a value known now, with a name of its own in the log and in pictures.

    A plain value given as an argument needs no node; this is for one that should be seen.

    Args:
        value: What `encode_any` can store: JSON data, or an instance of a class that can be stored.
        name: The node's name; `constant`, `constant_2` and so on by default.
        label: For pictures.

    Raises:
        DefinitionError: Outside of a `@saga` function, or the value cannot be stored.
    """
    tracer = _current.get()
    if tracer is None:
        raise DefinitionError(f"{author_line()}: constant() is called outside of a @saga function")
    return tracer.constant(value, name, label)  # type: ignore[no-any-return]


def with_after(node: Node, names: Iterable[str]) -> Node:
    """The node, starting after these others too. An edge that is there already is not repeated."""
    wanted = tuple(dict.fromkeys(names))
    if not wanted:
        return node
    present = set(dependencies(node))
    added = tuple(name for name in wanted if name not in present)
    return msgspec.structs.replace(node, after=(*node.after, *added)) if added else node


def _is_list(tp: Any) -> bool:
    cls: Any = get_origin(tp) or tp
    if not subclass_of(cls, object) or subclass_of(cls, str, bytes) or hasattr(cls, "keys"):
        return False
    if subclass_of(cls, tuple):
        return len(get_args(tp)) == 2 and get_args(tp)[1] is ...
    return hasattr(cls, "__iter__") and hasattr(cls, "__len__")
