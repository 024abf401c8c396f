"""An action that forks: the saga goes on in the parent alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")

PROGRAM = """
import asyncio, os, sys, time
from compensate import Coordinator, IllegalRequest, SagaExecutor, action, saga
from compensate.stores import open_store

parent = os.getpid()

def note(text):
    with open(sys.argv[1], "a") as file:
        file.write(("parent " if os.getpid() == parent else "child ") + text + "\\n")

@action
async def forks(x: int) -> int:
    child = os.fork()
    if child:
        os.waitpid(child, 0)
    return x

@action
async def after(x: int) -> int:
    note("after")
    return x

@saga
def both(x: int) -> int:
    return after(forks(x))

async def main():
    try:
        if sys.argv[3] == "coordinator":
            async with Coordinator(sys.argv[2], sagas=[both], drain=0.1) as c:
                run = await c.start(both.with_id("a"), 1)
                await asked(run.result())
        else:
            store = open_store(sys.argv[2])
            await store.open()
            await asked(SagaExecutor(both, saga_id="a", store=store).execute(1))
    finally:
        if os.getpid() != parent:
            os._exit(0)

async def asked(result):
    try:
        note(str(await asyncio.wait_for(result, 5)))
    except IllegalRequest as error:
        note("refused" if "from which this one was forked" in str(error) else repr(error))
    except BaseException as error:
        note(repr(error))

asyncio.run(main())
"""


@pytest.mark.parametrize("kind", ["coordinator", "executor"])
@pytest.mark.parametrize("store", ["memory://", "sqlite", "file"])
def test_the_child_of_an_action_that_forks_goes_on_with_nothing(
    tmp_path: Path, kind: str, store: str
) -> None:
    notes = tmp_path / "notes"
    url = {"sqlite": f"sqlite:///{tmp_path / 'db'}", "file": f"file:///{tmp_path / 'dir'}"}.get(store, store)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(notes), url, kind],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert notes.read_text().splitlines() == ["child refused", "parent after", "parent 1"], done.stderr
