"""`fan_out` over a saga: each item gets a subsaga of its own, forward, back, in doubt, stuck and after a crash."""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Callable
from types import FrameType
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from compensate import (
    ActionNotFound,
    ActionRegistry,
    Coordinator,
    Ctx,
    DagBuilder,
    DefinitionError,
    Inject,
    NotFound,
    Permanent,
    RolledBack,
    Saga,
    SagaExecutor,
    Stuck,
    SubsagaCreateFailed,
    UnsupportedVersion,
    action,
    action_node,
    constant,
    fan_out,
    output,
    render,
    saga,
    saga_from_dag,
    subsaga_node,
)
from compensate.codec.records import decode_dag, encode_dag
from compensate.core import events as e
from compensate.core.dag import ConstantNode, Dag, Each, Node, Ref, SubsagaNode, validate
from compensate.core.log import Fold
from compensate.core.machine import Machine
from compensate.core.plan import ACTION, BEGIN, END, FAN_BEGIN, FAN_END, Plan
from compensate.core.policy import Retry
from compensate.runtime.inject import misfit
from compensate.stores.memory import MemoryStore
from compensate.testing import FakeWorld, SagaNotProven, prove_saga
from compensate.testing.checker import check, check_stored
from compensate.testing.recorder import Recorder
from tests.support.driving import Run, dag, node
from tests.support.logcheck import violations

ITEM = Each("item", Ref("a"))


def each(inner: Dag, *after: str, **more: Any) -> SubsagaNode:
    """A fan-out of `inner`, over the output of the node `a`."""
    return SubsagaNode("s", msgspec.structs.replace(inner, params=("item",)), {}, after, each=ITEM, **more)


PAIR = dag(node("x"), node("y", "x"))
SAGAS = dag(node("a"), each(PAIR), node("z", "s"))
INNER_FAN = dag(node("x"), node("f", each=Each("line", Ref("x"))), node("y", "f"))
NESTED = dag(node("a"), each(INNER_FAN), node("z", "s"))


def complaints(graph: Dag, log: list[e.Event]) -> list[Any]:
    """What both checkers find; but for S6, since values are made up where the machine is driven by hand."""
    return [*violations(graph, log), *(found for found in check(graph, log) if found.line != "S6")]


def honest(run: Run, end: str = "rolled_back") -> None:
    assert run.end == end
    assert complaints(run.plan.dag, run.log) == []


# -- the machine -----------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 4])
def test_each_item_gets_the_nodes_of_the_subsaga(count: int) -> None:
    run = Run(SAGAS, {"s": count}).ok("a")
    assert run.doing == ([f"s[{k}]/x" for k in range(count)] or ["z"])
    for k in range(count):
        run.ok(f"s[{k}]/x")
        assert f"s[{k}]/y" in run.doing, "one element does not wait for another"
    run.ok(*(f"s[{k}]/y" for k in range(count)))
    assert run.types("s") == ["expanded"]
    honest(run.ok("z"), "completed")


def test_each_subsaga_is_undone_node_by_node_before_what_comes_before_the_fan_out() -> None:
    run = Run(SAGAS, {"s": 2}).ok("a", "s[0]/x", "s[1]/x", "s[0]/y", "s[1]/y").fail("z")
    assert sorted(run.undoing) == ["s[0]/y", "s[1]/y"]
    run.undone("s[1]/y")
    assert sorted(run.undoing) == ["s[0]/y", "s[1]/x"]
    run.undone("s[1]/x", "s[0]/y")
    assert run.undoing == ["s[0]/x"]
    honest(run.undone("s[0]/x", "a"))


def test_a_failure_in_one_element_lets_the_others_land_and_undoes_them() -> None:
    run = Run(SAGAS, {"s": 3}).ok("a", "s[0]/x", "s[0]/y", "s[1]/x").fail("s[1]/y")
    assert sorted(run.undoing) == ["s[0]/y", "s[1]/x"]
    run.undone("s[0]/y", "s[1]/x", "s[0]/x")
    assert run.undoing == [], "an element still runs"
    run.ok("s[2]/x")
    assert run.undoing == ["s[2]/x"], "nothing starts in it any more"
    honest(run.undone("s[2]/x", "a"))


