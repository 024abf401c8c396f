"""The crew: runs the actions and undos of one saga that go on side by side, in as few tasks as they need.

A task costs more than all else that is done for an action, and one that never waits needs none of its own. So a task
runs one after the other; before it calls the first it sees to it that the loop comes to another task as soon as this
one has to wait, and that goes on with the rest. Of a thousand that wait for replies each has a task; of those that wait
for nothing, dozens share one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any, Final

from compensate.core.commands import RunAction, RunUndo
from compensate.runtime.slots import HOLDER, Holder

if TYPE_CHECKING:
    from compensate.runtime.execution import Execution

LONGEST: Final = 64
"""How many are run in one task before others have their turn."""


class Crew:
    """The tasks of one execution.

    Attributes:
        running: Node to the task in which its action or undo runs; `None` until it is called.
    """

    __slots__ = ("_at_work", "_execution", "_hired", "_waiting", "running")

    def __init__(self, execution: Execution) -> None:
        self._execution = execution
        self.running: dict[int, asyncio.Task[Any] | None] = {}
        self._waiting: deque[RunAction | RunUndo] = deque()
        self._at_work = 0
        """How many tasks have begun and not ended."""
        self._hired = 0
        """How many are made and have not begun."""

    def add(self, command: RunAction | RunUndo) -> None:
        """Run it beside the others. What comes of it the machine is told, and the execution that it landed."""
        self.running[command.node] = None
        self._waiting.append(command)
        if not self._hired:
            self._hire(1)

    def _hire(self, count: int) -> None:
        """See that so many tasks are about to begin, if there is work for them."""
        for _ in range(min(count, len(self._waiting)) - self._hired):
            self._hired += 1
            # Whoever hires may be a task in which an action has changed the context. Until it begins the loop holds
            # the new task, then `running` does.
            asyncio.create_task(self._work(), context=self._execution.base.copy())  # noqa: RUF006

    async def _work(self) -> None:
        task = asyncio.current_task()
        slots = self._execution.setting.slots
        holder: Holder | None = None
        if slots is not None:
            holder = Holder(slots, lambda: task in self.running.values())
            HOLDER.set(holder)
        base = copy_context()
        self._hired -= 1
        self._at_work += 1
        try:
            for _ in range(LONGEST):
                if not self._waiting:
                    return
                command = self._waiting.popleft()
                # Where many have to wait, the rest will too: as many again are to begin in the loop's next turn.
                if self._waiting and self._hired < (wanted := self._at_work - 1 or 1):
                    self._hire(wanted)
                await self._run(command, task, holder, base)
            self._hire(1)
        finally:
            self._at_work -= 1
            if not self._at_work and not self._execution.ended:
                self._hire(1)  # this task was cancelled, and others wait

    async def _run(
        self,
        command: RunAction | RunUndo,
        task: asyncio.Task[Any] | None,
        holder: Holder | None,
        base: Context,
    ) -> None:
        i = command.node
        self.running[i] = task
        execution = self._execution
        try:
            if i in execution.cancelled:  # before it was called
                execution.caller.cut_off(i, asyncio.CancelledError())
            else:
                await execution.run(command, base)
        except asyncio.CancelledError as error:
            if not execution.abandoned:
                execution.caller.cut_off(i, error)
            raise
        except GeneratorExit:
            execution.ended = True  # its loop is gone, and with it all who could be woken
            raise
        except BaseException as error:
            execution.broken(error)  # the driver raises it on
        finally:
            del self.running[i]
            execution.take_back_cancel(i)
            if holder is not None:
                holder.landed()
            execution.landed()

    def tasks(self) -> list[asyncio.Task[Any]]:
        """Those in which something runs."""
        return [task for task in self.running.values() if task is not None]

    def abandon(self) -> None:
        """Cancel what runs, and forget what was not called yet."""
        for command in self._waiting:
            del self.running[command.node]
            self._execution.landed()
        self._waiting.clear()
        for i, task in self.running.items():
            if task is not None:
                self._execution.caller.expire(i)
                task.cancel()
