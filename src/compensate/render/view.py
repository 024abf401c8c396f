"""What a drawing shows: a dag and, where it is live, how far it has come. Pure data, made by `view` and `snapshot`."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping
from typing import Final, Literal, TypeAlias

import msgspec

from compensate.core import events as e
from compensate.core import states as s
from compensate.core.dag import ActionNode, ConstantNode, Dag, Node, SubsagaNode, dependencies
from compensate.core.events import Event
from compensate.core.log import Fold
from compensate.core.names import element, inside
from compensate.core.plan import ACTION
from compensate.core.shown import states as shown_states
from compensate.core.states import NodeState, SagaStatus
from compensate.render.words import STATE_WORDS, cut, exact, said, why_rollback, wrap

START: Final = "/start"
END: Final = "/end"
"""Paths of the start and end marks; no node can be named so."""

ELEMENTS: Final = 8
"""A fan-out of more elements is drawn as one node that counts their states."""

_POSITION: Final = re.compile(r"\[(\d+)\]")

_LONGEST_VALUE: Final = 400
"""Columns of a constant's value; the rest is cut off."""

Kind = Literal["action", "constant", "fan_out", "start", "end"]


class ViewNode(msgspec.Struct, frozen=True, omit_defaults=True):
    """One node of a drawing.

    Attributes:
        path: The node's path; keys of the mappings given to `view`.
        kind: `fan_out` stands for all elements: of an unknown number, or of too many to draw.
        label: What is written on it.
        group: Path of the subsaga or fan-out that it is drawn in; `""` at the outermost.
        action: Name of the action, `""` for constants, marks, and fan-outs of a saga.
        value: Of a constant, as JSON on one line; a long one is cut off.
        notes: What is remarkable about the node: `pivot`, `no undo`, `when`, `constant`.
        state: `None` where no states were given.
        attempt: How often the action was started.
        undo_attempt: How often the undo was started.
        undo_order: 1 for the node whose undo started first, 0 where none did.
        error: The last error, in words.
        count: Elements of a fan-out, where known.
        tally: For a fan-out of many elements, how many are in which state.
        at: Place in the order in which the dag was written.
    """

    path: str
    kind: Kind
    label: str
    group: str = ""
    action: str = ""
    value: str = ""
    notes: tuple[str, ...] = ()
    state: NodeState | None = None
    attempt: int = 0
    undo_attempt: int = 0
    undo_order: int = 0
    error: str = ""
    count: int | None = None
    tally: tuple[tuple[NodeState, int], ...] = ()
    at: int = 0


class ViewGroup(msgspec.Struct, frozen=True, omit_defaults=True):
    """A frame around nodes: a subsaga, or a fan-out. It holds at least one node or group.

    A fan-out of an action is a frame when its size is known; one of a saga also before, around the nodes of
    one element.
    """

    path: str
    kind: Literal["subsaga", "fan_out"]
    label: str
    group: str = ""
    notes: tuple[str, ...] = ()
    state: NodeState | None = None
    count: int | None = None
    at: int = 0


class ViewEdge(msgspec.Struct, frozen=True, omit_defaults=True):
    """`after` waits for `before`; both are in one group, and either may be a group. `undone`: it was gone back over."""

    before: str
    after: str
    undone: bool = False


class View(msgspec.Struct, frozen=True, omit_defaults=True):
    """All that a drawing shows."""

    name: str
    nodes: tuple[ViewNode, ...]
    edges: tuple[ViewEdge, ...]
    groups: tuple[ViewGroup, ...] = ()
    status: SagaStatus | None = None
    paused: bool = False
    why: str = ""

    @property
    def title(self) -> str:
        """The saga's name, its status and what turned it back, in words."""
        words = self.name
        if self.status is not None:
            words += f": {STATE_WORDS[self.status]}"
            if self.paused:
                words += ", paused"
        return f"{words} ({self.why})" if self.why else words


Source: TypeAlias = Dag | Fold | View
"""What can be drawn."""


class _Live(msgspec.Struct):
    """How far a saga has come, by path."""

    states: Mapping[str, NodeState] | None = None
    attempts: Mapping[str, int] = {}
    undo_attempts: Mapping[str, int] = {}
    errors: Mapping[str, str] = {}
    undo_order: Mapping[str, int] = {}
    counts: Mapping[str, int] = {}
    status: SagaStatus | None = None
    paused: bool = False
    why: str = ""
    brackets: Container[str] = ()
    """Paths of subsagas and fan-outs that have states too."""


