"""A chain in an SQLite file: one at a time, forward and rolled back, and 200 at once."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from benchmarks import floors, memory
from benchmarks.measure import Row, in_turn
from benchmarks.memory import Run, sample
from benchmarks.sagas import BACK, FORWARD, LENGTH, broken, chain, effects
from compensate import Coordinator, RolledBack, SagaExecutor
from compensate.stores.sqlite import SqliteStore

COMMITS = {False: 11, True: 20}
"""Of one saga: forward, and rolled back."""

AT_ONCE = 200


@asynccontextmanager
async def bare(folder: Path, back: bool) -> AsyncIterator[Run]:
    """The floor, one saga at a time."""
    log = floors.Log(folder / "floor.db")
    pairs = BACK if back else FORWARD
    (number,) = log.connection.execute("SELECT ifnull(max(id), 0) FROM sagas").fetchone()

    def run() -> object:
        nonlocal number
        number += 1
        return floors.logged(log, [number], pairs, 1)

    yield run  # type: ignore[misc]
    log.connection.close()


async def rows(quick: bool) -> list[Row]:
    """The rows of this group: one at a time."""
    sagas, rounds = (2, 2) if quick else (20, 21)
    found: list[Row] = []
    for back, saga, what in (
        (False, chain, "chain of 10, SQLite, one at a time"),
        (True, broken, "9 done, the 10th fails, all undone, SQLite"),
    ):
        for kind in (memory.executor, memory.coordinator):
            with TemporaryDirectory() as name:
                folder = Path(name)
                url = f"sqlite:///{folder}/ours.db"
                floor = sample(lambda folder=folder, back=back: bare(folder, back), sagas, 1e-3, back)
                ours = sample(lambda kind=kind, saga=saga, url=url: kind(saga, url), sagas, 1e-3, back)
                pair = await in_turn(ours, floor, rounds)
            found.append(pair.row(f"{what}: `{memory.NAMES[kind]}`", "ms", 1.3, disk=True))
        found += await counts(back)
    return found


# -- counts ------------------------------------------------------------------------------------------


async def counts(back: bool) -> list[Row]:
    """How many commits and fsyncs one saga costs; the difference between few and some more, so without opening."""
    few, many = 3, 13
    exact = COMMITS[back]
    what = "rolled back" if back else "forward"
    with TemporaryDirectory() as name:
        ran = [(count, *_count(Path(name, f"{count}.db"), count, back)) for count in (few, many)]
    (_, commits, syncs), (_, more_commits, more_syncs) = ran
    per_saga = (more_commits - commits) / (many - few)
    found = [
        Row(
            f"commits of a chain of 10, {what}",
            "",
            per_saga,
            None,
            None,
            f"exactly {exact}",
            per_saga == exact,
        )
    ]
    if syncs is not None and more_syncs is not None:
        per_saga = (more_syncs - syncs) / (many - few)
        found.append(
            Row(
                f"fsyncs of the same, counted by strace, {what}",
                "",
                per_saga,
                None,
                None,
                f"exactly {exact}",
                per_saga == exact,
            )
        )
    return found


def _count(path: Path, sagas: int, back: bool) -> tuple[int, int | None]:
    """Run sagas in a process of their own; its commits and, where there is an strace that may look, its fsyncs."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.sqlite",
        str(path),
        str(sagas),
        "back" if back else "forward",
    ]
    trace = path.with_suffix(".strace")
    strace = shutil.which("strace")
    looked = (
        [strace, "-f", "-e", "trace=fsync,fdatasync", "-o", str(trace)]
        if strace and _may_trace(strace)
        else []
    )
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
    }
    done = subprocess.run([*looked, *command], env=env, capture_output=True, text=True, check=True)
    syncs = None
    if looked:
        syncs = sum(line.count("sync(") for line in trace.read_text().splitlines())
    return int(done.stdout), syncs


def _may_trace(strace: str) -> bool:
    return (
        subprocess.run([strace, "-o", os.devnull, "true"], capture_output=True, check=False).returncode == 0
    )


ROOT = Path(__file__).parent.parent


async def _counted(path: str, sagas: int, back: bool) -> int:
    """The process that is counted."""
    store = SqliteStore(path)
    await store.open()
    before = store.commits
    for _ in range(sagas):
        with suppress(RolledBack):
            await SagaExecutor(broken if back else chain, store=store).execute(1)
    commits = store.commits - before
    await store.close()
    return commits


# -- at once -----------------------------------------------------------------------------------------


async def at_once(quick: bool) -> list[Row]:
    """The rows of this group: many at once."""
    count, rounds = (10, 2) if quick else (AT_ONCE, 15)
    commits: list[int] = []
    with TemporaryDirectory() as name:
        folder = Path(name)
        log = floors.Log(folder / "floor.db")
        async with Coordinator(f"sqlite:///{folder}/ours.db", sagas=[chain]) as coordinator:
            store = coordinator.store
            assert isinstance(store, SqliteStore)

            async def ours() -> float:
                effects.clear()
                before, began = store.commits, perf_counter()
                await asyncio.gather(*(coordinator.run(chain, 1) for _ in range(count)))
                took = perf_counter() - began
                commits.append(store.commits - before)
                assert len(effects) == count * LENGTH
                return took / count * 1e6

            async def floor() -> float:
                effects.clear()
                (first,) = log.connection.execute("SELECT ifnull(max(id), 0) + 1 FROM sagas").fetchone()
                began = perf_counter()
                await floors.logged(log, range(first, first + count), FORWARD, 1)
                took = perf_counter() - began
                assert len(effects) == count * LENGTH
                return took / count * 1e6

            pair = await in_turn(ours, floor, rounds)
        log.connection.close()
    row = pair.row(f"{count} of them at once, SQLite, a saga: `Coordinator`", "µs", 2, disk=True)
    row.note = (
        f"{1e6 / row.ours:,.0f} sagas/s in about {sorted(commits)[len(commits) // 2]} commits; "
        f"the floor makes {1e6 / (row.floor or 1):,.0f} in {LENGTH + 1}."
    )
    return [row]


if __name__ == "__main__":
    print(asyncio.run(_counted(sys.argv[1], int(sys.argv[2]), sys.argv[3] == "back")))
