"""A run that is asked only after its saga has ended tells how the saga stands then."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from compensate import Coordinator, Retry, RolledBack, Run, SagaNotFound, Stuck, action, saga
from compensate.stores.base import NewSaga, StoredSaga
from compensate.stores.memory import MemoryStore

broken: set[str] = set()


@pytest.fixture(autouse=True)
def _break() -> None:
    broken.add("left")


@action
async def made(x: int) -> int:
    return x


@made.undo
async def unmade(x: int) -> None:
    await asyncio.sleep(0.05)


@action
async def left(x: int) -> int:
    return x


@left.undo(retry=Retry(1))
async def not_left(x: int) -> None:
    if broken:
        raise OSError("it will not go")


@action
async def fails(x: int) -> int:
    raise LookupError("no")


@saga
def good(x: int) -> int:
    return made(x)


@saga
def bad(x: int) -> int:
    return fails(left(x))


async def _told(run: Run[int], how: str) -> str:
    if how == "ended":
        return await run.ended()
    try:
        await run.result()
    except RolledBack:
        return "rolled_back"
    except Stuck:
        return "stuck"
    return "completed"


async def _over(run: Run[int]) -> None:
    """Wait for the end without asking the run that is told about."""
    while await run.status() in ("running", "rolling_back"):  # noqa: ASYNC110 - the run is not to be asked
        await asyncio.sleep(0.005)
    await asyncio.sleep(0.02)


@pytest.mark.parametrize("how", ["ended", "result"])
@pytest.mark.parametrize("asked_before", [False, True])
@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize("verb", ["rollback", "retry", "skip", "resolve"])
async def test_a_late_asker_is_told_what_has_come_of_it_since(
    tmp_path: Path, how: str, asked_before: bool, elsewhere: bool, verb: str
) -> None:
    url = f"sqlite:///{tmp_path / 'db'}"
    async with (
        Coordinator(url, sagas=[good, bad], poll=0.05) as here,
        Coordinator(url, sagas=[good, bad], poll=0.05, recover=False) as there,
    ):
        run = await here.start(good if verb == "rollback" else bad, 1)
        await _over(run)
        if asked_before:
            assert await _told(run, how) == ("completed" if verb == "rollback" else "stuck")
        broken.clear()
        other = there if elsewhere else here
        if verb == "rollback":
            await other.rollback(run.id)
        else:
            await other.ask(run.id, verb, _ask())  # type: ignore[arg-type]
        assert await _told(run, how) == "rolled_back"
        assert await _told(run, how) == "rolled_back"
    assert await _told(run, how) == "rolled_back"


def _ask() -> object:
    from compensate.runtime.verbs import Ask

    return Ask("ann", "why", "left")


async def test_the_first_error_is_the_cause_however_often_and_late_it_is_asked() -> None:
    broken.clear()
    async with Coordinator("memory://", sagas=[bad]) as c:
        run = await c.start(bad, 1)
        await _over(run)
        for _ in range(3):
            with pytest.raises(RolledBack) as caught:
                await run.result()
            assert isinstance(caught.value.__cause__, LookupError)
    with pytest.raises(RolledBack) as caught:
        await run.result()
    assert isinstance(caught.value.__cause__, LookupError)


class Counted(MemoryStore):
    loads = 0

    async def load(self, saga_id: str) -> StoredSaga:
        self.loads += 1
        return await super().load(saga_id)


async def test_who_waits_from_the_start_needs_no_look_into_the_store() -> None:
    store = Counted()
    async with Coordinator(store, sagas=[good]) as c:
        assert await c.run(good, 1) == 1
        assert await (await c.start(good, 2)).result() == 2
    assert store.loads == 0


async def test_a_run_that_was_not_asked_before_the_end_of_the_coordinator_gives_its_result() -> None:
    async with Coordinator("memory://", sagas=[good]) as c:
        run = await c.start(good, 1)
        await _over(run)
    assert await run.result() == 1
    assert await run.ended() == "completed"


async def test_a_late_asker_is_told_that_the_saga_was_deleted() -> None:
    async with Coordinator("memory://", sagas=[good]) as c:
        run = await c.start(good, 1)
        await _over(run)
        await c.store.delete(run.id)
        with pytest.raises(SagaNotFound):
            await run.ended()


class _SlowToRefuse(MemoryStore):
    """Holds up every `create` but the first, so that a start of an id that is taken stays under way."""

    def __init__(self) -> None:
        super().__init__()
        self.held = asyncio.Event()
        self.go = asyncio.Event()

    def create(self, saga: NewSaga, owner: str) -> Any:
        if not self._sagas:
            return super().create(saga, owner)
        return self._later(saga, owner)

    async def _later(self, saga: NewSaga, owner: str) -> None:
        self.held.set()
        await self.go.wait()
        super().create(saga, owner)


@pytest.mark.parametrize("how", ["result", "ended", "events", "attach"])
async def test_a_start_under_way_is_not_taken_for_the_saga_that_has_its_id(how: str) -> None:
    store, gate = _SlowToRefuse(), asyncio.Event()

    @action
    async def waits(x: int) -> int:
        await gate.wait()
        return x

    @saga
    def waiting(x: int) -> int:
        return waits(x)

    async with Coordinator(store, sagas=[waiting]) as owner, Coordinator(store, sagas=[waiting]) as other:
        await owner.start(waiting.with_id("i"), 1)
        run = other.attach("i")
        assert await run.status() == "running"
        again = asyncio.create_task(other.start(waiting.with_id("i"), 1))
        await store.held.wait()
        if how == "attach":
            run = other.attach("i")
        asked = asyncio.create_task(_told_all(run) if how == "events" else _told(run, how))
        await asyncio.sleep(0.05)
        assert not asked.done()
        store.go.set()
        await again
        gate.set()
        assert await asyncio.wait_for(asked, 10) == "completed"


async def _told_all(run: Run[int]) -> str:
    last = ""
    async for event in run.events():
        last = event.type
    return last.removeprefix("saga_")
