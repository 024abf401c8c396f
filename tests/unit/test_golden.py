"""Logs that releases have stored are read for ever, mean what they meant, and are written the same way."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from compensate.codec.records import Row, decode_dag, encode_dag, from_rows, to_rows
from compensate.core import events as e
from compensate.core.dag import Dag
from compensate.core.events import Event
from compensate.core.machine import Machine
from compensate.core.plan import Plan
from compensate.errors import CorruptLog
from compensate.testing.checker import check

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "tests" / "golden").glob("*/*.json"))


class Golden(msgspec.Struct, forbid_unknown_fields=True):
    """One stored file, as `scripts/golden` writes it."""

    saga: str
    dag: str
    rows: list[tuple[int, int, float, str, str, int, str, int]]
    status: str
    nodes: dict[str, str]

    def stored_rows(self) -> list[Row]:
        return [(*row[:6], row[6].encode(), row[7]) for row in self.rows]

    def read(self) -> tuple[Dag, list[Event]]:
        return decode_dag(self.dag.encode()), from_rows(self.saga, self.stored_rows())


def load(path: Path) -> Golden:
    return msgspec.json.decode(path.read_bytes(), type=Golden)


def replayed(path: Path) -> None:
    """Raise unless the file reads as it did when it was written."""
    golden = load(path)
    dag, events = golden.read()
    machine = Machine.fold(Plan(dag), golden.saga, events, events[-1].epoch)
    assert machine.status == golden.status
    assert {name: machine.state[i] for name, i in machine.plan.index.items()} == golden.nodes
    assert check(dag, events, saga_id=golden.saga) == []
    assert to_rows(events, 0) == golden.stored_rows()
    assert encode_dag(dag) == golden.dag.encode()


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_stored_log_is_read_as_it_was_meant_and_written_byte_for_byte(path: Path) -> None:
    replayed(path)


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_stored_log_without_one_of_its_rows_is_refused(path: Path) -> None:
    golden = load(path)
    for missing in range(len(golden.rows) - 1):
        with pytest.raises(CorruptLog):
            from_rows(golden.saga, [row for i, row in enumerate(golden.stored_rows()) if i != missing])


def events_of(files: Iterable[Path]) -> list[Event]:
    return [event for path in files for event in load(path).read()[1]]


def test_every_event_type_and_every_reason_stands_in_a_stored_log() -> None:
    events = events_of(FILES)
    assert {event.type for event in events} == set(e.PAYLOADS)
    assert {x.data.reason for x in events if isinstance(x.data, e.InDoubt)} == set(get_args(e.Doubt))
    assert {x.data.cause for x in events if isinstance(x.data, e.Rollback)} == set(get_args(e.Cause))
    assert max(event.epoch for event in events) > 1


def test_todays_runtime_still_makes_every_one_of_them_and_overwrites_none(tmp_path: Path) -> None:
    kept = tmp_path / "chain.json"
    kept.write_text("what a release wrote")
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "golden", "--into", tmp_path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert kept.read_text() == "what a release wrote"
    kept.unlink()
    made = sorted(tmp_path.glob("*.json"))
    assert {path.name for path in made} >= {path.name for path in FILES} - {"chain.json"}
    for path in made:
        replayed(path)
