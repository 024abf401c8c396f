"""The tree: a saga's nodes stage by stage with states in sign, word and colour, do and undo times, attempts, errors."""

from __future__ import annotations

from typing import Final

from rich.console import Group
from rich.text import Text

from compensate.core import events as e
from compensate.core import states as s
from compensate.core.states import NodeState, SagaStatus
from compensate.inspection.timeline import Timeline
from compensate.render.lines import doubt, span
from compensate.render.text import Row, rows
from compensate.render.view import ViewNode, snapshot, state_words
from compensate.render.words import STATE_WORDS, columns, cut, plain, said, why_rollback

STYLES: Final[dict[str, str]] = {
    s.PENDING: "bright_black",
    s.RUNNING: "bold cyan",
    s.COMPLETED: "green",
    s.FAILED: "red",
    s.IN_DOUBT: "yellow",
    s.UNDOING: "bold magenta",
    s.UNDONE: "magenta",
    s.UNDO_FAILED: "bold red",
    s.SKIPPED: "bright_black",
    s.RESOLVED: "blue",
    s.ROLLING_BACK: "bold magenta",
    s.ROLLED_BACK: "magenta",
    s.STUCK: "bold red",
}
SIGNS: Final[dict[SagaStatus, tuple[str, str]]] = {
    s.RUNNING: ("◐", ">"),
    s.ROLLING_BACK: ("◑", "<"),
    s.COMPLETED: ("●", "+"),
    s.ROLLED_BACK: ("↶", "-"),
    s.STUCK: ("✗", "!"),
}
_INTERESTING: Final[tuple[NodeState, ...]] = (
    s.UNDO_FAILED,
    s.RUNNING,
    s.UNDOING,
    s.IN_DOUBT,
    s.FAILED,
)


def status_text(
    status: SagaStatus, *, paused: bool = False, parked: bool = False, ascii_only: bool = False
) -> Text:
    """A saga's status in sign, word and colour."""
    words = f"{SIGNS[status][ascii_only]} {STATE_WORDS[status]}"
    words += " (parked)" if parked else ", paused" if paused else ""
    return Text(words, style=STYLES[status])


def tree(
    timeline: Timeline, now: float, *, width: int, height: int | None = None, ascii_only: bool = False
) -> Group:
    """Draw a saga.

    Args:
        timeline: The saga.
        now: The time, for what still runs.
        width: Columns to fit into.
        height: Lines to fit into; the nodes that say least are left out and counted.
        ascii_only: Only ASCII signs.
    """
    lines = [_title(timeline, now, width, ascii_only)]
    for why in _why(timeline):
        # Only what is not drawn again and again has room for long words.
        said_in = cut(plain(why), width - 2) if height is not None else plain(why)
        lines.append(Text("  " + said_in, style="red"))
    shown = _Rows(timeline, now, width, ascii_only)
    room = None if height is None else max(3, height - len(lines))
    return Group(*lines, *shown.lines(room))


def _title(timeline: Timeline, now: float, width: int, ascii_only: bool) -> Text:
    fold = timeline.fold
    parked = fold.stuck is not None and bool(fold.stuck.parked)
    until = timeline.last_at if timeline.ended else now
    title = Text(no_wrap=True, overflow="ellipsis")
    title.append(plain(timeline.name), "bold")
    title.append("  ")
    title.append_text(status_text(timeline.status, paused=fold.paused, parked=parked, ascii_only=ascii_only))
    title.append(f"  {span(until - timeline.created_at)}", "bright_black")
    title.append(f"  id {timeline.id}", "bright_black")
    title.truncate(width, overflow="ellipsis")
    return title


def _why(timeline: Timeline) -> list[str]:
    fold = timeline.fold
    if fold.stuck is not None and fold.stuck.parked:
        return [f"parked: {fold.stuck.parked}"]
    return [] if fold.rollback is None else [why_rollback(fold.rollback)]


