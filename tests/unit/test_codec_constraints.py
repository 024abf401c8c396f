"""What `Annotated` metadata say of a value is enforced when it is written and when it is read, wherever it stands."""

from __future__ import annotations

import dataclasses
import datetime as dt
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Annotated, Any, Generic, NamedTuple, NewType, TypedDict, TypeVar, Union

import annotated_types as at
import msgspec
import pydantic
import pytest
from msgspec import Meta
from pydantic import Field

from compensate.codec import type_codec
from compensate.errors import DefinitionError, DeserializeFailed, SerializeFailed

WHERE = "action charge, parameter cents"
T = TypeVar("T")

Small = NewType("Small", Annotated[int, at.Lt(10)])  # pyright: ignore[reportArgumentType, reportGeneralTypeIssues]

NOON = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)

RULES: list[tuple[Any, Any, Any]] = [
    # annotation, a value that keeps it, a value of the same class that breaks it
    (Annotated[int, at.Gt(3)], 4, 3),
    (Annotated[int, at.Ge(3)], 3, 2),
    (Annotated[float, at.Lt(3)], 2.5, 3.0),
    (Annotated[Decimal, at.Le(Decimal(3))], Decimal("3.0"), Decimal("3.1")),
    (Annotated[int, at.Interval(ge=1, lt=5)], 1, 5),
    (Annotated[int, at.MultipleOf(5)], 10, 11),
    (Annotated[str, at.MinLen(2)], "ab", "a"),
    (Annotated[str, at.Len(1, 3)], "ab", ""),
    (Annotated[list[int], at.MaxLen(2)], [1, 2], [1, 2, 3]),
    (Annotated[str, at.Predicate(str.islower)], "ab", "aB"),
    (at.LowerCase[str], "ab", "AB"),
    (Annotated[dt.datetime, at.Timezone(None)], NOON.replace(tzinfo=None), NOON),
    (Annotated[dt.datetime, at.Gt(dt.datetime(2026, 1, 1, tzinfo=dt.UTC))], NOON, NOON.replace(year=2025)),
    (Small, 9, 10),
    (Annotated[int, Field(ge=0, le=9, description="a digit")], 9, 10),
    (Annotated[str, Field(pattern="^[a-z]+$", max_length=3)], "abc", "ab1"),
    (Annotated[Decimal, Field(max_digits=4, decimal_places=2)], Decimal("12.34"), Decimal("1.234")),
    (pydantic.NegativeFloat, -0.5, 0.5),
    (pydantic.conint(gt=1, multiple_of=2), 2, 3),
    (pydantic.constr(min_length=2, pattern="^x"), "xy", "yy"),
    (pydantic.conlist(int, min_length=1), [1], []),
    (Annotated[str, pydantic.StringConstraints(to_lower=True)], "ab", "AB"),
    (Annotated[str, pydantic.AfterValidator(str.strip)], "ab", "ab "),
    (Annotated[int | None, Field(gt=0)], None, 0),
    (Annotated[int | None, at.Gt(0)], 1, -1),
    (Annotated[int, Meta(gt=3)], 4, 3),
    (Annotated[str, Meta(pattern="^a")], "ab", "b"),
    (Annotated[int, Meta(gt=3), at.Lt(9)], 4, 9),
]  # fmt: skip


@dataclasses.dataclass
class Data(Generic[T]):
    x: T


@dataclasses.dataclass
class Below(Data[list[T]]):
    y: T | None = None


class Struct(msgspec.Struct, Generic[T]):
    x: T


