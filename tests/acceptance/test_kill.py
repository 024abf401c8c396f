"""Real processes, killed at chosen points of a run and resumed by others; two processes on one store.

The process announces that it has reached the point and blocks there; then it is killed from outside.
"""

from __future__ import annotations

import signal
from pathlib import Path
from typing import NamedTuple

import pytest

from compensate.core.events import InDoubt
from compensate.errors import CorruptLog
from compensate.stores.base import StoredSaga
from tests.conformance.places import FilePlace, SqlitePlace
from tests.support.gates import Stop
from tests.support.processes import (
    Process,
    calls,
    effects,
    judge,
    kill,
    live_out,
    load,
    log_of,
    stopped,
    told,
    until,
    url_of,
    where,
)
from tests.support.shapes import BACK, FORWARD, SAGAS, Job
from tests.support.victim import GO, Order, Start

pytestmark = [pytest.mark.slow, pytest.mark.time_limit(240)]

STORES = ("sqlite", "file")


class Kill(NamedTuple):
    """Where a process is killed.

    `last`: the last thing that the outside recorder has seen then, as node, direction and kind; `None`: nothing.
    """

    named: str
    shape: str
    way: str
    at: str
    last: tuple[str, str, str] | None
    hit: int = 1


KILLS = (
    Kill("in create, before it is stored", "chain", "forward", "create begins", None),
    Kill("in create, after it is stored", "chain", "forward", "create is durable", None),
    Kill("during do, before the effect", "chain", "forward", "do begins b", ("b", "do", "begin")),
    Kill("during do, after the effect", "chain", "forward", "do ends c", ("c", "do", "effect")),
    Kill("between do and record", "chain", "forward", "append begins completed:c*", ("c", "do", "returned")),
    Kill(
        "between the last do and the end",
        "chain",
        "forward",
        "append begins completed:d*",
        ("d", "do", "returned"),
    ),
    Kill("after the end", "chain", "forward", "append is durable completed:d*", ("d", "do", "returned")),
    Kill("before the failure is recorded", "chain", "back", "append begins failed:d*", ("d", "do", "raised")),
    Kill(
        "after the rollback is recorded",
        "chain",
        "back",
        "append is durable failed:d*",
        ("d", "do", "raised"),
    ),
    Kill("during undo, before its effect", "chain", "back", "undo begins c", ("c", "undo", "begin")),
    Kill("during undo, after its effect", "chain", "back", "undo ends b", ("b", "undo", "effect")),
    Kill("between undo and record", "chain", "back", "append begins undone:c*", ("c", "undo", "returned")),
    Kill(
        "between the last undo and the end",
        "chain",
        "back",
        "append begins undone:a*",
        ("a", "undo", "returned"),
    ),
    Kill("in one of two branches", "diamond", "forward", "do ends c", None),
    Kill("in the failing one of two branches", "diamond", "back", "append begins failed:c*", None),
    Kill("while two branches are undone", "diamond", "back", "undo ends b", None),
    Kill("inside a subsaga", "nested", "forward", "do ends s/x", ("s/x", "do", "effect")),
    Kill("while a subsaga is undone", "nested", "back", "undo ends s/x", ("s/x", "undo", "effect")),
    Kill("before a fan-out is recorded", "fan", "forward", "append begins expanded:each*", None),
    Kill("in an element of a fan-out", "fan", "forward", "do ends each?1?", None),
    Kill("while a fan-out is undone", "fan", "back", "undo ends each?1?", None),
    Kill("in a node without undo", "mixed", "forward", "do ends n", ("n", "do", "effect")),
    Kill(
        "before a retry is recorded", "mixed", "forward", "append begins failed:f*", ("n", "do", "returned")
    ),
    Kill(
        "after a retry is recorded",
        "mixed",
        "forward",
        "append is durable failed:f*",
        ("n", "do", "returned"),
    ),
    Kill("in a node whose outcome is unknown", "mixed", "back", "do ends h", ("h", "do", "effect")),
    Kill("in the undo of an unknown outcome", "mixed", "back", "undo begins h", ("h", "undo", "begin")),
    Kill("behind a node without undo", "mixed", "back", "undo ends f", ("f", "undo", "effect")),
)

