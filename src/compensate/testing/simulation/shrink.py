"""Making a failing scenario small: parts are taken out of its data as long as it goes on violating the same line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from msgspec.structs import replace

from compensate.errors import CompensateError
from compensate.testing.simulation.scenario import NodeSpec, Scenario

SEEDS: Final = 3
"""How many schedules are tried for each smaller scenario: taking something out changes every choice that follows."""


def shrink(scenario: Scenario, fails: Callable[[Scenario], bool], tries: int = 600) -> Scenario:
    """The smallest scenario found that still fails.

    Args:
        scenario: One that fails.
        fails: Plays a scenario and says whether it fails in the same way.
        tries: How many histories may be played at most.
    """
    left = tries
    while True:
        for smaller in _smaller(scenario):
            found: Scenario | None = None
            for k in range(SEEDS):
                if left <= 0:
                    return scenario
                left -= 1
                candidate = replace(smaller, seed=scenario.seed + k)
                if _fails(candidate, fails):
                    found = candidate
                    break
            if found is not None:
                scenario = found
                break
        else:
            return scenario


def _fails(scenario: Scenario, fails: Callable[[Scenario], bool]) -> bool:
    try:
        return fails(scenario)
    except CompensateError:
        return False  # what is left is no saga


def _smaller(scenario: Scenario) -> Iterator[Scenario]:
    """Scenarios with one thing less, the large things first."""
    for nodes in _fewer(scenario.nodes):
        yield replace(scenario, nodes=nodes)
    for k in range(len(scenario.faults)):
        yield replace(scenario, faults=scenario.faults[:k] + scenario.faults[k + 1 :])
    if scenario.sagas > 1:
        last = scenario.sagas - 1
        yield replace(scenario, sagas=last, faults=tuple(f for f in scenario.faults if f.saga != last))
    if len(scenario.skews) > 1:
        last = len(scenario.skews) - 1
        yield replace(
            scenario, skews=scenario.skews[:-1], faults=tuple(f for f in scenario.faults if f.who != last)
        )
    yield from _plainer(scenario)
    for nodes in _plainer_nodes(scenario.nodes):
        yield replace(scenario, nodes=nodes)


def _plainer(scenario: Scenario) -> Iterator[Scenario]:
    if scenario.shuffle:
        yield replace(scenario, shuffle=False)
    if any(scenario.skews):
        yield replace(scenario, skews=(0.0,) * len(scenario.skews))
    if scenario.in_place not in (0.0, 1.0):
        yield replace(scenario, in_place=0.0)
        yield replace(scenario, in_place=1.0)
    if scenario.deadline is not None:
        yield replace(scenario, deadline=None)
    if scenario.room < 1000:
        yield replace(scenario, room=1000)
    if scenario.wait:
        yield replace(scenario, wait=False)
    for k, fault in enumerate(scenario.faults):
        if fault.at and round(fault.at, 1) != fault.at:
            rounded = replace(fault, at=round(fault.at, 1), length=round(fault.length, 1))
            yield replace(scenario, faults=(*scenario.faults[:k], rounded, *scenario.faults[k + 1 :]))


def _fewer(nodes: tuple[NodeSpec, ...]) -> Iterator[tuple[NodeSpec, ...]]:
    """The nodes without one of them, or with one fewer inside a subsaga."""
    for k, node in enumerate(nodes):
        if len(nodes) > 1:
            yield tuple(_forget(other, node.name) for other in nodes[:k] + nodes[k + 1 :])
        for inner in _fewer(node.nodes):
            yield (*nodes[:k], replace(node, nodes=inner), *nodes[k + 1 :])


def _forget(node: NodeSpec, name: str) -> NodeSpec:
    """The node, not mentioning another one that is gone."""
    return replace(
        node,
        after=tuple(other for other in node.after if other != name),
        reads=tuple(other for other in node.reads if other != name),
        when="" if node.when == name else node.when,
        items_of="" if node.items_of == name else node.items_of,
    )


def _plainer_nodes(nodes: tuple[NodeSpec, ...]) -> Iterator[tuple[NodeSpec, ...]]:
    for k, node in enumerate(nodes):
        for plainer in _plainer_node(node):
            yield (*nodes[:k], plainer, *nodes[k + 1 :])
        for inner in _plainer_nodes(node.nodes):
            yield (*nodes[:k], replace(node, nodes=inner), *nodes[k + 1 :])


def _plainer_node(node: NodeSpec) -> Iterator[NodeSpec]:
    bare = NodeSpec(node.name)
    if node.kind in ("plain", "blocking", "fan", "link", "constant"):
        yield replace(node, kind="step")
    if node.kind == "sagas":
        yield replace(node, kind="subsaga", count=0, items_of="")
    for field in ("do", "undoing"):
        script = getattr(node, field)
        for j in range(len(script)):
            yield replace(node, **{field: script[:j] + script[j + 1 :]})
    for field in (
        "when",
        "timeout",
        "undo_timeout",
        "pivot",
        "items_of",
        "count",
        "attempts",
        "undo_attempts",
        "sick",
    ):
        if getattr(node, field) != getattr(bare, field):
            yield replace(node, **{field: getattr(bare, field)})
    if node.reads:
        yield replace(node, reads=())
    for name in node.after:
        yield replace(
            node,
            after=tuple(other for other in node.after if other != name),
            reads=tuple(other for other in node.reads if other != name),
        )
