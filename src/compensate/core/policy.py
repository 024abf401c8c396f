"""Retry policies, as data: what the dag stores and the machine follows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, cast
from zlib import crc32

import msgspec
from msgspec.structs import force_setattr

from compensate.errors import DefinitionError, qualified, same_class

__all__ = ["ONCE", "UNDO", "Retry", "qualified"]

_INFINITE: Final = float("inf")


def _names(what: str, kinds: Any) -> tuple[str, ...]:
    one = isinstance(kinds, type | str) or not isinstance(kinds, Iterable)
    listed = cast("Iterable[object]", (kinds,) if one else kinds)
    names: list[str] = []
    for kind in listed:
        if isinstance(kind, type) and issubclass(kind, BaseException):
            names.append(qualified(kind))
        elif isinstance(kind, str):
            names.append(kind)
        else:
            raise DefinitionError(
                f"Retry: {what} holds {kind!r}; give exception classes, or their qualified names"
            )
    return tuple(names)


def _any_of(error: Sequence[str], stored: Sequence[str]) -> bool:
    return any(same_class(one, name) for one in stored for name in error)


def _check_number(what: str, value: object, least: float, most: float, advice: str) -> None:
    if not isinstance(value, int | float) or not least <= value <= most or value == _INFINITE:
        raise DefinitionError(f"Retry: {what} is {value!r}; give {advice}")


class Retry(msgspec.Struct, frozen=True, omit_defaults=True):
    """How often, and after which delays, an action or undo is tried again.

    Attributes:
        attempts: How many times it may fail in all, the first attempt included; at least 1. `None`: there is no limit,
            and it is tried until it succeeds, until it raises `Permanent` or an error that `on` and `never` exclude,
            or until the saga turns back (a deadline, a rollback, the failure of another node).
        first: Seconds before the second attempt.
        factor: What each further delay is multiplied with; at least 1.
        longest: Most seconds between two attempts.
        jitter: Share of the delay, 0 to 1, that varies. The variation is taken from the
            key and the attempt, so that a log can be replayed and a test repeated.
        on: Retry only these errors (classes, or their qualified names) and their subclasses. Empty: all.
        never: Never retry these.
    """

    attempts: int | None = 1
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
            attempts: int | None = 1,
            first: float = 0.5,
            factor: float = 2.0,
            longest: float = 60.0,
            jitter: float = 0.0,
            on: type[BaseException] | Sequence[type[BaseException] | str] = (),
            never: type[BaseException] | Sequence[type[BaseException] | str] = (),
        ) -> None: ...

    def __post_init__(self) -> None:
        force_setattr(self, "on", _names("on", self.on))
        force_setattr(self, "never", _names("never", self.never))
        if self.attempts is not None and (type(self.attempts) is not int or self.attempts < 1):
            raise DefinitionError(
                f"Retry: attempts is {self.attempts!r}; it counts the first one, so give a whole number from 1 on, "
                "or None to try until it succeeds"
            )
        _check_number("first", self.first, 0, _INFINITE, "seconds, 0 or more")
        _check_number("factor", self.factor, 1, _INFINITE, "1 or more")
        _check_number("longest", self.longest, 0, _INFINITE, "seconds, 0 or more")
        _check_number("jitter", self.jitter, 0, 1, "a share from 0 to 1")

    @property
    def repeats(self) -> bool:
        """Whether a failed attempt may be followed by another one."""
        return self.attempts is None or self.attempts > 1

    def allows(self, failures: int, error: Sequence[str]) -> bool:
        """Whether another attempt is due after `failures` failed ones.

        Args:
            failures: Failed attempts so far, this one included.
            error: Qualified names of the raised error's class and its bases.
        """
        if self.attempts is not None and failures >= self.attempts:
            return False
        if self.never and _any_of(error, self.never):
            return False
        return not self.on or _any_of(error, self.on)

    def delay(self, failures: int, salt: str) -> float:
        """Seconds to wait after the `failures`-th failure; `salt` fixes the jitter."""
        # Nothing bounds `failures`, so the power may leave the range of a float. In integers it would not overflow but
        # grow without bound, hence the conversion.
        try:
            delay = min(self.longest, self.first * float(self.factor) ** (failures - 1))
        except OverflowError:
            delay = self.longest if self.first else 0.0
        if self.jitter:
            delay *= 1 - self.jitter * (crc32(f"{salt}#{failures}".encode()) / 2**32)
        return delay


ONCE = Retry()
"""What an action gets by default: one attempt."""

UNDO = Retry(attempts=5)
"""What an undo gets by default: five attempts over some seven seconds."""
