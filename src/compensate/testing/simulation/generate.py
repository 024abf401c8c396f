"""Making scenarios of numbers. Each kind of fault is switched off in a good part of them ("swarm testing")."""

from __future__ import annotations

from random import Random
from typing import Final, Literal, TypeVar

import msgspec

from compensate.testing.simulation.dags import reads_yes
from compensate.testing.simulation.scenario import Fault, Kill, Kind, NodeSpec, Scenario, World, walk
from compensate.testing.simulation.world import DO_FAULTS, UNDO_FAULTS

T = TypeVar("T")

_KINDS: Final[tuple[Kind, ...]] = ("step", "link", "plain", "blocking", "constant", "subsaga", "fan", "sagas")

_LINKS: Final[tuple[Kind, ...]] = ("link",)


class _Knobs:
    """What is switched on in one scenario."""

    def __init__(self, rng: Random) -> None:
        chance = rng.random
        self.do = [word for word in DO_FAULTS if chance() < 0.35]
        self.undo = [word for word in UNDO_FAULTS if chance() < 0.35]
        self.do_rate = rng.choice((0.05, 0.15, 0.4)) if self.do else 0.0
        self.undo_rate = rng.choice((0.05, 0.2, 0.5)) if self.undo else 0.0
        kinds: list[Kind] = [kind for kind in _KINDS if chance() < 0.35]
        self.kinds: list[Kind] = ["step", *kinds]
        self.chain = chance() < 0.1
        if self.chain:
            self.kinds = [*(_LINKS * rng.choice((1, 9))), "step"]
        self.pivot = chance() < 0.15
        self.when = chance() < 0.25
        self.none = chance() < 0.5
        self.output = chance() < 0.7
        self.timeouts = chance() < 0.5
        self.undo_timeouts = chance() < 0.5
        self.width = rng.choice((0.3, 0.6, 0.9))


def generate(seed: int, world: World = "keyed") -> Scenario:
    """The scenario of a seed."""
    rng = Random(seed)
    chance = rng.random
    knobs = _Knobs(rng)
    size = rng.randint(1, 8)
    if chance() < 0.05:
        size = rng.randint(9, 60 if chance() < 0.2 else 20)
    coordinators = rng.choices((1, 2, 3), (45, 40, 15))[0]
    sagas = rng.choices((1, 2, 3), (75, 20, 5))[0]
    chaos = rng.choice((4.0, 8.0, 14.0))
    scenario = Scenario(
        seed=seed,
        world=world,
        nodes=_Maker(rng, knobs).nodes(size, 0),
        sagas=sagas,
        skews=_skews(rng, coordinators),
        faults=(*_starts(rng, sagas, coordinators), *_faults(rng, coordinators, sagas, chaos)),
        shuffle=chance() < 0.5,
        in_place=rng.choice((0.0, 0.0, 0.5, 1.0)),
        chaos=chaos,
        deadline=rng.uniform(0.1, 5.0) if chance() < 0.1 else None,
        grace=rng.choice((0.0, 0.3, 2.0)),
        room=rng.choice((1, 2, 1000, 1000)),
        wait=chance() < 0.15,
    )
    return _with_a_killer(scenario, Random(f"kill {seed}"))


def _with_a_killer(scenario: Scenario, rng: Random) -> Scenario:
    """In some scenarios a node kills its process each time: there is time enough then until it is given up."""
    if rng.random() >= 0.15:
        return scenario
    spec = [(path, node) for path, node in walk(scenario.nodes) if node.kind not in ("constant", "subsaga")]
    if not spec:
        return scenario
    path, node = rng.choice(spec)
    if node.kind == "fan":
        path += f"[{rng.randint(0, 2)}]"
    kill = Kill(rng.randrange(scenario.sagas), path, rng.choice(("do", "do", "undo")))
    return msgspec.structs.replace(
        scenario, kills=(kill,), crashes=rng.choice((1, 2, 3, 5)), chaos=rng.choice((20.0, 60.0))
    )


