"""The executor: one saga run, looked at, rolled back, and built anew from what is stored."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from compensate import (
    ActionNotFound,
    ActionRegistry,
    DagBuilder,
    DefinitionError,
    DeserializeFailed,
    IllegalRequest,
    Inject,
    InjectedError,
    NoEffect,
    NotFound,
    ParamsInvalid,
    Permanent,
    Retry,
    RolledBack,
    SagaExecutor,
    SerializeFailed,
    Stuck,
    TraceRecord,
    action,
    action_constant,
    action_node,
    fan_out,
    inject_error_action,
    no_op_undo,
    open_store,
    output,
    param,
    saga,
)
from compensate.core.policy import qualified

DONE: list[str] = []


@pytest.fixture(autouse=True)
def _clean() -> None:
    DONE.clear()


class Clock:
    """A second passes between any two looks."""

    def __init__(self) -> None:
        self.at = 1000.0

    def now(self) -> float:
        self.at += 1.0
        return self.at


@action
async def database(name: str) -> str:
    DONE.append("do database")
    return f"{name}-db"


@database.undo
async def drop_database(db: str) -> None:
    DONE.append(f"undo {db}")


@action
async def cache(name: str) -> str:
    DONE.append("do cache")
    return f"{name}-cache"


@cache.undo
async def drop_cache(made: str) -> None:
    DONE.append(f"undo {made}")


@action
async def server(db: str, cached: str) -> str:
    DONE.append("do server")
    return f"{db}/{cached}"


@server.undo
async def stop_server(made: str) -> None:
    DONE.append(f"undo {made}")


@action
async def check(made: str) -> str:
    if made.startswith("bad"):
        raise ValueError("it does not answer")
    return made.upper()


@saga
def site(name: str) -> str:
    return check(server(database(name), cache(name)))


REGISTRY = ActionRegistry()
REGISTRY.register_saga(site)


async def test_execute_runs_the_saga_and_gives_its_output_again_and_again() -> None:
    executor = SagaExecutor(site)
    assert await executor.execute("shop") == "SHOP-DB/SHOP-CACHE"
    assert await executor.execute() == "SHOP-DB/SHOP-CACHE"
    assert DONE == ["do database", "do cache", "do server"]


async def test_order_state_and_nodes_tell_what_happened() -> None:
    executor = SagaExecutor(site)
    await executor.execute("shop")
    assert executor.execution_order() == ["database", "cache", "server", "check"]
    assert executor.completed_nodes() == ["database", "cache", "server", "check"]
    assert executor.failed_nodes() == []
    assert executor.execution_state() == {
        "database": "completed",
        "cache": "completed",
        "server": "completed",
        "check": "completed",
    }
    assert executor.output("server") == "shop-db/shop-cache"
    assert executor.output() == executor.output(tp=str) == "SHOP-DB/SHOP-CACHE"
    assert executor.error() is None


async def test_after_a_failure_everything_is_undone_in_reverse_and_the_error_is_the_cause() -> None:
    executor = SagaExecutor(site, saga_id="s1")
    with pytest.raises(RolledBack) as caught:
        await executor.execute("bad")
    assert str(caught.value) == "saga s1 was rolled back: node 'check' failed: ValueError: it does not answer"
    assert (caught.value.saga_id, caught.value.node) == ("s1", "check")
    assert caught.value.reason == "ValueError: it does not answer"
    assert type(caught.value.__cause__) is ValueError
    assert DONE[:4] == ["do database", "do cache", "do server", "undo bad-db/bad-cache"]
    assert sorted(DONE[4:]) == ["undo bad-cache", "undo bad-db"]
    assert executor.completed_nodes() == []
    assert executor.failed_nodes() == ["check"]
    assert executor.execution_order() == ["database", "cache", "server", "check"]
    error = executor.error()
    assert error is not None
    assert (error.node, error.type) == ("check", "builtins.ValueError")  # the record keeps the qualified name
    assert str(error) == "check: ValueError: it does not answer"
    with pytest.raises(RolledBack):  # and again
        await executor.execute()


async def test_the_trace_has_every_attempt_of_do_and_undo_with_its_times_and_error() -> None:
    @action(retry=Retry(2, first=0.0))
    async def flaky(ctx_attempts: int) -> int:
        DONE.append("do flaky")
        if len(DONE) < ctx_attempts:
            raise OSError("not yet")
        return len(DONE)

    @flaky.undo
    async def unflaky(_number: int) -> None: ...

    @action
    async def fails(_number: int) -> None:
        raise NoEffect("sold out")

    @saga
    def tried() -> None:
        fails(flaky(2))

    executor = SagaExecutor(tried, clock=Clock())
    with pytest.raises(RolledBack):
        await executor.execute()
    trace = executor.execution_trace()
    assert [
        (one.node, one.action, one.direction, one.attempt, one.state, one.error and one.error.message)
        for one in trace
    ] == [
        ("flaky", "flaky", "do", 1, "failed", "not yet"),
        ("flaky", "flaky", "do", 2, "completed", None),
        ("fails", "fails", "do", 1, "failed", "sold out"),
        ("flaky", "flaky", "undo", 1, "undone", None),
    ]
    times = [time for one in trace for time in (one.started_at, one.ended_at)]
    assert None not in times
    assert times == sorted(times, key=lambda at: at or 0.0)
    assert all(one.ended_at is not None and one.ended_at > one.started_at for one in trace)


async def test_while_it_runs_the_trace_shows_what_has_not_ended() -> None:
    started, go = asyncio.Event(), asyncio.Event()

    @action
    async def waits() -> int:
        started.set()
        await go.wait()
        return 1

    @saga
    def slow() -> int:
        return waits()

    executor = SagaExecutor(slow)
    running = asyncio.create_task(executor.execute())
    await started.wait()
    (record,) = executor.execution_trace()
    assert isinstance(record, TraceRecord)
    assert (record.state, record.ended_at, record.error) == ("running", None, None)
    assert executor.execution_state()["waits"] == "running"
    go.set()
    assert await running == 1


async def test_a_completed_saga_is_rolled_back_by_hand_and_only_once() -> None:
    executor = SagaExecutor(site)
    await executor.execute("shop")
    await executor.rollback("no longer needed", who="ann")
    assert DONE[3] == "undo shop-db/shop-cache"
    assert sorted(DONE[4:]) == ["undo shop-cache", "undo shop-db"]
    assert executor.completed_nodes() == ["check"]  # it has no undo: nothing to take back
    with pytest.raises(IllegalRequest, match="rolled back"):
        await executor.rollback()
    with pytest.raises(RolledBack, match="no longer needed"):
        await executor.execute()
    assert len(DONE) == 6


async def test_before_anything_ran_there_is_nothing_to_roll_back() -> None:
    with pytest.raises(IllegalRequest, match="nothing was executed yet"):
        await SagaExecutor(site).rollback()


async def test_an_executor_built_from_a_stored_saga_rolls_it_back(tmp_path: Path) -> None:
    store = open_store(f"file:///{tmp_path}")
    await store.open()
    await SagaExecutor(site, saga_id="s1", store=store).execute("shop")
    await store.close()

    again = open_store(f"file:///{tmp_path}")
    await again.open()
    executor = await SagaExecutor.from_stored(again, "s1", REGISTRY)
    assert executor.execution_order() == ["database", "cache", "server", "check"]
    assert executor.output() == "SHOP-DB/SHOP-CACHE"
    await executor.rollback()
    assert DONE[3:4] == ["undo shop-db/shop-cache"]
    assert sorted(DONE[4:]) == ["undo shop-cache", "undo shop-db"]
    assert (await again.load("s1")).record.status == "rolled_back"
    await again.close()


async def _cut_off(store: Any) -> None:
    """Run `held` until it holds, and no further: as after a crash."""
    executor = SagaExecutor(held, saga_id="s1", store=store)
    running = asyncio.create_task(executor.execute("shop"))
    await HOLDING[0].wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


HOLDING: list[asyncio.Event] = []


@action
async def holds(db: str) -> str:
    if HOLDING:
        HOLDING[0].set()
        await asyncio.Event().wait()
    DONE.append("do holds")
    return db


@holds.undo
async def let_go(made: str) -> None:
    DONE.append(f"undo {made} held")


@saga
def held(name: str) -> str:
    return holds(database(name))


HELD_REGISTRY = ActionRegistry()
HELD_REGISTRY.register_saga(held)


@pytest.mark.parametrize("back", [False, True], ids=["forward", "back"])
async def test_an_executor_built_from_a_saga_that_was_cut_off_goes_on_forward_or_back(back: bool) -> None:
    store = open_store("memory://")
    await store.open()
    HOLDING.append(asyncio.Event())
    await _cut_off(store)
    HOLDING.clear()
    executor = await SagaExecutor.from_stored(store, "s1", HELD_REGISTRY)
    assert executor.execution_state()["database"] == "completed"
    if back:
        await executor.rollback()
        # It may have taken effect: run again under its key to learn the output, then undone.
        assert DONE == ["do database", "do holds", "undo shop-db held", "undo shop-db"]
    else:
        assert await executor.execute() == "shop-db"
        assert DONE == ["do database", "do holds"]
    await store.close()


async def test_a_stored_saga_whose_action_nobody_registered_is_refused_by_name() -> None:
    store = open_store("memory://")
    await store.open()
    await SagaExecutor(site, saga_id="s1", store=store).execute("shop")
    with pytest.raises(ActionNotFound, match="'database'"):
        await SagaExecutor.from_stored(store, "s1", [cache, server, check])
    assert (await store.load("s1")).record.status == "completed"
    await store.close()


# -- dags built at run time ------------------------------------------------


async def test_a_graph_made_from_user_input_runs_as_it_was_asked_for() -> None:
    @action
    async def show(word: str) -> str:
        DONE.append(word)
        return word

    registry = ActionRegistry()
    registry.register(show)

    def build(stages: list[list[str]]) -> SagaExecutor[Any]:
        builder = DagBuilder("asked", registry, params=("suffix",))
        for number, stage in enumerate(stages):
            nodes = [action_node(f"{word}{number}", show, inputs={"word": word}) for word in stage]
            builder.append_parallel(*nodes)
        builder.append(action_node("last", show, inputs={"word": param("suffix")}))
        return SagaExecutor(builder.build(), registry)

    assert await build([["a"], ["b", "c"]]).execute(suffix="!") == "!"
    assert DONE == ["a", "b", "c", "!"]
    with pytest.raises(ParamsInvalid, match="suffix"):
        await build([["a"]]).execute()
    with pytest.raises(ParamsInvalid, match=r"dag asked, param suffix: .*say the types .*saga_from_dag"):
        await build([["a"]]).execute(suffix=[Path("x")])


async def test_free_nodes_and_dependencies_run_in_their_order() -> None:
    registry = ActionRegistry()
    for one in (database, cache, server):
        registry.register(one)
    dag = (
        DagBuilder("free", registry)
        .add_dependency("cache", "db")
        .add_node(action_node("db", database, inputs={"name": "a"}, label="The database"))
        .add_node(action_node("cache", cache, inputs={"name": "a"}))
        .add_node(
            action_node("server", server, inputs={"db": output("db"), "cached": output("cache")}),
        )
        .build()
    )
    assert dag.node("db").label == "The database"
    executor: SagaExecutor[Any] = SagaExecutor(dag, registry)
    assert await executor.execute() == "a-db/a-cache"
    assert executor.execution_order() == ["cache", "db", "server"]


async def test_ready_made_actions_run_a_constant_and_an_error() -> None:
    registry = ActionRegistry()
    answer, failing = action_constant(42, name="answer"), inject_error_action()
    for one in (answer, failing, database):
        registry.register(one)
    dag = (
        DagBuilder("drill", registry)
        .append(action_node("answer", answer))
        .append(action_node("db", database, inputs={"name": "x"}))
        .append(action_node("fail", failing))
        .build()
    )
    executor: SagaExecutor[Any] = SagaExecutor(dag, registry)
    with pytest.raises(RolledBack) as caught:
        await executor.execute()
    assert isinstance(caught.value.__cause__, InjectedError)
    assert executor.output("answer") == 42
    assert DONE == ["do database", "undo x-db"]


async def test_a_no_op_undo_counts_as_undone_and_keeps_the_effect() -> None:
    @action
    async def log(word: str) -> str:
        DONE.append(word)
        return word

    log.undo(no_op_undo)

    @saga
    def logged() -> str:
        return check(log("bad"))

    executor = SagaExecutor(logged)
    with pytest.raises(RolledBack):
        await executor.execute()
    assert executor.execution_state()["log"] == "undone"
    assert DONE == ["bad"]


# -- errors ----------------------------------------------------------------


class Declined(Exception):
    """What a user's payment client raises."""