WRITES = [
    # When it goes forward: while a node of the chain is recorded. When it goes back: while an undo is.
    (kind, named, at, way, hit)
    for kind in ("sqlite", "sqlite-thread")
    for named, at, forward, back in (
        ("before the transaction", "store before BEGIN IMMEDIATE", 5, 9),
        ("between two statements", "store after UPDATE sagas SET", 3, 7),
        ("before COMMIT", "store before COMMIT", 5, 9),
        ("after COMMIT, before it is acknowledged", "store after COMMIT", 5, 9),
    )
    for way, hit in (("forward", forward), ("back", back))
] + [
    ("file", named, at, way, hit)
    for named, at, forward, back in (
        ("before the line is written", "store before pwrite .log", 4, 7),
        ("within the line", "store within pwrite .log", 4, 7),
        # The file of a new saga is synced under another name.
        ("before the line is synced", "store before fdatasync .log", 3, 6),
        ("after the line is synced, before it is acknowledged", "store after fdatasync .log", 3, 6),
    )
    for way, hit in (("forward", forward), ("back", back))
]


class Scene:
    """A folder in which processes come and go over one store."""

    def __init__(self, folder: Path, kind: str, *starts: Start) -> None:
        self.folder = folder
        self.kind = kind
        self.url = url_of(kind, folder)
        self.starts = list(starts)

    def order(self, actor: str, stop: Stop | None = None, **more: object) -> Order:
        given = {"starts": self.starts, "in_thread": self.kind == "sqlite-thread"} | more
        return Order(str(self.folder), self.url, actor, stop=stop, **given)  # type: ignore[arg-type]

    def kill_at(self, actor: str, at: str, hit: int = 1) -> None:
        """A process that is killed when it has reached a point, from outside."""
        with Process(self.order(actor, Stop(at, hit))) as process:
            label = process.says("held at ")
            kill(process)
        assert where(self.folder) == label

    def resume(self, actor: str, **ends: str) -> None:
        """A new process that ends every saga; then everything must be as it should."""
        said = live_out(self.order(actor))
        assert said.ends == ends
        judge(self.folder, self.url, self.starts, ends)

    def stored(self, saga_id: str = "s") -> StoredSaga:
        return load(self.url, saga_id)[0]


def start_of(shape: str, way: str) -> tuple[Start, str]:
    """A saga that goes forward or back, and its end."""
    if way == "forward":
        return Start(shape, "s", FORWARD), "completed"
    return Start(shape, "s", BACK[shape]), "rolled_back"


@pytest.mark.parametrize("kind", STORES)
@pytest.mark.parametrize("case", KILLS, ids=lambda kill: kill.named)
def test_a_saga_survives_a_kill(tmp_path: Path, case: Kill, kind: str) -> None:
    start, end = start_of(case.shape, case.way)
    scene = Scene(tmp_path, kind, start)
    scene.kill_at("one", case.at, case.hit)
    seen = effects(tmp_path)
    if case.last is not None:
        assert (seen[-1].node, seen[-1].direction, seen[-1].kind) == case.last
    elif case.at.startswith("create"):
        assert not seen
    scene.resume("two", s=end)


@pytest.mark.parametrize(
    ("kind", "at", "way", "hit"),
    [pytest.param(*write[:1], *write[2:], id=f"{write[0]}-{write[1]}-{write[3]}") for write in WRITES],
)
def test_a_saga_survives_a_kill_in_the_writer(tmp_path: Path, kind: str, at: str, way: str, hit: int) -> None:
    start, end = start_of("chain", way)
    scene = Scene(tmp_path, kind, start)
    scene.kill_at("one", at, hit)
    assert scene.stored().record.status == ("running" if way == "forward" else "rolling_back")
    scene.resume("two", s=end)


@pytest.mark.parametrize(
    ("way", "first", "second"),
    [
        ("forward", "do ends c", "do begins c"),
        ("forward", "do ends c", "append begins *completed:c*"),
        ("back", "undo ends c", "undo begins c"),
        ("back", "append begins undone:c*", "append begins *undone:c*"),
    ],
)
@pytest.mark.parametrize("kind", STORES)
def test_a_saga_survives_a_kill_during_its_recovery(
    tmp_path: Path, kind: str, way: str, first: str, second: str
) -> None:
    start, end = start_of("chain", way)
    scene = Scene(tmp_path, kind, start)
    scene.kill_at("one", first)
    scene.kill_at("two", second)
    assert scene.stored().record.epoch == 2
    scene.resume("three", s=end)
    assert scene.stored().record.epoch >= 3  # after two deaths it is a suspect, and waits for its turn


@pytest.mark.parametrize(
    ("kind", "at"),
    [
        ("sqlite", "store before COMMIT"),
        ("sqlite", "store after COMMIT"),
        ("sqlite", "store after UPDATE sagas SET"),
        ("file", "store within pwrite .log"),
        ("file", "store after fdatasync .log"),
        ("file", "store before replace .part"),
    ],
)
@pytest.mark.parametrize("hit", [1, 2, 3])
def test_a_saga_survives_a_kill_while_it_is_adopted(tmp_path: Path, kind: str, at: str, hit: int) -> None:
    start, end = start_of("chain", "back")
    scene = Scene(tmp_path, kind, start)
    scene.kill_at("one", "undo ends c")
    scene.kill_at("two", at, hit)
    scene.resume("three", s=end)


