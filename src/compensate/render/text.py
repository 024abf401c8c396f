"""A saga for the terminal: stage by stage, what runs beside what, and what waits for what."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from compensate.core.states import NodeState
from compensate.render.layers import children, edges_within, nearest, ranks
from compensate.render.view import END, START, Source, View, ViewGroup, ViewNode, state_words, times, view
from compensate.render.words import STATE_WORDS, columns, cut, plain

_DRAWN: Final = {
    False: {
        "only": "─",
        "first": "┬",
        "more": "├",
        "last": "└",
        "down": "│",
        "lead": "─",
        "from": "←",
        "cut": "…",
    },
    True: {
        "only": "-",
        "first": "+",
        "more": "+",
        "last": "`",
        "down": "|",
        "lead": "-",
        "from": "<-",
        "cut": "...",
    },
}
_MANY: Final = 3
"""Whoever waits for a whole stage of so many is told its number, not all their names."""

_VALUE: Final = 40
"""Columns of a constant's value."""

_MARK: Final[dict[NodeState, tuple[str, str]]] = {
    "pending": ("○", "."),
    "running": ("◐", ">"),
    "completed": ("●", "+"),
    "failed": ("✗", "x"),
    "in_doubt": ("?", "?"),
    "undoing": ("◑", "<"),
    "undone": ("↶", "-"),
    "undo_failed": ("✗", "!"),
    "skipped": ("–", "/"),
    "resolved": ("✓", "="),
}


class Row(msgspec.Struct, frozen=True):
    """One line of the drawing.

    Attributes:
        lead: The number of its stage and the lines that lead to it.
        mark: The sign of its state, `""` where it has none.
        name: Its name, its label where that is another, the number of elements of a fan-out.
        item: The node or group that it shows.
        before: Paths of what it waits for, but for what those wait for themselves.
    """

    lead: str
    mark: str
    name: str
    item: ViewNode | ViewGroup
    before: tuple[str, ...]


def rows(shown: View, *, ascii: bool = False) -> list[Row]:  # noqa: A002 - the plain word for it
    """The lines of `text`, for a drawing of another make with the same order and signs."""
    return list(_Text(shown, ascii, 0).rows())


def text(
    source: Source,
    states: Mapping[str, NodeState] | None = None,
    *,
    ascii: bool = False,  # noqa: A002 - the plain word for it
    width: int = 100,
) -> str:
    """Draw a dag, a fold (or machine) or a view in characters.

    Numbers count stages; what stands under one number may run at the same time. Behind an arrow stands what a node
    waits for, but for what those wait for themselves.

    Args:
        source: What to draw.
        states: For a dag, the state of each node by its path.
        ascii: Only ASCII characters; others in names become `?`.
        width: Columns to fit into.
    """
    drawn = "\n".join(_Text(view(source, states), ascii, width).lines()) + "\n"
    return drawn.encode("ascii", "replace").decode() if ascii else drawn


class _Text:
    def __init__(self, shown: View, ascii_only: bool, width: int) -> None:
        self.view = shown
        self.ascii = ascii_only
        self.width = width
        self.ink = _DRAWN[ascii_only]
        self.nodes = {node.path: node for node in shown.nodes}
        self.groups = {group.path: group for group in shown.groups}
        self.children = children(shown)
        self.edges = edges_within(shown)
        # Every edge joins members of one group, so that all of them can be thinned out at once.
        self.before = nearest([(edge.before, edge.after) for edge in shown.edges])
        self.whole: dict[frozenset[str], int] = {}
        """Numbers of the stages of many members."""

    def rows(self) -> Iterator[Row]:
        # Innermost last in, first out: (path, what leads its line, what leads the lines below it).
        open_ = list(reversed(self._stages("", "")))
        while open_:
            path, lead, below = open_.pop()
            item: ViewNode | ViewGroup = self.nodes[path] if path in self.nodes else self.groups[path]
            before = tuple(name for name in self.before.get(path, []) if name != START)
            yield Row(lead, self._mark(item.state), self._name(item), item, before)
            if path in self.groups:
                open_.extend(reversed(self._stages(path, below + " ")))

    def lines(self) -> list[str]:
        rows = [(f"{row.lead} {plain(row.mark + row.name)}", self._said(row)) for row in self.rows()]
        left = min(max((columns(name) for name, _ in rows), default=0), self.width // 2)
        lines = [cut(plain(self.view.title), self.width, self.ink["cut"])]
        for name, said in rows:
            if not said:
                lines.append(cut(name, self.width, self.ink["cut"]))
                continue
            name = cut(name, left, self.ink["cut"])
            line = name + " " * (left - columns(name) + 2) + said
            lines.append(cut(line, self.width, self.ink["cut"]).rstrip())
        return lines

    def _stages(self, group: str, lead: str) -> list[tuple[str, str, str]]:
        ink = self.ink
        members = [member for member in self.children[group] if member not in (START, END)]
        inner = [(a, b) for a, b in self.edges.get(group, []) if a != START and b != END]
        rank = ranks(members, inner)
        stages: dict[int, list[str]] = {}
        for member in members:
            stages.setdefault(rank[member], []).append(member)
        self.whole.update((frozenset(at), n + 1) for n, at in stages.items() if len(at) >= _MANY)
        digits = len(str(len(stages)))
        rows: list[tuple[str, str, str]] = []
        for stage in sorted(stages):
            at = stages[stage]
            for k, path in enumerate(at):
                number = f"{stage + 1:>{digits}}" if k == 0 else " " * digits
                dash = ink["lead"] if k == 0 else " "
                last = k == len(at) - 1
                corner = (
                    ink["only"]
                    if len(at) == 1
                    else ink["first"]
                    if k == 0
                    else ink["last"]
                    if last
                    else ink["more"]
                )
                under = " " if last else ink["down"]
                rows.append(
                    (path, f"{lead}{number} {dash}{corner}{ink['lead']}", f"{lead}{' ' * digits}  {under} ")
                )
        return rows

    def _mark(self, state: NodeState | None) -> str:
        return "" if state is None else _MARK[state][self.ascii] + " "

    def _name(self, item: ViewNode | ViewGroup) -> str:
        # Arrows, errors and whoever decides about a node name it; a label alone would not tell which one it is.
        name = item.path.rpartition("/")[2]
        shown = item.label if item.label == name else f"{name}: {item.label}"
        many = times(item).replace("×", "x") if self.ascii else times(item)
        return plain(f"{shown} {many}")

    def _waits_for(self, before: tuple[str, ...]) -> str:
        stage = self.whole.get(frozenset(before))
        if stage is not None:
            return f"all of {stage}"
        names = [name.rpartition("/")[2] for name in before]
        return ", ".join(names if len(names) <= 6 else [*names[:5], f"{len(names) - 5} more"])

    def _said(self, row: Row) -> str:
        item = row.item
        parts: list[str] = []
        if isinstance(item, ViewNode):
            if item.value:
                parts.append(cut(plain(item.value), _VALUE, self.ink["cut"]))
            words = state_words(item)
            if item.undo_order:
                words += f", undo {item.undo_order}"
            if words:
                parts.append(words)
            notes, error = item.notes, plain(item.error)
        else:
            notes, error = item.notes, ""
            if item.state is not None:
                parts.append(STATE_WORDS[item.state])
        if notes:
            parts.append(f"({', '.join(notes)})")
        if row.before:
            parts.append(f"{self.ink['from']} {self._waits_for(row.before)}")
        if error:
            parts.append(error)
        return "  ".join(parts)
