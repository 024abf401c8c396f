"""The plan: a dag laid flat for the machine.

Subsagas are inlined (as in steno) between a begin and an end bracket, so that a
graph of any depth becomes one list of numbered nodes with edges both ways. The
saga itself is the outermost pair of brackets: its begin completes when the saga
is created, its end when all is done. Made once for a dag, shared by all its
sagas; only a fan-out that learns its size makes a saga's own copy.
"""

from __future__ import annotations

from typing import Final

from compensate.core.dag import (
    ActionNode,
    ConstantNode,
    Dag,
    Expr,
    Node,
    SubsagaNode,
    dependencies,
    each_of,
    validate,
)
from compensate.core.names import element, inside

ACTION: Final = 0
CONSTANT: Final = 1
BEGIN: Final = 2
END: Final = 3
FAN_BEGIN: Final = 4
FAN_END: Final = 5

ROOT: Final = 0
"""Index of the outermost begin bracket."""


LAST: Final = -2
"""In `Plan.successor`: the saga's end."""


class Scope:
    """The namespace of one subsaga (or of the saga): what its names and params stand for.

    For an element of a fan-out `inputs` holds all params but the item.

    Attributes:
        prefix: The subsaga's path.
        place: The path without positions: where the subsaga stands in the dag, the same for all elements of a fan-out.
    """

    __slots__ = ("begin", "dag", "end", "index", "inputs", "parent", "place", "prefix")

    def __init__(
        self, dag: Dag, prefix: str, place: str, parent: Scope | None, inputs: dict[str, Expr]
    ) -> None:
        self.dag = dag
        self.prefix = prefix
        self.place = place
        self.parent = parent
        self.inputs = inputs
        self.index: dict[str, int] = {}
        self.begin = self.end = -1


