"""Parked sagas among coordinators with different code: who fits takes them up, who does not leaves them alone."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from compensate import (
    Action,
    Coordinator,
    DagBuilder,
    DefinitionError,
    Retry,
    Saga,
    action,
    action_node,
    output,
    saga,
    saga_from_dag,
)
from compensate.authoring import ActionRegistry
from compensate.core.dag import Ref
from compensate.stores.base import Page, StoredSaga
from compensate.stores.memory import MemoryStore
from tests.unit.test_fit import act, fail, hang, number, row, undo, until_status


class Counting(MemoryStore):
    """Counts what is read, and claims."""

    def __init__(self) -> None:
        super().__init__()
        self.loads = self.pages = self.claims = 0

    async def load(self, saga_id: str) -> StoredSaga:
        self.loads += 1
        return await super().load(saga_id)

    async def page(self, **asked: Any) -> Page:
        self.pages += 1
        return await super().page(**asked)

    async def claim_one(self, saga_id: str, owner: str, now: float) -> StoredSaga | None:
        self.claims += 1
        return await super().claim_one(saga_id, owner, now)


JOB = row(act(number, "first", undo), act(hang, "second"))
FITS = (act(number, "first", undo), act(number, "second"))
LACKS = (act(number, "first", undo),)


async def park(store: MemoryStore | str, count: int = 1) -> None:
    async with Coordinator(store, sagas=[JOB], drain=0.0) as c:
        for k in range(count):
            await c.start(JOB.with_id(f"s{k}"), 1)
        for _ in range(20):
            await asyncio.sleep(0.002)
    async with Coordinator(store) as c:
        assert all(record.parked for record in (await c.list(limit=count)).records)


async def until_looked(store: Counting, times: int) -> None:
    pages = store.pages
    while store.pages < pages + times:  # noqa: ASYNC110
        await asyncio.sleep(0.005)


async def test_strangers_do_not_touch_a_parked_saga_and_who_fits_takes_it_up(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 's.db'}"
    async with Coordinator(url, actions=FITS, recover=False, poll=0.02) as looks:
        await park(url)
        before = await looks.record("s0")
        async with (
            Coordinator(url, actions=LACKS, poll=0.01),
            Coordinator(url, poll=0.01) as stranger,
        ):
            for _ in range(20):
                await asyncio.sleep(0.01)
            after = await stranger.record("s0")
            assert (after.epoch, after.last_seq, after.owner) == (before.epoch, before.last_seq, None)
            async with Coordinator(url, actions=FITS, poll=0.01) as knows:
                assert await knows.attach("s0").result() == 1


async def test_who_learns_the_code_later_takes_it_up_then() -> None:
    store = MemoryStore()
    await park(store)
    async with Coordinator(store, poll=0.01) as c:
        for _ in range(10):
            await asyncio.sleep(0.01)
        assert (await c.record("s0")).parked
        assert await c.run(row(*FITS).with_id("other"), 2) == 2
        assert await c.attach("s0").result() == 1


async def test_a_saga_that_is_parked_while_one_that_fits_lives_is_taken_up_by_it() -> None:
    store = MemoryStore()
    async with Coordinator(store, owner="a", actions=FITS, poll=0.05) as knows:
        await park(store)
        await until_status(knows, "s0", "completed")


async def test_thousands_of_parked_sagas_are_read_once_and_not_claimed() -> None:
    store = Counting()
    await park(store, 1_500)
    store.loads = store.claims = 0
    async with Coordinator(store, actions=LACKS, poll=0.005):
        assert (store.loads, store.claims) == (1_500, 0)
        await until_looked(store, 6)
    assert (store.loads, store.claims) == (1_500, 0)
    async with Coordinator(store, actions=FITS) as c:
        for k in range(1_500):
            assert await c.attach(f"s{k}").result() == 1


async def test_a_saga_whose_undo_is_gone_is_parked_in_the_middle_of_its_rollback_and_goes_on_by_itself() -> (
    None
):
    async def hangs(x: int) -> None:
        await asyncio.Event().wait()

    store = MemoryStore()
    saga_ = row(act(number, "first", hangs), act(fail, "second"))
    async with Coordinator(store, sagas=[saga_], drain=0.0) as c:
        await c.start(saga_.with_id("s"), 1)
        for _ in range(20):
            await asyncio.sleep(0.002)
    async with Coordinator(store, actions=[act(number, "first"), act(fail, "second")], poll=0.01) as lacks:
        record = await lacks.record("s")
        assert (record.status, record.parked) == ("stuck", True)
        async with Coordinator(
            store, actions=[act(number, "first", undo), act(fail, "second")], poll=0.01
        ) as c:
            await until_status(c, "s", "rolled_back")


async def test_a_saga_that_no_code_can_help_is_not_taken_up_again_and_again() -> None:
    """Its `when` leads to what is no flag, behind a pivot."""

    async def pivot(x: int) -> int:
        return x

    registry = ActionRegistry()
    first = act(pivot, "first", pivot=True)
    second = act(number, "second", retry=Retry(2, first=0.01))
    for one in (first, second):
        registry.register(one)
    dag = (
        DagBuilder("odd", registry)
        .append(action_node("first", first, inputs={"x": 1}))
        .append(action_node("second", second, inputs={"x": output("first")}, when=Ref("first")))
        .build(output=None)
    )
    odd: Saga[..., Any] = saga_from_dag(dag, registry)
    store = Counting()
    async with Coordinator(store, sagas=[odd], poll=0.01) as c:
        await c.start(odd.with_id("s"))
        await until_status(c, "s", "stuck")
        before = await c.record("s")
        assert before.parked
        await until_looked(store, 10)
        after = await c.record("s")
        assert (after.last_seq, after.epoch) == (before.last_seq, before.epoch)


# -- names -------------------------------------------------------------------


def two_of_one_name() -> tuple[Saga[..., Any], Saga[..., Any]]:
    one: Action[..., Any] = act(number, "one")

    @saga(name="same")
    def first(x: int) -> int:
        result: int = one(x)
        return result

    @saga(name="same")
    def second(x: int) -> list[int]:
        return [one(x)]

    return first, second


async def test_two_sagas_of_one_name_are_refused_wherever_the_second_comes() -> None:
    first, second = two_of_one_name()
    both = "two sagas are named 'same': .*test_parked.py:[0-9]+.* and .*test_parked.py:[0-9]+"
    with pytest.raises(DefinitionError, match=both):
        Coordinator("memory://", sagas=[first, second])
    registry = ActionRegistry()
    registry.register_saga(first)
    with pytest.raises(DefinitionError, match=both):
        registry.register_saga(second)
    async with Coordinator("memory://", sagas=[first]) as c:
        with pytest.raises(DefinitionError, match=both):
            await c.start(second.with_id("s"), 1)
        assert (await c.list()).records == []
        assert await c.run(first.with_id("t").options(deadline=60), 1) == 1
        assert await c.run(first.options(label="again"), 2) == 2


async def test_graphs_made_at_run_time_may_share_a_name() -> None:
    @action
    async def one(x: int) -> int:
        return x

    def made(times: int) -> Saga[..., Any]:
        @saga
        def chain(x: int) -> int:
            for _ in range(times):
                x = one(x)
            return x

        return chain

    registry = ActionRegistry()
    registry.register(one)

    def built(times: int) -> Saga[..., Any]:
        builder = DagBuilder("built", registry)
        for k in range(times):
            builder = builder.append(action_node(f"n{k}", one, inputs={"x": k}))
        return saga_from_dag(builder.build(), registry)

    async with Coordinator("memory://") as c:
        assert [await c.run(made(times), 1) for times in (1, 2)] == [1, 1]
        assert [await c.run(built(times)) for times in (1, 2, 2)] == [0, 1, 1]