def view(
    source: Source,
    states: Mapping[str, NodeState] | None = None,
    *,
    attempts: Mapping[str, int] | None = None,
    errors: Mapping[str, str] | None = None,
    undo_order: Mapping[str, int] | None = None,
    status: SagaStatus | None = None,
    elements: int = ELEMENTS,
) -> View:
    """What a drawing of `source` shows.

    Args:
        source: A dag; or a fold (or machine), of which `snapshot` is taken; or a view, given back as it is.
        states: For a dag, the state of each node by its path; elements of a fan-out are `reserve[0]` and so on.
        attempts: How often each action was started.
        errors: The last error of a node, in words.
        undo_order: 1 for the node whose undo started first, and so on.
        status: The saga's status.
        elements: A fan-out of more elements is drawn as one node.
    """
    if isinstance(source, View):
        return source
    if isinstance(source, Fold):
        return snapshot(source, elements=elements)
    live = _Live(states, attempts or {}, {}, errors or {}, undo_order or {}, {}, status)
    return _Draft(live, elements).of(source)


def snapshot(fold: Fold, events: Iterable[Event] | None = None, *, elements: int = ELEMENTS) -> View:
    """What a drawing of a saga shows, as far as `fold` (or a machine) has come.

    Args:
        fold: The folded log.
        events: The saga's log; the order of its undos is drawn.
        elements: A fan-out of more elements is drawn as one node.
    """
    plan = fold.plan
    names = plan.names
    order: dict[str, int] = {}
    for event in events or ():
        if event.type == e.UNDO_STARTED:
            order.setdefault(event.node, len(order) + 1)
    live = _Live(
        shown_states(fold),
        {path: fold.attempt[i] for path, i in plan.index.items()},
        {names[i]: count for i, count in fold.undo_attempt.items()},
        _errors(fold),
        order,
        {names[end]: len(within) for end, within in plan.elements.items()},
        fold.status,
        fold.paused,
        _why(fold),
        {path for path, i in plan.index.items() if plan.kinds[i] != ACTION},
    )
    return _Draft(live, elements).of(plan.dag)


def _errors(fold: Fold) -> dict[str, str]:
    errors: dict[str, str] = {}
    for i, failure in fold.errors.items():
        # What was overcome is not worth the room.
        if fold.state[i] not in (s.COMPLETED, s.RUNNING):
            reason = f"{failure.reason}" if isinstance(failure, e.InDoubt) else "failed"
            errors[fold.plan.names[i]] = said(failure.error) or reason.replace("_", " ")
    for i, undo_failure in fold.undo_errors.items():
        if fold.state[i] != s.UNDONE:
            errors[fold.plan.names[i]] = said(undo_failure.error) or "undo interrupted"
    return errors


def _why(fold: Fold) -> str:
    if fold.stuck is not None and fold.stuck.parked:
        return fold.stuck.parked
    return "" if fold.rollback is None else why_rollback(fold.rollback, brief=True)


_WORST: Final[tuple[NodeState, ...]] = (
    s.UNDO_FAILED,
    s.IN_DOUBT,
    s.FAILED,
    s.UNDOING,
    s.RUNNING,
    s.UNDONE,
    s.RESOLVED,
    s.SKIPPED,
    s.PENDING,
    s.COMPLETED,
)


