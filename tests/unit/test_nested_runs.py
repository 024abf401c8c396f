"""Actions that run other sagas on their own coordinator, with as few slots as there can be."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest

from compensate import Connection, Coordinator, Ctx, action, connect, fan_out, saga


@dataclass
class Deps:
    """How actions get at the coordinator that runs them."""

    coordinator: Coordinator | None = None
    connection: Connection | None = None
    running: int = 0
    most: int = 0


@action
async def leaf(ctx: Ctx[Deps], x: int) -> int:
    deps = ctx.deps
    deps.running += 1
    deps.most = max(deps.most, deps.running)
    await asyncio.sleep(0.001)
    deps.running -= 1
    return x


@saga
def inner(x: int) -> int:
    return leaf(x)


@action
async def outside(ctx: Ctx[Deps], x: int) -> int:
    assert ctx.deps.coordinator is not None
    return await ctx.deps.coordinator.run(inner, x)


@action
async def several_at_once(ctx: Ctx[Deps], x: int) -> int:
    assert ctx.deps.coordinator is not None
    return sum(await asyncio.gather(*(ctx.deps.coordinator.run(inner, x) for _ in range(3))))


@action
def in_a_thread(ctx: Ctx[Deps], x: int) -> int:
    assert ctx.deps.connection is not None
    return ctx.deps.connection.run(inner, x)


@saga
def lone(x: int) -> int:
    return outside(x)


@saga
def many(xs: list[int]) -> list[int]:
    return fan_out(outside, xs)


@saga
def gathers(x: int) -> int:
    return several_at_once(x)


@saga
def threaded(x: int) -> int:
    return in_a_thread(x)


@pytest.fixture(params=[1, 2])
def slots(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.mark.parametrize(
    ("outer", "given", "expected"), [(lone, 1, 1), (many, [1, 2, 3, 4], [1, 2, 3, 4]), (gathers, 1, 3)]
)
async def test_an_action_that_waits_for_another_saga_leaves_its_slot_to_that(
    slots: int, outer: Any, given: Any, expected: Any
) -> None:
    deps = Deps()
    async with Coordinator("memory://", deps=deps, max_actions=slots, drain=0.1) as coordinator:
        deps.coordinator = coordinator
        results = await asyncio.wait_for(
            asyncio.gather(*(coordinator.run(outer, given) for _ in range(4))), 10
        )
        assert results == [expected] * 4
        assert await coordinator.run(inner, 1) == 1
    assert deps.most == slots


def test_an_action_in_a_thread_that_waits_for_another_saga_leaves_its_slot_to_that() -> None:
    deps = Deps()
    with connect("memory://", deps=deps, max_actions=1, drain=0.1) as connection:
        deps.connection = connection
        run = connection.start(threaded, 1)
        assert connection.wait(asyncio.wait_for(connection.coordinator.attach(run.id).result(), 10)) == 1
    assert deps.most == 1
