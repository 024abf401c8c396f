"""The examples, by the commands in their READMEs: what they print is what stands in their `expected` folders.

After a change that is meant, `WRITE_EXPECTED=1 scripts/test tests/acceptance/test_examples.py` writes it anew; read the
difference before it is committed.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from compensate import render

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
GOLDEN = ["manual_rollback", "persistent_cli", "trip"]
MARK = "    # prints "


class Shown(NamedTuple):
    """A command of a README and the file with what it prints."""

    command: list[str]
    expected: Path


def commands(example: str) -> Iterator[Shown]:
    for line in (EXAMPLES / example / "README.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("    .venv/bin/python -m "):
            command, mark, expected = line.strip().partition(MARK)
            assert mark, f"{example}: the README does not say what {command!r} prints"
            yield Shown(shlex.split(command)[1:], EXAMPLES / example / expected)


def run(arguments: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=_env(), capture_output=True, text=True, check=False
    )


def _env() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}


@pytest.mark.parametrize("example", GOLDEN)
def test_every_command_in_the_readme_prints_what_is_expected(example: str, tmp_path: Path) -> None:
    shown = list(commands(example))
    assert shown
    for command, expected in shown:
        done = run(command, tmp_path)
        assert done.stderr == "", command
        if os.environ.get("WRITE_EXPECTED"):
            expected.write_text(done.stdout, encoding="utf-8")
        assert done.stdout == expected.read_text(encoding="utf-8"), command
        # A step that fails here is not tried again: the saga is rolled back.
        assert done.returncode == (3 if ": failed" in done.stdout else 0), command
    files = set((EXAMPLES / example / "expected").iterdir())
    assert files == {expected for _, expected in shown}


def test_every_example_has_a_readme_and_stands_in_the_list_of_them() -> None:
    there = sorted(path.name for path in EXAMPLES.iterdir() if (path / "__main__.py").is_file())
    assert there == sorted([*GOLDEN, "aws_infrastructure"])
    listed = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    for name in there:
        assert (EXAMPLES / name / "README.md").is_file()
        assert f"]({name}/README.md)" in listed


@pytest.mark.parametrize("example", GOLDEN)
def test_an_example_prints_on_a_terminal_without_unicode_too(example: str, tmp_path: Path) -> None:
    command = next(commands(example)).command
    done = subprocess.run(
        [sys.executable, *command],
        cwd=tmp_path,
        env={**_env(), "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.isascii()


def test_the_picture_in_the_readme_of_the_aws_example_is_the_sagas_and_fits_a_terminal() -> None:
    from examples.aws_infrastructure.saga import network

    picture = render.text(network.dag, width=80).splitlines()[1:]
    assert not any("…" in line for line in picture)
    readme = (EXAMPLES / "aws_infrastructure" / "README.md").read_text(encoding="utf-8")
    assert "\n".join(f"    {line}" for line in picture) in readme


# -- persistent_cli ---------------------------------------------------------


def cli(*arguments: str) -> list[str]:
    return ["-m", "examples.persistent_cli", *arguments]


def things(folder: Path) -> set[str]:
    """What stands in the cloud."""
    return {path.stem for path in (folder / "cloud").glob("*.json")}


WHOLE = {"network-web", "disk-web", "firewall-web", "machine-web"}


def start_and_kill(arguments: list[str], folder: Path, until: str, number: signal.Signals) -> tuple[int, str]:
    """Start a command, send it a signal once it has printed a line, and wait for its end."""
    child = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=folder,
        env=_env(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert any(line.strip() == until for line in child.stdout), f"it never printed {until!r}"
    child.send_signal(number)
    _, err = child.communicate()
    return child.returncode, err


def test_the_state_folder_holds_a_document_of_the_go_librarys_form(tmp_path: Path) -> None:
    assert run(cli("deploy", "--saga-id", "web"), tmp_path).returncode == 0
    assert things(tmp_path) == WHOLE
    document = json.loads((tmp_path / "state" / "web.json").read_text(encoding="utf-8"))
    assert (document["saga_id"], document["saga_name"], document["status"]) == ("web", "site", "completed")
    assert document["context"] == {"zone": "north"}
    assert [action["output"] for action in document["completed_actions"]] == [
        "network-web",
        "disk-web",
        "firewall-web",
        "machine-web",
    ]


def test_a_deploy_that_was_killed_goes_on_by_the_same_command(tmp_path: Path) -> None:
    deploy = cli("deploy", "--saga-id", "web")
    code, _ = start_and_kill([*deploy, "--pause", "1"], tmp_path, "create_disk: started", signal.SIGKILL)
    assert code == -signal.SIGKILL
    assert things(tmp_path) < WHOLE
    done = run(deploy, tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith("web: going on\n")
    assert "create_disk: in doubt: the process ended while it ran" in done.stdout
    assert things(tmp_path) == WHOLE


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_deploy_that_is_told_to_stop_says_by_what_and_goes_on_later(
    tmp_path: Path, number: signal.Signals
) -> None:
    deploy = cli("deploy", "--saga-id", "web")
    code, err = start_and_kill([*deploy, "--pause", "1"], tmp_path, "create_network: started", number)
    assert (code, err) == (1, f"stopped by {number.name}; the same command goes on from here\n")
    assert run(deploy, tmp_path).returncode == 0
    assert things(tmp_path) == WHOLE


def test_a_destroy_that_was_killed_goes_on_by_the_same_command(tmp_path: Path) -> None:
    assert run(cli("deploy", "--saga-id", "web"), tmp_path).returncode == 0
    destroy = cli("destroy", "--saga-id", "web")
    code, _ = start_and_kill([*destroy, "--pause", "1"], tmp_path, "create_disk: undoing", signal.SIGKILL)
    assert code == -signal.SIGKILL
    assert things(tmp_path)
    listed = run(cli("list"), tmp_path).stdout.splitlines()
    assert listed[1].split()[:2] == ["web", "rolling_back"]
    assert run(destroy, tmp_path).returncode == 0
    assert things(tmp_path) == set()
    assert run(cli("list"), tmp_path).stdout == "ID  STATUS  STANDS\n"


def test_a_command_for_one_site_leaves_another_that_was_cut_off_alone(tmp_path: Path) -> None:
    killed = cli("deploy", "--saga-id", "web", "--pause", "1")
    assert start_and_kill(killed, tmp_path, "create_disk: started", signal.SIGKILL)[0] == -signal.SIGKILL
    before = things(tmp_path)
    assert run(cli("deploy", "--saga-id", "blog"), tmp_path).returncode == 0
    assert {name for name in things(tmp_path) if name.endswith("-web")} == before
    listed = run(cli("list"), tmp_path).stdout.splitlines()
    assert [line.split()[:2] for line in listed[1:]] == [["blog", "completed"], ["web", "running"]]


def test_bad_input_is_refused_in_words(tmp_path: Path) -> None:
    for arguments, code, message in (
        (["destroy", "--saga-id", "nobody"], 1, "nobody: there is no such site"),
        (["destroy"], 2, "--saga-id"),
        (["deploy", "--saga-id", "../web"], 2, "NameInvalid: saga id: '../web' holds '/'"),
        (["deploy", "--saga-id", ""], 2, "NameInvalid: saga id: it is empty"),
    ):
        done = run(cli(*arguments), tmp_path)
        assert (done.returncode, done.stdout) == (code, "")
        assert message in done.stderr
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "cloud").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) in ([], ["state"])


PERSISTENT = ["-m", "examples.persistent_cli"]


def test_an_id_that_stands_elsewhere_is_refused(tmp_path: Path) -> None:
    first = run([*PERSISTENT, "deploy", "--saga-id", "x", "--zone", "north"], tmp_path)
    assert first.returncode == 0, first.stderr
    before = sorted((path.name, path.read_bytes()) for path in (tmp_path / "cloud").iterdir())
    again = run([*PERSISTENT, "deploy", "--saga-id", "x", "--zone", "south"], tmp_path)
    assert again.returncode == 1
    assert again.stdout == ""
    assert "SagaExists: saga x: the id is taken" in again.stderr
    same = run([*PERSISTENT, "deploy", "--saga-id", "x", "--zone", "north"], tmp_path)
    assert (same.returncode, same.stdout.splitlines()[0]) == (0, "x: it is there already")
    assert sorted((path.name, path.read_bytes()) for path in (tmp_path / "cloud").iterdir()) == before


def test_a_site_without_an_id_gets_one_of_its_own(tmp_path: Path) -> None:
    names: list[str] = []
    for _ in range(2):
        done = run([*PERSISTENT, "deploy"], tmp_path)
        assert done.returncode == 0, done.stderr
        names.append(done.stdout.partition(":")[0])
    assert len(set(names)) == 2
    listed = run([*PERSISTENT, "list"], tmp_path).stdout
    assert all(name in listed for name in names)
    assert run([*PERSISTENT, "deploy", "--saga-id", ""], tmp_path).returncode == 2


@pytest.mark.parametrize(
    ("variables", "region"),
    [
        ({}, "us-west-2"),
        ({"AWS_REGION": "", "AWS_DEFAULT_REGION": ""}, "us-west-2"),
        ({"AWS_REGION": "", "AWS_DEFAULT_REGION": "eu-west-1"}, "eu-west-1"),
        ({"AWS_REGION": "eu-north-1", "AWS_DEFAULT_REGION": "eu-west-1"}, "eu-north-1"),
    ],
    ids=str,
)
def test_the_region_of_a_network_has_a_default(
    variables: dict[str, str], region: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from examples.aws_infrastructure.__main__ import parser

    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    options = parser().parse_args(["deploy"])
    assert (options.region, options.saga_id) == (region, None)
    with pytest.raises(SystemExit):
        parser().parse_args(["deploy", "--region", ""])