def test_a_fan_out_inside_an_element_expands_when_its_turn_comes() -> None:
    run = Run(NESTED, {"s": 3, "s[0]/f": 1, "s[1]/f": 0, "s[2]/f": 2}).ok("a", "s[2]/x")
    assert run.types("s[2]/f") == ["expanded"]
    assert run.types("s[0]/f") == []
    assert sorted(run.doing) == ["s[0]/x", "s[1]/x", "s[2]/f[0]", "s[2]/f[1]"]
    run.ok("s[1]/x")
    assert "s[1]/y" in run.doing, "its list is empty"
    honest(run.finish(), "completed")


def test_fan_outs_of_sagas_nest_as_deep_as_one_likes() -> None:
    inner = PAIR
    for _ in range(4):
        inner = dag(node("a"), each(inner))
    run = Run(inner, Answers(2)).finish()
    assert run.state("s[1]/s[0]/s[1]/s[0]/y") == "completed"
    assert len(run.types("s[1]/s[0]/s[1]/s[0]/y")) == 2
    honest(run, "completed")


class Answers(dict[str, Any]):
    """The same answer to every question."""

    def __init__(self, answer: int) -> None:
        super().__init__()
        self.answer = answer

    def __missing__(self, path: str) -> int:
        return self.answer


def test_constants_subsagas_and_branches_stand_in_an_element_as_anywhere() -> None:
    inner = dag(
        ConstantNode("k", Raw(b"1")),
        SubsagaNode("t", PAIR, after=("k",)),
        node("u", "t", when=Ref("k")),
        node("v", "u"),
    )
    run = Run(dag(node("a"), each(inner), node("z", "s")), {"s": 2, "s[0]/u": True, "s[1]/u": False}).ok("a")
    run.ok("s[0]/t/x", "s[0]/t/y", "s[1]/t/x", "s[1]/t/y")
    assert sorted(run.doing) == ["s[0]/u", "s[1]/v"]
    assert run.state("s[1]/u") == "skipped"
    run.ok("s[0]/u", "s[0]/v", "s[1]/v").fail("z")
    honest(run.undone("s[0]/v", "s[1]/v", "s[0]/u", "s[1]/t/y", "s[1]/t/x", "s[0]/t/y", "s[0]/t/x", "a"))


@pytest.mark.parametrize("taken", [True, False])
def test_a_fan_out_of_sagas_may_be_a_branch(taken: bool) -> None:
    graph = dag(node("a"), each(PAIR, when=Ref("a")), node("z", "s"))
    run = Run(graph, Answers(2 * taken)).ok("a")
    assert run.types("s") == (["branch_taken", "expanded"] if taken else ["branch_skipped"])
    honest(run.finish(), "completed")


def test_an_operator_decides_about_a_node_of_one_element() -> None:
    run = Run(SAGAS, {"s": 2}).ok("a", "s[0]/x", "s[1]/x", "s[0]/y", "s[1]/y").fail("z")
    run.undone("s[0]/y", "s[0]/x").undo_fail("s[1]/y", permanent=True)
    assert run.stuck() == {"s[1]/y": ("retry", "skip", "resolve")}
    run.decide("retry", "s[1]/y").undo_fail("s[1]/y", permanent=True)
    run.decide("skip", "s[1]/y")
    honest(run.undone("s[1]/x", "a"))


def test_a_doubt_in_an_element_is_resolved_in_its_turn() -> None:
    run = Run(SAGAS, {"s": 2}).ok("a", "s[0]/x", "s[1]/x", "s[0]/y").doubt("s[1]/y")
    assert "s[1]/y" in run.doing, "run again to learn its output"
    honest(run.ok("s[1]/y").undone("s[1]/y", "s[0]/y", "s[1]/x", "s[0]/x", "a"))


def test_a_pivot_cannot_stand_anywhere_inside_a_fan_out() -> None:
    pivot = node("p", pivot=True)
    for inner in (dag(pivot), dag(SubsagaNode("t", dag(pivot))), dag(node("a"), each(dag(pivot)))):
        with pytest.raises(DefinitionError, match="is in a fan-out and cannot be a pivot"):
            validate(dag(node("a"), each(inner)))


