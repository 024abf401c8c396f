"""deploy, list and destroy of the AWS example: real processes, real files, a real moto server."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from examples.aws_infrastructure.aws import KEY_TAG, SAGA_TAG, Aws, Site, account_of, tagged
from examples.aws_infrastructure.demo import WHOLE, counted
from examples.aws_infrastructure.moto_server import environment, moto_server

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
REGION = "eu-west-1"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch, moto_server() as url:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        for name, value in environment().items():
            patch.setenv(name, value)
        yield url


@pytest.fixture(scope="module")
def ec2(url: str) -> EC2Client:
    return Aws().ec2(Site(REGION, account_of(REGION, url), url))


class Cli:
    """The example's command line on one state folder."""

    def __init__(self, state: Path, url: str) -> None:
        self.state = state
        self.url = url

    def command(self, name: str, *options: str) -> list[str]:
        return [
            sys.executable,
            "-m",
            "examples.aws_infrastructure",
            name,
            "--state-dir",
            str(self.state),
            *options,
        ]

    def deploy_command(self, saga_id: str, *options: str) -> list[str]:
        where = ["--region", REGION, "--endpoint-url", self.url]
        return self.command("deploy", "--saga-id", saga_id, *where, *options)

    def start(self, command: list[str]) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True)

    def run(self, command: list[str]) -> tuple[int, str, str]:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, done.stdout, done.stderr

    def deploy(self, saga_id: str, *options: str) -> tuple[int, str, str]:
        return self.run(self.deploy_command(saga_id, *options))

    def destroy(self, saga_id: str) -> tuple[int, str, str]:
        # Neither region nor endpoint: the saga knows where its network stands.
        return self.run(self.command("destroy", "--saga-id", saga_id))

    def list(self) -> list[list[str]]:
        """Id, status, attempt and region of each network."""
        code, out, _ = self.run(self.command("list"))
        assert code == 0
        return [line.split()[:4] for line in out.splitlines()[1:]]


@pytest.fixture
def cli(tmp_path: Path, url: str) -> Cli:
    return Cli(tmp_path / "state", url)


def wait_until(true: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 60
    while not true():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.02)


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def test_a_network_is_deployed_listed_and_destroyed(cli: Cli, ec2: EC2Client) -> None:
    code, out, _ = cli.deploy("plain")
    assert code == 0
    assert counted(ec2, "plain") == WHOLE
    assert out.splitlines()[0] == "plain: deploying to eu-west-1, attempt 1"
    assert out.splitlines()[-1] == "plain: deployed"
    assert cli.list() == [["plain", "completed", "1", REGION]]
    document = json.loads((cli.state / "plain.json").read_text(encoding="utf-8"))
    assert (document["saga_id"], document["status"], len(document["completed_actions"])) == (
        "plain",
        "completed",
        12,
    )

    code, out, _ = cli.destroy("plain")
    assert code == 0
    assert counted(ec2, "plain") == {}
    undone = [line.split()[1] for line in out.splitlines() if line.split()[0] == "undo"]
    assert undone[-1] == "create_vpc"
    assert sorted(undone) == sorted(
        [f"{step}[{i}]" for step in ("associate", "create_subnet") for i in range(3)]
        + ["add_default_route", "create_gateway", "create_route_table", "create_security_group", "create_vpc"]
    )
    assert cli.list() == [["plain", "rolled_back", "1", REGION]]
    assert cli.destroy("plain")[:2] == (0, "plain: nothing is left of it\n")


