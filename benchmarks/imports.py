"""What importing the package costs, and what it depends on."""

from __future__ import annotations

import subprocess
from importlib.metadata import requires
from time import perf_counter

from benchmarks.measure import Row, Sample, clean_python, in_turn

BARE = "import asyncio, sqlite3, json"
LIMIT = 25.0
"""Milliseconds."""


async def rows(quick: bool) -> list[Row]:
    """The rows of this group."""
    with clean_python() as (python, env):

        def start(code: str) -> Sample:
            async def once() -> float:
                began = perf_counter()
                subprocess.run([*python, "-c", code], env=env, check=True)  # noqa: ASYNC221
                return (perf_counter() - began) * 1e3

            return once

        pair = await in_turn(start(f"{BARE}, compensate"), start(BARE), 2 if quick else 31)
    row = pair.row("`import compensate`, over bare Python with asyncio, sqlite3, json", "ms", 0)
    more = sorted(a - b for a, b in zip(pair.ours, pair.floor, strict=True))[len(pair.ours) // 2]
    row.ratio, row.limit, row.met = None, f"≤ +{LIMIT:g} ms", more <= LIMIT
    row.note = f"+{more:.1f} ms: the median of the differences."
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
