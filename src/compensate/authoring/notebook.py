"""What notebooks show of a dag: its picture. The drawings are imported when a notebook asks for them."""

from __future__ import annotations

from compensate.core.dag import Dag


def picture(dag: Dag) -> str:
    """The SVG of a dag, for an object's `_repr_svg_`."""
    from compensate.render import repr_svg

    return repr_svg(dag)


def page(dag: Dag) -> str:
    """The SVG and a table of errors, for an object's `_repr_html_`."""
    from compensate.render import html

    return html(dag)


# `Dag` is the one class that notebooks show and that cannot define these methods itself: `core` imports no drawings.
# All other classes (`Saga`, `Snapshot`) define them in their own bodies.
setattr(Dag, "_repr_svg_", picture)  # noqa: B010 - the checkers refuse an assignment to an undeclared method
setattr(Dag, "_repr_html_", page)  # noqa: B010
