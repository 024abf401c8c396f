"""Measure: `python -m benchmarks [group ...] [--quick] [--json]`; see docs/benchmarks.md."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable

from benchmarks import fanning, imports, memory, restart, sqlite
from benchmarks.measure import Row, as_json, machine, table

GROUPS: dict[str, Callable[[bool], Awaitable[list[Row]]]] = {
    "memory": memory.rows,
    "sqlite": sqlite.rows,
    "at-once": sqlite.at_once,
    "fan-out": fanning.rows,
    "restart": restart.rows,
    "import": imports.rows,
}


def main() -> int:
    """Measure what was asked for; 1 if a limit was missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure against bare floors.")
    parser.add_argument(
        "group", nargs="*", choices=[*GROUPS, []], help=f"which rows; all by default: {', '.join(GROUPS)}"
    )
    parser.add_argument(
        "--quick", action="store_true", help="only see that everything runs; the figures say nothing"
    )
    parser.add_argument("--json", action="store_true", help="for machines")
    asked = parser.parse_args()
    found: list[Row] = []
    for group in asked.group or GROUPS:
        print(f"{group} ...", file=sys.stderr, flush=True)
        found += asyncio.run(GROUPS[group](asked.quick))
    print(as_json(found) if asked.json else f"{machine()}\n\n{table(found)}")
    missed = [row.name for row in found if row.met is False]
    if missed and not asked.json:
        print(f"\nmissed: {'; '.join(missed)}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
