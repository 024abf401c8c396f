"""Data that would steer a terminal, break a line or lose a value on its way through the command line."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from compensate import Coordinator, IllegalRequest, ParamsInvalid, Stuck, Unknown, action, connect, saga
from compensate.cli import main

HOSTILE = "".join(
    chr(code)
    for code in (
        *range(1, 0x20),
        *range(0x7F, 0xA0),
        0xAD,
        0x61C,
        0x180E,
        *range(0x200B, 0x2010),
        *range(0x2028, 0x202F),
        *range(0x2060, 0x2070),
        0xFEFF,
        *range(0xFFF9, 0xFFFC),
        0xFFFE,
        0x1D173,
        0xE0001,
        0xE0041,
    )
)
"""Control characters, line breaks, marks that reorder text, and what is not seen at all."""

APP = """
from compensate import Permanent, action, saga
from pathlib import Path
BAD = Path("bad.txt").read_bytes().decode()

@action(label=f"l{BAD}l")
async def give(text: str) -> dict[str, str]:
    print(f"to be seen: {len(text)}")
    return {f"k{text}k": f"v{text}v"}

@give.undo
async def _(output: dict[str, str]) -> None:
    raise Permanent(f"undo{BAD}undo")

@action
async def fail(text: str) -> str:
    raise ValueError(f"e{text}e")

@saga
def s(text: str) -> str:
    give(text)
    return fail(text)
