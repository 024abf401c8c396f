"""Where time comes from: an injected clock, and nothing else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final, Protocol


class Clock(Protocol):
    """Tells the time that is written into logs.

    Waiting is left to the event loop; a test that wants to jump in time runs a loop whose time it turns itself.
    """

    def now(self) -> float:
        """Seconds since the Unix epoch."""
        ...


class SystemClock:
    """The machine's clock."""

    now = staticmethod(time.time)


SLACK: Final = 0.05
"""Seconds: two clocks are never read at just the same moment, so that one behind by less was not set back."""


class SteadyClock:
    """A clock that never goes back: setting the machine's clock back delays nothing that waits in this process.

    It tells the time of the clock below, or, while that is behind, the latest time that was told and what has passed
    since then by the event loop.

    Args:
        clock: The clock below.
    """

    __slots__ = ("_below", "_latest", "_passed", "_told_at")

    def __init__(self, clock: Clock) -> None:
        self._below = clock.now
        self._latest = 0.0
        self._told_at = 0.0
        self._passed: Callable[[], float] | None = None

    def now(self) -> float:
        """Seconds since the Unix epoch. To be called in the event loop."""
        told = self._below()
        passed = (self._passed or self._find_passed())()
        due = self._latest + (passed - self._told_at)
        if told < due - SLACK:
            told = due
        if told < self._latest:
            told = self._latest
        self._latest = told
        self._told_at = passed
        return told

    def _find_passed(self) -> Callable[[], float]:
        """What tells how much time has passed: the event loop, whose time a test may turn."""
        loop = asyncio.get_running_loop()
        is_plain = getattr(type(loop), "time", None) is asyncio.BaseEventLoop.time
        self._passed = time.monotonic if is_plain else loop.time
        self._told_at = self._passed()
        return self._passed
