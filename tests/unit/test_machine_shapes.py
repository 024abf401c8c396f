"""Shapes: constants, subsagas, fan-outs, `when`; forward, back and after a crash."""

from __future__ import annotations

import pytest
from msgspec import Raw

from compensate.core.dag import ConstantNode, Each, Node, Ref, SubsagaNode
from compensate.core.policy import Retry
from tests.support.driving import Run, dag, node
from tests.support.logcheck import violations

ITEMS = Each("item", Ref("a"))
WHEN = Ref("a", ("gift",))


def honest(run: Run, end: str = "rolled_back") -> None:
    assert run.end == end
    assert violations(run.plan.dag, run.log) == []


def test_a_constant_completes_by_itself_and_leaves_no_event() -> None:
    run = Run(dag(ConstantNode("k", Raw(b"1")), node("a", "k"), ConstantNode("l", Raw(b"2"), after=("a",))))
    assert run.doing == ["a"]
    honest(run.ok("a"), "completed")
    assert run.types("k") == run.types("l") == []


def test_a_saga_of_constants_completes_at_once() -> None:
    assert Run(dag(ConstantNode("k", Raw(b"1")))).end == "completed"


# -- subsagas --------------------------------------------------------------

SUB = dag(node("a"), SubsagaNode("s", dag(node("a"), node("b", "a")), after=("a",)), node("z", "s"))


def test_nodes_of_a_subsaga_run_between_what_is_before_and_after_it() -> None:
    run = Run(SUB).ok("a")
    assert run.doing == ["s/a"]
    assert run.ok("s/a", "s/b").doing == ["z"]
    honest(run.ok("z"), "completed")


def test_a_subsaga_is_undone_node_by_node() -> None:
    run = Run(SUB).ok("a", "s/a", "s/b").fail("z")
    run.undone("s/b", "s/a", "a")
    honest(run)


def test_a_failure_inside_a_subsaga_undoes_what_came_before_it() -> None:
    run = Run(SUB).ok("a", "s/a").fail("s/b")
    assert run.undoing == ["s/a"]
    honest(run.undone("s/a", "a"))


def test_adjacent_and_nested_subsagas_hold_their_order_back_and_forth() -> None:
    inner = dag(node("x", undo="none"))
    graph = dag(
        SubsagaNode("s", dag(node("a"), SubsagaNode("t", inner, after=("a",)))),
        SubsagaNode("u", dag(node("a")), after=("s",)),
        node("z", "u"),
    )
    run = Run(graph).ok("s/a", "s/t/x", "u/a").fail("z")
    assert run.undoing == ["u/a"]
    assert run.undone("u/a").undoing == ["s/a"]
    honest(run.undone("s/a"))


# -- fan-outs --------------------------------------------------------------

FAN = dag(node("a"), node("f", each=ITEMS), node("z", "f"))


@pytest.mark.parametrize("count", [0, 1, 5])
def test_a_fan_out_runs_one_element_for_each_item_and_then_what_waits_for_it(count: int) -> None:
    run = Run(FAN, {"f": count}).ok("a")
    elements = [f"f[{k}]" for k in range(count)]
    assert run.doing == (elements or ["z"])
    run.ok(*elements)
    honest(run.ok("z"), "completed")
    assert run.types("f") == ["expanded"]


@pytest.mark.parametrize("count", [0, 1, 5])
def test_a_fan_out_is_undone_element_by_element_before_what_it_depends_on(count: int) -> None:
    run = Run(FAN, {"f": count}).ok("a")
    elements = [f"f[{k}]" for k in range(count)]
    run.ok(*elements).fail("z")
    assert sorted(run.undoing) == (elements or ["a"])
    run.undone(*elements, "a")
    honest(run)


def test_one_failing_element_lets_the_others_land_and_undoes_them() -> None:
    run = Run(FAN, {"f": 3}).ok("a", "f[0]").fail("f[1]")
    assert run.undoing == ["f[0]"]
    run.undone("f[0]")
    assert run.undoing == []
    run.ok("f[2]").undone("f[2]")
    assert run.undoing == ["a"]
    honest(run.undone("a"))


