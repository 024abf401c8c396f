"""A coordinator's own life: how it begins and ends, what it leaves behind, and settings that make no sense."""

from __future__ import annotations

import asyncio
import logging
import math
import signal
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from compensate import (
    ActionRegistry,
    Coordinator,
    DagBuilder,
    DefinitionError,
    IllegalRequest,
    RolledBack,
    SagaExecutor,
    Stopped,
    Stuck,
    Unavailable,
    Unknown,
    action,
    action_node,
    connect,
    saga,
    saga_from_dag,
)
from compensate.stores.base import Damaged, Request, StoredSaga
from compensate.stores.memory import MemoryStore


@dataclass
class Point:
    x: int
    y: int


@action
async def place(x: int) -> Point:
    return Point(x, 0)


@saga
def drawn(x: int) -> Point:
    return place(x)


@action
def in_a_thread() -> int:
    return 1


@saga
def threaded() -> int:
    return in_a_thread()


async def test_a_coordinator_runs_once_and_says_so_when_it_is_entered_again() -> None:
    coordinator = Coordinator("memory://", sagas=[threaded])
    with pytest.raises(Stopped, match="has not begun"):
        await coordinator.start(threaded)
    async with coordinator:
        assert await coordinator.run(threaded) == 1
        with pytest.raises(IllegalRequest, match="make another"):
            await coordinator.__aenter__()
    with pytest.raises(IllegalRequest, match="make another"):
        await coordinator.__aenter__()


async def test_a_closed_coordinator_no_longer_catches_signals() -> None:
    async with Coordinator("memory://", stop_on=[signal.SIGUSR1]):
        assert signal.getsignal(signal.SIGUSR1) is not signal.SIG_DFL
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL


@pytest.mark.parametrize(
    "settings",
    [
        {"max_actions": 0},
        {"threads": 0},
        {"lease": 0},
        {"lease": math.nan},
        {"poll": 0},
        {"poll": math.inf},
        {"grace": -1},
        {"grace": math.nan},
        {"drain": math.nan},
    ],
    ids=str,
)
def test_settings_that_make_no_sense_are_refused_by_name(settings: dict[str, Any]) -> None:
    with pytest.raises(DefinitionError, match=next(iter(settings))):
        Coordinator("memory://", **settings)


async def test_a_handle_by_id_decodes_the_result_if_the_definition_is_known() -> None:
    async with Coordinator(store := MemoryStore(), sagas=[drawn]) as coordinator:
        run = await coordinator.start(drawn, 3)
        assert await run.result() == Point(3, 0)
        assert await coordinator.attach(run.id).result() == Point(3, 0)
    async with Coordinator(store) as stranger:
        assert await stranger.attach(run.id).result() == {"x": 3, "y": 0}


async def test_who_waits_by_id_for_a_saga_of_a_closed_coordinator_is_told_that_it_is_closed(
    tmp_path: Path,
) -> None:
    async with Coordinator(f"sqlite:///{tmp_path}/sagas.db", sagas=[drawn]) as coordinator:
        run = await coordinator.start(drawn, 3)
        assert await run.result() == Point(3, 0)
        by_id = coordinator.attach(run.id)
    assert await run.result() == Point(3, 0)
    with pytest.raises(Stopped):
        await by_id.result()


@pytest.mark.parametrize("limit", [0, -1])
async def test_a_page_without_room_is_refused(limit: int) -> None:
    async with Coordinator("memory://", sagas=[drawn]) as coordinator:
        await coordinator.run(drawn, 1)
        with pytest.raises(IllegalRequest, match="limit"):
            await coordinator.list(limit=limit)


class Breaks(MemoryStore):
    """Raises something that is no error of stores, once each."""

    def __init__(self) -> None:
        super().__init__()
        self.raised: set[str] = set()

    def _break(self, where: str) -> None:
        if where not in self.raised:
            self.raised.add(where)
            raise OSError(f"broken once: {where}")

    async def renew(self, owner: str, now: float, lease: float) -> bool:
        self._break("renew")
        return await super().renew(owner, now, lease)

    async def requests(self, owner: str) -> Sequence[Request]:
        self._break("requests")
        return await super().requests(owner)


