"""The sagas of a scenario: its nodes as a real dag over a handful of real actions."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

import msgspec

from compensate.authoring import Action, ActionRegistry, Ctx, Saga, saga_from_dag
from compensate.core.dag import (
    PARAMS,
    ActionNode,
    ConstantNode,
    Dag,
    Each,
    Expr,
    Items,
    Node,
    Ref,
    SubsagaNode,
    Value,
)
from compensate.core.policy import UNDO, Retry
from compensate.testing.simulation.scenario import NodeSpec, Scenario
from compensate.testing.simulation.world import Out, World

_THE_WORLD: list[World] = []
"""The world of the history that goes on; for actions that take no context."""


def enter(world: World) -> None:
    """Make `world` the one that actions act upon."""
    _THE_WORLD[:] = [world]


async def _step(
    ctx: Ctx[World],
    item: int = -1,
    whole: Out | None = None,
    reads: tuple[Out | None, ...] = (),
    fanned: list[Out | None] | None = None,
) -> Out:
    output: Out = await ctx.deps.call(ctx.saga_id, ctx.node, "do", ctx.attempt, ctx.inputs)
    return output


async def _undo_step(ctx: Ctx[World], output: Out | None) -> None:
    await ctx.deps.call(ctx.saga_id, ctx.node, "undo", ctx.attempt, output)


async def _plain(saga: str, node: str, whole: Out | None = None) -> Out:
    output: Out = await _THE_WORLD[0].call(saga, node, "do", 0, {"saga": saga, "node": node, "whole": whole})
    return output


def _blocking(ctx: Ctx[World], whole: Out | None = None, reads: tuple[Out | None, ...] = ()) -> Out:
    output: Out = ctx.deps.call_blocking(ctx.saga_id, ctx.node, ctx.attempt, "do", ctx.inputs)
    return output


def _undo_blocking(ctx: Ctx[World], output: Out | None) -> None:
    ctx.deps.call_blocking(ctx.saga_id, ctx.node, ctx.attempt, "undo", output)


def _make(fn: Any, undo: Any, name: str) -> Action[Any, Any]:
    made: Action[Any, Any] = Action(fn, name=name)
    made.declare_undo(undo, unknown=True, retry=UNDO, timeout=None)
    return made


ACTIONS: Final = {
    "step": _make(_step, _undo_step, "step"),
    "plain": _make(_plain, _undo_step, "plain"),
    "blocking": _make(_blocking, _undo_blocking, "blocking"),
}


@cache
def _link(node: str) -> str:
    """The action of a link: as it is told nothing about its node, each has its own. Returns its name."""

    async def link(given: Out | str) -> Out:
        saga = given if isinstance(given, str) else given.value.partition("/")[0]
        output: Out = await _THE_WORLD[0].call(saga, node, "do", 0, {"given": given})
        return output

    async def undo(output: Out) -> None:
        await _THE_WORLD[0].call(output.value.partition("/")[0], node, "undo", 0, output)

    made: Action[Any, Any] = Action(link, name=f"link {node}")
    made.declare_undo(undo, unknown=False, retry=UNDO, timeout=None)
    _REGISTRY.register(made)
    return made.name


_REGISTRY: Final = ActionRegistry()
for _action in ACTIONS.values():
    _REGISTRY.register(_action)

_encode = msgspec.json.encode
_FANS: Final = ("fan", "sagas")


def make_saga(scenario: Scenario) -> Saga[..., Any]:
    """The saga of a scenario; it takes its own id, and a number that tells params apart."""
    dag = Dag("simulated", tuple(_nodes(scenario.nodes, "")), ("id", "number"), _output(scenario.nodes))
    made = saga_from_dag(dag, _REGISTRY, params={"id": str, "number": int})
    return made if scenario.deadline is None else made.options(deadline=scenario.deadline)


def _output(nodes: tuple[NodeSpec, ...]) -> Expr | None:
    last = nodes[-1]
    return Ref(last.name) if last.kind not in ("constant", "subsaga", *_FANS) and not last.when else None


def _nodes(specs: tuple[NodeSpec, ...], prefix: str, item: Expr | None = None) -> list[Node]:
    """`item`: which element of a fan-out of subsagas they are in."""
    around = {spec.name: spec for spec in specs}
    return [_node(spec, around, prefix, item) for spec in specs]


def _node(spec: NodeSpec, around: dict[str, NodeSpec], prefix: str, item: Expr | None) -> Node:
    when = Ref(spec.when, ("yes",)) if spec.when else None
    if spec.kind == "constant":
        return ConstantNode(spec.name, msgspec.Raw(_encode(Out(spec.name, spec.yes))), spec.after)
    if spec.kind == "subsaga":
        inner = Dag(
            spec.name, tuple(_nodes(spec.nodes, f"{prefix}{spec.name}/")), ("id",), _output(spec.nodes)
        )
        return SubsagaNode(spec.name, inner, {"id": Ref(PARAMS, ("id",))}, spec.after, when=when)
    if spec.kind == "sagas":
        within = _nodes(spec.nodes, f"{prefix}{spec.name}/", Ref(PARAMS, ("item",)))
        inner = Dag(spec.name, tuple(within), ("id", "item"), _output(spec.nodes))
        given: dict[str, Expr] = {"id": Ref(PARAMS, ("id",))}
        return SubsagaNode(spec.name, inner, given, spec.after, when=when, each=_each(spec))
    action: str = "step" if spec.kind == "fan" else spec.kind
    inputs = _inputs(spec, around)
    if spec.kind == "link":
        action = _link(spec.name)
        inputs = {"given": inputs.get("whole", Ref(PARAMS, ("id",)))}
    if spec.kind == "plain":
        inputs["saga"] = Ref(PARAMS, ("id",))
        inputs["node"] = Value(msgspec.Raw(_encode(prefix + spec.name)))
    if spec.kind == "step" and item is not None:
        inputs["item"] = item
    return ActionNode(
        spec.name,
        action,
        inputs,
        spec.after,
        when=when,
        each=_each(spec),
        undo=spec.undo,
        retry=Retry(spec.attempts, first=spec.first, longest=2.0, jitter=0.3),
        timeout=None if spec.kind == "link" else spec.timeout,
        undo_retry=Retry(spec.undo_attempts, first=0.1, longest=1.0),
        undo_timeout=None if spec.kind == "link" else spec.undo_timeout,
        pivot=spec.pivot,
    )


def _each(spec: NodeSpec) -> Each | None:
    if spec.kind not in _FANS:
        return None
    if spec.items_of:
        return Each("item", Ref(spec.items_of, ("items",)))
    return Each("item", Value(msgspec.Raw(_encode(list(range(spec.count))))))


def _inputs(spec: NodeSpec, around: dict[str, NodeSpec]) -> dict[str, Expr]:
    inputs: dict[str, Expr] = {}
    outputs = [name for name in spec.reads if _output_of(around[name])]
    if spec.kind == "link":
        outputs = [name for name in outputs if reads_yes(around[name]) and around[name].kind != "constant"]
    lists = [name for name in spec.reads if around[name].kind in _FANS and not around[name].when]
    if outputs:
        inputs["whole"] = Ref(outputs[0])
    if len(outputs) > 1 and spec.kind != "plain":
        inputs["reads"] = Items(tuple(Ref(name) for name in outputs[1:]))
    if lists and spec.kind in ("step", "fan"):
        inputs["fanned"] = Ref(lists[0])
    return inputs


def _output_of(spec: NodeSpec) -> bool:
    """Whether the node's output is an `Out` or `None`."""
    if spec.kind == "subsaga":
        return True
    return spec.kind not in _FANS


def reads_yes(spec: NodeSpec) -> bool:
    """Whether a `when` can look at this node's output."""
    return spec.kind in ("step", "link", "blocking", "plain", "constant") and not spec.when
