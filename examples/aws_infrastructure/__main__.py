"""Deploy, list and destroy networks from the command line. Says more: --help, and the README beside this file."""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import os
import re
import signal
import sys
import uuid
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from botocore.exceptions import BotoCoreError, ClientError

from compensate import (
    CompensateError,
    Coordinator,
    RolledBack,
    Run,
    Snapshot,
    Stopped,
    Store,
    Stuck,
    reading,
    store_exists,
)
from compensate.stores.base import SagaRecord
from examples.aws_infrastructure.aws import Aws, Site, account_of
from examples.aws_infrastructure.progress import line_of
from examples.aws_infrastructure.saga import Network, NetworkSpec, SubnetSpec, network

OK, FAILED, ROLLED_BACK, STUCK = 0, 1, 3, 4  # 2 is argparse's, for bad input
# No dot: behind one stands the number of the attempt.
ID = re.compile(r"[A-Za-z0-9_-]{1,100}")
ATTEMPT = re.compile(rf"(?P<id>{ID.pattern})(\.(?P<number>\d+))?")


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m examples.aws_infrastructure", description=__doc__)
    where = argparse.ArgumentParser(add_help=False)
    where.add_argument(
        "--state-dir", type=Path, default=Path("state"), help="folder of the logs (default: ./state)"
    )
    where.add_argument("--store", metavar="URL", help="a store url, in place of --state-dir")
    where.add_argument("--pause", type=float, default=0.0, metavar="S", help="wait so long after each effect")
    commands = top.add_subparsers(dest="command", required=True)

    deploy = commands.add_parser("deploy", parents=[where], help="build a network, or go on with one")
    deploy.add_argument(
        "--saga-id",
        type=_id,
        help="a name of your choice; the same one goes on (default: one is made up)",
    )
    # A variable that is set and empty counts as not set.
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-west-2"
    deploy.add_argument("--region", type=_region, default=region, help="default: $AWS_REGION, or us-west-2")
    deploy.add_argument(
        "--endpoint-url", default=os.environ.get("AWS_ENDPOINT_URL"), help="of moto or LocalStack, say"
    )
    deploy.add_argument("--cidr", type=ipaddress.IPv4Network, default=ipaddress.IPv4Network("10.0.0.0/16"))
    deploy.add_argument(
        "--zones", type=_zones, default="abc", help="a subnet in each of these zones (default: abc)"
    )
    deploy.add_argument(
        "--ports", type=int, nargs="+", default=[80, 443], help="open TCP ports (default: 80 443)"
    )
    deploy.add_argument("--fail-at-the-end", action="store_true", help="let the last step fail")

    commands.add_parser("list", parents=[where], help="show every network and how it stands")
    destroy = commands.add_parser("destroy", parents=[where], help="undo a network, last part first")
    destroy.add_argument("--saga-id", required=True, type=_id)
    return top


def _id(text: str) -> str:
    if not ID.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r}: use up to 100 letters, digits, - and _")
    return text


def _region(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9-]{1,50}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no region; give one like us-west-2")
    return text


def _zones(text: str) -> str:
    if not re.fullmatch(r"[a-z]{1,16}", text) or len(set(text)) < len(text):
        raise argparse.ArgumentTypeError(f"{text!r}: give the zones' letters, each once, like abc")
    return text


def spec_of(options: argparse.Namespace, account: str | None = None) -> NetworkSpec:
    """The saga's params from the command line, for the account that the credentials are of, unless one is given."""
    zones: str = options.zones
    cidr: ipaddress.IPv4Network = options.cidr
    bits = max(1, (len(zones) - 1).bit_length())
    if cidr.prefixlen < 16 or cidr.prefixlen + bits > 28:
        raise SystemExit(f"--cidr {cidr}: AWS takes /16 to /28, for the network and for each of its subnets")
    subnets = [
        SubnetSpec(str(part), options.region + zone)
        for part, zone in zip(cidr.subnets(prefixlen_diff=bits), zones, strict=False)
    ]
    if account is None:
        account = account_of(options.region, options.endpoint_url)
    site = Site(options.region, account, options.endpoint_url)
    return NetworkSpec(site, options.saga_id, str(cidr), subnets, options.ports, options.fail_at_the_end)


# ------------------------------------------------------------------------------------------ attempts


async def known_attempts(url: str, name: str) -> list[SagaRecord]:
    """The attempts at one network, oldest first."""
    if not store_exists(url):
        return []
    async with reading(url) as store:
        return (await attempts(store)).get(name, [])