async def test_an_error_nobody_foresaw_does_not_end_the_care_for_leases_and_requests(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.CRITICAL, "compensate")
    store = Breaks()
    async with Coordinator(store, sagas=[waits], lease=0.15, poll=0.02) as owner:
        run = await owner.start(waits)
        await asyncio.sleep(0.4)
        assert store.raised == {"renew", "requests"}
        async with Coordinator(store, recover=False, poll=0.02) as other:
            await asyncio.wait_for(other.rollback(run.id, grace=0), 10)
        with pytest.raises(RolledBack):
            await asyncio.wait_for(run.result(), 10)
        assert (await store.load(run.id)).record.epoch == 1


@action
async def wait() -> int:
    await asyncio.sleep(60)
    return 1


@saga
def waits() -> int:
    return wait()


class Breaking(MemoryStore):
    """Cannot be read by the second look for orphans."""

    looks = 0

    async def claim(self, owner: str, now: float, *, limit: int, **how: Any) -> list[StoredSaga | Damaged]:
        self.looks += 1
        if self.looks == 2:
            raise Unavailable("gone")
        return await super().claim(owner, now, limit=1 if self.looks == 1 else limit, **how)


async def test_a_coordinator_that_cannot_begin_leaves_nothing_running(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("compensate.runtime.adoption._BATCH", 1)
    store = Breaking()
    store.looks = 2
    async with Coordinator(store, sagas=[waits], drain=0, recover=False) as coordinator:
        ids = [(await coordinator.start(waits)).id for _ in range(2)]
    store.looks = 0
    tasks = asyncio.all_tasks()
    with pytest.raises(Unavailable, match="gone"):
        await Coordinator(store, sagas=[waits], drain=0).__aenter__()
    assert store.looks == 2
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == tasks
    assert [(await store.load(saga_id)).record.owner for saga_id in ids] == [None, None]


async def test_a_coordinator_that_drains_adopts_nothing_more() -> None:
    store = MemoryStore()
    async with Coordinator(store, sagas=[waits], drain=0, recover=False) as other:
        await other.start(waits)
    draining = Coordinator(store, sagas=[waits, naps], poll=0.02, drain=10, recover=True)
    store_open, store._open = store._open, {}  # what the other left is not there yet
    await draining.__aenter__()
    await draining.start(naps)
    await asyncio.sleep(0.01)
    closing = asyncio.ensure_future(draining.close())
    await asyncio.sleep(0.01)
    store._open.update(store_open)
    await closing
    assert [saga.epoch for saga in store_open.values()] == [1]


@action
async def nap() -> int:
    await asyncio.sleep(0.2)
    return 1


@saga
def naps() -> int:
    return nap()


@pytest.mark.parametrize(
    "details",
    [
        {"reason": "\ud800"},
        {"reason": ValueError("an error, not a text")},
        {"reason": None},
        {"who": 5},
        {"grace": math.nan},
        {"grace": -1},
        {"grace": "5"},
    ],
    ids=ascii,
)
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_a_request_that_the_log_cannot_hold_is_refused_and_the_saga_goes_on(
    details: dict[str, Any], kind: str, tmp_path: Path
) -> None:
    url = "memory://" if kind == "memory" else f"sqlite:///{tmp_path}/sagas.db"
    async with Coordinator(url, sagas=[naps]) as coordinator:
        run = await coordinator.start(naps)
        with pytest.raises(IllegalRequest):
            await coordinator.rollback(run.id, **details)
        assert await asyncio.wait_for(run.result(), 10) == 1
        assert (await coordinator.get(run.id)).status == "completed"


async def test_an_executor_refuses_a_reason_that_the_log_cannot_hold() -> None:
    executor = SagaExecutor(naps)
    assert await executor.execute() == 1
    with pytest.raises(IllegalRequest):
        await executor.rollback(reason="\ud800")
    assert executor.fold.status == "completed"


@action
async def uncertain() -> Point:
    raise Unknown("no reply")


@uncertain.undo
async def rub_out(point: Point) -> None:
    undone.append(point)


undone: list[Point] = []


@saga
def doubtful() -> Point:
    return uncertain()


async def test_an_output_that_an_operator_supplies_has_to_be_of_the_action_s_type() -> None:
    undone.clear()
    store = MemoryStore()
    async with Coordinator(store, sagas=[doubtful]) as coordinator:
        run = await coordinator.start(doubtful)
        with pytest.raises(Stuck):
            await run.result()
        with pytest.raises(IllegalRequest, match=r"uncertain.*object"):
            await coordinator.resolve(run.id, "uncertain", output='"a text"')
        assert (await coordinator.get(run.id)).nodes["uncertain"] == "in_doubt"
        await coordinator.resolve(run.id, "uncertain", output='{"x": 1, "y": 2}')
        with pytest.raises(RolledBack):
            await run.result()
    assert undone == [Point(1, 2)]


async def test_a_closed_coordinator_takes_no_requests() -> None:
    store = MemoryStore()
    async with Coordinator(store, sagas=[drawn]) as coordinator:
        run = await coordinator.start(drawn, 1)
        await run.result()
    with pytest.raises(Stopped):
        await coordinator.rollback(run.id)
    assert (await store.load(run.id)).record.epoch == 1


async def test_who_waits_for_another_owner_s_answer_is_told_when_his_coordinator_closes(
    tmp_path: Path,
) -> None:
    url = f"sqlite:///{tmp_path}/sagas.db"
    async with Coordinator(url, sagas=[waits], poll=60, drain=0) as owner:
        run = await owner.start(waits)
        async with Coordinator(url, recover=False) as other:
            asking = asyncio.ensure_future(other.pause(run.id))
            await asyncio.sleep(0.05)
        with pytest.raises(Stopped):
            await asking


def test_a_blocking_connection_that_is_not_open_says_so_and_leaves_nothing_behind() -> None:
    connection = connect("memory://", sagas=[drawn])
    with pytest.raises(Stopped, match="not open"):
        connection.run(drawn, 1)
    with connection:
        run = connection.start(drawn, 1)
        assert run.result() == Point(1, 0)
        with pytest.raises(IllegalRequest, match="open already"):
            connection.__enter__()
    with pytest.raises(Stopped, match="not open"):
        run.status()
    with pytest.raises(IllegalRequest, match="make another"):
        connection.__enter__()
    assert "compensate" not in {thread.name for thread in threading.enumerate()}


class Odd(MemoryStore):
    """Hands out one saga in a form that nobody foresaw."""

    odd = ""

    async def claim(self, owner: str, now: float, **how: Any) -> list[StoredSaga | Damaged]:
        found = await super().claim(owner, now, **how)
        wrong: Any = None
        return [
            msgspec.structs.replace(one, dag=wrong)
            if isinstance(one, StoredSaga) and one.record.id == self.odd
            else one
            for one in found
        ]


async def test_a_saga_that_fails_in_a_way_nobody_foresaw_holds_up_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.CRITICAL, "compensate")
    store = Odd()
    async with Coordinator(store, sagas=[naps], drain=0) as coordinator:
        ids = [(await coordinator.start(naps)).id for _ in range(2)]
    store.odd = ids[0]
    async with Coordinator(store, sagas=[naps]) as coordinator:
        assert await asyncio.wait_for(coordinator.attach(ids[1]).result(), 10) == 1
        with pytest.raises(TypeError):
            coordinator.check_sound(ids[0])


