"""Events as lines of words."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, cast

from compensate.core import events as e
from compensate.core.events import Event
from compensate.core.names import short_reason
from compensate.render.words import by, said, why_rollback


def event_line(event: Event, *, saga_id: str = "", took: float | None = None, time: bool = True) -> str:
    """One event of a log in one line of words, for people; what programs need is in the event itself.

    Texts of users' own (messages, reasons) are repeated as they are: `render.words.plain` takes out of them what could
    steer a terminal.

    Args:
        event: Which.
        saga_id: Named where lines of several sagas are mixed.
        took: Seconds since what it ends began.
        time: Whether the line begins with the time and the event's number; without, two runs of a saga read the same.
    """
    words = _WORDS.get(event.type, _plain)(event)
    if took is not None:
        words += f" [{span(took)}]"
    where = event.node or "saga"
    if event.attempt > 1:
        where += f", attempt {event.attempt}"
    when = (clock_time(event.at), saga_id, f"#{event.seq}") if time else (saga_id,)
    return "  ".join(part for part in (*when, f"{where}: {words}") if part)


def clock_time(at: float) -> str:
    """A time for people and programs: UTC, to the millisecond."""
    try:
        return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except (OverflowError, OSError, ValueError):
        return str(at)


def span(seconds: float) -> str:
    """A length of time for people."""
    if seconds < 0.0995:
        return f"{max(seconds, 0) * 1000:.0f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 100:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 100 else f"{hours // 24} days"


def _plain(event: Event) -> str:
    return event.type.removeprefix("saga_").replace("_", " ")


def _again(event: Event, retry_at: float | None, otherwise: str = "") -> str:
    return otherwise if retry_at is None else f"; next attempt in {span(retry_at - event.at)}"


def _created(event: Event) -> str:
    data = cast(e.Created, event.data)
    limit = "" if data.deadline is None else f", to be complete by {clock_time(data.deadline)}"
    return f"created with {data.params.decode('utf-8', 'replace')}{limit}"


def _failed(event: Event) -> str:
    data = cast(e.Failed, event.data)
    clean = " (no effect)" if data.clean else ""
    return f"failed{clean}: {said(data.error)}{_again(event, data.retry_at)}"


_DOUBTS: Final = {
    "crash": "the process ended while it ran",
    "cut_off": "the process shut down, or released the saga, while it ran",
    "timeout": "it timed out",
    "cancelled": "it was cancelled",
    "unknown": "it could not tell",
    "unstorable": "it returned what the log cannot hold",
    "failed_after_doubt": "it failed after an attempt in doubt",
}


def _deaths(deaths: int, *, given_up: bool) -> str:
    times = f" ({deaths} times in a row)" if deaths > 1 else ""
    return f"{times}; it is not run again by itself" if given_up else times


def doubt(data: e.InDoubt) -> str:
    """Why a node is in doubt, in words."""
    words = _DOUBTS.get(data.reason, data.reason)
    words += _deaths(data.deaths, given_up=data.given_up)
    return f"{words}: {said(data.error)}" if data.error is not None else words


def _in_doubt(event: Event) -> str:
    data = cast(e.InDoubt, event.data)
    return f"in doubt: {doubt(data)}{_again(event, data.retry_at)}"


def _undo_failed(event: Event) -> str:
    data = cast(e.UndoFailed, event.data)
    if data.interrupted:
        what = f"undo cut off: the process ended while it ran{_deaths(data.deaths, given_up=data.given_up)}"
        return what if data.given_up else f"{what}; it is done again"
    return f"undo failed: {said(data.error)}{_again(event, data.retry_at, '; not tried again')}"


def _decided(words: str) -> Callable[[Event], str]:
    return lambda event: f"{words}{by(cast(e.Decided, event.data))}"


def _supplied(event: Event) -> str:
    data = cast(e.Supplied, event.data)
    return f"output {data.output.decode('utf-8', 'replace')} given{by(data)}"


def _stuck(event: Event) -> str:
    data = cast(e.SagaStuck, event.data)
    if data.parked:
        return f"parked: {data.parked}"
    nodes = "; ".join(
        f"{n.node} ({short_reason(n.reason)}); choices: {', '.join(n.choices)}" for n in data.nodes
    )
    return f"stuck, an operator is needed: {nodes}"


def _elements(event: Event) -> str:
    count = cast(e.Expanded, event.data).count
    return f"fans out to {count} element{'' if count == 1 else 's'}"


_WORDS: Final[dict[str, Callable[[Event], str]]] = {
    e.SAGA_CREATED: _created,
    e.UNDO_STARTED: lambda _: "undoing",
    e.FAILED: _failed,
    e.IN_DOUBT: _in_doubt,
    e.UNDO_FAILED: _undo_failed,
    e.BRANCH_TAKEN: lambda _: "its condition holds",
    e.BRANCH_SKIPPED: lambda _: "skipped: its condition does not hold",
    e.EXPANDED: _elements,
    e.RETRIED: _decided("to be retried, decided"),
    e.SKIPPED: _decided("skipped, its effect stays, decided"),
    e.RESOLVED: _decided("resolved by hand, decided"),
    e.SUPPLIED: _supplied,
    e.SAGA_ROLLBACK: lambda event: f"rolling back: {why_rollback(cast(e.Rollback, event.data))}",
    e.SAGA_STUCK: _stuck,
    e.SAGA_UNPARKED: lambda _: "goes on: the code that it needs is back",
    e.SAGA_PAUSED: _decided("paused"),
    e.SAGA_RESUMED: _decided("no longer paused"),
}
