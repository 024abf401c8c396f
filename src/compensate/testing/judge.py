"""The judge of a proof: says of a scenario what is wrong with how it came out."""

from __future__ import annotations

from typing import Any

from compensate.authoring import Saga
from compensate.core import states as s
from compensate.core.log import Fold
from compensate.core.plan import ACTION
from compensate.testing.checker import check
from compensate.testing.differences import Change, difference, lines
from compensate.testing.faults import MOST_FAILURES
from compensate.testing.rehearsal import LONGEST, NOT_SEEN, SAGA_ID, Outcome, Scene
from compensate.testing.report import Finding


class Judge:
    """Knows how the world should be.

    Args:
        saga: Which.
        first: Its undisturbed run.
    """

    def __init__(self, saga: Saga[..., Any], first: Outcome) -> None:
        self._saga = saga
        self._first = first
        self._makers: list[tuple[str, str]] = []
        """Which node was seen to change which part of the world."""

    # -- undisturbed runs --------------------------------------------------

    def undisturbed(self) -> list[Finding]:
        """What is wrong before anything goes wrong."""
        first = self._first
        point = "nothing goes wrong"
        findings = [
            Finding(node, point, f"its output does not survive the codec: {how}")
            for node, how in dict.fromkeys(first.stage.unfaithful)
        ]
        if first.hung:
            return [*findings, self._hung("", point, first)]
        if first.status != s.COMPLETED:
            node = _culprit(first)
            if node not in {finding.node for finding in findings}:
                problem = f"the saga did not complete: it is {first.status}"
                findings.append(Finding(node, point, problem, tuple(_raised(first))))
        elif first.after == first.before:
            problem = (
                "the world never changed, so a proof would show nothing; does world= see what the saga does?"
            )
            findings.append(Finding("", point, problem))
        return findings

    def watched(self, watched: Outcome) -> list[Finding]:
        """Whether a second undisturbed run does the same as the first. Learns who changes what."""
        first = self._first
        for node, changes in watched.stage.made:
            self._makers += [(change.path, node) for change in changes]
        if watched.looked_again != watched.after:
            problem = "two looks at the same world see different things; leave out what is made by looking"
            return [self._differs("", "the saga is over", problem, watched.after, watched.looked_again)]
        if watched.before != first.before:
            problem = "the world is not the same at the beginning of two scenarios; setup= must make it fresh"
            return [self._differs("", "nothing goes wrong", problem, first.before, watched.before)]
        if watched.completed is NOT_SEEN:
            problem = f"a second run came out another way: {watched.status}"
            return [Finding(_culprit(watched), "nothing goes wrong", problem, tuple(_raised(watched)))]
        if watched.completed != first.completed:
            problem = (
                "two undisturbed runs leave different worlds; leave out of the snapshot what differs from run to run "
                "(random ids, times, the order of parallel actions)"
            )
            point = "nothing goes wrong, the second time one action after the other"
            if watched.stage.strays:
                return self.strays(watched)
            return [self._differs("", point, problem, first.completed, watched.completed)]
        return []

    def strays(self, watched: Outcome) -> list[Finding]:
        """Changes of the world while no action or undo ran."""
        return [
            Finding(
                _node_in(when),
                "actions run one at a time",
                f"the world changes while no action runs, {when}: an effect outside of any recorded node",
                tuple(lines(changes)),
            )
            for when, changes in watched.stage.strays
        ]

    # -- scenarios ---------------------------------------------------------

    def judge(self, scene: Scene, outcome: Outcome) -> list[Finding]:
        """What is wrong with a scenario."""
        if outcome.hung:
            return [self._hung(scene.node, scene.point, outcome)]
        findings = self._did_it_happen(scene, outcome)
        findings += self._stuck(scene, outcome)
        if findings:
            return findings
        findings += self._end(scene, outcome)
        if outcome.completed is not NOT_SEEN and outcome.completed != self._first.completed:
            problem = "the saga completed, but the world is not as after an undisturbed run"
            findings.append(
                self._differs(
                    scene.node, scene.point, problem, self._first.completed, outcome.completed, outcome
                )
            )
        if outcome.status == s.ROLLED_BACK and outcome.after != outcome.before:
            problem = "the saga was rolled back, but the world is not as it was before"
            findings.append(
                self._differs(scene.node, scene.point, problem, outcome.before, outcome.after, outcome)
            )
        late = (
            outcome.status == s.COMPLETED and outcome.completed is NOT_SEEN
        )  # it completed after it was stuck
        if late and outcome.after != self._first.after:
            problem = "the saga completed, but the world is not as after an undisturbed run"
            findings.append(
                self._differs(scene.node, scene.point, problem, self._first.after, outcome.after, outcome)
            )
        for violation in check(self._saga.dag, outcome.events, saga_id=SAGA_ID):
            problem = f"the library broke its guarantee; please report it: {violation}"
            findings.append(Finding(scene.node, scene.point, problem))
        return findings

    def _did_it_happen(self, scene: Scene, outcome: Outcome) -> list[Finding]:
        missed = [str(fault) for fault, times in outcome.stage.fired.items() if not times]
        if scene.end_at and not outcome.ended:
            missed.append(
                f"the process was to end at write {scene.end_at}, and there were {len(outcome.writes)}"
            )
        if scene.back_at_once and not _was_in_doubt(scene, outcome):
            missed.append("its undo was not called as for a node in doubt")
        return [
            Finding(
                scene.node,
                scene.point,
                f"the fault never fired ({what}): the saga does not take the same way in each run",
                tuple(_raised(outcome)),
            )
            for what in missed
        ]

    def _stuck(self, scene: Scene, outcome: Outcome) -> list[Finding]:
        findings: list[Finding] = []
        kinds = {fault.kind for fault in scene.faults if fault.node == scene.node}
        fold = outcome.fold_when_stuck
        if fold is not None:
            forward = fold.rollback is None
            on_purpose = (
                outcome.stuck_at == (scene.node,)
                if "undo_fails" in kinds
                else forward and _pivot_is_stuck(scene, outcome.stuck_at, fold)
            )
            if not on_purpose:
                names = ", ".join(outcome.stuck_at) or "its code"
                problem = f"the saga is stuck at {names}"
                findings.append(
                    Finding(
                        _only(outcome.stuck_at) or scene.node, scene.point, problem, tuple(_raised(outcome))
                    )
                )
            elif not forward:
                findings += self._others_undone(scene, fold)
        elif "undo_fails" in kinds:
            problem = f"its undo failed for good, and the saga is {outcome.status} instead of stuck"
            findings.append(Finding(scene.node, scene.point, problem))
        if not findings and outcome.status == s.STUCK:
            problem = "the saga is stuck for good, although the fault was lifted and an operator said retry"
            findings.append(Finding(scene.node, scene.point, problem, tuple(_raised(outcome))))
        return findings

    def _others_undone(self, scene: Scene, fold: Fold) -> list[Finding]:
        """Beside an undo that fails for good, everything that does not have to wait for it is undone."""
        plan = fold.plan
        waiting = plan.ancestors(plan.index[scene.node])
        lost = [
            plan.names[i]
            for i, state in enumerate(fold.state)
            if plan.kinds[i] == ACTION
            and i not in waiting
            and plan.names[i] != scene.node
            and plan.action(i).undo != "none"
            and state == s.COMPLETED
        ]
        return [
            Finding(scene.node, scene.point, f"{name} was not undone, although it could be") for name in lost
        ]

    def _end(self, scene: Scene, outcome: Outcome) -> list[Finding]:
        """Whether the saga came to the end that this scenario has to have."""
        fold = outcome.fold
        if fold is None:
            return [Finding(scene.node, scene.point, "the saga was never stored")]
        fatal = any(fault.kind in ("fail", "lost", "late") for fault in scene.faults)
        wanted: s.SagaStatus = s.COMPLETED
        if (fatal or scene.roll_back or scene.back_at_once) and not fold.pivot_passed:
            wanted = s.ROLLED_BACK
        # A node that is tried for ever survives a fault that at some time is over.
        survived = (
            fold.status == s.COMPLETED and max(outcome.stage.fired.values(), default=0) >= MOST_FAILURES
        )
        if scene.roll_back and outcome.completed is NOT_SEEN:
            problem = f"the saga did not complete: it ended {fold.status}"
        elif fold.status == wanted or survived:
            return []
        else:
            problem = f"the saga ended {fold.status} and not {wanted}"
        return [Finding(_culprit(outcome) or scene.node, scene.point, problem, tuple(_raised(outcome)))]

    # -- words -------------------------------------------------------------

    def _differs(
        self, node: str, point: str, problem: str, wanted: Any, found: Any, outcome: Outcome | None = None
    ) -> Finding:
        changes = difference(wanted, found)
        details = lines(changes)
        makers = self._who_changed(changes)
        if makers:
            details.append(
                f"this part of the world is changed by {', '.join(self._described(m) for m in makers)}"
            )
        if outcome is not None:
            details += _raised(outcome)
        # Who made what is left over is to be mended, wherever else the fault was; the point says where that was.
        guilty = node if node in makers else _only(makers) or _fan_out(makers) or node
        return Finding(guilty, point, problem, tuple(details))

    def _who_changed(self, changes: list[Change]) -> list[str]:
        """The nodes that were seen to change the same parts of the world."""
        makers: dict[str, None] = {}
        for change in changes:
            for path, node in self._makers:
                if path.startswith(change.path) or change.path.startswith(path):
                    makers[node] = None
        return list(makers)

    def _described(self, node: str) -> str:
        fold = self._first.fold
        assert fold is not None
        spec = fold.plan.action(fold.plan.index[node])
        return f"{node} (which has no undo)" if spec.undo == "none" else node

    def _hung(self, node: str, point: str, outcome: Outcome) -> Finding:
        running = [f"{direction} of {name}" for name, direction, _ in outcome.stage.calls[-3:]]
        problem = f"the saga does not end within {LONGEST / 86_400:.0f} days of virtual time"
        return Finding(node, point, problem, (f"called last: {', '.join(running)}", *_raised(outcome)))


