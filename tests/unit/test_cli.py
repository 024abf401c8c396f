"""The command line inside one process: codes, messages, documents, words, and what it never touches."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from compensate import errors
from compensate.cli import codes, main
from compensate.cli.output import Command
from compensate.cli.tree import STYLES, tree
from compensate.codec import records as r
from compensate.core import events as e
from compensate.core import states as s
from compensate.core.events import Event
from compensate.core.names import LONGEST
from compensate.inspection.snapshot import Snapshot
from compensate.inspection.timeline import Timeline
from compensate.stores.base import SagaRecord, StoredSaga
from tests.support.cli import SHOP
from tests.support.driving import dag, node

Type = Callable[..., tuple[int, str, str]]

COMMANDS = (
    "run resume ls show events graph check rollback retry skip resolve pause unpause delete".split()  # noqa: SIM905
)


@pytest.fixture
def type_(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Type:
    """Types a command in a folder with the shop's code; gives the exit code, stdout and stderr."""
    shutil.copy(SHOP, tmp_path / "shop.py")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)  # pyright: ignore[reportUnknownMemberType]
    for name in ("COMPENSATE_STORE", "COMPENSATE_APP", "COMPENSATE_DEPS"):
        monkeypatch.delenv(name, raising=False)
    before = set(sys.modules)

    def type_(*words: str) -> tuple[int, str, str]:
        code = main(list(words))
        out, err = capsys.readouterr()
        for name in set(sys.modules) - before:
            if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(
                sys.modules[name].__file__
            ):
                del sys.modules[name]  # each command reads the code anew, as a process would
        return code, out, err

    return type_


ONE = ("run", "shop:order", "--params", '{"item": "book"}', "--id", "o1")


# -- codes and help -----------------------------------------------------------------------------


def test_every_error_of_the_library_has_an_exit_code_of_its_kind() -> None:
    found = {
        name: codes.of_error(kind("x"))
        for name, kind in vars(errors).items()
        if isinstance(kind, type)
        and issubclass(kind, errors.CompensateError)
        and not issubclass(kind, errors.SagaError | errors.ActionFailed)
    }
    foreseen = {name for name, code in found.items() if code != codes.UNEXPECTED}
    assert found["SagaNotFound"] == found["ActionNotFound"] == codes.NOT_FOUND
    assert found["CorruptLog"] == found["Unavailable"] == found["UnsupportedVersion"] == codes.STORE
    assert found["SagaExists"] == found["IllegalRequest"] == codes.REFUSED
    assert found["ParamsInvalid"] == found["StoreUrlInvalid"] == found["NameInvalid"] == codes.BAD_INPUT
    # What only user code raises, inside actions, never reaches the command line.
    assert set(found) - foreseen <= {
        "CompensateError",
        "SerializeFailed",
        "Stopped",
        "NoEffect",
        "Unknown",
        "Permanent",
        "Refused",
        "InjectedError",
    }


def test_the_help_lists_every_command_and_every_exit_code(type_: Type) -> None:
    code, out, _ = type_("--help")
    assert code == 0
    for name in COMMANDS:
        assert re.search(rf"^  {name} +\S.*\S$", out, re.MULTILINE), name
    for number, meaning in codes.MEANINGS.items():
        assert f"{number:>3}  {meaning}" in out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_the_options_that_all_have(type_: Type, name: str) -> None:
    code, out, _ = type_(name, "--help")
    assert code == 0
    for option in ("--store URL", "--json", "--debug"):
        assert option in out
    assert "JSON" in out or "json" in out


