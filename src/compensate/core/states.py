"""The transition tables: which event takes a node, or a saga, from which state to which.

The rules above the tables (when an event is *decided*) are in `machine`; here
stands only what is possible at all. A log that takes a step which is not in a
table is refused. The diagrams in the docs are drawn from these tables.
"""

from __future__ import annotations

from typing import Final, Literal

from compensate.core import events as e

NodeState = Literal[
    "pending",
    "running",
    "completed",
    "failed",
    "in_doubt",
    "undoing",
    "undone",
    "undo_failed",
    "skipped",
    "resolved",
]
SagaStatus = Literal["running", "rolling_back", "completed", "rolled_back", "stuck"]

PENDING: Final = "pending"
RUNNING: Final = "running"
COMPLETED: Final = "completed"
FAILED: Final = "failed"
IN_DOUBT: Final = "in_doubt"
UNDOING: Final = "undoing"
UNDONE: Final = "undone"
UNDO_FAILED: Final = "undo_failed"
SKIPPED: Final = "skipped"
RESOLVED: Final = "resolved"

ROLLING_BACK: Final = "rolling_back"
ROLLED_BACK: Final = "rolled_back"
STUCK: Final = "stuck"

NODE: Final[dict[str, dict[NodeState, NodeState]]] = {
    # An action starts, is tried again, or is re-run in doubt under the same key.
    e.STARTED: {PENDING: RUNNING, FAILED: RUNNING, IN_DOUBT: RUNNING},
    e.COMPLETED: {RUNNING: COMPLETED},
    e.FAILED: {RUNNING: FAILED},
    e.IN_DOUBT: {RUNNING: IN_DOUBT},
    # A failed node is undone only by an undo that takes `None`; so is one in doubt.
    e.UNDO_STARTED: {COMPLETED: UNDOING, FAILED: UNDOING, IN_DOUBT: UNDOING, UNDO_FAILED: UNDOING},
    e.UNDONE: {UNDOING: UNDONE},
    e.UNDO_FAILED: {UNDOING: UNDO_FAILED},
    e.BRANCH_TAKEN: {PENDING: PENDING},
    e.BRANCH_SKIPPED: {PENDING: SKIPPED},
    e.EXPANDED: {PENDING: RUNNING},
    # An operator's decisions.
    e.RETRIED: {FAILED: FAILED, IN_DOUBT: IN_DOUBT, UNDO_FAILED: UNDO_FAILED},
    e.SKIPPED: {IN_DOUBT: SKIPPED, UNDO_FAILED: SKIPPED},
    e.RESOLVED: {IN_DOUBT: RESOLVED, UNDO_FAILED: RESOLVED},
    e.SUPPLIED: {FAILED: COMPLETED, IN_DOUBT: COMPLETED},
}
"""NODE[event type][state before] = state after."""

SAGA: Final[dict[str, dict[SagaStatus, SagaStatus]]] = {
    # From `stuck` only while the saga goes forward.
    e.SAGA_ROLLBACK: {RUNNING: ROLLING_BACK, COMPLETED: ROLLING_BACK, STUCK: ROLLING_BACK},
    e.SAGA_COMPLETED: {RUNNING: COMPLETED},
    e.SAGA_ROLLED_BACK: {ROLLING_BACK: ROLLED_BACK},
    e.SAGA_STUCK: {RUNNING: STUCK, ROLLING_BACK: STUCK},
    e.SAGA_PAUSED: {RUNNING: RUNNING, ROLLING_BACK: ROLLING_BACK},
    e.SAGA_RESUMED: {RUNNING: RUNNING, ROLLING_BACK: ROLLING_BACK},
}
"""SAGA[event type][status before] = status after.

An operator's decision about a node, or `saga_unparked`, also leads out of `stuck`: back to the direction in which the
saga was going (`UNSTICK`).
"""

UNSTICK: Final = frozenset({e.RETRIED, e.SKIPPED, e.RESOLVED, e.SUPPLIED, e.SAGA_UNPARKED})

ENDS: Final = frozenset({COMPLETED, ROLLED_BACK, STUCK})
"""Statuses in which nothing runs until somebody decides."""
