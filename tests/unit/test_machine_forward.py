"""The machine going forward: order, retries, time, pausing, commits."""

from __future__ import annotations

from typing import Any

import pytest

from compensate.core import events as e
from compensate.core.commands import RunAction, RunUndo
from compensate.core.machine import Machine
from compensate.core.plan import Plan
from compensate.core.policy import Retry
from compensate.errors import CorruptLog, IllegalRequest
from tests.support.driving import Run, chain, dag, node
from tests.support.logcheck import violations

DIAMOND = dag(node("a"), node("b", "a"), node("c", "a"), node("d", "b", "c"))


def test_a_node_starts_when_all_that_it_waits_for_has_completed() -> None:
    run = Run(DIAMOND)
    assert run.doing == ["a"]
    assert run.ok("a").doing == ["b", "c"]
    assert run.ok("c").doing == ["b"]
    assert run.ok("b").doing == ["d"]
    assert run.ok("d").end == "completed"
    assert violations(DIAMOND, run.log) == []


@pytest.mark.parametrize("n", [1, 10, 57])
def test_a_chain_of_n_actions_takes_n_plus_one_commits(n: int) -> None:
    run = Run(chain(*(f"n{k}" for k in range(n))))
    for k in range(n):
        run.ok(f"n{k}")
    assert run.end == "completed"
    assert run.commits == n + 1


def test_an_output_is_kept_as_the_log_has_it() -> None:
    run = Run(chain("a", "b")).ok("a", output=b'{"x":1}')
    assert run.machine.output[run.i("a")] == b'{"x":1}'
    assert run.crash().machine.output[run.i("a")] == b'{"x":1}'


def test_no_more_than_room_run_at_once_and_all_run_in_the_end() -> None:
    run = Run(dag(*(node(f"n{k}") for k in range(10))), room=3)
    most = 0
    while run.end is None:
        most = max(most, len(run.doing))
        run.ok(run.doing[0])
    assert most == 3
    assert len(run.order) == 10
    assert run.end == "completed"


# -- retries ---------------------------------------------------------------


def test_a_failed_action_is_tried_again_after_its_delay_and_not_before() -> None:
    run = Run(dag(node("a", retry=Retry(3, first=4.0))))
    run.fail("a")
    assert run.doing == []
    assert run.wait == 104.0
    assert run.pass_time(3.9).doing == []
    assert run.pass_time(0.1).doing == ["a"]
    assert run.machine.attempt[run.i("a")] == 2


def test_back_off_and_attempts_survive_a_crash() -> None:
    run = Run(dag(node("a", retry=Retry(3, first=4.0, factor=2.0))))
    run.fail("a").until()
    run.fail("a")
    assert run.wait == 112.0
    run.pass_time(1.0).crash()
    assert run.doing == []
    assert run.wait == 112.0
    run.until()
    assert run.fail("a").end == "rolled_back"
    assert run.machine.attempt[run.i("a")] == 3


def test_a_crash_is_not_counted_as_an_attempt() -> None:
    run = Run(dag(node("a", retry=Retry(2, first=1.0))))
    for _ in range(4):
        run.crash()
        assert run.doing == ["a"]
    run.machine.fail(run.i("a"), e.ErrorInfo("x", "NoEffect"), run.now, clean=True)
    run.doing.clear()
    assert run.go().wait is not None


def test_a_permanent_failure_is_not_tried_again() -> None:
    assert Run(dag(node("a", retry=Retry(5)))).fail("a", permanent=True).end == "rolled_back"


def test_an_error_that_the_policy_excludes_is_not_tried_again() -> None:
    graph = dag(node("a", retry=Retry(5, never=KeyError)))
    assert Run(graph).fail("a", kinds=[["builtins.KeyError"]]).end == "rolled_back"
    assert Run(graph).fail("a", kinds=[["builtins.ValueError"]]).wait is not None


