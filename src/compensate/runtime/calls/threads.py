"""Worker threads for plain functions.

The pool of the standard library does not fit: the interpreter joins its threads at exit, so that a function that hangs
keeps the process for ever, and a thread that hangs keeps its place, so that a few of them hold up every other saga.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextvars import Context
from functools import partial
from itertools import count
from typing import Any, Final, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_IDLE: Final = 10.0
"""Seconds after which a thread without work ends."""

_numbers: Final = count(1)


class WorkerPool(Executor):
    """Runs functions in at most `most` daemon threads, started when they are needed.

    Args:
        most: How many threads work at once; those that were replaced do not count.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._work: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._news = threading.Condition()
        self._threads: set[threading.Thread] = set()
        self._idle = 0
        self._closed = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run a function as soon as a thread is free.

        Raises:
            RuntimeError: The pool is shut down, or the system has no thread left for it.
        """
        future: Future[T] = Future()
        with self._news:
            if self._closed:
                raise RuntimeError("this pool of threads is shut down")
            self._work.append((future, partial(fn, *args, **kwargs)))
            self._staff()
        return future

    def replace(self, thread: threading.Thread) -> None:
        """Give the place of a thread to another one: nobody waits any more for what it does."""
        with self._news:
            if thread in self._threads:
                self._threads.remove(thread)
                self._staff()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more work. Threads end when theirs is done.

        Args:
            wait: Whether to wait until all threads that were not replaced have ended.
            cancel_futures: Whether to drop the work that no thread has begun.
        """
        dropped: list[Future[Any]] = []
        with self._news:
            self._closed = True
            if cancel_futures:
                dropped = [future for future, _ in self._work]
                self._work.clear()
            self._news.notify_all()
            threads = list(self._threads)
        for future in dropped:
            future.cancel()
        if wait:
            for thread in threads:
                thread.join()

    def _staff(self) -> None:
        """See that a thread takes the next piece of work. The lock is held."""
        if self._idle:
            self._news.notify()
        if len(self._work) > self._idle and len(self._threads) < self._most:
            thread = threading.Thread(target=self._run, name=f"compensate-{next(_numbers)}", daemon=True)
            self._threads.add(thread)
            try:
                thread.start()
            except RuntimeError:
                self._threads.remove(thread)
                if not self._threads:
                    self._work.pop()
                    raise

    def _run(self) -> None:
        me = threading.current_thread()
        while (work := self._next(me)) is not None:
            future, call = work
            if future.set_running_or_notify_cancel():
                try:
                    result = call()
                except BaseException as error:
                    future.set_exception(error)
                else:
                    future.set_result(result)
                    del result
            del work, future, call  # an idle thread must keep no value of a user's alive

    def _next(self, me: threading.Thread) -> tuple[Future[Any], Callable[[], Any]] | None:
        """What to do next; `None` if this thread is to end."""
        with self._news:
            while me in self._threads:
                if self._work:
                    return self._work.popleft()
                if self._closed:
                    break
                self._idle += 1
                told = self._news.wait(_IDLE)
                self._idle -= 1
                if not told and not self._work:
                    break
            self._threads.discard(me)
            return None


class Job:
    """One plain function on its way through a thread.

    Args:
        fn: The function with its arguments.
        time: Tells the event loop's time.
        context: In which it runs; nobody else may enter that.

    Attributes:
        begun: The loop's time when the function was called; `None` before that.
        over: Whether it has returned or raised.
    """

    __slots__ = ("_context", "_fn", "_lock", "_revoked", "_thread", "_time", "_watchers", "begun", "over")

    def __init__(self, fn: Callable[[], Any], time: Callable[[], float], context: Context) -> None:
        self._fn: Callable[[], Any] | None = fn
        self._context = context
        self._time = time
        self._lock = threading.Lock()
        self._revoked = False
        self._thread: threading.Thread | None = None
        self._watchers: list[Callable[[], None]] = []
        self.begun: float | None = None
        self.over = False

    def __call__(self) -> Any:
        """In the thread: call the function, unless the job was revoked before a thread was free."""
        try:
            return self.call()
        finally:
            self.end()

    def call(self) -> Any:
        """The first half of `__call__`, for event loops that simulate threads."""
        with self._lock:
            if self._revoked:
                return None
            self._thread = threading.current_thread()
            self.begun = self._time()
            fn, self._fn = self._fn, None
        assert fn is not None
        try:
            return self._context.run(fn)
        except StopIteration as error:  # no future can carry one; a coroutine makes the same of it
            raise RuntimeError("the function raised StopIteration") from error

    def end(self) -> None:
        """The second half of `__call__`: the function has ended."""
        with self._lock:
            self.over = True
            watchers, self._watchers = self._watchers, []
        for watcher in watchers:
            watcher()

    def revoke(self) -> bool:
        """See that the function is never called. `False`: it has been called already."""
        with self._lock:
            self._revoked = self.begun is None
            return self._revoked

    def leave(self, pool: Executor | None) -> None:
        """Stop waiting for the function: its thread gets a successor in the pool where it runs."""
        if isinstance(pool, WorkerPool) and self._thread is not None:
            pool.replace(self._thread)

    def watch(self, watcher: Callable[[], None]) -> None:
        """Call `watcher` when the function has ended, in its thread; at once if it has."""
        with self._lock:
            if not self.over:
                self._watchers.append(watcher)
                return
        watcher()


class Straggler:
    """A coroutine that goes on after its task was cancelled; what `Job` is for plain functions.

    Args:
        task: In which it runs.
    """

    __slots__ = ("_watchers", "over")

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self.over = False
        """Whether it has ended, or cannot go on because its event loop is gone."""
        self._watchers: list[Callable[[], None]] = []
        task.add_done_callback(lambda _: self.end())

    def end(self) -> None:
        """It has ended. Safe to call twice."""
        self.over = True
        watchers, self._watchers = self._watchers, []
        for watcher in watchers:
            watcher()

    def watch(self, watcher: Callable[[], None]) -> None:
        """Call `watcher` when it has ended; at once if it has."""
        if self.over:
            watcher()
        else:
            self._watchers.append(watcher)


class Countdown:
    """Calls a function when something has happened a number of times, in whichever thread it happens last."""

    def __init__(self, count: int, done: Callable[[], object]) -> None:
        self._left = count
        self._done = done
        self._lock = threading.Lock()

    def one_less(self) -> None:
        """It has happened once."""
        with self._lock:
            self._left -= 1
            last = self._left == 0
        if last:
            self._done()
