"""Actions that go on side by side: as few tasks as they need, and none of them in another's way."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from compensate import Coordinator, RolledBack, SagaExecutor, action, fan_out, saga

MANY = 1_000

tasks: set[asyncio.Task[Any] | None] = set()
undone: list[int] = []
finished: list[int] = []


class Crowd:
    """How many are inside, and how many were at most."""

    def __init__(self) -> None:
        self.now = self.peak = 0
        self.gate = asyncio.Event()

    def enter(self) -> None:
        self.now += 1
        self.peak = max(self.peak, self.now)


crowds = [Crowd()]


@pytest.fixture(autouse=True)
def fresh() -> None:
    crowds[0] = Crowd()
    tasks.clear()
    undone.clear()
    finished.clear()


@action
async def at_once(x: int) -> int:
    tasks.add(asyncio.current_task())
    return x + 1


@action
async def together(x: int) -> int:
    """Ends only when all the others have been called."""
    tasks.add(asyncio.current_task())
    crowd = crowds[0]
    crowd.enter()
    if crowd.now == MANY:
        crowd.gate.set()
    await crowd.gate.wait()
    return x + 1


@action
async def first_waits_for_last(x: int) -> int:
    if x == 0:
        await crowds[0].gate.wait()
    elif x == MANY - 1:
        crowds[0].gate.set()
    return x + 1


@action
async def first_hangs(x: int) -> int:
    if x == 0:
        await asyncio.Event().wait()
    finished.append(x)
    if x == MANY - 1:
        crowds[0].gate.set()
    return x + 1


@first_hangs.undo(unknown=True)
async def take_back(x: int | None) -> None:
    undone.append(-1 if x is None else x)


@action
async def interrupts(x: int) -> int:
    if x == MANY // 2:
        raise KeyboardInterrupt
    return x


@action
async def fails_late(x: int) -> int:
    await asyncio.sleep(0)
    if x == MANY // 2:
        raise ValueError("no")
    return x


@fails_late.undo
async def undo_at_once(x: int) -> None:
    tasks.add(asyncio.current_task())
    undone.append(x)


@saga
def quick(xs: list[int]) -> list[int]:
    return fan_out(at_once, xs)


@saga
def waiting(xs: list[int]) -> list[int]:
    return fan_out(together, xs)


@saga
def mixed(xs: list[int]) -> list[int]:
    return fan_out(first_waits_for_last, xs)


@saga
def hanging(xs: list[int]) -> list[int]:
    return fan_out(first_hangs, xs)


@saga
def interrupted(xs: list[int]) -> list[int]:
    return fan_out(interrupts, xs)


@saga
def failing(xs: list[int]) -> list[int]:
    return fan_out(fails_late, xs)


XS = list(range(MANY))
OUTPUTS = [x + 1 for x in XS]


async def test_actions_that_never_wait_share_a_few_tasks() -> None:
    assert await SagaExecutor(quick).execute(XS) == OUTPUTS
    assert len(tasks) < MANY / 10


async def test_actions_that_wait_run_all_at_once() -> None:
    assert await SagaExecutor(waiting).execute(XS) == OUTPUTS
    assert crowds[0].peak == MANY
    assert len(tasks) == MANY


async def test_an_action_that_waits_holds_up_none_behind_it() -> None:
    assert await SagaExecutor(mixed).execute(XS) == OUTPUTS


async def test_when_the_grace_is_over_only_what_still_runs_is_cancelled_and_all_is_undone() -> None:
    executor = SagaExecutor(hanging, grace=0.0)
    running = asyncio.create_task(executor.execute(XS))
    await crowds[0].gate.wait()
    await executor.rollback("enough")
    with pytest.raises(RolledBack):
        await running
    assert sorted(finished) == XS[1:]
    assert sorted(undone) == [-1, *OUTPUTS[1:]]


async def test_the_grace_holds_for_a_lone_chain_too() -> None:
    @saga
    def lone(x: int) -> int:
        return first_hangs(first_hangs.options(name="before")(x))

    executor = SagaExecutor(lone, grace=0.0)
    running = asyncio.create_task(executor.execute(-1))  # the second gets 0, and hangs
    for _ in range(5):
        await asyncio.sleep(0)
    assert finished == [-1]
    await executor.rollback("enough")
    with pytest.raises(RolledBack):
        await asyncio.wait_for(running, 10)  # not the thirty seconds of the default
    assert undone == [-1, 0]


async def test_undos_of_siblings_share_tasks_too() -> None:
    with pytest.raises(RolledBack):
        await SagaExecutor(failing).execute(XS)
    assert sorted(undone) == [x for x in XS if x != MANY // 2]
    assert len(tasks) < MANY / 10


def test_an_interrupt_from_the_keyboard_is_raised_on_and_is_no_outcome() -> None:
    executor = SagaExecutor(interrupted)
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(executor.execute(XS))
    assert executor.execution_state()[f"interrupts[{MANY // 2}]"] == "running"


async def test_no_more_actions_run_at_once_than_the_coordinator_has_room_for() -> None:
    @action
    async def crowded(x: int) -> int:
        crowds[0].enter()
        await asyncio.sleep(0.001)
        crowds[0].now -= 1
        return x + 1

    @saga
    def crowd(xs: list[int]) -> list[int]:
        return fan_out(crowded, xs)

    coordinator: Coordinator = Coordinator("memory://", sagas=[crowd], max_actions=7)
    async with coordinator:
        assert await coordinator.run(crowd, XS[:100]) == OUTPUTS[:100]
    assert crowds[0].peak == 7
