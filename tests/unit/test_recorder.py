"""Recorders keep what really happened, also of a process that was killed; the checker reads real runs through them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from compensate.authoring import Ctx, action, saga
from compensate.core.events import Event
from compensate.core.standing import Standing
from compensate.errors import RolledBack, Unavailable
from compensate.runtime.coordinator import Coordinator
from compensate.stores.base import Done
from compensate.stores.memory import MemoryStore
from compensate.testing.checker import check_stored
from compensate.testing.recorder import Recorder, SqliteRecorder, assert_clean_slate, standing
from compensate.testing.recording_store import RecordingStore


@action
async def reserve(ctx: Ctx[Recorder], room: str) -> dict[str, str]:
    with ctx.deps.calling(ctx, {"room": room}) as call:
        hold = {"hold": f"{room}!"}
        call.effect(hold)
        call.returned(hold)
        return hold


@reserve.undo
async def release(ctx: Ctx[Recorder], hold: dict[str, str]) -> None:
    with ctx.deps.calling(ctx, hold) as call:
        call.effect()


@action
async def pay(ctx: Ctx[Recorder], hold: dict[str, str], cents: int) -> int:
    with ctx.deps.calling(ctx, {"hold": hold, "cents": cents}) as call:
        if cents < 0:
            raise ValueError("less than nothing")
        call.effect(cents)
        call.returned(cents)
        return cents


@saga
def trip(room: str, cents: int) -> int:
    return pay(reserve(room), cents)


async def run(store: MemoryStore, recorder: Recorder, cents: int) -> str:
    recording = RecordingStore(store, recorder)
    async with Coordinator(recording, deps=recorder, sagas=[trip], observers=[recorder.observer()]) as c:
        try:
            await c.run(trip.with_id("t"), "blue", cents)
        except RolledBack:
            return "rolled_back"
        return "completed"


@pytest.fixture(params=["memory", "file"])
def recorder(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    if request.param == "memory":
        yield Recorder()
    else:
        made = SqliteRecorder(tmp_path / "effects.db")
        yield made
        made.close()


async def test_a_real_run_is_recorded_and_found_clean(recorder: Recorder) -> None:
    store = MemoryStore()
    assert await run(store, recorder, 5) == "completed"
    assert [(x.node, x.direction, x.kind) for x in recorder.effects("t")] == [
        (node, "do", kind) for node in ("reserve", "pay") for kind in ("begin", "effect", "returned")
    ]
    assert [x.node for x in standing(recorder.effects())] == ["reserve", "pay"]
    assert [call.call for call in recorder.calls("t") if call.events][:1] == ["create"]
    assert recorder.durables("t")[-1].seq == 6
    assert check_stored(await store.load("t"), recorder) == []


async def test_a_real_rollback_is_recorded_and_found_clean(recorder: Recorder) -> None:
    store = MemoryStore()
    assert await run(store, recorder, -5) == "rolled_back"
    assert [x.kind for x in recorder.effects("t") if x.node == "pay"] == ["begin", "raised"]
    assert_clean_slate(recorder.effects())
    assert check_stored(await store.load("t"), recorder) == []


class Forgetful(MemoryStore):
    """Acknowledges the last append without having written it."""

    def append(
        self,
        saga_id: str,
        epoch: int,
        expected_seq: int,
        events: Sequence[Event],
        standing: Standing,
        created_at: float | None = None,
    ) -> Done:
        if standing.status == "completed":
            return None
        return super().append(saga_id, epoch, expected_seq, events, standing, created_at)


async def test_a_store_that_forgets_what_it_acknowledged_is_found_out(recorder: Recorder) -> None:
    store = Forgetful()
    assert await run(store, recorder, 5) == "completed"
    assert [v.line for v in check_stored(await store.load("t"), recorder)] == ["S11"]


class Hasty(MemoryStore):
    """Loses the answer of the second write; what it says next is noted by the recorder."""

    lost = False

    def append(
        self,
        saga_id: str,
        epoch: int,
        expected_seq: int,
        events: Sequence[Event],
        standing: Standing,
        created_at: float | None = None,
    ) -> Done:
        done = super().append(saga_id, epoch, expected_seq, events, standing, created_at)
        if not self.lost:
            self.lost = True
            raise Unavailable("the answer was lost")
        return done


async def test_after_a_lost_answer_the_runtime_reads_the_log_before_anything_else(recorder: Recorder) -> None:
    store = Hasty()
    assert await run(store, recorder, 5) == "completed"
    assert store.lost
    failed = [call for call in recorder.calls("t") if call.outcome == "Unavailable"]
    assert len(failed) == 1
    assert check_stored(await store.load("t"), recorder) == []


KILLED = """
import os, signal, sys
from compensate.authoring import Ctx
from compensate.testing.recorder import SqliteRecorder

recorder = SqliteRecorder(sys.argv[1])
with recorder.calling(Ctx(None, "s", "a"), {"n": 1}) as call:
    call.effect("made")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_killed_process_leaves_exactly_what_it_did(tmp_path: Path) -> None:
    path = tmp_path / "effects.db"
    here = SqliteRecorder(path)
    here.note("s", "before", "do", "begin")
    killed = subprocess.run([sys.executable, "-c", KILLED, path], env=dict(os.environ), check=False)
    assert killed.returncode == -signal.SIGKILL
    here.note("s", "after", "do", "begin")
    seen = [(x.order, x.node, x.kind, x.value) for x in here.effects()]
    here.close()
    assert seen == [
        (1, "before", "begin", None),
        (2, "a", "begin", b'{"n":1}'),
        (3, "a", "effect", b'"made"'),
        (4, "after", "begin", None),
    ]
