"""An SQLite store whose system calls fail, or never return: every write and sync of its files, below SQLite itself.

`strace` gives the n-th call of a kind an error, or ends the process at its entry. Of a process with two threads it
counts each thread's calls by themselves. The ordinary run takes an even choice of the calls; `--deep` takes all.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from tests.acceptance.test_crash_points import evenly
from tests.support.processes import ROOT, judge, log_of, url_of
from tests.support.shapes import BACK, FORWARD
from tests.support.victim import GIVEN_UP, Order, Start

pytestmark = [pytest.mark.slow, pytest.mark.time_limit(3_600)]

CALLS = ("pwrite64", "fdatasync", "ftruncate")
"""With which SQLite changes its files here. A run is seen to make no other that does."""

OTHERS = ("write", "pwritev", "fsync", "fallocate", "rename")

ENDS = {"forward": "completed", "back": "rolled_back"}
KINDS = ("sqlite", "sqlite-thread")

_LINE = re.compile(r"^\d+ +(?P<call>\w+)\(\d+<(?P<path>[^>]*)>")


class Traced:
    """One saga on an SQLite store, in processes whose system calls on the store's files are watched."""

    def __init__(self, folder: Path, kind: str, way: str) -> None:
        strace = shutil.which("strace")
        if strace is None:
            pytest.skip("strace is not installed (Debian: apt-get install strace)")
        self._strace = strace
        self._folder = folder
        self._kind = kind
        self._way = way
        self._start = Start("diamond", "s", replace(BACK["diamond"] if way == "back" else FORWARD, size=700))
        self._runs = 0

    def begin(self) -> Path:
        """A folder for one more run."""
        self._runs += 1
        folder = self._folder / str(self._runs)
        folder.mkdir()
        return folder

    def live(self, folder: Path, actor: str, fault: str = "") -> tuple[int, list[str]]:
        """One process; its exit code (negative: the signal that ended it), and its calls as lines of the trace."""
        order = Order(
            str(folder),
            url_of(self._kind, folder),
            actor,
            [self._start],
            gated=False,
            in_thread=self._kind == "sqlite-thread",
        )
        database = folder / "sagas.db"
        command = [self._strace, "-f", "-y", "-o", str(folder / "trace")]
        for path in (database, f"{database}-wal"):
            command += ["-P", str(path)]
        command += [
            "-e",
            f"trace={','.join((*CALLS, *OTHERS))}",
            *(["-e", f"inject={fault}"] if fault else []),
        ]
        command += [sys.executable, "-m", "tests.support.victim", msgspec.json.encode(order).decode()]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode in (0, GIVEN_UP, -9), (done.returncode, done.stderr, log_of(folder))
        return done.returncode, (folder / "trace").read_text().splitlines()

    def judge(self, folder: Path) -> None:
        judge(folder, url_of(self._kind, folder), [self._start], {"s": ENDS[self._way]})

    def most(self, call: str) -> int:
        """How often the thread that makes the most of these calls makes them, in a run that nothing disturbs."""
        folder = self.begin()
        code, lines = self.live(folder, "one")
        assert code == 0
        self.judge(folder)
        found = [match for line in lines if (match := _LINE.match(line))]
        assert {Path(match["path"]).name for match in found} == {"sagas.db", "sagas.db-wal"}
        assert {match["call"] for match in found} == set(CALLS)
        counts = Counter(match[0].split()[0] for match in found if match["call"] == call)
        assert sum(counts.values()) > (0 if call == "ftruncate" else 10), "it is a saga of a dozen commits"
        return max(counts.values())


def injected(lines: list[str]) -> int:
    return sum("(INJECTED)" in line for line in lines)


@pytest.mark.parametrize("way", ENDS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("call", "error"),
    [
        ("pwrite64", "ENOSPC"),
        ("pwrite64", "EIO"),
        ("pwrite64", "EFBIG"),
        ("fdatasync", "EIO"),
        ("ftruncate", "EIO"),
    ],
)
def test_an_sqlite_store_gets_over_any_write_or_sync_that_fails(
    tmp_path: Path, deep: bool, kind: str, way: str, call: str, error: str
) -> None:
    case = Traced(tmp_path, kind, way)
    most = case.most(call)
    for hit in evenly(range(1, most + 1), most if deep else 3, len(error) + (way == "back")):
        folder = case.begin()
        code, lines = case.live(folder, "one", f"{call}:error={error}:when={hit}")
        assert injected(lines) >= 1, f"{call} {hit} of {most} did not fail"
        if code:
            assert case.live(folder, "two")[0] == 0
        case.judge(folder)


@pytest.mark.parametrize("way", ENDS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("call", CALLS)
def test_a_process_that_ends_at_any_write_or_sync_of_sqlite_is_succeeded(
    tmp_path: Path,
    deep: bool,
    kind: str,
    way: str,
    call: str,
    record_property: Callable[[str, object], None],
) -> None:
    case = Traced(tmp_path, kind, way)
    most = case.most(call)
    chosen = evenly(range(1, most + 1), most if deep else 4, len(call) + (way == "back"))
    for hit in chosen:
        folder = case.begin()
        code, _ = case.live(folder, "one", f"{call}:signal=SIGKILL:when={hit}")
        assert code == -9, f"{call} {hit} of {most} did not end it"
        assert case.live(folder, "two")[0] == 0
        case.judge(folder)
    record_property("crash points", [len(chosen), most])
