"""The docstring of every public name says what a stranger needs, and its example runs."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import compensate

EXAMPLE = re.compile(r"^Example:\n((?:    .*\n|\n)+)", re.MULTILINE)
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)


def documented(name: str) -> str:
    return inspect.getdoc(getattr(compensate, name)) or ""


def example(name: str) -> str:
    found = EXAMPLE.search(documented(name) + "\n")
    blocks = BLOCK.findall(textwrap.dedent(found.group(1))) if found else []
    return "\n".join(blocks)


NAMES = [
    name
    for name in compensate.__all__
    if isinstance(getattr(compensate, name), type) and issubclass(getattr(compensate, name), Exception)
]
"""The errors; the other public names follow."""


@pytest.mark.parametrize("name", NAMES)
def test_it_has_the_sections_that_a_reader_looks_for(name: str) -> None:
    text, thing = documented(name), getattr(compensate, name)
    wanted = {"Example:", "Durability:"}
    if inspect.isroutine(thing):
        parameters = inspect.signature(thing).parameters
        wanted |= {"Args:"} if parameters else set()
        wanted |= {"Returns:"}
    assert not {section for section in wanted if f"\n{section}\n" not in text}


def test_every_example_runs(tmp_path: Path) -> None:
    """All in one process, since most of the time would go into starting it; each in a namespace of its own."""
    missing = [name for name in NAMES if not example(name)]
    assert not missing
    program = tmp_path / "examples.py"
    program.write_text(
        "import sys, types\n"
        f"EXAMPLES = { ({name: example(name) for name in NAMES})!r}\n"
        "for name, source in EXAMPLES.items():\n"
        "    module = types.ModuleType(f'example_{name}')\n"
        "    sys.modules[module.__name__] = module\n"
        "    import linecache\n"
        "    linecache.cache[f'{name}.py'] = (len(source), None, source.splitlines(True), f'{name}.py')\n"
        "    try:\n"
        "        exec(compile(source, f'{name}.py', 'exec'), module.__dict__)\n"
        "    except BaseException as error:\n"
        "        sys.exit(f'the example of {name}: {error!r}')\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", str(program)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
