"""What goes wrong in one scenario of a proof: actions and undos wrapped so that they fail where they are told to.

The wrappers take the place of the user's functions in a copy of the saga; the runtime runs them like any others. What
a wrapper does is written once, as a generator of steps, for `def` and `async def` alike.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Generator, Sequence
from contextvars import copy_context
from functools import partial
from typing import Any, Final, Literal, TypeAlias

import msgspec

from compensate.authoring import Action, Ctx, Saga
from compensate.authoring.sagas import Definition
from compensate.core import events as e
from compensate.core.dag import ActionNode, Dag, Node, SubsagaNode, action_nodes
from compensate.core.events import Event
from compensate.errors import CompensateError, InjectedError, NoEffect, Permanent, Unknown
from compensate.runtime.calls.results import see_through
from compensate.testing.differences import Change, difference
from compensate.testing.virtual_time import Strangers, VirtualTime

Kind = Literal[
    "fail", "lost", "twice", "slow", "late", "undo_twice", "undo_slow", "undo_fails_once", "undo_fails"
]

POINTS: Final[dict[Kind, str]] = {
    "fail": "{} fails before its effect",
    "lost": "{} takes effect and its reply is lost",
    "twice": "the action of {} runs twice",
    "slow": "{} is slow, so that what does not depend on it goes first",
    "late": "{} takes effect after its undo",
    "undo_twice": "the undo of {} runs twice",
    "undo_slow": "the undo of {} is slow, so that other undos go first",
    "undo_fails_once": "the undo of {} fails once",
    "undo_fails": "the undo of {} fails for good",
}

MOST_FAILURES: Final = 20
"""Attempts after which a fault is over: some nodes are tried for ever."""


class Fault(msgspec.Struct, frozen=True):
    """Something that goes wrong at a node."""

    node: str
    kind: Kind

    def __str__(self) -> str:
        return POINTS[self.kind].format(self.node)


class Wait(msgspec.Struct, frozen=True):
    """Step: let virtual time pass."""

    seconds: float


CALL: Final = "call"
"""Step: call the user's function; sent back is what it returned."""

LOOK: Final = "look"
"""Step: look at the world; sent back is the snapshot."""

THREADS: Final = "threads"
"""Step: let threads end that user code started by itself."""

Script: TypeAlias = Generator[Any, Any, Any]