def _was_in_doubt(scene: Scene, outcome: Outcome) -> bool:
    """Whether the node's undo was called without its output, or its action again to learn it."""
    calls = outcome.stage.calls
    return (scene.node, "undo", True) in calls or calls.count((scene.node, "do", False)) > 1


def _pivot_is_stuck(scene: Scene, nodes: tuple[str, ...], fold: Fold) -> bool:
    """Whether a saga is stuck as it has to be: at a node that fails, when there is no way back any more.

    There is none once a pivot has completed, nor while one is in doubt.
    """
    failing = [fault.node for fault in scene.faults if fault.kind in ("fail", "lost", "late")]
    if len(nodes) != 1 or nodes[0] not in failing:
        return False
    return fold.pivot_passed or fold.plan.action(fold.plan.index[nodes[0]]).pivot


def _raised(outcome: Outcome) -> list[str]:
    """What user code raised, each once."""
    seen: dict[str, None] = {}
    for node, direction, error in outcome.stage.errors:
        what = (
            "a late action"
            if direction == "late"
            else f"the {'undo' if direction == 'undo' else 'action'} of {node}"
        )
        seen[f"{what} raised {type(error).__name__}: {error}"] = None
    return list(seen)[:6]


def _culprit(outcome: Outcome) -> str:
    """The node whose user code raised first, or that the log holds an error of."""
    for node, _, _ in outcome.stage.errors:
        if node:
            return node
    fold = outcome.fold
    if fold is not None:
        for i in (*fold.errors, *fold.undo_errors):
            return fold.plan.names[i]
    return ""


def _only(nodes: Any) -> str:
    return nodes[0] if len(nodes) == 1 else ""


def _fan_out(nodes: list[str]) -> str:
    """The first of the nodes, if all of them are elements of one fan-out; else `""`."""
    fans = {node.rpartition("[")[0] if node.endswith("]") else "" for node in nodes}
    return nodes[0] if fans != {""} and len(fans) == 1 else ""


def _node_in(when: str) -> str:
    """The node that a stray effect came after."""
    after = when.partition(" and ")[0].rpartition(" of ")[2]
    return after if " " not in after else ""
