"""Sentences of the semantics that need the whole runtime and belong to no other page of tests."""

from __future__ import annotations

import ast
import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from compensate import (
    Coordinator,
    Ctx,
    Retry,
    RolledBack,
    Saga,
    SagaExecutor,
    Stuck,
    Unknown,
    action,
    constant,
    saga,
)
from compensate.core import events as e
from compensate.stores.memory import MemoryStore

SOURCE = Path(__file__).parents[2] / "src" / "compensate"


@action
async def fail(x: int) -> int:
    raise ValueError("no")


# -- time limits of undos --------------------------------------------------


async def test_an_undo_over_its_time_limit_has_failed_and_is_tried_again() -> None:
    tries: list[int] = []

    @action
    async def hold(x: int) -> int:
        return x

    @hold.undo(timeout=0.02, retry=Retry(3, first=0))
    async def free(ctx: Ctx[None], x: int) -> None:
        tries.append(ctx.attempt)
        if ctx.attempt < 3:
            await asyncio.sleep(60)

    @saga
    def whole(x: int) -> int:
        return fail(hold(x))

    executor = SagaExecutor(whole)
    with pytest.raises(RolledBack):
        await executor.execute(1)
    assert tries == [1, 2, 3]
    failures = [event.data for event in executor.events if event.type == e.UNDO_FAILED]
    assert [failure.error.type.rpartition(".")[2] for failure in failures] == ["TimedOut"] * 2  # type: ignore[union-attr]


async def test_an_undo_over_its_time_limit_for_the_last_time_leaves_the_saga_stuck_at_it() -> None:
    @action
    async def hold(x: int) -> int:
        return x

    @hold.undo(timeout=0.01, retry=Retry(2, first=0))
    async def free(x: int) -> None:
        await asyncio.sleep(60)

    @saga
    def whole(x: int) -> int:
        return fail(hold(x))

    executor = SagaExecutor(whole)
    with pytest.raises(Stuck, match="hold"):
        await executor.execute(1)
    assert executor.execution_state()["hold"] == "undo_failed"


async def test_while_the_thread_of_a_timed_out_undo_goes_on_it_is_neither_tried_again_nor_passed_over() -> (
    None
):
    begun, let_go = threading.Event(), threading.Event()
    seen: list[str] = []

    @action
    async def first(x: int) -> int:
        return x

    @first.undo
    async def undo_first(x: int) -> None:
        seen.append("undo first")

    @action
    async def second(x: int) -> int:
        return x

    @second.undo(timeout=0.02, retry=Retry(2, first=0))
    def undo_second(ctx: Ctx[None], x: int) -> None:
        seen.append(f"undo second {ctx.attempt}")
        if ctx.attempt == 1:
            begun.set()
            let_go.wait()
            seen.append("the first attempt ends")

    @saga
    def whole(x: int) -> int:
        return fail(second(first(x)))

    executor = SagaExecutor(whole)
    running = asyncio.create_task(executor.execute(1))
    await asyncio.to_thread(begun.wait)
    await asyncio.sleep(0.1)
    assert seen == ["undo second 1"]
    let_go.set()
    with pytest.raises(RolledBack):
        await running
    assert seen == ["undo second 1", "the first attempt ends", "undo second 2", "undo first"]


# -- in doubt --------------------------------------------------------------


async def test_what_is_run_again_to_learn_its_output_is_run_under_its_own_key_with_its_own_inputs() -> None:
    calls: list[tuple[str, int]] = []
    undone: list[tuple[str, str, int]] = []

    @action
    async def reserve(ctx: Ctx[None], x: int) -> int:
        calls.append((ctx.key, x))
        if len(calls) == 1:
            raise Unknown("no reply")
        return 70

    @reserve.undo
    async def release(ctx: Ctx[None], hold: int) -> None:
        undone.append((ctx.key, ctx.do_key, hold))

    @saga
    def whole(x: int) -> int:
        return reserve(x)

    executor = SagaExecutor(whole, saga_id="s")
    with pytest.raises(RolledBack):
        await executor.execute(7)
    assert calls == [("s/reserve/do", 7)] * 2
    assert undone == [("s/reserve/undo", "s/reserve/do", 70)]


