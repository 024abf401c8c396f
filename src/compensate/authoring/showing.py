"""What notebooks show of a dag: its picture. The drawings are imported when somebody looks."""

from __future__ import annotations

from typing import Any

from compensate.core.dag import Dag
from compensate.core.log import Fold


def picture(source: Any) -> str:
    """The SVG of a dag or fold, for an object's `_repr_svg_`."""
    from compensate.render import repr_svg

    return repr_svg(source)


def page(source: Any) -> str:
    """The SVG and a table of errors, for an object's `_repr_html_`."""
    from compensate.render import html

    return html(source)


# The core knows no drawings, so its classes learn here what a notebook calls.
for _kind in (Dag, Fold):
    for _name, _draw in (("_repr_svg_", picture), ("_repr_html_", page)):
        setattr(_kind, _name, _draw)
