"""Builds an AWS network as a saga, lets one fail and be undone, kills one half way and resumes it.

Everything is real but the cloud: boto3 talks HTTP to a moto server on the loopback address, the log is a SQLite file,
and kill means SIGKILL. Each claim is checked; the first one that is false ends the demo with an error.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from botocore import exceptions as boto

from compensate import Coordinator, RolledBack, Run, Snapshot, reading, render
from compensate.core import events as e
from compensate.core.dag import dependencies
from compensate.core.events import Event
from examples.aws_infrastructure.aws import KINDS, SAGA_TAG, Aws, Kind, Site, account_of, tagged
from examples.aws_infrastructure.moto_server import environment, moto_server
from examples.aws_infrastructure.progress import BOLD, DIM, GREEN, RED, line_of, paint
from examples.aws_infrastructure.saga import Network, NetworkSpec, SubnetSpec, network

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

REGION: Final = "eu-west-1"
BUILT, FAILED, KILLED = "built", "failed", "killed"
WHOLE: Final = {
    "vpc": 1,
    "internet-gateway": 1,
    "subnet": 3,
    "security-group": 1,
    "route-table": 1,
    "association": 3,
}
PATIENCE: Final = 60.0
ROOT: Final = Path(__file__).resolve().parents[2]


class ClaimFalse(Exception):
    """Something is not as the demo says."""


def heading(number: int, text: str) -> None:
    print(f"\n{paint(f'{number}. {text}', BOLD)}")


def say(text: str) -> None:
    print(f"  {text}", flush=True)


def claim(text: str, true: bool, found: object = "") -> None:
    """Say something of which the demo has made sure.

    Raises:
        ClaimFalse: It is not so.
    """
    if not true:
        raise ClaimFalse(f"not true: {text} (found: {found})")
    print(f"  {paint('ok', GREEN)}  {text}", flush=True)


# ---------------------------------------------------------------------------- what the API itself says


def listed(ec2: EC2Client, saga_id: str) -> dict[str, list[str]]:
    """The ids of everything that the API lists for a saga, by kind."""
    found: dict[str, list[str]] = {}
    for kind, (_, _, field) in KINDS.items():
        resources = tagged(ec2, kind, SAGA_TAG, saga_id)
        found[kind] = sorted(str(resource[field]) for resource in resources)
        if kind == "route-table":
            found["association"] = sorted(
                association["RouteTableAssociationId"]
                for table in resources
                for association in table["Associations"]
            )
    return found


def counted(ec2: EC2Client, saga_id: str) -> dict[str, int]:
    return {kind: len(ids) for kind, ids in listed(ec2, saga_id).items() if ids}


def print_listed(ec2: EC2Client, saga_id: str) -> None:
    for kind, ids in listed(ec2, saga_id).items():
        say(f"  {kind:<17} {' '.join(ids)}")


def refusal(call: Callable[[], object]) -> str:
    """What the API answers when it refuses; empty if it does not."""
    try:
        call()
    except boto.ClientError as error:
        return str(error.response.get("Error", {}).get("Code"))
    return ""


# -------------------------------------------------------------------------------------- the sections


def spec(site: Site, name: str, *, fail: bool = False) -> NetworkSpec:
    subnets = [SubnetSpec(f"10.0.{i}.0/24", REGION + zone) for i, zone in enumerate("abc")]
    return NetworkSpec(site, name, "10.0.0.0/16", subnets, [80, 443], fail)


def picture(source: render.Source) -> list[str]:
    encoding = (sys.stdout.encoding or "ascii").lower()
    width = shutil.get_terminal_size((100, 0)).columns - 4
    return render.text(source, ascii=not encoding.startswith("utf"), width=width).splitlines()


async def print_steps(run: Run[Network]) -> None:
    async for event in run.events():
        if line := line_of(event):
            print(line, flush=True)


async def build(c: Coordinator, ec2: EC2Client, site: Site) -> Network:
    heading(2, "A saga builds a network")
    say("What stands under one number may run at the same time:")
    for line in picture(network.dag)[1:]:
        say(paint(f"  {line}", DIM))
    say("It runs; each line is a step that is safe on disk:")
    run = await c.start(network.with_id(BUILT), spec(site, BUILT))
    await print_steps(run)
    built = await run.result()
    say("The API lists:")
    print_listed(ec2, BUILT)
    claim("every part is there, once", counted(ec2, BUILT) == WHOLE, counted(ec2, BUILT))
    return built


async def fail(c: Coordinator, ec2: EC2Client, site: Site, built: Network) -> None:
    heading(3, "Another one fails at its last step, and is undone")
    say("Order matters: the API refuses to take parts of the network above away while others hang on them.")
    calls: dict[str, Callable[[], object]] = {
        "delete the VPC": lambda: ec2.delete_vpc(VpcId=built.vpc),
        "delete the internet gateway": lambda: ec2.delete_internet_gateway(InternetGatewayId=built.gateway),
        "delete the route table": lambda: ec2.delete_route_table(RouteTableId=built.table),
    }
    for what, call in calls.items():
        answer = refusal(call)
        claim(f"{what}: {answer}", answer == "DependencyViolation", answer)
    say("Now the second network. Its last step is told to fail:")
    run = await c.start(network.with_id(FAILED), spec(site, FAILED, fail=True))
    await print_steps(run)
    error = await end_of(run)
    told = isinstance(error, RolledBack) and error.node == "verify"
    claim("the caller gets RolledBack, which names the step that failed: verify", told, error)
    saga = await c.get(FAILED)
    undone = [event.node for event in saga.events if event.type == e.UNDONE]
    done = [event.node for event in saga.events if event.type == e.COMPLETED]
    claim(
        f"all {len(done)} steps that were done are undone",
        sorted(done) == sorted(undone) and bool(done),
        undone,
    )
    wrong = out_of_order(saga.events)
    claim("no undo began before everything that depends on its step was undone", not wrong, wrong)
    refused = [event for event in saga.events if "DependencyViolation" in str(event.data)]
    claim("the API, asked in that order, refused nothing", not refused, refused)
    claim("the API lists nothing of it any more", counted(ec2, FAILED) == {}, counted(ec2, FAILED))
    claim("the first network stands as before", counted(ec2, BUILT) == WHOLE, counted(ec2, BUILT))


async def end_of(run: Run[Network]) -> Exception | None:
    try:
        await run.result()
    except RolledBack as error:
        return error
    return None


def out_of_order(events: Sequence[Event]) -> list[tuple[str, str]]:
    """Pairs of nodes of which the first's undo began before the second, which depends on it, was undone."""
    began: dict[str, list[int]] = {}
    ended: dict[str, list[int]] = {}
    for event in events:
        found = {e.UNDO_STARTED: began, e.UNDONE: ended}.get(event.type)
        if found is not None:
            found.setdefault(event.node.partition("[")[0], []).append(event.seq)
    return [
        (before, node.name)
        for node in network.dag.nodes
        for before in dependencies(node)
        if before in began and node.name in ended and min(began[before]) < max(ended[node.name])
    ]


