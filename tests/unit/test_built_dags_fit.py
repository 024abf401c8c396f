"""`build` and tracing hold every node against the registered action, and constants against what they are given for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import annotated_types as at
import pytest

from compensate import (
    Action,
    ActionRegistry,
    Coordinator,
    Ctx,
    DagBuilder,
    DefinitionError,
    ParamsInvalid,
    RolledBack,
    SagaExecutor,
    Stuck,
    SubsagaCreateFailed,
    action,
    action_node,
    constant,
    constant_node,
    output,
    param,
    saga,
    saga_from_dag,
    subsaga_node,
)
from compensate.core.dag import ActionNode, Dag, Ref

Positive = Annotated[int, at.Gt(0)]


def make(undo: str = "none", name: str = "create") -> Action[..., Any]:
    @action(name=name)
    async def create(size: int) -> str:
        return "disk"

    if undo == "output":

        @create.undo
        async def delete(disk: str) -> None: ...

    if undo == "unknown":

        @create.undo(unknown=True)
        async def delete_any(disk: str | None) -> None: ...

    return create


def registry_of(*actions: Action[..., Any]) -> ActionRegistry:
    registry = ActionRegistry()
    for one in actions:
        registry.register(one)
    return registry


Wrap = Callable[[ActionRegistry, ActionNode], Dag]


def flat(registry: ActionRegistry, node: ActionNode) -> Dag:
    return DagBuilder("d", registry).append(node).build()


def inside(registry: ActionRegistry, node: ActionNode) -> Dag:
    inner = Dag("inner", (node,), (), Ref(node.name))  # not built, so not checked by itself
    middle = DagBuilder("middle", registry).append(subsaga_node("in", inner))
    return middle.build()


@pytest.mark.parametrize("wrap", [flat, inside])
@pytest.mark.parametrize("registered", ["none", "output", "unknown"])
@pytest.mark.parametrize("made", ["none", "output", "unknown"])
def test_a_node_whose_undo_is_not_that_of_the_registered_action_is_refused(
    made: str, registered: str, wrap: Wrap
) -> None:
    node = action_node("disk", make(made), inputs={"size": 1})
    registry = registry_of(make(registered))
    if made == registered:
        assert wrap(registry, node).nodes
        return
    with pytest.raises(DefinitionError, match="undo") as caught:
        wrap(registry, node)
    assert "node disk" in str(caught.value)
    assert str(caught.value).count(f"{__file__}:") >= (2 if wrap is flat else 1)


def test_a_node_of_another_action_of_that_name_is_refused_with_both_places() -> None:
    @action(name="create")
    async def other(size: int) -> str:
        return "other"

    with pytest.raises(DefinitionError, match="another action is registered") as caught:
        flat(registry_of(other), action_node("disk", make(), inputs={"size": 1}))
    assert str(caught.value).count(f"{__file__}:") == 2

    @saga
    def whole() -> str:
        made: str = make()(1)
        return made

    with pytest.raises(DefinitionError, match="another action is registered"):
        DagBuilder("d", registry_of(other)).append(subsaga_node("s", whole)).build()


@pytest.mark.parametrize("wrap", [flat, inside])
def test_parameters_are_those_of_the_registered_action(wrap: Wrap) -> None:
    @action(name="create")
    async def more(size: int, zone: str) -> str:
        return zone

    @action(name="create")
    async def fewer() -> str:
        return ""

    node = action_node("disk", make(), inputs={"size": 1})
    with pytest.raises(DefinitionError, match="gives nothing for the parameter 'zone'"):
        wrap(registry_of(more), node)
    with pytest.raises(DefinitionError, match="gives the parameter 'size'"):
        wrap(registry_of(fewer), node)


# -- params of subsagas --------------------------------------------------------------


@action
async def take(x: Positive) -> int:
    return x


REGISTRY = registry_of(take)


def inner_dag() -> Dag:
    node = action_node("i", take, inputs={"x": param("x")})
    return DagBuilder("inner", REGISTRY, params=("x",)).append(node).build()


@saga
def typed(x: Positive, y: str = "") -> int:
    return take(x)


def _build(value: Any, dag: Any, **given: Any) -> Dag:
    builder = DagBuilder("d", REGISTRY).append(constant_node("p", value))
    return builder.append(subsaga_node("s", dag, **given)).build()


@pytest.mark.parametrize(
    ("value", "dag", "given", "words"),
    [
        ({"y": 1}, "dag", {"params_node": "p"}, "param x of subsaga inner"),
        ([1], "dag", {"params_node": "p"}, "the constant 'p'"),
        (1, "dag", {"inputs": {"x": output("p", "x")}}, "the constant 'p'"),
        ({"x": 1}, "saga", {"params_node": "p"}, "param y of subsaga typed"),
        ({"x": 0, "y": ""}, "saga", {"params_node": "p"}, "must be greater than 0"),
        ({"x": 1, "y": 2}, "saga", {"params_node": "p"}, "Expected `str`"),
        (3, "saga", {"inputs": {"x": 1, "y": output("p")}}, "Expected `str`"),
        ({"x": 1}, "none", {"params_node": "p"}, "takes no params"),
        ({"x": 1}, "dag", {"params_node": "gone"}, "which is no node"),
        ({"x": 1}, "dag", {"params_node": "s"}, "the node itself"),
        ({"x": 1}, "dag", {"inputs": {"x": output("s")}}, "the node itself"),
    ],
)
def test_params_that_cannot_be_are_refused_at_build(
    value: Any, dag: str, given: dict[str, Any], words: str
) -> None:
    free = DagBuilder("free", REGISTRY).append(action_node("i", take, inputs={"x": 1})).build()
    inner = {"dag": inner_dag(), "saga": typed, "none": free}[dag]
    with pytest.raises(SubsagaCreateFailed) as caught:
        _build(value, inner, **given)
    assert words in str(caught.value)


def test_what_an_inner_action_cannot_read_is_refused_at_its_place() -> None:
    with pytest.raises(DefinitionError, match=r"node s, node i, parameter x: .*greater than 0"):
        _build({"x": -1}, inner_dag(), params_node="p")
    assert _build({"x": 1}, inner_dag(), params_node="p").nodes
    assert _build({"x": 1, "y": "z", "more": 0}, typed, params_node="p").nodes


@pytest.mark.parametrize("each", [output("p"), output("p", 0)])
def test_constants_of_actions_are_read_as_their_parameters(each: Ref) -> None:
    def built(value: Any) -> Dag:
        builder = DagBuilder("d", REGISTRY).append(constant_node("p", value))
        return builder.append(action_node("a", take, each=("x", each))).build()

    good: Any = [1, 2] if not each.path else [[1, 2]]
    bad: Any = [1, -2] if not each.path else [[1, -2]]
    assert built(good).nodes
    with pytest.raises(DefinitionError, match=r"parameter x, item 1: .*greater than 0"):
        built(bad)


# -- values that break constraints, wherever they enter --------------------------------


@saga
def charge(cents: Positive, more: list[Positive] | None = None) -> int:
    return take(cents)


async def test_params_that_break_a_constraint_start_nothing() -> None:
    async with Coordinator("memory://", sagas=[charge]) as c:
        tried: list[Any] = [(0,), (1, [1, 0])]
        for args in tried:
            with pytest.raises(ParamsInvalid, match="greater than 0"):
                await c.start(charge, *args)
        with pytest.raises(ParamsInvalid, match="greater than 0"):
            await c.start_json(charge, b'{"cents": -1}')
        assert (await c.list()).records == []
        assert await c.run(charge, 1, [2]) == 1
    with pytest.raises(ParamsInvalid, match="greater than 0"):
        await SagaExecutor(charge).execute(-1)


def _literal() -> object:
    @saga
    def one() -> int:
        return take(-1)

    return one


def _constant() -> object:
    @saga
    def one() -> int:
        return take(constant(-1))

    return one


def _subsaga() -> object:
    @saga
    def one() -> int:
        return charge(5, [0])

    return one


def _returned() -> object:
    @saga
    def one() -> Positive:
        take(1)
        return 0

    return one


def _default() -> object:
    @saga
    def one(x: Positive = 0) -> int:
        return take(x)

    return one


def _default_of_an_action() -> object:
    @action
    async def one(x: Positive = 0) -> int:
        return x

    return one


def _in_a_node() -> object:
    return action_node("a", take, inputs={"x": -1})


@pytest.mark.parametrize(
    "define", [_literal, _constant, _subsaga, _returned, _default, _default_of_an_action, _in_a_node]
)
def test_a_known_value_that_breaks_a_constraint_is_refused_when_it_is_written(
    define: Callable[[], object],
) -> None:
    with pytest.raises(DefinitionError, match="greater than 0"):
        define()


async def test_an_output_or_input_that_breaks_a_constraint_goes_no_further() -> None:
    ran: list[str] = []

    @action
    async def loose(x: int) -> int:
        ran.append("loose")
        return x

    @action
    async def wrong(x: int) -> Positive:
        ran.append("wrong")
        return x

    @action
    async def strict(x: Positive) -> int:
        ran.append("strict")
        return x

    @saga
    def by_input(x: int) -> int:
        return strict(loose(x))

    @saga
    def by_output(x: int) -> int:
        return loose(wrong(x))

    async with Coordinator("memory://", sagas=[by_input, by_output]) as c:
        with pytest.raises((RolledBack, Stuck)):
            await c.run(by_input, -1)
        assert ran == ["loose"]
        ran.clear()
        with pytest.raises((RolledBack, Stuck)):
            await c.run(by_output, -1)
        assert "loose" not in ran


# -- text, ids and deadlines -----------------------------------------------------------

BAD = "\udc80"


def _text_cases() -> dict[str, Callable[[], object]]:
    def in_saga(call: Callable[[], object]) -> Callable[[], object]:
        def define() -> object:
            def one() -> None:
                call()

            return saga(one)

        return define

    def decorated() -> object:
        return action(label=BAD)(take.fn)

    return {
        "action": decorated,
        "options": in_saga(lambda: take.options(label=BAD)(1)),
        "constant": in_saga(lambda: constant(1, label=BAD)),
        "subsaga": in_saga(lambda: typed.options(label=BAD)(1)),
        "action node": lambda: action_node("a", take, inputs={"x": 1}, label=BAD),
        "constant node": lambda: constant_node("a", 1, label=BAD),
        "subsaga node": lambda: subsaga_node("a", typed, inputs={"x": 1}, label=BAD),
        "param": lambda: (
            DagBuilder("d", REGISTRY, params=(BAD,)).append(action_node("a", take, inputs={"x": 1})).build()
        ),
        "path": lambda: (
            DagBuilder("d", REGISTRY, params=("x",))
            .append(action_node("a", take, inputs={"x": param("x", BAD)}))
            .build()
        ),
        "stored": lambda: saga_from_dag(
            Dag("d", (ActionNode("a", "take", {"x": param("x")}, label=BAD),), ("x",)), REGISTRY
        ),
        "value": lambda: constant_node("a", {"k": BAD}),
    }


@pytest.mark.parametrize("define", _text_cases().values(), ids=_text_cases())
def test_text_that_cannot_be_stored_is_refused_when_it_is_written(define: Callable[[], object]) -> None:
    with pytest.raises(DefinitionError, match="lone surrogate"):
        define()


@saga(deadline=60)
def limited(x: int) -> int:
    return take(x)


@pytest.mark.parametrize(
    ("child", "words"),
    [
        (typed.options(deadline=5), "a deadline of 5 s"),
        (typed.with_id("c"), "the id 'c'"),
        (typed.options(deadline=5).options(name="n"), "a deadline of 5 s"),
        (typed.with_id("c").options(name="n"), "the id 'c'"),
        (limited, "a deadline of 60 s"),
    ],
    ids=str,
)
def test_a_subsaga_has_no_id_and_no_deadline(child: Any, words: str) -> None:
    def calls(place: Callable[[Any, Any], object]) -> None:
        def one(x: int, flag: bool) -> None:
            place(x, flag)

        with pytest.raises(SubsagaCreateFailed, match=words):
            saga(one)

    calls(lambda x, flag: child(x))
    calls(lambda x, flag: child.when(flag)(x))
    calls(lambda x, flag: child.after(take(1))(x))
    with pytest.raises(SubsagaCreateFailed, match=words):
        subsaga_node("s", child, inputs={"x": 1})


# -- messages --------------------------------------------------------------------------


class Shop:
    async def reserve(self, x: int) -> int:
        return x

    async def lend(cls, x: int) -> int:  # pyright: ignore[reportSelfClsParameterName]
        return x


async def unsaid(ctx, x: int) -> int:  # type: ignore[no-untyped-def]
    return x


async def said(ctx: Ctx[None], x) -> int:  # type: ignore[no-untyped-def]
    return 1


def enter() -> None:
    coordinator: Any = Coordinator("memory://")
    with coordinator:
        pass


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda: typed(1), ["typed is called outside", "await coordinator.run(typed"]),
        (lambda: take(1), ["take is called outside", "take.fn(...)"]),
        (lambda: typed.encode_params(1, colour=2), ["'colour'", "it takes (x:"]),  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
        (lambda: typed.encode_params(colour=2), ["'colour'", "'x'"]),  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
        (lambda: action(Shop.reserve), ["method", "deps"]),
        (lambda: action(Shop.lend), ["method", "deps"]),
        (lambda: action(unsaid), ["`ctx: Ctx[Deps]`"]),
        (lambda: action(said), ["parameter x has no annotation; say its type"]),
        (enter, ["async with Coordinator", "connect"]),
    ],
)
def test_a_message_says_what_to_write(act: Callable[[], object], words: list[str]) -> None:
    with pytest.raises((DefinitionError, ParamsInvalid, Exception)) as caught:
        act()
    assert caught.type.__module__ == "compensate.errors"
    for word in words:
        assert word in str(caught.value)
