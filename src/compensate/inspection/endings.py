"""Endings: what a saga came to, as outputs and exceptions. All of it is read off the log.

The exception of a saga says the same in the process that ran it and in one that only reads its log; where the
original exception object is at hand, that is its `__cause__`, else the record of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from compensate.codec import type_codec
from compensate.core import events as e
from compensate.core import states as s
from compensate.core.log import Fold
from compensate.core.names import Direction, short_reason
from compensate.errors import ActionFailed, NotFound, RolledBack, SagaError, Stuck
from compensate.inspection.values import Values


def output_of(fold: Fold, node: str, tp: Any) -> Any:
    """See `Snapshot.output`."""
    i = _index(fold, node) if node else fold.plan.end
    return type_codec(tp, where=f"output of {node or 'the saga'}").decode(Values(fold).output(i))


def error_of(fold: Fold, node: str) -> ActionFailed | None:
    """See `Snapshot.error`."""
    if node:
        i = _index(fold, node)
        return _recorded(fold, node, "undo" if i in fold.undo_errors else "do")
    if fold.status == s.STUCK and fold.stuck is not None and fold.stuck.nodes:
        first = fold.stuck.nodes[0].node
    elif fold.rollback is not None and fold.rollback.node:
        first = fold.rollback.node
    else:
        return None
    return _recorded(fold, first, _why(fold, first))


def _index(fold: Fold, node: str) -> int:
    i = fold.plan.index.get(node)
    if i is None:
        near = ", ".join(list(fold.plan.index)[:10])
        raise NotFound(f"saga {fold.saga_id}: no node has the path {node[:80]!r}; there are {near}")
    return i


def ending(fold: Fold, exceptions: Mapping[tuple[str, Direction], BaseException]) -> SagaError:
    """The exception for a saga that did not complete, with the error that explains it as `__cause__`."""
    error: SagaError
    if fold.status == s.STUCK and fold.stuck is not None:
        error = _stuck(fold, fold.stuck)
        node = fold.stuck.nodes[0].node if fold.stuck.nodes else ""
    else:
        error = _rolled_back(fold.saga_id, fold.rollback or e.Rollback("request"))
        node = error.node
    if node:
        direction = _why(fold, node)
        cause = exceptions.get((node, direction))
        # Compared with None: an exception of the user's may be falsy, or refuse to say whether it is.
        error.__cause__ = _recorded(fold, node, direction) if cause is None else cause
    return error


def _rolled_back(saga_id: str, rollback: e.Rollback) -> RolledBack:
    # Imported here, as below, because all drawings come with it: a program whose sagas complete never needs them.
    from compensate.render.words import because, rollback_reason

    return RolledBack(
        f"saga {saga_id} was rolled back: {because(rollback)}",
        saga_id=saga_id,
        node=rollback.node,
        reason=rollback_reason(rollback),
    )


def _stuck(fold: Fold, stuck: e.SagaStuck) -> Stuck:
    node, reason = first_failure(fold)
    return Stuck(
        f"saga {fold.saga_id} {stuck_words(fold, stuck)}",
        saga_id=fold.saga_id,
        nodes=[node.node for node in stuck.nodes],
        reasons={node.node: short_reason(node.reason) for node in stuck.nodes},
        choices={node.node: node.choices for node in stuck.nodes},
        failed_node=node,
        failed_reason=reason,
        parked=stuck.parked,
    )


def stuck_words(fold: Fold, stuck: e.SagaStuck) -> str:
    """Why a saga is stuck or parked, and what failed before: words for people, to stand behind the saga's name."""
    from compensate.render.words import because

    if stuck.parked:
        return f"is parked: {stuck.parked}; it goes on by itself once that code is back"
    nodes = "; ".join(
        f"{node.node}: {short_reason(node.reason)} (choose: {', '.join(node.choices)})"
        for node in stuck.nodes[:_MOST_NAMED]
    )
    if len(stuck.nodes) > _MOST_NAMED:
        nodes += f"; and {len(stuck.nodes) - _MOST_NAMED} more nodes"
    words = f"is stuck and needs an operator: {nodes}"
    if fold.rollback is not None:
        link = "after" if fold.rollback.node else "because"
        words += f"; it was being rolled back {link} {because(fold.rollback)}"
    return words


def first_failure(fold: Fold) -> tuple[str, str]:
    """Which node failed first and why; no node where a request or a deadline began the rollback."""
    from compensate.render.words import rollback_reason

    if fold.rollback is not None:
        return fold.rollback.node, rollback_reason(fold.rollback)
    for i, why in fold.given_up.items():
        return fold.plan.names[i], short_reason(why)
    return "", ""


_MOST_NAMED: Final = 10
"""Nodes in a text; a fan-out may be stuck at thousands."""


def _why(fold: Fold, node: str) -> Direction:
    """Whether it is the action or the undo of `node` that explains how the saga stands."""
    stuck_at_undo = fold.status == s.STUCK and fold.state[fold.plan.index[node]] == s.UNDO_FAILED
    return "undo" if stuck_at_undo else "do"


def _recorded(fold: Fold, node: str, direction: Direction) -> ActionFailed | None:
    i = fold.plan.index[node]
    failed = fold.undo_errors.get(i) if direction == "undo" else fold.errors.get(i)
    return None if failed is None or failed.error is None else revive(node, failed.error)


def revive(node: str, info: e.ErrorInfo) -> ActionFailed:
    """The error as an exception, when the original object is not at hand.

    Its traceback shows causes, notes and leaves the way Python prints them, outermost cause first.
    """
    parts = [*(_shown(cause) + _BEHIND for cause in reversed(info.causes)), info.traceback, *info.notes]
    parts += [_shown(leaf) for leaf in info.leaves]
    return ActionFailed(node, info.type, info.message, "\n".join(part for part in parts if part))


_BEHIND: Final = "\nThe next error came of the one above:"


def _shown(info: e.ErrorInfo) -> str:
    """An error with its place and notes, as text."""
    head = f"{info.type}: {info.message}" if info.message else info.type
    return "\n".join(part for part in (info.traceback, head, *info.notes) if part)