class NoMoney(Declined):
    """A more exact one."""


class Odd(Exception):
    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code} {text}")
        self.code = code


async def _failing(error: Exception) -> tuple[RolledBack, RolledBack]:
    """The failure of a saga as it is raised where it ran, and as its log tells it later."""

    @action
    async def charge() -> None:
        raise error

    @saga
    def paid() -> None:
        charge()

    store = open_store("memory://")
    await store.open()
    with pytest.raises(RolledBack) as live:
        await SagaExecutor(paid, saga_id="s", store=store).execute()
    with pytest.raises(RolledBack) as later:
        await (await SagaExecutor.from_stored(store, "s", [charge])).execute()
    await store.close()
    return live.value, later.value


async def test_a_failure_converts_to_the_users_own_error_live_and_from_the_record() -> None:
    live, later = await _failing(NoMoney("41 cents short"))
    for kind in (NoMoney, Declined, Exception):
        for failure in (live, later):
            error = failure.convert(kind)
            assert type(error) is NoMoney
            assert str(error) == "41 cents short"
    for failure in (live, later):
        assert failure.convert(OSError) is None
    assert live.convert(Declined) is live.__cause__
    made = later.convert(Declined)
    assert made is not None
    assert made.__cause__ is later.__cause__  # the chain is kept
    assert str(made.__cause__) == "charge: NoMoney: 41 cents short"


