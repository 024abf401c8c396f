"""A process that owns sagas in an SQLite file and works on them until it is killed.

Arguments: the store's url, the owner's name. Prints `ready` once it owns `s0` … `s9`, then the seq of each append
to `s0` that was acknowledged.
"""

import asyncio
import sys

from compensate.core.standing import PLAIN
from compensate.stores import open_store
from compensate.testing.conformance.tools import NOW, done, new, steps


async def main(url: str, owner: str) -> None:
    store = open_store(url)
    await store.open()
    await store.join(owner, NOW, 1e6)
    for number in range(10):
        await done(store.create(new(f"s{number}"), owner))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    seq = 1
    while True:
        await done(store.append("s0", 1, seq, steps(seq + 1), PLAIN["running"]))
        seq += 2
        sys.stdout.write(f"{seq}\n")
        sys.stdout.flush()
        await asyncio.sleep(0)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
