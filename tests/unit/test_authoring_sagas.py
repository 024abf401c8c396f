"""Tracing: what calls, arguments and settings become in the dag, and what is refused while a saga is traced."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple, TypedDict, cast

import msgspec
import pydantic
import pytest

from compensate.authoring import Saga, action, constant, fan_out, saga
from compensate.codec.records import decode_dag
from compensate.core.dag import PARAMS, ActionNode, ConstantNode, Expr, Fields, Items, Ref, SubsagaNode, Value
from compensate.core.policy import Retry
from compensate.errors import DefinitionError, NameInvalid, ParamsInvalid, SubsagaCreateFailed


@dataclass
class Line:
    sku: str
    count: int = 1


@dataclass
class BigLine(Line):
    weight: int = 0


class Renamed(msgspec.Struct, rename="camel"):
    first_name: str
    home_town: str = ""


class Packed(msgspec.Struct, array_like=True, tag="packed"):
    first: int
    second: Line


class Pair(NamedTuple):
    left: int
    right: Line


class Loose(TypedDict):
    line: Line


class Model(pydantic.BaseModel):
    line_count: int = pydantic.Field(default=0, alias="lineCount")


class Size(Enum):
    SMALL = "s"


@dataclass
class Order:
    id: str
    lines: list[Line] = field(default_factory=list[Line])
    by_name: dict[str, Line] = field(default_factory=dict[str, Line])
    urgent: bool = False
    spare: Line | None = None
    size: Size = Size.SMALL


@action
def reserve(line: Line, warehouse: str = "west") -> str:
    return f"{line.sku} {warehouse}"


@action
def count(line: Line) -> int:
    return line.count


@action
def take(number: int) -> None: ...


@action
def take_text(text: str) -> None: ...


@action
def take_lines(lines: list[Line]) -> None: ...


@action
def take_any(value: object) -> None: ...


@action
def check(order: Order) -> bool:
    return order.urgent


@action
def total(numbers: list[int]) -> int:
    return sum(numbers)


def inputs_of(traced: Saga[..., Any], name: str) -> dict[str, Expr]:
    node = traced.dag.node(name)
    assert isinstance(node, ActionNode | SubsagaNode)
    return node.inputs


def plain(value: object) -> Value:
    return Value(msgspec.Raw(json.dumps(value, separators=(",", ":")).encode()))


# -- nodes and edges -------------------------------------------------------


def test_calls_become_nodes_and_arguments_become_edges() -> None:
    @saga
    def one(order: Order) -> str:
        urgent = check(order)
        count.after(urgent)(order.lines[0])
        return reserve(order.lines[1], "east")

    assert one.name == "one"
    assert one.dag.params == ("order",)
    assert one.dag.nodes == (
        ActionNode("check", "check", {"order": Ref(PARAMS, ("order",))}),
        ActionNode("count", "count", {"line": Ref(PARAMS, ("order", "lines", 0))}, after=("check",)),
        ActionNode(
            "reserve", "reserve", {"line": Ref(PARAMS, ("order", "lines", 1)), "warehouse": plain("east")}
        ),
    )
    assert one.dag.output == Ref("reserve")
    assert set(one.actions) == {"check", "count", "reserve"}
    assert one.plan.names[1:] == ["", "check", "count", "reserve"]
    assert one.plan is one.with_id("x").plan


def test_only_arguments_that_are_given_are_stored_so_that_defaults_stay_with_the_function() -> None:
    @saga
    def one() -> str:
        return reserve(Line("a"))

    assert inputs_of(one, "reserve") == {"line": plain({"sku": "a", "count": 1})}


def test_nodes_are_named_after_their_action_and_counted() -> None:
    @saga
    def one(line: Line) -> int:
        count(line)
        count.options(name="count_3")(line)
        count(line)
        count(line)
        return count(line)

    assert [node.name for node in one.dag.nodes] == ["count", "count_3", "count_2", "count_4", "count_5"]


def test_settings_of_a_node_override_those_of_its_action_and_chain() -> None:
    @saga
    def one(order: Order) -> str | None:
        a = check.options(name="first", label="check it")(order)
        return (
            reserve.options(name="r", retry=Retry(3), timeout=4, undo_retry=Retry(2))
            .after("first", a)
            .when(order.urgent)
            .options(label="book", undo_timeout=5)(order.lines[0])
        )

    node = one.dag.node("r")
    assert isinstance(node, ActionNode)
    assert (node.retry, node.timeout, node.undo_retry, node.undo_timeout) == (Retry(3), 4.0, Retry(2), 5.0)
    assert (node.label, node.after, node.when) == ("book", ("first",), Ref(PARAMS, ("order", "urgent")))
    assert one.dag.node("first").label == "check it"


def test_an_edge_that_an_input_makes_is_not_repeated_in_after() -> None:
    @saga
    def one(line: Line) -> None:
        n = count(line)
        take.after(n, "count")(n)

    assert one.dag.node("take").after == ()


def test_a_fan_out_gives_the_first_parameter_an_item_and_the_others_the_same() -> None:
    @saga
    def one(order: Order, warehouse: str) -> list[str]:
        known = fan_out(count, [order.lines[0], Line("b")])
        fan_out(reserve.options(name="more").after(known), order.lines, "west")
        total(known)
        return fan_out(reserve, order.lines, warehouse=warehouse)

    node, more, last = one.dag.nodes[0], one.dag.nodes[1], one.dag.nodes[3]
    assert isinstance(node, ActionNode)
    assert isinstance(more, ActionNode)
    assert isinstance(last, ActionNode)
    assert node.each is not None
    assert node.each.items == Items((Ref(PARAMS, ("order", "lines", 0)), plain({"sku": "b", "count": 1})))
    assert (more.name, more.after, more.inputs) == ("more", ("count",), {"warehouse": plain("west")})
    assert last.each is not None
    assert (last.each.param, last.each.items) == ("line", Ref(PARAMS, ("order", "lines")))
    assert last.inputs == {"warehouse": Ref(PARAMS, ("warehouse",))}


def test_a_constant_is_a_node_whose_fields_can_be_passed_on() -> None:
    @saga
    def one() -> None:
        line = constant(Line("a", 7), label="given")
        take(line.count)
        take(constant(5, name="five"))
        take(constant({"a": 1})["a"])

    assert [node.name for node in one.dag.nodes] == [
        "constant",
        "take",
        "five",
        "take_2",
        "constant_2",
        "take_3",
    ]
    assert one.dag.nodes[0] == ConstantNode("constant", msgspec.Raw(b'{"sku":"a","count":7}'), label="given")
    assert inputs_of(one, "take") == {"number": Ref("constant", ("count",))}


def test_a_saga_called_in_a_saga_is_a_subsaga_with_all_its_params() -> None:
    @saga
    def inner(line: Line, warehouse: str = "west") -> str:
        return reserve(line, warehouse)

    @saga
    def outer(order: Order) -> str:
        a = inner(order.lines[0])
        again = inner.options(name="second", label="again")
        again.after(a).when(order.urgent)(order.lines[1], warehouse=a)
        return inner.options(name="third")(order.lines[2], a)

    first, second, third = outer.dag.nodes
    assert first == SubsagaNode(
        "inner", inner.dag, {"line": Ref(PARAMS, ("order", "lines", 0)), "warehouse": plain("west")}
    )
    assert isinstance(second, SubsagaNode)
    assert (second.name, second.label, second.when) == ("second", "again", Ref(PARAMS, ("order", "urgent")))
    assert (second.after, second.inputs["warehouse"]) == ((), Ref("inner"))
    assert third.name == "third"
    assert outer.actions == {"reserve": reserve}


def test_a_subsaga_gets_no_retries_of_its_own() -> None:
    @saga
    def inner(line: Line) -> int:
        return count(line)

    with pytest.raises(SubsagaCreateFailed, match="belong to actions"):

        @saga
        def outer(line: Line) -> int:
            return inner.after().options(retry=Retry(3))(line)


# -- expressions -----------------------------------------------------------


def test_paths_lead_to_where_json_keeps_a_part() -> None:
    @saga
    def one(
        renamed: Renamed,
        packed: Packed,
        pair: Pair,
        loose: Loose,
        model: Model,
        order: Order,
        tup: tuple[int, Line],
    ) -> None:
        take_text(renamed.first_name)
        take(packed.second.count)
        take(pair.right.count)
        take(pair[0])
        take(loose["line"].count)
        take(model.line_count)
        take(order.by_name["a"].count)
        take(tup[-1].count)
        take(cast("Line", order.spare).count)

    found = [inputs_of(one, node.name) for node in one.dag.nodes]
    assert [expr.path for fields in found for expr in fields.values() if isinstance(expr, Ref)] == [
        ("renamed", "firstName"),
        ("packed", 2, "count"),
        ("pair", 1, "count"),
        ("pair", 0),
        ("loose", "line", "count"),
        ("model", "line_count"),
        ("order", "by_name", "a", "count"),
        ("tup", 1, "count"),
        ("order", "spare", "count"),
    ]


def test_a_traced_path_finds_the_part_in_the_encoded_value() -> None:
    from compensate.codec.records import select

    @saga
    def one(renamed: Renamed, packed: Packed, model: Model) -> None:
        take_text(renamed.home_town)
        take(packed.second.count)
        take(model.line_count)

    data = one.encode_params(Renamed("a", "b"), Packed(1, Line("x", 5)), Model(lineCount=7))
    parts = [expr for node in one.dag.nodes for expr in inputs_of(one, node.name).values()]
    assert [select(data, expr.path) for expr in parts if isinstance(expr, Ref)] == [b'"b"', b"5", b"7"]


def test_containers_and_classes_may_hold_references() -> None:
    @action
    def take_order(order: Order) -> None: ...

    @action
    def take_renamed(one: Renamed, packed: Packed, pair: Pair, lines: dict[str, Line]) -> None: ...

    @saga
    def one(line: Line, name: str) -> tuple[int, list[str]]:
        n = count(line)
        take_lines([line, Line("a", n)])
        take_order(Order(name, lines=[line], urgent=True))
        take_renamed(Renamed(first_name=name), Packed(n, line), Pair(n, line), {"x": line})
        return n, [name, "known"]

    ref, name = Ref(PARAMS, ("line",)), Ref(PARAMS, ("name",))
    n = Ref("count")
    assert inputs_of(one, "take_lines") == {"lines": Items((ref, Fields({"sku": plain("a"), "count": n})))}
    order = inputs_of(one, "take_order")["order"]
    assert isinstance(order, Fields)
    assert order.fields["id"] == name
    assert order.fields["lines"] == Items((ref,))
    assert order.fields["size"] == plain("s")
    assert inputs_of(one, "take_renamed") == {
        "one": Fields({"firstName": name, "homeTown": plain("")}),
        "packed": Items((plain("packed"), n, ref)),
        "pair": Items((n, ref)),
        "lines": Fields({"x": ref}),
    }
    assert one.dag.output == Items((n, Items((name, plain("known")))))


def test_a_saga_may_return_nothing_or_a_value_known_beforehand() -> None:
    @saga
    def nothing(line: Line) -> None:
        count(line)

    @saga
    def known(line: Line) -> str:
        count(line)
        return "done"

    assert (nothing.dag.output, nothing.output) == (None, None)
    assert known.dag.output == plain("done")


# -- what a reference refuses ----------------------------------------------

USES: dict[str, Callable[[Any], object]] = {
    "testing": bool,
    "comparing": lambda ref: ref == 1,
    "comparing ": lambda ref: ref < 1,
    "testing ": lambda ref: 1 in ref,
    "iterating over": list,
    "taking the length of": len,
    "computing with": lambda ref: ref + 1,
    "computing with ": lambda ref: 1 - ref,
    "computing with  ": int,
    "formatting": lambda ref: f"{ref}",
    "formatting ": str,
    "formatting  ": lambda ref: "%s" % ref,  # noqa: UP031
    "hashing": lambda ref: {ref: 1},
    "calling": lambda ref: ref.lines(),
    "asking for the class of": lambda ref: isinstance(ref, str),
    "changing": lambda ref: setattr(ref, "id", "x"),
    "copying": copy.copy,
    "awaiting": lambda ref: ref.__await__(),
}


@pytest.mark.parametrize("doing", USES)
def test_what_needs_the_value_is_refused_with_its_line_and_what_to_do(doing: str) -> None:
    use = USES[doing]
    with pytest.raises(DefinitionError) as refused:

        @saga
        def one(order: Order) -> None:
            use(order)

    text = str(refused.value)
    assert f"{doing.strip()} order" in text
    assert "test_authoring_sagas.py:" in text
    assert "; " in text


def test_the_line_that_a_refusal_names_is_the_line_of_the_mistake() -> None:
    source = "def one(order: Order) -> None:\n    check(order)\n    if order.urgent:\n        pass\n"
    names: dict[str, Any] = {"Order": Order, "check": check}
    exec(compile(source, "shop.py", "exec"), names)
    with pytest.raises(DefinitionError, match=r"^shop.py:3: testing order.urgent .*use `.when\(flag\)`"):
        saga(names["one"])


PARTS: dict[str, tuple[Callable[[Any], object], str]] = {
    "unknown field": (
        lambda order: order.nope,
        r"order.nope: `Order` has no field 'nope', it has id, lines, by_name, urgent",
    ),
    "method": (lambda order: order.id.upper, r"order.id.upper: `str` has no fields"),
    "enum value": (lambda order: order.size.value, r"order.size.value: `Size` has no fields"),
    "from the end": (lambda order: order.lines[-1], "counted from the end"),
    "slice": (lambda order: order.lines[1:], "by a literal str or int, not by slice"),
    "list by name": (lambda order: order.lines["a"], "is a list; give a position, not 'a'"),
    "dict by number": (lambda order: order.by_name[1], "has keys of type str"),
    "item of a text": (lambda order: order.id[0], "`str` has no items"),
    "reference as key": (lambda order: order.by_name[order.id], "by a literal str or int"),
}


@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_is_not_there_is_refused_with_the_type_and_what_it_has(part: str) -> None:
    use, says = PARTS[part]
    with pytest.raises(DefinitionError, match=says):

        @saga
        def one(order: Order) -> None:
            use(order)


def test_a_reference_formatted_by_its_repr_is_found_when_the_text_is_stored() -> None:
    with pytest.raises(DefinitionError, match="a text holds the repr of a reference"):

        @saga
        def one(order: Order) -> None:
            take_text(f"order {order.id!r}")


def _text_for_number(order: Any, line: Any) -> object:
    return take(order.id)


def _missing(order: Any, line: Any) -> object:
    call: Any = take
    return call()


def _too_many(order: Any, line: Any) -> object:
    call: Any = take
    return call(1, 2)


def _plain_wrong(order: Any, line: Any) -> object:
    call: Any = take
    return call("five")


def _twice(order: Any, line: Any) -> object:
    count.options(name="a")(line)
    return count.options(name="a")(line)


def _unknown_after(order: Any, line: Any) -> object:
    return count.after("nobody")(line)


def _after_param(order: Any, line: Any) -> object:
    return count.after(line)(line)


def _after_number(order: Any, line: Any) -> object:
    return count.after(5)(line)


def _flag_known(order: Any, line: Any) -> object:
    return count.when(True)(line)


def _flag_no_bool(order: Any, line: Any) -> object:
    return count.when(order.id)(line)


def _two_flags(order: Any, line: Any) -> object:
    return count.when(order.urgent).when(order.urgent)(line)


def _fan_no_list(order: Any, line: Any) -> object:
    return fan_out(count, line)


def _fan_wrong_item(order: Any, line: Any) -> object:
    return fan_out(take, order.lines)


def _fan_function(order: Any, line: Any) -> object:
    return fan_out(lambda one: one, order.lines)


def _fan_flag(order: Any, line: Any) -> object:
    return fan_out(count.when(order.urgent), order.lines)


def _fan_saga(order: Any, line: Any) -> object:
    @saga
    def inner(number: int) -> None:
        take(number)

    return fan_out(inner, order.lines)


def _keys(order: Any, line: Any) -> object:
    return take_any({1: line})


def _constant_ref(order: Any, line: Any) -> object:
    return constant([line])


def _loses_fields(order: Any, line: Any) -> object:
    @action
    def weigh() -> BigLine:
        return BigLine("a")

    return count(weigh())


def _other_action(order: Any, line: Any) -> object:
    @action(name="count")
    def other(line: Line) -> int:
        return 1

    count(line)
    return other(line)


def _wrong_list(order: Any, line: Any) -> object:
    return take_lines([order])


def _circle(order: Any, line: Any) -> object:
    circle: list[Any] = []
    circle.append(circle)
    return take_any(circle)


def _bad_time(order: Any, line: Any) -> object:
    return count.options(timeout=-1)(line)


@pytest.mark.parametrize(
    ("use", "says"),
    [
        (_text_for_number, "take, parameter number: order.id does not fit int: str is no int"),
        (_missing, r"take: missing a required argument: 'number'; it takes \(number: int\)"),
        (_too_many, "take: too many positional arguments"),
        (_plain_wrong, "take, parameter number: .*`str` where `int` is annotated"),
        (_twice, "a node is named 'a' already"),
        (_unknown_after, r"count.after\('nobody'\): no node of that name"),
        (_after_param, r"count.after\(line\): the params are there from the start"),
        (_after_number, "count.after takes references and names of nodes, not int"),
        (_flag_known, "for one that is known now use a plain `if`"),
        (_flag_no_bool, "order.id is str; let an action return a bool"),
        (_two_flags, "it has a flag already"),
        (_fan_no_list, "fan_out takes a list of items, and line is Line"),
        (_fan_wrong_item, "an item of order.lines does not fit: Line is no int"),
        (_fan_function, "fan_out: it runs actions and sagas, not function '<lambda>'"),
        (_fan_flag, "count has a `when`"),
        (_fan_saga, "an item of order.lines does not fit"),
        (_keys, "a dict that holds references needs str keys, not int"),
        (_constant_ref, "a constant is known now, and this holds a reference"),
        (_loses_fields, "it would be read back as Line and lose what BigLine adds"),
        (_other_action, "another action is named count in this saga"),
        (_wrong_list, r"parameter lines\[0\]: order does not fit Line: Order is no Line"),
        (_bad_time, "timeout is -1"),
        (_circle, "take_any, parameter value: .*in a circle"),
    ],
)
def test_a_call_that_cannot_work_is_refused_while_tracing(
    use: Callable[[Any, Any], object], says: str
) -> None:
    with pytest.raises(DefinitionError, match=says):

        @saga
        def one(order: Order, line: Line) -> None:
            use(order, line)


def test_a_reference_of_another_saga_is_refused() -> None:
    kept: list[Any] = []

    @saga
    def first(line: Line) -> None:
        kept.append(count(line))

    with pytest.raises(DefinitionError, match="count belongs to another saga"):

        @saga
        def second(line: Line) -> None:
            take(kept[0])


@pytest.mark.parametrize("call", [lambda: take(1), lambda: constant(1), lambda: fan_out(take, [1])])
def test_outside_of_a_saga_nothing_is_placed(call: Callable[[], object]) -> None:
    with pytest.raises(DefinitionError, match="outside of a @saga function"):
        call()


def test_a_call_outside_of_a_saga_is_told_of_fn() -> None:
    with pytest.raises(DefinitionError, match=r"as in a unit test, call take.fn\(...\)"):
        take(1)


def test_an_error_of_the_saga_function_itself_leaves_nothing_behind() -> None:
    with pytest.raises(ZeroDivisionError):

        @saga
        def one(line: Line) -> None:
            count(line)
            print(1 / 0)  # noqa: T201

    with pytest.raises(DefinitionError, match="outside of a @saga function"):
        take(1)


def _async_saga() -> None:
    @saga
    async def one(line: Line) -> int:
        return count(line)


def _empty_saga() -> None:
    @saga
    def one(line: Line) -> None: ...


def _saga_without_return() -> None:
    def one(line: Line): ...  # type: ignore[no-untyped-def]

    saga(one)


def _returns_other() -> None:
    def one(line: Line) -> str:
        return count(line)  # type: ignore[return-value]

    saga(one)


def _returns_too_much() -> None:
    def one(line: Line) -> None:
        return count(line)  # type: ignore[return-value]

    saga(one)


def _returns_nothing() -> None:
    def one(line: Line) -> int:
        count(line)
        return None  # type: ignore[return-value]

    saga(one)


def _unsafe_pivot() -> None:
    @action(pivot=True)
    def commit() -> None: ...

    @saga
    def one(line: Line) -> None:
        commit()
        count(line)


def _bad_deadline() -> None:
    @saga(deadline=0)
    def one(line: Line) -> None:
        count(line)


@pytest.mark.parametrize(
    ("define", "says"),
    [
        (_async_saga, "it is traced, not run, so it cannot be async"),
        (_empty_saga, r"saga one \(.*py:\d+\): dag one: it has no nodes"),
        (_saga_without_return, "saga one: it has no return annotation"),
        (_returns_other, "its return value: count does not fit str: int is no str"),
        (_returns_too_much, "is annotated `-> None`"),
        (
            _returns_nothing,
            "its return value: .*`NoneType` where `int` is annotated",
        ),
        (_unsafe_pivot, "may fail after the pivot 'commit'"),
        (_bad_deadline, "deadline is 0"),
    ],
)
def test_a_saga_that_cannot_run_is_refused_when_it_is_defined(define: Callable[[], None], says: str) -> None:
    with pytest.raises(DefinitionError, match=says):
        define()


# -- params, ids, stored form ----------------------------------------------


@saga
def shop(order: Order, note: str = "none", *, tries: int = 3) -> bool:
    return check(order)


def test_params_are_recorded_in_full_with_their_defaults() -> None:
    data = json.loads(shop.encode_params(Order("1"), tries=5))
    assert data["order"]["id"] == "1"
    assert (list(data), data["note"], data["tries"]) == (["order", "note", "tries"], "none", 5)


def call_with(args: Sequence[Any], kwargs: dict[str, Any]) -> bytes:
    encode: Any = shop.encode_params
    data: bytes = encode(*args, **kwargs)
    return data


@pytest.mark.parametrize(
    ("args", "kwargs", "says"),
    [
        ((), {}, "saga shop: missing a required argument: 'order'"),
        ((5,), {}, "saga shop, parameter order: .*`int` where `Order`"),
        ((Order("1"), "n", 3), {}, "saga shop: too many positional"),
        ((Order("1"),), {"colour": "red"}, "saga shop: got an unexpected keyword argument 'colour'"),
        ((Order("\ud800"),), {}, "saga shop, parameter order: .*surrogate"),
    ],
)
def test_params_that_do_not_fit_are_refused_by_name(
    args: Sequence[Any], kwargs: dict[str, Any], says: str
) -> None:
    with pytest.raises(ParamsInvalid, match=says):
        call_with(args, kwargs)


def test_params_given_as_json_are_checked_and_completed() -> None:
    order = b'{"id": "1", "lines": [], "by_name": {}, "urgent": true, "spare": null, "size": "s"}'
    expected = shop.encode_params(Order("1", urgent=True), tries=5)
    assert shop.read_params(b'{"tries": 5, "order": %b}' % order) == expected


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"[1]", "params are a JSON object"),
        (b"{", "params are a JSON object"),
        (b"\xff", "params are a JSON object"),
        (b"{}", "param 'order' is missing"),
        (b'{"order": {"id": 5}}', "parameter order: .*Expected `str`, got `int`"),
        (b'{"order": {"id": "1"}, "colour": 1}', "no param 'colour'"),
    ],
)
def test_params_given_as_json_that_do_not_fit_are_refused(data: bytes, says: str) -> None:
    with pytest.raises(ParamsInvalid, match=says):
        shop.read_params(data)


def test_an_id_makes_a_variant_and_leaves_the_saga_alone() -> None:
    variant = shop.with_id("order-1").options(deadline=60)
    assert (variant.saga_id, variant.deadline, variant.name) == ("order-1", 60.0, "shop")
    assert (shop.saga_id, shop.deadline) == (None, None)
    assert variant.definition is shop.definition


@pytest.mark.parametrize("saga_id", ["", "a/b", "..", "x" * 300, "a\0", " a"])
def test_an_id_that_cannot_be_one_is_refused_at_once(saga_id: str) -> None:
    with pytest.raises(NameInvalid):
        shop.with_id(saga_id)


def test_the_stored_form_reads_back_equal_and_its_fingerprint_tells_dags_apart() -> None:
    assert decode_dag(shop.encoded) == shop.dag

    def define(retries: int) -> Saga[..., Any]:
        @saga(name="same")
        def one(line: Line) -> int:
            return count.options(retry=Retry(retries))(line)

        return one

    assert define(2).fingerprint == define(2).fingerprint
    assert define(2).fingerprint != define(3).fingerprint


def test_keyword_and_positional_only_params_are_traced() -> None:
    def one(a: int, /, b: int, *, c: int) -> int:
        return total([a, b, c])

    traced = saga(one)
    assert traced.dag.params == ("a", "b", "c")
    encode: Any = traced.encode_params
    assert encode(1, 2, c=3) == b'{"a":1,"b":2,"c":3}'


def test_a_long_chain_is_traced_in_a_loop() -> None:
    @action
    def step(number: int) -> int:
        return number + 1

    @saga
    def chain(start: int) -> int:
        for _ in range(5_000):
            start = step(start)
        return start

    assert len(chain.dag.nodes) == 5_000
    assert chain.dag.output == Ref("step_5000")