def test_what_stands_in_a_fan_out_beside_a_pivot_has_to_be_retriable() -> None:
    def graph(attempts: int) -> Dag:
        inner = dag(node("x", retry=Retry(attempts)))
        return dag(node("a"), node("p", "a", pivot=True), each(inner, "p"))

    validate(graph(2))
    with pytest.raises(DefinitionError, match="'s/x' may fail after the pivot"):
        validate(graph(1))


def test_the_item_is_given_once() -> None:
    inner = Dag("d", (node("x"),), ("item", "other"))
    with pytest.raises(SubsagaCreateFailed, match="given the param 'item' twice"):
        validate(dag(node("a"), SubsagaNode("s", inner, {"item": Ref("a"), "other": Ref("a")}, each=ITEM)))
    with pytest.raises(
        SubsagaCreateFailed, match=r"takes the params \['item', 'other'\] and is given \['item'\]"
    ):
        validate(dag(node("a"), SubsagaNode("s", inner, each=ITEM)))


# -- the plan --------------------------------------------------------------------


def test_an_expansion_is_laid_as_a_dag_that_was_written_out() -> None:
    """The nodes of the elements have the edges that subsagas have which are written one by one."""
    by_hand = Plan(dag(node("a"), *(SubsagaNode(f"s{k}", INNER_FAN, after=("a",)) for k in range(3))))
    plan = Plan(NESTED).copy()
    plan.expand(plan.index["s"], 3)
    plan.expand(plan.index["s[1]/f"], 2)
    by_hand = by_hand.copy()
    by_hand.expand(by_hand.index["s1/f"], 2)

    def edges(of: Plan, path: str) -> tuple[set[tuple[str, int]], set[tuple[str, int]], bool]:
        i = of.index[path]
        begin = of.partner.get(i, i)
        before = {(of.names[j], of.kinds[j]) for j in of.deps[begin]}
        after = {(of.names[j], of.kinds[j]) for j in of.dependants[i]}
        return before, after, of.undoable[i]

    def renamed(found: Any) -> Any:
        before, after, undoable = found
        return (
            {(name.replace("s1", "s[1]"), kind) for name, kind in before},
            {(name.replace("s1", "s[1]"), kind) for name, kind in after},
            undoable,
        )

    for path in ("x", "f", "f[0]", "f[1]", "y"):
        assert edges(plan, f"s[1]/{path}") == renamed(edges(by_hand, f"s1/{path}")), path
    assert [plan.names[i] for i in plan.elements[plan.index["s"]]] == ["s[0]", "s[1]", "s[2]"]


def test_a_copy_grows_alone_in_all_its_parts() -> None:
    plan = Plan(NESTED)
    before = {name: repr(value) for name, value in vars(plan).items() if name != "bindings"}
    own = plan.copy()
    own.expand(own.index["s"], 3)
    own.expand(own.index["s[0]/f"], 2)
    assert {name: repr(value) for name, value in vars(plan).items() if name != "bindings"} == before
    sizes = {len(getattr(own, name)) for name in ("names", "kinds", "specs", "deps", "dependants", "scopes")}
    sizes |= {len(getattr(own, name)) for name in ("fan", "missing", "undoable", "successor", "predecessor")}
    assert sizes == {len(own.names)}
    assert own.missing == [len(deps) for deps in own.deps]
    back = sorted((dep, i) for i, deps in enumerate(own.deps) for dep in deps)
    assert back == sorted((i, j) for i, dependants in enumerate(own.dependants) for j in dependants)
    for end, within in own.elements.items():
        assert all(own.fan[i] == end for i in within)
        assert own.kinds[end] == FAN_END
        assert own.kinds[own.partner[end]] == FAN_BEGIN
        assert {own.kinds[i] for i in within} <= {END, ACTION}
    assert all(own.kinds[own.partner[i]] == BEGIN for i, kind in enumerate(own.kinds) if kind == END)


