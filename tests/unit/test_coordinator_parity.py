"""The coordinator as steno's SEC: create, start, list, get, resume; adopting one saga; stopped by a signal."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import compensate
from compensate import (
    Coordinator,
    Ctx,
    DagBuilder,
    NotFound,
    RolledBack,
    Run,
    SagaExists,
    SagaNotFound,
    Stopped,
    action,
    action_node,
    connect,
    output,
    param,
    reading,
    saga,
    saga_from_dag,
    store_exists,
)
from tests.support import restorer

GATE: list[asyncio.Event] = []


@pytest.fixture(autouse=True)
def _clean() -> None:
    GATE.clear()


@action
async def wait(word: str) -> str:
    for gate in GATE:
        await gate.wait()
    return word


@action
async def shout(word: str) -> str:
    return word.upper()


@saga
def spoken(word: str) -> str:
    return shout(wait(word))


async def until(run: Run[str], node: str, kind: str) -> None:
    async for event in run.events():
        if (event.node, event.type) == (node, kind):
            return


async def test_a_saga_is_created_started_got_and_listed() -> None:
    async with Coordinator("memory://", sagas=[spoken]) as c:
        GATE.append(asyncio.Event())
        run = await c.start(spoken.with_id("a"), "hi")
        await until(run, "wait", "started")
        assert run.id == "a"
        assert (await c.get("a")).status == await run.status() == "running"
        assert (await c.get("a")).nodes == {"wait": "running", "shout": "pending"}
        GATE[0].set()
        assert await run.result() == "HI"
        await c.run(spoken.with_id("b"), "ho")
        assert [record.id for record in (await c.list()).records] == ["b", "a"]
        page = await c.list(status="completed", name="spoken", limit=1)
        assert [record.id for record in page.records] == ["b"]
        rest = await c.list(status="completed", name="spoken", limit=1, cursor=page.cursor)
        assert [record.id for record in rest.records] == ["a"]
        assert (await c.list(status="stuck")).records == []
        with pytest.raises(SagaNotFound):
            await c.get("nobody")


async def test_starting_an_id_again_is_the_same_saga_and_with_other_params_refused() -> None:
    async with Coordinator("memory://", sagas=[spoken]) as c:
        assert await c.run(spoken.with_id("a"), "hi") == "HI"
        assert await c.run(spoken.with_id("a"), "hi") == "HI"
        assert len((await c.list()).records) == 1
        with pytest.raises(SagaExists, match="saga a: the id is taken by a saga 'spoken' with other params"):
            await c.run(spoken.with_id("a"), "ho")


async def test_a_stored_saga_is_resumed_by_the_next_coordinator_on_entry(tmp_path: Path) -> None:
    url = f"file:///{tmp_path}"
    GATE.append(asyncio.Event())
    async with Coordinator(url, sagas=[spoken], drain=0.0) as c:
        run = await c.start(spoken.with_id("a"), "hi")
        await until(run, "wait", "started")
    GATE.clear()
    async with Coordinator(url, sagas=[spoken]) as c:
        assert await c.attach("a").result() == "HI"


async def test_a_coordinator_that_does_not_recover_goes_on_with_the_one_it_is_told_of(tmp_path: Path) -> None:
    url = f"file:///{tmp_path}"
    GATE.append(asyncio.Event())
    async with Coordinator(url, sagas=[spoken], drain=0.0) as c:
        for saga_id in ("a", "b"):
            run = await c.start(spoken.with_id(saga_id), "hi")
            await until(run, "wait", "started")
    GATE.clear()
    async with Coordinator(url, sagas=[spoken], recover=False, poll=0.02) as c:
        assert await (await c.adopt("a")).result() == "HI"
        await asyncio.sleep(0.1)  # some polls
        assert (await c.get("b")).status == "running"
        assert c.execution("b") is None


async def test_a_saga_that_somebody_else_runs_is_gone_on_with_once_its_owner_leaves(tmp_path: Path) -> None:
    url = f"file:///{tmp_path}"
    GATE.append(asyncio.Event())
    first = Coordinator(url, sagas=[spoken], drain=0.0)
    await first.__aenter__()
    run = await first.start(spoken.with_id("a"), "hi")
    await until(run, "wait", "started")
    async with Coordinator(url, sagas=[spoken], recover=False, poll=0.02) as second:
        waiting = await second.adopt("a")
        again = await second.start(spoken.with_id("a"), "hi")
        assert second.execution("a") is None  # the first one runs it
        GATE.clear()
        await first.close()
        assert await waiting.result() == await again.result() == "HI"


async def test_reading_a_store_goes_on_with_nothing_and_makes_nothing(tmp_path: Path) -> None:
    url = f"file:///{tmp_path / 'sagas'}"
    assert not store_exists(url)
    with pytest.raises(NotFound, match="no such store"):
        async with reading(url):
            pass
    assert not store_exists(url)
    GATE.append(asyncio.Event())
    async with Coordinator(url, sagas=[spoken], drain=0.0) as c:
        run = await c.start(spoken.with_id("a"), "hi")
        await until(run, "wait", "started")
    async with reading(url) as store:
        before = await store.load("a")
        assert [record.id for record in (await store.page()).records] == ["a"]
    async with reading(url) as store:
        assert await store.load("a") == before
    assert before.record.status == "running"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_coordinator_stopped_by_a_signal_says_which(number: signal.Signals) -> None:
    GATE.append(asyncio.Event())
    c = Coordinator("memory://", sagas=[spoken], drain=0.0, stop_on=[number])
    async with c:
        run = await c.start(spoken.with_id("a"), "hi")
        await until(run, "wait", "started")
        os.kill(os.getpid(), number)
        with pytest.raises(
            Stopped, match=f"saga a: the coordinator is shut down by {number.name};"
        ) as caught:
            await run.result()
    assert caught.value.signal == number.name


async def test_a_coordinator_that_was_closed_names_no_signal() -> None:
    async with Coordinator("memory://", sagas=[spoken]) as c:
        pass
    with pytest.raises(Stopped, match="the coordinator is shut down; ") as caught:
        await c.start(spoken, "hi")
    assert caught.value.signal == ""


async def test_a_dag_built_at_run_time_runs_under_a_coordinator_and_is_recovered_by_the_names_of_its_actions(
    tmp_path: Path,
) -> None:
    url = f"sqlite:///{tmp_path / 'sagas.db'}"
    registry = compensate.ActionRegistry()
    registry.register(wait)
    registry.register(shout)
    dag = (
        DagBuilder("built", registry, params=("word",))
        .append(action_node("w", wait, inputs={"word": param("word")}))
        .append(action_node("s", shout, inputs={"word": output("w")}))
        .build()
    )
    built = saga_from_dag(dag, registry, params={"word": str}, returns=str)
    GATE.append(asyncio.Event())
    async with Coordinator(url, sagas=[built], drain=0.0) as c:
        run = await c.start(built.with_id("a"), word="hi")
        await until(run, "w", "started")
    GATE.clear()
    async with Coordinator(url, actions=[wait, shout]) as c:  # the definition is not known to it
        assert await c.attach("a").result() == "HI"


@saga
def order(item: str) -> str:
    return restorer.ship(restorer.reserve(item))


@pytest.mark.parametrize("store", ["file", "sqlite"])
@pytest.mark.parametrize("way", ["forward", "back"])
def test_a_new_process_restores_a_saga_by_the_names_of_its_actions(
    tmp_path: Path, store: str, way: str
) -> None:
    url = f"{store}:///{tmp_path / 'sagas'}"
    with connect(url, sagas=[order]) as c:
        assert c.run(order.with_id("o1"), "lamp") == "shipped hold on lamp"
    done = subprocess.run(
        [sys.executable, restorer.__file__, url, "o1", way], capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == (
        ["shipped hold on lamp"]
        if way == "forward"
        else [
            "undo shipped hold on lamp",
            "undo hold on lamp",
            "saga o1 was rolled back: it was asked for: because",
        ]
    )


def test_the_blocking_twin_runs_lists_and_rolls_back() -> None:
    with connect("memory://", sagas=[order]) as c:
        run = c.start(order.with_id("o1"), "lamp")
        assert run.result() == "shipped hold on lamp"
        assert [event.type for event in run.events()][-1] == "saga_completed"
        assert [record.id for record in c.list(name="order").records] == ["o1"]
        assert c.get("o1").output("reserve") == "hold on lamp"
        with pytest.raises(RolledBack):
            c.rollback("o1").result()
        assert c.attach("o1").status() == "rolled_back"


async def test_the_blocking_twin_goes_on_with_one_saga(tmp_path: Path) -> None:
    url = f"file:///{tmp_path}"
    GATE.append(asyncio.Event())
    async with Coordinator(url, sagas=[spoken], drain=0.0) as c:
        for saga_id in ("a", "b"):
            await until(await c.start(spoken.with_id(saga_id), "hi"), "wait", "started")
    GATE.clear()

    def script() -> tuple[str, str]:
        with connect(url, sagas=[spoken], recover=False) as c:
            return c.adopt("a").result(), c.attach("b").status()

    assert await asyncio.to_thread(script) == ("HI", "running")


# -- in the hand -----------------------------------------------------------


async def test_a_unit_test_gives_an_action_or_undo_what_it_reads() -> None:
    @action
    async def place(ctx: Ctx[dict[str, str]], item: str) -> str:
        return f"{ctx.deps['shop']}: {item}, {ctx.lookup('quote', int)} cents, {ctx.params(dict[str, str])['who']}"

    @place.undo(unknown=True)
    async def unplace(ctx: Ctx[dict[str, str]], made: str | None) -> None:
        ctx.deps["undone"] = f"{ctx.inputs['item']} under {ctx.do_key}, made: {made}"

    deps = {"shop": "corner"}
    ctx = Ctx(deps, outputs={"quote": 7}, params={"who": "ann"})
    assert await place.fn(ctx, "lamp") == "corner: lamp, 7 cents, ann"
    await unplace(Ctx(deps, "s", "place", direction="undo", inputs={"item": "lamp"}), None)
    assert deps["undone"] == "lamp under s/place/do, made: None"
    with pytest.raises(NotFound, match=r"give it outputs=\{'price': ...\}"):
        ctx.lookup("price", int)
    with pytest.raises(NotFound, match="give it inputs="):
        _ = ctx.inputs
    with pytest.raises(NotFound, match="give it params="):
        Ctx(deps).params(dict)
