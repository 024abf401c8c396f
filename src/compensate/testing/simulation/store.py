"""The simulated store: one server that survives everything, and for each coordinator a connection that does not.

What the server decides is the memory store's code. Around it: calls take time
both ways; a write may be lost, or applied and its answer lost; a write that was
under way when its coordinator died may still arrive.
"""

from __future__ import annotations

from asyncio import Future
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar, cast

from compensate.core.events import Event
from compensate.core.standing import Standing
from compensate.core.states import SagaStatus
from compensate.errors import CompensateError, Unavailable
from compensate.stores.base import (
    Answer,
    Damaged,
    Done,
    NewSaga,
    Page,
    Request,
    StoredSaga,
    Verb,
)
from compensate.stores.memory import MemoryStore
from compensate.testing.recorder import Claimed, StoreCall
from compensate.testing.simulation.loop import Process, VirtualLoop
from compensate.testing.simulation.scenario import Fault
from compensate.testing.simulation.tape import Tape

T = TypeVar("T")


class Server:
    """The durable state, and what is told of it from outside.

    Attributes:
        memory: The state.
        length: How many events each saga's log has.
        tape: Takes down what happens.
    """

    def __init__(self, loop: VirtualLoop, tape: Tape, in_place: float) -> None:
        self.loop = loop
        self.tape = tape
        self.in_place = in_place
        self.memory = MemoryStore()
        self.length: Counter[str] = Counter()
        self.quiet = False
        self.sagas: Mapping[str, Any] = vars(self.memory)["_sagas"]
        """What the store knows of each saga, to be looked at without loading its log."""

    def events(self, saga_id: str) -> list[Event]:
        """A saga's log as it is now."""
        return at_once(self.memory.events(saga_id))