def lines_run(work: Callable[[], object]) -> int:
    """How many lines of the core are run: a measure of work that does not depend on the machine's speed."""
    count = 0

    def local(frame: FrameType, event: str, arg: Any) -> Any:
        nonlocal count
        count += 1
        return local

    def trace(frame: FrameType, event: str, arg: Any) -> Any:
        return local if "compensate/core/" in frame.f_code.co_filename else None

    old = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(old)
    return count


def forward_and_back(count: int) -> Machine:
    """All elements run, and all are undone; without the driver's own lists, which are not linear."""
    machine = Machine(Plan(NESTED), "s")
    machine.create(b"{}", 0.0)
    while commands := machine.next(0.0):
        for command in commands:
            name = type(command).__name__
            i = getattr(command, "node", -1)
            if name == "Ask":
                machine.expand(i, count if machine.plan.names[i] == "s" else 2, 0.0)
            elif name == "RunUndo":
                machine.undo_succeed(i, 0.0)
            elif name == "RunAction" and machine.plan.names[i] == "z":
                machine.fail(i, e.ErrorInfo("shop.Boom", "boom"), 0.0, permanent=True)
            elif name == "RunAction":
                machine.succeed(i, b"1", 0.0)
        if machine.status == "rolled_back":
            break
    assert machine.status == "rolled_back"
    assert machine.state[machine.plan.index[f"s[{count - 1}]/f[1]"]] == "undone"
    return machine


def test_the_cost_is_linear_in_the_number_of_elements() -> None:
    small, large = (lines_run(lambda n=n: forward_and_back(n)) for n in (20, 400))  # type: ignore[misc]
    assert large <= 20 * small * 1.05


def test_ten_thousand_elements_are_run_and_undone_without_recursion() -> None:
    machine = forward_and_back(10_000)
    kinds = Counter(event.type for event in machine.take())
    assert kinds["started"] == kinds["completed"] + 1 == 10_000 * 4 + 2
    assert kinds["undone"] == 10_000 * 4 + 1
    assert kinds["expanded"] == 10_001


# -- the log ---------------------------------------------------------------------


def facts(fold: Fold) -> dict[str, Any]:
    """All that a fold knows, by names of its own."""
    hidden = ("plan", "unsaved", "grace")
    return {name: repr(value) for name, value in vars(fold).items() if name not in hidden}


def random_nest(rng: random.Random, depth: int = 0) -> Dag:
    nodes: list[Node] = [node("a")]
    for k in range(rng.randint(1, 3)):
        before = tuple(one.name for one in nodes if rng.random() < 0.4)
        kind = rng.random()
        if depth < 3 and kind < 0.5:
            inner = msgspec.structs.replace(random_nest(rng, depth + 1), params=("item",))
            nodes.append(SubsagaNode(f"s{k}", inner, {}, before, each=ITEM))
        elif kind < 0.7:
            nodes.append(node(f"f{k}", *before, each=ITEM))
        else:
            nodes.append(node(f"n{k}", *before, undo=rng.choice(["none", "output", "unknown"])))
    return dag(*nodes)


@pytest.mark.parametrize("number", range(40))
def test_a_log_cut_anywhere_is_folded_to_what_it_was(number: int) -> None:
    """Recovery in the middle of an expansion, and between an expansion and the ones inside it."""
    rng = random.Random(number)
    graph = random_nest(rng)
    run = Run(graph, Answers(rng.randint(0, 2)))
    for _ in range(rng.randint(3, 60)):
        if run.doing:
            run.ok(rng.choice(run.doing))
    if run.status == "running":
        run.roll_back()
    run.finish()
    assert complaints(graph, run.log) == []
    plan = Plan(graph)
    whole = Fold(plan, "s")
    for k, event in enumerate(run.log):
        if event.type == "expanded" or rng.random() < 0.1:
            again = Fold(Plan(graph), "s")
            for earlier in run.log[:k]:
                again.apply(earlier)
            assert facts(again) == facts(whole)
            machine = Machine.fold(plan, "s", run.log[:k], 7)
            machine.interrupted(0.0, died=True)
            machine.next(0.0)
            assert complaints(graph, [*run.log[:k], *machine.take()]) == []
        whole.apply(event)
    assert facts(whole) == facts(run.fold())


