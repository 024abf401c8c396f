"""The world outside: participants on which actions and undos have effects, and what goes wrong there.

A call travels to the participant, has its effect there, and an answer travels
back; the caller may be cut off, cancelled or asleep meanwhile, and the effect
happens all the same, sometimes much later. A participant of the *keyed* world
goes by the key of a call: what it did once it does not do twice, and an undo
that comes first leaves a tombstone, so that the late action has no effect. The
*naive* one does whatever it is told, each time.

The words for what happens to a call:

==================  =======================================================
`fail`              plain failure before any effect
`fail_after`        the effect happens, then a failure
`unknown`           `Unknown`, and no effect
`unknown_after`     `Unknown`, and the effect has happened
`unknown_late`      `Unknown` at once, the effect happens later
`no_effect`         `NoEffect`, after making sure of it
`permanent`         `Permanent`, and no effect
`slow`              effect and answer take long
`late`              the effect takes very long, no answer comes before
`cut`               `CancelledError` from within, the effect has happened
`base`              a `BaseException`, the effect has happened
`unstorable`        it returns what the log cannot hold
`timed_out`         a `TimeoutError` of the action's own, after the effect
`grouped`           a task group's group of a plain failure and an `Unknown`,
                    after the effect
`grouped_clean`     a group of two `NoEffect`, after making sure of it
`wrapped`           as `late`; a cancellation comes out as a plain failure
==================  =======================================================
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Collection
from random import Random
from typing import Any, Final

import msgspec

from compensate.core.names import Direction, key
from compensate.errors import NoEffect, Permanent, Unknown
from compensate.testing.recorder import Kind
from compensate.testing.simulation.loop import PROCESS, BlocksFor, Process, VirtualLoop
from compensate.testing.simulation.scenario import NodeSpec
from compensate.testing.simulation.tape import Tape

DO_FAULTS: Final = (
    "fail",
    "fail_after",
    "unknown",
    "unknown_after",
    "unknown_late",
    "no_effect",
    "permanent",
    "slow",
    "late",
    "cut",
    "base",
    "unstorable",
    "timed_out",
    "grouped",
    "grouped_clean",
    "wrapped",
)
UNDO_FAULTS: Final = ("fail", "fail_after", "permanent", "slow", "late", "cut", "grouped", "wrapped")


_POSITION: Final = re.compile(r"\[(\d+)\]")


class Out(msgspec.Struct, frozen=True):
    """What every action returns.

    Attributes:
        value: Tells this effect from all others.
        yes: For a `when`.
        items: For a fan-out.
    """

    value: str
    yes: bool = True
    items: tuple[int, ...] = ()


class Broken(Exception):
    """A participant's plain failure."""


class Rude(BaseException):
    """An error that is no `Exception`."""


class Entry:
    """What a participant knows of one node of one saga."""

    __slots__ = ("buried", "frozen", "output", "refused")

    def __init__(self) -> None:
        self.output: Out | None = None
        self.buried = False
        self.frozen = False
        self.refused = -1


class Call(msgspec.Struct):
    """One call on its way."""

    saga: str
    node: str
    direction: Direction
    attempt: int
    word: str
    given: Any
    actor: str


