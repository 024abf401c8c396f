"""The watchdog of virtual time: ends a test in which time passes and nothing happens.

Virtual time jumps from timer to timer, so code that waits for something that time does not bring (it polls the real
clock, or awaits what never comes) would turn the event loop for ever, at full speed.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

YEAR: Final = 365 * 86_400.0

WAKE_UPS: Final = 200_000
"""Jumps of virtual time without progress after which a test is given up."""

LONGEST: Final = 20 * YEAR
"""Virtual seconds without progress after which a test is given up."""

TURNS: Final = 1_000_000
"""Turns of the event loop in a row in which no time passes, after which a test is given up."""

PATIENT_TURNS: Final = 100_000
"""Turns of the event loop in a row after which time passes as it really does: somebody polls without sleeping."""

_PACKAGE: Final = os.fspath(Path(__file__).parent.parent)
_ASYNCIO: Final = os.fspath(Path(asyncio.__file__).parent)
_MOST: Final = 12


class VirtualTimeStalled(AssertionError):
    """On virtual time, time passes and nothing happens any more, or nothing can happen any more.

    The message names the nodes that run and the tasks that wait, with the lines at which they do.
    """


class Watchdog:
    """Counts what passes while no saga gets any further.

    Attributes:
        describers: Give more lines about what is going on, for the message.
        stalled: Whether it has given up.
    """

    def __init__(self) -> None:
        self.describers: list[Callable[[], Iterable[str]]] = []
        self.stalled = False
        self._jumps = 0
        self._passed = 0.0
        self._turns = 0

    def progress(self) -> None:
        """Something happened: a saga got further, a thread or socket spoke, a test asked for something."""
        self._jumps = self._turns = 0
        self._passed = 0.0

    def jumped(self, seconds: float) -> None:
        """Time has jumped.

        Raises:
            VirtualTimeStalled: It has done so too often, or too far, with nothing coming of it.
        """
        self._turns = 0
        self._jumps += 1
        self._passed += seconds
        if self._jumps >= WAKE_UPS or self._passed >= LONGEST:
            self.give_up(
                f"{self._jumps:,} timers rang in a row, over {_span(self._passed)} of virtual time, and no saga got "
                "any further"
            )

    def turned(self) -> bool:
        """The event loop has turned and there is more to do at once; whether real time should pass meanwhile.

        Raises:
            VirtualTimeStalled: It has done so too often.
        """
        self._turns += 1
        if self._turns >= TURNS:
            self.give_up(f"the event loop turned {self._turns:,} times in a row without anybody sleeping")
        return self._turns > PATIENT_TURNS

    def give_up(self, what: str) -> None:
        """Raise `VirtualTimeStalled` with all that is known.

        Args:
            what: What was noticed.
        """
        self.stalled = True
        self.progress()  # what is cleared away now takes its time
        going_on = [line for describe in self.describers for line in describe()]
        waiting = list(_tasks())
        shown = [*going_on, *waiting][:_MOST]
        raise VirtualTimeStalled(
            f"virtual time: {what}. Something waits for what virtual time does not bring: it polls the real clock "
            "(time.time(), time.monotonic(), datetime.now()), a thread of its own or an outside system, or it awaits "
            "an event that nobody sets. Read the time from ctx.now(), the fixture virtual_time or the event loop's "
            "time(), and wait with asyncio.sleep(); have deps stand in for what is outside.\n"
            + "\n".join(f"  {line}" for line in shown or ["no task is waiting"])
        )


def _tasks() -> Iterable[str]:
    """The tasks of the running loop, and where user code in them stands."""
    for task in sorted(asyncio.all_tasks(), key=lambda task: task.get_name()):
        where = _user_frame(task.get_coro())
        if where:
            yield f"task {task.get_name()!r} waits {where}"


def _user_frame(coro: Any) -> str:
    """The innermost place of a suspended coroutine that is neither asyncio's nor ours."""
    found = ""
    for _ in range(1_000):
        frame = (
            getattr(coro, "cr_frame", None)
            or getattr(coro, "gi_frame", None)
            or getattr(coro, "ag_frame", None)
        )
        if frame is None:
            break
        code = frame.f_code
        if not code.co_filename.startswith((_PACKAGE, _ASYNCIO)):
            found = f"in {code.co_qualname}, {code.co_filename}:{frame.f_lineno}"
        for name in ("cr_await", "gi_yieldfrom", "ag_await"):
            inner = getattr(coro, name, None)
            if inner is not None:
                break
        else:
            break
        coro = inner
    return found


def _span(seconds: float) -> str:
    for unit, length in (("years", YEAR), ("days", 86_400.0), ("hours", 3_600.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.0f} {unit}"
    return f"{seconds:,.0f} seconds"
