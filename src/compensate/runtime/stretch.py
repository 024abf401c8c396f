"""Stretches: the links of a chain, run one after the other in the driver's own task.

What `Execution.drive` does at large, on a short path: where nothing else is going
on in a saga, the machine takes a link in one step (`advance`, `retreat`).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from compensate.runtime.calls.outcomes import Outcome

if TYPE_CHECKING:
    from compensate.runtime.execution import Execution

LONGEST: Final = 64
"""How many links are run before other sagas have their turn."""


async def forward(execution: Execution, i: int) -> None:
    """Run the action of node `i`, and of the links behind it, as long as nothing else is going on."""
    machine, caller, base = execution.machine, execution.caller, execution.base
    now, holder = execution.setting.clock.now, execution.holder
    seq = machine.seq
    for _ in range(LONGEST):
        given = await caller.invoke(i, machine.attempt[i], base)
        if isinstance(given, Outcome):
            caller.record(i, "do", given)
            return
        if machine.seq != seq or execution.machine is not machine or execution.stopping or execution.inject:
            execution.machine.succeed(i, given, now())
            return
        i = machine.advance(i, given, now())
        if i == -1:
            return
        execution.place = i
        if holder is not None:
            holder.landed()
        seq = machine.seq
        saved = execution.write()
        if saved is not None and not await saved:
            _never_called(execution)
            return
        if i < 0:
            return
    await asyncio.sleep(0)
    await caller.act(i, machine.attempt[i], base)


async def backward(execution: Execution, i: int) -> None:
    """Run the undo of node `i`, and of the links before it, as long as nothing else is going on."""
    machine, caller, base = execution.machine, execution.caller, execution.base
    now, holder = execution.setting.clock.now, execution.holder
    seq = machine.seq
    for _ in range(LONGEST):
        came = await caller.invoke_undo(i, machine.undo_attempt[i], base)
        if came is not None:
            caller.record(i, "undo", came)
            return
        if machine.seq != seq or execution.machine is not machine or execution.stopping or execution.inject:
            execution.machine.undo_succeed(i, now())
            return
        i = machine.retreat(i, now())
        if i < 0:
            return
        execution.place = i
        if holder is not None:
            holder.landed()
        seq = machine.seq
        saved = execution.write()
        if saved is not None and not await saved:
            _never_called(execution)
            return
    await asyncio.sleep(0)
    await caller.undo(i, machine.undo_attempt[i], base)


def _never_called(execution: Execution) -> None:
    """The log had to be read again, and holds perhaps the start of a node that nobody has called."""
    now = execution.setting.clock.now()
    execution.machine.interrupted(now, except_for=execution.crew.running, died=False)
