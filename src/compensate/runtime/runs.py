"""Runs: what a caller holds of a saga that is going on, here or elsewhere."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeAlias, TypeVar

from compensate.authoring import Saga
from compensate.codec import records as r
from compensate.core import states as s
from compensate.core.events import Event
from compensate.core.log import Fold
from compensate.core.names import Direction
from compensate.errors import DeserializeFailed, SagaNotFound, Stopped
from compensate.inspection.endings import ending
from compensate.inspection.values import Values

if TYPE_CHECKING:
    from compensate.core.dag import Dag
    from compensate.inspection.snapshot import Snapshot
    from compensate.runtime.execution import Execution
    from compensate.runtime.slots import Slots
    from compensate.stores.base import SagaRecord

T = TypeVar("T")

_End: TypeAlias = tuple[Fold, Mapping[tuple[str, Direction], BaseException]]
"""A saga as it ended, and what its actions and undos raised here."""


class Origin:
    """Tells a saga from a later one with the same id: an id that was deleted may be used again.

    Args:
        saga_id: The id.
        created_at: As the saga's record says; `None`: the first record that is seen decides.
    """

    __slots__ = ("_created_at", "_saga_id")

    def __init__(self, saga_id: str, created_at: float | None = None) -> None:
        self._saga_id = saga_id
        self._created_at = created_at

    def check(self, created_at: float | None) -> None:
        """Raise `SagaNotFound` if a saga that was created then is not the one that was meant at first."""
        if self._created_at is None:
            self._created_at = created_at
        elif self._created_at != created_at:
            raise SagaNotFound(
                f"saga {self._saga_id}: it has been deleted, and another saga was started under its id; "
                "attach() gives a handle on that one"
            )


class RunSource(Protocol):
    """What a `Run` asks of the object that made it: a coordinator, or a client.

    A protocol, because these objects make runs: their modules import this one. The coordinator describes each member.
    """

    @property
    def slots(self) -> Slots: ...  # noqa: D102
    def definition_of(self, dag: Dag) -> Saga[..., Any] | None: ...  # noqa: D102
    def execution(self, saga_id: str) -> Execution | None: ...  # noqa: D102
    def check_loop(self, saga_id: str) -> None: ...  # noqa: D102
    def check_running(self, saga_id: str) -> None: ...  # noqa: D102
    def check_sound(self, saga_id: str) -> None: ...  # noqa: D102
    async def get(self, saga_id: str) -> Snapshot: ...  # noqa: D102
    async def record(self, saga_id: str) -> SagaRecord: ...  # noqa: D102
    async def wait_for_end(self, saga_id: str, origin: Origin) -> bool: ...  # noqa: D102
    def follow(  # noqa: D102
        self, saga_id: str, after: int = 0, origin: Origin | None = None
    ) -> AsyncIterator[Event]: ...


class Run(Generic[T]):
    """A handle on one saga.

    Attributes:
        id: The saga's id.
        new: Whether it was stored by the start that gave this handle, and not found under its id.
    """

    def __init__(
        self,
        coordinator: RunSource,
        saga_id: str,
        saga: Saga[..., T] | None,
        execution: Execution | None = None,
        *,
        new: bool = False,
        created_at: float | None = None,
    ) -> None:
        self.id = saga_id
        self.new = new
        # A start that is under way may find the id taken: then the saga is another one than its execution says.
        if execution is not None and not execution.starting:
            created_at = execution.created_at
        self._origin = Origin(saga_id, created_at)
        self._coordinator = coordinator
        self._saga = saga
        self._execution = execution
        self._last: _End | None = None

    def __repr__(self) -> str:
        return f"<run of saga {self.id}>"

    async def result(self) -> T:
        """Wait for the end.

        Cancelling the wait does not touch the saga. It may be called again, also after the end.

        Returns:
            What the saga returned.

        Raises:
            RolledBack: It was rolled back; the original error is the `__cause__`.
            Stuck: It needs an operator.
            Stopped: The coordinator was shut down first; the saga is resumable.
            SagaNotFound: There is no such saga, or it has been deleted.
            DeserializeFailed: What it returned is not what the saga returns today.
            StoreError: The store, or this saga's log, could not be read.
        """
        fold, exceptions = await self._end()
        if fold.status != s.COMPLETED:
            raise ending(fold, exceptions)
        data = Values(fold).output(fold.plan.end)
        output: T = self._decode(data, self._saga or self._coordinator.definition_of(fold.plan.dag))
        return output

    async def ended(self) -> s.SagaStatus:
        """Wait for the end as `result` does, and give the status instead of raising `RolledBack` or `Stuck`.

        ```python
        run = await coordinator.rollback("order-7", reason="the customer called")
        assert await run.ended() == "rolled_back"
        ```

        Returns:
            `completed`, `rolled_back` or `stuck` (which a parked saga is too).

        Raises:
            SagaNotFound: There is no such saga.
            Stopped: The coordinator was shut down first; the saga is resumable.
        """
        fold, _ = await self._end()
        assert fold.status is not None
        return fold.status

    async def _end(self) -> _End:
        """Wait for the end."""
        while True:
            try:
                with self._coordinator.slots.aside():
                    execution = await self._ended()
                end = await self._stored_end() if execution is None else _end_of(execution)
            except Stopped:
                if self._last is None:
                    raise
                return self._last  # nothing can be read any more, but this end was seen
            if end[0].status in s.ENDS:
                self._last = end
                return end  # else it is being rolled back since

    async def _stored_end(self) -> _End:
        """The saga as the store has it; the end that was seen last if nothing has happened since."""
        snapshot = await self._coordinator.get(self.id)
        self._origin.check(snapshot.record.created_at)
        if self._last is not None and self._last[0].seq == snapshot.record.last_seq:
            return self._last
        return snapshot.fold, {}

    def _decode(self, data: bytes, saga: Saga[..., T] | None) -> Any:
        if saga is None:
            return r.from_json(data)
        if saga.output is None:
            return None  # it returns nothing today, whatever the stored graph gave
        try:
            return saga.output.decode(data)
        except DeserializeFailed as error:
            raise DeserializeFailed(
                f"saga {self.id}: it completed, but the graph stored with it returned something else than "
                f"{saga.name!r} returns today: {error}; get({self.id!r}) and its output() give it as plain data"
            ) from error

    async def _ended(self) -> Execution | None:
        """Wait for an end; the execution if it ended here."""
        while True:
            execution = self._execution or self._coordinator.execution(self.id)
            if execution is None:
                if await self._coordinator.wait_for_end(self.id, self._origin):
                    return None
                continue
            if execution.starting:
                self._coordinator.check_loop(self.id)
                if not await execution.stored():
                    self._execution = None
                    continue  # another start of the id, which found it taken: it is no execution of this saga
            self._origin.check(execution.created_at)
            was_over = execution.over
            if not was_over:
                self._coordinator.check_loop(self.id)
                await execution.wait()
            self._execution = None
            if execution.has_end:
                if was_over:  # who has come late asks how the saga stands now
                    self._last = _end_of(execution)
                    if not await self._is_latest(execution):
                        continue
                return execution
            self._coordinator.check_running(self.id)
            self._coordinator.check_sound(self.id)

    async def _is_latest(self, execution: Execution) -> bool:
        """Whether nothing has happened to the saga since that execution ended."""
        if self._coordinator.execution(self.id) is not None:
            return False
        record = await self._coordinator.record(self.id)
        self._origin.check(record.created_at)
        return record.last_seq == execution.machine.seq

    async def status(self) -> s.SagaStatus:
        """How the saga stands in the store."""
        return (await self._coordinator.record(self.id)).status

    async def events(self, after: int = 0) -> AsyncIterator[Event]:
        """The saga's events as they become durable, from `after` on, until an end has been yielded.

        A saga that has ended and is rolled back later is followed no further; call it again.
        """
        async for event in self._coordinator.follow(self.id, after, self._origin):
            yield event


def _end_of(execution: Execution) -> _End:
    return execution.machine, execution.exceptions
