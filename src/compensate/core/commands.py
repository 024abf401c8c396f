"""What the machine tells the runtime to do, once the events of its decisions are durable."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from compensate.core import states as s
from compensate.core.flow import Question


class RunAction(msgspec.Struct, frozen=True, gc=False):
    """Run the action of node `node`; `attempt` is recorded as started."""

    node: int
    attempt: int


class RunUndo(msgspec.Struct, frozen=True, gc=False):
    """Run the undo of node `node`, with its output, or `None` where it has none; recorded as started."""

    node: int
    attempt: int


class Ask(msgspec.Struct, frozen=True, gc=False):
    """Evaluate the node's `when` and answer with `decide`, or the list of a fan-out and answer with `expand`."""

    node: int
    question: Question


class CancelAction(msgspec.Struct, frozen=True, gc=False):
    """Cancel the running action of node `node`: the grace time of a rollback is over."""

    node: int


class WaitUntil(msgspec.Struct, frozen=True, gc=False):
    """Call `next` again at this time, or earlier when there is news."""

    at: float


class Finish(msgspec.Struct, frozen=True, gc=False):
    """The saga has come to an end, and it is recorded."""

    status: s.SagaStatus


Command: TypeAlias = RunAction | RunUndo | Ask | CancelAction | WaitUntil | Finish
