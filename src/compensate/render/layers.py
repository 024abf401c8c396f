"""Layers of a graph, and places in them: what `text` and `svg` draw by.

Sugiyama's scheme (1981) in its plain form: each node one layer below the last of
its dependencies, layers ordered by the median of their neighbours, places by
least squares under the order (Dwyer and others, 2006, pool what would overlap).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from compensate.render.view import View, ViewGroup, ViewNode

SWEEPS = 6


def children(view: View) -> dict[str, list[str]]:
    """What stands directly in each group, in the dag's order; `""` is the outermost."""
    inside: dict[str, list[str]] = {"": []}
    for group in view.groups:
        inside[group.path] = []
    # The view's own order, whether they are nodes or groups.
    items: list[ViewNode | ViewGroup] = [*view.nodes, *view.groups]
    for item in sorted(items, key=lambda item: item.at):
        inside[item.group].append(item.path)
    return inside


def edges_within(view: View) -> dict[str, list[tuple[str, str]]]:
    """The edges of each group, between what stands directly in it."""
    frames = {node.path: node.group for node in view.nodes}
    frames.update((group.path, group.group) for group in view.groups)
    edges: dict[str, list[tuple[str, str]]] = {"": []}
    for edge in view.edges:
        edges.setdefault(frames[edge.before], []).append((edge.before, edge.after))
    return edges


def ranks(members: Sequence[str], edges: Sequence[tuple[str, str]]) -> dict[str, int]:
    """The layer of each member: one below the last of what it depends on."""
    after: dict[str, list[str]] = {member: [] for member in members}
    missing = dict.fromkeys(members, 0)
    for before, behind in edges:
        after[before].append(behind)
        missing[behind] += 1
    rank = dict.fromkeys(members, 0)
    ready = [member for member in members if not missing[member]]
    while ready:
        member = ready.pop()
        for behind in after[member]:
            rank[behind] = max(rank[behind], rank[member] + 1)
            missing[behind] -= 1
            if not missing[behind]:
                ready.append(behind)
    return rank


