"""Each call in its own copy of the context variables, without a task of its own.

A task would copy the context too, and costs more than everything else that is done for an action. So several calls
share a task, one after the other. A call whose predecessors left the context as it was runs in the task's own context,
which is equal to a copy. Once a call has changed it, those behind it are stepped inside real copies.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextvars import Context, copy_context
from inspect import iscoroutine
from types import coroutine
from typing import Any, TypeVar, cast

T = TypeVar("T")


def call_in_copy(base: Context, fn: Callable[..., Awaitable[T]], args: Any, kwargs: Any) -> Awaitable[T]:
    """Call a coroutine function so that it sees the context variables of `base`, and changes them for itself alone.

    Args:
        base: The context of the task, as it was before the first call in it.
        fn: Makes the awaitable.
        args: Its positional arguments.
        kwargs: Its arguments by name.
    """
    if unchanged(base):
        return fn(*args, **kwargs)
    context = base.copy()
    return in_context(context.run(fn, *args, **kwargs), context)


def unchanged(base: Context) -> bool:
    """Whether the context variables are as in `base`.

    Contexts that nobody has changed share their table, so the comparison ends at once. Otherwise the values of
    variables are compared, which are the user's and may refuse.
    """
    try:
        return base == copy_context()
    except Exception:
        return False


@coroutine
def in_context(awaitable: Awaitable[T], context: Context) -> Generator[Any, Any, T]:
    """Await something, each step of it inside a context; what it waits for is passed up to the event loop unchanged.

    Args:
        awaitable: Usually the coroutine of an action or undo.
        context: Entered for each step; nobody else may enter it meanwhile.
    """
    steps: Coroutine[Any, Any, T]
    steps = cast("Coroutine[Any, Any, T]", awaitable) if iscoroutine(awaitable) else _as_coroutine(awaitable)
    step: Callable[[Any], Any] = steps.send
    given: Any = None
    while True:
        try:
            awaited = context.run(step, given)
        except StopIteration as stop:
            value: T = stop.value
            return value
        try:
            given = yield awaited
            step = steps.send
        except GeneratorExit:  # this generator is being closed: nothing may be awaited any more
            context.run(steps.close)
            raise
        except BaseException as error:
            step, given = steps.throw, error


async def _as_coroutine(awaitable: Awaitable[T]) -> T:
    return await awaitable
