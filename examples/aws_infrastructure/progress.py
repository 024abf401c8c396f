"""One line on the terminal for each step that the log of a saga records."""

from __future__ import annotations

import json
import os
import sys

from compensate.core import events as e
from compensate.core.events import Event
from compensate.render.words import said

GREEN, RED, YELLOW, BOLD, DIM = "32", "31", "33", "1", "2"
END = {e.SAGA_COMPLETED: GREEN, e.SAGA_ROLLED_BACK: YELLOW, e.SAGA_STUCK: RED}


def paint(text: str, *codes: str) -> str:
    """Colour a text; on a terminal only, and not if NO_COLOR is set (no-color.org)."""
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        return text
    return f"\033[{';'.join(codes)}m{text}\033[0m"


def line_of(event: Event) -> str | None:
    """What to print of an event; `None` for one that is no news to a reader (a start, a branch)."""
    data = event.data
    if isinstance(data, e.Completed):
        return _line("do", GREEN, event.node, _short(data.output))
    if isinstance(data, e.Failed | e.InDoubt | e.UndoFailed):
        # A crash leaves no error behind.
        error = said(data.error)
        again = "; to be tried again" if data.retry_at is not None else ""
        if isinstance(data, e.InDoubt):
            return _line("in doubt", YELLOW, event.node, f"{error or data.reason}{again}")
        return _line("failed", RED, event.node, f"{error or 'cut off'}{again}")
    if event.type == e.UNDONE:
        return _line("undo", YELLOW, event.node, "")
    if isinstance(data, e.Rollback):
        return _line("rollback", YELLOW, "", f"{data.node} failed" if data.node else data.why or data.cause)
    if event.type in END:
        return _line("saga", END[event.type], "", event.type.removeprefix("saga_").replace("_", " "))
    return None


def _line(word: str, colour: str, node: str, rest: str) -> str:
    line = f"{node:<24}  {rest}" if node else rest
    return f"  {paint(f'{word:<8}', colour)}  {line}".rstrip()


def _short(output: bytes) -> str:
    value = json.loads(output)
    return value if isinstance(value, str) else ""
