"""Deploys: random sagas are cut off at random points, and go on, or wait, under code that was changed at random."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest

from compensate import Coordinator, DefinitionError, Saga
from compensate.core import events as e
from compensate.core import states as s
from compensate.inspection.snapshot import Snapshot
from compensate.stores.memory import MemoryStore
from compensate.testing.checker import check
from tests.support.deploys import CHANGES, NAMES, Change, Kind, World, random_saga, registry_of, vocabulary

HISTORIES = 250
_OPEN = (s.RUNNING, s.ROLLING_BACK)


async def cut_off(store: MemoryStore, saga: Saga[..., object], world: World) -> None:
    """Run the saga to the call at which it hangs, or to its end, and end the coordinator there."""
    async with Coordinator(store, deps=world, sagas=[saga], drain=0.0, grace=0.0) as c:
        run = await c.start(saga.with_id("s"), start=1)
        stopped = asyncio.create_task(world.stopped.wait())
        over = asyncio.create_task(settled(c))
        await asyncio.wait({stopped, over}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        over.cancel()
        await asyncio.gather(stopped, over, return_exceptions=True)
        assert run.id == "s"


async def settled(c: Coordinator) -> Snapshot:
    """The saga once it runs no further here."""
    while True:
        snapshot = await c.get("s")
        if snapshot.status not in _OPEN and c.execution("s") is None:
            return snapshot
        await asyncio.sleep(0.002)


async def goes_on(
    store: MemoryStore, kinds: list[Kind], changes: dict[str, Change], world: World
) -> Snapshot:
    async with Coordinator(store, deps=world, actions=registry_of(kinds, changes)[0], poll=0.05) as c:
        return await asyncio.wait_for(settled(c), 20)


def a_case(seed: int) -> tuple[list[Kind], Saga[..., object], World, dict[str, Change]]:
    chance = random.Random(seed)
    while True:
        kinds = vocabulary(chance)
        try:
            saga = random_saga(chance, kinds)
        except DefinitionError:
            continue  # such as a node behind a pivot that is not tried again
        break
    world = World(chance.randint(1, 12), chance.choice([0, 0, chance.randint(1, 9)]))
    changes: dict[str, Change] = {
        name: chance.choice(CHANGES) for name in chance.sample(NAMES, chance.randint(1, 2))
    }
    return kinds, saga, world, changes


async def one_history(seed: int) -> str:
    """Returns how it went; what must not be raises."""
    kinds, saga, world, changes = a_case(seed)
    store = MemoryStore()
    await cut_off(store, saga, world)
    before = await store.load("s")
    if before.record.status not in _OPEN:
        return "over before the deploy"
    assert world.stopped.is_set()
    same = Snapshot(before).misfit(registry_of(kinds, {})[1])
    assert not same, f"code that has not changed does not fit: {same}"
    expected = Snapshot(before).misfit(registry_of(kinds, changes)[1])

    after = World(fail_at=world.fail_at if world.fail_at > world.calls else 0)
    snapshot = await goes_on(store, kinds, changes, after)
    assert not after.wrong, (changes, after.wrong)
    parked = snapshot.fold.stuck.parked if snapshot.fold.stuck is not None else ""
    assert bool(parked) == bool(expected), (changes, parked, expected)
    assert not parked or parked.startswith(f"{expected}; "), "the reason, then what to do"
    if parked:
        assert after.calls == 0, "something ran before it was parked"
        assert any(f"node {name!r}" in parked or f"node '{name}/" in parked for name in snapshot.nodes), (
            parked
        )
        assert snapshot.misfit(registry_of(kinds, changes)[1]) == expected
        snapshot = await goes_on(store, kinds, {}, after)
        how = "parked"
    else:
        how = "went on"
    events = snapshot.events
    for event in events[before.record.last_seq :]:
        if isinstance(event.data, e.Failed | e.UndoFailed) and event.data.error is not None:
            assert event.data.error.message == "made to fail", (changes, event.data.error)
    was_going_back = before.record.status == s.ROLLING_BACK or any(
        isinstance(event.data, e.Failed) for event in events
    )
    assert snapshot.status == (s.ROLLED_BACK if was_going_back and snapshot.fold.rollback else s.COMPLETED), (
        changes
    )
    found = check(saga.dag, events)
    assert not found, found
    return how


@pytest.mark.slow
@pytest.mark.time_limit(300)
def test_a_saga_runs_under_changed_code_without_a_wrong_call_or_is_parked_until_the_old_code_is_back() -> (
    None
):
    async def all_of_them() -> Counter[str]:
        seen: Counter[str] = Counter()
        for seed in range(HISTORIES):
            try:
                seen[await one_history(seed)] += 1
            except BaseException as error:
                error.add_note(f"seed {seed}")
                raise
        return seen

    seen = asyncio.run(all_of_them())
    assert seen["parked"] > HISTORIES / 8, seen
    assert seen["went on"] > HISTORIES / 8, seen