def nearest(edges: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    """For each member, what it waits for that nothing else in its list waits for already, in the order of the edges.

    The transitive reduction (Aho, Garey and Ullman, 1972), for as long as it stays linear in the graph: what is left of
    a graph with more long ways than that keeps all its edges.
    """
    before: dict[str, list[str]] = {}
    for dep, member in edges:
        before.setdefault(member, []).append(dep)
    rank = ranks(list(dict.fromkeys(name for edge in edges for name in edge)), edges)
    room = 20 * len(edges) + 1000
    for member, deps in before.items():
        lowest = min(rank[dep] for dep in deps)
        over: set[str] = set()
        open_ = [dep for dep in deps if rank[dep] > lowest]
        while open_ and room > 0:
            for further in before.get(open_.pop(), ()):
                room -= 1
                if rank[further] >= lowest and further not in over:
                    over.add(further)
                    open_.append(further)
        before[member] = [dep for dep in deps if dep not in over]
    return before


class Graph:
    """Layers of numbered places; long edges are broken up by blind places, so that no line crosses a node.

    Attributes:
        layers: The places of each layer, in order.
        chains: For each edge, the places that it runs through, both ends included.
    """

    def __init__(self, members: Sequence[str], edges: Sequence[tuple[str, str]]) -> None:
        rank = ranks(members, edges)
        number = {member: i for i, member in enumerate(members)}
        self.size = len(members)
        self.layers: list[list[int]] = [[] for _ in range(max(rank.values(), default=-1) + 1)]
        for member in members:
            self.layers[rank[member]].append(number[member])
        self.up: list[list[int]] = [[] for _ in members]
        self.down: list[list[int]] = [[] for _ in members]
        self.chains: list[list[int]] = []
        room = 4 * (len(members) + len(edges)) + 1000  # keeps the drawing linear in the graph
        for before, behind in edges:
            chain = [number[before]]
            span = rank[behind] - rank[before]
            if span > 1 and room >= span:
                room -= span
                for layer in range(rank[before] + 1, rank[behind]):
                    blind = len(self.up)
                    self.up.append([])
                    self.down.append([])
                    self.layers[layer].append(blind)
                    chain.append(blind)
            chain.append(number[behind])
            self.chains.append(chain)
            for a, b in pairwise(chain):
                self.down[a].append(b)
                self.up[b].append(a)
        self._order()

    def _order(self) -> None:
        best = [layer[:] for layer in self.layers]
        fewest = self._crossings()
        for sweep in range(SWEEPS):
            if not fewest:
                break
            downward = sweep % 2 == 0
            neighbours = self.up if downward else self.down
            layers = self.layers[1:] if downward else self.layers[-2::-1]
            at = [0.0] * len(self.up)
            for layer in self.layers:
                for place, i in enumerate(layer):
                    at[i] = float(place)
            for layer in layers:
                wish = {i: _middle([at[j] for j in neighbours[i]], at[i]) for i in layer}
                layer.sort(key=wish.__getitem__)
                for place, i in enumerate(layer):
                    at[i] = float(place)
            crossings = self._crossings()
            if crossings < fewest:
                best, fewest = [layer[:] for layer in self.layers], crossings
        self.layers = best

    def _crossings(self) -> int:
        """How many pairs of lines cross, in O(edges · log nodes) (Barth, Mutzel and Jünger, 2004)."""
        total = 0
        for above, below in pairwise(self.layers):
            place = {i: k for k, i in enumerate(below)}
            ends = [k for i in above for k in sorted(place[j] for j in self.down[i] if j in place)]
            tree = [0] * (len(below) + 1)
            for seen, end in enumerate(ends):
                k = end + 1
                smaller = 0
                while k:
                    smaller += tree[k]
                    k &= k - 1
                total += seen - smaller
                k = end + 1
                while k <= len(below):
                    tree[k] += 1
                    k += k & -k
        return total

    def places(self, widths: Sequence[float], gap: float) -> list[float]:
        """The middle of each place across its layer. `widths`: of the members; blind places are slim."""
        wide = [*widths, *([gap / 2] * (len(self.up) - len(widths)))]
        at = [0.0] * len(wide)
        for layer in self.layers:
            across = 0.0
            for i in layer:
                at[i] = across + wide[i] / 2
                across += wide[i] + gap
            for i in layer:
                at[i] -= (across - gap) / 2
        for sweep in range(2 * SWEEPS):
            downward = sweep % 2 == 0
            for layer in self.layers if downward else reversed(self.layers):
                near = self.up if downward else self.down
                wishes = [_mean([at[j] for j in near[i]], at[i]) for i in layer]
                weights = [8.0 if i >= self.size else 1.0 + len(near[i]) for i in layer]
                for i, x in zip(layer, _apart(wishes, weights, [wide[i] for i in layer], gap), strict=True):
                    at[i] = x
        return at


def _middle(values: list[float], otherwise: float) -> float:
    if not values:
        return otherwise
    values.sort()
    half = len(values) // 2
    return values[half] if len(values) % 2 else (values[half - 1] + values[half]) / 2


def _mean(values: list[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _apart(
    wishes: Sequence[float], weights: Sequence[float], widths: Sequence[float], gap: float
) -> list[float]:
    """Places nearest to the wishes, in their order, `gap` apart: isotonic regression by pooling neighbours."""
    offset = 0.0
    offsets: list[float] = []
    for k, width in enumerate(widths):
        if k:
            offset += widths[k - 1] / 2 + gap + width / 2
        offsets.append(offset)
    pools: list[list[float]] = []  # sum of weighted wishes, weight, members
    for k, wish in enumerate(wishes):
        pools.append([(wish - offsets[k]) * weights[k], weights[k], 1])
        while len(pools) > 1 and pools[-2][0] / pools[-2][1] > pools[-1][0] / pools[-1][1]:
            total, weight, count = pools.pop()
            pools[-1][0] += total
            pools[-1][1] += weight
            pools[-1][2] += count
    placed: list[float] = []
    for total, weight, count in pools:
        placed.extend([total / weight] * int(count))
    return [x + offset for x, offset in zip(placed, offsets, strict=True)]