class World:
    """All participants of a history.

    Args:
        loop: Of the history.
        specs: Node by path.
        tape: Takes down what happens.
        keyed: Whether participants go by keys.
        log_length: Tells how long a saga's durable log is.
        kills: Saga, node and direction of the calls that kill their process.
        kill: Kills one.
    """

    def __init__(
        self,
        loop: VirtualLoop,
        specs: dict[str, NodeSpec],
        tape: Tape,
        *,
        keyed: bool,
        log_length: Callable[[str], int],
        kills: Collection[tuple[str, str, str]] = (),
        kill: Callable[[Process], None] | None = None,
    ) -> None:
        self.loop = loop
        self.rng: Random = loop.rng
        self.specs = specs
        self.keyed = keyed
        self.quiet = False
        self.tape = tape
        self.under_way = 0
        self._log_length = log_length
        self._kills = kills
        self._kill = kill
        self._entries: dict[str, Entry] = {}
        self._calls: Counter[tuple[str, str]] = Counter()

    # -- calls -------------------------------------------------------------

    async def call(self, saga: str, node: str, direction: Direction, attempt: int, given: Any) -> Any:
        """An action's or undo's call: there, effect, and back."""
        call, there, back = self._send(saga, node, direction, attempt, given)
        if call.word in _BEFORE:
            await asyncio.sleep(there)
            raise _BEFORE[call.word](call.word)
        answer: asyncio.Future[Any] = self.loop.create_future()
        self.under_way += 1
        self.loop.outside(there, self._arrive, call, answer, back)
        if call.word == "unknown_late":
            raise Unknown(call.word)
        try:
            result = await answer
        except asyncio.CancelledError as error:
            if call.word != "wrapped":
                raise
            self.tape.fired[f"{direction}: wrapped, and cancelled"] += 1
            raise Broken(call.word) from error
        if result is not _UNSTORABLE:
            self._note(call, "returned", result)
        return result

    def call_blocking(self, saga: str, node: str, attempt: int, direction: Direction, given: Any) -> Any:
        """The same from a virtual thread."""
        call, there, back = self._send(saga, node, direction, attempt, given)
        if call.word in _BEFORE:
            raise _BEFORE[call.word](call.word)
        if call.word == "unknown_late":
            self.under_way += 1
            self.loop.outside(there, self._arrive, call, None, back)
            raise Unknown(call.word)

        def land() -> Any:
            outcome = self._outcome(call)

            def reply() -> Any:
                if isinstance(outcome, BaseException):
                    raise outcome
                if outcome is not _UNSTORABLE:
                    self._note(call, "returned", outcome)
                return outcome

            raise BlocksFor(back, reply)

        raise BlocksFor(there, land)

    def _send(
        self, saga: str, node: str, direction: Direction, attempt: int, given: Any
    ) -> tuple[Call, float, float]:
        process = PROCESS.get()
        call = Call(saga, node, direction, attempt, "", given, "" if process is None else process.name)
        self._note(call, "begin", given)
        call.word = self._word(call)
        random = self.rng.random
        if not self.quiet and self._kills and (saga, node, direction) in self._kills and process is not None:
            assert self._kill is not None
            self.tape.fired[f"kill: {direction}"] += 1
            call.word = "slow"  # the process dies before it hears of an outcome
            self.loop.outside(0.5 * random(), self._kill, process)
            return call, random(), 1.0
        if self.quiet:
            return call, 0.01 * random(), 0.01 * random()
        there, back = 0.05 * random(), 0.05 * random()
        if random() < 0.1:
            there *= 10
        if call.word == "slow":
            there, back = there + 2 * random(), 3 * random()
        elif call.word in ("late", "unknown_late", "wrapped"):
            there, back = 1 + 12 * random(), 1.0
        return call, there, back

    def _spec(self, node: str) -> NodeSpec:
        return self.specs[_POSITION.sub("", node)]

    def _word(self, call: Call) -> str:
        """What happens to this call."""
        if self.quiet:
            return ""
        spec = self._spec(call.node)
        positions = _POSITION.findall(call.node)
        if positions and int(positions[-1]) != spec.sick:
            return ""
        script = spec.do if call.direction == "do" else spec.undoing
        which = (call.saga + "/" + call.node, call.direction)
        nth = self._calls[which]
        self._calls[which] += 1
        word = script[nth] if nth < len(script) else ""
        if word == "fail_after" and call.direction == "do" and spec.undo != "unknown" and self.keyed:
            word = (
                "unknown_after"  # a plain failure says that nothing happened; sound participants do not lie
            )
        if word:
            self.tape.fired[f"{call.direction}: {word}"] += 1
        return word

    def _arrive(self, call: Call, answer: asyncio.Future[Any] | None, back: float) -> None:
        self.under_way -= 1
        if answer is None or answer.done():
            self.tape.fired["late effect"] += 1
        outcome = self._outcome(call)
        if answer is not None:
            self.loop.outside(back, _reply, answer, outcome)

    def _outcome(self, call: Call) -> Any:
        """Let the effect happen; returns the answer, an exception for one that is raised."""
        word = call.word
        try:
            result: Any = None
            if call.direction == "undo":
                self._undo(call)
            elif word in ("no_effect", "grouped_clean"):
                return self._refuse(call)
            else:
                result = self._do(call)
        except NoEffect as error:
            return error
        if word == "fail_after":
            return Broken(word)
        if word == "unknown_after":
            return Unknown(word)
        if word == "cut":
            return asyncio.CancelledError(word)
        if word == "base":
            return Rude(word)
        if word == "unstorable":
            return _UNSTORABLE
        if word == "timed_out":
            return TimeoutError(word)
        if word == "grouped":
            return ExceptionGroup(word, [Broken(word), ExceptionGroup(word, [Unknown(word)])])
        return result

    # -- participants ------------------------------------------------------

    def _entry(self, saga: str, node: str) -> Entry:
        """What the participant knows of a node."""
        return self._entries.setdefault(key(saga, node, "do"), Entry())

    def _do(self, call: Call) -> Out:
        entry = self._entry(call.saga, call.node)
        if self.keyed:
            if entry.frozen and entry.output is not None:
                return entry.output
            if entry.buried or entry.frozen or (entry.output is None and call.attempt <= entry.refused):
                self.tape.fired["world: late action met a tombstone"] += 1
                raise NoEffect("its key was refused")
            if entry.output is not None:
                return entry.output
        spec = self._spec(call.node)
        value = f"{call.saga}/{call.node}#{len(self.tape.effects)}"
        output = Out(value, spec.yes, tuple(range(spec.count)))
        entry.output = output
        self._note(call, "effect", output)
        return output

    def _refuse(self, call: Call) -> Any:
        """Make sure that nothing happens under the key before saying so."""
        if self.keyed:
            entry = self._entry(call.saga, call.node)
            if entry.output is not None and not entry.buried:
                return entry.output
            entry.refused = max(entry.refused, call.attempt)
        if call.word == "grouped_clean":
            return ExceptionGroup(call.word, [NoEffect(call.word), NoEffect(call.word)])
        return NoEffect(call.word)

    def _undo(self, call: Call) -> None:
        entry = self._entry(call.saga, call.node)
        if self.keyed:
            if entry.buried or entry.frozen:
                return
            entry.buried = True
        self._note(call, "effect", call.given)

    def _note(self, call: Call, kind: Kind, value: object) -> None:
        self.tape.acted(
            call.saga,
            call.node,
            call.direction,
            kind,
            call.attempt,
            value,
            call.actor,
            self._log_length(call.saga),
        )

    # -- by hand -----------------------------------------------------------

    def freeze(self, saga: str, node: str) -> None:
        """What a careful operator does before saying `skip`: whatever is there stays, and nothing is added."""
        self._entry(saga, node).frozen = True

    def undo_by_hand(self, saga: str, node: str) -> None:
        """What an operator does before saying `resolve`; it counts even if the decision is refused."""
        self._entry(saga, node).buried = True
        self._note(Call(saga, node, "undo", 0, "", None, "by hand"), "returned", None)

    def do_by_hand(self, saga: str, node: str) -> Out:
        """What an operator does before saying `resolve` with an output."""
        entry = self._entry(saga, node)
        if entry.output is None:
            entry.output = Out(f"{saga}/{node} #by hand")
        return entry.output


_UNSTORABLE: Final = Out("\ud800")
_BEFORE: Final[dict[str, Callable[[str], Exception]]] = {
    "fail": Broken,
    "unknown": Unknown,
    "permanent": Permanent,
}


def _reply(answer: asyncio.Future[Any], outcome: Any) -> None:
    if answer.done():
        return
    if isinstance(outcome, asyncio.CancelledError):
        answer.cancel(outcome.args[0])
    elif isinstance(outcome, BaseException):
        answer.set_exception(outcome)
    else:
        answer.set_result(outcome)
