"""Calls: run one action or undo of the user's, and tell the machine what came of it.

What an exception means is decided here and nowhere else:

=================================  ==========================================================
raised (or happened)               outcome
=================================  ==========================================================
`NoEffect`                         failed, known to be clean
`Permanent`                        failed, not tried again
`Unknown`, time limit passed       in doubt
cancelled by a rollback's grace    in doubt
`CancelledError` from within       in doubt
any other `Exception`              failed ("took no effect")
other `BaseException`              in doubt
cancelled from outside             no outcome: the log says it started; recovery sees to it
`KeyboardInterrupt`, `SystemExit`  no outcome, raised on
=================================  ==========================================================
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from compensate.authoring import Ctx
from compensate.codec import type_codec
from compensate.core import states as s
from compensate.core.dag import PARAMS, Ref
from compensate.core.names import Direction
from compensate.errors import CompensateError, InjectedError, NoEffect, Permanent, SerializeFailed, Unknown
from compensate.runtime.bindings import Bound
from compensate.runtime.failures import error_info, kinds
from compensate.runtime.inject import Inject

if TYPE_CHECKING:
    from compensate.runtime.execution import Execution


class TimedOut(TimeoutError):
    """The time limit of an action or undo passed. `Retry(on=TimeoutError)` means it too."""


class Reader:
    """What a `Ctx` needs of the runtime."""

    __slots__ = ("_bound", "_caller", "_i", "timed_out")

    def __init__(self, caller: Caller, i: int, bound: Bound) -> None:
        self._caller = caller
        self._i = i
        self._bound = bound
        self.timed_out = False

    def lookup(self, name: str, tp: Any) -> Any:
        """See `Ctx.lookup`."""
        data = self._caller.execution.values.lookup(self._i, name, self._bound)
        return type_codec(tp, where=f"lookup of {name!r}").decode(data)

    def inputs(self) -> dict[str, Any]:
        """See `Ctx.inputs`."""
        values = self._caller.execution.values
        return {
            item.name: item.decode(values.data(item, self._bound, self._i))
            for item in (*self._bound.positional, *self._bound.keyword)
        }

    def params(self, tp: Any) -> Any:
        """See `Ctx.params`."""
        data = self._caller.execution.values.resolve(Ref(PARAMS), self._bound.scope)
        return type_codec(tp, where="params").decode(data)

    def expired(self) -> bool:
        """See `Ctx.expired`."""
        return self.timed_out


class Caller:
    """Runs the actions and undos of one execution."""

    def __init__(self, execution: Execution) -> None:
        self.execution = execution
        self._readers: dict[int, Reader] = {}

    # -- do ----------------------------------------------------------------

    async def act(self, i: int, attempt: int) -> None:
        """Run the action of node `i` and record its outcome."""
        execution = self.execution
        bound = execution.bindings.of(i, execution.machine)
        clock = execution.setting.clock
        try:
            if bound.plain and not execution.setting.inject:
                try:
                    decoded = [
                        item.decode(execution.values.data(item, bound, i)) for item in bound.positional
                    ]
                except CompensateError as error:
                    self.unreadable(i, error)
                    return
                output = await bound.fn(*decoded)
            else:
                output = await self._act(i, attempt, bound)
        except BaseException as error:
            self.failed(i, error)
            return
        try:
            data = bound.encode(output)
        except SerializeFailed as error:
            self.unstorable(i, error)
        else:
            execution.machine.succeed(i, data, clock.now())

    def unstorable(self, i: int, error: SerializeFailed) -> None:
        """The action of node `i` took effect and returned what the log cannot hold; again it would do the same."""
        self._remember(i, error)
        execution = self.execution
        execution.machine.doubt(
            i, "unstorable", execution.setting.clock.now(), error=error_info(error), permanent=True
        )

    def unreadable(self, i: int, error: CompensateError) -> None:
        """The inputs of node `i` cannot be given to its action: nothing was called; again it would end the same."""
        self._remember(i, error)
        execution = self.execution
        execution.machine.fail(
            i, error_info(error), execution.setting.clock.now(), clean=True, permanent=True
        )

    async def _act(self, i: int, attempt: int, bound: Bound) -> Any:
        execution = self.execution
        try:
            args, kwargs = execution.values.arguments(bound, i)
        except CompensateError as error:
            raise _Unreadable(error) from error
        action = bound.action
        inject = self._inject(i)
        if inject.fail == "before":
            raise InjectedError(
                f"node {execution.machine.plan.names[i]!r}: injected failure before its effect"
            )
        if action.takes_ctx:
            args.insert(0, self._ctx(i, attempt, bound, "do"))
        output = None
        for _ in range(inject.repeat):
            output = await self._call(i, bound.fn, action.is_async, bound.spec.timeout, args, kwargs)
        if inject.fail == "after":
            raise Unknown(f"node {execution.machine.plan.names[i]!r}: injected failure after its effect")
        return output

    def failed(self, i: int, error: BaseException) -> None:
        """Record what it means that the action of node `i` raised; raises on what is no outcome."""
        execution = self.execution
        machine = execution.machine
        now = execution.setting.clock.now()
        if isinstance(error, asyncio.CancelledError):
            if not self._is_ours(i):
                raise error
            machine.doubt(i, "cancelled", now, error=error_info(error))
            return
        if isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit):
            raise error
        if isinstance(error, _Unreadable):
            self.unreadable(i, error.reason)
            return
        self._remember(i, error)
        info = error_info(error)
        if isinstance(error, NoEffect):
            machine.fail(i, info, now, kinds=kinds(error), clean=True)
        elif isinstance(error, Permanent):
            machine.fail(i, info, now, permanent=True)
        elif isinstance(error, TimedOut):
            machine.doubt(i, "timeout", now, error=info, kinds=kinds(error))
        elif isinstance(error, Exception) and not isinstance(error, Unknown):
            machine.fail(i, info, now, kinds=kinds(error))
        else:
            machine.doubt(i, "unknown", now, error=info, kinds=kinds(error))

    def cut_off(self, i: int, error: asyncio.CancelledError) -> None:
        """Record that somebody else cancelled the task of node `i`: nobody may wait for what never lands."""
        machine, now = self.execution.machine, self.execution.setting.clock.now()
        if machine.state[i] == s.RUNNING:
            machine.doubt(i, "cancelled", now, error=error_info(error))
        elif machine.state[i] == s.UNDOING:
            machine.undo_fail(i, error_info(error), now, kinds=kinds(error))

    def _is_ours(self, i: int) -> bool:
        """Whether a `CancelledError` is an outcome of node `i`; if not, the task itself is being cancelled."""
        if self.execution.take_back_cancel(i):
            return True
        task = asyncio.current_task()
        return task is None or not task.cancelling()

    def _remember(self, i: int, error: BaseException, direction: Direction = "do") -> None:
        self.execution.exceptions[self.execution.machine.plan.names[i], direction] = error

    # -- undo --------------------------------------------------------------

    async def undo(self, i: int, attempt: int) -> None:
        """Run the undo of node `i` and record its outcome."""
        execution = self.execution
        machine = execution.machine
        bound = execution.bindings.of(i, machine)
        try:
            await self._undo(i, attempt, bound)
        except BaseException as error:
            self.undo_failed(i, error)
        else:
            execution.machine.undo_succeed(i, execution.setting.clock.now())

    def undo_failed(self, i: int, error: BaseException) -> None:
        """Record what it means that the undo of node `i` raised; raises on what is no outcome."""
        execution = self.execution
        machine = execution.machine
        now = execution.setting.clock.now()
        if isinstance(error, asyncio.CancelledError):
            if not self._is_ours(i):
                raise error
        elif isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit):
            raise error
        elif isinstance(error, _Unreadable):
            self.unreadable_output(i, error.reason)
            return
        else:
            self._remember(i, error, "undo")
        machine.undo_fail(
            i, error_info(error), now, kinds=kinds(error), permanent=isinstance(error, Permanent)
        )

    def unreadable_output(self, i: int, error: CompensateError) -> None:
        """The output of node `i` cannot be given to its undo; again it would end the same."""
        self._remember(i, error, "undo")
        execution = self.execution
        execution.machine.undo_fail(i, error_info(error), execution.setting.clock.now(), permanent=True)

    async def _undo(self, i: int, attempt: int, bound: Bound) -> None:
        execution = self.execution
        action = bound.action
        inject = self._inject(i)
        if inject.fail_undo == -1 or attempt <= inject.fail_undo:
            raise InjectedError(f"node {execution.machine.plan.names[i]!r}: injected failure of its undo")
        if action.undo_fn is None:
            raise Permanent(
                f"action {action.name!r} has no undo any more, but the stored dag says that it has one"
            )
        data = execution.machine.output[i]
        try:
            output = None if data is None else action.output.decode(data)
        except CompensateError as error:
            raise _Unreadable(error) from error
        args = [self._ctx(i, attempt, bound, "undo"), output] if action.undo_takes_ctx else [output]
        for _ in range(inject.repeat_undo):
            await self._call(i, action.undo_fn, action.undo_is_async, bound.spec.undo_timeout, args, {})

    # -- both --------------------------------------------------------------

    def _inject(self, i: int) -> Inject:
        return self.execution.setting.inject.get(self.execution.machine.plan.names[i], _NOTHING)

    def _ctx(self, i: int, attempt: int, bound: Bound, direction: Any) -> Ctx[Any]:
        reader = self._readers[i] = Reader(self, i, bound)
        execution = self.execution
        name = execution.machine.plan.names[i]
        return Ctx(execution.setting.deps, execution.machine.saga_id, name, attempt, direction, reader)

    def expire(self, i: int) -> None:
        """Tell the user's function that its time is over; a thread can do no more than look."""
        reader = self._readers.get(i)
        if reader is not None:
            reader.timed_out = True

    async def _call(
        self,
        i: int,
        fn: Callable[..., Any],
        is_async: bool,
        seconds: float | None,
        args: list[Any],
        kwargs: dict[str, Any],
    ) -> Any:
        if not is_async:
            return await self._call_in_thread(i, partial(fn, *args, **kwargs), seconds)
        if seconds is None:
            return await fn(*args, **kwargs)
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                return await fn(*args, **kwargs)
        except TimeoutError as error:
            self.expire(i)
            if limit.expired():
                raise TimedOut(f"it did not end within its time limit of {seconds:g} s") from error
            raise

    async def _call_in_thread(self, i: int, call: Callable[[], Any], seconds: float | None) -> Any:
        context = contextvars.copy_context()
        loop = asyncio.get_running_loop()
        begun: list[float] = []

        def run() -> Any:
            begun.append(loop.time())
            try:
                return context.run(call)
            except StopIteration as error:  # no future can carry one; a coroutine makes the same of it
                raise RuntimeError("the function raised StopIteration") from error

        future = loop.run_in_executor(self.execution.setting.pool, run)
        left = seconds
        try:
            while not future.done() and (left is None or left > 0):
                await asyncio.wait({future}, timeout=left)
                if seconds is not None:  # waiting for a thread to be free does not count
                    left = begun[0] + seconds - loop.time() if begun else seconds
        except asyncio.CancelledError:
            if future.done():
                _hear(future)
            else:
                self._linger(i, future)
            raise
        if future.done():
            return future.result()
        self._linger(i, future)
        raise TimedOut(
            f"it did not end within its time limit of {seconds:g} s; its thread goes on until it ends"
        )

    def _linger(self, i: int, future: asyncio.Future[Any]) -> None:
        execution = self.execution
        self.expire(i)
        execution.machine.linger(i)
        execution.lingering += 1

        def ended(future: asyncio.Future[Any]) -> None:
            _hear(future)
            execution.lingering -= 1
            last = execution
            while last.heir is not None:
                last = last.heir
            last.machine.landed(i)
            last.wake()

        future.add_done_callback(ended)


def _hear(future: asyncio.Future[Any]) -> None:
    """Look at an outcome that came too late to count, so that the loop does not report it besides."""
    if not future.cancelled():
        future.exception()


class _Unreadable(Exception):
    """What is recorded cannot be given to the action or undo; nothing was called."""

    def __init__(self, reason: CompensateError) -> None:
        super().__init__(str(reason))
        self.reason = reason


_NOTHING = Inject()
