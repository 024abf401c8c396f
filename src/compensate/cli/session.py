"""One command's coordinator: it goes on with the sagas that it is told of, shows them, and drains at a signal."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, NoReturn, TypeVar

from compensate import stores
from compensate.cli import codes
from compensate.cli.live import Watch
from compensate.cli.loading import CliError, Code, deps_of
from compensate.cli.output import Command, Output, choices
from compensate.core import events as e
from compensate.core import states as s
from compensate.core.events import Event
from compensate.core.names import short_reason
from compensate.errors import IllegalRequest, Stopped
from compensate.inspection.snapshot import Snapshot
from compensate.inspection.timeline import Timeline
from compensate.render.lines import span
from compensate.runtime.coordinator import Coordinator
from compensate.runtime.runs import Run
from compensate.runtime.setting import require_deps
from compensate.stores import Store, redacted, store_exists

T = TypeVar("T")

TAKE_OVER: Final = 2.0
"""Seconds between two looks whether the process that runs a saga has died, so that it is gone on with here."""

_SIGNALS: Final = {signal.SIGINT: codes.INTERRUPTED, signal.SIGTERM: codes.TERMINATED}


class Interrupted(Exception):
    """A signal came; `code` is the exit code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def check_store(url: str) -> None:
    """Refuse a store that is not there: only `run` makes one.

    Raises:
        CliError: There is none.
        StoreUrlInvalid: The url names no store.
    """
    if not store_exists(url):
        raise CliError(
            f"no such store: {redacted(url)}; name the right one with --store or COMPENSATE_STORE ('run' makes one)",
            codes.STORE,
        )


@asynccontextmanager
async def reading(url: str) -> AsyncGenerator[Store, None]:
    """A store that is only looked into. It is not made if it is not there."""
    check_store(url)
    async with stores.reading(url) as store:
        yield store


