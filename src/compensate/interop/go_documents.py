"""Sagas made of the state documents that the Go library has written. The form stands in `codec.document`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, cast

import msgspec
from msgspec import Raw

from compensate.authoring import Action, ActionRegistry
from compensate.codec import records as r
from compensate.codec.document import (
    CompletedAction,
    StateDocument,
    read_go_document,
)
from compensate.core import events as e
from compensate.core.dag import ActionNode, Dag
from compensate.core.events import Event
from compensate.core.log import Fold
from compensate.core.names import allowed_name, check_saga_id
from compensate.core.plan import Plan
from compensate.core.standing import PLAIN
from compensate.errors import ActionNotFound, CompensateError, DeserializeFailed, IllegalRequest, NameInvalid
from compensate.runtime.clock import Clock, SystemClock
from compensate.stores.base import NewSaga, Store

Actions = ActionRegistry | Iterable[Action[..., Any]] | Mapping[str, Action[..., Any]]
"""A registry, some actions, or actions by the names that a document has for them."""

IMPORTED: Final = "imported"
"""The owner of imported sagas. Nobody joins under that name, so they can be claimed at once."""


async def import_document(
    store: Store,
    document: StateDocument | str | bytes,
    actions: Actions,
    *,
    clock: Clock | None = None,
) -> str:
    """Store a saga that the Go library has run, so that it can be rolled back here.

    The document does not tell the graph, only the order: each completed action becomes a completed node that depends
    on the one before, so that they are undone in reverse. Each undo is given the recorded output. The document's
    context becomes the saga's params (as the one param `context`, if it is no object).

    The Go library allows names that cannot be names here, since they hold `/`, `[`, `]`, control characters, or more
    than 200 characters. Such a node or saga gets a name made of the document's: what is not allowed becomes `-`, and a
    digest of the whole name follows, so that it is always the same and no two are alike (`net/vpc` becomes
    `net-vpc~<digest>`). The node keeps the document's name as its label, which `show` and the drawings print, and of a
    saga the rollback's reason holds it. `imported_name` tells the name that a text gets.

    A completed saga is stored as completed: roll it back when it is time. Any other is stored as rolling back, and
    the next coordinator (or `SagaExecutor.from_stored`) undoes it, since what would have come next is not known.

    Args:
        store: An open store.
        document: As read, or its text.
        actions: Where the action of each node is found: by the document's name for it, as it stands there.
        clock: Where time comes from.

    Returns:
        The saga's id. On return the saga is durable; after `Unavailable` import it again.

    Raises:
        DeserializeFailed: It is no such document, or an output does not fit its action; names the field.
        ActionNotFound: An action is not there; names the field.
        IllegalRequest: It is rolled back already, or nothing in it has completed.
        SagaExists: The id is taken in the store.
    """
    if not isinstance(document, StateDocument):
        document = read_go_document(document)
    _check_field(check_saga_id, document.saga_id, "saga_id")
    if document.status == "rolled_back":
        raise IllegalRequest(f"saga {document.saga_id}: it is rolled back already; nothing was stored")
    if not document.completed:
        raise IllegalRequest(
            f"saga {document.saga_id}: no action in its document has completed, so there is nothing to undo; "
            "nothing was stored"
        )
    dag, params = _dag(document, _finder(actions))
    events = _events(document, dag, params, (clock or SystemClock()).now())
    fold = Fold(Plan(dag), document.saga_id)
    for event in events:
        fold.apply(event)
    assert fold.status is not None
    encoded = r.encode_dag(dag)
    saga = NewSaga(
        document.saga_id,
        dag.name,
        r.fingerprint(encoded),
        encoded,
        events,
        PLAIN[fold.status],
        document.created,
    )
    done = store.create(saga, IMPORTED)
    if done is not None:
        await done
    return document.saga_id


def _finder(actions: Actions) -> Callable[[str], Action[..., Any]]:
    if isinstance(actions, Mapping):
        by_name = cast("Mapping[str, Action[..., Any]]", actions)
        return by_name.__getitem__
    if isinstance(actions, ActionRegistry):
        return actions.get
    registry = ActionRegistry()
    for action in actions:
        registry.register(action)
    return registry.get


def _check_field(check: Callable[[str], object], value: str, field: str) -> None:
    try:
        check(value)
    except NameInvalid as error:
        raise DeserializeFailed(f"state document: `$.{field}`: {error}") from None


def _dag(document: StateDocument, find: Callable[[str], Action[..., Any]]) -> tuple[Dag, bytes]:
    nodes: list[ActionNode] = []
    names = [imported_name(completed.name) for completed in document.completed]
    for position, completed in enumerate(document.completed):
        where = f"completed_actions[{position}]"
        if names.count(names[position]) > 1:
            raise DeserializeFailed(
                f"state document: `$.{where}.name`: {completed.name!r} and another name of the document both become "
                f"{names[position]!r} here; rename one of them in the document"
            )
        try:
            action = find(completed.name)
        except LookupError as error:
            why = (
                error if isinstance(error, ActionNotFound) else f"no action was given for {completed.name!r}"
            )
            raise ActionNotFound(
                f"saga {document.saga_id}, state document: `$.{where}.name`: {why}; nothing was stored"
            ) from None
        _check_output(action, completed, where)
        nodes.append(
            ActionNode(
                names[position],
                action.name,
                after=(nodes[-1].name,) if nodes else (),
                label=action.label if names[position] == completed.name else completed.name,
                undo=action.undo_kind,
                undo_retry=action.undo_retry,
                undo_timeout=action.undo_timeout,
            )
        )
    params, given = _params(document)
    return Dag(imported_name(document.saga_name), tuple(nodes), given), params


def imported_name(name: str) -> str:
    """The name that a node or saga of a document of the Go library gets here: its own, if that is allowed.

    Args:
        name: As the document has it.
    """
    return allowed_name(name)


def _check_output(action: Action[..., Any], completed: CompletedAction, where: str) -> None:
    """What does not decode today would only leave the saga parked later."""
    try:
        action.output.decode(bytes(completed.output))
    except CompensateError as error:
        raise DeserializeFailed(
            f"state document: `$.{where}.output` is not what action {action.name!r} returns: {error}; "
            "nothing was stored"
        ) from None


_fields: Final = msgspec.json.Decoder(dict[str, Raw])


def _params(document: StateDocument) -> tuple[bytes, tuple[str, ...]]:
    context = bytes(document.context)
    if context == r.NULL:
        return b"{}", ()
    if context.startswith(b"{"):
        return context, tuple(_fields.decode(context))
    return r.join_fields([("context", context)]), ("context",)


def _events(document: StateDocument, dag: Dag, params: bytes, now: float) -> list[Event]:
    """The log that the saga would have, had it run here; the document knows only two of its times."""
    events = [Event(1, 1, document.created, e.SAGA_CREATED, data=e.Created(params))]

    def add(kind: str, at: float, node: str = "", data: e.Data = None) -> None:
        events.append(Event(len(events) + 1, 1, at, kind, node, 1 if node else 0, data))

    for node, completed in zip(dag.nodes, document.completed, strict=True):
        add(e.STARTED, document.updated, node.name)
        add(e.COMPLETED, document.updated, node.name, e.Completed(bytes(completed.output)))
    if document.status == "completed":
        add(e.SAGA_COMPLETED, document.updated)
    else:
        named = "" if dag.name == document.saga_name else f" from the saga {document.saga_name!r}"
        add(e.SAGA_ROLLBACK, now, data=e.Rollback("request", why=f"imported as {document.status}{named}"))
    return events