# As Any, for the type checkers: the places are made of types that are not known to them.
LIST: Any = list
SEQUENCE: Any = Sequence
TUPLE: Any = tuple
DICT: Any = dict
UNION: Any = Union
DATA: Any = Data
BELOW: Any = Below
STRUCT: Any = Struct
Place = tuple[Callable[[Any], Any], Callable[[Any], Any], str]
PLACES: Mapping[str, Place] = {
    "itself": (lambda tp: tp, lambda value: value, "value"),
    "optional": (lambda tp: UNION[tp, None], lambda value: value, "value"),
    "union": (lambda tp: UNION[tp, dict[str, int]], lambda value: value, "value"),
    "list": (lambda tp: LIST[tp], lambda value: [value], "value[0]"),
    "sequence": (lambda tp: SEQUENCE[tp], lambda value: [value], "value[0]"),
    "tuple": (lambda tp: TUPLE[bool, tp], lambda value: (True, value), "value[1]"),
    "tuple-of-any-length": (lambda tp: TUPLE[tp, ...], lambda value: (value,), "value[0]"),
    "values": (lambda tp: DICT[str, tp], lambda value: {"k": value}, "value['k']"),
    "nested": (lambda tp: LIST[DICT[str, tp | None]], lambda value: [{"k": value}], "value[0]['k']"),
    "dataclass": (lambda tp: DATA[tp], Data, "value.x"),
    "base-of-a-dataclass": (lambda tp: BELOW[tp], lambda value: Below([value]), "value.x[0]"),
    "struct": (lambda tp: STRUCT[tp], Struct, "value.x"),
    "struct-in-a-list": (lambda tp: LIST[STRUCT[tp]], lambda value: [Struct(value)], "value[0].x"),
}


def metas(tp: Any) -> list[Meta]:
    return [one for one in getattr(tp, "__metadata__", ()) if isinstance(one, Meta)]


# A pattern in a union is refused: see the test of what msgspec cannot describe.
WHEREVER = [
    pytest.param(rule, place, id=f"{str(rule[0])[:60]}-{place}")
    for rule in RULES
    for place in PLACES
    if place != "union" or not any(getattr(one, "pattern", None) for one in metas(rule[0]))
]


@pytest.mark.parametrize(("rule", "place"), WHEREVER)
def test_a_constraint_is_enforced_in_both_directions_wherever_it_stands(
    rule: tuple[Any, Any, Any], place: str
) -> None:
    tp, good, bad = rule
    wrap, make, at_ = PLACES[place]
    codec = type_codec(wrap(tp), where=WHERE)
    assert codec.limited
    assert codec.decode(codec.encode(make(good))) == make(good)
    with pytest.raises(SerializeFailed) as writing:
        codec.encode(make(bad))
    with pytest.raises(DeserializeFailed) as reading:
        codec.decode(msgspec.json.encode(make(bad)))
    assert str(writing.value).startswith(f"{WHERE}: cannot store value")
    assert str(reading.value).startswith(f"{WHERE}: ")
    if not metas(tp):
        assert f" {at_}: " in str(writing.value)
        assert at_ in str(reading.value)


@pytest.mark.parametrize("other", [dict[str, int], list[int], tuple[int, ...], set[int]], ids=str)
def test_what_msgspec_cannot_describe_is_refused_and_crashes_nothing(other: Any) -> None:
    with pytest.raises(DefinitionError, match="msgspec cannot describe"):
        type_codec(Union[Annotated[str, Meta(pattern="^a")], other], where=WHERE)  # noqa: UP007


def test_each_member_of_a_union_has_its_own_constraints() -> None:
    codec = type_codec(
        Annotated[int, at.Gt(0)] | Annotated[str, at.MinLen(2)] | list[Annotated[int, at.Lt(0)]], where=WHERE
    )
    for good in (1, "ab", [-1], []):
        assert codec.decode(codec.encode(good)) == good
    for bad in (0, "a", [-1, 0]):
        with pytest.raises(SerializeFailed):
            codec.encode(bad)


class Named(NamedTuple):
    x: Annotated[int, at.Gt(0)]


class Total(TypedDict, total=False):
    x: Annotated[int, Field(gt=0)]


@dataclasses.dataclass
class Tree:
    x: Annotated[int, at.Gt(0)]
    below: list[Tree] = dataclasses.field(default_factory=list["Tree"])