class Session:
    """A coordinator for the sagas of one command.

    Args:
        out: Where to write.
        url: The store.
        code: The code that it knows.
        deps: `module:factory`.
        drain: Seconds for which a signal lets running actions land.
        live: Whether a saga is drawn live.
        several: Whether it is for many sagas.
    """

    def __init__(
        self,
        out: Output,
        url: str,
        code: Code,
        *,
        deps: str | None = None,
        drain: float = 10.0,
        live: bool = True,
        several: bool = False,
    ) -> None:
        self.out = out
        self.url = url
        self.code = code
        self.command = Command(out.name, url)
        self.watch = Watch(out, live=live, several=several)
        self._deps = deps
        self._drain = drain
        self._signal = asyncio.Event()
        self._code = 0
        self._coordinator: Coordinator | None = None
        self._running: dict[tuple[str, str], None] = {}
        """What runs here, by saga and node; a signal may come before its saga is shown."""

    @property
    def coordinator(self) -> Coordinator:
        """The coordinator; open inside `opened`."""
        assert self._coordinator is not None
        return self._coordinator

    @asynccontextmanager
    async def opened(self) -> AsyncGenerator[Session, None]:
        """Open deps, store and coordinator; at the end, or at a signal, drain."""
        self._catch_signals()
        async with deps_of(self._deps) as deps:
            given = "" if self._deps is None else f" (--deps {self._deps} gave None)"
            require_deps(self.code.actions(), deps, advice=f"give --deps module:factory{given}")
            self._coordinator = Coordinator(
                self.url,
                deps=deps,
                sagas=self.code.sagas,
                actions=self.code.actions(),
                recover=False,
                drain=self._drain,
                observers=[self.watch.take, self._note],
            )
            try:
                async with self._coordinator:
                    yield self
            finally:
                self.watch.end()

    def _note(self, saga_id: str, events: Sequence[Event]) -> None:
        for event in events:
            if event.type in (e.STARTED, e.UNDO_STARTED):
                self._running[saga_id, event.node] = None
            else:
                self._running.pop((saga_id, event.node), None)

    # -- signals -----------------------------------------------------------

    def _catch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number, code in _SIGNALS.items():
            loop.add_signal_handler(number, self._on_signal, code)

    def _on_signal(self, code: int) -> None:
        if self._signal.is_set():
            # Asked twice: at once. Every saga is as resumable as after a crash.
            self.watch.end()
            self.out.hint("stopped at once; what ran is in doubt until the saga is resumed")
            leave(code)
        self._code = code
        self._signal.set()
        if self._coordinator is not None:
            self._coordinator.stop()  # at once: what is said below must be true when it is read
        running = [path for _, path in self._running]
        if running:
            names = ", ".join(running[:5]) + (f" and {len(running) - 5} more" if len(running) > 5 else "")
            self.out.hint(
                f"stopping: waiting up to {span(self._drain)} for {names}; once more to stop at once"
            )

    async def unless_stopped(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for `work`, or for a signal.

        Raises:
            Interrupted: A signal came first; the work is cancelled.
        """
        task = asyncio.ensure_future(work)
        stopped = asyncio.ensure_future(self._signal.wait())
        try:
            await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if task.done() and not (self._signal.is_set() and isinstance(task.exception(), Stopped)):
                return task.result()
            raise Interrupted(self._code)
        finally:
            for one in (task, stopped):
                one.cancel()
            await asyncio.gather(task, stopped, return_exceptions=True)

    # -- sagas -------------------------------------------------------------

    async def see_through(self, saga_id: str) -> Timeline:
        """Show a saga, here or elsewhere, until its end. Its watch has been added."""
        timeline = self.watch.sagas[saga_id]
        taking_over = asyncio.create_task(self._take_over(saga_id))
        try:
            while not timeline.ended:
                async for event in self.coordinator.follow(saga_id, timeline.fold.seq):
                    self.watch.take(saga_id, (event,))
        finally:
            taking_over.cancel()
            await asyncio.gather(taking_over, return_exceptions=True)
        return timeline

    async def _take_over(self, saga_id: str) -> None:
        while True:
            await asyncio.sleep(TAKE_OVER)
            if self.coordinator.execution(saga_id) is None and not await self.misfit(saga_id):
                await self.coordinator.adopt(saga_id)

    async def misfit(self, saga_id: str) -> str:
        """Why the code that was given could not go on with a saga; `""` if it could."""
        return (await self.coordinator.get(saga_id)).misfit(self.code.registry)

    async def ask(self, saga_id: str, request: Coroutine[Any, Any, Run[Any]]) -> None:
        """Have an operator's request carried out, by whoever runs the saga or else here.

        Raises:
            IllegalRequest: It makes no sense now, or nobody runs the saga and its code was not given.
        """
        try:
            await self.unless_stopped(request)
        except IllegalRequest as error:
            misfit = await self.misfit(saga_id)
            if misfit and misfit in str(error):
                raise IllegalRequest(needs_code(saga_id, misfit)) from error
            raise


def needs_code(saga_id: str, misfit: str) -> str:
    """The message for a saga whose code was not given."""
    return (
        f"saga {saga_id} runs nowhere, and this command cannot go on with it: {misfit}; nothing was changed; "
        "say where its code is with --app module (or COMPENSATE_APP)"
    )


def resume_hint(timeline: Timeline, command: Command, apps: list[str]) -> str:
    """What to say of a saga that goes on later."""
    if command.store == "memory://":
        return f"saga {timeline.id} was in memory and is gone; give --store to make sagas survive"
    if timeline.fold.paused:
        return f"saga {timeline.id} is paused; go on with: {command('unpause', timeline.id, apps=apps)}"
    return f"saga {timeline.id} can be resumed: {command('resume', timeline.id, apps=apps)}"


def stuck_hints(snapshot: Snapshot, command: Command, apps: list[str]) -> list[str]:
    """What an operator can do about a stuck saga."""
    fold = snapshot.fold
    if fold.stuck is None:
        return []
    if fold.stuck.parked:
        resume = command("resume", snapshot.id, apps=apps)
        return [f"parked: {fold.stuck.parked}", f"  when code that knows it is back: {resume}"]
    lines: list[str] = []
    for node in fold.stuck.nodes:
        lines.append(f"{node.node} needs a decision: {short_reason(node.reason)}")
        lines += [f"  {typed}" for typed in choices(snapshot.id, node, command, apps)]
    return lines


def code_of(timeline: Timeline, *, wanted: s.SagaStatus = s.COMPLETED) -> int:
    """The exit code for a saga that was seen through."""
    return codes.OK if timeline.status == wanted else codes.of_status(timeline.status)


def leave(code: int) -> NoReturn:
    """End the process now: threads of actions that were left behind are not waited for."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
