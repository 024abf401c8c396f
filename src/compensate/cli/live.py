"""Showing sagas while they go on: a live tree on a terminal, a line an event elsewhere, nothing for JSON."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Final

from rich.console import Group
from rich.live import Live

from compensate.cli.output import Output
from compensate.cli.tree import tree
from compensate.core.events import Event
from compensate.inspection.snapshot import Snapshot
from compensate.inspection.timeline import Timeline
from compensate.render.lines import event_line

TICK: Final = 0.1
"""Seconds between two pictures of the live tree."""


class Watch:
    """Shows the sagas that it is given, as their events come.

    Args:
        out: Where.
        live: Whether a single saga is drawn live.
        several: Whether lines name their saga.
    """

    def __init__(self, out: Output, *, live: bool, several: bool = False) -> None:
        self.out = out
        self.sagas: dict[str, Timeline] = {}
        self._live_wanted = live and not several and out.terminal and not out.as_json
        self._lines = not out.as_json and not self._live_wanted
        self._several = several
        self._live: Live | None = None
        self._ticking: asyncio.Task[None] | None = None

    def add(self, snapshot: Snapshot, *, past: bool = False) -> Timeline:
        """Show one more saga; with `past`, also what has happened already."""
        known = self.sagas.get(snapshot.id)
        if known is not None:
            self.take(snapshot.id, snapshot.events)
            return known
        timeline = self.sagas[snapshot.id] = Timeline(snapshot.fold, snapshot.events)
        if past and self._lines:
            for event in snapshot.events:
                self._say(timeline, event)
        if self._live_wanted and self._live is None:
            self._begin(timeline)
        return timeline

    def take(self, saga_id: str, events: Sequence[Event]) -> None:
        """Take events of a saga; those of others, and those that are known, are passed over."""
        timeline = self.sagas.get(saga_id)
        if timeline is None:
            return
        # One by one: the length of an attempt is known only until the next one begins.
        for event in events:
            if timeline.feed((event,)) and self._lines:
                self._say(timeline, event)

    def _say(self, timeline: Timeline, event: Event) -> None:
        name = timeline.id if self._several else ""
        self.out.line(event_line(event, saga_id=name, took=timeline.took(event)))

    # -- live --------------------------------------------------------------

    def _begin(self, timeline: Timeline) -> None:
        live = Live(
            console=self.out.console,
            auto_refresh=False,
            # What is left on the screen in the end is drawn once more, whole.
            transient=True,
            vertical_overflow="crop",
            get_renderable=lambda: self._draw(timeline, whole=False),
        )
        live.start(refresh=True)
        self._live = live
        self._ticking = asyncio.create_task(self._tick(live))

    async def _tick(self, live: Live) -> None:
        while True:
            await asyncio.sleep(TICK)
            live.refresh()

    def _draw(self, timeline: Timeline, *, whole: bool) -> Group:
        size = self.out.console.size
        height = None if whole else size.height - 2
        return tree(timeline, time.time(), width=size.width, height=height, ascii_only=self.out.ascii)

    def end(self) -> None:
        """Stop drawing; what a live tree showed stays on the screen as it is now."""
        if self._ticking is not None:
            self._ticking.cancel()
            self._ticking = None
        if self._live is not None:
            live, self._live = self._live, None
            live.stop()
            for timeline in self.sagas.values():
                self.out.show(self._draw(timeline, whole=True))
