"""The straight way and the short way write the same logs as the machine at large."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compensate import NoEffect, Permanent, Retry, RolledBack, SagaExecutor, Stuck, Unknown, action, saga
from compensate.core.events import Event
from compensate.runtime.bindings import Bindings
from compensate.stores.memory import MemoryStore

HAPPENED: list[str] = []


class _Clock:
    def __init__(self) -> None:
        self.at = 0.0

    def now(self) -> float:
        self.at += 1.0
        return 0.0  # equal times, so that logs can be compared


def _raise(what: str) -> None:
    if what == "fails":
        raise ValueError("no")
    if what == "clean":
        raise NoEffect("nothing happened")
    if what == "unknown":
        raise Unknown("perhaps")
    if what == "permanent":
        raise Permanent("never")
    if what == "cancels":
        raise asyncio.CancelledError


def _make(outcomes: tuple[str, ...], undo_fails: int, undos: tuple[str, ...]) -> Any:
    def step(k: int) -> Any:
        async def act(x: int) -> int:
            HAPPENED.append(f"do {k}")
            if outcomes[k] == "retried" and HAPPENED.count(f"do {k}") == 1:
                raise ValueError("only once")
            _raise(outcomes[k])
            return "no int" if outcomes[k] == "unstorable" else x + 1  # type: ignore[return-value]

        async def undo(x: int) -> None:
            HAPPENED.append(f"undo {k} {x}")
            if k == undo_fails:
                raise Permanent("cannot be undone")

        async def undo_unknown(x: int | None) -> None:
            HAPPENED.append(f"undo {k} {x}")

        made: Any = action(name=f"step{k}", retry=Retry(2 if outcomes[k] == "retried" else 1, first=0.0))(act)
        if undos[k] == "output":
            made.undo(undo)
        elif undos[k] == "unknown":
            made.undo(unknown=True)(undo_unknown)
        return made

    steps = [step(k) for k in range(len(outcomes))]

    def chain(x: int) -> int:
        for one in steps:
            x = one(x)
        return x

    return saga(name="chain")(chain)


async def _log(definition: Any, monkey: bool) -> tuple[list[tuple[Any, ...]], list[str], str]:
    HAPPENED.clear()
    store = MemoryStore()
    executor: SagaExecutor[int] = SagaExecutor(definition, store=store, saga_id="s", clock=_Clock())
    if monkey:
        executor._bindings = Bindings(definition.plan, definition.actions.__getitem__)
        executor._bindings.straight = []
        for bound in executor._bindings.list:
            if bound is not None:
                bound.link = bound.undo_link = None
    try:
        end = str(await executor.execute(1))
    except (RolledBack, Stuck) as error:
        end = f"{type(error).__name__}: {error}"
    events: list[Event] = (await store.load("s")).events
    assert events == executor.events
    return [_bare(event) for event in events], list(HAPPENED), end


def _bare(event: Event) -> tuple[Any, ...]:
    data: Any = event.data
    error = getattr(data, "error", None)
    if error is not None:  # where an error was raised differs with who called
        data = (
            type(data),
            error.type,
            error.message,
            getattr(data, "retry_at", None),
            getattr(data, "clean", None),
        )
    return event.seq, event.epoch, event.type, event.node, event.attempt, data


_ODD = ["fails", "clean", "unknown", "permanent", "cancels", "unstorable", "retried"]
_OUTCOMES = st.sampled_from(["fine"] * 6 + _ODD)


@given(st.data(), st.integers(1, 5))
async def test_a_chain_writes_the_same_log_whichever_way_it_is_run(data: st.DataObject, length: int) -> None:
    outcomes = tuple(data.draw(_OUTCOMES) for _ in range(length))
    undos = tuple(data.draw(st.sampled_from(["output", "output", "unknown", "none"])) for _ in range(length))
    definition = _make(outcomes, data.draw(st.integers(-1, length - 1)), undos)
    assert await _log(definition, monkey=False) == await _log(definition, monkey=True)


async def test_a_rollback_asked_for_in_the_middle_takes_over_from_the_straight_way() -> None:
    reached, go_on = asyncio.Event(), asyncio.Event()

    @action
    async def first(x: int) -> int:
        return x + 1

    @first.undo
    async def unfirst(x: int) -> None:
        HAPPENED.append("undo first")

    @action
    async def second(x: int) -> int:
        reached.set()
        await go_on.wait()
        return x + 1

    @second.undo
    async def unsecond(x: int) -> None:
        HAPPENED.append("undo second")

    @saga
    def both(x: int) -> int:
        return second(first(x))

    HAPPENED.clear()
    executor = SagaExecutor(both)
    running = asyncio.create_task(executor.execute(1))
    await reached.wait()
    await executor.rollback("enough")
    go_on.set()
    with pytest.raises(RolledBack) as caught:
        await running
    assert caught.value.reason == "enough"
    assert HAPPENED == ["undo second", "undo first"]
    assert executor.execution_state() == {"first": "undone", "second": "undone"}


async def test_a_completed_straight_saga_can_be_rolled_back() -> None:
    definition = _make(("fine", "fine", "fine"), -1, ("output",) * 3)
    HAPPENED.clear()
    executor: SagaExecutor[int] = SagaExecutor(definition)
    assert await executor.execute(1) == 4
    assert executor.completed_nodes() == ["step0", "step1", "step2"]
    await executor.rollback("destroy")
    assert HAPPENED[3:] == ["undo 2 4", "undo 1 3", "undo 0 2"]
