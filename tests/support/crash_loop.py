"""A worker process for `test_crash_loops`: one action (or undo) of one saga kills the process that runs it.

Arguments: `start` or `work`, the store's url, the direction that kills (`do`, `undo` or `none`), the seconds that each
action takes, the seconds for which the process drains, and how many healthy sagas `start` starts.

`start` stores the sagas and lets them go; no action ends meanwhile. `work` prints `up` once it serves. It ends when no
saga is left that it could run, or after SIGTERM.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from typing import NamedTuple

from compensate import Coordinator, Permanent, Stopped, action, saga

KILLED = 137


class Order(NamedTuple):
    what: str
    url: str
    kills: str
    seconds: float
    drain: float
    healthy: int


order = Order("work", "memory://", "none", 0.0, 0.0, 0)


def _die_if_guilty(direction: str) -> None:
    if order.kills == direction:
        os._exit(KILLED)


@action
async def work(x: int) -> int:
    await asyncio.sleep(order.seconds)
    return x


@action
async def parse(x: int) -> int:
    await asyncio.sleep(order.seconds / 3)
    _die_if_guilty("do")
    return x


@parse.undo
async def unparse(x: int) -> None:
    await asyncio.sleep(order.seconds / 3)
    _die_if_guilty("undo")


@action
async def refuse(x: int) -> int:
    raise Permanent("no")


@saga
def healthy(x: int) -> int:
    return work(work(x))


@saga
def guilty(x: int) -> int:
    return refuse(parse(x))


async def main() -> None:
    c = Coordinator(order.url, sagas=[healthy, guilty], poll=0.1, drain=order.drain, stop_on=[signal.SIGTERM])
    async with c:
        if order.what == "start":
            for x in range(order.healthy):
                if x == order.healthy // 2 and order.kills != "none":
                    await c.start(guilty.with_id("guilty"), x)
                await c.start(healthy.with_id(f"healthy-{x}"), x)
            return
        sys.stdout.write("up\n")
        sys.stdout.flush()
        serving = asyncio.ensure_future(c.serve())
        while await _some_left(c) and not serving.done():
            await asyncio.wait({serving}, timeout=0.1)


async def _some_left(c: Coordinator) -> bool:
    try:
        pages = [await c.list(status="running", limit=1), await c.list(status="rolling_back", limit=1)]
    except Stopped:
        return False  # it was closed
    return any(page.records for page in pages)


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    what, url, kills, seconds, drain, count = sys.argv[1:]
    order = Order(what, url, kills, float(seconds), float(drain), int(count))
    asyncio.run(main())
