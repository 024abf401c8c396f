"""Results: what an undo returned, seen through to its end.

An undo that returns has done its work, unless what it returned is work still to be done:

- What can be awaited is awaited, and what comes of that is looked at in turn.
- What Python alone would have to be asked for (a generator, a `map`, a function, an asynchronous context manager that
  nobody entered, a collection of awaitables) is refused: nothing says that anything of it has run.
- Anything else is a value, and the undo is done. So is what has a method to close it, such as a cursor, a file or the
  response of a client: it is what a call left behind, and the call has been made.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import inspect
from collections.abc import AsyncIterable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager
from contextvars import Context
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any, Final, cast

from compensate.runtime.calls.contexts import in_context

_DEEPEST: Final = 4
"""How deep collections are looked into."""
_MOST_ITEMS: Final = 10_000
"""How many items of collections are looked at."""

_FUNCTIONS: Final = (FunctionType, BuiltinFunctionType, MethodType, functools.partial)
_VALUES: Final[Any] = vars(dict)["values"]
_LAZY: Final[tuple[Any, ...]] = (Iterator, AsyncIterable)
_ENTERED: Final[Any] = AbstractAsyncContextManager
_PLAIN: Final = frozenset({type(None), bool, int, float, str, bytes})


async def see_through(result: Any, context: Context) -> None:
    """Await what an undo returned, such as the coroutine of a client's method that the undo did not await itself.

    Raises:
        TypeError: It is, or holds, something of which nothing has run.
    """
    while result is not None:
        if isinstance(result, concurrent.futures.Future):
            result = asyncio.wrap_future(cast("concurrent.futures.Future[object]", result))
        if not inspect.isawaitable(result):
            _refuse_what_has_not_run(result)
            return
        result = await in_context(result, context)


def _refuse_what_has_not_run(result: Any) -> None:
    kind = _class_of(result)
    if kind in _PLAIN or any(base.__name__ == "NonCallableMock" for base in kind.__mro__):
        return
    named = f"the undo returned {_described(kind)}"
    if issubclass(kind, list | tuple | set | frozenset | dict):
        pending = _pending(result)
        if not pending:
            return
        held = _described(_class_of(pending[0]))
        for one in pending:
            if inspect.iscoroutine(one) and inspect.getcoroutinestate(one) == inspect.CORO_CREATED:
                one.close()  # else Python warns, somewhere else, that nobody has awaited it
        raise TypeError(
            f"{named} that holds {held}, which nobody has awaited; "
            "await each in the undo, as with `await asyncio.gather(*...)`, or return None"
        )
    if issubclass(kind, _FUNCTIONS):
        raise TypeError(f"{named}, of which nothing has run; call it in the undo, or return None")
    if (
        inspect.isgenerator(result)
        or inspect.isasyncgen(result)
        or not (hasattr(kind, "close") or hasattr(kind, "aclose"))
    ):
        if issubclass(kind, _LAZY):
            raise TypeError(f"{named}, of which nothing has run; iterate over it in the undo, or return None")
        if issubclass(kind, _ENTERED):
            raise TypeError(
                f"{named}, of which nothing has run; enter it in the undo with `async with`, or return None"
            )


def _pending(collection: Any) -> list[Any]:
    """What nobody has awaited in a collection, or in those inside it."""
    found: list[Any] = []
    looked_at = 0
    level = [collection]
    for _ in range(_DEEPEST):
        below: list[Any] = []
        for one in level:
            items: Iterable[Any] = _VALUES(one) if isinstance(one, dict) else one
            for item in items:
                looked_at += 1
                if looked_at > _MOST_ITEMS:
                    return found
                if type(item) in _PLAIN:
                    continue
                if isinstance(item, list | tuple | set | frozenset | dict):
                    below.append(item)
                elif _is_pending(item):
                    found.append(item)
        level = below
    return found


def _is_pending(item: Any) -> bool:
    if isinstance(item, asyncio.Future | concurrent.futures.Future):
        future = cast("asyncio.Future[object]", item)
        return not future.done() or future.cancelled() or future.exception() is not None
    return inspect.isawaitable(item)


def _described(kind: type) -> str:
    name = kind.__name__.lstrip("_")
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def _class_of(value: object) -> type[Any]:
    return type(value)
