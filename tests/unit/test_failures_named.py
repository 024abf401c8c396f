"""Which node failed first and why: said by `RolledBack`, `Stuck` and `failed_nodes`, live and after a restart."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from compensate import (
    Coordinator,
    NoEffect,
    Permanent,
    Retry,
    RolledBack,
    Saga,
    SagaExecutor,
    Stuck,
    Unknown,
    action,
    connect,
    no_op_undo,
    saga,
)

EFFECTS: list[str] = []
FAIL: dict[str, BaseException] = {}
"""What actions and undos raise, by name; `undo x` for the undo of `x`."""


@pytest.fixture(autouse=True)
def _clean() -> None:
    EFFECTS.clear()
    FAIL.clear()


def run(name: str) -> str:
    if name in FAIL:
        raise FAIL[name]
    EFFECTS.append(name)
    return name


@action
async def first() -> str:
    return run("first")


@first.undo
async def undo_first(output: str) -> None:
    run("undo first")


@action
async def second(x: str) -> str:
    return run("second")


@second.undo(unknown=True)
async def undo_second(output: str | None) -> None:
    run("undo second")


@action
async def third(x: str) -> str:
    return run("third")


@saga
def three() -> str:
    return third(second(first()))


async def test_stuck_names_the_node_that_failed_first_live_and_after_a_restart(tmp_path: Path) -> None:
    FAIL["third"] = ValueError("the card is expired")
    FAIL["undo first"] = Permanent("locked")
    url = f"sqlite:///{tmp_path}/s.db"
    async with Coordinator(url, sagas=[three]) as c:
        with pytest.raises(Stuck) as live:
            await c.run(three.with_id("s"))
    async with Coordinator(url, sagas=[three]) as c:
        with pytest.raises(Stuck) as later:
            await c.attach("s").result()
        run = await c.retry("s", "first", reason="unlocked", who="eve")
        with pytest.raises(Stuck) as retried:
            await run.result()
    for error in (live.value, later.value, retried.value):
        assert (error.failed_node, error.failed_reason) == ("third", "ValueError: the card is expired")
        assert (error.nodes, error.reasons) == (("first",), {"first": "Permanent: locked"})
        assert error.choices == {"first": ("retry", "skip", "resolve")}
        assert str(error) == (
            "saga s is stuck and needs an operator: first: Permanent: locked (choose: retry, skip, resolve); "
            "it was being rolled back after node 'third' failed: ValueError: the card is expired"
        )
        assert vars(copy.copy(error)) == vars(error)


async def test_rolled_back_names_the_node_that_failed_first_live_and_after_a_restart(tmp_path: Path) -> None:
    FAIL["third"] = ValueError("the card is expired")
    url = f"sqlite:///{tmp_path}/s.db"
    async with Coordinator(url, sagas=[three]) as c:
        with pytest.raises(RolledBack) as live:
            await c.run(three.with_id("s"))
    async with Coordinator(url, sagas=[three]) as c:
        with pytest.raises(RolledBack) as later:
            await c.attach("s").result()
    for error in (live.value, later.value):
        assert (error.node, error.reason) == ("third", "ValueError: the card is expired")
        assert str(error) == ("saga s was rolled back: node 'third' failed: ValueError: the card is expired")


async def test_a_rollback_by_request_or_deadline_names_no_node() -> None:
    FAIL["undo first"] = Permanent("locked")
    async with Coordinator("memory://", sagas=[three]) as c:
        run = await c.start(three)
        await run.result()
        with pytest.raises(Stuck) as asked:
            await (await c.rollback(run.id, reason="wrong customer", who="eve")).result()
    assert (asked.value.failed_node, asked.value.failed_reason) == ("", "wrong customer")
    assert str(asked.value).endswith("it was being rolled back because it was asked for: wrong customer")

    @action
    async def waits(x: str) -> str:
        await asyncio.Event().wait()
        return x

    @saga
    def long() -> str:
        return waits(first())

    async with Coordinator("memory://", sagas=[long], grace=0) as c:
        with pytest.raises(Stuck) as late:
            await c.run(long.options(deadline=0.05))
    assert (late.value.failed_node, late.value.failed_reason) == ("", "its deadline passed")
    assert str(late.value).endswith("it was being rolled back because its deadline passed")


async def test_going_forward_only_stuck_names_the_node_that_was_given_up_first() -> None:
    gate = asyncio.Event()

    @action(pivot=True)
    async def ship() -> str:
        return "sent"

    @action(retry=Retry(2, first=0))
    async def early(parcel: str) -> None:
        await gate.wait()
        raise ValueError("no printer")

    @action(retry=Retry(2, first=0))
    async def late(parcel: str) -> None:
        try:
            raise ValueError("no mail")
        finally:
            gate.set()

    @saga
    def send() -> None:
        parcel = ship()
        early(parcel)
        late(parcel)

    with pytest.raises(Stuck) as caught:
        await SagaExecutor(send).execute()
    assert caught.value.nodes == ("early", "late")
    assert (caught.value.failed_node, caught.value.failed_reason) == ("late", "ValueError: no mail")


async def test_a_parked_saga_says_what_does_not_fit(tmp_path: Path) -> None:
    FAIL["third"] = ValueError("the card is expired")
    FAIL["undo first"] = RuntimeError("not now")
    url = f"sqlite:///{tmp_path}/s.db"
    async with Coordinator(url, sagas=[three]) as c:
        run_ = await c.start(three.with_id("s"))
        await c.pause(run_.id)
    async with Coordinator(url) as c:
        with pytest.raises(Stuck) as parked:
            await c.attach("s").result()
    assert parked.value.nodes == ()
    assert "first" in parked.value.parked
    assert parked.value.parked in str(parked.value)


def test_the_blocking_twin_says_the_same_and_gives_the_status_without_raising() -> None:
    FAIL["third"] = ValueError("the card is expired")
    FAIL["undo first"] = Permanent("locked")
    with connect("memory://", sagas=[three]) as c:
        run_ = c.start(three.with_id("s"))
        assert run_.ended() == "stuck"
        with pytest.raises(Stuck) as stuck:
            run_.result()
        assert stuck.value.failed_node == "third"
        assert c.skip("s", "first").ended() == "rolled_back"
        FAIL.clear()
        assert c.start(three).ended() == "completed"


async def test_ended_gives_the_status_of_a_saga_that_ended_elsewhere_or_before(tmp_path: Path) -> None:
    FAIL["third"] = ValueError("no")
    url = f"sqlite:///{tmp_path}/s.db"
    async with Coordinator(url, sagas=[three]) as c:
        run_ = await c.start(three.with_id("s"))
        assert await run_.ended() == "rolled_back"
        assert await run_.ended() == "rolled_back"
    async with Coordinator(url) as c:
        assert await c.attach("s").ended() == "rolled_back"


# -- failed_nodes --------------------------------------------------------------


def _plain() -> BaseException:
    return RuntimeError("no power")


WAYS_TO_FAIL: dict[str, Callable[[], BaseException]] = {
    "plain": _plain,
    "clean": lambda: NoEffect("nothing"),
    "unknown": lambda: Unknown("no reply"),
    "permanent": lambda: Permanent("never"),
}


def with_undo(kind: str) -> Saga[..., str]:
    @action
    async def fails() -> str:
        return run("fails")

    if kind == "no-op":
        fails.undo(no_op_undo)
    elif kind == "unknown":

        @fails.undo(unknown=True)
        async def undo_any(output: str | None) -> None: ...

    elif kind == "output":

        @fails.undo
        async def undo_output(output: str) -> None: ...

    @saga
    def one() -> str:
        return fails()

    return one


@pytest.mark.parametrize("how", WAYS_TO_FAIL)
@pytest.mark.parametrize("kind", ["none", "no-op", "unknown", "output"])
async def test_a_node_that_failed_is_named_whatever_its_undo(kind: str, how: str) -> None:
    FAIL["fails"] = WAYS_TO_FAIL[how]()
    executor = SagaExecutor(with_undo(kind))
    with pytest.raises((RolledBack, Stuck)):
        await executor.execute()
    assert executor.failed_nodes() == ["fails"]
    assert executor.completed_nodes() == []


async def test_one_that_was_run_again_in_the_rollback_to_learn_its_output_still_failed() -> None:
    calls: list[int] = []

    @action
    async def charge() -> str:
        calls.append(1)
        if len(calls) == 1:
            raise Unknown("no reply")
        return "receipt"

    @charge.undo
    async def void(receipt: str) -> None: ...

    @saga
    def pay() -> str:
        return charge()

    executor = SagaExecutor(pay)
    with pytest.raises(RolledBack) as caught:
        await executor.execute()
    assert len(calls) == 2
    assert executor.execution_state() == {"charge": "undone"}
    assert executor.failed_nodes() == [caught.value.node] == ["charge"]


async def test_one_that_succeeded_when_it_was_tried_again_did_not_fail() -> None:
    calls: list[str] = []

    @action(retry=Retry(3, first=0))
    async def flaky() -> str:
        calls.append("do")
        if len(calls) < 3:
            raise ConnectionError("not yet") if len(calls) == 1 else Unknown("no reply")
        return "made"

    @flaky.undo(retry=Retry(3, first=0))
    async def unmake(made: str) -> None:
        calls.append("undo")
        if len(calls) < 6:
            raise ConnectionError("not yet")

    @action
    async def fails(made: str) -> str:
        raise ValueError("no")

    @saga
    def both() -> str:
        return fails(flaky())

    executor = SagaExecutor(both)
    with pytest.raises(RolledBack):
        await executor.execute()
    assert calls == ["do", "do", "do", "undo", "undo", "undo"]
    assert executor.failed_nodes() == ["fails"]


async def test_a_failed_undo_is_named_also_after_it_was_resolved_by_hand(tmp_path: Path) -> None:
    FAIL["third"] = ValueError("no")
    FAIL["undo first"] = Permanent("locked")
    async with Coordinator(f"sqlite:///{tmp_path}/s.db", sagas=[three]) as c:
        run_ = await c.start(three.with_id("s"))
        assert await run_.ended() == "stuck"
        assert await (await c.resolve("s", "first")).ended() == "rolled_back"
        executor = await SagaExecutor.from_stored(c.store, "s", three.actions.values())
        assert executor.failed_nodes() == ["first", "third"]


# -- exceptions that are hard to handle ------------------------------------------


def _refuse(*_: object) -> Any:
    raise ValueError("do not touch this exception")


def hostile(base: type[Exception], methods: dict[str, Any]) -> type[Exception]:
    return type("Hostile", (base,), methods)


NAMES = ("__bool__", "__len__", "__eq__", "__hash__", "__str__", "__repr__", "__format__")
HOSTILE: dict[str, dict[str, Any]] = {
    "empty": {"__len__": lambda self: 0},
    "false": {"__bool__": lambda self: False},
    **{name: {name: _refuse} for name in NAMES},
    "all": dict.fromkeys(NAMES, _refuse),
}


async def _by_coordinator() -> BaseException:
    async with Coordinator("memory://", sagas=[three]) as c:
        try:
            await c.run(three.with_id("s"))
        except (RolledBack, Stuck) as error:
            (await c.get("s")).error()
            return error
    raise AssertionError("it completed")


async def _by_executor() -> BaseException:
    executor = SagaExecutor(three)
    try:
        await executor.execute()
    except (RolledBack, Stuck) as error:
        executor.error()
        return error
    raise AssertionError("it completed")


async def _by_connection() -> BaseException:
    def run() -> BaseException:
        with connect("memory://", sagas=[three]) as c:
            try:
                c.run(three)
            except (RolledBack, Stuck) as error:
                return error
        raise AssertionError("it completed")

    return await asyncio.to_thread(run)


@pytest.mark.parametrize("how", [_by_coordinator, _by_executor, _by_connection])
@pytest.mark.parametrize("where", ["third", "undo first"])
@pytest.mark.parametrize("name", HOSTILE)
async def test_an_exception_that_cannot_be_handled_like_others_is_the_cause(
    name: str, where: str, how: Callable[[], Awaitable[BaseException]]
) -> None:
    FAIL["third"] = ValueError("no")
    raised = FAIL[where] = hostile(Exception if where == "third" else Permanent, HOSTILE[name])("x")
    error = await how()
    assert (type(error) is Stuck) is (where != "third")
    same = error.__cause__ is raised
    error.__cause__ = error.__context__ = None  # what pytest could not print
    assert same
    assert ("third" if where == "third" else "first") in str(error)
