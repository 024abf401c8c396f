"""Outcomes: what came of one call of an action or undo.

What an exception means is decided by `outcome` and nowhere else, for coroutines and threads alike:

==============================================  ===============================================================
what came out of an action                      outcome
==============================================  ===============================================================
`NoEffect`                                      failed, known to be clean
`Permanent`                                     failed, not tried again
both (`Refused`)                                failed, clean, and not tried again
`Unknown`, or a class of `@action(unknown=)`    in doubt
`Stuck`, `Unavailable`, `Fenced`, `Stopped`     in doubt: they tell of another saga that the action ran
`CancelledError` from within                    in doubt
any other `Exception`                           failed ("took no effect")
any other `BaseException`                       in doubt
after its time limit passed, or a rollback      in doubt, whatever it raised; but `NoEffect` stays clean
cancelled it
an exception group                              the worst of its leaves: one leaf in doubt makes doubt, the group is
                                                clean only if all leaves are, and final if one is
what came of a cancellation that was not ours   in doubt, `NoEffect` too: who cancelled cannot be told
cut off by a shutdown, cancelled from outside,  none: the log says that the node started, and recovery finds it in
`KeyboardInterrupt`, `SystemExit`               doubt
==============================================  ===============================================================

An undo that raised has failed, and is tried again unless a leaf is `Permanent`; the last row holds for it too.
"""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Iterator
from typing import Final, Literal

import msgspec

from compensate.core import events as e
from compensate.core.names import Direction
from compensate.errors import Fenced, NoEffect, Permanent, Stopped, Stuck, Unavailable, Unknown
from compensate.runtime.failures import (
    cause_of,
    context_of,
    error_info,
    is_a,
    kinds,
    parts_of,
)

ENDS_THE_PROGRAM: Final = (KeyboardInterrupt, SystemExit)
"""What ends the program is raised on; it says nothing about the action that it passed through."""

_ANOTHER_SAGA: Final = (Stuck, Unavailable, Fenced, Stopped)
_MOST_LINKS: Final = 100
"""How far a chain of causes is followed."""
_MOST_PARTS: Final = 10_000
"""Of the groups and leaves of a group that are looked at."""


class Outcome(msgspec.Struct, frozen=True):
    """What came of one call that did not return a value that can be stored.

    Attributes:
        kind: `none` means that nothing is recorded.
        error: What was raised, as the log keeps it.
        kinds: For each leaf of what was raised, the qualified names of its class and bases.
        clean: It is known that the call took no effect.
        final: The call is not to be made again.
        reason: Why the node is in doubt, if it is.
    """

    kind: Literal["failed", "in_doubt", "none"]
    error: e.ErrorInfo | None = None
    kinds: tuple[tuple[str, ...], ...] = ()
    clean: bool = False
    final: bool = False
    reason: e.Doubt = "unknown"


NOTHING: Final = Outcome("none")
"""Of what ends the program."""

CUT_OFF: Final = Outcome("none")
"""Of a call that a shutdown or a cancellation from outside has cut off."""


class Circumstances(msgspec.Struct, frozen=True):
    """How a call came to its end, as far as that decides what its exception means.

    Attributes:
        direction: Whether an action or an undo was called.
        unknown: Exception classes that leave the action in doubt, from `@action(unknown=...)`.
        late: `timeout` if its time limit had passed, `cancelled` if a rollback had cancelled it; else empty.
        stopping: Whether whoever runs the saga is shutting down.
        abandoned: Whether a shutdown had cancelled the call.
        cancelled: Whether its task had been cancelled meanwhile, by whatever code. A task group of the action's own
            does that too, and before Python 3.13 leaves the count of cancellations raised.
    """

    direction: Direction = "do"
    unknown: tuple[type[BaseException], ...] = ()
    late: Literal["", "timeout", "cancelled"] = ""
    stopping: bool = False
    abandoned: bool = False
    cancelled: bool = False


def outcome(error: BaseException, how: Circumstances) -> Outcome:
    """What it means that a call raised `error`; see the table of this module."""
    parts = list(leaves(error))
    if any(is_a(part, ENDS_THE_PROGRAM) for part in parts):
        return NOTHING
    if how.abandoned or (how.stopping and _comes_from(error, (Stopped, CancelledError))):
        return CUT_OFF
    late = how.late
    if how.cancelled and is_a(error, CancelledError):
        return CUT_OFF
    # Nobody can tell who cancelled: task groups and time limits of the action's own do it too. To take it for a
    # cancellation from outside would have the same code run again for ever, so it is recorded, as a doubt.
    disturbed = how.cancelled and not late and _comes_from(error, (CancelledError,))
    info = error_info(error)
    classes = tuple(kinds(part) for part in parts)
    final = any(is_a(part, Permanent) for part in parts)
    if how.direction == "undo":
        return Outcome("failed", info, classes, final=final)
    if disturbed:
        return Outcome("in_doubt", info, classes, final=final, reason="cancelled")
    if all(is_a(part, NoEffect) and not is_a(part, Unknown) for part in parts):
        return Outcome("failed", info, classes, clean=True, final=final)
    if late:
        return Outcome("in_doubt", info, classes, final=final, reason=late)
    doubts = [part for part in parts if _leaves_doubt(part, how.unknown)]
    if doubts:
        cancelled = all(is_a(part, CancelledError) for part in doubts)
        return Outcome("in_doubt", info, classes, final=final, reason="cancelled" if cancelled else "unknown")
    return Outcome("failed", info, classes, final=final)


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The exceptions inside nested exception groups, in order; the error itself if it is no group.

    A group whose own class says what happened (it inherits `NoEffect`, `Permanent` or `Unknown`) is taken at its word.
    Each counts once. `Unknown` stands for leaves that are too many to look at.
    """
    open_ = [error]
    seen: set[int] = set()
    found = False
    while open_:
        one = open_.pop()
        if id(one) in seen:
            continue
        if len(seen) == _MOST_PARTS:
            found = False
            break
        seen.add(id(one))
        if is_a(one, BaseExceptionGroup) and not is_a(one, (NoEffect, Permanent, Unknown)):
            open_.extend(reversed(parts_of(one)))
        else:
            found = True
            yield one
    if not found:
        yield Unknown("an exception group whose leaves cannot all be told")


def program_end(error: BaseException) -> BaseException | None:
    """The `KeyboardInterrupt` or `SystemExit` that an error is, or holds as a leaf."""
    return next((part for part in leaves(error) if is_a(part, ENDS_THE_PROGRAM)), None)


def _leaves_doubt(part: BaseException, unknown: tuple[type[BaseException], ...]) -> bool:
    if is_a(part, Unknown):
        return True
    if is_a(part, NoEffect):
        return False
    return not is_a(part, Exception) or is_a(part, (*_ANOTHER_SAGA, *unknown))


def _comes_from(error: BaseException, classes: tuple[type[BaseException], ...]) -> bool:
    """Whether an error is one of these, holds one, or was raised because of one, however many lie between."""
    return any(is_a(one, classes) for one in _chain(error))


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error, what its groups hold, and what each of them was raised because of."""
    open_: list[BaseException | None] = [error]
    for _ in range(_MOST_LINKS):
        if not open_:
            return
        one = open_.pop()
        if one is None:
            continue
        yield one
        open_.extend(parts_of(one))
        open_ += (cause_of(one), context_of(one))
