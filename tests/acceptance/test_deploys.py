"""Deploys between real processes: how classes are named, what `check` says, and what becomes of what was killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SHOP = """
import asyncio, logging, os, sys
from compensate import CompensateError, Coordinator, Retry, action, saga
from compensate.errors import qualified
logging.disable(logging.CRITICAL)

class Base(Exception): ...
class Declined(Base): ...
class Outer:
    class Flaky(Exception): ...

@action
async def first(x: int) -> int:
    if os.environ.get("DIE"):
        os._exit(9)
    return x

@action(retry=Retry(3, first=0.01, never=Base))
async def pay(x: int) -> int:
    print("pay", flush=True)
    raise Declined("card declined")

@action(retry=Retry(3, first=0.01, on=Outer.Flaky))
async def call(x: int) -> int:
    print("call", flush=True)
    raise Outer.Flaky("again")

@saga
def paying(x: int) -> int:
    return pay(first(x))

@saga
def calling(x: int) -> int:
    return call(first(x))

async def main(url, which):
    which = globals()[which]
    async with Coordinator(url, sagas=[paying, calling]) as c:
        if os.environ.get("DIE"):
            await c.run(which.with_id(which.name), 1)
        try:
            await c.attach(which.name).result()
        except CompensateError:
            pass
        error = (await c.get(which.name)).error()
        print(error.type, error.convert(Base) is not None, error.convert(Outer.Flaky) is not None)

def name():
    print(qualified(Declined), qualified(Outer.Flaky))

if __name__ == "__main__":
    if sys.argv[1:] == ["child"]:
        import multiprocessing
        child = multiprocessing.get_context("spawn").Process(target=name)
        child.start()
        child.join()
    elif sys.argv[1:]:
        asyncio.run(main(*sys.argv[1:]))
    else:
        name()
"""

WAYS = {
    "script": (["shop.py"], "shop"),
    "module": (["-m", "shop"], "shop"),
    "module of a package": (["-m", "pkg.sub.shop"], "pkg.sub.shop"),
    "file of a package": (["pkg/sub/shop.py"], "pkg.sub.shop"),
    "package": (["-m", "pkg"], "pkg.__main__"),
    "folder of a package": (["pkg"], "pkg.__main__"),
    "main file of a package": (["pkg/__main__.py"], "pkg.__main__"),
}
"""How a program is started, and how others import its module."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pkg" / "sub").mkdir(parents=True)
    for name in ("pkg/__init__.py", "pkg/sub/__init__.py"):
        (tmp_path / name).write_text("")
    for name in ("shop.py", "pkg/__main__.py", "pkg/sub/shop.py"):
        (tmp_path / name).write_text(SHOP)
    return tmp_path


