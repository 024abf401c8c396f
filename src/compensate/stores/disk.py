"""The few things that the file store asks of the system, in one place, so that tests can count them or let them fail.

A write counts once `sync` has returned. A name counts once its folder was synced.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from errno import EACCES, EPERM, EROFS
from importlib.util import find_spec
from pathlib import Path
from typing import Final
from weakref import WeakSet

from compensate.errors import Unavailable

TEMPORARY: Final = ".new-"
"""Begins the names of files that are not whole yet."""


class ReadOnly(Unavailable):
    """This process may not write the store. It may be able to read it: see `compensate.stores.reading`."""


def not_ours(url: str, place: Path, what: str = "write") -> ReadOnly:
    """The error for a file or folder that this process may not write (or read); says why, and what to do."""
    try:
        owner: object = place.stat().st_uid
        fixed = what == "write" and bool(os.statvfs(place).f_flag & os.ST_RDONLY)
    except OSError:
        owner, fixed = "unknown", False
    why = (
        f"{place} is on a file system that is mounted read-only"
        if fixed
        else f"user {os.geteuid()} may not {what} {place}, whose owner is user {owner}"
    )
    then = (
        "only looking works here (ls, show, events, graph, check); to run or change sagas, run as a user who may "
        "write the store, or give this one the permission"
        if what == "write"
        else "run as a user who may, or give this one the permission"
    )
    return ReadOnly(
        f"{url}: it is {'read-only' if what == 'write' else 'unreadable'} here: {why}; nothing was changed; {then}"
    )


def denied(error: OSError) -> bool:
    """Whether an error of the system says that a file may not be written."""
    return error.errno in (EACCES, EPERM, EROFS)


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


class Sealed(Disk):
    """Files that are only read: what would change one raises, before anything is touched."""

    def write(self, descriptor: int, data: bytes, offset: int) -> None:
        """Raise `PermissionError`."""
        raise self._refusal()

    def truncate(self, descriptor: int, length: int) -> None:
        """Raise `PermissionError`."""
        raise self._refusal()

    def rename(self, old: Path, new: Path) -> None:
        """Raise `PermissionError`."""
        raise self._refusal()

    def unlink(self, path: Path) -> None:
        """Raise `PermissionError`."""
        raise self._refusal()

    def put(self, path: Path, data: bytes) -> None:
        """Raise `PermissionError`."""
        raise self._refusal()

    @staticmethod
    def _refusal() -> PermissionError:
        return PermissionError(EACCES, "this process may not write all of it")


class FolderLock:
    """A lock between all users of a folder, held for moments only. It goes with the process that holds it.

    Args:
        path: Of its file, which stays.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None
        self._free = False
        _LOCKS.add(self)

    def open(self, *, looking: bool = False) -> None:
        """Make ready.

        Args:
            looking: The file is not made nor written. Where it is not there, or cannot be read, nothing is locked:
                logs are read as far as they are whole.

        Raises:
            OSError: The file cannot be made, or locks cannot be had there.
        """
        if looking:
            self._free = True
            with suppress(OSError):
                self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
                self._free = False
            return
        if find_spec("fcntl") is None:
            raise OSError("this system has no file locks that go with their process (flock)")
        if self._descriptor is None:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def take(self) -> bool:
        """Take it if nobody has it. Raises `OSError`."""
        from fcntl import LOCK_EX, LOCK_NB, flock

        if self._free:
            return True
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
        self._free = False
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
