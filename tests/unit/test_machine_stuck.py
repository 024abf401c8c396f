"""Stuck: what goes on beside it, what an operator may decide, and what then happens."""

from __future__ import annotations

import pytest

from compensate.core import events as e
from compensate.core.dag import Dag
from compensate.core.policy import Retry
from compensate.errors import IllegalRequest
from tests.support.driving import Run, chain, dag, node
from tests.support.logcheck import violations

TWO = dag(node("a"), node("b"), node("a2", "a"), node("b2", "b"), node("z", "a2", "b2"))


def stuck_at_a2() -> Run:
    run = Run(TWO).ok("a", "b", "a2", "b2").fail("z")
    return run.undo_fail("a2", permanent=True).undone("b2", "b")


def honest(run: Run) -> None:
    assert run.end == "rolled_back"
    assert violations(run.plan.dag, run.log) == []


def test_a_failed_undo_is_tried_again_with_back_off_and_then_the_saga_is_stuck() -> None:
    run = Run(dag(node("a", undo_retry=Retry(3, first=2.0, factor=2.0)), node("b", "a"))).ok("a").fail("b")
    run.undo_fail("a")
    assert run.wait == 102.0
    run.until().undo_fail("a")
    assert run.wait == 106.0
    run.until().undo_fail("a")
    assert run.end == "stuck"
    assert run.stuck() == {"a": ("retry", "skip", "resolve")}
    assert run.machine.stuck is not None
    assert run.machine.stuck.nodes[0].reason == "shop.Boom: boom"


def test_back_off_of_undos_survives_a_crash() -> None:
    run = Run(dag(node("a", undo_retry=Retry(3, first=2.0, factor=2.0)), node("b", "a"))).ok("a").fail("b")
    run.undo_fail("a").until().undo_fail("a").crash()
    assert run.undoing == []
    assert run.wait == 106.0
    assert run.until().undo_fail("a").end == "stuck"


def test_a_permanent_failure_of_an_undo_is_not_tried_again() -> None:
    assert Run(chain("a", "b")).ok("a").fail("b").undo_fail("a", permanent=True).end == "stuck"


def test_branches_that_do_not_depend_on_the_stuck_node_go_on_undoing() -> None:
    run = Run(TWO).ok("a", "b", "a2", "b2").fail("z").undo_fail("a2", permanent=True)
    assert run.status == "rolling_back"
    assert run.undoing == ["b2"]
    run.undone("b2")
    assert run.undoing == ["b"]
    run.undone("b")
    assert run.end == "stuck"
    assert run.state("a") == "completed"
    assert list(run.stuck()) == ["a2"]


def test_nothing_runs_while_stuck_not_even_after_a_crash() -> None:
    run = stuck_at_a2()
    size = len(run.log)
    run.pass_time(1e6).crash()
    assert run.doing == run.undoing == []
    assert len(run.log) == size
    assert list(run.stuck()) == ["a2"]


@pytest.mark.parametrize("crash", [False, True], ids=["live", "recovered"])
@pytest.mark.parametrize(("verb", "state"), [("skip", "skipped"), ("resolve", "resolved")])
def test_skip_and_resolve_let_the_rollback_go_on(verb: str, state: str, crash: bool) -> None:
    run = stuck_at_a2()
    if crash:
        run.crash()
    run.decide(verb, "a2")
    assert run.state("a2") == state
    assert run.undoing == ["a"]
    honest(run.undone("a"))
    assert run.log[-4].data == e.Decided("ann", "w")


def test_retry_gives_the_undo_all_its_attempts_again() -> None:
    run = stuck_at_a2().decide("retry", "a2")
    assert run.undoing == ["a2"]
    run.undo_fail("a2")
    assert run.wait is not None
    run.until()
    honest(run.undone("a2", "a"))


def test_an_operator_may_decide_before_the_other_branches_are_done() -> None:
    run = Run(TWO).ok("a", "b", "a2", "b2").fail("z").undo_fail("a2", permanent=True)
    run.decide("skip", "a2")
    assert run.undoing == ["b2", "a"]
    honest(run.undone("b2", "a", "b"))