def test_a_completed_saga_that_is_rolled_back_on_request_survives_a_kill(tmp_path: Path) -> None:
    scene = Scene(tmp_path, "sqlite", Start("diamond", "s", FORWARD, then_undo=True))
    scene.kill_at("one", "undo ends b")
    assert scene.stored().record.status == "rolling_back"
    scene.resume("two", s="rolled_back")


# -- two processes at once -------------------------------------------------


@pytest.mark.parametrize("kind", STORES)
def test_a_process_that_was_stopped_beyond_its_lease_is_fenced_when_it_goes_on(
    tmp_path: Path, kind: str
) -> None:
    scene = Scene(tmp_path, kind, Start("chain", "s", Job(wait="c")))
    waits = Stop("waits c", how="say")
    with (
        Process(scene.order("zombie", waits, lease=5.0, poll=0.1)) as zombie,
        Process(scene.order("heir", starts=[], poll=0.05, serve=True)) as heir,
    ):
        zombie.says("passes ")
        heir.says("served")
        looked = len(calls(tmp_path, "heir", "claim"))
        until(lambda: len(calls(tmp_path, "heir", "claim")) > looked + 5, "the heir looks for orphans")
        assert scene.stored().record.owner == "zombie", "a live process was robbed"

        zombie.signal(signal.SIGSTOP)
        stopped(zombie)
        until(lambda: scene.stored().record.status == "completed", "the heir ends the saga")
        adopted = scene.stored()
        assert {event.epoch for event in adopted.events} == {1, 2}

        (tmp_path / GO).touch()
        zombie.signal(signal.SIGCONT)
        assert zombie.ended() == 0
        fenced = [call for call in calls(tmp_path, "zombie", "append") if call.outcome == "Fenced"]
        assert [event.node for call in fenced for event in call.events] == ["c", "d"]
        assert "somebody else has adopted it" in log_of(tmp_path)
        assert told(tmp_path).ends == {"s": "completed"}  # it learns what the heir has made of it
        assert scene.stored() == adopted

        heir.signal(signal.SIGTERM)
        assert heir.ended() == 0
    judge(tmp_path, scene.url, scene.starts, {"s": "completed"})


@pytest.mark.parametrize("kind", STORES)
def test_a_process_that_goes_on_when_its_saga_has_just_been_adopted_is_fenced_by_the_epoch_alone(
    tmp_path: Path, kind: str
) -> None:
    scene = Scene(tmp_path, kind, Start("chain", "s", Job(wait="c")))
    with Process(scene.order("zombie", Stop("waits c", how="say"), lease=1.0, poll=0.1)) as zombie:
        zombie.says("passes ")
        zombie.signal(signal.SIGSTOP)
        stopped(zombie)
        # The heir is held when it has claimed the saga, and before it has appended anything.
        heir_order = scene.order("heir", Stop("append begins *"), starts=[], poll=0.05, serve=True)
        with Process(heir_order) as heir:
            heir.says("held at ")
            claimed = scene.stored()
            assert (claimed.record.epoch, claimed.events[-1].epoch) == (2, 1)
            (tmp_path / GO).touch()
            zombie.signal(signal.SIGCONT)
            until(lambda: "somebody else has adopted it" in log_of(tmp_path), "the zombie notices")
            appends = calls(tmp_path, "zombie", "append")
            assert [call.outcome for call in appends] == ["ok", "ok", "Fenced"]
            assert scene.stored().events == claimed.events
            kill(heir)
        zombie.signal(signal.SIGTERM)
        assert zombie.ended() == 0
    scene.resume("third", s="completed")


@pytest.mark.parametrize(
    ("kind", "at"), [("sqlite", "store before COMMIT"), ("file", "store before fdatasync .log")]
)
def test_a_process_that_is_stopped_in_the_middle_of_an_append_holds_up_its_heir_and_nothing_is_lost(
    tmp_path: Path, kind: str, at: str
) -> None:
    scene = Scene(tmp_path, kind, Start("chain", "s", FORWARD))
    with Process(scene.order("heir", starts=[], poll=0.05, serve=True)) as heir:
        heir.says("served")
        # Some appends into the saga, with the transaction open and the folder locked.
        with Process(scene.order("zombie", Stop(at, 4, "freeze"), lease=2.0)) as zombie:
            zombie.says("passes ")
            stopped(zombie)
            before = effects(tmp_path)
            tried = "beginning to write" if kind == "sqlite" else "kept the folder locked"
            until(lambda: tried in log_of(tmp_path), "the heir tries to adopt")
            assert [effect for effect in effects(tmp_path) if effect.actor == "heir"] == []
            assert effects(tmp_path) == before
            zombie.signal(signal.SIGCONT)
            assert zombie.ended() == 0
        until(lambda: scene.stored().record.status == "completed", "the saga ends")
        heir.signal(signal.SIGTERM)
        assert heir.ended() == 0
    judge(tmp_path, scene.url, scene.starts, {"s": "completed"})


