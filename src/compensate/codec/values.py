"""The typed value codec: what users' functions take and return, as JSON in the log.

A value comes back as it was, or it is refused; nothing is altered on the way. A type that cannot keep that promise is
refused when the definition is made. What "as it was" leaves out, because no reader of values can see it in JSON's
terms: which parts of a value are the same object, `functools.cached_property` values (computed again), an int given
for a `float` (it comes back as the equal float), and pydantic's `model_fields_set` (all fields count as set).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final, Generic, TypeVar, cast

import msgspec
from msgspec import inspect as mi

from compensate.codec.checks import Check, NotFaithful, TypeCheck, Unsupported, key_text
from compensate.codec.compile import CompiledType, compile_type
from compensate.codec.constraints import constraints
from compensate.codec.models import ENCODER, read_model
from compensate.codec.roundtrip import assert_equal
from compensate.codec.samples import NO_SAMPLE, sample, writes_itself
from compensate.errors import DefinitionError, DeserializeFailed, SerializeFailed

T = TypeVar("T")


class TypeCodec(Generic[T]):
    """Encodes and decodes values of one annotated type. Built once, when a definition is made.

    Attributes:
        type: The annotation.
        where: Whose type it is, for messages: "action reserve, parameter line".
        encode: Gives JSON in UTF-8, the same bytes for equal values in every process, up to the order of dict keys,
            which is kept. Raises `SerializeFailed`, naming `where` and the path to the offending part.
        decode: Gives the value back. Raises `DeserializeFailed`, naming `where`: the data are of another type, or
            the value breaks a constraint of the annotation.
        limited: Whether the annotation constrains values beyond their classes, by `Annotated` metadata say.
    """

    __slots__ = ("decode", "encode", "limited", "type", "where")

    def __init__(
        self,
        type: Any,
        where: str,
        encode: Callable[[T], bytes],
        decode: Callable[[bytes], T],
        limited: bool,
    ) -> None:
        self.type = type
        self.where = where
        self.limited = limited
        # Closures in slots, not methods: this lies on the path of every action.
        self.encode: Callable[[T], bytes] = encode
        self.decode: Callable[[bytes], T] = decode

    def __repr__(self) -> str:
        return f"TypeCodec({type_name(self.type)}, where={self.where!r})"


def type_codec(tp: Any, *, where: str) -> TypeCodec[Any]:
    """Build the codec of an annotation, whose forward references the caller has resolved.

    Args:
        tp: The annotation.
        where: Whose type it is, for messages.

    Raises:
        DefinitionError: Values of this type would not all come back as they were, or the type cannot be read. The
            message names `where`, the part of the type, why, and what to use instead. Change the code; a retry
            does not help.
    """
    try:
        compiled = _Compiled(tp)
    except Unsupported as error:
        raise DefinitionError(f"{where}: `{type_name(tp)}` cannot be stored: {error}") from None
    limited = compiled.constrain is not None or compiled.checked.own_code
    return TypeCodec(tp, where, _encode_at(compiled, where), _decode_at(compiled, where), limited)


def encode_any(value: object, *, where: str) -> bytes:
    """Encode a value that has no annotation: JSON data, or what `type_codec(type(value))` supports.

    Raises:
        SerializeFailed: The value would not come back as it was, or its class cannot be stored.
    """
    tp: Any = Any if type(value) in _JSON else type(value)
    try:
        compiled = _compiled(tp)
    except Unsupported as error:
        raise SerializeFailed(f"{where}: cannot store value: {error}") from None
    try:
        return compiled.encode(value)
    except Exception as error:
        raise SerializeFailed(f"{where}: cannot store {compiled.why(value, error)}") from error


def type_name(tp: object) -> str:
    """How an annotation shows in messages."""
    if isinstance(tp, type) and not hasattr(tp, "__args__"):
        return tp.__qualname__
    return str(tp).replace("typing.", "")


_JSON = frozenset((type(None), bool, int, float, str, list, dict))
_ADVICE = (
    ("Enums must contain", "give its members int or str values"),
    (
        "more than one str-like",
        "JSON cannot tell these apart; use msgspec.Structs with tag=True, or one of them alone",
    ),
    ("more than one int-like", "JSON cannot tell these apart; use one of them alone"),
    ("more than one array-like", "JSON cannot tell these apart; use one of them alone"),
    ("more than one dict-like", "JSON cannot tell these apart; use msgspec.Structs with tag=True"),
    ("Struct", "JSON cannot tell these apart; give each Struct tag=True"),
    ("dataclass", "JSON cannot tell these apart; use msgspec.Structs with tag=True"),
    (
        "custom type",
        (
            "JSON alone does not tell which it is; of pydantic models, make one model: "
            "`class Either(RootModel[A | B])`, with a discriminator if there is one; or use msgspec.Structs with "
            "tag=True"
        ),
    ),
)


class _Compiled:
    """A type's checks, encoder and decoder, before it is known whose they are."""

    def __init__(self, tp: Any) -> None:
        try:
            self.constrain = constraints(tp)
            """The check of constraints that msgspec does not enforce; `None` if there are none."""
            self.info = mi.type_info(tp)
            decoder = msgspec.json.Decoder(tp, dec_hook=read_model)
        except Unsupported:
            raise
        except (
            Exception
        ) as error:  # a bad annotation fails in many ways: TypeError, NameError, AttributeError...
            raise Unsupported(_advise(error)) from error
        self.tp = tp
        self.checked: CompiledType = compile_type(self.info)
        if self.constrain is not None:
            self.checked.node = _constrained(self.checked.node, self.constrain)
        self.decode: Callable[[bytes], Any] = decoder.decode
        """Without `constrain`."""
        self.encode: Callable[[Any], bytes] = self._encode()
        self._prove_sample()

    def _encode(self) -> Callable[[Any], bytes]:
        check, normalize_sets = self.checked.node.check, self.checked.node.normalize_sets
        encode, decode = ENCODER.encode, self.decode
        if self.checked.own_code:

            def proven(value: Any) -> bytes:
                check(value)
                data = encode(normalize_sets(value))
                assert_equal(value, decode(data), int_as_float=True)
                return data

            return proven
        if self.checked.sets:

            def ordered(value: Any) -> bytes:
                check(value)
                return encode(normalize_sets(value))

            return ordered

        def checked(value: Any) -> bytes:
            check(value)
            return encode(value)

        return checked

    def _prove_sample(self) -> None:
        """Refuse models whose own serializers lose something, which only a value shows.

        Raises:
            Unsupported: A sample of the type does not come back.
        """
        if not writes_itself(self.tp):
            return
        value = sample(self.tp)
        if value is NO_SAMPLE:
            return  # each value is proven when it is stored
        try:
            self.encode(value)
        except Exception as error:
            raise Unsupported(
                f"what its own serializers write is not read back as it was, for instance {self.why(value, error)}; "
                "let the serializers write what the fields accept, or drop them"
            ) from None

    def why(self, value: object, error: Exception) -> str:
        """Where in the value the error arose, and why, in words."""
        if not isinstance(error, NotFaithful):
            # The encoder does not say where it failed: ask it about each leaf in turn.
            try:
                compile_type(self.info, prove_leaf=_encodes).node.check(value)
            except NotFaithful as found:
                error = found
            except Exception as other:
                error = other
        if isinstance(error, NotFaithful):
            return f"{error.at()}: {error.why}"
        return f"value: {_plain_reason(error)}"


