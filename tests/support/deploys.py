"""Random sagas over a vocabulary of actions, and random changes to that vocabulary, as a deploy makes them.

Every action keeps a record of how it was called. A call whose arguments are not what its signature says is a wrong one,
whatever came of it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from msgspec import Raw, structs

from compensate import Action, ActionRegistry, Ctx, Retry, Saga, saga_from_dag
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
    Undo,
    Value,
)

Change = Literal[
    "nothing", "gone", "needs more", "takes more", "renamed", "takes text", "returns text", "no undo", "undo"
]
"""`takes more`: a parameter with a default. `undo`: the undo takes the output, or takes `None` too: the other one."""

CHANGES: tuple[Change, ...] = (
    "nothing", "gone", "needs more", "takes more", "renamed", "takes text", "returns text", "no undo", "undo",
)  # fmt: skip

NAMES = ("a", "b", "c", "d")


@dataclass
class World:
    """What the actions of a history do, and what was done to them.

    Attributes:
        stop_at: The call (of an action or undo) that hangs, so that the process can be ended there; 0: none does.
        fail_at: The call of an action that fails; 0: none does.
        wrong: Calls whose arguments do not fit.
        calls: How many there were.
    """

    stop_at: int = 0
    fail_at: int = 0
    wrong: list[str] = field(default_factory=list)
    calls: int = 0
    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    done: list[tuple[str, str]] = field(default_factory=list)

    async def call(
        self, what: str, node: str, given: dict[str, Any], wanted: dict[str, type | tuple[type, ...]]
    ) -> None:
        self.calls += 1
        for name, tp in wanted.items():
            if name not in given or not isinstance(given[name], tp):
                self.wrong.append(f"{what} of {node}: {name} is {given.get(name)!r}")
        if self.calls == self.stop_at:
            self.stopped.set()
            await asyncio.Event().wait()
        if what == "do" and self.calls == self.fail_at:
            raise ValueError("made to fail")
        self.done.append((what, node))


class Kind:
    """An action of the vocabulary as it was, before a deploy changed it."""

    def __init__(self, name: str, undo: Undo, many: bool, looks_back: bool) -> None:
        self.name = name
        self.undo: Undo = undo
        self.many = many
        """Whether it takes a list of numbers; else one number."""
        self.looks_back = looks_back
        """Whether its undo looks at `ctx.inputs`."""

    def make(self, change: Change = "nothing") -> Action[..., Any] | None:
        """The action after a change; `None` if it is gone."""
        if change == "gone":
            return None
        number: Any = list[int] if self.many else int
        taken: Any = (
            list[str] if change == "takes text" and self.many else str if change == "takes text" else number
        )
        shape = list if self.many else taken
        returned: Any = str if change == "returns text" else int
        result: Any = "text" if change == "returns text" else 7

        if change == "needs more":

            async def needs_more(ctx: Ctx[World], x: Any, region: str) -> Any:
                await ctx.deps.call("do", ctx.node, {"x": x, "region": region}, {"x": shape, "region": str})
                return result

            do: Any = needs_more
        elif change == "takes more":

            async def takes_more(ctx: Ctx[World], x: Any, region: str = "eu") -> Any:
                await ctx.deps.call("do", ctx.node, {"x": x, "region": region}, {"x": shape, "region": str})
                return result

            do = takes_more
        elif change == "renamed":

            async def is_renamed(ctx: Ctx[World], y: Any) -> Any:
                await ctx.deps.call("do", ctx.node, {"y": y}, {"y": shape})
                return result

            do = is_renamed
        else:

            async def is_as_before(ctx: Ctx[World], x: Any) -> Any:
                await ctx.deps.call("do", ctx.node, {"x": x}, {"x": shape})
                return result

            do = is_as_before

        do.__annotations__["y" if change == "renamed" else "x"] = taken
        do.__annotations__["return"] = returned
        made: Action[..., Any] = Action(do, name=self.name)
        self._declare_undo(made, change, returned, shape)
        return made

    def _declare_undo(self, made: Action[..., Any], change: Change, returned: type, shape: type) -> None:
        kind = self.undo
        if change == "no undo":
            kind = "none"
        elif change == "undo" and kind != "none":
            kind = "output" if kind == "unknown" else "unknown"
        if kind == "none":
            return
        wanted: tuple[type, ...] = (returned, type(None)) if kind == "unknown" else (returned,)
        looks_back = self.looks_back

        async def undo(ctx: Ctx[World], output: Any) -> None:
            inputs = ctx.inputs if looks_back else {}
            given = {"output": output, **inputs}
            expected: dict[str, type | tuple[type, ...]] = {"output": wanted}
            expected.update(dict.fromkeys(set(inputs) & {"x", "y"}, shape))
            await ctx.deps.call("undo", ctx.node, given, expected)

        made.declare_undo(undo, unknown=kind == "unknown", retry=Retry(2, first=0.01), timeout=None)


def registry_of(
    kinds: list[Kind], changes: dict[str, Change]
) -> tuple[list[Action[..., Any]], ActionRegistry]:
    """The vocabulary after some changes."""
    actions = [made for kind in kinds if (made := kind.make(changes.get(kind.name, "nothing"))) is not None]
    registry = ActionRegistry()
    for action in [*actions, flag]:
        registry.register(action)
    return [*actions, flag], registry


async def _flag(ctx: Ctx[World]) -> bool:
    await ctx.deps.call("do", ctx.node, {}, {})
    return len(ctx.saga_id) % 2 == 0


flag: Action[..., Any] = Action(_flag, name="flag")


def vocabulary(chance: random.Random) -> list[Kind]:
    """Some actions."""
    undos: list[Undo] = ["none", "output", "unknown", "output"]
    return [Kind(name, chance.choice(undos), chance.random() < 0.3, chance.random() < 0.5) for name in NAMES]


def random_saga(chance: random.Random, kinds: list[Kind]) -> Saga[..., Any]:
    """A saga over these actions."""
    registry = registry_of(kinds, {})[1]
    dag = Dag("random", tuple(_nodes(chance, kinds, 5)), ("start",))
    return saga_from_dag(dag, registry, params={"start": int})


def _nodes(chance: random.Random, kinds: list[Kind], count: int, depth: int = 0) -> list[Node]:
    nodes: list[Node] = []
    numbers: list[Expr] = [Ref(PARAMS, ("start",)), Value(Raw(b"3"))]
    lists: list[Expr] = [Value(Raw(b"[1,2]"))]
    flags: list[Ref] = []
    pivot = depth == 0 and chance.random() < 0.15

    def one() -> Expr:
        return chance.choice(numbers)

    def some() -> Expr:
        return chance.choice([*lists, Items((one(), one()))])

    for position in range(count):
        name = f"n{position}"
        last = (nodes[-1].name,) if nodes and chance.random() < 0.5 else ()
        roll = chance.random()
        if roll < 0.1:
            nodes.append(ConstantNode(name, Raw(b"4"), last))
            numbers.append(Ref(name))
        elif roll < 0.2:
            nodes.append(ActionNode(name, "flag", {}, last))
            flags.append(Ref(name))
        elif roll < 0.32 and depth < 2:
            inner = Dag(name, tuple(_nodes(chance, kinds, 3, depth + 1)), ("start",))
            outputs = [node for node in inner.nodes if _is_number(node)]
            inner = Dag(name, inner.nodes, ("start",), Ref(outputs[-1].name) if outputs else None)
            nodes.append(SubsagaNode(name, inner, {"start": one()}, last, when=_some_flag(chance, flags)))
            if outputs and nodes[-1].when is None:  # type: ignore[union-attr]
                numbers.append(Ref(name))
        else:
            _add_action(chance, chance.choice(kinds), name, last, (one, some), nodes, (numbers, lists, flags))
    if pivot:
        for position, node in enumerate(nodes):
            if (
                isinstance(node, ActionNode)
                and node.each is None
                and node.when is None
                and node.action != "flag"
            ):
                nodes[position] = structs.replace(node, pivot=True)
                break
    return nodes


def _add_action(
    chance: random.Random,
    kind: Kind,
    name: str,
    last: tuple[str, ...],
    give: tuple[Callable[[], Expr], Callable[[], Expr]],
    nodes: list[Node],
    known: tuple[list[Expr], list[Expr], list[Ref]],
) -> None:
    one, some = give
    numbers, lists, flags = known
    fanned = not kind.many and chance.random() < 0.2
    when = None if fanned else _some_flag(chance, flags)
    nodes.append(
        ActionNode(
            name,
            kind.name,
            {} if fanned else {"x": some() if kind.many else one()},
            last,
            when=when,
            each=Each("x", some()) if fanned else None,
            undo=kind.undo,
            retry=Retry(2, first=0.01),
            undo_retry=Retry(2, first=0.01),
        )
    )
    if fanned:
        lists.append(Ref(name))
    elif when is None:
        numbers.append(Ref(name))


def _some_flag(chance: random.Random, flags: list[Ref]) -> Ref | None:
    return chance.choice(flags) if flags and chance.random() < 0.4 else None


def _is_number(node: Node) -> bool:
    return isinstance(node, ActionNode) and node.each is None and node.when is None and node.action != "flag"


__all__ = ["CHANGES", "Change", "Kind", "World", "random_saga", "registry_of", "vocabulary"]
