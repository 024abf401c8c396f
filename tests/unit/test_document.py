"""The state document: always as its log says, and read back from the Go library."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

import compensate
from compensate import (
    ActionNotFound,
    Coordinator,
    DeserializeFailed,
    IllegalRequest,
    SagaExecutor,
    SagaExists,
)
from compensate.codec.document import STATUS, StateDocument, document_of, read_go_document
from compensate.core import events as e
from compensate.core import states as s
from compensate.core.dag import ActionNode, Dag, Each, Ref, SubsagaNode, Value
from compensate.core.events import Event
from compensate.core.log import Fold
from compensate.core.names import check_name
from compensate.core.plan import ACTION, Plan
from compensate.core.policy import Retry
from compensate.errors import CorruptLog
from compensate.inspection.documents import state_document
from compensate.interop.go_documents import import_document, imported_name
from compensate.stores import Store, open_store
from tests.support.driving import Run

# -- agreeing with the log -------------------------------------------------

INNER = Dag(
    "inner", (ActionNode("a", "a", undo="output"), ActionNode("b", "b", undo="unknown", after=("a",)))
)
DAG = Dag(
    "order",
    (
        ActionNode("first", "first", undo="output", retry=Retry(2)),
        ActionNode("each", "each", undo="output", each=Each("x", Value(Raw(b"[1,2,3]"))), after=("first",)),
        SubsagaNode("sub", INNER, after=("first",)),
        ActionNode("plain", "plain"),
        ActionNode("last", "last", undo="output", after=("each", "sub", "plain")),
    ),
    output=Ref("last"),
)


def some_log(data: st.DataObject) -> list[Event]:
    """Drive a machine through a history that hypothesis chooses."""
    run = Run(DAG, answers={"each": 3})
    for _ in range(data.draw(st.integers(0, 40), label="steps")):
        moves: list[Any] = []
        if run.doing:
            path = data.draw(st.sampled_from(run.doing), label="node")
            done = partial(run.ok, path, output=b'{"of":"%b"}' % path.encode())
            moves += [done, partial(run.fail, path), partial(run.doubt, path)]
        if run.undoing:
            path = data.draw(st.sampled_from(run.undoing), label="undo")
            moves += [partial(run.undone, path), partial(run.undo_fail, path)]
        if run.status == s.STUCK:
            path, choices = next(iter(run.stuck().items()))
            moves += [partial(run.decide, choice, path) for choice in choices]
        if run.status in (s.RUNNING, s.COMPLETED):
            moves.append(run.roll_back)
        if run.status in (s.RUNNING, s.ROLLING_BACK):
            moves.append(run.crash)
            if run.wait is not None and not run.doing and not run.undoing:
                moves.append(run.until)
        if not moves:
            break
        data.draw(st.sampled_from(moves), label="move")()
    return run.log


@given(st.data())
def test_the_document_agrees_with_the_fold_of_every_prefix_of_a_log(data: st.DataObject) -> None:
    log = some_log(data)
    fold = Fold(Plan(DAG), "s")
    for count, event in enumerate(log, 1):
        fold.apply(event)
        document = document_of("s", "order", log[:count])
        plan, state = fold.plan, fold.state
        standing = {
            plan.names[i]: output
            for i, output in enumerate(fold.output)
            if plan.kinds[i] == ACTION and output is not None and state[i] not in (s.UNDONE, s.RESOLVED)
        }
        assert {action.name: bytes(action.output) for action in document.completed} == standing
        assert fold.status is not None
        assert document.status == STATUS[fold.status]
        assert sorted(document.in_doubt) == sorted(
            plan.names[i] for i, its in enumerate(state) if its == s.IN_DOUBT and plan.kinds[i] == ACTION
        )
        assert (document.stuck != ()) == (fold.status == s.STUCK)
        assert document.last_seq == fold.seq
        assert document.paused == fold.paused


def test_the_histories_of_that_test_come_to_more_than_one_status() -> None:
    seen: set[str] = set()

    @given(st.data())
    def look(data: st.DataObject) -> None:
        log = some_log(data)
        seen.update(document_of("s", "order", log[:count]).status for count in range(1, len(log) + 1))

    look()
    assert seen >= {"running", "rolling_back", "rolled_back", "failed"}


def test_a_saga_without_faults_is_completed_and_one_that_is_rolled_back_then_is_rolled_back() -> None:
    run = Run(DAG, answers={"each": 3}).finish()
    assert document_of("s", "order", run.log).status == "completed"
    assert len(document_of("s", "order", run.log).completed) == 8
    run.roll_back().finish()
    assert document_of("s", "order", run.log).status == "rolled_back"
    assert [action.name for action in document_of("s", "order", run.log).completed] == ["plain"]


def test_completed_actions_stand_in_the_order_in_which_they_completed() -> None:
    run = Run(DAG, answers={"each": 3}).ok("plain", "first", "each[2]", "sub/a", "each[0]")
    document = document_of("s", "order", run.log)
    assert [action.name for action in document.completed] == ["plain", "first", "each[2]", "sub/a", "each[0]"]


def test_a_log_that_does_not_begin_with_its_creation_has_no_document() -> None:
    with pytest.raises(CorruptLog, match="saga s: its log does not begin with its creation"):
        document_of("s", "order", [Event(1, 1, 0.0, e.STARTED, "first", 1)])


# -- a real saga -----------------------------------------------------------

undone: list[object] = []


@compensate.action
async def make_vpc(region: str) -> dict[str, str]:
    return {"id": "vpc-1", "region": region}


@make_vpc.undo
async def drop_vpc(vpc: dict[str, str]) -> None:
    undone.append(vpc)


@compensate.action
async def make_subnet(vpc: dict[str, str], size: int) -> str:
    if size > 100:
        raise ValueError("too large")
    return f"subnet of {vpc['id']}"


@make_subnet.undo
async def drop_subnet(subnet: str) -> None:
    if subnet == "stubborn":
        raise compensate.Permanent("it will not go")
    undone.append(subnet)


@compensate.action
async def tag(subnet: str) -> None: ...


@compensate.saga
def network(region: str, size: int) -> str:
    subnet = make_subnet(make_vpc(region), size)
    tag(subnet)
    return subnet


ACTIONS: list[compensate.Action[..., Any]] = [make_vpc, make_subnet, tag]


def coordinator(store: str | Store = "memory://") -> Coordinator:
    return Coordinator(store, sagas=[network], actions=ACTIONS)


async def test_the_document_of_a_saga_has_the_fields_of_the_go_library() -> None:
    async with coordinator() as c:
        await c.run(network.with_id("n1"), "eu", 8)
        document = json.loads(state_document(await c.get("n1")).json())
    created, updated = document.pop("created_at"), document.pop("updated_at")
    assert document == {
        "saga_id": "n1",
        "saga_name": "network",
        "status": "completed",
        "context": {"region": "eu", "size": 8},
        "completed_actions": [
            {"name": "make_vpc", "output": {"id": "vpc-1", "region": "eu"}},
            {"name": "make_subnet", "output": "subnet of vpc-1"},
            {"name": "tag", "output": None},
        ],
        "last_seq": 8,
    }
    assert created.endswith("Z")
    assert created <= updated


async def test_after_a_rollback_the_document_holds_nothing_that_is_undone() -> None:
    async with coordinator() as c:
        with pytest.raises(compensate.RolledBack):
            await c.run(network.with_id("n1"), "eu", 101)
        document = state_document(await c.get("n1"))
    assert document.status == "rolled_back"
    assert document.completed == []


# -- documents of the Go library -------------------------------------------

GO = """{
  "saga_id": "my-vpc-123",
  "saga_name": "AWSInfrastructure",
  "status": "completed",
  "context": {
    "Region": "us-west-2",
    "Tags": {"owner": "R\\u0026D \\u003cops\\u003e"}
  },
  "completed_actions": [
    {
      "name": "make_vpc",
      "output": {
        "id": "vpc-0ab",
        "region": "us-west-2"
      }
    },
    {
      "name": "make_subnet",
      "output": "subnet-9"
    },
    {
      "name": "tag"
    }
  ],
  "created_at": "2025-07-01T14:03:07.123456789+02:00",
  "updated_at": "2025-07-01T12:03:09.5Z"
}"""


def go(**changed: Any) -> str:
    document = json.loads(GO)
    document.update(changed)
    return json.dumps(document)


def test_a_document_of_the_go_library_is_read() -> None:
    document = read_go_document(GO)
    assert (document.saga_id, document.saga_name, document.status) == (
        "my-vpc-123",
        "AWSInfrastructure",
        "completed",
    )
    assert [action.name for action in document.completed] == ["make_vpc", "make_subnet", "tag"]
    assert bytes(document.completed[2].output) == b"null"
    assert document.created == pytest.approx(1751371387.123456789, abs=1e-6)
    assert document.updated == 1751371389.5
    assert document.last_seq == 0


def test_a_nil_list_and_a_zero_time_of_go_are_read() -> None:
    document = read_go_document(go(completed_actions=None, created_at="0001-01-01T00:00:00Z", context=None))
    assert document.completed == []
    assert document.created == -62135596800.0


async def test_our_own_documents_are_read_too() -> None:
    async with coordinator() as c:
        await c.run(network.with_id("n1"), "eu", 8)
        document = state_document(await c.get("n1"))
    assert read_go_document(document.json()).json() == document.json()


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("", "state document"),
        ("[]", "object"),
        ("{}", "saga_id"),
        (GO[:-30], "state document"),
        ("\udc80", "state document"),
        (go(saga_id=7), r"\$.saga_id"),
        (go(saga_id=""), r"\$.saga_id"),
        (go(saga_name=None), r"\$.saga_name"),
        (go(status="unwinding"), r"\$.status"),
        (go(completed_actions={}), r"\$.completed_actions"),
        (go(completed_actions=[{"output": 1}]), r"\$.completed_actions\[0\]"),
        (go(completed_actions=[{"name": ""}]), r"\$.completed_actions\[0\].name"),
        (go(completed_actions=[{"name": "a"}, {"name": "a"}]), r"\$.completed_actions\[1\].name.*twice"),
        (go(created_at="yesterday"), r"\$.created_at.*'yesterday'"),
        (go(created_at="2025-02-30T00:00:00Z"), r"\$.created_at"),
        (go(updated_at="2025-07-01T12:00:00"), r"\$.updated_at"),
        (go(updated_at=1751364187), r"\$.updated_at"),
    ],
)
def test_a_bad_document_is_refused_and_its_field_named(text: str, field: str) -> None:
    with pytest.raises(DeserializeFailed, match=field):
        read_go_document(text)


async def test_a_completed_saga_of_the_go_library_is_rolled_back_in_reverse_order() -> None:
    undone.clear()
    async with coordinator() as c:
        assert await import_document(c.store, GO, ACTIONS) == "my-vpc-123"
        snapshot = await c.get("my-vpc-123")
        assert snapshot.status == "completed"
        assert snapshot.params() == json.loads(GO)["context"]
        assert snapshot.record.name == "AWSInfrastructure"
        run = await c.rollback("my-vpc-123")
        with pytest.raises(compensate.RolledBack):
            await run.result()
        assert state_document(await c.get("my-vpc-123")).status == "rolled_back"
    assert undone == ["subnet-9", {"id": "vpc-0ab", "region": "us-west-2"}]


@pytest.mark.parametrize("status", ["running", "failed", "rolling_back"])
async def test_a_saga_that_the_go_library_left_half_way_is_undone_by_the_next_coordinator(
    status: str,
) -> None:
    undone.clear()
    store = open_store("memory://")
    await store.open()
    await import_document(store, go(status=status), ACTIONS)
    assert (await store.load("my-vpc-123")).record.status == "rolling_back"
    async with coordinator(store) as c:
        with pytest.raises(compensate.RolledBack, match=f"imported as {status}"):
            await c.attach("my-vpc-123").result()
    assert undone == ["subnet-9", {"id": "vpc-0ab", "region": "us-west-2"}]


async def test_an_executor_undoes_an_imported_saga_too() -> None:
    undone.clear()
    store = open_store("memory://")
    await store.open()
    await import_document(store, GO, ACTIONS)
    executor = await SagaExecutor.from_stored(store, "my-vpc-123", ACTIONS)
    await executor.rollback("no longer needed")
    assert len(undone) == 2


async def test_a_failing_undo_leaves_an_imported_saga_stuck_and_its_document_says_where() -> None:
    async with coordinator() as c:
        changed = json.loads(GO)["completed_actions"]
        changed[1]["output"] = "stubborn"
        await import_document(c.store, go(completed_actions=changed), ACTIONS)
        run = await c.rollback("my-vpc-123")
        with pytest.raises(compensate.Stuck):
            await run.result()
        document = state_document(await c.get("my-vpc-123"))
    assert document.status == "failed"
    assert [node.node for node in document.stuck] == ["make_subnet"]
    assert [action.name for action in document.completed] == ["make_vpc", "make_subnet", "tag"]


async def test_actions_can_be_given_by_the_names_that_the_document_has_for_them() -> None:
    undone.clear()
    text = go(completed_actions=[{"name": "Create VPC", "output": {"id": "v"}}])
    async with coordinator() as c:
        await import_document(c.store, text, {"Create VPC": make_vpc})
        run = await c.rollback("my-vpc-123")
        with pytest.raises(compensate.RolledBack):
            await run.result()
    assert undone == [{"id": "v"}]


@pytest.mark.parametrize("context", [None, 5, ["a"], "text", {}])
async def test_any_context_becomes_params(context: object) -> None:
    store = open_store("memory://")
    await store.open()
    await import_document(store, go(context=context), ACTIONS)
    document = state_document(await store.load("my-vpc-123"))
    expected = {} if context is None else context if isinstance(context, dict) else {"context": context}
    assert json.loads(bytes(document.context)) == expected


@pytest.mark.parametrize(
    ("changed", "kind", "why"),
    [
        ({"saga_id": "../etc"}, DeserializeFailed, r"\$.saga_id"),
        ({"status": "rolled_back"}, IllegalRequest, "rolled back already"),
        ({"completed_actions": None}, IllegalRequest, "no action in its document has completed"),
        ({"completed_actions": [{"name": "a/b"}]}, ActionNotFound, r"\$.completed_actions\[0\].name.*'a/b'"),
        (
            {"completed_actions": [{"name": "a/b"}, {"name": imported_name("a/b")}]},
            DeserializeFailed,
            r"\$.completed_actions\[0\].name.*rename one",
        ),
        (
            {"completed_actions": [{"name": "make_vpcs"}]},
            ActionNotFound,
            r"\$.completed_actions\[0\].name.*make_vpcs.*make_vpc",
        ),
        (
            {"completed_actions": [{"name": "make_vpc", "output": 5}]},
            DeserializeFailed,
            r"\$.completed_actions\[0\].output.*make_vpc",
        ),
        (
            {"completed_actions": [{"name": "make_vpc"}]},
            DeserializeFailed,
            r"\$.completed_actions\[0\].output",
        ),
    ],
)
async def test_what_cannot_be_imported_is_refused_and_nothing_is_stored(
    changed: dict[str, Any], kind: type[Exception], why: str
) -> None:
    store = open_store("memory://")
    await store.open()
    with pytest.raises(kind, match=why):
        await import_document(store, go(**changed), ACTIONS)
    assert (await store.page()).records == []


ODD = [
    "net/vpc",
    "net-vpc",
    "net[vpc",
    "infra [prod]",
    "a" * 201,
    "a" * 5_000,
    "/",
    "[]",
    ".",
    "..",
    " edge ",
    "edge",
    "tab\there",
    "line\nbreak",
    "\x1b[31mred",
    "\u202eright",
    "lone \ud800",
    "größe/é",
    "vpc[0]",
    "a/b/do",
]


def test_a_name_that_is_not_allowed_here_becomes_one_that_is_and_no_two_the_same() -> None:
    made = {text: imported_name(text) for text in ODD}
    assert len(set(made.values())) == len(ODD)
    for text, name in made.items():
        assert check_name(name, "name") == name
        assert imported_name(text) == name
        assert imported_name(name) == name, "an allowed name is kept"
    assert made["net/vpc"].startswith("net-vpc~")
    assert made["net-vpc"] == "net-vpc"


@given(st.text(min_size=1, max_size=400), st.text(min_size=1, max_size=400))
def test_any_text_becomes_a_name(one: str, other: str) -> None:
    check_name(imported_name(one), "name")
    assert (imported_name(one) == imported_name(other)) == (one == other)


@pytest.mark.parametrize("url", ["memory://", "file", "sqlite"])
@pytest.mark.parametrize("status", ["completed", "failed"])
async def test_a_document_with_names_that_are_not_allowed_here_is_rolled_back(
    url: str, status: str, tmp_path: Path
) -> None:
    undone.clear()
    names = [text for text in ODD if text.isprintable()] + ["tab\there", "line\nbreak"]
    outputs = {name: {"id": f"v{position}"} for position, name in enumerate(names)}
    text = go(
        saga_name="infra [prod]",
        status=status,
        completed_actions=[{"name": name, "output": output} for name, output in outputs.items()],
    )
    where = {"file": f"file:///{tmp_path / 'f'}", "sqlite": f"sqlite:///{tmp_path / 's.db'}"}.get(url, url)
    async with compensate.Coordinator(where, actions=ACTIONS) as c:
        await import_document(c.store, text, dict.fromkeys(names, make_vpc))
        snapshot = await c.get("my-vpc-123")
        nodes = {node.label or node.name: node.name for node in snapshot.fold.plan.dag.nodes}
        assert nodes == {name: imported_name(name) for name in names}, "the label tells the document's name"
        run = await (c.rollback("my-vpc-123") if status == "completed" else c.adopt("my-vpc-123"))
        with pytest.raises(compensate.RolledBack):
            await run.result()
        if status == "failed":
            assert "'infra [prod]'" in str((await c.get("my-vpc-123")).fold.rollback)
    assert undone == [outputs[name] for name in reversed(names)]


async def test_importing_twice_is_refused() -> None:
    store = open_store("memory://")
    await store.open()
    document: StateDocument = read_go_document(GO)
    await import_document(store, document, ACTIONS)
    with pytest.raises(SagaExists):
        await import_document(store, document, ACTIONS)