def python(folder: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("how", WAYS)
def test_a_class_of_the_started_file_is_named_as_others_import_it(how: str, folder: Path) -> None:
    words, module = WAYS[how]
    expected = f"{module}.Declined {module}.Outer.Flaky\n"
    done = python(folder, *words)
    assert done.stdout == expected, done.stderr
    done = python(folder, "-c", f"import importlib; importlib.import_module({module!r}).name()")
    assert done.stdout == expected, done.stderr
    if how in ("script", "module of a package"):
        assert python(folder, *words, "child").stdout == expected


def test_a_class_of_a_session_without_a_file_keeps_its_name(folder: Path) -> None:
    done = python(folder, "-c", "from compensate.errors import qualified\nclass A: ...\nprint(qualified(A))")
    assert done.stdout == "__main__.A\n", done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("how", ["script", "module of a package", "package"])
@pytest.mark.parametrize("begins", ["started", "imported"])
def test_a_policy_means_the_same_class_in_every_program(how: str, begins: str, folder: Path) -> None:
    """One program is killed before the action, the other runs it: the file itself, and a worker that imports it."""
    words, module = WAYS[how]
    worker = f"import asyncio, importlib, sys\nasyncio.run(importlib.import_module({module!r}).main(*sys.argv[1:]))\n"
    (folder / "worker.py").write_text(worker)
    one, other = (words, ["worker.py"]) if begins == "started" else (["worker.py"], words)
    for which, said in (
        ("paying", ["pay", f"{module}.Declined", "True", "False"]),
        ("calling", ["call", "call", "call", f"{module}.Outer.Flaky", "False", "True"]),
    ):
        url = f"sqlite:///{folder}/{which}.db"
        assert python(folder, *one, url, which, DIE="1").returncode == 9
        done = python(folder, *other, url, which)
        assert done.stdout.split() == said, done.stderr


TWICE = """
import asyncio
from compensate import Coordinator, DefinitionError, action, saga

@action
async def one(x: int) -> int:
    return x

@saga
def order(x: int) -> int:
    return one(x)

if __name__ == "__main__":
    import twice
    try:
        Coordinator("memory://", sagas=[order, twice.order])
    except DefinitionError as error:
        print(error)
"""


def test_a_file_that_was_loaded_twice_is_refused_with_both_modules_named(tmp_path: Path) -> None:
    (tmp_path / "twice.py").write_text(TWICE)
    said = python(tmp_path, "twice.py").stdout
    for word in ("'order'", "'__main__'", "'twice'", "twice.py:", "load the file once"):
        assert word in said


CODE = """
import asyncio, os, sys
from compensate import CompensateError, Coordinator, action, saga

@action
async def first(x: int) -> int:
    return x

{undo}
@action
async def second(x: int{more}) -> int:
    if os.environ.get("DIE"):
        os._exit(9)
    print("second", flush=True)
    return x

@saga
def order(x: int) -> int:
    return second({call})

async def main(url):
    async with Coordinator(url, sagas=[order]) as c:
        if os.environ.get("DIE"):
            await c.run(order.with_id("o"), 1)
        try:
            await asyncio.wait_for(c.attach("o").result(), 10)
        except CompensateError as error:
            print(error)
        print((await c.record("o")).status)

if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
"""
UNDO = "@first.undo(unknown=True)\nasync def unfirst(x: int | None) -> None: ...\n"
V1 = {"undo": UNDO, "more": "", "call": "first(x)"}
MISFITS = {
    "a parameter more": ({**V1, "more": ", region: str", "call": "first(x), 'eu'"}, "second", "'region'"),
    "an undo less": ({**V1, "undo": ""}, "first", "has an undo"),
    "an undo that takes no None": (
        {**V1, "undo": UNDO.replace("(unknown=True)", "").replace(" | None) ->", ") ->")},
        "first",
        "can do without the output",
    ),
    "another type": ({**V1, "more": ", _: str = ''", "call": "first(x)"}, "", ""),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", MISFITS)
def test_check_and_the_coordinator_say_the_same_of_a_saga_that_was_killed(what: str, tmp_path: Path) -> None:
    changed, node, reason = MISFITS[what]
    url = f"sqlite:///{tmp_path / 's.db'}"
    (tmp_path / "shop.py").write_text(CODE.format(**V1))
    assert python(tmp_path, "shop.py", url, DIE="1").returncode == 9
    check = ["-m", "compensate", "check", "shop", "--store", url]
    assert python(tmp_path, *check).returncode == 0
    (tmp_path / "shop.py").write_text(CODE.format(**changed))
    told, data = python(tmp_path, *check), python(tmp_path, *check, "--json")
    group = json.loads(data.stdout)["stored"][0]
    ran = python(tmp_path, "shop.py", url)
    if not node:  # a default makes it fit
        assert (told.returncode, data.returncode, group["misfit"]) == (0, 0, "")
        assert ran.stdout.split() == ["second", "completed"], ran.stderr
        return
    assert (told.returncode, data.returncode) == (8, 8)
    assert (group["ids"], group["node"]) == (["o"], node)
    assert reason in group["reason"]
    assert group["advice"]
    for word in ("o", group["misfit"], "what to do: "):
        assert word in told.stdout
    assert ran.stdout.split("\n")[-2] == "stuck", ran.stderr
    assert f"saga o is parked: {group['misfit']}" in ran.stdout
    assert python(tmp_path, *check).returncode == 8  # parked, it is still found
    (tmp_path / "shop.py").write_text(CODE.format(**V1))
    back = python(tmp_path, "shop.py", url)
    assert back.stdout.split() == ["second", "completed"], back.stderr
