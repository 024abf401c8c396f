"""The coordinator: runs many sagas against one store."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import uuid
from collections.abc import AsyncIterator, Awaitable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, ParamSpec, Self, TypeVar, cast, overload

from compensate.authoring import Action, ActionRegistry, Saga
from compensate.codec import records as r
from compensate.core import events as e
from compensate.core import states as s
from compensate.core.dag import Dag
from compensate.core.events import Event
from compensate.core.names import check_name, check_saga_id
from compensate.errors import (
    CompensateError,
    Fenced,
    IllegalRequest,
    SagaExists,
    SagaNotFound,
    Stopped,
    Unavailable,
)
from compensate.inspection.snapshot import Snapshot
from compensate.runtime import forks, log, signals, verbs
from compensate.runtime.adoption import Adoption
from compensate.runtime.calls.threads import Straggler, WorkerPool
from compensate.runtime.clock import Clock, SystemClock
from compensate.runtime.execution import Execution
from compensate.runtime.host import Host
from compensate.runtime.ids import ids
from compensate.runtime.inject import NO_FAULTS, Faults, Inject, check_fit, checked, warn_of_misfits
from compensate.runtime.requests import Requests
from compensate.runtime.runs import Origin, Run
from compensate.runtime.setting import Observer, Setting, check_numbers, check_page, require_deps
from compensate.runtime.slots import Slots
from compensate.runtime.starting import check_same, check_start
from compensate.runtime.suspects import HEAD_START
from compensate.stores import open_store
from compensate.stores.base import Page, SagaRecord, Store, Verb

P = ParamSpec("P")
T = TypeVar("T")

_NOT_ASYNC: Final = (
    "a Coordinator is entered by `async with Coordinator(...) as c:`, in an async function; in a script without an "
    "event loop write `with connect(...) as c:`"
)
_END_EVENTS: Final = frozenset({e.SAGA_COMPLETED, e.SAGA_ROLLED_BACK, e.SAGA_STUCK})


def _of(saga_id: str) -> str:
    """Begins a message about a saga, or about none if the id is empty."""
    return f"saga {saga_id}: " if saga_id else ""


class Coordinator:
    """Runs sagas, many at once, each recorded in the store; adopts on entry what others left behind.

    Use it as an async context manager. On exit it drains: starts nothing more, waits up to `drain` seconds for what
    runs, and releases its sagas, which stay resumable.

    Args:
        store: A url (`memory://`, `file:///dir`, `sqlite:///file`) or a store.
        deps: Given to actions and undos as `ctx.deps`; never logged.
        sagas: The saga definitions that it knows; their actions come with them.
        actions: Further actions, for dags that are built at run time or stored by older code.
        owner: Name of this coordinator in the store; unique, and made up by default.
        lease: Seconds after which others may adopt its sagas when it no longer renews.
        poll: Seconds between looks for orphaned sagas and operators' requests.
        grace: Seconds for which a rollback by request or deadline waits for running actions before it cancels them.
        drain: Seconds for which the exit waits for running actions.
        recover: Whether it goes on, at entry and later, with every saga that nobody alive owns. `False`: only with
            those that are started, adopted or asked for here, as a tool wants that came for one saga.
        max_actions: How many actions and undos run at once. One that waits for another saga (`run`, `Run.result`)
            does not count meanwhile.
        threads: How many of those may be plain functions, each in a worker thread. One that waits for another saga
            keeps its thread: if all do, and those sagas have plain functions too, nothing goes on. Use subsagas, or
            `async def`, for what waits.
        crashes: A node during whose action or undo the process has died so many times in a row is given up: the saga
            is stuck there, and an operator decides. A process that drained, or released the saga, did not die. Sagas
            that come near to it are run after all others and one at a time.
        clock: Where time comes from.
        observers: Each is called with a saga's id and the events of it that have just become durable here, in their
            order, on the event loop and before the saga goes on. It must not block. What it raises is written to the
            log and changes nothing. If the process dies first, it is not called for those events.
        inject: Faults on order, by path of node, for tests and drills; warns of a path that none of `sagas` has.
        stop_on: Signals at which it drains by itself (unix, main thread), such as `[signal.SIGTERM]`. A handler that
            the program or its server has installed before is called too, and is put back at the end.

    Raises:
        DefinitionError: A setting makes no sense, two different sagas or actions have one name, or an action or undo
            takes `Ctx[Deps]` and `deps` is `None`.
    """

    def __init__(
        self,
        store: str | Store,
        *,
        deps: object = None,
        sagas: Iterable[Saga[..., Any]] = (),
        actions: Iterable[Action[..., Any]] = (),
        owner: str | None = None,
        lease: float = 30.0,
        poll: float = 1.0,
        grace: float = 30.0,
        drain: float = 10.0,
        recover: bool = True,
        max_actions: int = 1_000,
        threads: int = 32,
        crashes: int = 5,
        clock: Clock | None = None,
        observers: Sequence[Observer] = (),
        inject: Mapping[str, Inject] | None = None,
        stop_on: Sequence[signal.Signals] = (),
    ) -> None:
        self.store = open_store(store) if isinstance(store, str) else store
        self.registry = ActionRegistry()
        for action in actions:
            self.registry.register(action)
        for saga in sagas:
            self.registry.register_saga(saga)
        self.owner = (
            check_name(owner, "owner") if owner is not None else f"{os.getpid()}-{uuid.uuid4().hex[:12]}"
        )
        check_numbers(lease, poll, grace, drain, max_actions, threads, crashes)
        self._lease = lease
        self._poll = poll
        self._drain = drain
        self._recovers = recover
        self._stop_on = signals.checked(stop_on)
        self._catch: signals.Catch | None = None
        self._clock = clock or SystemClock()
        self.slots = Slots(max_actions)
        self._pool = WorkerPool(threads)
        self._setting = Setting(
            self.store,
            self._clock,
            deps,
            slots=self.slots,
            pool=self._pool,
            observers=observers,
            inject=inject,
            report=self._report,
        )
        self._host = Host(self._setting, self.registry, self.owner, grace, crashes)
        self._adoption = Adoption(self._host, recovers=recover)
        self._background: list[asyncio.Task[None]] = []
        self._requests = Requests(self._host, self._adoption, poll)
        self._stopped = asyncio.Event()
        self._signal = ""
        self._entered = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._open = False
        self._closing: asyncio.Task[None] | None = None
        self._require_deps(map(self.registry.get, self.registry.names()))

    @property
    def sagas(self) -> Mapping[str, Saga[..., Any]]:
        """The saga definitions that it knows, by name."""
        return self.registry.sagas

    def _report(self, what: str, error: BaseException, /, *, saga: str = "", epoch: int = 0) -> None:
        log.report(what, error, saga=saga, epoch=epoch, owner=self.owner)

    def _require_deps(self, actions: Iterable[Action[..., Any]]) -> None:
        """Refuse actions that cannot run with the deps that there are."""
        require_deps(actions, self._setting.deps)

    # -- life --------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Open the store and go on with every saga that nobody alive owns.

        Raises:
            IllegalRequest: It is open, or was: a coordinator runs once. Make another. Or `stop_on` was given, and
                this is not the main thread.
            DefinitionError: An action takes `Ctx[Deps]`, and there are no deps.
            StoreError: The store cannot be opened or read. Nothing is left running.
        """
        if self._entered:
            raise IllegalRequest(
                f"coordinator {self.owner}: it runs once, and has begun already; make another"
            )
        signals.check_thread(self._stop_on)
        self._entered = True
        self._require_deps(map(self.registry.get, self.registry.names()))
        self._loop = asyncio.get_running_loop()
        await self.store.open()
        try:
            await self.store.join(self.owner, self._clock.now(), self._lease)
        except BaseException:
            await self.store.close()
            raise
        self._open = True
        forks.OPEN.add(self)
        warn_of_misfits(self._setting.inject, [saga.plan for saga in self.sagas.values()])
        try:
            self._catch = signals.Catch(self._stop_on, self._on_signal)
            if self._recovers:
                await self._adoption.all()
                await self._adoption.parked()
        except BaseException:
            with contextlib.suppress(CompensateError):  # what went wrong first is what counts
                await self.close()
            raise
        if self._open:  # no signal has come meanwhile
            self._background = [
                asyncio.create_task(self._keep_lease()),
                asyncio.create_task(self._look_around()),
            ]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Drain, release, close. See `close`."""
        await self.close()

    if not TYPE_CHECKING:  # the checkers refuse `with Coordinator(...)` by themselves

        def __enter__(self) -> None:
            raise IllegalRequest(_NOT_ASYNC)

        def __exit__(self, *_: object) -> None: ...

    async def close(self) -> None:
        """Start nothing more, wait up to `drain` seconds for what runs, release all sagas. Safe to call twice.

        Every call returns when all that is done, also if a signal has begun it: a process that left earlier would
        take its sagas with it.
        """
        self.stop()
        if self._closing is not None:
            await asyncio.shield(self._closing)

    def forked(self) -> None:
        """In the child of a fork: the store and what goes on in it are the parent's."""
        if not self.closed:
            self.store = self._setting.store = cast("Store", forks.ForeignStore(f"coordinator {self.owner}"))

    @property
    def closed(self) -> bool:
        """Whether it has been open, and is closed with its store."""
        return self._stopped.is_set()

    @property
    def exits(self) -> Mapping[str, BaseException]:
        """By saga: the `SystemExit` or `KeyboardInterrupt` that an action or undo of it raised here."""
        return self._host.exits

    def stop(self) -> None:
        """Start nothing more, from this moment on, and begin to close; `close` waits for that. Safe to call twice."""
        if self._open:
            self._open = False
            self._host.hold()
            self._closing = asyncio.get_running_loop().create_task(self._close())

    async def _close(self) -> None:
        # Every part runs also if the one before it was cancelled (a second Ctrl-C): who is gone must not own sagas.
        async with contextlib.AsyncExitStack() as rest:
            rest.callback(self._stopped.set)
            if self._catch is not None:
                rest.callback(self._catch.close)
            rest.push_async_callback(self.store.close)
            rest.push_async_callback(self._host.leave)
            # What still waits for a thread must not begin now: its saga will be run by others.
            rest.callback(self._pool.shutdown, wait=False, cancel_futures=True)
            try:
                await self._host.stop(self._drain)
                others = [*self._background, *self._requests.under_way(), *self._adoption.under_way()]
                for task in others:
                    task.cancel()
                await asyncio.gather(*others, return_exceptions=True)
            except GeneratorExit:
                rest.pop_all()  # its event loop is gone, and nothing can be awaited any more
                raise

    def loop_closed(self) -> None:
        """Its event loop is gone, and the coroutines that still ran in it are as well; functions in threads are not."""
        for one in list(self._setting.left_behind):
            if isinstance(one, Straggler):
                one.end()

    async def serve(self) -> None:
        """Run sagas until a signal of `stop_on` (or SIGTERM, SIGINT if none is named) arrives, then drain.

        Raises:
            IllegalRequest: No `stop_on` was given, and this is not the main thread.
        """
        if not self._stop_on and self._open:
            stop_on = (signal.SIGTERM, signal.SIGINT)
            self._catch = signals.Catch(stop_on, self._on_signal)
            self._stop_on = stop_on
        await self._stopped.wait()

    def _on_signal(self, number: signal.Signals) -> None:
        if self._open:
            self._signal = number.name
            self.stop()

    async def _keep_lease(self) -> None:
        while True:
            await asyncio.sleep(self._lease / 3)
            try:
                if not await self.store.renew(self.owner, self._clock.now(), self._lease):
                    log.lease_lost(self.owner)
                    await self.store.join(self.owner, self._clock.now(), self._lease)
            except Exception as error:  # whatever it is, without a lease all sagas are lost
                self._report("the lease could not be renewed; trying again", error)

    async def _look_around(self) -> None:
        await asyncio.sleep(min(self._poll, HEAD_START))
        self._adoption.try_suspects()
        while True:
            await asyncio.sleep(self._poll)
            if not self._open:
                return  # it drains
            try:
                if self._recovers:
                    await self._adoption.all()
                    await self._adoption.parked()
                await self._adoption.orphans()
                await self._requests.look()
                self._adoption.try_suspects()
            except Exception as error:  # whatever it is, orphans and requests have to be looked for
                self._report("the store could not be looked through; trying again", error)

    # -- running sagas -----------------------------------------------------

    @overload
    async def run(self, saga: Saga[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
    @overload
    async def run(self, saga: Saga[..., T], /, *args: Any, inject: Faults, **kwargs: Any) -> T: ...
    async def run(self, saga: Any, /, *args: Any, inject: Any = NO_FAULTS, **kwargs: Any) -> Any:
        """Start a saga and wait for its end.

        Args: As for `start`.

        Raises: What `start` raises, and what `Run.result` raises. A retry with the same id is safe.
        """
        run = await self.start(saga, *args, inject=inject, **kwargs)
        return await run.result()

    @overload
    async def start(self, saga: Saga[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Run[T]: ...
    @overload
    async def start(self, saga: Saga[..., T], /, *args: Any, inject: Faults, **kwargs: Any) -> Run[T]: ...
    async def start(self, saga: Any, /, *args: Any, inject: Any = NO_FAULTS, **kwargs: Any) -> Run[Any]:
        """Start a saga; on return it is durable (S11).

        The id is made up unless given by `saga.with_id(...)`. Starting an id again, with the same saga and equal
        params, returns the running or ended saga, whatever graph that one runs: a deploy between the two makes no
        difference. Params that the definition has got since are equal if they are at their defaults; one that was
        removed from it since is a difference. Equal are params whose values are, such as `Decimal("1.0")` and
        `Decimal("1.00")`.

        A start that is cancelled before it returns may have stored the saga, which then runs.

        Args:
            saga: The saga.
            args: Its params, by position.
            inject: Faults in this saga alone, by path of node, for tests and drills: at these nodes they take the
                place of the coordinator's. They are not stored: they hold in this coordinator, also when it claims
                the saga again, and no other process knows of them. If the saga was started before, they apply to
                what it still does here. Where the saga itself has a param `inject`, the argument is that param;
                give faults to `start_json` then.
            kwargs: Its params, by name.

        Raises:
            DefinitionError: A path of `inject` names no action of the saga. Nothing was stored.
            ParamsInvalid: The arguments do not fit the saga's signature. Nothing was stored.
            DefinitionError: The coordinator knows another saga or action of that name. Nothing was stored. Graphs that
                are made at run time (by `saga_from_dag`, or by a function that holds a `@saga`) may share a name.
            ActionNotFound: The dag asks of an action what it does not do; names the node. Nothing was stored.
            DefinitionError: One of its actions takes `Ctx[Deps]`, and the coordinator has no deps. Nothing was stored.
            SagaExists: The id is taken by another saga, or with other params; the message says which differ.
            CorruptLog: The id is taken by a saga whose log is damaged.
            Unavailable: The outcome is unknown; start it again under the same id.
            Stopped: The coordinator is shutting down.
        """
        if inject is not NO_FAULTS and "inject" in saga.params:
            kwargs["inject"], inject = inject, NO_FAULTS
        return await self._start(saga, saga.encode_params(*args, **kwargs), inject)

    async def start_json(self, saga: Saga[..., T], params: bytes, *, inject: Faults = None) -> Run[T]:
        """As `start`, with the params as a JSON object by name, as tools get them.

        Raises: As `start`.
        """
        return await self._start(saga, saga.read_params(params), inject)

    async def _start(self, saga: Saga[..., T], params: bytes, inject: Faults) -> Run[T]:
        check_fit(saga.plan, checked(f"saga {saga.name}", inject))
        saga_id = saga.saga_id
        if saga_id is None:
            saga_id = ids.next()
        else:
            check_saga_id(saga_id)
        self.check_running(saga_id)
        known = self.sagas.get(saga.name)
        if known is None or known.definition is not saga.definition:
            self._require_deps(saga.actions.values())
            self.registry.register_saga(saga, graphs=True)
        while True:
            first = self.execution(saga_id)
            try:
                execution = await self._host.start(saga, saga_id, params, saga.deadline, inject)
            except Unavailable:
                self.check_running(saga_id)
                raise
            except SagaExists:
                if first is not None and not await first.stored():
                    check_start(first)
                with contextlib.suppress(SagaNotFound):  # it came to nothing, or has been deleted since
                    return await self._start_again(saga, saga_id, params, inject, first)
                if first is not None and not first.over:
                    await self._host.disown(first)  # deleted while it ran here
                self.check_running(saga_id)
                await asyncio.sleep(0)
            else:
                return Run(self, saga_id, saga, execution, new=True)

    async def _start_again(
        self, saga: Saga[..., T], saga_id: str, params: bytes, inject: Faults, first: Execution | None
    ) -> Run[T]:
        stored = await self.asked(saga_id, self.store.load(saga_id))
        if first is not None and not first.over and first.created_at != stored.record.created_at:
            await self._host.disown(first)
        check_same(saga, stored, params)
        self._host.order(saga_id, inject)
        await self._adopt(stored.record)
        return Run(self, saga_id, saga, created_at=stored.record.created_at)

    async def adopt(self, saga_id: str) -> Run[Any]:
        """Go on with one saga, if it has not ended and nobody alive owns it. In any case the run follows it.

        A saga whose code is not here is parked; `Snapshot.misfit` tells beforehand.

        Raises:
            SagaNotFound: There is none.
            CorruptLog: Its log is damaged. Nothing was changed.
            Stopped: The coordinator is shutting down.
        """
        self.check_running(saga_id)
        await self._adopt(await self.record(saga_id))
        return self.attach(saga_id)

    async def _adopt(self, record: SagaRecord) -> None:
        if record.status not in s.ENDS or record.parked:
            with contextlib.suppress(Fenced):  # somebody else has adopted it at the same time
                await self._host.errand(record.id, self._adoption.wanted(record.id))

    def attach(self, saga_id: str) -> Run[Any]:
        """A handle on a saga by its id. Its result is decoded if its definition is known here, else plain JSON data."""
        return Run(self, saga_id, None, self.execution(saga_id))

    def definition_of(self, dag: Dag) -> Saga[..., Any] | None:
        """The saga definition with just this dag, if it is known here."""
        saga = self.sagas.get(dag.name)
        if saga is None or (saga.dag is not dag and saga.encoded != r.encode_dag(dag)):
            return None
        return saga

    def execution(self, saga_id: str) -> Execution | None:
        """The execution of a saga that runs here."""
        return self._host.find(saga_id)

    def check_running(self, saga_id: str) -> None:
        """Raise `Stopped` if it is shut down or shutting down, `IllegalRequest` in a foreign event loop."""
        if not self._entered:
            raise Stopped(f"{_of(saga_id)}the coordinator has not begun; use it within `async with`")
        if not self._open:
            by = f" by {self._signal}" if self._signal else ""
            raise Stopped(
                f"{_of(saga_id)}the coordinator is shut down{by}; a stored saga is resumed by the next one",
                signal=self._signal,
            )
        self.check_loop(saga_id)

    async def asked(self, saga_id: str, work: Awaitable[T]) -> T:
        """Await what asks the store about a saga, or about all if the id is empty.

        Raises:
            Stopped: The store cannot be asked any more, since the coordinator was closed with it meanwhile.
        """
        try:
            return await work
        except Unavailable:
            self.check_running(saga_id)
            raise

    def check_loop(self, saga_id: str) -> None:
        """Raise `IllegalRequest` in a foreign event loop, and in a process that was forked off."""
        forks.check(self.store)
        if asyncio.get_running_loop() is not self._loop:
            raise IllegalRequest(
                f"{_of(saga_id)}the coordinator runs in another event loop; nothing was done; call it there, with "
                "asyncio.run_coroutine_threadsafe, or use compensate.connect"
            )

    def check_sound(self, saga_id: str) -> None:
        """Raise what made it impossible to go on with a saga here."""
        error = self._host.damaged.get(saga_id)
        if error is not None:
            raise error

    # -- looking -----------------------------------------------------------

    async def get(self, saga_id: str) -> Snapshot:
        """A saga as it stands.

        Raises:
            SagaNotFound: There is none.
            CorruptLog: Its log is damaged.
            Stopped: The coordinator is shut down, and its store is closed.
        """
        return Snapshot(await self.asked(saga_id, self.store.load(saga_id)))

    async def record(self, saga_id: str) -> SagaRecord:
        """How a saga stands, without its log."""
        return (await self.asked(saga_id, self.store.load(saga_id))).record

    async def list(
        self,
        *,
        status: s.SagaStatus | None = None,
        name: str | None = None,
        cursor: str | None = None,
        limit: int = 100,
    ) -> Page:
        """Records of sagas, newest first, a page at a time.

        ```python
        for record in await coordinator.list(status="stuck"):
            print(record.id, record.name, record.updated_at)
        ```

        Args:
            status: Only sagas of this status.
            name: Only sagas of the definition of this name.
            cursor: `Page.cursor` of the page before; the next page continues behind it.
            limit: How many records the page has at most.

        Returns:
            A `Page`, which can be iterated; its `cursor` is `None` when there are no more.

        Raises:
            IllegalRequest: `cursor` or `status` is none, or `limit` is below 1.
            Stopped: The coordinator is shut down, and its store is closed.
        """
        check_page(status, limit)
        return await self.asked("", self.store.page(status=status, name=name, cursor=cursor, limit=limit))

    async def follow(
        self, saga_id: str, after: int = 0, origin: Origin | None = None
    ) -> AsyncIterator[Event]:
        """See `Run.events`. `origin`: of the saga that is meant."""
        origin = origin or Origin(saga_id)
        # Whether it had ended before the first event that is asked for; `None`: not looked.
        ended: bool | None = None
        while True:
            execution = self.execution(saga_id)
            if execution is not None and not await execution.stored():
                continue  # another start of the id, which found it taken
            watcher = None if execution is None else execution.watch()
            if execution is not None and ended is not None:
                origin.check(execution.created_at)
                events = await self.asked(saga_id, self.store.events(saga_id, after))
            else:
                stored = await self.asked(saga_id, self.store.load(saga_id))
                origin.check(stored.record.created_at)
                events = stored.events[max(after, 0) :]
                if ended is None:
                    ended = not events and stored.record.status in s.ENDS
            for event in events:
                after = event.seq
                yield event
            if ended or (events and events[-1].type in _END_EVENTS):
                return
            self.check_running(saga_id)
            if watcher is not None:
                await watcher
            else:
                self.check_sound(saga_id)
                await asyncio.sleep(min(self._poll, 0.2))

    async def wait_for_end(self, saga_id: str, origin: Origin) -> bool:
        """Wait for the end of a saga that runs elsewhere; `False` once it runs here."""
        while True:
            record = await self.record(saga_id)
            origin.check(record.created_at)
            if record.status in s.ENDS:
                return True
            self.check_running(saga_id)
            if self.execution(saga_id) is not None:
                return False
            self.check_sound(saga_id)
            await asyncio.sleep(min(self._poll, 0.2))

    # -- operators ---------------------------------------------------------

    async def rollback(
        self, saga_id: str, *, reason: str = "", who: str = "", grace: float | None = None
    ) -> Run[Any]:
        """Roll a running or completed saga back. Returns once the decision is durable; wait with `Run.result`.

        Args:
            saga_id: Which.
            reason: Why; recorded.
            who: Who asks; recorded.
            grace: Seconds to wait for running actions before they are cancelled.

        Raises:
            SagaNotFound: There is none.
            IllegalRequest: Its pivot has completed, or it is stuck, rolling back or rolled back.
        """
        return await self.ask(saga_id, "rollback", verbs.Ask(who, reason, grace=grace))

    async def pause(self, saga_id: str, *, reason: str = "", who: str = "") -> Run[Any]:
        """Start nothing more of a saga until `resume`; what runs may land."""
        return await self.ask(saga_id, "pause", verbs.Ask(who, reason))

    async def resume(self, saga_id: str, *, reason: str = "", who: str = "") -> Run[Any]:
        """Go on with a paused saga."""
        return await self.ask(saga_id, "resume", verbs.Ask(who, reason))

    async def retry(self, saga_id: str, node: str, *, reason: str = "", who: str = "") -> Run[Any]:
        """Try a stuck node again, with all its attempts."""
        return await self.ask(saga_id, "retry", verbs.Ask(who, reason, node))

    async def skip(self, saga_id: str, node: str, *, reason: str = "", who: str = "") -> Run[Any]:
        """Leave the effect of a stuck node as it is, and go on undoing."""
        return await self.ask(saga_id, "skip", verbs.Ask(who, reason, node))

    async def resolve(
        self, saga_id: str, node: str, *, output: str | None = None, reason: str = "", who: str = ""
    ) -> Run[Any]:
        """Say that a stuck node was undone by hand; or, with `output` (JSON text), what its action returned."""
        return await self.ask(saga_id, "resolve", verbs.Ask(who, reason, node, output))

    async def ask(self, saga_id: str, verb: Verb, ask: verbs.Ask) -> Run[Any]:
        """Have a request carried out by whoever owns the saga; adopt it if nobody alive does.

        Raises:
            IllegalRequest: It makes no sense now. Nothing was changed.
            SagaNotFound: There is no such saga.
            Stopped: The coordinator is shut down, or was before an answer came.
        """
        self.check_running(saga_id)
        await self.asked(saga_id, self._requests.ask(saga_id, verb, ask))
        return self.attach(saga_id)
