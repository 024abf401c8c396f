"""Words and lengths that drawings, lines of a log and messages share."""

from __future__ import annotations

from typing import Final
from unicodedata import east_asian_width

from compensate.core import events as e
from compensate.core.names import short_reason, short_type

STATE_WORDS: Final[dict[str, str]] = {
    "pending": "pending",
    "running": "running",
    "completed": "completed",
    "failed": "failed",
    "in_doubt": "in doubt",
    "undoing": "undoing",
    "undone": "undone",
    "undo_failed": "undo failed",
    "skipped": "skipped",
    "resolved": "resolved",
    "rolling_back": "rolling back",
    "rolled_back": "rolled back",
    "stuck": "stuck",
}
"""How a node state or saga status is written for people."""


def said(error: e.ErrorInfo | None) -> str:
    """An error in one phrase; `""` for none."""
    if error is None:
        return ""
    return f"{short_type(error.type)}: {error.message}" if error.message else short_type(error.type)


def by(data: e.Decided | e.Supplied | e.Rollback) -> str:
    """Who decided something and why, in words that follow a verb."""
    who = f" by {data.who}" if data.who else ""
    return f"{who}: {data.why}" if data.why else who


_NO_REASON: Final = {"request": "it was asked for", "deadline": "its deadline passed"}


def rollback_reason(rollback: e.Rollback) -> str:
    """Why a rollback began, without the node that failed: the error, what the operator said, or the deadline."""
    if not rollback.why:
        return _NO_REASON.get(rollback.cause, "")
    return short_reason(rollback.why) if rollback.cause == "failure" else rollback.why


def because(rollback: e.Rollback) -> str:
    """What began a rollback, as a sentence for messages and exceptions."""
    if rollback.node:
        return f"node {rollback.node!r} failed: {rollback_reason(rollback)}"
    if rollback.cause == "request" and rollback.why:
        return f"it was asked for: {rollback.why}"
    return rollback_reason(rollback)


def why_rollback(rollback: e.Rollback, *, brief: bool = False) -> str:
    """What began a rollback, as a phrase for drawings and lines of a log.

    Args:
        rollback: As recorded.
        brief: Whether the error of the node that failed is left out, where it is shown beside the node.
    """
    if rollback.cause == "failure":
        return f"{rollback.node} failed" + ("" if brief else f": {short_reason(rollback.why)}")
    if rollback.cause == "deadline":
        return _NO_REASON["deadline"]
    return f"asked for{by(rollback)}"


def plain(text: str) -> str:
    """`text` on one line, of characters that every format can carry."""
    if text.isprintable():
        return " ".join(text.split())
    return " ".join(
        "".join(c if _carried(c) else ("\ufffd" if "\ud800" <= c <= "\udfff" else " ") for c in text).split()
    )


def lines(text: str) -> str:
    """`text` of several lines, each with its indentation and of characters that every format can carry."""
    return "\n".join(
        line if line.isprintable() else "".join(c if _carried(c) else " " for c in line)
        for line in text.split("\n")
    )


def exact(text: str) -> str:
    """JSON `text` on one line that reads back as the same data: what `plain` would change is escaped."""
    if text.isprintable():
        return text
    return "".join(c if _carried(c) else _escaped(c) for c in text)


def _escaped(char: str) -> str:
    units = char.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[k]:02x}{units[k + 1]:02x}" for k in range(0, len(units), 2))


def _carried(char: str) -> bool:
    return char.isprintable() and char not in "\ufffe\uffff"


def columns(text: str) -> int:
    """How many columns of a terminal `text` takes."""
    if text.isascii():
        return len(text)
    return sum(2 if east_asian_width(char) in "WF" else 1 for char in text)


def cut(text: str, width: int, ellipsis: str = "…") -> str:
    """`text`, cut to `width` columns."""
    if columns(text) <= width:
        return text
    room = width - columns(ellipsis)
    kept: list[str] = []
    for char in text:
        room -= columns(char)
        if room < 0:
            break
        kept.append(char)
    return "".join(kept).rstrip() + ellipsis


def wrap(text: str, width: int, most: int) -> list[str]:
    """`text` in at most `most` lines of `width` columns; broken at spaces and joints where there are any."""
    rest = plain(text)
    lines: list[str] = []
    while columns(rest) > width and len(lines) < most - 1:
        end = len(cut(rest, width, ""))
        head = rest[:end]
        if rest[end : end + 1] != " ":
            joint = max(head.rfind(mark) + (mark != " ") for mark in " -_/.,:")
            if joint > width // 3:
                head = rest[:joint]
        lines.append(head.rstrip())
        rest = rest[len(head) :].lstrip()
    lines.append(cut(rest, width))
    return lines
