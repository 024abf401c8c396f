"""Worlds for tests: a participant in memory, and the tombstones that real participants need too.

A *participant* is the other side of an action: the service or table in which effects happen. Actions and undos reach
it at least once, and in bad times out of order: an action that timed out may take effect after its undo has run. Keys
make repeats harmless; tombstones do the same for what comes too late. The idea is from Pat Helland's *Life beyond
Distributed Transactions* (2007) and from the "empty compensation" of the TCC literature.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import MutableMapping
from typing import Any, Final

from compensate.errors import NoEffect
from compensate.testing.differences import Change, difference

DONE: Final = "done"
UNDONE: Final = "undone"


class Tombstones:
    """Remembers under which keys a participant has acted, and under which it was told to undo.

    An undo whose action never came leaves a tombstone; when the action comes after all, it has no effect. Works over
    any mapping from `str` to `str`: a `dict`, a `shelve`, a table with a mapping's face. It is right only if the
    mapping is changed in the same transaction (or under the same lock) as the effect itself; `docs/testing.md` shows
    that in SQL.

    Args:
        records: Where it is kept; a new `dict` by default.
    """

    def __init__(self, records: MutableMapping[str, str] | None = None) -> None:
        self.records: MutableMapping[str, str] = {} if records is None else records

    def begin(self, key: str) -> bool:
        """Call it before the effect of an action, with `ctx.key`.

        Returns:
            Whether the effect is to happen; `False`: it has happened under this key already.

        Raises:
            NoEffect: It was undone before it came. Let it pass on out of the action.
        """
        state = self.records.get(key)
        if state == UNDONE:
            raise NoEffect(f"{key}: it was undone before it came, so it is not carried out")
        self.records[key] = DONE
        return state is None

    def bury(self, key: str) -> bool:
        """Call it in the undo, with `ctx.do_key`, whether or not anything is known of the action.

        Returns:
            Whether there is an effect to take back; `False`: none came, or it was taken back already.
        """
        state = self.records.get(key)
        self.records[key] = UNDONE
        return state == DONE


class FakeWorld:
    """A participant in memory: effects under keys.

    It does what a good participant does: a second `apply` under the same key changes nothing and gives the first value
    back; `undo` of what is not there changes nothing; and an `apply` that comes after its `undo` has no effect. Any
    thread may use it.

    Args:
        tombstones: Whether it keeps them. `False`: a late action takes effect, as with most services.
    """

    def __init__(self, *, tombstones: bool = True) -> None:
        self.tombstones = tombstones
        self._effects: dict[str, Any] = {}
        self._graves = Tombstones()
        self._lock = threading.Lock()

    def apply(self, key: str, value: Any = True) -> Any:
        """Take effect under a key (`ctx.key`), unless that has happened.

        Returns:
            The value that stands under the key.

        Raises:
            NoEffect: It was undone before it came.
        """
        with self._lock:
            if self._graves.begin(key) or key not in self._effects:
                self._effects[key] = value
            return self._effects[key]

    def undo(self, key: str) -> bool:
        """Take the effect under a key (`ctx.do_key`) back; whether there was one."""
        with self._lock:
            if self.tombstones:
                self._graves.bury(key)
            else:
                self._graves.records.pop(key, None)
            return self._effects.pop(key, MISSING) is not MISSING

    def snapshot(self) -> dict[str, Any]:
        """The effects that stand, by key. Tombstones are no effects."""
        with self._lock:
            return copy.deepcopy(self._effects)

    def diff(self, before: dict[str, Any]) -> list[Change]:
        """How the world differs from an earlier snapshot."""
        return difference(before, self.snapshot())

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._effects.clear()
            self._graves.records.clear()

    def __repr__(self) -> str:
        return f"FakeWorld({self._effects!r})"


MISSING: Final = object()
