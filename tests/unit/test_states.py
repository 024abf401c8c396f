"""The transition tables: every row is taken by some history, and no history takes another."""

from __future__ import annotations

from collections.abc import Callable

from compensate.core import events as e
from compensate.core import states as s
from compensate.core.dag import ActionNode, Each, Ref
from compensate.core.log import Fold
from compensate.core.policy import Retry
from tests.support.driving import Run, chain, dag, node

Row = tuple[str, str, str]


def rows_taken(run: Run) -> tuple[set[Row], set[Row]]:
    """Rows of the node table and of the saga table that the run's log takes, found by folding it."""
    fold = Fold(run.plan, "s")
    nodes: set[Row] = set()
    sagas: set[Row] = set()
    for event in run.log:
        status = fold.status
        if event.node:
            before = fold.state[fold.plan.index[event.node]]
            fold.apply(event)
            after = fold.state[fold.plan.index[event.node]]
            if event.type == e.EXPANDED:
                after = s.NODE[event.type][before]  # one without elements is done at once
            nodes.add((event.type, before, after))
            continue
        fold.apply(event)
        if status is not None and event.type != e.SAGA_UNPARKED:
            assert fold.status is not None
            sagas.add((event.type, status, fold.status))
    return nodes, sagas


# -- the histories ---------------------------------------------------------


def completed_then_destroyed() -> Run:
    return Run(chain("a", "b")).ok("a", "b").roll_back().undone("b", "a")


def retried_and_rolled_back() -> Run:
    run = Run(dag(node("a", retry=Retry(2)), node("b", "a", undo="unknown"))).fail("a").until()
    return run.ok("a").fail("b").undone("b", "a")


def doubted_and_undone_with_none() -> Run:
    run = Run(dag(node("a", undo="unknown", retry=Retry(2)))).doubt("a").until()
    return run.doubt("a").undone("a")


def undo_retried_skipped_and_resolved() -> Run:
    run = Run(chain("a", "b", "c", "d")).ok("a", "b", "c").fail("d").undo_fail("c").until()
    run.undo_fail("c", permanent=True).decide("retry", "c").undo_fail("c", permanent=True)
    run.decide("skip", "c").undo_fail("b", permanent=True)
    return run.decide("resolve", "b").undone("a")


def stuck_in_doubt(verb: str) -> Callable[[], Run]:
    def history() -> Run:
        run = Run(dag(node("a"))).doubt("a").fail("a").decide(verb, "a")
        return run.finish()

    return history


def stuck_forward() -> Run:
    again = Retry(2)
    graph = dag(node("p", pivot=True), node("b", "p", retry=again), node("c", "p", retry=again))
    run = Run(graph).ok("p").fail("b", permanent=True).doubt("c", permanent=True)
    run.decide("retry", "b").decide("retry", "c")
    run.fail("b", permanent=True).doubt("c", permanent=True)
    return run.decide("resolve with output", "b").decide("resolve with output", "c")


def asked() -> Run:
    taken = node("t", when=Ref("a"))
    skipped = node("s", when=Ref("a"))
    fan = ActionNode("f", "f", each=Each("x", Ref("a")))
    return Run(dag(node("a"), taken, skipped, fan), {"t": True, "s": False, "f": 2}).ok("a").finish()


def paused_both_ways() -> Run:
    run = Run(chain("a", "b"))
    for _ in range(2):
        run.machine.pause(run.now)
        run.machine.resume(run.now)
        run.go()
        if run.doing == ["a"]:
            run.ok("a").fail("b")
    return run.undone("a")


def given_up_for_deaths(back: bool) -> Callable[[], Run]:
    def history() -> Run:
        run = Run(chain("a", "b"), crashes=1).ok("a").crash()
        if back:
            return run.roll_back().decide("resolve", "b").undone("a")
        return run.decide("skip", "b").undone("a")

    return history


HISTORIES: list[Callable[[], Run]] = [
    completed_then_destroyed,
    retried_and_rolled_back,
    doubted_and_undone_with_none,
    undo_retried_skipped_and_resolved,
    *(stuck_in_doubt(verb) for verb in ("retry", "skip", "resolve", "resolve with output")),
    stuck_forward,
    asked,
    paused_both_ways,
    given_up_for_deaths(back=False),
    given_up_for_deaths(back=True),
]


def taken() -> tuple[set[Row], set[Row]]:
    nodes: set[Row] = set()
    sagas: set[Row] = set()
    for history in HISTORIES:
        run = history()
        assert run.end in ("completed", "rolled_back"), history
        more_nodes, more_sagas = rows_taken(run)
        nodes |= more_nodes
        sagas |= more_sagas
    return nodes, sagas


def test_every_row_of_the_node_table_is_taken_and_no_other() -> None:
    table = {(kind, before, after) for kind, moves in s.NODE.items() for before, after in moves.items()}
    assert taken()[0] == table


def test_every_row_of_the_saga_table_is_taken_and_no_other() -> None:
    table = {(kind, before, after) for kind, moves in s.SAGA.items() for before, after in moves.items()}
    assert taken()[1] == table


def test_the_tables_know_every_event_type_and_every_state() -> None:
    assert set(s.NODE) | set(s.SAGA) | {e.SAGA_CREATED, e.SAGA_UNPARKED} == set(e.PAYLOADS)
    assert {after for moves in s.NODE.values() for after in moves.values()} | {s.PENDING} == {
        "pending", "running", "completed", "failed", "in_doubt", "undoing", "undone", "undo_failed", "skipped",
        "resolved",
    }  # fmt: skip


def test_what_ends_a_node_for_good_leads_nowhere() -> None:
    for state in (s.UNDONE, s.SKIPPED, s.RESOLVED):
        assert not any(state in moves for moves in s.NODE.values())
    assert not any(s.ROLLED_BACK in moves for moves in s.SAGA.values())
