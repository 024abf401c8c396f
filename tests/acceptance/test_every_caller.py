"""Every caller gets an answer: one id is started, waited for, rolled back and followed in several processes at once.

Some of the processes are ended by SIGKILL or SIGTERM meanwhile. Each caller of a process that lives gets an answer,
each coordinator closes within its drain, and each saga is judged by what an outside recorder saw.
"""

from __future__ import annotations

import asyncio
import random
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from compensate.codec.records import decode_dag
from compensate.core import states as s
from compensate.errors import SagaNotFound
from compensate.stores import open_store
from compensate.stores.base import StoredSaga
from compensate.testing.checker import check, check_ended
from tests.support.callers import (
    HUNG,
    OUTPUT,
    OUTSIDE,
    PATIENCE,
    Answers,
    Call,
    Closed,
    Kind,
    Round,
    Worker,
    Workers,
)
from tests.support.outside import Outside
from tests.support.processes import url_of
from tests.support.shapes import BACK, SAGAS, Job

pytestmark = [pytest.mark.slow, pytest.mark.time_limit(3600)]

DRAIN = 2.0
"""Seconds for which a coordinator waits for its actions when it closes; they need far less."""

SLACK = 20.0
"""Seconds that a machine with other work may need besides."""

AT_ONCE = 5
"""How many rounds are made side by side, each with an id of its own."""

ENDED = 0.5
"""How often one of the workers is ended meanwhile."""

KINDS: tuple[Kind, ...] = (
    "run",
    "run",
    "start",
    "start",
    "result",
    "result",
    "rollback",
    "adopt",
    "events",
    "other",
)

ALLOWED = {
    "a saga's end": {"RolledBack", "Stuck", "saga_completed", "saga_rolled_back", "saga_stuck"},
    "a refusal": {"SagaExists", "SagaNotFound", "IllegalRequest"},
    "given up": {"TimeoutError"},
    "shut down": {"Stopped"},
}
OF_THE_LIVING = ALLOWED["a saga's end"] | ALLOWED["a refusal"] | ALLOWED["given up"]


