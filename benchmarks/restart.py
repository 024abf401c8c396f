"""Many sagas in flight, SIGKILL, restart: until a new process runs them all, Python's start included."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from benchmarks.measure import Row, Sample, clean_python, in_turn

LIMIT = 0.3
"""Seconds."""

Command = tuple[list[str], dict[str, str]]


async def rows(quick: bool) -> list[Row]:
    """The rows of this group."""
    count, rounds = (10, 2) if quick else (1_000, 11)
    with TemporaryDirectory() as name, clean_python() as command:
        folder = Path(name)
        for kind in ("ours", "floor"):
            (folder / kind).mkdir()
            _until_going(command, kind, "start", folder / kind, count)
        pair = await in_turn(
            _restart(command, "ours", folder, count), _restart(command, "floor", folder, count), rounds
        )
    row = pair.row(f"{count:,} sagas in flight, SIGKILL, restart: until all run again", "s", 0)
    row.limit, row.met = f"≤ {LIMIT:g} s", min(pair.ours) <= LIMIT
    return [row]


def _restart(command: Command, kind: str, folder: Path, count: int) -> Sample:
    async def once() -> float:
        with TemporaryDirectory() as name:
            left = Path(name, "left")
            shutil.copytree(folder / kind, left)
            return _until_going(command, kind, "again", left, count)

    return once


def _until_going(command: Command, kind: str, what: str, folder: Path, count: int) -> float:
    """Start a process, wait until all its sagas run, and kill it; how long that took from its start."""
    python, env = command
    began = perf_counter()
    arguments = ["-m", "benchmarks.restart", kind, what, str(folder), str(count)]
    with subprocess.Popen([*python, *arguments], env=env, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        took = perf_counter() - began
        process.send_signal(signal.SIGKILL)
    assert said == b"going\n", said
    assert process.returncode == -signal.SIGKILL
    return took


# -- in the process ----------------------------------------------------------------------------------


def going() -> None:
    """All run."""
    os.write(1, b"going\n")


async def ours(folder: Path, count: int, again: bool) -> None:
    """A coordinator whose sagas wait in the middle of their chain."""
    from compensate import Coordinator, action, saga

    running = 0

    async def pass_on(x: int) -> int:
        return x + 1

    async def wait(x: int) -> int:
        nonlocal running
        running += 1
        if running == count:
            going()
        await asyncio.Event().wait()
        return x

    quick, slow = action(pass_on), action(wait)

    @saga
    def chain(x: int) -> int:
        for k in range(10):
            x = (slow if k == 5 else quick).options(name=f"step{k}")(x)
        return x

    async with Coordinator(f"sqlite:///{folder}/ours.db", sagas=[chain]) as coordinator:
        if not again:
            for _ in range(count):
                await coordinator.start(chain, 1)
        await asyncio.Event().wait()


async def floor(folder: Path, count: int, again: bool) -> None:
    """The same with a bare log: what ran is read, made ours, recorded as started again, and run."""
    import json

    from benchmarks.floors import Log

    running = 0

    async def wait() -> None:
        nonlocal running
        running += 1
        if running == count:
            going()
        await asyncio.Event().wait()

    log = Log(folder / "floor.db")
    sagas: Sequence[int] = range(1, count + 1)
    if not again:
        log.create(sagas, 1, "step0")
        for k in range(5):
            log.append(
                sagas,
                2 * k + 2,
                [("completed", f"step{k}", k + 2), ("started", f"step{k + 1}", None)],
                "running",
            )
    else:
        connection = log.connection
        left = connection.execute("SELECT id, last_seq FROM sagas WHERE status = 'running'").fetchall()
        outputs: dict[int, object] = {}
        for saga, _seq, _at, kind, _node, data in connection.execute(
            "SELECT * FROM events ORDER BY saga, seq"
        ):
            if kind == "completed":
                outputs[saga] = json.loads(data)
        connection.execute("UPDATE sagas SET owner = 'me too' WHERE status = 'running'")
        log.append(
            [saga for saga, _ in left],
            left[0][1],
            [("in_doubt", "step5", None), ("started", "step5", None)],
            "running",
        )
    await asyncio.gather(*(wait() for _ in sagas))


if __name__ == "__main__":
    kind, what, where, number = sys.argv[1:]
    asyncio.run({"ours": ours, "floor": floor}[kind](Path(where), int(number), what == "again"))
