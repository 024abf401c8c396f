"""Bad input of every kind: a typed error that says where, what, why and what to do, and nothing else is disturbed."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from pathlib import Path
from typing import Any, cast

import pytest

from compensate import (
    Action,
    ActionRegistry,
    CompensateError,
    Coordinator,
    CorruptLog,
    Ctx,
    Dag,
    DefinitionError,
    NameInvalid,
    ParamsInvalid,
    Saga,
    SagaExists,
    SagaNotFound,
    StoreUrlInvalid,
    Stuck,
    Unavailable,
    UnsupportedVersion,
    action,
    open_store,
    saga,
)
from compensate.authoring.builder import DagBuilder, action_node
from compensate.codec.records import encode_dag, fingerprint
from compensate.core import events as e
from compensate.core.dag import ActionNode, Ref
from compensate.core.events import Event
from compensate.core.standing import PLAIN
from compensate.stores.base import NewSaga
from tests.conformance.places import FilePlace, SqlitePlace
from tests.support.processes import url_of

STORES = ("sqlite", "file")


# -- the sagas -------------------------------------------------------------


class World:
    """Holds the actions of some sagas back; knows what ran."""

    def __init__(self) -> None:
        self.held = asyncio.Event()
        self.ran: list[str] = []
        self._reached: set[str] = set()
        self._more = asyncio.Condition()

    async def wait(self, saga_id: str) -> None:
        """An action of that saga is held back."""
        async with self._more:
            self._reached.add(saga_id)
            self._more.notify_all()
        await self.held.wait()

    async def until(self, *ids: str) -> None:
        """Wait until an action of each of these sagas is held back."""
        async with self._more:
            await self._more.wait_for(lambda: set(ids) <= self._reached)


@action
async def plus(ctx: Ctx[World], number: int) -> int:
    ctx.deps.ran.append(f"{ctx.saga_id}/{ctx.node}")
    return number + 1


@action
async def wait(ctx: Ctx[World], number: int) -> int:
    await ctx.deps.wait(ctx.saga_id)
    return number


@saga
def neighbour(number: int) -> int:
    return plus(plus(number))


@saga
def slow(number: int) -> int:
    return plus(wait(plus(number)))


Open = Callable[..., AbstractAsyncContextManager["Coordinator"]]


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture(params=STORES)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def url(kind: str, tmp_path: Path) -> str:
    return url_of(kind, tmp_path)


@pytest.fixture
def opened(url: str, world: World) -> Open:
    """Opens coordinators, one after the other, in which a neighbour must run whatever was done."""

    @asynccontextmanager
    async def opened(*sagas: Saga[..., Any], poll: float = 60.0) -> AsyncGenerator[Coordinator]:
        async with Coordinator(url, deps=world, sagas=[neighbour, *sagas], drain=0.0, poll=poll) as c:
            yield c
            assert await c.run(neighbour, 1) == 3, "another saga is held up"

    return opened


async def left_running(opened: Open, world: World, *ids: str) -> None:
    """Sagas that stand in the middle, and that nobody owns."""
    async with opened(slow) as c:
        for saga_id in ids:
            await c.start(slow.with_id(saga_id), 1)
        await world.until(*ids)


async def refused(kind: type[CompensateError], call: Any, *words: str) -> None:
    """`call`, awaited, raises exactly that; its message holds all the words."""
    with pytest.raises(kind) as caught:
        await call
    says(caught.value, *words)


def contents(folder: Path) -> dict[str, bytes | None]:
    """What is in a folder: files with their bytes, and folders."""
    return {path.name: path.read_bytes() if path.is_file() else None for path in folder.iterdir()}


def says(error: BaseException, *words: str) -> None:
    for word in words:
        assert word in str(error), f"{word!r} is missing in: {error}"


# -- unknown ---------------------------------------------------------------


async def test_an_unknown_saga_is_not_found_whatever_is_asked_of_it(opened: Open) -> None:
    words = ("'nobody'", "check the id and the store's url")
    async with opened() as c:
        for call in (
            c.get("nobody"),
            c.record("nobody"),
            c.adopt("nobody"),
            c.attach("nobody").result(),
            c.attach("nobody").status(),
            anext(c.attach("nobody").events()),
            c.rollback("nobody"),
            c.pause("nobody"),
            c.resume("nobody"),
            c.retry("nobody", "a"),
            c.skip("nobody", "a"),
            c.resolve("nobody", "a"),
        ):
            await refused(SagaNotFound, call, *words)
        assert (await c.list()).records == []


async def test_a_saga_whose_action_is_unknown_is_parked_and_goes_on_when_the_code_is_back(
    opened: Open, world: World
) -> None:
    await left_running(opened, world, "s")
    async with opened() as c:
        run = c.attach("s")
        await refused(
            Stuck, run.result(), "saga s is parked", "'wait'", "goes on by itself once that code is back"
        )
        record = await c.record("s")
        assert (record.status, record.parked, record.owner) == ("stuck", True, None)
    world.held.set()
    async with opened(slow) as c:
        assert await c.attach("s").result() == 3
        assert not (await c.record("s")).parked


def two_versions() -> tuple[Any, Any]:
    """A saga as it was, and as somebody has changed it: the same names, another type."""

    @action(name="measure")
    async def measure(ctx: Ctx[World], number: int) -> int:
        return number

    @action(name="measure")
    async def measure_in_words(ctx: Ctx[World], number: int) -> list[str]:
        return [str(number)]

    @action(name="use")
    async def use(ctx: Ctx[World], number: int) -> int:
        await ctx.deps.wait(ctx.saga_id)
        return number

    @action(name="use")
    async def use_words(ctx: Ctx[World], number: list[str]) -> int:
        return len(number)

    @saga(name="measured")
    def before(number: int) -> int:
        return use(measure(number))

    @saga(name="measured")
    def after(number: int) -> int:
        return use_words(measure_in_words(number))

    return before, after


async def test_a_saga_whose_stored_output_no_longer_decodes_is_parked_and_goes_on_when_the_code_is_back(
    opened: Open, world: World
) -> None:
    before, after = two_versions()
    async with opened(before) as c:
        await c.start(before.with_id("s"), 5)
        await world.until("s")
    async with opened(after) as c:
        await refused(Stuck, c.attach("s").result(), "saga s is parked", "measure", "do not decode as")
    world.held.set()
    async with opened(before) as c:
        assert await c.attach("s").result() == 5


# -- params ----------------------------------------------------------------


async def test_params_that_do_not_fit_are_refused_and_nothing_is_stored(opened: Open) -> None:
    loose = cast("Any", neighbour)
    async with opened() as c:
        await refused(ParamsInvalid, c.start(loose, "three"), "saga neighbour", "number", "`str`", "`int`")
        await refused(ParamsInvalid, c.start(loose, 3.0), "saga neighbour", "number", "`float`")
        await refused(ParamsInvalid, c.start(loose, True), "saga neighbour", "number", "`bool`")
        await refused(ParamsInvalid, c.start(loose), "saga neighbour", "number", "it takes (number: int)")
        await refused(ParamsInvalid, c.start(loose, 1, 2), "saga neighbour", "it takes (number: int)")
        await refused(
            ParamsInvalid, c.start(loose, 1, nr=1), "saga neighbour", "'nr'", "it takes (number: int)"
        )
        for data, *words in (
            (b"", "a JSON object by name"),
            (b"null", "a JSON object by name"),
            (b"[1]", "a JSON object by name"),
            (b'{"number":1', "a JSON object by name"),
            (b'{"number":\xff}', "saga neighbour"),
            (b"{}", "'number' is missing", "it takes (number: int)"),
            (b'{"number":1,"nr":2}', "no param 'nr'", "it takes (number: int)"),
            (b'{"number":"1"}', "parameter number", "Expected `int`"),
            (b'{"number":null}', "parameter number", "Expected `int`"),
        ):
            await refused(ParamsInvalid, c.start_json(neighbour, data), "saga neighbour", *words)
        assert (await c.list()).records == []


async def test_an_id_that_is_taken_by_other_params_or_another_dag_is_refused_and_the_first_goes_on(
    opened: Open, world: World
) -> None:
    async with opened(slow) as c:
        run = await c.start(slow.with_id("s"), 1)
        again = await c.start(slow.with_id("s"), 1)
        words = ("saga s", "the id is taken", "nothing was changed", "choose another id")
        await refused(SagaExists, c.start(slow.with_id("s"), 2), *words, "other params")
        await refused(SagaExists, c.start(neighbour.with_id("s"), 1), *words, "another definition")
        world.held.set()
        assert await run.result() == await again.result() == 3
        await refused(SagaExists, c.start(slow.with_id("s"), 2), *words, "completed")
        assert await c.run(slow.with_id("s"), 1) == 3
    assert world.ran.count("s/plus") == 1


# -- ids -------------------------------------------------------------------

BAD_IDS = {
    "x" * 300: "at most 200",
    "a/b": "'/'",
    "/etc/passwd": "'/'",
    "../../up": "'/'",
    "..": "means a folder",
    ".": "means a folder",
    "": "it is empty",
    "a\0b": r"'\x00'",
    "a\nb": r"'\n'",
    " a": "white space",
    "\ud800": r"'\ud800'",
}
ODD_IDS = (
    "it's",
    'a "quoted" one',
    "'; DROP TABLE sagas; --",
    "%2e%2e%2fup",
    "..\\up",
    "...",
    "con",
    "-rf *",
    "x" * 200,
    "é" * 200,
    "🧾",
    "S",
    "s",
)


@pytest.mark.parametrize("saga_id", BAD_IDS, ids=lambda saga_id: ascii(saga_id)[:20])
async def test_a_bad_id_is_refused_when_it_is_given_and_nobody_has_it(
    opened: Open, tmp_path: Path, saga_id: str
) -> None:
    with pytest.raises(NameInvalid) as caught:
        neighbour.with_id(saga_id)
    says(caught.value, "saga id", BAD_IDS[saga_id])
    async with opened() as c:
        above = contents(tmp_path.parent)
        for call in (c.get(saga_id), c.adopt(saga_id), c.rollback(saga_id), c.attach(saga_id).result()):
            await refused(SagaNotFound, call, "check the id")
        assert contents(tmp_path.parent) == above


async def test_odd_ids_are_ids_like_others(opened: Open, tmp_path: Path) -> None:
    async with opened() as c:
        for number, saga_id in enumerate(ODD_IDS):
            assert await c.run(neighbour.with_id(saga_id), number) == number + 2
        for number, saga_id in enumerate(ODD_IDS):
            snapshot = await c.get(saga_id)
            assert (snapshot.id, snapshot.params(), snapshot.output()) == (
                saga_id,
                {"number": number},
                number + 2,
            )
        assert {record.id for record in (await c.list()).records} == set(ODD_IDS)
    assert {name.partition("-")[0] for name in contents(tmp_path)} <= {"sagas", "sagas.db"}


# -- stores ----------------------------------------------------------------


@pytest.mark.parametrize("url", ["", "sagas.db", "sqlite://x.db", "mysql://host/db", "memory://x", "file://"])
def test_a_store_url_that_makes_no_sense_is_refused_before_anything_is_opened(url: str) -> None:
    with pytest.raises(StoreUrlInvalid) as caught:
        Coordinator(url)
    says(caught.value, f"store url {url!r}", "the forms are", "sqlite:///relative.db")


async def entered(url: str) -> None:
    async with Coordinator(url):
        raise AssertionError("it was opened")


async def test_a_store_that_cannot_be_opened_says_what_to_do_and_makes_nothing(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("this is no store of sagas, but a text of some length\n" * 40)
    (tmp_path / "folder").mkdir()
    before = contents(tmp_path)
    for path, kind, *words in (
        (f"sqlite:///{tmp_path}/none/sagas.db", Unavailable, "does not exist", "create it first"),
        (f"sqlite:///{tmp_path}/folder", Unavailable, "it is a folder", "name a file in it"),
        (f"sqlite:///{tmp_path}/text", CorruptLog, "no SQLite database", "restore it from a copy"),
        (f"file:///{tmp_path}/text", Unavailable, "cannot be opened", "name a folder"),
    ):
        await refused(kind, entered(path), path, *words)
    assert contents(tmp_path) == before
    assert not contents(tmp_path / "folder")


async def test_a_database_of_a_newer_schema_is_refused_and_not_changed(tmp_path: Path, world: World) -> None:
    path = tmp_path / "sagas.db"
    url = f"sqlite:///{path}"
    async with Coordinator(url, deps=world, sagas=[neighbour]) as c:
        assert await c.run(neighbour.with_id("s"), 1) == 3
    with closing(sqlite3.connect(path)) as connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        connection.execute(f"PRAGMA user_version = {version + 1}")
    before = path.read_bytes()
    words = (url, f"version {version + 1}", f"up to {version}", "nothing was changed", "upgrade compensate")
    await refused(UnsupportedVersion, entered(url), *words)
    assert path.read_bytes() == before


# -- damage ----------------------------------------------------------------


def truncated(folder: Path, kind: str, saga_id: str) -> None:
    """Take the last event away, as a copy that was cut short would."""
    if kind == "sqlite":
        with closing(sqlite3.connect(folder / "sagas.db")) as connection, connection:
            done = connection.execute(
                "DELETE FROM events WHERE saga = (SELECT number FROM sagas WHERE id = ?) AND seq = 4",
                (saga_id,),
            )
            assert done.rowcount == 1
    else:
        log = folder / "sagas" / f"{saga_id}.log"
        lines = log.read_bytes().splitlines(keepends=True)
        log.write_bytes(b"".join([*lines[:-2], lines[-1]]))


def cut_short(folder: Path, kind: str, saga_id: str) -> None:
    """Cut a stored output in half."""
    if kind == "sqlite":
        with closing(sqlite3.connect(folder / "sagas.db")) as connection, connection:
            done = connection.execute(
                "UPDATE events SET data = CAST(substr(data, 1, length(data) / 2) AS BLOB)"
                " WHERE saga = (SELECT number FROM sagas WHERE id = ?) AND seq = 3",
                (saga_id,),
            )
            assert done.rowcount == 1
    else:
        log = folder / "sagas" / f"{saga_id}.log"
        data = log.read_bytes()
        lines = data.splitlines(keepends=True)
        lines[1] = lines[1][: len(lines[1]) // 2] + b"\n"
        log.write_bytes(b"".join(lines))


def edited(folder: Path, kind: str, saga_id: str) -> None:
    """Change a name in the middle."""
    place = SqlitePlace(folder) if kind == "sqlite" else FilePlace(folder)
    assert place.damage(saga_id)


@pytest.mark.parametrize("harm", [truncated, cut_short, edited])
async def test_a_damaged_log_is_refused_by_name_reported_once_and_never_written_to(
    opened: Open,
    world: World,
    kind: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    harm: Callable[[Path, str, str], None],
) -> None:
    await left_running(opened, world, "harmed", "sound")
    harm(tmp_path, kind, "harmed")
    world.held.set()
    for _ in range(2):
        caplog.clear()
        with caplog.at_level(logging.ERROR, "compensate"):
            async with opened(slow) as c:
                assert await c.attach("sound").result() == 3
                for call in (
                    c.get("harmed"),
                    c.attach("harmed").result(),
                    c.rollback("harmed"),
                    c.retry("harmed", "plus"),
                    c.start(slow.with_id("harmed"), 1),
                ):
                    await refused(CorruptLog, call, "saga harmed", "restore it from a copy")
                assert "sound" in {record.id for record in (await c.list(name="slow")).records}
        (report,) = [line for line in caplog.messages if "saga harmed cannot be gone on with" in line]
        assert "the others are not held up" in report
    assert [ran for ran in world.ran if ran.startswith("harmed/")] == ["harmed/plus"]


@pytest.mark.parametrize("harm", [truncated, cut_short, edited])
async def test_the_damaged_log_of_a_saga_that_has_ended_is_refused_too(
    opened: Open, kind: str, tmp_path: Path, harm: Callable[[Path, str, str], None]
) -> None:
    async with opened() as c:
        assert await c.run(neighbour.with_id("harmed"), 1) == 3
    harm(tmp_path, kind, "harmed")
    async with opened() as c:
        for call in (c.get("harmed"), c.attach("harmed").result(), c.run(neighbour.with_id("harmed"), 1)):
            await refused(CorruptLog, call, "saga harmed", "restore it from a copy")


async def test_a_stored_dag_that_cannot_be_is_damage_and_holds_up_nobody(
    opened: Open, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    ring = Dag(
        "ring",
        (ActionNode("a", "plus", after=("b",)), ActionNode("b", "plus", after=("a",))),
        output=Ref("a"),
    )
    body = encode_dag(ring)
    created = Event(1, 1, 1.0, e.SAGA_CREATED, data=e.Created(b"{}"))
    store = open_store(url)
    await store.open()
    await store.join("gone", 1.0, 1.0)
    done = store.create(
        NewSaga("s", "ring", fingerprint(body), body, [created], PLAIN["running"], 1.0), "gone"
    )
    if done is not None:
        await done
    await store.leave("gone")
    await store.close()
    with caplog.at_level(logging.ERROR, "compensate"):
        async with opened(poll=0.01) as c:
            await refused(
                CorruptLog,
                c.attach("s").result(),
                "saga s",
                "its stored dag cannot be",
                "a cycle: b -> a -> b",
            )
            await asyncio.sleep(0.1)  # it is not claimed again at every look
            assert (await c.record("s")).epoch == 2
    assert len([line for line in caplog.messages if "saga s cannot be gone on with" in line]) == 1


# -- dags ------------------------------------------------------------------


def node(name: str, *after: str) -> ActionNode:
    return action_node(name, cast("Action[..., Any]", plus), inputs={"number": 1}, after=after)


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        (
            [node("a", "c"), node("b", "a"), node("c", "b")],
            ("a cycle: b -> c -> a -> b; take one of these edges out",),
        ),
        ([node("a", "a")], ("a cycle: a -> a",)),
        ([node("a"), node("a")], ("two nodes are named 'a'",)),
        ([node("a"), node("b", "zz")], ("node 'b' depends on 'zz', which is no node",)),
    ],
)
def test_a_dag_that_cannot_be_is_refused_when_it_is_built(
    nodes: Sequence[ActionNode], words: tuple[str, ...]
) -> None:
    registry = ActionRegistry()
    registry.register(plus)
    builder = DagBuilder("broken", registry)

    def build() -> Dag:
        for each in nodes:
            builder.add_node(each)
        return builder.build(output=Ref("a"))

    with pytest.raises(DefinitionError) as caught:
        build()
    says(caught.value, "dag broken", *words)


def test_a_cycle_of_many_nodes_is_named_shortly() -> None:
    registry = ActionRegistry()
    registry.register(plus)
    builder = DagBuilder("broken", registry)
    for number in range(5_000):
        builder.add_node(node(f"n{number}", f"n{(number + 1) % 5_000}"))
    with pytest.raises(DefinitionError, match="more") as caught:
        builder.build(output=Ref("n0"))
    assert len(str(caught.value)) < 200
