"""Retry policies, as data: what the dag stores and the machine follows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from zlib import crc32

import msgspec
from msgspec.structs import force_setattr

from compensate.errors import DefinitionError


def qualified(kind: type) -> str:
    """The name under which the log knows an exception class."""
    return f"{kind.__module__}.{kind.__qualname__}"


def _names(kinds: type[BaseException] | Sequence[type[BaseException] | str]) -> tuple[str, ...]:
    if isinstance(kinds, type):
        kinds = (kinds,)
    return tuple(k if isinstance(k, str) else qualified(k) for k in kinds)


class Retry(msgspec.Struct, frozen=True, omit_defaults=True):
    """How often, and after which delays, an action or undo is tried again.

    Attributes:
        attempts: How many times it may fail in all, the first included; at least 1.
        first: Seconds before the second attempt.
        factor: What each further delay is multiplied with; at least 1.
        longest: Most seconds between two attempts.
        jitter: Share of the delay, 0 to 1, that varies. The variation is taken from the
            key and the attempt, so that a log can be replayed and a test repeated.
        on: Retry only these errors (classes, or their qualified names) and their subclasses. Empty: all.
        never: Never retry these.
    """

    attempts: int = 1
    first: float = 0.5
    factor: float = 2.0
    longest: float = 60.0
    jitter: float = 0.0
    on: tuple[str, ...] = ()
    never: tuple[str, ...] = ()

    if TYPE_CHECKING:
        # The author gives classes; the dag keeps their names.
        def __init__(
            self,
            attempts: int = 1,
            first: float = 0.5,
            factor: float = 2.0,
            longest: float = 60.0,
            jitter: float = 0.0,
            on: type[BaseException] | Sequence[type[BaseException] | str] = (),
            never: type[BaseException] | Sequence[type[BaseException] | str] = (),
        ) -> None: ...

    def __post_init__(self) -> None:
        force_setattr(self, "on", _names(self.on))
        force_setattr(self, "never", _names(self.never))
        if self.attempts < 1:
            raise DefinitionError(
                f"Retry: attempts is {self.attempts}; it counts the first one, so give at least 1"
            )
        if not 0 <= self.first < float("inf"):
            raise DefinitionError(f"Retry: first is {self.first}; give seconds, 0 or more")
        if not 1 <= self.factor < float("inf"):
            raise DefinitionError(f"Retry: factor is {self.factor}; give 1 or more")
        if not 0 <= self.longest < float("inf"):
            raise DefinitionError(f"Retry: longest is {self.longest}; give seconds, 0 or more")
        if not 0 <= self.jitter <= 1:
            raise DefinitionError(f"Retry: jitter is {self.jitter}; give a share from 0 to 1")

    def allows(self, failures: int, error: Sequence[str]) -> bool:
        """Whether another attempt is due after `failures` failed ones.

        Args:
            failures: Failed attempts so far, this one included.
            error: Qualified names of the raised error's class and its bases.
        """
        if failures >= self.attempts:
            return False
        if any(name in self.never for name in error):
            return False
        return not self.on or any(name in self.on for name in error)

    def delay(self, failures: int, salt: str) -> float:
        """Seconds to wait after the `failures`-th failure; `salt` fixes the jitter."""
        try:
            delay = min(self.longest, self.first * self.factor ** (failures - 1))
        except OverflowError:
            delay = self.longest
        if self.jitter:
            delay *= 1 - self.jitter * (crc32(f"{salt}#{failures}".encode()) / 2**32)
        return delay


ONCE = Retry()
"""What an action gets by default: one attempt."""

UNDO = Retry(attempts=5)
"""What an undo gets by default: five attempts over some seven seconds."""
