"""What a proof tries, what it accepts, and when it refuses to say anything."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import pytest

from compensate import Ctx, ParamsInvalid, Retry, action, constant, fan_out, saga
from compensate.errors import DefinitionError
from compensate.testing import FakeWorld, Proof, SagaNotProven, TooManyScenarios, prove_saga


@action(retry=Retry(attempts=3), timeout=10)
async def reserve(ctx: Ctx[FakeWorld], item: str) -> str:
    await asyncio.sleep(1)
    return str(ctx.deps.apply(ctx.key, item))


@reserve.undo(timeout=10)
async def release(ctx: Ctx[FakeWorld], item: str) -> None:
    ctx.deps.undo(ctx.do_key)


@action
def charge(ctx: Ctx[FakeWorld], cents: int) -> int:
    return int(ctx.deps.apply(ctx.key, cents))


@charge.undo(unknown=True)
def refund(ctx: Ctx[FakeWorld], cents: int | None) -> None:
    ctx.deps.undo(ctx.do_key)


@action(pivot=True)
async def ship(ctx: Ctx[FakeWorld], cents: int) -> str:
    return str(ctx.deps.apply(ctx.key, "shipped"))


@action(retry=Retry(attempts=2))
def tell(ctx: Ctx[FakeWorld], parcel: str) -> None:
    ctx.deps.apply(ctx.key, "told")


@tell.undo
def never_said(ctx: Ctx[FakeWorld], _: None) -> None:
    raise AssertionError("nothing is undone after the pivot")


@saga
def payment(cents: int) -> int:
    return charge(cents)


@saga
def order(items: list[str], cents: int, express: bool) -> int:
    paid = payment(cents)
    held = fan_out(reserve, items)
    extra = charge.options(name="extra").when(express)(cents)
    return charge.options(name="fee").after(held, paid, extra)(constant(1))


ORDER = {"items": ["a", "b"], "cents": 7, "express": False}


def refused(saga: Any, params: dict[str, Any] | None = None, **options: Any) -> SagaNotProven:
    with pytest.raises(SagaNotProven) as caught:
        prove_saga(saga, params, **options)
    return caught.value


def test_a_sound_saga_is_proven_and_the_proof_says_what_was_tried() -> None:
    proof = prove_saga(order, ORDER, world=FakeWorld())
    assert proof.nodes == ("payment/charge", "reserve[0]", "reserve[1]", "fee")
    assert proof.not_run == ("extra",)
    assert proof.not_undone == ()
    assert proof.late_actions
    assert proof.by_kind == {
        "undisturbed": 2,
        "rolled back on request": 1,
        "an action fails before its effect": 4,
        "an action's reply is lost": 4,
        "an action runs twice": 4,
        "an action is slow": 4,
        "an undo runs twice": 4,
        "an undo is slow": 4,
        "an undo fails once": 4,
        "an undo fails for good": 4,
        "an action in doubt is undone with no output": 2,
        "an action in doubt is run again to learn its output, and undone": 2,
        "an action comes after its undo": 4,
        "the process ends at a log write, going forward": 10,
        "the process ends at a log write, going back": 8,
    }
    assert proof.scenarios == sum(proof.by_kind.values()) == 61
    assert proof.points == 58
    assert proof.values == 4 + 3
    text = str(proof)
    assert text.startswith(
        f"saga order is proven: {proof.scenarios} scenarios, {proof.points} points, 4 nodes"
    )
    assert "not run with these params: extra" in text


def test_a_proof_is_the_same_each_time() -> None:
    assert prove_saga(order, ORDER, world=FakeWorld()) == prove_saga(order, ORDER, world=FakeWorld())


def test_after_a_pivot_a_saga_is_proven_forward() -> None:
    @saga
    def send(cents: int) -> None:
        return tell(ship(charge(cents)))

    proof = prove_saga(send, {"cents": 7}, world=FakeWorld())
    assert proof.nodes == ("charge", "ship", "tell")
    assert proof.not_undone == ("tell",)
    assert proof.by_kind["rolled back at the pivot"] == 1
    assert proof.by_kind["an undo fails for good"] == 1
    assert "never undone, as they come after the pivot: tell" in str(proof)


def test_a_node_that_is_tried_for_ever_is_no_obstacle() -> None:
    @action(retry=Retry(attempts=10**6))
    async def stubborn(ctx: Ctx[FakeWorld]) -> None:
        ctx.deps.apply(ctx.key)

    @stubborn.undo
    async def give_up(ctx: Ctx[FakeWorld], _: None) -> None:
        ctx.deps.undo(ctx.do_key)

    @saga
    def send() -> None:
        return stubborn()

    assert prove_saga(send, world=FakeWorld()).nodes == ("stubborn",)


def test_time_limits_deadlines_and_subsagas_in_subsagas_are_no_obstacle() -> None:
    @saga
    def outer(cents: int) -> int:
        return payment(cents)

    @saga(deadline=40)
    def hurried(item: str, cents: int) -> int:
        held = reserve.options(timeout=2)(item)
        paid = outer.after(held)(cents)
        return charge.options(name="tax", timeout=3, undo_timeout=3).when(constant(True))(paid)  # type: ignore[return-value]

    proof = prove_saga(hurried, {"item": "desk", "cents": 7}, world=FakeWorld())
    assert proof.nodes == ("reserve", "outer/payment/charge", "tax")
    assert proof.not_run == ()


async def test_a_proof_can_be_made_inside_an_async_test() -> None:
    assert isinstance(prove_saga(order, ORDER, world=FakeWorld()), Proof)
    with pytest.raises(ParamsInvalid):
        prove_saga(order, {"items": []}, world=FakeWorld())


def test_a_late_action_is_found_where_nobody_keeps_tombstones() -> None:
    def world() -> FakeWorld:
        return FakeWorld(tombstones=False)

    proof = prove_saga(payment, {"cents": 7}, setup=world)
    assert not proof.late_actions
    assert "not tried: actions that come after their undo" in str(proof)
    error = refused(payment, {"cents": 7}, setup=world, tombstones=True)
    [finding] = error.findings
    assert (finding.node, finding.point) == ("charge", "charge takes effect after its undo")
    assert finding.details[0] == "+ ['proof/charge/do']: 7"


# -- setup, world, deps --------------------------------------------------------


def test_setup_may_be_a_context_manager_and_deps_are_made_for_each_process() -> None:
    entered, left, processes = [], [], []

    @contextmanager
    def fresh() -> Generator[FakeWorld]:
        entered.append(1)
        yield FakeWorld()
        left.append(1)

    def deps(world: FakeWorld) -> FakeWorld:
        processes.append(world)
        return world

    proof = prove_saga(payment, {"cents": 7}, setup=fresh, deps=deps)
    assert len(entered) == len(left) == proof.scenarios
    ends = sum(
        n for kind, n in proof.by_kind.items() if kind.startswith(("the process ends", "an action in doubt"))
    )
    assert len(processes) == proof.scenarios + ends


def test_setup_world_and_deps_may_be_async() -> None:
    async def fresh() -> FakeWorld:
        await asyncio.sleep(1)
        return FakeWorld()

    async def world(fake: FakeWorld) -> dict[str, Any]:
        await asyncio.sleep(1)
        return fake.snapshot()

    async def deps(fake: FakeWorld) -> FakeWorld:
        await asyncio.sleep(1)
        return fake

    assert prove_saga(order, ORDER, setup=fresh, world=world, deps=deps).scenarios == 61


def test_a_live_view_of_the_world_is_copied() -> None:
    effects: dict[str, int] = {}

    @action
    async def put(ctx: Ctx[dict[str, int]]) -> None:
        ctx.deps[ctx.key] = 1

    @saga
    def keep() -> None:
        return put()

    error = refused(keep, setup=effects.clear, world=lambda: effects, deps=effects)
    assert error.findings[0].node == "put"


def test_a_snapshot_that_cannot_be_copied_is_refused_with_a_hint() -> None:
    with pytest.raises(TypeError) as caught:
        prove_saga(payment, {"cents": 7}, setup=FakeWorld, world=lambda: (n for n in "abc"))
    assert "world= has to give a snapshot that can be copied" in caught.value.__notes__[0]


def test_a_hidden_dependency_of_actions_is_found_too() -> None:
    @action
    async def build(ctx: Ctx[FakeWorld]) -> None:
        ctx.deps.apply("shelf")

    @build.undo(unknown=True)
    async def tear_down(ctx: Ctx[FakeWorld], _: None) -> None:
        ctx.deps.undo("shelf")

    @action
    async def fill(ctx: Ctx[FakeWorld]) -> None:
        if "shelf" not in ctx.deps.snapshot():
            raise LookupError("no shelf")
        ctx.deps.apply(ctx.key)

    @fill.undo(unknown=True)
    async def empty(ctx: Ctx[FakeWorld], _: None) -> None:
        ctx.deps.undo(ctx.do_key)

    @saga
    def furnish() -> None:
        build()
        fill()

    error = refused(furnish, setup=lambda: FakeWorld(tombstones=False))
    slow = next(finding for finding in error.findings if finding.point.startswith("build is slow"))
    assert slow.problem == "the saga did not complete: it ended rolled_back"
    assert slow.details == ("the action of fill raised LookupError: no shelf",)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give world="),
        ({"world": FakeWorld(), "setup": FakeWorld}, "is emptied before each scenario"),
        ({"setup": dict}, "setup gave a dict"),
    ],
)
def test_a_world_that_cannot_be_seen_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        prove_saga(payment, {"cents": 7}, **options)


def test_too_many_scenarios_are_refused_before_they_are_run() -> None:
    params = ORDER | {"items": ["x"] * 30}
    with pytest.raises(
        TooManyScenarios, match=r"takes \d+ scenarios \(32 nodes, \d+ writes forward\), above limit=200"
    ):
        prove_saga(order, params, world=FakeWorld(), limit=200)


# -- when nothing would be shown -----------------------------------------------


def test_a_world_that_never_changes_is_refused() -> None:
    error = refused(payment, {"cents": 7}, setup=FakeWorld, world=lambda: "always the same")
    assert "the world never changed, so a proof would show nothing" in str(error)


def test_a_world_that_is_not_fresh_is_refused() -> None:
    world = FakeWorld()
    error = refused(payment, {"cents": 7}, setup=lambda: world)
    assert "the world is not the same at the beginning of two scenarios" in str(error)
    assert "~ " in str(error) or "+ ['proof/charge/do']: 7" in str(error)


def test_a_snapshot_that_is_another_at_each_look_is_refused() -> None:
    numbers = itertools.count()

    def world(fake: FakeWorld) -> dict[str, Any]:
        return {key: next(numbers) for key in ("looked", *fake.snapshot())}

    error = refused(payment, {"cents": 7}, setup=FakeWorld, world=world)
    assert "two looks at the same world see different things" in str(error)


def test_a_world_with_parts_made_up_in_each_run_is_refused() -> None:
    numbers = itertools.count()

    @action
    async def number(ctx: Ctx[FakeWorld]) -> int:
        return int(ctx.deps.apply(ctx.key, next(numbers)))

    @number.undo
    async def forget(ctx: Ctx[FakeWorld], number: int) -> None:
        ctx.deps.undo(ctx.do_key)

    @saga
    def keep() -> int:
        return number()

    error = refused(keep, setup=FakeWorld)
    assert "two undisturbed runs leave different worlds" in str(error)
    assert "~ ['proof/number/do']: 0 -> 1" in str(error)


def test_a_saga_that_fails_undisturbed_is_refused_with_the_error() -> None:
    @action
    def broken(ctx: Ctx[FakeWorld]) -> None:
        ctx.deps.apply(ctx.key)
        raise LookupError("no such shelf")

    @saga
    def keep() -> None:
        return broken()

    error = refused(keep, world=FakeWorld())
    assert error.findings[0].node == "broken"
    assert "the action of broken raised LookupError: no such shelf" in str(error)


def test_a_fault_that_never_fires_is_refused() -> None:
    runs = itertools.count()

    def fresh() -> FakeWorld:
        next(runs)
        return FakeWorld()

    @action
    async def flip() -> bool:
        return next(runs) < 8

    @saga
    def moody(cents: int) -> int | None:
        first = charge(cents)
        return charge.options(name="perhaps").when(flip())(first)

    error = refused(moody, {"cents": 7}, setup=fresh)
    assert any("the fault never fired" in finding.problem for finding in error.findings)


def test_a_saga_that_never_ends_is_refused() -> None:
    @action
    async def wait(ctx: Ctx[FakeWorld]) -> None:
        await asyncio.Event().wait()

    @saga
    def keep() -> None:
        return wait()

    error = refused(keep, world=FakeWorld())
    assert "the saga does not end within 400 days of virtual time" in str(error)
    assert "called last: do of wait" in str(error)


def test_what_setup_raises_is_passed_on() -> None:
    def fresh() -> FakeWorld:
        raise ConnectionError("no world today")

    with pytest.raises(ConnectionError, match="no world today"):
        prove_saga(payment, {"cents": 7}, setup=fresh)


async def _undo_later(ctx: Ctx[FakeWorld]) -> None:
    ctx.deps.undo(ctx.do_key)


@pytest.mark.parametrize("is_async", [False, True])
def test_what_an_undo_returns_is_awaited_as_the_runtime_does(is_async: bool) -> None:
    @action
    async def reserve(ctx: Ctx[FakeWorld], item: str) -> str:
        return str(ctx.deps.apply(ctx.key, item))

    async def release_async(ctx: Ctx[FakeWorld], item: str | None) -> Any:
        return _undo_later(ctx)

    def release(ctx: Ctx[FakeWorld], item: str | None) -> Any:
        return _undo_later(ctx)

    undo: Any = release_async if is_async else release
    reserve.undo(unknown=True)(undo)

    @saga
    def reserved(item: str) -> str:
        return reserve(item)

    prove_saga(reserved, {"item": "a"}, world=FakeWorld())  # raises if it is not proven
