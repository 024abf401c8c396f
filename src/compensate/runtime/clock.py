"""Where time comes from: an injected clock, and nothing else."""

from __future__ import annotations

import time
from typing import Protocol


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


class SteadyClock:
    """A clock that never goes back: setting the machine's clock back delays nothing that waits in this process.

    When the clock below is set back, this one goes on from the latest time that it told, and runs ahead of the clock
    below from then on.

    Args:
        clock: The clock below.
    """

    __slots__ = ("_ahead", "_below", "_latest")

    def __init__(self, clock: Clock) -> None:
        self._below = clock.now
        self._latest = 0.0
        self._ahead = 0.0

    def now(self) -> float:
        """Seconds since the Unix epoch."""
        time = self._below() + self._ahead
        if time < self._latest:
            self._ahead += self._latest - time
            return self._latest
        self._latest = time
        return time
