"""Drawings of dags and sagas: DOT, Mermaid, characters, SVG. All of them draw from one `View`."""

from __future__ import annotations

from compensate.render.dot import dot
from compensate.render.lines import event_line
from compensate.render.mermaid import mermaid
from compensate.render.notebook import html, repr_svg
from compensate.render.states import diagrams
from compensate.render.svg import svg
from compensate.render.text import text
from compensate.render.view import END, START, Source, View, ViewEdge, ViewGroup, ViewNode, snapshot, view

__all__ = [
    "END",
    "START",
    "Source",
    "View",
    "ViewEdge",
    "ViewGroup",
    "ViewNode",
    "diagrams",
    "dot",
    "event_line",
    "html",
    "mermaid",
    "repr_svg",
    "snapshot",
    "svg",
    "text",
    "view",
]
