"""Sweeps: many histories, over several processes, added up."""

from __future__ import annotations

import gc
import multiprocessing
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from compensate.testing.simulation.generate import generate
from compensate.testing.simulation.history import play
from compensate.testing.simulation.scenario import Scenario, World
from compensate.testing.simulation.shrink import shrink
from compensate.testing.simulation.verdict import line, lines, violations

BATCH: Final = 200
"""How many histories a process plays before it reports."""

FAULTS: Final = (
    *(f"do: {word}" for word in (
        "fail", "fail_after", "unknown", "unknown_after", "unknown_late", "no_effect", "permanent", "slow", "late",
        "cut", "base", "unstorable", "timed_out", "grouped", "grouped_clean", "wrapped", "wrapped, and cancelled",
    )),
    *(f"undo: {word}" for word in (
        "fail", "fail_after", "permanent", "slow", "late", "cut", "grouped", "wrapped", "wrapped, and cancelled",
    )),
    "append_lost",
    "append_applied",
    "read_lost",
    "crash",
    "crash_before",
    "crash_after",
    "write lost in a crash",
    "pause",
    "lease ran out",
    "zombie",
    "shutdown",
    "adoption",
    "clock skew",
    "late effect",
    "kill: do",
    "kill: undo",
    "given up for deaths: in_doubt",
    "given up for deaths: undo_failed",
    "decided while paused",
    "start given up",
    "duplicate start",
    "start with other params",
    "request: rollback",
    "request: pause",
    "request: resume",
    "request: retry",
    "request: skip",
    "request: resolve",
)  # fmt: skip
"""Every kind of fault and request; in a sweep of some size none of them may stay away."""


class Failure(msgspec.Struct, frozen=True):
    """A history with violations."""

    seed: int
    violations: list[str]


class Report(msgspec.Struct):
    """What a sweep came to.

    Attributes:
        world: Of all its histories.
        seed: Of the first; the others follow by one.
        histories: How many.
        seconds: How long it took.
        virtual: Virtual seconds in all.
        ends: How many sagas came to which end.
        fired: How often each fault fired.
        violated: How often each line was violated.
        failures: The first histories with violations, by seed.
        failed: How many there are.
        digest: Over all digests.
    """

    world: World
    seed: int
    histories: int = 0
    seconds: float = 0.0
    virtual: float = 0.0
    ends: dict[str, int] = {}
    fired: dict[str, int] = {}
    violated: dict[str, int] = {}
    failures: list[Failure] = []
    failed: int = 0
    digest: int = 0

    @property
    def silent(self) -> list[str]:
        """Faults that never fired."""
        return [kind for kind in FAULTS if not self.fired.get(kind)]

    def add(self, other: Report) -> None:
        """Count another part of the sweep in."""
        self.histories += other.histories
        self.virtual += other.virtual
        self.failed += other.failed
        self.digest ^= other.digest
        self.ends = dict(Counter(self.ends) + Counter(other.ends))
        self.fired = dict(Counter(self.fired) + Counter(other.fired))
        self.violated = dict(Counter(self.violated) + Counter(other.violated))
        self.failures = sorted(self.failures + other.failures, key=lambda failure: failure.seed)[:20]


def run_batch(first: int, count: int, world: World) -> Report:
    """Play some histories."""
    report = Report(world, first, count)
    ends, fired, violated = Counter[str](), Counter[str](), Counter[str]()
    for seed in range(first, first + count):
        history = play(generate(seed, world))
        ends += history.ends
        fired += history.tape.fired
        report.virtual += history.time
        report.digest ^= (history.digest * 2_654_435_761 + seed) & 0xFFFFFFFFFFFF
        found = violations(history)
        if found:
            report.failed += 1
            violated += lines(found)
            report.failures.append(Failure(seed, found[:10]))
        if seed % 50 == 0:
            gc.collect()
    report.ends, report.fired, report.violated = dict(ends), dict(fired), dict(violated)
    report.failures = report.failures[:20]
    return report


def _batches(histories: int, seed: int, world: World) -> Iterator[tuple[int, int, World]]:
    for first in range(seed, seed + histories, BATCH):
        yield first, min(BATCH, seed + histories - first), world


def _run(batch: tuple[int, int, World]) -> Report:
    return run_batch(*batch)


def sweep(
    histories: int,
    seed: int,
    world: World = "keyed",
    jobs: int = 1,
    progress: Callable[[Report], None] = lambda _: None,
) -> Report:
    """Play many histories.

    Args:
        histories: How many.
        seed: Of the first; the others follow by one.
        world: Of all.
        jobs: In how many processes.
        progress: Told now and then how it stands.
    """
    total = Report(world, seed)
    began = time.perf_counter()

    def take(part: Report) -> None:
        total.add(part)
        total.seconds = time.perf_counter() - began
        progress(total)

    if jobs == 1:
        for batch in _batches(histories, seed, world):
            take(_run(batch))
    else:
        context = multiprocessing.get_context("spawn")  # a forked process would inherit threads and locks
        with context.Pool(jobs) as pool:
            for part in pool.imap_unordered(_run, _batches(histories, seed, world)):
                take(part)
    return total


def shrink_failure(scenario: Scenario, tries: int = 600) -> Scenario:
    """A small scenario that violates the line that `scenario` violates first."""
    wanted = line(violations(play(scenario))[0])
    return shrink(scenario, lambda other: wanted in lines(violations(play(other))), tries)