class _Draft:
    """A view in the making; no recursion, since subsagas may nest as deep as they like."""

    def __init__(self, live: _Live, elements: int) -> None:
        self.live = live
        self.most = elements
        self.nodes: list[ViewNode] = []
        self.edges: list[ViewEdge] = []
        self.groups: list[ViewGroup] = []
        self._nodes_by_fan: dict[str, list[tuple[int, str]]] | None = None

    def of(self, dag: Dag) -> View:
        live = self.live
        begun: NodeState | None = None if live.status is None else s.COMPLETED
        self.nodes.append(ViewNode(START, "start", "start", state=begun))
        open_: list[tuple[Dag, str]] = [(dag, "")]
        while open_:
            inner, prefix = open_.pop()
            depended: set[str] = set()
            for at, node in enumerate(inner.nodes, 1):
                path = inside(prefix, node.name) if prefix else node.name
                deps = dependencies(node)
                depended.update(deps)
                for dep in deps:
                    self._edge(inside(prefix, dep) if prefix else dep, path)
                if not deps and not prefix:
                    self._edge(START, path)
                if isinstance(node, SubsagaNode):
                    open_.extend((node.dag, frame) for frame in self._subsagas(node, path, prefix, at))
                else:
                    self._node(node, path, prefix, at)
            if not prefix:
                for node in inner.nodes:
                    if node.name not in depended:
                        self._edge(node.name, END)
        ended: NodeState | None = None
        if live.status is not None:
            ended = s.COMPLETED if live.status == s.COMPLETED else s.PENDING
        self.nodes.append(ViewNode(END, "end", "end", state=ended, at=1 + len(dag.nodes)))
        undone = self._undone_within()
        edges = tuple(
            ViewEdge(edge.before, edge.after, edge.before in undone and edge.after in undone)
            for edge in self.edges
        )
        return View(
            dag.name, tuple(self.nodes), edges, tuple(self.groups), live.status, live.paused, live.why
        )

    def _undone_within(self) -> set[str]:
        """Nodes that were undone, and the groups that hold any."""
        undone = {node.path for node in self.nodes if node.undo_order}
        frames = {node.path: node.group for node in self.nodes}
        frames.update((group.path, group.group) for group in self.groups)
        for path in sorted(undone):
            frame = frames[path]
            while frame and frame not in undone:
                undone.add(frame)
                frame = frames[frame]
        return undone

    def _edge(self, before: str, after: str) -> None:
        self.edges.append(ViewEdge(before, after))

    def _state(self, path: str) -> NodeState | None:
        states = self.live.states
        return None if states is None else states.get(path, s.PENDING)

    def _subsagas(self, node: SubsagaNode, path: str, prefix: str, at: int) -> list[str]:
        """Draw a subsaga, or a fan-out of them; returns the frames in which its nodes are to be drawn."""
        label = node.label or node.name
        kind: Literal["subsaga", "fan_out"] = "subsaga" if node.each is None else "fan_out"
        notes = ["subsaga"] if node.each is None else ["fan-out", "subsaga"]
        if node.when is not None:
            notes.append("when")
        count = None if node.each is None else self._count(path)
        if count is not None and not 0 < count <= self.most:
            self._folded(path, label, prefix, "", tuple(notes), count, at)
            return []
        state = self._state(path)
        # Only a skipped branch is more than what its own nodes show.
        shown = state if state == s.SKIPPED else None
        self.groups.append(ViewGroup(path, kind, label, prefix, tuple(notes), shown, count, at))
        if count is None:
            return [path]
        frames = [element(path, position) for position in range(count)]
        self.groups.extend(
            ViewGroup(frame, "subsaga", element(label, position), path, ("subsaga",), None, None, position)
            for position, frame in enumerate(frames)
        )
        return frames

    def _node(self, node: Node, path: str, prefix: str, at: int) -> None:
        label = node.label or node.name
        if isinstance(node, ConstantNode):
            value = _value(node)
            self.nodes.append(
                ViewNode(path, "constant", label, prefix, value=value, notes=("constant",), at=at)
            )
        elif isinstance(node, ActionNode) and node.each is not None:
            self._fan_out(node, path, prefix, at)
        elif isinstance(node, ActionNode):
            self.nodes.append(self._action(node, path, prefix, label, _notes(node), at))

    def _action(
        self, node: ActionNode, path: str, group: str, label: str, notes: tuple[str, ...], at: int
    ) -> ViewNode:
        live = self.live
        return ViewNode(
            path,
            "action",
            label,
            group,
            node.action,
            "",
            notes,
            self._state(path),
            live.attempts.get(path, 0),
            live.undo_attempts.get(path, 0),
            live.undo_order.get(path, 0),
            live.errors.get(path, ""),
            at=at,
        )

    def _fan_out(self, node: ActionNode, path: str, prefix: str, at: int) -> None:
        label = node.label or node.name
        notes = _notes(node)
        count = self._count(path)
        if count is not None and 0 < count <= self.most:
            self.groups.append(
                ViewGroup(path, "fan_out", label, prefix, ("fan-out", *notes), None, count, at)
            )
            for position in range(count):
                own = element(path, position)
                self.nodes.append(self._action(node, own, path, f"{label}[{position}]", (), position))
            return
        self._folded(path, label, prefix, node.action, ("fan-out", *notes), count, at)

    def _folded(
        self,
        path: str,
        label: str,
        prefix: str,
        action: str,
        notes: tuple[str, ...],
        count: int | None,
        at: int,
    ) -> None:
        """Draw a fan-out as one node that counts the states of its elements."""
        tally: dict[NodeState, int] = {}
        within = self._within(path, count or 0)
        for paths in within:
            now = _together({self._state(own) or s.PENDING for own in paths})
            tally[now] = tally.get(now, 0) + 1
        order = self.live.undo_order
        first = min((order[own] for paths in within for own in paths if own in order), default=0)
        ordered: tuple[tuple[NodeState, int], ...] = tuple(
            (worst, tally[worst]) for worst in _WORST if worst in tally
        )
        self.nodes.append(
            ViewNode(
                path,
                "fan_out",
                label,
                prefix,
                action,
                notes=notes,
                state=self._fan_out_state(path, ordered),
                undo_order=first,
                count=count,
                tally=ordered,
                at=at,
            )
        )

    def _fan_out_state(self, path: str, tally: tuple[tuple[NodeState, int], ...]) -> NodeState | None:
        """As given; else that of the element that a reader has to know of most."""
        states = self.live.states
        if tally and (states is None or path not in states):
            return tally[0][0]
        return self._state(path)

    def _within(self, path: str, count: int) -> list[list[str]]:
        """For each element of a fan-out the paths of its action nodes, where they have states."""
        found: list[list[str]] = [[] for _ in range(count)]
        if not count:
            return found
        if self._nodes_by_fan is None:
            self._nodes_by_fan = _by_fan(self.live)
        for position, own in self._nodes_by_fan.get(path, ()):
            if position < count:
                found[position].append(own)
        return found

    def _count(self, path: str) -> int | None:
        if path in self.live.counts:
            return self.live.counts[path]
        states = self.live.states
        if not states or element(path, 0) not in states:
            return None
        count = 1
        while element(path, count) in states:
            count += 1
        return count


