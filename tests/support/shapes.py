"""Sagas of five shapes, whose actions change `Outside`."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from compensate import Ctx, NoEffect, Retry, Saga, Unknown, action, fan_out, saga
from tests.support.gates import Gates
from tests.support.outside import Outside


@dataclass(frozen=True)
class Job:
    """The params of all sagas.

    Attributes:
        fail: Path of the node that fails.
        how: `clean`: it raises before its effect, and says so: after a crash a plain error would not clear the doubt
            (DESIGN, section 4). `plain`: it raises before its effect. `unknown`: after its effect, not knowing.
        wait: Path of the node whose first attempt waits for the file `Deps.go` to be there.
        pause: Seconds that every action takes.
        size: Bytes that every output has at least.
    """

    fail: str = ""
    how: Literal["clean", "plain", "unknown"] = "clean"
    wait: str = ""
    pause: float = 0.0
    size: int = 0


@dataclass
class Deps:
    outside: Outside
    gates: Gates
    actor: str
    go: Path


def _do(ctx: Ctx[Deps], item: str, job: Job, after: list[str]) -> str:
    deps = ctx.deps
    given = {"item": item, "job": job, "after": after}
    with deps.outside.calling(ctx, given, actor=deps.actor) as call:
        deps.gates(f"do begins {ctx.node}")
        if job.fail == ctx.node and job.how != "unknown":
            kind = NoEffect if job.how == "clean" else ValueError
            raise kind(f"{ctx.node} was made to fail")
        output = deps.outside.do(ctx, call, f"{item} after {len(after)}".ljust(job.size, "."))
        deps.gates(f"do ends {ctx.node}")
        if job.fail == ctx.node:
            raise Unknown(f"{ctx.node} lost the reply")
        call.returned(output)
    return output


def _undo(ctx: Ctx[Deps], output: str | None) -> None:
    deps = ctx.deps
    with deps.outside.calling(ctx, output, actor=deps.actor) as call:
        deps.gates(f"undo begins {ctx.node}")
        deps.outside.undo(ctx, call)
        deps.gates(f"undo ends {ctx.node}")


async def _wait(ctx: Ctx[Deps], job: Job) -> None:
    if job.pause:
        await asyncio.sleep(job.pause)
    if job.wait == ctx.node and ctx.attempt == 1:
        await asyncio.sleep(0)
        ctx.deps.gates(f"waits {ctx.node}")
        while not ctx.deps.go.exists():  # noqa: ASYNC110  # another process makes it
            await asyncio.sleep(0.005)


@action
async def step(ctx: Ctx[Deps], item: str, job: Job, after: list[str]) -> str:
    await _wait(ctx, job)
    return _do(ctx, item, job, after)


@step.undo
async def unstep(ctx: Ctx[Deps], output: str) -> None:
    await asyncio.sleep(0)
    _undo(ctx, output)


@action
def threaded(ctx: Ctx[Deps], item: str, job: Job, after: list[str]) -> str:
    return _do(ctx, item, job, after)


@threaded.undo
def unthreaded(ctx: Ctx[Deps], output: str) -> None:
    _undo(ctx, output)


@action
async def note(ctx: Ctx[Deps], item: str, job: Job, after: list[str]) -> str:
    await _wait(ctx, job)
    return _do(ctx, item, job, after)


@action
async def hold(ctx: Ctx[Deps], item: str, job: Job, after: list[str]) -> str:
    await _wait(ctx, job)
    return _do(ctx, item, job, after)


@hold.undo(unknown=True)
async def unhold(ctx: Ctx[Deps], output: str | None) -> None:
    _undo(ctx, output)


@action(retry=Retry(3, first=0.02))
async def flaky(ctx: Ctx[Deps], item: str, job: Job, after: list[str]) -> str:
    if ctx.attempt == 1:
        raise ConnectionError("not yet")
    return _do(ctx, item, job, after)


@flaky.undo
async def unflaky(ctx: Ctx[Deps], output: str) -> None:
    _undo(ctx, output)


@action
async def names(count: int) -> list[str]:
    return [f"item{number}" for number in range(count)]


@saga
def chain(job: Job) -> str:
    a = step.options(name="a")("a", job, [])
    b = threaded.options(name="b")("b", job, [a])
    c = step.options(name="c")("c", job, [b])
    return step.options(name="d")("d", job, [c])


@saga
def diamond(job: Job) -> str:
    a = step.options(name="a")("a", job, [])
    b = threaded.options(name="b")("b", job, [a])
    c = step.options(name="c")("c", job, [a])
    return step.options(name="d")("d", job, [b, c])


@saga
def inner(job: Job, after: str) -> str:
    x = step.options(name="x")("x", job, [after])
    return step.options(name="y")("y", job, [x])


@saga
def nested(job: Job) -> str:
    a = step.options(name="a")("a", job, [])
    s = inner.options(name="s")(job, a)
    return step.options(name="z")("z", job, [a, s])


@saga
def fan(job: Job) -> str:
    a = step.options(name="a")("a", job, [])
    items = names(3)
    each = fan_out(step.options(name="each"), items, job, [a])
    return hold.options(name="z")("z", job, each)


@saga
def mixed(job: Job) -> str:
    a = hold.options(name="a")("a", job, [])
    n = note.options(name="n")("n", job, [a])
    f = flaky.options(name="f")("f", job, [n])
    return hold.options(name="h")("h", job, [f, a])


SAGAS: dict[str, Saga[[Job], str]] = {each.name: each for each in (chain, diamond, nested, fan, mixed)}

FORWARD = Job()

BACK: dict[str, Job] = {
    "chain": Job(fail="d"),
    "diamond": Job(fail="c"),
    "nested": Job(fail="s/y"),
    "fan": Job(fail="z", how="plain"),
    "mixed": Job(fail="h", how="unknown"),
}
"""What makes each shape fail late."""

UNDOABLE: dict[str, frozenset[str]] = {
    "chain": frozenset("abcd"),
    "diamond": frozenset("abcd"),
    "nested": frozenset({"a", "s/x", "s/y", "z"}),
    "fan": frozenset({"a", "each[0]", "each[1]", "each[2]", "z"}),
    "mixed": frozenset("afh"),
}
"""The nodes of each shape that have an effect and an undo."""

NOTES: dict[str, frozenset[str]] = {"mixed": frozenset("n")}
"""Those that have an effect and no undo."""