def test_a_node_in_doubt_going_forward_is_tried_again_under_its_attempts() -> None:
    run = Run(dag(node("a", retry=Retry(2)))).doubt("a", "timeout")
    assert run.state("a") == "in_doubt"
    run.until()
    assert run.ok("a").end == "completed"
    assert run.i("a") not in run.machine.doubted


# -- doubts ----------------------------------------------------------------


def test_after_a_doubt_a_plain_failure_leaves_the_node_in_doubt() -> None:
    run = Run(dag(node("a", retry=Retry(2)))).doubt("a").until()
    run.fail("a")
    assert [ev.type for ev in run.log if ev.node == "a"][:4] == ["started", "in_doubt", "started", "in_doubt"]
    assert run.log[4].data == e.InDoubt("failed_after_doubt", e.ErrorInfo("shop.Boom", "boom"))


def test_after_a_crash_a_plain_failure_leaves_the_node_in_doubt() -> None:
    run = Run(dag(node("a"))).crash()
    run.fail("a")
    assert "failed" not in run.types("a")


def test_no_effect_clears_every_earlier_doubt() -> None:
    run = Run(dag(node("a", undo="unknown", retry=Retry(3)))).doubt("a").until()
    run.doubt("a").until()
    run.fail("a", clean=True)
    assert run.end == "rolled_back"
    assert run.order == ["do a", "do a", "do a"]


def test_a_crash_while_actions_run_puts_them_in_doubt_and_runs_them_again_under_the_same_key() -> None:
    run = Run(dag(node("a"), node("b"))).crash()
    assert run.types("a") == ["started", "in_doubt", "started"]
    assert run.log[3].data == e.InDoubt("crash", deaths=1)
    assert sorted(run.doing) == ["a", "b"]
    assert {ev.epoch for ev in run.log[3:]} == {2}
    assert run.ok("a", "b").end == "completed"
    assert violations(run.plan.dag, run.log) == []


# -- deadline --------------------------------------------------------------


def test_a_deadline_rolls_back_and_after_the_grace_cancels_what_still_runs() -> None:
    run = Run(chain("a", "b"), deadline=110.0, grace=5.0).ok("a")
    assert run.wait == 110.0
    run.until()
    assert run.status == "rolling_back"
    assert "cancel b" not in run.order
    assert run.wait == 115.0
    run.until()
    assert run.order[-1] == "cancel b"
    run.doubt("b", "cancelled")
    assert run.order[-1] == "do b"  # its output is needed for its undo
    run.ok("b").undone("b", "a")
    assert run.end == "rolled_back"
    assert violations(run.plan.dag, run.log) == []


def test_a_saga_that_is_done_before_its_deadline_is_not_rolled_back() -> None:
    run = Run(chain("a"), deadline=110.0).ok("a")
    assert run.pass_time(100.0).end == "completed"
    assert run.status == "completed"


def test_a_deadline_survives_a_crash() -> None:
    run = Run(chain("a"), deadline=110.0, grace=1.0).crash()
    assert run.wait == 110.0
    run.pass_time(60.0)
    assert run.status == "rolling_back"


def test_a_deadline_means_nothing_once_a_pivot_has_completed() -> None:
    run = Run(dag(node("p", pivot=True), node("b", "p", retry=Retry(2))), deadline=110.0).ok("p")
    assert run.wait is None
    assert run.pass_time(60.0).status == "running"
    assert run.ok("b").end == "completed"


def test_a_deadline_waits_for_a_pivot_in_flight_and_gives_way_to_its_success() -> None:
    run = Run(dag(node("p", pivot=True)), deadline=110.0).until()
    assert run.status == "running"
    assert run.ok("p").end == "completed"
    run = Run(dag(node("a"), node("p", "a", pivot=True)), deadline=110.0).ok("a").until()
    run.fail("p")
    assert run.undoing == ["a"]


# -- pause -----------------------------------------------------------------


