"""Drawings: what they show, that other programs read them, and that no name breaks them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from compensate import render
from compensate.core import events as e
from compensate.core.commands import Ask, RunAction, RunUndo, WaitUntil
from compensate.core.dag import ActionNode, ConstantNode, Dag, Each, Ref, SubsagaNode
from compensate.core.machine import Machine
from compensate.core.plan import Plan
from compensate.core.policy import Retry
from compensate.core.states import NODE, NodeState
from compensate.render.states import page
from compensate.render.words import columns, cut, wrap

SVG = "{http://www.w3.org/2000/svg}"
NASTY = "a \"b\" \\ <c> & 'd' #quot; `e` \\N é 日本 🚀 --> ]) end"
RENDERERS: dict[str, Callable[[render.Source], str]] = {
    "dot": render.dot,
    "mermaid": render.mermaid,
    "text": render.text,
    "svg": render.svg,
    "html": render.html,
}
EVERY_RENDERER = pytest.mark.parametrize("draw", list(RENDERERS.values()), ids=list(RENDERERS))


def node(name: str, *after: str, **more: object) -> ActionNode:
    fields: dict[str, object] = {"undo": "output", **more}
    return ActionNode(name, name, after=after, **fields)  # type: ignore[arg-type]


VPC = Dag(
    "vpc",
    (
        node("vpc"),
        node("igw", "vpc"),
        node("subnets", "vpc"),
        node("sg", "vpc"),
        node("routes", "igw", "subnets"),
        node("assoc", "routes", "sg"),
    ),
)
CARD = Dag("card", (node("authorize"), node("capture", "authorize")))
TRIP = Dag(
    "trip",
    (
        node("quote", undo="none"),
        ConstantNode("country", Raw(b'"NO"')),
        ActionNode(
            "reserve",
            "reserve",
            after=("country",),
            undo="output",
            each=Each("line", Ref("quote", ("lines",))),
        ),
        SubsagaNode("pay", Dag("pay", (SubsagaNode("card", CARD), node("receipt", "card")))),
        node("ship", "reserve", "pay", pivot=True),
        node("tell", "ship", when=Ref("quote", ("tell",)), retry=Retry(3)),
    ),
)


def drive(
    dag: Dag, *, fail: str = "", elements: int = 3, steps: int = 10_000
) -> tuple[Machine, list[e.Event]]:
    """Run the machine by hand for at most so many steps; the action `fail` raises."""
    machine = Machine(Plan(dag), "s")
    machine.create(b"{}", 0.0)
    now = 0.0
    commands = list(machine.next(now))
    while commands and steps:
        steps -= 1
        now += 1.0
        match commands.pop(0):
            case RunAction(i, _) if machine.plan.names[i] == fail:
                machine.fail(i, e.ErrorInfo("shop.Refused", f"no {NASTY}"), now)
            case RunAction(i, _):
                machine.succeed(i, b"1", now)
            case RunUndo(i, _):
                machine.undo_succeed(i, now)
            case Ask(i, "items"):
                machine.expand(i, elements, now)
            case Ask(i, "when"):
                machine.decide(i, True, now)
            case WaitUntil(at):
                now = max(now, at)
            case _:
                break
        commands.extend(machine.next(now))
    return machine, machine.take()


def graphviz(source: str, form: str = "svg") -> str:
    """What the real `dot` makes of it; it may not even warn."""
    program = shutil.which("dot")
    if program is None:
        pytest.skip("Graphviz is not installed: apt-get install graphviz")
    made = subprocess.run(
        [program, f"-T{form}"], input=source.encode(), capture_output=True, check=False, timeout=60
    )
    assert made.returncode == 0, made.stderr.decode()
    assert made.stderr == b""
    return made.stdout.decode()


def words_in(svg: str) -> str:
    return " ".join(text.strip() for text in ET.fromstring(svg).itertext() if text.strip())


# -- what is shown ---------------------------------------------------------


def test_a_view_names_every_node_and_edge_of_a_dag_between_start_and_end() -> None:
    shown = render.view(VPC)
    assert [n.path for n in shown.nodes] == [
        "/start", "vpc", "igw", "subnets", "sg", "routes", "assoc", "/end",
    ]  # fmt: skip
    assert {(edge.before, edge.after) for edge in shown.edges} == {
        ("/start", "vpc"), ("vpc", "igw"), ("vpc", "subnets"), ("vpc", "sg"), ("igw", "routes"),
        ("subnets", "routes"), ("routes", "assoc"), ("sg", "assoc"), ("assoc", "/end"),
    }  # fmt: skip
    assert all(n.state is None for n in shown.nodes)


def test_a_snapshot_of_a_rollback_shows_states_error_and_the_order_of_the_undos() -> None:
    machine, log = drive(VPC, fail="assoc")
    shown = render.snapshot(machine, log)
    nodes = {n.path: n for n in shown.nodes}
    assert shown.title == "vpc: rolled back (assoc failed)"
    assert nodes["assoc"].state == "failed"
    assert nodes["assoc"].error.startswith("Refused: no a")
    assert {path: n.undo_order for path, n in nodes.items() if n.undo_order} == {
        "routes": 1, "sg": 2, "igw": 3, "subnets": 4, "vpc": 5,
    }  # fmt: skip
    assert {(edge.before, edge.after) for edge in shown.edges if edge.undone} == {
        ("vpc", "igw"), ("vpc", "subnets"), ("vpc", "sg"), ("igw", "routes"), ("subnets", "routes"),
    }  # fmt: skip


def test_without_events_a_snapshot_shows_no_undo_order() -> None:
    machine, _ = drive(VPC, fail="assoc")
    assert not any(n.undo_order for n in render.snapshot(machine).nodes)


def test_subsagas_are_groups_and_a_fan_out_becomes_one_when_its_size_is_known() -> None:
    unknown = render.view(TRIP)
    assert [(g.path, g.kind, g.group) for g in unknown.groups] == [
        ("pay", "subsaga", ""), ("pay/card", "subsaga", "pay"),
    ]  # fmt: skip
    assert next(n for n in unknown.nodes if n.path == "reserve").count is None
    machine, _ = drive(TRIP)
    known = render.snapshot(machine)
    assert {g.path: g.count for g in known.groups} == {"pay": None, "pay/card": None, "reserve": 3}
    assert [n.path for n in known.nodes if n.group == "reserve"] == ["reserve[0]", "reserve[1]", "reserve[2]"]
    assert known.status == "completed"


def test_a_fan_out_of_many_elements_is_one_node_that_counts_their_states() -> None:
    machine, _ = drive(TRIP, elements=500, steps=300)
    reserve = next(n for n in render.snapshot(machine).nodes if n.path == "reserve")
    assert reserve.count == 500
    assert sum(count for _, count in reserve.tally) == 500
    assert dict(reserve.tally)["running"] > 0
    assert f"{dict(reserve.tally)['completed']} completed" in render.text(machine)


def test_states_may_be_given_by_path_for_a_dag() -> None:
    states: dict[str, NodeState] = {"quote": "completed", "reserve[0]": "running", "reserve[1]": "failed"}
    shown = render.view(TRIP, states, attempts={"reserve[0]": 3}, errors={"reserve[1]": "sold out"})
    nodes = {n.path: n for n in shown.nodes}
    assert nodes["reserve[0]"].attempt == 3
    assert nodes["reserve[1]"].error == "sold out"
    assert nodes["ship"].state == "pending"
    assert "running, attempt 3" in render.text(shown)


@EVERY_RENDERER
@pytest.mark.parametrize("state", sorted({after for moves in NODE.values() for after in moves.values()}))
def test_every_state_is_named_in_words(draw: Callable[[render.Source], str], state: NodeState) -> None:
    drawn = draw(render.view(VPC, {"vpc": state}))
    assert state.replace("_", " ") in drawn


@EVERY_RENDERER
@pytest.mark.parametrize("dag", [VPC, TRIP], ids=["vpc", "trip"])
def test_a_drawing_is_the_same_every_time(draw: Callable[[render.Source], str], dag: Dag) -> None:
    machine, log = drive(dag, fail=dag.nodes[-1].name)
    assert draw(render.snapshot(machine, log)) == draw(render.snapshot(machine, log))


def constant_of(value: object) -> render.View:
    return render.view(Dag("d", (ConstantNode("k", Raw(json.dumps(value, ensure_ascii=False).encode())),)))


@EVERY_RENDERER
def test_a_constant_shows_its_value(draw: Callable[[render.Source], str]) -> None:
    drawn = draw(constant_of({"number": 4711}))
    assert "4711" in drawn
    assert "number" in drawn
    assert "4711" not in draw(constant_of({"number": 12}))


@EVERY_RENDERER
def test_a_long_value_is_shortened(draw: Callable[[render.Source], str]) -> None:
    drawn = draw(constant_of(["first", "x" * 1_000_000, "last"]))
    assert "first" in drawn
    assert "last" not in drawn
    assert "…" in drawn
    assert len(drawn) < len(draw(constant_of([]))) + 2_000
    assert constant_of("é" * 500).nodes[1].value.count("é") == 398, (
        "a quotation mark before, the ellipsis behind"
    )


@EVERY_RENDERER
@pytest.mark.parametrize(
    "hostile", ['"]; x [label="y', "</title><script>alert(1)</script>", "\u202eabc\x1b[2J", "a\nend\n"]
)
def test_a_value_can_neither_break_out_nor_steer(draw: Callable[[render.Source], str], hostile: str) -> None:
    drawn = draw(constant_of({"text": hostile}))
    assert "\u202e" not in drawn
    assert "\x1b" not in drawn
    assert 'x [label="y' not in drawn
    if draw in (render.svg, render.html, render.mermaid):
        assert "<script>" not in drawn, "markup is escaped where it would be read as such"
    if draw is render.svg:
        squeezed = re.sub(r"\s", "", words_in(drawn))
        assert re.sub(r"\s", "", constant_of({"text": hostile}).nodes[1].value) in squeezed


# -- each format -----------------------------------------------------------


@pytest.mark.parametrize("dag", [VPC, TRIP], ids=["vpc", "trip"])
@pytest.mark.parametrize("live", [False, True], ids=["plain", "live"])
def test_graphviz_draws_every_node_and_every_edge(dag: Dag, live: bool) -> None:
    shown = render.view(dag)
    if live:
        machine, log = drive(dag, fail="assoc")
        shown = render.snapshot(machine, log)
    drawn = words_in(graphviz(render.dot(shown)))
    for n in shown.nodes:
        assert n.label in drawn
    hidden = render.dot(shown).count("style=invis")
    assert graphviz(render.dot(shown), "plain").count("\nedge ") == len(shown.edges) + hidden


def test_a_drawing_in_characters_names_every_node_beside_its_label() -> None:
    dag = Dag("d", (node("a", label="Take one"), node("b", "a", label="Take one"), node("c", "b")))
    drawn = render.text(dag).splitlines()
    assert [line.split("  ")[0] for line in drawn[1:]] == [
        "1 ─── a: Take one",
        "2 ─── b: Take one",
        "3 ─── c",
    ]
    assert drawn[2].endswith("← a")  # which nobody could find, were it not named


@given(label=st.text(min_size=1, max_size=60))
def test_no_label_or_error_breaks_a_drawing(label: str) -> None:
    dag = Dag("d", (node("a", label=label), node("b", "a")))
    shown = render.view(dag, {"a": "failed"}, errors={"a": label})
    words_in(render.svg(shown))
    for draw in RENDERERS.values():
        draw(shown).encode()
    for line in render.text(shown, ascii=True).splitlines():
        assert line.isascii()


def test_a_nasty_label_reads_the_same_in_graphviz_and_svg() -> None:
    dag = Dag("d", (node("a", label=NASTY[:24]), node("b", "a", label=NASTY[24:])))
    for drawn in (words_in(render.svg(dag)), words_in(graphviz(render.dot(dag)))):
        squeezed = drawn.replace(" ", "")
        assert NASTY[:24].replace(" ", "") in squeezed
        assert NASTY[24:].replace(" ", "") in squeezed


def test_mermaid_writes_nothing_raw_that_it_would_read_as_markup() -> None:
    dag = Dag("d", (node("a", label=NASTY),))
    line = next(line for line in render.mermaid(dag).splitlines() if "日本" in line)
    label = line.partition('"')[2].rpartition('"')[0].replace("<br/>", "")
    assert not set(label) & set("\"'<>\\`[](){}|.")


def test_a_label_of_200_characters_is_wrapped_and_cut() -> None:
    dag = Dag("d", (node("a", label="x" * 200), node("b", "a", label="word " * 40)))
    for draw in (render.dot, render.mermaid, render.svg):
        assert "x" * 41 not in draw(dag)
    assert all(columns(line) <= 100 for line in render.text(dag).splitlines())


def test_text_shows_stages_nesting_and_what_waits_for_what() -> None:
    drawn = render.text(TRIP)
    lines = drawn.splitlines()
    assert lines[1].startswith("1 ─┬─ quote")
    assert any("reserve ×?" in line and "←" in line and "quote" in line for line in lines)
    pay = next(k for k, line in enumerate(lines) if " pay" in line)
    card = next(k for k, line in enumerate(lines) if "authorize" in line)
    assert pay < card
    assert lines[card].index("authorize") > lines[pay].index("pay")


def test_ascii_text_holds_ascii_only_even_for_other_names() -> None:
    machine, log = drive(Dag("dé", (node("é日本"), node("b", "é日本"))), fail="b")
    drawn = render.text(render.snapshot(machine, log), ascii=True)
    assert drawn.isascii()
    assert "undone, undo 1" in drawn


def test_svg_follows_light_and_dark_and_its_style_reaches_no_other_picture() -> None:
    one, two = render.svg(VPC), render.svg(TRIP)
    assert "prefers-color-scheme:dark" in one
    assert "prefers-color-scheme" not in render.svg(VPC, theme="light")
    scopes = {ET.fromstring(drawn).attrib["class"] for drawn in (one, two)}
    assert len(scopes) == 2
    style = ET.fromstring(one).find(f"{SVG}style")
    assert style is not None
    assert style.text is not None
    selectors = re.findall(r"([^{}]+)\{[^{}]*\}", style.text)
    scope = ET.fromstring(one).attrib["class"]
    assert selectors
    assert all(part.startswith(f".{scope}") for selector in selectors for part in selector.split(","))


@pytest.mark.parametrize("direction", ["down", "right"])
def test_no_card_of_a_fan_out_hides_the_head_of_an_arrow(direction: Any) -> None:
    dag = Dag("d", (node("a"), node("f", "a", each=Each("item", Ref("a"))), node("z", "f")))
    root = ET.fromstring(render.svg(render.view(dag), direction=direction))
    stack = next(group for group in root.iter(f"{SVG}g") if len(group.findall(f"{SVG}rect")) == 3)
    corners = [
        [float(rect.get(name, "")) for name in ("x", "y", "width", "height")]
        for rect in stack.iter(f"{SVG}rect")
    ]
    heads = [polygon.get("points", "").split()[0] for polygon in root.iter(f"{SVG}polygon")]
    tips = [tuple(map(float, head.split(","))) for head in heads]
    assert len(tips) == 4
    for x, y in tips:
        assert not any(left < x < left + w and top < y < top + h for left, top, w, h in corners)


@pytest.mark.parametrize("direction", ["down", "right"])
def test_no_two_nodes_of_an_svg_overlap_and_all_are_inside_it(direction: str) -> None:
    machine, _ = drive(TRIP)
    root = ET.fromstring(
        render.svg(render.snapshot(machine), direction="right" if direction == "right" else "down")
    )
    boxes: list[tuple[float, float, float, float]] = []
    for group in root.iter(f"{SVG}g"):
        rect = group.find(f"{SVG}rect")
        if rect is not None and group.attrib.get("class", "").startswith("n "):
            x, y, w, h = (float(rect.attrib[k]) for k in ("x", "y", "width", "height"))
            boxes.append((x, y, x + w, y + h))
    assert len(boxes) == 10
    for k, (left, top, right, bottom) in enumerate(boxes):
        assert 0 <= left < right <= float(root.attrib["width"])
        assert 0 <= top < bottom <= float(root.attrib["height"])
        for x0, y0, x1, y1 in boxes[:k]:
            assert right <= x0 or x1 <= left or bottom <= y0 or y1 <= top


def test_html_is_the_picture_and_a_table_of_errors() -> None:
    machine, log = drive(VPC, fail="assoc")
    drawn = render.html(render.snapshot(machine, log))
    assert drawn.startswith("<div>\n<svg")
    assert "<td>assoc</td><td>failed</td><td>Refused: no a &quot;b&quot;" in drawn
    assert "<table>" not in render.html(VPC)
    assert render.repr_svg(VPC) == render.svg(VPC)


def test_a_deep_nest_and_a_long_chain_are_drawn_without_recursion() -> None:
    deep = Dag("d", (node("a"),))
    for _ in range(150):
        deep = Dag("d", (SubsagaNode("s", deep),))
    chain = Dag("c", tuple(node(f"n{i}", *([f"n{i - 1}"] if i else [])) for i in range(2_000)))
    for draw in RENDERERS.values():
        assert draw(deep)
        assert draw(chain)


# -- words -----------------------------------------------------------------


@given(text=st.text(max_size=80), width=st.integers(2, 30), most=st.integers(1, 4))
def test_wrapped_lines_are_few_and_narrow(text: str, width: int, most: int) -> None:
    lines = wrap(text, width, most)
    assert 1 <= len(lines) <= most
    assert all(columns(line) <= width for line in lines)


def test_a_short_text_is_not_cut() -> None:
    assert cut("abc", 3) == "abc"
    assert cut("abcd", 3) == "ab…"


# -- the tables ------------------------------------------------------------


def test_the_diagrams_show_every_row_of_the_tables() -> None:
    drawn = render.diagrams()["node"].splitlines()
    for kind, moves in NODE.items():
        for before, after in moves.items():
            line = next(line for line in drawn if line.startswith(f"  {before} --> {after}: "))
            assert kind in line.partition(": ")[2].split(", ")


def test_the_page_of_states_is_up_to_date() -> None:
    page_file = Path(__file__).parents[2] / "docs" / "states.md"
    assert page_file.read_text(encoding="utf-8") == page(), "run scripts/diagrams"
