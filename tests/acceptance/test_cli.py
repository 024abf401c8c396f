"""The command line as people use it: real processes, a real SQLite file, real signals."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cli import Place, Started, wait_until

ONE = '{"item": "book"}'
FAILING = '{"item": "book", "fail": true}'


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    place.close()


def run_held(place: Place, at: str, effect: str, *more: str) -> Started:
    """A run that waits in the middle of a node."""
    place.hold(at)
    started = place.start("run", "shop:order", "--params", ONE, "--id", "o1", *more)
    place.wait_for(effect)
    return started


def type_hint(place: Place, text: str) -> list[str]:
    """The words of the command that a hint tells to type."""
    found = re.search(r"python -m (compensate .*)", text)
    assert found is not None, text
    return shlex.split(found.group(1))[1:]


def stick(place: Place) -> None:
    """A saga that is stuck at the undo of `reserve`."""
    place.breaks("release")
    assert place.type("run", "shop:order", "--params", FAILING, "--id", "o1").code == 4


# -- what a saga came to ------------------------------------------------------------------------


def test_a_completed_saga_ends_with_0_and_prints_its_output(place: Place) -> None:
    result = place.type("run", "shop:order", "--params", ONE, "--id", "o1")
    assert (result.code, result.err) == (0, "")
    assert result.out.splitlines()[-1] == 'output: "hold-book for 100"'
    assert place.effects() == ["do o1/reserve/do", "do o1/charge/do", "do ship"]


def test_a_saga_that_is_rolled_back_ends_with_3_and_every_undo_is_a_line(place: Place) -> None:
    result = place.type("run", "shop:order", "--params", FAILING, "--id", "o1")
    assert result.code == 3
    lines = [line.split(" ", 2)[2] for line in result.out.splitlines()]
    assert [line for line in lines if "undo" in line] == [
        "charge: undoing",
        next(line for line in lines if line.startswith("charge: undone [")),
        "reserve: undoing",
        next(line for line in lines if line.startswith("reserve: undone [")),
    ]
    assert lines[-1] == "saga: rolled back"
    assert place.effects()[-2:] == ["undo o1/charge/do", "undo o1/reserve/do"]


def test_a_stuck_saga_ends_with_4_and_the_commands_that_it_names_work_as_typed(place: Place) -> None:
    place.breaks("release")
    result = place.type("run", "shop:order", "--params", FAILING, "--id", "o1")
    assert result.code == 4
    assert "reserve needs a decision: Permanent: the warehouse is closed" in result.out
    typed = [line.strip() for line in result.out.splitlines() if "-m compensate" in line]
    assert [shlex.split(line)[3] for line in typed] == ["retry", "skip", "resolve"]
    place.mend("release")
    again = place.type(*type_hint(place, typed[0]))
    assert again.code == 3
    assert place.type("show", "o1", "--json").json["status"] == "rolled_back"


def test_the_same_id_again_goes_on_with_the_same_saga_and_with_other_params_it_is_refused(
    place: Place,
) -> None:
    first = place.type("run", "shop:order", "--params", ONE, "--id", "o1", "--json")
    effects = place.effects()
    again = place.type("run", "shop:order", "--params", ONE, "--id", "o1", "--json")
    assert (again.code, again.json) == (0, first.json)
    assert place.effects() == effects
    other = place.type("run", "shop:order", "--params", '{"item": "pen"}', "--id", "o1")
    assert other.code == 7
    assert "taken" in other.err


def test_each_event_is_a_line_as_soon_as_it_is_durable(place: Place) -> None:
    started = run_held(place, "charge", "do o1/charge/do")
    lines = [started.line() for _ in range(4)]
    assert started.process.poll() is None
    assert [line.split("Z ", 1)[1].split(" [")[0].strip() for line in lines][1:] == [
        "#2 reserve: started",
        "#3 reserve: completed",
        "#4 charge: started",
    ]
    place.let("charge")
    assert started.end().code == 0


def test_a_reader_that_goes_away_does_not_end_the_saga(place: Place) -> None:
    started = run_held(place, "reserve", "do o1/reserve/do")
    assert started.process.stdout is not None
    started.line()
    os.close(os.dup(started.process.stdout.fileno()))
    started.process.stdout.close()
    place.let("reserve")
    assert started.process.wait(60) == 0
    assert place.type("show", "o1", "--json").json["status"] == "completed"


# -- interruptions ------------------------------------------------------------------------------


def test_a_run_that_is_killed_goes_on_in_a_new_process_under_the_same_keys(place: Place) -> None:
    started = run_held(place, "charge", "do o1/charge/do")
    started.signal(signal.SIGKILL)
    assert started.end().code == -signal.SIGKILL
    assert place.type("show", "o1", "--json").json["status"] == "running"
    place.let("charge")
    result = place.type("resume", "o1", "shop:order")
    assert result.code == 0
    assert "charge: in doubt: the process ended while it ran" in result.out
    assert place.effects() == ["do o1/reserve/do", "do o1/charge/do", "do o1/charge/do", "do ship"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_lets_running_actions_land_and_tells_the_command_that_goes_on(
    place: Place, number: signal.Signals, code: int
) -> None:
    started = run_held(place, "charge", "do o1/charge/do")
    started.signal(number)
    assert started.process.stderr is not None
    assert started.process.stderr.readline().startswith("stopping: waiting up to 10 s for charge")
    place.let("charge")
    result = started.end()
    assert result.code == code
    assert "do ship" not in place.effects()
    states = {node["node"]: node["state"] for node in place.type("show", "o1", "--json").json["nodes"]}
    assert states == {"reserve": "completed", "charge": "completed", "ship": "pending"}
    assert place.type(*type_hint(place, result.err)).code == 0
    assert place.effects() == ["do o1/reserve/do", "do o1/charge/do", "do ship"]


def test_a_saga_that_ends_while_a_signal_is_carried_out_has_its_own_exit_code(place: Place) -> None:
    place.hold("reserve")
    started = place.start("run", "shop:reserving", "--params", ONE, "--id", "r1")
    place.wait_for("do r1/reserve/do")
    started.signal(signal.SIGTERM)
    assert started.process.stderr is not None
    started.process.stderr.readline()
    place.let("reserve")
    result = started.end()
    # The action's landing is recorded; the end is decided by whoever goes on.
    assert result.code == 143
    assert place.type("resume", "r1", "shop").code == 0


def test_a_second_signal_ends_at_once_and_the_saga_is_as_resumable_as_after_a_crash(place: Place) -> None:
    started = run_held(place, "ship", "do ship")
    started.signal(signal.SIGINT)
    assert started.process.stderr is not None
    assert started.process.stderr.readline().startswith("stopping")
    started.signal(signal.SIGINT)
    result = started.end()  # the thread of ship is still held
    assert result.code == 130
    assert "stopped at once" in result.err
    place.let("ship")
    assert place.type("resume", "o1", "shop").code == 0
    assert place.effects()[-2:] == ["do ship", "do ship"]


def test_an_interrupted_run_says_so_in_its_document(place: Place) -> None:
    started = run_held(place, "charge", "do o1/charge/do", "--json", "--drain", "0")
    started.signal(signal.SIGTERM)
    result = started.end()
    assert (result.code, result.err) == (143, "")
    assert result.json["status"] == "running"
    assert result.json["interrupted"] is True
    place.let("charge")
    assert place.type(*type_hint(place, result.json["resume"])).code == 0


# -- many sagas ---------------------------------------------------------------------------------


def test_resume_all_goes_on_with_what_it_has_code_for_and_leaves_the_rest_as_it_was(place: Place) -> None:
    (place.path / "other.py").write_text(
        "from compensate import action, saga\n@action\ndef lonely(n: int) -> int:\n    import time\n"
        "    open('effects', 'a').write('do lonely\\n')\n    time.sleep(600)\n    return n\n"
        "@saga\ndef alone(n: int) -> int:\n    return lonely(n)\n"
    )
    running = [
        run_held(place, "reserve", "do o1/reserve/do"),
        place.start("run", "shop:order", "--params", ONE, "--id", "o2"),
        place.start("run", "other:alone", "--params", '{"n":1}', "--id", "x"),
    ]
    place.wait_for("do o2/reserve/do")
    place.wait_for("do lonely")
    for one in running:
        one.signal(signal.SIGKILL)
        assert one.end().code == -signal.SIGKILL
    place.let("reserve")
    assert place.type("pause", "o2", "--app", "shop").code == 0
    result = place.type("resume", "--all", "shop", "--json")
    told = {line["id"]: line for line in result.lines}
    assert {saga_id: line["resumed"] for saga_id, line in told.items()} == {
        "o1": True,
        "o2": False,
        "x": False,
    }
    assert "no action is named 'lonely'" in told["x"]["because"]
    assert result.code == 7
    left = {saga["id"]: saga for saga in place.type("ls", "--json").json["sagas"]}
    assert {saga_id: (saga["status"], saga["paused"], saga["parked"]) for saga_id, saga in left.items()} == {
        "o1": ("completed", False, False),
        "o2": ("running", True, False),
        "x": ("running", False, False),
    }
    assert left["x"]["epoch"] == 1  # it was not even claimed


def test_a_saga_that_somebody_runs_is_followed_and_not_taken(place: Place) -> None:
    started = run_held(place, "charge", "do o1/charge/do")
    follower = place.start("resume", "o1", "shop")
    assert follower.process.stderr is not None
    assert "following it" in follower.process.stderr.readline()
    place.let("charge")
    assert (follower.end().code, started.end().code) == (0, 0)
    assert place.effects().count("do o1/charge/do") == 1


def test_a_follower_takes_over_when_the_process_that_ran_the_saga_is_killed(place: Place) -> None:
    started = run_held(place, "charge", "do o1/charge/do")
    follower = place.start("resume", "o1", "shop")
    assert follower.process.stderr is not None
    follower.process.stderr.readline()
    started.signal(signal.SIGKILL)
    assert started.end().code == -signal.SIGKILL
    place.let("charge")
    assert follower.end().code == 0
    assert place.effects().count("do o1/charge/do") == 2


# -- operators ----------------------------------------------------------------------------------


def test_a_rollback_from_another_process_is_carried_out_by_the_one_that_runs_the_saga(place: Place) -> None:
    started = run_held(place, "charge", "do o1/charge/do")
    asking = place.start("rollback", "o1", "--reason", "customer called", "--who", "ann")
    wait_until(lambda: place.type("show", "o1", "--json").json["rollback"] is not None, "the rollback")
    place.let("charge")
    assert asking.end().code == 0  # what was asked for
    assert started.end().code == 3  # not what was wanted
    rollback = place.type("show", "o1", "--json").json["rollback"]
    assert (rollback["who"], rollback["why"]) == ("ann", "customer called")


def test_a_completed_saga_is_rolled_back_with_its_code_and_without_it_nothing_changes(place: Place) -> None:
    assert place.type("run", "shop:order", "--params", ONE, "--id", "o1").code == 0
    without = place.type("rollback", "o1")
    assert without.code == 7
    assert "--app" in without.err
    assert place.type("ls", "--json").json["sagas"][0]["status"] == "completed"
    assert place.type("rollback", "o1", "--app", "shop").code == 0
    assert place.effects()[-2:] == ["undo o1/charge/do", "undo o1/reserve/do"]


def test_a_pause_from_another_process_holds_the_saga_until_unpause(place: Place) -> None:
    started = run_held(place, "reserve", "do o1/reserve/do")
    assert place.type("pause", "o1").code == 0
    place.let("reserve")
    wait_until(lambda: place.type("show", "o1", "--json").json["nodes"][0]["state"] == "completed", "reserve")
    assert place.effects() == ["do o1/reserve/do"]
    assert place.type("resume", "o1", "shop").code == 7
    unpaused = place.type("unpause", "o1", "--no-wait")
    assert (unpaused.code, unpaused.err) == (0, "")
    assert started.end().code == 0


def test_a_run_of_which_nobody_lives_is_not_parked_by_who_has_no_code_for_it(place: Place) -> None:
    started = run_held(place, "charge", "do o1/charge/do")
    started.signal(signal.SIGKILL)
    assert started.end().code == -signal.SIGKILL
    before = place.type("events", "o1", "--json").lines
    for verb in ("rollback", "pause"):
        result = place.type(verb, "o1")
        assert result.code == 7
        assert "--app module" in result.err
    assert place.type("resume", "o1").code == 7
    assert place.type("events", "o1", "--json").lines == before


@pytest.mark.parametrize(
    ("verb", "event", "state"), [("skip", "skipped", "skipped"), ("resolve", "resolved", "resolved")]
)
def test_an_operator_lets_go_of_a_stuck_node_and_who_and_why_are_recorded(
    place: Place, verb: str, event: str, state: str
) -> None:
    stick(place)
    result = place.type(
        verb, "o1", "reserve", "--app", "shop", "--who", "ann", "--reason", "it was sold", "--json"
    )
    assert result.code == 3
    assert {node["node"]: node["state"] for node in result.json["nodes"]}["reserve"] == state
    decided = next(one for one in place.type("events", "o1", "--json").lines if one["type"] == event)
    assert decided["data"] == {"who": "ann", "why": "it was sold"}


def test_an_operator_says_what_a_node_in_doubt_returned(place: Place) -> None:
    started = run_held(place, "charge", "do o1/charge/do", "--drain", "0")
    started.signal(signal.SIGKILL)
    assert started.end().code == -signal.SIGKILL
    place.let("charge")
    place.breaks("charge")  # so that it is re-run in vain
    assert place.type("rollback", "o1", "--app", "shop").code == 4
    result = place.type("resolve", "o1", "charge", "--output", "100", "--app", "shop")
    assert result.code == 3
    assert place.effects()[-2:] == ["undo o1/charge/do", "undo o1/reserve/do"]


def test_what_makes_no_sense_is_refused_and_changes_nothing(place: Place) -> None:
    stick(place)
    before = place.type("events", "o1", "--json").lines
    assert place.type("retry", "o1", "charge", "--app", "shop").code == 7
    assert place.type("rollback", "o1", "--app", "shop").code == 7
    assert place.type("pause", "o1", "--app", "shop").code == 7
    assert place.type("resolve", "o1", "reserve", "--output", "{", "--app", "shop").code == 7
    assert place.type("delete", "o1").code == 7
    unknown = place.type("retry", "o1", "reserv", "--app", "shop")
    assert (unknown.code, "did you mean 'reserve'" in unknown.err) == (5, True)
    assert place.type("events", "o1", "--json").lines == before


def test_a_saga_that_has_ended_is_deleted_with_its_log(place: Place) -> None:
    assert place.type("run", "shop:order", "--params", ONE, "--id", "o1").code == 0
    assert place.type("delete", "o1", "--json").json == {"id": "o1", "deleted": True}
    assert place.type("show", "o1").code == 5


# -- looking ------------------------------------------------------------------------------------


def test_events_are_followed_from_another_process_until_the_end(place: Place) -> None:
    started = run_held(place, "charge", "do o1/charge/do")
    following = place.start("events", "o1", "--follow", "--json")
    first = [json.loads(following.line())["type"] for _ in range(4)]
    assert first == ["saga_created", "started", "completed", "started"]
    place.let("charge")
    assert started.end().code == 0
    result = following.end()
    assert result.code == 0
    assert [one["seq"] for one in result.lines] == [5, 6, 7, 8]
    assert result.lines[-1]["type"] == "saga_completed"


def test_check_tells_sagas_of_an_older_dag_and_of_actions_that_are_gone(place: Place) -> None:
    started = run_held(place, "charge", "do o1/charge/do")
    started.signal(signal.SIGKILL)
    started.end()
    now = place.type("check", "shop", "--json")
    assert (now.code, [group["dag"] for group in now.json["stored"]]) == (0, ["today"])
    code = (place.path / "shop.py").read_text()
    (place.path / "shop.py").write_text(
        code.replace("paid = charge(hold, cents)", "paid = charge(hold, cents + 0)")
    )
    broken = place.type("check", "shop")
    assert broken.code == 2  # a definition that computes with a reference
    assert "shop.py" in broken.err
    (place.path / "shop.py").write_text(
        code.replace("return ship(hold, paid, fail)", "return ship.options(name='post')(hold, paid, fail)")
    )
    older = place.type("check", "shop:order", "--json")
    assert (older.code, [group["dag"] for group in older.json["stored"]]) == (0, ["older"])
    (place.path / "shop.py").write_text(
        code.replace("def charge(", "def bill(").replace("@charge.", "@bill.").replace("= charge(", "= bill(")
    )
    gone = place.type("check", "shop")
    assert gone.code == 8
    assert "no action is named 'charge'" in gone.out
