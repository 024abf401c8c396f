"""The tests in docs/testing.md pass as printed, and print what stands below them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "testing.md"
MODULE = re.compile(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", re.DOTALL)
MODULES = [(match[1], match[2] or "") for match in MODULE.finditer(PAGE.read_text())]


def test_all_of_the_page_is_tested() -> None:
    assert len(MODULES) == PAGE.read_text().count("```python") == 5
    assert [bool(output) for _, output in MODULES] == [True, True, False, False, False]


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(MODULES)))
def test_the_tests_on_the_page_pass_and_print_what_stands_below_them(number: int, tmp_path: Path) -> None:
    module, output = MODULES[number]
    (tmp_path / "test_page.py").write_text(module)
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-m", "pytest", "-q", "-s", "-W", "error", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert " passed" in ran.stdout
    assert output in ran.stdout
