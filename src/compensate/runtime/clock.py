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
