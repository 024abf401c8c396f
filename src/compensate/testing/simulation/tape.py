"""What a history is judged by: effects, acknowledgements and calls of the store, in one order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec

from compensate.core.events import Event
from compensate.core.names import Direction, key
from compensate.testing.recorder import OK, Claimed, Durable, Effect, Kind, StoreCall

_encode = msgspec.json.Encoder().encode


class Tape:
    """Takes down what happens; the checker's records, without the cost of a recorder that could be read by others.

    Attributes:
        effects: What user code and participants did.
        durables: Who knew which events to be durable, when.
        calls: Calls of the store.
        fired: How often each fault fired.
        troubles: Violations that were seen at once.
        told: What else happened, and after which record; for people.
    """

    def __init__(self) -> None:
        self.effects: list[Effect] = []
        self.durables: list[Durable] = []
        self.calls: list[StoreCall] = []
        self.fired: Counter[str] = Counter()
        self.troubles: list[str] = []
        self.told: list[tuple[int, str]] = []
        self._order = 0

    def _next(self) -> int:
        self._order += 1
        return self._order

    def tell(self, at: float, what: str) -> None:
        """Note something for people."""
        self.told.append((self._order, f"{at:.3f} {what}"))

    def acted(
        self,
        saga: str,
        node: str,
        direction: Direction,
        kind: Kind,
        attempt: int,
        value: object,
        actor: str,
        durable: int,
    ) -> None:
        """User code was entered or left, or a participant changed something."""
        self.effects.append(
            Effect(
                self._next(),
                saga,
                node,
                direction,
                kind,
                attempt,
                key(saga, node, direction),
                _encode(value),
                actor,
                durable,
            )
        )

    def known(self, saga: str, seq: int, actor: str) -> None:
        """A coordinator learned that the log up to `seq` is durable."""
        self.durables.append(Durable(self._next(), saga, seq, actor))

    def called(
        self, call: str, saga: str, actor: str, epoch: int = 0, events: Sequence[Event] = ()
    ) -> StoreCall:
        """The store is called."""
        made = StoreCall(self._next(), call, saga, actor, epoch, tuple(events))
        self.calls.append(made)
        return made

    def came_back(
        self, call: StoreCall, error: BaseException | None = None, claimed: tuple[Claimed, ...] = ()
    ) -> None:
        """The call came to something, and its caller heard of it."""
        call.outcome = OK if error is None else type(error).__name__
        call.done = self._next()
        call.claimed = claimed
