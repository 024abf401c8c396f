"""An event loop on virtual time, whose every choice is drawn from one generator.

It is idle never: when nothing is ready, time jumps to the next timer. Code
belongs to a *process* (a context variable says which), and a process can be
crashed: what it had scheduled is dropped, so that not even its `finally` blocks
run; or paused: what it had scheduled waits, and goes on later without noticing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from functools import partial
from heapq import heappop, heappush
from random import Random
from typing import Any

from compensate.runtime.calls.threads import Job

Callback = Callable[..., object]


class Process:
    """A process of the simulated fleet: what crashes, or falls asleep, as one.

    Attributes:
        name: Unique in a history.
        alive: Whether it has not crashed.
        paused: Whether it is asleep.
        skew: How far its clock is ahead.
    """

    def __init__(self, name: str, loop: VirtualLoop, skew: float = 0.0) -> None:
        self.name = name
        self.alive = True
        self.paused = False
        self.skew = skew
        self._loop = loop
        self._asleep: list[Handle] = []
        self.context = copy_context()
        self.context.run(PROCESS.set, self)

    def now(self) -> float:
        """The time by this process's clock (it is the coordinator's `Clock`)."""
        return EPOCH + self._loop.now + self.skew

    def crash(self) -> None:
        """End it: nothing of it ever runs again."""
        self.alive = False
        self.paused = False
        self._asleep.clear()
        self._loop.disturbed = True

    def pause(self) -> None:
        """Put it to sleep."""
        if self.alive:
            self.paused = True
            self._loop.disturbed = True

    def wake(self) -> None:
        """Let it go on as if nothing had been."""
        if self.paused:
            self.paused = False
            asleep, self._asleep = self._asleep, []
            for handle in asleep:
                self._loop.push(handle)

    def defer(self, handle: Handle) -> None:
        """Keep what it was about to do until it wakes up."""
        self._asleep.append(handle)

    def spawn(self, coro: Coroutine[Any, Any, Any], name: str = "") -> asyncio.Task[Any]:
        """Run a coroutine as code of this process."""
        context = self.context.copy()
        task: asyncio.Task[Any] = context.run(self._loop.create_task, coro, name=name or None)
        return task


PROCESS: ContextVar[Process | None] = ContextVar("compensate_simulated_process", default=None)
"""Which process the running code belongs to; `None`: the world outside."""

EPOCH = 1_000_000.0
"""The wall clock when a history begins."""


class Handle:
    """A scheduled call."""

    __slots__ = ("args", "callback", "context", "dead", "when")

    def __init__(self, callback: Callback, args: tuple[Any, ...], context: Context, when: float) -> None:
        self.callback = callback
        self.args = args
        self.context = context
        self.when = when
        self.dead = False

    def cancel(self) -> None:
        """Do not call."""
        self.dead = True
        self.args = ()

    def cancelled(self) -> bool:
        """Whether it was cancelled."""
        return self.dead


class Spinning(Exception):
    """The history takes more steps than any sound one does."""


class VirtualLoop:
    """As much of an event loop as coroutines, tasks, futures, timers and `asyncio.timeout` ask for.

    Args:
        rng: Source of every choice.
        shuffle: Take what is ready in any order, not in the order in which it became so.
        most: Steps after which a history counts as spinning.
    """

    def __init__(self, rng: Random, *, shuffle: bool, most: int = 400_000) -> None:
        self.rng = rng
        self.now = 0.0
        self.disturbed = False
        self.tasks: list[asyncio.Task[Any]] = []
        self.complaints: list[dict[str, Any]] = []
        self.steps = 0
        self._most = most
        self._shuffle = shuffle
        self._ready: deque[Handle] = deque()
        self._timers: list[tuple[float, float, Handle]] = []
        self._count = 0
        self._outside = copy_context()

    # -- what asyncio asks for ---------------------------------------------

    def time(self) -> float:
        """Virtual seconds since the history began."""
        return self.now

    def get_debug(self) -> bool:
        """Never."""
        return False

    def is_running(self) -> bool:
        """While a history goes on."""
        return True

    def is_closed(self) -> bool:
        """Never."""
        return False

    def create_future(self) -> asyncio.Future[Any]:
        """A future of this loop."""
        loop: Any = self
        return asyncio.Future(loop=loop)

    def create_task(
        self, coro: Any, *, name: str | None = None, context: Context | None = None, **_: Any
    ) -> Any:
        """A task of this loop; remembered, so that `close_all` can end it quietly."""
        loop: Any = self
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=loop, name=name or "task", context=context)
        self.tasks.append(task)
        return task

    def call_soon(self, callback: Callback, *args: Any, context: Context | None = None) -> Handle:
        """Call when it is its turn."""
        handle = Handle(callback, args, copy_context() if context is None else context, self.now)
        self.push(handle)
        return handle

    def call_later(
        self, delay: float, callback: Callback, *args: Any, context: Context | None = None
    ) -> Handle:
        """Call after some virtual time."""
        return self.call_at(self.now + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Callback, *args: Any, context: Context | None = None) -> Handle:
        """Call at some virtual time."""
        handle = Handle(callback, args, copy_context() if context is None else context, when)
        self._count += 1
        heappush(self._timers, (when, self.rng.random() if self._shuffle else self._count, handle))
        return handle

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Keep the complaint; whoever reads the history judges it."""
        self.complaints.append(context)

    def run_in_executor(self, executor: Any, func: Callback, *args: Any) -> asyncio.Future[Any]:
        """Run a blocking function in a virtual thread of the process: in one step, some time from now."""
        future = self.create_future()
        context = copy_context()
        before, after = self.rng.random() * 0.1, self.rng.random() * 0.1
        self.call_later(before, self._in_thread, future, func, args, after, context=context)
        return future

    def _in_thread(
        self, future: asyncio.Future[Any], func: Callback, args: tuple[Any, ...], after: float
    ) -> None:
        call, end = (func.call, func.end) if isinstance(func, Job) else (func, _nothing)
        self._thread_step(future, partial(call, *args), after, end)

    def _thread_step(
        self, future: asyncio.Future[Any], call: Callable[[], Any], after: float, end: Callable[[], None]
    ) -> None:
        try:
            result = call()
        except BlocksFor as block:
            self.call_later(
                block.seconds, self._thread_step, future, block.then, after, end, context=copy_context()
            )
            return
        except BaseException as error:
            self.call_later(after, _fail, future, error, context=copy_context())
        else:
            self.call_later(after, _settle, future, result, context=copy_context())
        end()

    # -- running -----------------------------------------------------------

    def outside(self, delay: float, callback: Callback, *args: Any) -> Handle:
        """Call after some time, as the world outside of all processes."""
        return self.call_at(self.now + delay, callback, *args, context=self._outside)

    def push(self, handle: Handle) -> None:
        """Make a handle ready."""
        ready = self._ready
        ready.append(handle)
        if self._shuffle and len(ready) > 1:
            k = int(self.rng.random() * len(ready))
            ready[k], ready[-1] = ready[-1], ready[k]

    def run(self, until: Callable[[], bool]) -> None:
        """Run until `until()` holds (looked at whenever time is about to pass), or nothing is left to do.

        Raises:
            Spinning: It takes too many steps.
        """
        ready, timers = self._ready, self._timers
        loop: Any = self
        asyncio._set_running_loop(loop)
        try:
            while True:
                while ready:
                    handle = ready.popleft()
                    if handle.dead:
                        continue
                    if self.disturbed and not self._may_run(handle):
                        continue
                    self.steps += 1
                    if self.steps > self._most:
                        raise Spinning(f"{self.steps} steps by {self.now:.3f} s")
                    try:
                        handle.context.run(handle.callback, *handle.args)
                    except Exception as error:
                        self.complaints.append(
                            {"message": f"a callback raised: {error!r}", "exception": error}
                        )
                if until():
                    return
                while timers and timers[0][2].dead:
                    heappop(timers)
                if not timers:
                    return
                self.now = max(self.now, timers[0][0])
                while timers and timers[0][0] <= self.now:
                    handle = heappop(timers)[2]
                    if not handle.dead:
                        self.push(handle)
        finally:
            asyncio._set_running_loop(None)

    @staticmethod
    def _may_run(handle: Handle) -> bool:
        process = handle.context.get(PROCESS)
        if process is None:
            return True
        if process.paused:
            process.defer(handle)
            return False
        return process.alive

    def close_all(self) -> None:
        """End every coroutine that is left. What they do on their way out changes nothing any more."""
        loop: Any = self
        asyncio._set_running_loop(loop)
        for task in self.tasks:  # grows on the way
            if not task.done():
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                coro: Any = task.get_coro()
                with contextlib.suppress(RuntimeError):  # one that waits in a `finally` is dropped there
                    coro.close()
        asyncio._set_running_loop(None)
        self.tasks.clear()
        self._ready.clear()
        self._timers.clear()


class BlocksFor(BaseException):
    """Raised by a function in a virtual thread: it blocks for so long, and goes on with `then`."""

    def __init__(self, seconds: float, then: Callable[[], Any]) -> None:
        super().__init__(seconds)
        self.seconds = seconds
        self.then = then


def _nothing() -> None:
    pass


def _settle(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
