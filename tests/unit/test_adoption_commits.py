"""Going on with many sagas after a restart costs a few commits, not one each."""

from __future__ import annotations

import asyncio
from pathlib import Path

from compensate import Coordinator, action, saga
from compensate.stores.sqlite import SqliteStore

MANY = 100

called: list[int] = []
going = asyncio.Queue[None]()


@action
async def wait_for_ever(x: int) -> int:
    called.append(x)
    if len(called) == MANY:
        going.put_nowait(None)
    await asyncio.Event().wait()
    return x


@saga
def waiting(x: int) -> int:
    return wait_for_ever(x)


async def test_the_first_writes_of_adopted_sagas_share_commits(tmp_path: Path) -> None:
    called.clear()
    path = tmp_path / "sagas.db"
    first: Coordinator = Coordinator(SqliteStore(path), sagas=[waiting], drain=0)
    async with first:
        await asyncio.gather(*(first.start(waiting, x) for x in range(MANY)))
        await going.get()
    assert sorted(called) == list(range(MANY))
    called.clear()

    store = SqliteStore(path)
    second: Coordinator = Coordinator(store, sagas=[waiting], drain=0)
    async with second:
        # To join and to claim: two; then what the sagas write first: one in place, and the rest together.
        await going.get()
        assert sorted(called) == list(range(MANY))
        assert store.commits <= 5
