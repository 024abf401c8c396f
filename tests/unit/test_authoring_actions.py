"""Actions: what may be decorated, what the decorator reads, and how undos are checked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from compensate.authoring import (
    Action,
    ActionRegistry,
    Ctx,
    DagBuilder,
    action,
    action_constant,
    action_node,
    inject_error_action,
    no_op_undo,
)
from compensate.authoring import saga as make_saga
from compensate.core.policy import ONCE, UNDO, Retry
from compensate.errors import (
    ActionNotFound,
    DefinitionError,
    InjectedError,
    NameInvalid,
    NotFound,
    SagaNotFound,
)

if TYPE_CHECKING:
    from decimal import Decimal


@dataclass
class Base:
    id: str


@dataclass
class Hold(Base):
    count: int = 1


@dataclass
class Other:
    id: str


def undo_of(target: Action[..., Any], fn: Callable[..., Any], **settings: Any) -> None:
    """Declare an undo without static types, as in a project that has none."""
    decorate: Any = target.undo
    decorate(**settings)(fn)


def hold_action() -> Action[..., Hold]:
    @action
    def hold(id: str) -> Hold:
        return Hold(id)

    return hold


# -- what the decorator reads ----------------------------------------------


def test_a_plain_function_becomes_an_action_under_its_own_name() -> None:
    @action
    def quote(cents: int, note: str = "none") -> Hold:
        return Hold(f"{cents} {note}")

    assert quote.name == "quote"
    assert not quote.is_async
    assert not quote.takes_ctx
    assert list(quote.params) == ["cents", "note"]
    assert (quote.positional, quote.keyword) == ((), ("cents", "note"))
    assert quote.output.encode(Hold("a", 2)) == b'{"id":"a","count":2}'
    assert (quote.retry, quote.timeout, quote.pivot, quote.label) == (ONCE, None, False, "")
    assert (quote.undo_fn, quote.undo_kind) == (None, "none")
    assert quote.fn(5) == Hold("5 none")


def test_settings_of_an_action_are_kept() -> None:
    @action(name="book", retry=Retry(5), timeout=10, pivot=True, label="book it")
    async def reserve(ctx: Ctx[None], line: str, *, warehouse: str) -> Hold:
        return Hold(f"{line} {warehouse} {ctx.key}")

    assert (reserve.name, reserve.retry, reserve.timeout) == ("book", Retry(5), 10.0)
    assert (reserve.pivot, reserve.label) == (True, "book it")
    assert reserve.is_async
    assert reserve.takes_ctx
    assert list(reserve.params) == ["line", "warehouse"]
    assert asyncio.run(reserve.fn(Ctx(None), "a", warehouse="b")) == Hold("a b saga/node/do")


def test_positional_only_parameters_are_given_by_place_and_all_others_by_name() -> None:
    @action
    def mix(a: int, b: int = 2, /, c: int = 3, *, d: int = 4) -> list[int]:
        return [a, b, c, d]

    args, kwargs = mix.call_args({"a": 1, "d": 9})
    assert (args, kwargs) == ((1,), {"d": 9})
    assert mix.fn(*args, **kwargs) == [1, 2, 3, 9]
    assert mix.positional == ("a", "b")


def test_postponed_annotations_find_classes_of_the_function_around() -> None:
    @dataclass
    class Local:
        id: str

    @action
    def make(id: str) -> Local:
        return Local(id)

    assert make.output.type is Local


def test_a_local_name_of_a_caller_does_not_shadow_a_global_one() -> None:
    def caller() -> Action[..., Any]:
        Hold = int
        assert Hold is int
        return hold_action()

    assert caller().output.type is Hold


# -- what is refused -------------------------------------------------------


def _no_annotation() -> None:
    def bad(a, b: int) -> None: ...  # type: ignore[no-untyped-def]

    action(bad)


def _no_return() -> None:
    def bad(a: int): ...  # type: ignore[no-untyped-def]

    action(bad)


def _plain_class() -> None:
    class Thing: ...

    @action
    def bad(thing: Thing) -> None: ...


def _bad_output() -> None:
    @action
    def bad() -> complex:
        return 1j


def _star_args() -> None:
    @action
    def bad(*things: int) -> None: ...


def _star_kwargs() -> None:
    @action
    def bad(**things: int) -> None: ...


def _late_ctx() -> None:
    @action
    def bad(a: int, ctx: Ctx[None]) -> None: ...


def _unresolved() -> None:
    @action
    def bad(a: Decimal) -> None: ...


def _generator() -> None:
    @action
    def bad() -> Iterator[int]:
        yield 1


def _no_function() -> None:
    action(print)


def _no_time() -> None:
    @action(timeout=0)
    def bad() -> None: ...


@pytest.mark.parametrize(
    ("define", "says"),
    [
        (_no_annotation, "action bad: parameter a has no annotation"),
        (_no_return, "action bad: it has no return annotation"),
        (_plain_class, "action bad, parameter thing: .*Thing.* cannot be stored"),
        (_bad_output, "action bad, its return value: `complex` cannot be stored"),
        (_star_args, r"\*things cannot be stored by name; take a list"),
        (_star_kwargs, r"\*\*things cannot be stored by name"),
        (_late_ctx, "parameter ctx is a Ctx; the Ctx goes first"),
        (_unresolved, "name 'Decimal' is not defined.*outside of `if TYPE_CHECKING`"),
        (_generator, "bad is a generator"),
        (_no_function, "is no function"),
        (_no_time, "timeout is 0; give seconds above 0"),
    ],
)
def test_an_action_that_cannot_work_is_refused_when_it_is_defined(
    define: Callable[[], None], says: str
) -> None:
    with pytest.raises(DefinitionError, match=says):
        define()


@pytest.mark.parametrize("name", ["", "a/b", "x" * 300, "a[0]", "..", "a\0b"])
def test_an_action_name_that_keys_could_not_hold_is_refused(name: str) -> None:
    def work() -> None: ...

    with pytest.raises(NameInvalid):
        Action(work, name=name)


# -- undos -----------------------------------------------------------------


def test_an_undo_is_kept_with_its_settings_and_stays_a_function() -> None:
    hold = hold_action()

    @hold.undo(unknown=True, retry=Retry(2), timeout=3)
    async def release(ctx: Ctx[None], held: Hold | None) -> None: ...

    assert hold.undo_fn is release
    assert (hold.undo_kind, hold.undo_retry, hold.undo_timeout) == ("unknown", Retry(2), 3.0)
    assert hold.undo_is_async
    assert hold.undo_takes_ctx


def test_an_undo_without_settings_takes_the_output() -> None:
    hold = hold_action()

    @hold.undo
    def release(held: Hold) -> None: ...

    assert (hold.undo_fn, hold.undo_kind, hold.undo_retry) == (release, "output", UNDO)
    assert not hold.undo_is_async
    assert not hold.undo_takes_ctx


def test_an_undo_may_take_a_base_class_of_the_output() -> None:
    hold = hold_action()

    @hold.undo
    def release(held: Base) -> None: ...

    assert hold.undo_fn is release


def test_the_no_op_undo_never_needs_the_output() -> None:
    hold = hold_action()
    hold.undo(no_op_undo)
    assert hold.undo_kind == "unknown"


def _other(held: Other) -> None: ...
def _two(held: Hold, more: int) -> None: ...
def _none() -> None: ...
def _only_ctx(ctx: Ctx[None]) -> None: ...
def _sure(held: Hold) -> None: ...


@pytest.mark.parametrize(
    ("undo", "settings", "says"),
    [
        (_other, {}, "parameter held is Other, but the action returns Hold"),
        (_two, {}, "must take the action's output and nothing else: missing a required argument: 'more'"),
        (_none, {}, "must take the action's output and nothing else"),
        (_only_ctx, {}, "must take the Ctx and the action's output"),
        (_sure, {"unknown": True}, r"it may be given None; annotate held as Hold \| None"),
        (_sure, {"timeout": -1}, "timeout is -1"),
    ],
)
def test_an_undo_that_cannot_be_called_with_the_output_is_refused(
    undo: Callable[..., None], settings: dict[str, Any], says: str
) -> None:
    with pytest.raises(DefinitionError, match=says):
        undo_of(hold_action(), undo, **settings)


def test_a_second_undo_is_refused() -> None:
    hold = hold_action()
    undo_of(hold, _sure)
    with pytest.raises(DefinitionError, match="has the undo _sure already"):
        undo_of(hold, _sure)


def test_an_undo_declared_after_the_action_was_traced_is_refused_since_the_dag_lacks_it() -> None:
    hold = hold_action()

    @make_saga
    def one() -> Hold:
        return hold("a")

    with pytest.raises(DefinitionError, match="saga one was traced without it"):
        undo_of(hold, _sure)


def test_a_trace_that_failed_leaves_the_actions_free_for_their_undos() -> None:
    hold = hold_action()
    with pytest.raises(ZeroDivisionError):

        @make_saga
        def one() -> Hold:
            return [hold("a")][1 // 0]

    undo_of(hold, _sure)
    assert hold.undo_fn is _sure


def test_an_undo_declared_after_a_dag_was_built_is_refused_too() -> None:
    hold = hold_action()
    registry = ActionRegistry()
    registry.register(hold)
    DagBuilder("d", registry).append(action_node("a", hold, inputs={"id": "x"})).build()
    with pytest.raises(DefinitionError, match="dag d was built without it"):
        undo_of(hold, _sure)


# -- the context -----------------------------------------------------------


def test_the_key_names_the_direction_and_do_key_is_always_the_actions() -> None:
    ctx = Ctx("deps", "order-1", "payment/charge", 2, "undo")
    assert (ctx.deps, ctx.key, ctx.do_key) == (
        "deps",
        "order-1/payment/charge/undo",
        "order-1/payment/charge/do",
    )
    assert ctx.attempt == 2


def test_a_ctx_reads_through_its_reader() -> None:
    class Fixed:
        def lookup(self, name: str, tp: Any) -> Any:
            return (name, tp)

        def params(self, tp: Any) -> Any:
            return tp

        def inputs(self) -> dict[str, Any]:
            return {"cents": 5}

        def expired(self) -> bool:
            return True

        def now(self) -> float:
            return 7.5

    ctx = Ctx(None, "s", "n", 1, "do", Fixed())
    read: list[object] = [ctx.lookup("quote", int), ctx.params(str)]
    assert read == [("quote", int), str]
    assert ctx.inputs == {"cents": 5}
    assert ctx.expired
    assert ctx.now() == 7.5


def test_in_a_unit_test_the_time_is_real_or_as_given() -> None:
    before = time.time()
    assert before <= Ctx(None).now() <= time.time()
    assert Ctx(None, now=12.0).now() == 12.0
    assert Ctx(None, inputs={"cents": 5}, now=12.0).inputs == {"cents": 5}


def test_a_ctx_made_by_hand_has_nothing_to_read_and_says_so() -> None:
    ctx = Ctx(None)
    assert not ctx.expired
    for read in (lambda: ctx.lookup("a", int), lambda: ctx.params(dict), lambda: ctx.inputs):
        with pytest.raises(NotFound, match="belongs to no saga"):
            read()


# -- the registry and ready-made actions -----------------------------------


def test_the_registry_gives_back_what_was_registered_and_takes_the_same_action_twice() -> None:
    registry = ActionRegistry()
    hold = hold_action()
    registry.register(hold)
    registry.register(hold)
    assert registry.get("hold") is hold
    assert "hold" in registry
    assert "other" not in registry
    assert registry.names() == ("hold",)


def test_another_action_of_the_same_name_is_refused_with_both_places() -> None:
    registry = ActionRegistry()
    registry.register(hold_action())
    with pytest.raises(
        DefinitionError, match=r"two actions are named 'hold'.*test_authoring_actions.py:\d+.*and"
    ):
        registry.register(hold_action())


def test_an_unknown_action_is_reported_with_the_names_that_come_near() -> None:
    registry = ActionRegistry()
    with pytest.raises(ActionNotFound, match="no action is registered"):
        registry.get("hold")
    registry.register(hold_action())
    with pytest.raises(ActionNotFound, match="no action is named 'hodl'; did you mean 'hold'"):
        registry.get("hodl")
    with pytest.raises(ActionNotFound, match="known are hold"):
        registry.get("zzz")


def test_what_is_no_action_cannot_be_registered() -> None:
    with pytest.raises(DefinitionError, match="is no action"):
        ActionRegistry().register(print)  # type: ignore[arg-type]


def test_a_registered_saga_brings_its_actions() -> None:
    hold = hold_action()

    @make_saga
    def one() -> Hold:
        return hold("a")

    registry = ActionRegistry()
    registry.register_saga(one)
    registry.register_saga(one.with_id("x"))
    assert registry.get("hold") is hold
    assert registry.get_saga("one") is one
    assert registry.saga_names() == ("one",)
    with pytest.raises(SagaNotFound, match="did you mean 'one'"):
        registry.get_saga("onee")

    def again() -> None:
        @make_saga(name="one")
        def other() -> Hold:
            return hold("b")

        registry.register_saga(other)

    with pytest.raises(DefinitionError, match="two sagas are named 'one'"):
        again()


def test_an_action_constant_returns_its_value() -> None:
    five = action_constant(Hold("a"), name="five")
    assert five.name == "five"
    assert five.output.encode(asyncio.run(five.fn())) == b'{"id":"a","count":1}'


def test_an_inject_error_action_fails_as_injected() -> None:
    with pytest.raises(InjectedError, match="injected"):
        asyncio.run(inject_error_action().fn())


@pytest.mark.parametrize("settings", [{"label": 5}, {"retry": 3}, {"timeout": "3"}], ids=str)
def test_settings_that_a_stored_dag_could_not_be_read_back_with_are_refused(settings: dict[str, Any]) -> None:
    async def one() -> int:
        return 1

    with pytest.raises(DefinitionError, match=next(iter(settings))):
        action(**settings)(one)
    two = action(one)

    def placed() -> int:
        return two.options(**settings)()

    with pytest.raises(DefinitionError, match=next(iter(settings))):
        make_saga(placed)
