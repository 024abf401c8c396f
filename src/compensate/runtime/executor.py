"""The executor: runs one saga, with no coordinator around it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar, cast, overload

from compensate.authoring import Action, ActionRegistry, Saga
from compensate.authoring.registry import actions_of
from compensate.codec import encode_any
from compensate.codec import records as r
from compensate.core import states as s
from compensate.core.dag import Dag
from compensate.core.events import Event
from compensate.core.log import Fold
from compensate.core.machine import Machine
from compensate.core.names import check_saga_id
from compensate.core.plan import Plan
from compensate.core.shown import states
from compensate.errors import (
    ActionFailed,
    ActionNotFound,
    CompensateError,
    IllegalRequest,
    ParamsInvalid,
    SerializeFailed,
)
from compensate.inspection import timeline
from compensate.inspection.bindings import Bindings
from compensate.inspection.endings import ending, error_of, output_of
from compensate.inspection.fit import misfit, require
from compensate.runtime import forks, log, verbs
from compensate.runtime.calls.threads import Countdown, WorkerPool
from compensate.runtime.clock import Clock, SystemClock
from compensate.runtime.execution import Execution
from compensate.runtime.ids import ids
from compensate.runtime.inject import Inject, check_fit
from compensate.runtime.setting import Setting, check_crashes, require_deps
from compensate.stores import open_store
from compensate.stores.base import NewSaga, Store, StoredSaga

T = TypeVar("T")
V = TypeVar("V")

OWNER = "executor"
THREADS: Final = 32
"""How many plain functions an executor runs at once, unless it is given a pool."""
_LEASE: Final = 60.0
"""Seconds between joining and leaving at most; who has left for its threads' sake is alive without a lease."""


