"""What a node of a dag is made of: a source (an action or saga) and the options of that one node.

This module holds the data alone. `tracing` makes the nodes, and `options` is what authors call.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from compensate.authoring.refs import source_of
from compensate.codec import TypeCodec
from compensate.core.dag import Each, Expr, Node, Ref
from compensate.core.policy import Retry


class NodeOptions(msgspec.Struct, frozen=True):
    """Settings of one node; `None` leaves what the action says."""

    name: str | None = None
    label: str | None = None
    retry: Retry | None = None
    timeout: float | None = None
    undo_retry: Retry | None = None
    undo_timeout: float | None = None
    after: tuple[object, ...] = ()
    flag: object = None

    @property
    def when(self) -> Ref | None:
        """The reference that decides whether the node runs."""
        source = source_of(self.flag)
        return None if source is None else source.ref()


DEFAULT = NodeOptions()


class NodeSource(Protocol):
    """What can become a node: an action or a saga, where the same members are described."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def where(self) -> str: ...  # noqa: D102
    @property
    def params(self) -> Mapping[str, TypeCodec[Any]]: ...  # noqa: D102
    @property
    def output(self) -> TypeCodec[Any] | None: ...  # noqa: D102
    @property
    def signature(self) -> inspect.Signature: ...  # noqa: D102
    @property
    def actions(self) -> Mapping[str, Any]: ...  # noqa: D102
    def bind(self, *args: Any, **kwargs: Any) -> dict[str, Any]: ...  # noqa: D102
    def make_node(  # noqa: D102
        self, name: str, inputs: dict[str, Expr], settings: NodeOptions = DEFAULT, *, each: Each | None = None
    ) -> Node: ...


def is_node_source(one: object) -> bool:
    """Whether an object is a `NodeSource`, which the modules of actions and sagas cannot ask of each other by class."""
    return hasattr(type(one), "make_node")