def test_the_commands_in_the_readme_run_as_printed(
    cli: Cli, ec2: EC2Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    readme = (ROOT / "examples" / "aws_infrastructure" / "README.md").read_text(encoding="utf-8")
    lines = [line.strip() for line in readme.splitlines()]
    printed = [shlex.split(line) for line in lines if line.startswith(".venv/bin/python -m ")]
    assert [command[3] for command in printed] == ["deploy", "list", "destroy"]
    monkeypatch.setenv("AWS_ENDPOINT_URL", cli.url)
    counts = []
    for command in printed:
        code, _, err = cli.run([sys.executable, *command[1:-1], str(cli.state)])  # ends with the state folder
        assert code == 0, err
        counts.append(counted(ec2, "prod"))
    assert counts == [WHOLE, WHOLE, {}]


def test_deploying_what_is_deployed_changes_nothing(cli: Cli, ec2: EC2Client) -> None:
    assert cli.deploy("again")[0] == 0
    assert cli.deploy("again")[:2] == (0, "again: it is deployed already\nagain: deployed\n")
    assert counted(ec2, "again") == WHOLE


def test_a_deploy_that_failed_can_be_deployed_again_under_its_id(cli: Cli, ec2: EC2Client) -> None:
    for attempt in (1, 2):
        code, out, _ = cli.deploy("flaky", "--fail-at-the-end")
        assert code == 3
        assert f"flaky: deploying to {REGION}, attempt {attempt}\n" in out
        assert "Permanent: the network is refused at the last step" in out
        assert cli.list() == [["flaky", "rolled_back", str(attempt), REGION]]
    assert counted(ec2, "flaky") == counted(ec2, "flaky.2") == {}

    assert cli.deploy("flaky")[0] == 0
    assert cli.list() == [["flaky", "completed", "3", REGION]]
    assert counted(ec2, "flaky.3") == WHOLE
    vpc = tagged(ec2, "vpc", SAGA_TAG, "flaky.3")[0]
    assert {"Key": KEY_TAG, "Value": "flaky.3/create_vpc/do"} in vpc["Tags"]
    assert cli.destroy("flaky")[0] == 0
    assert counted(ec2, "flaky.3") == {}


def test_a_killed_deploy_is_gone_on_with_by_the_same_command_and_makes_nothing_twice(
    cli: Cli, ec2: EC2Client
) -> None:
    child = cli.start(cli.deploy_command("cut", "--pause", "2"))
    wait_until(lambda: "subnet" in counted(ec2, "cut"), child)
    kill(child)
    assert counted(ec2, "cut") != WHOLE
    assert cli.list() == [["cut", "running", "1", REGION]]
    code, out, _ = cli.deploy("cut")
    assert code == 0
    assert "cut: going on with it, as it was ordered\n" in out
    assert "in doubt  create_subnet[0]          crash\n" in out
    assert counted(ec2, "cut") == WHOLE


def test_a_killed_destroy_is_gone_on_with_by_the_same_command(cli: Cli, ec2: EC2Client) -> None:
    assert cli.deploy("cut-back")[0] == 0
    child = cli.start([*cli.command("destroy", "--saga-id", "cut-back"), "--pause", "2"])
    wait_until(lambda: counted(ec2, "cut-back") != WHOLE and "subnet" not in counted(ec2, "cut-back"), child)
    kill(child)
    assert "vpc" in counted(ec2, "cut-back")
    assert cli.list() == [["cut-back", "rolling_back", "1", REGION]]
    assert cli.destroy("cut-back")[0] == 0
    assert counted(ec2, "cut-back") == {}
    assert cli.list() == [["cut-back", "rolled_back", "1", REGION]]


def test_a_deploy_told_to_stop_says_so_and_is_gone_on_with(cli: Cli, ec2: EC2Client) -> None:
    child = cli.start(cli.deploy_command("stopped", "--pause", "1"))
    wait_until(lambda: "vpc" in counted(ec2, "stopped"), child)
    child.terminate()
    _, err = child.communicate()
    assert (child.returncode, err) == (1, "stopped by SIGTERM; the same command goes on from here\n")
    assert cli.list() == [["stopped", "running", "1", REGION]]
    assert cli.deploy("stopped")[0] == 0
    assert counted(ec2, "stopped") == WHOLE


def test_a_deploy_of_one_network_leaves_the_others_alone(cli: Cli, ec2: EC2Client) -> None:
    child = cli.start(cli.deploy_command("left", "--pause", "2"))
    wait_until(lambda: "vpc" in counted(ec2, "left"), child)
    kill(child)
    before = counted(ec2, "left")
    assert cli.deploy("other")[0] == 0
    assert counted(ec2, "other") == WHOLE
    assert counted(ec2, "left") == before
    assert cli.list() == [["left", "running", "1", REGION], ["other", "completed", "1", REGION]]


def test_a_deploy_waits_for_the_process_that_runs_it_and_goes_on_when_that_is_killed(
    cli: Cli, ec2: EC2Client
) -> None:
    first = cli.start(cli.deploy_command("passed-on", "--pause", "3"))
    wait_until(lambda: "vpc" in counted(ec2, "passed-on"), first)
    second = cli.start(cli.deploy_command("passed-on"))
    assert second.stdout is not None
    assert second.stdout.readline() == "passed-on: going on with it, as it was ordered\n"
    assert second.stdout.readline().split()[:2] == ["do", "create_vpc"]  # it follows what the first one does
    kill(first)
    assert counted(ec2, "passed-on") != WHOLE
    out, err = second.communicate()
    assert second.returncode == 0, err
    assert out.endswith("passed-on: deployed\n")
    assert counted(ec2, "passed-on") == WHOLE


def test_two_processes_that_deploy_one_id_at_once_build_one_network(cli: Cli, ec2: EC2Client) -> None:
    first = cli.start(cli.deploy_command("both", "--pause", "0.5"))
    wait_until(lambda: "vpc" in counted(ec2, "both"), first)
    code, out, err = cli.deploy("both")
    assert code == 0, err
    assert "both: going on with it, as it was ordered\n" in out
    first.communicate()
    assert first.returncode == 0
    assert counted(ec2, "both") == WHOLE
    assert counted(ec2, "both.2") == {}


def test_a_network_that_stands_is_not_called_another_one(cli: Cli, ec2: EC2Client) -> None:
    assert cli.deploy("mine")[0] == 0
    for other in (
        ["--zones", "ab"],
        ["--ports", "22"],
        ["--cidr", "10.1.0.0/16"],
        ["--region", "eu-south-1"],
    ):
        code, out, err = cli.deploy("mine", *other)
        assert (code, out) == (1, ""), other
        assert "SagaExists: saga mine: the id is taken" in err
    assert counted(ec2, "mine") == WHOLE


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["deploy", "--saga-id", "x", "--region", ""], "is no region"),
        (["destroy"], "--saga-id"),
        (["deploy", "--region", REGION, "--saga-id", "a/b"], "use up to 100 letters, digits, - and _"),
        (["deploy", "--region", REGION, "--saga-id", "a.2"], "use up to 100 letters, digits, - and _"),
        (["deploy", "--region", REGION, "--saga-id", "x", "--cidr", "10.0.0.0/99"], "--cidr"),
        (["deploy", "--region", REGION, "--saga-id", "x", "--cidr", "10.0.0.0/8"], "AWS takes /16 to /28"),
        (["deploy", "--region", REGION, "--saga-id", "x", "--zones", "aa"], "each once"),
        (["destroy", "--saga-id", "nobody"], "there is no such network"),
        (["list", "--store", "nonsense"], "StoreUrlInvalid"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
@pytest.mark.usefixtures("url")
def test_bad_input_is_refused_in_words(cli: Cli, options: list[str], message: str) -> None:
    code, out, err = cli.run(cli.command(*options))
    assert code in (1, 2)
    assert message in err
    assert out == ""
    assert cli.list() == []


def test_a_server_that_does_not_answer_is_reported_before_anything_is_stored(cli: Cli) -> None:
    cli.url = "http://127.0.0.1:9"
    code, _, err = cli.deploy("nowhere")
    assert code == 1
    assert "http://127.0.0.1:9" in err
    assert cli.list() == []
