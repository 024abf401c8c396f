"""Fan-outs of sagas whose turn is still to come are held against the code as if they were laid out already."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from compensate import Action, ActionRegistry, Coordinator, Retry, Saga, fan_out, saga
from compensate.core.events import SagaStuck
from compensate.inspection.snapshot import Snapshot
from compensate.stores.memory import MemoryStore

RETRY = Retry(2, first=0.01)


@dataclass
class Line:
    n: int
    parts: list[int] = field(default_factory=list[int])
    big: bool = True


def function(takes: dict[str, Any], gives: Any, result: object, *, waits: bool = False) -> Callable[..., Any]:
    """A function of these annotations."""

    async def made(*args: Any, **given: Any) -> Any:
        if waits:
            await asyncio.Event().wait()
        return result

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    made.__annotations__ = {**takes, "return": gives}
    made.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter(name, kind, annotation=tp) for name, tp in takes.items()], return_annotation=gives
    )
    return made


class Code:
    """The actions of a version: by name what each takes and gives."""

    def __init__(self, *, waits: bool = True, **changed: tuple[dict[str, Any], Any, object]) -> None:
        one: dict[str, tuple[dict[str, Any], Any, object]] = {
            "gate": ({"x": int}, int, 9),
            "piv": ({"x": int}, int, 9),
            "listed": ({"x": int}, list[int], [1, 2]),
            "lines": ({"x": int}, list[Line], [Line(1, [5]), Line(2, [6])]),
            "flag": ({"x": int}, bool, True),
            "shared": ({"x": int}, int, 7),
            "each": ({"i": int}, int, 5),
            "each2": ({"i": int, "g": int}, int, 5),
            "then": ({"i": int}, int, 6),
            "last": ({"o": list[int]}, int, 1),
            "last2": ({"o": list[list[int]]}, int, 1),
            "whole": ({"o": list[Line]}, int, 1),
        }
        one.update(changed)
        self.actions: dict[str, Action[..., Any]] = {}
        for name, (takes, gives, result) in one.items():
            fn = function(takes, gives, result, waits=waits and name == "gate")
            made: Action[..., Any] = Action(fn, name=name, retry=RETRY, pivot=name == "piv")
            self.actions[name] = made

    def __getattr__(self, name: str) -> Any:
        return self.actions[name]

    @property
    def registry(self) -> ActionRegistry:
        registry = ActionRegistry()
        for made in self.actions.values():
            registry.register(made)
        return registry


def shape(name: str, c: Code) -> Saga[..., Any]:
    """A saga that waits at its action `gate`, with a fan-out of sagas behind it."""

    @saga(name="one")
    def one(i: int, g: int) -> int:
        result: int = c.then(i=c.each2(i=i, g=g))
        return result

    @saga(name="constant")
    def constant(i: int, g: int) -> int:
        result: int = c.each2(i=3, g=g)
        return result

    @saga(name="of_line")
    def of_line(line: Line, g: int) -> int:
        result: int = c.each2(i=line.n, g=g)
        return result

    @saga(name="asks")
    def asks(line: Line, g: int) -> int:
        c.each.when(line.big)(i=line.n)
        result: int = c.then(i=g)
        return result

    @saga(name="asks_within")
    def asks_within(i: int, g: int) -> int:
        c.each.when(c.flag(x=g))(i=i)
        result: int = c.then(i=g)
        return result

    @saga(name="nested")
    def nested(line: Line, g: int) -> list[int]:
        result: list[int] = fan_out(one, line.parts, g)
        return result

    @saga(name="nested_actions")
    def nested_actions(line: Line, g: int) -> list[int]:
        result: list[int] = fan_out(c.each2, line.parts, g)
        return result

    @saga(name="around")
    def around(i: int, g: int) -> int:
        result: int = one(i, g)
        return result

    def main(x: int, xs: list[int], ls: list[Line]) -> int:
        gate = c.gate

        def stored() -> Any:
            items = c.listed(x=x)
            return c.last(o=fan_out(one, items, gate.after(items)(x=x)))

        given: Any = {
            "stored": stored,
            "param": lambda: c.last(o=fan_out(one, xs, gate(x=x))),
            "constant items": lambda: c.last(o=fan_out(one, [1, 2], gate(x=x))),
            "no items": lambda: c.last(o=fan_out(one, [], gate(x=x))),
            "composed": lambda: c.last(o=fan_out(one, [x, c.shared(x=gate(x=x))], gate(x=x))),
            "to come": lambda: c.last(o=fan_out(one, c.listed(x=gate(x=x)), x)),
            "shared to come": lambda: c.last(o=fan_out(one, xs, c.shared(x=gate(x=x)))),
            "constant": lambda: c.last(o=fan_out(constant, xs, gate(x=x))),
            "pivot": lambda: c.last(o=fan_out(one, xs, gate(x=c.piv(x=x)))),
            "part of an item": lambda: c.last(o=fan_out(of_line, ls, gate(x=x))),
            "part of an item to come": lambda: c.last(o=fan_out(of_line, c.lines(x=gate(x=x)), x)),
            "asks": lambda: c.last(o=fan_out(asks, ls, gate(x=x))),
            "asks to come": lambda: c.last(o=fan_out(asks, c.lines(x=gate(x=x)), x)),
            "asks within": lambda: c.last(o=fan_out(asks_within, xs, gate(x=x))),
            "asks within to come": lambda: c.last(o=fan_out(asks_within, c.listed(x=gate(x=x)), x)),
            "nested": lambda: c.last2(o=fan_out(nested, ls, gate(x=x))),
            "nested to come": lambda: c.last2(o=fan_out(nested, c.lines(x=gate(x=x)), x)),
            "nested actions": lambda: c.last2(o=fan_out(nested_actions, ls, gate(x=x))),
            "nested actions to come": lambda: c.last2(o=fan_out(nested_actions, c.lines(x=gate(x=x)), x)),
            "subsaga within": lambda: c.last(o=fan_out(around, xs, gate(x=x))),
            "chained": lambda: c.last(o=fan_out(one, fan_out(one, xs, gate(x=x)), x)),
        }
        result: int = given[name]()
        return result

    return saga(name="main")(main)


TEXT: dict[str, tuple[dict[str, Any], Any, object]] = {
    "item": ({"i": str, "g": int}, int, 5),
    "shared": ({"i": int, "g": str}, int, 5),
    "inside": ({"i": str}, int, 6),
    "output": ({"o": list[str]}, int, 1),
    "source": ({"x": int}, list[str], ["a"]),
}
ITEM, SHARED = {"each2": TEXT["item"]}, {"each2": TEXT["shared"]}
INSIDE, OUTPUT = {"then": TEXT["inside"]}, {"last": TEXT["output"]}
OUTPUT2 = {"last2": ({"o": list[list[str]]}, int, 1)}
FLOW = [
    "stored",
    "param",
    "constant items",
    "composed",
    "to come",
    "shared to come",
    "pivot",
    "chained",
    "subsaga within",
]
NESTED = ["nested", "nested to come"]
ACTIONS = ["nested actions", "nested actions to come"]
LINES = ["part of an item", "part of an item to come"]

MISFITS: list[tuple[str, dict[str, Any], str]] = [
    *((name, ITEM, "each2") for name in [*FLOW, *NESTED, *ACTIONS, *LINES, "constant"]),
    *((name, SHARED, "each2") for name in [*FLOW, *NESTED, *LINES, "constant"]),
    *((name, INSIDE, "then") for name in [*FLOW, *NESTED]),
    *((name, OUTPUT, "last") for name in [*FLOW, *LINES, "constant", "asks"]),
    *((name, OUTPUT2, "last2") for name in [*NESTED, *ACTIONS]),
    ("param", {"last": ({"o": int}, int, 1)}, "last"),
    ("to come", {"listed": TEXT["source"]}, "each2"),
    ("to come", {"listed": ({"x": int}, int, 1)}, "main"),
    ("shared to come", {"shared": ({"x": int}, str, "s")}, "each2"),
    ("asks", {"each": ({"i": str}, int, 5)}, "each"),
    ("asks to come", {"each": ({"i": str}, int, 5)}, "each"),
    ("asks within", {"flag": ({"x": int}, str, "s")}, "when"),
    ("asks within to come", {"flag": ({"x": int}, str, "s")}, "when"),
    ("param", {"then": ({"i": int, "more": int}, int, 5)}, "then"),
    ("to come", {"then": ({"i": int, "more": int}, int, 5)}, "then"),
]

OPEN = {"each2": ({"i": int | str, "g": float}, int, 5), "last": ({"o": list[Any]}, int, 1)}
FLOAT = {"then": ({"i": float}, int, 6), "each": ({"i": float}, int, 6), "last2": ({"o": Any}, int, 1)}
FITTING: list[tuple[str, dict[str, Any]]] = [
    *(
        (name, change)
        for name in [*FLOW, *NESTED, *ACTIONS, *LINES, "constant"]
        for change in ({}, OPEN, FLOAT)
    ),
    *((name, {}) for name in ("asks", "asks to come", "asks within", "asks within to come")),
    # Nothing of it runs:
    ("no items", ITEM),
    ("no items", INSIDE),
    # Not read there:
    ("constant", INSIDE),
    ("asks", ITEM),
]


async def left(name: str, *params: Any) -> MemoryStore:
    """Where the saga waits at its gate, by the first version."""
    store = MemoryStore()
    main = shape(name, Code())
    async with Coordinator(store, sagas=[main], drain=0.0) as c:
        await c.start(main.with_id("s"), *(params or (1, [1, 2], [Line(1, [5]), Line(2, [6, 7])])))
        for _ in range(20):
            await asyncio.sleep(0.002)
    assert "gate" in [event.node.split("/")[-1] for event in (await store.load("s")).events]
    return store


@pytest.mark.parametrize(("name", "changed", "said"), MISFITS)
async def test_what_does_not_fit_is_said_before_the_fan_out_is_laid_out(
    name: str, changed: dict[str, Any], said: str
) -> None:
    store = await left(name)
    now = Code(waits=False, **changed)
    wrong = Snapshot(await store.load("s")).misfit(now.registry)
    assert wrong.startswith("node '")
    assert said == "main" or said in wrong
    async with Coordinator(store, actions=now.actions.values(), poll=0.02) as c:
        while (record := await c.record("s")).status == "running":  # noqa: ASYNC110 - the store has no event
            await asyncio.sleep(0.002)
        assert (record.status, record.parked) == ("stuck", True)
    async with Coordinator(store, actions=Code(waits=False).actions.values(), poll=0.02) as c:
        assert await c.attach("s").result() == 1


@pytest.mark.parametrize(("name", "changed"), FITTING)
async def test_what_fits_is_run(name: str, changed: dict[str, Any]) -> None:
    store = await left(name)
    now = Code(waits=False, **changed)
    assert Snapshot(await store.load("s")).misfit(now.registry) == ""
    async with Coordinator(store, actions=now.actions.values(), poll=0.02) as c:
        assert await c.attach("s").result() == 1


@pytest.mark.parametrize("big", [True, False])
async def test_a_branch_that_no_recorded_item_takes_needs_no_code(big: bool) -> None:
    store = await left("asks", 1, [], [Line(1, big=False), Line(2, big=big)])
    now = Code(waits=False, each=({"i": str}, int, 5))
    wrong = Snapshot(await store.load("s")).misfit(now.registry)
    assert ("/each'" in wrong) is big


async def test_a_parked_saga_gives_its_advice_once() -> None:
    store = await left("param")
    async with Coordinator(store, actions=Code(waits=False, **ITEM).actions.values(), poll=0.02) as c:
        while not (await c.record("s")).parked:  # noqa: ASYNC110 - the store has no event
            await asyncio.sleep(0.002)
    stuck = (await store.load("s")).events[-1].data
    assert isinstance(stuck, SagaStuck)
    reason = stuck.parked
    assert "do not decode as `str`" in reason
    assert reason.count("a new field needs a default") == 1
    assert "bring back" not in reason
