"""Scenarios: everything about a history but its schedule, as plain data, so that it can be kept, read and shrunk."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec

World = Literal["keyed", "naive"]
Kind = Literal["step", "link", "plain", "blocking", "constant", "subsaga", "fan", "sagas"]


class NodeSpec(msgspec.Struct, frozen=True, omit_defaults=True):
    """A node to be.

    Attributes:
        name: Its name.
        kind: An action with a context (`step`), without (`plain`), in a thread (`blocking`), a constant, a subsaga,
            a fan-out of steps (`fan`) or of subsagas (`sagas`).
        after: Names of earlier nodes beside it that it waits for.
        reads: Those of them whose output it takes.
        when: The one whose output says whether it runs.
        undo: As in the dag.
        attempts, first, timeout, undo_attempts, undo_timeout, pivot: As in the dag.
        nodes: What is inside a subsaga, or inside each subsaga of a fan-out.
        count: How many elements a fan-out has; or how many items the output has.
        items_of: The node whose output lists the elements; empty: the dag lists them.
        yes: What the output says to a `when`.
        do: What happens to the first calls of the action, one word a call; see `world`. Later calls succeed.
        undoing: The same for the undo.
        sick: Which element of a fan-out these happen to; of the innermost one that the node is in.
    """

    name: str
    kind: Kind = "step"
    after: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    when: str = ""
    undo: Literal["none", "output", "unknown"] = "output"
    attempts: int | None = 1
    first: float = 0.1
    timeout: float | None = None
    undo_attempts: int | None = 3
    undo_timeout: float | None = None
    pivot: bool = False
    nodes: tuple[NodeSpec, ...] = ()
    count: int = 0
    items_of: str = ""
    yes: bool = True
    do: tuple[str, ...] = ()
    undoing: tuple[str, ...] = ()
    sick: int = 0


class Fault(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something that goes wrong, or is asked for, on order.

    Attributes:
        kind: `append_lost`, `append_applied`, `read_lost`, `crash_before`, `crash_after` happen at the `nth` write
            (or read) of coordinator `who`; `crash`, `pause`, `shutdown` and the requests of clients and operators at
            the time `at`.
        who: Which coordinator, from 0.
        at: Seconds.
        nth: Which operation, from 1, over all lives of the coordinator.
        length: How long a pause, or the time until a crashed coordinator is started again, takes.
        saga: Which saga a request is about.
    """

    kind: str
    who: int = 0
    at: float = 0.0
    nth: int = 0
    length: float = 0.0
    saga: int = 0


class Kill(msgspec.Struct, frozen=True, omit_defaults=True):
    """A node of one saga that kills its process each time it is called, until the quiet period.

    Attributes:
        saga: Which saga.
        node: Path of the node.
        direction: Whether its action or its undo does.
    """

    saga: int
    node: str
    direction: Literal["do", "undo"] = "do"


class Scenario(msgspec.Struct, frozen=True, omit_defaults=True):
    """A history to be; with `seed` it is fixed to the last choice.

    Attributes:
        seed: Fixes the schedule: latencies and the order of what is ready.
        world: Whether participants use keys.
        nodes: The dag.
        sagas: How many sagas of that dag.
        skews: A coordinator each, with how far its clock is ahead.
        faults: In any order.
        shuffle: Whether what is ready is taken in any order.
        in_place: Share of writes that are durable on return.
        chaos: When the quiet period begins.
        deadline: Of the sagas.
        grace: Of rollbacks.
        room: How many actions a coordinator runs at once.
        wait: Whether clients wait for the result.
        kills: What kills its process.
        crashes: At how many deaths in a row coordinators give a node up.
    """

    seed: int
    world: World
    nodes: tuple[NodeSpec, ...]
    sagas: int = 1
    skews: tuple[float, ...] = (0.0,)
    faults: tuple[Fault, ...] = ()
    shuffle: bool = False
    in_place: float = 0.0
    chaos: float = 10.0
    deadline: float | None = None
    grace: float = 1.0
    room: int = 1000
    wait: bool = False
    kills: tuple[Kill, ...] = ()
    crashes: int = 5


def walk(nodes: tuple[NodeSpec, ...], prefix: str = "") -> Iterator[tuple[str, NodeSpec]]:
    """Every node with its path, those inside subsagas included."""
    for node in nodes:
        yield prefix + node.name, node
        yield from walk(node.nodes, f"{prefix}{node.name}/")


def encode(scenario: Scenario) -> bytes:
    """The scenario as JSON."""
    return msgspec.json.format(msgspec.json.encode(scenario), indent=1)


def decode(data: bytes) -> Scenario:
    """The inverse of `encode`."""
    return msgspec.json.decode(data, type=Scenario)
