"""A process that does one thing after the other with a store, and says on stderr when each has returned.

Run as: `python -m tests.support.synced URL`; see `tests/acceptance/test_file_disks.py`.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable

from compensate.core.standing import Standing
from compensate.stores import open_store
from compensate.stores.base import Answer
from compensate.testing.conformance.tools import LEASE, NOW, done, end, new, steps


async def main(url: str) -> None:
    store = open_store(url)
    doing: dict[str, Callable[[], Awaitable[object]]] = {
        "open": store.open,
        "join": lambda: store.join("me", NOW, LEASE),
        "create": lambda: done(store.create(new("a"), "me")),
        "create another": lambda: done(store.create(new("b"), "me")),
        "append": lambda: done(store.append("b", 1, 1, steps(2), Standing("running"))),
        "renew": lambda: store.renew("me", NOW, LEASE),
        "post": lambda: store.post("a", "pause", b"{}", NOW),
        "answer": lambda: store.answer(1, Answer()),
        "end": lambda: end(store, "a", "completed"),
        "leave": lambda: store.leave("me"),
        "close": store.close,
        "open again": store.open,
        "delete": lambda: store.delete("a"),
        "close again": store.close,
    }
    for name, do in doing.items():
        os.write(2, f"begin {name}\n".encode())
        await do()
        os.write(2, f"end {name}\n".encode())


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
