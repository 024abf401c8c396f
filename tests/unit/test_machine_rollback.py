"""The machine going back: which undos run, in which order, and what doubts do to them."""

from __future__ import annotations

import pytest

from compensate.core import events as e
from compensate.core.commands import RunAction, RunUndo
from compensate.core.machine import Machine
from compensate.core.plan import Plan
from compensate.core.policy import Retry
from compensate.errors import IllegalRequest
from tests.support.driving import BOOM, Run, chain, dag, node
from tests.support.logcheck import violations

DIAMOND = dag(node("a"), node("b", "a"), node("c", "a"), node("d", "b", "c"))


def honest(run: Run) -> None:
    assert run.end == "rolled_back"
    assert violations(run.plan.dag, run.log) == []


def test_undos_run_in_reverse_order_and_in_parallel_where_the_graph_allows() -> None:
    run = Run(DIAMOND).ok("a", "b", "c").fail("d")
    assert run.undoing == ["b", "c"] or run.undoing == ["c", "b"]
    assert run.undone("b").undoing == ["c"]
    assert run.undone("c").undoing == ["a"]
    honest(run.undone("a"))


@pytest.mark.parametrize("n", [2, 10])
def test_a_chain_whose_last_action_fails_takes_one_more_commit_a_node(n: int) -> None:
    names = [f"n{k}" for k in range(n)]
    run = Run(chain(*names)).ok(*names[:-1]).fail(names[-1])
    assert run.commits == n + 1
    run.undone(*reversed(names[:-1]))
    honest(run)
    assert run.commits == 2 * n


def test_the_failed_node_is_not_undone_by_an_undo_that_needs_the_output() -> None:
    run = Run(chain("a", "b")).ok("a").fail("b")
    assert run.order == ["do a", "do b", "undo a"]


def test_a_failed_node_is_undone_with_none_where_the_undo_takes_it() -> None:
    run = Run(dag(node("a"), node("b", "a", undo="unknown"))).ok("a").fail("b")
    assert run.undoing == ["b"]
    assert run.machine.output[run.i("b")] is None
    assert run.undone("b").undoing == ["a"]
    honest(run.undone("a"))


def test_a_failed_node_that_is_known_to_be_clean_is_not_undone() -> None:
    honest(Run(dag(node("a", undo="unknown"))).fail("a", clean=True))


def test_order_holds_through_nodes_without_undo() -> None:
    graph = dag(
        node("a"), node("m", "a", undo="none"), node("n", "m", undo="none"), node("z", "n"), node("x", "z")
    )
    run = Run(graph).ok("a", "m", "n", "z").fail("x")
    assert run.undoing == ["z"]
    assert run.undone("z").undoing == ["a"]
    honest(run.undone("a"))


def test_a_running_node_without_undo_holds_back_what_it_depends_on() -> None:
    graph = dag(node("a"), node("m", "a", undo="none"), node("x", "a"))
    run = Run(graph).ok("a").fail("x")
    assert run.undoing == []
    assert run.ok("m").undoing == ["a"]
    honest(run.undone("a"))


def test_running_siblings_are_left_to_land_and_are_then_undone() -> None:
    run = Run(dag(node("a"), node("b"), node("c", "b"))).fail("a")
    assert run.doing == ["b"]
    assert run.wait is None
    run.pass_time(10_000.0)
    assert "cancel b" not in run.order
    assert run.ok("b").doing == []  # c never starts
    honest(run.undone("b"))
    assert run.types("c") == []


def test_a_sibling_that_fails_too_needs_nothing_and_is_not_tried_again() -> None:
    run = Run(dag(node("a"), node("b", retry=Retry(5)))).fail("a").fail("b")
    honest(run)


def test_a_node_that_waits_for_its_next_attempt_is_not_tried_again_after_rollback_began() -> None:
    run = Run(dag(node("a"), node("b", retry=Retry(5)))).fail("b").fail("a")
    honest(run)
    assert run.order == ["do a", "do b"]


# -- doubts ----------------------------------------------------------------