class Stage:
    """What happens in one scenario, and what was seen of it.

    Args:
        time: Virtual time.
        faults: What goes wrong.
        look: Takes a snapshot of the world; may give an awaitable.
        strangers: Threads that user code starts by itself; none by default.
        watch: Whether to look at the world around every call; only where one action runs at a time.
        check_values: Whether to hold outputs against what the log makes of them.

    Attributes:
        fired: How often each fault went wrong.
        errors: What user code raised, with node and direction.
        calls: Which actions and undos were called, in order.
        late: Actions whose effect is still to come.
        lifted: Whether faults are over.
        unfaithful: Nodes whose output does not survive the codec, and how.
        values: How many outputs were held against the codec.
        made: In a watched run: what each action changed.
        strays: In a watched run: changes while no action or undo ran.
    """

    def __init__(
        self,
        time: VirtualTime,
        faults: Sequence[Fault] = (),
        *,
        look: Callable[[], Any],
        strangers: Strangers | None = None,
        watch: bool = False,
        check_values: bool = False,
    ) -> None:
        self.time = time
        self.faults = {(fault.node, fault.kind): fault for fault in faults}
        self.fired: dict[Fault, int] = dict.fromkeys(faults, 0)
        self.errors: list[tuple[str, str, BaseException]] = []
        self.calls: list[tuple[str, str, bool]] = []
        self.late: list[Callable[[], Any]] = []
        self.lifted = False
        self.unfaithful: list[tuple[str, str]] = []
        self.values = 0
        self.made: list[tuple[str, list[Change]]] = []
        self.strays: list[tuple[str, list[Change]]] = []
        self.look = look
        self.last_seen: Any = None
        self._strangers = Strangers() if strangers is None else strangers
        self._watch = watch
        self._check_values = check_values
        self._after = "the start"
        self._rolling_back = False

    def observe(self, _saga_id: str, events: Sequence[Event]) -> None:
        """Told of durable events."""
        if any(event.type == e.SAGA_ROLLBACK for event in events):
            self._rolling_back = True

    def _strikes(self, node: str, kind: Kind) -> bool:
        fault = self.faults.get((node, kind))
        if fault is None or self.lifted or self.fired[fault] >= MOST_FAILURES:
            return False
        self.fired[fault] += 1
        return True

    # -- scripts -----------------------------------------------------------

    def act(self, action: Action[..., Any], pause: float, ctx: Ctx[Any], late: Callable[[], Any]) -> Script:
        """One call of an action."""
        node = ctx.node
        before = yield from self._arrive(node, pause)
        if self._strikes(node, "slow"):
            yield Wait(pause)
        if not self._rolling_back:
            if self._strikes(node, "fail"):
                raise InjectedError(f"node {node}: it fails before its effect")
            if self._strikes(node, "late"):
                self.late.append(late)
                raise Unknown(f"node {node}: no reply; its effect is still to come")
        output = yield from self._call(node, "do", False)
        if self._strikes(node, "twice"):
            output = yield from self._call(node, "do", False)
        if not self._rolling_back and self._strikes(node, "lost"):
            raise Unknown(f"node {node}: it took effect, and its reply is lost")
        if self._check_values:
            self._hold_against_codec(node, action, output)
        if self._watch:
            after = self.last_seen = yield LOOK
            self.made.append((node, difference(before, after)))
            self._after = f"the action of {node}"
        return output

    def undo(self, pause: float, ctx: Ctx[Any], output: Any) -> Script:
        """One call of an undo."""
        node = ctx.node
        yield from self._arrive(f"the undo of {node}", pause)
        if self._strikes(node, "undo_slow"):
            yield Wait(pause)
        if self._strikes(node, "undo_fails"):
            raise Permanent(f"node {node}: its undo fails for good")
        if ctx.attempt == 1 and self._strikes(node, "undo_fails_once"):
            raise InjectedError(f"node {node}: its undo fails once")
        yield from self._call(node, "undo", output is None)
        if self._strikes(node, "undo_twice"):
            yield from self._call(node, "undo", output is None)
        if self._watch:
            self.last_seen = yield LOOK
            self._after = f"the undo of {node}"

    def _arrive(self, where: str, pause: float) -> Script:
        """In a watched run: whatever changes while nothing runs belongs to no node."""
        if not self._watch:
            return None
        yield Wait(min(1.0, pause))
        yield THREADS
        seen = yield LOOK
        self.stray(seen, f"before {where}")
        return seen

    async def strangers_leave(self) -> None:
        """Let threads end that user code started by itself. The loop goes on, as they may need it."""
        for _ in self._strangers.leave():
            await asyncio.sleep(0)

    def stray(self, seen: Any, when: str) -> None:
        """Hold a snapshot taken while nothing runs against the one before."""
        changes = difference(self.last_seen, seen)
        if changes:
            self.strays.append((f"after {self._after} and {when}", changes))
        self.last_seen = seen

    def _call(self, node: str, direction: str, without: bool) -> Script:
        self.calls.append((node, direction, without))
        try:
            return (yield CALL)
        except Exception as error:
            self.errors.append((node, direction, error))
            raise

    def _hold_against_codec(self, node: str, action: Action[..., Any], output: Any) -> None:
        """The codec itself refuses whatever would come back as something else."""
        self.values += 1
        try:
            action.output.decode(action.output.encode(output))
        except CompensateError as error:
            self.unfaithful.append((node, str(error)))


# -- putting it in place of the user's functions ---------------------------


def instrument(saga: Saga[..., Any], stage: Stage) -> Saga[..., Any]:
    """The same saga with its actions on a stage."""
    known = saga.definition
    actions = {name: _wrap(action, stage, saga) for name, action in known.actions.items()}
    twice = any(kind in ("twice", "undo_twice") for _, kind in stage.faults)
    dag = _with_twice_the_time(known.dag) if twice else known.dag
    definition = Definition(
        dag, known.signature, known.params, known.output, actions, known.where, known.found
    )
    if not twice:
        definition.__dict__["plan"] = known.plan  # a cached property: made once for all scenarios
    return Saga(definition, deadline=saga.deadline)


def _with_twice_the_time(dag: Dag) -> Dag:
    """What runs twice in one attempt may take twice as long."""
    nodes: list[Node] = []
    for node in dag.nodes:
        if isinstance(node, ActionNode):
            limits = {"timeout": node.timeout, "undo_timeout": node.undo_timeout}
            longer = {name: 2 * limit for name, limit in limits.items() if limit is not None}
            nodes.append(msgspec.structs.replace(node, **longer))
        elif isinstance(node, SubsagaNode):
            nodes.append(msgspec.structs.replace(node, dag=_with_twice_the_time(node.dag)))
        else:
            nodes.append(node)
    return msgspec.structs.replace(dag, nodes=tuple(nodes))