async def attempts(store: Store) -> dict[str, list[SagaRecord]]:
    """The attempts at each network, oldest first.

    A deploy that was rolled back can be deployed again under its name, and each attempt is a saga of its own: `prod`,
    `prod.2`, `prod.3`. So no idempotency key is ever used for two things: EC2 remembers a ClientToken, and would
    answer with the table that the first attempt has deleted. And the log of what went wrong stays.
    """
    found: dict[str, list[SagaRecord]] = {}
    cursor: str | None = None
    while True:
        page = await store.page(name=network.name, cursor=cursor)
        for record in page.records:
            if match := ATTEMPT.fullmatch(record.id):
                found.setdefault(match["id"], []).append(record)
        cursor = page.cursor
        if cursor is None:
            break
    for records in found.values():
        records.sort(key=lambda record: _number(record.id))
    return found


def _number(saga_id: str) -> int:
    match = ATTEMPT.fullmatch(saga_id)
    return int(match["number"] or 1) if match else 0


# ------------------------------------------------------------------------------------------ commands


async def deploy(url: str, options: argparse.Namespace) -> int:
    if options.saga_id is None:
        options.saga_id = f"network-{uuid.uuid4().hex[:8]}"
    name: str = options.saga_id
    known = await known_attempts(url, name)
    last = known[-1] if known else None
    if last is None or last.status == "rolled_back":
        number = _number(last.id) + 1 if last else 1
        spec = await asyncio.to_thread(spec_of, options)
        print(f"{name}: deploying to {spec.site.region}, attempt {number}", flush=True)
        async with coordinator(url, options) as c:
            attempt = network.with_id(f"{name}.{number}" if last else name)
            return await follow(await c.start(attempt, spec), name)
    async with coordinator(url, options) as c:
        ordered = (await c.get(last.id)).params()["spec"]
        # Goes on with the network that was ordered, and refuses if that was another one.
        run = await c.start(network.with_id(last.id), spec_of(options, ordered["site"]["account"]))
        going_on = (
            "it is deployed already" if last.status == "completed" else "going on with it, as it was ordered"
        )
        print(f"{name}: {going_on}", flush=True)
        return await follow(run, name, after=last.last_seq)


async def destroy(url: str, options: argparse.Namespace) -> int:
    name: str = options.saga_id
    known = await known_attempts(url, name)
    if not known:
        print(f"{name}: there is no such network; `list` shows those that are", file=sys.stderr)
        return FAILED
    last = known[-1]
    if last.status == "rolled_back":
        print(f"{name}: nothing is left of it")
        return OK
    print(f"{name}: destroying", flush=True)
    async with coordinator(url, options) as c:
        if last.status in ("running", "completed"):
            await c.rollback(last.id, reason="destroy")
        code = await follow(await c.adopt(last.id), name, after=last.last_seq)
    return OK if code == ROLLED_BACK else code


async def show(url: str, _options: argparse.Namespace) -> int:
    rows = [("ID", "STATUS", "ATTEMPT", "REGION", "VPC", "SINCE")]
    if store_exists(url):
        async with reading(url) as store:
            for name, records in sorted((await attempts(store)).items()):
                saga = Snapshot(await store.load(records[-1].id))
                region = saga.params()["spec"]["site"]["region"]
                since = datetime.fromtimestamp(saga.record.updated_at).astimezone()
                when = since.strftime("%Y-%m-%d %H:%M:%S")
                rows.append((name, saga.status, str(_number(saga.id)), region, vpc_of(saga), when))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return OK


def vpc_of(snapshot: Snapshot) -> str:
    """The id of the VPC as far as it stands."""
    return str(snapshot.output("create_vpc")) if snapshot.nodes["create_vpc"] == "completed" else "-"


async def follow(run: Run[Network], name: str, after: int = 0) -> int:
    """Print every step until the end; the exit code says which end."""
    async for event in run.events(after):
        if line := line_of(event):
            print(line, flush=True)
    try:
        await run.result()
    except RolledBack as error:
        print(f"{name}: rolled back, nothing is left ({error.reason})")
        return ROLLED_BACK
    except Stuck as error:
        print(f"{name}: {error}", file=sys.stderr)
        return STUCK
    print(f"{name}: deployed")
    return OK


# -------------------------------------------------------------------------------------------- running


def store_url(options: argparse.Namespace) -> str:
    return str(options.store or f"file:///{options.state_dir}")


def coordinator(url: str, options: argparse.Namespace) -> Coordinator:
    # It came for one network: the others are left to those who ordered them.
    stop = [signal.SIGTERM, signal.SIGINT]
    deps = Aws(pause=options.pause)
    return Coordinator(url, deps=deps, sagas=[network], recover=False, stop_on=stop)


def main(argv: Sequence[str] | None = None) -> int:
    options = parser().parse_args(argv)
    command = {"deploy": deploy, "destroy": destroy, "list": show}[options.command]
    try:
        return asyncio.run(command(store_url(options), options))
    except Stopped as error:
        print(f"stopped by {error.signal}; the same command goes on from here", file=sys.stderr)
    except (CompensateError, ClientError, BotoCoreError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
    return FAILED


if __name__ == "__main__":
    sys.exit(main())
