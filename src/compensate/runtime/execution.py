"""Execution: drives one saga. It asks the machine, does what it says, and tells it what came of it.

A lone node is awaited in place, since a task costs more than everything else
together; several at once are the crew's. Whatever the machine decided is made
durable before it is carried out (S8), outcomes together with what they make
ready (the commit rule). While a node runs in place, news from outside (a
request, an alarm) is handled by a side step on the same machine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container, Coroutine
from contextvars import Context, copy_context
from functools import partial
from typing import Any, Final, TypeAlias

from compensate.codec import records as r
from compensate.core import states as s
from compensate.core.commands import Ask, CancelAction, Command, RunAction, RunUndo, WaitUntil
from compensate.core.dag import ActionNode, SubsagaNode
from compensate.core.events import Event
from compensate.core.machine import Machine
from compensate.core.names import Direction
from compensate.errors import (
    DeserializeFailed,
    Fenced,
    Stopped,
)
from compensate.inspection.bindings import Bindings
from compensate.runtime import stretch
from compensate.runtime.calls.invoke import Caller
from compensate.runtime.calls.threads import Job, Straggler
from compensate.runtime.crew import Crew
from compensate.runtime.setting import Setting
from compensate.runtime.slots import Holder
from compensate.runtime.writing import Writing
from compensate.stores.base import NewSaga

_RUNS: Final = (RunAction, RunUndo)
"""Not written as a union: to make one each time costs more than to look."""


Change: TypeAlias = "Callable[[Execution, float], bool]"
"""An operator's request, given the time. Returns `False` to be asked again when something has landed."""


