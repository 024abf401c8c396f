"""A program that starts with a store and actions found by name alone: no saga definition is imported, none is known.

`python restorer.py URL SAGA_ID forward|back`: goes on with the saga, and prints its output or how it ended.
"""

from __future__ import annotations

import asyncio
import sys

from compensate import ActionRegistry, Ctx, RolledBack, SagaExecutor, action, open_store


def say(line: object) -> None:
    """Print it at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


@action
async def reserve(item: str) -> str:
    say(f"do reserve {item}")
    return f"hold on {item}"


@reserve.undo
async def release(hold: str) -> None:
    say(f"undo {hold}")


@action
async def ship(ctx: Ctx[object], hold: str) -> str:
    say(f"do ship {ctx.lookup('reserve', str)}")
    return f"shipped {hold}"


@ship.undo
async def call_back(shipped: str) -> None:
    say(f"undo {shipped}")


def registry() -> ActionRegistry:
    """The actions, by name."""
    made = ActionRegistry()
    made.register(reserve)
    made.register(ship)
    return made


async def main(url: str, saga_id: str, way: str) -> None:
    store = open_store(url)
    await store.open()
    executor = await SagaExecutor.from_stored(store, saga_id, registry())
    if way == "back":
        await executor.rollback("because")
    try:
        say(await executor.execute())
    except RolledBack as error:
        say(error)
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
