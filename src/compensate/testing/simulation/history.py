"""One history: a scenario played through, first with faults, then in quiet, and what came of it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any
from zlib import crc32

import msgspec

from compensate.authoring import Saga
from compensate.codec.records import to_rows
from compensate.core import events as e
from compensate.core import states as s
from compensate.core.events import Event
from compensate.errors import (
    Conflict,
    Fenced,
    IllegalRequest,
    RolledBack,
    SagaExists,
    Stopped,
    StoreError,
    Stuck,
    Unavailable,
)
from compensate.runtime import verbs
from compensate.runtime.coordinator import Coordinator
from compensate.runtime.log import muted
from compensate.stores.base import SagaRecord
from compensate.testing.simulation import dags
from compensate.testing.simulation.loop import Process, Spinning, VirtualLoop
from compensate.testing.simulation.scenario import Fault, Scenario, walk
from compensate.testing.simulation.store import Connection, Server, at_once
from compensate.testing.simulation.tape import Tape
from compensate.testing.simulation.world import World

LEASE = 4.0
POLL = 1.5
PATIENCE = 240.0
"""Virtual seconds of quiet within which every saga has to end."""

_TIMED = frozenset({"crash", "pause", "shutdown"})


class History:
    """What a scenario came to.

    Attributes:
        scenario: What was played.
        saga: Its saga.
        tape: What happened outside of the logs.
        logs: The log of each stored saga.
        records: How each of them stands.
        acknowledged: Params of each saga whose start was acknowledged.
        time: Virtual seconds that it took.
        steps: Steps of the loop that it took.
        digest: The same for the same scenario, whatever the machine does.
    """

    def __init__(self, scenario: Scenario, saga: Saga[..., Any], tape: Tape) -> None:
        self.scenario = scenario
        self.saga = saga
        self.tape = tape
        self.logs: dict[str, list[Event]] = {}
        self.records: dict[str, SagaRecord] = {}
        self.acknowledged: dict[str, bytes] = {}
        self.time = 0.0
        self.steps = 0
        self.digest = 0

    @property
    def ends(self) -> Counter[str]:
        """How many sagas came to which end. One that is stuck gets on by a decision, and then comes to another end."""
        ends = Counter[str](record.status for record in self.records.values())
        stuck = sum(any(event.type == e.SAGA_STUCK for event in log) for log in self.logs.values())
        return ends + Counter({"stuck until decided": stuck})


class _Life:
    """A coordinator of the fleet through its lives."""

    def __init__(self, number: int, skew: float, faults: list[Fault]) -> None:
        self.number = number
        self.skew = skew
        self.faults = faults
        self.counts: Counter[str] = Counter()
        self.lives = 0
        self.process: Process | None = None
        self.coordinator: Coordinator | None = None
        self.ready = False


class _Coordinator(Coordinator):
    """The real one; what it would log is looked at."""

    def __init__(
        self, look: Callable[[str, BaseException], None], store: Connection, **settings: Any
    ) -> None:
        self._look = look
        super().__init__(store, **settings)

    def _report(self, what: str, error: BaseException, /, *, saga: str = "", epoch: int = 0) -> None:
        self._look(what, error)


class Player:
    """Plays one scenario."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.rng = Random(scenario.seed)
        self.loop = VirtualLoop(self.rng, shuffle=scenario.shuffle)
        self.tape = Tape()
        self.server = Server(self.loop, self.tape, scenario.in_place)
        specs = dict(walk(scenario.nodes))
        self.world = World(
            self.loop,
            specs,
            self.tape,
            keyed=scenario.world == "keyed",
            log_length=self.server.length.__getitem__,
            kills={(f"s{kill.saga}", kill.node, kill.direction) for kill in scenario.kills},
            kill=self._kill,
        )
        self.saga = dags.make_saga(scenario)
        self.ids = [f"s{k}" for k in range(scenario.sagas)]
        self.acknowledged: dict[str, bytes] = {}
        self.undone_by_hand: set[str] = set()
        """Sagas of which a node was undone by hand, without an answer to the request that says so."""
        self.quiet = False
        self.over = False
        self._client = 0
        self.lives = [
            _Life(k, skew, [fault for fault in scenario.faults if fault.who == k])
            for k, skew in enumerate(scenario.skews)
        ]
        self._left = sum(1 for fault in scenario.faults if not fault.nth)
        """Faults and requests whose time has not come."""

    # -- the fleet ---------------------------------------------------------

    def _start(self, life: _Life) -> None:
        """Start a coordinator, for the first time or again."""
        life.lives += 1
        name = f"c{life.number}.{life.lives}"
        process = life.process = Process(name, self.loop, life.skew)
        connection = Connection(self.server, process, life.faults, life.counts, self._crash)
        coordinator = _Coordinator(
            self._report,
            connection,
            deps=self.world,
            sagas=[self.saga],
            owner=name,
            lease=LEASE,
            poll=POLL,
            grace=self.scenario.grace,
            drain=0.5,
            max_actions=self.scenario.room,
            crashes=self.scenario.crashes,
            clock=process,
        )
        life.coordinator = coordinator
        life.ready = False
        process.spawn(self._enter(life, process, coordinator))

    async def _enter(self, life: _Life, process: Process, coordinator: Coordinator) -> None:
        try:
            await coordinator.__aenter__()
        except StoreError:  # then the process ends, and is started again
            self.loop.outside(0.0, self._end, process)
            self.loop.outside(0.3, self._start_again, life)
            return
        life.ready = life.process is process

    def _report(self, what: str, error: BaseException) -> None:
        self.tape.tell(self.loop.now, f"{what}: {type(error).__name__}: {error}")
        if not self.over and not isinstance(error, Fenced | Conflict | Unavailable):
            self.tape.troubles.append(f"runtime: {what}: {type(error).__name__}: {error}")

    def _crash(self, process: Process, fault: Fault) -> None:
        if not process.alive:
            return
        self.tape.tell(self.loop.now, f"{process.name} crashes ({fault.kind})")
        self._end(process)
        life = next(life for life in self.lives if life.process is process)
        life.ready = False
        self.loop.outside(fault.length, self._start_again, life)

    def _end(self, process: Process) -> None:
        """A process ends; the store sees that of an owner that had left and kept sagas."""
        process.crash()
        self.server.memory.retire(process.name)

    def _kill(self, process: Process) -> None:
        """An action has killed its process; a supervisor starts it again."""
        if process.alive and not process.paused and not self.quiet:
            self._crash(process, Fault("kill", length=0.1 + self.rng.random()))

    def _start_again(self, life: _Life) -> None:
        if life.process is None or not life.process.alive:
            self._start(life)

    def _strike(self, fault: Fault) -> None:
        """A fault whose time has come."""
        self._left -= 1
        if self.quiet:
            return
        life = self.lives[fault.who]
        process, coordinator = life.process, life.coordinator
        if fault.kind in _TIMED:
            if (
                process is None
                or coordinator is None
                or not process.alive
                or process.paused
                or not life.ready
            ):
                return
            self.tape.fired[fault.kind] += 1
            if fault.kind == "crash":
                self._crash(process, fault)
            elif fault.kind == "pause":
                self.tape.tell(self.loop.now, f"{process.name} falls asleep for {fault.length:.3f} s")
                process.pause()
                self.loop.outside(fault.length, self._wake, process, coordinator)
            else:
                life.ready = False
                process.spawn(self._shut_down(life, process, coordinator, fault.length))
            return
        if process is not None and coordinator is not None and process.alive and life.ready:
            self._request(fault, process, coordinator)

    def _wake(self, process: Process, coordinator: Coordinator) -> None:
        if not process.paused:
            return
        self.tape.tell(self.loop.now, f"{process.name} wakes up")
        for saga_id in self.ids:
            execution = coordinator.execution(saga_id)
            saga = self.server.sagas.get(saga_id)
            if execution is not None and saga is not None and saga.epoch > execution.machine.epoch:
                self.tape.fired["zombie"] += 1
        process.wake()

    async def _shut_down(
        self, life: _Life, process: Process, coordinator: Coordinator, length: float
    ) -> None:
        with contextlib.suppress(StoreError):  # the process ends all the same
            await coordinator.close()
        self.loop.outside(0.0, self._end, process)
        self.loop.outside(0.001 + length, self._start_again, life)

    # -- clients and operators ---------------------------------------------

    def _request(self, fault: Fault, process: Process, coordinator: Coordinator) -> None:
        saga_id = self.ids[fault.saga]
        if fault.kind == "start":
            process.spawn(self._client_start(coordinator, saga_id, 1))
        elif fault.kind == "give_up":
            task = process.spawn(self._client_start(coordinator, saga_id, 1))
            self.loop.outside(fault.length, self._give_up, process, task)
        elif fault.kind == "start_again":
            self.tape.fired["duplicate start"] += saga_id in self.server.length
            process.spawn(self._client_start(coordinator, saga_id, 1))
        elif fault.kind == "start_other":
            if saga_id in self.acknowledged:
                self.tape.fired["start with other params"] += 1
                process.spawn(self._client_start(coordinator, saga_id, 2))
        elif saga_id in self.server.length:
            if fault.kind == "operate":
                process.spawn(self._operate(coordinator, saga_id))
            else:
                process.spawn(
                    self._ask(coordinator, saga_id, "pause" if fault.kind == "pause_saga" else fault.kind)
                )

    def _give_up(self, process: Process, task: asyncio.Task[Any]) -> None:
        """A client does not wait for its start any longer."""
        if not task.done() and process.alive:
            self.tape.fired["start given up"] += 1
            process.context.run(task.cancel)

    async def _client_start(self, coordinator: Coordinator, saga_id: str, number: int) -> None:
        while True:
            try:
                run = await coordinator.start(self.saga.with_id(saga_id), id=saga_id, number=number)
            except SagaExists:
                if number == 1:
                    self.tape.troubles.append(f"S11: starting {saga_id} again was refused")
                return
            except Stopped:
                return
            except StoreError:
                await asyncio.sleep(0.2)
                continue
            break
        if number != 1:
            self.tape.troubles.append(f"S11: starting {saga_id} with other params was not refused")
            return
        self.acknowledged[saga_id] = self.saga.encode_params(id=saga_id, number=number)
        if self.scenario.wait:
            await self._wait(run, saga_id)

    async def _wait(self, run: Any, saga_id: str) -> None:
        while True:
            try:
                await run.result()
                said = e.SAGA_COMPLETED
            except RolledBack:
                said = e.SAGA_ROLLED_BACK
            except Stuck:
                said = e.SAGA_STUCK
            except Stopped:
                return
            except StoreError:
                await asyncio.sleep(0.2)
                continue
            break
        if all(event.type != said for event in self.server.events(saga_id)):
            self.tape.troubles.append(
                f"S1: the client of {saga_id} was told {said}, which its log does not hold"
            )

    async def _ask(
        self, coordinator: Coordinator, saga_id: str, verb: Any, ask: verbs.Ask | None = None
    ) -> bool:
        """Ask something of a saga. Returns whether it is known to be decided."""
        try:
            await coordinator.ask(saga_id, verb, ask or verbs.Ask("ann", "asked"))
        except (IllegalRequest, Stopped):
            return False
        except StoreError:
            return False
        self.tape.fired[f"request: {verb}"] += 1
        return True

    async def _operate(self, coordinator: Coordinator, saga_id: str) -> None:
        """Look at a saga as an operator would, and decide about one stuck node."""
        try:
            snapshot = await coordinator.get(saga_id)
        except StoreError:
            return
        stuck = list(snapshot.stuck())
        if snapshot.record.paused and snapshot.status != s.STUCK:
            fold = snapshot.fold
            stuck = [
                e.StuckNode(name, "", fold.choices(i))
                for name, i in fold.plan.index.items()
                if fold.choices(i)
            ]
            if not stuck or self.rng.random() < 0.7:
                await self._ask(coordinator, saga_id, "resume")
                return
            self.tape.fired["decided while paused"] += 1
        elif snapshot.status != s.STUCK or not stuck:
            return
        chosen = stuck[int(self.rng.random() * len(stuck))]
        choice = chosen.choices[int(self.rng.random() * len(chosen.choices))]
        verb, ask = choice, verbs.Ask("ann", "decided", chosen.node)
        if choice == "skip":
            self.world.freeze(saga_id, chosen.node)
        elif choice == "resolve":
            self.world.undo_by_hand(saga_id, chosen.node)
            self.undone_by_hand.add(saga_id)
        elif choice == "resolve with output":
            verb = "resolve"
            output = msgspec.json.encode(self.world.do_by_hand(saga_id, chosen.node)).decode()
            ask = verbs.Ask("ann", "decided", chosen.node, output)
        if await self._ask(coordinator, saga_id, verb, ask):
            self.undone_by_hand.discard(saga_id)

    # -- playing -----------------------------------------------------------

    def play(self) -> History:
        """Play the scenario to its end."""
        dags.enter(self.world)
        self.tape.fired["clock skew"] += any(self.scenario.skews)
        for life in self.lives:
            self._start(life)
        for fault in self.scenario.faults:
            if not fault.nth:
                self.loop.outside(fault.at, self._strike, fault)
        try:
            self.loop.run(self._chaos_over)
            self._calm_down()
            self.loop.run(self._all_over)
        except Spinning as spinning:
            self.tape.troubles.append(f"liveness: it spins: {spinning}")
        history = self._sum_up()
        self.over = True
        self.loop.close_all()
        return history

    def _chaos_over(self) -> bool:
        if self.loop.now >= self.scenario.chaos:
            return True
        return not self._left and len(self.server.length) == len(self.ids) and self._ended()

    def _ended(self) -> bool:
        sagas = self.server.sagas
        return all(saga.status in (s.COMPLETED, s.ROLLED_BACK) for saga in sagas.values())

    def _calm_down(self) -> None:
        """The quiet period begins: faults are over, sleepers wake up, the dead are started again."""
        self.quiet = self.server.quiet = self.world.quiet = True
        for life in self.lives:
            if life.process is None or not life.process.alive:
                self._start(life)
            elif life.process.paused and life.coordinator is not None:
                self._wake(life.process, life.coordinator)
        self._calm_since = self.loop.now
        self.tape.tell(self.loop.now, "the quiet period begins")
        self.loop.outside(POLL, self._tend)

    def _tend(self) -> None:
        """In quiet, operators see to what is stuck or paused, and clients to what never got started."""
        for life in self.lives:
            if life.process is None or not life.process.alive:
                self._start_again(life)
        ready = [
            life
            for life in self.lives
            if life.ready and life.process is not None and life.coordinator is not None
        ]
        if ready:
            life = ready[int(self.rng.random() * len(ready))]
            assert life.process is not None
            assert life.coordinator is not None
            for saga_id in self.ids:
                saga = self.server.sagas.get(saga_id)
                if saga is None:
                    life.process.spawn(self._client_start(life.coordinator, saga_id, 1))
                elif saga.status == s.STUCK or saga.standing.paused:
                    life.process.spawn(self._operate(life.coordinator, saga_id))
                elif saga_id in self.undone_by_hand and saga.status not in (s.COMPLETED, s.ROLLED_BACK):
                    # Nobody knows whether that decision was recorded, and the other side refuses the key from now on:
                    # without an operator who insists, a node without a limit of attempts would try for ever.
                    self.tape.fired["undone by hand, and not recorded"] += 1
                    life.process.spawn(self._ask(life.coordinator, saga_id, "rollback"))
        if not self._all_over():
            self.loop.outside(3.0, self._tend)

    def _all_over(self) -> bool:
        if self.loop.now > self._calm_since + PATIENCE:
            return True
        return len(self.server.length) == len(self.ids) and self._ended() and not self.world.under_way

    def _sum_up(self) -> History:
        history = History(self.scenario, self.saga, self.tape)
        history.acknowledged = self.acknowledged
        digest = 0
        for saga_id in self.ids:
            if saga_id not in self.server.length:
                self.tape.troubles.append(f"liveness: {saga_id} never got started")
                continue
            stored = at_once(self.server.memory.load(saga_id))
            history.logs[saga_id] = stored.events
            for event in stored.events:
                if isinstance(event.data, e.InDoubt | e.UndoFailed) and event.data.given_up:
                    self.tape.fired[f"given up for deaths: {event.type}"] += 1
            history.records[saga_id] = stored.record
            if stored.record.status not in (s.COMPLETED, s.ROLLED_BACK):
                self.tape.troubles.append(
                    f"liveness: {saga_id} is {stored.record.status}"
                    f"{' (paused)' if stored.record.paused else ''} after {PATIENCE:g} s of quiet"
                )
            digest = crc32(repr(to_rows(stored.events, digest)[-1][-1]).encode(), digest)
        for effect in self.tape.effects:
            digest = crc32(
                repr((effect.order, effect.key, effect.kind, effect.attempt, effect.value)).encode(), digest
            )
        self._look_at_tasks()
        history.time, history.steps = self.loop.now, self.loop.steps
        history.digest = digest
        return history

    def _look_at_tasks(self) -> None:
        """Errors that nobody looked at."""
        for task in self.loop.tasks:
            if task.done() and not task.cancelled() and getattr(task, "_log_traceback", False):
                error = task.exception()
                if not isinstance(error, StoreError):
                    self.tape.troubles.append(f"runtime: {task.get_name()}: {type(error).__name__}: {error}")
        for complaint in self.loop.complaints:
            if "never retrieved" not in complaint.get("message", ""):
                self.tape.troubles.append(
                    f"runtime: {complaint.get('message')}: {complaint.get('exception')!r}"
                )


def play(scenario: Scenario) -> History:
    """Play a scenario."""
    enabled = gc.isenabled()
    gc.disable()  # what is collected when would be one more thing that the seed does not fix
    try:
        with muted():
            return Player(scenario).play()
    finally:
        if enabled:
            gc.enable()
