"""Histories fixed by a seed, over the real machine, executions, host and coordinator."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from compensate.testing.simulation.__main__ import main
from compensate.testing.simulation.generate import generate
from compensate.testing.simulation.history import play
from compensate.testing.simulation.scenario import Scenario, decode, encode, walk
from compensate.testing.simulation.sweep import Report, shrink_failure, sweep
from compensate.testing.simulation.verdict import lines, violations

REGRESSIONS = sorted((Path(__file__).parent / "regressions").glob("*.json"))


def _told(report: Report) -> str:
    return "\n".join(
        f"seed {failure.seed} ({report.world}): {failure.violations[0]}\n"
        f"  python -m compensate.testing.simulation --replay {failure.seed} --world {report.world} --shrink"
        for failure in report.failures
    )


@pytest.mark.slow
def test_no_line_of_the_guarantee_is_violated_where_participants_go_by_keys(seed: int) -> None:
    report = sweep(2_500, seed, "keyed", jobs=2)
    assert not report.failed, _told(report)
    assert report.histories == 2_500
    assert not report.silent, "faults that never fired"
    assert set(report.ends) == {"completed", "rolled_back", "stuck until decided"}, "everything has ended"


@pytest.mark.slow
def test_effects_leak_where_participants_ignore_keys(seed: int) -> None:
    report = sweep(400, seed, "naive")
    assert report.violated.get("S2", 0) > 5, "the control: late effects that no undo follows have to be seen"


@pytest.mark.deep
@pytest.mark.time_limit(1800)
def test_a_hundred_thousand_histories_violate_nothing(seed: int) -> None:
    report = sweep(100_000, seed, "keyed", jobs=os.cpu_count() or 1)
    assert not report.failed, _told(report)
    assert not report.silent, "faults that never fired"


@pytest.mark.parametrize("path", REGRESSIONS, ids=lambda path: path.stem)
def test_what_was_found_once_is_not_found_again(path: Path) -> None:
    assert not violations(play(decode(path.read_bytes())))


def test_a_seed_fixes_the_history_to_the_last_choice() -> None:
    for number in range(1, 40):
        scenario = generate(number)
        assert encode(generate(number)) == encode(scenario)
        assert play(scenario).digest == play(scenario).digest


def test_histories_do_not_depend_on_the_order_of_hashes() -> None:
    digests: set[int] = set()
    for hash_seed in ("0", "1", "4242"):
        made = subprocess.run(
            [
                sys.executable,
                "-m",
                "compensate.testing.simulation",
                "--histories",
                "60",
                "--seed",
                "9",
                "--json",
            ],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            check=True,
        )
        digests.add(msgspec.json.decode(made.stdout, type=Report).digest)
    assert len(digests) == 1


def test_another_schedule_makes_another_history() -> None:
    scenario = generate(11)
    other = msgspec.structs.replace(scenario, seed=12)
    assert play(scenario).digest != play(other).digest


def _first_failing(world: str = "naive") -> Scenario:
    for number in range(1, 2_000):
        scenario = generate(number, "naive")
        if "S2" in lines(violations(play(scenario))) and len(scenario.faults) > 3:
            return scenario
    raise AssertionError("no history of the naive world leaks")


def test_a_failing_scenario_shrinks_and_fails_in_the_same_way(tmp_path: Path) -> None:
    scenario = _first_failing()
    small = shrink_failure(scenario, tries=300)
    assert _size(small) < _size(scenario)
    kept = tmp_path / "kept.json"
    kept.write_bytes(encode(small))
    wanted = violations(play(scenario))[0].partition(":")[0]
    assert wanted in lines(violations(play(decode(kept.read_bytes()))))


def _size(scenario: Scenario) -> int:
    return len(list(walk(scenario.nodes))) + len(scenario.faults)


def test_a_failure_prints_its_seed_and_the_command_that_plays_it_again(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["--histories", "150", "--seed", "1", "--world", "naive"]) == 1
    out = capsys.readouterr().out
    command = next(line for line in out.splitlines() if "--replay" in line).partition("simulation ")[2]
    kept = tmp_path / "scenario.json"
    assert main([*command.split(), "--keep", str(kept)]) == 1
    again = capsys.readouterr().out
    assert "do" in again
    assert violations(play(decode(kept.read_bytes())))[0] in again


def test_a_sound_sweep_says_so_and_ends_with_zero(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--histories", "20", "--seed", "3"]) == 0
    assert "violations in 0 histories" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--histories", "0"], "--histories: '0' is no number above 0"),
        (["--histories", "-5"], "--histories: '-5' is no number above 0"),
        (["--jobs", "0"], "--jobs: '0' is no number above 0"),
        (["--file", "nowhere.json"], "nowhere.json holds no scenario"),
        (["--file", "broken.json"], "broken.json holds no scenario"),
        (["--file", "broken.json", "--replay", "1"], "holds no scenario"),
    ],
)
def test_what_cannot_be_played_is_refused_in_words_and_is_no_success(
    arguments: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("broken.json").write_text('{"seed": "one"}')
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert said in capsys.readouterr().err
