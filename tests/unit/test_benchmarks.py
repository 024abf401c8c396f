"""The benchmarks run; no time is asserted here, only what can be counted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
GROUPS = ("memory", "sqlite", "at-once", "fan-out", "restart", "import")


def measured(*groups: str) -> dict[str, dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *groups, "--quick", "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr  # 1: a limit was missed, which a quick run may
    found = json.loads(done.stdout)
    assert found["machine"]
    return {row["name"]: row for row in found["rows"]}


@pytest.mark.slow
def test_every_group_gives_rows_with_figures_above_zero() -> None:
    rows = measured()
    assert len(rows) >= 15
    for name, row in rows.items():
        assert row["ours"] > 0, name
        assert row["floor"] is None or row["floor"] > 0, name
        assert row["limit"], name


@pytest.mark.slow
@pytest.mark.parametrize(("way", "exact"), [("forward", 11), ("rolled back", 20)])
def test_a_chain_costs_exactly_the_commits_and_fsyncs_that_it_must(way: str, exact: int) -> None:
    rows = measured("sqlite")
    counted = {name: row for name, row in rows.items() if name.endswith(way)}
    assert f"commits of a chain of 10, {way}" in counted
    for name, row in counted.items():
        assert row["ours"] == exact, name
        assert row["met"] is True, name


def test_an_unknown_group_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "nothing"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert all(group in done.stderr for group in GROUPS)