async def test_an_error_that_takes_more_than_a_message_is_converted_as_its_user_says() -> None:
    live, later = await _failing(Odd(7, "seven"))
    assert live.convert(Odd) is live.__cause__
    with pytest.raises(
        DeserializeFailed, match=r"Odd cannot be made of its message alone .*; say how with make="
    ):
        later.convert(Odd)
    made = later.convert(Odd, lambda text: Odd(int(text.split()[0]), text.split()[1]))
    assert made is not None
    assert (made.code, str(made)) == (7, "7 seven")


async def test_a_permanent_undo_failure_is_stuck_at_once_with_the_kind_in_the_log() -> None:
    @action
    async def launch() -> str:
        return "gone"

    @launch.undo(retry=Retry(5, first=0.0))
    async def recall(_what: str) -> None:
        DONE.append("recall")
        raise Permanent("rockets do not come back")

    @saga
    def mission() -> str:
        return check.after(launch())("bad")

    executor = SagaExecutor(mission, saga_id="m")
    with pytest.raises(Stuck) as caught:
        await executor.execute()
    assert DONE == ["recall"]
    assert caught.value.nodes == ("launch",)
    assert str(caught.value) == (
        "saga m is stuck and needs an operator: launch: Permanent: rockets do not come back "
        "(choose: retry, skip, resolve); it was being rolled back after node 'check' failed: "
        "ValueError: it does not answer"
    )
    assert executor.failed_nodes() == ["launch", "check"]
    error = executor.error("launch")
    assert error is not None
    assert error.type == qualified(Permanent)


