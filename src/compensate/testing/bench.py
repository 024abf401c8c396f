"""A coordinator for tests: on a store in memory, on virtual time, with faults by node."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Final, Literal, Self, TypeVar

from compensate.authoring import Action
from compensate.core import events as e
from compensate.core import states as s
from compensate.core.events import Event
from compensate.core.plan import ACTION
from compensate.runtime.blocking import Connection
from compensate.runtime.coordinator import Coordinator
from compensate.runtime.inject import Inject
from compensate.stores.memory import MemoryStore
from compensate.testing.virtual_time import VirtualTime

T = TypeVar("T")

DAY: Final = 86_400.0

_ATTEMPTS: Final = frozenset({e.STARTED, e.FAILED, e.IN_DOUBT, e.UNDO_STARTED, e.UNDO_FAILED})
"""Events that, but for the first attempt, bring a saga no further."""


class VirtualCoordinator(Coordinator):
    """A coordinator whose sagas wait for nothing: retries, time limits and deadlines pass in virtual time.

    In an async test, whatever runs it, `async with coordinator:` puts the test's own event loop on virtual time for
    the length of the block; it has to be one of asyncio's selector loops. In a plain test,
    `with coordinator as c: c.run(...)` brings a loop along.

    Args:
        virtual_time: The time; new by default.
        options: As for `Coordinator`; the store is in memory unless given.

    Attributes:
        virtual_time: The time.
        faults: What `inject` ordered, by path of node.
        events: The events of each saga that became durable here, by id.
    """

    def __init__(self, virtual_time: VirtualTime | None = None, **options: Any) -> None:
        self.virtual_time = virtual_time or VirtualTime()
        self.faults: dict[str, Inject] = {}
        self.events: dict[str, list[Event]] = {}
        observers = [*options.pop("observers", ()), self._note]
        # Virtual time jumps from timer to timer: what looks around all the time would keep it from getting anywhere.
        defaults: dict[str, Any] = {"lease": DAY, "poll": DAY, "clock": self.virtual_time}
        super().__init__(
            options.pop("store", None) or MemoryStore(), observers=observers, **(defaults | options)
        )
        self._setting.inject = self.faults
        self.virtual_time.watchdog.describers.append(self._going_on)
        self._installed = ExitStack()

    @property
    def deps(self) -> Any:
        """What actions get as `ctx.deps`; may be set before anything runs."""
        return self._setting.deps

    @deps.setter
    def deps(self, deps: Any) -> None:
        self._setting.deps = deps

    def _require_deps(self, actions: Iterable[Action[..., Any]]) -> None:
        if self._entered:  # before that, `deps` may still be set
            super()._require_deps(actions)

    # -- faults ------------------------------------------------------------

    def inject(
        self,
        node: str,
        *,
        fail: Literal["", "before", "after"] = "",
        fail_undo: int = 0,
        repeat: int = 1,
        repeat_undo: int = 1,
    ) -> None:
        """Have something go wrong at a node (`ship`, `payment/authorize`, `reserve[0]`).

        Args:
            node: Its path.
            fail: Fail the action before its effect, or after it (its reply is lost: it is in doubt).
            fail_undo: Fail this many attempts of the undo; -1: all.
            repeat: Call the action this many times.
            repeat_undo: Call the undo this many times.
        """
        self.faults[node] = Inject(fail, fail_undo, repeat, repeat_undo)

    def check_faults(self) -> None:
        """Raise `AssertionError` if a fault was ordered that never happened: the test has shown nothing then."""
        for node, fault in self.faults.items():
            seen = {event.type for events in self.events.values() for event in events if event.node == node}
            wanted = [
                (bool(fault.fail), {e.FAILED, e.IN_DOUBT}, "its action never failed"),
                (bool(fault.fail_undo), {e.UNDO_FAILED}, "its undo never failed"),
                (fault.repeat > 1, {e.COMPLETED}, "its action never returned"),
                (fault.repeat_undo > 1, {e.UNDONE}, "its undo never returned"),
            ]
            for ordered, kinds, what in wanted:
                if ordered and not seen & kinds:
                    raise AssertionError(
                        f"inject({node!r}, ...): the fault never happened: {what}; is that the node's path?"
                    )

    def _note(self, saga_id: str, events: Sequence[Event]) -> None:
        self.events.setdefault(saga_id, []).extend(events)
        if any(event.type not in _ATTEMPTS or event.attempt == 1 for event in events):
            self.virtual_time.watchdog.progress()

    def _going_on(self) -> Iterator[str]:
        """The nodes that run, in words."""
        for saga_id, execution in self._host.live.items():
            machine = execution.machine
            for i, state in enumerate(machine.state):
                if machine.plan.kinds[i] == ACTION and state in (s.RUNNING, s.UNDOING):
                    what = "action" if state == s.RUNNING else "undo"
                    yield f"saga {saga_id}: the {what} of node {machine.plan.names[i]!r} is running"

    # -- life --------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """As `Coordinator`; the running loop is on virtual time from here."""
        self._installed.enter_context(self.virtual_time.installed(asyncio.get_running_loop()))
        try:
            await super().__aenter__()
        except BaseException:
            self._installed.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """As `Coordinator`; then the loop is given back to real time."""
        if self.virtual_time.watchdog.stalled:
            self._drain = 0.0  # what would never end is not waited for
        try:
            await super().__aexit__(kind, error, traceback)
        finally:
            self._installed.close()

    def __enter__(self) -> VirtualConnection:
        """The coordinator for code without an event loop."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            self._connection = VirtualConnection(self)
            return self._connection.__enter__()
        raise TypeError("an event loop runs here: use `async with coordinator:`")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Drain, release, close."""
        self._connection.__exit__(kind, error, traceback)


class VirtualConnection(Connection):
    """The blocking twin, on a loop of its own that turns only while it is asked for something."""

    def __init__(self, coordinator: VirtualCoordinator) -> None:
        super().__init__(coordinator)
        self.virtual_time = coordinator.virtual_time
        self._virtual_loop = self.virtual_time.new_loop()

    def __enter__(self) -> Self:
        """Open the store."""
        try:
            self.wait(self.coordinator.__aenter__())
        except BaseException:
            self._virtual_loop.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Drain, release, close."""
        try:
            self.wait(self.coordinator.__aexit__(kind, error, traceback))
            self.wait(self._virtual_loop.shutdown_asyncgens())
        finally:
            self._virtual_loop.close()
            self.virtual_time.close()

    def wait(self, coroutine: Coroutine[Any, Any, T], about: Sequence[str] = ()) -> T:
        """Run one coroutine to its end; time passes only here."""
        del about  # what an action raises out of this loop is raised here
        self.virtual_time.watchdog.progress()
        return self._virtual_loop.run_until_complete(coroutine)

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.wait(asyncio.sleep(seconds))