@pydantic.dataclasses.dataclass
class Model:
    x: int = Field(gt=0)

    @pydantic.field_validator("x")
    @classmethod
    def even(cls, value: int) -> int:
        if value % 2:
            raise ValueError("it is odd")
        return value


def broken(value: Any, **changes: Any) -> Any:
    for name, change in changes.items():
        object.__setattr__(value, name, change)
    return value


@pytest.mark.parametrize(
    ("tp", "good", "bad"),
    [
        (Named, Named(1), Named(0)),
        (Total, {}, {"x": 0}),
        (dict[Annotated[str, at.MinLen(2)], int], {"ab": 1}, {"a": 1}),
        (set[pydantic.PositiveInt], {1}, {0}),
        (Tree, Tree(1, [Tree(2)]), Tree(1, [Tree(2, [Tree(0)])])),
        (Model, Model(2), broken(Model(2), x=-2)),
        (list[Model], [Model(2)], [broken(Model(2), x=3)]),
    ],
    ids=str,
)
def test_a_constraint_inside_a_class_is_enforced(tp: Any, good: Any, bad: Any) -> None:
    codec = type_codec(tp, where=WHERE)
    assert codec.decode(codec.encode(good)) == good
    with pytest.raises(SerializeFailed):
        codec.encode(bad)
    plain = sorted(bad) if isinstance(bad, set) else bad
    with pytest.raises(DeserializeFailed):
        codec.decode(msgspec.json.encode(plain))


class Even(at.BaseMetadata):
    pass


class Vale:
    def is_valid(self, value: object) -> bool:
        return False


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        (Even(), "`Even`"),
        (Vale(), "`Vale`"),
        (lambda value: value > 0, "`function`"),  # pyright: ignore[reportUnknownLambdaType]
    ],
)
def test_what_would_be_ignored_is_refused(metadata: Any, words: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        type_codec(dict[str, Annotated[list[int], metadata]], where=WHERE)
    assert str(caught.value).startswith(f"{WHERE}: ")
    assert words in str(caught.value)


@pytest.mark.parametrize("note", ["cents", 3, None, int, at.doc("how many"), at.Unit("m"), object()])
def test_notes_that_claim_nothing_are_left_alone(note: Any) -> None:
    codec = type_codec(Annotated[int, note], where=WHERE)
    assert not codec.limited
    assert codec.decode(codec.encode(-5)) == -5


def test_a_validator_is_asked_once_a_direction_and_its_words_are_passed_on() -> None:
    asked: list[int] = []

    def check(value: int) -> int:
        asked.append(value)
        if value < 0:
            raise ValueError("the account is overdrawn")
        return value

    codec = type_codec(list[Annotated[int, pydantic.AfterValidator(check)]], where=WHERE)
    assert codec.decode(codec.encode([1, 2])) == [1, 2]
    assert asked == [1, 2, 1, 2]
    with pytest.raises(SerializeFailed, match=r"value\[1\]: it breaks .*the account is overdrawn"):
        codec.encode([1, -2])


def test_a_message_does_not_quote_the_value() -> None:
    codec = type_codec(Annotated[str, pydantic.StringConstraints(pattern="^a")], where=WHERE)
    with pytest.raises(SerializeFailed) as caught:
        codec.encode("hunter2")
    assert "hunter2" not in str(caught.value)


def test_constraints_of_annotated_types_work_without_pydantic() -> None:
    script = (
        "import sys\n"
        "from typing import Annotated\n"
        "import annotated_types\n"
        "from compensate.codec.values import type_codec\n"
        "c = type_codec(list[Annotated[int, annotated_types.Gt(0)]], where='x')\n"
        "try: c.encode([0])\n"
        "except Exception as error: print(error)\n"
        "assert 'pydantic' not in sys.modules\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", script], env=env, check=True, capture_output=True, text=True)
    assert done.stdout == "x: cannot store value[0]: it must be greater than 0\n"
