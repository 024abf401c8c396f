"""A fan-out in memory, from 100 to 100,000 actions."""

from __future__ import annotations

from time import perf_counter

from benchmarks import floors
from benchmarks.measure import Row, Sample, in_turn
from benchmarks.sagas import do, do_later, effects, fan, fan_of_waiting
from compensate import Saga, SagaExecutor, open_store

SIZES = {100: 41, 10_000: 9, 100_000: 3}
"""How many actions, and in how many rounds."""

GROWTH = 1.5
"""How much more an action may grow dearer than one of `gather`, from the smallest fan-out to the largest: linear."""


def ours(size: int, saga: Saga[[list[int]], list[int]]) -> Sample:
    """A fan-out as a saga, in a new store."""
    xs = list(range(size))

    async def once() -> float:
        effects.clear()
        store = open_store("memory://")
        await store.open()
        began = perf_counter()
        outputs = await SagaExecutor(saga, store=store).execute(xs)
        took = perf_counter() - began
        assert len(effects) == size
        assert outputs[-1] == size
        return took / size * 1e6

    return once


def floor(size: int, do: floors.Do) -> Sample:
    """The same without a saga."""
    xs = list(range(size))

    async def once() -> float:
        effects.clear()
        began = perf_counter()
        await floors.gather(do, xs)
        took = perf_counter() - began
        assert len(effects) == size
        return took / size * 1e6

    return once


async def rows(quick: bool) -> list[Row]:
    """The rows of this group."""
    found: list[Row] = []
    for size, rounds in {10: 2, 100: 2}.items() if quick else SIZES.items():
        for saga, action, what in ((fan, do, ""), (fan_of_waiting, do_later, " whose actions wait")):
            pair = await in_turn(ours(size, saga), floor(size, action), rounds)
            found.append(pair.row(f"fan-out over {size:,}{what}, in memory, an action", "µs", 2.5))
    (small, small_floor), (large, large_floor) = (found[k].best or (1.0, 1.0) for k in (0, -2))
    growth = large / small / max(1.0, large_floor / small_floor)
    name = "fan-out: an action of the largest over one of the smallest, over the same of `gather`"
    return [*found, Row(name, "×", growth, None, growth, f"≤ {GROWTH:g} ×", growth <= GROWTH)]