def _wrap(action: Action[..., Any], stage: Stage, saga: Saga[..., Any]) -> Action[..., Any]:
    wrapped = action.clone()
    wrapped.takes_ctx = wrapped.undo_takes_ctx = True
    specs = [spec for _, spec in action_nodes(saga.dag) if spec.action == action.name]
    limits = [limit for spec in specs for limit in (spec.timeout, spec.undo_timeout) if limit is not None]
    if saga.deadline is not None:
        limits.append(saga.deadline / len(saga.plan.names))
    pause = min([60.0, *(limit / 4 for limit in limits)])
    fn, undo_fn = action.fn, action.undo_fn

    def acting(ctx: Ctx[Any], call: Callable[[], Any]) -> Script:
        late = call if action.is_async else partial(_in_thread, call)
        return stage.act(action, pause, ctx, late)

    if action.is_async:

        async def do(ctx: Ctx[Any], *args: Any, **kwargs: Any) -> Any:
            call = _bare(fn, action.takes_ctx, ctx, *args, **kwargs)
            return await _play(acting(ctx, call), call, stage)

        wrapped.fn = do
    else:

        def do_blocking(ctx: Ctx[Any], *args: Any, **kwargs: Any) -> Any:
            call = _bare(fn, action.takes_ctx, ctx, *args, **kwargs)
            return _play_blocking(acting(ctx, call), call, stage)

        wrapped.fn = do_blocking
    if undo_fn is None:
        return wrapped
    if action.undo_is_async:

        async def undo(ctx: Ctx[Any], output: Any) -> None:
            call = partial(_to_its_end, _bare(undo_fn, action.undo_takes_ctx, ctx, output))
            await _play(stage.undo(pause, ctx, output), call, stage)

        wrapped.undo_fn = undo
    else:

        def undo_blocking(ctx: Ctx[Any], output: Any) -> None:
            call = partial(
                _to_its_end_blocking, _bare(undo_fn, action.undo_takes_ctx, ctx, output), stage.time
            )
            _play_blocking(stage.undo(pause, ctx, output), call, stage)

        wrapped.undo_fn = undo_blocking
    return wrapped


def _bare(
    fn: Callable[..., Any], takes_ctx: bool, ctx: Ctx[Any], *args: Any, **kwargs: Any
) -> Callable[[], Any]:
    return partial(fn, ctx, *args, **kwargs) if takes_ctx else partial(fn, *args, **kwargs)


async def _to_its_end(undo: Callable[[], Any]) -> None:
    """Call an undo, and see through what it returned as the runtime does, before anybody looks or calls it again."""
    result = await undo()
    if result is not None:
        await see_through(result, copy_context())


def _to_its_end_blocking(undo: Callable[[], Any], time: VirtualTime) -> None:
    """The same in a worker thread: what the undo returned is seen through in the loop."""
    result = undo()
    if result is not None:
        context = copy_context()
        time.call_in_loop(lambda: see_through(result, context))


async def _in_thread(call: Callable[[], Any]) -> Any:
    return await asyncio.get_running_loop().run_in_executor(None, call)


async def settle(value: Any) -> Any:
    """What a callable gave that may be `def` or `async def`."""
    return await value if inspect.isawaitable(value) else value


async def _play(script: Script, call: Callable[[], Any], stage: Stage) -> Any:
    """Perform a script on the event loop."""

    async def perform(step: Any) -> Any:
        if step is CALL:
            return await call()
        if step is LOOK:
            return await settle(stage.look())
        if step is THREADS:
            return await stage.strangers_leave()
        return await asyncio.sleep(step.seconds)

    try:
        step = next(script)
        while True:
            try:
                result = await perform(step)
            except BaseException as error:
                step = script.throw(error)
            else:
                step = script.send(result)
    except StopIteration as end:
        return end.value


def _play_blocking(script: Script, call: Callable[[], Any], stage: Stage) -> Any:
    """Perform a script in a worker thread."""

    def perform(step: Any) -> Any:
        if step is CALL:
            return call()
        if step is LOOK:
            return stage.time.call_in_loop(stage.look)
        if step is THREADS:
            return stage.time.call_in_loop(stage.strangers_leave)
        return stage.time.sleep(step.seconds)

    try:
        step = next(script)
        while True:
            try:
                result = perform(step)
            except BaseException as error:
                step = script.throw(error)
            else:
                step = script.send(result)
    except StopIteration as end:
        return end.value


async def come_late(stage: Stage) -> None:
    """Let the actions that are still to come take effect; that a participant refuses them is as good."""
    for late in stage.late:
        try:
            await settle(late())
        except NoEffect:
            pass
        except Exception as error:
            stage.errors.append(("", "late", error))
