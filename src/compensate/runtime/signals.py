"""Signals at which a coordinator drains. The handler that was installed before is called too, and put back later.

The handlers are installed with `signal.signal`, not with `loop.add_signal_handler`: that would discard a handler that
the program had registered for the same signal, with the loop or with `signal.signal`, and on removal it installs the
default one. A handler that was registered with the loop still runs, because asyncio dispatches it by way of the wake-up
descriptor, which is left alone.
"""

from __future__ import annotations

import asyncio
import functools
import signal
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from signal import Signals
from types import FrameType
from typing import Any, Final

from compensate.errors import DefinitionError, IllegalRequest

_UNCATCHABLE: Final = frozenset({"SIGKILL", "SIGSTOP"})


def checked(numbers: Iterable[Signals | int]) -> tuple[Signals, ...]:
    """The signals of a `stop_on`, each once.

    Raises:
        DefinitionError: One of them is no signal, or cannot be caught.
    """
    found: dict[Signals, None] = {}
    try:
        for number in numbers:
            found[Signals(number)] = None
    except (TypeError, ValueError) as error:
        raise DefinitionError(
            f"stop_on: {error}; give a sequence of signals, like [signal.SIGTERM]"
        ) from None
    for number in found:
        if number.name in _UNCATCHABLE:
            raise DefinitionError(
                f"stop_on: {number.name} cannot be caught; give another, like signal.SIGTERM"
            )
    return tuple(found)


def check_thread(numbers: Iterable[Signals]) -> None:
    """Check that handlers for these signals can be installed from the running thread.

    Raises:
        IllegalRequest: There are some, and this is not the main thread.
    """
    names = ", ".join(number.name for number in numbers)
    thread = threading.current_thread()
    if names and thread is not threading.main_thread():
        raise IllegalRequest(
            f"stop_on: {names} cannot be handled here: Python installs signal handlers in the main thread only, and "
            f"this event loop runs in thread {thread.name!r} (that of `compensate.connect` always does); nothing was "
            "opened or started; leave stop_on out, and let the main thread close the coordinator or the connection "
            "when the signal comes, say by a handler that raises SystemExit inside the `with` block"
        )


class Catch:
    """Handlers for some signals, installed for one coordinator until `close`.

    When a signal comes, `heard` is called on the loop, and then the handler that was installed before, as if it had
    been called by Python itself. Not called are the default ones: SIG_DFL, the one that raises KeyboardInterrupt, and
    the one by which `asyncio.run` cancels its main task, since to drain in their place is what `stop_on` asks for.

    Args:
        numbers: Which signals.
        heard: Called on the running loop, with the signal.

    Raises:
        IllegalRequest: As `check_thread`. Nothing was installed.
    """

    def __init__(self, numbers: Iterable[Signals], heard: Callable[[Signals], None]) -> None:
        numbers = tuple(numbers)
        check_thread(numbers)
        loop = asyncio.get_running_loop()
        self._handlers: list[_Handler] = []
        try:
            for number in numbers:
                self._handlers.append(_Handler(number, loop, heard))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Put the former handlers back where nobody has installed another since. Safe to call twice."""
        while self._handlers:
            self._handlers.pop().close()


class _Handler:
    """What is installed for one signal. It may stay in use after `close`, where another program's handler calls it."""

    def __init__(
        self, number: Signals, loop: asyncio.AbstractEventLoop, heard: Callable[[Signals], None]
    ) -> None:
        self._number = number
        self._loop = loop
        self._heard = heard
        self._closed = False
        self._former: Any = signal.getsignal(number)
        signal.signal(number, self)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Python calls this in the main thread, between two instructions of whatever runs there."""
        former = self.former()
        if self._closed or self._loop.is_closed():
            # Somebody who had installed a handler after this one has put this one back.
            if former is signal.SIG_DFL:
                signal.signal(number, former)
                signal.raise_signal(number)
            elif callable(former):
                former(number, frame)
            return
        with suppress(RuntimeError):  # the loop has been closed this very moment
            self._loop.call_soon_threadsafe(self._tell)
        if callable(former) and not _is_default(former):
            former(number, frame)

    def _tell(self) -> None:
        if not self._closed:
            self._heard(self._number)

    def former(self) -> Any:
        """The handler from before, leaving out those of coordinators that are closed."""
        former = self._former
        while isinstance(former, _Handler) and (former._closed or former._loop.is_closed()):
            former = former._former
        return signal.SIG_DFL if former is None else former  # None: not Python's, so it cannot be put back

    def close(self) -> None:
        self._closed = True
        installed: object = signal.getsignal(self._number)
        if installed is self:
            signal.signal(self._number, self.former())


def _is_default(handler: Any) -> bool:
    """Whether it is a handler that Python or asyncio installs unasked."""
    if isinstance(handler, functools.partial):
        handler = handler.func
    return handler is signal.default_int_handler or isinstance(
        getattr(handler, "__self__", None), asyncio.Runner
    )
