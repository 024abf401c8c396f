"""The sagas that are measured. Their functions record what they do, so that nothing can be skipped."""

from __future__ import annotations

import asyncio

from compensate import action, fan_out, saga

LENGTH = 10
EFFECTS_BACK = 2 * (LENGTH - 1)
"""Of a chain whose last action fails before it has done anything."""

effects: list[str] = []


async def do(x: int) -> int:
    """The work of an action; the floors call it as it stands."""
    effects.append(f"do {x}")
    return x + 1


async def do_later(x: int) -> int:
    """The same, but it waits: the loop goes round once."""
    await asyncio.sleep(0)
    effects.append(f"do {x}")
    return x + 1


async def undo(x: int) -> None:
    """The work of an undo."""
    effects.append(f"undo {x}")


async def refuse(x: int) -> int:
    """The action that fails."""
    raise ValueError(f"refused {x}")


FORWARD = [(do, undo)] * LENGTH
BACK = [*FORWARD[1:], (refuse, undo)]
"""The same chains for the floors."""

step = action(do)
step.undo(undo)
fail = action(refuse)
later = action(do_later)


@saga
def chain(x: int) -> int:
    """Ten actions, each given what the one before it returned."""
    for k in range(LENGTH):
        x = step.options(name=f"step{k}")(x)
    return x


@saga
def broken(x: int) -> int:
    """The same, but the last action fails."""
    for k in range(LENGTH - 1):
        x = step.options(name=f"step{k}")(x)
    return fail(x)


@saga
def fan(xs: list[int]) -> list[int]:
    """One action for each item."""
    return fan_out(step, xs)


@saga
def fan_of_waiting(xs: list[int]) -> list[int]:
    """One action for each item, each of which waits."""
    return fan_out(later, xs)