def test_the_checker_sees_an_element_that_was_left_standing() -> None:
    """The control: the independent reading of the shape is no rubber stamp."""
    run = Run(SAGAS, {"s": 2}).ok("a", "s[0]/x", "s[1]/x", "s[0]/y", "s[1]/y").fail("z")
    run.undone("s[1]/y", "s[1]/x", "s[0]/y", "s[0]/x", "a")
    log = [event for event in run.log if not (event.node == "s[1]/x" and event.type.startswith("und"))]
    lines = {violation.line for violation in check(SAGAS, log)}
    assert "S2" in lines
    early = Run(SAGAS, {"s": 2}).ok("a", "s[0]/x", "s[1]/x")
    swapped = [
        msgspec.structs.replace(event, node="s[1]/y") if event.node == "s[1]/x" else event
        for event in early.log
    ]
    assert check(SAGAS, swapped), "y of an element starts before its x"
    assert check(SAGAS, [event for event in early.log if event.type != "expanded"])


def test_a_stored_dag_says_that_older_releases_cannot_run_it() -> None:
    assert encode_dag(NESTED).startswith(b'{"dag":')
    assert b'"version":2' in encode_dag(NESTED)
    assert b'"version":2' in encode_dag(dag(SubsagaNode("t", NESTED)))
    assert b'"version":1' in encode_dag(dag(node("a"), node("f", "a", each=ITEM), SubsagaNode("t", PAIR)))
    assert decode_dag(encode_dag(NESTED)) == NESTED
    with pytest.raises(UnsupportedVersion, match="version 3"):
        decode_dag(encode_dag(NESTED).replace(b'"version":2', b'"version":3'))


# -- values ----------------------------------------------------------------------


@action
async def twice(number: int) -> int:
    return 2 * number


@action
async def numbers(number: int) -> list[int]:
    return list(range(number))


@action
async def add(number: int, more: int = 0) -> int:
    return number + more


@action
async def total(given: list[int], more: int) -> int:
    return sum(given) + more


@saga
def leaf(number: int, more: int = 1) -> int:
    return add(twice(number), more)


@saga
def branch(number: int, *, more: int) -> int:
    own = twice(number)
    return total(fan_out(leaf, numbers(number), more), own)


@saga
def tree(number: int, more: int) -> list[int]:
    return fan_out(branch, numbers(number), more=more)


def plain_leaf(number: int, more: int = 1) -> int:
    return 2 * number + more


def plain_branch(number: int, more: int) -> int:
    return sum(plain_leaf(one, more) for one in range(number)) + 2 * number


@pytest.mark.parametrize("number", [0, 1, 5])
async def test_the_output_is_the_list_of_the_outputs_of_the_elements(number: int) -> None:
    executor = SagaExecutor(tree)
    assert await executor.execute(number, 3) == [plain_branch(one, 3) for one in range(number)]
    if number:
        assert executor.output("branch[0]") == 0
        assert executor.output(f"branch[{number - 1}]/leaf", tp=list[int]) == [
            plain_leaf(one, 3) for one in range(number - 1)
        ]


async def test_defaults_of_the_params_hold_and_a_saga_without_output_gives_none() -> None:
    @saga
    def silent(number: int) -> None:
        twice(number)

    @saga
    def both(given: list[int]) -> list[int]:
        fan_out(leaf, given)
        fan_out(silent.options(name="quiet", label="Quiet"), [given[0], 7])
        return fan_out(leaf.options(name="again").after("quiet"), [1, given[0]], more=5)

    executor = SagaExecutor(both)
    assert await executor.execute([4, 5]) == [7, 13]
    assert executor.output("leaf") == [9, 11]
    assert executor.output("quiet") == [None, None]
    order = executor.execution_order()
    assert max(order.index(f"quiet[{k}]/twice") for k in (0, 1)) < order.index("again[0]/twice")


SEEN: dict[str, Any] = {}