class _Rows:
    def __init__(self, timeline: Timeline, now: float, width: int, ascii_only: bool) -> None:
        self.timeline = timeline
        self.now = now
        self.width = width
        self.cut = "..." if ascii_only else "…"
        view = snapshot(timeline.fold)
        self.rows = rows(view, ascii=ascii_only)
        self.states: list[NodeState | None] = [row.item.state for row in self.rows]
        self.rolled = timeline.fold.rollback is not None

    def lines(self, room: int | None) -> list[Text]:
        chosen = self._choose(room)
        left = max((columns(self._left(self.rows[k])) for k in chosen), default=0)
        left = min(left, max(12, self.width // 2))
        words = max((columns(self._words(k)) for k in chosen), default=0)
        words = min(max(words, 11), max(11, self.width // 4))
        lines = [self._line(k, left, words) for k in chosen]
        if len(chosen) < len(self.rows):
            lines.append(self._rest(set(chosen)))
        return lines

    def _choose(self, room: int | None) -> list[int]:
        """The rows that say most, in their order."""
        if room is None or len(self.rows) <= room:
            return list(range(len(self.rows)))

        def weight(k: int) -> tuple[int, int]:
            state = self.states[k]
            rank = _INTERESTING.index(state) if state in _INTERESTING else len(_INTERESTING)
            return rank, -self.timeline.last_seq.get(self.rows[k].item.path, 0)

        return sorted(sorted(range(len(self.rows)), key=weight)[: room - 1])

    def _rest(self, chosen: set[int]) -> Text:
        counts: dict[str, int] = {}
        for k, state in enumerate(self.states):
            if k not in chosen and state is not None:
                counts[state] = counts.get(state, 0) + 1
        told = ", ".join(f"{count} {STATE_WORDS[state]}" for state, count in counts.items())
        return Text(
            cut(f"{self.cut} and {len(self.rows) - len(chosen)} more: {told}", self.width), "bright_black"
        )

    def _left(self, row: Row) -> str:
        return f"{row.lead} {plain(row.mark + row.name)}"

    def _words(self, k: int) -> str:
        item = self.rows[k].item
        if isinstance(item, ViewNode):
            return state_words(item)
        return "" if item.state is None else STATE_WORDS[item.state]

    def _line(self, k: int, left: int, words: int) -> Text:
        row = self.rows[k]
        state: NodeState | None = self.states[k]
        style = STYLES[state] if state is not None else ""
        line = Text(no_wrap=True, overflow="ellipsis")
        line.append(row.lead + " ", "bright_black")
        name = cut(plain(row.mark + row.name), max(3, left - columns(row.lead) - 1), self.cut)
        line.append(name, style)
        line.append(" " * max(0, left - columns(row.lead) - 1 - columns(name)) + "  ")
        word = cut(self._words(k), words, self.cut)
        line.append(word + " " * (words - columns(word)), style)
        line.append_text(self._times(row))
        line.append_text(self._detail(row, state))
        line.rstrip()
        line.truncate(self.width, overflow="ellipsis")
        return line

    def _times(self, row: Row) -> Text:
        path = row.item.path
        did, undid = self.timeline.span(path, "do"), self.timeline.span(path, "undo")
        do = "" if did is None else span(self._until(did.ended) - did.began)
        undo = "" if undid is None else f"undo {span(self._until(undid.ended) - undid.began)}"
        text = Text(f"  {do:>8}", "bright_black")
        if self.timeline.undo_order:
            text.append(f"  {undo:>13}", "magenta" if undo else "")
        return text

    def _until(self, ended: float | None) -> float:
        # What a crash cut off has no end; it does not run on for ever.
        return ended if ended is not None else self.timeline.last_at if self.timeline.ended else self.now

    def _detail(self, row: Row, state: NodeState | None) -> Text:
        path = row.item.path
        text = Text()
        again = self.timeline.next_attempt(path)
        if again is not None:
            left = again - self.now
            when = f"in {span(left)}" if left > 0 else "now"
            if self.timeline.fold.paused:
                when = "when no longer paused"
            text.append(f"  next attempt {when}", "bold yellow")
        error = self._error(path, state)
        if error:
            text.append(f"  {plain(error)}", "red" if state != s.UNDONE else "bright_black")
        notes = [note for note in row.item.notes if note != "fan-out"]
        if notes and not error:
            text.append(f"  ({', '.join(notes)})", "bright_black")
        return text

    def _error(self, path: str, state: NodeState | None) -> str:
        fold = self.timeline.fold
        i = fold.plan.index.get(path)
        if i is None or state in (s.COMPLETED, s.PENDING, s.UNDONE):
            return ""
        if state in (s.UNDO_FAILED, s.UNDOING) and i in fold.undo_errors:
            failed = fold.undo_errors[i]
            return "cut off by the end of its process" if failed.interrupted else said(failed.error)
        if i not in fold.errors:
            return ""
        error = fold.errors[i]
        return doubt(error) if isinstance(error, e.InDoubt) else said(error.error)