def _by_fan(live: _Live) -> dict[str, list[tuple[int, str]]]:
    """The action nodes inside each fan-out, with the position of their element."""
    found: dict[str, list[tuple[int, str]]] = {}
    for path in live.states or ():
        if path not in live.brackets:
            for match in _POSITION.finditer(path):
                found.setdefault(path[: match.start()], []).append((int(match[1]), path))
    return found


def _together(states: set[NodeState]) -> NodeState:
    """One state for several nodes: what most needs to be seen; `running` where some are done and others to come."""
    for state in _WORST:
        if state in states:
            return s.RUNNING if state == s.PENDING and s.COMPLETED in states else state
    return s.PENDING


def _value(node: ConstantNode) -> str:
    # Only what can be shown is decoded: a constant may be large.
    text = bytes(node.value)[: 4 * _LONGEST_VALUE].decode("utf-8", "replace")
    return cut(exact(text), _LONGEST_VALUE)


def _notes(node: ActionNode) -> tuple[str, ...]:
    notes = ["pivot"] if node.pivot else []
    if node.when is not None:
        notes.append("when")
    if node.undo == "none":
        notes.append("no undo")
    return tuple(notes)


def state_words(node: ViewNode) -> str:
    """The node's state and what goes with it, in words; `""` where no states were given."""
    if node.state is None or node.kind in ("start", "end", "constant"):
        return ""
    if node.tally:
        return ", ".join(f"{count} {STATE_WORDS[state]}" for state, count in node.tally)
    words = STATE_WORDS[node.state]
    if node.state in (s.UNDOING, s.UNDO_FAILED) and node.undo_attempt > 1:
        words += f", attempt {node.undo_attempt}"
    elif node.attempt > 1:
        words += f", attempt {node.attempt}"
    return words


def times(node: ViewNode | ViewGroup) -> str:
    """`×3` for a fan-out of three, `×?` where the number is not known yet."""
    if node.kind != "fan_out":
        return ""
    return "×?" if node.count is None else f"×{node.count}"


def label_lines(node: ViewNode) -> list[str]:
    """What a format that lays out its nodes by itself (DOT, Mermaid) writes into a node, line by line."""
    lines = wrap(f"{node.label} {times(node)}", 30, 4)
    if node.value:
        lines += wrap(node.value, 40, 2)
    if state := state_words(node):
        lines += wrap(state, 40, 2)
    if node.undo_order:
        lines.append(f"undo number {node.undo_order}")
    if node.error:
        lines += wrap(node.error, 40, 3)
    if node.notes:
        lines.append(", ".join(node.notes))
    return lines


def frame_lines(group: ViewGroup) -> list[str]:
    """The same for the frame around a group."""
    notes = [*group.notes, *([STATE_WORDS[group.state]] if group.state else [])]
    return [*wrap(f"{group.label} {times(group)}", 40, 2), ", ".join(notes)]
