"""`Retry(attempts=None)`: an action or undo is tried until it succeeds, over restarts, in every kind of node."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from compensate import (
    Coordinator,
    Ctx,
    NoEffect,
    Permanent,
    Retry,
    RolledBack,
    Unknown,
    action,
    fan_out,
    saga,
)
from compensate.core.dag import ActionNode, Dag
from compensate.errors import DefinitionError
from compensate.testing import FakeWorld, prove_saga
from compensate.testing.bench import VirtualCoordinator
from compensate.testing.checker import check

MANY = 300
FOR_EVER = Retry(attempts=None, first=1.0, factor=2.0, longest=3600.0)

ERRORS = [ConnectionError("down"), NoEffect("not yet"), Unknown("no reply"), TimeoutError("slow")]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_action_is_tried_until_it_succeeds(coordinator: VirtualCoordinator, error: Exception) -> None:
    calls: list[int] = []

    @action(retry=FOR_EVER)
    async def patient(ctx: Ctx[None]) -> int:
        calls.append(ctx.attempt)
        if len(calls) < MANY:
            raise error
        return len(calls)

    @saga
    def waits() -> int:
        return patient()

    with coordinator as c:
        assert c.run(waits.with_id("w")) == MANY
        snapshot = c.get("w")
        assert not check(snapshot.fold.plan.dag, snapshot.events, saga_id="w")
    assert calls == list(range(1, MANY + 1))


def test_an_undo_is_tried_until_it_succeeds(coordinator: VirtualCoordinator) -> None:
    left = [MANY]

    @action
    def take() -> str:
        return "taken"

    @take.undo(retry=FOR_EVER)
    def give_back(output: str) -> None:
        left[0] -= 1
        if left[0]:
            raise ConnectionError("down")

    @action
    def refuse(after: str) -> None:
        raise RuntimeError("no")

    @saga
    def fails() -> None:
        return refuse(take())

    with coordinator as c:
        with pytest.raises(RolledBack):
            c.run(fails.with_id("f"))
        snapshot = c.get("f")
        assert not check(snapshot.fold.plan.dag, snapshot.events, saga_id="f")
    assert left == [0]


def test_elements_of_a_fan_out_are_tried_without_limit_too(coordinator: VirtualCoordinator) -> None:
    left = {item: 20 * item for item in range(4)}

    @action(retry=FOR_EVER)
    async def load(item: int) -> int:
        if left[item]:
            left[item] -= 1
            raise ConnectionError("throttled")
        return item

    @saga
    def loads() -> list[int]:
        return fan_out(load, [0, 1, 2, 3])

    with coordinator as c:
        assert c.run(loads) == [0, 1, 2, 3]


@pytest.mark.parametrize("ends", [Permanent("never"), KeyError("excluded")], ids=lambda e: type(e).__name__)
def test_a_final_error_ends_it(coordinator: VirtualCoordinator, ends: Exception) -> None:
    calls: list[int] = []

    @action(retry=Retry(None, never=KeyError))
    async def refused() -> None:
        calls.append(1)
        raise ends if len(calls) == 3 else OSError("once more")

    @saga
    def refused_saga() -> None:
        return refused()

    with coordinator as c, pytest.raises(RolledBack):
        c.run(refused_saga)
    assert len(calls) == 3


@pytest.mark.parametrize("way", ["deadline", "rollback", "sibling"])
def test_a_node_that_waits_for_its_next_attempt_does_not_hold_up_the_rollback(
    coordinator: VirtualCoordinator, way: str
) -> None:
    calls: list[int] = []

    @action(retry=FOR_EVER)
    async def hopeless() -> None:
        calls.append(1)
        raise OSError("down")

    @action
    async def sibling() -> None:
        await asyncio.sleep(50_000)
        if way == "sibling":
            raise RuntimeError("no")

    @saga
    def both() -> list[None]:
        return [hopeless(), sibling()]

    async def main() -> None:
        async with coordinator as c:
            run = await c.start(both.options(deadline=20_000) if way == "deadline" else both)
            if way == "rollback":
                await asyncio.sleep(10_000)
                await c.rollback(run.id)
            with pytest.raises(RolledBack):
                await run.result()
        seen = len(calls)
        assert seen > 10
        await asyncio.sleep(100_000)
        assert len(calls) == seen, "S4: nothing starts any more"

    loop = coordinator.virtual_time.new_loop()
    try:
        loop.run_until_complete(main())
    finally:
        loop.close()


def test_the_stored_form_keeps_the_policy_and_the_count_survives_a_restart(tmp_path: Path) -> None:
    world = {"calls": 0, "ready": False}

    @action(retry=Retry(None, first=0.001, longest=0.001))
    async def patient() -> int:
        world["calls"] += 1
        if not world["ready"]:
            raise OSError("down")
        return world["calls"]

    @saga
    def waits() -> int:
        return patient()

    url = f"sqlite:///{tmp_path / 'x.db'}"

    async def main() -> None:
        async with Coordinator(url, sagas=[waits]) as c:
            await c.start(waits.with_id("w"))
            while world["calls"] < 30:  # noqa: ASYNC110 - an action rings no bell
                await asyncio.sleep(0.001)
        async with Coordinator(url, sagas=[waits]) as c:
            stored = (await c.get("w")).fold.plan.dag
            node = stored.nodes[0]
            assert isinstance(node, ActionNode)
            assert node.retry.attempts is None
            assert msgspec.json.decode(msgspec.json.encode(stored), type=Dag) == stored
            world["ready"] = True
            assert await c.attach("w").result() > 30

    asyncio.run(main())


def test_what_is_tried_without_limit_may_follow_a_pivot() -> None:
    @action(pivot=True)
    async def commit() -> str:
        return "paid"

    @action(retry=Retry(attempts=None))
    async def ship(after: str) -> str:
        return after

    @action(retry=Retry(attempts=1))
    async def hand_over(after: str) -> str:
        return after

    @saga
    def shipped() -> str:
        return ship(commit())

    assert shipped.dag.nodes
    with pytest.raises(DefinitionError, match="may fail after the pivot"):

        @saga
        def lost() -> str:
            return hand_over(commit())


def test_a_saga_whose_nodes_are_tried_without_limit_is_proven() -> None:
    @action(retry=FOR_EVER)
    async def reserve(ctx: Ctx[FakeWorld], item: str) -> str:
        ctx.deps.apply(ctx.key, item)
        return item

    @reserve.undo(retry=FOR_EVER)
    async def release(ctx: Ctx[FakeWorld], item: str) -> None:
        ctx.deps.undo(ctx.do_key)

    @action
    async def pay(ctx: Ctx[FakeWorld], item: str) -> str:
        ctx.deps.apply(ctx.key, item)
        return item

    @pay.undo
    async def refund(ctx: Ctx[FakeWorld], item: str) -> None:
        ctx.deps.undo(ctx.do_key)

    @saga
    def order(item: str) -> str:
        return pay(reserve(item))

    assert prove_saga(order, {"item": "desk"}, world=FakeWorld()).scenarios > 20
