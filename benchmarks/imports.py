"""What importing the package costs, and what it depends on."""

from __future__ import annotations

import resource
import subprocess
from importlib.metadata import requires

from benchmarks.measure import Row, Sample, clean_python, in_turn

BARE = "import asyncio, sqlite3, json"
LIMIT = 25.0
"""Milliseconds."""


def _cpu() -> float:
    """Seconds of CPU that ended child processes have used."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


async def rows(quick: bool) -> list[Row]:
    """The rows of this group."""
    with clean_python() as (python, env):

        def start(code: str) -> Sample:
            async def once() -> float:
                before = _cpu()
                subprocess.run([*python, "-c", code], env=env, check=True)  # noqa: ASYNC221
                return (_cpu() - before) * 1e3

            return once

        pair = await in_turn(start(f"{BARE}, compensate"), start(BARE), 2 if quick else 41)
    row = pair.row("`import compensate`, over bare Python with asyncio, sqlite3, json", "ms", 0)
    more = min(pair.ours) - min(pair.floor)
    row.ratio, row.limit, row.met = None, f"≤ +{LIMIT:g} ms", more <= LIMIT
    row.note = (
        f"+{more:.1f} ms, the difference of the bests; in CPU time, since other processes only add waiting."
    )
    needed = [name for name in requires("compensate") or [] if "extra ==" not in name]
    found = Row(
        "dependencies of the core",
        "",
        len(needed),
        None,
        None,
        "exactly 1",
        len(needed) == 1,
        note=", ".join(needed),
    )
    return [row, found]
