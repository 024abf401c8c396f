"""The participant in memory, tombstones, and how two snapshots differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from compensate import NoEffect
from compensate.testing import FakeWorld, Tombstones, difference
from compensate.testing.differences import lines


def test_an_effect_happens_once_under_its_key() -> None:
    world = FakeWorld()
    assert world.apply("a/do", [1]) == [1]
    assert world.apply("a/do", [2]) == [1]
    assert world.snapshot() == {"a/do": [1]}


def test_a_snapshot_does_not_change_with_the_world() -> None:
    world = FakeWorld()
    kept = world.apply("a/do", [1])
    before = world.snapshot()
    kept.append(2)
    assert [str(change) for change in world.diff(before)] == ["+ ['a/do'][1]: 2"]


def test_an_undo_takes_an_effect_back_once() -> None:
    world = FakeWorld()
    world.apply("a/do")
    assert world.undo("a/do") is True
    assert world.undo("a/do") is False
    assert world.snapshot() == {}


def test_an_action_that_comes_after_its_undo_has_no_effect() -> None:
    world = FakeWorld()
    assert world.undo("a/do") is False
    with pytest.raises(NoEffect, match="a/do: it was undone before it came"):
        world.apply("a/do")
    assert world.snapshot() == {}


def test_without_tombstones_a_late_action_takes_effect() -> None:
    world = FakeWorld(tombstones=False)
    world.undo("a/do")
    world.apply("a/do")
    assert world.snapshot() == {"a/do": True}


def test_an_emptied_world_knows_nothing_any_more() -> None:
    world = FakeWorld()
    world.apply("a/do")
    world.undo("b/do")
    world.clear()
    assert world.apply("b/do", 5) == 5
    assert world.snapshot() == {"b/do": 5}


def test_tombstones_work_over_any_mapping() -> None:
    records: dict[str, str] = {}
    graves = Tombstones(records)
    assert graves.begin("a") is True
    assert graves.begin("a") is False
    assert graves.bury("a") is True
    assert graves.bury("a") is False
    assert graves.bury("b") is False
    for key in ("a", "b"):
        with pytest.raises(NoEffect):
            graves.begin(key)
    assert records == {"a": "undone", "b": "undone"}


@dataclass
class Shelf:
    name: str
    items: list[int]


class Box(msgspec.Struct):
    size: int


@pytest.mark.parametrize(
    ("before", "after", "shown"),
    [
        (1, 1, []),
        ({"a": {"b": 1}}, {"a": {"b": 2}}, ["~ ['a']['b']: 1 -> 2"]),
        ({"a": 1}, {"b": 1}, ["- ['a']: 1", "+ ['b']: 1"]),
        ([1, 2], [1], ["- [1]: 2"]),
        ({1, 2}, {2, 3}, ["- {1}: 1", "+ {3}: 3"]),
        (Shelf("oak", [1]), Shelf("oak", [1, 2]), ["+ .items[1]: 2"]),
        ({"x": Box(1)}, {"x": Box(2)}, ["~ ['x'].size: 1 -> 2"]),
        ("ab", "ac", ["~ the world: 'ab' -> 'ac'"]),
        ({"a": 1}, [1], ["~ the world: {'a': 1} -> [1]"]),
    ],
)
def test_a_difference_says_where_and_what(before: Any, after: Any, shown: list[str]) -> None:
    assert sorted(str(change) for change in difference(before, after)) == sorted(shown)


def test_what_only_its_own_equality_tells_apart_is_shown_whole() -> None:
    class Odd(list[int]):
        def __eq__(self, other: object) -> bool:
            return False

        __hash__ = None

    assert [str(change) for change in difference(Odd([1]), Odd([1]))] == ["~ the world: [1] -> [1]"]


def test_many_and_long_changes_are_shortened() -> None:
    shown = lines(difference({}, dict.fromkeys(range(50), "x" * 500)))
    assert len(shown) == 13
    assert shown[-1] == "… and 38 more"
    assert max(len(line) for line in shown) < 200
