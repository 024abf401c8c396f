"""The few things that the file store asks of the system, in one place, so that tests can count them or let them fail.

A write counts once `sync` has returned. A name counts once its folder was synced.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Final
from weakref import WeakSet

TEMPORARY: Final = ".new-"
"""Begins the names of files that are not whole yet."""


class Disk:
    """Files as the system has them. Every method may raise `OSError`."""

    def write(self, descriptor: int, data: bytes, offset: int) -> None:
        """Write all of `data`."""
        rest = memoryview(data)
        while rest:
            written = os.pwrite(descriptor, rest, offset)
            rest = rest[written:]
            offset += written

    def sync(self, descriptor: int) -> None:
        """Wait until what was written has reached the disk."""
        if sys.platform == "darwin":
            import fcntl

            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)  # a plain fsync stops at the drive's cache there
        elif hasattr(os, "fdatasync"):
            os.fdatasync(descriptor)
        else:
            os.fsync(descriptor)

    def sync_folder(self, folder: Path) -> None:
        """Wait until the names in a folder have reached the disk."""
        descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def truncate(self, descriptor: int, length: int) -> None:
        """Cut a file."""
        os.ftruncate(descriptor, length)

    def rename(self, old: Path, new: Path) -> None:
        """Give a file another name, in place of what has it."""
        os.replace(old, new)  # noqa: PTH105 - all calls of this class are those of `os`

    def unlink(self, path: Path) -> None:
        """Remove a file if it is there."""
        with suppress(FileNotFoundError):
            os.unlink(path)  # noqa: PTH108

    def put(self, path: Path, data: bytes) -> None:
        """Make `data` the content of a file: all or nothing, durable on return, for its owner's eyes alone."""
        # Not named like the file itself: whoever reads every `*.json` of the folder must not meet half of one.
        temporary = path.with_name(f"{TEMPORARY}{path.name}.part")
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            try:
                self.write(descriptor, data, 0)
                self.sync(descriptor)
            finally:
                os.close(descriptor)
            self.rename(temporary, path)
        except OSError:
            with suppress(OSError):
                self.unlink(temporary)
            raise
        self.sync_folder(path.parent)


class FolderLock:
    """A lock between all users of a folder, held for moments only. It goes with the process that holds it.

    Args:
        path: Of its file, which stays.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None
        _LOCKS.add(self)

    def open(self) -> None:
        """Make ready.

        Raises:
            OSError: The file cannot be made, or locks cannot be had there.
        """
        if find_spec("fcntl") is None:
            raise OSError("this system has no file locks that go with their process (flock)")
        if self._descriptor is None:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def take(self) -> bool:
        """Take it if nobody has it. Raises `OSError`."""
        from fcntl import LOCK_EX, LOCK_NB, flock

        if self._descriptor is None:
            raise OSError("it was opened in another process, from which this one was forked")
        try:
            flock(self._descriptor, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def drop(self) -> None:
        """Give it up."""
        from fcntl import LOCK_UN, flock

        if self._descriptor is not None:
            flock(self._descriptor, LOCK_UN)

    def close(self) -> None:
        """Close its file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


_LOCKS: Final[WeakSet[FolderLock]] = WeakSet()


def _forget() -> None:
    """In the child of a fork: it must not keep its parent's locks alive. Closing does not unlock them."""
    for lock in _LOCKS:
        lock.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