def at_once(coro: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that waits for nothing."""
    try:
        coro.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    raise AssertionError("the memory store waits for something")


class Connection:
    """A coordinator's store: the protocol, as seen over a line that fails.

    Args:
        server: The other end.
        process: Whose it is.
        faults: Those of this coordinator.
        counts: How many writes and reads it made so far, in all its lives.
        crash: Sees to a crash that a write sets off.
    """

    url = "simulated://"

    def __init__(
        self,
        server: Server,
        process: Process,
        faults: Iterable[Fault],
        counts: Counter[str],
        crash: Callable[[Process, Fault], None],
    ) -> None:
        self.server = server
        self.process = process
        self._faults = {(OPERATIONS[fault.kind], fault.nth): fault for fault in faults if fault.nth}
        self._counts = counts
        self._crash = crash

    # -- the line ----------------------------------------------------------

    def _fault(self, operation: str) -> Fault | None:
        if not self.process.alive:
            raise Unavailable("this coordinator is dead")
        self._counts[operation] += 1
        if self.server.quiet or not self._faults:
            return None
        fault = self._faults.get((operation, self._counts[operation]))
        if fault is not None:
            self.server.tape.fired[fault.kind] += 1
        return fault

    def _latency(self) -> float:
        random = self.server.loop.rng.random
        return 0.002 * random() if random() < 0.9 else 0.1 * random()

    def _write(self, call: StoreCall, apply: Callable[[], None]) -> Done:
        """Send a write: durable on return, or a future."""
        fault = self._fault("write")
        server = self.server
        if fault is not None and fault.kind == "crash_before":
            self._crash(self.process, fault)
        elif fault is None and server.in_place and server.loop.rng.random() < server.in_place:
            error = self._apply(apply)
            self._came_back(call, error)
            if error is not None:
                raise error
            return None
        future = server.loop.create_future()
        server.loop.outside(self._latency(), self._arrive, call, apply, future, fault)
        return future

    def _arrive(
        self, call: StoreCall, apply: Callable[[], None], future: Future[None], fault: Fault | None
    ) -> None:
        kind = "" if fault is None else fault.kind
        if not self.process.alive and (kind == "crash_before" or self.server.loop.rng.random() < 0.5):
            self.server.tape.fired["write lost in a crash"] += 1
            return
        error = Unavailable("the line broke (append_lost)") if kind == "append_lost" else self._apply(apply)
        if kind == "append_applied" and error is None:
            error = Unavailable("the line broke (append_applied)")
        if kind == "crash_after":
            assert fault is not None
            self._crash(self.process, fault)
        self.server.loop.outside(self._latency(), self._acknowledge, call, future, error)

    @staticmethod
    def _apply(apply: Callable[[], None]) -> CompensateError | None:
        try:
            apply()
        except CompensateError as error:
            return error
        return None

    def _acknowledge(self, call: StoreCall, future: Future[None], error: CompensateError | None) -> None:
        if not self.process.alive:
            return
        self._came_back(call, error)
        _reply(future, None, error)

    def _came_back(self, call: StoreCall, error: CompensateError | None) -> None:
        tape = self.server.tape
        tape.came_back(call, error)
        if error is None and call.events:
            tape.known(call.saga, call.events[-1].seq, self.process.name)

    async def _ask(self, operation: str, ask: Callable[[], T]) -> T:
        """Ask for something, and wait for the answer."""
        fault = self._fault(operation)
        future: Future[Any] = self.server.loop.create_future()
        self.server.loop.outside(self._latency(), self._answer, ask, future, fault)
        result: T = await future
        return result

    def _answer(self, ask: Callable[[], T], future: Future[Any], fault: Fault | None) -> None:
        if not self.process.alive:
            return
        result: T | None = None
        error: CompensateError | None = None
        try:
            result = ask()
        except CompensateError as raised:
            error = raised
        if fault is not None:
            error = Unavailable("the line broke (read_lost)")
        self.server.loop.outside(self._latency(), _reply, future, result, error)

    async def _read(self, name: str, saga_id: str, ask: Callable[[], T]) -> T:
        """Ask for sagas with their logs."""
        tape = self.server.tape
        call = tape.called(name, saga_id, self.process.name)

        def look() -> T:
            found = ask()
            call.claimed = tuple(
                Claimed(one.record.id, one.record.epoch, one.record.last_seq) for one in _sagas(found)
            )
            return found

        try:
            found = await self._ask("read", look)
        except CompensateError as error:
            tape.came_back(call, error, call.claimed)
            raise
        tape.came_back(call, None, call.claimed if name != "load" else ())
        for stored in _sagas(found):
            tape.known(stored.record.id, stored.record.last_seq, self.process.name)
        return found

    # -- owners ------------------------------------------------------------

    async def open(self) -> None:
        """As `Store.open`."""
        if not self.process.alive:
            raise Unavailable("this coordinator is dead")

    async def close(self) -> None:
        """As `Store.close`."""

    async def join(self, owner: str, now: float, lease: float) -> None:
        """As `Store.join`."""
        await self._ask("other", lambda: at_once(self.server.memory.join(owner, now, lease)))

    async def renew(self, owner: str, now: float, lease: float) -> bool:
        """As `Store.renew`."""
        renewed = await self._ask("other", lambda: at_once(self.server.memory.renew(owner, now, lease)))
        if not renewed:
            self.server.tape.fired["lease ran out"] += 1
        return renewed

    async def leave(self, owner: str, keep: Collection[str] = ()) -> None:
        """As `Store.leave`."""
        await self._ask("other", lambda: at_once(self.server.memory.leave(owner, keep)))

    def retire(self, owner: str) -> None:
        """As `Store.retire`."""
        self.server.memory.retire(owner)

    async def claim(
        self,
        owner: str,
        now: float,
        *,
        limit: int,
        parked: bool = False,
        least: int = 0,
        below: int | None = None,
    ) -> list[StoredSaga | Damaged]:
        """As `Store.claim`."""
        claimed = await self._read(
            "claim",
            "",
            lambda: at_once(
                self.server.memory.claim(owner, now, limit=limit, parked=parked, least=least, below=below)
            ),
        )
        self.server.tape.fired["adoption"] += len(claimed)
        return claimed

    async def claim_one(self, saga_id: str, owner: str, now: float) -> StoredSaga | None:
        """As `Store.claim_one`."""
        return await self._read(
            "claim_one", saga_id, lambda: at_once(self.server.memory.claim_one(saga_id, owner, now))
        )

    def release(self, saga_id: str, epoch: int, created_at: float | None = None) -> Done:
        """As `Store.release`."""
        call = self.server.tape.called("release", saga_id, self.process.name, epoch)
        return self._write(call, lambda: _none(self.server.memory.release(saga_id, epoch, created_at)))

    # -- logs --------------------------------------------------------------

    def create(self, saga: NewSaga, owner: str) -> Done:
        """As `Store.create`."""
        call = self.server.tape.called("create", saga.id, self.process.name, 1, saga.events)

        def apply() -> None:
            self.server.memory.create(saga, owner)
            self.server.length[saga.id] = saga.events[-1].seq

        return self._write(call, apply)

    def append(
        self,
        saga_id: str,
        epoch: int,
        expected_seq: int,
        events: Sequence[Event],
        standing: Standing,
        created_at: float | None = None,
    ) -> Done:
        """As `Store.append`."""
        tape = self.server.tape
        call = tape.called("append", saga_id, self.process.name, epoch, events)

        def apply() -> None:
            self.server.memory.append(saga_id, epoch, expected_seq, events, standing, created_at)
            self.server.length[saga_id] = events[-1].seq

        return self._write(call, apply)

    # -- reading -----------------------------------------------------------

    async def load(self, saga_id: str) -> StoredSaga:
        """As `Store.load`."""
        return await self._read("load", saga_id, lambda: at_once(self.server.memory.load(saga_id)))

    async def events(self, saga_id: str, after: int = 0) -> list[Event]:
        """As `Store.events`."""
        return await self._ask("read", lambda: at_once(self.server.memory.events(saga_id, after)))

    async def page(
        self,
        *,
        status: SagaStatus | None = None,
        name: str | None = None,
        cursor: str | None = None,
        limit: int = 100,
    ) -> Page:
        """As `Store.page`."""
        memory = self.server.memory
        return await self._ask(
            "read", lambda: at_once(memory.page(status=status, name=name, cursor=cursor, limit=limit))
        )

    async def delete(self, saga_id: str) -> None:
        """As `Store.delete`."""
        await self._ask("other", lambda: at_once(self.server.memory.delete(saga_id)))

    # -- operators' requests -----------------------------------------------

    async def post(self, saga_id: str, verb: Verb, data: bytes, now: float) -> int:
        """As `Store.post`."""
        return await self._ask("other", lambda: at_once(self.server.memory.post(saga_id, verb, data, now)))

    async def requests(self, owner: str) -> Sequence[Request]:
        """As `Store.requests`."""
        return await self._ask("read", lambda: at_once(self.server.memory.requests(owner)))

    async def answer(self, number: int, answer: Answer) -> None:
        """As `Store.answer`."""
        await self._ask("other", lambda: at_once(self.server.memory.answer(number, answer)))

    async def answered(self, number: int) -> Answer | None:
        """As `Store.answered`."""
        return await self._ask("other", lambda: at_once(self.server.memory.answered(number)))


OPERATIONS: Final = {
    "append_lost": "write",
    "append_applied": "write",
    "crash_before": "write",
    "crash_after": "write",
    "read_lost": "read",
}


def _none(done: Awaitable[None] | None) -> None:
    assert done is None


def _sagas(found: object) -> list[StoredSaga]:
    many = cast(list[object], found) if isinstance(found, list) else [found]
    return [one for one in many if isinstance(one, StoredSaga)]


def _reply(future: Future[Any], result: Any, error: CompensateError | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
