"""Faults that are ordered for one saga of a coordinator."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from compensate import (
    Coordinator,
    DefinitionError,
    Inject,
    ParamsInvalid,
    RolledBack,
    SagaExists,
    SagaNotFound,
    Stuck,
    action,
    connect,
    fan_out,
    saga,
)
from compensate.cli.injecting import read_faults

world: dict[str, int] = {}


@pytest.fixture(autouse=True)
def fresh() -> None:
    world.clear()


def _count(what: str) -> None:
    world[what] = world.get(what, 0) + 1


@action
async def take(item: str) -> str:
    _count(f"take {item}")
    return item


@take.undo
async def give_back(item: str) -> None:
    _count(f"give back {item}")


@action
async def pay(item: str) -> str:
    _count(f"pay {item}")
    return item


@saga
def buy(item: str) -> str:
    return pay(take(item))


@saga
def buy_all(items: list[str]) -> list[str]:
    return fan_out(take, items)


@saga
def nested(item: str) -> str:
    return pay(buy(item))


@action
async def describe(inject: str | None) -> str:
    return f"<{inject}>"


@saga
def has_such_a_param(inject: str | None = "unsaid") -> str:
    return describe(inject)


FAIL = Inject(fail="before")


async def test_no_other_saga_of_the_coordinator_is_hit() -> None:
    async with Coordinator("memory://", sagas=[buy]) as c:
        with pytest.raises(RolledBack, match="node 'pay' failed: InjectedError"):
            await c.run(buy.with_id("drill"), "a", inject={"pay": FAIL})
        results = await asyncio.gather(
            *(c.run(buy.with_id(f"r{k}"), f"b{k}") for k in range(20)),
            c.run(buy, "c", inject={"pay": Inject(fail="after")}),
            return_exceptions=True,
        )
        assert results[:-1] == [f"b{k}" for k in range(20)]
        assert isinstance(results[-1], RolledBack)
    assert world["take a"] == world["give back a"] == 1
    assert "pay a" not in world


async def test_faults_of_one_saga_stand_beside_those_of_the_coordinator() -> None:
    shared = {"take": Inject(repeat=2), "pay": Inject(repeat=3)}
    async with Coordinator("memory://", sagas=[buy], inject=shared) as c:
        await c.run(buy, "x", inject={"pay": Inject(repeat=4)})
        await c.run(buy, "y")
    assert world == {"take x": 2, "pay x": 4, "take y": 2, "pay y": 3}


@pytest.mark.parametrize(
    ("definition", "args", "faults", "counts"),
    [
        (buy_all, (["p", "q"],), {"take[1]": Inject(repeat=2)}, {"take p": 1, "take q": 2}),
        (nested, ("p",), {"buy/pay": Inject(repeat=3)}, {"take p": 1, "pay p": 4}),
    ],
    ids=["fan-out", "subsaga"],
)
async def test_a_node_is_named_by_its_path(
    definition: Any, args: tuple[Any, ...], faults: dict[str, Inject], counts: dict[str, int]
) -> None:
    async with Coordinator("memory://") as c:
        await c.run(definition, *args, inject=faults)
    assert world == counts


BAD: list[Any] = [
    {"nowhere": FAIL},
    {"buy": FAIL},
    {"take[0]": FAIL},
    {"take": "fail"},
    {"take": {"fail": "before"}},
    {"take": Inject},
    {1: FAIL},
    "take",
    FAIL,
    [("take", FAIL)],
]


@pytest.mark.parametrize("faults", BAD, ids=str)
async def test_what_could_never_happen_is_refused_before_anything_is_stored(faults: Any) -> None:
    async with Coordinator("memory://", sagas=[buy]) as c:
        ways: list[Callable[[], Any]] = [
            lambda: c.start(buy.with_id("x"), "a", inject=faults),
            lambda: c.run(buy.with_id("x"), "a", inject=faults),
            lambda: c.start_json(buy.with_id("x"), b'{"item": "a"}', inject=faults),
        ]
        for way in ways:
            with pytest.raises(DefinitionError, match=r"saga buy: inject.*(Inject\(|name an action's node)"):
                await way()
            with pytest.raises(SagaNotFound):
                await c.get("x")
    assert world == {}


async def test_the_arguments_of_a_drill_are_checked_like_others() -> None:
    async with Coordinator("memory://") as c:
        with pytest.raises(ParamsInvalid):
            await c.start(buy, "a", "b", inject={"pay": FAIL})


async def test_a_param_of_that_name_is_the_sagas_own() -> None:
    async with Coordinator("memory://") as c:
        assert await c.run(has_such_a_param, inject="mine") == "<mine>"
        assert await c.run(has_such_a_param, inject=None) == "<None>"
        assert await c.run(has_such_a_param) == "<unsaid>"
        run = await c.start_json(has_such_a_param, b'{"inject": "mine"}', inject={"describe": FAIL})
        with pytest.raises(RolledBack):
            await run.result()


async def test_no_faults_may_be_said_in_so_many_words() -> None:
    async with Coordinator("memory://") as c:
        assert await c.run(buy, "a", inject=None) == "a"
        assert await c.run(buy, "a", inject={}) == "a"


async def test_they_hold_when_the_coordinator_takes_the_saga_up_again(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'x.db'}"
    async with Coordinator(url, sagas=[buy]) as c:
        run = await c.start(buy.with_id("x"), "a", inject={"take": Inject(repeat_undo=3)})
        assert await run.result() == "a"
        await c.rollback("x")  # it is claimed anew
        with pytest.raises(RolledBack):
            await run.result()
    assert world["give back a"] == 3


async def test_they_end_with_the_coordinator_that_took_them(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'x.db'}"
    async with Coordinator(url, sagas=[buy]) as c:
        assert await c.run(buy.with_id("x"), "a", inject={"take": Inject(fail_undo=-1)}) == "a"
    async with Coordinator(url, sagas=[buy]) as c:
        run = await c.rollback("x")
        with pytest.raises(RolledBack):
            await run.result()
    assert world["give back a"] == 1


async def test_started_again_under_its_id_it_meets_them_in_what_is_still_to_come() -> None:
    async with Coordinator("memory://", sagas=[buy]) as c:
        assert await c.run(buy.with_id("x"), "a") == "a"
        run = await c.start(buy.with_id("x"), "a", inject={"take": Inject(repeat_undo=2)})
        assert not run.new
        await c.rollback("x")
        with pytest.raises(RolledBack):
            await run.result()
    assert world["give back a"] == 2


async def test_a_start_that_is_refused_leaves_the_other_saga_of_that_id_alone() -> None:
    async with Coordinator("memory://", sagas=[buy]) as c:
        assert await c.run(buy.with_id("x"), "a") == "a"
        with pytest.raises(SagaExists):
            await c.start(buy.with_id("x"), "other", inject={"take": Inject(fail_undo=-1)})
        run = await c.rollback("x")
        with pytest.raises(RolledBack):
            await run.result()


async def test_an_undo_that_fails_for_good_leaves_this_saga_stuck() -> None:
    faults = {"pay": FAIL, "take": Inject(fail_undo=-1)}
    once = {"pay": FAIL}

    @action
    async def hold() -> str:
        return ""

    @hold.undo(retry=take.retry)
    async def let_go(output: str) -> None: ...

    @action(name="pay")
    async def no_pay(after: str) -> str:
        return after

    @saga
    def small() -> str:
        return no_pay(hold())

    async with Coordinator("memory://", sagas=[small]) as c:
        with pytest.raises(RolledBack):
            await c.run(small, inject=once)
        with pytest.raises(Stuck, match="hold"):
            await c.run(small, inject={**once, "hold": faults["take"]})


def test_the_blocking_twin_takes_them_too() -> None:
    with connect("memory://", sagas=[buy]) as c:
        with pytest.raises(RolledBack):
            c.run(buy, "a", inject={"pay": FAIL})
        with pytest.raises(RolledBack):
            c.start(buy, "a", inject={"pay": FAIL}).result()
        assert c.run(buy, "a") == "a"


@pytest.mark.parametrize("name", ["fail", "fail_undo", "repeat", "repeat_undo"])
def test_a_field_that_is_called_like_a_function_says_what_to_write(name: str) -> None:
    with pytest.raises(TypeError, match=rf"Inject\.{name}: .*Inject\(fail='before'\)"):
        getattr(Inject, name)("before")


@pytest.mark.parametrize("name", ["before", "after", "error", "undo"])
def test_a_guessed_name_says_what_to_write(name: str) -> None:
    with pytest.raises(AttributeError, match=rf"Inject\.{name}: .*Inject\(fail='before'\)"):
        getattr(Inject, name)
    assert not hasattr(Inject, "__wrapped__")


@pytest.mark.parametrize(
    "how",
    [
        {"fail": "never"},
        {"fail": True},
        {"fail_undo": -2},
        {"fail_undo": "all"},
        {"repeat": 0},
        {"repeat": 1.5},
        {"repeat": True},
        {"repeat_undo": 0},
    ],
    ids=str,
)
def test_a_fault_that_makes_no_sense_is_refused(how: dict[str, Any]) -> None:
    with pytest.raises(DefinitionError, match=f"Inject: {next(iter(how))} is .*; give "):
        Inject(**how)


@pytest.mark.parametrize(
    ("words", "faults"),
    [
        (["a=fail"], {"a": Inject(fail="before")}),
        (["a=after"], {"a": Inject(fail="after")}),
        (["x/a[3]=undo"], {"x/a[3]": Inject(fail_undo=-1)}),
        (["a=undo:7", "b=repeat:2"], {"a": Inject(fail_undo=7), "b": Inject(repeat=2)}),
        (
            ["a=fail,undo:2", "a=repeat-undo:3"],
            {"a": Inject(fail="before", fail_undo=2, repeat_undo=3)},
        ),
        (["a=fail, fail", "a=fail"], {"a": Inject(fail="before")}),
        ([], {}),
    ],
    ids=str,
)
def test_the_command_line_spells_every_fault(words: list[str], faults: dict[str, Inject]) -> None:
    assert read_faults(words) == faults


@pytest.mark.parametrize(
    "words",
    [
        [""],
        ["a"],
        ["=fail"],
        ["a="],
        ["a=fail,"],
        ["a=explode"],
        ["a=undo:0"],
        ["a=undo:-1"],
        ["a=undo:x"],
        ["a=undo:²"],
        ["a=undo:"],
        ["a=repeat"],
        ["a=fail,after"],
        ["a=undo:1", "a=undo:2"],
    ],
    ids=str,
)
def test_what_cannot_be_read_is_refused_with_the_syntax(words: list[str]) -> None:
    import click

    with pytest.raises(click.UsageError, match=r"--inject .*(fail, after, undo|contradicts)"):
        read_faults(words)
