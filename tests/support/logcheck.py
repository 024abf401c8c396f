"""Reads a log against the guarantee's lines S1 to S5 and S7. Shares nothing with the fold, the plan or the machine."""

from __future__ import annotations

import re
from collections.abc import Iterable

from compensate.core.dag import ActionNode, ConstantNode, Dag, SubsagaNode, dependencies
from compensate.core.events import Event

OPERATOR = {"retried", "skipped", "resolved", "supplied", "saga_unparked"}


class Graph:
    """Who waits for whom, by path. A subsaga or fan-out has an entry `>path` and an exit `path`."""

    def __init__(self, graph: Dag) -> None:
        self.after: dict[str, set[str]] = {}
        self.specs: dict[str, ActionNode] = {}
        self.fans: dict[str, SubsagaNode] = {}
        self.lay(graph, "")

    def lay(self, graph: Dag, prefix: str) -> None:
        stack = [(graph, prefix)]
        while stack:
            inner, prefix = stack.pop()
            for spec in inner.nodes:
                path = prefix + spec.name
                entry = path
                if isinstance(spec, SubsagaNode) or (isinstance(spec, ActionNode) and spec.each is not None):
                    entry = f">{path}"
                    self.edge(entry, path)
                for dep in dependencies(spec):
                    self.edge(prefix + dep, entry)
                if prefix:
                    self.edge(f">{prefix[:-1]}", entry)
                    self.edge(path, prefix[:-1])
                if isinstance(spec, ActionNode):
                    self.specs[path] = spec
                elif isinstance(spec, SubsagaNode):
                    if spec.each is None:
                        stack.append((spec.dag, f"{path}/"))
                    else:
                        self.fans[path] = spec
                self.after.setdefault(path, set())

    def edge(self, before: str, after: str) -> None:
        self.after.setdefault(before, set()).add(after)
        self.after.setdefault(after, set())

    def expand(self, path: str, count: int) -> None:
        fan = self.fans.get(path)
        for k in range(count):
            one = f"{path}[{k}]"
            self.edge(f">{path}", one if fan is None else f">{one}")
            self.edge(one, path)
            if fan is not None:
                self.edge(f">{one}", one)
                self.lay(fan.dag, f"{one}/")

    def spec(self, path: str) -> ActionNode:
        return self.specs[re.sub(r"\[\d+\]$", "", path)]

    def dependants(self, path: str) -> set[str]:
        seen: set[str] = set()
        stack = [path]
        while stack:
            for after in self.after[stack.pop()] - seen:
                seen.add(after)
                stack.append(after)
        return seen


class Node:
    def __init__(self) -> None:
        self.running = self.undoing = False
        self.done = self.in_doubt = self.clean = self.settled = self.undone = False
        self.starts = self.successes = 0


def violations(graph: Dag, log: Iterable[Event]) -> list[str]:
    """Each violated line of the guarantee, with the number of the event."""
    return _Check(graph).read(log)


