"""What a pydantic model would lose on the way through JSON, found when a definition is made.

A secret is written as asterisks, an excluded field is not written, and some fields are written but not read. A field
with a serializer of its own is left to `compensate.codec.samples` and to the proof of each value.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from typing import Any, Final, cast, get_args, get_origin, get_type_hints

from compensate.codec.checks import Unsupported
from compensate.codec.models import is_model
from compensate.codec.typing_parts import is_typed_dict, unwrap

SECRET: Final = (
    "a secret is written as asterisks and does not come back; keep it in the deps (`Ctx[Deps]`), or store the name "
    "under which an action finds it"
)
_EXCLUDED: Final = (
    "is excluded when the model is written, so its value would be lost; take the exclusion off, or put the field "
    "into a model that is not stored"
)
_NOT_READ: Final = (
    "is written but not read again, as it is no argument of `__init__`; make it a field that `__init__` takes, or "
    "compute it in a property"
)
_SERIALIZERS: Final = ("PlainSerializer", "WrapSerializer")


def is_secret(cls: Any) -> bool:
    """Whether this is a class of pydantic's secrets."""
    pydantic = sys.modules.get("pydantic")
    if pydantic is None or not isinstance(cls, type):
        return False
    return issubclass(cls, (pydantic.SecretStr, pydantic.SecretBytes, pydantic.Secret))


def refuse_losses(model: type) -> None:
    """Refuse a pydantic model with a field whose value cannot come back.

    Raises:
        Unsupported: Names the field, why, and what to do.
    """
    _Walk().model(model)


class _Walk:
    def __init__(self) -> None:
        self.seen: set[Any] = set()

    def model(self, cls: Any) -> None:
        if cls in self.seen:
            return
        self.seen.add(cls)
        decorators = cls.__pydantic_decorators__
        if decorators.model_serializers or cls.model_config.get("json_encoders"):
            return
        self.fields(cls, cls.__pydantic_fields__, decorators)

    def fields(self, cls: Any, fields: Mapping[str, Any], decorators: Any) -> None:
        written = {name for one in decorators.field_serializers.values() for name in one.info.fields}
        for name, field in fields.items():
            part = f"`{cls.__qualname__}.{name}`"
            self.declared(field, part)
            if name not in written and "*" not in written and not _has_serializer(field.metadata):
                self.type(field.annotation, part)

    def declared(self, field: Any, part: str) -> None:
        """What `Field(...)` says of a field."""
        if getattr(field, "exclude", None) or getattr(field, "exclude_if", None) is not None:
            raise Unsupported(f"{part} {_EXCLUDED}")
        if getattr(field, "init", None) is False or getattr(field, "init_var", None):
            raise Unsupported(f"{part} {_NOT_READ}")

    def type(self, tp: Any, part: str) -> None:
        """Any annotation inside a model."""
        base, metadata = unwrap(tp)
        if _has_serializer(metadata):
            return
        origin: Any = get_origin(base) or base
        if is_secret(origin):
            raise Unsupported(f"{part}: {SECRET}")
        for one in get_args(base):
            if not isinstance(one, str | int | bytes):
                self.type(one, part)
        if not isinstance(origin, type):
            return
        if is_model(origin):
            self.model(origin)
        elif origin not in self.seen and (dataclasses.is_dataclass(origin) or is_typed_dict(origin)):
            self.seen.add(origin)
            self.plain(origin)

    def plain(self, cls: Any) -> None:
        """A dataclass or TypedDict inside a model, which pydantic writes and reads as well."""
        declared: Mapping[str, Any] = cls.__dict__.get("__pydantic_fields__", {})
        if declared:
            self.fields(cls, declared, cls.__pydantic_decorators__)
            return
        fields = cast("dict[str, Any]", getattr(cls, "__dataclass_fields__", {}))
        for name, hint in get_type_hints(cls, include_extras=True).items():
            part = f"`{cls.__qualname__}.{name}`"
            field = fields.get(name)
            kind = getattr(getattr(field, "_field_type", None), "name", "")
            if kind == "_FIELD_CLASSVAR":
                continue
            if field is not None and (not field.init or kind == "_FIELD_INITVAR"):
                raise Unsupported(f"{part} {_NOT_READ}")
            _, metadata = unwrap(hint)
            for one in (*metadata, getattr(field, "default", None)):
                if type(one).__name__ == "FieldInfo":
                    self.declared(one, part)
            self.type(hint, part)


def _has_serializer(metadata: Any) -> bool:
    return any(type(one).__name__ in _SERIALIZERS for one in metadata)
