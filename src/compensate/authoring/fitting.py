"""Does a built dag fit the registered actions: what `DagBuilder.build` and tracing check of every node."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Mapping
from typing import Any

from compensate.authoring.actions import Action
from compensate.codec import TypeCodec
from compensate.codec.records import join, join_fields, select, split
from compensate.core.dag import (
    ActionNode,
    ConstantNode,
    Dag,
    Each,
    Expr,
    Fields,
    Items,
    Node,
    SubsagaNode,
    Value,
)
from compensate.errors import CompensateError, DefinitionError, SubsagaCreateFailed

Find = Callable[[str], Action[..., Any]]

_made_of: dict[int, tuple[weakref.ref[Any], Any]] = {}
"""By id of a node: the action or saga that it was made of, as long as the node is there."""


def remember(node: Any, made_of: Any) -> None:
    """Note which action or saga a node was made of; the node itself says only its name."""
    key = id(node)
    _made_of[key] = (weakref.ref(node, lambda _: _made_of.pop(key, None)), made_of)


def remembered(node: Any) -> Any:
    """What the node was made of; `None` if it was made by hand, or read from a store."""
    found = _made_of.get(id(node))
    return found[1] if found is not None and found[0]() is node else None


def check_actions(dag: Dag, nodes: tuple[Node, ...], find: Find, where: str) -> None:
    """Hold every action node, those of subsagas included, against the action that is registered under its name.

    Args:
        dag: The dag.
        nodes: Its nodes as they were made, which know what they were made of.
        find: Gives the registered action.
        where: For messages.

    Raises:
        DefinitionError: A node was made of another action, or of one whose undo or parameters are others.
    """
    made = {node.name: node for node in nodes}
    for node in dag.nodes:
        place = f"{where}, node {node.name}"
        origin = remembered(made.get(node.name, node))
        if isinstance(node, ActionNode):
            _check_action(node, origin, find(node.action), place)
        elif isinstance(node, SubsagaNode):
            for name, action in getattr(origin, "actions", {}).items():
                if not same_action(action, find(name)):
                    raise DefinitionError(_other(place, action, find(name)))
            check_actions(node.dag, node.dag.nodes, find, place)


def _check_action(
    node: ActionNode, made_of: Action[..., Any] | None, known: Action[..., Any], place: str
) -> None:
    if node.undo != known.undo_kind:
        undo = "no undo" if known.undo_fn is None else f"the undo {known.undo_fn.__name__}"
        origin = "" if made_of is None else f" of {made_of.where}"
        has = "no undo" if node.undo == "none" else f"an undo of kind {node.undo!r}"
        raise DefinitionError(
            f"{place}: it was made{origin} with {has}, but the registered {known.where} has {undo} (kind "
            f"{known.undo_kind!r}); declare the undo before action_node() takes the action, and register that action"
        )
    given = {*node.inputs, *(() if node.each is None else (node.each.param,))}
    origin = "" if made_of is None else f", made of {made_of.where},"
    if unknown := sorted(given - set(known.params)):
        raise DefinitionError(
            f"{place}{origin} gives the parameter {unknown[0]!r}, which the registered {known.where} does not take"
        )
    for name, parameter in known.signature.parameters.items():
        if name not in given and parameter.default is inspect.Parameter.empty:
            raise DefinitionError(
                f"{place}{origin} gives nothing for the parameter {name!r} of the registered {known.where}"
            )
    if made_of is not None and not same_action(made_of, known):
        raise DefinitionError(_other(place, made_of, known))


def _other(place: str, made_of: Action[..., Any], known: Action[..., Any]) -> str:
    return (
        f"{place}: it was made of {made_of.where}, but another action is registered under that name: {known.where}; "
        "register the action that the node is made of, or give one of them another name: @action(name=...)"
    )


def same_action(one: Action[..., Any], other: Action[..., Any]) -> bool:
    """Whether two actions are one object, or are made alike of the same code, as by a function that defines them."""
    if one is other:
        return True
    undos = (one.undo_fn, other.undo_fn)
    return (one.fn.__code__ is other.fn.__code__ or one.fn.__code__ == other.fn.__code__) and (
        undos[0] is undos[1] or getattr(undos[0], "__code__", 0) == getattr(undos[1], "__code__", 1)
    )


# -- values that are known before anything runs -------------------------------------


def check_known(dag: Dag, find: Find, types: Mapping[str, Mapping[str, TypeCodec[Any]]], where: str) -> None:
    """Refuse constants, and what is composed of them, where they cannot be read as what they are given for.

    Args:
        dag: The dag.
        find: Gives the action of a name.
        types: By name of a subsaga's node: the codec of each of its params, where the types are known.
        where: For messages.

    Raises:
        SubsagaCreateFailed: They cannot be the params of a subsaga.
        DefinitionError: They cannot be the inputs of an action.
    """
    _Known(find).dag(dag, {}, types, where)


class _Known:
    def __init__(self, find: Find) -> None:
        self.find = find

    def dag(
        self,
        dag: Dag,
        params: Mapping[str, bytes],
        types: Mapping[str, Mapping[str, TypeCodec[Any]]],
        where: str,
    ) -> None:
        outputs = {node.name: bytes(node.value) for node in dag.nodes if isinstance(node, ConstantNode)}
        for node in dag.nodes:
            place = f"{where}, node {node.name}"
            if isinstance(node, ActionNode):
                codecs = self.find(node.action).params
                for name, expr in node.inputs.items():
                    data = self.value(expr, outputs, params, f"{place}, parameter {name}", DefinitionError)
                    self.read(data, codecs.get(name), f"{place}, parameter {name}", DefinitionError)
                if node.each is not None:
                    self.items(node.each, outputs, params, codecs.get(node.each.param), place)
            elif isinstance(node, SubsagaNode):
                inner: dict[str, bytes] = {}
                for name, expr in node.inputs.items():
                    given = f"{place}, param {name} of subsaga {node.dag.name}"
                    data = self.value(expr, outputs, params, given, SubsagaCreateFailed)
                    if data is not None:
                        codec = types.get(node.name, {}).get(name)
                        self.read(data, codec, given, SubsagaCreateFailed)
                        inner[name] = data
                self.dag(node.dag, inner, {}, place)

    def items(
        self,
        each: Each,
        outputs: Mapping[str, bytes],
        params: Mapping[str, bytes],
        codec: TypeCodec[Any] | None,
        place: str,
    ) -> None:
        given = f"{place}, parameter {each.param}"
        data = self.value(each.items, outputs, params, given, DefinitionError)
        if data is None:
            return
        try:
            items = split(data)
        except CompensateError as error:
            raise DefinitionError(f"{given}: the constant that it runs over is no list: {error}") from error
        for i, item in enumerate(items):
            self.read(item, codec, f"{given}, item {i}", DefinitionError)

    def read(
        self, data: bytes | None, codec: TypeCodec[Any] | None, place: str, kind: type[DefinitionError]
    ) -> None:
        if data is None or codec is None:
            return
        try:
            codec.decode(data)
        except CompensateError as error:
            reason = error.__cause__ or error
            raise kind(f"{place}: the constant that it is given does not fit: {reason}") from error

    def value(
        self,
        expr: Expr,
        outputs: Mapping[str, bytes],
        params: Mapping[str, bytes],
        place: str,
        kind: type[DefinitionError],
    ) -> bytes | None:
        """An expression as JSON, if it is known already."""
        if isinstance(expr, Value):
            return bytes(expr.json)
        if isinstance(expr, Items | Fields):
            parts = expr.items if isinstance(expr, Items) else tuple(expr.fields.values())
            known = [
                data for part in parts if (data := self.value(part, outputs, params, place, kind)) is not None
            ]
            if len(known) < len(parts):
                return None
            return (
                join(known) if isinstance(expr, Items) else join_fields(zip(expr.fields, known, strict=True))
            )
        if expr.node:
            data, path = outputs.get(expr.node), expr.path
        elif expr.path:
            data, path = params.get(str(expr.path[0])), expr.path[1:]
        else:
            return None
        if data is None:
            return None
        try:
            return select(data, path)
        except CompensateError as error:
            shown = "".join(f".{step}" if isinstance(step, str) else f"[{step}]" for step in path)
            raise kind(
                f"{place}: the constant {expr.node or expr.path[0]!r} has no {shown.lstrip('.')!r}: {error}"
            ) from error
