"""Random dags, outcomes and crashes: every history comes to an honest end and keeps the guarantee."""

from __future__ import annotations

import random

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from compensate.core import events as e
from compensate.core.dag import PARAMS, ActionNode, Dag, Each, Node, Ref, SubsagaNode, Undo, validate
from compensate.core.machine import Machine
from compensate.core.policy import Retry
from compensate.errors import DefinitionError
from tests.support.driving import Run, dag
from tests.support.logcheck import violations

UNDOS: tuple[Undo, ...] = ("none", "output", "unknown")
CALM = 60  # steps after which nothing fails any more


def random_dag(rng: random.Random, depth: int = 0) -> Dag:
    nodes: list[Node] = []
    for k in range(rng.randint(1, 6 if depth == 0 else 3)):
        name = f"{'xyz'[depth]}{k}"
        before = tuple(n.name for n in nodes if rng.random() < 0.4)
        when = Ref(before[0]) if before and rng.random() < 0.2 else None
        if depth < 2 and rng.random() < 0.2:
            inner, each = random_dag(rng, depth + 1), None
            if rng.random() < 0.5:
                inner, each = msgspec.structs.replace(inner, params=("item",)), Each("item", Ref(PARAMS))
            nodes.append(SubsagaNode(name, inner, {}, before, "", when, each))
            continue
        nodes.append(
            ActionNode(
                name,
                "act",
                after=before,
                when=when,
                each=Each("item", Ref(PARAMS)) if rng.random() < 0.2 else None,
                undo=rng.choice(UNDOS),
                retry=Retry(rng.choice([1, 2, 3]), jitter=rng.choice([0.0, 0.5])),
                undo_retry=Retry(rng.choice([1, 2])),
                pivot=depth == 0 and rng.random() < 0.15,
            )
        )
    made = dag(*nodes)
    if depth:
        return made
    try:
        validate(made)
    except DefinitionError:
        return dag(*(_no_pivot(n) for n in nodes))
    return made


def _no_pivot(n: Node) -> Node:
    if not isinstance(n, ActionNode):
        return n
    return ActionNode(
        n.name,
        n.action,
        after=n.after,
        when=n.when,
        each=n.each,
        undo=n.undo,
        retry=n.retry,
        undo_retry=n.undo_retry,
    )


class Answers(dict[str, bool | int]):
    """What nodes answer when they are asked: the same after a crash."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed

    def __missing__(self, path: str) -> int:
        return random.Random(f"{self.seed}{path}").randint(0, 3)


def act(run: Run, rng: random.Random) -> None:
    """One thing happens in the world."""
    if rng.random() < 0.25 and disturb(run, rng):
        return
    if run.doing and (rng.random() < 0.7 or not run.undoing):
        land(run, rng, rng.choice(run.doing))
    elif run.undoing:
        path = rng.choice(run.undoing)
        if rng.random() < 0.3:
            run.undo_fail(path, permanent=rng.random() < 0.3)
        else:
            run.undone(path)
    elif run.status == "stuck":
        path, choices = rng.choice(sorted(run.stuck().items()))
        run.decide(rng.choice(choices), path)
    elif run.lingering:
        run.landed(min(run.lingering))
    elif run.wait is not None:
        run.until()


def land(run: Run, rng: random.Random, path: str) -> None:
    match rng.randint(0, 9):
        case 0:
            run.fail(path)
        case 1:
            run.fail(path, clean=True)
        case 2:
            run.fail(path, permanent=True)
        case 3:
            run.doubt(path, rng.choice(["unknown", "timeout", "cancelled", "unstorable"]))
        case _:
            run.ok(path, output=str(rng.random()).encode())


def disturb(run: Run, rng: random.Random) -> bool:
    """Something that need not happen; `False` if it cannot now."""
    what = rng.choice(
        ["crash", "roll back", "pause", "resume", "resume", "linger", "landed", "landed", "decide"]
    )
    going = run.status in ("running", "rolling_back")
    if what == "crash":
        run.crash()
    elif what == "roll back" and run.status == "running" and not run.machine.pivot_passed:
        run.machine.roll_back(run.now, grace=rng.choice([0.0, 5.0]))
        run.go()
    elif what == "pause" and going:
        run.machine.pause(run.now)
        run.go()
    elif what == "resume" and going:
        run.machine.resume(run.now)
        run.go()
    elif what == "linger" and run.doing + run.undoing:
        run.linger(rng.choice(run.doing + run.undoing), permanent=rng.random() < 0.5)
    elif what == "landed" and run.lingering:
        run.landed(rng.choice(sorted(run.lingering)))
    elif what == "decide" and going:
        # An operator need not wait until the saga is stuck.
        given_up = [(path, run.machine.choices(i)) for path, i in run.machine.plan.index.items()]
        given_up = [(path, choices) for path, choices in given_up if choices]
        if not given_up:
            return False
        path, choices = rng.choice(given_up)
        run.decide(rng.choice(choices), path)
    else:
        return False
    return True


def history(seed: int) -> Run:
    rng = random.Random(seed)
    deadline = 100.0 + rng.choice([1.0, 10.0]) if rng.random() < 0.2 else None
    run = Run(random_dag(rng), Answers(seed), deadline=deadline, room=rng.choice([None, None, 1, 2]))
    for _ in range(CALM):
        if run.end in ("completed", "rolled_back"):
            break
        act(run, rng)
    if rng.random() < 0.5:
        run.finish()
        if run.end == "completed" and not run.machine.pivot_passed and rng.random() < 0.3:
            run.roll_back()
    return run.finish()


@settings(max_examples=400)
@given(st.integers(0, 2**32))
def test_a_random_history_comes_to_an_honest_end_within_the_guarantee(seed: int) -> None:
    run = history(seed)
    assert run.end in ("completed", "rolled_back")
    assert violations(run.plan.dag, run.log) == []


@settings(max_examples=200)
@given(st.integers(0, 2**32), st.floats(0, 1))
def test_any_prefix_of_a_log_can_be_adopted_and_comes_to_an_honest_end(seed: int, share: float) -> None:
    run = history(seed)
    full = run.log
    run.log = full[: max(1, round(len(full) * share))]
    run.machine = Machine(run.plan, "s")
    run.machine.epoch = full[-1].epoch
    run.end = None
    ended = run.log[-1].type in ("saga_completed", "saga_rolled_back")
    run.crash()
    if not ended:
        run.finish()
        assert run.end in ("completed", "rolled_back")
    else:
        assert not run.doing
        assert not run.undoing
    assert violations(run.plan.dag, run.log) == []


@given(st.integers(0, 2**32))
def test_the_fold_of_the_log_is_the_machine_that_wrote_it(seed: int) -> None:
    run = history(seed)
    fold = run.fold()
    for field in (
        "state",
        "attempt",
        "output",
        "status",
        "undo_attempt",
        "failures",
        "undo_failures",
        "epoch",
        "seq",
    ):
        assert getattr(fold, field) == getattr(run.machine, field), field


def test_the_random_histories_reach_every_kind_of_event_and_both_ends() -> None:
    seen: set[str] = set()
    ends: set[str | None] = set()
    for seed in range(600):
        run = history(seed)
        ends.add(run.end)
        seen.update(event.type for event in run.log)
    assert ends == {"completed", "rolled_back"}
    assert set(e.PAYLOADS) - seen == {e.SAGA_UNPARKED}
