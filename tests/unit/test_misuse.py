"""What nobody should ask, and somebody will: a typed answer, and nothing is changed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from compensate import (
    CompensateError,
    Coordinator,
    IllegalRequest,
    Inject,
    ParamsInvalid,
    Permanent,
    RolledBack,
    Stopped,
    Stuck,
    action,
    saga,
)
from compensate.runtime.executor import SagaExecutor

DEEP = "[" * 50_000 + "]" * 50_000


@action
async def give(x: Any) -> Any:
    return x


@action
async def uncertain(x: Any) -> Any:
    raise ValueError("perhaps")


@uncertain.undo(unknown=True)
async def undo_uncertain(x: Any) -> None:
    raise Permanent("cannot")


@saga
def plain(x: Any) -> Any:
    return give(x)


@saga
def sticks(x: Any) -> Any:
    return uncertain(x)


@pytest.fixture(params=["memory://", "sqlite:///{}/s.db", "file:///{}/files"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    kind: str = request.param
    return kind.format(tmp_path)


async def test_no_saga_has_a_name_that_is_no_text(url: str) -> None:
    async with Coordinator(url) as coordinator:
        await coordinator.run(plain, 1)
        for name in ("\ud800", "a\0b", "", "n" * 100_000):
            assert (await coordinator.list(name=name)).records == []


async def test_a_page_may_be_as_large_as_anybody_asks(url: str) -> None:
    async with Coordinator(url) as coordinator:
        await coordinator.run(plain, 1)
        for limit in (1, 2**63 - 2, 2**63 - 1, 2**63, 10**30):
            page = await coordinator.list(limit=limit)
            assert (len(page.records), page.cursor) == (1, None)


@pytest.mark.parametrize(
    ("filters", "words"),
    [
        ({"limit": 1.5}, "a page of 1.5 sagas"),
        ({"limit": "3"}, "a page of '3' sagas"),
        ({"status": "done"}, "no saga has status 'done'; give one of completed, rolled_back"),
        ({"cursor": DEEP}, "is no cursor"),
        ({"cursor": "[1e999, 1]"}, "is no cursor"),
    ],
)
async def test_a_page_that_cannot_be_is_refused(url: str, filters: dict[str, Any], words: str) -> None:
    async with Coordinator(url) as coordinator:
        with pytest.raises(IllegalRequest, match=words):
            await coordinator.list(**filters)


async def test_json_nested_too_deeply_is_refused_as_other_bad_json_is() -> None:
    async with Coordinator("memory://") as coordinator:
        with pytest.raises(ParamsInvalid, match="recursion"):
            await coordinator.start_json(plain, f'{{"x": {DEEP}}}'.encode())
        with pytest.raises(Stuck):
            await coordinator.run(sticks.with_id("s"), 1)
        with pytest.raises(IllegalRequest, match="no JSON"):
            await coordinator.resolve("s", "uncertain", output=DEEP)
        assert (await coordinator.get("s")).status == "stuck"


async def test_a_refusal_does_not_repeat_megabytes_of_what_was_asked() -> None:
    async with Coordinator("memory://") as coordinator:
        run = await coordinator.start(plain, 1)
        await run.result()
        with pytest.raises(CompensateError) as caught:
            await coordinator.skip(run.id, "n" * 1_000_000)
        assert len(str(caught.value)) < 500


async def test_faults_may_be_put_into_the_mapping_after_it_was_given() -> None:
    faults: dict[str, Inject] = {}
    async with Coordinator("memory://", inject=faults) as coordinator:
        assert await coordinator.run(plain, 1) == 1
        faults["give"] = Inject(fail="before")
        with pytest.raises(RolledBack, match="injected"):
            await coordinator.run(plain, 1)
    later: dict[str, Inject] = {}
    executor = SagaExecutor(plain, inject=later)
    later["give"] = Inject(fail="before")
    with pytest.raises(RolledBack, match="injected"):
        await executor.execute(1)


async def test_a_coordinator_refuses_to_be_used_from_another_event_loop_and_goes_on_in_its_own(
    url: str,
) -> None:
    async with Coordinator(url) as coordinator:
        run = await coordinator.start(plain.with_id("mine"), 1)
        await run.result()

        def elsewhere() -> None:
            for ask in (
                lambda: coordinator.run(plain.with_id("other"), 1),
                lambda: coordinator.rollback("mine"),
                lambda: coordinator.adopt("mine"),
            ):
                with pytest.raises(IllegalRequest, match="another event loop"):
                    asyncio.run(ask())

        await asyncio.to_thread(elsewhere)
        assert [record.id for record in (await coordinator.list()).records] == ["mine"]
        assert await coordinator.run(plain.with_id("other"), 2) == 2


@action
async def wait_for_it(x: int) -> int:
    await doors["open"].wait()
    return x


@saga
def waits(x: int) -> int:
    return wait_for_it(x)


doors: dict[str, asyncio.Event] = {}


async def test_nobody_waits_in_another_event_loop_for_the_end_of_a_saga_that_runs_here() -> None:
    doors["open"] = asyncio.Event()
    async with Coordinator("memory://") as coordinator:
        run = await coordinator.start(waits, 1)

        def elsewhere() -> None:
            with pytest.raises(IllegalRequest, match="another event loop"):
                asyncio.run(asyncio.wait_for(run.result(), 10))

        await asyncio.to_thread(elsewhere)
        doors["open"].set()
        assert await run.result() == 1


def test_a_coordinator_that_is_shut_down_says_so_in_every_event_loop() -> None:
    coordinator = Coordinator("memory://")

    async def once() -> None:
        async with coordinator:
            pass

    asyncio.run(once())
    with pytest.raises(Stopped, match="is shut down"):
        asyncio.run(coordinator.run(plain, 1))


@pytest.mark.parametrize("url", ["sqlite:///{}/s.db", "file:///{}/files"], indirect=True)
async def test_a_coordinator_that_is_shut_down_says_so_to_those_who_only_look(url: str) -> None:
    coordinator = Coordinator(url, sagas=[plain])
    with pytest.raises(Stopped, match=r"^the coordinator has not begun"):
        await coordinator.list()
    async with coordinator:
        run = await coordinator.start(plain.with_id("s"), 1)
        assert await run.result() == 1
    stopped = "the coordinator is shut down; a stored saga is resumed by the next one"
    with pytest.raises(Stopped, match=f"^{stopped}"):
        await coordinator.list()
    for look in (coordinator.get, coordinator.record, coordinator.adopt):
        with pytest.raises(Stopped, match=f"^saga s: {stopped}"):
            await look("s")
    with pytest.raises(Stopped, match=f"^saga s: {stopped}"):
        await run.status()
    with pytest.raises(Stopped, match=f"^saga s: {stopped}"):
        await anext(run.events())


async def test_a_fault_that_no_known_saga_can_meet_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    faults = {"give": Inject(), "gvie": Inject()}
    async with Coordinator("memory://", sagas=[sticks, plain], inject=faults):
        pass
    assert [record.getMessage().partition("; ")[0] for record in caplog.records] == [
        "inject: none of the sagas known here runs an action at 'gvie'"
    ]
    caplog.clear()
    async with Coordinator("memory://", inject=faults):  # what will be started is not known
        pass
    assert caplog.records == []
