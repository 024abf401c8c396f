"""Rows, and how two things are timed against each other."""

from __future__ import annotations

import gc
import json
import os
import platform
import sqlite3
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec

Sample = Callable[[], Awaitable[float]]
"""Does the work once; returns how long one piece of it took, in the row's unit."""


@dataclass
class Row:
    """One line of the table.

    Attributes:
        name: What was done.
        unit: Of `ours` and `floor`.
        ours: Our figure; a median.
        floor: The figure of the bare work, measured in turn with ours; `None` if there is none.
        ratio: What is held against the limit.
        limit: The figure to reach, in words.
        met: Whether it is; `None` if the row has no limit.
        best: The best of ours, and of the floor.
        note: What else one should know.
    """

    name: str
    unit: str
    ours: float
    floor: float | None
    ratio: float | None
    limit: str
    met: bool | None
    best: tuple[float, float] | None = None
    note: str = ""


@dataclass
class Pair:
    """Samples of ours and of the floor, taken in turn."""

    ours: list[float]
    floor: list[float]

    def row(self, name: str, unit: str, limit: float, *, disk: bool = False) -> Row:
        """The row for work that may take `limit` times as long as the floor.

        The ratio is that of the two best samples, those that the rest of the machine disturbed least. With a `disk`,
        whose own times vary, it is the median of the ratios of neighbours.
        """
        if disk:
            ratio = statistics.median(a / b for a, b in zip(self.ours, self.floor, strict=True))
        else:
            ratio = min(self.ours) / min(self.floor)
        return Row(
            name,
            unit,
            statistics.median(self.ours),
            statistics.median(self.floor),
            ratio,
            f"≤ {limit:g} ×",
            ratio <= limit,
            (min(self.ours), min(self.floor)),
        )


async def in_turn(ours: Sample, floor: Sample, rounds: int) -> Pair:
    """Time the floor and ours in turn, so that whatever slows the machine down slows both."""
    await floor()
    await ours()
    pair = Pair([], [])
    for _ in range(rounds):
        for sample, into in ((floor, pair.floor), (ours, pair.ours)):
            gc.collect()
            into.append(await sample())
    return pair


# -- processes ---------------------------------------------------------------------------------------


@contextmanager
def clean_python() -> Iterator[tuple[list[str], dict[str, str]]]:
    """A Python that has the package and its dependencies alone, compiled, as a fresh installation has them.

    Yields:
        How to call it, and its environment.
    """
    import compensate

    with tempfile.TemporaryDirectory() as folder:
        for module in (compensate, msgspec):
            _link(Path(module.__file__ or "").parent, Path(folder))
        _link(Path(__file__).parent, Path(folder))
        env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        env |= {"PYTHONPATH": folder, "PYTHONPYCACHEPREFIX": str(Path(folder, "compiled"))}
        yield [sys.executable, "-S"], env


def _link(package: Path, folder: Path) -> None:
    (folder / package.name).symlink_to(package.resolve(), target_is_directory=True)


def machine() -> str:
    """The machine and the versions, in one line."""
    disk = subprocess.run(["df", "-T", tempfile.gettempdir()], capture_output=True, text=True, check=False)
    kind = disk.stdout.split("\n")[1].split()[1] if disk.returncode == 0 else "unknown"
    return (
        f"{os.cpu_count()} CPUs ({_cpu()}), {platform.system()} {platform.release()}, {kind}; "
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, msgspec {msgspec.__version__}"
    )


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
        platform.machine(),
    )


# -- output ------------------------------------------------------------------------------------------


def table(rows: list[Row]) -> str:
    """The rows as a Markdown table."""
    lines = [
        "| work | ours, best (median) | floor, best (median) | ratio | limit | |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        ours, floor = _figure(row.ours), ""
        if row.best is not None and row.floor is not None:
            ours = f"{_figure(row.best[0])} ({ours})"
            floor = f"{_figure(row.best[1])} ({_figure(row.floor)}) {row.unit}"
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        met = {True: "met", False: "**missed**", None: ""}[row.met]
        lines.append(f"| {row.name} | {ours} {row.unit} | {floor} | {ratio} | {row.limit} | {met} |")
    lines += [f"\n{row.name}: {row.note}" for row in rows if row.note]
    return "\n".join(lines)


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 1_000 or value == int(value) else f"{value:.3g}"


def as_json(rows: list[Row]) -> str:
    """The rows for machines."""
    return json.dumps(
        {"machine": machine(), "rows": [asdict(row) for row in rows]}, indent=1, ensure_ascii=False
    )