class _Check:
    def __init__(self, graph: Dag) -> None:
        self.graph = Graph(graph)
        self.dag = graph
        self.nodes: dict[str, Node] = {}
        self.skipped: set[str] = set()
        self.counts: dict[str, int] = {}
        self.rolling = False
        self.ended = ""
        self.found: list[str] = []

    def read(self, log: Iterable[Event]) -> list[str]:
        for at, event in enumerate(log, 1):
            if event.seq != at:
                self.blame(event, "S12", "gap")
            if self.ended and event.type not in OPERATOR | {"saga_rollback"}:
                self.blame(event, "S1", f"after the end {self.ended}")
            if event.type in OPERATOR or event.type == "saga_rollback":
                self.ended = ""
            check = getattr(self, f"on_{event.type}", None)
            if check is not None:
                check(event, self.nodes.setdefault(event.node, Node()))
        return self.found

    def blame(self, event: Event, line: str, why: str) -> None:
        self.found.append(f"{line}: event {event.seq} {event.type} {event.node}: {why}")

    # -- going forward -----------------------------------------------------

    def on_started(self, event: Event, node: Node) -> None:
        for after in self.graph.dependants(event.node):
            if after in self.nodes and self.nodes[after].starts:
                self.blame(event, "S7", f"{after} has started")
        if self.rolling:
            if not node.starts or not node.in_doubt or self.graph.spec(event.node).undo != "output":
                self.blame(event, "S4", "rollback has begun")
            if node.settled:
                self.blame(event, "S4", "it was settled")
        if node.running or node.undoing:
            self.blame(event, "S5", "it runs already")
        node.starts += 1
        node.running = True

    def on_completed(self, event: Event, node: Node) -> None:
        if not node.running:
            self.blame(event, "S8", "it did not run")
        node.running, node.in_doubt, node.done, node.clean = False, False, True, False
        node.successes += 1
        if node.successes > 1:
            self.blame(event, "S5", "a second success")

    def on_supplied(self, event: Event, node: Node) -> None:
        node.running = True
        self.on_completed(event, node)

    def on_failed(self, event: Event, node: Node) -> None:
        node.running = False
        node.clean = event.data.clean  # type: ignore[union-attr]
        if node.clean:
            node.in_doubt = False
        elif node.in_doubt:
            self.blame(event, "S2", "a plain failure took back a doubt")

    def on_in_doubt(self, _event: Event, node: Node) -> None:
        node.running, node.in_doubt, node.clean = False, True, False

    def on_branch_skipped(self, event: Event, _node: Node) -> None:
        self.skipped.add(event.node)

    def on_expanded(self, event: Event, _node: Node) -> None:
        self.counts[event.node] = event.data.count  # type: ignore[union-attr]
        self.graph.expand(event.node, self.counts[event.node])

    # -- going back --------------------------------------------------------

    def on_saga_rollback(self, _event: Event, _node: Node) -> None:
        self.rolling = True

    def on_undo_started(self, event: Event, node: Node) -> None:
        if not self.rolling:
            self.blame(event, "S3", "no rollback")
        for after in sorted(self.graph.dependants(event.node)):
            other = self.nodes.get(after)
            if other is None or not other.starts:
                continue
            if other.running or other.undoing or (self.to_undo(after) and not other.settled):
                self.blame(event, "S3", f"{after} is not undone")
        if node.running or node.undoing or not self.to_undo(event.node):
            self.blame(event, "S3", "nothing to undo")
        if not node.done and self.graph.spec(event.node).undo != "unknown":
            self.blame(event, "S6", "its undo takes no None")
        node.undoing = True

    def on_undone(self, _event: Event, node: Node) -> None:
        node.undoing, node.settled, node.undone = False, True, True

    def on_undo_failed(self, _event: Event, node: Node) -> None:
        node.undoing = False

    def on_skipped(self, _event: Event, node: Node) -> None:
        node.settled = True

    def on_resolved(self, _event: Event, node: Node) -> None:
        node.settled = True

    def to_undo(self, path: str) -> bool:
        node, undo = self.nodes[path], self.graph.spec(path).undo
        if undo == "none" or not node.starts:
            return False
        return node.done or node.in_doubt or node.running or (undo == "unknown" and not node.clean)

    # -- ends --------------------------------------------------------------

    def _end(self, event: Event, status: str) -> None:
        self.ended = status
        for path, node in self.nodes.items():
            if node.running or node.undoing:
                self.blame(event, "S1", f"{path} still runs")

    def on_saga_completed(self, event: Event, _node: Node) -> None:
        self._end(event, "completed")
        for path in self._expected():
            if path not in self.nodes or not self.nodes[path].done:
                self.blame(event, "S1", f"{path} has not completed")
            elif self.nodes[path].undone:
                self.blame(event, "S1", f"{path} was undone")

    def _expected(self) -> list[str]:
        paths: list[str] = []
        stack = [(self.dag, "")]
        while stack:
            inner, prefix = stack.pop()
            for spec in inner.nodes:
                path = prefix + spec.name
                if path in self.skipped or isinstance(spec, ConstantNode):
                    continue
                if isinstance(spec, SubsagaNode):
                    each = [path] if spec.each is None else [f"{path}[{k}]" for k in range(self.counts[path])]
                    stack += [(spec.dag, f"{one}/") for one in each]
                elif spec.each is not None:
                    paths += [f"{path}[{k}]" for k in range(self.counts[path])]
                else:
                    paths.append(path)
        return paths

    def on_saga_rolled_back(self, event: Event, _node: Node) -> None:
        self._end(event, "rolled_back")
        for path, node in self.nodes.items():
            if path and node.starts and self.to_undo(path) and not node.settled:
                self.blame(event, "S2", f"{path} is not undone")

    def on_saga_stuck(self, event: Event, _node: Node) -> None:
        self._end(event, "stuck")
        if not event.data.parked and not event.data.nodes:  # type: ignore[union-attr]
            self.blame(event, "S1", "no node is named")
