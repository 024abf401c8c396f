"""A saga for the command line's tests, with files as its world: what happens stands in `effects`, gates are files."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from compensate import Ctx, NoEffect, Permanent, Retry, action, saga


def record(what: str) -> None:
    with Path("effects").open("a") as file:
        file.write(what + "\n")


async def gate(name: str) -> None:
    """Wait while `hold.<name>` is there."""
    while Path(f"hold.{name}").exists():  # noqa: ASYNC110, ASYNC240 - other processes open it
        await asyncio.sleep(0.01)


def broken(name: str) -> bool:
    return Path(f"break.{name}").exists()


@action
async def reserve(ctx: Ctx[object], item: str) -> str:
    record(f"do {ctx.key}")
    await gate("reserve")
    return f"hold-{item}"


@reserve.undo
async def release(ctx: Ctx[object], hold: str) -> None:
    record(f"undo {ctx.do_key}")
    await gate("release")
    if broken("release"):
        raise Permanent("the warehouse is closed")


@action(retry=Retry(3, first=0.05))
async def charge(ctx: Ctx[object], hold: str, cents: int) -> int:
    record(f"do {ctx.key}")
    await gate("charge")
    if cents < 0 or broken("charge"):
        raise ValueError("the card was declined")
    return cents


@charge.undo
async def refund(ctx: Ctx[object], cents: int) -> None:
    record(f"undo {ctx.do_key}")


@action
def ship(hold: str, cents: int, fail: bool) -> str:
    record("do ship")
    while Path("hold.ship").exists():
        time.sleep(0.01)
    if fail:
        raise NoEffect("no lorry today")
    return f"{hold} for {cents}"


@saga
def order(item: str, cents: int = 100, fail: bool = False) -> str:
    hold = reserve(item)
    paid = charge(hold, cents)
    return ship(hold, paid, fail)


@saga
def reserving(item: str) -> str:
    return reserve(item)
