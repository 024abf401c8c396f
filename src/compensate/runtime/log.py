"""What the library writes to the logger `compensate`: what became of sagas, and what went wrong around them.

One table says which events are written, at which level and in which words. An event is written by the process that
stored it, once it is durable, whoever runs the saga and whether or not anybody waits for it. A log that is read
again, after a restart or a failed append, is not written again.

Each message can be read alone and stands on one line: control characters in users' texts become spaces. Each record
has all the `FIELDS` as attributes. Params, outputs and other values of users are never written; the messages of
their exceptions are.
"""

from __future__ import annotations

import logging
import shlex
import traceback
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from logging import ERROR, INFO, WARNING
from typing import Any, Final, NamedTuple, Protocol, cast

from compensate.core import events as e
from compensate.core.events import Event
from compensate.core.log import Fold
from compensate.core.names import short_reason
from compensate.errors import CompensateError
from compensate.inspection.endings import first_failure, stuck_words

logger: Final = logging.getLogger("compensate")

FIELDS: Final[dict[str, Any]] = {
    "saga": "",
    "definition": "",
    "node": "",
    "attempt": 0,
    "epoch": 0,
    "owner": "",
    "event": "",
    "reason": "",
    "nodes": (),
    "choices": {},
}
"""The attributes of every record, and what they are where they do not apply.

`saga` is the saga's id, `definition` the name of its definition, `event` the type of the event. `reason` says in words
what a failure, a rollback or an end came from. Of a stuck saga, `nodes` are the paths of the nodes that need a
decision, `node` is the first of them, and `choices` has what can be chosen for each.
"""

_LONGEST: Final = 2_000
"""Characters of a message: an error of a user's may be as long as it likes."""


class _Unheard(logging.Handler):
    """Writes errors to stderr where the program has configured no logging, so that a saga is not stuck in silence.

    Without a handler `logging` would write warnings too, and each attempt that fails in a script would be two lines.
    """

    def __init__(self) -> None:
        super().__init__(ERROR)

    def emit(self, record: logging.LogRecord) -> None:
        """Write it, unless somebody else does."""
        at: logging.Logger | None = logger
        while at is not None:
            if any(handler is not self for handler in at.handlers):
                return
            at = at.parent if at.propagate else None
        if logging.lastResort is not None:
            logging.lastResort.handle(record)


_unheard: Final = _Unheard()
logger.addHandler(_unheard)


def _heard(level: int) -> bool:
    """Whether any handler would write a record of that level: where nobody listens, no record is made."""
    if level >= ERROR:
        return True  # it goes to stderr at least
    at: logging.Logger | None = logger
    while at is not None:
        for handler in at.handlers:
            if handler is not _unheard and level >= handler.level:
                return True
        at = at.parent if at.propagate else None
    return False


_muted: ContextVar[bool] = ContextVar("compensate_log_muted", default=False)


class Report(Protocol):
    """Takes what went wrong around sagas; see `report`."""

    def __call__(self, what: str, error: BaseException, /, *, saga: str = ..., epoch: int = ...) -> None:
        """Write it."""
        ...


@contextmanager
def muted() -> Generator[None, None, None]:
    """Write no events in this context, nor in the tasks that are made in it: a rehearsal of faults would flood the log.

    The same goes for lost leases. What is given to `report` is written nevertheless.
    """
    token = _muted.set(True)
    try:
        yield
    finally:
        _muted.reset(token)


def write_events(fold: Fold, owner: str, events: Sequence[Event]) -> None:
    """Write those events of a saga, durable by now, that are to be written.

    Args:
        fold: The saga, with the events applied.
        owner: Who runs it.
        events: Just stored, in their order.
    """
    for event in events:
        line = _LINES.get(event.type)
        if line is None:
            continue
        level = line.level
        if not logger.isEnabledFor(level) or _muted.get() or not _heard(level):
            continue
        words, fields = line.say(fold, event)
        name = fold.plan.dag.name
        write(
            level,
            f"saga {fold.saga_id} of {name}{words}",
            saga=fold.saga_id,
            definition=name,
            attempt=event.attempt,
            epoch=event.epoch,
            owner=owner,
            event=event.type,
            **({"node": event.node} | fields),
        )


