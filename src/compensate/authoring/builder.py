"""`DagBuilder`: graphs made at run time, as in steno and the Go library, on the same `Dag` as traced sagas."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from inspect import Parameter
from typing import Any, Final, TypeAlias, cast

import msgspec
from msgspec import Raw

from compensate.authoring.actions import Action
from compensate.authoring.expressions import encode_plain
from compensate.authoring.fitting import check_actions, check_known, remember, remembered
from compensate.authoring.placement import NodeOptions
from compensate.authoring.registry import ActionRegistry, actions_of
from compensate.authoring.sagas import Definition, Saga, check_storable
from compensate.authoring.signatures import author_line, check_text, signature_text
from compensate.authoring.tracing import with_after
from compensate.codec import TypeCodec, encode_any, type_codec
from compensate.core.dag import (
    PARAMS,
    ActionNode,
    ConstantNode,
    Dag,
    Each,
    Expr,
    Fields,
    Items,
    Node,
    Path,
    Ref,
    SubsagaNode,
    Value,
    dependencies,
    references,
    validate,
)
from compensate.core.policy import Retry
from compensate.errors import DefinitionError, SerializeFailed, SubsagaCreateFailed

Input: TypeAlias = "Expr | Any"
"""What a node takes: `output("node", ...)`, `param("name", ...)`, another expression, or a plain value."""

_EXPRESSIONS: Final = (Ref, Value, Items, Fields)
_LAST: Final[Any] = object()


def output(node: str, *path: str | int) -> Ref:
    """The output of a node, or the part of its JSON to which the path leads.

    Raises:
        DefinitionError: A step of the path is neither a field's name nor a position.
    """
    return Ref(node, _path(path))


def param(name: str, *path: str | int) -> Ref:
    """A param of the saga, or the part of its JSON to which the path leads. Raises as `output`."""
    return Ref(PARAMS, (name, *_path(path)))


def _path(path: tuple[object, ...]) -> Path:
    for step in path:
        if type(step) is not str and (type(step) is not int or step < 0):
            raise DefinitionError(
                f"a path holds {step!r}; its steps are names of fields and positions from 0 on"
            )
    return cast("Path", path)


# -- nodes -----------------------------------------------------------------


def action_node(
    name: str,
    action: Action[..., Any],
    *,
    inputs: Mapping[str, Input] | None = None,
    each: tuple[str, Input] | None = None,
    after: Iterable[str] = (),
    when: Ref | None = None,
    label: str | None = None,
    retry: Retry | None = None,
    timeout: float | None = None,
    undo_retry: Retry | None = None,
    undo_timeout: float | None = None,
) -> ActionNode:
    """A node that runs an action.

    Args:
        name: The node's name.
        action: As `registry.get(name)` gives it.
        inputs: What its parameters are given, by name.
        each: A parameter and a list: the node runs once for every item, given as that parameter.
        after: Names of nodes that must have completed before.
        when: A reference to a `bool` that decides whether it runs.
        label: For pictures; the action's by default.
        retry: When the action is tried again; as the action says by default, and so on.
        timeout: Seconds for one attempt.
        undo_retry: When the undo is tried again.
        undo_timeout: Seconds for one attempt of the undo.

    Raises:
        DefinitionError: An input that the action does not take or that cannot be stored, or one that is missing.
    """
    given = dict(inputs or {})
    where = f"node {name}, action {action.name}"
    _check_when(when, where)
    fanned = () if each is None else (each[0],)
    _check_inputs(action, {*given, *fanned}, where)
    exprs = {
        key: _expr(value, action.params[key], f"{where}, parameter {key}") for key, value in given.items()
    }
    settings = NodeOptions(
        label=label, retry=retry, timeout=timeout, undo_retry=undo_retry, undo_timeout=undo_timeout
    )
    items = None if each is None else Each(each[0], _items(each[1], action.params[each[0]], where))
    node = msgspec.structs.replace(action.make_node(name, exprs, settings, each=items), when=when)
    placed = with_after(node, (after,) if isinstance(after, str) else after)
    assert isinstance(placed, ActionNode)
    remember(placed, action)
    return placed


def constant_node(name: str, value: Any, *, label: str = "") -> ConstantNode:
    """A node whose output is known now.

    Raises:
        DefinitionError: The value cannot be stored.
    """
    check_text(label, f"constant {name}: label")
    return ConstantNode(name, Raw(_encode(value, f"constant {name}")), label=label)


def subsaga_node(
    name: str,
    dag: Dag | Saga[..., Any],
    *,
    params_node: str | None = None,
    inputs: Mapping[str, Input] | None = None,
    each: tuple[str, Input] | None = None,
    after: Iterable[str] = (),
    when: Ref | None = None,
    label: str | None = None,
) -> SubsagaNode:
    """A dag as a node of another: names of its own, and only its output visible outside.

    Args:
        name: The node's name.
        dag: The inner graph, or the saga that has it.
        params_node: A node whose output is an object with a field for each param (as in steno and the Go library).
        inputs: Or else what each param is given.
        each: A param and a list: one subsaga runs for every item, given as that param.
        after: Names of nodes that must have completed before.
        when: A reference to a `bool` that decides whether it runs.
        label: For pictures.

    Raises:
        SubsagaCreateFailed: Both or one of too few ways to give the params, or a value that cannot be stored.
    """
    inner = dag.dag if isinstance(dag, Saga) else dag
    where = f"node {name}, subsaga {inner.name}"
    _check_when(when, where)
    if isinstance(dag, Saga):
        dag.check_inner(where)
    check_text(label, f"{where}: label")
    if params_node is not None and not inner.params:
        raise SubsagaCreateFailed(
            f"{where}: params_node is {params_node!r}, but {inner.name} takes no params; leave it out, or order the "
            f"two with after={params_node!r}"
        )
    if params_node is not None and inputs is not None:
        raise SubsagaCreateFailed(f"{where}: give params_node or inputs, not both")
    exprs: dict[str, Expr] = {}
    if params_node is not None:
        exprs = {key: Ref(params_node, (key,)) for key in inner.params if each is None or key != each[0]}
    for key, value in (inputs or {}).items():
        codec = dag.params.get(key) if isinstance(dag, Saga) else None
        exprs[key] = _expr(value, codec, f"{where}, param {key}")
    fanned: Each | None = None
    if each is not None:
        codec = dag.params.get(each[0]) if isinstance(dag, Saga) else None
        fanned = Each(each[0], _items(each[1], codec, f"{where}, param {each[0]}"))
    node = SubsagaNode(name, inner, exprs, label=label or "", when=when, each=fanned)
    placed = with_after(node, (after,) if isinstance(after, str) else after)
    assert isinstance(placed, SubsagaNode)
    if isinstance(dag, Saga):
        remember(placed, dag)
    return placed


def _check_inputs(action: Action[..., Any], given: set[str], where: str) -> None:
    parameters = action.signature.parameters
    for name, parameter in parameters.items():
        if name not in given and parameter.default is inspect.Parameter.empty:
            raise DefinitionError(
                f"{where}: the parameter {name!r} is given nothing; it takes {_takes(action)}; give "
                f"inputs={{{name!r}: ...}}, with output('node'), param('name') or a value"
            )
    if unknown := given - parameters.keys():
        raise DefinitionError(f"{where}: it has no parameter {min(unknown)!r}; it takes {_takes(action)}")


def _takes(action: Action[..., Any]) -> str:
    return signature_text(action.signature, action.params)


def _check_when(when: object, where: str) -> None:
    if when is not None and not isinstance(when, Ref):
        raise DefinitionError(f"{where}: when is {when!r}; give a reference to a bool, as output('node')")


def _expr(value: Input, codec: TypeCodec[Any] | None, where: str) -> Expr:
    if isinstance(value, _EXPRESSIONS):
        return value
    if codec is not None:
        return Value(Raw(encode_plain(value, codec, where)))
    return Value(Raw(_encode(value, where)))


def _items(value: Input, codec: TypeCodec[Any] | None, where: str) -> Expr:
    if isinstance(value, _EXPRESSIONS):
        return value
    if not isinstance(value, list | tuple):
        raise DefinitionError(
            f"{where}: each takes a reference to a list, or a list, not {type(value).__name__}"
        )
    items = cast("Iterable[Any]", value)
    return Items(tuple(_expr(item, codec, f"{where}, item {i}") for i, item in enumerate(items)))


def _encode(value: Any, where: str) -> bytes:
    try:
        return encode_any(value, where=where)
    except SerializeFailed as error:
        raise DefinitionError(f"{error}") from error


def _check_node(node: object, where: str) -> None:
    if not isinstance(node, ActionNode | ConstantNode | SubsagaNode):
        raise DefinitionError(
            f"{where}: {node!r} is no node; make one with action_node, constant_node or subsaga_node"
        )


def _check_params_nodes(nodes: Iterable[Node], where: str) -> None:
    """Refuse a subsaga whose params come from a node that is not there, or from itself."""
    nodes = list(nodes)
    known = {node.name for node in nodes}
    for node in nodes:
        if not isinstance(node, SubsagaNode):
            continue
        for param_name, expr in node.inputs.items():
            for ref in references(expr):
                if ref.node == node.name:
                    raise SubsagaCreateFailed(
                        f"{where}, node {node.name}: its param {param_name!r} comes from the node itself; name the "
                        "node that gives it"
                    )
                if ref.node != PARAMS and ref.node not in known:
                    raise SubsagaCreateFailed(
                        f"{where}, node {node.name}: its param {param_name!r} comes from {ref.node!r}, which is no "
                        "node of this dag"
                    )


# -- the builder -----------------------------------------------------------


class DagBuilder:
    """Builds a dag from nodes: in stages, by edges, or both. Mistakes are reported by `build`.

    `append` and `append_parallel` add stages: every node of a stage starts after all nodes of the stage before.
    `add_node` and `add_dependency` place nodes and edges freely. References in a node's inputs are edges of their own.

    Args:
        name: The saga definition's name.
        registry: Which actions there are.
        params: Names of the saga's params.
    """

    def __init__(self, name: str, registry: ActionRegistry, *, params: Iterable[str] = ()) -> None:
        self._name = name
        self._registry = registry
        self._params = (params,) if isinstance(params, str) else tuple(params)
        self._nodes: list[Node] = []
        self._after: dict[str, dict[str, None]] = {}
        self._stage: list[str] = []
        self._stages = 0
        self._empty: list[int] = []

    def append(self, node: Node) -> DagBuilder:
        """Add a stage of one node."""
        return self.append_parallel(node)

    def append_parallel(self, *nodes: Node) -> DagBuilder:
        """Add a stage of nodes that may run at the same time."""
        self._stages += 1
        if not nodes:
            self._empty.append(self._stages)
            return self
        before = dict.fromkeys(self._stage)
        for node in nodes:
            self.add_node(node)
            self._after.setdefault(node.name, {}).update(before)
        self._stage = [node.name for node in nodes]
        return self

    def add_node(self, node: Node) -> DagBuilder:
        """Add a node outside of the stages.

        Raises:
            DefinitionError: It is no node; make one with `action_node`, `constant_node` or `subsaga_node`.
        """
        _check_node(node, f"dag {self._name}")
        self._nodes.append(node)
        return self

    def add_dependency(self, before: str, after: str) -> DagBuilder:
        """Let one node start only after another has completed. Both may still be added later."""
        self._after.setdefault(after, {})[before] = None
        return self

    def build(self, *, output: Expr | None = _LAST) -> Dag:
        """Make the dag. The builder can go on afterwards.

        Args:
            output: What the saga returns; by default the output of the last node. `None` for a saga without output.

        Raises:
            DefinitionError: An empty stage, no node, a name used twice, an unknown dependency, a cycle, or more than
                one last node and no `output`; a node that does not fit the registered action (another action, another
                undo, other parameters); a constant that cannot be what it is given for; text that cannot be stored.
            ActionNotFound: An action is not registered.
            SubsagaCreateFailed: A subsaga's params do not fit, or come from a node that is not there or from itself.
            NameInvalid: A name cannot be used.
        """
        where = f"dag {self._name}"
        if self._empty:
            raise DefinitionError(f"{where}: stage {self._empty[0]} is empty; give append_parallel a node")
        known = {node.name for node in self._nodes}
        for name in self._after:
            if name not in known:
                raise DefinitionError(f"{where}: add_dependency names {name!r}, which is no node of this dag")
        _check_params_nodes(self._nodes, where)
        nodes = tuple(with_after(node, self._after.get(node.name, ())) for node in self._nodes)
        dag = Dag(self._name, nodes, self._params)
        validate(dag)
        actions = actions_of(dag, self._registry)
        if output is _LAST:
            output = Ref(self._last(nodes, where))
        elif output is not None and type(output) not in _EXPRESSIONS:
            raise DefinitionError(
                f"{where}: output is of type {type(output).__name__}; give an expression, as output('node')"
            )
        dag = msgspec.structs.replace(dag, output=output)
        validate(dag)
        made = tuple(self._nodes)
        check_actions(dag, made, self._registry.get, where)
        types = {one.name: saga.params for one in made if isinstance(saga := remembered(one), Saga)}
        check_known(dag, self._registry.get, types, where)
        check_storable(dag, where)
        for action in actions.values():
            action.placed_in = action.placed_in or f"dag {self._name} was built"
        return dag

    def _last(self, nodes: tuple[Node, ...], where: str) -> str:
        depended = {name for node in nodes for name in dependencies(node)}
        last = [node.name for node in nodes if node.name not in depended]
        if len(last) != 1:
            shown = ", ".join(last[:5]) + (", …" if len(last) > 5 else "")
            raise DefinitionError(
                f"{where}: no single output: {len(last)} nodes come last ({shown}); append one node that takes them "
                "together, or call build(output=...)"
            )
        return last[0]


def saga_from_dag(
    dag: Dag, registry: ActionRegistry, *, params: Mapping[str, Any] | None = None, returns: Any = Any
) -> Saga[..., Any]:
    """Make a saga of a dag that was built or stored, so that a coordinator can run it.

    Args:
        dag: The graph.
        registry: Where its actions are.
        params: Type of each of the dag's params; a param that is left out takes any JSON data.
        returns: Type of its output.

    Raises:
        DefinitionError: The dag cannot run, `params` names one that the dag does not have, or a type cannot be stored.
        ActionNotFound: The registry does not know an action; the message names the dag and the node.
    """
    where = f"saga {dag.name}"
    validate(dag)
    check_storable(dag, where)
    types = dict(params or {})
    if unknown := types.keys() - set(dag.params):
        raise DefinitionError(f"{where}: it has no param {min(unknown)!r}; it has {list(dag.params)}")
    codecs = {
        name: type_codec(types.get(name, Any), where=f"{where}, parameter {name}") for name in dag.params
    }
    signature = inspect.Signature([Parameter(name, Parameter.KEYWORD_ONLY) for name in dag.params])
    output = None if dag.output is None else type_codec(returns, where=f"{where}, its return value")
    actions = actions_of(dag, registry)
    return Saga(Definition(dag, signature, codecs, output, actions, f"{where} (of a dag, {author_line()})"))
