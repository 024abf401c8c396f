"""Every mutant still fits the code, and `--deep` sees each one killed."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.mutants import MUTANTS, Mutant

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.parametrize("mutant", MUTANTS, ids=[mutant.name for mutant in MUTANTS])
def test_a_mutant_changes_one_place_and_still_parses(mutant: Mutant) -> None:
    text = (ROOT / mutant.file).read_text()
    assert text.count(mutant.old) == 1
    ast.parse(text.replace(mutant.old, mutant.new))


def test_there_are_at_least_fifteen_of_them_with_names_of_their_own() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 15


@pytest.mark.deep
@pytest.mark.time_limit(5400)
def test_every_mutant_is_killed() -> None:
    done = subprocess.run([sys.executable, str(ROOT / "scripts" / "mutants")], check=False)
    assert done.returncode == 0
