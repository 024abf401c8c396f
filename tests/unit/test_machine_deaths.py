"""Deaths of the process: counted per node and direction, what resets the count, and what becomes of a node given up."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from compensate.core import events as e
from compensate.core.dag import Dag
from compensate.core.policy import Retry
from compensate.core.standing import PLAIN, Standing
from compensate.errors import CorruptLog, IllegalRequest
from compensate.testing.checker import check
from tests.support.driving import BOOM, Run, chain, dag, node
from tests.support.logcheck import violations

REASON = "its process died 5 times while it ran"
ALL = ("retry", "skip", "resolve", "resolve with output")


def sound(run: Run) -> Run:
    assert check(run.plan.dag, run.log, saga_id="s", crashes=run.crashes) == []
    return run


def honest(run: Run) -> Run:
    assert violations(run.plan.dag, run.log) == []
    return sound(run)


def dying(run: Run, times: int = 5) -> Run:
    for _ in range(times):
        run.crash()
    return run


def given_up(graph: Dag | None = None) -> Run:
    """Stuck going forward at `b`, for deaths."""
    run = Run(chain("a", "b", "c") if graph is None else graph).ok("a")
    dying(run)
    assert run.end == "stuck"
    return run


def deaths(run: Run, path: str) -> list[int]:
    return [x.data.deaths for x in run.log if x.node == path and isinstance(x.data, e.InDoubt | e.UndoFailed)]


# -- counting --------------------------------------------------------------


@pytest.mark.parametrize("crashes", [1, 2, 5])
def test_a_node_is_given_up_at_so_many_deaths_and_the_saga_is_not_rolled_back(crashes: int) -> None:
    run = Run(chain("a", "b"), crashes=crashes).ok("a")
    dying(run, crashes - 1)
    assert run.doing == ["b"]
    assert run.machine.standing.deaths == crashes - 1
    run.crash()
    assert run.end == "stuck"
    assert run.doing == run.undoing == []
    times = "1 time" if crashes == 1 else f"{crashes} times"
    assert run.machine.stuck == e.SagaStuck(
        (e.StuckNode("b", f"its process died {times} while it ran", ALL),)
    )
    assert deaths(run, "b") == list(range(1, crashes + 1))
    assert run.machine.standing == Standing("stuck")
    honest(run)


def test_an_undo_is_given_up_in_the_same_way() -> None:
    run = dying(Run(chain("a", "b", "c")).ok("a", "b").fail("c"))
    assert run.end == "stuck"
    assert run.stuck() == {"b": ("retry", "skip", "resolve")}
    assert run.machine.stuck is not None
    assert run.machine.stuck.nodes[0].reason == REASON
    assert deaths(run, "b") == [1, 2, 3, 4, 5]
    honest(run.decide("resolve", "b").undone("a"))


@pytest.mark.parametrize("undo", [False, True])
def test_a_process_that_drained_or_released_its_sagas_did_not_die(undo: bool) -> None:
    """Such an end neither counts nor resets the count."""
    run = Run(chain("a", "b")).ok("a")
    if undo:
        run.fail("b")
    path = "a" if undo else "b"
    for _ in range(20):
        run.crash(died=False)
    assert deaths(run, path) == [0] * 20
    dying(run, 3)
    for _ in range(5):
        run.crash(died=False)
    assert run.machine.standing.deaths == 3
    dying(run, 1)
    assert run.status == ("rolling_back" if undo else "running")
    dying(run, 1)
    assert run.end == "stuck"
    assert [n for n in deaths(run, path) if n] == [1, 2, 3, 4, 5]
    sound(run)


RESETS: dict[str, Callable[[Run], object]] = {
    "failure": lambda run: run.machine.fail(run.i("b"), BOOM, run.now, clean=True),
    "doubt": lambda run: run.machine.doubt(run.i("b"), "unknown", run.now, error=BOOM),
    "failure after doubt": lambda run: run.machine.fail(run.i("b"), BOOM, run.now),
}


@pytest.mark.parametrize("outcome", RESETS)
def test_any_other_outcome_of_an_action_resets_its_count(outcome: str) -> None:
    run = dying(Run(dag(node("a"), node("b", "a", retry=Retry(9)))).ok("a"), 4)
    run.doing.clear()
    RESETS[outcome](run)
    assert run.machine.standing.deaths == 0
    run.go().until()
    dying(run, 4)
    assert run.doing == ["b"]
    assert deaths(run, "b")[-4:] == [1, 2, 3, 4]
    sound(run)
    assert honest(run.ok("b")).end == "completed"


def test_a_failed_undo_resets_its_count_and_its_actions_deaths_are_not_its_own() -> None:
    graph = dag(node("a", undo="unknown", undo_retry=Retry(9)))
    run = dying(Run(graph), 4).roll_back(grace=0.0).doubt("a", "cancelled")
    assert run.undoing == ["a"]
    dying(run, 4)
    assert run.undoing == ["a"]
    run.undo_fail("a").until()
    dying(run, 4)
    assert run.undoing == ["a"]
    honest(run.undone("a"))


def test_a_success_clears_the_standing() -> None:
    run = dying(Run(chain("a", "b")), 3)
    assert run.machine.standing == Standing("running", deaths=3)
    run.ok("a")
    assert run.machine.standing is PLAIN["running"]
    run.crash()
    assert run.machine.standing.deaths == 1
    honest(run.ok("b"))
    assert run.machine.standing is PLAIN["completed"]


def test_the_standing_is_that_of_the_most_suspicious_node() -> None:
    run = Run(dag(node("a"), node("b")))
    run.crash().ok("b")
    dying(run, 2)
    assert run.machine.standing.deaths == 3
    run.machine.pause(run.now)
    assert run.machine.standing == Standing("running", paused=True, deaths=3)


def test_siblings_go_on_beside_a_node_that_was_given_up() -> None:
    run = dying(Run(dag(node("a"), node("b"), node("c", "b"))), 4).ok("b")
    run.crash()
    assert run.doing == ["c"]
    assert run.status == "running"
    run.ok("c")
    assert run.end == "stuck"
    assert list(run.stuck()) == ["a"]
    honest(run)


def test_an_action_that_is_not_run_again_in_the_rollback_is_not_given_up() -> None:
    for undo in ("none", "unknown"):
        run = dying(Run(dag(node("a", undo=undo), node("b"))), 4).ok("b").roll_back()
        run.crash()
        assert run.status == "rolling_back"
        honest(run.finish())
        assert run.end == "rolled_back"


def test_an_action_that_is_run_again_to_learn_its_output_is_given_up_too() -> None:
    run = dying(Run(chain("a", "b")).ok("a"), 3).roll_back()
    run.crash().crash()
    assert run.end == "stuck"
    assert run.stuck() == {"b": ALL}
    honest(run.decide("skip", "b").undone("a"))


# -- deciding --------------------------------------------------------------


@pytest.mark.parametrize("crash", [False, True])
@pytest.mark.parametrize(("verb", "state"), [("skip", "skipped"), ("resolve", "resolved")])
def test_skip_and_resolve_begin_the_rollback_in_one_append(verb: str, state: str, crash: bool) -> None:
    run = given_up()
    if crash:
        run.crash()
    commits = run.commits
    run.decide(verb, "b")
    assert run.commits == commits + 1
    decided, rollback = run.log[-3:-1]
    assert (decided.node, decided.data) == ("b", e.Decided("ann", "w"))
    assert isinstance(rollback.data, e.Rollback)
    assert (rollback.data.cause, rollback.data.who, rollback.data.why) == ("request", "ann", "w")
    assert run.state("b") == state
    assert run.undoing == ["a"]
    run.crash()
    assert run.undoing == ["a"]
    assert honest(run.undone("a")).end == "rolled_back"


def test_after_retry_the_count_starts_anew() -> None:
    run = given_up().decide("retry", "b")
    assert run.doing == ["b"]
    dying(run, 4)
    assert run.doing == ["b"]
    assert deaths(run, "b")[-4:] == [1, 2, 3, 4]
    honest(run.ok("b", "c"))


def test_with_an_output_the_saga_goes_forward() -> None:
    run = given_up().decide("resolve with output", "b")
    assert honest(run.ok("c")).end == "completed"


def test_a_rollback_of_the_stuck_saga_leaves_the_node_given_up() -> None:
    """Its output is not learned by running it again; what else there is to undo is undone when it is decided."""
    graph = dag(node("a"), node("x"), node("b", "a"))
    run = Run(graph).ok("a", "x")
    dying(run)
    run.roll_back()
    assert run.doing == []
    assert run.undoing == ["x"]
    run.undone("x")
    assert run.end == "stuck"
    assert run.stuck() == {"b": ALL}
    assert honest(run.decide("resolve", "b").undone("a")).end == "rolled_back"


def test_an_undo_that_takes_none_runs_for_a_node_that_was_given_up() -> None:
    run = given_up(dag(node("a"), node("b", "a", undo="unknown"))).roll_back()
    assert run.undoing == ["b"]
    assert honest(run.undone("b", "a")).end == "rolled_back"


def test_a_deadline_rolls_back_around_a_node_that_was_given_up() -> None:
    run = dying(Run(dag(node("a"), node("b"), node("c", "b")), deadline=500.0), 4).ok("b")
    run.crash()
    assert run.doing == ["c"]
    run.pass_time(1e6)
    assert run.status == "rolling_back"
    run.doubt("c", "cancelled")
    run.ok("c").undone("c", "b")
    assert run.end == "stuck"
    assert run.stuck() == {"a": ALL}
    assert run.types("a").count("started") == 5
    honest(run.finish())


def test_a_failure_beside_it_rolls_back_around_it() -> None:
    run = Run(dag(node("a"), node("b")))
    dying(run, 4)
    run.doing.remove("b")
    run.machine.fail(run.i("b"), BOOM, run.now, clean=True)
    run.log += run.machine.take()
    run.crash()
    assert run.status == "stuck"
    assert run.machine.rollback is not None
    assert run.machine.rollback.node == "b"
    assert run.stuck() == {"a": ALL}
    sound(run)


@pytest.mark.parametrize("undo", ["output", "none"])
def test_after_a_pivot_it_can_be_retried_or_given_an_output(undo: str) -> None:
    run = Run(dag(node("a"), node("p", "a", pivot=True), node("b", "p", undo=undo, retry=Retry(2))))
    run.ok("a", "p")
    dying(run)
    assert run.stuck() == {"b": ("retry", "resolve with output")}
    with pytest.raises(IllegalRequest, match="pivot"):
        run.machine.roll_back(run.now)
    with pytest.raises(IllegalRequest, match="one can: retry, resolve with output"):
        run.machine.skip("b", run.now)
    assert honest(run.decide("retry", "b").ok("b")).end == "completed"


def test_a_pivot_that_was_given_up_and_cannot_be_undone_forbids_the_rollback() -> None:
    run = Run(dag(node("a"), node("p", "a", pivot=True, undo="none"))).ok("a")
    dying(run)
    assert run.stuck() == {"p": ("retry", "resolve with output")}
    with pytest.raises(IllegalRequest, match="pivot is in doubt"):
        run.machine.roll_back(run.now)


def test_a_saga_stuck_in_its_rollback_or_parked_cannot_be_rolled_back() -> None:
    run = dying(Run(chain("a", "b")).ok("a").fail("b"))
    with pytest.raises(IllegalRequest, match="decide about its stuck nodes"):
        run.machine.roll_back(run.now)
    parked = Run(chain("a"))
    parked.crash_before_next()
    parked.machine.park("no action", parked.now)
    with pytest.raises(IllegalRequest, match="bring the missing code back"):
        parked.machine.roll_back(parked.now)


# -- paused ----------------------------------------------------------------


def paused(run: Run) -> Run:
    """Paused, and its process has died once since."""
    run.machine.pause(run.now)
    run.go()
    run.crash()
    assert run.doing == run.undoing == []
    return run


@pytest.mark.parametrize("verb", ALL)
def test_a_paused_saga_takes_decisions_about_a_node_in_doubt(verb: str) -> None:
    run = paused(Run(chain("a", "b")).ok("a"))
    assert run.machine.choices(run.i("b")) == ALL
    run.decide(verb, "b")
    assert run.doing == run.undoing == []
    run.crash()
    run.machine.resume(run.now)
    run.go()
    honest(run.finish())
    assert run.end == ("completed" if verb in ("retry", "resolve with output") else "rolled_back")


@pytest.mark.parametrize("verb", ["retry", "skip", "resolve"])
def test_a_paused_rollback_takes_decisions_about_an_undo_that_waits(verb: str) -> None:
    run = Run(chain("a", "b", "c")).ok("a", "b").fail("c")
    run.machine.pause(run.now)
    run.undo_fail("b")
    assert run.machine.choices(run.i("b")) == ("retry", "skip", "resolve")
    run.decide(verb, "b")
    run.machine.resume(run.now)
    run.go()
    assert run.undoing == (["b"] if verb == "retry" else ["a"])
    honest(run.finish())


def test_a_paused_saga_takes_no_decision_about_what_runs_or_is_done_with() -> None:
    run = Run(dag(node("a"), node("b", undo="none"), node("x"))).ok("a")
    run.doubt("b")
    assert run.status == "rolling_back"
    run.machine.pause(run.now)
    for path in ("a", "b", "x"):
        assert run.machine.choices(run.i(path)) == (), path


# -- the log ---------------------------------------------------------------


def refused(run: Run, match: str) -> None:
    with pytest.raises(CorruptLog, match=match):
        run.fold()


def test_deaths_that_do_not_count_on_are_refused() -> None:
    for wrong in (2, 5):
        run = Run(chain("a"))
        run.log.append(
            e.Event(len(run.log) + 1, 1, 1.0, e.IN_DOUBT, "a", 1, e.InDoubt("crash", deaths=wrong))
        )
        refused(run, "deaths in a row")


def test_a_node_let_go_going_forward_has_to_be_followed_by_the_rollback() -> None:
    run = given_up().decide("skip", "b")
    run.log = run.log[:-2]
    run.fold()  # as far as that, a log can be read
    run.log.append(e.Event(len(run.log) + 1, 9, 1.0, e.SAGA_COMPLETED))
    refused(run, "no rollback begins")


def test_logs_from_before_deaths_were_counted_go_on() -> None:
    run = Run(chain("a"))
    for k in range(9):
        seq = len(run.log) + 1
        run.log.append(e.Event(seq, 1, 1.0, e.IN_DOUBT, "a", k + 1, e.InDoubt("crash")))
        run.log.append(e.Event(seq + 1, 1, 1.0, e.STARTED, "a", k + 2))
    assert dying(run, 4).doing == ["a"]
    assert deaths(run, "a")[-4:] == [1, 2, 3, 4]