def test_without_its_packages_the_command_line_names_the_extra() -> None:
    script = (
        "import sys; sys.modules['click'] = None; from compensate.cli import main; sys.exit(main(['ls']))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "compensate[cli]" in done.stderr


def test_importing_the_package_of_the_command_line_imports_neither_click_nor_rich() -> None:
    script = "import sys, compensate.cli; sys.exit(bool({'click', 'rich'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


# -- bad input ----------------------------------------------------------------------------------

BAD: list[tuple[tuple[str, ...], int, str]] = [
    (("run", "shop:ordr"), 2, "did you mean order?"),
    (("run", "shop:nothing"), 2, "it has: order, reserving"),
    (("run", "shop:record"), 2, "is a function, no saga"),
    (("run", "shop:reserve"), 2, "is an action, no saga; call it in a function"),
    (("run", "shop"), 2, "names no saga"),
    (("run", "shopp:order"), 2, "no module named 'shopp'"),
    (("run", "shop.py:order"), 2, "name the module as for `python -m`: 'shop'"),
    (("run", "./lib/shop.py:order"), 2, "'lib.shop'"),
    (("run", "a b:order"), 2, "is no module name"),
    (("run", "raises:order"), 2, "RuntimeError: no config (line 1 of "),
    (("run", "imports:order"), 2, "No module named 'nowhere'"),
    (("run", "syntax:order"), 2, "SyntaxError: "),
    (("run", "exits:order"), 2, "SystemExit: 7"),
    (("run", "wrong:order"), 2, "wrong.py"),
    (("run", "shop:order", "--params", "{"), 2, "JSON object"),
    (("run", "shop:order", "--params", "[]"), 2, "JSON object"),
    (("run", "shop:order", "--params", "{}"), 2, "param 'item' is missing"),
    (("run", "shop:order", "--params", '{"item": 1}'), 2, "parameter item"),
    (("run", "shop:order", "--params", '{"item": "x", "n": 1}'), 2, "no param 'n'"),
    (("run", "shop:order", "--params", "@nothing.json"), 2, "No such file or directory: nothing.json"),
    ((*ONE[:-1], "i" * 300), 2, f"at most {LONGEST}"),
    ((*ONE[:-1], "../x"), 2, "holds '/'"),
    ((*ONE[:-1], ".."), 2, "choose another"),
    ((*ONE[:-1], "a\0b"), 2, "holds '\\x00'"),
    ((*ONE[:-1], ""), 2, "it is empty"),
    ((*ONE, "--store", "nonsense"), 2, "the forms are"),
    ((*ONE, "--store", "oracle://x"), 2, "there is no store 'oracle'"),
    ((*ONE, "--store", "sqlite:///no/such/folder/a.db"), 6, "does not exist"),
    ((*ONE, "--store", "sqlite:///shop.py"), 6, "no SQLite database"),
    ((*ONE, "--deps", "shop:nothing"), 2, "no factory 'nothing'"),
    ((*ONE, "--deps", "shop:SHOP_TIME"), 2, "no factory"),
    ((*ONE, "--app", "shopp"), 2, "no module named 'shopp'"),
    (("show", "o2"), 5, "no saga 'o2'"),
    (("show", "i" * 300), 5, f"no saga '{'i' * 40}'… (300 characters; none is so long) in this store"),
    (("events", "o2"), 5, "no saga 'o2'"),
    (("graph", "o2"), 5, "no saga 'o2'"),
    (("graph", "shop:ordr"), 2, "did you mean order?"),
    (("graph", "shopp:order"), 2, "no module named 'shopp'"),
    (("graph", "o1", "-o", "no/such/folder.svg"), 2, "No such file or directory"),
    (("rollback", "o2"), 5, "no saga 'o2'"),
    (("resume", "o2"), 5, "no saga 'o2'"),
    (("resume",), 2, "say which saga by its id, or --all"),
    (("resume", "shop:order"), 2, "say which saga by its id, or --all"),
    (("delete", "o2"), 5, "no saga 'o2'"),
    (("retry", "o1", "reserve", "--app", "shop"), 7, "the node is not stuck"),
    (("pause", "o1", "--app", "shop"), 7, "cannot be paused"),
    (("ls", "--status", "fine"), 2, "is not one of"),
    (("ls", "--limit", "0"), 2, "not in the range"),
    (("ls", "--name", "\udcff"), 2, "saga name"),
    (("ls", "--cursor", "x"), 7, "cursor"),
    (("lss",), 2, "see compensate --help"),
    (("check", "empty"), 2, "has no saga"),
]


@pytest.mark.parametrize(("words", "code", "said"), BAD, ids=[" ".join(words)[:60] for words, _, _ in BAD])
def test_bad_input_is_one_clear_message_and_a_code(
    type_: Type, tmp_path: Path, words: tuple[str, ...], code: int, said: str
) -> None:
    for name, text in {
        "raises": "raise RuntimeError('no config')",
        "imports": "import nowhere",
        "syntax": "def order(:",
        "exits": "raise SystemExit(7)",
        "empty": "x = 1",
        "wrong": "from compensate import saga\n@saga\ndef order(x: int) -> int:\n    return x + 1\n",
    }.items():
        (tmp_path / f"{name}.py").write_text(text)
    assert type_(*ONE)[0] == 0
    got, out, err = type_(*words)
    assert (got, out) == (code, "")
    assert said in err
    assert err.startswith("compensate: error: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err

    got, out, err = type_(*words, "--json")
    assert (got, out) == (code, "")
    error = json.loads(err)["error"]
    assert error["code"] == code
    assert said in error["message"]


def test_debug_shows_the_traceback(type_: Type) -> None:
    code, _, err = type_("run", "shop:ordr", "--debug")
    assert code == 2
    assert "Traceback (most recent call last)" in err
    assert err.splitlines()[-1].startswith("compensate: error: ")


def test_bad_params_make_no_store(type_: Type, tmp_path: Path) -> None:
    assert type_("run", "shop:order", "--params", "{}")[0] == 2
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "__pycache__") == ["shop.py"]


LOOKING: list[tuple[str, ...]] = [
    ("ls",),
    ("show", "o1"),
    ("events", "o1"),
    ("events", "o1", "--follow"),
    ("graph", "o1"),
    ("check", "shop"),
    ("resume", "o1", "shop"),
    ("resume", "--all", "shop"),
    ("rollback", "o1"),
    ("retry", "o1", "n"),
    ("skip", "o1", "n"),
    ("resolve", "o1", "n"),
    ("pause", "o1"),
    ("unpause", "o1"),
    ("delete", "o1"),
]


@pytest.mark.parametrize("words", LOOKING, ids=[" ".join(words) for words in LOOKING])
@pytest.mark.parametrize("url", ["sqlite:///nothing.db", "file:///nothing", "memory://"])
def test_only_run_makes_a_store(type_: Type, tmp_path: Path, words: tuple[str, ...], url: str) -> None:
    code, _, err = type_(*words, "--store", url)
    assert code == 6
    assert f"no such store: {url}" in err
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "__pycache__") == ["shop.py"]


