"""The lines of the guarantee that only an outside record of effects shows."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from compensate.core import events as e
from compensate.core.events import Event
from compensate.testing.log_lines import Track, Walk
from compensate.testing.recorder import OK, Durable, Effect, StoreCall
from compensate.testing.shape import Unknown, same
from compensate.testing.violations import Report


class Effects:
    """Compares what user code did with what the log says.

    Args:
        walk: Over the saga's log, done.
        saga_id: The saga's.
        effects: Of this saga, in order.
        durables: When what was known to be durable.
        calls: Calls of the store; acknowledged ones tell what was durable too.
        report: Where violations go.
        believe_failures: Whether a plain failure is believed to have taken no effect, whatever was recorded.
    """

    def __init__(
        self,
        walk: Walk,
        saga_id: str,
        effects: Sequence[Effect],
        durables: Iterable[Durable],
        calls: Iterable[StoreCall],
        report: Report,
        *,
        believe_failures: bool,
    ) -> None:
        self.walk = walk
        self.saga_id = saga_id
        self.effects = effects
        self.report = report
        self.believe_failures = believe_failures
        known = [(d.order, d.seq, d.actor) for d in durables]
        for call in calls:
            if call.outcome == OK:
                known += [(call.done, call.events[-1].seq, call.actor)] if call.events else []
                known += [(call.done, c.last_seq, call.actor) for c in call.claimed if c.saga == saga_id]
        self._known = sorted(known)
        self._writers = {
            (event.seq, event.epoch): call.actor
            for call in calls
            if call.saga == saga_id
            for event in call.events
        }
        self._durable = self._when_durable()
        self._of: dict[str, list[Effect]] = {}
        for effect in effects:
            self._of.setdefault(effect.node, []).append(effect)

    def run(self) -> None:
        """Check."""
        for path, effects in self._of.items():
            track = self.walk.tracks.get(path)
            if track is None:
                self.report.add("S8", f"{path} ran, and the log knows no such action", [], effects[:1])
                continue
            self._keys(path, effects)
            for effect in effects:
                if effect.kind in ("begin", "effect"):
                    self._recorded_first(path, effect)
                if effect.kind == "begin":
                    self._not_after_end(effect)
                    self._received(track, effect)
            self._returned(track, effects)
            self._order_of_undo(track, effects)
            self._not_invoked_again(track, effects)
        if self.walk.end is not None and self.walk.end.type == e.SAGA_ROLLED_BACK:
            for path, effects in self._of.items():
                if path in self.walk.tracks:
                    self._undone(self.walk.tracks[path], effects, self.walk.end)

    # -- what was durable --------------------------------------------------

    def _when_durable(self) -> dict[int, int | None]:
        """For each effect, the last seq known to be durable; `None`: nobody looked."""
        found: dict[int, int | None] = {}
        at, seq = 0, 0
        for effect in self.effects:
            while at < len(self._known) and self._known[at][0] < effect.order:
                seq = max(seq, self._known[at][1])
                at += 1
            found[effect.order] = (
                effect.durable if effect.durable is not None else (seq if self._known else None)
            )
        return found

    def _who_ended(self, end: Event) -> str:
        known = next((actor for _, seq, actor in self._known if seq >= end.seq), "")
        return self._writers.get((end.seq, end.epoch), known)

    def _recorded_first(self, path: str, effect: Effect) -> None:
        kind = e.STARTED if effect.direction == "do" else e.UNDO_STARTED
        starts = [
            event
            for event in self.walk.events
            if event.type == kind and event.node == path and effect.attempt in (0, event.attempt)
        ]
        durable = self._durable[effect.order]
        if not starts:
            self.report.add("S8", f"{path} ran, and the log has no {kind} of that attempt", [], [effect])
        elif durable is not None and starts[0].seq > durable:
            self.report.add("S8", f"{path} ran before its {kind} was durable", starts[:1], [effect])

    def _not_after_end(self, effect: Effect) -> None:
        durable = self._durable[effect.order]
        if durable is None:
            return
        for end, decision in self.walk.ends:
            if end.seq <= durable and (decision is None or durable < decision.seq):
                ended_by = self._who_ended(end)
                if not (effect.actor and ended_by and effect.actor != ended_by):
                    self.report.add("S1", f"{effect.node} ran after the saga's end", [end], [effect])

    # -- what was given and returned ---------------------------------------

    def _keys(self, path: str, effects: list[Effect]) -> None:
        for effect in effects:
            key = f"{self.saga_id or effect.saga}/{path}/{effect.direction}"
            if effect.key and effect.key != key:
                self.report.add("S6", f"{path} was given the key {effect.key!r}; it is {key!r}", [], [effect])

    def _received(self, track: Track, effect: Effect) -> None:
        if effect.value is None:
            return
        path, given = track.leaf.path, json.loads(effect.value)
        if effect.direction == "undo":
            first = track.undo_started
            known = track.success is not None and (first is None or track.success.seq < first.seq)
            wanted = json.loads(track.output) if known else None
            if not same(wanted, given):
                self.report.add(
                    "S6", f"the undo of {path} was not given its recorded output", [track.success], [effect]
                )
            return
        try:
            inputs = self.walk.worker.inputs(track.leaf)
        except Unknown as unknown:
            self.report.add("S6", f"{path} was given what the log does not hold: {unknown}", [], [effect])
            return
        for name, value in inputs.items():
            if not _has(given, name, value):
                self.report.add("S6", f"{path} was not given the {name} that the log records", [], [effect])

    def _returned(self, track: Track, effects: list[Effect]) -> None:
        success = track.success
        if success is None or success.type != e.COMPLETED:
            return
        returned = [
            x for x in effects if x.direction == "do" and x.kind == "returned" and x.value is not None
        ]
        returned = [x for x in returned if x.attempt in (0, success.attempt)]
        output = json.loads(track.output)
        if returned and not any(same(json.loads(x.value or b"null"), output) for x in returned):
            self.report.add(
                "S5", f"the log's output of {track.leaf.path} is not what it returned", [success], returned
            )

    # -- order -------------------------------------------------------------

    def _order_of_undo(self, track: Track, effects: list[Effect]) -> None:
        begin = next((x for x in effects if x.direction == "undo" and x.kind == "begin"), None)
        if begin is None:
            return
        for leaf in self.walk.shape.leaves_of(track.leaf.after):
            for other in self._of.get(leaf.path, ()):
                late = other.kind == "effect" and other.direction == "undo"
                late = late or (
                    other.kind == "begin" and other.direction == "do" and _same_actor(other, begin)
                )
                if late and other.order > begin.order:
                    self.report.add(
                        "S3", f"{track.leaf.path} was being undone before {leaf.path} was", [], [begin, other]
                    )

    def _not_invoked_again(self, track: Track, effects: list[Effect]) -> None:
        begins = [x for x in effects if x.direction == "do" and x.kind == "begin"]
        for leaf in self.walk.shape.leaves_of(track.leaf.after):
            for other in self._of.get(leaf.path, ()):
                if other.kind != "begin" or other.direction != "do":
                    continue
                again = [x for x in begins if x.order > other.order and _same_actor(x, other)]
                if again:
                    self.report.add(
                        "S7",
                        f"{track.leaf.path} was invoked after {leaf.path} had started",
                        [],
                        [other, again[0]],
                    )
                break

    def _undone(self, track: Track, effects: list[Effect], end: Event) -> None:
        done = [x for x in effects if x.direction == "do" and x.kind == "effect"]
        if not done or track.leaf.node.undo == "none" or track.decided is not None:
            return
        if self.believe_failures and not track.owes_undo:
            return
        finished = [x for x in effects if x.direction == "undo" and x.kind == "returned"]
        if not finished or finished[-1].order < done[-1].order:
            self.report.add(
                "S2",
                f"rolled back, but the undo of {track.leaf.path} did not finish after its last effect",
                [track.last, end],
                [done[-1], *finished[-1:]],
            )


def _has(given: Any, name: str, value: Any) -> bool:
    return isinstance(given, dict) and name in given and same(given[name], value)


def _same_actor(one: Effect, other: Effect) -> bool:
    """Coordinators that were overtaken cannot be stopped in the middle; what they began is for keys to catch."""
    return one.actor == other.actor
