"""docs/parity.md: a row for every item of the Go library's page, and every name and test in it is there."""

from __future__ import annotations

import ast
import importlib
import re
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "parity.md"
ITEMS = Path(__file__).with_name("go_items.txt")
FOLDED = {"The page's README": "readme", "Steno's additions": "steno"}
NOT_APPLICABLE = "not applicable"


class Row(NamedTuple):
    """One line of a table of the page."""

    part: str
    items: tuple[str, ...]
    here: str
    how: str
    tests: tuple[str, ...]


def ticked(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def rows(text: str) -> list[Row]:
    found: list[Row] = []
    part = ""
    for line in text.splitlines():
        if line.startswith("## "):
            part = FOLDED.get(line[3:], "go")
        elif (
            line.startswith("| ")
            and part
            and not line.startswith(("| ---", "| Go |", "| promised |", "| steno |"))
        ):
            cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")]
            assert len(cells) == 4, line
            items = tuple(ticked(cells[0])) if part == "go" else (cells[0],)
            found.append(Row(part, items, cells[1], cells[2], tuple(ticked(cells[3]))))
    return found


def items() -> set[tuple[str, str]]:
    """Part and name of everything that needs a row."""
    found: set[tuple[str, str]] = set()
    part = ""
    for line in ITEMS.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            part = line.strip("[]")
        elif line and not line.startswith("#"):
            found.add((part, line))
    return found


def there(name: str) -> bool:
    """Whether a dotted name leads to something: a module, and what it and its classes hold."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:length]))
        except ImportError:
            continue
        for part in parts[length:]:
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


@lru_cache
def names_of_tests(path: str) -> frozenset[str]:
    """Names of the tests that a file holds."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return frozenset(
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    )


def collected(test: str) -> bool:
    path, _, name = test.partition("::")
    return path.startswith("tests/") and (ROOT / path).is_file() and name in names_of_tests(path)


ROWS = rows(PAGE.read_text(encoding="utf-8"))


def test_no_item_of_the_page_lacks_a_row_and_none_has_two() -> None:
    listed = [(row.part, item) for row in ROWS for item in row.items]
    assert items() - set(listed) == set()
    assert set(listed) - items() == set()
    assert sorted(listed) == sorted(set(listed))
    assert len({item for part, item in listed if part == "go"}) > 150  # the page was read


def test_every_name_here_is_there() -> None:
    named = {name for row in ROWS for name in ticked(row.here)}
    assert len(named) > 80
    assert [name for name in sorted(named) if not name.startswith("compensate.") or not there(name)] == []


def test_every_test_that_is_named_is_collected() -> None:
    named = {test for row in ROWS for test in row.tests}
    assert len(named) > 80
    assert [test for test in sorted(named) if not collected(test)] == []


def test_every_row_says_what_and_is_shown_by_a_test() -> None:
    for row in ROWS:
        assert row.tests, row
        assert row.how, row
        assert ticked(row.here) or row.here == NOT_APPLICABLE, row


def test_hardly_anything_is_not_applicable() -> None:
    assert [row.items for row in ROWS if row.here == NOT_APPLICABLE] == [("NodeIndexSliceToInt64Slice",)]


@pytest.mark.parametrize(
    "name",
    [
        "compensate.Coordinatr",
        "compensate.SagaExecutor.execut",
        "compensate.runtime.nobody.Nothing",
        "nowhere.at_all",
    ],
)
def test_a_name_that_is_not_there_is_noticed(name: str) -> None:
    assert not there(name)


@pytest.mark.parametrize(
    "test",
    [
        "tests/unit/test_parity.py::test_that_nobody_wrote",
        "tests/unit/test_nothing.py::test_x",
        "tests/unit/test_parity.py::rows",
    ],
)
def test_a_test_that_is_not_there_is_noticed(test: str) -> None:
    assert not collected(test)


def test_a_row_that_is_taken_out_is_noticed() -> None:
    text = PAGE.read_text(encoding="utf-8")
    without = "\n".join(line for line in text.splitlines() if "`SagaExecutor.Rollback`" not in line)
    assert without != text.strip("\n")
    left = {(row.part, item) for row in rows(without) for item in row.items}
    assert items() - left == {("go", "SagaExecutor.Rollback")}
