"""The fold: logs that cannot be are refused, with the event named, and never guessed at."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from compensate.core import events as e
from compensate.core.dag import ActionNode, Each, Ref, SubsagaNode
from compensate.core.events import Event
from compensate.core.log import Fold
from compensate.core.plan import Plan
from compensate.core.policy import Retry
from compensate.errors import CorruptLog
from tests.support.driving import BOOM, Run, chain, dag, node

OUT = e.Completed(b"1")
ROLLBACK = e.Rollback("request")
STUCK = e.SagaStuck((e.StuckNode("a", "why", ("retry",)),))


def refused(run: Run, type: str, node: str = "", attempt: int = 0, data: e.Data = None, **more: int) -> str:
    """Append one event to the run's log; the fold must refuse it and say which it is."""
    fold = run.fold()
    seq, epoch = fold.seq + more.get("skip", 1), more.get("epoch", max(fold.epoch, 1))
    with pytest.raises(CorruptLog) as caught:
        fold.apply(Event(seq, epoch, run.now, type, node, attempt, data))
    assert f"event {seq} ({type}" in str(caught.value)
    assert "saga s" in str(caught.value)
    return str(caught.value)


# -- sequence and epochs ---------------------------------------------------


@pytest.mark.parametrize("skip", [-1, 0, 2, 100])
def test_a_gap_or_a_repetition_in_the_sequence_is_refused(skip: int) -> None:
    assert "expected seq 3" in refused(Run(chain("a")), e.COMPLETED, "a", 1, OUT, skip=skip)


def test_an_epoch_below_an_earlier_one_is_refused() -> None:
    run = Run(chain("a", "b")).crash()
    assert "epoch" in refused(run, e.COMPLETED, "a", 2, OUT, epoch=1)


def test_a_log_that_does_not_begin_with_the_creation_is_refused() -> None:
    for event in (Event(1, 1, 0.0, e.STARTED, "a", 1), Event(1, 1, 0.0, e.SAGA_COMPLETED)):
        with pytest.raises(CorruptLog):
            Fold(Plan(chain("a")), "s").apply(event)


def test_a_second_creation_is_refused() -> None:
    refused(Run(chain("a")), e.SAGA_CREATED, data=e.Created(b"{}"))


def test_an_unknown_node_or_type_is_refused() -> None:
    run = Run(chain("a"))
    refused(run, e.COMPLETED, "ghost", 1, OUT)
    refused(run, "exploded", "a", 1)
    refused(run, "exploded")
    refused(run, e.SAGA_PAUSED, "a", 0, e.Decided())
    refused(run, e.STARTED)


# -- actions ---------------------------------------------------------------


def test_a_start_out_of_its_turn_is_refused() -> None:
    refused(Run(chain("a", "b")), e.STARTED, "b", 1)


@pytest.mark.parametrize("type", [e.STARTED, e.COMPLETED, e.FAILED, e.IN_DOUBT])
def test_a_completed_node_takes_no_other_event_of_its_action(type: str) -> None:
    data: dict[str, e.Data] = {e.COMPLETED: OUT, e.FAILED: e.Failed(BOOM), e.IN_DOUBT: e.InDoubt("crash")}
    refused(Run(chain("a", "b")).ok("a"), type, "a", 2 if type == e.STARTED else 1, data.get(type))


@pytest.mark.parametrize("attempt", [0, 2, -1])
def test_a_landing_of_another_attempt_is_refused(attempt: int) -> None:
    refused(Run(chain("a")), e.COMPLETED, "a", attempt, OUT)


@pytest.mark.parametrize("attempt", [0, 1, 3])
def test_a_start_that_does_not_count_on_is_refused(attempt: int) -> None:
    refused(Run(dag(node("a", retry=Retry(3)))).fail("a"), e.STARTED, "a", attempt)


def test_a_plain_failure_after_a_doubt_is_refused() -> None:
    run = Run(dag(node("a"))).crash()
    refused(run, e.FAILED, "a", 2, e.Failed(BOOM))
    run.fold().apply(Event(len(run.log) + 1, 2, run.now, e.FAILED, "a", 2, e.Failed(BOOM, clean=True)))


