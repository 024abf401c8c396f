"""Ids and names: what is allowed, and the keys made of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compensate.core.names import LONGEST, check_name, check_saga_id, element, inside, key
from compensate.errors import NameInvalid

GOOD = [
    "a",
    "order-17",
    "Zürich",
    "日本",
    "a b",
    "a.b",
    "..a",
    "a'b",
    'a"b',
    "a\\b",
    "x" * LONGEST,
    "a\u00a0b",
    "é",
    "😀",
]
BAD = {
    "empty": "",
    "a folder": "..",
    "this folder": ".",
    "too long": "x" * (LONGEST + 1),
    "a slash": "a/b",
    "a NUL": "a\0b",
    "a line end": "a\nb",
    "a tab": "a\tb",
    "a delete": "a\x7f",
    "a lone surrogate": "a\ud800",
    "a direction mark": "a\u202eb",
    "space before": " a",
    "space after": "a ",
}


@pytest.mark.parametrize("text", GOOD)
def test_a_good_id_and_name_is_returned_as_it_is(text: str) -> None:
    assert check_saga_id(text) == text
    assert check_name(text, "node") == text


@pytest.mark.parametrize("text", BAD.values(), ids=BAD)
def test_a_bad_id_or_name_is_refused_and_the_message_says_which(text: str) -> None:
    with pytest.raises(NameInvalid, match=r"^saga id: "):
        check_saga_id(text)
    with pytest.raises(NameInvalid, match=r"^node name: "):
        check_name(text, "node name")


@pytest.mark.parametrize("thing", [None, 1, b"a", ["a"], True])
def test_what_is_no_string_is_refused_as_such(thing: object) -> None:
    with pytest.raises(NameInvalid, match="give a str"):
        check_saga_id(thing)


@pytest.mark.parametrize("text", ["a[0]", "[", "a]"])
def test_brackets_are_kept_for_fan_outs_in_names_but_not_in_ids(text: str) -> None:
    assert check_saga_id(text) == text
    with pytest.raises(NameInvalid):
        check_name(text, "node")


def test_a_long_bad_name_is_not_repeated_whole_in_the_message() -> None:
    with pytest.raises(NameInvalid) as caught:
        check_saga_id("x" * 10_000)
    assert len(str(caught.value)) < 200


def test_keys_are_made_of_saga_node_and_direction() -> None:
    assert key("s", "pay/card", "do") == "s/pay/card/do"
    assert key("s", element("reserve", 3), "undo") == "s/reserve[3]/undo"
    assert inside("pay", "card") == "pay/card"


names = st.text(min_size=1, max_size=8)


@given(names, names, names, names)
def test_no_two_nodes_of_any_sagas_share_a_key(id1: str, node1: str, id2: str, node2: str) -> None:
    try:
        for text in (id1, id2):
            check_saga_id(text)
        for text in (node1, node2):
            check_name(text, "node")
    except NameInvalid:
        return
    keys = {key(i, n, d) for i, n in {(id1, node1), (id2, node2)} for d in ("do", "undo")}
    assert len(keys) == 2 * len({(id1, node1), (id2, node2)})
