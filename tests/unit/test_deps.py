"""Actions and undos that take deps are refused where there are none, before anything is stored or run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, TypeVar, Union

import pytest

from compensate import (
    ActionRegistry,
    Coordinator,
    Ctx,
    DagBuilder,
    DefinitionError,
    Saga,
    SagaExecutor,
    action,
    action_node,
    connect,
    saga,
)
from compensate.stores import open_store

D = TypeVar("D")


@dataclass
class Deps:
    url: str


ran: list[str] = []


@action
async def wants(ctx: Ctx[Deps], x: int) -> str:
    ran.append(ctx.deps.url)
    return ctx.deps.url


@action
async def plain(x: int) -> str:
    return str(x)


@action
async def undone(x: int) -> str:
    return str(x)


@undone.undo
async def undo_with_deps(ctx: Ctx[Deps], output: str) -> None:
    ran.append(ctx.deps.url)


@saga
def direct(x: int) -> str:
    return wants(x)


@saga
def nested(x: int) -> str:
    plain(x)
    return direct(x)


@saga
def by_undo(x: int) -> str:
    return undone(x)


@saga
def needs_none(x: int) -> str:
    return plain(x)


SAGAS: list[Saga[[int], str]] = [direct, nested, by_undo]


@pytest.fixture(autouse=True)
def _nothing_ran() -> None:
    ran.clear()


@pytest.mark.parametrize("job", SAGAS, ids=lambda job: job.name)
def test_no_coordinator_is_made_for_it(job: Saga[[int], str]) -> None:
    for make in (
        lambda: Coordinator("memory://", sagas=[needs_none, job]),
        lambda: Coordinator("memory://", actions=job.actions.values()),
        lambda: connect("memory://", sagas=[job]).__enter__(),
        lambda: SagaExecutor(job),
    ):
        with pytest.raises(DefinitionError, match=r"takes Ctx\[Deps\], but there are no deps") as caught:
            make()
        assert ("action wants" in str(caught.value)) or ("undo of action undone" in str(caught.value))
        assert f"{__file__}:" in str(caught.value)


@pytest.mark.parametrize("job", SAGAS, ids=lambda job: job.name)
async def test_a_saga_that_becomes_known_at_its_start_is_not_stored(
    job: Saga[[int], str], tmp_path: Path
) -> None:
    async with Coordinator(f"sqlite:///{tmp_path}/s.db") as c:
        with pytest.raises(DefinitionError, match="no deps"):
            await c.start(job.with_id("one"), 1)
        with pytest.raises(DefinitionError, match="no deps"):
            await c.run(job.with_id("two"), 1)
        assert (await c.list()).records == []
        assert await c.run(needs_none, 1) == "1"
    assert ran == []


async def test_a_built_dag_and_a_stored_saga_are_refused_too(tmp_path: Path) -> None:
    registry = ActionRegistry()
    registry.register(wants)
    registry.register(plain)
    dag = DagBuilder("d", registry).append(action_node("w", wants, inputs={"x": 1})).build()
    with pytest.raises(DefinitionError, match="no deps"):
        SagaExecutor(dag, registry)
    free = DagBuilder("f", registry).append(action_node("p", plain, inputs={"x": 1})).build()
    assert await SagaExecutor(free, registry).execute() == "1"  # what the dag does not use needs nothing
    store = open_store(f"sqlite:///{tmp_path}/s.db")
    await store.open()
    await SagaExecutor(dag, registry, saga_id="a", store=store, deps=Deps("u")).execute()
    with pytest.raises(DefinitionError, match="no deps"):
        await SagaExecutor.from_stored(store, "a", registry)
    again = await SagaExecutor.from_stored(store, "a", registry, deps=Deps("u"))
    assert await again.execute() == "u"
    await store.close()


def _maker(annotation: Any) -> Callable[[], Any]:
    def make() -> Any:
        async def job(ctx: Any, x: int) -> int:
            return x

        job.__annotations__["ctx"] = annotation
        return action(job)

    return make


@pytest.mark.parametrize(
    ("annotation", "needs"),
    [
        (Ctx, ""),
        (Ctx[None], ""),
        (Ctx[object], ""),
        (Ctx[Any], ""),
        (Ctx[Deps | None], ""),
        (Ctx[Optional[Deps]], ""),  # noqa: UP045
        (Ctx[Union[Deps, Any]], ""),  # noqa: UP007
        (Ctx[D], ""),  # type: ignore[valid-type]
        (Ctx[Deps], "Ctx[Deps]"),
        (Ctx[dict[str, int]], "Ctx[dict[str, int]]"),
        (Ctx[Deps | int], "Deps | int]"),
        (Ctx["Deps"], "Deps"),
    ],
    ids=str,
)
def test_which_annotations_need_deps(annotation: Any, needs: str) -> None:
    made = _maker(annotation)()
    assert bool(made.needs_deps) == bool(needs)
    assert needs in made.needs_deps
    if needs:
        with pytest.raises(DefinitionError, match="no deps"):
            Coordinator("memory://", actions=[made])
    else:
        Coordinator("memory://", actions=[made])
    Coordinator("memory://", actions=[made], deps={})


APP = """
from dataclasses import dataclass

from compensate import Ctx, action, saga


@dataclass
class Deps:
    url: str


@action
async def call(ctx: Ctx[Deps], x: int) -> str:
    return ctx.deps.url


@saga
def job(x: int) -> str:
    return call(x)


def deps() -> Deps:
    return Deps("u")


def nothing() -> None:
    return None
"""


@pytest.mark.slow
def test_the_command_line_says_to_give_deps(tmp_path: Path) -> None:
    (tmp_path / "jobs.py").write_text(APP)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "COMPENSATE_STORE": "sqlite:///s.db"}

    def typed(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "compensate", *words]
        return subprocess.run(
            command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False
        )

    run = ("run", "jobs:job", "--id", "a", "--params", '{"x": 1}')
    refused = typed(*run)
    assert (refused.returncode, "--deps" in refused.stderr) == (2, True), refused.stderr
    assert typed("show", "a").returncode in (5, 6)  # nothing was stored
    assert typed(*run, "--deps", "jobs:deps").returncode == 0
    given = typed(*run, "--deps", "jobs:nothing")
    assert (given.returncode, "jobs:nothing gave None" in given.stderr) == (2, True), given.stderr
    for words in (("rollback", "a"), ("retry", "a", "call"), ("pause", "a"), ("resume", "a")):
        refused = typed(*words, "--app", "jobs")
        assert (refused.returncode, "--deps" in refused.stderr) == (2, True), (words, refused.stderr)
    for looking in (("show", "a"), ("ls",), ("check", "jobs"), ("graph", "jobs:job")):
        assert typed(*looking).returncode == 0, looking