def report(what: str, error: BaseException, *, saga: str = "", epoch: int = 0, owner: str = "") -> None:
    """Write what went wrong around sagas, as an error.

    Args:
        what: What happened and what is done about it.
        error: Why. If it is none of the library's own, its traceback is written too.
        saga: The id of the saga that it concerns, if it is one.
        epoch: Under which it was run.
        owner: Who reports.
    """
    from compensate.render.words import said
    from compensate.runtime.failures import error_info

    recorded = error_info(error)
    known = isinstance(error, CompensateError) and recorded.message
    reason = recorded.message if known else said(recorded)
    info = None if known or not _can_be_formatted(error) else (type(error), error, error.__traceback__)
    write(ERROR, f"{what}: {reason}", info, saga=saga, epoch=epoch, owner=owner, reason=reason)


def lease_lost(owner: str) -> None:
    """Write that the lease of a coordinator ran out before it was renewed."""
    if _muted.get():
        return
    text = (
        f"coordinator {owner}: its lease had run out before it was renewed; others may have claimed its sagas "
        "meanwhile; if this comes again, look for what blocks its event loop or its store, or give it a longer lease"
    )
    write(ERROR, text, owner=owner, reason="the lease had run out")


def write(level: int, text: str, exc_info: Any = None, **fields: Any) -> None:
    """Write one record with all `FIELDS`. A handler that raises disturbs nothing."""
    from compensate.render.words import plain  # not needed before something is to be said

    text = plain(text)
    fields["reason"] = plain(fields.get("reason", ""))
    if len(text) > _LONGEST:
        text = f"{text[:_LONGEST]}… ({len(text)} characters)"
    try:
        logger.log(level, "%s", text, exc_info=exc_info, extra=FIELDS | fields)
    except Exception:
        # As `logging.Handler.handleError` has it. The saga must not end for a log that cannot be written.
        if logging.raiseExceptions:
            with suppress(Exception):
                traceback.print_exc()


def _can_be_formatted(error: BaseException) -> bool:
    """Whether handlers can write its traceback: they fail at an exception that refuses to say whether it is true."""
    try:
        traceback.format_exception(error)
    except Exception:
        return False
    return True


# -- words ---------------------------------------------------------------------


class _Line(NamedTuple):
    level: int
    say: Callable[[Fold, Event], tuple[str, dict[str, Any]]]
    """The message behind `saga x of y`, and the fields that are not in the event's envelope."""


def _words(words: str) -> Callable[[Fold, Event], tuple[str, dict[str, Any]]]:
    return lambda fold, event: (words, {})


def _failed(fold: Fold, event: Event) -> tuple[str, dict[str, Any]]:
    from compensate.render.words import said

    data = cast(e.Failed, event.data)
    reason = said(data.error)
    clean = " and took no effect" if data.clean else ""
    return f": node {event.node!r} failed{clean}: {reason}{_again(event, data.retry_at)}", {"reason": reason}


def _in_doubt(fold: Fold, event: Event) -> tuple[str, dict[str, Any]]:
    from compensate.render.lines import doubt

    data = cast(e.InDoubt, event.data)
    reason = doubt(data)
    # What a crash cut off is run again or undone at once; no time was set for that.
    again = f" (attempt {event.attempt})" if data.reason == "crash" else _again(event, data.retry_at)
    words = f": node {event.node!r} is in doubt, it may or may not have taken effect: {reason}{again}"
    return words, {"reason": reason}