async def test_an_element_sees_its_own_params_and_its_own_nodes() -> None:
    SEEN.clear()

    @action
    async def look(ctx: Ctx[object], doubled: int) -> int:
        SEEN[ctx.node] = ctx.params(dict[str, Any]), ctx.lookup("twice", int), ctx.key, dict(ctx.inputs)
        with pytest.raises(NotFound, match="no node of its own namespace"):
            ctx.lookup("numbers", object)
        return doubled

    @saga
    def inner(number: int, word: str) -> int:
        return look(twice(number))

    @saga
    def outer(word: str) -> list[int]:
        return fan_out(inner, numbers(3), word=word)

    assert await SagaExecutor(outer, saga_id="id").execute("w") == [0, 2, 4]
    for k in range(3):
        params = {"number": k, "word": "w"}
        assert SEEN[f"inner[{k}]/look"] == (params, 2 * k, f"id/inner[{k}]/look/do", {"doubled": 2 * k})


def test_what_does_not_fit_is_refused_when_the_saga_is_defined() -> None:
    @saga
    def worded(word: str) -> str:
        return word_of(word)

    @saga
    def by_name(*, number: int) -> int:
        return twice(number)

    @saga
    def nothing() -> int:
        return twice(1)

    def refused(why: str, use: Callable[[Any], Any]) -> None:
        with pytest.raises(DefinitionError, match=why):

            @saga
            def outer(given: list[int]) -> None:
                use(given)

    untyped: Any = fan_out  # the type checkers see these mistakes too
    refused("an item of given does not fit", lambda given: untyped(worded, given))
    refused("the first parameter of by_name is keyword-only", lambda given: untyped(by_name, given))
    refused("nothing takes no parameter", lambda given: untyped(nothing, given))
    refused("takes a list of items", lambda given: untyped(leaf, given[0]))
    refused("missing a required argument", lambda given: untyped(branch, given))
    refused("has a `when`", lambda given: untyped(leaf.when(is_large(given[0])), given))


@action
async def is_large(number: int) -> bool:
    return number > 9


@action
async def word_of(word: str) -> str:
    return word


async def test_a_builder_fans_out_a_saga_or_a_bare_dag() -> None:
    registry = ActionRegistry()
    registry.register_saga(tree)
    builder = DagBuilder("built", registry)
    builder.append(action_node("n", numbers, inputs={"number": 3}))
    builder.append(subsaga_node("s", leaf, inputs={"more": 1}, each=("number", output("n"))))
    builder.append(subsaga_node("t", leaf.dag, inputs={"more": 2}, each=("number", [5, output("s", 2)])))
    built = saga_from_dag(builder.build(), registry)
    assert await SagaExecutor(built).execute() == [12, 12]
    with pytest.raises(DefinitionError, match="each takes a reference to a list, or a list"):
        subsaga_node("s", leaf, inputs={"more": 1}, each=("number", 5))


# -- undos -----------------------------------------------------------------------


