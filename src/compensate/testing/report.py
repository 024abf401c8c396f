"""What a proof says: `Proof` when the saga passed, `SagaNotProven` with every finding when it did not."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec


class Finding(msgspec.Struct, frozen=True):
    """Something that is wrong with a saga.

    Attributes:
        node: The node that it shows at; `""` for the saga as a whole.
        point: What was done to the saga when it showed, in words.
        problem: What is wrong.
        details: More, line by line: how the world differs, what was raised.
    """

    node: str
    point: str
    problem: str
    details: tuple[str, ...] = ()

    def __str__(self) -> str:
        return _show(self, ())


def _show(finding: Finding, others: Sequence[Finding]) -> str:
    head = f"node {finding.node}: {finding.problem}" if finding.node else finding.problem
    lines = [head, f"  when {finding.point}", *(f"    {line}" for line in finding.details)]
    if others:
        alike = all(other.details == finding.details for other in others)
        what = "the same" if alike else "the like, with other details,"
        points = _points(others)
        lines.append(f"  and {what} at {len(others)} more: {'; '.join(points[:_MOST_POINTS])}")
        if len(points) > _MOST_POINTS:
            lines[-1] += "; …"
    return "\n".join(lines)


def _points(findings: Sequence[Finding]) -> list[str]:
    """Where findings showed; the elements of a fan-out together."""
    alike: dict[str, list[str]] = {}
    for finding in findings:
        alike.setdefault(_of_any_element(finding.point), []).append(finding.point)
    return [
        points[0] if len(points) == 1 else f"{point} ({len(points)} times)" for point, points in alike.items()
    ]


def _of_any_element(text: str) -> str:
    """Words about an element of a fan-out, as they hold for each of its elements."""
    return _ELEMENT.sub("[…]", text)


def _cause(finding: Finding) -> tuple[str, str]:
    """What findings that are likely to have one cause share: the node, or its fan-out, and what is wrong with it."""
    return _of_any_element(finding.node), _of_any_element(finding.problem)


class Proof(msgspec.Struct, frozen=True):
    """What was tried on a saga that passed. Print it.

    Attributes:
        saga: Name of the saga.
        scenarios: How many were run.
        points: How many different faults and ends of the process there were; each was seen to happen.
        by_kind: Scenarios of each kind.
        values: How many params and outputs were held against the codec.
        nodes: The nodes that ran.
        not_run: Nodes that did not run with these params (behind a `when`): nothing is proven of them.
        not_undone: Nodes with an undo that never ran, as they come after the pivot.
        late_actions: Whether actions that come after their undo were tried.
    """

    saga: str
    scenarios: int
    points: int
    by_kind: Mapping[str, int]
    values: int
    nodes: tuple[str, ...]
    not_run: tuple[str, ...] = ()
    not_undone: tuple[str, ...] = ()
    late_actions: bool = False

    def __str__(self) -> str:
        counts = f"{self.scenarios} scenarios, {self.points} points, {len(self.nodes)} nodes"
        lines = [f"saga {self.saga} is proven: {counts}, {self.values} values through the codec"]
        lines += [f"  {count:5} {kind}" for kind, count in self.by_kind.items()]
        if not self.late_actions:
            lines.append("  not tried: actions that come after their undo (tombstones=True tries them)")
        if self.not_run:
            lines.append(f"  not run with these params: {', '.join(self.not_run)}")
        if self.not_undone:
            lines.append(f"  never undone, as they come after the pivot: {', '.join(self.not_undone)}")
        return "\n".join(lines)


class SagaNotProven(AssertionError):
    """The saga did not pass.

    Attributes:
        findings: Everything that is wrong, the plainest first.
    """

    def __init__(self, saga: str, findings: Sequence[Finding], scenarios: int) -> None:
        self.findings = tuple(findings)
        groups: dict[tuple[str, str], list[Finding]] = {}
        for finding in findings:
            groups.setdefault(_cause(finding), []).append(finding)
        shown = [_show(group[0], group[1:]) for group in groups.values()]
        what = "1 problem" if len(shown) == 1 else f"{len(shown)} problems"
        tried = "1 scenario" if scenarios == 1 else f"{scenarios} scenarios"
        text = [f"saga {saga} is not proven: {what} in {tried}"]
        text += [
            f"{number}. {block}".replace("\n", "\n   ")
            for number, block in enumerate(shown[:_MOST_SHOWN], start=1)
        ]
        if len(shown) > _MOST_SHOWN:
            text.append(f"… and {len(shown) - _MOST_SHOWN} more; mend these first (all are in `findings`)")
        super().__init__("\n\n".join(text))


_MOST_SHOWN: Final = 12
_MOST_POINTS: Final = 6
_ELEMENT: Final = re.compile(r"\[\d+\]")


class TooManyScenarios(ValueError):
    """The saga is too large to be proven within the limit. Nothing was tried but a few undisturbed runs."""
