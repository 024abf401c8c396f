"""Writing: an execution's side towards the store.

One write at a time; what others record meanwhile goes with the next. After a failed
write the log alone says what is true (S10): the machine is thrown away and folded
anew, and facts that the log does not hold are told again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Container, Sequence
from typing import Final

from compensate.core import events as e
from compensate.core import states as s
from compensate.core.events import Event
from compensate.core.machine import Machine
from compensate.errors import CompensateError, Conflict, CorruptLog, Fenced, StoreError, Unavailable
from compensate.inspection.bindings import Bindings
from compensate.inspection.values import Values
from compensate.runtime.log import WRITTEN, write_events
from compensate.runtime.setting import Setting
from compensate.stores.base import NewSaga, StoredSaga
from compensate.stores.common import another

_FACTS: Final = frozenset(
    {
        e.COMPLETED,
        e.FAILED,
        e.IN_DOUBT,
        e.UNDONE,
        e.UNDO_FAILED,
        e.RETRIED,
        e.SKIPPED,
        e.RESOLVED,
        e.SUPPLIED,
        e.SAGA_PAUSED,
        e.SAGA_RESUMED,
        e.SAGA_UNPARKED,
    }
)
"""Events that say what happened outside, as opposed to what the machine decided."""

_LONGEST_PAUSE: Final = 5.0
"""Seconds between two tries to write to a store that keeps failing."""


class Writing:
    """The machine of one saga, and its log.

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
        self.machine = machine
        self.bindings = bindings
        self.setting = setting
        self.values = Values(machine)
        self._new = new
        self._watchers: list[asyncio.Future[None]] = []
        self._awaiting: list[asyncio.Future[None]] = []
        self._pausing: list[asyncio.Future[None]] = []

    log: list[Event] | None = None
    """Where to keep the events that are durable, if anywhere."""
    owner = ""
    created_at: float | None = None
    """As the saga's record says; see `Store.append`."""
    ended = False
    """Nothing drives it any more."""
    lost: CompensateError | None = None
    """Why nothing more is written here; what the machine holds beyond that is not in the log."""
    cut_off = False
    """It is lost because a task was cancelled in the middle of a write, and not because the store failed."""
    _saving: asyncio.Future[None] | None = None
    _misses = 0
    """How many appends have failed in a row."""

    @property
    def id(self) -> str:
        """The saga's id."""
        return self.machine.saga_id

    @property
    def over(self) -> bool:
        """No further event will be written by this execution, even if some of its actions still run."""
        return self.ended or self.lost is not None

    @property
    def starting(self) -> bool:
        """Its saga is not known to be stored."""
        return self._new is not None

    @property
    def has_end(self) -> bool:
        """It reached an end of the saga, and that end is durable."""
        return (
            self.ended
            and self.lost is None
            and self._new is None
            and self.machine.status in s.ENDS
            and not self.machine.unsaved
        )

    def in_flight(self) -> Container[int]:
        """The nodes whose action or undo runs here."""
        raise AssertionError("an execution says what it runs")

    def write(self) -> Awaitable[bool] | None:
        """Write what is unsaved. `None`: it is durable; otherwise the awaitable says what `_save` returns."""
        if self._saving is not None:
            return self._save()
        if self.lost is not None:
            raise self.lost
        machine = self.machine
        events = machine.unsaved
        machine.unsaved = []
        try:
            if self._new is None:
                done = self.setting.store.append(
                    machine.saga_id,
                    machine.epoch,
                    events[0].seq - 1,
                    events,
                    machine.standing,
                    self.created_at,
                )
            else:
                done = self.setting.store.create(self._new(events), self.owner)
        except (Conflict, Unavailable) as error:
            return self._until(_failed(error), events)  # nobody else writes while the log is read again
        except BaseException as error:
            machine.unsaved = [*events, *machine.unsaved]  # an end that is not durable is no end
            self.lose(error)
            raise
        if done is not None:
            return self._until(done, events)
        self._new = None
        self._misses = 0
        # `_kept`, without the calls: this is on the path of every step.
        for event in events:
            if event.type in WRITTEN:
                write_events(self.machine, self.owner, events)
                break
        if self.log is not None:
            self.log += events
        if self._watchers or self.setting.observers:
            self._tell(events)
        return None

    async def _until(self, done: Awaitable[None], events: list[Event]) -> bool:
        """Wait for a write; nobody else writes meanwhile."""
        self._saving = asyncio.get_running_loop().create_future()
        try:
            await done
        except BaseException as error:
            if self._new is not None or not isinstance(error, Conflict | Unavailable):
                self.machine.unsaved = [*events, *self.machine.unsaved]
                self.lose(error)
                raise
            try:
                return await self.read_again(events, error)
            except BaseException as worse:
                self.lose(worse)
                raise
        finally:
            self._saving.set_result(None)
            self._saving = None
        self._new = None
        self._misses = 0
        self._kept(events)
        return True

    def _kept(self, events: list[Event]) -> None:
        """Events have become durable."""
        if self.log is not None:
            self.log += events
        write_events(self.machine, self.owner, events)
        if self._watchers or self.setting.observers:
            self._tell(events)

    def lose(self, error: BaseException) -> None:
        """Write nothing more, whoever asks (S10), and wake everybody who waits for this execution.

        They are woken at once, although actions may still run here: an action that does not react to its
        cancellation must not keep them waiting for an end that can no longer come from this execution.

        Args:
            error: Why: a write that failed for good, another owner, or the end of the coordinator.
        """
        if isinstance(error, CompensateError):
            self.lost = error
        else:
            self.cut_off = True
            self.lost = Unavailable(f"saga {self.id}: a write was cut off ({type(error).__name__})")
        self._wake_waiters()

    async def _save(self) -> bool:
        """Make what the machine decided durable.

        Returns:
            `False` if the log had to be read again; what was decided is void then, and the machine another.
        """
        machine = self.machine
        while self._saving is not None:
            await asyncio.shield(self._saving)  # others wait for it too
        if self.lost is not None:
            raise self.lost
        if self.machine is not machine:
            return False
        if not machine.unsaved:
            return True
        done = self.write()
        return done is None or await done

    async def read_again(self, lost: list[Event], error: StoreError) -> bool:
        """After a failed append the log alone says what is true (S10). Facts that it does not hold are told again.

        Always `False`: what was decided is void.
        """
        self._report("an append failed; its log is read again", error)
        if self._misses:  # a full disk can be read: without a pause this would spin
            await self._pause(_seconds(self._misses))
        self._misses += 1
        old = self.machine
        stored = await self._load_patiently()
        if self.created_at not in (None, stored.record.created_at):
            raise another(self.id)
        if stored.record.epoch != old.epoch:
            raise Fenced(
                f"saga {self.id}: it was adopted at epoch {stored.record.epoch}; this one was {old.epoch}"
            )
        machine = Machine.fold(
            self.bindings.plan,
            self.id,
            stored.events,
            old.epoch,
            old.grace,
            crashes=old.crashes,
            lingering=old.lingering,
        )
        self.machine = self.values.machine = machine
        written = [event for event in stored.events if event.seq >= lost[0].seq]
        if written:
            self._kept(written)  # the write had been done after all
        now = self.setting.clock.now()
        for event in [*lost, *old.unsaved]:  # the latter were told while it was being read
            if event.type in _FACTS or (event.type == e.SAGA_ROLLBACK and self._asked_for(event)):
                try:
                    machine.record_again(event, now)
                except CorruptLog:
                    continue  # it is in the log already
        # This process lives: the log holds the start of what was never called here.
        machine.interrupted(now, except_for=self.in_flight(), died=False)
        return False

    async def _load_patiently(self) -> StoredSaga:
        misses = 0
        while True:
            try:
                return await self.setting.store.load(self.id)
            except (Unavailable, Conflict) as error:
                self._report("its log cannot be read; trying again", error)
            misses += 1
            await self._pause(_seconds(misses))

    async def _pause(self, seconds: float) -> None:
        """Leave a failing store alone for so long.

        Raises:
            CompensateError: The execution was lost meanwhile; see `lost`.
        """
        if self.lost is None:
            lost = asyncio.get_running_loop().create_future()
            self._pausing.append(lost)
            await asyncio.wait([lost], timeout=seconds)
            if lost in self._pausing:
                self._pausing.remove(lost)
        if self.lost is not None:
            raise self.lost

    @staticmethod
    def _asked_for(event: Event) -> bool:
        return isinstance(event.data, e.Rollback) and event.data.cause == "request"

    def _tell(self, events: Sequence[Event]) -> None:
        _tell_all(self._watchers)
        for observer in self.setting.observers:
            try:
                observer(self.id, events)
            except (KeyboardInterrupt, SystemExit, asyncio.CancelledError):
                raise
            except BaseException as error:  # a `GeneratorExit` would end the task of the saga without a word
                self._report("an observer raised", error)

    def _report(self, what: str, error: BaseException) -> None:
        self.setting.report(f"saga {self.id}: {what}", error, saga=self.id, epoch=self.machine.epoch)

    def watch(self) -> asyncio.Future[None]:
        """A future that is done when the log has grown, or the execution is over."""
        return self._join(self._watchers)

    def wait(self) -> asyncio.Future[None]:
        """A future that is done when the execution is over."""
        return self._join(self._awaiting)

    async def stored(self) -> bool:
        """Wait until the saga is stored; `False` if the execution was over before."""
        while self._new is not None and not self.over:
            await self.watch()
        return self._new is None

    def _join(self, waiting: list[asyncio.Future[None]]) -> asyncio.Future[None]:
        future = asyncio.get_running_loop().create_future()
        if self.over:
            future.set_result(None)
        else:
            waiting.append(future)
        return future

    async def save(self) -> None:
        """Make durable what has been told or asked. Whoever waits for it may give up; the write does not."""
        task = asyncio.create_task(self._save_all())
        task.add_done_callback(_hear)
        await asyncio.shield(task)

    async def _save_all(self) -> None:
        while self.machine.unsaved or self._saving is not None:
            await self._save()

    def end(self) -> None:
        """Nothing drives the execution any more: wake everybody who waits for it. Safe to call twice.

        This and `lose` are the only ways in which an execution gets over, whether it ran to an end, was stopped,
        was superseded or never came to run. Whoever is woken looks at `has_end` and `lost`, and else asks the store.
        """
        self.ended = True
        self._wake_waiters()

    def _wake_waiters(self) -> None:
        _tell_all(self._watchers)
        _tell_all(self._awaiting)
        if self.lost is not None:
            _tell_all(self._pausing)


def _hear(task: asyncio.Task[None]) -> None:
    """What it raised is known to the execution, even where nobody waits any more."""
    if not task.cancelled():
        task.exception()


def _seconds(misses: int) -> float:
    """Seconds to leave a store alone that has failed so often in a row."""
    return min(0.05 * 2.0 ** min(misses - 1, 10), _LONGEST_PAUSE)


async def _failed(error: StoreError) -> None:
    """A write that failed at once, as one that fails later."""
    raise error


def _tell_all(waiting: list[asyncio.Future[None]]) -> None:
    for future in waiting:
        if not future.done() and not future.get_loop().is_closed():
            future.set_result(None)
    waiting.clear()
