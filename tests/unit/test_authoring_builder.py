"""The builder: stages, edges, its table of errors, and that it makes the same dags as tracing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from compensate.authoring import (
    ActionRegistry,
    DagBuilder,
    action,
    action_constant,
    action_node,
    constant,
    constant_node,
    fan_out,
    inject_error_action,
    output,
    param,
    saga,
    saga_from_dag,
    subsaga_node,
)
from compensate.codec.records import DEEPEST, decode_dag, encode_dag
from compensate.core.dag import ActionNode, Dag, Items, SubsagaNode, Value, dependencies
from compensate.core.plan import Plan
from compensate.core.policy import Retry
from compensate.errors import (
    ActionNotFound,
    CompensateError,
    DefinitionError,
    NameInvalid,
    ParamsInvalid,
    SubsagaCreateFailed,
)


@dataclass
class Order:
    id: str
    lines: list[str] = field(default_factory=list[str])
    urgent: bool = False


@action(label="do it", retry=Retry(2))
def step() -> int:
    return 1


@action
def add(left: int, right: int = 0) -> int:
    return left + right


@add.undo(unknown=True)
def subtract(sum_: int | None) -> None: ...


@action
def check(order: Order) -> bool:
    return order.urgent


@action
def ship(order: Order, lines: list[str]) -> str:
    return order.id + "".join(lines)


@action
def pick(line: str, shelf: int) -> str:
    return f"{line}{shelf}"


@pytest.fixture
def registry() -> ActionRegistry:
    registry = ActionRegistry()
    for one in (step, add, check, ship, pick):
        registry.register(one)
    return registry


def after(dag: Dag, name: str) -> tuple[str, ...]:
    return dag.node(name).after


# -- stages and edges ------------------------------------------------------


def test_a_stage_starts_after_every_node_of_the_stage_before(registry: ActionRegistry) -> None:
    dag = (
        DagBuilder("trip", registry)
        .append(action_node("a", step))
        .append_parallel(action_node("b", step), action_node("c", step, label="third"))
        .append(action_node("d", step))
        .build()
    )
    assert [(node.name, node.after) for node in dag.nodes] == [
        ("a", ()),
        ("b", ("a",)),
        ("c", ("a",)),
        ("d", ("b", "c")),
    ]
    assert dag.output == output("d")
    assert [node.label for node in dag.nodes] == ["do it", "do it", "third", "do it"]


def test_nodes_and_dependencies_can_be_placed_freely_and_in_any_order(registry: ActionRegistry) -> None:
    builder = DagBuilder("free", registry).add_dependency("a", "b").add_dependency("a", "b")
    builder.add_node(action_node("b", step)).add_node(action_node("a", step))
    assert after(builder.build(), "b") == ("a",)


def test_an_edge_that_an_input_makes_is_not_doubled_by_the_stage(registry: ActionRegistry) -> None:
    dag = (
        DagBuilder("sum", registry)
        .append(action_node("one", step))
        .append(action_node("sum", add, inputs={"left": output("one"), "right": 5}))
        .build()
    )
    assert dag.node("sum").after == ()
    assert dependencies(dag.node("sum")) == ("one",)


def test_a_large_stage_after_one_node_is_built_and_laid_flat(registry: ActionRegistry) -> None:
    builder = DagBuilder("wide", registry).append(action_node("first", step))
    builder.append_parallel(*(action_node(f"n{i}", step) for i in range(20_000)))
    dag = builder.append(action_node("last", step)).build()
    assert len(dag.node("last").after) == 20_000
    assert len(Plan(dag).names) == 20_004


def test_building_twice_gives_equal_dags_and_the_builder_can_go_on(registry: ActionRegistry) -> None:
    builder = DagBuilder("trip", registry).append(action_node("a", step))
    first = builder.build()
    assert builder.build() == first
    assert [node.name for node in builder.append(action_node("b", step)).build().nodes] == ["a", "b"]


def test_the_output_can_be_chosen_or_left_out(registry: ActionRegistry) -> None:
    builder = DagBuilder("two", registry).append_parallel(action_node("a", step), action_node("b", step))
    both = Items((output("a"), output("b")))
    assert builder.build(output=both).output == both
    assert builder.build(output=None).output is None


# -- the same dags as tracing ----------------------------------------------


def test_a_built_dag_equals_the_traced_one(registry: ActionRegistry) -> None:
    @saga
    def inner(order: Order, shelf: int = 1) -> str:
        return pick(order.id, shelf)

    @saga(name="fulfil")
    def traced(order: Order, shelf: int) -> str:
        urgent = check(order)
        picked = fan_out(pick, order.lines, shelf=shelf)
        add.options(name="sum", retry=Retry(4), timeout=2, label="sum up").after("pick").when(urgent)(
            constant(3), 4
        )
        sub = inner.after(urgent)(order)
        return ship.after("sum", sub)(order, picked)

    builder = DagBuilder("fulfil", registry, params=("order", "shelf"))
    builder.add_node(action_node("check", check, inputs={"order": param("order")}))
    builder.add_node(
        action_node("pick", pick, each=("line", param("order", "lines")), inputs={"shelf": param("shelf")})
    )
    builder.add_node(constant_node("constant", 3))
    builder.add_node(
        action_node(
            "sum",
            add,
            inputs={"left": output("constant"), "right": 4},
            when=output("check"),
            retry=Retry(4),
            timeout=2,
            label="sum up",
        )
    )
    builder.add_dependency("pick", "sum")
    builder.add_node(
        subsaga_node("inner", inner, inputs={"order": param("order"), "shelf": 1}, after=["check"])
    )
    builder.add_node(
        action_node(
            "ship", ship, inputs={"order": param("order"), "lines": output("pick")}, after=["sum", "inner"]
        )
    )
    built = builder.build()
    assert built == traced.dag
    assert encode_dag(built) == traced.encoded
    assert decode_dag(encode_dag(built)) == built


# -- subsagas --------------------------------------------------------------


def inner_dag(registry: ActionRegistry) -> Dag:
    node = action_node("sum", add, inputs={"left": param("a"), "right": param("b")})
    return DagBuilder("inner", registry, params=("a", "b")).append(node).build()


def test_a_subsaga_takes_its_params_from_the_fields_of_one_node(registry: ActionRegistry) -> None:
    dag = (
        DagBuilder("outer", registry)
        .append(constant_node("numbers", {"a": 1, "b": 2}))
        .append(subsaga_node("sub", inner_dag(registry), params_node="numbers"))
        .append(action_node("more", add, inputs={"left": output("sub")}))
        .build()
    )
    sub = dag.node("sub")
    assert isinstance(sub, SubsagaNode)
    assert sub.inputs == {"a": output("numbers", "a"), "b": output("numbers", "b")}
    assert Plan(dag).index.keys() == {"numbers", "sub", "sub/sum", "more"}


def test_several_subsagas_side_by_side_keep_their_own_params(registry: ActionRegistry) -> None:
    inner = inner_dag(registry)
    builder = DagBuilder("outer", registry)
    builder.append_parallel(constant_node("x", {"a": 1, "b": 2}), constant_node("y", {"a": 3, "b": 4}))
    builder.append_parallel(
        subsaga_node("first", inner, params_node="x"), subsaga_node("second", inner, params_node="y")
    )
    dag = builder.append(
        action_node("end", add, inputs={"left": output("first"), "right": output("second")})
    ).build()
    first, second = dag.node("first"), dag.node("second")
    assert isinstance(first, SubsagaNode)
    assert isinstance(second, SubsagaNode)
    assert (first.inputs["a"], second.inputs["a"]) == (output("x", "a"), output("y", "a"))


# -- the table of errors ---------------------------------------------------

Build = Callable[[ActionRegistry], object]


def _cycle(registry: ActionRegistry) -> object:
    builder = DagBuilder("d", registry).append(action_node("a", step)).append(action_node("b", step))
    return builder.append(action_node("c", step)).add_dependency("c", "a").build()


def _itself(registry: ActionRegistry) -> object:
    return DagBuilder("d", registry).append(action_node("a", step)).add_dependency("a", "a").build()


def _duplicate(registry: ActionRegistry) -> object:
    return (
        DagBuilder("d", registry)
        .append(action_node("a", step))
        .append(action_node("a", add, inputs={"left": 1}))
        .build()
    )


def _empty_stage(registry: ActionRegistry) -> object:
    return DagBuilder("d", registry).append(action_node("a", step)).append_parallel().build()


def _no_nodes(registry: ActionRegistry) -> object:
    return DagBuilder("d", registry).build()


def _unknown_before(registry: ActionRegistry) -> object:
    return DagBuilder("d", registry).append(action_node("a", step)).add_dependency("zz", "a").build()


def _unknown_after(registry: ActionRegistry) -> object:
    return DagBuilder("d", registry).append(action_node("a", step)).add_dependency("a", "zz").build()


def _unknown_input(registry: ActionRegistry) -> object:
    return DagBuilder("d", registry).append(action_node("a", add, inputs={"left": output("zz")})).build()


def _unknown_param(registry: ActionRegistry) -> object:
    node = action_node("a", add, inputs={"left": param("q")})
    return DagBuilder("d", registry, params=("p",)).append(node).build()


def _unregistered(registry: ActionRegistry) -> object:
    return DagBuilder("d", ActionRegistry()).append(action_node("a", step)).build()


def _unregistered_inside(registry: ActionRegistry) -> object:
    inner = inner_dag(registry)
    builder = DagBuilder("d", ActionRegistry()).append(constant_node("n", {"a": 1, "b": 2}))
    return builder.append(subsaga_node("sub", inner, params_node="n")).build()


def _bad_subsaga_params(registry: ActionRegistry) -> object:
    node = subsaga_node("sub", inner_dag(registry), inputs={"a": 1, "c": 2})
    return DagBuilder("d", registry).append(node).build()


def _both_subsaga_params(registry: ActionRegistry) -> object:
    return subsaga_node("sub", inner_dag(registry), params_node="n", inputs={"a": 1})


def _late_params_node(registry: ActionRegistry) -> object:
    builder = DagBuilder("d", registry).append(subsaga_node("sub", inner_dag(registry), params_node="n"))
    return builder.append(constant_node("n", {"a": 1, "b": 2})).build()


def _no_single_output(registry: ActionRegistry) -> object:
    return DagBuilder("d", registry).append_parallel(action_node("a", step), action_node("b", step)).build()


def _unknown_output(registry: ActionRegistry) -> object:
    return DagBuilder("d", registry).append(action_node("a", step)).build(output=output("zz"))


def _no_expression(registry: ActionRegistry) -> object:
    wrong: Any = "a"
    return DagBuilder("d", registry).append(action_node("a", step)).build(output=wrong)


def _bad_name(registry: ActionRegistry) -> object:
    return DagBuilder("d", registry).append(action_node("a/b", step)).build()


def _missing_input(registry: ActionRegistry) -> object:
    return action_node("a", add)


def _no_such_input(registry: ActionRegistry) -> object:
    return action_node("a", add, inputs={"left": 1, "middle": 2})


def _input_of_wrong_type(registry: ActionRegistry) -> object:
    return action_node("a", add, inputs={"left": "one"})


def _constant_of_no_type(registry: ActionRegistry) -> object:
    return constant_node("a", object())


@pytest.mark.parametrize(
    ("build", "error", "says"),
    [
        (
            _cycle,
            DefinitionError,
            "dag d: a cycle: (a -> b -> c -> a|b -> c -> a -> b|c -> a -> b -> c); take one",
        ),
        (_itself, DefinitionError, "a cycle: a -> a"),
        (_duplicate, DefinitionError, "two nodes are named 'a'"),
        (_empty_stage, DefinitionError, "dag d: stage 2 is empty"),
        (_no_nodes, DefinitionError, "dag d: it has no nodes"),
        (_unknown_before, DefinitionError, "node 'a' depends on 'zz', which is no node"),
        (_unknown_after, DefinitionError, "add_dependency names 'zz', which is no node"),
        (_unknown_input, DefinitionError, "node 'a' depends on 'zz'"),
        (_unknown_param, DefinitionError, r"refers to the param 'q'; the params are \['p'\]"),
        (_unregistered, ActionNotFound, "dag d: no action is named 'step'; .*register it before"),
        (_unregistered_inside, ActionNotFound, "dag d: no action is named 'add'"),
        (
            _bad_subsaga_params,
            SubsagaCreateFailed,
            r"takes the params \['a', 'b'\] and is given \['a', 'c'\]",
        ),
        (_both_subsaga_params, SubsagaCreateFailed, "give params_node or inputs, not both"),
        (_late_params_node, DefinitionError, "a cycle"),
        (_no_single_output, DefinitionError, r"no single output: 2 nodes come last \(a, b\)"),
        (_unknown_output, DefinitionError, "its output refers to 'zz'"),
        (_no_expression, DefinitionError, r"output is of type str; give an expression"),
        (_bad_name, NameInvalid, "node name: 'a/b' holds '/'"),
        (
            _missing_input,
            DefinitionError,
            r"a, action add: the parameter 'left' is given nothing; it takes \(left: int, .*; give inputs={'left': ",
        ),
        (_no_such_input, DefinitionError, "it has no parameter 'middle'; it takes"),
        (_input_of_wrong_type, DefinitionError, "node a, action add, parameter left: .*`str` where `int`"),
        (_constant_of_no_type, DefinitionError, "constant a: cannot store value"),
    ],
)
def test_a_dag_that_cannot_run_is_refused_with_the_reason(
    registry: ActionRegistry, build: Build, error: type[CompensateError], says: str
) -> None:
    with pytest.raises(error, match=says):
        build(registry)


# -- from a dag to a saga --------------------------------------------------


def test_a_built_dag_becomes_a_saga_with_typed_params(registry: ActionRegistry) -> None:
    node = action_node("check", check, inputs={"order": param("order")})
    dag = DagBuilder("asked", registry, params=("order",)).append(node).build()
    made = saga_from_dag(dag, registry, params={"order": Order}, returns=bool)
    assert (made.name, made.dag, made.actions) == ("asked", dag, {"check": check})
    assert made.encode_params(order=Order("1")) == b'{"order":{"id":"1","lines":[],"urgent":false}}'
    assert made.output is not None
    assert made.output.type is bool
    with pytest.raises(ParamsInvalid, match="saga asked, parameter order"):
        made.encode_params(order=5)
    with pytest.raises(ParamsInvalid, match=r"missing a required (keyword-only )?argument: 'order'"):
        made.encode_params()


def test_a_saga_from_a_dag_needs_its_actions_and_knows_its_params(registry: ActionRegistry) -> None:
    dag = DagBuilder("d", registry).append(action_node("a", step)).build()
    with pytest.raises(ActionNotFound, match="no action is named 'step'"):
        saga_from_dag(dag, ActionRegistry())
    with pytest.raises(DefinitionError, match="it has no param 'order'"):
        saga_from_dag(dag, registry, params={"order": Order})


def test_ready_made_actions_are_nodes_like_others(registry: ActionRegistry) -> None:
    five, fail = action_constant(5, name="five"), inject_error_action()
    registry.register(five)
    registry.register(fail)
    dag = DagBuilder("d", registry).append(action_node("a", five)).append(action_node("b", fail)).build()
    assert dag.nodes == (ActionNode("a", "five"), ActionNode("b", "inject_error", after=("a",)))


def test_plain_inputs_are_stored_by_the_type_of_their_parameter() -> None:
    node = action_node("s", ship, inputs={"order": Order("1"), "lines": ["a"]})
    order, lines = node.inputs.values()
    assert order == Value(msgspec.Raw(b'{"id":"1","lines":[],"urgent":false}'))
    assert lines == Value(msgspec.Raw(b'["a"]'))


@action
async def echo(x: int) -> int:
    return x


_UNUSABLE: dict[str, Callable[[], Any]] = {
    "a text in place of a node": lambda: DagBuilder("d", ActionRegistry()).append("x"),  # type: ignore[arg-type]
    "a number in place of a list": lambda: action_node("a", echo, each=("x", 5)),
    "a value in place of a flag": lambda: action_node("a", echo, inputs={"x": 1}, when=True),  # type: ignore[arg-type]
    "a path with a float": lambda: output("a", 1.5),  # type: ignore[arg-type]
    "a path from the end": lambda: param("p", -1),
}


@pytest.mark.parametrize("make", _UNUSABLE.values(), ids=_UNUSABLE)
def test_what_a_dag_could_not_be_stored_or_run_with_is_refused_when_it_is_given(
    make: Callable[[], Any],
) -> None:
    with pytest.raises(DefinitionError):
        make()


def test_a_single_name_in_place_of_several_is_one_name(registry: ActionRegistry) -> None:
    first = action_node("first", echo, inputs={"x": 1})
    assert dependencies(action_node("last", echo, inputs={"x": 1}, after="first")) == ("first",)
    registry.register(echo)
    assert DagBuilder("d", registry, params="count").append(first).build().params == ("count",)


def test_subsagas_that_are_nested_too_deep_to_be_stored_are_refused_as_a_definition() -> None:
    dag = Dag("inner", (action_node("leaf", echo, inputs={"x": 1}),))
    registry = ActionRegistry()
    registry.register(echo)
    for level in range(DEEPEST):
        dag = Dag(f"level{level}", (SubsagaNode("inner", dag),))
    assert decode_dag(saga_from_dag(dag, registry).encoded) == dag
    for level in (DEEPEST, 2_000):
        for k in range(level - DEEPEST + 1):
            dag = Dag(f"more{level}_{k}", (SubsagaNode("inner", dag),))
        with pytest.raises(DefinitionError, match="too deep"):
            _ = saga_from_dag(dag, registry).encoded
