"""The simulated world itself: virtual time, processes that crash and sleep, participants with tombstones."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

from compensate.errors import NoEffect
from compensate.testing.simulation.history import play
from compensate.testing.simulation.loop import PROCESS, Process, VirtualLoop
from compensate.testing.simulation.scenario import Fault, NodeSpec, Scenario
from compensate.testing.simulation.tape import Tape
from compensate.testing.simulation.verdict import violations
from compensate.testing.simulation.world import Out, World


def _loop() -> VirtualLoop:
    return VirtualLoop(Random(1), shuffle=False)


def _run(loop: VirtualLoop) -> None:
    loop.run(lambda: False)


def test_time_passes_only_when_nothing_is_ready() -> None:
    loop = _loop()
    seen: list[float] = []

    async def sleeper() -> None:
        await asyncio.sleep(3600)
        seen.append(loop.now)
        try:
            async with asyncio.timeout(5):
                await asyncio.sleep(100)
        except TimeoutError:
            seen.append(loop.now)

    Process("p", loop).spawn(sleeper())
    _run(loop)
    assert seen == [3600.0, 3605.0]


def test_nothing_of_a_crashed_process_runs_again_not_even_its_finally() -> None:
    loop = _loop()
    seen: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(1)
            seen.append("woke up")
        finally:
            seen.append("cleaned up")

    process = Process("p", loop)
    process.spawn(work())
    loop.outside(0.5, process.crash)
    _run(loop)
    assert seen == []
    loop.close_all()


def test_a_paused_process_goes_on_later_and_the_world_does_not_wait() -> None:
    loop = _loop()
    seen: list[tuple[str, float]] = []

    async def work(name: str) -> None:
        await asyncio.sleep(1)
        seen.append((name, loop.now))

    sleepy, other = Process("sleepy", loop), Process("other", loop)
    sleepy.spawn(work("sleepy"))
    other.spawn(work("other"))
    loop.outside(0.5, sleepy.pause)
    loop.outside(9.0, sleepy.wake)
    _run(loop)
    assert seen == [("other", 1.0), ("sleepy", 9.0)]


def test_code_knows_its_process_in_tasks_timers_and_threads() -> None:
    loop = _loop()
    seen: list[Process | None] = []

    async def work() -> None:
        seen.append(PROCESS.get())
        await loop.run_in_executor(None, lambda: seen.append(PROCESS.get()))
        loop.call_later(1, lambda: seen.append(PROCESS.get()))

    process = Process("p", loop)
    process.spawn(work())
    _run(loop)
    assert seen == [process] * 3


def _world(*, keyed: bool, **node: Any) -> tuple[VirtualLoop, World]:
    loop = _loop()
    specs = {"a": NodeSpec("a", **node)}
    return loop, World(loop, specs, Tape(), keyed=keyed, log_length=lambda _: 0)


def _effects(world: World) -> list[str]:
    return [effect.direction for effect in world.tape.effects if effect.kind == "effect"]


def _late_action_and_early_undo(*, keyed: bool) -> tuple[World, list[BaseException]]:
    loop, world = _world(keyed=keyed, do=("late",))
    raised: list[BaseException] = []

    async def work() -> None:
        action = asyncio.ensure_future(world.call("s", "a", "do", 1, {}))
        await asyncio.sleep(0.1)
        await world.call("s", "a", "undo", 1, None)
        try:
            await action
        except NoEffect as error:
            raised.append(error)

    Process("p", loop).spawn(work())
    _run(loop)
    return world, raised


def test_a_tombstone_keeps_a_late_action_from_having_an_effect() -> None:
    world, raised = _late_action_and_early_undo(keyed=True)
    assert _effects(world) == ["undo"]
    assert [type(error) for error in raised] == [NoEffect]


def test_without_keys_a_late_action_has_its_effect_after_the_undo() -> None:
    world, raised = _late_action_and_early_undo(keyed=False)
    assert _effects(world) == ["undo", "do"]
    assert raised == []


def test_a_participant_with_keys_does_a_thing_once_and_says_the_same_again() -> None:
    loop, world = _world(keyed=True)
    outputs: list[Out] = []

    async def work() -> None:
        outputs.append(await world.call("s", "a", "do", 1, {}))
        outputs.append(await world.call("s", "a", "do", 2, {}))

    Process("p", loop).spawn(work())
    _run(loop)
    assert outputs[0] == outputs[1]
    assert _effects(world) == ["do"]


def test_a_crash_at_a_write_is_survived_by_adoption() -> None:
    scenario = Scenario(
        seed=1,
        world="keyed",
        nodes=(NodeSpec("a"), NodeSpec("b", after=("a",), do=("permanent",))),
        skews=(0.0, 0.0),
        faults=(Fault("start", 0, at=0.5), Fault("crash_after", 0, nth=2, length=60.0)),
    )
    history = play(scenario)
    assert not violations(history)
    assert history.tape.fired["crash_after"] == 1
    assert {event.epoch for event in history.logs["s0"]} == {1, 2}
    assert history.ends == {"rolled_back": 1}
