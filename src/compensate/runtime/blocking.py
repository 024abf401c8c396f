"""The blocking twin of the coordinator, for scripts: the same, behind a thread with an event loop.

asyncio raises `SystemExit` and `KeyboardInterrupt` out of `run_forever` when a task or callback raises one, and then
nothing on that loop is ever resolved. So the thread runs the loop again until the connection is closed, and remembers
the exception: the coordinator drains, and whoever waits is told.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import os
import threading
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Generic, ParamSpec, Self, TypeVar, overload

from compensate.authoring import Saga
from compensate.core import states as s
from compensate.core.events import Event
from compensate.errors import IllegalRequest, Stopped
from compensate.inspection.snapshot import Snapshot
from compensate.runtime.coordinator import Coordinator
from compensate.runtime.inject import NO_FAULTS, Faults
from compensate.runtime.runs import Run
from compensate.stores.base import Page, Store

P = ParamSpec("P")
T = TypeVar("T")

logger = logging.getLogger("compensate")

_LAST: Final = 1.0
"""Seconds for which the end of the loop waits for tasks that it has cancelled."""


class BlockingRun(Generic[T]):
    """A handle on one saga; see `Run`."""

    def __init__(self, connection: Connection, run: Run[T]) -> None:
        self.id = run.id
        self._connection = connection
        self._run = run

    def __repr__(self) -> str:
        return repr(self._run)

    def result(self) -> T:
        """Wait for the end; see `Run.result`.

        Raises:
            SystemExit: One of the saga's actions or undos raised it here, and it is raised on; `KeyboardInterrupt`
                likewise. No outcome of the action is recorded: the saga is resumable.
        """
        return self._connection.wait(self._run.result(), [self.id])

    def ended(self) -> s.SagaStatus:
        """Wait for the end and give the status; see `Run.ended`. Raises `SystemExit` as `result`."""
        return self._connection.wait(self._run.ended(), [self.id])

    def status(self) -> s.SagaStatus:
        """How the saga stands; see `Run.status`."""
        return self._connection.wait(self._run.status(), [self.id])

    def events(self, after: int = 0) -> Iterator[Event]:
        """The saga's events until its end; see `Run.events`. The iterator may be left before its end."""
        events = self._run.events(after)
        while True:
            try:
                yield self._connection.wait(_next(events), [self.id])
            except _Over:
                return
            except (
                GeneratorExit
            ):  # left half-way; it may be collected in any thread, so nothing is waited for
                self._connection.dismiss(events)
                raise


class _Over(Exception):
    """A generator has nothing more; `StopAsyncIteration` may not leave a coroutine."""


async def _next(events: Any) -> Event:
    try:
        event: Event = await anext(events)
    except StopAsyncIteration:
        raise _Over from None
    return event


async def _close(events: Any) -> None:
    with suppress(RuntimeError):  # a step of it is still being cancelled, and that ends it too
        await events.aclose()