# -- SIGTERM ---------------------------------------------------------------


@pytest.mark.parametrize("kind", STORES)
def test_sigterm_lets_running_actions_land_starts_no_more_and_leaves_sagas_resumable(
    tmp_path: Path, kind: str
) -> None:
    scene = Scene(tmp_path, kind, Start("chain", "s", Job(wait="c")))
    waits = Stop("waits c", how="say")
    with Process(scene.order("one", waits)) as process:
        process.says("passes ")
        process.signal(signal.SIGTERM)
        process.says("stops")
        (tmp_path / GO).touch()
        assert process.ended() == 0
    assert told(tmp_path).waiting == ["s"]
    stored = scene.stored()
    assert stored.record.owner is None
    assert stored.record.status == "running"
    assert (stored.events[-1].type, stored.events[-1].node) == ("completed", "c")
    scene.resume("two", s="completed")
    assert [x.attempt for x in effects(tmp_path) if x.node == "c" and x.kind == "begin"] == [1]


@pytest.mark.parametrize("kind", STORES)
def test_sigterm_cancels_what_does_not_end_within_the_drain_and_it_is_in_doubt(
    tmp_path: Path, kind: str
) -> None:
    scene = Scene(tmp_path, kind, Start("chain", "s", Job(wait="c")))
    waits = Stop("waits c", how="say")
    with Process(scene.order("one", waits, drain=0.05)) as process:
        process.says("passes ")
        process.signal(signal.SIGTERM)
        assert process.ended() == 0
    stored = scene.stored()
    assert stored.record.owner is None
    assert (stored.events[-1].type, stored.events[-1].node) == ("started", "c")
    scene.resume("two", s="completed")
    doubts = [(x.node, x.data.reason) for x in scene.stored().events if isinstance(x.data, InDoubt)]
    assert doubts == [("c", "cut_off")]


# -- many sagas ------------------------------------------------------------


@pytest.mark.parametrize("kind", STORES)
def test_of_200_sagas_killed_in_flight_all_end_after_a_restart_but_the_one_that_was_altered(
    tmp_path: Path, kind: str
) -> None:
    shapes = list(SAGAS)
    starts = [
        Start(shape, f"s{number:03}", BACK[shape] if number % 2 else FORWARD)
        for number in range(200)
        for shape in [shapes[number % len(shapes)]]
    ]
    ends = {start.id: "completed" if start.job == FORWARD else "rolled_back" for start in starts}
    scene = Scene(tmp_path, kind, *starts)
    scene.kill_at("one", "do ends *", 350)
    created = [call.saga for call in calls(tmp_path, "one", "create") if call.outcome == "ok"]
    assert created

    left = [saga.record for saga in load(scene.url, *created)]
    unended = [record for record in left if record.status in ("running", "rolling_back")]
    assert len(unended) > 50
    altered = next(record.id for record in unended if record.last_seq > 3)
    place = SqlitePlace(tmp_path) if kind == "sqlite" else FilePlace(tmp_path)
    assert place.damage(altered)

    sound = [start for start in starts if start.id != altered]
    ids = [start.id for start in sound if start.id in created]
    with Process(scene.order("two", starts=[], serve=True)) as process:
        process.says("served")
        until(
            lambda: all(s.record.status in ("completed", "rolled_back") for s in load(scene.url, *ids)),
            "all of them end without being asked for",
        )
        process.signal(signal.SIGTERM)
        assert process.ended() == 0
    report = [
        line for line in log_of(tmp_path).splitlines() if f"saga {altered} cannot be gone on with" in line
    ]
    assert len(report) == 1
    assert "altered after it was written" in report[0]
    with pytest.raises(CorruptLog, match=altered):
        scene.stored(altered)

    said = live_out(scene.order("three", starts=sound))
    assert said.ends == {start.id: ends[start.id] for start in sound}
    judge(tmp_path, scene.url, sound, ends)
    assert [x.saga for x in effects(tmp_path) if x.actor != "one" and x.saga == altered] == []
