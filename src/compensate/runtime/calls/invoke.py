"""Invocation: call one action or undo of the user's, and say what came of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from compensate.authoring import Ctx
from compensate.codec import type_codec
from compensate.core.dag import PARAMS, Ref
from compensate.core.names import Direction
from compensate.errors import CompensateError, InjectedError, Permanent, SerializeFailed, Unknown
from compensate.inspection.bindings import Bound
from compensate.runtime import log
from compensate.runtime.calls.contexts import call_in_copy, unchanged
from compensate.runtime.calls.outcomes import CUT_OFF, Circumstances, Outcome, outcome, program_end
from compensate.runtime.calls.results import see_through
from compensate.runtime.calls.threads import Job
from compensate.runtime.failures import error_info, is_a
from compensate.runtime.inject import NOTHING as NO_FAULT
from compensate.runtime.inject import Inject

if TYPE_CHECKING:
    from compensate.runtime.execution import Execution


class TimedOut(TimeoutError):
    """The time limit of an action or undo passed. `Retry(on=TimeoutError)` means it too."""


class Call:
    """One call of an action or undo: what its `Ctx` reads, and whether its time is over."""

    __slots__ = ("_bound", "_caller", "base", "direction", "i", "is_over", "late")

    def __init__(self, caller: Caller, i: int, bound: Bound, direction: Direction, base: Context) -> None:
        self._caller = caller
        self._bound = bound
        self.i = i
        self.direction: Direction = direction
        self.base = base
        """The context of the task, as it was before the first call in it."""
        self.late = False
        """Whether its time limit has passed."""
        self.is_over = False
        """Whether it should end: its time limit has passed, or it was cancelled."""

    def lookup(self, name: str, tp: Any) -> Any:
        """See `Ctx.lookup`."""
        data = self._caller.execution.values.lookup(self.i, name)
        return type_codec(tp, where=f"lookup of {name!r}").decode(data)

    def inputs(self) -> dict[str, Any]:
        """See `Ctx.inputs`."""
        values = self._caller.execution.values
        return {
            item.name: item.decode(values.data(item, self._bound, self.i))
            for item in (*self._bound.positional, *self._bound.keyword)
        }

    def params(self, tp: Any) -> Any:
        """See `Ctx.params`."""
        execution = self._caller.execution
        data = execution.values.resolve(Ref(PARAMS), execution.machine.plan.scopes[self.i])
        return type_codec(tp, where="params").decode(data)

    def expired(self) -> bool:
        """See `Ctx.expired`."""
        return self.is_over

    def now(self) -> float:
        """See `Ctx.now`."""
        return self._caller.execution.setting.clock.now()


class Caller:
    """Calls the actions and undos of one execution.

    The tasks of its driver and of its crew come here; each gives the context of its own as `base`.
    """

    def __init__(self, execution: Execution) -> None:
        self.execution = execution
        self._calls: dict[int, Call] = {}

    # -- what came of a call -----------------------------------------------

    async def act(self, i: int, attempt: int, base: Context) -> None:
        """Call the action of node `i` and tell the machine what came of it."""
        given = await self.invoke(i, attempt, base)
        if isinstance(given, Outcome):
            self.record(i, "do", given)
        else:
            self.execution.machine.succeed(i, given, self.execution.setting.clock.now())

    async def undo(self, i: int, attempt: int, base: Context) -> None:
        """Call the undo of node `i` and tell the machine what came of it."""
        given = await self.invoke_undo(i, attempt, base)
        if given is not None:
            self.record(i, "undo", given)
        else:
            self.execution.machine.undo_succeed(i, self.execution.setting.clock.now())

    def record(self, i: int, direction: Direction, came: Outcome) -> None:
        """Tell the machine of a call that did not succeed."""
        machine, now = self.execution.machine, self.execution.setting.clock.now()
        if came.kind == "none":
            return
        if came.kind == "in_doubt":
            machine.doubt(i, came.reason, now, error=came.error, kinds=came.kinds, permanent=came.final)
            return
        assert came.error is not None
        if direction == "undo":
            machine.undo_fail(i, came.error, now, kinds=came.kinds, permanent=came.final)
        else:
            machine.fail(i, came.error, now, kinds=came.kinds, clean=came.clean, permanent=came.final)

    # -- calls -------------------------------------------------------------

    async def invoke(self, i: int, attempt: int, base: Context) -> bytes | Outcome:
        """Call the action of node `i`.

        Returns:
            What it returned, as JSON; else what came of it.

        Raises:
            CancelledError: The task that runs it was cancelled, and not by a rollback.
            KeyboardInterrupt, SystemExit: As the action raised them.
        """
        execution = self.execution
        bound = execution.bindings.of(i, execution.machine)
        task = asyncio.current_task()
        cancels = 0 if task is None else task.cancelling()
        call: Call | None = None
        given: Any
        try:
            link = bound.link
            if link is not None and not execution.inject and unchanged(base):
                data = execution.machine.output[link.source] if link.source >= 0 else None
                given = link.decode(data or execution.values.data(link, bound, i))
            else:
                given = execution.values.arguments(bound, i)
                call = self._calls[i] = Call(self, i, bound, "do", base)
        except CompensateError as error:
            return self._not_called(i, "do", error)
        try:
            if call is None:
                output = await bound.fn(given)
            else:
                output = await self._act(call, attempt, bound, *given)
        except BaseException as error:
            return self._judge(i, error, call, bound, "do", task, cancels)
        finally:
            if call is not None:
                del self._calls[i]
        try:
            return bound.encode(output)
        except SerializeFailed as error:
            # It took effect, and would return the same again: nothing is learned by running it once more.
            self._remember(i, error, "do")
            return Outcome("in_doubt", error_info(error), final=True, reason="unstorable")

    async def invoke_undo(self, i: int, attempt: int, base: Context) -> Outcome | None:
        """Call the undo of node `i`; `None` if it succeeded, else what came of it. Raises as `invoke`."""
        execution = self.execution
        bound = execution.bindings.of(i, execution.machine)
        task = asyncio.current_task()
        cancels = 0 if task is None else task.cancelling()
        data = execution.machine.output[i]
        try:
            output = None if data is None else bound.decode(data)
        except CompensateError as error:
            return self._not_called(i, "undo", error)
        call: Call | None = None
        try:
            if bound.undo_link is not None and not execution.inject and unchanged(base):
                result = await bound.undo_link(output)
                if result is not None:
                    await see_through(result, base.copy())
            else:
                call = self._calls[i] = Call(self, i, bound, "undo", base)
                await self._undo(call, attempt, bound, output)
        except BaseException as error:
            return self._judge(i, error, call, bound, "undo", task, cancels)
        finally:
            if call is not None:
                del self._calls[i]
        return None

    def _not_called(self, i: int, direction: Direction, error: CompensateError) -> Outcome:
        """What is recorded cannot be given to the action or undo: nothing was called, and again it would be so."""
        self._remember(i, error, direction)
        return Outcome("failed", error_info(error), clean=direction == "do", final=True)

    def _judge(
        self,
        i: int,
        error: BaseException,
        call: Call | None,
        bound: Bound,
        direction: Direction,
        task: asyncio.Task[Any] | None,
        cancels: int,
    ) -> Outcome:
        """What it means that a call raised `error`. `cancels`: how often its task had been cancelled before it."""
        if is_a(error, GeneratorExit) and _current_task() is not task:
            raise error  # the event loop is gone, and Python closes what is left of the coroutine
        if (end := program_end(error)) is not None:
            raise end
        execution = self.execution
        late: Literal["", "timeout", "cancelled"] = "timeout" if call is not None and call.late else ""
        if execution.take_back_cancel(i):
            late = "cancelled"
        cancelled = task is not None and task.cancelling() > cancels
        how = Circumstances(
            direction, bound.action.unknown, late, execution.stopping, execution.abandoned, cancelled
        )
        came = outcome(error, how)
        if came is not CUT_OFF:
            self._remember(i, error, direction)
        elif is_a(error, asyncio.CancelledError):
            raise error
        elif execution.abandoned or cancelled:
            raise asyncio.CancelledError from error
        return came

    def cut_off(self, i: int, error: asyncio.CancelledError) -> None:
        """Record that code outside of this library cancelled the task of node `i`, while the saga goes on."""
        direction: Direction = "undo" if self.execution.machine.state[i] == "undoing" else "do"
        self.record(i, direction, outcome(error, Circumstances(direction)))

    def _remember(self, i: int, error: BaseException, direction: Direction) -> None:
        self.execution.exceptions[self.execution.machine.plan.names[i], direction] = error

    # -- with a context, a time limit, a thread, or faults -----------------

    async def _act(
        self, call: Call, attempt: int, bound: Bound, args: list[Any], kwargs: dict[str, Any]
    ) -> Any:
        inject = self._inject(call.i)
        where = f"node {self.execution.machine.plan.names[call.i]!r}"
        if inject.fail == "before":
            raise InjectedError(f"{where}: injected failure before its effect")
        action = bound.action
        if action.takes_ctx:
            args.insert(0, self._ctx(call, attempt))
        output = None
        for _ in range(inject.repeat):
            output = await self._call(call, bound.fn, action.is_async, bound.spec.timeout, args, kwargs)
        if inject.fail == "after":
            raise Unknown(f"{where}: injected failure after its effect")
        return output

    async def _undo(self, call: Call, attempt: int, bound: Bound, output: Any) -> None:
        inject = self._inject(call.i)
        if inject.fail_undo == -1 or attempt <= inject.fail_undo:
            name = self.execution.machine.plan.names[call.i]
            raise InjectedError(f"node {name!r}: injected failure of its undo")
        action = bound.action
        if action.undo_fn is None:
            raise Permanent(
                f"action {action.name!r} has no undo any more, but the stored dag says that it has one"
            )
        args = [self._ctx(call, attempt), output] if action.undo_takes_ctx else [output]
        seconds = bound.spec.undo_timeout
        for _ in range(inject.repeat_undo):
            result = await self._call(call, action.undo_fn, action.undo_is_async, seconds, args, {})
            if result is not None:
                await self._limited(call, see_through(result, call.base.copy()), seconds)

    def _inject(self, i: int) -> Inject:
        return self.execution.inject.get(self.execution.machine.plan.names[i], NO_FAULT)

    def _ctx(self, call: Call, attempt: int) -> Ctx[Any]:
        execution = self.execution
        name = execution.machine.plan.names[call.i]
        return Ctx(execution.setting.deps, execution.machine.saga_id, name, attempt, call.direction, call)

    def expire(self, i: int) -> None:
        """Tell the function of node `i` that it was cancelled; one in a thread can do no more than look."""
        call = self._calls.get(i)
        if call is not None:
            call.is_over = True

    async def _call(
        self,
        call: Call,
        fn: Callable[..., Any],
        is_async: bool,
        seconds: float | None,
        args: list[Any],
        kwargs: dict[str, Any],
    ) -> Any:
        if not is_async:
            return await self._in_thread(call, partial(fn, *args, **kwargs), seconds)
        return await self._limited(call, call_in_copy(call.base, fn, args, kwargs), seconds)

    async def _limited(self, call: Call, awaitable: Any, seconds: float | None) -> Any:
        """Await something within a time limit."""
        if seconds is None:
            return await awaitable
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                return await awaitable
        except BaseException as error:
            if not limit.expired():
                raise
            call.late = call.is_over = True
            if type(error) is TimeoutError and isinstance(error.__cause__, asyncio.CancelledError):
                raise TimedOut(f"it did not end within its time limit of {seconds:g} s") from error
            raise

    async def _in_thread(self, call: Call, fn: Callable[[], Any], seconds: float | None) -> Any:
        loop = asyncio.get_running_loop()
        job = Job(fn, loop.time, call.base.copy())
        future = loop.run_in_executor(self.execution.setting.pool, job)
        left = seconds
        try:
            while not future.done() and (left is None or left > 0):
                await asyncio.wait({future}, timeout=left)
                if seconds is not None:  # waiting for a thread to be free does not count
                    left = seconds if job.begun is None else job.begun + seconds - loop.time()
        except asyncio.CancelledError:
            if not future.done():
                self._leave_behind(call, job, future)
            elif call.i in self.execution.cancelled or self.execution.abandoned:
                return future.result()  # it was cancelled just as it ended: what it said counts
            else:
                _hear(future)
            raise
        if future.done():
            return future.result()
        call.late = True
        self._leave_behind(call, job, future)
        raise TimedOut(
            f"it did not end within its time limit of {seconds:g} s; its thread goes on until it ends"
        )

    def _leave_behind(self, call: Call, job: Job, future: asyncio.Future[Any]) -> None:
        """Wait no longer for a function in a thread. Until it has ended, its node is neither run again nor undone."""
        future.add_done_callback(_hear)
        call.is_over = True
        if job.revoke():
            return
        execution = self.execution
        node = execution.machine.plan.names[call.i]
        where = f"saga {execution.id}: node {node!r}"
        fields = {"saga": execution.id, "node": node, "epoch": execution.machine.epoch}
        log.write(
            logging.WARNING,
            f"{where}: its function did not end when it should have; its thread works on, and another thread takes its "
            "place in the pool",
            **fields,
        )
        execution.machine.linger(call.i)
        execution.setting.left_behind[job] = execution.id
        job.leave(execution.setting.pool)

        def landed(future: asyncio.Future[Any]) -> None:
            log.write(
                logging.INFO,
                f"{where}: its function, which was left running in a thread, has ended",
                **fields,
            )
            execution.has_ended(job, call.i)

        future.add_done_callback(landed)


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # no event loop runs
        return None


def _hear(future: asyncio.Future[Any]) -> None:
    """Look at an outcome that came too late to count, so that the loop does not report it besides."""
    if not future.cancelled():
        future.exception()
