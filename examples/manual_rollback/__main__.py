"""A stack of three parts is made, used for a moment, and taken down by hand. Says more: the README beside this file."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass, field

from compensate import Ctx, SagaExecutor, action, render, saga


@dataclass
class Rack:
    """What is there now: stands for a machine room, or a cloud."""

    parts: list[str] = field(default_factory=list[str])

    async def put_in(self, part: str, seconds: float) -> str:
        print(f"  making {part}", flush=True)
        await asyncio.sleep(seconds)
        if part not in self.parts:  # an action may run again after a crash
            self.parts.append(part)
        print(f"  made {part}", flush=True)
        return part

    def take_out(self, part: str) -> None:
        if part in self.parts:
            self.parts.remove(part)
        print(f"  removed {part}", flush=True)


@action
async def create_database(ctx: Ctx[Rack], stack: str) -> str:
    return await ctx.deps.put_in(f"{stack}-database", 0.1)


@create_database.undo
async def delete_database(ctx: Ctx[Rack], database: str) -> None:
    ctx.deps.take_out(database)


@action
async def create_cache(ctx: Ctx[Rack], stack: str) -> str:
    return await ctx.deps.put_in(f"{stack}-cache", 0.3)


@create_cache.undo
async def delete_cache(ctx: Ctx[Rack], cache: str) -> None:
    ctx.deps.take_out(cache)


@action
async def start_app_server(ctx: Ctx[Rack], database: str, cache: str) -> str:
    return await ctx.deps.put_in(f"app server on {database} and {cache}", 0.1)


@start_app_server.undo
async def stop_app_server(ctx: Ctx[Rack], server: str) -> None:
    ctx.deps.take_out(server)


@saga
def stack(name: str) -> str:
    return start_app_server(create_database(name), create_cache(name))


async def main() -> None:
    rack = Rack()
    executor = SagaExecutor(stack, deps=rack)

    print("What stands under one number runs side by side:")
    ascii_only = not (sys.stdout.encoding or "").lower().startswith("utf")
    for line in render.text(stack.dag, ascii=ascii_only).splitlines()[1:]:
        print(f"  {line}")

    print("\nUp:")
    await executor.execute("shop")
    print(f"in the order {', '.join(executor.execution_order())}")

    await asyncio.sleep(0.5)  # it is used

    print("\nDown, by hand:")
    await executor.rollback("the demonstration is over")
    undone = [record.node for record in executor.execution_trace() if record.direction == "undo"]
    print(f"in the order {', '.join(undone)}")

    print(f"\nLeft in the rack: {', '.join(rack.parts) or 'nothing'}")


if __name__ == "__main__":
    asyncio.run(main())
