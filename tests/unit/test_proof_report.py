"""What a failed proof shows: its findings, folded by their cause, and neither its own source nor its own frames."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from compensate.testing.report import Finding, SagaNotProven

PROGRAM = """
import asyncio
from compensate import Ctx, action, fan_out, saga
from compensate.testing import FakeWorld, prove_saga


class Till:
    def __init__(self):
        self.cents = 0

    def snapshot(self):
        return self.cents


@action
async def put(ctx: Ctx[Till], cents: int) -> int:
    ctx.deps.cents += cents
    return cents


@put.undo
async def take_out(ctx: Ctx[Till], cents: int) -> None:
    ctx.deps.cents -= cents


@saga
def fill(coins: list[int]) -> list[int]:
    return fan_out(put, coins)


def prove(**how):
    prove_saga(fill, {"coins": [1, 2, 5]}, **{"setup": Till, "world": Till.snapshot} | how)
"""

WAYS = {
    "sync": "def test_it():\n    prove()\n",
    "async": "def test_it():\n    async def main():\n        prove()\n    asyncio.run(main())\n",
    "fixture": "def test_it(prove_saga):\n    prove_saga(fill, {'coins': [1, 2]}, setup=Till, world=Till.snapshot)\n",
    "too many": "def test_it():\n    prove(limit=1)\n",
    "wrong params": "def test_it():\n    prove_saga(fill, {'coin': 1}, world=FakeWorld())\n",
    "no world": "def test_it():\n    prove_saga(fill, {'coins': [1]})\n",
}

FIRST = {
    "too many": "TooManyScenarios: saga fill with these params takes",
    "wrong params": "ParamsInvalid: saga fill: missing a required argument",
    "no world": "DefinitionError: prove_saga: give world=",
}


def run_pytest(folder: Path, test: str) -> str:
    file = folder / "test_till.py"
    file.write_text(PROGRAM + "\n\n" + test)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--color=no", str(file)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_pytest_shows_what_was_found_and_nothing_of_the_library(tmp_path: Path, way: str) -> None:
    shown = run_pytest(tmp_path, WAYS[way])
    first = next(line for line in shown.splitlines() if line.startswith("E "))
    assert FIRST.get(way, "SagaNotProven: saga fill is not proven: 2 problems in ") in first
    for noise in ("During handling", "direct cause", "no running event loop", "compensate/testing", "self ="):
        assert noise not in shown
    assert len(shown.splitlines()) < 60


@pytest.mark.slow
def test_what_user_code_raises_is_shown_where_it_was_raised(tmp_path: Path) -> None:
    test = "def broken():\n    return 1 / 0\n\n\ndef test_it():\n    prove(setup=broken)\n"
    shown = run_pytest(tmp_path, test)
    assert ">   " in shown
    assert "return 1 / 0" in shown
    assert "E   " in shown
    assert "ZeroDivisionError" in shown
    assert "compensate/testing" not in shown


@pytest.mark.slow
def test_without_pytest_the_traceback_is_short_too(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM + "\nprove()\n"],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert "SagaNotProven" in done.stderr
    assert "During handling" not in done.stderr
    assert done.stderr.count('  File "') == 3  # the program, its function, prove_saga


def finding(node: str, point: str, details: str = "", problem: str = "it is wrong") -> Finding:
    return Finding(node, point, problem, (details,) if details else ())


def test_one_cause_at_many_elements_and_points_is_one_problem() -> None:
    findings = [
        finding(f"load[{k}]", point.format(f"load[{k}]"), f"{k}: 1 -> 2")
        for k in range(40)
        for point in ("the action of {} runs twice", "the undo of {} runs twice")
    ]
    error = SagaNotProven("etl", findings, 90)
    text = str(error)
    assert "1 problem in 90 scenarios" in text
    assert (
        "at 79 more: the undo of load[…] runs twice (40 times); the action of load[…] runs twice (39 times)"
        in text
    )
    assert len(text.splitlines()) == 6
    assert error.findings == tuple(findings)


def test_the_same_difference_is_called_the_same_and_another_one_is_not() -> None:
    assert "and the same at 1 more: q" in str(
        SagaNotProven("s", [finding("a", "p", "x"), finding("a", "q", "x")], 2)
    )
    other = str(SagaNotProven("s", [finding("a", "p", "x"), finding("a", "q", "y")], 2))
    assert "and the like, with other details, at 1 more: q" in other


def test_different_nodes_and_different_problems_stay_apart() -> None:
    findings = [
        finding("a", "p"),
        finding("b", "p"),
        finding("a", "p", problem="it is late"),
        finding("c/a", "p"),
    ]
    text = str(SagaNotProven("s", findings, 4))
    assert "4 problems" in text
    for number in range(1, 5):
        assert f"\n{number}. node " in text


def test_problems_that_name_an_element_are_folded_too() -> None:
    findings = [
        finding(f"load[{k}]", f"load[{k}] is slow", problem=f"the saga is stuck at load[{k}]")
        for k in range(3)
    ]
    assert "1 problem in 3 scenarios" in str(SagaNotProven("s", findings, 3))


def test_many_kinds_of_points_are_cut_short() -> None:
    text = str(SagaNotProven("s", [finding("a", f"point {k}") for k in range(30)], 30))
    assert "and the same at 29 more: point 1; point 2; point 3; point 4; point 5; point 6; …" in text