@lru_cache(maxsize=256)
def _compiled(tp: Any) -> _Compiled:
    return _Compiled(tp)


def _encodes(leaf: object) -> None:
    """Ask the encoder about a leaf; untyped JSON data are one leaf to the checks, and are taken apart here."""
    kind, value = type(leaf), cast("Any", leaf)
    if kind is list or kind is dict:
        for key, part in enumerate(value) if kind is list else value.items():
            try:
                _encodes(key)
                _encodes(part)
            except NotFaithful as refused:
                refused.path.append(key_text(key))
                raise
        return
    try:
        ENCODER.encode(value)
    except Exception as error:
        raise NotFaithful(_plain_reason(error)) from error


def _plain_reason(error: Exception) -> str:
    if isinstance(error, UnicodeEncodeError):
        return "it holds a lone surrogate, which is no character and cannot be stored; decode the text properly first"
    if isinstance(error, RecursionError):
        return "it is nested too deep, or in a circle; flatten it"
    return f"{type(error).__name__}: {error}"


def _advise(error: Exception) -> str:
    text = f"{error}"
    if isinstance(error, NameError):
        return f"{text}; define the class at the top of its module, not in a function or under TYPE_CHECKING"
    for part, advice in _ADVICE:
        if part in text:
            return f"{text}; {advice}"
    return text


def _encode_at(compiled: _Compiled, where: str) -> Callable[[Any], bytes]:
    def failed(value: object, error: Exception) -> SerializeFailed:
        return SerializeFailed(f"{where}: cannot store {compiled.why(value, error)}")

    node = compiled.checked.node
    if node.plain and not compiled.checked.own_code and len(node.types) == 1:
        exact, check, quick = node.types[0], node.check, ENCODER.encode

        def encode_plain(value: Any) -> bytes:
            try:
                if type(value) is not exact:
                    check(value)
                return quick(value)
            except Exception as error:
                raise failed(value, error) from error

        return encode_plain
    encode = compiled.encode

    def encode_checked(value: Any) -> bytes:
        try:
            return encode(value)
        except Exception as error:
            raise failed(value, error) from error

    return encode_checked


BRING_BACK: Final = (
    "bring back code that reads them (a new field needs a default, a removed name must stay readable)"
)
"""What to do about data that do not decode; the end of the message."""


def _decode_at(compiled: _Compiled, where: str) -> Callable[[bytes], Any]:
    quick, constrain = compiled.decode, compiled.constrain

    def failed(error: Exception) -> DeserializeFailed:
        failed = DeserializeFailed(
            f"{where}: stored data do not decode as `{type_name(compiled.tp)}`: {error}; {BRING_BACK}"
        )
        failed.__cause__ = error
        return failed

    def decode(data: bytes) -> Any:
        try:
            return quick(data)
        except Exception as error:
            raise failed(error) from error

    if constrain is None:
        return decode

    def decode_constrained(data: bytes) -> Any:
        try:
            value = quick(data)
            constrain(value)
        except NotFaithful as error:
            failure = DeserializeFailed(
                f"{where}: {error.at()} breaks what `{type_name(compiled.tp)}` says: {error.why}"
            )
            raise failure from ValueError(f"{error.at()}: {error.why}")
        except Exception as error:
            raise failed(error) from error
        return value

    return decode_constrained


def _constrained(node: TypeCheck, constrain: Check) -> TypeCheck:
    """The node of a whole type, with a further check behind its own."""
    check = node.check

    def both(value: Any) -> None:
        check(value)
        constrain(value)

    return TypeCheck(node.types, both, normalize_sets=node.normalize_sets, int_like=node.int_like)