def _undo_failed(fold: Fold, event: Event) -> tuple[str, dict[str, Any]]:
    from compensate.render.words import said

    data = cast(e.UndoFailed, event.data)
    if data.interrupted:
        reason = "the process ended while it ran"
        return f": the undo of node {event.node!r} was cut off: {reason}; it is run again", {"reason": reason}
    reason = said(data.error)
    return f": the undo of node {event.node!r} failed: {reason}{_again(event, data.retry_at)}", {
        "reason": reason
    }


def _again(event: Event, retry_at: float | None) -> str:
    from compensate.render.lines import span

    if retry_at is None:
        return f" (attempt {event.attempt}, not tried again)"
    return f" (attempt {event.attempt}, the next one in {span(retry_at - event.at)})"


def _rollback(fold: Fold, event: Event) -> tuple[str, dict[str, Any]]:
    from compensate.render.words import because

    data = cast(e.Rollback, event.data)
    reason = because(data)
    by = f" (asked by {data.who})" if data.who else ""
    return f" is being rolled back: {reason}{by}", {"reason": reason, "node": data.node}


def _rolled_back(fold: Fold, event: Event) -> tuple[str, dict[str, Any]]:
    from compensate.render.words import because

    reason = "" if fold.rollback is None else because(fold.rollback)
    return f" was rolled back: {reason}", {"reason": reason, "node": first_failure(fold)[0]}


def _stuck(fold: Fold, event: Event) -> tuple[str, dict[str, Any]]:
    data = cast(e.SagaStuck, event.data)
    words = f" {stuck_words(fold, data)}"
    if data.parked:
        return words, {"reason": data.parked}
    first = data.nodes[0].node if data.nodes else ""
    command = shlex.join(["compensate", "retry", "--", fold.saga_id, first])
    words += f"; once the cause is mended, retry it ({command}), or choose otherwise"
    return words, {
        "node": first,
        "nodes": tuple(node.node for node in data.nodes),
        "reason": "; ".join(f"{node.node}: {short_reason(node.reason)}" for node in data.nodes),
        "choices": {node.node: node.choices for node in data.nodes},
    }


def _decided(words: str) -> Callable[[Fold, Event], tuple[str, dict[str, Any]]]:
    def say(fold: Fold, event: Event) -> tuple[str, dict[str, Any]]:
        from compensate.render.words import by

        data = cast("e.Decided | e.Supplied", event.data)
        return f"{words.format(node=repr(event.node))}{by(data)}", {"reason": data.why}

    return say


_LINES: Final[Mapping[str, _Line]] = {
    e.SAGA_CREATED: _Line(INFO, _words(" started")),
    e.SAGA_COMPLETED: _Line(INFO, _words(" completed")),
    e.SAGA_ROLLED_BACK: _Line(INFO, _rolled_back),
    e.SAGA_ROLLBACK: _Line(WARNING, _rollback),
    e.SAGA_STUCK: _Line(ERROR, _stuck),
    e.SAGA_UNPARKED: _Line(INFO, _words(" goes on: the code at hand fits it again")),
    e.SAGA_PAUSED: _Line(INFO, _decided(" was paused")),
    e.SAGA_RESUMED: _Line(INFO, _decided(" goes on after a pause, decided")),
    e.FAILED: _Line(WARNING, _failed),
    e.IN_DOUBT: _Line(WARNING, _in_doubt),
    e.UNDO_FAILED: _Line(WARNING, _undo_failed),
    e.RETRIED: _Line(INFO, _decided(": node {node} is to be retried, decided")),
    e.SKIPPED: _Line(INFO, _decided(": node {node} was skipped and its effect stays, decided")),
    e.RESOLVED: _Line(INFO, _decided(": node {node} was resolved by hand, decided")),
    e.SUPPLIED: _Line(INFO, _decided(": the output of node {node} was given, decided")),
}
"""Which events are written; all others are the ordinary course of things."""

WRITTEN: Final = frozenset(_LINES)
"""Types of the events that are written."""
