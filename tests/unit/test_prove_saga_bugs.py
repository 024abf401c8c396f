"""Seven bugs that users make, each found by a proof that names the node and the point."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from compensate import Ctx, Saga, action, saga
from compensate.testing.proof import prove_saga
from compensate.testing.report import Finding, SagaNotProven


class Shop:
    """A participant that can do it right (by key) and wrong."""

    def __init__(self) -> None:
        self.stock = 5
        self.holds: dict[str, int] = {}
        self.paid: dict[str, int] = {}
        self.shelves: dict[str, str] = {}

    def snapshot(self) -> Mapping[str, Any]:
        return {"stock": self.stock, "holds": self.holds, "paid": self.paid, "shelves": self.shelves}


@action
async def pay(ctx: Ctx[Shop], cents: int) -> int:
    return ctx.deps.paid.setdefault(ctx.key, cents)


@pay.undo(unknown=True)
async def refund(ctx: Ctx[Shop], cents: int | None) -> None:
    ctx.deps.paid.pop(ctx.do_key, None)


def findings_of(definition: Saga[..., Any], **params: Any) -> tuple[SagaNotProven, tuple[Finding, ...]]:
    with pytest.raises(SagaNotProven) as caught:
        prove_saga(definition, params, setup=Shop, world=Shop.snapshot)
    return caught.value, caught.value.findings


def found(findings: tuple[Finding, ...], node: str, point: str) -> Finding:
    [finding] = [finding for finding in findings if finding.node == node and finding.point == point]
    return finding


def test_a_sound_saga_of_the_same_parts_is_proven() -> None:
    @saga
    def order(cents: int) -> int:
        return pay(cents)

    proof = prove_saga(order, {"cents": 7}, setup=Shop, world=Shop.snapshot)
    assert proof.nodes == ("pay",)


def test_an_undo_that_is_not_idempotent_is_found() -> None:
    @action
    async def reserve(ctx: Ctx[Shop], count: int) -> int:
        if ctx.key not in ctx.deps.holds:
            ctx.deps.holds[ctx.key] = count
            ctx.deps.stock -= count
        return count

    @reserve.undo
    async def release(ctx: Ctx[Shop], count: int) -> None:
        ctx.deps.holds.pop(ctx.do_key, None)
        ctx.deps.stock += count

    @saga
    def order(count: int, cents: int) -> int:
        return pay.after(reserve(count))(cents)

    error, findings = findings_of(order, count=2, cents=7)
    twice = found(findings, "reserve", "the undo of reserve runs twice")
    assert twice.problem == "the saga was rolled back, but the world is not as it was before"
    assert twice.details[0] == "~ ['stock']: 5 -> 7"
    assert "node reserve: the saga was rolled back, but the world is not as it was before" in str(error)
    assert "when the undo of reserve runs twice" in str(error)
    assert "~ ['stock']: 5 -> 7" in str(error)


def test_an_action_that_is_not_idempotent_is_found() -> None:
    @action
    async def reserve(ctx: Ctx[Shop], count: int) -> int:
        ctx.deps.stock -= count
        ctx.deps.holds[ctx.key] = ctx.deps.holds.get(ctx.key, 0) + count
        return count

    @reserve.undo
    async def release(ctx: Ctx[Shop], count: int) -> None:
        ctx.deps.stock += ctx.deps.holds.pop(ctx.do_key, 0)

    @saga
    def order(count: int) -> int:
        return reserve(count)

    error, findings = findings_of(order, count=2)
    twice = found(findings, "reserve", "the action of reserve runs twice")
    assert twice.problem == "the saga completed, but the world is not as after an undisturbed run"
    assert "~ ['stock']: 3 -> 1" in twice.details
    assert "node reserve: the saga completed, but the world is not as after an undisturbed run" in str(error)
    assert "the action of reserve runs twice" in str(error)
    points = [finding.point for finding in findings]
    assert "the process ends before write 2 (completed reserve, saga_completed)" in points


def test_a_missing_undo_is_found() -> None:
    @action
    async def shelve(ctx: Ctx[Shop], what: str) -> str:
        return ctx.deps.shelves.setdefault(ctx.key, what)

    @saga
    def order(what: str, cents: int) -> int:
        return pay.after(shelve(what))(cents)

    error, findings = findings_of(order, what="box", cents=7)
    fails = found(findings, "shelve", "pay fails before its effect")
    assert fails.details == (
        "+ ['shelves']['proof/shelve/do']: 'box'",
        "this part of the world is changed by shelve (which has no undo)",
    )
    on_request = found(findings, "shelve", "it is rolled back after it has completed")
    assert on_request.problem == "the saga was rolled back, but the world is not as it was before"
    assert "node shelve: the saga was rolled back" in str(error)
    assert "shelve (which has no undo)" in str(error)


def test_an_undo_that_needs_an_output_that_is_not_there_is_found() -> None:
    @action
    async def shelve(ctx: Ctx[Shop], what: str) -> str:
        return ctx.deps.shelves.setdefault(ctx.key, what)

    @shelve.undo(unknown=True)
    async def clear(ctx: Ctx[Shop], what: str | None) -> None:
        assert what is not None, "which shelf?"
        ctx.deps.shelves.pop(ctx.do_key, None)

    @saga
    def order(what: str) -> str:
        return shelve(what)

    error, findings = findings_of(order, what="box")
    point = (
        "the process ends between the effect of shelve and its record, and shelve is undone with no output"
    )
    lost = found(findings, "shelve", point)
    assert lost.problem == "the saga is stuck at shelve"
    assert any("the undo of shelve raised AssertionError: which shelf?" in line for line in lost.details)
    assert "node shelve: the saga is stuck at shelve" in str(error)
    assert "shelve takes effect and its reply is lost" in str(error)
    assert point in str(error)


def test_an_undo_order_hidden_by_an_undeclared_dependency_is_found() -> None:
    @action
    async def build(ctx: Ctx[Shop], what: str) -> str:
        return ctx.deps.shelves.setdefault("shelf", what)

    @build.undo
    async def tear_down(ctx: Ctx[Shop], what: str) -> None:
        ctx.deps.shelves.pop("shelf", None)

    @action
    async def fill(ctx: Ctx[Shop], count: int) -> int:
        # Stands on the shelf, but the saga does not say so.
        return ctx.deps.holds.setdefault(ctx.key, count)

    @fill.undo
    async def empty(ctx: Ctx[Shop], count: int) -> None:
        if "shelf" in ctx.deps.shelves:
            ctx.deps.holds.pop(ctx.do_key, None)

    @saga
    def order(what: str, count: int, cents: int) -> int:
        built = build(what)
        filled = fill(count)
        return pay.after(filled, built)(cents)

    error, findings = findings_of(order, what="oak", count=2, cents=7)
    slow = found(findings, "fill", "the undo of fill is slow, so that other undos go first")
    assert slow.problem == "the saga was rolled back, but the world is not as it was before"
    assert slow.details[0] == "+ ['holds']['proof/fill/do']: 2"
    assert "node fill: the saga was rolled back" in str(error)
    assert "the undo of fill is slow, so that other undos go first" in str(error)
    assert not [
        finding for finding in findings if finding.point == "it is rolled back after it has completed"
    ]


def test_an_effect_outside_of_the_recorded_node_is_found() -> None:
    background: set[asyncio.Task[None]] = set()

    async def tell_the_shelf(shop: Shop) -> None:
        await asyncio.sleep(0.5)
        shop.shelves["note"] = "reserved"

    @action
    async def reserve(ctx: Ctx[Shop], count: int) -> int:
        background.add(asyncio.create_task(tell_the_shelf(ctx.deps)))
        return ctx.deps.holds.setdefault(ctx.key, count)

    @reserve.undo
    async def release(ctx: Ctx[Shop], count: int) -> None:
        ctx.deps.holds.pop(ctx.do_key, None)
        ctx.deps.shelves.pop("note", None)

    @saga
    def order(count: int, cents: int) -> int:
        return pay.after(reserve(count))(cents)

    error, findings = findings_of(order, count=2, cents=7)
    stray = findings[0]
    assert stray.node == "reserve"
    assert stray.problem == (
        "the world changes while no action runs, after the action of reserve and before pay: "
        "an effect outside of any recorded node"
    )
    assert stray.details == ("+ ['shelves']['note']: 'reserved'",)
    assert "node reserve: the world changes while no action runs" in str(error)


@pytest.mark.parametrize("way", ["a thread", "a pool"])
def test_an_effect_from_a_thread_that_nobody_waits_for_is_found(way: str) -> None:
    with ThreadPoolExecutor(1) as pool:

        def tell_the_shelf(shop: Shop) -> None:
            time.sleep(0.05)
            shop.shelves["note"] = "reserved"

        @action
        def reserve(ctx: Ctx[Shop], count: int) -> int:
            if way == "a pool":
                pool.submit(tell_the_shelf, ctx.deps)
            else:
                threading.Thread(target=tell_the_shelf, args=(ctx.deps,)).start()
            return ctx.deps.holds.setdefault(ctx.key, count)

        @reserve.undo
        def release(ctx: Ctx[Shop], count: int) -> None:
            ctx.deps.holds.pop(ctx.do_key, None)

        @saga
        def order(count: int, cents: int) -> int:
            return pay.after(reserve(count))(cents)

        _, findings = findings_of(order, count=2, cents=7)
        assert findings[0].node == "reserve"
        assert findings[0].problem == (
            "the world changes while no action runs, after the action of reserve and before pay: "
            "an effect outside of any recorded node"
        )
        assert findings[0].details == ("+ ['shelves']['note']: 'reserved'",)


def test_an_output_that_does_not_survive_the_codec_is_found() -> None:
    @dataclass
    class Hold:
        cents: float

        def __post_init__(self) -> None:
            self.cents = self.cents * 2.5

    @action
    async def reserve(ctx: Ctx[Shop], count: int) -> Hold:
        ctx.deps.holds.setdefault(ctx.key, count)
        return Hold(count)

    @reserve.undo
    async def release(ctx: Ctx[Shop], hold: Hold) -> None:
        ctx.deps.holds.pop(ctx.do_key, None)

    @saga
    def order(count: int) -> Hold:
        return reserve(count)

    error, [finding] = findings_of(order, count=2)
    assert finding.node == "reserve"
    assert finding.problem.startswith("its output does not survive the codec: ")
    assert "comes back with another value" in finding.problem
    assert "node reserve: its output does not survive the codec" in str(error)
    assert "when nothing goes wrong" in str(error)


def test_an_output_that_is_stored_but_comes_back_unequal_is_found() -> None:
    @dataclass(eq=False)
    class Hold:
        count: int

        def __post_init__(self) -> None:
            self.connection = ""

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Hold) and self.connection == other.connection

        __hash__ = None  # type: ignore[assignment]

    @action
    async def reserve(ctx: Ctx[Shop], count: int) -> Hold:
        hold = Hold(ctx.deps.holds.setdefault(ctx.key, count))
        hold.connection = "open"
        return hold

    @saga
    def order(count: int) -> Hold:
        return reserve(count)

    error, [finding] = findings_of(order, count=2)
    assert finding.node == "reserve"
    assert "its output does not survive the codec: " in str(error)