def test_a_start_after_the_attempts_were_used_up_is_refused() -> None:
    run = Run(dag(node("p", pivot=True), node("b", "p", retry=Retry(2)))).ok("p").fail("b", permanent=True)
    run.log.pop()  # stuck
    refused(run, e.STARTED, "b", 2)


def test_an_event_of_an_action_about_a_subsaga_or_fan_out_is_refused() -> None:
    fan = ActionNode("f", "f", each=Each("x", Ref("a")))
    run = Run(dag(node("a"), SubsagaNode("s", chain("x")), fan), {"f": 2}).ok("a")
    refused(run, e.COMPLETED, "f", 0, OUT)
    refused(run, e.STARTED, "s", 1)
    refused(run, e.STARTED, "f[2]", 1)


# -- answers ---------------------------------------------------------------


def test_an_answer_that_nobody_asked_for_is_refused() -> None:
    run = Run(chain("a", "b"))
    refused(run, e.BRANCH_TAKEN, "b")
    refused(run, e.EXPANDED, "b", 0, e.Expanded(1))
    run.ok("a")
    run.log.pop()  # b started
    refused(run, e.BRANCH_TAKEN, "b")
    refused(run, e.BRANCH_SKIPPED, "b")


def test_a_second_answer_is_refused() -> None:
    graph = dag(node("a"), node("t", when=Ref("a")), ActionNode("f", "f", each=Each("x", Ref("a"))))
    run = Run(graph, {"t": True, "f": 1}).ok("a")
    cut = next(k for k, event in enumerate(run.log) if event.type == e.STARTED and event.node != "a")
    del run.log[cut:]
    refused(run, e.BRANCH_TAKEN, "t")
    refused(run, e.BRANCH_SKIPPED, "t")
    refused(run, e.EXPANDED, "f", 0, e.Expanded(1))


# -- rollback --------------------------------------------------------------


def test_an_undo_without_a_rollback_is_refused() -> None:
    refused(Run(chain("a", "b")).ok("a"), e.UNDO_STARTED, "a", 1)


def test_an_undo_before_that_of_a_dependant_is_refused() -> None:
    refused(Run(chain("a", "b", "c")).ok("a", "b").fail("c"), e.UNDO_STARTED, "a", 1)


def test_an_undo_beside_a_running_dependant_is_refused() -> None:
    run = Run(dag(node("a"), node("b", "a", undo="none"), node("c", "a"))).ok("a").fail("c")
    refused(run, e.UNDO_STARTED, "a", 1)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Run(dag(node("x"), node("a", undo="none"), node("z", "x", "a"))).ok("x", "a").fail("z"),
        lambda: Run(dag(node("x"), node("a", "x"))).ok("x").fail("a"),
        lambda: Run(dag(node("x"), node("a", "x", undo="unknown"))).ok("x").fail("a", clean=True),
        lambda: Run(dag(node("x"), node("a", "x"))).ok("x").doubt("a").fail("a"),
        lambda: Run(dag(node("x"), node("a", "x"), node("b"))).ok("x", "a").fail("b").undone("a"),
        lambda: (
            Run(dag(node("x"), node("a", "x"), node("b")))
            .ok("x", "a")
            .fail("b")
            .undo_fail("a", permanent=True)
        ),
    ],
    ids=["no undo", "failed", "clean", "in doubt without output", "undone", "given up"],
)
def test_an_undo_of_a_node_with_nothing_to_undo_or_no_output_is_refused(make: Callable[[], Run]) -> None:
    run = make()
    if run.log[-1].type == e.SAGA_STUCK:
        run.log.pop()
    attempt = run.machine.undo_attempt.get(run.i("a"), 0) + 1
    refused(run, e.UNDO_STARTED, "a", attempt)


def test_a_start_after_rollback_began_is_refused() -> None:
    run = Run(dag(node("a"), node("b"), node("c", "b"), node("d", retry=Retry(3)))).fail("d").fail("a")
    refused(run, e.STARTED, "c", 1)
    refused(run, e.STARTED, "d", 2)


