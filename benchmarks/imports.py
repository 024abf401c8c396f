"""What importing the package costs, and what it depends on."""

from __future__ import annotations

import resource
import subprocess
from importlib.metadata import requires

from benchmarks.measure import Row, Sample, clean_python, in_turn

BARE = "import asyncio, sqlite3, json"
DEFINING = f"{BARE}, compensate"
RUNNING = f"{DEFINING}; from compensate import Coordinator; import compensate.stores.sqlite"
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

        rounds = 2 if quick else 31
        defining = await in_turn(start(DEFINING), start(BARE), rounds)
        running = await in_turn(start(RUNNING), start(BARE), rounds)
    found: list[Row] = []
    for pair, what in (
        (defining, "`import compensate`"),
        (running, "the same and `Coordinator`, SQLite store"),
    ):
        row = pair.row(f"{what}, over bare Python with asyncio, sqlite3, json", "ms", 0)
        more = min(pair.ours) - min(pair.floor)
        row.note = f"+{more:.1f} ms of CPU time, the difference of the bests."
        row.ratio, row.limit, row.met = None, "–", None
        if pair is defining:
            row.limit, row.met = f"≤ +{LIMIT:g} ms", more <= LIMIT
        found.append(row)
    needed = [name for name in requires("compensate") or [] if "extra ==" not in name]
    found.append(
        Row(
            "dependencies of the core",
            "",
            len(needed),
            None,
            None,
            "exactly 1",
            len(needed) == 1,
            note=", ".join(needed),
        )
    )
    return found