# -- where things come from ---------------------------------------------------------------------


def test_params_come_from_a_file_or_standard_input(
    type_: Type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import io

    (tmp_path / "p.json").write_text('{"item": "pen"}')
    assert (
        json.loads(type_("run", "shop:order", "--params", "@p.json", "--json")[1])["params"]["item"] == "pen"
    )
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"item": "ink"}')))
    assert json.loads(type_("run", "shop:order", "--params", "-", "--json")[1])["params"]["item"] == "ink"


def test_store_and_code_come_from_the_environment_and_hints_leave_them_out(
    type_: Type, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("COMPENSATE_STORE", "sqlite:///mine.db")
    monkeypatch.setenv("COMPENSATE_APP", "shop")
    assert type_(*ONE)[0] == 0
    assert (tmp_path / "mine.db").exists()
    assert Command("compensate", "sqlite:///mine.db")("resume", "o1", apps=["shop"]) == "compensate resume o1"
    assert type_("rollback", "o1")[0] == 0


def test_deps_are_made_entered_and_left(type_: Type, tmp_path: Path) -> None:
    (tmp_path / "needy.py").write_text(
        "from contextlib import asynccontextmanager\nfrom compensate import Ctx, action, saga\n"
        "@asynccontextmanager\nasync def make():\n"
        "    tell('in ')\n    yield {'greeting': 'hello'}\n    tell('out')\n"
        "def tell(word):\n    with open('told', 'a') as file:\n        file.write(word)\n"
        "async def awaited():\n    return {'greeting': 'good day'}\n"
        "def raises():\n    raise OSError('no network')\n"
        "@action\nasync def greet(ctx: Ctx[dict], who: str) -> str:\n    return f\"{ctx.deps['greeting']} {who}\"\n"
        "@saga\ndef greeting(who: str) -> str:\n    return greet(who)\n"
    )
    words = ("run", "needy:greeting", "--params", '{"who": "ann"}', "--json", "--deps")
    assert json.loads(type_(*words, "needy:make")[1])["output"] == "hello ann"
    assert (tmp_path / "told").read_text() == "in out"
    assert json.loads(type_(*words, "needy:awaited")[1])["output"] == "good day ann"
    code, _, err = type_(*words[:-2], "--deps", "needy:raises")
    assert (code, "--deps needy:raises raised OSError: no network" in err) == (1, True)


@pytest.mark.parametrize("saga_id", ["a b", "-x", "--all", "it's", "$HOME", "a:b", "ü", "a;b"])
def test_hints_are_commands_that_a_shell_reads_back(saga_id: str, type_: Type) -> None:
    assert type_("run", "shop:order", "--params", '{"item": "x"}', f"--id={saga_id}")[0] == 0
    typed = shlex.split(Command("compensate", "sqlite:///compensate.db")("rollback", saga_id, apps=["shop"]))
    assert type_(*typed[1:])[0] == 0
    assert json.loads(type_("show", "--json", "--", saga_id)[1])["status"] == "rolled_back"


# -- documents ----------------------------------------------------------------------------------


def test_a_saga_is_one_document_with_all_that_a_script_may_ask(type_: Type) -> None:
    code, out, err = type_(
        "run", "shop:order", "--params", '{"item": "x", "fail": true}', "--id", "o1", "--json"
    )
    assert (code, err, out.count("\n")) == (3, "", 1)
    saga = json.loads(out)
    assert saga == {**json.loads(type_("show", "o1", "--json")[1]), "interrupted": False}
    assert saga["params"] == {"item": "x", "cents": 100, "fail": True}
    assert saga["rollback"] == {
        "cause": "failure",
        "node": "ship",
        "who": "",
        "why": "compensate.errors.NoEffect: no lorry today",
    }
    nodes = {node["node"]: node for node in saga["nodes"]}
    assert {name: node["state"] for name, node in nodes.items()} == {
        "reserve": "undone",
        "charge": "undone",
        "ship": "failed",
    }
    assert nodes["ship"]["error"]["type"] == "compensate.errors.NoEffect"
    assert nodes["reserve"]["output"] == "hold-x"
    assert (
        nodes["reserve"]["undo_ended_at"]
        >= nodes["reserve"]["undo_started_at"]
        >= nodes["reserve"]["ended_at"]
    )


def test_what_an_action_prints_does_not_get_into_a_document(type_: Type, tmp_path: Path) -> None:
    (tmp_path / "loud.py").write_text(
        "from compensate import action, saga\nprint('imported')\n@action\ndef act(x: int) -> int:\n"
        "    print('acting')\n    return x\n@saga\ndef loud(x: int) -> int:\n    return act(x)\n"
    )
    code, out, err = type_("run", "loud:loud", "--params", '{"x": 1}', "--json")
    assert (code, json.loads(out)["output"]) == (0, 1)
    assert err == "imported\nacting\n"
    assert "acting" in type_("run", "loud:loud", "--params", '{"x": 1}')[1]


def test_sagas_are_listed_by_status_and_name_page_after_page(type_: Type) -> None:
    for k in range(5):
        assert type_("run", "shop:reserving", "--params", '{"item": "x"}', "--id", f"r{k}")[0] == 0
    assert type_(*ONE)[0] == 0
    assert type_("rollback", "o1", "--app", "shop")[0] == 0

    def ids(*words: str) -> list[str]:
        return [saga["id"] for saga in json.loads(type_("ls", "--json", *words)[1])["sagas"]]

    assert ids() == ["o1", "r4", "r3", "r2", "r1", "r0"]
    assert ids("--status", "rolled_back") == ids("--name", "order") == ["o1"]
    assert ids("--name", "nothing") == []
    first = json.loads(type_("ls", "--json", "--limit", "4")[1])
    assert [saga["id"] for saga in first["sagas"]] == ["o1", "r4", "r3", "r2"]
    assert ids("--cursor", first["cursor"]) == ["r1", "r0"]
    assert ids("--limit", "1", "--all") == ids()
    code, out, err = type_("ls", "--limit", "2")
    assert (code, len(out.splitlines())) == (0, 3)
    assert "--cursor" in err


@pytest.mark.parametrize(
    ("format", "begins"), [("text", "order"), ("dot", "digraph"), ("mermaid", "---"), ("svg", "<svg")]
)
def test_a_definition_and_a_stored_saga_are_drawn_in_each_format(
    type_: Type, tmp_path: Path, format: str, begins: str
) -> None:
    assert type_(*ONE)[0] == 0
    drawn = [type_("graph", source, "--format", format)[1] for source in ("shop:order", "o1")]
    assert all(one.startswith(begins) for one in drawn)
    assert "completed" in drawn[1]
    assert format == "svg" or "completed" not in drawn[0]  # a svg's style names every state
    assert drawn[0] != drawn[1]
    assert type_("graph", "o1", "--format", format, "-o", "picture")[0] == 0
    assert (tmp_path / "picture").read_text(encoding="utf-8") == drawn[1]
    assert json.loads(type_("graph", "o1", "--format", format, "--json")[1]) == {
        "format": format,
        "graph": drawn[1],
    }


def test_an_id_that_looks_like_a_definition_is_found_in_the_store(type_: Type) -> None:
    assert type_("run", "shop:order", "--params", '{"item": "x"}', "--id", "eu:first")[0] == 0
    assert "completed" in type_("graph", "eu:first")[1]


def test_what_a_terminal_would_obey_is_taken_out_of_what_is_shown(type_: Type, tmp_path: Path) -> None:
    (tmp_path / "evil.py").write_text(
        "from compensate import action, saga\n@action\ndef act(x: int) -> int:\n"
        "    raise ValueError('\\x1b[2J\\x1b]0;gotcha\\x07 [bold]and[/bold] \\n\\r more')\n"
        "@saga\ndef evil(x: int) -> int:\n    return act(x)\n"
    )
    for words in (
        ("run", "evil:evil", "--params", '{"x": 1}', "--id", "e1"),
        ("show", "e1"),
        ("show", "e1", "--traceback"),
        ("events", "e1"),
        ("graph", "e1"),
    ):
        _, out, err = type_(*words)
        assert "\x1b" not in out + err, words
        assert "\x07" not in out + err, words
        assert "gotcha" in out, words
        assert "[bold]and[/bold]" in out, words


# -- the tree -----------------------------------------------------------------------------------


def progress(events: list[Event], *nodes: Any, at: float = 100.0) -> Timeline:
    """A saga as far as these events go."""
    graph = dag(*nodes)
    encoded = r.encode_dag(graph)
    created = Event(1, 1, at, e.SAGA_CREATED, data=e.Created(b"{}"))
    log = [
        created,
        *(Event(k, 1, ev.at, ev.type, ev.node, ev.attempt, ev.data) for k, ev in enumerate(events, 2)),
    ]
    record = SagaRecord("s1", "d", r.fingerprint(encoded), "running", False, False, 1, None, len(log), at, at)
    snapshot = Snapshot(StoredSaga(record, encoded, log))
    return Timeline(snapshot.fold, snapshot.events)


def ev(type: str, node: str = "", attempt: int = 0, at: float = 100.0, data: Any = None) -> Event:
    return Event(0, 1, at, type, node, attempt, data)


def drawn(shown: Timeline, now: float = 110.0, width: int = 100, **more: Any) -> list[str]:
    console = Console(width=width, no_color=True, force_terminal=False, legacy_windows=False)
    with console.capture() as capture:
        console.print(tree(shown, now, width=width, **more))
    return capture.get().splitlines()


BOOM = e.ErrorInfo("shop.Boom", "it broke")


def test_the_tree_tells_when_the_next_attempt_is() -> None:
    shown = progress(
        [ev(e.STARTED, "a", 1), ev(e.FAILED, "a", 1, 101.0, e.Failed(BOOM, 112.5))],
        node("a"),
        node("b", "a"),
    )
    line = drawn(shown)[1]
    assert "✗ a  failed" in line
    assert "next attempt in 2.5 s" in line
    assert "Boom: it broke" in line
    assert "next attempt now" in drawn(shown, now=113.0)[1]


def test_the_tree_counts_attempts_of_do_and_undo_and_their_times() -> None:
    turned = [
        ev(e.STARTED, "a", 1),
        ev(e.FAILED, "a", 1, 101.0, e.Failed(BOOM, 101.0)),
        ev(e.STARTED, "a", 2, 101.0),
    ]
    assert "running, attempt 2" in drawn(progress(turned, node("a"), node("b", "a")))[1]
    assert "9.0 s" in drawn(progress(turned, node("a"), node("b", "a")))[1]
    undoing = [
        ev(e.STARTED, "a", 1),
        ev(e.COMPLETED, "a", 1, 102.0, e.Completed(b"1")),
        ev(e.STARTED, "b", 1, 102.0),
        ev(e.FAILED, "b", 1, 103.0, e.Failed(BOOM)),
        ev(e.SAGA_ROLLBACK, at=103.0, data=e.Rollback("failure", "b", why="shop.Boom: it broke")),
        ev(e.UNDO_STARTED, "a", 1, 103.0),
        ev(e.UNDO_FAILED, "a", 1, 104.0, e.UndoFailed(BOOM, 104.5)),
        ev(e.UNDO_STARTED, "a", 2, 104.5),
    ]
    lines = drawn(progress(undoing, node("a"), node("b", "a", undo="none")), now=106.0)
    assert lines[1] == "  b failed: Boom: it broke"
    assert re.search(r"◑ a  undoing, attempt 2 +2\.0 s +undo 1\.5 s +Boom: it broke", lines[2])
    assert re.search(r"✗ b  failed +1\.0 s +Boom: it broke", lines[3])


@pytest.mark.parametrize("width", [20, 40, 80, 200])
@pytest.mark.parametrize("height", [4, 10, 24])
def test_the_tree_fits_and_counts_what_it_leaves_out(width: int, height: int) -> None:
    nodes = [node(f"n{k}", *([f"n{k - 1}"] if k else [])) for k in range(50)]
    events: list[Event] = []
    for k in range(30):
        events += [ev(e.STARTED, f"n{k}", 1), ev(e.COMPLETED, f"n{k}", 1, data=e.Completed(b"1"))]
    shown = progress([*events, ev(e.STARTED, "n30", 1)], *nodes)
    lines = drawn(shown, width=width, height=height)
    assert len(lines) <= height
    assert all(len(line) <= width for line in lines)
    assert any("n30" in line for line in lines)
    assert f"… and {50 - (len(lines) - 2)} more"[: width - 1] in lines[-1]


def test_the_tree_is_drawn_in_ascii_where_the_terminal_can_do_no_more() -> None:
    shown = progress([ev(e.STARTED, "a", 1)], node("a"), node("b", "a"))
    assert "".join(drawn(shown, ascii_only=True)).isascii()


def test_every_state_and_status_has_a_colour_of_its_own_or_shares_it_knowingly() -> None:
    from typing import get_args

    assert set(STYLES) == {*get_args(s.NodeState), *get_args(s.SagaStatus)}


def test_run_says_that_a_saga_had_ended_before_only_of_one_that_had(type_: Type, tmp_path: Path) -> None:
    (tmp_path / "quick.py").write_text(
        "from compensate import action, saga\n"
        "@action\nasync def one() -> int:\n    return 1\n"
        "@saga\ndef quick() -> int:\n    return one()\n"
    )
    run = ("run", "quick:quick", "--id", "q1")
    code, _, err = type_(*run)
    assert (code, "had ended before" in err) == (0, False)
    code, _, err = type_(*run)
    assert (code, "had ended before" in err) == (0, True)
