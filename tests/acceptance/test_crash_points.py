"""Crashes at every point of a run and of its recovery, on the real stores; and disks that fail.

A point lies before and after every statement that an SQLite store executes to write, and before, after and (for
writes) within every system call with which a file store changes the disk. The process ends itself there with SIGKILL.
The ordinary run takes an even choice of the points; `--deep` takes all.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest

from compensate.errors import SagaNotFound
from tests.support.gates import Stop
from tests.support.processes import Nursery, calls, judge, load, log_of, told, url_of, where
from tests.support.shapes import BACK, FORWARD, SAGAS
from tests.support.victim import GIVEN_UP, Order, Start

pytestmark = [pytest.mark.slow, pytest.mark.time_limit(3_600)]

T = TypeVar("T")

KINDS = ("sqlite", "sqlite-thread", "file")
WAYS = ("forward", "back", "undone")
POINTS = "store *"
CASES = [(kind, shape, way) for kind in KINDS for shape in SAGAS for way in WAYS[:2]] + [
    (kind, "diamond", "undone") for kind in KINDS
]


@pytest.fixture(scope="module")
def nursery() -> Generator[Nursery]:
    nursery = Nursery()
    yield nursery
    nursery.close()


class Case:
    """One saga on one store, run as often as there are points."""

    def __init__(self, nursery: Nursery, folder: Path, kind: str, shape: str, way: str) -> None:
        self.nursery = nursery
        self.folder = folder
        self.kind = kind
        job = BACK[shape] if way == "back" else FORWARD
        # A line cut in half is then longer than the one that the next owner writes in its place.
        job = replace(job, size=700)
        self.start = Start(shape, "s", job, then_undo=way == "undone")
        self.end = "completed" if way == "forward" else "rolled_back"
        self.runs = 0

    def begin(self) -> Path:
        """A folder for one more run."""
        self.runs += 1
        folder = self.folder / str(self.runs)
        folder.mkdir()
        return folder

    def live(self, folder: Path, actor: str, stop: Stop | None = None, *, counted: str = "") -> int:
        """One process; its exit code, or the negative number of the signal that ended it."""
        return self.nursery.run(
            Order(
                str(folder),
                url_of(self.kind, folder),
                actor,
                [self.start],
                stop,
                counted,
                in_thread=self.kind == "sqlite-thread",
            )
        )

    def judge(self, folder: Path) -> None:
        judge(folder, url_of(self.kind, folder), [self.start], {"s": self.end})

    def points(self, folder: Path, actor: str) -> list[str]:
        """The points that a process passes that nothing stops."""
        assert self.live(folder, actor, counted=POINTS) == 0
        passed = told(folder).passed
        assert passed
        return passed


TIMED = "mixed"
"""The shape with a wait before a retry, which may be over or not when it is looked at: its points vary a little."""


def may_be_missed(shape: str, tried: int) -> int:
    """At how many points a process need not have come to its end, since it passed fewer of them."""
    return tried // 8 if shape == TIMED else 0


def evenly(points: Sequence[T], count: int, shift: int) -> list[T]:
    """That many of them, evenly spread; all if there are no more. Another shift gives others."""
    if count >= len(points):
        return list(points)
    step = len(points) / count
    return [points[int((number * step + shift * 7) % len(points))] for number in range(count)]


@pytest.mark.parametrize(("kind", "shape", "way"), CASES)
def test_a_process_that_ends_at_any_point_is_succeeded_by_one_that_ends_the_saga_as_it_must(
    nursery: Nursery,
    tmp_path: Path,
    deep: bool,
    kind: str,
    shape: str,
    way: str,
    record_property: Callable[[str, object], None],
) -> None:
    case = Case(nursery, tmp_path, kind, shape, way)
    whole = case.begin()
    points = case.points(whole, "one")
    case.judge(whole)
    shift = CASES.index((kind, shape, way))
    chosen = evenly(range(1, len(points) + 1), len(points) if deep else 8, shift)
    ended: set[int] = set()
    for hit in chosen:
        folder = case.begin()
        if case.live(folder, "one", Stop(POINTS, hit, "kill")) == -9:
            ended.add(hit)
            assert where(folder) == points[hit - 1] or shape == TIMED
        assert case.live(folder, "two") == 0
        case.judge(folder)
    missed = set(chosen) - ended
    assert len(missed) <= may_be_missed(shape, len(chosen)), f"not ended at {missed} of {len(points)}"
    record_property("crash points", [len(ended), len(points)])


@pytest.mark.parametrize(("kind", "shape", "way"), CASES)
def test_a_recovery_that_ends_at_any_point_is_itself_recovered_from(
    nursery: Nursery,
    tmp_path: Path,
    deep: bool,
    kind: str,
    shape: str,
    way: str,
    record_property: Callable[[str, object], None],
) -> None:
    case = Case(nursery, tmp_path, kind, shape, way)
    first = case.points(case.begin(), "one")
    shift = CASES.index((kind, shape, way))
    # After the same commit a recovery finds the same; so one crash for each, in the middle of the next.
    commits = [
        number for number, label in enumerate(first, 1) if "before COMMIT" in label or "within" in label
    ]
    ended = tried = possible = 0
    for turn, hit in enumerate(commits if deep else evenly(commits, 2, shift)):
        counting = case.begin()
        case.live(counting, "one", Stop(POINTS, hit, "kill"))
        again = case.points(counting, "two")
        possible += len(again)
        case.judge(counting)
        chosen = evenly(range(1, len(again) + 1), len(again) // 3 if deep else 2, shift + turn)
        for second in chosen:
            folder = case.begin()
            stops = (("one", Stop(POINTS, hit, "kill")), ("two", Stop(POINTS, second, "kill")))
            tried += 1
            ended += all(case.live(folder, actor, stop) == -9 for actor, stop in stops)
            assert case.live(folder, "three") == 0
            case.judge(folder)
    assert ended
    assert tried - ended <= may_be_missed(shape, tried)
    record_property("crash points of recoveries", [ended, possible])


# -- power cuts ------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS[:2])
def test_a_write_ahead_log_cut_anywhere_leaves_a_whole_number_of_appends(
    nursery: Nursery, tmp_path: Path, way: str
) -> None:
    case = Case(nursery, tmp_path, "sqlite", "chain", way)
    folder = case.begin()
    # Before the store is closed, which would move the log into the database.
    end = "saga_completed" if way == "forward" else "saga_rolled_back"
    assert case.live(folder, "one", Stop(f"append is durable *{end}:", how="kill")) == -9
    url, wal = url_of("sqlite", folder), folder / "sagas.db-wal"
    database, whole = (folder / "sagas.db").read_bytes(), wal.read_bytes()
    (page,) = struct.unpack(">I", whole[8:12])
    starts = range(32, len(whole), 24 + page)
    lengths: list[int] = []
    logs = [load(url, "s")[0].events]
    for cut in [start + within for start in starts for within in (0, 11, 24, 24 + page // 3)]:
        for path in folder.glob("sagas.db*"):
            if path.is_file():
                path.unlink()
        (folder / "sagas.db").write_bytes(database)
        wal.write_bytes(whole[:cut])
        try:
            (stored,) = load(url, "s")
        except SagaNotFound:
            lengths.append(0)
            continue
        assert stored.events == logs[0][: len(stored.events)]
        lengths.append(len(stored.events))
    assert lengths == sorted(lengths)
    outside = calls(folder, "one", "append")
    ends = {0, 2, *(call.events[-1].seq for call in outside)}
    assert set(lengths) | {len(logs[0])} == ends


# -- disks that fail -------------------------------------------------------

PAGE = 4_096

ERRORS = {"ENOSPC": errno.ENOSPC, "EIO": errno.EIO, "EFBIG": errno.EFBIG}


@pytest.mark.parametrize("way", WAYS[:2])
@pytest.mark.parametrize("error", ERRORS)
def test_a_file_store_gets_over_every_write_and_sync_that_fails(
    nursery: Nursery, tmp_path: Path, deep: bool, error: str, way: str
) -> None:
    case = Case(nursery, tmp_path, "file", "diamond", way)
    points = [label for label in case.points(case.begin(), "one") if label.startswith("store before ")]
    shift = list(ERRORS).index(error) * 2 + (way == "back")
    for hit in evenly(range(1, len(points) + 1), len(points) if deep else 10, shift):
        folder = case.begin()
        stop = Stop("store before *", hit, "error", number=ERRORS[error])
        assert case.live(folder, "one", stop) == 0, log_of(folder)
        assert told(folder).fired == 1
        assert where(folder) == points[hit - 1]
        case.judge(folder)


@pytest.mark.parametrize("way", WAYS[:2])
def test_a_file_store_on_a_disk_that_goes_on_failing_is_recovered_from_elsewhere(
    nursery: Nursery, tmp_path: Path, deep: bool, way: str
) -> None:
    case = Case(nursery, tmp_path, "file", "diamond", way)
    points = [label for label in case.points(case.begin(), "one") if label.startswith("store before ")]
    killed = 0
    for hit in evenly(range(1, len(points) - 4), len(points) if deep else 10, way == "back"):
        folder = case.begin()
        code = case.live(folder, "one", Stop("store before *", hit, "error", more=3))
        assert code in (-9, GIVEN_UP)
        killed += code == -9
        assert where(folder)
        assert case.live(folder, "two") == 0
        case.judge(folder)
    assert killed


@pytest.mark.parametrize("room", [0, 100, 4_200])
@pytest.mark.parametrize("way", WAYS[:2])
def test_an_sqlite_store_gets_over_every_commit_that_finds_no_room(
    nursery: Nursery, tmp_path: Path, deep: bool, way: str, room: int
) -> None:
    case = Case(nursery, tmp_path, "sqlite", "diamond", way)
    commits = case.points(case.begin(), "one").count("store before COMMIT")
    assert commits > 5
    fired = 0
    chosen = evenly(range(1, commits + 1), commits if deep else 6, room % 5)
    for hit in chosen:
        folder = case.begin()
        assert case.live(folder, "one", Stop("store COMMIT", hit, "limit", room=room)) == 0, log_of(folder)
        fired += told(folder).fired
        case.judge(folder)
    # Each commit writes a page or more; where there is room for one, some of them get through.
    assert fired == len(chosen) if room < PAGE else 0 < fired < len(chosen)


@pytest.mark.parametrize("way", WAYS[:2])
def test_an_sqlite_store_gets_over_a_database_that_is_full(
    nursery: Nursery, tmp_path: Path, deep: bool, way: str
) -> None:
    case = Case(nursery, tmp_path, "sqlite", "diamond", way)
    case.start = msgspec.structs.replace(case.start, job=replace(case.start.job, size=9_000))
    begins = case.points(case.begin(), "one").count("store before BEGIN IMMEDIATE")
    fired = 0
    for hit in evenly(range(1, begins + 1), begins if deep else 6, way == "back"):
        folder = case.begin()
        stop = Stop("store BEGIN IMMEDIATE", hit, "full")
        assert case.live(folder, "one", stop) == 0, log_of(folder)
        fired += told(folder).fired
        case.judge(folder)
    assert fired