def test_a_node_in_doubt_is_undone_with_none_where_the_undo_takes_it() -> None:
    run = Run(dag(node("a", undo="unknown"), node("b"))).doubt("a").fail("b")
    assert run.undoing == ["a"]
    honest(run.undone("a"))


def test_a_node_in_doubt_is_run_again_to_learn_its_output_and_then_undone() -> None:
    run = Run(dag(node("a"), node("b"))).doubt("a").fail("b")
    assert run.doing == ["a"]
    assert run.machine.attempt[run.i("a")] == 2
    run.ok("a", output=b"9")
    assert run.undoing == ["a"]
    assert run.machine.output[run.i("a")] == b"9"
    honest(run.undone("a"))


def test_a_node_run_again_waits_until_its_dependants_are_undone() -> None:
    graph = dag(node("a"), node("b", "a"), node("c", "b"))
    run = Run(graph).ok("a", "b").crash()
    assert run.doing == ["c"]
    run.doubt("c")
    assert run.order[-1] == "do c"
    run.ok("c").undone("c", "b", "a")
    honest(run)


def test_a_node_run_again_gets_all_its_attempts_and_then_is_stuck() -> None:
    run = Run(dag(node("z"), node("a", "z", retry=Retry(2, first=1.0)))).ok("z").doubt("a", permanent=True)
    assert run.doing == ["a"]
    run.fail("a")
    assert run.wait == 101.0
    run.until()
    run.fail("a")
    assert run.end == "stuck"
    assert run.stuck() == {"a": ("retry", "skip", "resolve", "resolve with output")}
    assert "undo_started" not in run.types("z")


def test_a_node_that_turns_out_clean_when_run_again_is_neither_undone_nor_tried_again() -> None:
    run = Run(dag(node("a", retry=Retry(3)), node("b"))).doubt("a").fail("b")
    assert run.doing == ["a"]
    run.fail("a", clean=True)
    honest(run)
    assert run.order == ["do a", "do b", "do a"]


def test_a_node_in_doubt_without_undo_needs_nothing() -> None:
    honest(Run(dag(node("a", undo="none"), node("b"))).doubt("a").fail("b"))


def test_a_crash_in_a_rollback_while_a_sibling_runs_puts_it_in_doubt_and_learns_its_output() -> None:
    run = Run(dag(node("a"), node("b"))).fail("a")
    run.crash()
    assert run.doing == ["b"]
    run.crash()
    assert run.doing == ["b"]
    run.ok("b").undone("b")
    honest(run)


def test_a_crash_during_an_undo_runs_it_again_and_is_not_counted() -> None:
    run = Run(dag(node("a", undo_retry=Retry(2)), node("b", "a"))).ok("a").fail("b")
    for _ in range(4):
        run.crash()
        assert run.undoing == ["a"]
    run.undo_fail("a").until()
    assert run.undoing == ["a"]
    honest(run.undone("a"))


# -- asked for -------------------------------------------------------------


def test_a_completed_saga_is_undone_whole() -> None:
    run = Run(DIAMOND).ok("a", "b", "c", "d")
    assert run.end == "completed"
    run.roll_back(who="ann", why="destroy")
    assert run.undoing == ["d"]
    honest(run.undone("d", "c", "b", "a"))
    assert run.machine.rollback == e.Rollback("request", who="ann", why="destroy", grace_until=130.0)


def test_a_rollback_by_request_cancels_what_still_runs_after_its_grace() -> None:
    run = Run(dag(node("a", undo="unknown"))).roll_back(grace=7.0)
    assert run.wait == 107.0
    assert run.pass_time(6.9).order == ["do a"]
    assert run.pass_time(0.1).order == ["do a", "cancel a"]
    assert run.pass_time(100.0).order == ["do a", "cancel a"]
    run.doubt("a", "cancelled")
    honest(run.undone("a"))


def test_a_node_run_again_to_learn_its_output_is_not_cancelled_by_the_grace() -> None:
    run = Run(dag(node("a"))).roll_back(grace=7.0).crash()
    assert run.doing == ["a"]
    assert "cancel a" not in run.pass_time(10.0).order
    honest(run.ok("a").undone("a"))


