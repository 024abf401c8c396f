"""What notebooks show: `_repr_svg_` and `_repr_html_` of anything that has a dag come from here."""

from __future__ import annotations

from collections.abc import Mapping

from compensate.core.states import NodeState
from compensate.render.svg import escape, svg
from compensate.render.view import Source, state_words, view


def repr_svg(source: Source) -> str:
    """The picture of a dag, a fold (or machine) or a view, for an object's `_repr_svg_`."""
    return svg(source)


def html(source: Source, states: Mapping[str, NodeState] | None = None) -> str:
    """The picture, and below it a table of the nodes that say more than it can show."""
    shown = view(source, states)
    parts = ["<div>", svg(shown)]
    told = [node for node in shown.nodes if node.error]
    if told:
        parts.append("<table><thead><tr><th>node</th><th>state</th><th>error</th></tr></thead><tbody>")
        parts.extend(
            f"<tr><td>{escape(node.path)}</td><td>{escape(state_words(node))}</td>"
            f"<td>{escape(node.error)}</td></tr>"
            for node in told
        )
        parts.append("</tbody></table>")
    return "\n".join([*parts, "</div>"]) + "\n"
