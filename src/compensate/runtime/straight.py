"""The straight way: a short chain of plain actions, run with nothing around it.

What the machine would decide for such a saga is known beforehand as long as all
goes well, so neither machine nor execution are made for it; the events are the
same. At the first thing that is out of the ordinary (an error, a request, a write
that is not durable at once) they are made as of that moment and take over. A test
holds the two ways against each other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from compensate.codec.records import select
from compensate.core import events as e
from compensate.core import states as s
from compensate.core.dag import Ref
from compensate.core.events import Event
from compensate.core.machine import Machine
from compensate.errors import Conflict, SerializeFailed, Unavailable
from compensate.runtime.bindings import Bindings, Bound, Values

if TYPE_CHECKING:
    from compensate.runtime.execution import Execution
    from compensate.stores.base import NewSaga, Store


class Straight:
    """One saga on the straight way.

    Attributes:
        log: The events that are durable.
        outputs: What the nodes gave that have completed, in order.
        execution: What has taken over; `None` while all goes well.
    """

    __slots__ = ("_created", "_hand_over", "_task", "bindings", "execution", "log", "outputs", "saga_id")

    def __init__(
        self,
        bindings: Bindings,
        saga_id: str,
        params: bytes,
        log: list[Event],
        hand_over: Callable[[Machine], Execution],
    ) -> None:
        self.bindings = bindings
        self.saga_id = saga_id
        self.log = log
        self.outputs: list[bytes] = []
        self.execution: Execution | None = None
        self._created = e.Created(params)
        self._hand_over = hand_over

    async def run(
        self, store: Store, now: Callable[[], float], new: Callable[[list[Event], float], NewSaga], owner: str
    ) -> None:
        """Run until the end, or until something out of the ordinary has happened: then `execution` goes on."""
        self._task = asyncio.current_task()
        data = b""
        saga_id, outputs, links = self.saga_id, self.outputs, self.bindings.straight
        at = now()
        events = [Event(1, 1, at, e.SAGA_CREATED, "", 0, self._created), Event(2, 1, at, e.STARTED, links[0].name, 1)]
        done = store.create(new(events, at), owner)
        if done is not None:
            await done
        self.log += events
        seq = 2
        last = links[-1]
        for bound, name, i, source in links:
            link = bound.link
            assert link is not None
            try:
                output = await bound.fn(link.decode(outputs[source] if source >= 0 else self._given(bound, i)))
            except BaseException as error:
                (self.execution or self.take_over()).caller.failed(i, error)
                return
            try:
                data = bound.encode(output)
            except SerializeFailed as error:
                (self.execution or self.take_over()).caller.unstorable(i, error)
                return
            at = now()
            if self.execution is not None:
                self.execution.machine.succeed(i, data, at)
                return
            status: s.SagaStatus
            if i != last.node:
                outputs.append(data)
                follows = Event(seq + 2, 1, at, e.STARTED, links[len(outputs)].name, 1)
                status = s.RUNNING
            else:
                follows = Event(seq + 2, 1, at, e.SAGA_COMPLETED)
                status = s.COMPLETED
            events = [Event(seq + 1, 1, at, e.COMPLETED, name, 1, e.Completed(data)), follows]
            try:
                done = store.append(saga_id, 1, seq, events, status)
                if done is not None:
                    await done
            except (Conflict, Unavailable) as error:
                await self.take_over().read_again(events, error)
                return
            self.log += events
            seq += 2
            taken_over = self._taken_over()
            if taken_over is not None:  # asked for while the write was under way
                if i != last.node:
                    await taken_over.caller.act(links[len(outputs)].node, 1)
                return
        outputs.append(data)

    def _taken_over(self) -> Execution | None:
        return self.execution

    def _given(self, bound: Bound, i: int) -> Any:
        assert bound.link is not None
        expr = bound.link.expr
        if isinstance(expr, Ref) and not expr.node:
            return select(self._created.params, expr.path)
        machine = Machine.midway(self.bindings.plan, self.saga_id, self._created, self.outputs)
        return Values(machine).data(bound.link, bound, i)

    def take_over(self) -> Execution:
        """Make the execution that goes on from here."""
        if self.execution is None:
            machine = Machine.midway(self.bindings.plan, self.saga_id, self._created, self.outputs)
            self.execution = self._hand_over(machine)
            self.execution.in_place(self.bindings.straight[len(self.outputs)].node, self._task)
        return self.execution