async def test_an_output_that_cannot_be_stored_or_read_is_an_error_of_its_own_kind() -> None:
    @action
    async def count() -> int:
        return "many"  # type: ignore[return-value]

    @saga
    def counted() -> int:
        return count()

    with pytest.raises(RolledBack, match="'count' failed: SerializeFailed: ") as caught:
        await SagaExecutor(counted).execute()
    assert isinstance(caught.value.__cause__, SerializeFailed)


async def test_what_was_not_registered_is_not_found_by_name() -> None:
    with pytest.raises(ActionNotFound) as caught:
        REGISTRY.get("databse")
    assert isinstance(caught.value, NotFound)
    assert "did you mean 'database'?" in str(caught.value)


# -- injection -------------------------------------------------------------


@saga
def block(name: str) -> str:
    return server(database(name), cache(name))


@saga
def town(name: str) -> str:
    return check(block.options(name="west")(block(name)))


async def test_an_error_is_injected_by_the_path_of_a_node_inside_a_subsaga() -> None:
    executor = SagaExecutor(town, inject={"west/server": Inject(fail="before")})
    with pytest.raises(RolledBack) as caught:
        await executor.execute("a")
    assert caught.value.node == "west/server"
    assert isinstance(caught.value.__cause__, InjectedError)
    assert DONE.count("do server") == 1  # that of the other block
    assert executor.failed_nodes() == ["west/server"]
    assert executor.completed_nodes() == []


async def test_an_error_injected_after_the_effect_leaves_the_node_in_doubt() -> None:
    executor = SagaExecutor(town, inject={"block/server": Inject(fail="after")})
    with pytest.raises(Stuck) as caught:
        await executor.execute("a")
    assert caught.value.nodes == ("block/server",)
    # In doubt: run again under its key to learn its output, which is lost again.
    trace = [(one.direction, one.state) for one in executor.execution_trace() if one.node == "block/server"]
    assert trace == [("do", "in_doubt"), ("do", "in_doubt")]
    assert DONE.count("do server") == 2 + DONE.count("undo a-db/a-cache")