def test_several_stuck_nodes_are_all_named_and_each_needs_its_decision() -> None:
    run = Run(TWO).ok("a", "b", "a2", "b2").fail("z")
    run.undo_fail("a2", permanent=True).undo_fail("b2", permanent=True)
    assert sorted(run.stuck()) == ["a2", "b2"]
    run.decide("skip", "a2").undone("a")
    assert run.end == "stuck"
    assert list(run.stuck()) == ["b2"]
    honest(run.decide("resolve", "b2").undone("b"))


DOUBT = dag(node("z"), node("a", "z"))


def stuck_in_doubt(graph: Dag = DOUBT) -> Run:
    run = Run(graph).ok("z").doubt("a").fail("a")
    assert run.end == "stuck"
    return run


def test_a_node_stuck_in_doubt_may_be_given_its_output_and_is_then_undone_with_it() -> None:
    run = stuck_in_doubt().decide("resolve with output", "a", b'"id-7"')
    assert run.undoing == ["a"]
    assert run.machine.output[run.i("a")] == b'"id-7"'
    honest(run.undone("a", "z"))


@pytest.mark.parametrize("verb", ["skip", "resolve"])
def test_a_node_stuck_in_doubt_may_be_let_go(verb: str) -> None:
    honest(stuck_in_doubt().decide(verb, "a").undone("z"))


def test_a_node_stuck_in_doubt_may_be_run_again() -> None:
    run = stuck_in_doubt().decide("retry", "a")
    assert run.doing == ["a"]
    honest(run.ok("a").undone("a", "z"))


@pytest.mark.parametrize("verb", ["retry", "skip", "resolve", "resolve with output"])
def test_a_decision_about_a_node_that_is_not_stuck_is_refused_and_changes_nothing(verb: str) -> None:
    run = stuck_at_a2()
    size = len(run.log)
    for path in ("a", "b", "z"):
        with pytest.raises(IllegalRequest, match=path):
            run.decide(verb, path)
    with pytest.raises(IllegalRequest, match="no node 'ghost'"):
        run.machine.retry("ghost", run.now)
    assert len(run.log) == size
    assert run.status == "stuck"
    assert run.machine.take() == []


def test_an_output_makes_no_sense_for_an_undo_that_failed() -> None:
    with pytest.raises(IllegalRequest, match="retry, skip, resolve"):
        stuck_at_a2().decide("resolve with output", "a2")


@pytest.mark.parametrize("verb", ["skip", "resolve"])
def test_going_forward_a_stuck_node_cannot_be_let_go(verb: str) -> None:
    run = Run(dag(node("p", pivot=True), node("b", "p", retry=Retry(2)))).ok("p").fail("b", permanent=True)
    with pytest.raises(IllegalRequest, match="resolve with output"):
        run.decide(verb, "b")
    assert run.decide("resolve with output", "b").end == "completed"
    assert violations(run.plan.dag, run.log) == []


def test_going_forward_other_branches_go_on_beside_a_stuck_node() -> None:
    again = Retry(2)
    graph = dag(node("p", pivot=True), node("b", "p", retry=again), node("c", "p", retry=again))
    run = Run(graph).ok("p").fail("b", permanent=True)
    assert run.end is None
    assert run.ok("c").end == "stuck"
    assert list(run.stuck()) == ["b"]


def test_a_parked_saga_goes_on_when_its_code_is_back() -> None:
    run = Run(chain("a", "b")).ok("a")
    run.machine.take()
    run.crash_before_next()
    run.machine.park("no action do_b", run.now)
    run.go()
    assert run.status == "stuck"
    assert run.machine.stuck == e.SagaStuck(parked="no action do_b")
    run.machine.unpark(run.now)
    assert run.go().doing == ["b"]
    assert run.ok("b").end == "completed"
    assert violations(run.plan.dag, run.log) == []


def test_a_parked_rollback_goes_on_going_back() -> None:
    run = Run(chain("a", "b")).ok("a").fail("b")
    run.crash_before_next()
    run.machine.park("no action do_a", run.now)
    run.go()
    run.machine.unpark(run.now)
    assert run.status == "rolling_back"
    assert run.go().undoing == ["a"]
