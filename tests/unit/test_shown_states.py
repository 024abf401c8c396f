"""The states that readers are shown: subsagas and fan-outs are at every moment true of what is inside them."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compensate import (
    Coordinator,
    Permanent,
    RolledBack,
    SagaExecutor,
    Stuck,
    action,
    fan_out,
    render,
    saga,
)
from compensate.core.dag import PARAMS, Each, Ref, SubsagaNode
from compensate.core.log import Fold
from compensate.core.plan import ACTION, END, FAN_END
from compensate.core.shown import states
from compensate.core.states import NodeState
from tests.support.driving import Run, chain, dag, node
from tests.unit.test_machine_histories import history

ENDED = {"skipped", "resolved", "failed", "in_doubt", "undone", "completed"}


def inside(fold: Fold, bracket: str) -> list[int]:
    """The action nodes inside a bracket, by their paths alone."""
    return [
        i
        for path, i in fold.plan.index.items()
        if path.startswith((f"{bracket}/", f"{bracket}[")) and fold.plan.kinds[i] == ACTION
    ]


def check(fold: Fold, seen: Counter[NodeState]) -> None:
    """Hold what is shown against what a reader who looks inside would say."""
    shown = states(fold)
    assert list(shown) == list(fold.plan.index)
    for path, i in fold.plan.index.items():
        if fold.plan.kinds[i] not in (END, FAN_END):
            assert shown[path] == fold.state[i]
            continue
        now = shown[path]
        seen[now] += 1
        parts = path.split("/")
        within_skipped = any(shown["/".join(parts[:k])] == "skipped" for k in range(1, len(parts)))
        inner = inside(fold, path)
        started = [k for k in inner if fold.attempt[k]]
        held = {fold.state[k] for k in started}
        undoable = [k for k in started if fold.plan.undoable[k]]
        why = (path, now, {fold.plan.names[k]: fold.state[k] for k in inner})
        if not started:
            assert now in ("pending", "running", "skipped", "completed"), why
        if now == "completed":
            assert not held & {"running", "undoing", "undo_failed", "undone", "failed", "in_doubt"}, why
        if now in ("undoing", "undo_failed", "undone"):
            assert fold.rollback is not None, why
        if now in ("running", "failed", "in_doubt", "undone", "undo_failed", "resolved") and started:
            assert now in held or now in ("running", "undone"), why
        if fold.status == "rolled_back":
            assert now in ENDED | {"pending"}, why
            assert not (undoable and now == "completed"), why
            if held == {"undone"}:
                assert now == "undone", why
        if fold.status == "completed" and now != "skipped" and not within_skipped:
            assert now == "completed", why


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_after_every_event_of_a_random_history_brackets_are_true_of_what_is_inside(seed: int) -> None:
    run = history(seed)
    fold = Fold(run.plan, "s")
    for event in run.log:
        fold.apply(event)
        check(fold, Counter())


def test_random_histories_show_brackets_in_every_state() -> None:
    seen: Counter[NodeState] = Counter()
    for seed in range(250):
        run = history(seed)
        fold = Fold(run.plan, "s")
        for event in run.log:
            fold.apply(event)
            check(fold, seen)
    assert set(seen) == {
        "pending",
        "running",
        "completed",
        "failed",
        "in_doubt",
        "undoing",
        "undone",
        "undo_failed",
        "skipped",
        "resolved",
    }


def two_levels() -> Run:
    inner = dag(node("a"), node("b", "a"))
    outer = dag(node("first"), SubsagaNode("deep", inner, {}, ("first",)), node("last", "deep"))
    whole = dag(SubsagaNode("sub", outer, {}), node("end", "sub"))
    return Run(whole)


def test_the_states_of_nested_subsagas_step_by_step() -> None:
    def shown() -> tuple[NodeState, NodeState]:
        found = states(run.machine)
        return found["sub"], found["sub/deep"]

    run = two_levels()
    assert states(Fold(run.plan, "s"))["sub"] == "pending"
    assert shown() == ("running", "pending")
    run.ok("sub/first")
    assert shown() == ("running", "running")
    run.ok("sub/deep/a", "sub/deep/b")
    assert shown() == ("running", "completed")
    run.ok("sub/last")
    assert shown() == ("completed", "completed")
    run.fail("end")
    assert run.undoing == ["sub/last"]
    assert shown() == ("undoing", "completed")
    run.undone("sub/last")
    assert shown() == ("undoing", "undoing")
    run.undone("sub/deep/b")
    assert shown() == ("undoing", "undoing")
    run.undo_fail("sub/deep/a", permanent=True)
    assert run.status == "stuck"
    assert shown() == ("undo_failed", "undo_failed")
    run.decide("skip", "sub/deep/a")
    assert shown() == ("undoing", "skipped")
    run.undone("sub/first")
    assert run.status == "rolled_back"
    assert shown() == ("skipped", "skipped")


def test_a_subsaga_that_failed_inside_stays_failed_and_its_sibling_is_undone() -> None:
    run = Run(dag(SubsagaNode("left", chain("a", "b"), {}), SubsagaNode("right", chain("c", "d"), {})))
    run.ok("left/a", "right/c")
    run.fail("left/b")
    assert states(run.machine)["left"] == "undoing"
    assert states(run.machine)["right"] == "running"
    run.ok("right/d")
    found = states(run.machine)
    assert (found["left"], found["right"]) == ("undoing", "undoing")
    run.undone("left/a", "right/d", "right/c")
    found = states(run.machine)
    assert (found["left"], found["right"]) == ("failed", "undone")


def test_a_fan_out_shows_what_its_elements_came_to() -> None:
    whole = dag(node("each", each=Each("item", Ref(PARAMS))), node("end", "each"))
    run = Run(whole, {"each": 3})
    assert states(run.machine)["each"] == "running"
    run.ok("each[0]", "each[1]", "each[2]")
    assert states(run.machine)["each"] == "completed"
    run.fail("end")
    assert states(run.machine)["each"] == "undoing"
    run.undone("each[0]", "each[1]", "each[2]")
    assert states(run.machine)["each"] == "undone"


def test_nesting_costs_no_recursion() -> None:
    depth = 1_200  # beyond Python's limit of recursion
    inner = dag(node("x"))
    for _ in range(depth):
        inner = dag(SubsagaNode("s", inner, {}))
    run = Run(inner)
    path = "/".join(["s"] * depth) + "/x"
    run.ok(path)
    assert run.end == "completed"
    assert set(states(run.machine).values()) == {"completed"}
    run.roll_back().undone(path)
    assert set(states(run.machine).values()) == {"undone"}
    assert set(states(Fold(run.plan, "s")).values()) == {"pending"}


# -- as users see it ---------------------------------------------------------


@action
async def book(item: str) -> str:
    return item


@book.undo
async def cancel(booking: str) -> None:
    if booking == "rocket":
        raise Permanent("it has taken off")


@action
async def look(item: str) -> str:
    return item


@action
async def pay(bookings: list[str], trip: str) -> str:
    raise ValueError("no money")


@saga
def trip(item: str) -> str:
    return book(look(item))


@saga
def holiday(items: list[str], item: str) -> str:
    return pay(fan_out(book, items), trip(item))


async def test_after_a_rollback_snapshots_executors_and_drawings_say_that_it_is_undone() -> None:
    async with Coordinator("memory://", sagas=[holiday]) as c:
        with pytest.raises(RolledBack):
            await c.run(holiday.with_id("h"), ["a", "b"], "c")
        nodes = (await c.get("h")).nodes
    assert (nodes["trip"], nodes["trip/look"], nodes["trip/book"]) == ("undone", "completed", "undone")
    assert (nodes["book"], nodes["book[0]"]) == ("undone", "undone")
    executor = SagaExecutor(holiday)
    with pytest.raises(RolledBack):
        await executor.execute([str(n) for n in range(20)], "c")
    assert executor.execution_state()["trip"] == executor.execution_state()["book"] == "undone"
    drawn = {n.path: n.state for n in render.snapshot(executor.fold).nodes}
    assert drawn["book"] == "undone"


async def test_a_subsaga_whose_undo_failed_says_so_until_an_operator_decides() -> None:
    async with Coordinator("memory://", sagas=[holiday]) as c:
        with pytest.raises(Stuck):
            await c.run(holiday.with_id("h"), [], "rocket")
        assert (await c.get("h")).nodes["trip"] == "undo_failed"
        run = await c.resolve("h", "trip/book")
        assert await run.ended() == "rolled_back"
        assert (await c.get("h")).nodes["trip"] == "resolved"


async def test_an_executor_that_has_run_nothing_shows_everything_pending() -> None:
    assert set(SagaExecutor(holiday).execution_state().values()) == {"pending"}
