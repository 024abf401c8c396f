"""The dag: what it refuses, with the place named."""

from __future__ import annotations

from itertools import pairwise

import pytest
from msgspec import Raw

from compensate.core.dag import (
    PARAMS,
    ActionNode,
    ConstantNode,
    Dag,
    Each,
    Fields,
    Items,
    Ref,
    SubsagaNode,
    Value,
    dependencies,
    references,
    validate,
)
from compensate.core.policy import Retry
from compensate.errors import DefinitionError, NameInvalid, SubsagaCreateFailed
from tests.support.driving import chain, dag, node


def refuse(graph: Dag, *words: str) -> str:
    with pytest.raises(DefinitionError) as caught:
        validate(graph)
    for word in words:
        assert word in str(caught.value)
    return str(caught.value)


def test_references_are_found_however_deep_and_without_recursion() -> None:
    deep: Items | Ref | Fields = Ref("a")
    for _ in range(5_000):
        deep = Items((deep, Value(Raw(b"1"))))
    assert [ref.node for ref in references(Fields({"x": deep, "y": Ref("b")}))] in (["a", "b"], ["b", "a"])


def test_dependencies_are_inputs_when_items_and_after_each_once_and_not_the_params() -> None:
    spec = ActionNode(
        "n",
        "x",
        {"p": Ref(PARAMS, ("q",)), "i": Items((Ref("a"), Ref("b"), Ref("a")))},
        ("d", "a"),
        when=Ref("c"),
        each=Each("e", Ref("f")),
    )
    assert set(dependencies(spec)) == {"a", "b", "c", "d", "f"}
    assert len(dependencies(spec)) == 5
    assert dependencies(ConstantNode("c", Raw(b"1"), after=("a",))) == ("a",)


def test_a_dag_without_nodes_is_refused() -> None:
    refuse(dag(), "dag d", "no nodes")


def test_a_name_used_twice_is_refused() -> None:
    refuse(dag(node("a"), node("a")), "dag d", "'a'")


def test_the_same_name_in_a_subsaga_is_another_node() -> None:
    validate(dag(node("a"), SubsagaNode("s", dag(node("a"), node("s"))), SubsagaNode("t", dag(node("a")))))


@pytest.mark.parametrize("name", ["", "a/b", "a[0]", "..", "x" * 201, " a"])
def test_a_bad_name_of_a_node_or_dag_is_refused(name: str) -> None:
    with pytest.raises(NameInvalid):
        validate(dag(node(name)))
    with pytest.raises(NameInvalid):
        validate(dag(node("a"), name=name))


@pytest.mark.parametrize(
    "spec",
    [
        node("a", "ghost"),
        node("a", inputs={"p": Ref("ghost")}),
        node("a", when=Ref("ghost")),
        node("a", each=Each("e", Ref("ghost"))),
        ConstantNode("a", Raw(b"1"), after=("ghost",)),
        SubsagaNode("a", dag(node("x"), params=("p",)), {"p": Items((Ref("ghost"),))}),
    ],
    ids=["after", "input", "when", "each", "constant", "subsaga"],
)
def test_an_unknown_dependency_is_refused(spec: ActionNode | ConstantNode | SubsagaNode) -> None:
    refuse(dag(node("b"), spec), "'a'", "'ghost'")


def test_an_unknown_param_is_refused() -> None:
    refuse(dag(node("a", inputs={"x": Ref(PARAMS, ("q",))}), params=("p",)), "'a'", "'q'", "'p'")
    validate(dag(node("a", inputs={"x": Ref(PARAMS, ("p", 0)), "y": Ref(PARAMS)}), params=("p",)))


def test_an_output_that_nobody_makes_is_refused() -> None:
    refuse(dag(node("a"), output=Ref("b")), "output", "'b'")
    refuse(dag(node("a"), output=Fields({"x": Ref(PARAMS, ("p",))})), "output", "'p'")


def test_a_subsaga_sees_no_node_outside_it() -> None:
    refuse(dag(node("a"), SubsagaNode("s", dag(node("x", "a")))), "subsaga s", "'a'")
    refuse(dag(SubsagaNode("s", dag(node("x"))), node("a", "x")), "'x'")


@pytest.mark.parametrize("given", [{}, {"p": Ref("a"), "q": Ref("a")}, {"q": Ref("a")}], ids=str)
def test_a_subsaga_gets_exactly_the_params_that_it_takes(given: dict[str, Ref]) -> None:
    with pytest.raises(SubsagaCreateFailed, match=r"'s'.*'p'"):
        validate(dag(node("a"), SubsagaNode("s", dag(node("x"), params=("p",)), dict(given))))


