"""A saga in DOT, for Graphviz."""

from __future__ import annotations

from collections.abc import Mapping

from compensate.core.states import NodeState
from compensate.render.layers import children
from compensate.render.palette import DASHED, LIGHT, NEUTRAL
from compensate.render.view import Source, View, ViewGroup, ViewNode, frame_lines, label_lines, view
from compensate.render.words import plain, wrap

MOST_TIES = 8  # hidden edges that keep a frame below what it depends on


def dot(source: Source, states: Mapping[str, NodeState] | None = None, *, direction: str = "down") -> str:
    """Write a dag, a fold (or machine) or a view in DOT.

    Args:
        source: What to draw.
        states: For a dag, the state of each node by its path.
        direction: `down` or `right`.
    """
    return _Dot(view(source, states)).write("TB" if direction == "down" else "LR")


def _quoted(text: str) -> str:
    """A DOT string that reads as `text`; one backslash makes an escape sequence, so it is doubled."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _lines(lines: list[str]) -> str:
    """A label; Graphviz reads HTML's entities even in plain ones."""
    return '"' + "\\n".join(_quoted(line.replace("&", "&amp;"))[1:-1] for line in lines) + '"'


class _Dot:
    def __init__(self, shown: View) -> None:
        self.view = shown
        self.nodes = {node.path: node for node in shown.nodes}
        self.groups = {group.path: group for group in shown.groups}
        self.children = children(shown)
        self.firsts: dict[str, list[str]] = {}
        self.lasts: dict[str, list[str]] = {}
        self._find_edges_of_groups()

    def _find_edges_of_groups(self) -> None:
        """For each group the nodes in it that wait for nothing in it, and that nothing in it waits for."""
        waits = {edge.after for edge in self.view.edges if edge.before != "/start"}
        waited = {edge.before for edge in self.view.edges if edge.after != "/end"}
        order = [group.path for group in self.view.groups]
        order.sort(key=lambda path: -path.count("/"))
        for path in order:
            first: list[str] = []
            last: list[str] = []
            for child in self.children[path]:
                if child not in waits:
                    first.extend(self.firsts.get(child, [child])[:MOST_TIES])
                if child not in waited:
                    last.extend(self.lasts.get(child, [child])[:MOST_TIES])
            self.firsts[path] = first[:MOST_TIES]
            self.lasts[path] = last[:MOST_TIES]

    def write(self, rankdir: str) -> str:
        lines = [
            "digraph saga {",
            f"  rankdir={rankdir}; compound=true; newrank=true;",
            f"  label={_lines(wrap(self.view.title, 80, 3))}; labelloc=t; fontname=Helvetica;",
            '  node [shape=box, style="rounded,filled", fontname=Helvetica, fontsize=11];',
            '  edge [color="#6e7781", arrowsize=0.7];',
        ]
        # An explicit stack: subsagas may nest as deep as they like. `None` closes a frame.
        open_: list[str | None] = list(reversed(self.children[""]))
        depth = 1
        while open_:
            path = open_.pop()
            if path is None:
                depth -= 1
                lines.append("  " * depth + "}")
            elif path in self.groups:
                lines.extend("  " * depth + line for line in self._group(self.groups[path]))
                depth += 1
                open_.append(None)
                open_.extend(reversed(self.children[path]))
            else:
                lines.append("  " * depth + self._node(self.nodes[path]))
        for edge in self.view.edges:
            lines.extend(self._edge(edge.before, edge.after, edge.undone))
        return "\n".join([*lines, "}"]) + "\n"

    def _group(self, group: ViewGroup) -> list[str]:
        return [
            f"subgraph {_quoted('cluster_' + group.path)} {{",
            f'  label={_lines(frame_lines(group))}; style="rounded,dashed"; color="#8c959f"; fontsize=11;',
        ]

    def _node(self, node: ViewNode) -> str:
        colours = LIGHT[node.state or NEUTRAL]
        if node.kind in ("start", "end"):
            shape = "circle" if node.kind == "start" else "doublecircle"
            return (
                f'{_quoted(node.path)} [shape={shape}, style=filled, label="", xlabel="{node.label}", '
                f'width=0.15, height=0.15, fillcolor="{colours.line}", color="{colours.line}"];'
            )
        style = "rounded,filled,dashed" if node.state in DASHED else "rounded,filled"
        more = ", peripheries=2" if "pivot" in node.notes or node.kind == "fan_out" else ""
        more_said = node.action or node.value
        tooltip = _lines([plain(f"{node.path}: {more_said}" if more_said else node.path)])
        return (
            f'{_quoted(node.path)} [label={_lines(label_lines(node))}, tooltip={tooltip}, style="{style}", '
            f'fillcolor="{colours.fill}", color="{colours.line}", fontcolor="{colours.text}"{more}];'
        )

    def _edge(self, before: str, after: str, undone: bool) -> list[str]:
        tails = self.lasts.get(before, [before])
        heads = self.firsts.get(after, [after])
        given: list[str] = []
        if before in self.groups:
            given.append(f"ltail={_quoted('cluster_' + before)}")
        if after in self.groups:
            given.append(f"lhead={_quoted('cluster_' + after)}")
        if undone:
            given.append(f'dir=back, style=dashed, color="{LIGHT["undone"].line}"')
        attributes = f" [{', '.join(given)}]" if given else ""
        lines = [f"  {_quoted(tails[0])} -> {_quoted(heads[0])}{attributes};"]
        lines.extend(f"  {_quoted(tails[0])} -> {_quoted(head)} [style=invis];" for head in heads[1:])
        lines.extend(f"  {_quoted(tail)} -> {_quoted(heads[0])} [style=invis];" for tail in tails[1:])
        return lines
