"""What a node can see: its ancestors' outputs, the params; live and after recovery; never across a subsaga's border."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import pytest

from compensate import (
    ActionRegistry,
    Coordinator,
    Ctx,
    DagBuilder,
    DeserializeFailed,
    Inject,
    NotFound,
    RolledBack,
    Saga,
    SagaExecutor,
    Unknown,
    action,
    action_node,
    constant_node,
    fan_out,
    output,
    saga,
    saga_from_dag,
    subsaga_node,
)

# A test's own world: what its actions and undos saw, by the node that looked.
SEEN: dict[str, Any] = {}
HOLD: list[asyncio.Event] = []


@pytest.fixture(autouse=True)
def _clean() -> None:
    SEEN.clear()
    HOLD.clear()


@dataclass(frozen=True)
class Room:
    number: int
    floor: int


class Stay(TypedDict):
    guest: str


def tried(look: Callable[[], Any]) -> Any:
    """What a look comes to: the value, or the words of its refusal."""
    try:
        return look()
    except NotFound as error:
        return str(error)


@action
async def book(guest: str) -> Room:
    return Room(len(guest), 3)


@action
async def beside(guest: str) -> str:
    return f"taxi for {guest}"


@action
async def pay(cents: int) -> int:
    return cents


@action
async def confirm(ctx: Ctx[object], paid: int) -> str:
    for event in HOLD:
        await event.wait()
    SEEN["confirm"] = {
        "book": ctx.lookup("book", Room),
        "pay": ctx.lookup("pay", int),
        "params": ctx.params(Stay),
        "beside": tried(lambda: ctx.lookup("beside", str)),
        "confirm": tried(lambda: ctx.lookup("confirm", str)),
        "nobody": tried(lambda: ctx.lookup("nobody", str)),
        "after": tried(lambda: ctx.lookup("leave", str)),
    }
    return "confirmed"


@confirm.undo
async def unconfirm(ctx: Ctx[object], word: str) -> None:
    SEEN["unconfirm"] = {
        "own": word,
        "book": ctx.lookup("book", Room),
        "params": ctx.params(dict[str, Any]),
        "beside": tried(lambda: ctx.lookup("beside", str)),
        "inputs": dict(ctx.inputs),
    }


@action
async def leave(word: str) -> str:
    return word


@saga
def stay(guest: str) -> str:
    room = book(guest)
    beside(guest)
    paid = pay.after(room)(5)
    return leave(confirm(paid))


SEEN_BY_CONFIRM = {
    "book": Room(3, 3),
    "pay": 5,
    "params": {"guest": "ann"},
    "beside": "node 'confirm' looks up 'beside', which is no ancestor of it; let it depend on that node, by an "
    "argument or by after()",
    "confirm": "node 'confirm' looks up 'confirm', which is no ancestor of it; let it depend on that node, by an "
    "argument or by after()",
    "nobody": "node 'confirm' looks up 'nobody': no node of its own namespace has that name; there are book, beside, "
    "pay, confirm, leave",
    "after": "node 'confirm' looks up 'leave', which is no ancestor of it; let it depend on that node, by an argument "
    "or by after()",
}
SEEN_BY_UNCONFIRM = {
    "own": "confirmed",
    "book": Room(3, 3),
    "params": {"guest": "ann"},
    "beside": SEEN_BY_CONFIRM["beside"],
    "inputs": {"paid": 5},
}


async def test_an_action_and_an_undo_look_up_ancestors_by_type_and_nothing_else() -> None:
    async with Coordinator("memory://", sagas=[stay]) as c:
        await c.run(stay.with_id("s"), "ann")
        run = await c.rollback("s")
        with pytest.raises(RolledBack):
            await run.result()
    assert SEEN == {"confirm": SEEN_BY_CONFIRM, "unconfirm": SEEN_BY_UNCONFIRM}


async def test_after_recovery_actions_and_undos_see_the_same_as_live(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'sagas.db'}"
    HOLD.append(asyncio.Event())
    async with Coordinator(url, sagas=[stay], drain=0.0) as c:
        run = await c.start(stay.with_id("s"), "ann")
        async for event in run.events():
            if (event.node, event.type) == ("confirm", "started"):
                break
    assert SEEN == {}  # it was cut off before it looked
    HOLD.clear()
    async with Coordinator(url, sagas=[stay]) as c:
        assert await c.attach("s").result() == "confirmed"
    assert SEEN == {"confirm": SEEN_BY_CONFIRM}
    async with Coordinator(url, sagas=[stay]) as c:
        run_back = await c.rollback("s")
        with pytest.raises(RolledBack):
            await run_back.result()
    assert SEEN == {"confirm": SEEN_BY_CONFIRM, "unconfirm": SEEN_BY_UNCONFIRM}


async def test_an_output_of_another_type_is_refused_and_the_action_fails() -> None:
    @action
    async def reads(ctx: Ctx[object]) -> int:
        return ctx.lookup("pay", list[str])[0].count("a")

    @saga
    def wrong() -> int:
        return reads.after(pay(5))()

    with pytest.raises(RolledBack) as caught:
        await SagaExecutor(wrong).execute()
    assert isinstance(caught.value.__cause__, DeserializeFailed)
    assert "lookup of 'pay'" in str(caught.value)


# -- subsagas --------------------------------------------------------------


@dataclass
class Part:
    name: str
    count: int


@action
async def make(name: str, count: int) -> list[str]:
    return [f"{name}{i}" for i in range(count)]


@action
async def pack(ctx: Ctx[object], parts: list[str]) -> str:
    SEEN[ctx.node] = {
        "params": ctx.params(Part),
        "make": ctx.lookup("make", list[str]),
        "outside": tried(lambda: ctx.lookup("order", object)),
    }
    return "+".join(parts)


@pack.undo
async def unpack(ctx: Ctx[object], packed: str) -> None:
    SEEN[f"undo {ctx.node}"] = (packed, ctx.params(Part), ctx.lookup("make", list[str]))


@saga
def parcel(name: str, count: int) -> str:
    return pack(make(name, count))


@action
async def order() -> dict[str, Part]:
    return {"first": Part("a", 2), "second": Part("b", 1)}


@action
async def first(ctx: Ctx[object]) -> Part:
    return ctx.lookup("order", dict[str, Part])["first"]


@action
async def second(ctx: Ctx[object]) -> Part:
    return ctx.lookup("order", dict[str, Part])["second"]


@action
async def send(ctx: Ctx[object], left: str, right: str) -> str:
    SEEN["send"] = {
        "left": ctx.lookup("left", str),
        "inside": tried(lambda: ctx.lookup("left/pack", str)),
        "make": tried(lambda: ctx.lookup("make", str)),
    }
    return f"{left} & {right}"


def registry_of(*actions: Any) -> ActionRegistry:
    registry = ActionRegistry()
    for one in actions:
        registry.register(one)
    return registry


REGISTRY = registry_of(make, pack, order, first, second, send)


def adjacent() -> Saga[..., Any]:
    """Two subsagas side by side, with params of two nodes, neither of them the node right before."""
    dag = (
        DagBuilder("shipment", REGISTRY)
        .append(action_node("order", order))
        .append_parallel(action_node("one", first), action_node("two", second))
        .append(constant_node("between", "nothing"))
        .append_parallel(
            subsaga_node("left", parcel, params_node="one"), subsaga_node("right", parcel, params_node="two")
        )
        .append(action_node("send", send, inputs={"left": output("left"), "right": output("right")}))
        .build()
    )
    return saga_from_dag(dag, REGISTRY, returns=str)


async def test_adjacent_subsagas_have_their_own_params_and_show_only_their_output() -> None:
    executor = SagaExecutor(adjacent())
    assert await executor.execute() == "a0+a1 & b0"
    for side, part, made in (("left", Part("a", 2), ["a0", "a1"]), ("right", Part("b", 1), ["b0"])):
        assert SEEN[f"{side}/pack"] == {
            "params": part,
            "make": made,
            "outside": f"node '{side}/pack' looks up 'order': no node of its own namespace has that name; there are "
            "make, pack",
        }
    refused = (
        "no node of its own namespace has that name; there are order, one, two, between, left, right, send"
    )
    assert SEEN["send"] == {
        "left": "a0+a1",
        "inside": f"node 'send' looks up 'left/pack': {refused}",
        "make": f"node 'send' looks up 'make': {refused}",
    }
    with pytest.raises(KeyError):
        executor.execution_state()["pack"]
    assert executor.execution_state()["left/pack"] == "completed"


async def test_subsagas_are_undone_node_by_node_and_their_undos_see_their_own_namespace() -> None:
    executor = SagaExecutor(adjacent(), inject={"send": Inject(fail="before")})
    with pytest.raises(RolledBack):
        await executor.execute()
    assert SEEN["undo left/pack"] == ("a0+a1", Part("a", 2), ["a0", "a1"])
    assert SEEN["undo right/pack"] == ("b0", Part("b", 1), ["b0"])
    assert set(executor.completed_nodes()) == {"order", "one", "two", "left/make", "right/make"}  # no undo


async def test_after_recovery_the_undos_of_a_subsaga_see_the_same(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'sagas.db'}"
    async with Coordinator(url, sagas=[adjacent()]) as c:
        await c.run(adjacent().with_id("s"))
    SEEN.clear()
    async with Coordinator(url, actions=[make, pack, order, first, second, send]) as c:
        with pytest.raises(RolledBack):
            await (await c.rollback("s")).result()
    assert {
        "undo left/pack": ("a0+a1", Part("a", 2), ["a0", "a1"]),
        "undo right/pack": ("b0", Part("b", 1), ["b0"]),
    } == SEEN


async def test_subsagas_nest_and_each_level_has_its_names_and_params() -> None:
    @action
    async def label(ctx: Ctx[object], text: str) -> str:
        SEEN[ctx.node] = ctx.params(dict[str, Any])
        return f"<{text}>"

    @saga
    def inner(text: str) -> str:
        return label(label(text))

    @saga
    def middle(word: str, times: int) -> str:
        return inner.options(name="again")(inner(word))

    @saga
    def outer(name: str) -> str:
        return middle(label(name), 2)

    executor = SagaExecutor(outer)
    assert await executor.execute("x") == "<<<<<x>>>>>"
    assert SEEN == {
        "label": {"name": "x"},
        "middle/inner/label": {"text": "<x>"},
        "middle/inner/label_2": {"text": "<x>"},
        "middle/again/label": {"text": "<<<x>>>"},
        "middle/again/label_2": {"text": "<<<x>>>"},
    }
    assert executor.output("middle/inner") == "<<<x>>>"
    assert executor.output("middle") == executor.output() == "<<<<<x>>>>>"


async def test_the_elements_of_a_fan_out_see_params_and_ancestors_and_not_one_another() -> None:
    @action
    async def count(ctx: Ctx[object], line: str) -> int:
        SEEN[ctx.node] = (
            ctx.params(dict[str, Any]),
            ctx.lookup("pay", int),
            tried(lambda: ctx.lookup("count", object)),
        )
        return len(line)

    @saga
    def counted(lines: list[str]) -> list[int]:
        return fan_out(count.after(pay(1)), lines)

    assert await SagaExecutor(counted).execute(["a", "bb"]) == [1, 2]
    refused = "which is no ancestor of it"
    for element in ("count[0]", "count[1]"):
        params, paid, itself = SEEN[element]
        assert (params, paid) == ({"lines": ["a", "bb"]}, 1)
        assert refused in itself


async def test_an_undo_looks_up_its_own_output_in_a_saga_a_subsaga_and_a_fan_out() -> None:
    @action
    async def hold(item: str) -> str:
        return f"hold on {item}"

    @hold.undo
    async def release(ctx: Ctx[object], held: str) -> None:
        SEEN[ctx.node] = (held, ctx.lookup("hold", str), ctx.lookup(ctx.node, str))

    @saga
    def inner(item: str) -> str:
        return hold(item)

    @saga
    def plain(item: str) -> str:
        return hold(item)

    @saga
    def nested(item: str) -> str:
        return inner(item)

    @saga
    def many(items: list[str]) -> list[str]:
        return fan_out(hold, items)

    for made, given in ((plain, "a"), (nested, "b"), (many, ["c", "d"])):
        executor = SagaExecutor(made)
        await executor.execute(given)
        await executor.rollback()
    assert SEEN == {
        "hold": ("hold on a",) * 3,
        "inner/hold": ("hold on b",) * 3,
        "hold[0]": ("hold on c",) * 3,
        "hold[1]": ("hold on d",) * 3,
    }


async def test_an_undo_without_an_output_is_told_why_its_lookup_finds_none() -> None:
    @action
    async def hold() -> str:
        raise Unknown("no reply")

    @hold.undo(unknown=True)
    async def release(ctx: Ctx[object], held: str | None) -> None:
        SEEN["release"] = tried(lambda: ctx.lookup("hold", str))

    @saga
    def one() -> str:
        return hold()

    with pytest.raises(RolledBack):
        await SagaExecutor(one).execute()
    assert SEEN["release"].startswith(
        "node 'hold' looks up its own output in its undo, but the log holds none: what"
    )


# -- from outside ----------------------------------------------------------


async def test_a_snapshot_gives_outputs_and_params_by_type() -> None:
    async with Coordinator("memory://", sagas=[stay]) as c:
        await c.run(stay.with_id("s"), "ann")
        snapshot = await c.get("s")
    assert snapshot.output("book", tp=Room) == Room(3, 3)
    assert snapshot.output("book") == {"number": 3, "floor": 3}
    assert snapshot.output() == "confirmed"
    assert snapshot.params(Stay) == {"guest": "ann"}
    assert snapshot.error() is None
    with pytest.raises(NotFound, match=r"no node has the path 'bok'; there are .*book"):
        snapshot.output("bok")
    with pytest.raises(DeserializeFailed, match="output of book"):
        snapshot.output("book", tp=int)


async def test_a_snapshot_of_a_failed_saga_says_which_node_and_why() -> None:
    async with Coordinator("memory://", sagas=[stay], inject={"pay": Inject(fail="before")}) as c:
        with pytest.raises(RolledBack) as caught:
            await c.run(stay.with_id("s"), "ann")
        snapshot = await c.get("s")
    assert caught.value.node == "pay"
    error = snapshot.error()
    assert error is not None
    assert (error.node, error.type) == ("pay", "compensate.errors.InjectedError")
    assert snapshot.error("pay") is not None
    assert snapshot.error("book") is None
    with pytest.raises(DeserializeFailed, match="'pay' has no output: it is failed"):
        snapshot.output("pay")
    with pytest.raises(DeserializeFailed):
        snapshot.output()