@pytest.mark.parametrize("undo", ["none", "unknown"])
def test_a_node_in_doubt_whose_undo_needs_no_output_is_not_run_again(undo: str) -> None:
    run = Run(dag(node("a", undo=undo), node("b"), node("c"))).doubt("a").fail("b")
    del run.log[next(k for k, event in enumerate(run.log) if event.type == e.SAGA_ROLLBACK) + 1 :]
    refused(run, e.STARTED, "a", 2)


def test_a_rollback_after_a_pivot_or_while_one_is_in_flight_is_refused() -> None:
    run = Run(dag(node("p", pivot=True), node("b", "p", retry=Retry(2))))
    refused(run, e.SAGA_ROLLBACK, data=ROLLBACK)
    refused(run.ok("p"), e.SAGA_ROLLBACK, data=ROLLBACK)
    refused(run.ok("b"), e.SAGA_ROLLBACK, data=ROLLBACK)


# -- ends ------------------------------------------------------------------


def test_an_end_that_has_not_come_is_refused() -> None:
    run = Run(chain("a", "b")).ok("a")
    refused(run, e.SAGA_COMPLETED)
    refused(run, e.SAGA_ROLLED_BACK)
    refused(run, e.SAGA_STUCK, data=STUCK)
    run.log.pop()  # b started
    refused(run, e.SAGA_COMPLETED)
    run = Run(chain("a", "b")).ok("a").fail("b")
    refused(run, e.SAGA_ROLLED_BACK)
    run.log.pop()  # undo of a started
    refused(run, e.SAGA_ROLLED_BACK)
    refused(run, e.SAGA_STUCK, data=STUCK)


def ended(how: str) -> Run:
    if how == "completed":
        return Run(chain("a", "b")).ok("a", "b")
    run = Run(chain("a", "b")).ok("a").fail("b")
    return run.undone("a") if how == "rolled_back" else run.undo_fail("a", permanent=True)


@pytest.mark.parametrize("how", ["completed", "rolled_back", "stuck"])
def test_nothing_but_a_decision_follows_an_end(how: str) -> None:
    run = ended(how)
    assert run.end == how
    refused(run, e.STARTED, "b", 2)
    refused(run, e.UNDO_STARTED, "a", 2)
    refused(run, e.SAGA_COMPLETED)
    refused(run, e.SAGA_ROLLED_BACK)
    refused(run, e.SAGA_STUCK, data=STUCK)
    refused(run, e.SAGA_PAUSED, data=e.Decided())
    refused(run, e.SAGA_UNPARKED)


@pytest.mark.parametrize("type", [e.RETRIED, e.SKIPPED, e.RESOLVED])
def test_a_decision_about_a_node_that_is_not_stuck_is_refused(type: str) -> None:
    for path in ("a", "b"):
        refused(Run(chain("a", "b")).ok("a"), type, path, 0, e.Decided())
        refused(ended("rolled_back"), type, path, 0, e.Decided())
    refused(ended("stuck"), type, "b", 0, e.Decided())
    refused(ended("stuck"), e.SUPPLIED, "a", 0, e.Supplied(b"1"))


# -- any edit --------------------------------------------------------------


def test_any_log_with_one_event_taken_out_is_refused() -> None:
    for run in (ended("completed"), ended("rolled_back"), ended("stuck")):
        for k in range(len(run.log) - 1):
            fold = Fold(run.plan, "s")
            with pytest.raises(CorruptLog):  # noqa: PT012 - where in the log is the point
                for seq, event in enumerate(run.log[:k] + run.log[k + 1 :], 1):
                    fold.apply(msgspec.structs.replace(event, seq=seq))


def test_any_log_with_one_event_twice_is_refused() -> None:
    for run in (ended("completed"), ended("rolled_back"), ended("stuck")):
        for k in range(len(run.log)):
            fold = Fold(run.plan, "s")
            with pytest.raises(CorruptLog):  # noqa: PT012
                for seq, event in enumerate([*run.log[: k + 1], *run.log[k:]], 1):
                    fold.apply(msgspec.structs.replace(event, seq=seq))
