"""Retry policies: what they allow, how long they wait, what they refuse."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compensate.core.policy import ONCE, UNDO, Retry, qualified
from compensate.errors import DefinitionError

LOOKUP = [qualified(kind) for kind in KeyError.__mro__]


@pytest.mark.parametrize(
    "how",
    [
        {"attempts": 0},
        {"attempts": -1},
        {"first": -0.1},
        {"first": float("inf")},
        {"first": float("nan")},
        {"factor": 0.9},
        {"factor": float("nan")},
        {"factor": float("inf")},
        {"longest": -1},
        {"longest": float("nan")},
        {"jitter": 1.1},
        {"jitter": -0.1},
        {"jitter": float("nan")},
    ],
    ids=str,
)
def test_a_policy_that_makes_no_sense_is_refused_and_named(how: dict[str, Any]) -> None:
    with pytest.raises(DefinitionError, match=f"Retry: {next(iter(how))} is "):
        Retry(**how)


def test_attempts_count_the_first_one() -> None:
    assert not ONCE.allows(1, LOOKUP)
    retry = Retry(3)
    assert [retry.allows(failures, LOOKUP) for failures in (1, 2, 3, 4)] == [True, True, False, False]


def test_an_undo_gets_five_attempts_by_default() -> None:
    assert [UNDO.allows(failures, ()) for failures in (4, 5)] == [True, False]
    assert sum(UNDO.delay(failures, "") for failures in range(1, 5)) == 7.5


def test_without_a_limit_only_the_kind_of_error_ends_the_attempts() -> None:
    for_ever = Retry(None, never=LookupError)
    assert all(for_ever.allows(failures, ("builtins.OSError",)) for failures in (1, 5, 10**9))
    assert not for_ever.allows(1, LOOKUP)
    assert not Retry(attempts=None, on=ValueError).allows(1, LOOKUP)
    assert [policy.repeats for policy in (ONCE, Retry(2), for_ever)] == [False, True, True]


def test_on_and_never_hold_for_subclasses_too_and_never_wins() -> None:
    assert Retry(2, on=LookupError).allows(1, LOOKUP)
    assert not Retry(2, on=ValueError).allows(1, LOOKUP)
    assert not Retry(2, never=LookupError).allows(1, LOOKUP)
    assert not Retry(2, on=KeyError, never=Exception).allows(1, LOOKUP)
    assert Retry(2, on=[ValueError, "builtins.KeyError"]).allows(1, LOOKUP)


def test_classes_are_kept_by_their_qualified_names() -> None:
    assert Retry(2, on=KeyError).on == ("builtins.KeyError",)
    assert Retry(2, on=(KeyError, DefinitionError)).on == (
        "builtins.KeyError",
        "compensate.errors.DefinitionError",
    )


def test_delays_grow_by_the_factor_up_to_the_longest() -> None:
    retry = Retry(9, first=1.0, factor=3.0, longest=20.0)
    assert [retry.delay(failures, "k") for failures in (1, 2, 3, 4)] == [1.0, 3.0, 9.0, 20.0]


def test_a_delay_that_overflows_is_the_longest() -> None:
    assert Retry(10**6, first=1.0, factor=10.0, longest=7.0).delay(10**5, "k") == 7.0


@pytest.mark.parametrize("failures", [1, 1_100, 10**6, 10**9])
@pytest.mark.parametrize(
    ("policy", "most"),
    [
        (Retry(None), 60.0),
        (Retry(None, first=0.0), 0.0),
        (Retry(None, first=3, factor=2, longest=10**6), 1e6),  # whole numbers, which never overflow but grow
        (Retry(None, first=1e-300, factor=1.0), 1e-300),
        (Retry(None, first=0.5, longest=0), 0.0),
        (Retry(None, jitter=1.0), 60.0),
    ],
    ids=str,
)
def test_a_delay_stays_within_its_bounds_after_any_number_of_failures(
    policy: Retry, most: float, failures: int
) -> None:
    assert 0.0 <= policy.delay(failures, "k") <= most
    if failures > 1 and not policy.jitter:
        assert policy.delay(failures, "k") == most


@given(
    st.floats(0, 1),
    st.floats(0, 1e6),
    st.floats(1, 100),
    st.floats(0, 1e6),
    st.integers(1, 10_000),
    st.text(st.characters(exclude_categories=["Cs"])),
)
def test_jitter_only_shortens_and_is_the_same_for_the_same_key_and_attempt(
    jitter: float, first: float, factor: float, longest: float, failures: int, salt: str
) -> None:
    plain = Retry(2, first, factor, longest)
    varied = Retry(2, first, factor, longest, jitter)
    whole = plain.delay(failures, salt)
    delay = varied.delay(failures, salt)
    assert whole * (1 - jitter) - 1e-6 <= delay <= whole
    assert delay == varied.delay(failures, salt)


def test_jitter_varies_between_keys() -> None:
    assert len({Retry(2, jitter=1.0).delay(1, f"k{i}") for i in range(100)}) > 90


@pytest.mark.parametrize(
    "settings",
    [
        {"attempts": 2.5},
        {"attempts": float("nan")},
        {"attempts": float("inf")},
        {"attempts": "3"},
        {"attempts": True},
        {"first": "1"},
        {"longest": float("inf")},
        {"on": ValueError("an instance")},
        {"never": (5,)},
    ],
    ids=str,
)
def test_a_policy_that_a_stored_dag_could_not_be_read_back_with_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(DefinitionError, match=f"Retry: {next(iter(settings))}"):
        Retry(**settings)


def test_one_qualified_name_in_place_of_several_is_one_name() -> None:
    named: Any = "builtins.ValueError"
    assert Retry(on=named).on == ("builtins.ValueError",)