def test_elements_that_never_started_do_not_let_go_of_what_comes_before_a_fan_out() -> None:
    run = Run(FAN, {"f": 3}, room=1).ok("a")
    assert run.doing == ["f[0]"]
    run.roll_back()
    assert run.undoing == []
    run.ok("f[0]")
    assert run.undoing == ["f[0]"]
    run.undo_fail("f[0]", permanent=True)
    assert run.end == "stuck"
    run.decide("resolve", "f[0]").undone("a")
    honest(run)


def test_an_expansion_is_read_back_from_the_log() -> None:
    run = Run(FAN, {"f": 3}).ok("a", "f[1]").crash()
    assert sorted(run.doing) == ["f[0]", "f[2]"]
    assert run.types("f") == ["expanded"]
    honest(run.ok("f[0]", "f[2]", "z"), "completed")


def test_two_sagas_of_one_plan_expand_apart() -> None:
    run, other = Run(FAN, {"f": 3}), Run(FAN, {"f": 1})
    other.plan = run.plan
    run.ok("a")
    other.crash().ok("a")
    assert run.doing == ["f[0]", "f[1]", "f[2]"]
    assert other.doing == ["f[0]"]


# -- when ------------------------------------------------------------------

BRANCHES: dict[str, Node] = {
    "action": node("s", when=WHEN),
    "fan-out": node("s", when=WHEN, each=ITEMS),
    "subsaga": SubsagaNode("s", dag(node("x"), node("y", "x")), when=WHEN),
}
BRANCH = pytest.mark.parametrize("kind", list(BRANCHES))


@BRANCH
def test_a_branch_that_is_not_taken_is_skipped_and_the_rest_goes_on(kind: str) -> None:
    run = Run(dag(node("a"), BRANCHES[kind], node("z", "s")), {"s": False}).ok("a")
    assert run.doing == ["z"]
    assert run.types("s") == ["branch_skipped"]
    assert run.state("s") == "skipped"
    honest(run.ok("z"), "completed")


@BRANCH
def test_order_holds_through_a_branch_that_was_skipped(kind: str) -> None:
    run = (
        Run(dag(node("a"), BRANCHES[kind], node("d", "s"), node("z", "d")), {"s": False})
        .ok("a", "d")
        .fail("z")
    )
    assert run.undoing == ["d"]
    honest(run.undone("d", "a"))


def test_a_branch_that_is_taken_runs_and_the_decision_is_recorded_once() -> None:
    run = Run(dag(node("a"), BRANCHES["subsaga"], node("z", "s")), {"s": True}).ok("a")
    assert run.doing == ["s/x"]
    run.crash()
    honest(run.ok("s/x", "s/y", "z"), "completed")
    assert run.types("s") == ["branch_taken"]


def test_a_fan_out_may_be_asked_first_whether_and_then_how_often() -> None:
    graph = dag(node("a"), BRANCHES["fan-out"], node("z", "s"))
    run = Run(graph, {"s": 2}).ok("a")
    assert run.types("s") == ["branch_taken", "expanded"]
    assert run.doing == ["s[0]", "s[1]"]


def test_each_question_is_asked_once_also_when_the_log_was_cut_between_answers() -> None:
    graph = dag(node("a"), BRANCHES["fan-out"], node("b", when=WHEN))
    run = Run(graph, {"s": 2, "b": True}).ok("a")
    taken = next(k for k, event in enumerate(run.log) if event.type == "branch_taken")
    del run.log[taken + 1 :]
    run.crash()
    assert sorted(run.doing) == ["b", "s[0]", "s[1]"]
    assert violations(graph, run.log) == []


# -- pivots ----------------------------------------------------------------


def test_a_pivot_inside_a_subsaga_counts() -> None:
    graph = dag(
        node("a"), SubsagaNode("s", dag(node("p", pivot=True)), after=("a",)), node("z", "s", retry=Retry(2))
    )
    run = Run(graph).ok("a", "s/p").fail("z", permanent=True)
    assert run.end == "stuck"
    assert run.undoing == []


def test_a_skipped_pivot_lets_the_saga_go_back() -> None:
    graph = dag(node("a"), node("p", when=WHEN, pivot=True), node("z", "p", retry=Retry(2)))
    run = Run(graph, {"p": False}).ok("a").fail("z", permanent=True)
    honest(run.undone("a"))
