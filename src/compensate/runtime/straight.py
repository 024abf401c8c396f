"""The straight way: a short chain of plain actions, run with nothing around it.

What the machine would decide for such a saga is known beforehand, as long as all
goes well and also when an action just fails and every undo succeeds; so neither
machine nor execution are made for it. The events are the same, and a test holds
the two ways against each other. At the first thing that is out of the ordinary
(a retry, a doubt, an undo that fails, a request, a failed write) the machine is
folded from the events, and an execution takes over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from compensate.codec.records import select
from compensate.core import events as e
from compensate.core import states as s
from compensate.core.dag import Ref
from compensate.core.events import Event
from compensate.core.machine import Machine
from compensate.errors import (
    CompensateError,
    Conflict,
    NoEffect,
    Permanent,
    RolledBack,
    SerializeFailed,
    Unavailable,
    Unknown,
)
from compensate.runtime.bindings import Bindings, Bound, Link, Values
from compensate.runtime.failures import error_info
from compensate.runtime.runs import rolled_back

if TYPE_CHECKING:
    from compensate.runtime.execution import Execution
    from compensate.stores.base import NewSaga, Store


class Straight:
    """One saga on the straight way.

    Args:
        bindings: With a non-empty `straight`.
        saga_id: The saga's id.
        log: Filled with the saga's events.
        hand_over: Makes the execution that takes over.

    Attributes:
        outputs: What the nodes gave that have completed, in order.
        execution: What has taken over; `None` while all is as foreseen.
        status: How the saga stands.
        error: What is to be raised if it was rolled back.
    """

    __slots__ = (
        "_hand_over",
        "_now",
        "_place",
        "_store",
        "_task",
        "bindings",
        "error",
        "execution",
        "log",
        "outputs",
        "saga_id",
        "status",
    )

    def __init__(
        self,
        bindings: Bindings,
        saga_id: str,
        store: Store,
        now: Callable[[], float],
        log: list[Event],
        hand_over: Callable[[Machine], Execution],
    ) -> None:
        self.bindings = bindings
        self.saga_id = saga_id
        self.log = log
        self.outputs: list[bytes] = []
        self.execution: Execution | None = None
        self.status: s.SagaStatus = s.RUNNING
        self.error: RolledBack | None = None
        self._store = store
        self._now = now
        self._hand_over = hand_over
        self._place = 0

    async def run(self, params: bytes, new: Callable[[list[Event], float], NewSaga], owner: str) -> None:
        """Run until the end, or until something out of the ordinary has happened: then `execution` goes on.

        Raises: What `Store.create` raises; then nothing has been run.
        """
        self._task = asyncio.current_task()
        now, store, log, outputs, links = (
            self._now,
            self._store,
            self.log,
            self.outputs,
            self.bindings.straight,
        )
        at = now()
        created = e.Created(params)
        log += (Event(1, 1, at, e.SAGA_CREATED, "", 0, created), Event(2, 1, at, e.STARTED, links[0].name, 1))
        try:
            done = store.create(new(log, at), owner)
            if done is not None:
                await done
        except BaseException:
            log.clear()
            raise
        append, saga_id = store.append, self.saga_id
        seq = 2
        for bound, name, i, source, attempt, fn, encode, after in links:
            self._place = i
            try:
                argument = attempt(outputs[source] if source >= 0 else self._given(bound, i, params))
            except Exception as error:
                self._unreadable(bound, i, error)
                return
            try:
                output = await fn(argument)
            except BaseException as error:
                await self._fail(bound, name, i, error)
                return
            try:
                data = encode(output)
            except SerializeFailed as error:
                self.take_over().caller.unstorable(i, error)
                return
            at = now()
            if self.execution is not None:
                self.execution.machine.succeed(i, data, at)
                return
            outputs.append(data)
            if after:
                follows = Event(seq + 2, 1, at, e.STARTED, after, 1)
            else:
                follows = Event(seq + 2, 1, at, e.SAGA_COMPLETED)
                self.status = s.COMPLETED
            events = [Event(seq + 1, 1, at, e.COMPLETED, name, 1, e.Completed(data)), follows]
            try:
                done = append(saga_id, 1, seq, events, self.status)
                if done is not None:
                    await done
            except (Conflict, Unavailable) as error:
                await self._lost(events, error)
                return
            log += events
            seq += 2
            if done is not None and await self._interfered(links[len(outputs)].node if after else -1):
                return

    def _unreadable(self, bound: Bound, i: int, error: Exception) -> None:
        assert bound.link is not None
        why = error if isinstance(error, CompensateError) else bound.link.explain(error)
        self.take_over().caller.unreadable(i, why)

    async def _fail(self, bound: Bound, name: str, i: int, error: BaseException) -> None:
        """The action of node `i` raised: undo what came before, if that is as plain as can be."""
        if (
            self.execution is not None
            or not isinstance(error, Exception)
            or isinstance(error, _SPECIAL)
            or bound.spec.undo == "unknown"
            or bound.spec.retry.attempts > 1
            or not 0 < len(self.outputs) <= self.bindings.straight_back
        ):
            self.take_over().caller.failed(i, error)
            return
        info = error_info(error)
        rollback = e.Rollback("failure", name, why=f"{info.type}: {info.message}")
        self.error = rolled_back(self.saga_id, rollback)
        self.error.__cause__ = error
        seq, at = len(self.log), self._now()
        back = self.bindings.straight[len(self.outputs) - 1 :: -1]
        events = [
            Event(seq + 1, 1, at, e.FAILED, name, 1, e.Failed(info)),
            Event(seq + 2, 1, at, e.SAGA_ROLLBACK, "", 0, rollback),
            Event(seq + 3, 1, at, e.UNDO_STARTED, back[0].name, 1),
        ]
        self.status = s.ROLLING_BACK
        if await self._write(events, back[0].node):
            await self._undo(back)

    async def _undo(self, back: list[Link]) -> None:
        now, append, saga_id, log, outputs = (
            self._now,
            self._store.append,
            self.saga_id,
            self.log,
            self.outputs,
        )
        seq, more = len(log), len(back)
        for bound, name, i, _, _, _, _, _ in back:
            assert bound.undo_link is not None
            self._place = i
            more -= 1
            try:
                output = bound.attempt(outputs[more])
            except Exception as error:
                self.take_over().caller.unreadable_output(i, bound.explain(error))
                return
            try:
                await bound.undo_link(output)
            except BaseException as error:
                self.take_over().caller.undo_failed(i, error)
                return
            at = now()
            if self.execution is not None:
                self.execution.machine.undo_succeed(i, at)
                return
            if more:
                follows = Event(seq + 2, 1, at, e.UNDO_STARTED, back[-more].name, 1)
            else:
                follows = Event(seq + 2, 1, at, e.SAGA_ROLLED_BACK)
                self.status = s.ROLLED_BACK
            events = [Event(seq + 1, 1, at, e.UNDONE, name, 1), follows]
            try:
                done = append(saga_id, 1, seq, events, self.status)
                if done is not None:
                    await done
            except (Conflict, Unavailable) as error:
                await self._lost(events, error)
                return
            log += events
            seq += 2
            if done is not None and await self._interfered(back[-more].node if more else -1):
                return

    async def _write(self, events: list[Event], follows: int) -> bool:
        """Write once; `False` if an execution has taken over."""
        try:
            done = self._store.append(self.saga_id, 1, len(self.log), events, self.status)
            if done is not None:
                await done
        except (Conflict, Unavailable) as error:
            await self._lost(events, error)
            return False
        self.log += events
        return done is None or not await self._interfered(follows)

    async def _lost(self, events: list[Event], error: Conflict | Unavailable) -> None:
        self.status = s.RUNNING
        await self.take_over().read_again(events, error)

    async def _interfered(self, follows: int) -> bool:
        """Whether somebody asked for an execution while a write was under way; it has to read what that write said."""
        execution = self.execution
        if execution is None:
            return False
        await execution.read_again(
            [], Conflict(f"saga {self.saga_id}: it was taken over in the middle of a write")
        )
        return True

    def _given(self, bound: Bound, i: int, params: bytes) -> bytes:
        assert bound.link is not None
        expr = bound.link.expr
        if isinstance(expr, Ref) and not expr.node:
            return select(params, expr.path)
        return Values(self.machine()).data(bound.link, bound, i)

    def machine(self) -> Machine:
        """The machine as of the events so far."""
        return Machine.fold(self.bindings.plan, self.saga_id, self.log, 1)

    def take_over(self) -> Execution:
        """Make the execution that goes on from here."""
        if self.execution is None:
            self.execution = self._hand_over(self.machine())
            self.execution.in_place(self._place, self._task)
        return self.execution


_SPECIAL: Final = (NoEffect, Permanent, Unknown, asyncio.CancelledError)