def test_a_paused_saga_starts_nothing_and_lets_what_runs_land() -> None:
    run = Run(DIAMOND)
    run.machine.pause(run.now, who="ann")
    assert run.go().ok("a").doing == []
    run.pass_time(1_000.0)
    assert run.doing == []
    run.machine.resume(run.now)
    assert run.go().doing == ["b", "c"]


def test_a_pause_survives_a_crash_and_repeating_it_records_nothing() -> None:
    run = Run(DIAMOND)
    run.machine.pause(run.now)
    run.machine.pause(run.now)
    run.go().crash()
    assert run.doing == []
    assert run.types().count("saga_paused") == 1
    run.machine.resume(run.now)
    run.machine.resume(run.now)
    assert run.go().doing == ["a"]
    assert run.types().count("saga_resumed") == 1


def test_a_paused_rollback_starts_no_undo() -> None:
    run = Run(chain("a", "b")).ok("a")
    run.machine.pause(run.now)
    assert run.fail("b").undoing == []
    run.machine.resume(run.now)
    assert run.go().undoing == ["a"]
    run.machine.pause(run.now)
    assert run.undone("a").end is None
    run.machine.resume(run.now)
    assert run.go().end == "rolled_back"


def test_a_saga_at_its_end_cannot_be_paused() -> None:
    run = Run(chain("a")).ok("a")
    with pytest.raises(IllegalRequest, match="completed"):
        run.machine.pause(run.now)


def test_a_saga_parked_while_paused_says_so_when_it_is_resumed() -> None:
    run = Run(chain("a"))
    run.machine.pause(run.now)
    run.go().crash()
    run.machine.park("no action do_a", run.now)
    with pytest.raises(IllegalRequest, match="stuck"):
        run.machine.resume(run.now)
    run.machine.unpark(run.now)
    run.machine.resume(run.now)
    assert run.go().doing == ["a"]


# -- pivot -----------------------------------------------------------------


def test_after_a_pivot_a_failure_is_retried_and_then_stuck_going_forward() -> None:
    run = Run(dag(node("a"), node("p", "a", pivot=True), node("b", "p", retry=Retry(2)))).ok("a", "p")
    run.fail("b").until()
    run.fail("b")
    assert run.end == "stuck"
    assert run.stuck() == {"b": ("retry", "resolve with output")}
    assert run.undoing == []
    run.decide("retry", "b")
    assert run.ok("b").end == "completed"
    assert violations(run.plan.dag, run.log) == []


def test_after_a_pivot_a_rollback_is_refused() -> None:
    run = Run(dag(node("p", pivot=True), node("b", "p", retry=Retry(2)))).ok("p")
    with pytest.raises(IllegalRequest, match="'p'"):
        run.machine.roll_back(run.now)
    run.ok("b")
    with pytest.raises(IllegalRequest, match="'p'"):
        run.machine.roll_back(run.now)


def test_a_rollback_waits_for_a_pivot_in_flight() -> None:
    run = Run(dag(node("a"), node("p", "a", pivot=True))).ok("a")
    assert run.machine.roll_back(run.now) is False
    assert run.fail("p").undoing == ["a"]


def test_a_failure_beside_a_pivot_in_flight_waits_for_its_end() -> None:
    graph = dag(node("a", retry=Retry(2)), node("p", pivot=True))
    failed = Run(graph).fail("a", permanent=True)
    assert failed.status == "running"
    assert failed.ok("p").end == "stuck"
    back = Run(graph).fail("a", permanent=True)
    assert back.fail("p").end == "rolled_back"


def test_a_pivot_in_doubt_that_nothing_can_undo_is_stuck_going_forward() -> None:
    run = Run(dag(node("a"), node("p", "a", undo="none", pivot=True))).ok("a").doubt("p")
    assert run.end == "stuck"
    assert run.undoing == []
    run.decide("resolve with output", "p")
    assert run.end == "completed"


# -- size ------------------------------------------------------------------


