"""Forks: in the child of a fork, what its parent has open writes nothing.

The child has a copy of all that is going on, with the same names in the store: it would go on with the parent's sagas.
"""

from __future__ import annotations

import os
from typing import Any, Final, NoReturn, Protocol
from weakref import WeakSet

from compensate.errors import IllegalRequest


class Forked(Protocol):
    """What may be open while the process forks."""

    def forked(self) -> None:
        """In the child: lay the store aside, if it is open."""
        ...


class ForeignStore:
    """In place of the parent's store.

    Args:
        what: Whose it was.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._pid = os.getppid()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return self.refuse

    def refuse(self, *_: object, **__: object) -> NoReturn:
        """Raise `IllegalRequest`, whatever is asked."""
        raise IllegalRequest(
            f"{self._what} was opened in process {self._pid}, from which this one was forked: its sagas go on there; "
            "nothing was done; open another one here"
        )

    async def close(self) -> None:
        """Its files and locks are the parent's."""


def check(store: object) -> None:
    """Raise `IllegalRequest` if the store is a process's from which this one was forked."""
    if isinstance(store, ForeignStore):
        store.refuse()


OPEN: Final[WeakSet[Forked]] = WeakSet()
"""Those to be told."""


def _tell() -> None:
    for one in list(OPEN):
        one.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_tell)