class Execution(Writing):
    """One saga being run here.

    Args:
        machine: Freshly created, or folded from the store.
        bindings: Of the machine's plan.
        setting: What is shared.
        new: Describes the saga if it is not stored yet; given its first events by the first save.
    """

    def __init__(
        self,
        machine: Machine,
        bindings: Bindings,
        setting: Setting,
        new: Callable[[list[Event]], NewSaga] | None = None,
    ) -> None:
        super().__init__(machine, bindings, setting, new)
        self.exceptions: dict[tuple[str, Direction], BaseException] = {}
        """The last one that each node's action or undo raised here."""
        self.crew = Crew(self)
        """Runs what does not run in place."""
        self.cancelled: set[int] = set()
        """Nodes whose action was cancelled because a rollback's grace was over."""
        self.caller = Caller(self)
        self.base: Context = copy_context()
        """The context variables that every action and undo of this saga begins with."""
        self.inject = setting.inject
        """Faults on order, by path of node: those of all sagas here, or those and its own."""

    stopping = False
    abandoned = False
    """What ran of it was cancelled on purpose."""
    heir: Execution | None = None
    """Who has gone on with the saga in this process since; it has to know of the threads that are left here."""
    _commands: list[Command] | None = None
    _waiter: asyncio.Future[None] | None = None
    _alarm: asyncio.TimerHandle | None = None
    _side: asyncio.Task[None] | None = None
    place = -1
    """The node that runs in place, in the driver's own task."""
    holder: Holder | None = None
    """Of the slot in which that runs, if slots are counted."""
    _driver: asyncio.Task[Any] | None = None
    _has_news = False
    _broken: BaseException | None = None  # what a task raised that is no outcome of an action

    def in_flight(self) -> Container[int]:
        """The nodes whose action or undo runs here."""
        return {self.place, *self.crew.running}

    # -- driving -----------------------------------------------------------

    async def begin(self) -> None:
        """Decide the first steps and store the saga with them; `drive` goes on. Raises what `Store.create` raises."""
        try:
            self._commands = await self._decide()
        except BaseException:
            self.end()
            if self.setting.slots is not None:
                self.setting.slots.offer()  # it may have waited for room, and will not use it
            raise

    def withdraw(self) -> None:
        """It has begun and will not be driven: give back its slots, and wake everybody who waits for it."""
        commands, self._commands = self._commands, None
        self._give_back(commands or [])
        self.end()

    async def drive(self) -> s.SagaStatus | None:
        """Run until the saga ends; `None` if it was stopped before.

        Raises:
            Fenced: Somebody else adopted the saga.
            CorruptLog: The log was found damaged when it had to be read again.
        """
        self.place = -1
        self._driver = asyncio.current_task()
        self.base = copy_context()
        try:
            if self._side is not None:
                side, self._side = self._side, None
                await side
            while not self.stopping:
                commands = self._commands
                if commands is None:
                    commands = self._next()
                    if self.machine.unsaved:
                        try:
                            saved = self.write()
                            kept = saved is None or await saved
                        except BaseException:
                            self._give_back(commands)
                            raise
                        if not kept:
                            self._give_back(commands)
                            continue
                else:
                    self._commands = None
                if len(commands) == 1 and not self.crew.running:
                    command = commands[0]
                    if isinstance(command, _RUNS):
                        await self._run_in_place(command)
                        continue
                if self._carry_out(commands):
                    continue
                machine = self.machine
                if machine.status in s.ENDS and not machine.unsaved:
                    return machine.status
                await self._news()
            return await self._stopped()
        finally:
            self._driver = None
            self._disarm()
            self.withdraw()
            if self.setting.slots is not None:
                self.setting.slots.offer()  # one that was made to it, and that it did not take

    async def _run_in_place(self, command: RunAction | RunUndo) -> None:
        self.place = command.node
        try:
            if not self.machine.calm or self.inject:
                await self.run(command, self.base)
            elif isinstance(command, RunAction):
                await stretch.forward(self, command.node)
            else:
                await stretch.backward(self, command.node)
        finally:
            self.take_back_cancel(self.place)
            self.place = -1
            if self.holder is not None:
                self.holder.landed()
            if self.setting.slots is not None:
                self.setting.slots.give()
            if self._side is not None:
                side, self._side = self._side, None
                await side

    def run(self, command: RunAction | RunUndo, base: Context) -> Coroutine[Any, Any, None]:
        """Run an action or undo, and tell the machine what came of it. `base`: the context of the task."""
        if isinstance(command, RunAction):
            return self.caller.act(command.node, command.attempt, base)
        return self.caller.undo(command.node, command.attempt, base)

    def _next(self) -> list[Command]:
        """Ask the machine, within the room that there is."""
        slots = self.setting.slots
        now = self.setting.clock.now()
        if slots is None:
            return self.machine.next(now)
        commands = self.machine.next(now, slots.free)
        slots.take(_count_runs(commands))
        if self.machine.starved and slots.free <= 0:
            slots.wait(self)
        else:
            slots.offer()
        return commands

    def _give_back(self, commands: list[Command]) -> None:
        if self.setting.slots is not None:
            self.setting.slots.give(_count_runs(commands))

    async def _decide(self) -> list[Command]:
        while True:
            commands = self._next()
            try:
                if not self.machine.unsaved or await self._save():
                    return commands
            except BaseException:
                self._give_back(commands)  # they are never carried out
                raise
            self._give_back(commands)

    def _carry_out(self, commands: list[Command]) -> bool:
        """Do what the machine decided. Returns whether it is to be asked again at once."""
        again = False
        for command in commands:
            if isinstance(command, _RUNS):
                self.crew.add(command)
            elif isinstance(command, Ask):
                self._answer(command)
                again = True
            elif isinstance(command, CancelAction):
                self._cancel(command.node)
            elif isinstance(command, WaitUntil):
                self._arm(command.at)
        return again

    def landed(self) -> None:
        """An action or undo of the crew's is over."""
        if self.setting.slots is not None:
            self.setting.slots.give()
        self.wake()

    def broken(self, error: BaseException) -> None:
        """One of them raised what is no outcome."""
        self._broken = error

    def _cancel(self, i: int) -> None:
        task = self._driver if i == self.place else self.crew.running.get(i)
        if i not in self.cancelled and (task is not None or i in self.crew.running):
            self.cancelled.add(i)
            self.caller.expire(i)
            if task is not None:
                task.cancel()

    def take_back_cancel(self, i: int) -> bool:
        """Whether `_cancel` cancelled node `i`. To be asked in its task once it is over, however it ended."""
        if i not in self.cancelled:
            return False
        self.cancelled.discard(i)
        task = asyncio.current_task()
        if task is not None:
            task.uncancel()
        return True

    def _answer(self, ask: Ask) -> None:
        now = self.setting.clock.now()
        machine = self.machine
        if machine.rollback is not None or machine.question(ask.node) != ask.question:
            return  # things have changed while this was being decided
        try:
            if ask.question == "when":
                spec = machine.plan.specs[ask.node]
                assert isinstance(spec, ActionNode | SubsagaNode)
                assert spec.when is not None
                flag = r.from_json(self.values.resolve(spec.when, machine.plan.scopes[ask.node]))
                if not isinstance(flag, bool):
                    raise DeserializeFailed(f"its `when` is {flag!r}; a true or false was expected")
                machine.decide(ask.node, flag, now)
            else:
                machine.expand(ask.node, len(self.values.items(machine.plan.partner[ask.node])), now)
        except DeserializeFailed as error:
            if machine.rollback is None:
                machine.cannot_answer(ask.node, str(error), now)

    # -- waiting -----------------------------------------------------------

    def wake(self) -> bool:
        """There is news: the machine is to be asked again. `False`: the execution is over."""
        if self.ended:
            return False
        if self.place >= 0:
            self._has_news = True
            side = self._side
            idle = side is None or (side.done() and not side.cancelled() and side.exception() is None)
            if idle and not self.stopping:
                self._side = asyncio.create_task(self._side_step())
        elif self._waiter is None:
            self._has_news = True
        elif not self._waiter.done():
            self._waiter.set_result(None)
        return True

    async def _news(self) -> None:
        self._check_sound()
        if not self._has_news:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        self._has_news = False
        self._check_sound()

    def _check_sound(self) -> None:
        """Raise what makes it impossible to go on driving."""
        for error in (self._broken, self.lost):
            if error is not None:
                raise error

    async def _side_step(self) -> None:
        """While the driver awaits a node in place: decide, save, and run in tasks what has become ready."""
        while self._has_news:
            self._has_news = False
            while self._carry_out(await self._decide()):
                pass

    def _arm(self, at: float) -> None:
        self._disarm()
        delay = max(0.0, at - self.setting.clock.now())
        self._alarm = asyncio.get_running_loop().call_later(delay, self.wake)

    def _disarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    # -- from outside ------------------------------------------------------

    async def request(self, change: Change) -> bool:
        """Apply an operator's request to the machine and make it durable.

        Args:
            change: Calls one of the machine's request methods.

        Returns:
            `False` if the execution was over before the request could be applied.

        Raises:
            IllegalRequest: It makes no sense now. Nothing was changed.
            Fenced: Somebody else has adopted the saga.
        """
        if not await self.stored():
            return False
        while not self.over:
            if change(self, self.setting.clock.now()):
                try:
                    await self.save()
                except Fenced as error:
                    self._broken = error
                    self.abandon()
                    raise
                finally:
                    self.wake()
                return True
            await self.watch()
        return False

    def stop(self) -> None:
        """Start nothing more. `drive` returns when what runs has landed."""
        self.stopping = True
        self.wake()

    def abandon(self) -> None:
        """Cancel what still runs; it is in doubt, and the log says that it started."""
        self.abandoned = True
        if self.place >= 0 and self._driver is not None:
            self.caller.expire(self.place)
            self._driver.cancel()
        self.crew.abandon()

    def outlast(self) -> None:
        """Know of what was cancelled and goes on all the same.

        Until it has ended its node is neither run again nor undone, and nobody else may have the saga (S3).
        """
        running = dict(self.crew.running)
        if self.place >= 0:
            running[self.place] = self._driver
        for i, task in running.items():
            if task is not None and not task.done() and i not in self.machine.lingering:
                self.machine.linger(i)
                straggler = Straggler(task)
                self.setting.left_behind[straggler] = self.id
                straggler.watch(partial(self.has_ended, straggler, i))

    def has_ended(self, what: Job | Straggler, i: int) -> None:
        """What was left behind of node `i` has ended; whoever drives the saga here now is told."""
        self.setting.left_behind.pop(what, None)
        last = self
        while last.heir is not None:
            last = last.heir
        last.machine.landed(i)
        if not last.stopping:
            last.wake()

    def forsake(self) -> None:
        """The saga is given up. If something runs yet, or waits to be written: nothing more is written here."""
        if self.lost is None and (not self.ended or self.machine.unsaved or self._saving is not None):
            self.lose(
                Stopped(
                    f"saga {self.id}: the coordinator was shut down before its actions or writes had ended"
                )
            )

    def lose(self, error: BaseException) -> None:
        """See `Writing.lose`; the driver, if it waits for news, learns of it too."""
        super().lose(error)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _stopped(self) -> s.SagaStatus | None:
        while self.crew.running:
            await self._news()
        if self.machine.unsaved:
            await self._save()
        return self.machine.status if self.machine.status in s.ENDS else None


def _count_runs(commands: list[Command]) -> int:
    return len([command for command in commands if isinstance(command, _RUNS)])