class Counting(list[list[int]]):
    """Counts how often the edges of a node are looked at."""

    def __init__(self, edges: list[list[int]]) -> None:
        super().__init__(edges)
        self.looks = 0

    def __getitem__(self, i: Any) -> Any:
        self.looks += 1
        return super().__getitem__(i)


def looks(n: int, shape: str) -> int:
    """How often edges are looked at while n nodes run, the last fails, and all is undone."""
    names = [f"n{k}" for k in range(n - 1)]
    graph = chain(*names, "z") if shape == "chain" else dag(*map(node, names), node("z", *names))
    plan = Plan(graph)
    deps, dependants = Counting(plan.deps), Counting(plan.dependants)
    plan.deps, plan.dependants = deps, dependants
    machine = Machine(plan, "s")
    machine.create(b"{}", 0.0)
    while commands := machine.next(0.0):
        for command in commands:
            if isinstance(command, RunUndo):
                machine.undo_succeed(command.node, 0.0)
            elif isinstance(command, RunAction) and plan.names[command.node] == "z":
                machine.fail(command.node, e.ErrorInfo("shop.Boom"), 0.0)
            elif isinstance(command, RunAction):
                machine.succeed(command.node, b"1", 0.0)
    assert machine.status == "rolled_back"
    return deps.looks + dependants.looks


@pytest.mark.parametrize("shape", ["chain", "wide"])
def test_edges_are_looked_at_a_fixed_number_of_times_for_each_node_forward_and_back(shape: str) -> None:
    assert looks(100, shape) >= 200
    assert looks(2_000, shape) <= 20 * looks(100, shape)


def test_a_folded_log_may_not_be_above_the_epoch_of_its_row() -> None:
    run = Run(chain("a")).crash()
    with pytest.raises(CorruptLog, match="epoch 2"):
        Machine.fold(run.plan, "s", run.log, 1)


def test_a_node_that_was_found_clean_is_no_longer_in_doubt_when_it_plainly_fails() -> None:
    run = Run(dag(node("a", retry=Retry(3, first=1.0))))
    run.doubt("a").until().fail("a", clean=True).until().fail("a")
    assert run.types("a")[-1] == e.FAILED
    assert run.end == "rolled_back"
    assert not run.machine.doubted


def test_a_group_is_tried_again_only_if_the_policy_allows_each_of_its_leaves() -> None:
    graph = dag(node("a", retry=Retry(3, on=ConnectionError, never=TimeoutError)))
    refused, late = ["builtins.ConnectionRefusedError", "builtins.ConnectionError"], ["builtins.TimeoutError"]
    assert Run(graph).fail("a", kinds=[refused, refused]).wait is not None
    assert Run(graph).fail("a", kinds=[refused, ["builtins.ValueError"]]).end == "rolled_back"
    assert Run(graph).fail("a", kinds=[refused, [*refused, *late]]).end == "rolled_back"


def test_a_wait_that_a_restart_interrupted_takes_no_longer_than_its_policy_says() -> None:
    run = Run(dag(node("a", retry=Retry(3, first=5.0))))
    run.fail("a")
    assert run.wait == run.now + 5.0
    run.now -= 3_600.0  # the clock is set back while the process is down
    run.crash()
    assert run.wait == run.now + 5.0


def test_an_action_that_returned_what_cannot_be_stored_is_not_run_again_to_learn_it() -> None:
    run = Run(dag(node("a", retry=Retry(5)), node("b", "a")))
    run.doubt("a", "unstorable", permanent=True)
    assert run.status == "stuck"
    assert run.doing == []
    assert run.stuck() == {"a": ("retry", "skip", "resolve", "resolve with output")}
    assert run.fold().status == "stuck"
    assert run.decide("resolve", "a").end == "rolled_back"


def test_an_undo_that_takes_none_undoes_what_could_not_be_stored() -> None:
    run = Run(dag(node("a", undo="unknown"))).doubt("a", "unstorable", permanent=True)
    assert run.undoing == ["a"]
    assert run.undone("a").end == "rolled_back"
