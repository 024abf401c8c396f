"""The blocking twin of the coordinator, for scripts: the same, behind a thread with an event loop."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import Coroutine, Iterator
from types import TracebackType
from typing import Any, Final, Generic, ParamSpec, Self, TypeVar, overload

from compensate.authoring import Saga
from compensate.core import states as s
from compensate.core.events import Event
from compensate.errors import IllegalRequest, Stopped
from compensate.runtime.coordinator import Coordinator
from compensate.runtime.inject import NO_FAULTS, Faults
from compensate.runtime.runs import Run, Snapshot
from compensate.stores.base import Page, Store

P = ParamSpec("P")
T = TypeVar("T")

_LAST_ANSWERS: Final = 1.0
"""Seconds for which the loop goes on after the coordinator was closed, for the answers to other threads."""


class BlockingRun(Generic[T]):
    """A handle on one saga; see `Run`."""

    def __init__(self, connection: Connection, run: Run[T]) -> None:
        self.id = run.id
        self._connection = connection
        self._run = run

    def __repr__(self) -> str:
        return repr(self._run)

    def result(self) -> T:
        """Wait for the end; see `Run.result`."""
        return self._connection.wait(self._run.result())

    def ended(self) -> s.SagaStatus:
        """Wait for the end and give the status; see `Run.ended`."""
        return self._connection.wait(self._run.ended())

    def status(self) -> s.SagaStatus:
        """How the saga stands; see `Run.status`."""
        return self._connection.wait(self._run.status())

    def events(self, after: int = 0) -> Iterator[Event]:
        """The saga's events until its end; see `Run.events`."""
        events = self._run.events(after)
        while True:
            try:
                yield self._connection.wait(_next(events))
            except _Over:
                return


class _Over(Exception):
    """A generator has nothing more; `StopAsyncIteration` may not leave a coroutine."""


async def _next(events: Any) -> Event:
    try:
        event: Event = await anext(events)
    except StopAsyncIteration:
        raise _Over from None
    return event


class Connection:
    """A coordinator for code without an event loop. A context manager; made by `connect`."""

    def __init__(self, coordinator: Coordinator) -> None:
        self.coordinator = coordinator
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()
        self._waits: set[concurrent.futures.Future[Any]] = set()
        """What threads wait for just now."""

    def __enter__(self) -> Self:
        """Open the store and go on with what was left behind; see `Coordinator.__aenter__`."""
        if self._loop is not None:
            raise IllegalRequest("this connection is open already")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, args=[self._loop], name="compensate", daemon=True)
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
        """Drain, release, close; see `Coordinator.close`."""
        try:
            self.wait(self.coordinator.close())
        finally:
            self._end()

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        """Run the loop; whatever ends it, no other thread goes on waiting for what it no longer does."""
        try:
            loop.run_forever()
        finally:
            with self._lock:
                self._loop = None
                waits = list(self._waits)
            for wait in waits:
                with contextlib.suppress(concurrent.futures.InvalidStateError):  # it has its answer
                    wait.set_exception(Stopped("the connection was closed before there was an answer"))
            loop.close()

    def _end(self) -> None:
        with self._lock:
            loop, self._loop = self._loop, None
            waits = list(self._waits)
        if loop is not None:
            # Other threads that wait are answered by the coordinator, which has been closed, within moments.
            concurrent.futures.wait(waits, timeout=_LAST_ANSWERS)
            with contextlib.suppress(RuntimeError):  # it is closed: its thread has died
                loop.call_soon_threadsafe(loop.stop)
            self._thread.join()

    def wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run one coroutine of the coordinator on its loop and wait for it.

        Raises:
            Stopped: The connection is not open, or was closed before there was an answer.
        """
        with self._lock:
            if self._loop is None:
                coroutine.close()
                raise Stopped("the connection is not open; use it within `with`")
            future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
            self._waits.add(future)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # the wait is given up (say, by ctrl-C), the saga is not
            raise
        finally:
            self._waits.discard(future)

    @overload
    def run(self, saga: Saga[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
    @overload
    def run(self, saga: Saga[..., T], /, *args: Any, inject: Faults, **kwargs: Any) -> T: ...
    def run(self, saga: Any, /, *args: Any, inject: Any = NO_FAULTS, **kwargs: Any) -> Any:
        """Start a saga and wait for its end; see `Coordinator.run`."""
        return self.wait(self.coordinator.run(saga, *args, inject=inject, **kwargs))

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


def connect(store: str | Store, **options: Any) -> Connection:
    """Open a coordinator for code without an event loop.

    Args:
        store: A url or a store.
        options: As for `Coordinator`.

    Returns:
        A context manager.
    """
    return Connection(Coordinator(store, **options))
