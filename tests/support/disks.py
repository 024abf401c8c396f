"""Disks for the file store that count, fail, or lose power."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from compensate.stores.disk import Disk


class Hasty(Disk):
    """Waits for no disk: for tests about what stands in files, not about what survives."""

    def sync(self, descriptor: int) -> None: ...

    def sync_folder(self, folder: Path) -> None: ...


class Counting(Hasty):
    """Writes down each call, in order. Whether a sync reaches a real disk is no matter for that."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def call(self, what: str) -> None:
        self.calls.append(what)

    def take(self) -> list[str]:
        """The calls since it was last asked."""
        calls, self.calls = self.calls, []
        return calls

    def write(self, descriptor: int, data: bytes, offset: int) -> None:
        self.call("write")
        super().write(descriptor, data, offset)

    def sync(self, descriptor: int) -> None:
        self.call("sync")
        super().sync(descriptor)

    def sync_folder(self, folder: Path) -> None:
        self.call("sync_folder")
        super().sync_folder(folder)

    def truncate(self, descriptor: int, length: int) -> None:
        self.call("truncate")
        super().truncate(descriptor, length)

    def rename(self, old: Path, new: Path) -> None:
        self.call("rename")
        super().rename(old, new)

    def unlink(self, path: Path) -> None:
        self.call("unlink")
        super().unlink(path)


class Failing(Counting):
    """Fails the calls whose numbers (from 1) are in `when`, with `error`; a write has half its bytes by then."""

    def __init__(self, when: set[int], error: int) -> None:
        super().__init__()
        self.when = when
        self.error = error
        self.failed: list[str] = []
        self.count = 0

    def call(self, what: str) -> None:
        super().call(what)
        self.count += 1
        if self.count in self.when:
            self.failed.append(what)
            raise OSError(self.error, os.strerror(self.error))

    def write(self, descriptor: int, data: bytes, offset: int) -> None:
        try:
            self.call("write")
        except OSError:
            Disk.write(self, descriptor, data[: len(data) // 2], offset)
            raise
        Disk.write(self, descriptor, data, offset)


class PowerCut(BaseException):
    """The machine stops."""


class Volatile(Counting):
    """Stops at call number `at`. What was not synced is then lost or, of the last write, kept as far as `keep` says.

    Args:
        at: Number of the call at which the power goes, from 1; it happens before the call does anything.
        keep: How many bytes of the last unsynced write are there afterwards, given how many there were.
    """

    def __init__(self, at: int, keep: Callable[[int], int]) -> None:
        super().__init__()
        self.at = at
        self.keep = keep
        self.cut = False
        self._count = 0
        self._unsynced: dict[int, tuple[int, int]] = {}
        """By inode: how far the file is safe, and how much was written behind."""
        self._names: list[Callable[[], None]] = []
        """What takes renames and removals back that no sync of the folder has made safe."""
        self._paths: dict[int, int] = {}

    def call(self, what: str) -> None:
        if self.cut:
            raise PowerCut  # nothing happens any more
        super().call(what)
        self._count += 1
        if self._count == self.at:
            self.cut = True
            self._lose()
            raise PowerCut

    def _lose(self) -> None:
        for inode, (safe, more) in self._unsynced.items():
            os.ftruncate(self._paths[inode], safe + self.keep(more))
        for take_back in reversed(self._names):
            take_back()

    def write(self, descriptor: int, data: bytes, offset: int) -> None:
        super().write(descriptor, data, offset)
        inode = os.fstat(descriptor).st_ino
        self._paths[inode] = os.dup(descriptor)
        self._unsynced[inode] = (offset, len(data))

    def sync(self, descriptor: int) -> None:
        super().sync(descriptor)
        inode = os.fstat(descriptor).st_ino
        self._unsynced.pop(inode, None)
        if inode in self._paths:
            os.close(self._paths.pop(inode))

    def sync_folder(self, folder: Path) -> None:
        super().sync_folder(folder)
        self._names.clear()

    def rename(self, old: Path, new: Path) -> None:
        before = new.read_bytes() if new.exists() else None
        super().rename(old, new)
        self._names.append(lambda: _restore(new, before))

    def unlink(self, path: Path) -> None:
        before = path.read_bytes() if path.exists() else None
        super().unlink(path)
        self._names.append(lambda: _restore(path, before))


def _restore(path: Path, data: bytes | None) -> None:
    if data is None:
        path.unlink(missing_ok=True)
    else:
        path.write_bytes(data)