"""

Type = Callable[..., tuple[int, str, str]]


@pytest.fixture
def type_(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Type]:
    (tmp_path / "hostile.py").write_text(APP)
    (tmp_path / "bad.txt").write_bytes(HOSTILE.encode())
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)  # pyright: ignore[reportUnknownMemberType]
    for name in ("COMPENSATE_STORE", "COMPENSATE_APP", "COMPENSATE_DEPS"):
        monkeypatch.delenv(name, raising=False)

    def type_(*words: str) -> tuple[int, str, str]:
        sys.modules.pop("hostile", None)
        code = main(list(words))
        out, err = capsys.readouterr()
        return code, out, err

    yield type_
    sys.modules.pop("hostile", None)


def check_tame(text: str, what: object) -> None:
    raw = sorted({hex(ord(char)) for char in text if char in HOSTILE and char != "\n"})
    assert not raw, (what, raw)


COMMANDS = [
    ("ls",),
    ("show", "x"),
    ("show", "x", "--traceback"),
    ("events", "x"),
    ("graph", "x"),
    ("graph", "x", "--format", "dot"),
    ("graph", "x", "--format", "mermaid"),
    ("graph", "x", "--format", "svg"),
    ("graph", "hostile:s"),
    ("check", "hostile"),
    ("resume", "x", "--app", "hostile"),
    ("resume", "--all", "--app", "hostile"),
    ("retry", "x", "give", "--app", "hostile", "--reason", f"r{HOSTILE}r", "--who", f"w{HOSTILE}w"),
    ("retry", "x", f"n{HOSTILE}n", "--app", "hostile"),
    ("pause", f"id{HOSTILE}"),
    ("ls", "--cursor", f"c{HOSTILE}"),
    ("run", f"hostile:{HOSTILE}"),
    ("skip", "x", "give", "--app", "hostile", "--reason", f"r{HOSTILE}r", "--who", f"w{HOSTILE}w"),
    ("events", "x", "--after", "1"),
    ("show", "x", "--debug"),
    ("delete", "x"),
]


@pytest.mark.parametrize("how", [(), ("--json",), ("--debug",), ("--json", "--debug")])
def test_no_command_writes_what_steers_a_terminal(type_: Type, how: tuple[str, ...]) -> None:
    code, out, err = type_("run", "hostile:s", "--params", json.dumps({"text": HOSTILE}), "--id", "x", *how)
    assert code == 4, (out, err)
    commands = [("run",), *COMMANDS]
    said = [(out, err)]
    for words in COMMANDS:
        code, out, err = type_(*words, *how)
        said.append((out, err))
    for words, (out, err) in zip(commands, said, strict=True):
        if "--json" not in how and "svg" in words:
            continue  # a picture for a file; XML cannot hold the worst of them, and it has escapes for none
        check_tame(out, words)
        check_tame(err, words)
        if "--json" in how:
            for line in out.splitlines():
                json.loads(line)
            if "--debug" not in how:
                for line in err.splitlines():
                    if not line.startswith("to be seen"):
                        json.loads(line)


def test_json_says_the_same_as_the_data(type_: Type) -> None:
    type_("run", "hostile:s", "--params", json.dumps({"text": HOSTILE}), "--id", "x")
    _, out, _ = type_("show", "x", "--json")
    assert len(out.splitlines()) == 1
    shown = json.loads(out)
    assert shown["params"] == {"text": HOSTILE}
    assert {f"k{HOSTILE}k": f"v{HOSTILE}v"} in [node.get("output") for node in shown["nodes"]]
    _, out, _ = type_("events", "x", "--json")
    lines = out.splitlines()
    assert [json.loads(line)["seq"] for line in lines] == list(range(1, len(lines) + 1))


# -- a key given twice ------------------------------------------------------

TWICE = {
    '{"x": {}, "x": {}}': "x",
    '{"x": {}, "\\u0078": {}}': "x",
    '{"x": {"a": 1, "a": 1}}': "a",
    '{"x": {"a": {"b": [1, {"c": 1, "d": 2, "c": 3}]}}}': "c",
    '{"x": {"": 1, "": 2}}': "",
    '{"x": {"é": 1, "\\u00e9": 2}}': "é",
    '{"x": {"a": [[{"n": 1e400, "n": 2}]]}}': "n",
}


@action
async def keep(x: dict[str, object]) -> dict[str, object]:
    return x


@saga
def keeps(x: dict[str, object]) -> dict[str, object]:
    return keep(x)


@pytest.mark.parametrize("params", TWICE)
@pytest.mark.parametrize("way", ["inline", "file"])
def test_params_with_a_key_given_twice_are_refused(type_: Type, params: str, way: str) -> None:
    Path("hostile.py").write_text(
        "from compensate import action, saga\n"
        "@action\n"
        "async def keep(x: dict[str, object]) -> dict[str, object]:\n    return x\n"
        "@saga\n"
        "def s(x: dict[str, object]) -> dict[str, object]:\n    return keep(x)\n"
    )
    Path("params.json").write_text(params, encoding="utf-8")
    code, _, err = type_("run", "hostile:s", "--params", params if way == "inline" else "@params.json")
    assert (code, "given twice" in err, repr(TWICE[params]) in err) == (2, True, True), err
    assert not Path("compensate.db").exists()


@pytest.mark.parametrize("params", TWICE)
async def test_params_with_a_key_given_twice_are_refused_by_the_api(params: str) -> None:
    with pytest.raises(ParamsInvalid, match="given twice"):
        keeps.read_params(params.encode())
    async with Coordinator("memory://", sagas=[keeps]) as c:
        with pytest.raises(ParamsInvalid, match="given twice"):
            await c.start_json(keeps, params.encode())
        assert not (await c.list()).records


def test_one_key_in_several_objects_is_given_once_in_each() -> None:
    text = b'{"x": {"a": {"a": 1}, "b": [{"a": 1}, {"a": 2}], "big": 123456789012345678901234567890}}'
    assert json.loads(keeps.read_params(text))["x"]["b"] == [{"a": 1}, {"a": 2}]


@action
async def doubtful(x: int) -> dict[str, int]:
    raise Unknown("no answer")


@doubtful.undo
async def _(output: dict[str, int]) -> None: ...


@saga
def in_doubt(x: int) -> dict[str, int]:
    return doubtful(x)


def test_an_output_supplied_with_a_key_given_twice_is_refused() -> None:
    with connect("memory://", sagas=[in_doubt]) as c:
        run = c.start(in_doubt, 1)
        with pytest.raises(Stuck):
            run.result()
        with pytest.raises(IllegalRequest, match="'a' is given twice"):
            c.resolve(run.id, "doubtful", output='{"a": 1, "a": 2}')
        assert run.status() == "stuck"
