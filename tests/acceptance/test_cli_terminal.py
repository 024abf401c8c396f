"""The command line on a real terminal: what it draws, and that what it says can be read there and copied."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cli import Place
from tests.support.terminal import in_terminal, read_until, shown

ONE = '{"item": "book"}'
FAILING = '{"item": "book", "fail": true}'


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    place.close()


def test_on_a_terminal_the_saga_is_a_live_tree_that_says_states_in_words_and_colour(place: Place) -> None:
    place.hold("charge")
    place.breaks("release")
    with in_terminal(place, 24, 100, "run", "shop:order", "--params", FAILING, "--id", "o1") as (
        process,
        terminal,
    ):
        live = read_until(terminal, "◐ charge")
        live = read_until(terminal, "running", live)
        assert process.poll() is None
        assert "\x1b[?25l" in live  # the cursor is hidden while it draws
        assert "\x1b[32m● reserve" in live
        place.let("charge")
        end = read_until(terminal, "")
        assert process.wait(60) == 4
    assert "\x1b[?25h" in end
    whole = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", end).replace("\r", "")
    last = whole[whole.rindex("order  ✗ stuck") :].splitlines()
    assert [line.split("  ")[0] for line in last[1:5]] == [
        "",
        "1 ─── ✗ reserve",
        "2 ─── ↶ charge",
        "3 ─── ✗ ship",
    ]
    assert "undo failed" in last[2]
    assert "Permanent: the warehouse is closed" in last[2]
    assert last[5] == "reserve needs a decision: Permanent: the warehouse is closed"


def test_the_live_tree_fits_a_small_terminal_and_shows_what_runs(place: Place) -> None:
    steps = "\n".join(f"    x = step.options(name='step_{k}')(x)" for k in range(40))
    (place.path / "long.py").write_text(
        "import asyncio, pathlib\nfrom compensate import action, saga\n"
        "@action\nasync def step(x: int) -> int:\n"
        "    while x == 20 and pathlib.Path('hold.step').exists():\n        await asyncio.sleep(0.01)\n"
        f"    return x + 1\n@saga\ndef chain(x: int) -> int:\n{steps}\n    return x\n"
    )
    place.hold("step")
    with in_terminal(place, 12, 60, "run", "long:chain", "--params", '{"x": 0}') as (process, terminal):
        live = read_until(terminal, "◐ step_20")
        live = read_until(terminal, "more:", live)
        plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", live).replace("\r", "")
        frame = plain[plain.rindex("chain  ◐ running") :].splitlines()
        assert len(frame) <= 12
        assert all(len(line) <= 60 for line in frame)
        assert "… and 32 more" in frame[-1]
        place.let("step")
        read_until(terminal, "")
        assert process.wait(60) == 0


def test_ctrl_c_on_a_terminal_gives_the_cursor_back_and_tells_how_to_go_on(place: Place) -> None:
    place.hold("charge")
    with in_terminal(place, 24, 100, "run", "shop:order", "--params", ONE, "--id", "o1") as (
        process,
        terminal,
    ):
        live = read_until(terminal, "◐ charge")
        process.send_signal(signal.SIGINT)
        live = read_until(terminal, "stopping: waiting", live)
        place.let("charge")
        end = read_until(terminal, "", live)
        assert process.wait(60) == 130
    assert end.rindex("\x1b[?25h") > end.rindex("\x1b[?25l")
    assert "saga o1 can be resumed: python -m compensate resume o1 --app shop:order" in end


def test_long_lines_reach_the_terminal_whole_so_that_they_can_be_copied(place: Place) -> None:
    item = "a  book\u202e\x85 " * 10
    escaped = item.replace("\u202e", "\\u202e").replace("\x85", "\\u0085")
    params = f'{{"item":"{item}","cents":100,"fail":false}}'
    with in_terminal(place, 24, 80, "run", "shop:order", "--params", params, "--id", "o1") as (
        process,
        terminal,
    ):
        assert f'output: "hold-{escaped} for 100"' in read_until(terminal, "")
        assert process.wait(60) == 0
    assert f"params: {params.replace(item, escaped)}" in shown(place, 80, "show", "o1")
    created = shown(place, 80, "events", "o1")[0]
    assert created.endswith('"cents":100,"fail":false}')
    assert "saga: created with {" in created


def test_a_long_reason_reaches_the_terminal_whole(place: Place) -> None:
    (place.path / "long.py").write_text(
        "from compensate import action, saga\n@action\ndef step() -> int:\n    raise ValueError('why ' * 50)\n"
        "@saga\ndef one() -> int:\n    return step()\n"
    )
    place.type("run", "long:one", "--id", "o1")
    title, why, *_, error, _end = shown(place, 80, "show", "o1")
    assert title.startswith("one  ↶ rolled back")
    said = "ValueError: " + "why " * 49 + "why"
    assert (why, error) == (f"  step failed: {said}", f"step: {said}")


@pytest.mark.parametrize("columns", [60, 80, 140])
def test_a_list_fits_the_terminal_and_leaves_out_what_matters_least(place: Place, columns: int) -> None:
    for saga_id in ("o1", "x" * 90):
        place.type("run", "shop:order", "--params", ONE, "--id", saga_id)
    head, long, short = shown(place, columns, "ls")
    assert all(len(line) <= columns for line in (head, long, short))
    assert head.split()[:3] == ["ID", "SAGA", "STATUS"]
    assert "\u2026" in long
    assert ("UPDATED" in head, "CREATED" in head) == (columns >= 80, columns == 140)
    assert short.split()[0] == "o1"
    assert "x" * 90 in place.type("ls").out  # whole where it goes to a program