class Sweep:
    """Rounds over one store.

    Args:
        folder: Where everything lies.
        kind: Of the store.
        processes: How many workers there are.
        seed: Of what is drawn.
    """

    def __init__(self, folder: Path, kind: str, processes: int, seed: int) -> None:
        self.folder = folder
        self.url = url_of(kind, folder)
        self.processes = processes
        self.draw = random.Random(f"{kind} {processes} {seed}")
        self.counts: Counter[str] = Counter()
        self.ids: list[str] = []

    async def run(self, rounds: int) -> None:
        """Do so many rounds."""
        async with Workers(self.folder, self.url, DRAIN) as workers:
            team = [await workers.make() for _ in range(self.processes)]
            for number in range(0, rounds, AT_ONCE):
                team = await self._rounds(range(number, number + AT_ONCE), team, workers)
            for worker in team:
                worker.dismiss()
            for worker in team:
                self._closed(worker, await asyncio.wait_for(worker.says(), DRAIN + SLACK))
        self.counts["rounds"] += rounds

    def _calls(self) -> list[Call]:
        draw = self.draw
        return [
            Call(
                draw.choice(KINDS),
                after=draw.choice((0.0, 0.0, draw.random() * 0.02)),
                patience=draw.random() * 0.02 if draw.random() < 0.15 else 0.0,
            )
            for _ in range(draw.randint(1, 6))
        ]

    async def _rounds(self, numbers: range, team: list[Worker], workers: Workers) -> list[Worker]:
        """Some rounds side by side, during which one of the workers may be ended."""
        draw = self.draw
        ending: dict[Worker, signal.Signals] = {}
        if draw.random() < ENDED:
            ending[draw.choice(team)] = draw.choice((signal.SIGKILL, signal.SIGTERM))
        told: dict[Worker, dict[str, Round]] = {worker: {} for worker in team}
        for number in numbers:
            shape = draw.choice(sorted(SAGAS))
            job = BACK[shape] if draw.random() < 0.3 else Job(pause=draw.choice((0.0, 0.005)))
            for worker in team:
                what = Round(f"saga{number}", shape, job, self._calls())
                told[worker][what.id] = what
                worker.tell(what)
            self.ids.append(f"saga{number}")
        after = draw.random() * 0.03
        left = [self._listen(worker, told[worker], ending.get(worker), after) for worker in team]
        staying = [worker for worker in await asyncio.gather(*left) if worker is not None]
        while len(staying) < self.processes:
            staying.append(await workers.make())
        return staying

    async def _listen(
        self, worker: Worker, told: dict[str, Round], number: signal.Signals | None, after: float
    ) -> Worker | None:
        """Take what one worker says to its rounds; `None` if it has ended, as it was told to."""
        if number is None:
            for _ in told:
                said = await worker.says()
                assert isinstance(said, Answers), self._output()
                self._judge(told[said.id], said, OF_THE_LIVING)
            return worker
        await asyncio.sleep(after)
        worker.kill(number)
        self.counts[number.name] += 1
        while (said := await asyncio.wait_for(worker.says(), PATIENCE + SLACK)) is not None:
            if isinstance(said, Answers):
                self._judge(told[said.id], said, OF_THE_LIVING | ALLOWED["shut down"])
                self.counts[f"answered at {number.name}"] += 1
            else:
                assert number == signal.SIGTERM
                self._closed(worker, said)
                self.counts["closed at SIGTERM"] += 1
        return None

    def _judge(self, what: Round, said: Answers, allowed: set[str]) -> None:
        assert len(said.answers) == len(what.calls)
        for call, answer in zip(what.calls, said.answers, strict=True):
            assert answer != HUNG, f"{what.id}: nobody answered {call}\n{said.stacks}\n{self._output()}"
            name = answer.partition(":")[0]
            completed = " after " in answer and name == answer
            assert completed or name in allowed, f"{what.id}: {call} was answered {answer!r}"
            assert name != "TimeoutError" or call.patience
            self.counts["calls"] += 1
            self.counts[f"answer {'completed' if completed else name}"] += 1

    def _closed(self, worker: Worker, said: object) -> None:
        assert isinstance(said, Closed), f"{worker.name} said {said}\n{self._output()}"
        assert said.seconds < DRAIN + SLACK

    def _output(self) -> str:
        output = self.folder / OUTPUT
        return output.read_text() if output.exists() else ""

    async def judge(self) -> None:
        """Hold every saga against what the outside recorder saw."""
        outside = Outside(self.folder / OUTSIDE)
        effects = outside.effects()
        outside.close()
        store = open_store(self.url)
        await store.open()
        by_saga: dict[str, list[Any]] = {}
        for effect in effects:
            by_saga.setdefault(effect.saga, []).append(effect)
        for saga_id in self.ids:
            try:
                stored: StoredSaga = await store.load(saga_id)
            except SagaNotFound:  # nobody started it, or whoever did was ended first
                assert saga_id not in by_saga
                self.counts["never stored"] += 1
                continue
            mine = by_saga.get(saga_id, [])
            violations = check(decode_dag(stored.dag), stored.events, mine, saga_id=saga_id)
            assert not violations, "\n".join(map(str, violations))
            assert not check_ended({saga_id: stored.events})
            assert stored.record.status in (s.COMPLETED, s.ROLLED_BACK)
            changes = Counter((x.node, x.direction) for x in mine if x.kind == "effect")
            assert all(count == 1 for count in changes.values()), f"done more than once: {changes}"
            self.counts[stored.record.status] += 1
        await store.close()


async def _sweep(
    folder: Path, kind: str, processes: int, rounds: int, seed: int, note: Callable[[str, object], None]
) -> None:
    sweep = Sweep(folder, kind, processes, seed)
    await sweep.run(rounds)
    await sweep.judge()
    counts = sweep.counts
    note("callers", f"{kind}, {processes} processes, seed {seed}: {dict(sorted(counts.items()))}")
    assert counts[s.COMPLETED]
    assert counts[s.ROLLED_BACK]
    assert counts["SIGKILL"] >= 1
    assert counts["SIGTERM"] >= 1
    assert counts["answered at SIGTERM"] > counts["SIGTERM"]
    assert counts["closed at SIGTERM"] == counts["SIGTERM"]
    for answer in ("completed", "RolledBack", "SagaExists", "SagaNotFound", "TimeoutError"):
        assert counts[f"answer {answer}"], (
            f"no caller was answered {answer}; the rounds are too tame: {counts}"
        )


@pytest.mark.parametrize("processes", [2, 4])
@pytest.mark.parametrize("kind", ["sqlite", "file"])
async def test_every_caller_in_several_processes_gets_an_answer(
    tmp_path: Path, kind: str, processes: int, seed: int, record_property: Callable[[str, object], None]
) -> None:
    await _sweep(tmp_path, kind, processes, 50, seed, record_property)


@pytest.mark.deep
@pytest.mark.parametrize("processes", [2, 4])
@pytest.mark.parametrize("kind", ["sqlite", "file"])
async def test_every_caller_gets_an_answer_in_thousands_of_rounds(
    tmp_path: Path, kind: str, processes: int, seed: int, record_property: Callable[[str, object], None]
) -> None:
    await _sweep(tmp_path, kind, processes, 750, seed, record_property)