def kill_and_resume(ec2: EC2Client, site: Site, store: str) -> None:
    heading(4, "A process is killed half way, and a new one goes on")
    command = [
        sys.executable,
        "-m",
        "examples.aws_infrastructure",
        "deploy",
        "--store",
        store,
        "--saga-id",
        KILLED,
    ]
    command += ["--region", REGION, "--endpoint-url", str(site.endpoint_url)]
    say(
        "A child process deploys, waiting between each effect and its record, to be caught in the worst moment."
    )
    child = subprocess.Popen([*command, "--pause", "2"], cwd=ROOT)
    try:
        wait_until(lambda: len(listed(ec2, KILLED)["subnet"]) == 3 and caught_all(ec2), child)
        child.send_signal(signal.SIGKILL)
    finally:
        child.kill()
        code = child.wait()
    claim("it was ended by SIGKILL", code == -signal.SIGKILL, code)
    saga = asyncio.run(stored(store, KILLED))
    recorded = [event.node for event in saga.events if event.type == e.COMPLETED]
    began = [event.node for event in saga.events if event.type == e.STARTED]
    before = listed(ec2, KILLED)
    made = sum(map(len, before.values()))
    half = len(began) > len(recorded) > 0
    claim(f"the log: {len(began)} steps were begun, {len(recorded)} of them is recorded as done", half, began)
    claim(f"the API: {made} of them took effect", made > len(recorded), before)
    say("A new process is told the same command. It finds what was made under the keys of those steps:")
    code = subprocess.run(command, cwd=ROOT, check=False).returncode
    claim("it completes", code == 0, code)
    after = listed(ec2, KILLED)
    claim("nothing was made twice", counted(ec2, KILLED) == WHOLE, after)
    kept = all(set(ids) <= set(after[kind]) for kind, ids in before.items())
    claim("what the killed process had made is in use", kept, (before, after))