class _Maker:
    """Makes the nodes of one dag."""

    def __init__(self, rng: Random, knobs: _Knobs) -> None:
        self.rng = rng
        self.knobs = knobs

    def nodes(self, size: int, depth: int, *, fanned: bool = False) -> tuple[NodeSpec, ...]:
        """So many nodes, in an order that edges allow. `fanned`: they are inside a fan-out of subsagas."""
        made: list[NodeSpec] = []
        pivot = self.rng.randrange(size) if self.knobs.pivot and depth == 0 else -1
        for k in range(size):
            made.append(self._node(k, made, depth, pivot == k, fanned))
        if pivot >= 0:
            made = [_retriable(node) for node in made]
        if made[-1].kind == "constant" and all(node.kind == "constant" for node in made):
            made[-1] = msgspec.structs.replace(made[-1], kind="step", undo="unknown")
        return tuple(made)

    def _node(self, k: int, before: list[NodeSpec], depth: int, pivot: bool, fanned: bool) -> NodeSpec:
        rng, knobs, chance = self.rng, self.knobs, self.rng.random
        kind: Kind = rng.choice(knobs.kinds)
        if pivot or (kind == "link" and depth) or (kind in ("subsaga", "sagas") and depth == 2):
            kind = "step"
        if kind == "plain" and fanned:
            kind = "step"  # a plain action is told its path by the dag, which is the same for all elements
        after = tuple(
            spec.name for spec in before[-6:] if chance() < (1 - knobs.width) / min(len(before), 3) * 1.5
        )
        if knobs.chain:
            after = tuple(spec.name for spec in before[-1:])
        when = ""
        if knobs.when and kind != "constant" and not pivot and chance() < 0.3:
            when = rng.choice([""] + [spec.name for spec in before if reads_yes(spec)])
        attempts = rng.choice((1, 1, 2, 3, None))
        undo: list[Literal["none", "output", "unknown"]] = ["unknown"]
        if knobs.none:
            undo.append("none")
        if knobs.output:
            undo.extend(("output", "output"))
        if kind == "link":
            undo[0] = "output"  # its undo learns all that it knows from the output
        lists = [
            spec.name for spec in before if spec.count and spec.kind in ("step", "blocking") and not spec.when
        ]
        return NodeSpec(
            name=f"n{k}",
            kind=kind,
            after=after,
            reads=tuple(name for name in after if knobs.chain or chance() < 0.5),
            when=when,
            undo=rng.choice(undo),
            attempts=attempts,
            first=rng.choice((0.0, 0.1, 0.5)),
            timeout=rng.choice((0.4, 1.5)) if knobs.timeouts and chance() < 0.5 else None,
            undo_attempts=rng.choice((1, 2, 4, None)),
            undo_timeout=rng.choice((0.4, 1.5)) if knobs.undo_timeouts and chance() < 0.5 else None,
            pivot=pivot,
            nodes=self.nodes(rng.randint(1, 3), depth + 1, fanned=fanned or kind == "sagas")
            if kind in ("subsaga", "sagas")
            else (),
            count=rng.randint(0, 4) if kind in ("fan", "sagas", "step", "blocking") and chance() < 0.7 else 0,
            items_of=rng.choice(lists) if kind in ("fan", "sagas") and lists and chance() < 0.6 else "",
            yes=chance() < 0.6,
            do=self._script(
                _curable(knobs.do, attempts), knobs.do_rate, 6 if attempts is None else attempts + 1
            ),
            undoing=self._script(knobs.undo, knobs.undo_rate, 4),
            sick=rng.randint(0, 2),
        )

    def _script(self, words: list[str], rate: float, longest: int) -> tuple[str, ...]:
        script: list[str] = []
        while words and len(script) < longest and self.rng.random() < rate:
            script.append(self.rng.choice(words))
            rate = max(rate, 0.5)
        return tuple(script)


def _curable(words: list[str], attempts: int | None) -> list[str]:
    """The faults that end some time: a key that was refused is refused for ever, and so would be tried for ever."""
    return (
        words
        if attempts is not None
        else [word for word in words if word not in ("no_effect", "grouped_clean")]
    )


def _retriable(node: NodeSpec) -> NodeSpec:
    return msgspec.structs.replace(
        node,
        attempts=None if node.attempts is None else max(2, node.attempts),
        nodes=tuple(_retriable(inner) for inner in node.nodes),
    )


def _skews(rng: Random, coordinators: int) -> tuple[float, ...]:
    most = rng.choice((0.0, 0.0, 1.0, 10.0))
    return tuple(round(rng.uniform(-most, most), 3) for _ in range(coordinators))


def _starts(rng: Random, sagas: int, coordinators: int) -> list[Fault]:
    return [
        Fault("start", rng.randrange(coordinators), at=0.5 + rng.uniform(0, 1), saga=k) for k in range(sagas)
    ]


def _faults(rng: Random, coordinators: int, sagas: int, chaos: float) -> list[Fault]:
    chance = rng.random
    faults: list[Fault] = []

    def some(chances: float, most: int) -> int:
        return rng.randint(1, most) if chance() < chances else 0

    def length() -> float:
        return rng.choice((rng.uniform(0.1, 1), rng.uniform(1, 12)))

    if chance() < 0.05:
        saga = rng.randrange(sagas)
        faults.append(
            Fault("give_up", rng.randrange(coordinators), at=0.5, length=rng.uniform(0, 0.01), saga=saga)
        )
    for kind in ("append_lost", "append_applied", "crash_before", "crash_after"):
        for _ in range(some(0.25, 3)):
            nth = rng.randint(1, rng.choice((6, 14, 40)))
            faults.append(Fault(kind, rng.randrange(coordinators), nth=nth, length=length()))
    faults.extend(
        Fault("read_lost", rng.randrange(coordinators), nth=rng.randint(1, 12)) for _ in range(some(0.15, 3))
    )
    for kind, chances, most in (("crash", 0.25, 3), ("pause", 0.25, 3), ("shutdown", 0.1, 2)):
        for _ in range(some(chances, most)):
            at = rng.choice((rng.uniform(0.5, 2), rng.uniform(0.5, chaos)))
            faults.append(Fault(kind, rng.randrange(coordinators), at=at, length=length()))
    for kind, chances, most in (
        ("start_again", 0.2, 3),
        ("start_other", 0.05, 1),
        ("rollback", 0.25, 2),
        ("pause_saga", 0.12, 2),
        ("resume", 0.12, 2),
        ("operate", 0.2, 4),
    ):
        for _ in range(some(chances, most)):
            at = rng.choice((rng.uniform(0.5, 2.5), rng.uniform(0.5, chaos)))
            faults.append(Fault(kind, rng.randrange(coordinators), at=at, saga=rng.randrange(sagas)))
    return faults
