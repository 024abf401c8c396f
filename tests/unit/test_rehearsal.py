"""One scenario of a proof, looked at from near."""

from __future__ import annotations

import threading
import time

from compensate import Ctx, action, saga
from compensate.testing import FakeWorld
from compensate.testing.rehearsal import Rehearsal, Scene


def test_a_thread_of_a_process_that_has_ended_does_not_run_beside_the_next_process() -> None:
    lock, together, most = threading.Lock(), 0, 0

    @action
    def slow(ctx: Ctx[FakeWorld]) -> None:
        nonlocal together, most
        with lock:
            together += 1
            most = max(most, together)
        time.sleep(0.1)
        ctx.deps.apply(ctx.key)
        with lock:
            together -= 1

    @action
    async def quick(ctx: Ctx[FakeWorld]) -> None:
        ctx.deps.apply(ctx.key)

    @saga
    def both() -> None:
        slow()
        quick()

    rehearsal = Rehearsal(both, {}, FakeWorld.snapshot, FakeWorld, None)
    rehearsal.time.thread_patience = 0.0
    outcome = rehearsal.perform(Scene("", "", end_at=2))
    rehearsal.close()
    assert outcome.ended
    assert [event.type for event in outcome.writes[1]] == ["completed"]
    assert outcome.writes[1][0].node == "quick"
    assert outcome.stage.calls.count(("slow", "do", False)) == 2
    assert most == 1
    assert outcome.after == {"proof/slow/do": True, "proof/quick/do": True}


def test_an_ended_process_is_followed_by_one_with_a_higher_epoch_and_no_event_is_lost() -> None:
    @action
    async def step(ctx: Ctx[FakeWorld]) -> None:
        ctx.deps.apply(ctx.key)

    @saga
    def chain() -> None:
        first = step.options(name="first")()
        step.options(name="second").after(first)()

    for before in (True, False):
        rehearsal = Rehearsal(chain, {}, FakeWorld.snapshot, FakeWorld, None)
        outcome = rehearsal.perform(Scene("", "", end_at=2, end_before=before))
        rehearsal.close()
        assert outcome.ended
        assert outcome.status == "completed"
        assert [event.seq for event in outcome.events] == list(range(1, len(outcome.events) + 1))
        assert {event.epoch for event in outcome.events} == {1, 2}
        again = [event.type for event in outcome.events if event.node == "first"].count("started")
        assert again == (2 if before else 1)
