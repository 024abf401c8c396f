"""Colours of the node states, for light and dark grounds. They only underline what is also said in words."""

from __future__ import annotations

from typing import Final

import msgspec

from compensate.core import states as s
from compensate.core.states import NodeState


class Colours(msgspec.Struct, frozen=True):
    """Ground, line and letters."""

    fill: str
    line: str
    text: str


NEUTRAL: Final = "neutral"
"""The colours of a node whose state is not given."""

LIGHT: Final[dict[NodeState | str, Colours]] = {
    NEUTRAL: Colours("#ffffff", "#6e7781", "#24292f"),
    s.PENDING: Colours("#f6f8fa", "#afb8c1", "#57606a"),
    s.RUNNING: Colours("#ddf4ff", "#0969da", "#0a3069"),
    s.COMPLETED: Colours("#e6f8ea", "#2da44e", "#116329"),
    s.FAILED: Colours("#ffebe9", "#cf222e", "#a40e26"),
    s.IN_DOUBT: Colours("#fff8c5", "#bf8700", "#7d4e00"),
    s.UNDOING: Colours("#fbefff", "#8250df", "#512a97"),
    s.UNDONE: Colours("#f4effd", "#8250df", "#512a97"),
    s.UNDO_FAILED: Colours("#ffd8d3", "#a40e26", "#82071e"),
    s.SKIPPED: Colours("#f6f8fa", "#8c959f", "#57606a"),
    s.RESOLVED: Colours("#dff7f7", "#1b7c83", "#0b4f55"),
}

DARK: Final[dict[NodeState | str, Colours]] = {
    NEUTRAL: Colours("#161b22", "#8b949e", "#e6edf3"),
    s.PENDING: Colours("#161b22", "#484f58", "#8b949e"),
    s.RUNNING: Colours("#0f2440", "#58a6ff", "#a5d6ff"),
    s.COMPLETED: Colours("#11281a", "#3fb950", "#7ee787"),
    s.FAILED: Colours("#351519", "#f85149", "#ffa198"),
    s.IN_DOUBT: Colours("#2e2410", "#d29922", "#f2cc60"),
    s.UNDOING: Colours("#231a3a", "#a371f7", "#d2a8ff"),
    s.UNDONE: Colours("#1f1931", "#a371f7", "#d2a8ff"),
    s.UNDO_FAILED: Colours("#4a171c", "#ff7b72", "#ffc1ba"),
    s.SKIPPED: Colours("#161b22", "#6e7681", "#8b949e"),
    s.RESOLVED: Colours("#0f2729", "#39c5cf", "#76e3ea"),
}

DASHED: Final = frozenset({s.SKIPPED, s.UNDONE, s.UNDOING})
"""States drawn with a broken line."""