class Book:
    """What was done and undone, by node."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.undone: list[str] = []
        self.broken: set[str] = set()


@action
async def put(ctx: Ctx[Book], number: int) -> int:
    ctx.deps.done.append(ctx.node)
    return number


@put.undo(unknown=True, retry=Retry(1))
async def take(ctx: Ctx[Book], number: int | None) -> None:
    if ctx.node in ctx.deps.broken:
        raise Permanent("it is bolted down")
    ctx.deps.undone.append(ctx.node)


@saga
def shelf(number: int) -> int:
    constant("oak")
    first = put.options(name="first")(number)
    return put.options(name="second")(first)


@saga
def room(shelves: int) -> list[int]:
    return fan_out(shelf, numbers(shelves))


@saga
def house(rooms: int) -> int:
    return put.options(name="roof").after(fan_out(room, numbers(rooms)))(1)


NODES = [f"room[{k}]/shelf[{j}]/{name}" for k in range(3) for j in range(k) for name in ("first", "second")]


@pytest.mark.parametrize("fail", ["before", "after"])
@pytest.mark.parametrize("at", [*NODES, "roof", "room[1]/numbers", "numbers"])
async def test_wherever_it_fails_what_was_done_is_undone_and_the_log_is_sound(at: str, fail: Any) -> None:
    book, store, recorder = Book(), MemoryStore(), Recorder()
    await store.open()
    executor = SagaExecutor(house, saga_id="h", store=store, deps=book, inject={at: Inject(fail=fail)})
    with pytest.raises(RolledBack) as caught:
        await executor.execute(3)
    assert caught.value.node == at
    # The undo takes `None`, so it also runs for the node that failed.
    assert set(book.done) <= set(book.undone) <= {*book.done, at}
    assert len(book.undone) == len(set(book.undone))
    assert check_stored(await store.load("h"), recorder) == []
    for second in (name for name in book.undone if name.endswith("second")):
        assert book.undone.index(second) < book.undone.index(second.replace("second", "first"))


@pytest.mark.parametrize("verb", ["retry", "skip", "resolve"])
async def test_an_operator_decides_about_a_node_inside_an_element(verb: str) -> None:
    book, at = Book(), "room[2]/shelf[1]/first"
    book.broken.add(at)
    async with Coordinator(
        "memory://", sagas=[house], deps=book, inject={"roof": Inject(fail="before")}
    ) as c:
        with pytest.raises(Stuck) as caught:
            await c.run(house.with_id("h"), 3)
        assert at in str(caught.value)
        assert [one.node for one in (await c.get("h")).stuck()] == [at]
        book.broken.clear()
        await getattr(c, verb)("h", at, who="eve", reason="seen to")
        with pytest.raises(RolledBack):
            await c.attach("h").result()
        found = await c.get("h")
        assert (at in book.undone) is (verb == "retry")
        assert found.nodes["room[2]/shelf[1]/second"] == "undone"
        assert {record.node for record in found.trace() if record.direction == "do"} == {
            *NODES, "roof", "numbers", "room[0]/numbers", "room[1]/numbers", "room[2]/numbers",
        }  # fmt: skip


async def test_another_process_goes_on_with_it_and_one_without_an_action_inside_does_not() -> None:
    store, book = MemoryStore(), Book()
    await store.open()
    inject = {"room[2]/shelf[1]/second": Inject(fail_undo=-1), "roof": Inject(fail="before")}
    async with Coordinator(store, sagas=[house], deps=book, inject=inject, owner="one") as first:
        with pytest.raises(Stuck):
            await first.run(house.with_id("h"), 3)
    async with Coordinator(store, sagas=[house], deps=book, owner="two") as second:
        await second.retry("h", "room[2]/shelf[1]/second")
        with pytest.raises(RolledBack):
            await second.attach("h").result()
    assert sorted([*book.done, "roof"]) == sorted(book.undone)
    partial = ActionRegistry()
    partial.register(numbers)
    with pytest.raises(ActionNotFound, match="put"):
        SagaExecutor(house.dag, partial)


# -- tools -----------------------------------------------------------------------


def test_faults_are_ordered_by_the_path_of_a_node_in_an_element() -> None:
    plan = house.plan
    assert misfit(plan, "room[12]/shelf[0]/first") == ""
    assert misfit(plan, "roof") == ""
    for path in ("room", "room[1]", "room[1]/shelf[2]", "room[0]/shelf[0]/constant"):
        assert misfit(plan, path) == f"it runs no action at {path!r}"
    for path in (
        "room/shelf[0]/first",
        "room[1]/shelf[0]/third",
        "room[x]/numbers",
        "room[01]/numbers",
        "roof[0]",
    ):
        assert misfit(plan, path) == f"it has no node {path!r}"


def snapshot_of(shelves: int) -> Run:
    graph = dag(node("a"), each(PAIR, label="Shelves"), node("z", "s"))
    return Run(graph, {"s": shelves}).ok("a", "s[0]/x", "s[1]/x", "s[0]/y")


@pytest.mark.parametrize("draw", [render.dot, render.mermaid, render.text, render.svg])
def test_a_drawing_shows_each_element_or_folds_many_into_one(draw: Callable[[Any], str]) -> None:
    few, many = snapshot_of(3).machine, snapshot_of(50).machine
    shown = render.snapshot(few)
    frames = {group.path: (group.kind, group.group, group.count) for group in shown.groups}
    assert frames == {
        "s": ("fan_out", "", 3), "s[0]": ("subsaga", "s", None), "s[1]": ("subsaga", "s", None),
        "s[2]": ("subsaga", "s", None),
    }  # fmt: skip
    states = {one.path: one.state for one in shown.nodes if one.group.startswith("s[")}
    assert states["s[1]/x"] == "completed"
    assert states["s[1]/y"] == states["s[2]/x"] == "running"
    folded = next(one for one in render.snapshot(many).nodes if one.path == "s")
    assert dict(folded.tally) == {"completed": 1, "running": 49}
    assert folded.count == 50
    unknown = render.view(SAGAS)
    assert [(group.path, group.count) for group in unknown.groups] == [("s", None)]
    assert {one.path for one in unknown.nodes if one.group == "s"} == {"s/x", "s/y"}
    for source in (SAGAS, few, many):
        assert draw(source) == draw(source)
    assert "Shelves[2]" in draw(few).replace("#91;", "[").replace("#93;", "]")


@action
async def set_up(ctx: Ctx[FakeWorld], name: str) -> str:
    return str(ctx.deps.apply(ctx.key, name))


@set_up.undo(unknown=True)
async def tear_down(ctx: Ctx[FakeWorld], name: str | None) -> None:
    ctx.deps.undo(ctx.do_key)


@action
async def attach(ctx: Ctx[FakeWorld], name: str) -> str:
    return str(ctx.deps.apply(ctx.key, f"{name} attached"))


@saga
def disk(name: str) -> str:
    return attach(set_up(name))


@saga
def instance(names: list[str]) -> str:
    return set_up.options(name="boot").after(fan_out(disk, names))("boot")


@saga
def sound_disk(name: str) -> str:
    return set_up.options(name="attach")(set_up(name))


@saga
def sound_instance(names: list[str]) -> str:
    return set_up.options(name="boot").after(fan_out(sound_disk, names))("boot")


def test_a_proof_goes_through_every_node_of_every_element() -> None:
    proof = prove_saga(sound_instance, {"names": ["a", "b"]}, world=FakeWorld())
    assert sorted(proof.nodes) == sorted(
        ["boot", *(f"sound_disk[{k}]/{name}" for k in (0, 1) for name in ("set_up", "attach"))]
    )
    assert proof.not_run == ()


def test_a_proof_finds_the_node_of_an_element_that_is_not_undone() -> None:
    with pytest.raises(SagaNotProven) as caught:
        prove_saga(instance, {"names": ["a", "b"]}, world=FakeWorld())
    assert {finding.node for finding in caught.value.findings} & {"disk[0]/attach", "disk[1]/attach"}


def random_saga(rng: random.Random) -> tuple[Saga[..., Any], Callable[[int], Any]]:
    """A saga of nested fan-outs, and the same computed by plain Python."""

    def made(depth: int, name: str) -> tuple[Saga[..., Any], Callable[[int], Any]]:
        wide, more, order = rng.randint(0, 3), rng.randint(0, 9), rng.random() < 0.5
        if depth == 0:

            @saga(name=name)
            def end(number: int) -> int:
                return add(twice(number), more)

            return end, lambda number: 2 * number + more
        inner, plain = made(depth - 1, f"{name}i")

        @saga(name=name)
        def outer(number: int) -> Any:
            start = add(number, more)
            if order:
                return fan_out(inner, [start, number, *([number] * wide)])
            many = fan_out(inner.options(name="sub").after(start), numbers(constant(wide)))
            return fan_out(keep, many)

        def plainly(number: int) -> Any:
            if order:
                return [plain(number + more), plain(number), *(plain(number) for _ in range(wide))]
            return [plain(one) for one in range(wide)]

        return outer, plainly

    return made(rng.randint(1, 3), "random")


@action
async def keep(given: Any) -> Any:
    return given


@pytest.mark.parametrize("number", range(60))
async def test_random_nests_give_what_plain_python_gives(number: int) -> None:
    rng = random.Random(number)
    made, plain = random_saga(rng)
    store = MemoryStore()
    await store.open()
    executor = SagaExecutor(made, saga_id="r", store=store)
    assert await executor.execute(number) == plain(number)
    assert check_stored(await store.load("r"), Recorder()) == []
