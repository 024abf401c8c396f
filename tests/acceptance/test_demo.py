"""The demo, as scripts/demo runs it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
STEPS = sorted(
    [f"{step}[{i}]" for step in ("associate", "create_subnet") for i in range(3)]
    + ["add_default_route", "create_gateway", "create_route_table", "create_security_group", "create_vpc"]
)


def run_demo(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    entry = (ROOT / "scripts" / "demo").read_text(encoding="utf-8").splitlines()[-1]
    assert entry == 'exec "$python" -m examples.aws_infrastructure.demo "$@"'
    return subprocess.run(
        [sys.executable, "-m", "examples.aws_infrastructure.demo", *options],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


def steps(section: str, word: str) -> list[str]:
    return [line.split()[1] for line in section.splitlines() if line.startswith(f"  {word} ")]


def test_the_demo_builds_fails_undoes_kills_and_resumes_and_draws_it(tmp_path: Path) -> None:
    done = run_demo(tmp_path, "--keep")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    sections = re.split(r"\n(?=\d\. )", done.stdout)[1:]
    assert [section.splitlines()[0] for section in sections] == [
        "1. The AWS API, on this machine",
        "2. A saga builds a network",
        "3. Another one fails at its last step, and is undone",
        "4. A process is killed half way, and a new one goes on",
        "5. The picture",
        "6. What to try next",
    ]
    assert "\033" not in done.stdout  # colours are for terminals

    built, failed, killed = sections[1:4]
    assert sorted(steps(built, "do")) == sorted([*STEPS, "verify"])
    assert "  ok  every part is there, once\n" in built

    assert failed.count(": DependencyViolation\n") == 3
    assert sorted(steps(failed, "do")) == sorted(steps(failed, "undo")) == STEPS
    assert steps(failed, "do")[0] == steps(failed, "undo")[-1] == "create_vpc"
    assert steps(failed, "failed") == ["verify"]
    assert "  ok  the API lists nothing of it any more\n" in failed

    assert "  ok  it was ended by SIGKILL\n" in killed
    assert "  in doubt  create_subnet[0]" in killed
    before, after = killed.split("A new process is told the same command")
    assert sorted(steps(before, "do") + steps(after, "do")) == sorted([*STEPS, "verify"])
    assert "  ok  nothing was made twice\n" in after

    folder = Path(re.search(r"go to (.+), which stays$", sections[0], re.MULTILINE).group(1))  # type: ignore[union-attr]
    assert folder.parent == tmp_path
    for saga in ("failed", "killed"):
        assert ET.parse(folder / f"{saga}.svg").getroot().tag.endswith("svg")
        assert (folder / f"{saga}.dot").read_text(encoding="utf-8").startswith("digraph")

    commands = [line.split(" # ")[0].strip() for line in sections[5].splitlines()[1:] if " # " in line]
    assert [command.split()[1] for command in commands if "/compensate " in command] == [
        "ls",
        "show",
        "events",
        "graph",
    ]
    script = "\n".join(["set -ex", *(command for command in commands if not command.startswith("$EDITOR"))])
    tried = subprocess.run(["sh", "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert tried.returncode == 0, tried.stdout + tried.stderr
    for expected in ("killed", "rolled back", "create_subnet[0]: in doubt", "digraph", "destroy"):
        assert expected in tried.stdout


def test_the_demo_leaves_nothing_behind_when_told_so(tmp_path: Path) -> None:
    done = run_demo(tmp_path, "--no-keep")
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_demo_fails_when_a_claim_is_false(tmp_path: Path) -> None:
    # The same entry, with an undo that does nothing: the API then still lists what the demo says is gone.
    broken = (
        "import sys\n"
        "from examples.aws_infrastructure import demo, saga\n"
        "saga.create_vpc.undo_fn = lambda ctx, vpc: None\n"
        "sys.exit(demo.main(['--keep']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", broken],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "not true: the API lists nothing of it any more (found: {'vpc': 1})" in done.stderr
    assert "4. A process is killed" not in done.stdout