class Plan:
    """Numbered nodes, edges both ways.

    Attributes:
        names: Path of each node; a begin bracket shares its end's path.
        kinds: `ACTION`, `CONSTANT` or a bracket.
        specs: The dag's node behind each; `None` for the saga's own brackets.
        deps: Indices that must complete before each node.
        dependants: The same edges the other way.
        scopes: The namespace in which each node's expressions are read. A subsaga's brackets belong to the outer one.
        fan: For an element of a fan-out (where it is a subsaga: for its end bracket) the end bracket of the fan-out,
            else -1.
        index: Path to index; a bracketed path leads to the end bracket.
        partner: End bracket to begin bracket and back.
        asks: Nodes that need an answer before they go on: `when`, or a fan-out's size.
        inner: For each subsaga (by end bracket) its namespace.
        successor: The action node that waits for this one alone, if that is all that waits for it; `LAST` if only the
            saga's end waits; else -1.
        predecessor: The action node for which alone this one waits; else -1.
        undoable: Whether each is an action node with an undo.
        bindings: Kept here by the runtime: the plan joined to code.
        elements: For each expanded fan-out (by end bracket) its elements; those that are subsagas by their end
            brackets, which lie equally far apart.
    """

    def __init__(self, dag: Dag) -> None:
        validate(dag)
        self.dag = dag
        self.names: list[str] = []
        self.kinds: list[int] = []
        self.specs: list[Node | None] = []
        self.deps: list[list[int]] = []
        self.dependants: list[list[int]] = []
        self.scopes: list[Scope] = []
        self.fan: list[int] = []
        self.index: dict[str, int] = {}
        self.partner: dict[int, int] = {}
        self.asks: set[int] = set()
        self.pivots: list[int] = []
        self.elements: dict[int, range] = {}
        self.inner: dict[int, Scope] = {}
        self.root = Scope(dag, "", "", None, {})
        self.missing: list[int] = []
        self.successor: list[int] = []
        self.predecessor: list[int] = []
        self.undoable: list[bool] = []
        self.bindings: object = None
        self.root.begin = self._add("", BEGIN, None, self.root)
        self.end = self.root.end = self._add("", END, None, self.root)
        self._pair(self.root.begin, self.root.end)
        self._lay(self.root)
        self._count_edges()

    # -- laying flat -------------------------------------------------------

    def _lay(self, outermost: Scope) -> None:
        """Add all nodes of a namespace, whose brackets are there already, and of those inside it."""
        open_ = [outermost]
        while open_:
            scope = open_.pop()
            for node in scope.dag.nodes:
                inner = self._add_node(node, scope)
                if inner is not None:
                    open_.append(inner)
            self._connect(scope)

    def _add(self, name: str, kind: int, spec: Node | None, scope: Scope) -> int:
        i = len(self.names)
        self.names.append(name)
        self.kinds.append(kind)
        self.specs.append(spec)
        self.deps.append([])
        self.dependants.append([])
        self.scopes.append(scope)
        self.fan.append(-1)
        return i

    def _pair(self, begin: int, end: int) -> None:
        self.partner[begin] = end
        self.partner[end] = begin

    def _add_node(self, node: Node, scope: Scope) -> Scope | None:
        """Add one node; returns the scope to lay next if it is a subsaga."""
        path = inside(scope.prefix, node.name) if scope.prefix else node.name
        inner: Scope | None = None
        if each_of(node) is not None:
            begin = self._add(path, FAN_BEGIN, node, scope)
            end = self._add(path, FAN_END, node, scope)
            self._pair(begin, end)
            self._edge(begin, end)
            self.asks.add(begin)
        elif isinstance(node, SubsagaNode):
            inner = self._add_subsaga(node, path, scope)
            end = inner.end
        else:
            end = self._add(path, CONSTANT if isinstance(node, ConstantNode) else ACTION, node, scope)
        if not isinstance(node, ConstantNode) and node.when is not None:
            self.asks.add(self.partner.get(end, end))
        if isinstance(node, ActionNode) and node.pivot:
            self.pivots.append(end)
        scope.index[node.name] = end
        self.index[path] = end
        return inner

    def _add_subsaga(self, node: SubsagaNode, path: str, scope: Scope) -> Scope:
        """Add the brackets of a subsaga; returns its namespace, which is still to be laid."""
        place = inside(scope.place, node.name) if scope.place else node.name
        inner = Scope(node.dag, path, place, scope, node.inputs)
        inner.begin = self._add(path, BEGIN, node, scope)
        inner.end = self._add(path, END, node, scope)
        self._pair(inner.begin, inner.end)
        self._edge(inner.begin, inner.end)  # holds the order when the subsaga is skipped
        self.inner[inner.end] = inner
        return inner

    def _connect(self, scope: Scope) -> None:
        depended: set[int] = set()
        ends = [scope.index[node.name] for node in scope.dag.nodes]
        for node, end in zip(scope.dag.nodes, ends, strict=True):
            begin = self.partner.get(end, end)
            names = dependencies(node)
            for name in names:
                dep = scope.index[name]
                depended.add(dep)
                self._edge(dep, begin)
            if not names:
                self._edge(scope.begin, begin)
        for end in ends:
            if end not in depended:
                self._edge(end, scope.end)

    def _edge(self, dep: int, dependant: int) -> None:
        self.deps[dependant].append(dep)
        self.dependants[dep].append(dependant)

    def _count_edges(self) -> None:
        """Fill what is read off the edges, for the nodes that were added since this was done last."""
        for i in range(len(self.missing), len(self.names)):
            after, before, spec = self.dependants[i], self.deps[i], self.specs[i]
            self.missing.append(len(before))
            self.undoable.append(isinstance(spec, ActionNode) and spec.undo != "none")
            # The links of chains; see `Machine.advance`.
            successor = predecessor = -1
            if self.kinds[i] == ACTION:
                if len(after) == 1 and len(self.deps[after[0]]) == 1:
                    if after[0] == self.end:
                        successor = LAST
                    elif self.kinds[after[0]] == ACTION and after[0] not in self.asks:
                        successor = after[0]
                if len(before) == 1 and self.kinds[before[0]] == ACTION:
                    predecessor = before[0]
            self.successor.append(successor)
            self.predecessor.append(predecessor)

    # -- fan-outs ----------------------------------------------------------

    def copy(self) -> Plan:
        """A plan of one saga's own, which may grow."""
        other = object.__new__(Plan)
        other.__dict__.update(self.__dict__)
        for name in (
            "names",
            "kinds",
            "specs",
            "scopes",
            "fan",
            "pivots",
            "missing",
            "undoable",
            "successor",
            "predecessor",
        ):
            setattr(other, name, list(getattr(self, name)))
        other.deps = [list(deps) for deps in self.deps]
        other.dependants = [list(dependants) for dependants in self.dependants]
        other.index = dict(self.index)
        other.partner = dict(self.partner)
        other.asks = set(self.asks)
        other.elements = dict(self.elements)
        other.inner = dict(self.inner)
        return other

    def expand(self, end: int, count: int) -> range:
        """Add the elements of the fan-out that ends at `end`; returns their indices, as in `elements`.

        Costs O(count) times the nodes of one element. Fan-outs inside the elements are expanded when their turn comes.
        """
        node = self.specs[end]
        if isinstance(node, SubsagaNode):
            return self._add_subsagas(node, end, count)
        return self._add_actions(end, count)

    def _add_actions(self, end: int, count: int) -> range:
        begin = self.partner[end]
        node = self.specs[end]
        scope = self.scopes[end]
        path = self.names[end]
        first = len(self.names)
        elements = range(first, first + count)
        names = [element(path, position) for position in range(count)]
        self.names += names
        self.index.update(zip(names, elements, strict=True))
        self.kinds += [ACTION] * count
        self.specs += [node] * count
        self.scopes += [scope] * count
        self.fan += [end] * count
        # All of them share two lists: no edge of an element ever changes.
        self.deps += [[begin]] * count
        self.dependants += [[end]] * count
        self.dependants[begin] += elements
        self.deps[end] += elements
        self.missing += [1] * count
        self.undoable += [self.undoable[end]] * count
        self.successor += [-1] * count
        self.predecessor += [-1] * count
        self.missing[end] += count
        self.elements[end] = elements
        return elements

    def _add_subsagas(self, node: SubsagaNode, end: int, count: int) -> range:
        """One subsaga after the other; all take the same number of nodes in the same order."""
        path = self.names[end]
        first = len(self.names)
        for position in range(count):
            name = element(path, position)
            self.index[name] = self._add_element(node, name, end).end
        self._count_edges()
        self.missing[end] += count
        size = (len(self.names) - first) // count if count else 1
        elements = self.elements[end] = range(first + 1, len(self.names) + 1, size)
        return elements

    def _add_element(self, node: SubsagaNode, path: str, end: int) -> Scope:
        inner = self._add_subsaga(node, path, self.scopes[end])
        self.fan[inner.end] = end
        self._edge(self.partner[end], inner.begin)
        self._edge(inner.end, end)
        self._lay(inner)
        return inner

    def stand_in(self, end: int) -> int:
        """Add one subsaga for all that a fan-out will have, under its own path; returns its end bracket.

        For looking ahead: a plan that has one is not run.
        """
        node = self.specs[end]
        assert isinstance(node, SubsagaNode)
        inner = self._add_element(node, self.names[end], end)
        self._count_edges()
        return inner.end

    # -- looking -----------------------------------------------------------

    def action(self, i: int) -> ActionNode:
        """The action node behind index `i`."""
        spec = self.specs[i]
        assert isinstance(spec, ActionNode)
        return spec

    def ancestors(self, i: int) -> set[int]:
        """Every node that must complete before `i`, directly or through others."""
        seen: set[int] = set()
        open_ = [i]
        while open_:
            for dep in self.deps[open_.pop()]:
                if dep not in seen:
                    seen.add(dep)
                    open_.append(dep)
        return seen
