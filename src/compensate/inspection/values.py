"""Values: what a node of a saga is given and what it gave, composed from the log as the dag says."""

from __future__ import annotations

from typing import Any

from compensate.codec import records as r
from compensate.core import states as s
from compensate.core.dag import ConstantNode, Expr, Items, Ref, Value, each_of
from compensate.core.log import Fold
from compensate.core.plan import ACTION, CONSTANT, FAN_END, Scope
from compensate.errors import DeserializeFailed, NotFound
from compensate.inspection.bindings import Bound, Input


class Values:
    """Reads the values of one saga: what a node gets, what a node gave."""

    __slots__ = ("_items", "machine")

    def __init__(self, machine: Fold) -> None:
        self.machine = machine
        self._items: dict[int, list[bytes]] = {}

    def arguments(self, bound: Bound, i: int) -> tuple[list[Any], dict[str, Any]]:
        """Positional and keyword arguments of node `i`, freshly decoded.

        Raises:
            DeserializeFailed: What is recorded does not fit the types of today.
        """
        return (
            [item.decode(self.data(item, bound, i)) for item in bound.positional],
            {item.name: item.decode(self.data(item, bound, i)) for item in bound.keyword},
        )

    def data(self, item: Input, bound: Bound, i: int) -> bytes:
        """One input of node `i` as JSON."""
        if item.source >= 0:
            data = self.machine.output[item.source]
            if data is not None:
                return data
        if item.expr is None:
            return self._element(i)
        return self.resolve(item.expr, self.machine.plan.scopes[i])

    def _element(self, i: int) -> bytes:
        """The item of an element of a fan-out; of a subsaga's by its end bracket."""
        plan = self.machine.plan
        end = plan.fan[i]
        items = self._items.get(end)
        if items is None:
            items = self._items[end] = self.items(end)
        return items[plan.elements[end].index(i)]

    def items(self, end: int) -> list[bytes]:
        """The list over which a fan-out goes."""
        each = each_of(self.machine.plan.specs[end])
        assert each is not None
        return r.split(self.resolve(each.items, self.machine.plan.scopes[end]))

    def resolve(self, expr: Expr, scope: Scope) -> bytes:
        """An expression as JSON."""
        if isinstance(expr, Value):
            return bytes(expr.json)
        if isinstance(expr, Items):
            return r.join(self.resolve(item, scope) for item in expr.items)
        if not isinstance(expr, Ref):
            return r.join_fields((name, self.resolve(field, scope)) for name, field in expr.fields.items())
        if expr.node:
            return r.select(self.output(scope.index[expr.node]), expr.path)
        if scope.parent is None:
            return r.select(self.machine.params, expr.path)
        if expr.path:
            return r.select(self._param(str(expr.path[0]), scope, scope.parent), expr.path[1:])
        parent = scope.parent
        return r.join_fields((name, self._param(name, scope, parent)) for name in scope.dag.params)

    def _param(self, name: str, scope: Scope, parent: Scope) -> bytes:
        """A param of a subsaga."""
        given = scope.inputs.get(name)
        return self._element(scope.end) if given is None else self.resolve(given, parent)

    def output(self, i: int) -> bytes:
        """What a completed node gave, as JSON; `null` for a branch that was skipped.

        Raises:
            DeserializeFailed: The node has not completed.
        """
        plan = self.machine.plan
        if self.machine.state[i] == s.SKIPPED and self.machine.output[i] is None:
            return r.NULL
        kind = plan.kinds[i]
        if kind == CONSTANT:
            spec = plan.specs[i]
            assert isinstance(spec, ConstantNode)
            return bytes(spec.value)
        if kind == ACTION:
            data = self.machine.output[i]
            if data is None:
                raise DeserializeFailed(
                    f"node {plan.names[i]!r} has no output: it is {self.machine.state[i]}"
                )
            return data
        if kind == FAN_END:
            return r.join(self.output(j) for j in plan.elements[i])
        inner = plan.inner.get(i, plan.root)
        return r.NULL if inner.dag.output is None else self.resolve(inner.dag.output, inner)

    def lookup(self, i: int, name: str) -> bytes:
        """The output of the node that `name` means to node `i`: an ancestor in its own namespace; in its undo, itself.

        Raises:
            NotFound: There is no such node there, or it is no ancestor, or it is itself and has no output.
        """
        plan = self.machine.plan
        names = plan.scopes[i].index
        target = names.get(name)
        own = name == plan.names[i] or (target is not None and target in (i, plan.fan[i]))
        if own and i in self.machine.undo_attempt:
            return self._own_output(i)
        if target is None:
            raise NotFound(
                f"node {plan.names[i]!r} looks up {name!r}: no node of its own namespace has that name; "
                f"there are {_shorten(list(names))}"
            )
        if target not in plan.ancestors(i):
            raise NotFound(
                f"node {plan.names[i]!r} looks up {name!r}, which is no ancestor of it; "
                "let it depend on that node, by an argument or by after()"
            )
        return self.output(target)

    def _own_output(self, i: int) -> bytes:
        """What the undo of node `i` finds when it looks up its own node."""
        data = self.machine.output[i]
        if data is None:
            raise NotFound(
                f"node {self.machine.plan.names[i]!r} looks up its own output in its undo, but the log holds none: "
                "what its action did is in doubt, or it failed; look with ctx.do_key for what there is to be undone"
            )
        return data


def _shorten(names: list[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