def caught_all(ec2: EC2Client) -> bool:
    kinds: list[Kind] = ["internet-gateway", "security-group"]
    return all(len(tagged(ec2, kind, SAGA_TAG, KILLED)) == 1 for kind in kinds)


def wait_until(true: Callable[[], bool], child: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + PATIENCE
    while not true():
        if child.poll() is not None or time.monotonic() > until:
            raise ClaimFalse(f"the child process never got half way (its exit code: {child.poll()})")
        time.sleep(0.02)


async def stored(url: str, saga_id: str) -> Snapshot:
    """A saga as it stands in the store; nobody runs it on."""
    async with reading(url) as store:
        return Snapshot(await store.load(saga_id))


def draw(store: str, folder: Path) -> None:
    heading(5, "The picture")
    for saga_id in (FAILED, KILLED):
        saga = asyncio.run(stored(store, saga_id))
        shown = render.snapshot(saga.fold, saga.events)
        for line in picture(shown):
            say(line)
        (folder / f"{saga_id}.svg").write_text(render.svg(shown), encoding="utf-8")
        (folder / f"{saga_id}.dot").write_text(render.dot(shown), encoding="utf-8")
        say(f"drawn: {folder / saga_id}.svg and .dot\n")


def next_steps(store: str, *, kept: bool) -> None:
    heading(6, "What to try next")
    tools = Path(sys.executable).parent
    path = tools.relative_to(ROOT) if tools.is_relative_to(ROOT) else tools
    if not kept:
        say("(after a run without --no-keep, which has just removed the folder)")
    tries = {
        f"export COMPENSATE_STORE={store}": "the log of this demo",
        f"{path}/compensate ls": "its sagas",
        f"{path}/compensate show {FAILED}": "one of them, step by step, with times",
        f"{path}/compensate events {KILLED}": "a whole log: see what the kill left in doubt",
        f"{path}/compensate graph {FAILED} --format dot": "the picture, for Graphviz; mermaid and text too",
        "$EDITOR examples/aws_infrastructure/saga.py": "the saga itself",
        f"{path}/python -m examples.aws_infrastructure --help": "deploy, list, destroy: on moto or on AWS",
    }
    width = max(map(len, tries))
    for command, why in tries.items():
        say(f"{command:<{width}}  {paint(f'# {why}', DIM)}")


# -------------------------------------------------------------------------------------------- running


async def build_and_fail(store: str, ec2: EC2Client, site: Site) -> None:
    # Closed before the next section: a living coordinator would adopt at once what the killed process leaves behind.
    async with Coordinator(store, deps=Aws(), sagas=[network]) as c:
        built = await build(c, ec2, site)
        await fail(c, ec2, site, built)


def demo(folder: Path, *, kept: bool) -> None:
    began = time.monotonic()
    heading(1, "The AWS API, on this machine")
    with moto_server() as url:
        site = Site(REGION, account_of(REGION, url), url)
        ec2 = Aws().ec2(site)
        store = f"sqlite:///{folder / 'sagas.db'}"
        say(
            f"a moto server answers at {url} (a real HTTP server; made-up credentials, nothing leaves this machine)"
        )
        say(f"the log and the pictures go to {folder}{', which stays' if kept else ''}")
        asyncio.run(build_and_fail(store, ec2, site))
        kill_and_resume(ec2, site, store)
    draw(store, folder)
    next_steps(store, kept=kept)
    print(f"\n{paint('All of it was as claimed', GREEN)} ({time.monotonic() - began:.0f} s).")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="scripts/demo", description=__doc__)
    parser.add_argument(
        "--keep",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="keep the temporary folder with the log and the pictures",
    )
    options = parser.parse_args(argv)
    # Only what the demo is about: no real credentials, and the same on every machine.
    clean = environment()
    os.environ.clear()
    os.environ.update(clean)
    folder = Path(tempfile.mkdtemp(prefix="compensate-demo-"))
    try:
        demo(folder, kept=options.keep)
    except ClaimFalse as error:
        print(f"\n{paint(str(error), RED)}\nThe log is in {folder}.", file=sys.stderr)
        return 1
    if not options.keep:
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
