"""`python -m compensate.testing.simulation`: play many histories, or one again."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import get_args

import msgspec

from compensate.testing.simulation.generate import generate
from compensate.testing.simulation.history import play
from compensate.testing.simulation.scenario import Scenario, World, decode, encode
from compensate.testing.simulation.sweep import Report, shrink_failure, sweep
from compensate.testing.simulation.tell import tell
from compensate.testing.simulation.verdict import violations

_COMMAND = "python -m compensate.testing.simulation"


def main(arguments: list[str] | None = None) -> int:
    """Run the command. Returns its exit code: 1 if something was violated."""
    parser = argparse.ArgumentParser(prog=_COMMAND, description="Play simulated histories and judge them.")
    parser.add_argument("--histories", type=_positive, default=1000, help="how many (default: 1000)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the first (default: 1)")
    parser.add_argument(
        "--world", choices=get_args(World), default="keyed", help="what participants do with keys"
    )
    parser.add_argument("--jobs", type=_positive, default=1, help="in how many processes (default: 1)")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    one = parser.add_mutually_exclusive_group()
    one.add_argument("--replay", type=int, metavar="SEED", help="play this one history and tell it")
    one.add_argument("--file", type=_scenario_in, help="play the scenario in this file and tell it")
    parser.add_argument("--shrink", action="store_true", help="with --replay or --file: make it small first")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="write the (shrunken) scenario there")
    given = parser.parse_args(arguments)
    if given.replay is not None or given.file is not None:
        seed: int = given.replay or 0
        scenario: Scenario = given.file or generate(seed, given.world)
        return _one(scenario, shrunken=given.shrink, keep=given.keep)
    return _many(given.histories, given.seed, given.world, given.jobs, given.json, given.keep)


def _positive(text: str) -> int:
    """A sweep of nothing would find nothing wrong."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return int(text)


def _scenario_in(path: str) -> Scenario:
    try:
        return decode(Path(path).read_bytes())
    except (OSError, msgspec.DecodeError) as error:
        raise argparse.ArgumentTypeError(f"{path} holds no scenario, as --keep writes it: {error}") from None


def _one(scenario: Scenario, *, shrunken: bool, keep: Path | None) -> int:
    if shrunken and violations(play(scenario)):
        scenario = shrink_failure(scenario)
    if keep is not None:
        keep.write_bytes(encode(scenario) + b"\n")
    history = play(scenario)
    found = violations(history)
    _print(tell(history))
    _print("\n".join(found) if found else "no violations")
    return 1 if found else 0


def _many(histories: int, seed: int, world: World, jobs: int, as_json: bool, keep: Path | None) -> int:
    def progress(report: Report) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(
                f"\r{report.histories} histories, {report.failed} with violations, {report.seconds:.0f} s "
            )

    report = sweep(histories, seed, world, jobs, progress)
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K")
    if as_json:
        _print(msgspec.json.encode(report).decode())
    else:
        _print(_shown(report))
    if report.failures and keep is not None:
        keep.write_bytes(encode(shrink_failure(generate(report.failures[0].seed, world))) + b"\n")
    return 1 if report.failed else 0


def _shown(report: Report) -> str:
    parts = [
        (
            f"{report.histories} histories of the {report.world} world from seed {report.seed}: "
            f"{report.seconds:.1f} s, {report.virtual:.0f} virtual; digest {report.digest:012x}"
        ),
        "ends: " + _counts(report.ends),
        "faults: " + _counts(report.fired),
        "never fired: " + (", ".join(report.silent) or "none"),
        f"violations in {report.failed} histories"
        + (": " + _counts(report.violated) if report.violated else ""),
    ]
    for failure in report.failures[:5]:
        parts.append(f"seed {failure.seed}: {failure.violations[0]}")
        parts.append(f"  again: {_COMMAND} --replay {failure.seed} --world {report.world}")
    return "\n".join(parts)


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items(), key=lambda item: -item[1]))


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    sys.exit(main())
