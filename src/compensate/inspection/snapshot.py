"""A saga as it stood when it was read."""

from __future__ import annotations

from typing import Any, TypeVar, overload

from msgspec import structs

from compensate.authoring import ActionRegistry
from compensate.codec import records as r
from compensate.codec import type_codec
from compensate.core import events as e
from compensate.core import states as s
from compensate.core.events import Event
from compensate.core.log import Fold
from compensate.core.machine import Machine
from compensate.core.names import short_reason
from compensate.core.plan import Plan
from compensate.core.shown import states
from compensate.errors import ActionFailed
from compensate.inspection.bindings import Bindings
from compensate.inspection.endings import error_of, output_of
from compensate.inspection.fit import misfit
from compensate.inspection.timeline import TraceRecord, trace
from compensate.stores.base import SagaRecord, StoredSaga

V = TypeVar("V")


class Snapshot:
    """A saga as it stood when it was read.

    Attributes:
        record: Id, name, status, owner, times.
        fold: Everything else: state, attempts, output and errors of each node.
        events: The log.
    """

    def __init__(self, stored: StoredSaga, plan: Plan | None = None) -> None:
        self.record: SagaRecord = stored.record
        self.events: list[Event] = stored.events
        self.fold: Fold = Machine.fold(
            plan or Plan(r.decode_dag(stored.dag)), stored.record.id, stored.events, stored.record.epoch
        )

    def __repr__(self) -> str:
        return f"<saga {self.id} of {self.record.name}: {self.status}, {len(self.events)} events>"

    @property
    def id(self) -> str:
        """The saga's id."""
        return self.record.id

    @property
    def status(self) -> s.SagaStatus:
        """How it stands."""
        return self.record.status

    @property
    def nodes(self) -> dict[str, s.NodeState]:
        """State of each node by its path; that of a subsaga or fan-out follows from what is inside it."""
        return states(self.fold)

    @overload
    def params(self, tp: type[V]) -> V: ...
    @overload
    def params(self, tp: object = ...) -> Any: ...
    def params(self, tp: Any = Any) -> Any:
        """The saga's params, as one object of type `tp`; plain JSON data by default.

        Raises:
            DeserializeFailed: They are something else.
        """
        return type_codec(tp, where="params").decode(self.fold.params)

    @overload
    def output(self, node: str = ..., *, tp: type[V]) -> V: ...
    @overload
    def output(self, node: str = ..., *, tp: object = ...) -> Any: ...
    def output(self, node: str = "", *, tp: Any = Any) -> Any:
        """The output of a node by its path, or of the saga, as `tp`; plain JSON data by default.

        Raises:
            NotFound: There is no such node.
            DeserializeFailed: It has none (yet), or it is something else.
        """
        return output_of(self.fold, node, tp)

    def error(self, node: str = "") -> ActionFailed | None:
        """The last error of a node by its path, or the one that turned the saga back or has it stuck.

        `None`: there is none.

        Raises:
            NotFound: There is no such node.
        """
        return error_of(self.fold, node)

    def trace(self) -> list[TraceRecord]:
        """Every attempt of an action or undo, with times, in the order in which they started."""
        return trace(self.fold, self.events)

    def _repr_svg_(self) -> str:
        from compensate import render

        return render.svg(render.snapshot(self.fold, self.events))

    def _repr_html_(self) -> str:
        from compensate import render

        return render.html(render.snapshot(self.fold, self.events))

    def misfit(self, registry: ActionRegistry) -> str:
        """Why these actions could not run all of the saga that may still run; `""` if they could. Changes nothing.

        The reason names the node: its action is unknown, takes other parameters, or its undo is gone or of another
        kind; or a value that is stored no longer decodes where it is read. A coordinator with these actions would park
        the saga for that reason. Of a completed saga it is what a rollback would need.
        """
        wrong = misfit(self.fold, Bindings(self.fold.plan, registry.get))
        return "" if wrong is None else str(wrong)

    def stuck(self) -> tuple[e.StuckNode, ...]:
        """The nodes that need an operator, why, and what can be chosen. The log has the errors' qualified classes."""
        nodes = () if self.fold.stuck is None else self.fold.stuck.nodes
        return tuple(structs.replace(node, reason=short_reason(node.reason)) for node in nodes)
