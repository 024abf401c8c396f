"""Locks that tell at once who is dead."""

from pathlib import Path

import pytest

from compensate.stores import liveness
from compensate.stores.liveness import Liveness


def test_a_held_lock_is_seen_by_others_and_one_let_go_is_seized(tmp_path: Path) -> None:
    ours, others = Liveness(tmp_path / "owners"), Liveness(tmp_path / "owners")
    assert ours.hold("one")
    assert ours.hold("one"), "again"
    assert not others.hold("one")
    assert others.seize(["one", "never heard of"]) == {}
    ours.close()
    dead = others.seize(["one"])
    assert list(dead) == ["one"]
    others.spare(dead)
    dead = others.seize(["one"])
    assert list(dead) == ["one"], "spared, so still there"
    others.bury(dead)
    assert others.seize(["one"]) == {}
    assert list((tmp_path / "owners").iterdir()) == []


def test_an_owner_that_leaves_is_not_dead(tmp_path: Path) -> None:
    ours, others = Liveness(tmp_path), Liveness(tmp_path)
    ours.hold("one")
    ours.drop("one")
    ours.drop("one")
    assert others.seize(["one"]) == {}
    assert list(tmp_path.iterdir()) == []


def test_names_that_no_file_can_have_are_told_apart(tmp_path: Path) -> None:
    ours, others = Liveness(tmp_path), Liveness(tmp_path)
    names = ["../x", "a/b", "A", "a", "\0", "é" * 300]
    for name in names:
        assert ours.hold(name)
    assert len(list(tmp_path.iterdir())) == len(names)
    assert others.seize(names) == {}
    ours.close()
    assert list(others.seize(names)) == names


def test_files_that_nobody_knows_are_swept_but_not_those_of_the_living(tmp_path: Path) -> None:
    ours, gone, others = Liveness(tmp_path), Liveness(tmp_path), Liveness(tmp_path)
    ours.hold("lives, not known yet")
    gone.hold("known")
    gone.hold("died before it was known")
    gone.close()
    others.sweep(["known"])
    assert len(list(tmp_path.iterdir())) == 2
    assert list(others.seize(["known", "died before it was known", "lives, not known yet"])) == ["known"]


def test_a_lock_on_a_file_that_was_removed_meanwhile_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, others = Liveness(tmp_path), Liveness(tmp_path)
    lock = liveness._lock
    assert lock is not None
    removed: list[Path] = []

    def remove_first(descriptor: int) -> None:
        if not removed:
            removed.extend(tmp_path.iterdir())
            removed[0].unlink()
        lock(descriptor)

    monkeypatch.setattr(liveness, "_lock", remove_first)
    assert ours.hold("one")
    assert len(removed) == 1
    assert not others.hold("one"), "the lock is on the file that others see"


def test_where_there_are_no_locks_nobody_is_known_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, others = Liveness(tmp_path), Liveness(tmp_path)
    ours.hold("one")
    ours.close()
    monkeypatch.setattr(liveness, "_lock", None)
    assert others.seize(["one"]) == {}
    assert others.hold("one")