class SagaExecutor(Generic[T]):
    """Runs one saga of a definition, or of a dag built at run time.

    It joins no fleet: it holds no lease and adopts nothing. For sagas that must survive the process use a
    `Coordinator`, or build the executor anew with `from_stored` after a restart. One that is given a store's url is
    to be closed: use it as an async context manager, or call `close`.

    Args:
        saga: What to run.
        registry: Where a dag's actions are found; a traced saga brings its own.
        saga_id: The saga's id; made up by default.
        store: An open store or a url; in memory by default.
        deps: Given to actions and undos as `ctx.deps`.
        clock: Where time comes from.
        pool: Where plain functions run; by default, up to 32 threads of its own.
        inject: Faults on order, by path of node; for one that could never fire, `DefinitionError`.
        grace: Seconds for which a rollback by request waits for running actions.
        crashes: A node during whose action or undo the process has died so many times in a row is given up: the saga
            is stuck there. For that the executor is built anew after each death, with `from_stored`.

    Raises:
        DefinitionError: An action or undo takes `Ctx[Deps]` and `deps` is `None`, or a fault could never fire.
        ActionNotFound: The registry does not have an action of the dag.
    """

    @overload
    def __init__(
        self,
        saga: Saga[..., T],
        registry: ActionRegistry | None = ...,
        *,
        saga_id: str | None = ...,
        store: Store | str = ...,
        deps: Any = ...,
        clock: Clock | None = ...,
        pool: Executor | None = ...,
        inject: Mapping[str, Inject] | None = ...,
        grace: float = ...,
        crashes: int = ...,
    ) -> None: ...
    @overload  # a bare dag does not say what it returns
    def __init__(
        self: SagaExecutor[Any],
        saga: Dag,
        registry: ActionRegistry | None = ...,
        *,
        saga_id: str | None = ...,
        store: Store | str = ...,
        deps: Any = ...,
        clock: Clock | None = ...,
        pool: Executor | None = ...,
        inject: Mapping[str, Inject] | None = ...,
        grace: float = ...,
        crashes: int = ...,
    ) -> None: ...
    def __init__(
        self,
        saga: Saga[..., T] | Dag,
        registry: ActionRegistry | None = None,
        *,
        saga_id: str | None = None,
        store: Store | str = "memory://",
        deps: Any = None,
        clock: Clock | None = None,
        pool: Executor | None = None,
        inject: Mapping[str, Inject] | None = None,
        grace: float = 30.0,
        crashes: int = 5,
    ) -> None:
        self.saga = saga
        self.id = ids.next() if saga_id is None else check_saga_id(saga_id)
        self.store = open_store(store) if isinstance(store, str) else store
        self.events: list[Event] = []
        self._is_ours = isinstance(store, str)
        self._opened = not self._is_ours
        self._grace = grace
        check_crashes("SagaExecutor", crashes)
        self._crashes = crashes
        # Nobody else's: that another process dies while it runs the saga is seen by the name that it left.
        self._owner = f"{OWNER}-{ids.next()}"
        self._setting = Setting(
            self.store, clock or SystemClock(), deps, pool=pool, inject=inject, report=_report
        )
        if isinstance(saga, Dag):
            self._plan = Plan(saga)
            known = registry or ActionRegistry()
            actions_of(saga, known)
            self._bindings = Bindings(self._plan, known.get)
        else:
            self._plan = saga.plan
            self._bindings = _bindings(saga)
        require_deps({id(one.action): one.action for one in self._bindings.list if one}.values(), deps)
        check_fit(self._plan, self._setting.inject)
        self._execution: Execution | None = None
        self._stored: Machine | None = None
        self._cut_off = False
        self._task: asyncio.Task[BaseException | None] | None = None
        self._turn = asyncio.Lock()
        """Held by who drives; a second caller waits, and then finds what the first left."""
        forks.OPEN.add(self)

    @classmethod
    async def from_stored(
        cls,
        store: Store,
        saga_id: str,
        registry: ActionRegistry | Iterable[Action[..., Any]],
        *,
        deps: Any = None,
        saga: Saga[..., Any] | None = None,
        **options: Any,
    ) -> SagaExecutor[Any]:
        """Build the executor of a stored saga anew, in whatever state it is; `execute` and `rollback` go on from there.

        Args:
            store: An open store.
            saga_id: Which saga.
            registry: Where its actions are found.
            deps: As for the constructor.
            saga: Its definition, if the result is to be decoded by its types.
            options: As for the constructor.

        Raises:
            SagaNotFound: There is none.
            CorruptLog: Its log is damaged.
            ActionNotFound: An action is not registered, or does not do what the stored dag asks of it; names the node.
            Fenced: A live coordinator owns it.
        """
        if not isinstance(registry, ActionRegistry):
            actions, registry = registry, ActionRegistry()
            for action in actions:
                registry.register(action)
        stored = await store.load(saga_id)
        executor: SagaExecutor[Any] = cls(
            r.decode_dag(stored.dag), registry, saga_id=saga_id, store=store, deps=deps, **options
        )
        if saga is not None:
            executor.saga = saga
        executor.events = list(stored.events)
        executor._stored = executor._fold(stored)
        return executor

    def _fold(self, stored: StoredSaga, lingering: set[int] | None = None) -> Machine:
        return Machine.fold(
            self._plan,
            self.id,
            stored.events,
            stored.record.epoch,
            self._grace,
            crashes=self._crashes,
            lingering=lingering,
        )

    # -- life --------------------------------------------------------------

    def forked(self) -> None:
        """In the child of a fork: what runs is the parent's."""
        if self._turn.locked():
            self.store = self._setting.store = cast(
                "Store", forks.ForeignStore(f"executor of saga {self.id}")
            )

    async def _open(self) -> None:
        if not self._opened:
            await self.store.open()
            self._opened = True

    async def close(self) -> None:
        """Close the store if it was given as a url; one that was given open is left open. Safe to call twice.

        What was run can still be looked at; running on opens the store again.
        """
        if self._is_ours and self._opened:
            self._opened = False
            await self.store.close()

    async def __aenter__(self) -> Self:
        """Open the store, if it is not."""
        await self._open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close it; see `close`."""
        await self.close()

    # -- running -----------------------------------------------------------

    async def execute(self, *args: Any, **kwargs: Any) -> T:
        """Run the saga to its end, from wherever it stands; called again, give the same result.

        A call that comes while another one runs the saga waits for that one, and goes on if it is cut off.

        Args:
            args: The saga's arguments; none when it was built from a stored saga.
            kwargs: The same by name. A bare dag takes its params by name only, as plain data.

        Returns:
            What the saga returns. For a bare dag: plain JSON data.

        Raises:
            RolledBack: It was rolled back; the original error is the `__cause__`.
            Stuck: It needs an operator.
            SagaExists: The id is taken in the store.
            StoreError: The log could not be written.
        """
        async with self._turn:
            try:
                execution = await self._run(args, kwargs)
            except BaseException:
                self._cut_off = bool(self.events)  # the next call goes on from the log
                if not self.events:
                    self._execution = None  # nothing is known to be stored: the next call begins anew
                raise
        machine = execution.machine
        if machine.status != s.COMPLETED:
            raise ending(machine, execution.exceptions)
        return self._decode(execution.values.output(machine.plan.end))

    async def _run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Execution:
        """Run to the end."""
        if self._cut_off:
            self._execution = await self._go_on()
            self._cut_off = False
        if self._execution is None:
            if self._stored is not None:
                self._execution = await self._go_on()
            else:
                self._execution = await self._begin(args, kwargs)
        execution = self._execution
        if not execution.ended:
            await self._drive(execution)
        return execution

    async def _drive(self, execution: Execution) -> None:
        """Run an execution to its end, in a task of its own: only then is it certain who cancelled what.

        An action may turn the cancellation of its task into any other exception. The cancellation of whoever waits
        here is seen here, whatever the action makes of it.
        """
        pool = None
        if self._setting.pool is None:
            pool = self._setting.pool = WorkerPool(THREADS)
        task = self._task = asyncio.create_task(_ended(execution))
        try:
            await asyncio.wait({task})
            if (error := task.result()) is not None:
                raise error
        except BaseException:
            self._cut_off = True
            # Whatever goes on from the log must not meet what still runs here.
            await self._give_up(execution)
            await self._release(execution)
            raise
        finally:
            if pool is not None:
                pool.shutdown(wait=False, cancel_futures=True)
                self._setting.pool = None

    async def _give_up(self, execution: Execution) -> None:
        """Cancel what runs of an execution and wait until it has ended. May be called again if it was cancelled."""
        task = self._task
        if not execution.abandoned:  # cleaning up must not be disturbed
            execution.abandon()
            if task is not None:
                task.cancel()
        running = execution.crew.tasks()
        if task is not None and not task.done():
            running.append(task)
        if running:
            await asyncio.wait(running)

    async def _release(self, execution: Execution) -> None:
        """The saga was cut off, and the process lives: what ends from here on is no death.

        While a function of it still runs in a thread, it is owned: others would undo or run again what is not over.
        """
        with suppress(CompensateError):
            done = self.store.release(self.id, execution.machine.epoch, execution.created_at)
            if done is not None:
                await done
            jobs = [
                job
                for job, saga_id in self._setting.left_behind.items()
                if saga_id == self.id and not job.over
            ]
            if not jobs:
                return
            now = self._setting.clock.now()
            await self.store.join(self._owner, now, _LEASE)
            await self.store.claim_one(self.id, self._owner, now)
            await self.store.leave(self._owner, keep=[self.id])
            left = Countdown(len(jobs), partial(self.store.retire, self._owner))
            for job in jobs:
                job.watch(left.one_less)

    def _decode(self, data: bytes) -> T:
        saga = self.saga
        codec = None if isinstance(saga, Dag) else saga.output
        if codec is None:
            output: T = r.from_json(data)
            return output
        return codec.decode(data)  # type: ignore[no-any-return]

    async def _begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Execution:
        """The execution of a new saga; it is stored with its first step."""
        if not self._opened:
            await self._open()
        require(self._bindings)
        saga = self.saga
        if isinstance(saga, Dag):
            params = _plain_params(saga, args, kwargs)
            encoded = r.encode_dag(saga)
            name, fingerprint, seconds = saga.name, r.fingerprint(encoded), None
        else:
            definition = saga.definition
            params, encoded = saga.encode_params(*args, **kwargs), definition.encoded
            name, fingerprint, seconds = saga.name, definition.fingerprint, saga.deadline
        machine = Machine(self._plan, self.id, 1, self._grace, crashes=self._crashes)
        now = self._setting.clock.now()
        machine.create(params, now, None if seconds is None else now + seconds)

        def created(events: list[Event]) -> NewSaga:
            return NewSaga(self.id, name, fingerprint, encoded, events, machine.standing, now)

        return self._execute(machine, now, created)

    def _execute(
        self, machine: Machine, created_at: float, new: Callable[[list[Event]], NewSaga] | None = None
    ) -> Execution:
        execution = Execution(machine, self._bindings, self._setting, new)
        execution.owner = self._owner
        execution.created_at = created_at
        execution.log = self.events
        return execution

    async def _go_on(self) -> Execution:
        """Claim the stored saga, and take up where its log ends."""
        await self._open()
        old = self._execution
        if old is not None:
            await self._give_up(old)  # it may just be doing so, or have been cut off in that too
        now = self._setting.clock.now()
        stored = await self.store.claim_one(self.id, self._owner, now)
        if stored is None:
            raise IllegalRequest(f"saga {self.id}: a live coordinator owns it; ask that one")
        self.events[:] = stored.events
        machine = self._fold(stored, None if old is None else old.machine.lingering)
        if machine.status not in s.ENDS:
            self._check_fit(machine)
        if machine.status not in s.ENDS:
            machine.interrupted(now, died=stored.died)
        execution = self._execute(machine, stored.record.created_at)
        if old is not None:
            old.heir = execution
        return execution

    def _check_fit(self, machine: Machine) -> None:
        wrong = misfit(machine, self._bindings)
        if wrong is not None:
            raise ActionNotFound(f"saga {self.id}: {wrong}; nothing was run; {wrong.advice}")

    async def rollback(self, reason: str = "", who: str = "") -> None:
        """Undo the saga: while it runs, after it completed, or after a restart.

        While `execute` runs it, the decision is durable on return, and `execute` sees the rollback through; else all is
        undone on return. One that is being rolled back already is waited for, and gone on with if that was cut off.

        Raises:
            IllegalRequest: Nothing has been executed, a pivot has completed, or it is stuck or rolled back.
            Stuck: An undo could not be done.
        """
        ask = verbs.Ask(who, reason)
        under_way = False

        def change(execution: Execution, now: float) -> bool:
            nonlocal under_way
            under_way = under_way or execution.machine.status == s.ROLLING_BACK
            return not under_way and execution.machine.roll_back(now, who=ask.who, why=ask.why)

        execution = self._execution
        if execution is not None and await execution.request(change):
            return
        async with self._turn:  # whoever ran it, or still cleans up after it, is awaited
            execution = self._execution
            if not under_way or execution is None or not execution.has_end:
                execution = await self._roll_back(ask, under_way)
        if execution.machine.status != s.ROLLED_BACK:
            raise ending(execution.machine, execution.exceptions)

    async def _roll_back(self, ask: verbs.Ask, under_way: bool) -> Execution:
        """Roll back what nobody runs, up to the end."""
        execution = self._execution
        if execution is not None:
            exceptions = execution.exceptions
        elif self._stored is not None:
            exceptions = {}
        else:
            raise IllegalRequest(
                f"saga {self.id}: nothing was executed yet, so there is nothing to roll back"
            )
        execution = await self._go_on()
        execution.exceptions = exceptions
        machine = execution.machine
        if not under_way and machine.status != s.ROLLING_BACK:
            machine.roll_back(self._setting.clock.now(), who=ask.who, why=ask.why)
        self._check_fit(machine)
        self._execution = execution
        await self._drive(execution)
        self._cut_off = False
        return execution

    # -- looking -----------------------------------------------------------

    @property
    def fold(self) -> Fold:
        """What the saga's events amount to so far."""
        if self._execution is not None:
            return self._execution.machine
        if self._stored is None:
            return Machine.fold(self._plan, self.id, self.events, 1, self._grace)
        return self._stored

    def completed_nodes(self) -> list[str]:
        """Action nodes whose effect stands."""
        return timeline.completed_nodes(self.fold)

    def failed_nodes(self) -> list[str]:
        """Action nodes that failed, in the order of the dag, whatever became of them in a rollback.

        A node is one of them if the last attempt of its action failed or was left in doubt, or if it was out of
        attempts when the rollback began, or if the last attempt of its undo failed. One that failed and then
        succeeded when it was tried again is not.
        """
        return timeline.failed_nodes(self.fold, self.events)

    def execution_order(self) -> list[str]:
        """Action nodes in the order in which they first started."""
        return list(
            dict.fromkeys(record.node for record in self.execution_trace() if record.direction == "do")
        )

    def execution_state(self) -> dict[str, s.NodeState]:
        """State of every node by its path; see `Snapshot.nodes`."""
        return states(self.fold)

    @overload
    def output(self, node: str = ..., *, tp: type[V]) -> V: ...
    @overload
    def output(self, node: str = ..., *, tp: object = ...) -> Any: ...
    def output(self, node: str = "", *, tp: Any = Any) -> Any:
        """The output of a node by its path, or of the saga; see `Snapshot.output`."""
        return output_of(self.fold, node, tp)

    def error(self, node: str = "") -> ActionFailed | None:
        """The last error of a node by its path, or the saga's; see `Snapshot.error`."""
        return error_of(self.fold, node)

    def execution_trace(self) -> list[timeline.TraceRecord]:
        """Every attempt of an action or undo, with times, in the order in which they started."""
        return timeline.trace(self.fold, self.events)


