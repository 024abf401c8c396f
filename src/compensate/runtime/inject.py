"""Injection: faults on order, for tests and drills (an idea of steno's)."""

from __future__ import annotations

import logging
import re
from collections import ChainMap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any, Final, Literal, NoReturn, TypeAlias, cast

from compensate.core.dag import ActionNode, Dag, SubsagaNode, each_of
from compensate.core.plan import Plan
from compensate.errors import DefinitionError
from compensate.runtime import log

_POSITION: Final = re.compile(r"(0|[1-9][0-9]*)\]")

_EXAMPLES: Final = (
    "Inject(fail='before'), Inject(fail='after'), Inject(fail_undo=2), Inject(repeat=2), "
    "Inject(repeat_undo=2)"
)


class _Guessable(type):
    """Answers guesses such as `Inject.fail()` with what to write instead."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("_"):  # what Python and its tools look for by themselves
            raise AttributeError(f"type object {cls.__name__!r} has no attribute {name!r}")
        advice = (
            f"Inject.{name}: an injection is made by calling the class itself; write one of {_EXAMPLES}, or several "
            "of these arguments together"
        )
        if name not in vars(cls)["__dataclass_fields__"]:
            raise AttributeError(advice)

        def guessed(*args: object, **kwargs: object) -> NoReturn:
            raise TypeError(advice)

        return guessed


@dataclass(frozen=True)
class Inject(metaclass=_Guessable):
    """What is to go wrong at one node.

    Attributes:
        fail: Fail the action before its effect (it is not called), or after (it is, and its result is lost).
        fail_undo: Fail this many attempts of the undo before it is called; -1: all.
        repeat: Call the action this many times in a row, to see whether it is idempotent; the last result counts.
        repeat_undo: The same for the undo.

    Raises:
        DefinitionError: An argument makes no sense.
    """

    fail: Literal["", "before", "after"] = ""
    fail_undo: int = 0
    repeat: int = 1
    repeat_undo: int = 1

    def __post_init__(self) -> None:
        if self.fail not in ("", "before", "after"):
            raise DefinitionError(f"Inject: fail is {self.fail!r}; give 'before' or 'after'")
        for name, least in (("repeat", 1), ("repeat_undo", 1), ("fail_undo", -1)):
            count = getattr(self, name)
            if type(count) is not int or count < least:
                advice = (
                    "a number of attempts, or -1 for all of them"
                    if least < 0
                    else "how many calls to make, 1 or more, the first one included"
                )
                raise DefinitionError(f"Inject: {name} is {count!r}; give {advice}")


# The defaults: on the class they would hide the answer to `Inject.fail()`.
for _field in fields(Inject):
    delattr(Inject, _field.name)

Faults: TypeAlias = Mapping[str, Inject] | None
"""What is to go wrong at which nodes, by their paths."""

NOTHING: Final = Inject()
"""What happens at a node for which nothing was ordered."""

NO_FAULTS: Final[Mapping[str, Inject]] = MappingProxyType({})
"""No faults: what stands for an argument `inject` that was not given."""


def misfit(plan: Plan, path: str) -> str:
    """Why a fault at `path` could never fire in a saga of this plan; `""`: it could."""
    # Read off the dag: the plan does not know the elements of a fan-out before its size is known.
    unknown = f"it has no node {path!r}"
    dag: Dag | None = plan.dag
    is_action = False
    for step in path.split("/"):
        name, bracket, position = step.partition("[")
        node = None if dag is None else next((node for node in dag.nodes if node.name == name), None)
        if node is None or (bracket and not (each_of(node) and _POSITION.fullmatch(position))):
            return unknown
        fan_itself = each_of(node) is not None and not bracket
        is_action = isinstance(node, ActionNode) and not fan_itself
        dag = node.dag if isinstance(node, SubsagaNode) and not fan_itself else None
    return "" if is_action else f"it runs no action at {path!r}"


ADVICE: Final = (
    "name an action's node by its path, as 'subsaga/node', or an element of a fan-out, as 'node[0]' or "
    "'subsaga[0]/node'"
)
"""What to do about a misfit."""


def checked(where: str, inject: object) -> Mapping[str, Inject]:
    """The faults that somebody orders, by path of node.

    Args:
        where: Who takes them, for the message.
        inject: What was given; `None`: no faults.

    Raises:
        DefinitionError: It is no mapping of paths to `Inject`.
    """
    if inject is None:
        return NO_FAULTS
    if not isinstance(inject, Mapping):
        raise DefinitionError(
            f"{where}: inject is {inject!r}; give a mapping of nodes' paths to faults, as "
            "{'ship': Inject(fail='before')}"
        )
    for path, fault in cast("Mapping[object, object]", inject).items():
        if not isinstance(path, str):
            raise DefinitionError(f"{where}: inject: {path!r} is no path of a node; {ADVICE}")
        if not isinstance(fault, Inject):
            raise DefinitionError(f"{where}: inject: at {path!r} stands {fault!r}; give one of {_EXAMPLES}")
    return cast("Mapping[str, Inject]", inject)


def check_fit(plan: Plan, inject: Mapping[str, Inject]) -> None:
    """Refuse faults that could never fire in a saga of this plan.

    Raises:
        DefinitionError: Names the first of them.
    """
    for path in inject:
        what = misfit(plan, path)
        if what:
            raise DefinitionError(f"saga {plan.dag.name}: inject: {what}; {ADVICE}")


def joined(own: Faults, shared: Mapping[str, Inject]) -> Mapping[str, Inject]:
    """The faults of one saga: its own, and the shared ones at other nodes, which may still change."""
    return ChainMap(dict(own), cast("dict[str, Inject]", shared)) if own else shared


def warn_of_misfits(paths: Iterable[str], plans: Sequence[Plan]) -> None:
    """A drill whose fault has a slip in its path shows nothing. It may be meant for a saga that is yet to come."""
    for path in paths:
        if plans and all(misfit(plan, path) for plan in plans):
            text = f"inject: none of the sagas known here runs an action at {path!r}; {ADVICE}"
            log.write(logging.WARNING, text, node=path)
