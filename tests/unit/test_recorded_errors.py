"""What the log keeps of users' errors, and which of them a caller is told."""

from __future__ import annotations

import asyncio

import pytest

from compensate import (
    ActionFailed,
    Coordinator,
    Ctx,
    DeserializeFailed,
    Retry,
    RolledBack,
    Saga,
    SagaExecutor,
    Stuck,
    action,
    saga,
)
from compensate.stores.memory import MemoryStore

undone: list[str] = []
attempts: list[str] = []


@pytest.fixture(autouse=True)
def _forget() -> None:
    undone.clear()
    attempts.clear()


class Marked(str):
    """A text of a class of its own, as template libraries have."""

    __slots__ = ()


class Fancy(Exception):
    def __str__(self) -> str:
        return Marked("a fancy text")


@action
async def fancy() -> int:
    raise Fancy


@saga
def fancies() -> int:
    return fancy()


async def test_an_error_whose_text_is_of_a_subclass_of_str_can_be_stored() -> None:
    async with Coordinator("memory://", sagas=[fancies]) as coordinator:
        run = await coordinator.start(fancies)
        with pytest.raises(RolledBack, match="a fancy text"):
            await run.result()
        error = (await coordinator.get(run.id)).error()
    assert error is not None
    assert error.message == "a fancy text"


@action
async def original() -> int:
    raise ValueError("the original")


@original.undo(unknown=True, retry=Retry(2, first=0))
async def undo_original(_: int | None) -> None:
    undone.append("original")
    if len(undone) == 1:
        raise ConnectionError("a hiccup of the undo")


@saga
def hiccup() -> int:
    return original()


async def test_the_cause_of_a_rollback_is_the_original_error_even_if_the_undo_failed_once() -> None:
    async with Coordinator("memory://", sagas=[hiccup]) as coordinator:
        run = await coordinator.start(hiccup)
        with pytest.raises(RolledBack) as raised:
            await run.result()
        assert isinstance(raised.value.__cause__, ValueError)
        with pytest.raises(RolledBack) as again:
            await coordinator.attach(run.id).result()
        snapshot = await coordinator.get(run.id)
    assert undone == ["original", "original"]
    assert isinstance(again.value.__cause__, ActionFailed)
    assert again.value.__cause__.message == "the original"
    error = snapshot.error()
    assert error is not None
    assert error.message == "the original"


@action
async def made() -> int:
    return 1


@made.undo(retry=Retry(1))
async def unmake(_: int) -> None:
    raise ConnectionError("cannot be undone")


@action
async def refuse(x: int) -> int:
    raise ValueError("turn back")


@saga
def jammed() -> int:
    return refuse(made())


async def test_the_cause_of_a_stuck_rollback_is_the_error_of_the_undo() -> None:
    executor = SagaExecutor(jammed)
    with pytest.raises(Stuck) as raised:
        await executor.execute()
    assert isinstance(raised.value.__cause__, ConnectionError)
    error = executor.error()
    assert error is not None
    assert error.message == "cannot be undone"


@action(timeout=0.02, retry=Retry(3, first=0, on=TimeoutError))
async def slow() -> int:
    attempts.append("slow")
    await asyncio.sleep(10)
    return 1


@saga
def late() -> int:
    return slow()


async def test_a_passed_time_limit_is_a_timeout_error_to_retry_policies() -> None:
    with pytest.raises(RolledBack):
        await SagaExecutor(late).execute()
    assert attempts == ["slow"] * 3


@action
async def numbers() -> list[int]:
    return [1]


@action(retry=Retry(3, first=0))
async def plainly(x: int) -> int:
    return x


@plainly.undo(unknown=True)
async def undo_plainly(_: int | None) -> None:
    undone.append("plainly")


@action(retry=Retry(3, first=0))
async def with_ctx(ctx: Ctx[object], x: int) -> int:
    return x


@with_ctx.undo(unknown=True)
async def undo_with_ctx(_: int | None) -> None:
    undone.append("with_ctx")


@saga
def sixth_plainly() -> int:
    return plainly(numbers()[5])


@saga
def sixth_with_ctx() -> int:
    return with_ctx(numbers()[5])


@pytest.mark.parametrize("definition", [sixth_plainly, sixth_with_ctx], ids=["plain", "with a Ctx"])
async def test_an_action_that_cannot_be_given_its_inputs_is_not_tried_again_and_not_undone(
    definition: Saga[[], int],
) -> None:
    for store in (None, MemoryStore()):
        if store is None:
            executor = SagaExecutor(definition)
            with pytest.raises(RolledBack) as raised:
                await executor.execute()
            events = executor.events
        else:
            async with Coordinator(store, sagas=[definition]) as coordinator:
                run = await coordinator.start(definition)
                with pytest.raises(RolledBack) as raised:
                    await run.result()
                events = await store.events(run.id)
        assert isinstance(raised.value.__cause__, DeserializeFailed)
        assert [event.type for event in events].count("failed") == 1
    assert undone == []


@action
async def drowsy() -> int:
    await asyncio.sleep(0.1)
    return 1


@saga(deadline=0.02)
def hurried() -> int:
    return plainly(drowsy())


async def test_an_executor_keeps_to_the_saga_s_deadline() -> None:
    with pytest.raises(RolledBack, match="deadline"):
        await SagaExecutor(hurried).execute()
