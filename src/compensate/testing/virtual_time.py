"""Virtual time for tests: an event loop that does not wait.

When everything in the loop waits for time to pass, it passes at once. Worker threads and sockets are real, so time
does not jump while a thread works, nor while the other end of a socket may still answer. The simulation has a loop of
its own that is stricter: it knows no threads and no sockets, and draws every choice from a seed.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import selectors
import threading
import time
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from functools import partial
from heapq import heappush
from typing import Any, Final

from compensate.testing.stalls import Watchdog

EPOCH: Final = 1_700_000_000.0
"""The wall clock when virtual time begins."""


_RESOLUTION: Final = 1e-9

_LAST_PATIENCE: Final = 10.0
"""Real seconds of silence after which a loop that has no timer is given up."""

_POOL: Final = "compensate-test"
"""How the names of our own threads begin."""


class VirtualTime:
    """Time that a test turns. It is the `Clock` of a coordinator, too.

    Args:
        io_patience: Real seconds of silence after which time may jump although sockets are open.
        thread_patience: Real seconds for which the loop stands still for a thread, so that runs repeat exactly; then it
            goes on beside it, in real time.
        stranger_patience: Real seconds for which time passes as it really does beside a thread that user code has
            started by itself; nobody can tell whether such a thread works or idles. `None`: not at all.

    Attributes:
        watchdog: Ends the test when time passes and nothing happens.
    """

    def __init__(
        self, *, io_patience: float = 0.5, thread_patience: float = 2.0, stranger_patience: float | None = 0.5
    ) -> None:
        self.io_patience = io_patience
        self.thread_patience = thread_patience
        self.watchdog = Watchdog()
        self._young = None if stranger_patience is None else _Young(stranger_patience)
        self.elapsed = 0.0
        """Virtual seconds since the beginning."""
        self._busy = 0
        self._parked: set[_Call] = set()
        self._pool: ThreadPoolExecutor | None = None

    def now(self) -> float:
        """The wall clock."""
        return EPOCH + self.elapsed

    def time(self) -> float:
        """The loop's clock."""
        return self.elapsed

    def jump(self, seconds: float) -> None:
        """Let time pass."""
        self.elapsed += seconds
        if self.elapsed + _RESOLUTION == self.elapsed:
            # After half a year a float holds no nanoseconds any more, by which asyncio goes beyond the time of a timer.
            self.elapsed = math.nextafter(self.elapsed, math.inf)

    # -- loops -------------------------------------------------------------

    def new_loop(self) -> VirtualLoop:
        """A new event loop on this time. Close it when done."""
        return VirtualLoop(self)

    @contextmanager
    def installed(self, loop: asyncio.AbstractEventLoop) -> Generator[None]:
        """Put a loop that somebody else made (a test runner) on this time, for as long as the block lasts.

        Raises:
            TypeError: It is no selector loop of asyncio's.
        """
        if isinstance(loop, VirtualLoop):
            yield
            return
        real = getattr(loop, "_selector", None)
        if not isinstance(loop, asyncio.BaseEventLoop) or not isinstance(real, selectors.BaseSelector):
            raise TypeError(
                f"virtual time needs one of asyncio's own selector loops, not a {type(loop).__name__}"
            )
        changes: dict[str, Any] = {
            "time": self.time,
            "_selector": _Selector(real, self),
            "run_in_executor": partial(self.run_in_thread, loop),
        }
        # asyncio has no public way to change a loop that runs already; what it is made of has stood since Python 3.4.
        # Timers that are set already are the runner's own, such as a test's time limit: they keep to real time, and
        # ring when the block is over.
        inside: Any = loop
        real_timers: list[Any] = inside._scheduled
        changes["_scheduled"] = []
        for name, value in changes.items():
            setattr(loop, name, value)
        try:
            yield
        finally:
            inside._selector = real
            del inside.time
            del inside.run_in_executor
            virtual_timers: list[Any] = inside._scheduled
            inside._scheduled = real_timers
            for handle in virtual_timers:  # what outlives the block goes on in real time
                handle._when += loop.time() - self.elapsed
                heappush(real_timers, handle)
            self.close()

    def close(self) -> None:
        """End the threads."""
        for call in list(self._parked):
            call.abort()
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=False)

    # -- threads -----------------------------------------------------------

    def run_in_thread(
        self, loop: asyncio.AbstractEventLoop, _executor: object, fn: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """`loop.run_in_executor`: really in a thread, while the loop stands still for it."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(32, thread_name_prefix=_POOL)
        call = _Call(self, loop, partial(fn, *args))
        self.began(call)
        self._pool.submit(call.run)
        call.settled.wait(self.thread_patience)
        return call.future

    def sleep(self, seconds: float) -> None:
        """Sleep in virtual time, in a worker thread of this time's loops."""
        _here.call.sleep(seconds)

    def call_in_loop(self, fn: Callable[[], Any]) -> Any:
        """From a worker thread: run `fn` (also one that gives an awaitable) in the loop, and wait for what it gives."""
        return _here.call.in_loop(fn)

    # How many threads work is known to the loop's own thread alone.

    def began(self, call: _Call) -> None:
        """A thread starts to work, or goes on."""
        self._busy += 1
        self._parked.discard(call)

    def rests(self, call: _Call, *, parked: bool) -> None:
        """A thread has ended, or waits for the loop."""
        self._busy -= 1
        if parked:
            self._parked.add(call)

    @property
    def busy(self) -> bool:
        """Whether a thread works."""
        return self._busy > 0

    def awaits_strangers(self) -> float:
        """Real seconds for which a thread that user code started by itself may still be at work."""
        return 0.0 if self._young is None else self._young.left()


class _Young:
    """Threads that user code started by itself a short time ago. Those that were there when this was made are none."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._known = set(threading.enumerate())
        self._until: dict[threading.Thread, float] = {}

    def left(self) -> float:
        """Real seconds until all of them have ended or are old."""
        alive = threading.enumerate()
        if len(alive) == 1:
            return 0.0
        left = 0.0
        for thread in alive:
            if thread in self._known or thread.name.startswith(_POOL) or thread is threading.current_thread():
                continue
            until = self._until.setdefault(thread, time.monotonic() + self._patience)
            left = max(left, until - time.monotonic())
            if until <= time.monotonic():
                self._known.add(thread)
        return left


class Strangers:
    """Threads that user code started by itself and does not wait for.

    Nobody can tell whether such a thread is at work or only there (a pool's, a connection's), so they are waited for,
    for a short time. Those that were there when this was made are none.

    Args:
        patience: Real seconds for which they are waited for, each time.
    """

    def __init__(self, patience: float = 0.2) -> None:
        self.patience = patience
        self._known = set(threading.enumerate())

    @contextmanager
    def welcomed(self) -> Generator[None]:
        """What is started in the block is no stranger: the servers of a test's world."""
        before = set(threading.enumerate())
        yield
        self._known |= set(threading.enumerate()) - before

    def leave(self) -> Generator[None]:
        """Wait for them; goes on (yields) now and then."""
        until = time.monotonic() + self.patience
        ours = self._known | {threading.current_thread()}
        for thread in threading.enumerate():
            if thread in ours or thread.name.startswith(_POOL):
                continue
            while thread.is_alive() and time.monotonic() < until:
                time.sleep(0.002)  # not `join`: threads that Python did not start cannot be joined
                yield


class _Here(threading.local):
    call: _Call


_here = _Here()


class _Call:
    """A function in a worker thread."""

    def __init__(self, owner: VirtualTime, loop: asyncio.AbstractEventLoop, fn: Callable[[], Any]) -> None:
        self.owner = owner
        self.loop = loop
        self.future: asyncio.Future[Any] = loop.create_future()
        self.settled = threading.Event()
        self._fn = fn
        self._wake = threading.Event()
        self._gone = False

    def run(self) -> None:
        """In the thread."""
        _here.call = self
        result: Any = None
        error: BaseException | None = None
        try:
            result = self._fn()
        except BaseException as raised:
            error = raised
        self._post(partial(self._deliver, result, error))
        self.settled.set()

    def _post(self, fn: Callable[[], Any]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits for it any more
            self.loop.call_soon_threadsafe(fn)

    def _deliver(self, result: Any, error: BaseException | None) -> None:
        self.owner.rests(self, parked=False)
        if self.future.done():
            return
        if error is None:
            self.future.set_result(result)
        elif isinstance(error, StopIteration):
            self.future.set_exception(RuntimeError("a function in a thread raised StopIteration"))
        else:
            self.future.set_exception(error)

    def sleep(self, seconds: float) -> None:
        """In the thread."""
        self._park(lambda: self.loop.call_later(seconds, self.resume))

    def in_loop(self, fn: Callable[[], Any]) -> Any:
        """In the thread."""
        box: list[Any] = []

        async def work() -> None:
            try:
                value = fn()
                box.append((await value if hasattr(value, "__await__") else value, None))
            except Exception as error:
                box.append((None, error))
            self.resume()

        tasks: list[asyncio.Task[None]] = []
        self._park(lambda: tasks.append(self.loop.create_task(work())))
        value, error = box[0]
        if error is not None:
            raise error
        return value

    def _park(self, begin: Callable[[], Any]) -> None:
        def rest() -> None:
            self.owner.rests(self, parked=True)
            begin()

        self._wake.clear()
        self._post(rest)
        self.settled.set()
        self._wake.wait()
        if self._gone:
            raise SystemExit("its process has ended")

    def resume(self) -> None:
        """In the loop: let the thread go on, and stand still for it."""
        self.settled.clear()
        self.owner.began(self)
        self._wake.set()
        self.settled.wait(self.owner.thread_patience)

    def abort(self) -> None:
        """In the loop: end a thread that is parked."""
        self._gone = True
        self.resume()


class _Selector(selectors.BaseSelector):
    """Where a loop waits: lets time pass instead, whenever nothing real can happen."""

    def __init__(self, real: selectors.BaseSelector, owner: VirtualTime) -> None:
        self._real = real
        self._owner = owner
        self._turned = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        owner = self._owner
        if timeout is not None and timeout <= 0:
            if owner.watchdog.turned():
                now = time.monotonic()
                owner.elapsed += now - (self._turned or now)
                self._turned = now
            return self._real.select(0)
        self._turned = 0.0
        began = time.monotonic()
        if owner.busy:
            ready = self._real.select(timeout)
        else:
            ready = self._real.select(0)
            if not ready:
                ready = self._real.select(self._patience(timeout))
            if not ready and not owner.awaits_strangers():
                if timeout is None:
                    owner.watchdog.give_up(
                        "no timer is set, and neither a thread nor a socket can wake anything"
                    )
                else:
                    owner.jump(timeout)
                    owner.watchdog.jumped(timeout)
                    return ready
        if ready:
            owner.watchdog.progress()
        passed = time.monotonic() - began
        owner.elapsed += passed if timeout is None else min(passed, timeout)
        return ready

    def _patience(self, timeout: float | None) -> float:
        """Real seconds to wait for something to happen outside of the loop, while no thread of the loop's own works."""
        owner = self._owner
        patience = owner.awaits_strangers()
        if len(self._real.get_map()) > 1:  # one is the loop's own
            patience = max(patience, owner.io_patience)
        if timeout is None:
            return max(patience, _LAST_PATIENCE)
        return min(timeout, patience)

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.modify(fileobj, events, data)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._real.get_map()

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.get_key(fileobj)

    def close(self) -> None:
        self._real.close()


class Life:
    """A process of the test's: code that can be ended as `kill -9` ends it. Nothing of it runs on, not even `finally`.

    Attributes:
        ended: Whether it was ended.
        over: Done when it is.
    """

    def __init__(self, loop: VirtualLoop) -> None:
        self.ended = False
        self.over: asyncio.Future[None] = loop.create_future()
        self._loop = loop
        self._context = copy_context()
        self._context.run(_LIFE.set, self)
        self.tasks: list[asyncio.Task[Any]] = []

    def spawn(self, coro: Any) -> asyncio.Task[Any]:
        """Run a coroutine as code of this process."""
        return self._context.run(self._loop.create_task, coro)

    def end(self) -> None:
        """End it, here and now."""
        self.ended = True
        if not self.over.done():
            self.over.set_result(None)

    def bury(self) -> None:
        """Clear away what is left of it. This may run `finally` blocks, so look at the world before."""
        self.ended = True
        for task in self.tasks:
            if not task.done():
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                coro: Any = task.get_coro()
                # It may wait or raise in a `finally`: its process is gone, nobody hears it.
                with contextlib.suppress(Exception):
                    coro.close()
        self.tasks.clear()


_LIFE: ContextVar[Life | None] = ContextVar("compensate_test_process", default=None)


class VirtualLoop(asyncio.SelectorEventLoop):
    """One of asyncio's loops on virtual time; it knows the processes of a test."""

    def __init__(self, owner: VirtualTime) -> None:
        self.virtual = owner
        super().__init__(_Selector(selectors.DefaultSelector(), owner))
        self.complaints: list[dict[str, Any]] = []
        self.set_exception_handler(lambda _, context: self.complaints.append(context))

    def time(self) -> float:
        """Virtual seconds since the beginning."""
        return self.virtual.elapsed

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """See `VirtualTime.run_in_thread`."""
        return self.virtual.run_in_thread(self, executor, func, *args)

    def create_task(self, coro: Any, **options: Any) -> asyncio.Task[Any]:
        """As asyncio's; a process remembers its tasks."""
        task: asyncio.Task[Any] = super().create_task(coro, **options)
        life = _LIFE.get()
        if life is not None:
            life.tasks.append(task)
        return task

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:  # type: ignore[override]
        """As asyncio's; code of a process that has ended is not called."""
        return super().call_soon(_guarded(callback, context), *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        """As asyncio's; code of a process that has ended is not called."""
        return super().call_at(when, _guarded(callback, context), *args, context=context)


def _guarded(callback: Callable[..., Any], context: Any) -> Callable[..., Any]:
    life = _LIFE.get() if context is None else context.get(_LIFE)
    if life is None:
        return callback

    def call(*args: Any) -> None:
        if not life.ended:
            callback(*args)

    return call
