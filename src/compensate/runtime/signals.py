"""Signals at which a coordinator drains; unix and the main thread only, as the event loop has it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from signal import Signals


def catch(numbers: Iterable[Signals], handler: Callable[[Signals], None]) -> None:
    """Call `handler` when one of them comes."""
    loop = asyncio.get_running_loop()
    for number in numbers:
        loop.add_signal_handler(number, handler, number)


def let_go(numbers: Iterable[Signals]) -> None:
    """Catch them no longer."""
    loop = asyncio.get_running_loop()
    for number in numbers:
        loop.remove_signal_handler(number)