async def test_an_error_injected_into_an_undo_for_good_leaves_the_saga_stuck_there() -> None:
    inject = {"check": Inject(fail="before"), "block/cache": Inject(fail_undo=-1)}

    @saga
    def quick(name: str) -> str:
        return check(block(name))

    # The undo's own retries would wait between attempts.
    executor = SagaExecutor(_without_waiting(quick), inject=inject, registry=_registry_of(quick))
    with pytest.raises(Stuck) as caught:
        await executor.execute(name="a")
    assert caught.value.nodes == ("block/cache",)
    assert "InjectedError" in str(caught.value)
    assert executor.execution_state()["block/database"] == "undone"  # its branch does not depend on that one


async def test_an_error_injected_into_an_undo_twice_is_overcome_by_the_third_attempt() -> None:
    inject = {"check": Inject(fail="before"), "server": Inject(fail_undo=2)}
    executor = SagaExecutor(_without_waiting(site), inject=inject, registry=_registry_of(site))
    with pytest.raises(RolledBack):
        await executor.execute(name="a")
    undos = [
        one.attempt for one in executor.execution_trace() if (one.node, one.direction) == ("server", "undo")
    ]
    assert undos == [1, 2, 3]
    assert DONE.count("undo a-db/a-cache") == 1


async def test_actions_and_undos_are_repeated_as_asked() -> None:
    inject = {"database": Inject(repeat=3, repeat_undo=2), "check": Inject(fail="before")}
    with pytest.raises(RolledBack):
        await SagaExecutor(site, inject=inject).execute("a")
    assert DONE.count("do database") == 3
    assert DONE.count("undo a-db") == 2
    assert DONE.count("do cache") == DONE.count("undo a-cache") == 1


async def test_an_error_is_injected_into_one_element_of_a_fan_out() -> None:
    @saga
    def several(names: list[str]) -> list[str]:
        return fan_out(database, names)

    executor = SagaExecutor(several, inject={"database[1]": Inject(fail="before")})
    with pytest.raises(RolledBack) as caught:
        await executor.execute(["a", "b", "c"])
    assert caught.value.node == "database[1]"
    assert sorted(DONE) == ["do database", "do database", "undo a-db", "undo c-db"]


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("westt/server", "it has no node 'westt/server'"),
        ("server", "it has no node 'server'"),
        ("west", "it runs no action at 'west'"),
        ("check[0]", r"it has no node 'check\[0\]'"),
    ],
)
def test_a_fault_that_could_never_fire_is_refused(path: str, why: str) -> None:
    with pytest.raises(DefinitionError, match=f"saga town: inject: {why}; name an action's node by its path"):
        SagaExecutor(town, inject={path: Inject(fail="before")})


def _registry_of(one: Any) -> ActionRegistry:
    registry = ActionRegistry()
    registry.register_saga(one)
    return registry


def _without_waiting(one: Any) -> Any:
    """The saga's dag with undos that are tried three times at once."""
    import msgspec

    from compensate.core.dag import ActionNode, Dag, Node, SubsagaNode

    def quick(dag: Dag) -> Dag:
        nodes: list[Node] = []
        for node in dag.nodes:
            if isinstance(node, ActionNode):
                nodes.append(msgspec.structs.replace(node, undo_retry=Retry(3, first=0.0)))
            elif isinstance(node, SubsagaNode):
                nodes.append(msgspec.structs.replace(node, dag=quick(node.dag)))
            else:
                nodes.append(node)
        return msgspec.structs.replace(dag, nodes=tuple(nodes))

    return quick(one.dag)


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="the system does not list open files there")
@pytest.mark.parametrize("kind", ["sqlite", "file"])
async def test_an_executor_that_was_given_a_url_closes_what_it_opened(kind: str, tmp_path: Path) -> None:
    @action
    async def one() -> int:
        return 1

    @saga
    def single() -> int:
        return one()

    url = f"sqlite:///{tmp_path}/sagas.db" if kind == "sqlite" else f"file:///{tmp_path}/sagas"
    before = _open_files()
    async with SagaExecutor(single, store=url) as executor:
        assert await executor.execute() == 1
        assert _open_files() > before
    assert _open_files() == before
    assert executor.completed_nodes() == ["one"]
    await executor.rollback()  # opens it again
    assert executor.fold.status == "rolled_back"
    await executor.close()
    await executor.close()
    assert _open_files() == before
