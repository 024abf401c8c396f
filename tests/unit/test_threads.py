"""Plain functions in worker threads: what they raise, and what their time limits count."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from compensate import Coordinator, RolledBack, Saga, Store, action, fan_out, open_store, saga
from compensate.runtime.calls.threads import Job, WorkerPool
from compensate.stores.memory import MemoryStore

done: list[int] = []
go_on = threading.Event()


@pytest.fixture(autouse=True)
def _forget() -> None:
    done.clear()
    go_on.clear()


@action
def first_of_none() -> int:
    return next(iter([]))


@saga
def empty() -> int:
    return first_of_none()


async def test_stop_iteration_in_a_thread_is_a_failure_like_any_other() -> None:
    async with Coordinator("memory://", sagas=[empty]) as coordinator:
        with pytest.raises(RolledBack, match="StopIteration"):
            await asyncio.wait_for(coordinator.run(empty), 10)


@action(timeout=0.3)
def short(i: int) -> int:
    threading.Event().wait(0.2)
    done.append(i)
    return i


@saga
def queue(numbers: list[int]) -> list[int]:
    return fan_out(short, numbers)


async def test_waiting_for_a_free_thread_does_not_count_against_a_time_limit() -> None:
    async with Coordinator("memory://", sagas=[queue], threads=1) as coordinator:
        assert await coordinator.run(queue, [0, 1, 2, 3]) == [0, 1, 2, 3]


@action
def held(i: int) -> int:
    go_on.wait(10)
    done.append(i)
    return i


@saga
def many(numbers: list[int]) -> list[int]:
    return fan_out(held, numbers)


async def test_what_still_waited_for_a_thread_at_the_close_is_never_called() -> None:
    before = set(threading.enumerate())
    async with Coordinator("memory://", sagas=[many], threads=1, drain=0.05) as coordinator:
        await coordinator.start(many, [0, 1, 2, 3])
        await asyncio.sleep(0.02)
        workers = [thread for thread in threading.enumerate() if thread not in before]
        assert len(workers) == 1
    go_on.set()
    workers[0].join(10)
    assert done == [0]


# -- threads that are left behind ----------------------------------------------


class Thread:
    """What one plain function did, and a door that it waits behind."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.door = threading.Event()
        self.log: list[str] = []

    def work(self) -> None:
        self.began.set()
        self.door.wait(30)
        self.log.append("effect")


doors: dict[str, Thread] = {}


@action
def held_up(which: str) -> str:
    doors[which].work()
    return which


@held_up.undo(unknown=True)
def undo_held_up(which: str | None) -> None:
    doors["it"].log.append("undo")


@action(timeout=0.05)
def held_up_too_long(which: str) -> str:
    doors[which].work()
    return which


@held_up_too_long.undo(unknown=True)
def undo_held_up_too_long(which: str | None) -> None:
    doors["it"].log.append("undo")


@saga
def without_limit(which: str) -> str:
    return held_up(which)


@saga
def with_limit(which: str) -> str:
    return held_up_too_long(which)


@pytest.mark.parametrize("scheme", ["memory", "sqlite", "file"])
@pytest.mark.parametrize("definition", [without_limit, with_limit], ids=lambda one: one.name)
async def test_a_saga_whose_thread_still_works_is_run_by_no_other_coordinator(
    definition: Saga[[str], str], scheme: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    thread = doors["it"] = Thread()
    one = MemoryStore()

    def store() -> Store:
        return one if scheme == "memory" else open_store(f"{scheme}:///{tmp_path}/sagas")

    async with Coordinator(store(), sagas=[definition], drain=0.05, lease=0.3) as coordinator:
        run = await coordinator.start(definition.with_id("it"), "it")
        await asyncio.to_thread(thread.began.wait)
        if definition is with_limit:
            async for event in run.events():
                if event.type == "in_doubt":
                    break
    assert not thread.log
    assert "still run" in caplog.text
    async with Coordinator(store(), sagas=[definition], poll=0.02, lease=0.3) as coordinator:
        await asyncio.sleep(0.6)  # longer than the lease of the one that was closed
        assert (await coordinator.get("it")).record.owner != coordinator.owner
        assert thread.log == []
        thread.door.set()
        with contextlib.suppress(RolledBack):
            await asyncio.wait_for(coordinator.attach("it").result(), 30)
        snapshot = await coordinator.get("it")
    assert thread.log[0] == "effect", "the node was undone or run again beside its thread"
    assert snapshot.status == ("rolled_back" if definition is with_limit else "completed")
    assert all(getattr(event.data, "deaths", 0) == 0 for event in snapshot.events), (
        "a drained process did not die"
    )


PROGRAM = """
import asyncio, os, sys, threading
from compensate import Coordinator, SagaExecutor, action, saga

@action(timeout={timeout})
def hangs(x: int) -> int:
    print("hangs", flush=True)
    threading.Event().wait()
    return x

@saga
def job(x: int) -> int:
    return hangs(x)

async def coordinator() -> None:
    async with Coordinator("memory://", sagas=[job], drain=0.2) as c:
        await c.start(job, 1)
        await asyncio.sleep(0.3)

async def executor() -> None:
    try:
        await asyncio.wait_for(SagaExecutor(job).execute(1), 0.3)
    except TimeoutError:
        pass

asyncio.run({which}())
print("over", flush=True)
"""


@pytest.mark.parametrize("which", ["coordinator", "executor"])
@pytest.mark.parametrize("timeout", [None, 0.1])
def test_a_thread_that_hangs_does_not_keep_the_process(which: str, timeout: float | None) -> None:
    program = PROGRAM.format(which=which, timeout=timeout)
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.stdout.split() == ["hangs", "over"], ended.stderr
    assert ended.returncode == 0


async def test_threads_that_hang_give_their_places_to_others_and_are_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for name in ("a", "b", "c"):
        doors[name] = Thread()
    async with Coordinator(
        "memory://", sagas=[with_limit, queue], threads=2, drain=0.05, grace=0
    ) as coordinator:
        for name in ("a", "b", "c"):
            await coordinator.start(with_limit.with_id(name), name)
        assert await asyncio.wait_for(coordinator.run(queue, [1, 2, 3]), 30) == [1, 2, 3]
        assert all(doors[name].began.is_set() for name in "abc"), "the fault did not fire"
        assert {getattr(record, "saga", "") for record in caplog.records} >= {"a", "b", "c"}
        for name in "abc":
            doors[name].door.set()


def test_a_pool_starts_threads_as_they_are_needed_and_lets_idle_ones_serve_again() -> None:
    pool = WorkerPool(3)
    names = {pool.submit(lambda: threading.current_thread().name).result(10) for _ in range(20)}
    assert len(names) <= 3
    gate = threading.Event()
    waiting = [pool.submit(gate.wait, 10) for _ in range(5)]
    gate.set()
    assert all(future.result(10) for future in waiting)
    pool.shutdown()
    with pytest.raises(RuntimeError, match="shut down"):
        pool.submit(print)


def test_a_job_that_is_revoked_before_a_thread_is_free_is_never_called() -> None:
    called: list[int] = []
    pool = WorkerPool(1)
    gate = threading.Event()
    pool.submit(gate.wait, 10)
    job = Job(lambda: called.append(1), time.monotonic, contextvars.copy_context())
    future = pool.submit(job)
    assert job.revoke()
    gate.set()
    assert future.result(10) is None
    assert called == []
    late = Job(lambda: called.append(2), time.monotonic, contextvars.copy_context())
    pool.submit(late).result(10)
    assert not late.revoke()
    assert called == [2]
    pool.shutdown()
