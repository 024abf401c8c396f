"""What of a stored saga is held against the code, what is not, and what becomes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from compensate import (
    Action,
    ActionNotFound,
    ActionRegistry,
    Coordinator,
    Ctx,
    DagBuilder,
    IllegalRequest,
    Retry,
    Saga,
    SagaExecutor,
    action,
    action_node,
    fan_out,
    saga,
    saga_from_dag,
    subsaga_node,
)
from compensate.inspection.snapshot import Snapshot
from compensate.stores.memory import MemoryStore

Make = Callable[..., Any]


def act(
    fn: Make, name: str, undo: Make | None = None, *, unknown: bool = False, **settings: Any
) -> Action[..., Any]:
    made: Action[..., Any] = Action(fn, name=name, **settings)
    if undo is not None:
        made.declare_undo(undo, unknown=unknown, retry=Retry(2, first=0.01), timeout=None)
    return made


def known(*actions: Action[..., Any]) -> ActionRegistry:
    registry = ActionRegistry()
    for one in actions:
        registry.register(one)
    return registry


async def number(x: int) -> int:
    return x


async def hang(x: int) -> int:
    await asyncio.Event().wait()
    return x


async def fail(x: int) -> int:
    raise ValueError("no")


async def undo(x: int) -> None: ...


async def undo_or_none(x: int | None) -> None: ...


async def undo_with_ctx(ctx: Ctx[Any], x: int) -> None:
    assert ctx.inputs["x"] is not None


def row(*actions: Action[..., Any]) -> Saga[..., Any]:
    """The actions, one after the other."""

    @saga(name="row")
    def one_after_the_other(x: int) -> int:
        for one in actions:
            x = one.options(name=one.name)(x)
        return x

    return one_after_the_other


async def left(store: MemoryStore, definition: Saga[..., Any], *args: Any) -> None:
    """Start the saga `s`, wait until its action hangs or it is over, and leave it."""
    async with Coordinator(store, sagas=[definition], drain=0.0) as c:
        await c.start(definition.with_id("s"), *args)
        for _ in range(20):
            await asyncio.sleep(0.002)


async def until_status(c: Coordinator, saga_id: str, status: str) -> None:
    while (await c.record(saga_id)).status != status:  # noqa: ASYNC110 - the store has no event
        await asyncio.sleep(0.002)


async def until_left(c: Coordinator, saga_id: str, status: str) -> None:
    while (await c.record(saga_id)).status == status:  # noqa: ASYNC110
        await asyncio.sleep(0.002)


async def misfit(store: MemoryStore, *actions: Action[..., Any]) -> str:
    return Snapshot(await store.load("s")).misfit(known(*actions))


# -- what a node asks of its action ------------------------------------------


async def more(x: int, region: str) -> int:
    return x


async def more_by_default(x: int, region: str = "eu") -> int:
    return x


async def renamed(y: int) -> int:
    return y


async def less() -> int:
    return 1


async def behind_another(z: int = 0, x: int = 0, /) -> int:
    return x


@pytest.mark.parametrize(
    ("second", "said"),
    [
        (None, "no action is named 'second'"),
        (more, "needs the parameter 'region'"),
        (renamed, "needs the parameter 'y'"),
        (less, "takes no parameter 'x'"),
        (behind_another, "takes 'x' by its place only"),
        (more_by_default, ""),
        (number, ""),
    ],
)
@pytest.mark.parametrize("running", ["first", "second"])
async def test_an_action_that_is_still_to_run_is_known_and_given_what_it_needs(
    second: Make | None, said: str, running: str
) -> None:
    store = MemoryStore()
    first = act(hang if running == "first" else number, "first", undo)
    await left(store, row(first, act(hang, "second")), 1)
    assert (await store.load("s")).events[-1].node == running
    now = [act(number, "first", undo), *([] if second is None else [act(second, "second")])]
    wrong = await misfit(store, *now)
    assert ("node 'second'" in wrong and said in wrong) if said else not wrong
    async with Coordinator(store, actions=now, poll=0.02) as c:
        await until_left(c, "s", "running")
        record = await c.record("s")
        assert (record.parked, record.status) == ((True, "stuck") if said else (False, "completed"))


async def test_what_a_saga_has_put_behind_itself_may_be_gone() -> None:
    store = MemoryStore()
    await left(store, row(act(number, "first"), act(hang, "second", undo)), 1)
    assert await misfit(store, act(number, "second", undo)) == ""
    async with Coordinator(store, actions=[act(number, "second", undo)]) as c:
        assert await c.attach("s").result() == 1


@pytest.mark.parametrize("pivot", [False, True])
async def test_an_undo_is_needed_until_a_pivot_has_passed(pivot: bool) -> None:
    store = MemoryStore()
    actions = [
        act(number, "first", undo),
        act(number, "second", pivot=pivot, retry=Retry(2)),
        act(hang, "third", retry=Retry(2, first=0.01)),
    ]
    await left(store, row(*actions), 1)
    wrong = await misfit(store, act(number, "first"), act(number, "second"), act(number, "third"))
    assert (
        wrong == "" if pivot else "node 'first': the stored dag says that action 'first' has an undo" in wrong
    )


async def test_an_undo_that_only_a_pivot_leads_to_is_never_needed() -> None:
    store = MemoryStore()
    last = act(number, "third", undo, retry=Retry(2, first=0.01))
    await left(store, row(act(number, "first", undo), act(hang, "second", pivot=True), last), 1)
    first, second = act(number, "first", undo), act(number, "second")
    assert await misfit(store, first, second, act(number, "third")) == ""
    assert "node 'first'" in await misfit(store, act(number, "first"), second, act(number, "third"))


async def test_an_undo_that_may_be_called_without_an_output_has_to_take_that() -> None:
    store = MemoryStore()
    await left(store, row(act(hang, "first", undo_or_none, unknown=True)), 1)
    assert "can do without the output" in await misfit(store, act(number, "first", undo))
    assert await misfit(store, act(number, "first", undo_or_none, unknown=True)) == ""


async def test_a_saga_that_goes_back_needs_no_more_than_its_undos() -> None:
    store = MemoryStore()

    async def refuses(x: int) -> None:
        await asyncio.Event().wait()

    actions = [
        act(number, "first", undo),
        act(number, "second", refuses),
        act(fail, "third"),
        act(number, "fourth"),
    ]
    await left(store, row(*actions), 1)
    assert (await store.load("s")).record.status == "rolling_back"
    assert await misfit(store, act(renamed, "first", undo), act(more, "second", undo)) == ""
    assert "node 'first'" in await misfit(store, act(number, "first"), act(number, "second", undo))
    async with Coordinator(store, actions=[act(renamed, "first", undo), act(more, "second", undo)]) as c:
        await until_left(c, "s", "rolling_back")
        assert (await c.record("s")).status == "rolled_back"


async def test_an_action_that_is_run_again_to_learn_its_output_is_needed_on_the_way_back() -> None:
    store = MemoryStore()
    definition = row(act(hang, "first", undo))
    async with Coordinator(store, sagas=[definition], drain=0.0, grace=30) as c:
        await c.start(definition.with_id("s"), 1)
        await c.rollback("s")  # what runs is waited for
    assert (await store.load("s")).record.status == "rolling_back"
    assert "needs the parameter 'region'" in await misfit(store, act(more, "first", undo))
    assert await misfit(store, act(number, "first", undo)) == ""


# -- values ------------------------------------------------------------------


@dataclass
class Order:
    item: str
    count: int = 1


@dataclass
class Narrow:
    item: str


@dataclass
class Wide:
    item: str
    region: str


async def order(x: int) -> Order:
    await asyncio.Event().wait()
    return Order("x")


async def ordered(x: int) -> Order:
    return Order("x")


async def use_count(count: int) -> int:
    await asyncio.Event().wait()
    return count


async def use_text(count: str) -> int:
    return len(count)


async def narrow(x: int) -> Narrow:
    return Narrow("x")


def path_saga(make: Make) -> Saga[..., Any]:
    source, use = act(make, "order"), act(use_count, "use")

    @saga(name="inner")
    def inner(count: int) -> int:
        result: int = use(count)
        return result

    @saga(name="paths")
    def paths(x: int) -> int:
        return inner(source(x).count)

    return paths


@pytest.mark.parametrize("make", [order, ordered])
async def test_a_value_is_checked_where_it_is_read_by_path_and_in_subsagas_recorded_or_not(
    make: Make,
) -> None:
    store = MemoryStore()
    await left(store, path_saga(make), 1)
    same = act(ordered, "order")
    assert await misfit(store, same, act(use_count, "use")) == ""
    wrong = await misfit(store, same, act(use_text, "use"))
    assert "node 'inner/use'" in wrong
    assert "'count'" in wrong
    wrong = await misfit(store, act(narrow, "order"), act(use_count, "use"))
    assert ("has no .count" in wrong) if make is order else not wrong


async def take(given: Order) -> int:
    await asyncio.Event().wait()
    return 1


async def take_wide(given: Wide) -> int:
    return 1


async def text(x: int) -> str:
    await asyncio.Event().wait()
    return "t"


async def test_a_composed_value_is_checked_before_all_of_its_parts_are_there() -> None:
    source, taker = act(text, "text"), act(take, "take")

    @saga
    def composed(x: int) -> int:
        given: Any = Order(source(x), 2)
        result: int = taker(given)
        return result

    store = MemoryStore()
    await left(store, composed, 1)
    assert await misfit(store, act(text, "text"), taker) == ""
    assert "needs the field 'region'" in await misfit(store, act(text, "text"), act(take_wide, "take"))
    assert "node 'take'" in await misfit(store, act(number, "text"), taker)


async def item(x: int) -> int:
    await asyncio.Event().wait()
    return x


async def item_text(x: str) -> int:
    return 1


async def total(xs: list[int]) -> int:
    return sum(xs)


async def total_text(xs: list[str]) -> int:
    return 1


async def numbers(x: int) -> list[int]:
    return [x, x]


async def numbers_later(x: int) -> list[int]:
    await asyncio.Event().wait()
    return [x]


@pytest.mark.parametrize("make", [numbers, numbers_later])
async def test_the_items_and_outputs_of_a_fan_out_are_checked_before_and_after_its_size_is_known(
    make: Make,
) -> None:
    source, each, all_ = act(make, "numbers"), act(item, "item", undo), act(total, "total")

    @saga
    def fanned(x: int) -> int:
        given: Any = source(x)
        result: int = all_(fan_out(each, given))
        return result

    store = MemoryStore()
    await left(store, fanned, 1)
    assert await misfit(store, source, each, all_) == ""
    assert "'item" in await misfit(store, source, act(item_text, "item", undo), all_)
    assert "node 'item" in await misfit(store, source, act(item, "item"), all_)
    wrong = await misfit(store, source, each, act(total_text, "total"))
    assert "node 'total'" in wrong


async def flagged(x: int) -> bool:
    await asyncio.Event().wait()
    return True


async def flag_text(x: int) -> str:
    return "yes"


async def test_a_branch_that_is_decided_by_a_flag_to_come_needs_a_flag() -> None:
    flag, one = act(flagged, "flag"), act(number, "one")

    @saga
    def branched(x: int) -> int | None:
        return one.when(flag(x))(x)

    store = MemoryStore()
    await left(store, branched, 1)
    assert "its `when` (from node 'flag')" in await misfit(store, act(flag_text, "flag"), one)
    assert await misfit(store, flag, one) == ""


async def test_a_branch_that_is_not_taken_needs_no_code() -> None:
    async def no(x: int) -> bool:
        return False

    flag, one, last = act(no, "flag"), act(number, "one", undo), act(hang, "last")

    @saga
    def branched(x: int) -> int:
        waits = last.options(name="last")(x)
        one.when(flag(x)).after(waits)(x)
        result: int = waits
        return result

    store = MemoryStore()
    await left(store, branched, 1)
    assert await misfit(store, flag, act(number, "last")) == ""


async def test_the_inputs_that_an_undo_may_look_at_have_to_decode() -> None:
    store = MemoryStore()
    await left(store, row(act(number, "first", undo_with_ctx), act(hang, "second")), 1)

    async def first_of_text(x: str) -> int:
        return 1

    assert "its input 'x'" in await misfit(
        store, act(first_of_text, "first", undo_with_ctx), act(number, "second")
    )
    assert await misfit(store, act(first_of_text, "first", undo), act(number, "second")) == ""


# -- operators ---------------------------------------------------------------


async def test_a_completed_saga_is_not_parked_and_its_rollback_is_refused_without_its_undos() -> None:
    store = MemoryStore()
    await left(store, row(act(number, "first", undo)), 1)
    before = (await store.load("s")).record
    assert before.status == "completed"
    async with Coordinator(store, actions=[act(number, "first")]) as c:
        with pytest.raises(IllegalRequest, match=r"node 'first'.*has an undo.*nothing was changed"):
            await c.rollback("s")
        after = await c.record("s")
        assert (after.status, after.last_seq, after.parked) == ("completed", before.last_seq, False)
    async with Coordinator(store, actions=[act(renamed, "first", undo)]) as c:
        await c.rollback("s")
        await until_status(c, "s", "rolled_back")


async def test_a_parked_saga_can_be_rolled_back_by_code_that_has_its_undos() -> None:
    store = MemoryStore()
    await left(store, row(act(number, "first", undo), act(hang, "second")), 1)
    async with Coordinator(store, actions=[act(number, "first", undo)]) as c:
        assert (await c.record("s")).parked
        await c.rollback("s")
        await until_status(c, "s", "rolled_back")


async def test_a_stuck_node_whose_undo_is_gone_can_be_skipped_and_not_retried() -> None:
    async def refuses(x: int) -> None:
        raise ValueError("no")

    store = MemoryStore()
    await left(store, row(act(number, "first", undo), act(number, "second", refuses), act(fail, "third")), 1)
    while (await store.load("s")).record.status != "stuck":
        async with Coordinator(store, actions=[act(number, "first", undo), act(number, "second", refuses)]):
            await asyncio.sleep(0.05)
    first, second = act(number, "first", undo), act(number, "second")
    assert await misfit(store, first, second) == ""
    async with Coordinator(store, actions=[first, second]) as c:
        with pytest.raises(IllegalRequest, match=r"node 'second'.*has an undo"):
            await c.retry("s", "second")
        await c.skip("s", "second")
        await until_status(c, "s", "rolled_back")


# -- before anything is stored -----------------------------------------------


async def test_a_dag_that_asks_of_actions_what_they_do_not_do_is_refused_with_dag_and_node() -> None:
    one = act(number, "one", undo)
    inner = (
        DagBuilder("inner", known(one), params=("x",))
        .append(action_node("deep", one, inputs={"x": 1}))
        .build()
    )
    dag = DagBuilder("outer", known(one)).append(subsaga_node("sub", inner, inputs={"x": 1})).build()
    for make in (
        lambda: SagaExecutor(dag, known()),
        lambda: saga_from_dag(dag, known()),
        lambda: DagBuilder("outer", known()).append(subsaga_node("sub", inner, inputs={"x": 1})).build(),
    ):
        with pytest.raises(ActionNotFound, match=r"dag outer: no action is named 'one'; .*node 'sub/deep'"):
            make()
    with pytest.raises(ActionNotFound, match=r"dag outer: node 'sub/deep': .*has an undo"):
        await SagaExecutor(dag, known(act(number, "one"))).execute()
    async with Coordinator("memory://") as c:
        with pytest.raises(
            ActionNotFound, match=r"dag outer: node 'sub/deep': .*needs the parameter 'region'"
        ):
            await c.start(saga_from_dag(dag, known(act(more, "one", undo))).with_id("s"))
        assert (await c.list()).records == []


async def test_an_executor_of_a_stored_saga_runs_nothing_that_does_not_fit() -> None:
    store = MemoryStore()
    await left(store, row(act(number, "first", undo), act(hang, "second")), 1)

    @action(name="second")
    async def second(x: str) -> int:
        return 1

    executor = await SagaExecutor.from_stored(store, "s", [act(number, "first", undo), second])
    with pytest.raises(ActionNotFound, match="node 'second': its input 'x'"):
        await executor.execute()
    executor = await SagaExecutor.from_stored(store, "s", [act(number, "first", undo), act(number, "second")])
    assert await executor.execute() == 1
