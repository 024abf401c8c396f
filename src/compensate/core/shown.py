"""The states that readers are shown: those of brackets follow from the nodes inside them.

The fold keeps for a bracket (of a subsaga or a fan-out) only what the machine needs: whether it has begun, completed
or been skipped. What came of it in a rollback is not recorded, since undos run node by node; it is read off here.
"""

from __future__ import annotations

from typing import Final

from compensate.core import states as s
from compensate.core.log import Fold
from compensate.core.plan import ACTION, END, FAN_END

_TO_UNDO: Final = 1
_UNDOING: Final = 2
_FINAL: Final[dict[s.NodeState, int]] = {
    s.IN_DOUBT: 8,
    s.SKIPPED: 16,
    s.RESOLVED: 32,
    s.FAILED: 64,
    s.UNDONE: 128,
    s.COMPLETED: 256,
}
"""What a rollback may leave of a node; the one that a reader has to know of most comes first."""
_RUNNING: Final = 512
_GIVEN_UP: Final[dict[s.NodeState, int]] = {s.UNDO_FAILED: 1024, s.FAILED: 2048, s.IN_DOUBT: 4096}
"""What an operator has to decide about."""


def states(fold: Fold) -> dict[str, s.NodeState]:
    """The state of each node by its path, as readers are to be shown it.

    An action or constant has the state that the log gives it. A subsaga or fan-out:

    - is `pending` until it begins, `skipped` if its condition did not hold;
    - going forward, is `completed` once everything in it is, `failed` or `in_doubt` if a node in it was given up, and
      `running` otherwise;
    - in a rollback, is `undo_failed` or `in_doubt` if a node in it was given up, `undoing` from the first undo in it to
      the last (and where it did not complete and its turn is still to come), `running` while an action in it lands,
      and `completed` if it did complete and its turn is still to come;
    - once nothing is left to undo in it, is what the rollback left of its nodes, the worst first: `in_doubt`,
      `skipped` (an operator left an effect as it is), `resolved`, `failed`, `undone`. It stays `completed` only if
      nothing in it has an undo.

    Costs O(nodes), whatever the depth.
    """
    plan, state = fold.plan, fold.state
    shown = list(state)
    within = [0] * len(state)
    # Brackets stand before what is inside them, so that one pass from the end meets all inner nodes first.
    for i in range(len(state) - 1, -1, -1):
        kind = plan.kinds[i]
        if kind == ACTION:
            within[i] = _of_action(fold, i)
        elif kind in (END, FAN_END):
            shown[i] = _of_bracket(fold, i, within[i])
        else:
            continue
        outer = plan.fan[i] if plan.fan[i] >= 0 else plan.scopes[i].end
        if outer != i:
            within[outer] |= within[i]
    return {path: shown[i] for path, i in plan.index.items()}


def _of_action(fold: Fold, i: int) -> int:
    """What one action node says about the brackets around it."""
    state = fold.state[i]
    if state == s.PENDING:
        return 0
    if state == s.RUNNING:
        return _RUNNING
    if state == s.UNDOING:
        return _UNDOING
    if fold.choices(i):
        return _GIVEN_UP[state]
    if fold.rollback is None:
        # What failed here is tried again, or begins the rollback at once.
        return _FINAL[s.COMPLETED] if state == s.COMPLETED else 0
    if fold.has_to_undo(i):
        return _TO_UNDO
    if state == s.UNDO_FAILED:
        return _UNDOING  # it is tried again
    if state == s.SKIPPED and not fold.attempt[i]:
        return 0  # its condition did not hold
    return _FINAL[state]


def _of_bracket(fold: Fold, i: int, within: int) -> s.NodeState:
    state = fold.state[i]
    begin = fold.plan.partner[i]
    if state == s.SKIPPED or fold.state[begin] == s.PENDING:
        return s.SKIPPED if state == s.SKIPPED else s.PENDING
    for given_up, bit in _GIVEN_UP.items():
        if within & bit:
            return given_up
    if fold.rollback is None:
        return s.COMPLETED if state == s.COMPLETED else s.RUNNING
    if within & _UNDOING:
        return s.UNDOING
    if within & _RUNNING:
        return s.RUNNING
    if within & _TO_UNDO:
        begun = within & _FINAL[s.UNDONE] or state != s.COMPLETED
        return s.UNDOING if begun else s.COMPLETED
    for left, bit in _FINAL.items():
        if within & bit and left != s.COMPLETED:
            return left
    if state == s.COMPLETED:
        return s.COMPLETED
    # Cut short: what completed in it has no undo, or nothing in it has started.
    return s.UNDONE if within else s.PENDING
