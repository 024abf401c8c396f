"""Events: the facts that a saga log holds.

The envelope is the same for all; what a type says beyond it stands in its
payload. Values of users travel as JSON bytes, never looked into here.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import msgspec

# Types of events about a node.
STARTED: Final = "started"
COMPLETED: Final = "completed"
FAILED: Final = "failed"
IN_DOUBT: Final = "in_doubt"
UNDO_STARTED: Final = "undo_started"
UNDONE: Final = "undone"
UNDO_FAILED: Final = "undo_failed"
BRANCH_TAKEN: Final = "branch_taken"
BRANCH_SKIPPED: Final = "branch_skipped"
EXPANDED: Final = "expanded"
RETRIED: Final = "retried"
SKIPPED: Final = "skipped"
RESOLVED: Final = "resolved"
SUPPLIED: Final = "supplied"

# Types of events about the saga; their node is "".
SAGA_CREATED: Final = "saga_created"
SAGA_ROLLBACK: Final = "saga_rollback"
SAGA_COMPLETED: Final = "saga_completed"
SAGA_ROLLED_BACK: Final = "saga_rolled_back"
SAGA_STUCK: Final = "saga_stuck"
SAGA_UNPARKED: Final = "saga_unparked"
SAGA_PAUSED: Final = "saga_paused"
SAGA_RESUMED: Final = "saga_resumed"

Doubt = Literal["crash", "cut_off", "timeout", "cancelled", "unknown", "unstorable", "failed_after_doubt"]
"""Why a node is in doubt. `crash`: the process died while the action ran. `cut_off`: the process stopped the action
when it shut down, or released the saga. `unstorable`: it returned what the log cannot hold. `failed_after_doubt`: a
plain failure while an earlier attempt was in doubt."""

Cause = Literal["failure", "request", "deadline"]
"""What began a rollback."""


class ErrorInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """A user's error as data.

    Attributes:
        type: Qualified name of its class.
        message: Its text; of a group, with those of its leaves.
        traceback: Where it was raised, a line a frame.
        notes: What `add_note` has added.
        causes: The errors that it was raised from, or while they were handled, nearest first. They have no causes of
            their own here.
        leaves: Of an exception group, the exceptions in it and in its groups that are no groups themselves.
    """

    type: str
    message: str = ""
    traceback: str = ""
    notes: tuple[str, ...] = ()
    causes: tuple[ErrorInfo, ...] = ()
    leaves: tuple[ErrorInfo, ...] = ()


class Created(msgspec.Struct, frozen=True, omit_defaults=True):
    """The saga exists. `params`: a JSON object; `deadline`: when it is rolled back if not complete."""

    params: bytes
    deadline: float | None = None


class Completed(msgspec.Struct, frozen=True, gc=False):
    """An action returned. `output`: JSON."""

    output: bytes


class Failed(msgspec.Struct, frozen=True, omit_defaults=True):
    """An attempt of an action failed.

    `retry_at`: when it is tried again, `None`: not. `clean`: it raised `NoEffect`.
    """

    error: ErrorInfo
    retry_at: float | None = None
    clean: bool = False


class InDoubt(msgspec.Struct, frozen=True, omit_defaults=True):
    """An attempt may or may not have taken effect. `crash` and `cut_off` are not counted as failed attempts.

    Attributes:
        reason: Why it is not known.
        error: What the action raised, if anything.
        retry_at: When it is tried again; `None`: not, or at once after `crash` and `cut_off`.
        deaths: With `crash`: how often in a row the process has died while this action ran, this time included. Logs
            written before deaths were counted have 0.
        given_up: With `crash`: there were too many deaths, and the action is not run again unless an operator decides.
    """

    reason: Doubt
    error: ErrorInfo | None = None
    retry_at: float | None = None
    deaths: int = 0
    given_up: bool = False


class UndoFailed(msgspec.Struct, frozen=True, omit_defaults=True):
    """An attempt of an undo failed.

    Attributes:
        error: What the undo raised.
        retry_at: When it is tried again; `None`: not, or at once if it was interrupted.
        interrupted: The process ended while the undo ran; this is not counted as a failed attempt.
        deaths: If the process died rather than shut down: how often in a row it has died while this undo ran.
        given_up: There were too many deaths, and the undo is not run again unless an operator decides.
    """

    error: ErrorInfo | None = None
    retry_at: float | None = None
    interrupted: bool = False
    deaths: int = 0
    given_up: bool = False


class Expanded(msgspec.Struct, frozen=True):
    """A fan-out got its elements."""

    count: int


class Decided(msgspec.Struct, frozen=True, omit_defaults=True):
    """An operator's decision (or request), with who and why."""

    who: str = ""
    why: str = ""


class Supplied(msgspec.Struct, frozen=True, omit_defaults=True):
    """An operator said what a node in doubt returned. `output`: JSON."""

    output: bytes
    who: str = ""
    why: str = ""


class Rollback(msgspec.Struct, frozen=True, omit_defaults=True):
    """Rollback begins.

    `node`: whose failure caused it, or which an operator skipped or resolved going forward. `grace_until`: when actions
    that still run are cancelled; `None`: never.
    """

    cause: Cause
    node: str = ""
    who: str = ""
    why: str = ""
    grace_until: float | None = None


class StuckNode(msgspec.Struct, frozen=True):
    """A node that needs an operator, why, and the verbs that are legal for it."""

    node: str
    reason: str
    choices: tuple[str, ...]


class SagaStuck(msgspec.Struct, frozen=True, omit_defaults=True):
    """No legal automatic step is left. `parked`: it goes on by itself once code that knows it is back; says why."""

    nodes: tuple[StuckNode, ...] = ()
    parked: str = ""


Data: TypeAlias = (
    Created
    | Completed
    | Failed
    | InDoubt
    | UndoFailed
    | Expanded
    | Decided
    | Supplied
    | Rollback
    | SagaStuck
    | None
)

PAYLOADS: Final[dict[str, type[msgspec.Struct] | None]] = {
    STARTED: None,
    COMPLETED: Completed,
    FAILED: Failed,
    IN_DOUBT: InDoubt,
    UNDO_STARTED: None,
    UNDONE: None,
    UNDO_FAILED: UndoFailed,
    BRANCH_TAKEN: None,
    BRANCH_SKIPPED: None,
    EXPANDED: Expanded,
    RETRIED: Decided,
    SKIPPED: Decided,
    RESOLVED: Decided,
    SUPPLIED: Supplied,
    SAGA_CREATED: Created,
    SAGA_ROLLBACK: Rollback,
    SAGA_COMPLETED: None,
    SAGA_ROLLED_BACK: None,
    SAGA_STUCK: SagaStuck,
    SAGA_UNPARKED: None,
    SAGA_PAUSED: Decided,
    SAGA_RESUMED: Decided,
}
"""Every event type, and the payload that it carries."""


class Event(msgspec.Struct, frozen=True, gc=False):
    """One recorded fact.

    Attributes:
        seq: Position in the log, gap-free from 1.
        epoch: Fencing token of the coordinator that wrote it.
        at: Seconds since the Unix epoch, by the writer's clock.
        type: One of the types above.
        node: Path of the node; `""` for the saga itself.
        attempt: Which attempt of the node's action (or undo, for undo events), from 1; 0 for other events.
        data: The type's payload.
    """

    seq: int
    epoch: int
    at: float
    type: str
    node: str = ""
    attempt: int = 0
    data: Data = None
