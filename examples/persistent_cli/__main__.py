"""Deploy, list and destroy small sites; what stands is kept as JSON in a folder. Says more: the README beside this."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path

from compensate import (
    CompensateError,
    Coordinator,
    NameInvalid,
    RolledBack,
    Run,
    SagaNotFound,
    Snapshot,
    Stopped,
    Store,
    Stuck,
    event_line,
    reading,
    state_document,
    store_exists,
)
from compensate.stores.base import SagaRecord
from examples.persistent_cli.saga import Cloud, site

OK, FAILED, BAD_INPUT, ROLLED_BACK, STUCK = 0, 1, 2, 3, 4  # argparse uses 2 for that, too


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m examples.persistent_cli", description=__doc__)
    where = argparse.ArgumentParser(add_help=False)
    where.add_argument(
        "--state-dir", type=Path, default=Path("state"), help="folder of the sagas (default: state)"
    )
    where.add_argument(
        "--cloud-dir", type=Path, default=Path("cloud"), help="stands for a cloud (default: cloud)"
    )
    where.add_argument("--pause", type=float, default=0.0, metavar="S", help="let every step take so long")
    commands = top.add_subparsers(dest="command", required=True)
    deploy = commands.add_parser("deploy", parents=[where], help="build a site, or go on with one")
    deploy.add_argument("--saga-id", help="a name of your choice (default: one is made up)")
    deploy.add_argument("--zone", default="north", help="where the machine stands: north or south")
    destroy = commands.add_parser("destroy", parents=[where], help="undo a site")
    destroy.add_argument("--saga-id", required=True)
    commands.add_parser("list", parents=[where], help="show what there is")
    return top


def url_of(options: argparse.Namespace) -> str:
    return f"file:///{options.state_dir}"


def coordinator(options: argparse.Namespace) -> Coordinator:
    cloud = Cloud(options.cloud_dir, options.pause)
    stop = [signal.SIGTERM, signal.SIGINT]
    # It came for one site: the others are left alone.
    return Coordinator(url_of(options), deps=cloud, sagas=[site], recover=False, stop_on=stop)


async def known(store: Store, saga_id: str) -> SagaRecord | None:
    try:
        return (await store.load(saga_id)).record
    except SagaNotFound:
        return None


async def deploy(options: argparse.Namespace) -> int:
    name: str = options.saga_id if options.saga_id is not None else f"site-{uuid.uuid4().hex[:8]}"
    async with coordinator(options) as c:
        before = await known(c.store, name)
        if before is not None and before.status == "rolled_back":
            await c.store.delete(name)  # the deploy before failed, and nothing is left of it
            before = None
        if before is None:
            named = site.with_id(name)  # an id that cannot be is refused before anything is said
            print(f"{name}: deploying", flush=True)
            return await follow(await c.start(named, options.zone), name)
        # Goes on with the site that is there, and refuses if that one was ordered with another zone.
        run = await c.start(site.with_id(name), options.zone)
        print(f"{name}: {'it is there already' if before.status == 'completed' else 'going on'}", flush=True)
        return await follow(run, name, before.last_seq)


async def destroy(options: argparse.Namespace) -> int:
    name: str = options.saga_id
    async with coordinator(options) as c:
        before = await known(c.store, name)
        if before is None:
            print(f"{name}: there is no such site; `list` shows those that are", file=sys.stderr)
            return FAILED
        print(f"{name}: destroying", flush=True)
        if before.status in ("running", "completed"):
            await c.rollback(name, reason="destroy")
        code = await follow(await c.adopt(name), name, before.last_seq)
        if code == ROLLED_BACK:
            await c.store.delete(name)
            return OK
        return code


async def show(options: argparse.Namespace) -> int:
    rows = [("ID", "STATUS", "STANDS")]
    if store_exists(url_of(options)):
        async with reading(url_of(options)) as store:
            for record in sorted((await store.page(limit=1_000)).records, key=lambda record: record.id):
                document = state_document(Snapshot(await store.load(record.id)))
                parts = [action.name.removeprefix("create_") for action in document.completed]
                rows.append((record.id, record.status, ", ".join(parts) or "nothing"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return OK


async def follow(run: Run[str], name: str, after: int = 0) -> int:
    """Print every step until the end; the exit code says which end."""
    async for event in run.events(after):
        print(f"  {event_line(event, time=False)}", flush=True)
    try:
        machine = await run.result()
    except RolledBack as error:
        print(f"{name}: nothing is left of it ({error.reason})")
        return ROLLED_BACK
    except Stuck as error:
        print(f"{name}: {error}", file=sys.stderr)
        return STUCK
    print(f"{name}: {machine} is there")
    return OK


def main(argv: Sequence[str] | None = None) -> int:
    options = parser().parse_args(argv)
    command = {"deploy": deploy, "destroy": destroy, "list": show}[options.command]
    try:
        return asyncio.run(command(options))
    except Stopped as error:
        print(f"stopped by {error.signal}; the same command goes on from here", file=sys.stderr)
    except CompensateError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return BAD_INPUT if isinstance(error, NameInvalid) else FAILED
    return FAILED


if __name__ == "__main__":
    sys.exit(main())
