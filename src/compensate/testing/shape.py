"""The checker's own reading of a dag: its actions flattened, what each depends on, and what each is to receive.

Written from the design's words alone. It shares nothing with the plan and the machine that run sagas, so that a
mistake there is not repeated here. Simple rather than fast: sets of nodes are bits of one integer, which is quadratic
in the graph.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from typing import Any, Final, TypeGuard

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
    Ref,
    SubsagaNode,
    Value,
    references,
)


class Unknown(Exception):
    """A value cannot be worked out, since the log does not hold what it is made of."""


@dataclass
class Scope:
    """A dag in its place: the whole, a subsaga, or a subsaga that is an element of a fan-out.

    Attributes:
        dag: Its nodes.
        prefix: What stands before their names in the log.
        outer: The dag in which it is a node.
        given: Its params, but for the item of a fan-out.
        each: Which list the item is of; `None`: it is no element.
        position: Which item.
    """

    dag: Dag
    prefix: str = ""
    outer: Scope | None = None
    given: Mapping[str, Expr] = field(default_factory=dict[str, Expr])
    each: Each | None = None
    position: int = 0
    nodes: dict[str, Node] = field(default_factory=dict[str, Node])


@dataclass
class Leaf:
    """An action node, or one element of a fan-out.

    Attributes:
        path: What the log calls it.
        node: Its definition.
        scope: The dag that it stands in.
        bit: Its place in sets.
        before: The leaves that it depends on, directly or through others.
        after: The leaves that depend on it.
        position: Which element; `None`: it is no element.
    """

    path: str
    node: ActionNode
    scope: Scope
    bit: int
    before: int
    after: int = 0
    position: int | None = None


class Shape:
    """A dag, flattened, with the fan-outs as the log expanded them.

    Args:
        dag: The saga's.
        expanded: Path of each fan-out that was expanded, and its size.
    """

    def __init__(self, dag: Dag, expanded: Mapping[str, int]) -> None:
        self.leaves: dict[str, Leaf] = {}
        self.by_bit: list[Leaf] = []
        self.fans: dict[str, tuple[ActionNode | SubsagaNode, Scope, int]] = {}
        """Path of each fan-out: its node, its scope, what it depends on."""
        self.branches: dict[str, tuple[Ref, Scope, int]] = {}
        """Path of each node with a `when`: the flag, its scope, what it depends on."""
        self.subsagas: dict[str, Scope] = {}
        self.expanded = expanded
        self.root = Scope(dag)
        self._place(self.root, 0)
        for leaf in self.by_bit:
            for before in self.leaves_of(leaf.before):
                before.after |= 1 << leaf.bit

    def _place(self, scope: Scope, entry: int) -> int:
        """Flatten a dag whose nodes all come after the leaves `entry`; returns these and its own."""
        scope.nodes.update((node.name, node) for node in scope.dag.nodes)
        behind: dict[str, int] = {}
        whole = entry
        for name in TopologicalSorter(
            {n: _mentioned(node) for n, node in scope.nodes.items()}
        ).static_order():
            node = scope.nodes[name]
            before = entry
            for dep in _mentioned(node):
                before |= behind[dep]
            path = scope.prefix + name
            if isinstance(node, ActionNode | SubsagaNode) and node.when is not None:
                self.branches[path] = (node.when, scope, before)
            behind[name] = before
            if isinstance(node, ActionNode | SubsagaNode) and node.each is not None:
                self.fans[path] = (node, scope, before)
                for position in range(self.expanded.get(path, 0)):
                    behind[name] |= self._one(node, f"{path}[{position}]", scope, before, position)
            elif not isinstance(node, ConstantNode):
                behind[name] |= self._one(node, path, scope, before, None)
            whole |= behind[name]
        return whole

    def _one(
        self, node: ActionNode | SubsagaNode, path: str, scope: Scope, before: int, position: int | None
    ) -> int:
        """Place an action or subsaga, or one element of a fan-out of them."""
        if isinstance(node, ActionNode):
            return self._leaf(path, node, scope, before, position)
        each = None if position is None else node.each
        inner = self.subsagas[path] = Scope(
            node.dag, f"{path}/", scope, node.inputs, each=each, position=position or 0
        )
        return self._place(inner, before)

    def _leaf(self, path: str, node: ActionNode, scope: Scope, before: int, position: int | None) -> int:
        leaf = Leaf(path, node, scope, len(self.by_bit), before, position=position)
        self.leaves[path] = leaf
        self.by_bit.append(leaf)
        return 1 << leaf.bit

    def leaves_of(self, bits: int) -> Iterator[Leaf]:
        """The leaves in a set."""
        while bits:
            lowest = bits & -bits
            yield self.by_bit[lowest.bit_length() - 1]
            bits ^= lowest

    def within(self, path: str) -> Iterator[Leaf]:
        """The leaf of that path; for a subsaga or fan-out all leaves inside it."""
        for leaf in self.by_bit:
            if is_within(leaf.path, path):
                yield leaf


def is_within(path: str, outer: str) -> bool:
    """Whether `path` is the node `outer`, one inside of that subsaga, or of an element of that fan-out."""
    return path == outer or path.startswith((f"{outer}/", f"{outer}["))


def _mentioned(node: Node) -> list[str]:
    """Names of the nodes that a node waits for."""
    refs: list[Ref] = []
    if not isinstance(node, ConstantNode):
        for expr in node.inputs.values():
            refs.extend(references(expr))
        if node.when is not None:
            refs.append(node.when)
        if node.each is not None:
            refs.extend(references(node.each.items))
    return [*(ref.node for ref in refs if ref.node != PARAMS), *node.after]


# -- values --------------------------------------------------------------------


class Worker:
    """Works values out of what a log recorded.

    Args:
        shape: The saga's.
        params: Its params, JSON.
        outputs: The output of each leaf that succeeded, JSON.
        skipped: Paths of nodes whose branch was skipped; their output is null.
    """

    def __init__(self, shape: Shape, params: bytes, outputs: Mapping[str, bytes], skipped: set[str]) -> None:
        self._shape = shape
        self._params = params
        self._outputs = outputs
        self._skipped = skipped
        self._known: dict[str, Any] = {}

    def inputs(self, leaf: Leaf) -> dict[str, Any]:
        """What a leaf's action is to be given, by parameter name."""
        given = {name: self.value(expr, leaf.scope) for name, expr in leaf.node.inputs.items()}
        if leaf.position is not None and leaf.node.each is not None:
            given[leaf.node.each.param] = self._item(leaf.node.each, leaf.scope, leaf.position)
        return given

    def _item(self, each: Each, scope: Scope, position: int) -> Any:
        """One item of a fan-out that stands in `scope`."""
        items: Any = self.value(each.items, scope)
        if position >= count_of(items):
            raise Unknown(f"its fan-out's list has no item {position}")
        return items[position]

    def value(self, expr: Expr, scope: Scope) -> Any:
        """The value of an expression in its place."""
        if isinstance(expr, Value):
            return json.loads(bytes(expr.json))
        if isinstance(expr, Items):
            return [self.value(item, scope) for item in expr.items]
        if isinstance(expr, Fields):
            return {name: self.value(item, scope) for name, item in expr.fields.items()}
        value, path = self._start_of(expr, scope)
        for step in path:
            try:
                value = value[step]
            except (LookupError, TypeError):
                raise Unknown(f"{expr.node or 'params'} has no {'.'.join(map(str, expr.path))}") from None
        return value

    def _start_of(self, ref: Ref, scope: Scope) -> tuple[Any, tuple[str | int, ...]]:
        if ref.node != PARAMS:
            return self._output(scope, ref.node), ref.path
        if scope.outer is None:
            return self._parsed(PARAMS, self._params), ref.path
        if ref.path:
            return self._param(str(ref.path[0]), scope, scope.outer), ref.path[1:]
        return {name: self._param(name, scope, scope.outer) for name in scope.dag.params}, ()

    def _param(self, name: str, scope: Scope, outer: Scope) -> Any:
        if scope.each is not None and name == scope.each.param:
            return self._item(scope.each, outer, scope.position)
        return self.value(scope.given[name], outer)

    def _output(self, scope: Scope, name: str) -> Any:
        path = scope.prefix + name
        if path in self._skipped:
            return None
        node = scope.nodes[name]
        if isinstance(node, ConstantNode):
            return json.loads(bytes(node.value))
        if node.each is None:
            return self._output_at(path)
        return [
            self._output_at(f"{path}[{position}]") for position in range(self._shape.expanded.get(path, 0))
        ]

    def _output_at(self, path: str) -> Any:
        """What a leaf or subsaga gave."""
        inner = self._shape.subsagas.get(path)
        if inner is not None:
            return None if inner.dag.output is None else self.value(inner.dag.output, inner)
        if path not in self._outputs:
            raise Unknown(f"the log holds no output of {path}")
        return self._parsed(path, self._outputs[path])

    def _parsed(self, path: str, value: bytes) -> Any:
        if path not in self._known:
            self._known[path] = json.loads(value)
        return self._known[path]


_SIMPLE: Final[tuple[type, ...]] = (bool, type(None), str)


def _is_list(value: Any) -> TypeGuard[list[Any]]:
    return isinstance(value, list)


def _is_dict(value: Any) -> TypeGuard[dict[str, Any]]:
    return isinstance(value, dict)


def count_of(items: Any) -> int:
    """How many items a JSON list has; -1: it is no list."""
    return len(items) if _is_list(items) else -1


def same(one: Any, other: Any) -> bool:
    """Whether two JSON values say the same. 1 and 1.0 do; 1 and true do not."""
    todo: list[tuple[Any, Any]] = [(one, other)]
    while todo:
        one, other = todo.pop()
        if isinstance(one, _SIMPLE) or isinstance(other, _SIMPLE):
            if type(one) is not type(other) or one != other:
                return False
        elif _is_dict(one) and _is_dict(other):
            if one.keys() != other.keys():
                return False
            todo.extend((one[name], other[name]) for name in one)
        elif _is_list(one) and _is_list(other):
            if len(one) != len(other):
                return False
            todo.extend(zip(one, other, strict=True))
        elif one != other:
            return False
    return True