# -- versions --------------------------------------------------------------


async def test_a_saga_runs_the_dag_stored_with_it_whatever_todays_code_says() -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()
    ran: list[str] = []

    @action
    async def first(x: int) -> int:
        ran.append("first")
        begun.set()
        await go_on.wait()
        return x

    @action
    async def last(x: int) -> int:
        ran.append("last")
        return x + 1

    @action
    async def added(x: int) -> int:
        ran.append("added")
        return x * 100

    def of_yesterday() -> Saga[[int], int]:
        @saga
        def order(x: int) -> int:
            return last(first(x))

        return order

    def of_today() -> Saga[[int], int]:
        @saga
        def order(x: int) -> int:
            constant(0)
            return last(added(first(x)))

        return order

    store = MemoryStore()
    async with Coordinator(store, sagas=[of_yesterday()], drain=0) as c:
        await c.start(of_yesterday().with_id("s"), 1)
        await begun.wait()
    go_on.set()
    async with Coordinator(store, sagas=[of_today()]) as c:
        assert await c.attach("s").result() == 2
        assert ran == ["first", "first", "last"]
        assert await c.run(of_today(), 1) == 101
    assert (await store.load("s")).record.fingerprint != of_today().fingerprint


# -- where time comes from, and what judges share with what they judge ------


def _uses_of_the_wall_clock(tree: ast.AST) -> Iterator[int]:
    for part in ast.walk(tree):
        if isinstance(part, ast.ImportFrom) and part.module == "time":
            for name in part.names:
                if name.name not in ("monotonic", "perf_counter", "sleep"):
                    yield part.lineno
        elif (
            isinstance(part, ast.Attribute)
            and isinstance(part.value, ast.Name)
            and (part.value.id, part.attr)
            in {("time", "time"), ("time", "time_ns"), ("datetime", "now"), ("datetime", "utcnow")}
        ):
            yield part.lineno


def test_time_that_reaches_a_log_comes_from_the_injected_clock_alone() -> None:
    found: list[str] = []
    looked_at = 0
    for part in ("core", "codec", "authoring", "stores", "runtime", "render"):
        files = [SOURCE / f"{part}.py"] if (SOURCE / f"{part}.py").exists() else (SOURCE / part).rglob("*.py")
        for path in files:
            looked_at += 1
            lines = _uses_of_the_wall_clock(ast.parse(path.read_text("utf-8")))
            found += [f"{path.relative_to(SOURCE).as_posix()}:{line}" for line in lines]
    assert looked_at > 50
    # A `Ctx` that a unit test makes belongs to no saga, and tells the real time unless it is given another.
    assert [place.partition(":")[0] for place in found] == ["authoring/context.py", "runtime/clock.py"]


def _imports(path: Path) -> set[str]:
    found: set[str] = set()
    for part in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(part, ast.ImportFrom) and part.module:
            found |= {part.module, *(f"{part.module}.{name.name}" for name in part.names)}
        elif isinstance(part, ast.Import):
            found |= {name.name for name in part.names}
    return {name for name in found if name.startswith("compensate.")}


def test_the_checker_shares_no_code_with_what_decides_and_runs() -> None:
    deciding = {"machine", "flow", "facts", "log", "plan", "states", "commands"}
    looked_at: set[str] = set()
    to_look_at = {"compensate.testing.checker"}
    while to_look_at:
        module = to_look_at.pop()
        path = SOURCE.joinpath(*module.split(".")[1:]).with_suffix(".py")
        if module in looked_at or not path.exists():
            continue
        looked_at.add(module)
        to_look_at |= {name for name in _imports(path) if name.startswith("compensate.testing.")}
        shared = {name for name in _imports(path) if not name.startswith("compensate.testing.")}
        assert not [name for name in shared if name.startswith("compensate.runtime")], module
        assert not [name for name in shared if name.removeprefix("compensate.core.") in deciding], module
    assert looked_at >= {
        f"compensate.testing.{name}"
        for name in ("checker", "log_lines", "effect_lines", "store_lines", "shape", "violations", "recorder")
    }
