"""Bindings: what joins the stored dag (data) to today's code (actions).

A node's inputs travel as JSON: composed from recorded outputs as the dag says,
then decoded by the types that the action declares. So a stored dag needs nothing
of today's code but its actions, by name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from compensate.authoring import Action
from compensate.codec import TypeCodec
from compensate.core.dag import ActionNode, Expr, Ref, SubsagaNode
from compensate.core.log import Fold
from compensate.core.names import inside
from compensate.core.plan import ACTION, Plan, Scope
from compensate.errors import ActionNotFound, NotFound

Decode = Callable[[bytes], Any]
Find = Callable[[str], Action[Any, Any]]
"""Gives an action by its name, or raises `NotFound`."""


class Input:
    """One argument: where it comes from, and how it is decoded."""

    __slots__ = ("decode", "expr", "name", "source")

    def __init__(self, name: str, expr: Expr | None, codec: TypeCodec[Any], source: int) -> None:
        self.name = name
        self.expr = expr
        """`None`: the item of the fan-out."""
        self.decode: Decode = codec.decode
        self.source = source
        """Index of the action node whose whole output it is, or -1."""


class Bound:
    """An action node joined to its action."""

    __slots__ = (
        "action",
        "decode",
        "encode",
        "fn",
        "keyword",
        "link",
        "plain",
        "positional",
        "spec",
        "undo_link",
    )

    def __init__(
        self, spec: ActionNode, action: Action[Any, Any], scope: Scope | None, kinds: list[int]
    ) -> None:
        """Join.

        Args:
            spec: The node.
            action: What it runs.
            scope: Where it stands. `None`: in a fan-out of subsagas, where it stands once in each element.
            kinds: As in the plan.

        Raises:
            ActionNotFound: The action no longer takes what the node gives it.
        """
        self.spec = spec
        self.action = action
        self.fn: Callable[..., Any] = action.fn
        self.encode: Callable[[Any], bytes] = action.output.encode
        inputs = dict[str, Expr | None](spec.inputs)
        if spec.each is not None:
            inputs[spec.each.param] = None
        self.positional: list[Input] = []
        self.keyword: list[Input] = []
        gap = False
        for name, codec in action.params.items():
            if name not in inputs:
                gap = True  # its default holds; what follows is passed by keyword
                continue
            expr = inputs[name]
            source = -1
            if scope is not None and isinstance(expr, Ref) and expr.node and not expr.path:
                index = scope.index[expr.node]
                if kinds[index] == ACTION:
                    source = index
            into = self.keyword if gap or name in action.keyword_only else self.positional
            into.append(Input(name, expr, codec, source))
        self.plain = action.is_async and not action.takes_ctx and not self.keyword and spec.timeout is None
        """Whether the shortest way of calling it will do."""
        self.link: Input | None = None
        """Its one argument, if it has one and the shortest way will do: a link of a chain."""
        if self.plain and len(self.positional) == 1:
            self.link = self.positional[0]
        self.decode: Decode = action.output.decode
        self.undo_link: Callable[..., Any] | None = None
        """Its undo, if the shortest way of calling it will do."""
        if (
            spec.undo != "none"
            and action.undo_is_async
            and not action.undo_takes_ctx
            and spec.undo_timeout is None
        ):
            self.undo_link = action.undo_fn


class Needs:
    """What a node of a stored dag asks of its action, whatever has become of the node.

    Attributes:
        action: Today's action; `None` if there is none.
        lack: Why its action cannot be called; `""` if it can.
        undo_lack: Why its undo cannot be called at all.
        none_lack: Why its undo cannot be called without the output.
    """

    __slots__ = ("action", "lack", "none_lack", "undo_lack")

    def __init__(self, spec: ActionNode, find: Find) -> None:
        self.action: Action[Any, Any] | None = None
        self.lack = self.undo_lack = self.none_lack = ""
        try:
            action = self.action = find(spec.action)
        except NotFound as error:
            self.lack = str(error)
            self.undo_lack = self.lack if spec.undo != "none" else ""
            return
        self.lack = _parameters(spec, action)
        if spec.undo == "none":
            return
        if action.undo_fn is None:
            self.undo_lack = (
                f"the stored dag says that action {action.name!r} has an undo, and it has none any more"
            )
        elif spec.undo == "unknown" and action.undo_kind != "unknown":
            self.none_lack = (
                f"the stored dag says that the undo of action {action.name!r} can do without the output, and it is no "
                "longer declared with unknown=True"
            )


def _parameters(spec: ActionNode, action: Action[Any, Any]) -> str:
    """What is wrong with the parameters that the node gives; `""` if nothing is."""
    given = set(spec.inputs)
    if spec.each is not None:
        given.add(spec.each.param)
    left_out = ""
    for name, parameter in action.signature.parameters.items():
        if name in given:
            if left_out and name in action.positional:
                return (
                    f"action {action.name!r} takes {name!r} by its place only, behind {left_out!r}, which the stored "
                    "dag does not give"
                )
        elif parameter.default is parameter.empty:
            return f"action {action.name!r} needs the parameter {name!r}, which the stored dag does not give"
        else:
            left_out = name
    unknown = sorted(given - set(action.params))
    if unknown:
        return f"action {action.name!r} takes no parameter {unknown[0]!r}, which the stored dag gives it"
    return ""


class Bindings:
    """The action nodes of a plan, joined to their actions. Made once for a dag, shared by its sagas.

    A node whose action is not known stays unbound: a stored saga may have put it behind itself. `fit` says whether that
    matters.

    Args:
        plan: The dag, laid flat.
        find: Gives an action by its name, or raises `NotFound`.
        of_code: Tells the actions that `find` knows now from those that it will know later.

    Attributes:
        complete: Whether every action is known.
        sound: Whether `fit.require` has found nothing wrong.
    """

    def __init__(self, plan: Plan, find: Find, of_code: int = 0) -> None:
        self.plan = plan
        self.of_code = of_code
        self.complete = True
        self.sound = False
        self._find = find
        self._needs: dict[int, tuple[ActionNode, Needs]] = {}
        self.to_come: dict[Any, tuple[ActionNode, str]] = {}
        """What `fit` has found out about outputs that are still to come, by node, path and the type that is wanted."""
        self._bound: dict[int, Bound] = {}
        self._within: dict[tuple[str, str], Bound] = {}
        """Of the nodes inside fan-outs of subsagas, by place and name: all elements share them."""
        made: dict[tuple[int, int], Bound] = {}  # the two brackets of a fan-out share one
        for i, spec in enumerate(plan.specs):
            if isinstance(spec, SubsagaNode) and spec.each is not None:
                self._bind_within(spec, plan.scopes[i].place, find)
            if not isinstance(spec, ActionNode):
                continue
            which = (id(spec), id(plan.scopes[i]))
            bound = made.get(which)
            if bound is None:
                try:
                    action = find(spec.action)
                except NotFound:
                    self.complete = False
                    continue
                bound = made[which] = Bound(spec, action, plan.scopes[i], plan.kinds)
            self._bound[i] = bound
        self.list: list[Bound | None] = [self._bound.get(i) for i in range(len(plan.names))]

    def _bind_within(self, fan: SubsagaNode, place: str, find: Find) -> None:
        open_ = [(fan, place)]
        while open_:
            node, place = open_.pop()
            place = inside(place, node.name) if place else node.name
            for spec in node.dag.nodes:
                if isinstance(spec, SubsagaNode):
                    open_.append((spec, place))
                elif isinstance(spec, ActionNode) and (place, spec.name) not in self._within:
                    try:
                        action = find(spec.action)
                    except NotFound:
                        self.complete = False
                    else:
                        self._within[place, spec.name] = Bound(spec, action, None, [])

    def needs(self, spec: ActionNode) -> Needs:
        """What a node asks of its action, and whether that is there."""
        known = self._needs.get(id(spec))
        if known is None:
            known = self._needs[id(spec)] = (
                spec,
                Needs(spec, self._find),
            )  # kept with it: an id is used again
        return known[1]

    def of(self, i: int, machine: Fold) -> Bound:
        """The binding of node `i`; an element of a fan-out shares that of its brackets.

        Raises:
            ActionNotFound: Its action is not known.
        """
        bound = self.list[i] if i < len(self.list) else None
        plan = machine.plan
        if bound is None:
            bound = self._bound.get(plan.fan[i]) or self._within.get(
                (plan.scopes[i].place, plan.action(i).name)
            )
        if bound is None:
            raise ActionNotFound(f"node {plan.names[i]!r}: no action is named {plan.action(i).action!r}")
        return bound
