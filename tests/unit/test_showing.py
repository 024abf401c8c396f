"""What people are shown: pictures in notebooks, lines of events, drawings thinned out, errors by their own names."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any
from xml.etree import ElementTree as ET

import pytest

import compensate
from compensate import (
    ActionFailed,
    ActionRegistry,
    Coordinator,
    Ctx,
    DagBuilder,
    Inject,
    Permanent,
    RolledBack,
    action,
    action_node,
    event_line,
    render,
    saga,
)
from compensate.core import events as e
from compensate.core.dag import ActionNode, Dag, SubsagaNode
from compensate.core.events import Event
from compensate.core.names import short_reason
from compensate.render.layers import nearest

SVG = "{http://www.w3.org/2000/svg}"


@action(label="Book a room")
async def book() -> str:
    return "room 7"


@book.undo
async def cancel(room: str) -> None: ...


@action
async def pay(room: str) -> None:
    raise Permanent("declined")


@saga
def stay() -> None:
    pay(book())


def shown(svg: str) -> str:
    """The text of a picture, which has to be well-formed."""
    root = ET.fromstring(svg)
    assert root.tag == f"{SVG}svg"
    return " ".join(" ".join(root.itertext()).split())


def test_a_saga_and_its_dag_show_their_picture_in_a_notebook() -> None:
    registry = ActionRegistry()
    registry.register(book)
    built = DagBuilder("built", registry).append(action_node("b", book)).build()
    things: list[Any] = [stay, stay.dag, built, stay.with_id("s")]
    for thing in things:
        assert "Book a room" in shown(thing._repr_svg_())
        assert "<svg" in thing._repr_html_()


async def test_a_snapshot_shows_states_and_errors_in_a_notebook() -> None:
    async with Coordinator("memory://", sagas=[stay]) as c:
        with pytest.raises(RolledBack):
            await c.run(stay.with_id("s"))
        snapshot = await c.get("s")
        assert repr(snapshot) == f"<saga s of stay: rolled_back, {len(snapshot.events)} events>"
        assert repr(c.attach("s")) == "<run of saga s>"
    text = shown(snapshot._repr_svg_())
    for words in ("rolled back", "undone", "failed", "the order of the undos"):
        assert words in text
    assert "Permanent: declined" in snapshot._repr_html_()


def test_what_is_defined_says_what_and_where_it_is() -> None:
    assert re.fullmatch(r"<action book \(.*test_showing.py:\d+\)>", repr(book))
    assert re.fullmatch(r"<saga stay \(.*test_showing.py:\d+\), id s>", repr(stay.with_id("s")))
    assert repr(Ctx(None, "s", "stay/book", 2)) == "Ctx(s/stay/book/do, attempt=2)"


def test_the_drawings_are_imported_only_when_somebody_looks() -> None:
    code = (
        "import sys, compensate\n"
        "from compensate.authoring import action, saga\n"
        "assert not any(name.startswith('compensate.render') for name in sys.modules), sys.modules\n"
        "compensate.event_line\n"
        "assert 'compensate.render' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_is_there_and_an_unknown_one_is_not() -> None:
    for name in compensate.__all__:
        assert getattr(compensate, name) is not None
    assert set(compensate.__all__) <= set(dir(compensate))
    with pytest.raises(AttributeError, match="module 'compensate' has no attribute 'Sagga'"):
        _ = compensate.Sagga


# -- lines -----------------------------------------------------------------


async def test_a_log_reads_the_same_in_every_run_without_times() -> None:
    async with Coordinator("memory://", sagas=[stay], inject={"book": Inject(fail_undo=1)}) as c:
        with pytest.raises(RolledBack) as caught:
            await c.run(stay.with_id("s"))
        events = (await c.get("s")).events
    assert [event_line(event, time=False) for event in events] == [
        "saga: created with {}",
        "book: started",
        "book: completed",
        "pay: started",
        "pay: failed: Permanent: declined",
        "saga: rolling back: pay failed: Permanent: declined",
        "book: undoing",
        "book: undo failed: InjectedError: node 'book': injected failure of its undo; next attempt in 0.5 s",
        "book, attempt 2: undoing",
        "book, attempt 2: undone",
        "saga: rolled back",
    ]
    assert str(caught.value) == "saga s was rolled back: node 'pay' failed: Permanent: declined"


def test_a_line_names_time_number_saga_and_length_where_they_are_wanted() -> None:
    event = Event(3, 1, 1_750_000_000.25, e.COMPLETED, "pay/charge", 2, e.Completed(b"1"))
    assert event_line(event) == "2025-06-15T15:06:40.250Z  #3  pay/charge, attempt 2: completed"
    assert event_line(event, saga_id="s", took=1.25) == (
        "2025-06-15T15:06:40.250Z  s  #3  pay/charge, attempt 2: completed [1.2 s]"
    )
    assert event_line(event, saga_id="s", time=False) == "s  pay/charge, attempt 2: completed"


@pytest.mark.parametrize(
    ("recorded", "told"),
    [
        ("builtins.ValueError: no: really", "ValueError: no: really"),
        ("compensate.errors.Permanent: x", "Permanent: x"),
        ("shop.pay.<locals>.Declined", "Declined"),
        ("Plain: x", "Plain: x"),
        ("in doubt", "in doubt"),
        ("it was asked for in file.txt: gone", "it was asked for in file.txt: gone"),
        ("", ""),
    ],
)
def test_a_recorded_reason_is_told_with_the_class_alone(recorded: str, told: str) -> None:
    assert short_reason(recorded) == told


def test_a_recorded_error_keeps_the_qualified_class_and_tells_the_short_one() -> None:
    error = ActionFailed("pay", "shop.errors.Declined", "no money")
    assert error.type == "shop.errors.Declined"
    assert str(error) == "pay: Declined: no money"
    assert str(ActionFailed("pay", "builtins.KeyError", "")) == "pay: KeyError"


# -- drawings --------------------------------------------------------------


def node(name: str, *after: str) -> ActionNode:
    return ActionNode(name, name, after=after, undo="output")


def test_a_drawing_in_characters_tells_only_the_nearest_of_what_a_node_waits_for() -> None:
    dag = Dag(
        "d",
        (
            node("vpc"),
            node("gateway", "vpc"),
            node("subnet", "vpc"),
            node("table", "vpc", "gateway", "subnet"),
            node("route", "table", "gateway"),
            node("verify", "vpc", "gateway", "subnet", "table", "route"),
        ),
    )
    assert render.text(dag) == (
        "d\n"
        "1 ─── vpc\n"
        "2 ─┬─ gateway  ← vpc\n"
        "   └─ subnet   ← vpc\n"
        "3 ─── table    ← gateway, subnet\n"
        "4 ─── route    ← table\n"
        "5 ─── verify   ← route\n"
    )


def test_thinning_out_keeps_what_every_node_waits_for_in_all() -> None:
    edges = [(f"n{i}", f"n{j}") for j in range(9) for i in range(j) if (i * 7 + j * 3) % 4]

    def behind(lists: dict[str, list[str]], start: str) -> set[str]:
        found: set[str] = set()
        open_ = [start]
        while open_:
            for one in lists.get(open_.pop(), []):
                if one not in found:
                    found.add(one)
                    open_.append(one)
        return found

    whole: dict[str, list[str]] = {}
    for before, after in edges:
        whole.setdefault(after, []).append(before)
    thin = nearest(edges)
    assert sum(map(len, thin.values())) < len(edges)
    for name in whole:
        assert behind(thin, name) == behind(whole, name)
        for one in thin[name]:  # and nothing in a list is behind another in it
            assert all(one not in behind(whole, other) for other in thin[name])


def test_a_graph_with_too_many_ways_is_drawn_with_all_its_edges_rather_than_slowly() -> None:
    width = 60
    edges = [
        (f"{layer}.{i}", f"{layer + 1}.{j}") for layer in range(9) for i in range(width) for j in range(width)
    ]
    edges += [("0.0", f"9.{j}") for j in range(width)]
    thin = nearest(edges)
    left = sum(map(len, thin.values()))
    assert len(edges) - width <= left <= len(edges)


def test_a_dag_is_shown_in_a_terminal_by_its_name_and_first_nodes() -> None:
    small = Dag("d", (ActionNode("a", "act"), SubsagaNode("s", Dag("inner", (ActionNode("b", "act"),)))))
    assert repr(small) == "<dag d, 2 nodes: a, s>"
    large = Dag("d", tuple(ActionNode(f"n{k}", "act") for k in range(1_000)))
    assert repr(large) == "<dag d, 1000 nodes: n0, n1, n2, n3, n4, n5, …>"