class Connection:
    """A coordinator for code without an event loop. A context manager; made by `connect`.

    Any thread may use it, but for the one that runs its event loop: what an `async def` action or an observer calls
    runs there, and would wait for itself. A plain `def` action may use it, in its worker thread.

    `SystemExit` or `KeyboardInterrupt`, raised by an action or undo, ends the connection as it would end an event loop:
    it begins to drain. Whoever waits for that saga gets the exception itself, everybody else `Stopped` with the
    exception as its `__cause__`; if nobody got it, `__exit__` raises it.
    """

    def __init__(self, coordinator: Coordinator) -> None:
        self.coordinator = coordinator
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = os.getpid()
        self._lock = threading.Lock()
        """Held while a wait is begun, so that none begins on a loop that has run for the last time."""
        self._waits: set[concurrent.futures.Future[Any]] = set()
        self._exit: BaseException | None = None
        """The first `SystemExit` or `KeyboardInterrupt` that has come out of the loop."""
        self._told = False
        """Somebody got it."""

    # -- life --------------------------------------------------------------

    def __enter__(self) -> Self:
        """Open the store and go on with what was left behind; see `Coordinator.__aenter__`.

        In a thread that runs an event loop (an `async def`, a notebook), every wait blocks that loop; this is logged
        as a warning.

        Raises:
            IllegalRequest: It is open, or was; or `stop_on` was given, which needs an event loop in the main thread.
            StoreError: The store cannot be opened or read. Nothing is left running.
        """
        if self._loop is not None:
            self._check_process()
            raise IllegalRequest("this connection is open already; make another with compensate.connect")
        if _runs_a_loop():
            logger.warning(
                "connect is used in thread %r, which runs an event loop: each wait blocks that loop and all its "
                "tasks; use `async with Coordinator(...)` there",
                threading.current_thread().name,
            )
        self._pid = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._end_asked = asyncio.Event()
        self._thread = threading.Thread(
            target=self._live, args=(self._loop, self._end_asked), name="compensate", daemon=True
        )
        self._thread.start()
        try:
            self.wait(self.coordinator.__aenter__())
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Drain, release, close; see `Coordinator.close`. If it is interrupted (ctrl-C), it closes at once.

        In a process that was forked from the one that opened it, it does nothing: the store and its locks are the
        parent's.

        Raises:
            SystemExit: An action or undo raised it, and nobody was told; `KeyboardInterrupt` likewise.
        """
        if os.getpid() != self._pid:
            return
        self._check_thread()
        try:
            self._waited(self.coordinator.close())
        finally:
            self._end()
        if error is None and self._exit is not None and not self._told:
            self._told = True
            raise self._exit

    def _end(self) -> None:
        with self._lock:
            loop, self._loop = self._loop, None
        if loop is not None:
            loop.call_soon_threadsafe(self._end_asked.set)
            self._thread.join()

    def _live(self, loop: asyncio.AbstractEventLoop, end_asked: asyncio.Event) -> None:
        """What the thread does: run the loop until the end, whatever comes out of it meanwhile."""
        try:
            self._complete(loop, end_asked.wait())
            self._complete(loop, self._wind_up())
        finally:
            with self._lock:
                self._loop = None
                waits, self._waits = self._waits, set()
            for future in list(waits):
                with suppress(concurrent.futures.InvalidStateError):  # it is done
                    future.set_exception(self._stopped())
            loop.close()
            self.coordinator.loop_closed()

    def _complete(self, loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any]) -> None:
        task = loop.create_task(coroutine)
        while not task.done():
            try:
                loop.run_until_complete(task)
            except (SystemExit, KeyboardInterrupt) as error:
                if self._exit is None:
                    self._exit = error
                    logger.error(
                        "an action, undo or observer raised %r: the connection drains and ends", error
                    )
                loop.call_soon(self.coordinator.stop)
            except RuntimeError:
                if loop.is_closed():
                    raise
                logger.warning("something stopped the event loop of the connection; it goes on")

    async def _wind_up(self) -> None:
        """Leave nothing behind, also if the coordinator could not close by itself."""
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        if rest:
            await asyncio.wait(rest, timeout=_LAST)
        loop = asyncio.get_running_loop()
        with suppress(Exception):
            async with asyncio.timeout(_LAST):
                if not self.coordinator.closed:
                    await self.coordinator.store.close()  # its owner counts as dead from now on
                await loop.shutdown_asyncgens()

    # -- waiting -----------------------------------------------------------

    def wait(self, coroutine: Coroutine[Any, Any, T], about: Sequence[str] = ()) -> T:
        """Run one coroutine of the coordinator on its loop and wait for it.

        Args:
            coroutine: Which.
            about: The ids of the sagas that it is about; looked at when it is over.

        Raises:
            Stopped: The connection is not open, or ends because an action or undo raised `SystemExit` or
                `KeyboardInterrupt`, which is the `__cause__`.
            SystemExit: An action or undo of one of those sagas raised it; `KeyboardInterrupt` likewise.
            IllegalRequest: This is the thread of its event loop, which would wait for itself; or a process that was
                forked from the one that opened it. Nothing was done.
        """
        try:
            return self._waited(coroutine)
        except Stopped as stopped:
            exits = self.coordinator.exits
            error = next((exits[saga_id] for saga_id in about if saga_id in exits), None)
            if error is None:
                error = self._exit
                if error is None:
                    raise
                if self._told or exits:
                    raise stopped from error
            self._told = True
            raise error from None
        except (SystemExit, KeyboardInterrupt) as error:
            self._told = self._told or error is self._exit
            raise

    def _waited(self, coroutine: Coroutine[Any, Any, T]) -> T:
        try:
            self._check_process()
            self._check_thread()
            with self._lock:
                if self._loop is None:
                    raise self._stopped()
                future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
                self._waits.add(future)
        except BaseException:
            coroutine.close()
            raise
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise self._stopped() from None
        except BaseException:
            future.cancel()  # the wait is given up (say, by ctrl-C), the saga is not
            raise
        finally:
            self._waits.discard(future)

    def dismiss(self, events: Any) -> None:
        """See that an asynchronous generator of its loop is closed. Waits for nothing."""
        loop = self._loop
        if loop is not None and os.getpid() == self._pid:
            with suppress(RuntimeError):  # it has been closed meanwhile, and the generator with it
                loop.call_soon_threadsafe(lambda: loop.create_task(_close(events)))

    def _stopped(self) -> Stopped:
        return Stopped("the connection is not open; use it within `with`")

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise IllegalRequest(
                f"this connection belongs to process {self._pid}, from which this one was forked: its event loop does "
                "not run here; nothing was done; open one with compensate.connect in this process"
            )

    def _check_thread(self) -> None:
        if self._loop is not None and threading.current_thread() is self._thread:
            raise IllegalRequest(
                "this connection is used on its own event loop, which would wait for itself for ever; nothing was "
                "done; in an `async def` action or undo use `await connection.coordinator.run(...)` (or start, get, "
                "...), or a subsaga; a plain `def` action may use the connection; an observer may not wait"
            )

    @overload
    def run(self, saga: Saga[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
    @overload
    def run(self, saga: Saga[..., T], /, *args: Any, inject: Faults, **kwargs: Any) -> T: ...
    def run(self, saga: Any, /, *args: Any, inject: Any = NO_FAULTS, **kwargs: Any) -> Any:
        """Start a saga and wait for its end; see `Coordinator.run`.

        Raises: As `Coordinator.run`, and as `BlockingRun.result`.
        """
        begun: list[str] = []

        async def run() -> Any:
            run = await self.coordinator.start(saga, *args, inject=inject, **kwargs)
            begun.append(run.id)
            return await run.result()

        return self.wait(run(), begun)

    @overload
    def start(self, saga: Saga[P, T], /, *args: P.args, **kwargs: P.kwargs) -> BlockingRun[T]: ...
    @overload
    def start(self, saga: Saga[..., T], /, *args: Any, inject: Faults, **kwargs: Any) -> BlockingRun[T]: ...
    def start(self, saga: Any, /, *args: Any, inject: Any = NO_FAULTS, **kwargs: Any) -> BlockingRun[Any]:
        """Start a saga; see `Coordinator.start`."""
        return BlockingRun(self, self.wait(self.coordinator.start(saga, *args, inject=inject, **kwargs)))

    def adopt(self, saga_id: str) -> BlockingRun[Any]:
        """Go on with one saga; see `Coordinator.adopt`."""
        return BlockingRun(self, self.wait(self.coordinator.adopt(saga_id)))

    def attach(self, saga_id: str) -> BlockingRun[Any]:
        """A handle on a saga by its id; see `Coordinator.attach`."""
        return BlockingRun(self, self.coordinator.attach(saga_id))

    def get(self, saga_id: str) -> Snapshot:
        """A saga as it stands; see `Coordinator.get`."""
        return self.wait(self.coordinator.get(saga_id))

    def list(self, **filters: Any) -> Page:
        """Records of sagas; see `Coordinator.list`."""
        return self.wait(self.coordinator.list(**filters))

    def rollback(self, saga_id: str, **details: Any) -> BlockingRun[Any]:
        """See `Coordinator.rollback`."""
        return BlockingRun(self, self.wait(self.coordinator.rollback(saga_id, **details)))

    def pause(self, saga_id: str, **details: Any) -> BlockingRun[Any]:
        """See `Coordinator.pause`."""
        return BlockingRun(self, self.wait(self.coordinator.pause(saga_id, **details)))

    def resume(self, saga_id: str, **details: Any) -> BlockingRun[Any]:
        """See `Coordinator.resume`."""
        return BlockingRun(self, self.wait(self.coordinator.resume(saga_id, **details)))

    def retry(self, saga_id: str, node: str, **details: Any) -> BlockingRun[Any]:
        """See `Coordinator.retry`."""
        return BlockingRun(self, self.wait(self.coordinator.retry(saga_id, node, **details)))

    def skip(self, saga_id: str, node: str, **details: Any) -> BlockingRun[Any]:
        """See `Coordinator.skip`."""
        return BlockingRun(self, self.wait(self.coordinator.skip(saga_id, node, **details)))

    def resolve(self, saga_id: str, node: str, **details: Any) -> BlockingRun[Any]:
        """See `Coordinator.resolve`."""
        return BlockingRun(self, self.wait(self.coordinator.resolve(saga_id, node, **details)))


def _runs_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def connect(store: str | Store, **options: Any) -> Connection:
    """Open a coordinator for code without an event loop.

    Args:
        store: A url or a store.
        options: As for `Coordinator`.

    Returns:
        A context manager.
    """
    return Connection(Coordinator(store, **options))
