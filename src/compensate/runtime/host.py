"""The host: the executions that live in one coordinator, from claim to release."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Coroutine, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeVar

from compensate.authoring import ActionRegistry, Saga
from compensate.codec import records as r
from compensate.core import states as s
from compensate.core.events import Event
from compensate.core.machine import Machine
from compensate.core.plan import Plan
from compensate.errors import (
    CompensateError,
    Conflict,
    CorruptLog,
    DefinitionError,
    Fenced,
    IllegalRequest,
    SagaExists,
    SagaNotFound,
    Stopped,
    Unavailable,
    UnsupportedVersion,
)
from compensate.inspection.bindings import Bindings
from compensate.inspection.fit import Misfit, misfit, require
from compensate.runtime import log
from compensate.runtime.calls.threads import Countdown
from compensate.runtime.execution import Change, Execution
from compensate.runtime.inject import Faults, Inject, joined
from compensate.runtime.setting import Setting
from compensate.runtime.slots import HOLDER, Holder
from compensate.stores.base import Damaged, NewSaga, StoredSaga

T = TypeVar("T")

_RETIREMENT: Final = 1.0
"""Seconds to wait for cancelled actions to end; longer would hold up other sagas, or the end of the process."""

_MOST_BINDINGS: Final = 1_000
"""Dags whose bindings are kept: who builds a dag for every saga must not fill the memory with them."""


class Host:
    """Runs sagas for one owner; knows the code that they need.

    Args:
        setting: Store, clock and the rest.
        registry: Today's actions.
        owner: Name under which sagas are claimed.
        grace: Seconds for which rollbacks wait for running actions.
        crashes: A node is given up when its process has died so many times in a row while it ran.
    """

    def __init__(
        self, setting: Setting, registry: ActionRegistry, owner: str, grace: float, crashes: int
    ) -> None:
        self.setting = setting
        self.registry = registry
        self.owner = owner
        self.grace = grace
        self.crashes = crashes
        self.live: dict[str, Execution] = {}
        """Those that begin or are driven here, some of them perhaps over already; `find` leaves those out."""
        self.tasks: dict[str, asyncio.Task[s.SagaStatus | None]] = {}
        self.damaged: dict[str, BaseException] = {}
        """Sagas that cannot be gone on with here, and why."""
        self.orphans: set[str] = set()
        """Ids under which something may have been stored for us that nothing here runs: a start of unknown outcome."""
        self.fenced: set[str] = set()
        """Sagas that ran here until somebody else adopted them."""
        self.faults: dict[str, Mapping[str, Inject]] = {}
        """Faults that were ordered for one saga, by its id. They hold as long as this host does, and are not stored."""
        self._cuts: Counter[str] = Counter()
        """By saga: how often in a row its task was cancelled here, and by none of us."""
        self.exits: dict[str, BaseException] = {}
        """By saga: the `SystemExit` or `KeyboardInterrupt` that one of its actions or undos raised here."""
        self.stopping = False
        self._stopped = False
        self._errands: set[asyncio.Task[Any]] = set()
        self._adopting: set[Execution] = set()
        self._bindings: dict[str, Bindings] = {}
        self._left: dict[str, Execution] = {}

    def find(self, saga_id: str) -> Execution | None:
        """The execution that writes the log of a saga here, or is about to; `None`: the store alone knows of it."""
        execution = self.live.get(saga_id)
        return None if execution is None or execution.over else execution

    async def errand(self, saga_id: str, work: Coroutine[Any, Any, T]) -> T:
        """Do something for a caller in a task of our own, so that neither of us depends on the other.

        A caller that is cancelled gives up the wait and not the work: a claim that was cut off would leave a saga that
        is ours and runs nowhere. And the end of the coordinator answers a caller whose work cannot go on.

        Raises:
            Stopped: The coordinator is shut down, or was before the work was done.
        """
        if self.stopping:
            work.close()
            raise Stopped(
                f"saga {saga_id}: the coordinator is shut down; a stored saga is resumed by the next one"
            )
        task = asyncio.create_task(work)
        self._errands.add(task)
        task.add_done_callback(self._done)
        await asyncio.wait([task])
        if task.cancelled():
            raise Stopped(
                f"saga {saga_id}: the coordinator was shut down first; a stored saga is resumed by the next one"
            )
        return task.result()

    def _done(self, errand: asyncio.Task[Any]) -> None:
        self._errands.discard(errand)
        if not errand.cancelled():
            errand.exception()  # the caller may have given up the wait

    # -- new sagas ---------------------------------------------------------

    async def start(
        self,
        saga: Saga[..., Any],
        saga_id: str,
        params: bytes,
        deadline: float | None,
        inject: Faults = None,
    ) -> Execution:
        """Store a new saga and run it, with `inject` as faults of its own.

        Raises:
            SagaExists: The id is taken, by whatever saga; its own start may still be under way here.
            Unavailable: The outcome is unknown; starting it again is safe.
        """
        if self.find(saga_id) is not None:
            raise SagaExists(f"saga {saga_id}: the id is taken")
        machine = Machine(saga.plan, saga_id, 1, self.grace, crashes=self.crashes)
        now = self.setting.clock.now()
        machine.create(params, now, None if deadline is None else now + deadline)

        def new(events: list[Event]) -> NewSaga:
            return NewSaga(saga_id, saga.name, saga.fingerprint, saga.encoded, events, machine.standing, now)

        execution = Execution(machine, self._bindings_of(saga), self.setting, new)
        execution.owner = self.owner
        execution.created_at = now
        old = self.live.get(saga_id)
        if old is not None:
            self._leave(old)
        execution.inject = joined(inject, self.setting.inject)
        self.live[saga_id] = execution
        try:
            await execution.begin()
        except BaseException as error:
            if self.live.get(saga_id) is execution:  # it may have been adopted meanwhile
                del self.live[saga_id]
            if not isinstance(error, SagaExists):
                self.orphans.add(saga_id)
            raise
        self.damaged.pop(saga_id, None)  # that was another saga, deleted since
        if self.find(saga_id) is execution:
            self.order(saga_id, inject)
            self._launch(execution)
        else:  # before the store's answer came the saga was adopted elsewhere, and here again, or all was shut down
            execution.withdraw()
            self._forget(execution)
        return execution

    def order(self, saga_id: str, inject: Faults) -> None:
        """Have things go wrong in one saga, as long as it runs here: in what it still does, and after each claim."""
        if inject:
            self.faults[saga_id] = inject
            if saga_id in self.live:
                self.live[saga_id].inject = joined(inject, self.setting.inject)

    def _bindings_of(self, saga: Saga[..., Any]) -> Bindings:
        bindings = self._known_bindings(saga.fingerprint)
        if bindings is None:
            bindings = self._bind(saga.fingerprint, saga.plan)
        require(bindings)
        return bindings

    def _known_bindings(self, fingerprint: str) -> Bindings | None:
        """The bindings of a dag, unless some are missing and more actions have become known since they were made."""
        bindings = self._bindings.get(fingerprint)
        return bindings if bindings is None or bindings.complete or bindings.of_code == self.code else None

    def _bind(self, fingerprint: str, plan: Plan) -> Bindings:
        bindings = Bindings(plan, self.registry.get, self.code)
        if len(self._bindings) >= _MOST_BINDINGS:
            del self._bindings[next(iter(self._bindings))]
        self._bindings[fingerprint] = bindings
        return bindings

    @property
    def code(self) -> int:
        """Tells the code that is known now from what was known before: actions are only ever added."""
        return len(self.registry)

    def misfit(self, stored: StoredSaga) -> Misfit | None:
        """Why the code here does not fit a stored saga. Changes nothing.

        Raises:
            CorruptLog: The log or the dag is not possible.
            UnsupportedVersion: A newer version wrote it.
        """
        return misfit(*self._read(stored, stored.record.epoch))

    # -- stored sagas ------------------------------------------------------

    async def adopt_all(self, claimed: Sequence[StoredSaga | Damaged]) -> None:
        """Go on with sagas that were claimed. What is wrong with one is reported and holds up none of the others.

        They are adopted side by side, so that what they write first shares commits.
        """
        await asyncio.gather(*(self.adopt_or_report(stored) for stored in claimed))

    async def adopt_or_report(self, stored: StoredSaga | Damaged) -> bool:
        """Go on with one saga that was claimed. Returns `False` if that is to be tried again later."""
        if isinstance(stored, Damaged):
            self.report_damaged(stored.saga_id, stored.error)
            return True
        try:
            await self.adopt(stored)
        except (Fenced, Conflict, Unavailable) as error:
            what = f"saga {stored.record.id} could not be adopted; trying again"
            self.setting.report(what, error, saga=stored.record.id, epoch=stored.record.epoch)
            return False
        except Exception as error:
            self.report_damaged(stored.record.id, error)
        return True

    def report_damaged(self, saga_id: str, error: BaseException) -> None:
        """Remember and report that a saga cannot be gone on with here."""
        if isinstance(error, SagaNotFound):
            return  # it has been deleted meanwhile; another may be started under its id
        self.damaged[saga_id] = error
        what = f"saga {saga_id} cannot be gone on with; the others are not held up"
        self.setting.report(what, error, saga=saga_id)

    async def adopt(self, stored: StoredSaga, change: Change | None = None) -> bool:
        """Go on with a saga that was claimed, unless it is parked, or has ended and is not to be changed.

        Args:
            stored: As claimed.
            change: An operator's request to be applied first.

        Returns:
            `False` if the request has to be asked again, of the execution that is now live.

        Raises:
            IllegalRequest: The request makes no sense now.
            CorruptLog: The log is not possible.
        """
        saga_id, epoch = stored.record.id, stored.record.epoch
        owed = False
        adopting: Execution | None = None
        try:
            old = self.live.get(saga_id) or self._left.get(saga_id)
            if old is not None:
                self._left[saga_id] = old  # until another drives it: this may come to nothing
                await self._retire(old)
            execution = adopting = self._fold(stored, epoch, old)
            self._adopting.add(execution)
            machine = execution.machine
            # Who cancels its own task each time it runs would go on so for ever: at some point that counts as a death.
            died = stored.died or self._cuts[saga_id] >= self.crashes
            owed = self._prepare(execution, change, died=died)
            if machine.status in s.ENDS:
                if machine.unsaved:
                    await execution.save()  # an end releases the saga
                    if execution.machine.status not in s.ENDS:
                        raise Unavailable(f"saga {saga_id}: the append of its end failed; adopt it again")
                else:
                    await self._release(saga_id, epoch)
                return True
            await execution.begin()
        except (CorruptLog, UnsupportedVersion):
            # It stays ours, like one that the store itself finds damaged: once released, it would be claimed and
            # reported anew at every look.
            raise
        except BaseException:
            self.orphans.add(saga_id)  # until it is known to be released
            with contextlib.suppress(CompensateError):
                await self._release(saga_id, epoch)
                self.orphans.discard(saga_id)
            raise
        finally:
            if adopting is not None:
                self._adopting.discard(adopting)
        self.damaged.pop(saga_id, None)
        self._left.pop(saga_id, None)
        self.live[saga_id] = execution
        self._launch(execution)
        return not owed

    async def disown(self, old: Execution) -> None:
        """The saga of an execution was deleted while it ran here, elsewhere or by hand: end what runs of it."""
        await self._retire(old)
        self._forget(old)

    async def _retire(self, old: Execution) -> None:
        """The saga was adopted, elsewhere or here, and has come back: end what still runs of it under the old epoch."""
        ends: list[asyncio.Task[Any]] = old.crew.tasks()
        driver = self.tasks.get(old.id)
        if driver is not None:
            ends.append(driver)
        if not old.ended:
            old.lose(Fenced(f"saga {old.id}: it was adopted again; this execution was of an earlier epoch"))
        old.abandon()
        for task in ends:
            task.cancel()
        if ends:
            await asyncio.wait(ends, timeout=_RETIREMENT)
            old.outlast()

    def _prepare(self, execution: Execution, change: Change | None, *, died: bool) -> bool:
        """Bring a saga just folded up to date; returns whether `change` has to be asked again later."""
        machine, now = execution.machine, self.setting.clock.now()
        is_parked = machine.stuck is not None and bool(machine.stuck.parked)
        if change is None and machine.status in s.ENDS and not is_parked:
            return False
        wrong = misfit(machine, execution.bindings)
        if wrong is not None and change is None:
            if not is_parked:
                machine.interrupted(now, died=died)
                machine.park(f"{wrong}; {wrong.advice}", now)
            return False
        if is_parked:
            machine.unpark(now)
        if machine.status not in s.ENDS:
            machine.interrupted(now, died=died)
        if change is None:
            return False
        try:
            owed = not change(execution, now)
        except IllegalRequest as error:
            if wrong is None:
                raise
            raise self._not_here(execution, wrong) from error
        # What was asked may need less of the code than what would have been done without it, or more.
        wrong = misfit(machine, execution.bindings)
        if wrong is not None:
            # Who asks without having the code must not park what others can go on with.
            raise self._not_here(execution, wrong)
        return owed

    @staticmethod
    def _not_here(execution: Execution, wrong: Misfit) -> IllegalRequest:
        return IllegalRequest(
            f"saga {execution.id}: {wrong}; nothing was changed; ask again where code that fits it is loaded"
        )

    def _fold(self, stored: StoredSaga, epoch: int, old: Execution | None) -> Execution:
        lingering = None if old is None else old.machine.lingering
        machine, bindings = self._read(stored, epoch, lingering)
        execution = Execution(machine, bindings, self.setting)
        execution.owner = self.owner
        execution.created_at = stored.record.created_at
        execution.inject = joined(self.faults.get(stored.record.id), self.setting.inject)
        if old is not None:
            old.heir = execution
        return execution

    def _read(
        self, stored: StoredSaga, epoch: int, lingering: set[int] | None = None
    ) -> tuple[Machine, Bindings]:
        saga_id, fingerprint = stored.record.id, stored.record.fingerprint
        bindings = self._known_bindings(fingerprint)
        if bindings is None:
            try:
                plan = Plan(r.decode_dag(stored.dag))
            except DefinitionError as error:
                raise CorruptLog(f"saga {saga_id}: its stored dag cannot be: {error}") from error
            bindings = self._bind(fingerprint, plan)
        machine = Machine.fold(
            bindings.plan,
            saga_id,
            stored.events,
            epoch,
            self.grace,
            crashes=self.crashes,
            lingering=lingering,
        )
        return machine, bindings

    # -- life --------------------------------------------------------------

    def _launch(self, execution: Execution) -> None:
        if self.stopping:
            execution.stop()  # it was about to begin; whoever has it next goes on
        if self._stopped:
            execution.forsake()
        task = asyncio.create_task(self._drive(execution), name=f"saga {execution.id}")
        self.tasks[execution.id] = task
        task.add_done_callback(partial(self._driven, execution))

    def _driven(self, execution: Execution, task: asyncio.Task[s.SagaStatus | None]) -> None:
        """Its task is over. One that is cancelled before its first step never came to `drive`, nor to an `end`."""
        if not execution.ended:
            execution.withdraw()
            if not (self.stopping or execution.abandoned):
                self.orphans.add(execution.id)
            self._forget(execution)

    def _forget(self, execution: Execution) -> None:
        if self.live.get(execution.id) is execution:
            del self.live[execution.id]
            self.tasks.pop(execution.id, None)

    async def _drive(self, execution: Execution) -> s.SagaStatus | None:
        if self.setting.slots is not None:
            execution.holder = Holder(self.setting.slots, lambda: execution.place >= 0)
            HOLDER.set(execution.holder)
        try:
            status = await execution.drive()
            self._cuts.pop(execution.id, None)
            return status
        except Fenced as error:
            what = f"saga {execution.id}: somebody else has adopted it; it is left to them"
            self.setting.report(what, error, saga=execution.id, epoch=execution.machine.epoch)
            self._leave(execution)
            self.fenced.add(execution.id)
            return None
        except Stopped:
            return None  # it was forsaken
        except Exception as error:
            self.report_damaged(execution.id, error)
            self._leave(execution)
            return None
        except GeneratorExit:
            raise  # its loop is gone, and nothing can be cancelled any more
        except BaseException as error:
            if isinstance(error, SystemExit | KeyboardInterrupt):
                # `compensate.connect` raises it to those who wait for this saga, so the loop need not report it.
                self.exits[execution.id] = error
                task = asyncio.current_task()
                if task is not None:
                    task.add_done_callback(_heard)
            if not (self.stopping or execution.abandoned):
                # Somebody else cancelled it, perhaps its own action: it goes on at the next look.
                what = f"saga {execution.id}: it was cut off, and will be gone on with"
                self.setting.report(what, error, saga=execution.id, epoch=execution.machine.epoch)
                self._cuts[execution.id] += 1
                self.orphans.add(execution.id)
                self._leave(execution)
            raise
        finally:
            self._forget(execution)

    def _leave(self, execution: Execution) -> None:
        """Nobody drives it any more. If it comes back here, what still runs of it has to be known."""
        execution.abandon()
        self._left[execution.id] = execution
        self._left = {
            k: left for k, left in self._left.items() if left.crew.running or left.machine.lingering
        }

    async def _release(self, saga_id: str, epoch: int) -> None:
        done = self.setting.store.release(saga_id, epoch)
        if done is not None:
            await done

    def hold(self) -> None:
        """Start nothing more, from this moment on."""
        self.stopping = True
        for execution in list(self.live.values()):
            execution.stop()

    async def stop(self, drain: float) -> None:
        """Start nothing more, wait `drain` seconds for what runs, cancel the rest. All sagas stay resumable."""
        self.hold()
        executions, tasks = list(self.live.values()), list(self.tasks.values())
        late: set[asyncio.Task[Any]] = set()
        if tasks or self._errands:
            _, late = await asyncio.wait([*tasks, *self._errands], timeout=drain)
        if late:
            for execution in list(self.live.values()):
                execution.abandon()
            for task in late:
                task.cancel()
            await asyncio.wait(late, timeout=_RETIREMENT)
        for execution in {*executions, *self.live.values()}:
            execution.outlast()
        self._stopped = True
        # Actions that do not react to their cancellation, requests that wait for a store that fails, starts whose
        # insert is under way: who waits for one of them is answered now.
        for execution in {*executions, *self.live.values(), *self._adopting}:
            execution.forsake()
        for task in tasks:
            error = task.exception() if task.done() and not task.cancelled() else None
            if error is not None:
                name = task.get_name()
                self.setting.report(f"{name}: it stopped", error, saga=name.removeprefix("saga "))

    async def leave(self) -> None:
        """Release all sagas but those whose functions still run here: no other process may touch them yet.

        They stay owned until those functions have ended, or the process has.
        """
        running = {job: saga_id for job, saga_id in self.setting.left_behind.items() if not job.over}
        kept = sorted(set(running.values()))
        await self.setting.store.leave(self.owner, keep=kept)
        if not kept:
            return
        shown = ", ".join(kept[:5]) + (", ..." if len(kept) > 5 else "")
        log.write(
            logging.WARNING,
            f"coordinator {self.owner}: closed while functions of {len(kept)} sagas still run ({shown}); "
            "it owns these sagas until those functions have ended",
            owner=self.owner,
        )
        left = Countdown(len(running), partial(self.setting.store.retire, self.owner))
        for job in running:
            job.watch(left.one_less)


def _heard(task: asyncio.Task[Any]) -> None:
    """Look at what a task raised, so that the loop does not report it besides."""
    task.exception()
