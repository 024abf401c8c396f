"""A chain in memory: forward, and rolled back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from time import perf_counter
from typing import Any

from benchmarks import floors
from benchmarks.measure import Row, Sample, in_turn
from benchmarks.sagas import BACK, EFFECTS_BACK, FORWARD, LENGTH, broken, chain, effects
from compensate import Coordinator, RolledBack, Saga, SagaExecutor, open_store

Run = Callable[[], Awaitable[Any]]


def sample(
    opened: Callable[[], AbstractAsyncContextManager[Run]], sagas: int, per: float, back: bool
) -> Sample:
    """Runs so many sagas one after the other in a new store; the time of one, divided by `per`."""
    expected = sagas * (EFFECTS_BACK if back else LENGTH)

    async def once() -> float:
        async with opened() as run:
            effects.clear()
            began = perf_counter()
            for _ in range(sagas):
                with suppress(RolledBack, ValueError):
                    await run()
            took = perf_counter() - began
            assert len(effects) == expected, f"{len(effects)} effects instead of {expected}"
            return took / sagas / per

    return once


@asynccontextmanager
async def executor(saga: Saga[[int], int], url: str = "memory://") -> AsyncIterator[Run]:
    """A new executor for each saga, on one open store."""
    store = open_store(url)
    await store.open()
    yield lambda: SagaExecutor(saga, store=store).execute(1)
    await store.close()


@asynccontextmanager
async def coordinator(saga: Saga[[int], int], url: str = "memory://") -> AsyncIterator[Run]:
    """One coordinator for all sagas."""
    async with Coordinator(url, sagas=[saga]) as running:
        yield lambda: running.run(saga, 1)


@asynccontextmanager
async def bare(back: bool) -> AsyncIterator[Run]:
    """The floor."""
    pairs = BACK if back else FORWARD
    yield lambda: floors.loop(pairs, 1)


async def rows(quick: bool) -> list[Row]:
    """The rows of this group."""
    sagas, rounds = (5, 2) if quick else (200, 41)
    found: list[Row] = []
    for back, saga, what, unit, per in (
        (False, chain, "chain of 10 in memory, an action", "µs", LENGTH / 1e6),
        (True, broken, "9 done, the 10th fails, all undone, in memory", "ms", 1e-3),
    ):
        floor = sample(lambda back=back: bare(back), sagas, per, back)
        for kind in (executor, coordinator):
            ours = sample(lambda kind=kind, saga=saga: kind(saga), sagas, per, back)
            pair = await in_turn(ours, floor, rounds)
            found.append(pair.row(f"{what}: `{NAMES[kind]}`", unit, 10))
    return found


NAMES = {executor: "SagaExecutor", coordinator: "Coordinator"}
