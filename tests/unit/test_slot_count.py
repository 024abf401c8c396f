"""However actions end, the coordinator has all its slots back, and no more than those."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest

from compensate import CompensateError, Coordinator, Ctx, NoEffect, Unknown, action, fan_out, saga


@dataclass
class Deps:
    """How actions get at the coordinator that runs them."""

    coordinator: Coordinator | None = None
    left: list[asyncio.Task[Any]] = field(default_factory=list)
    running: int = 0
    most: int = 0

    def run(self, n: int) -> Coroutine[Any, Any, int]:
        assert self.coordinator is not None
        return self.coordinator.run(leaf, n)


@action
async def settle(ctx: Ctx[Deps], n: int) -> int:
    deps = ctx.deps
    deps.running += 1
    deps.most = max(deps.most, deps.running)
    try:
        await asyncio.sleep(0.001 * (n % 3))
    finally:
        deps.running -= 1
    if n % 5 == 0:
        raise ValueError("no")
    return n


@saga
def leaf(n: int) -> int:
    return settle(n)


@action(timeout=0.02)
async def nest(ctx: Ctx[Deps], n: int) -> int:
    """Waits for other sagas, or does not, in one of many ways."""
    deps, way = ctx.deps, n % 9
    if way == 0:
        return await deps.run(n)
    if way == 1:
        return len(await asyncio.gather(*(deps.run(n + k) for k in range(3)), return_exceptions=True))
    if way == 2:  # left behind, and waiting
        deps.left.append(asyncio.create_task(deps.run(n)))
        await asyncio.sleep(0.0005)
    elif way == 3:
        waiting = asyncio.ensure_future(deps.run(n))
        await asyncio.sleep(0)
        waiting.cancel()
    elif way == 4:
        await asyncio.wait_for(deps.run(n), 0.001)
    elif way == 5:
        raise Unknown("perhaps")
    elif way == 6:
        await deps.run(n)
        raise NoEffect("no")
    elif way == 7:  # a task that outlives its action, and waits when the task of that runs another
        deps.left.append(asyncio.create_task(_later(deps, n)))
    else:
        await asyncio.sleep(0.03)
    return n


async def _later(deps: Deps, n: int) -> int:
    await asyncio.sleep(0.005)
    return await deps.run(n)


@nest.undo(unknown=True)
async def unnest(ctx: Ctx[Deps], n: int | None) -> None:
    if n is not None and n % 2:
        await asyncio.gather(ctx.deps.run(n), return_exceptions=True)


@action(timeout=0.02)
def in_a_thread(x: int) -> int:
    if x % 3 == 0:
        raise ValueError("no")
    return x


@saga
def lone(n: int) -> int:
    return in_a_thread(nest.options(name="second")(nest(n)))


@saga
def many(ns: list[int]) -> list[int]:
    return fan_out(nest, ns)


async def _fate(coordinator: Coordinator, n: int, chance: random.Random) -> None:
    run = await (coordinator.start(many, [n + k for k in range(4)]) if n % 3 else coordinator.start(lone, n))
    if n % 7 == 0:
        await asyncio.sleep(chance.random() * 0.02)
        with suppress(CompensateError):
            await coordinator.rollback(run.id, grace=0.001)
    with suppress(CompensateError):
        await run.result()


@pytest.mark.parametrize("most", [1, 7])
async def test_after_two_thousand_sagas_of_every_fate_each_slot_is_free_and_nobody_waits_for_one(
    most: int,
) -> None:
    deps, chance = Deps(), random.Random(most)
    async with Coordinator("memory://", deps=deps, max_actions=most, drain=1) as coordinator:
        deps.coordinator = coordinator
        begin = 0
        sagas = (await coordinator.list(limit=5000)).records
        while len(sagas) < 2000:  # how many each starts depends on what comes first
            fates = (_fate(coordinator, n, chance) for n in range(begin, begin + 50))
            await asyncio.wait_for(asyncio.gather(*fates), 60)
            begin += 50
            sagas = (await coordinator.list(limit=5000)).records
        await asyncio.gather(*deps.left, return_exceptions=True)
        await asyncio.gather(
            *(coordinator.attach(record.id).result() for record in sagas), return_exceptions=True
        )
        assert (coordinator.slots.free, len(coordinator.slots._waiting)) == (most, 0)
    assert deps.left


async def test_what_an_action_leaves_behind_waiting_for_a_saga_makes_no_room_for_more() -> None:
    deps = Deps()
    doors = asyncio.Event()

    @action
    async def until_open(x: int) -> int:
        await doors.wait()
        return x

    @saga
    def slow(x: int) -> int:
        return until_open(x)

    @action
    async def leave(ctx: Ctx[Deps], x: int) -> int:
        assert ctx.deps.coordinator is not None
        ctx.deps.left.append(asyncio.create_task(ctx.deps.coordinator.run(slow, x)))
        await asyncio.sleep(0.001)
        return x

    @saga
    def leaves(x: int) -> int:
        return leave.options(name="second")(leave(x))

    @saga
    def leaves_side_by_side(xs: list[int]) -> list[int]:
        return fan_out(leave, xs)

    async with Coordinator("memory://", deps=deps, max_actions=20) as coordinator:
        deps.coordinator = coordinator
        await coordinator.run(leaves, 1)
        await coordinator.run(leaves_side_by_side, [1, 2, 3])
        assert len(deps.left) == 5
        while len((await coordinator.list(name="slow")).records) < 5:  # noqa: ASYNC110 - what it counts is stored
            await asyncio.sleep(0.001)
        assert coordinator.slots.free == 20 - 5
        doors.set()
        await asyncio.gather(*deps.left)
        assert coordinator.slots.free == 20
