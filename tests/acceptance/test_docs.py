"""The programs in README and guide run as printed, and print what stands below them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PROGRAM = re.compile(r"```python\n(.*?)```\n\n```text\n(.*?)```", re.DOTALL)


def programs() -> list[tuple[str, str, str]]:
    found: list[tuple[str, str, str]] = []
    for page in (ROOT / "README.md", ROOT / "docs" / "guide.md"):
        text = page.read_text()
        pairs = PROGRAM.findall(text)
        assert len(pairs) == text.count("```python"), f"{page.name}: a program without its output"
        found += [
            (f"{page.name}-{number}", program, output) for number, (program, output) in enumerate(pairs)
        ]
    return found


@pytest.mark.parametrize(("name", "program", "output"), programs(), ids=[name for name, _, _ in programs()])
def test_a_program_prints_what_stands_below_it(name: str, program: str, output: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert done.stdout == output


def test_the_example_in_the_readme_is_short() -> None:
    program = PROGRAM.findall((ROOT / "README.md").read_text())[0][0]
    assert len([line for line in program.splitlines() if line.strip()]) <= 30


def test_links_lead_somewhere() -> None:
    for page in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")):
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_picture_in_the_readme_is_drawn_from_a_real_saga() -> None:
    subprocess.run([sys.executable, str(ROOT / "scripts" / "picture"), "--check"], check=True, timeout=60)
