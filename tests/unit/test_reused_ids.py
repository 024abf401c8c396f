"""An id that was deleted and used again: nobody takes the new saga for the old one, or writes into it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest

from compensate import Coordinator, SagaNotFound, action, saga
from compensate.stores import open_store

STORES = ["sqlite:///{}/s.db", "file:///{}/s"]
PATIENCE = 20


class World:
    def __init__(self) -> None:
        self.gates: dict[int, asyncio.Event] = {1: asyncio.Event(), 2: asyncio.Event()}
        self.began: dict[int, asyncio.Event] = {1: asyncio.Event(), 2: asyncio.Event()}
        self.returned: list[int] = []


world = World()


@pytest.fixture(autouse=True)
def another_world() -> None:
    global world  # noqa: PLW0603  # the actions below have no other way to it
    world = World()


@action
async def step(x: int) -> int:
    world.began[x].set()
    # A reply that is under way comes whatever becomes of the caller.
    waiting = asyncio.ensure_future(world.gates[x].wait())
    while not waiting.done():
        try:
            await asyncio.shield(waiting)
        except asyncio.CancelledError:
            continue
    world.returned.append(x)
    return x


@saga
def steps(x: int) -> int:
    return step(x)


def delete_by_hand(url: str, saga_id: str) -> None:
    """As an operator does, or a restored copy: nobody here hears of it."""
    kind, path = url.split(":///")
    if kind == "file":
        (Path(path) / f"{saga_id}.log").unlink()
        return
    with sqlite3.connect(path) as connection:
        connection.execute("DELETE FROM events")
        connection.execute("DELETE FROM sagas")
    connection.close()


async def soon(work: Awaitable[Any]) -> Any:
    return await asyncio.wait_for(work, PATIENCE)


@pytest.mark.parametrize("url", STORES)
async def test_what_an_old_execution_still_brings_is_not_written_into_the_new_saga(
    url: str, tmp_path: Path
) -> None:
    url = url.format(tmp_path)
    async with Coordinator(url, sagas=[steps], drain=0) as a, Coordinator(url, sagas=[steps], drain=0) as b:
        waiting = asyncio.create_task(a.run(steps.with_id("s"), 1))
        await soon(world.began[1].wait())
        delete_by_hand(url, "s")
        run = await b.start(steps.with_id("s"), 2)
        await soon(world.began[2].wait())
        world.gates[1].set()
        with pytest.raises(SagaNotFound, match="another saga was started under its id"):
            await soon(waiting)
        assert world.returned == [1]
        world.gates[2].set()
        assert await soon(run.result()) == 2
        snapshot = await a.get("s")
        assert snapshot.output() == 2
        assert [event.type for event in snapshot.events] == [
            "saga_created",
            "started",
            "completed",
            "saga_completed",
        ]


@pytest.mark.parametrize("url", STORES)
async def test_an_id_whose_saga_was_deleted_while_it_ran_here_can_be_started_again_here(
    url: str, tmp_path: Path
) -> None:
    url = url.format(tmp_path)
    async with Coordinator(url, sagas=[steps], drain=0) as c:
        old = await c.start(steps.with_id("s"), 1)
        await soon(world.began[1].wait())
        delete_by_hand(url, "s")
        waiting = asyncio.create_task(c.run(steps.with_id("s"), 2))
        turns = 0
        while not world.began[2].is_set():  # the loop turns meanwhile
            turns += 1
            assert turns < 1_000
            await asyncio.sleep(0.01)
        with pytest.raises(SagaNotFound):
            await soon(old.result())
        world.gates[1].set()
        world.gates[2].set()
        assert await soon(waiting) == 2
        assert (await c.get("s")).output() == 2


@pytest.mark.parametrize("url", STORES)
async def test_who_starts_an_id_that_another_process_has_used_again_meanwhile_gets_that_saga(
    url: str, tmp_path: Path
) -> None:
    url = url.format(tmp_path)
    async with Coordinator(url, sagas=[steps], drain=0) as a, Coordinator(url, sagas=[steps], drain=0) as b:
        await a.start(steps.with_id("s"), 1)
        await soon(world.began[1].wait())
        delete_by_hand(url, "s")
        await b.start(steps.with_id("s"), 2)
        world.gates[2].set()
        assert await soon(a.run(steps.with_id("s"), 2)) == 2
        world.gates[1].set()


@pytest.mark.parametrize("how", ["run", "result", "ended", "events"])
@pytest.mark.parametrize("url", STORES)
async def test_who_waits_for_a_saga_of_another_process_is_not_given_the_end_of_a_later_one(
    url: str, how: str, tmp_path: Path
) -> None:
    url = url.format(tmp_path)
    async with Coordinator(url, sagas=[steps], drain=0) as a, Coordinator(url, sagas=[steps], drain=0) as b:
        await b.start(steps.with_id("s"), 1)
        await soon(world.began[1].wait())
        run = await a.start(steps.with_id("s"), 1)
        assert not run.new

        async def waits() -> Any:
            if how == "events":
                return [event async for event in run.events()]
            return await {
                "run": lambda: a.run(steps.with_id("s"), 1),
                "result": run.result,
                "ended": run.ended,
            }[how]()

        waiting = asyncio.create_task(waits())
        await asyncio.sleep(0.3)
        delete_by_hand(url, "s")
        world.gates[1].set()
        world.gates[2].set()
        other = await open_store_and_start(url)
        with pytest.raises(SagaNotFound):
            await soon(waiting)
        assert await soon(other) == 2


async def open_store_and_start(url: str) -> asyncio.Task[int]:
    """Run the id with other params in a coordinator of its own; a task that gives the output."""
    begun = asyncio.Event()

    async def go() -> int:
        async with Coordinator(open_store(url), sagas=[steps], drain=0) as c:
            run = await c.start(steps.with_id("s"), 2)
            begun.set()
            return await run.result()

    task = asyncio.create_task(go())
    await soon(begun.wait())
    return task
