"""pydantic models, for those who have pydantic: it is never imported here, only found already imported."""

from __future__ import annotations

import sys
from typing import Any, cast

import msgspec

_LIST: Any = list  # as Any, for the type checkers: what is inside is not known
_DICT: Any = dict
_SETS: tuple[Any, ...] = (set, frozenset)
_ARRAYS: tuple[Any, ...] = (set, frozenset, list, tuple)


def is_model(cls: object) -> bool:
    """Whether this is a class of pydantic models. Only who has imported pydantic can have one."""
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and isinstance(cls, type) and issubclass(cls, pydantic.BaseModel)


def write_model(value: object) -> Any:
    """msgspec's hook for classes that it does not know: a model writes its own JSON, by field name."""
    if is_model(type(value)):
        return _dump(value)
    raise NotImplementedError(f"`{type(value).__qualname__}` has no JSON form")


def _dump(model: Any) -> Any:
    try:
        # warnings="error": a field whose value is not of its type would be written as something else.
        data: object = model.model_dump(mode="json", round_trip=True, by_alias=False, warnings="error")
        return _settle(model.model_dump(round_trip=True, by_alias=False, warnings="error"), data)
    except ValueError:
        # pydantic's own message quotes the values, which may be secret.
        raise ValueError(
            f"pydantic cannot write this `{type(model).__qualname__}`: a field holds what its annotation does not "
            "allow, or what has no JSON form; validate the model again before returning it"
        ) from None


def _settle(whole: object, data: Any) -> Any:
    """Put the lists that were sets into a fixed order; `whole` is the same dump, with the sets still in it."""
    kind, dumped = type(whole), cast("Any", whole)
    if type(data) is _LIST and kind in _ARRAYS and len(dumped) == len(data):
        settled = [_settle(before, after) for before, after in zip(dumped, data, strict=True)]
        return sorted(settled, key=msgspec.json.encode) if kind in _SETS else settled
    if type(data) is _DICT and kind is _DICT and len(dumped) == len(data):
        return {key: _settle(before, data[key]) for key, before in zip(data, dumped.values(), strict=True)}
    return data


def read_model(cls: type, data: object) -> Any:
    """msgspec's hook for annotations that it does not know: a model validates its own JSON, by field name."""
    if is_model(cls):
        try:
            # From JSON, not from Python objects: strict models read times and tuples from JSON alone.
            return cast("Any", cls).model_validate_json(
                msgspec.json.encode(data), by_alias=False, by_name=True
            )
        except ValueError as error:
            if not hasattr(error, "errors"):
                raise
            raise ValueError(reasons(error)) from None
    return data


def reasons(error: Exception) -> str:
    """What pydantic says of a value, without the value itself, which may be secret."""
    details: Any = getattr(error, "errors", None)
    if not callable(details):
        return type(error).__name__
    found: Any = cast("Any", details)(include_input=False)
    return "; ".join(_detail(each) for each in found)


def _detail(error: dict[str, Any]) -> str:
    place = ".".join(map(str, error["loc"]))
    return f"{place}: {error['msg']}" if place else str(error["msg"])


ENCODER = msgspec.json.Encoder(enc_hook=write_model)
