"""Errors: whatever class it is, it leaves the process that raised it and is the same on the other side."""

from __future__ import annotations

import copy
import inspect
import pickle  # noqa: TID251 - errors cross process borders that way
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from typing import Any, Self

import pytest

import compensate
from compensate import CompensateError, NoEffect, Permanent, Refused, RolledBack, Stuck, Unknown, errors

CLASSES = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, BaseException) and kind.__module__ == errors.__name__
]


def _pickled(protocol: int, error: Any) -> Any:
    return pickle.loads(pickle.dumps(error, protocol))


WAYS: dict[str, Callable[[Any], Any]] = {
    **{f"pickle {n}": partial(_pickled, n) for n in range(2, 6)},
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}


def made(kind: type[BaseException]) -> BaseException:
    """An instance with something in every parameter that its constructor has."""
    args: list[Any] = []
    named: dict[str, Any] = {}
    ours = any("__init__" in vars(base) for base in kind.__mro__ if base.__module__ == errors.__name__)
    for name, parameter in inspect.signature(kind).parameters.items() if ours else ():
        value = {"nodes": ["a", "b"], "reasons": {"a": "x"}, "choices": {"a": ["retry"]}}.get(
            name, f"a {name}"
        )
        if parameter.kind is parameter.KEYWORD_ONLY:
            named[name] = value
        elif parameter.kind is parameter.POSITIONAL_OR_KEYWORD:
            args.append(value)
    if not args:
        args = ["what went wrong", 7]
    return kind(*args, **named)


def same(error: BaseException, way: str) -> BaseException:
    error.add_note("order 7")
    error.seen_by = ["ann"]  # type: ignore[attr-defined]
    back: BaseException = WAYS[way](error)
    assert type(back) is type(error)
    assert back is not error
    assert str(back) == str(error)
    assert back.args == error.args
    assert vars(back) == vars(error)
    return back


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_of_the_library_is_the_same_after_pickle_and_copy(
    kind: type[BaseException], way: str
) -> None:
    error = made(kind)
    assert vars(same(error, way)).keys() >= {"__notes__", "seen_by"}


def test_every_error_of_the_library_is_found_and_exported() -> None:
    assert {RolledBack, Stuck, NoEffect, Refused} <= set(CLASSES)
    assert [kind for kind in CLASSES if not issubclass(kind, CompensateError)] == []
    assert [kind.__name__ for kind in CLASSES if getattr(compensate, kind.__name__, None) is not kind] == []
    assert [kind.__name__ for kind in CLASSES if kind.__name__ not in compensate.__all__] == []


class Declined(Permanent):
    """Changes its text: to call it again with its `args` would do so twice."""

    def __init__(self, code: int, *, bank: str) -> None:
        super().__init__(f"declined with {code}")
        self.code = code
        self.bank = bank


class Frozen(NoEffect):
    __slots__ = ("__secret", "until")

    def __init__(self, until: float) -> None:
        self.until = until
        self.__secret = 3

    @property
    def secret(self) -> int:
        return self.__secret


@dataclass(frozen=True)
class Sold(NoEffect):
    item: str
    left: int = 0


class NoRoute(Unknown, ConnectionError):
    def __init__(self, host: str) -> None:
        super().__init__(113, "no route", host)
        self.host = host


class NotText(CompensateError, UnicodeDecodeError):
    pass


class Singular(Permanent):
    def __new__(cls, *, only: int) -> Self:
        return super().__new__(cls)

    def __init__(self, *, only: int) -> None:
        super().__init__()
        self.only = only


class Several(NoEffect, ExceptionGroup[Exception]):
    pass


class Own(Permanent):
    """Says itself how it is pickled."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__(f"{a} and {b}")
        self.parts = (a, b)

    def __reduce__(self) -> tuple[Any, ...]:
        return Own, self.parts, {"by": "its own way"}


USERS: list[Callable[[], BaseException]] = [
    lambda: Declined(51, bank="north"),
    lambda: Sold("cup"),
    lambda: NotText("utf-8", b"\xff", 0, 1, "no start"),
    lambda: Singular(only=1),
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("new", USERS)
def test_so_is_an_error_of_a_users_own(new: Callable[[], BaseException], way: str) -> None:
    if new() == new():  # a dataclass compares by value
        error: Any = new()
        assert WAYS[way](error) == error
        assert str(WAYS[way](error)) == str(error)
    else:
        same(new(), way)


@pytest.mark.parametrize("way", WAYS)
def test_what_a_base_or_slots_hold_is_kept_too(way: str) -> None:
    until: Any = same(Frozen(4.5), way)
    assert (until.until, until.secret) == (4.5, 3)
    route: Any = same(NoRoute("north"), way)
    assert (route.errno, route.strerror, route.filename, route.host) == (113, "no route", "north", "north")
    text: Any = same(NotText("utf-8", b"\xff", 0, 1, "no start"), way)
    assert (text.object, text.reason) == (b"\xff", "no start")
    several = Several("two", [ValueError("a"), KeyError("b")])
    again: Any = WAYS[way](several)
    assert [str(error) for error in again.exceptions] == ["a", "'b'"]
    own: Any = WAYS[way](Own(1, 2))
    assert (str(own), own.parts, own.by) == ("1 and 2", (1, 2), "its own way")


def _raise(kind: str) -> None:
    if kind == "stuck":
        raise Stuck("no way on", saga_id="s", nodes=["a"], failed_node="b", failed_reason="ValueError: no")
    raise RolledBack("undone", saga_id="s", node="b", reason="ValueError: no")


def test_an_error_leaves_a_worker_process() -> None:
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        with pytest.raises(Stuck, match="no way on") as stuck:
            pool.submit(_raise, "stuck").result()
        with pytest.raises(RolledBack, match="undone") as undone:
            pool.submit(_raise, "rolled back").result()
    assert (stuck.value.nodes, stuck.value.failed_node) == (("a",), "b")
    assert (undone.value.saga_id, undone.value.node, undone.value.reason) == ("s", "b", "ValueError: no")


def test_refused_is_clean_and_final() -> None:
    assert issubclass(Refused, NoEffect)
    assert issubclass(Refused, Permanent)
    assert compensate.Refused is Refused