async def _ended(execution: Execution) -> BaseException | None:
    """Drive to the end. What ends the program is handed over: raised in a task, it would end the event loop."""
    try:
        await execution.drive()
    except (KeyboardInterrupt, SystemExit) as error:
        return error
    return None


def _bindings(saga: Saga[..., Any]) -> Bindings:
    """A saga's own actions, bound once."""
    bindings = saga.plan.bindings
    if not isinstance(bindings, Bindings):
        bindings = saga.plan.bindings = Bindings(saga.plan, saga.actions.__getitem__)
    return bindings


def _plain_params(dag: Dag, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
    if args or set(kwargs) != set(dag.params):
        raise ParamsInvalid(
            f"dag {dag.name}: give its params by name: {', '.join(dag.params) or 'it has none'}"
        )
    where = f"dag {dag.name}, param"
    try:
        return r.join_fields((name, encode_any(kwargs[name], where=f"{where} {name}")) for name in dag.params)
    except SerializeFailed as error:
        # A bare dag says no types, so only plain JSON data can be taken as it is.
        advice = "or say the types of its params: saga_from_dag(dag, registry, params={...})"
        raise ParamsInvalid(f"{error}; {advice}") from error


def _report(what: str, error: BaseException, /, *, saga: str = "", epoch: int = 0) -> None:
    log.report(what, error, saga=saga, epoch=epoch, owner=OWNER)
