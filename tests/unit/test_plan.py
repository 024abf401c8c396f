"""The plan: a dag laid flat."""

from __future__ import annotations

import pytest
from msgspec import Raw

from compensate.core.dag import ConstantNode, Dag, Each, Ref, SubsagaNode
from compensate.core.plan import ACTION, BEGIN, CONSTANT, END, FAN_BEGIN, FAN_END, ROOT, Plan
from tests.support.driving import chain, dag, node

INNER = dag(node("x"), node("y", "x"))
GRAPH = dag(
    node("a"),
    ConstantNode("k", Raw(b"1")),
    SubsagaNode("s", dag(SubsagaNode("t", INNER), node("z", "t")), after=("a",)),
    node("f", "k", each=Each("e", Ref("a"))),
    node("end", "s", "f"),
)


def before(plan: Plan, path: str) -> set[str]:
    return {plan.names[i] for i in plan.ancestors(plan.index[path])} - {""}


def test_every_node_has_its_path_and_kind() -> None:
    plan = Plan(GRAPH)
    kinds = {path: plan.kinds[i] for path, i in plan.index.items()}
    assert kinds == {
        "a": ACTION, "k": CONSTANT, "s": END, "s/t": END, "s/t/x": ACTION, "s/t/y": ACTION, "s/z": ACTION,
        "f": FAN_END, "end": ACTION,
    }  # fmt: skip
    assert plan.kinds[plan.partner[plan.index["s/t"]]] == BEGIN
    assert plan.kinds[plan.partner[plan.index["f"]]] == FAN_BEGIN


def test_a_node_inside_a_subsaga_waits_for_what_the_subsaga_waits_for() -> None:
    plan = Plan(GRAPH)
    assert before(plan, "s/t/x") == {"a", "s", "s/t"}
    assert before(plan, "s/z") == {"a", "s", "s/t", "s/t/x", "s/t/y"}
    assert before(plan, "end") == {"a", "k", "s", "s/t", "s/t/x", "s/t/y", "s/z", "f"}


def test_edges_run_both_ways_and_each_once() -> None:
    plan = Plan(GRAPH)
    forward = sorted((dep, i) for i, deps in enumerate(plan.deps) for dep in deps)
    back = sorted((i, after) for i, dependants in enumerate(plan.dependants) for after in dependants)
    assert forward == back
    assert len(set(forward)) == len(forward)
    assert plan.missing == [len(deps) for deps in plan.deps]


def test_the_saga_begins_at_the_root_and_ends_at_its_partner() -> None:
    plan = Plan(GRAPH)
    assert plan.partner[ROOT] == plan.end
    assert plan.ancestors(plan.end) == set(range(len(plan.names))) - {plan.end}


def test_a_fan_out_expands_into_elements_of_the_copy_alone() -> None:
    plan = Plan(GRAPH)
    size = len(plan.names)
    own = plan.copy()
    within = own.expand(own.index["f"], 3)
    assert [own.names[i] for i in within] == ["f[0]", "f[1]", "f[2]"]
    assert {own.fan[i] for i in within} == {own.index["f"]}
    assert {"f[0]", "f[1]", "f[2]"} <= before(own, "end")
    assert before(own, "f[1]") == {"a", "k", "f"}
    assert len(plan.names) == len(plan.deps) == size
    assert "f[0]" not in plan.index
    assert before(plan, "end") == before(Plan(GRAPH), "end")


def edges(plan: Plan) -> int:
    return sum(map(len, plan.deps))


@pytest.mark.parametrize("shape", ["chain", "wide"])
def test_a_plan_grows_linearly_with_its_dag(shape: str) -> None:
    plans: list[Plan] = []
    for n in (100, 10_000):
        names = [f"n{k}" for k in range(n)]
        plans.append(Plan(chain(*names) if shape == "chain" else dag(*map(node, names))))
    small, large = plans
    assert len(large.names) - 2 == 100 * (len(small.names) - 2)
    assert edges(large) <= 100 * edges(small)


def test_deep_nests_are_laid_without_recursion() -> None:
    deep: Dag = dag(node("a"))
    for _ in range(1_000):
        deep = dag(SubsagaNode("s", deep))
    plan = Plan(deep)
    assert plan.index["s/" * 1_000 + "a"] > 0
