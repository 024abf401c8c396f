"""The programs of README and guide pass mypy strict and pyright strict, as a reader would check them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PAGES = (ROOT / "README.md", ROOT / "docs" / "guide.md")


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("programs")
    count = 0
    for page in PAGES:
        for program in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
            count += 1
            (folder / f"{page.stem.lower()}_{count}.py").write_text(program)
    assert count >= len(PAGES)
    return folder


@pytest.mark.slow
def test_mypy_strict_accepts_them(programs: Path) -> None:
    for program in sorted(programs.glob("*.py")):  # one by one: each defines `main` and its own actions
        command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", str(program)]
        env = {**os.environ, "MYPYPATH": str(ROOT / "src")}
        done = subprocess.run(command, cwd=programs, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{program.name}: {done.stdout}{done.stderr}"


@pytest.mark.slow
def test_pyright_strict_accepts_them(programs: Path) -> None:
    settings = {"include": ["."], "extraPaths": [str(ROOT / "src")], "typeCheckingMode": "strict"}
    (programs / "pyrightconfig.json").write_text(json.dumps(settings))
    script = shutil.which("pyright", path=str(Path(sys.executable).parent)) or "pyright"
    command = [script, "--project", str(programs), "--pythonpath", sys.executable]
    done = subprocess.run(command, cwd=programs, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
