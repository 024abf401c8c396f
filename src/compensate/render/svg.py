"""A saga as an SVG picture: its own layered layout, nothing else needed. Made for READMEs and notebooks."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Final, Literal, TypeAlias
from zlib import crc32

from compensate.core.states import NodeState
from compensate.render.layers import Graph, children, edges_within
from compensate.render.palette import DARK, DASHED, LIGHT, NEUTRAL
from compensate.render.view import Source, View, ViewGroup, ViewNode, state_words, times, view
from compensate.render.words import STATE_WORDS, columns, cut, plain, wrap

Direction: TypeAlias = Literal["down", "right"]
Theme: TypeAlias = Literal["auto", "light", "dark"]

LABEL: Final = 26  # columns of a label's line
SMALL: Final = 38  # of the lines below it
LINE: Final = 17.0
PAD: Final = 12.0
GAP_ACROSS: Final = 26.0
GAP_ALONG: Final = 40.0
MARK: Final = 8.0  # radius of the start and end marks
MARGIN: Final = 20.0
STACK: Final = 6.0  # how far the last card of a fan-out stands out behind the first

Point: TypeAlias = tuple[float, float]


def svg(
    source: Source,
    states: Mapping[str, NodeState] | None = None,
    *,
    direction: Direction = "down",
    theme: Theme = "auto",
) -> str:
    """Draw a dag, a fold (or machine) or a view as SVG.

    Args:
        source: What to draw.
        states: For a dag, the state of each node by its path.
        direction: Where the saga flows.
        theme: `auto` follows the reader's light or dark setting.
    """
    return _Picture(view(source, states), direction).draw(theme)


def escape(text: str) -> str:
    """`text` inside XML or HTML, as content or attribute."""
    text = plain(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return text.replace('"', "&quot;").replace("'", "&#39;")


class _Box:
    """The size of a node or group, and where its upper left corner stands, in its group first, at last in all."""

    __slots__ = ("h", "lines", "w", "x", "y")

    def __init__(self, w: float, h: float, lines: list[tuple[str, str]]) -> None:
        self.w = w
        self.h = h
        self.lines = lines
        self.x = self.y = 0.0


class _Picture:
    def __init__(self, shown: View, direction: Direction) -> None:
        self.view = shown
        self.down = direction == "down"
        self.nodes = {node.path: node for node in shown.nodes}
        self.groups = {group.path: group for group in shown.groups}
        self.boxes: dict[str, _Box] = {}
        self.children = children(shown)
        self.edges = edges_within(shown)
        self.undone = {(edge.before, edge.after) for edge in shown.edges if edge.undone}
        self.lines: dict[str, list[tuple[str, str, list[Point]]]] = {}
        for node in shown.nodes:
            self.boxes[node.path] = _node_box(node)
        order = self._outermost_first()
        for path in reversed(order):
            self._lay_out(path)
        for path in order:
            self._move(path)

    def _outermost_first(self) -> list[str]:
        order = [""]
        for path in order:
            order.extend(child for child in self.children[path] if child in self.groups)
        return order

    def _lay_out(self, path: str) -> None:
        """Place what stands directly in the group, and give the group its size."""
        members = self.children[path]
        graph = Graph(members, self.edges.get(path, []))
        boxes = [self.boxes[member] for member in members]
        down = self.down
        across = graph.places([box.w if down else box.h for box in boxes], GAP_ACROSS)
        size = [box.w if down else box.h for box in boxes]
        low = min((across[i] - size[i] / 2 for i in range(len(boxes))), default=0.0)
        high = max((across[i] + size[i] / 2 for i in range(len(boxes))), default=0.0)
        for blind in across[len(boxes) :]:
            low, high = min(low, blind), max(high, blind)
        along = 0.0
        spans: list[tuple[float, float]] = [(0.0, 0.0)] * len(across)
        bands = spans[:]
        for layer in graph.layers:
            deep = max((boxes[i].h if down else boxes[i].w for i in layer if i < len(boxes)), default=0.0)
            for i in layer:
                own = (boxes[i].h if down else boxes[i].w) if i < len(boxes) else deep
                spans[i] = (along + (deep - own) / 2, along + (deep + own) / 2)
                bands[i] = (along, along + deep)
            along += deep + GAP_ALONG
        along = max(along - GAP_ALONG, 0.0)
        head = 0.0 if not path else 30.0
        inset = 0.0 if not path else 14.0
        group = self.groups.get(path)
        lines = [] if group is None else _group_lines(group)
        wide = max((_width(text, kind) + 2 * PAD for text, kind in lines), default=0.0)
        w, h = (high - low, along) if down else (along, high - low)
        frame = _Box(max(w + 2 * inset, wide), h + head + inset, lines)
        left = (frame.w - w) / 2
        for i, box in enumerate(boxes):
            a, b = across[i] - size[i] / 2 - low, spans[i][0]
            box.x, box.y = (left + a, head + b) if down else (left + b, head + a)
        drawn: list[tuple[str, str, list[Point]]] = []
        for (before, after), chain in zip(self.edges.get(path, []), graph.chains, strict=True):
            points: list[Point] = []
            for i in chain:
                a = across[i] - low
                # Out of the layer straight, so that no curve runs over a longer neighbour.
                ends = bands[i] if i >= len(boxes) else (spans[i][1], bands[i][1])
                if i < len(boxes) and i != chain[0]:
                    ends = (bands[i][0], spans[i][0])
                points.extend((left + a, head + b) if down else (left + b, head + a) for b in ends)
            drawn.append((before, after, points))
        self.lines[path] = drawn
        self.boxes[path] = frame

    def _move(self, path: str) -> None:
        """The group stands where it will stay: take along what is in it."""
        frame = self.boxes[path]
        if not path:
            frame.x = MARGIN
            frame.y = MARGIN + 34.0
        for child in self.children[path]:
            box = self.boxes[child]
            box.x += frame.x
            box.y += frame.y
        self.lines[path] = [
            (before, after, [(x + frame.x, y + frame.y) for x, y in points])
            for before, after, points in self.lines[path]
        ]

    # -- ink ---------------------------------------------------------------

    def draw(self, theme: Theme) -> str:
        shown = self.view
        frame = self.boxes[""]
        title = cut(plain(shown.title), 90)
        ordered = any(node.undo_order for node in shown.nodes)
        legend = "numbers: the order of the undos" if ordered else ""
        wide = max(frame.w, columns(title) * 8.0, columns(legend) * 6.6 + 30)
        shift = (wide - frame.w) / 2
        width = wide + 2 * MARGIN
        height = frame.y + frame.h + MARGIN + (24.0 if legend else 0.0)
        body = [self._group(self.groups[path]) for path in self._outermost_first()[1:]]
        for path in self._outermost_first():
            for before, after, points in self.lines[path]:
                body.append(_arrow(points, (before, after) in self.undone, self.down))
        body.extend(self._node(node) for node in shown.nodes)
        inner = "\n".join(body)
        scope = f"saga-{crc32(inner.encode()):08x}"
        opening = (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="{scope}" role="img" width="{_n(width)}" '
            f'height="{_n(height)}" viewBox="0 0 {_n(width)} {_n(height)}" '
            'font-family="system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif">'
        )
        parts = [
            opening,
            f"<title>{escape(shown.title)}</title>",
            f"<style>{_style(scope, theme)}</style>",
            f'<text class="h" x="{_n(width / 2)}" y="{_n(MARGIN + 10)}">{escape(title)}</text>',
            f'<g transform="translate({_n(shift)} 0)">' if shift > 0.05 else "<g>",
            inner,
            "</g>",
        ]
        if legend:
            y = height - MARGIN
            x = width / 2 - columns(legend) * 2.5 + 10
            parts.append(
                f'<circle class="b" cx="{_n(x - 14)}" cy="{_n(y - 4)}" r="8"/>'
                f'<text class="bt" x="{_n(x - 14)}" y="{_n(y)}">1</text>'
                f'<text class="l" x="{_n(x)}" y="{_n(y)}">{legend}</text>'
            )
        parts.append("</svg>")
        return "\n".join(parts) + "\n"

    def _group(self, group: ViewGroup) -> str:
        box = self.boxes[group.path]
        skipped = " k" if group.state == "skipped" else ""
        frame = (
            f'<g class="f{skipped}"><rect x="{_n(box.x)}" y="{_n(box.y)}" width="{_n(box.w)}" '
            f'height="{_n(box.h)}" rx="12"/>'
        )
        parts = [frame]
        x = box.x + PAD
        for text, kind in box.lines:
            parts.append(f'<text class="{kind}" x="{_n(x)}" y="{_n(box.y + 19)}">{escape(text)}</text>')
            x += _width(text, kind) + 8
        return "".join([*parts, "</g>"])

    def _node(self, node: ViewNode) -> str:
        whole = self.boxes[node.path]
        box = _front_card(whole) if node.kind == "fan_out" else whole
        middle = box.x + box.w / 2
        kind = f"n {node.state or NEUTRAL}"
        if node.kind in ("start", "end"):
            y = box.y + MARK
            rings = [f'<circle class="o" cx="{_n(middle)}" cy="{_n(y)}" r="{_n(MARK)}"/>']
            if node.kind == "end":
                rings.append(f'<circle class="i" cx="{_n(middle)}" cy="{_n(y)}" r="{_n(MARK - 3.5)}"/>')
            return f'<g class="m {node.kind} {kind}"><title>{node.label}</title>{"".join(rings)}</g>'
        if node.kind == "constant":
            kind += " c"
        parts = [f'<g class="{kind}"><title>{escape(_tooltip(node))}</title>']
        if node.kind == "fan_out":
            parts.append(_rect(box, STACK, 9) + _rect(box, STACK / 2, 9))
        parts.append(_rect(box, 0, box.h / 2 if node.kind == "constant" else 9))
        if "pivot" in node.notes:
            parts.append(_rect(box, 0, 6, inset=3.5))
        y = box.y + (box.h - LINE * len(box.lines)) / 2 + 12.5
        for text, style in box.lines:
            parts.append(f'<text class="{style}" x="{_n(middle)}" y="{_n(y)}">{escape(text)}</text>')
            y += LINE
        if node.undo_order:
            x, r = whole.x + whole.w - 3, 10 if node.undo_order < 100 else 14
            parts.append(
                f'<circle class="b" cx="{_n(x)}" cy="{_n(whole.y + 3)}" r="{r}"/>'
                f'<text class="bt" x="{_n(x)}" y="{_n(whole.y + 7)}">{node.undo_order}</text>'
            )
        return "".join([*parts, "</g>"])


def _n(number: float) -> str:
    """A coordinate, short and the same on every machine."""
    return f"{number:.1f}".removesuffix(".0")


def _width(text: str, kind: str) -> float:
    return columns(text) * {"t": 7.9, "ft": 7.4}.get(kind, 6.5)


def _node_box(node: ViewNode) -> _Box:
    if node.kind in ("start", "end"):
        return _Box(2 * MARK, 2 * MARK, [])
    label = f"{node.label} {times(node)}".rstrip()
    lines = [(line, "t") for line in wrap(label, LABEL, 3)]
    if node.value:
        lines.extend((line, "s") for line in wrap(node.value, SMALL, 2))
    said = state_words(node)
    if said:
        lines.extend((line, "s") for line in wrap(said, SMALL, 2))
    if node.error:
        lines.extend((line, "e") for line in wrap(node.error, SMALL, 3))
    notes = " · ".join(node.notes)
    if notes:
        lines.append((notes, "l"))
    widest = max(_width(text, kind) for text, kind in lines)
    behind = STACK if node.kind == "fan_out" else 0.0
    return _Box(max(96.0, round(widest + 2 * PAD + 4)) + behind, LINE * len(lines) + PAD + 4 + behind, lines)


def _front_card(box: _Box) -> _Box:
    """The first card of a fan-out. Arrows end at the box around the whole stack, so that no card hides their heads."""
    card = _Box(box.w - STACK, box.h - STACK, box.lines)
    card.x, card.y = box.x, box.y + STACK
    return card


def _group_lines(group: ViewGroup) -> list[tuple[str, str]]:
    said = " · ".join([*group.notes, *([STATE_WORDS[group.state]] if group.state else [])])
    return [(cut(plain(f"{group.label} {times(group)}".rstrip()), 40), "ft"), (said, "fl")]


def _tooltip(node: ViewNode) -> str:
    parts = [
        f"{node.path} (action {node.action})" if node.action else node.path,
        node.value,
        state_words(node),
        node.error,
    ]
    if node.undo_order:
        parts.append(f"undo number {node.undo_order}")
    return "; ".join(part for part in parts if part)


def _rect(box: _Box, offset: float, radius: float, inset: float = 0.0) -> str:
    return (
        f'<rect x="{_n(box.x + offset + inset)}" y="{_n(box.y - offset + inset)}" '
        f'width="{_n(box.w - 2 * inset)}" height="{_n(box.h - 2 * inset)}" rx="{_n(radius)}"/>'
    )


def _arrow(points: list[Point], undone: bool, down: bool) -> str:
    """A smooth line with its head where the saga went last: back, where it was undone."""
    tip = 7.0
    (x0, y0), (x1, y1) = points[0], points[-1]
    if undone:
        head = _head(x0, y0, down, back=True)
        x0, y0 = (x0, y0 + tip) if down else (x0 + tip, y0)
    else:
        head = _head(x1, y1, down, back=False)
        x1, y1 = (x1, y1 - tip) if down else (x1 - tip, y1)
    points = [(x0, y0), *points[1:-1], (x1, y1)]
    for k in range(1, len(points)):
        points[k] = _straightened(points[k - 1], points[k], down)
    drawn = [f"M{_n(x0)} {_n(y0)}"]
    for (ax, ay), (bx, by) in pairwise(points):
        if (ax == bx) if down else (ay == by):
            drawn.append(f"L{_n(bx)} {_n(by)}")
        elif down:
            half = (ay + by) / 2
            drawn.append(f"C{_n(ax)} {_n(half)} {_n(bx)} {_n(half)} {_n(bx)} {_n(by)}")
        else:
            half = (ax + bx) / 2
            drawn.append(f"C{_n(half)} {_n(ay)} {_n(half)} {_n(by)} {_n(bx)} {_n(by)}")
    kind = "a u" if undone else "a"
    return f'<g class="{kind}"><path d="{"".join(drawn)}"/>{head}</g>'


def _straightened(a: Point, b: Point, down: bool) -> Point:
    """`b`, moved to stand straight after `a` where it nearly does."""
    if down:
        return (a[0], b[1]) if abs(a[0] - b[0]) < 4 else b
    return (b[0], a[1]) if abs(a[1] - b[1]) < 4 else b


def _head(x: float, y: float, down: bool, *, back: bool) -> str:
    far = 8.0 if back else -8.0
    corners = (
        [(x, y), (x - 4, y + far), (x + 4, y + far)] if down else [(x, y), (x + far, y - 4), (x + far, y + 4)]
    )
    return f'<polygon points="{" ".join(f"{_n(a)},{_n(b)}" for a, b in corners)}"/>'


def _style(scope: str, theme: Theme) -> str:
    fixed = (
        ".S text{font-size:11.5px;text-anchor:middle}.S .h{font-size:15px;font-weight:600}"
        ".S .t{font-size:13.5px;font-weight:600}.S .ft,.S .fl{text-anchor:start}"
        ".S .ft{font-size:12.5px;font-weight:600}.S .e{font-style:italic}.S .bt{font-weight:700;font-size:11px}"
        ".S .l,.S .e,.S .s{font-size:11px}.S>.l{text-anchor:start}"
        ".S .n rect,.S .n circle{stroke-width:1.5}.S .f rect{stroke-width:1.2;stroke-dasharray:6 4}"
        ".S .a path{fill:none;stroke-width:1.5}.S .u path{stroke-dasharray:5 4}"
        + "".join(f".S .n.{state} rect{{stroke-dasharray:5 3}}" for state in sorted(DASHED))
        + ".S .n.undo_failed rect{stroke-width:2.5}"
    )
    light = _colours(dark=False)
    dark = _colours(dark=True)
    chosen = {
        "light": light,
        "dark": dark,
        "auto": f"{light}@media (prefers-color-scheme:dark){{{dark}}}",
    }[theme]
    return (fixed + chosen).replace(".S", f".{scope}")


def _colours(*, dark: bool) -> str:
    table = DARK if dark else LIGHT
    ink, soft, line, frame = (
        ("#e6edf3", "#9198a1", "#8b949e", "#7d8590") if dark else ("#1f2328", "#59636e", "#6e7781", "#8c959f")
    )
    undo = table["undone"].line
    parts = [
        f".S .h,.S .ft{{fill:{ink}}}.S .fl,.S .l{{fill:{soft}}}",
        f".S .a path{{stroke:{line}}}.S .a polygon{{fill:{line}}}",
        f".S .u path{{stroke:{undo}}}.S .u polygon{{fill:{undo}}}",
        f".S .f rect{{fill:{'#8b949e' if dark else '#afb8c1'};fill-opacity:.08;stroke:{frame}}}",
    ]
    for state, colours in table.items():
        parts.append(
            f".S .{state} rect,.S .{state} circle{{fill:{colours.fill};stroke:{colours.line}}}"
            f".S .{state} text{{fill:{colours.text}}}"
        )
    parts.append(f".S .m .i,.S .start .o{{fill:{line};stroke:{line}}}")
    for state in ("completed", "running", "undone"):
        colour = table[state].line
        parts.append(f".S .m.{state} .i,.S .start.{state} .o{{fill:{colour};stroke:{colour}}}")
    parts.append(
        f".S .b,.S .n .b{{fill:{'#8957e5' if dark else '#8250df'};stroke:none;stroke-dasharray:none}}"
    )
    parts.append(".S .bt,.S .n .bt{fill:#ffffff}")
    return "".join(parts)
