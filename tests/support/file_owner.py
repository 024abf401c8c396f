"""A process that owns the saga `s` of a file store, appends to it, and stops itself in the middle of an append.

Arguments: the store's url, and where to stop: `before` the lock is taken, after the `write`, or after the `sync`.
Prints `owns`, then stops (SIGSTOP); when it is continued, prints what became of that append and of the next one.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from compensate.core.standing import PLAIN
from compensate.errors import StoreError
from compensate.stores.disk import Disk
from compensate.stores.file import FileStore
from compensate.testing.conformance.tools import NOW, done, new, steps


class Stopping(Disk):
    where = ""

    def stop(self, where: str) -> None:
        if self.where == where:
            self.where = ""
            os.kill(os.getpid(), signal.SIGSTOP)

    def write(self, descriptor: int, data: bytes, offset: int) -> None:
        super().write(descriptor, data, offset)
        self.stop("write")

    def sync(self, descriptor: int) -> None:
        super().sync(descriptor)
        self.stop("sync")


def say(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


async def main(folder: str, where: str) -> None:
    disk = Stopping()
    store = FileStore(folder, disk=disk)
    await store.open()
    await store.join("owner", NOW, 30.0)
    await done(store.create(new("s"), "owner"))
    say("owns")
    disk.where = where
    disk.stop("before")
    seq = 1
    for _ in range(2):
        try:
            await done(store.append("s", 1, seq, steps(seq + 1), PLAIN["running"]))
            say("appended")
            seq += 2
        except StoreError as error:
            say(type(error).__name__)
        await asyncio.sleep(0.05)  # whoever waits for the lock comes in between


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
