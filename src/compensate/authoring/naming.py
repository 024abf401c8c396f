"""Pickling and copying by reference: an action or saga is its name in its module, as a function is."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any


def found_at(module: str, qualname: str) -> Any:
    """What stands under a name in a module that has been imported; `None` if there is nothing."""
    found: Any = sys.modules.get(module)
    for part in qualname.split("."):
        found = getattr(found, part, None)
    return found


def refuse_pickling(what: str, module: str, qualname: str) -> Exception:
    """The error for an action or saga that no other process would find.

    Returns:
        A `pickle.PicklingError`, to be raised.
    """
    from pickle import PicklingError  # noqa: TID251 - only its error, which whoever pickles expects

    return PicklingError(
        f"{what} cannot be pickled: it is pickled as its name, and {module}.{qualname} is not this object; define it "
        "at the top of a module, under its function's own name"
    )


class ByName:
    """The bare function of an action, which learns how it is found when it is first asked for.

    `@action` takes the function's place in its module, so the function is found as `module.work.fn`, and pickle looks
    it up by its `__qualname__`. It is changed only if the action does stand in that place: a function that was handed
    to `action(...)` and kept its own name is left as it is.
    """

    def __get__(self, action: Any, owner: Any = None) -> Callable[..., Any]:
        if action is None:
            return self  # type: ignore[return-value] # pyright: ignore[reportReturnType]
        fn: Callable[..., Any] = action.bare_fn
        qualname: str = action.__qualname__
        if fn.__qualname__ == qualname and found_at(fn.__module__, qualname) is action:
            fn.__qualname__ = f"{qualname}.fn"
        return fn
