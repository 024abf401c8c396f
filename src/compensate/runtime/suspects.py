"""Suspects: sagas during whose actions or undos several processes in a row have died, run one at a time.

When a process dies, every action that it ran may be the cause. One death says little, so those sagas are claimed at
full speed again. The sagas that were in flight at several deaths in a row are suspects: each of them is run alone
among suspects, so that the next death tells the guilty one from its neighbours.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

from compensate.runtime.execution import Execution
from compensate.runtime.host import Host

HEAD_START: Final = 0.5
"""Seconds for which a coordinator that has just opened runs everything else before its first suspect."""

TRIAL: Final = 60.0
"""Seconds after which a suspect that still runs makes room for the next one."""

Take: TypeAlias = Callable[[], Awaitable[tuple[bool, Execution | None]]]
"""Claims and adopts the next suspect. Returns whether to ask again, and its execution if it runs now."""


class Suspects:
    """Runs suspects for a host, least suspicious first.

    Args:
        host: Runs them.
        take: Claims the next one.

    Attributes:
        threshold: A saga of this suspicion is a suspect.
        trial: Seconds after which a suspect that still runs makes room for the next one.
    """

    def __init__(self, host: Host, take: Take) -> None:
        self._host = host
        self._take = take
        self._task: asyncio.Task[None] | None = None
        self.threshold = max(1, min(2, host.crashes - 1))
        self.trial = TRIAL

    def look(self) -> None:
        """Begin to run suspects in the background, unless that is going on already."""
        if not self._host.stopping and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._run(), name="suspects")

    def under_way(self) -> list[asyncio.Task[None]]:
        """The background task, if there is one; to be cancelled at shutdown."""
        return [] if self._task is None or self._task.done() else [self._task]

    async def _run(self) -> None:
        """Run suspects, one after the other, until none is left."""
        try:
            while not self._host.stopping:
                more, execution = await self._take()
                if execution is not None:
                    await self._watch(execution)
                if not more:
                    return
        except Exception as error:  # whatever it is, the next look begins again
            self._host.setting.report("suspects could not be claimed; trying again", error)

    async def _watch(self, execution: Execution) -> None:
        """Wait until the next suspect may be run: this one is cleared, is paused, has ended, or had its time."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self.trial
        while not execution.ended:
            machine = execution.machine
            left = until - loop.time()
            if machine.standing.deaths < self.threshold or machine.paused or left <= 0:
                return
            await asyncio.wait({execution.watch()}, timeout=left)
