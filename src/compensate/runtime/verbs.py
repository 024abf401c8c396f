"""What operators can ask of a saga: checked, carried as JSON to whoever owns it, applied to its machine."""

from __future__ import annotations

import math

import msgspec

from compensate.codec import records as r
from compensate.core.machine import Machine
from compensate.core.plan import ACTION
from compensate.errors import ActionNotFound, DeserializeFailed, IllegalRequest
from compensate.inspection.bindings import Bindings
from compensate.stores.base import Verb


class Ask(msgspec.Struct, frozen=True, omit_defaults=True):
    """The arguments of a request.

    Attributes:
        who: Who asks.
        why: Why.
        node: For `retry`, `skip`, `resolve`: which node.
        output: For `resolve`: what the action returned, as JSON text.
        grace: For `rollback`: seconds to wait for running actions.

    Raises:
        IllegalRequest: The log could not hold it.
    """

    who: str = ""
    why: str = ""
    node: str = ""
    output: str | None = None
    grace: float | None = None

    def __post_init__(self) -> None:
        for what, text in (("who", self.who), ("reason", self.why), ("node", self.node)):
            _check_text(what, text)
        _check_grace(self.grace)


def _check_text(what: str, text: object) -> None:
    if not isinstance(text, str):
        raise IllegalRequest(f"a request: {what} is {text!r}; give a text")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise IllegalRequest(
            f"a request: {what} is {text!r}, which holds a lone surrogate; decode it properly first"
        ) from None


def _check_grace(grace: object) -> None:
    if grace is not None and not (isinstance(grace, int | float) and 0 <= grace < math.inf):
        raise IllegalRequest(f"a request: grace is {grace!r}; give seconds, 0 or more")


_decoder = msgspec.json.Decoder(Ask)


def encode(ask: Ask) -> bytes:
    """The arguments as JSON."""
    return r.to_json(ask)


def decode(data: bytes) -> Ask:
    """The inverse of `encode`.

    Raises:
        IllegalRequest: The row holds something else.
    """
    try:
        return _decoder.decode(data)
    except r.UNREADABLE as error:
        raise IllegalRequest(f"a request cannot be read: {error}") from None


def apply(machine: Machine, bindings: Bindings, verb: Verb, ask: Ask, now: float) -> bool:
    """Carry a request out on the machine, whose plan is joined to code by `bindings`.

    Returns:
        `False` if it has to be asked again when something has landed.

    Raises:
        IllegalRequest: It makes no sense in the saga's present state. Nothing was changed.
    """
    if verb == "rollback":
        return machine.roll_back(now, who=ask.who, why=ask.why, grace=ask.grace)
    if verb == "pause":
        machine.pause(now, who=ask.who, why=ask.why)
    elif verb == "resume":
        machine.resume(now, who=ask.who, why=ask.why)
    elif verb == "retry":
        machine.retry(ask.node, now, who=ask.who, why=ask.why)
    elif verb == "skip":
        machine.skip(ask.node, now, who=ask.who, why=ask.why)
    elif verb == "resolve":
        machine.resolve(ask.node, now, who=ask.who, why=ask.why, output=_output(ask, machine, bindings))
    else:
        raise IllegalRequest(f"a request asks for {verb!r}, which this version does not know")
    return True


def _output(ask: Ask, machine: Machine, bindings: Bindings) -> bytes | None:
    """What the operator says that the action returned; recorded, it can never be changed (S5)."""
    if ask.output is None:
        return None
    try:
        output = r.to_json(r.from_json(ask.output.encode()))
        r.check_keys(ask.output.encode())
    except (DeserializeFailed, UnicodeEncodeError) as error:
        raise IllegalRequest(f"resolve {ask.node!r}: the output cannot be taken: {error}") from None
    i = machine.plan.index.get(ask.node, -1)
    if i >= 0 and machine.plan.kinds[i] == ACTION:  # else the machine says what is wrong
        try:
            bindings.of(i, machine).decode(output)
        except ActionNotFound as error:
            raise IllegalRequest(
                f"resolve {ask.node!r}: {error}, so what it returns cannot be checked"
            ) from None
        except DeserializeFailed as error:
            raise IllegalRequest(
                f"resolve {ask.node!r}: the output is not what its action returns: {error.__cause__ or error}"
            ) from None
    return output
