"""Slots: how many actions and undos a coordinator runs at once."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol


class Starved(Protocol):
    """Somebody who waits for a slot."""

    def wake(self) -> bool:
        """A slot is free. `False`: no longer wanted."""
        ...


class Slots:
    """A bound on running actions, shared by the executions of one coordinator.

    Who starts something is charged with `take`, and gives back one slot at each landing. Who found no room `wait`s.
    """

    def __init__(self, most: int) -> None:
        self.free = most
        self._waiting: dict[Starved, None] = {}
        """In the order in which they came; each once, or its second place would swallow an offer."""

    def take(self, count: int) -> None:
        """`count` have been started."""
        self.free -= count

    def give(self, count: int = 1) -> None:
        """So many have landed."""
        self.free += count
        self.offer()

    def wait(self, who: Starved) -> None:
        """Wake `who` when there is room."""
        self._waiting[who] = None

    @contextmanager
    def aside(self) -> Generator[None]:
        """While an action waits here for another saga, its slot is free: or those that wait would keep all of them."""
        holder = HOLDER.get()
        if holder is None or holder.slots is not self or not holder.holds():
            yield
            return
        turn = holder.turn
        holder.waiting += 1
        if holder.waiting == 1:
            self.give()
        try:
            yield
        finally:
            if holder.turn == turn:
                holder.waiting -= 1
                if not holder.waiting:
                    self.take(1)

    def offer(self) -> None:
        """Wake the first who waits, if there is room; whoever leaves room calls this."""
        while self.free > 0 and self._waiting:
            who = next(iter(self._waiting))
            del self._waiting[who]
            if who.wake():
                return


class Holder:
    """A task that runs actions, one at a time, each in a slot.

    Args:
        slots: Whose.
        holds: Whether one runs just now.
    """

    __slots__ = ("holds", "slots", "turn", "waiting")

    def __init__(self, slots: Slots, holds: Callable[[], bool]) -> None:
        self.slots = slots
        self.holds = holds
        self.waiting = 0
        """How many tasks of its action wait for sagas."""
        self.turn = 0
        """Goes up when an action is over whose tasks go on waiting: their wait is nobody's any more."""

    def landed(self) -> None:
        """Its action is over, and about to give its slot back: what waits of it has given that back already."""
        if self.waiting:
            self.waiting = 0
            self.turn += 1
            self.slots.take(1)


HOLDER: ContextVar[Holder | None] = ContextVar("compensate_holder", default=None)
"""Within an action, and in tasks and threads that it begins: the task that runs it."""
