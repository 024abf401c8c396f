"""The transition tables as Mermaid state diagrams; `scripts/diagrams` writes them into the docs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from compensate.core import events as e
from compensate.core import states as s

_Moves: TypeAlias = (
    Mapping[str, dict[s.NodeState, s.NodeState]] | Mapping[str, dict[s.SagaStatus, s.SagaStatus]]
)

_INTRO = """\
# States

Drawn by `scripts/diagrams` from the tables in `compensate.core.states`; a log that takes any other step is refused.
"""

_NODE = """
## Node

An arrow is an event about the node. `retried`, `skipped`, `resolved` and `supplied` are an operator's decisions;
`branch_taken`, `branch_skipped` and `expanded` are answers that the saga recorded.
"""

_SAGA = """
## Saga

Out of `stuck` leads an operator's decision about a node (`retried`, `skipped`, `resolved`, `supplied`), or
`saga_unparked` once missing code is back: to the direction in which the saga was going.
"""


def diagrams() -> dict[str, str]:
    """The Mermaid state diagrams of `node` and `saga`."""
    unstick = ", ".join(sorted(s.UNSTICK))
    extra = [(s.STUCK, s.RUNNING, unstick), (s.STUCK, s.ROLLING_BACK, unstick)]
    return {
        "node": _diagram(s.NODE, s.PENDING, "", []),
        "saga": _diagram(s.SAGA, s.RUNNING, e.SAGA_CREATED, extra),
    }


def page() -> str:
    """The page of the docs that shows both."""
    drawn = diagrams()
    return (
        f"{_INTRO}{_NODE}\n```mermaid\n{drawn['node']}```\n{_table(s.NODE)}"
        f"{_SAGA}\n```mermaid\n{drawn['saga']}```\n{_table(s.SAGA)}"
    )


def _diagram(table: _Moves, first: str, by: str, extra: list[tuple[str, str, str]]) -> str:
    arrows: dict[tuple[str, str], list[str]] = {}
    for kind, before, after in _rows(table):
        arrows.setdefault((before, after), []).append(kind)
    for before, after, kind in extra:
        arrows.setdefault((before, after), []).append(kind)
    lines = ["stateDiagram-v2", f"  [*] --> {first}" + (f": {by}" if by else "")]
    lines.extend(f"  {before} --> {after}: {', '.join(kinds)}" for (before, after), kinds in arrows.items())
    return "\n".join(lines) + "\n"


def _table(table: _Moves) -> str:
    lines = ["", "| event | from | to |", "| --- | --- | --- |"]
    lines.extend(f"| `{kind}` | {before} | {after} |" for kind, before, after in _rows(table))
    return "\n".join(lines) + "\n"


def _rows(table: _Moves) -> list[tuple[str, str, str]]:
    return [(kind, before, after) for kind, moves in table.items() for before, after in moves.items()]
