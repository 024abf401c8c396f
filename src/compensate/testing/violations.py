"""What the checker reports."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from msgspec import Struct

from compensate.core.events import Event
from compensate.testing.recorder import Effect

Line = Literal[
    "S1",
    "S2",
    "S3",
    "S4",
    "S5",
    "S6",
    "S7",
    "S8",
    "S9",
    "S10",
    "S11",
    "S12",
    "pivot",
    "retry",
    "crash",
    "liveness",
]
"""A line of the guarantee. Besides S1 to S11: `S12`, a log with gaps or without a beginning; `pivot`, a rollback after
a pivot; `retry`, more attempts, or sooner ones, than the policy allows; `crash`, deaths that are miscounted, or a node
that was given up for them and runs again without a decision; `liveness`, a saga that did not end."""


class Violation(Struct, frozen=True):
    """One violated line.

    Attributes:
        line: Which.
        message: What is wrong, naming nodes.
        events: The events concerned.
        effects: The recorded effects concerned.
    """

    line: Line
    message: str
    events: tuple[Event, ...] = ()
    effects: tuple[Effect, ...] = ()

    def __str__(self) -> str:
        seen = [f"event {event.seq} {event.type} {event.node}".rstrip() for event in self.events]
        seen += [
            f"record {effect.order} {effect.direction} {effect.kind} {effect.node}" for effect in self.effects
        ]
        return f"{self.line}: {self.message}" + (f" ({'; '.join(seen)})" if seen else "")


class Report:
    """Collects violations; the same one is kept once."""

    def __init__(self) -> None:
        self.violations: list[Violation] = []

    def add(
        self, line: Line, message: str, events: Iterable[Event | None] = (), effects: Sequence[Effect] = ()
    ) -> None:
        """Report one."""
        shown = tuple(event for event in events if event is not None)
        violation = Violation(line, message, shown, tuple(effects))
        if violation not in self.violations:
            self.violations.append(violation)