@pytest.mark.parametrize("state", ["rolling_back", "rolled_back", "stuck"])
def test_a_saga_that_goes_back_already_or_is_stuck_is_not_rolled_back_again(state: str) -> None:
    run = Run(chain("a", "b")).ok("a").fail("b")
    if state == "rolled_back":
        run.undone("a")
    elif state == "stuck":
        run.undo_fail("a", permanent=True)
    assert run.status == state
    why = "it is stuck; decide about its stuck nodes first"
    with pytest.raises(
        IllegalRequest, match=why if state == "stuck" else f"it is {state.replace('_', ' ')} already"
    ):
        run.machine.roll_back(run.now)


# -- threads that cannot be stopped ----------------------------------------


def test_a_timed_out_action_whose_thread_still_runs_is_not_tried_again_until_it_ends() -> None:
    run = Run(dag(node("a", retry=Retry(2, first=1.0))))
    run.machine.linger(run.i("a"))
    run.doubt("a", "timeout")
    run.until()
    assert run.doing == []
    assert run.pass_time(50.0).end is None
    run.machine.landed(run.i("a"))
    assert run.go().doing == ["a"]


def test_nothing_is_undone_that_a_lingering_node_depends_on() -> None:
    run = Run(dag(node("z"), node("a", "z", undo="none"))).ok("z")
    run.machine.linger(run.i("a"))
    run.doubt("a", "timeout")
    assert run.status == "rolling_back"
    assert run.undoing == []
    assert run.end is None
    run.machine.landed(run.i("a"))
    assert run.go().undoing == ["z"]
    honest(run.undone("z"))


@pytest.mark.parametrize("undo", ["none", "output"])
def test_a_node_given_its_output_while_its_thread_runs_holds_back_what_it_depends_on(undo: str) -> None:
    run = Run(dag(node("z"), node("a", "z", undo=undo), node("b", "a"))).ok("z")
    run.machine.linger(run.i("a"))
    run.machine.doubt(run.i("a"), "timeout", run.now, permanent=True)
    run.machine.resolve("a", run.now, output=b"1")
    run.go().fail("b")
    assert run.status == "rolling_back"
    assert run.undoing == []
    run.machine.landed(run.i("a"))
    assert run.go().undoing == (["z"] if undo == "none" else ["a"])


def test_a_skipped_undo_whose_thread_still_runs_releases_what_it_depends_on_once_and_only_at_its_end() -> (
    None
):
    graph = dag(node("a"), node("b", "a"), node("c", "a"), node("z", "b", "c"))
    run = Run(graph).ok("a", "b", "c").fail("z")
    run.machine.linger(run.i("b"))
    run.undo_fail("b", permanent=True)
    run.decide("skip", "b")
    run.machine.landed(run.i("b"))
    assert run.go().undoing == ["c"]
    assert run.undone("c").undoing == ["a"]
    honest(run.undone("a"))


# -- size ------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["chain", "wide"])
def test_100_000_nodes_run_and_roll_back_without_recursion_and_with_one_start_each(shape: str) -> None:
    n = 100_000
    if shape == "chain":
        graph = chain(*(f"n{k}" for k in range(n)))
    else:
        wide = [node(f"n{k}") for k in range(n - 1)]
        graph = dag(*wide, node("z", *(x.name for x in wide)))
    machine = Machine(Plan(graph), "s")
    machine.create(b"{}", 0.0)
    counts = {"do": 0, "undo": 0}
    commands = machine.next(0.0)
    while commands:
        for command in commands:
            if isinstance(command, RunAction):
                counts["do"] += 1
                if counts["do"] == n:
                    machine.fail(command.node, BOOM, 0.0)
                else:
                    machine.succeed(command.node, b"1", 0.0)
            elif isinstance(command, RunUndo):
                counts["undo"] += 1
                machine.undo_succeed(command.node, 0.0)
        commands = machine.next(0.0)
    assert machine.status == "rolled_back"
    assert counts == {"do": n, "undo": n - 1}
    assert machine.seq == 1 + 2 * n + 1 + 2 * (n - 1) + 1