# -- cycles ----------------------------------------------------------------


def test_a_cycle_is_named_in_the_order_of_its_edges() -> None:
    said = refuse(dag(node("a", "c"), node("b", "a"), node("c", "b"), node("z", "a")), "a cycle: ")
    walk = said.split("a cycle: ")[1].split(";")[0].split(" -> ")
    assert walk[0] == walk[-1]
    assert sorted(walk[1:]) == ["a", "b", "c"]
    assert all(pair in {("a", "b"), ("b", "c"), ("c", "a")} for pair in pairwise(walk))


def test_a_node_that_waits_for_itself_is_a_cycle() -> None:
    refuse(dag(node("a", "a")), "a -> a")


def test_only_the_cycle_is_named_and_not_what_leads_to_or_from_it() -> None:
    nodes = [node("in"), node("x", "in", "y"), node("y", "x")]
    nodes += [node(f"t{k}", "y" if k == 0 else f"t{k - 1}") for k in range(50)]
    said = refuse(dag(*nodes), "x", "y")
    assert "t1" not in said
    assert "in ->" not in said


def test_a_cycle_of_100_000_nodes_is_named_shortly() -> None:
    n = 100_000
    said = refuse(dag(*(node(f"n{k}", f"n{(k - 1) % n}") for k in range(n))), "more")
    assert len(said) < 300


def test_a_cycle_inside_a_subsaga_names_the_subsaga() -> None:
    refuse(dag(SubsagaNode("s", dag(node("a", "b"), node("b", "a")))), "subsaga s", "cycle")


@pytest.mark.parametrize("n", [100_000])
def test_a_chain_of_100_000_nodes_is_validated_without_recursion(n: int) -> None:
    validate(dag(*(node(f"n{k}", *([f"n{k - 1}"] if k else [])) for k in range(n))))


def test_subsagas_nested_deeply_are_validated_without_recursion() -> None:
    deep = dag(node("a"))
    for _ in range(2_000):
        deep = dag(SubsagaNode("s", deep))
    validate(deep)


# -- pivots ----------------------------------------------------------------


def test_what_may_fail_after_a_pivot_must_be_retriable() -> None:
    refuse(dag(node("p", pivot=True), node("b", "p")), "'b'", "'p'", "retry")
    validate(dag(node("p", pivot=True), node("b", "p", retry=Retry(2))))


def test_what_runs_beside_a_pivot_must_be_retriable_or_come_before_it() -> None:
    refuse(dag(node("b"), node("p", pivot=True)), "'b'", "'p'")
    validate(dag(node("b"), node("p", "b", pivot=True)))


def test_a_constant_after_a_pivot_cannot_fail() -> None:
    validate(dag(node("p", pivot=True), ConstantNode("c", Raw(b"1"), after=("p",))))


def test_a_subsaga_after_a_pivot_is_checked_inside() -> None:
    refuse(dag(node("p", pivot=True), SubsagaNode("s", dag(node("x")), after=("p",))), "'s/x'", "'p'")
    validate(dag(node("p", pivot=True), SubsagaNode("s", dag(node("x", retry=Retry(2))), after=("p",))))


def test_a_pivot_inside_a_subsaga_binds_what_comes_after_the_subsaga() -> None:
    refuse(dag(SubsagaNode("s", dag(node("p", pivot=True))), node("b", "s")), "'b'", "'s'")


def test_a_node_beside_a_pivot_inside_a_subsaga_must_be_retriable() -> None:
    refuse(dag(SubsagaNode("s", dag(node("x"), node("p", pivot=True)))), "'x'", "'p'")


def test_a_second_pivot_after_a_pivot_must_be_retriable() -> None:
    refuse(dag(node("p", pivot=True), node("q", "p", pivot=True)), "'q'")
    validate(dag(node("p", pivot=True), node("q", "p", pivot=True, retry=Retry(2))))


def test_a_fan_out_cannot_be_a_pivot() -> None:
    refuse(dag(node("a"), node("p", each=Each("x", Ref("a")), pivot=True)), "'p'", "fan-out")


def test_a_node_is_found_by_its_name() -> None:
    graph = chain("a", "b")
    assert graph.node("b").name == "b"
    with pytest.raises(DefinitionError, match="'c'"):
        graph.node("c")
