"""The pytest plugin, in this run of pytest and in runs of its own."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from compensate import Ctx, Retry, RolledBack, Stuck, action, saga
from compensate.testing import VirtualCoordinator, VirtualTime


@action(retry=Retry(attempts=10, first=60, factor=1))
async def patient(ctx: Ctx[list[str]], what: str) -> str:
    ctx.deps.append(what)
    if ctx.attempt < 10:
        raise ConnectionError("not yet")
    return what


@patient.undo
def give_back(ctx: Ctx[list[str]], what: str) -> None:
    ctx.deps.append(f"back: {what}")


@saga
def wait_long(what: str) -> str:
    return patient(what)


async def test_retries_cost_no_time_in_an_async_test(coordinator: VirtualCoordinator) -> None:
    loop = asyncio.get_running_loop()
    real, began = loop.time, time.monotonic()
    seen: list[str] = []
    coordinator.deps = seen
    async with coordinator:
        assert await coordinator.run(wait_long, "x") == "x"
    assert seen == ["x"] * 10
    assert coordinator.virtual_time.elapsed >= 9 * 60
    assert loop.time == real
    assert loop.time() - began < 9 * 60
    await asyncio.sleep(0)


def test_retries_cost_no_time_in_a_plain_test(coordinator: VirtualCoordinator) -> None:
    seen: list[str] = []
    coordinator.deps = seen
    with coordinator as c:
        run = c.start(wait_long, "x")
        assert run.result() == "x"
        at = coordinator.virtual_time.elapsed
        assert at >= 9 * 60
        c.advance(1_000)
        assert coordinator.virtual_time.elapsed == at + 1_000
        with pytest.raises(RolledBack):
            c.rollback(run.id, reason="test").result()
    assert seen == ["x"] * 10 + ["back: x"]


async def test_a_plain_block_in_an_async_test_is_refused(coordinator: VirtualCoordinator) -> None:
    with pytest.raises(TypeError, match="use `async with coordinator:`"), coordinator:
        pass


async def test_a_runners_own_timer_keeps_to_real_time(virtual_time: VirtualTime) -> None:
    loop = asyncio.get_running_loop()
    rung: list[float] = []
    loop.call_later(3_600, rung.append, 1.0)
    coordinator = VirtualCoordinator(virtual_time)
    async with coordinator:
        await asyncio.sleep(10 * 3_600)
    await asyncio.sleep(0)
    assert rung == []


async def test_what_outlives_the_block_goes_on_in_real_time(virtual_time: VirtualTime) -> None:
    coordinator = VirtualCoordinator(virtual_time)
    async with coordinator:
        sleeper = asyncio.create_task(asyncio.sleep(0.01, "slept"))
        await asyncio.sleep(0)
    assert await sleeper == "slept"


def test_a_fault_is_injected_by_node(coordinator: VirtualCoordinator, inject: Callable[..., None]) -> None:
    @action
    async def quick() -> int:
        return 1

    @quick.undo
    async def slow(output: int) -> None: ...

    @saga
    def both() -> int:
        return quick()

    inject("quick", fail="before")
    with coordinator as c, pytest.raises(RolledBack):
        c.run(both)
    other = VirtualCoordinator()
    other.inject("quick", fail_undo=-1)
    with other as c:
        done = c.start(both)
        done.result()
        with pytest.raises(AssertionError, match="its undo never failed"):
            other.check_faults()
        with pytest.raises(Stuck):
            c.rollback(done.id).result()
    other.check_faults()


def test_prove_saga_is_a_fixture_too(prove_saga: Callable[..., object]) -> None:
    from compensate.testing import prove_saga as same

    assert prove_saga is same


# -- runs of their own -------------------------------------------------------


def run_pytest(folder: Path, source: str, *options: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_users.py").write_text(source)
    command = [
        sys.executable,
        "-W",
        "error",
        "-m",
        "pytest",
        "-W",
        "error",
        "-p",
        "no:cacheprovider",
        *options,
    ]
    return subprocess.run(
        [*command, "test_users.py"], cwd=folder, capture_output=True, text=True, timeout=100, check=False
    )


@pytest.mark.slow
def test_installed_it_gives_its_fixtures_where_warnings_are_errors(tmp_path: Path) -> None:
    source = """
from compensate import action, saga

@action
def plain() -> int:
    return 5

@saga
def all_of_it() -> int:
    return plain()

def test_it(coordinator, inject, virtual_time, prove_saga):
    inject("plain", repeat=3)
    with coordinator as c:
        assert c.run(all_of_it) == 5

def test_a_fault_that_never_happens(coordinator, inject):
    inject("plane", fail="before")
    with coordinator as c:
        assert c.run(all_of_it) == 5
"""
    ran = run_pytest(tmp_path, source)
    assert "2 passed, 1 error" in ran.stdout, ran.stdout + ran.stderr
    assert "inject('plane', ...): the fault never happened" in ran.stdout


@pytest.mark.slow
def test_unused_it_imports_nothing_of_the_kit(tmp_path: Path) -> None:
    source = """
import sys

def test_it():
    assert "compensate.testing.plugin" in sys.modules
    assert [name for name in sys.modules if name.startswith("compensate.testing.")] == ["compensate.testing.plugin"]
"""
    ran = run_pytest(tmp_path, source, "-q")
    assert "1 passed" in ran.stdout, ran.stdout + ran.stderr


@pytest.mark.slow
def test_imported_before_pytest_starts_it_gives_no_warning(tmp_path: Path) -> None:
    (tmp_path / "test_users.py").write_text("def test_it(coordinator): ...")
    program = "import compensate, pytest, sys; sys.exit(pytest.main(['-q', '-W', 'error', '-p', 'no:cacheprovider']))"
    command = [sys.executable, "-W", "error", "-c", program]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
    assert "1 passed" in ran.stdout, ran.stdout + ran.stderr


@action
async def waits_an_hour(ctx: Ctx[object]) -> float:
    began = ctx.now()
    while ctx.now() < began + 3_600:  # noqa: ASYNC110 - time passes, nothing rings
        await asyncio.sleep(60)
    return ctx.now() - began


@saga
def long_wait() -> float:
    return waits_an_hour()


async def test_an_action_is_told_the_virtual_time(coordinator: VirtualCoordinator) -> None:
    real = time.monotonic()
    async with coordinator:
        assert await coordinator.run(long_wait) == 3_600
    assert time.monotonic() - real < 60
    assert coordinator.virtual_time.elapsed == 3_600
