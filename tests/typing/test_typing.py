"""The static types: both checkers accept what is right and reject each of the deliberate mistakes."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
CLEAN = HERE / "clean.py"
MISTAKES = HERE / "mistakes.py"
MARK = "# mistake: "

Lines = dict[str, dict[int, str]]
"""By file name: the rejected lines, each with what the checker says."""


def marked() -> dict[int, str]:
    lines = MISTAKES.read_text().splitlines()
    return {n: line.split(MARK)[1] for n, line in enumerate(lines, 1) if MARK in line}


@pytest.fixture(scope="module")
def mypy() -> Lines:
    files = [str(path.relative_to(ROOT)) for path in (CLEAN, MISTAKES)]
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--no-pretty", *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    found: Lines = {}
    for line in done.stdout.splitlines():
        if match := re.match(r"(.+?):(\d+)(?::\d+)?: error: (.*)", line):
            found.setdefault(Path(match[1]).name, {}).setdefault(int(match[2]), match[3])
    return found


@pytest.fixture(scope="module")
def pyright(tmp_path_factory: pytest.TempPathFactory) -> Lines:
    # A project of its own: the repository's leaves the mistakes out, and is less strict with tests.
    project = tmp_path_factory.mktemp("pyright")
    settings = {
        "include": [os.path.relpath(HERE, project)],
        "extraPaths": [str(ROOT / "src"), str(ROOT)],
        "pythonVersion": "3.11",
        "typeCheckingMode": "strict",
    }
    (project / "pyrightconfig.json").write_text(json.dumps(settings))
    script = shutil.which("pyright", path=str(Path(sys.executable).parent)) or "pyright"
    command = [script, "--project", str(project), "--pythonpath", sys.executable, "--outputjson"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    found: Lines = {}
    for one in json.loads(done.stdout)["generalDiagnostics"]:
        lines = found.setdefault(Path(one["file"]).name, {})
        lines.setdefault(one["range"]["start"]["line"] + 1, one["message"])
    return found


def test_there_are_at_least_fifteen_deliberate_mistakes() -> None:
    assert len(marked()) >= 15


@pytest.mark.slow
def test_mypy_strict_rejects_exactly_the_marked_lines(mypy: Lines) -> None:
    assert {n: mypy.get(MISTAKES.name, {}).get(n) is not None for n in marked()} == dict.fromkeys(
        marked(), True
    )
    assert {n: why for n, why in mypy[MISTAKES.name].items() if n not in marked()} == {}


@pytest.mark.slow
def test_pyright_strict_rejects_exactly_the_marked_lines(pyright: Lines) -> None:
    assert {n: pyright.get(MISTAKES.name, {}).get(n) is not None for n in marked()} == dict.fromkeys(
        marked(), True
    )
    assert {n: why for n, why in pyright[MISTAKES.name].items() if n not in marked()} == {}


@pytest.mark.slow
def test_mypy_strict_accepts_correct_sagas(mypy: Lines) -> None:
    assert mypy.get(CLEAN.name) is None


@pytest.mark.slow
def test_pyright_strict_accepts_correct_sagas(pyright: Lines) -> None:
    assert pyright.get(CLEAN.name) is None


def test_what_the_checkers_accept_is_accepted_when_it_is_traced_too() -> None:
    clean = importlib.import_module("tests.typing.clean")
    assert [node.name for node in clean.fulfil.dag.nodes][:3] == ["quote", "reserve", "authorize"]
