"""A pydantic model that would lose a field is refused when its codec is made; one that loses none comes back."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Mapping
from typing import Annotated, Any, Generic, Literal, NewType, TypeVar

import msgspec
import pydantic
import pytest
from pydantic import Field, field_serializer, model_serializer
from typing_extensions import TypedDict

from compensate.codec import type_codec
from compensate.codec.roundtrip import assert_equal
from compensate.errors import DefinitionError

T = TypeVar("T")


# -- models that lose something --------------------------------------------


class WithText(pydantic.BaseModel):
    key: pydantic.SecretStr


class WithBytes(pydantic.BaseModel):
    key: pydantic.SecretBytes = pydantic.SecretBytes(b"")


class WithAny(pydantic.BaseModel):
    key: pydantic.Secret[int]


class Date(pydantic.Secret[dt.date]):
    pass


class WithOwnSecret(pydantic.BaseModel):
    key: Date


Token = NewType("Token", pydantic.SecretStr)


class WithNewType(pydantic.BaseModel):
    key: Annotated[Token, "for the gateway"]


class Always(pydantic.BaseModel):
    key: str = Field(default="", exclude=True)


class Sometimes(pydantic.BaseModel):
    key: str = Field(exclude_if=lambda value: value == "")


class InAnnotated(pydantic.BaseModel):
    key: Annotated[int, Field(exclude=True)] = 0


@dataclasses.dataclass
class Unread:
    seen: int
    key: int = dataclasses.field(init=False, default=0)


class WithUnread(pydantic.BaseModel):
    key: Unread


@pydantic.dataclasses.dataclass
class Declared:
    key: int = Field(default=0, exclude=True)


class WithDeclared(pydantic.BaseModel):
    key: Declared


class Keyed(TypedDict):
    key: Annotated[str, Field(exclude=True)]


class WithKeyed(pydantic.BaseModel):
    key: Keyed


class Child(WithText):
    more: int = 0


class Wrapped(pydantic.RootModel[pydantic.SecretStr]):
    pass


class Shouting(pydantic.BaseModel):
    key: str

    @field_serializer("key")
    def write(self, value: str) -> str:
        return value.upper()


class Rounding(pydantic.BaseModel):
    key: Annotated[float, pydantic.PlainSerializer(lambda value: round(value, 2))]


class Forgetting(pydantic.BaseModel):
    kept: int
    key: int = 0

    @model_serializer
    def write(self) -> dict[str, int]:
        return {"kept": self.kept}


LOSSY: list[Any] = [
    WithText, WithBytes, WithAny, WithOwnSecret, WithNewType, Always, Sometimes, InAnnotated, WithUnread, WithDeclared,
    WithKeyed, Child, Wrapped, Shouting, Rounding, Forgetting,
]  # fmt: skip


# -- where a model can stand -----------------------------------------------


@dataclasses.dataclass
class Holder(Generic[T]):
    held: T


class Struct(msgspec.Struct, Generic[T]):
    held: T | None = None


class Outer(pydantic.BaseModel, Generic[T]):
    held: T


def _typed_dict(tp: Any) -> Any:
    make: Any = TypedDict
    return make("Bag", {"held": tp})


# As Any, for the type checkers: the places are made of types that are not known to them.
LIST: Any = list
TUPLE: Any = tuple
DICT: Any = dict
ANNOTATED: Any = Annotated
HOLDER: Any = Holder
STRUCT: Any = Struct
OUTER: Any = Outer
PLACES: Mapping[str, Any] = {
    "itself": lambda tp: tp,
    "optional": lambda tp: tp | None,
    "list": lambda tp: LIST[tp],
    "tuple": lambda tp: TUPLE[int, tp],
    "values": lambda tp: DICT[str, tp],
    "annotated": lambda tp: ANNOTATED[tp, "a note"],
    "dataclass": lambda tp: HOLDER[tp],
    "struct": lambda tp: STRUCT[tp],
    "model": lambda tp: OUTER[tp],
    "model-list": lambda tp: OUTER[LIST[tp]],
    "model-union": lambda tp: OUTER[int | tp],
    "model-dict": lambda tp: OUTER[DICT[str, tp | None]],
    "typed-dict": _typed_dict,
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("model", LOSSY, ids=lambda model: model.__name__)
def test_a_model_that_loses_a_field_is_refused_wherever_it_stands(model: Any, place: str) -> None:
    with pytest.raises(DefinitionError, match="cannot be stored") as caught:
        type_codec(PLACES[place](model), where="action open, its return value")
    assert str(caught.value).startswith("action open, its return value: ")
    assert any(name in str(caught.value) for name in ("key", "root"))
    assert any(
        advice in str(caught.value)
        for advice in (
            "keep it in the deps",
            "take the exclusion off",
            "make it a field that",
            "serializers write",
        )
    )


# -- models that lose nothing ----------------------------------------------


class Revealing(pydantic.BaseModel):
    key: pydantic.SecretStr

    @field_serializer("key", when_used="json")
    def write(self, value: pydantic.SecretStr) -> str:
        return value.get_secret_value()


class Formatted(pydantic.BaseModel):
    at: dt.datetime
    kept: str = Field(default="", exclude=False)

    @field_serializer("at")
    def write(self, value: dt.datetime) -> str:
        return value.isoformat()


class Whole(pydantic.BaseModel):
    one: int
    two: list[int] = []

    @model_serializer
    def write(self) -> dict[str, Any]:
        return {"one": self.one, "two": self.two}


class Picky(pydantic.BaseModel):
    code: str

    @pydantic.field_validator("code")
    @classmethod
    def check(cls, value: str) -> str:
        if not value.startswith("X-"):
            raise ValueError("not a code")
        return value

    @field_serializer("code")
    def write(self, value: str) -> str:
        return value


class Counted(pydantic.BaseModel):
    items: list[int]

    @pydantic.computed_field
    def count(self) -> int:
        return len(self.items)


class Renamed(pydantic.BaseModel):
    one: int = Field(alias="first")
    two: int = Field(validation_alias=pydantic.AliasChoices("second", "zweite"), default=0)
    three: int = Field(serialization_alias="third", default=0)
    inner: list[Renamed] = Field(alias="children", default=[])


class Card(pydantic.BaseModel):
    kind: Literal["card"] = "card"
    last4: str


class Invoice(pydantic.BaseModel):
    kind: Literal["invoice"] = "invoice"
    days: int


class Payment(pydantic.RootModel[Annotated[Card | Invoice, Field(discriminator="kind")]]):
    pass


FAITHFUL: list[tuple[Any, Any]] = [
    (Revealing, Revealing(key=pydantic.SecretStr("s3"))),
    (Formatted, Formatted(at=dt.datetime(2026, 1, 2, tzinfo=dt.UTC), kept="x")),
    (Whole, Whole(one=1, two=[2])),
    (Picky, Picky(code="X-1")),
    (Counted, Counted(items=[1, 2])),
    (Renamed, Renamed.model_validate({"first": 1, "zweite": 2, "children": [{"first": 3}]})),
    (list[Payment], [Payment(Card(last4="1234")), Payment(Invoice(days=3))]),
    (Unread, Unread(1)),
]


@pytest.mark.parametrize(("tp", "value"), FAITHFUL, ids=lambda one: getattr(one, "__name__", ""))
def test_a_model_that_loses_nothing_comes_back(tp: Any, value: Any) -> None:
    codec = type_codec(tp, where="action open, its return value")
    assert_equal(value, codec.decode(codec.encode(value)))


def test_a_union_of_models_is_refused_with_the_root_model_that_carries_it() -> None:
    for tp in (Card | Invoice, Annotated[Card | Invoice, Field(discriminator="kind")], list[Card | Invoice]):
        with pytest.raises(DefinitionError, match=r"RootModel\[A \| B\]"):
            type_codec(tp, where="action pay, parameter how")
