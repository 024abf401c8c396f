"""Who is dead for certain: a lock on a file for each owner, which the system drops when the process ends.

A lease tells only after a while that its owner is gone. A lock tells at once, `kill -9` included. It tells nothing
more: an owner whose lock is held may still have lost its lease, and where no lock can be had, leases decide alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Final
from weakref import WeakSet


def _locking() -> Callable[[int], None] | None:
    """What locks a file, or raises `BlockingIOError`; `None` where there is no such thing: leases decide alone."""
    try:
        from fcntl import LOCK_EX, LOCK_NB, flock
    except ImportError:
        return None
    return lambda descriptor: flock(descriptor, LOCK_EX | LOCK_NB)


_lock: Final = _locking()

_OURS: Final[WeakSet[Liveness]] = WeakSet()


class Liveness:
    """The locks of the owners of one store.

    Args:
        folder: Where their files lie; made when the first owner joins.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: dict[str, int] = {}
        self._kept: set[str] = set()
        """Owners whose locks are held beyond `close`."""
        _OURS.add(self)

    def hold(self, owner: str) -> bool:
        """Hold the lock of `owner` until `drop`, `close` or the end of the process.

        Returns:
            Whether it is ours; `False`: a living process holds it. `True` too where locks cannot be had.

        Raises:
            OSError: The folder cannot be made or written.
        """
        self._kept.discard(owner)
        if owner in self._held or _lock is None:
            return True
        self._folder.mkdir(mode=0o700, exist_ok=True)
        while True:
            descriptor = os.open(self._path(owner), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            locked = self._try(owner, descriptor)
            if locked:
                self._held[owner] = descriptor
                with suppress(OSError):  # for people who look into the folder; nothing reads it
                    os.truncate(descriptor, 0)
                    os.write(descriptor, f"{os.getpid()} {owner}\n".encode())
                return True
            os.close(descriptor)
            if locked is False:
                return False

    def keep(self, owner: str) -> bool:
        """Hold the lock of `owner` beyond `close`, until `retire`, `drop` or the end of the process.

        Returns:
            Whether there is a lock; `False`: nobody will see the process end.
        """
        if owner in self._held:
            self._kept.add(owner)
        return owner in self._held

    def retire(self, owner: str) -> None:
        """Let a kept lock go and leave its file: the next look finds that the process is gone. From any thread."""
        if owner in self._kept:
            self._kept.discard(owner)
            descriptor = self._held.pop(owner, None)
            if descriptor is not None:
                os.close(descriptor)

    def drop(self, owner: str) -> None:
        """Give the lock of `owner` up; nothing is left of it."""
        self._kept.discard(owner)
        descriptor = self._held.pop(owner, None)
        if descriptor is not None:
            self.bury({owner: descriptor})

    def seize(self, owners: Iterable[str]) -> dict[str, int]:
        """Those of `owners` whose process is gone. Their locks are ours until `bury` or `spare`."""
        dead: dict[str, int] = {}
        if _lock is None:
            return dead
        for owner in owners:
            if owner in self._held:
                continue
            try:
                descriptor = os.open(self._path(owner), os.O_RDWR | os.O_CLOEXEC)
            except OSError:
                continue  # it holds no lock that we could see: its lease decides
            if self._try(owner, descriptor):
                dead[owner] = descriptor
            else:
                os.close(descriptor)
        return dead

    def bury(self, dead: dict[str, int]) -> None:
        """Remove the files of the dead, after the store has forgotten them."""
        for owner, descriptor in dead.items():
            self._path(owner).unlink(missing_ok=True)
            os.close(descriptor)

    def spare(self, dead: dict[str, int]) -> None:
        """Let go of the locks of the dead and leave their files: the store has not forgotten them."""
        for descriptor in dead.values():
            os.close(descriptor)

    def sweep(self, known: Iterable[str]) -> None:
        """Remove files of owners that died before the store knew them."""
        if _lock is None or not self._folder.is_dir():
            return
        names = {self._path(owner).name for owner in known}
        for path in self._folder.glob("*.lock"):
            if path.name in names:
                continue
            with suppress(OSError):
                descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
                try:
                    _lock(descriptor)
                    path.unlink()
                finally:
                    os.close(descriptor)

    def close(self) -> None:
        """Let all locks go but the kept ones, and leave their files: who did not leave the store counts as dead."""
        for owner in [owner for owner in self._held if owner not in self._kept]:
            os.close(self._held.pop(owner))

    def forget(self) -> None:
        """In the child of a fork: it must not keep its parent's locks alive. Closing does not unlock them."""
        self._kept.clear()
        self.close()

    def _path(self, owner: str) -> Path:
        # A hash, as an owner may be named with characters that file names cannot hold.
        return self._folder / f"{sha256(owner.encode()).hexdigest()[:32]}.lock"

    def _try(self, owner: str, descriptor: int) -> bool | None:
        """Whether the lock is ours now; `None`: the file was removed meanwhile, so the lock is worth nothing."""
        assert _lock is not None
        try:
            _lock(descriptor)
            here, there = os.fstat(descriptor), self._path(owner).stat()
        except BlockingIOError:
            return False
        except FileNotFoundError:
            return None
        return True if (here.st_ino, here.st_dev) == (there.st_ino, there.st_dev) else None


def _forget() -> None:
    for liveness in _OURS:
        liveness.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
