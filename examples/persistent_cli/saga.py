"""The saga of the example: a small site, whose parts are files in a folder that stands for a cloud."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path

from compensate import Ctx, Permanent, action, saga

ZONES = ("north", "south")


def saga_of(key: str) -> str:
    """The id of the saga that a key belongs to; ids hold no slash."""
    return key.partition("/")[0]


@dataclass
class Cloud:
    """A folder with a file for each thing that is there. Made and removed twice is the same as once.

    Attributes:
        folder: Where.
        pause: Seconds that making or removing something takes.
    """

    folder: Path
    pause: float = 0.0

    async def make(self, key: str, kind: str, **details: str) -> str:
        """Make a thing under an idempotency key; if it is there already, that is the one. Returns its name."""
        name = f"{kind}-{saga_of(key)}"
        await asyncio.sleep(self.pause)
        self._write(name, {"kind": kind, "key": key, **details})
        return name

    def _write(self, name: str, thing: dict[str, str]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        new = self.folder / f".{name}.new"
        new.write_text(json.dumps(thing, indent=2) + "\n", encoding="utf-8")
        new.replace(self.folder / f"{name}.json")

    async def remove(self, key: str, kind: str) -> None:
        """Remove what was made under a key; nothing there is as good."""
        await asyncio.sleep(self.pause)
        self._unlink(f"{kind}-{saga_of(key)}")

    def _unlink(self, name: str) -> None:
        (self.folder / f"{name}.json").unlink(missing_ok=True)


@action
async def create_network(ctx: Ctx[Cloud]) -> str:
    return await ctx.deps.make(ctx.key, "network")


@create_network.undo(unknown=True)
async def delete_network(ctx: Ctx[Cloud], _network: str | None) -> None:
    await ctx.deps.remove(ctx.do_key, "network")


@action
async def create_disk(ctx: Ctx[Cloud], network: str) -> str:
    return await ctx.deps.make(ctx.key, "disk", network=network)


@create_disk.undo(unknown=True)
async def delete_disk(ctx: Ctx[Cloud], _disk: str | None) -> None:
    await ctx.deps.remove(ctx.do_key, "disk")


@action
async def create_firewall(ctx: Ctx[Cloud], network: str) -> str:
    return await ctx.deps.make(ctx.key, "firewall", network=network)


@create_firewall.undo(unknown=True)
async def delete_firewall(ctx: Ctx[Cloud], _firewall: str | None) -> None:
    await ctx.deps.remove(ctx.do_key, "firewall")


@action
async def create_machine(ctx: Ctx[Cloud], disk: str, firewall: str, zone: str) -> str:
    if zone not in ZONES:
        raise Permanent(f"there is no zone {zone!r}; there are {', '.join(ZONES)}")
    return await ctx.deps.make(ctx.key, "machine", disk=disk, firewall=firewall, zone=zone)


@create_machine.undo(unknown=True)
async def delete_machine(ctx: Ctx[Cloud], _machine: str | None) -> None:
    await ctx.deps.remove(ctx.do_key, "machine")


@saga
def site(zone: str) -> str:
    network = create_network()
    return create_machine(create_disk(network), create_firewall(network), zone)
