"""The option `--inject`: faults in one saga, as text."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Final, TypeVar

import click

from compensate.errors import DefinitionError
from compensate.runtime.inject import Inject

F = TypeVar("F", bound=Callable[..., Any])

_SYNTAX: Final = "fail, after, undo, undo:N, repeat:N or repeat-undo:N"


def injecting(fn: F) -> F:
    """Add `--inject`."""
    return click.option(
        "--inject",
        "faults",
        multiple=True,
        metavar="NODE=FAULT[,FAULT]...",
        help="A drill: have something go wrong at a node of this run, named by its path (ship, payment/charge, "
        "'reserve[0]'); repeatable. FAULT is: fail, the action fails before its effect; after, it takes effect and its "
        "reply is lost; undo or undo:N, all attempts of its undo fail, or the first N; repeat:N and repeat-undo:N, the "
        "action or undo is called N times in a row. Faults are not stored: 'resume' goes on without them.",
    )(fn)


def read_faults(given: Iterable[str]) -> dict[str, Inject]:
    """What the words behind `--inject` order, by path of node.

    Raises:
        UsageError: One of them cannot be read, or contradicts another.
    """
    faults: dict[str, Inject] = {}
    for text in given:
        path, equals, words = text.rpartition("=")
        if not equals or not path:
            raise click.UsageError(f"--inject {text}: give NODE=FAULT, as ship=fail; a fault is {_SYNTAX}")
        ordered: dict[str, Any] = {}
        before = faults.get(path, Inject())
        for word in words.split(","):
            name, value = _read(text, word.strip())
            if ordered.get(name, value) != value or getattr(before, name) not in (
                getattr(Inject(), name),
                value,
            ):
                raise click.UsageError(
                    f"--inject {text}: {word.strip()} contradicts another fault at {path!r}"
                )
            ordered[name] = value
        try:
            faults[path] = replace(before, **ordered)
        except DefinitionError as error:
            raise click.UsageError(f"--inject {text}: {error}") from error
    return faults


def _read(text: str, word: str) -> tuple[str, Any]:
    """One fault: which field of `Inject`, and what it is set to."""
    name, colon, number = word.partition(":")
    if word in ("fail", "before", "fail:before"):
        return "fail", "before"
    if word in ("after", "fail:after"):
        return "fail", "after"
    if word in ("undo", "undo:all"):
        return "fail_undo", -1
    field = {"undo": "fail_undo", "repeat": "repeat", "repeat-undo": "repeat_undo"}.get(name)
    if field is None or not colon or not (number.isascii() and number.isdigit()) or int(number) < 1:
        raise click.UsageError(
            f"--inject {text}: {word!r} is no fault; give {_SYNTAX}, where N is a number from 1 on"
        )
    return field, int(number)
