"""Injection: faults on order, for tests and drills (an idea of steno's)."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from typing import Final, Literal

import msgspec

from compensate.core.dag import ActionNode, Dag, SubsagaNode, each_of
from compensate.core.plan import Plan
from compensate.errors import DefinitionError
from compensate.runtime import log

_POSITION: Final = re.compile(r"(0|[1-9][0-9]*)\]")


class Inject(msgspec.Struct, frozen=True):
    """What is to go wrong at one node.

    Attributes:
        fail: Fail the action before its effect (it is not called), or after (it is, and its result is lost).
        fail_undo: Fail this many attempts of the undo before it is called; -1: all.
        repeat: Call the action this many times in a row, to see whether it is idempotent; the last result counts.
        repeat_undo: The same for the undo.
    """

    fail: Literal["", "before", "after"] = ""
    fail_undo: int = 0
    repeat: int = 1
    repeat_undo: int = 1

    def __post_init__(self) -> None:
        if self.fail not in ("", "before", "after"):
            raise DefinitionError(f"Inject: fail is {self.fail!r}; give 'before' or 'after'")
        if self.repeat < 1 or self.repeat_undo < 1:
            raise DefinitionError("Inject: repeat and repeat_undo count the first call too; give 1 or more")
        if self.fail_undo < -1:
            raise DefinitionError("Inject: fail_undo is a number of attempts, or -1 for all")


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


def warn_of_misfits(paths: Iterable[str], plans: Sequence[Plan]) -> None:
    """A drill whose fault has a slip in its path shows nothing. It may be meant for a saga that is yet to come."""
    for path in paths:
        if plans and all(misfit(plan, path) for plan in plans):
            text = f"inject: none of the sagas known here runs an action at {path!r}; {ADVICE}"
            log.write(logging.WARNING, text, node=path)
