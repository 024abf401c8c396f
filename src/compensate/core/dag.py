"""The dag: one saga definition as pure data.

A dag is a tuple of nodes under unique names. A node names the values that it
takes as expressions over the outputs of other nodes and the saga's params;
those references, and `after`, are its edges. Nothing here runs anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, Literal, TypeAlias

import msgspec
from msgspec import Raw

from compensate.core.names import check_name, inside
from compensate.core.policy import ONCE, UNDO, Retry
from compensate.errors import DefinitionError, SubsagaCreateFailed

Path: TypeAlias = tuple[str | int, ...]
"""Steps into a JSON value: field names and positions."""

PARAMS = ""
"""The node name under which a reference finds the saga's params; its path begins with a parameter's name, or is
empty for the whole object."""


class Ref(msgspec.Struct, frozen=True, tag="ref", omit_defaults=True):
    """The output of a node (or the params), or a part of it."""

    node: str
    path: Path = ()


class Value(msgspec.Struct, frozen=True, tag="value"):
    """A value known when the dag was made, as JSON."""

    json: Raw


class Items(msgspec.Struct, frozen=True, tag="items"):
    """A list made of expressions."""

    items: tuple[Expr, ...]


class Fields(msgspec.Struct, frozen=True, tag="fields"):
    """An object made of expressions."""

    fields: dict[str, Expr]


Expr: TypeAlias = Ref | Value | Items | Fields

Undo = Literal["none", "output", "unknown"]
"""`none`: no undo. `output`: takes the output. `unknown`: takes the output or `None`."""


class Each(msgspec.Struct, frozen=True):
    """Makes a node a fan-out: one element for each item, given as the parameter `param`."""

    param: str
    items: Expr


class ActionNode(msgspec.Struct, frozen=True, tag="action", omit_defaults=True, weakref=True):
    """A node that runs a registered action; with `each`, once for every item of a list."""

    name: str
    action: str
    inputs: dict[str, Expr] = {}
    after: tuple[str, ...] = ()
    label: str = ""
    when: Ref | None = None
    each: Each | None = None
    undo: Undo = "none"
    retry: Retry = ONCE
    timeout: float | None = None
    undo_retry: Retry = UNDO
    undo_timeout: float | None = None
    pivot: bool = False


class ConstantNode(msgspec.Struct, frozen=True, tag="constant", omit_defaults=True):
    """A node whose output is known when the dag is made."""

    name: str
    value: Raw
    after: tuple[str, ...] = ()
    label: str = ""


class SubsagaNode(msgspec.Struct, frozen=True, tag="subsaga", omit_defaults=True, weakref=True):
    """A dag inside a dag: own names, own params; outside only its output is visible.

    With `each` it is a fan-out: one subsaga for every item of a list, and the list of their outputs.
    """

    name: str
    dag: Dag
    inputs: dict[str, Expr] = {}
    after: tuple[str, ...] = ()
    label: str = ""
    when: Ref | None = None
    each: Each | None = None


Node: TypeAlias = ActionNode | ConstantNode | SubsagaNode


_SHOWN: Final = 6
"""How many nodes a dag names when it is shown in a terminal."""


class Dag(msgspec.Struct, frozen=True, omit_defaults=True):
    """The graph of one saga definition. Stored with each saga, which runs this dag whatever today's code says.

    Attributes:
        name: The saga definition's name.
        nodes: In the order in which they were written; any order that edges allow.
        params: Names of the saga's parameters.
        output: What the saga returns; `None` for a saga without output.
    """

    name: str
    nodes: tuple[Node, ...]
    params: tuple[str, ...] = ()
    output: Expr | None = None

    def __repr__(self) -> str:
        names = [node.name for node in self.nodes[:_SHOWN]]
        more = "" if len(self.nodes) <= _SHOWN else ", …"
        return f"<dag {self.name}, {len(self.nodes)} nodes: {', '.join(names)}{more}>"

    def node(self, name: str) -> Node:
        """The node of that name.

        Raises:
            DefinitionError: There is none.
        """
        for node in self.nodes:
            if node.name == name:
                return node
        raise DefinitionError(f"dag {self.name}: it has no node {name!r}")


def references(expr: Expr) -> Iterator[Ref]:
    """Every reference inside an expression."""
    open_ = [expr]
    while open_:
        expr = open_.pop()
        if isinstance(expr, Ref):
            yield expr
        elif isinstance(expr, Items):
            open_.extend(expr.items)
        elif isinstance(expr, Fields):
            open_.extend(expr.fields.values())


def each_of(node: Node | None) -> Each | None:
    """What makes the node a fan-out; `None` if it is none."""
    return node.each if isinstance(node, ActionNode | SubsagaNode) else None


def action_nodes(dag: Dag) -> Iterator[tuple[str, ActionNode]]:
    """Every node of a dag that runs an action, those of its subsagas included, with its path."""
    open_ = [("", dag)]
    while open_:
        prefix, inner = open_.pop()
        for node in inner.nodes:
            path = inside(prefix, node.name) if prefix else node.name
            if isinstance(node, ActionNode):
                yield path, node
            elif isinstance(node, SubsagaNode):
                open_.append((path, node.dag))


def dependencies(node: Node) -> tuple[str, ...]:
    """Names of the nodes that must have completed before `node` starts, each once, in order of mention."""
    names: dict[str, None] = {}
    if isinstance(node, ActionNode | SubsagaNode):
        for expr in node.inputs.values():
            names.update((ref.node, None) for ref in references(expr))
        if node.when is not None:
            names[node.when.node] = None
        if node.each is not None:
            names.update((ref.node, None) for ref in references(node.each.items))
    names.update((name, None) for name in node.after)
    names.pop(PARAMS, None)
    return tuple(names)


def validate(dag: Dag) -> None:
    """Refuse a dag that cannot run. Subsagas are validated with it; no recursion, linear in nodes and edges.

    Raises:
        DefinitionError: No node at all, a name that is bad or used twice, an unknown dependency, param or output,
            a cycle (named by one short example), a node that may fail for good after or beside a pivot.
    """
    open_ = [(dag, f"dag {dag.name}")]
    while open_:
        inner, where = open_.pop()
        check_name(inner.name, f"{where}: name")
        edges = _check_nodes(inner, where)
        _check_acyclic(edges, where)
        _check_pivots(inner, edges, where)
        for node in inner.nodes:
            if isinstance(node, SubsagaNode):
                _check_subsaga(node, where)
                open_.append((node.dag, f"{where}, subsaga {node.name}"))


def _check_nodes(dag: Dag, where: str) -> dict[str, tuple[str, ...]]:
    if not dag.nodes:
        raise DefinitionError(f"{where}: it has no nodes; add at least one action")
    edges: dict[str, tuple[str, ...]] = {}
    for node in dag.nodes:
        check_name(node.name, f"{where}: node name")
        if node.name in edges:
            raise DefinitionError(f"{where}: two nodes are named {node.name!r}; give one another name")
        edges[node.name] = dependencies(node)
    params = set(dag.params)
    for node in dag.nodes:
        for name in edges[node.name]:
            if name not in edges:
                raise DefinitionError(
                    f"{where}: node {node.name!r} depends on {name!r}, which is no node of this dag"
                )
        for expr in _expressions(node):
            _check_params(expr, params, f"{where}: node {node.name!r}")
    if dag.output is not None:
        for ref in references(dag.output):
            if ref.node != PARAMS and ref.node not in edges:
                raise DefinitionError(
                    f"{where}: its output refers to {ref.node!r}, which is no node of this dag"
                )
        _check_params(dag.output, params, f"{where}: its output")
    return edges


def _expressions(node: Node) -> Iterator[Expr]:
    if isinstance(node, ConstantNode):
        return
    yield from node.inputs.values()
    if node.when is not None:
        yield node.when
    if node.each is not None:
        yield node.each.items


def _check_params(expr: Expr, params: set[str], where: str) -> None:
    for ref in references(expr):
        if ref.node == PARAMS and ref.path and ref.path[0] not in params:
            raise DefinitionError(
                f"{where} refers to the param {ref.path[0]!r}; the params are {sorted(params)}"
            )


def _check_subsaga(node: SubsagaNode, where: str) -> None:
    given, wanted = set(node.inputs), set(node.dag.params)
    if node.each is not None:
        if node.each.param in given:
            raise SubsagaCreateFailed(
                f"{where}: subsaga {node.name!r} is given the param {node.each.param!r} twice: by its inputs, and as "
                "the item of the fan-out; leave it out of the inputs"
            )
        given.add(node.each.param)
    if given != wanted:
        raise SubsagaCreateFailed(
            f"{where}: subsaga {node.name!r} takes the params {sorted(wanted)} and is given {sorted(given)}"
        )


def _check_acyclic(edges: Mapping[str, tuple[str, ...]], where: str) -> None:
    """Peel nodes off whose dependencies are gone (Kahn, 1962); what is left holds a cycle."""
    missing = {name: len(deps) for name, deps in edges.items()}
    dependants: dict[str, list[str]] = {name: [] for name in edges}
    for name, deps in edges.items():
        for dep in deps:
            dependants[dep].append(name)
    ready = [name for name, count in missing.items() if not count]
    while ready:
        name = ready.pop()
        del missing[name]
        for dependant in dependants[name]:
            missing[dependant] -= 1
            if not missing[dependant]:
                ready.append(dependant)
    if missing:
        cycle = _cycle(edges, missing)
        shown = cycle if len(cycle) <= 8 else [*cycle[:4], f"… {len(cycle) - 6} more …", *cycle[-2:]]
        raise DefinitionError(f"{where}: a cycle: {' -> '.join(shown)}; take one of these edges out")


def _cycle(edges: Mapping[str, tuple[str, ...]], within: Mapping[str, int]) -> list[str]:
    """One cycle among nodes that each still wait for another of them."""
    at: dict[str, int] = {}
    walk: list[str] = []
    name = min(within)
    while name not in at:
        at[name] = len(walk)
        walk.append(name)
        name = next(dep for dep in edges[name] if dep in within)
    cycle = walk[at[name] :]
    cycle.reverse()  # from what comes first to what waits for it
    return [*cycle, cycle[0]]


def _check_pivots(dag: Dag, edges: Mapping[str, tuple[str, ...]], where: str) -> None:
    """What may still fail once a pivot completed must be retriable, since nothing will be rolled back then."""
    for node in dag.nodes:
        if each_of(node) is None:
            continue
        for path, inner in _actions(node):
            if inner.pivot:
                raise DefinitionError(
                    f"{where}: node {path!r} is in a fan-out and cannot be a pivot, since only some of the elements "
                    "might complete; make an action that depends on the fan-out the pivot"
                )
    pivots = [node.name for node in dag.nodes if any(inner.pivot for _, inner in _actions(node))]
    for pivot in pivots:
        before = {pivot}
        open_ = [pivot]
        while open_:
            for dep in edges[open_.pop()]:
                if dep not in before:
                    before.add(dep)
                    open_.append(dep)
        for node in dag.nodes:
            if node.name in before or isinstance(node, ConstantNode):
                continue
            for path, inner in _actions(node):
                if not inner.retry.repeats:
                    raise DefinitionError(
                        f"{where}: node {path!r} may fail after the pivot {pivot!r} has completed, and is not tried "
                        f"again; give it retry=Retry(...) or let {pivot!r} depend on it"
                    )


def _actions(node: Node) -> Iterator[tuple[str, ActionNode]]:
    """The action nodes that a node stands for, with their paths."""
    open_: list[tuple[str, Node]] = [(node.name, node)]
    while open_:
        path, node = open_.pop()
        if isinstance(node, ActionNode):
            yield path, node
        elif isinstance(node, SubsagaNode):
            open_.extend((f"{path}/{inner.name}", inner) for inner in node.dag.nodes)