@pytest.mark.parametrize("kind", ["sqlite", "file"])
async def test_a_second_coordinator_of_the_same_name_is_refused_and_the_first_keeps_its_sagas(
    kind: str, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/sagas.db" if kind == "sqlite" else f"file:///{tmp_path}/sagas"
    async with Coordinator(url, sagas=[naps], owner="me") as first:
        run = await first.start(naps)
        with pytest.raises(Unavailable, match="owner name me"):
            await Coordinator(url, sagas=[naps], owner="me").__aenter__()
        assert await asyncio.wait_for(run.result(), 10) == 1
        assert (await first.get(run.id)).record.epoch == 1


async def test_a_dag_for_every_saga_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compensate.runtime.host._MOST_BINDINGS", 3)
    registry = ActionRegistry()
    registry.register(place)
    async with Coordinator("memory://") as coordinator:
        runs: list[Any] = []
        for number in range(6):
            node = action_node(f"place-{number}", place, inputs={"x": number})
            dag = DagBuilder("drawn", registry).append(node).build()
            runs.append(await coordinator.start(saga_from_dag(dag, registry)))
            assert await runs[-1].result() == {"x": number, "y": 0}
        assert len(coordinator._host._bindings) == 3  # pyright: ignore[reportPrivateUsage]
        await coordinator.rollback(runs[0].id)
        with pytest.raises(RolledBack):
            await runs[0].result()
