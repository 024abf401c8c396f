"""What an action or undo is told about its node: `Ctx`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Generic, Protocol, TypeVar, overload

from compensate.core.names import Direction, key
from compensate.errors import NotFound

D = TypeVar("D")
V = TypeVar("V")


class Reader(Protocol):
    """What a `Ctx` asks of whoever runs the node."""

    def lookup(self, name: str, tp: Any) -> Any:
        """The output of the ancestor `name`, decoded as `tp`; see `Ctx.lookup`."""
        ...

    def params(self, tp: Any) -> Any:
        """The params of the node's saga or subsaga, decoded as `tp`; see `Ctx.params`."""
        ...

    def inputs(self) -> Mapping[str, Any]:
        """The action's inputs, decoded."""
        ...

    def expired(self) -> bool:
        """Whether the node's time limit has passed, or it was cancelled."""
        ...

    def now(self) -> float:
        """The time by the clock of whoever runs the node, in seconds since the Unix epoch."""
        ...


class _Given:
    """Stands in when a function is called by hand, as in a unit test: there is no saga to read from."""

    def __init__(
        self,
        inputs: Any = None,
        outputs: Mapping[str, Any] | None = None,
        params: Any = None,
        now: float | None = None,
    ) -> None:
        self._inputs = inputs
        self._outputs = outputs
        self._params = params
        self._now = now

    def lookup(self, name: str, tp: Any) -> Any:
        if self._outputs is None or name not in self._outputs:
            raise NotFound(
                f"lookup of {name!r}: this Ctx belongs to no saga; give it outputs={{{name!r}: ...}}"
            )
        return self._outputs[name]

    def params(self, tp: Any) -> Any:
        if self._params is None:
            raise NotFound("params: this Ctx belongs to no saga; give it params=...")
        return self._params

    def inputs(self) -> Mapping[str, Any]:
        if self._inputs is None:
            raise NotFound("inputs: this Ctx belongs to no saga; give it inputs={...}")
        given: Mapping[str, Any] = self._inputs
        return given

    def expired(self) -> bool:
        return False

    def now(self) -> float:
        return time.time() if self._now is None else self._now


_NOTHING_GIVEN = _Given()


class Ctx(Generic[D]):
    """Given to an action or undo whose first parameter is annotated `Ctx[...]`.

    A unit test makes its own: `reserve.fn(Ctx(deps), line)`, and for an undo, say,
    `release(Ctx(deps, direction="undo", inputs={"line": line}), None)`.

    Attributes:
        deps: The coordinator's resources (clients, pools). Never logged.
        saga_id: The saga's id.
        node: The node's path: `ship`, `payment/authorize` in a subsaga, `reserve[3]` in a fan-out.
        attempt: 1 for the first attempt, and so on; an undo counts its own.
        direction: `do` in an action, `undo` in an undo.

    Args:
        deps: As above, like the next four.
        saga_id: As above.
        node: As above.
        attempt: As above.
        direction: As above.
        reader: Whoever runs the node; a unit test leaves it out.
        inputs: In a unit test, what `inputs` is.
        outputs: In a unit test, what `lookup` finds, by node name; handed over as it is.
        params: In a unit test, what `params` gives; handed over as it is.
        now: In a unit test, what `now` gives; the real time by default.
    """

    __slots__ = ("_reader", "attempt", "deps", "direction", "node", "saga_id")

    def __init__(
        self,
        deps: D,
        saga_id: str = "saga",
        node: str = "node",
        attempt: int = 1,
        direction: Direction = "do",
        reader: Reader = _NOTHING_GIVEN,
        *,
        inputs: Mapping[str, Any] | None = None,
        outputs: Mapping[str, Any] | None = None,
        params: Any = None,
        now: float | None = None,
    ) -> None:
        self.deps = deps
        self.saga_id = saga_id
        self.node = node
        self.attempt = attempt
        self.direction: Direction = direction
        if inputs is not None or outputs is not None or params is not None or now is not None:
            reader = _Given(inputs, outputs, params, now)
        self._reader = reader

    @property
    def key(self) -> str:
        """The idempotency key of this action or undo: the same over retries, crashes and adoptions.

        Hand it to the other side, so that an effect that is asked for twice happens once.
        """
        return key(self.saga_id, self.node, self.direction)

    @property
    def do_key(self) -> str:
        """The key of the node's action, in its undo too: what the effect to be undone was made under."""
        return key(self.saga_id, self.node, "do")

    @property
    def inputs(self) -> Mapping[str, Any]:
        """The inputs that were given to the node's action, decoded, by parameter name; in its undo the same ones.

        Raises:
            DeserializeFailed: Today's code no longer reads what the log holds.
        """
        return self._reader.inputs()

    @property
    def expired(self) -> bool:
        """Whether the time limit has passed or the node was cancelled.

        A plain `def` runs in a thread, which nobody can stop: it should look here between steps, and return.
        """
        return self._reader.expired()

    def now(self) -> float:
        """The time by the coordinator's clock, in seconds since the Unix epoch.

        In tests on virtual time that clock is virtual: what compares with it need not wait. The time is not recorded;
        an attempt after a crash gets a later one. Where that matters, let an action of its own return it.
        """
        return self._reader.now()

    @overload
    def lookup(self, node: str, tp: type[V]) -> V: ...
    @overload
    def lookup(self, node: str, tp: object) -> Any: ...
    def lookup(self, node: str, tp: Any) -> Any:
        """The recorded output of an ancestor: a node that had to complete before this one started.

        In an undo the node's own name gives the output that is to be undone, the same as the undo's argument.

        From steno. Siblings and later nodes are refused even when they happen to have completed, so that the answer
        is the same in every run and after recovery; so are nodes inside a subsaga and outside one's own.

        Args:
            node: The node's name within the same saga or subsaga.
            tp: The type to decode as.

        Raises:
            NotFound: It is no ancestor of this node. In an undo also: it is this node, which is in doubt or failed, so
                that the log holds no output of it.
            DeserializeFailed: The output does not decode as `tp`.
        """
        return self._reader.lookup(node, tp)

    @overload
    def params(self, tp: type[V]) -> V: ...
    @overload
    def params(self, tp: object) -> Any: ...
    def params(self, tp: Any) -> Any:
        """The params that the saga was started with (in a subsaga: the ones it was given), as one object.

        Args:
            tp: The type to decode the object as: a dataclass or msgspec Struct with a field for each param that is
                of interest, a `TypedDict`, or `dict[str, Any]`.

        Raises:
            DeserializeFailed: They do not decode as `tp`.
        """
        return self._reader.params(tp)

    def __repr__(self) -> str:
        return f"Ctx({self.key}, attempt={self.attempt})"
