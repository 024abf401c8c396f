"""Each call of an action or undo sees the context variables of its saga, and changes them for itself alone."""

from __future__ import annotations

import asyncio
import contextvars
import decimal
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from compensate import Coordinator, Retry, RolledBack, Saga, SagaExecutor, action, fan_out, saga
from compensate.runtime.calls.contexts import in_context, unchanged

tenant = contextvars.ContextVar("tenant", default="nobody")
seen: list[str] = []


class Stubborn:
    """A value that cannot be compared."""

    def __eq__(self, other: object) -> bool:
        raise TypeError("it cannot be compared")

    __hash__ = None  # type: ignore[assignment]


stubborn: contextvars.ContextVar[Stubborn] = contextvars.ContextVar("stubborn")


@pytest.fixture(autouse=True)
def _forget() -> None:
    seen.clear()


def _look(name: str) -> None:
    seen.append(tenant.get())
    tenant.set(name)
    stubborn.set(Stubborn())
    decimal.getcontext().prec = 3


@action
async def quick(x: int) -> int:
    _look("quick")
    return x


@quick.undo
async def undo_quick(x: int) -> None:
    _look("undo quick")


@action
async def waits(x: int) -> int:
    _look("waits")
    await asyncio.sleep(0.001)
    seen.append(f"still {tenant.get()}")
    return x


@waits.undo
async def undo_waits(x: int) -> None:
    _look("undo waits")


@action(timeout=10)
async def limited(x: int) -> int:
    _look("limited")
    await asyncio.sleep(0)
    return x


@action
def in_thread(x: int) -> int:
    _look("in a thread")
    return x


@in_thread.undo
def undo_in_thread(x: int) -> None:
    _look("undo in a thread")


@action(retry=Retry(3, first=0))
async def fails_twice(x: int) -> int:
    _look("failing")
    if len(seen) < 3:
        raise ValueError("again")
    return x


@action
async def fails(x: int) -> int:
    _look("failing")
    raise ValueError("no")


@action
async def numbers(x: int) -> list[int]:
    return list(range(100))


@action
async def digits(x: int) -> int:
    return decimal.getcontext().prec


@saga
def chain(x: int) -> int:
    return digits(in_thread(limited(waits(quick(waits(quick(x)))))))


@saga
def retried(x: int) -> int:
    return fails_twice(x)


@saga
def rolled_back(x: int) -> int:
    return fails(quick(waits(in_thread(quick(x)))))


@saga
def elements(x: int) -> list[int]:
    return fan_out(waits, numbers(x))


@saga
def elements_at_once(x: int) -> list[int]:
    return fan_out(quick, numbers(x))


SAGAS: list[Saga[[int], Any]] = [chain, retried, rolled_back, elements, elements_at_once]


async def _in_coordinator(definition: Any) -> Any:
    async with Coordinator("memory://", sagas=SAGAS) as coordinator:
        return await coordinator.run(definition, 1)


async def _in_executor(definition: Any) -> Any:
    return await SagaExecutor(definition).execute(1)


@pytest.mark.parametrize("run", [_in_coordinator, _in_executor], ids=["coordinator", "executor"])
@pytest.mark.parametrize("definition", SAGAS, ids=lambda one: one.name)
async def test_what_a_call_sets_is_seen_by_no_other_call(
    definition: Any, run: Callable[[Any], Awaitable[Any]]
) -> None:
    tenant.set("acme")
    prec = decimal.getcontext().prec
    stubborn.set(Stubborn())
    result: Any = None
    try:
        result = await run(definition)
    except RolledBack:
        assert definition is rolled_back
    starts = [one for one in seen if not one.startswith("still")]
    assert len(starts) >= 3
    assert set(starts) == {"acme"}
    assert set(seen) - {"acme"} <= {"still waits"}
    if definition is chain:
        assert result in (prec, 3)  # a decimal context that is set already is one object, which copies share
    assert tenant.get() == "acme"


async def test_precision_that_one_element_sets_is_not_its_siblings() -> None:
    @action
    async def third(i: int) -> str:
        if i == 0:
            decimal.getcontext().prec = 4
        return str(decimal.Decimal(1) / 3)

    @saga
    def thirds(x: int) -> list[str]:
        return fan_out(third, numbers(x))

    # In a context in which nobody has computed with decimals yet.
    def run() -> list[str]:
        return asyncio.run(SagaExecutor(thirds).execute(1))

    results = await asyncio.to_thread(contextvars.Context().run, run)
    assert results[0] == "0.3333"
    assert set(results[1:]) == {"0.3333333333333333333333333333"}


async def test_a_call_in_a_copy_is_cancelled_closed_and_answered_like_any_other() -> None:
    async def answers() -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            return "cleaned up"
        raise AssertionError

    task = asyncio.create_task(_await(in_context(answers(), contextvars.copy_context())))
    await asyncio.sleep(0)
    task.cancel()
    assert await task == "cleaned up"

    closed: list[str] = []

    async def closes() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            closed.append(tenant.get())

    context = contextvars.copy_context()
    context.run(tenant.set, "inside")
    generator: Any = in_context(closes(), context)
    generator.send(None)
    generator.close()
    assert closed == ["inside"]

    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    future.set_result(7)
    assert await _await(in_context(future, contextvars.copy_context())) == 7


async def _await(awaitable: Any) -> Any:
    return await awaitable


def test_a_context_whose_values_cannot_be_compared_counts_as_changed() -> None:
    def look() -> None:
        stubborn.set(Stubborn())
        base = contextvars.copy_context()
        assert unchanged(base)
        stubborn.set(Stubborn())
        assert not unchanged(base)

    contextvars.Context().run(look)
