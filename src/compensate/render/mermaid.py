"""A saga as a Mermaid flowchart, which GitHub and GitLab draw in Markdown."""

from __future__ import annotations

from collections.abc import Mapping

from compensate.core.states import NodeState
from compensate.render.layers import children
from compensate.render.palette import DASHED, LIGHT, NEUTRAL
from compensate.render.view import Source, View, ViewNode, frame_lines, label_lines, view
from compensate.render.words import wrap


def mermaid(source: Source, states: Mapping[str, NodeState] | None = None, *, direction: str = "down") -> str:
    """Write a dag, a fold (or machine) or a view as a Mermaid flowchart.

    Args:
        source: What to draw.
        states: For a dag, the state of each node by its path.
        direction: `down` or `right`.
    """
    return _write(view(source, states), "TD" if direction == "down" else "LR")


def _escaped(text: str) -> str:
    """`text` inside a quoted label. Mermaid reads Markdown and HTML there; its own entities stop both."""
    return "".join(c if not c.isascii() or c.isalnum() or c in " _-," else f"#{ord(c)};" for c in text)


def _label(lines: list[str]) -> str:
    return '"' + "<br/>".join(_escaped(line) for line in lines) + '"'


def _write(shown: View, direction: str) -> str:
    inside = children(shown)
    nodes = {node.path: node for node in shown.nodes}
    groups = {group.path: group for group in shown.groups}
    number = {path: f"n{i}" for i, path in enumerate([*nodes, *groups])}
    lines = ["---", f"title: {_title(shown.title)}", "---", f"flowchart {direction}"]
    classes: dict[str, list[str]] = {}
    # An explicit stack: subsagas may nest as deep as they like. `None` closes a frame.
    open_: list[str | None] = list(reversed(inside[""]))
    depth = 1
    while open_:
        path = open_.pop()
        if path is None:
            depth -= 1
            lines.append("  " * depth + "end")
        elif path in groups:
            lines.append("  " * depth + f"subgraph {number[path]} [{_label(frame_lines(groups[path]))}]")
            depth += 1
            open_.append(None)
            open_.extend(reversed(inside[path]))
        else:
            node = nodes[path]
            lines.append("  " * depth + number[path] + _node(node))
            classes.setdefault(node.state or NEUTRAL, []).append(number[path])
    for edge in shown.edges:
        arrow = "-.->" if edge.undone else "-->"
        lines.append(f"  {number[edge.before]} {arrow} {number[edge.after]}")
    for state, members in classes.items():
        colours = LIGHT[state]
        dash = ",stroke-dasharray:5 3" if state in DASHED else ""
        lines.append(
            f"  classDef {state} fill:{colours.fill},stroke:{colours.line},color:{colours.text}{dash}"
        )
        lines.append(f"  class {','.join(members)} {state}")
    return "\n".join(lines) + "\n"


def _title(text: str) -> str:
    """The title stands in YAML, where a double-quoted string takes any character but these two as it is."""
    line = wrap(text, 100, 1)[0]
    return '"' + line.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _node(node: ViewNode) -> str:
    if node.kind in ("start", "end"):
        opening, closing = ("((", "))") if node.kind == "start" else ("(((", ")))")
        return f"{opening}{_label([node.label])}{closing}"
    opening, closing = {"constant": ("([", "])"), "fan_out": ("[[", "]]")}.get(node.kind, ("(", ")"))
    return f"{opening}{_label(label_lines(node))}{closing}"
