"""What operators can ask of a saga: checked, carried as JSON to whoever owns it, applied to its machine."""

from __future__ import annotations

import msgspec

from compensate.codec import records as r
from compensate.core.machine import Machine
from compensate.errors import DeserializeFailed, IllegalRequest
from compensate.stores.base import Verb


class Ask(msgspec.Struct, frozen=True, omit_defaults=True):
    """The arguments of a request.

    Attributes:
        who: Who asks.
        why: Why.
        node: For `retry`, `skip`, `resolve`: which node.
        output: For `resolve`: what the action returned, as JSON text.
        grace: For `rollback`: seconds to wait for running actions.
    """

    who: str = ""
    why: str = ""
    node: str = ""
    output: str | None = None
    grace: float | None = None


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
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise IllegalRequest(f"a request cannot be read: {error}") from None


def apply(machine: Machine, verb: Verb, ask: Ask, now: float) -> bool:
    """Carry a request out on the machine.

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
        machine.resolve(ask.node, now, who=ask.who, why=ask.why, output=_output(ask))
    else:
        raise IllegalRequest(f"a request asks for {verb!r}, which this version does not know")
    return True


def _output(ask: Ask) -> bytes | None:
    if ask.output is None:
        return None
    try:
        return r.to_json(r.from_json(ask.output.encode()))
    except (DeserializeFailed, UnicodeEncodeError) as error:
        raise IllegalRequest(f"resolve {ask.node!r}: the output is no JSON: {error}") from None
