"""The AWS example behind a proxy that swallows replies: the request takes effect, the caller never learns it."""

from __future__ import annotations

import os
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from compensate import Coordinator, Retry, RolledBack, Snapshot, saga
from compensate.core import events as e
from examples.aws_infrastructure.aws import Aws, Site, account_of
from examples.aws_infrastructure.demo import WHOLE, counted, out_of_order
from examples.aws_infrastructure.demo import spec as demo_spec
from examples.aws_infrastructure.moto_server import environment, moto_server
from examples.aws_infrastructure.saga import NetworkSpec, create_gateway, create_vpc, network

pytestmark = pytest.mark.slow


class Proxy(ThreadingHTTPServer):
    """Passes requests on; of the calls named in `lost` it drops the first replies, of those in `busy` the requests."""

    daemon_threads = True

    def __init__(self, target: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.target = target
        self.lost: Counter[str] = Counter()
        self.busy: Counter[str] = Counter()
        self.fired: list[str] = []
        self.lock = threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def due(self, faults: Counter[str], action: str) -> bool:
        with self.lock:
            if not faults[action]:
                return False
            faults[action] -= 1
            self.fired.append(action)
            return True


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        proxy = self.server
        assert isinstance(proxy, Proxy)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        action = urllib.parse.parse_qs(body.decode())["Action"][0]
        if proxy.due(proxy.busy, action):
            code = b"<Response><Errors><Error><Code>RequestLimitExceeded</Code></Error></Errors></Response>"
            self.answer(503, code)
            return
        headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
        request = urllib.request.Request(proxy.target, body, headers)
        try:
            with urllib.request.urlopen(request) as reply:
                status, content = reply.status, reply.read()
        except urllib.error.HTTPError as error:
            with error:
                status, content = error.code, error.read()
        if proxy.due(proxy.lost, action):
            self.close_connection = True
            return  # the connection ends without a word
        self.answer(status, content)

    def answer(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "text/xml")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def proxy() -> Iterator[Proxy]:
    with pytest.MonkeyPatch.context() as patch, moto_server() as url:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        for name, value in environment().items():
            patch.setenv(name, value)
        server = Proxy(url)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


async def run(proxy: Proxy, folder: Path, saga_id: str, *, fail: bool = False) -> Snapshot:
    site = Site("eu-west-1", account_of("eu-west-1", proxy.url), proxy.url)
    proxy.fired.clear()
    async with Coordinator(f"sqlite:///{folder / 'sagas.db'}", deps=Aws(), sagas=[network]) as c:
        started = await c.start(network.with_id(saga_id), demo_spec(site, saga_id, fail=fail))
        if fail:
            with pytest.raises(RolledBack):
                await started.result()
        else:
            await started.result()
        snapshot = await c.get(saga_id)
    assert +proxy.lost == +proxy.busy == Counter()  # every fault fired
    assert counted(Aws().ec2(site), saga_id) == ({} if fail else WHOLE)
    return snapshot


def of_type(snapshot: Snapshot, kind: str) -> list[str]:
    return sorted(event.node for event in snapshot.events if event.type == kind)


async def test_an_action_whose_reply_was_lost_is_in_doubt_and_then_finds_what_it_made(
    proxy: Proxy, tmp_path: Path
) -> None:
    proxy.lost.update(
        ["CreateVpc", "CreateSubnet", "AttachInternetGateway", "CreateRoute", "AssociateRouteTable"]
    )
    snapshot = await run(proxy, tmp_path, "lost")
    assert len(proxy.fired) == 5
    doubts = [event for event in snapshot.events if isinstance(event.data, e.InDoubt)]
    assert [event.data.reason for event in doubts if isinstance(event.data, e.InDoubt)] == ["unknown"] * 5
    assert {event.node.partition("[")[0] for event in doubts} == {
        "create_vpc", "create_subnet", "create_gateway", "add_default_route", "associate"
    }  # fmt: skip


async def test_an_undo_whose_reply_was_lost_is_tried_again_and_finds_nothing_left(
    proxy: Proxy, tmp_path: Path
) -> None:
    proxy.lost.update(["DeleteVpc", "DeleteSubnet", "DetachInternetGateway", "DisassociateRouteTable"])
    snapshot = await run(proxy, tmp_path, "lost-undo", fail=True)
    assert len(proxy.fired) == 4
    assert len(of_type(snapshot, e.UNDO_FAILED)) == 4
    assert out_of_order(snapshot.events) == []


@saga
def impatient(spec: NetworkSpec) -> str:
    vpc = create_vpc(spec.site, spec.name, spec.cidr)
    return create_gateway.options(retry=Retry(attempts=2, first=0.05))(spec.site, spec.name, vpc)


async def test_an_action_that_stays_in_doubt_is_undone_by_its_key_alone(proxy: Proxy, tmp_path: Path) -> None:
    # Each attempt makes the gateway or finds it, and never learns that it is attached: in doubt to the end.
    proxy.lost["AttachInternetGateway"] = 2
    site = Site("eu-west-1", account_of("eu-west-1", proxy.url), proxy.url)
    async with Coordinator(f"sqlite:///{tmp_path / 'sagas.db'}", deps=Aws(), sagas=[impatient]) as c:
        started = await c.start(impatient.with_id("doubt"), demo_spec(site, "doubt"))
        with pytest.raises(RolledBack, match="create_gateway"):
            await started.result()
        snapshot = await c.get("doubt")
    assert +proxy.lost == Counter()
    assert of_type(snapshot, e.IN_DOUBT) == ["create_gateway"] * 2
    assert "create_gateway" not in of_type(snapshot, e.COMPLETED)
    assert "create_gateway" in of_type(snapshot, e.UNDONE)
    assert counted(Aws().ec2(site), "doubt") == {}


async def test_a_busy_api_is_asked_again_and_leaves_no_doubt(proxy: Proxy, tmp_path: Path) -> None:
    proxy.busy.update({"CreateVpc": 2, "CreateSecurityGroup": 1})
    snapshot = await run(proxy, tmp_path, "busy")
    assert of_type(snapshot, e.FAILED) == ["create_security_group", "create_vpc", "create_vpc"]
    assert of_type(snapshot, e.IN_DOUBT) == []
