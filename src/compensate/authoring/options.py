"""Options of one node: what `.options`, `.after` and `.when` collect before the call that makes the node."""

from __future__ import annotations

from typing import Any, Generic, ParamSpec, TypeVar

import msgspec

from compensate.authoring.placement import NodeOptions, NodeSource
from compensate.authoring.refs import source_of
from compensate.authoring.signatures import author_line, members
from compensate.authoring.tracing import add_node
from compensate.codec.values import type_name
from compensate.core.policy import Retry
from compensate.errors import DefinitionError

P = ParamSpec("P")
T_co = TypeVar("T_co", covariant=True)


class ConfiguredAction(Generic[P, T_co]):
    """An action or saga with settings for one node. Call it to make the node; the settings chain."""

    __slots__ = ("settings", "target")

    def __init__(self, target: NodeSource, settings: NodeOptions) -> None:
        self.target = target
        self.settings = settings

    def __repr__(self) -> str:
        return f"<{self.target.where}, placed>"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T_co:
        """Make the node; see `Action.__call__`."""
        return add_node(self.target, self.settings, args, kwargs)  # type: ignore[no-any-return]

    def options(
        self,
        *,
        name: str | None = None,
        label: str | None = None,
        retry: Retry | None = None,
        timeout: float | None = None,
        undo_retry: Retry | None = None,
        undo_timeout: float | None = None,
    ) -> ConfiguredAction[P, T_co]:
        """Change what is given, leave the rest; see `Action.options`."""
        given = {
            "name": name,
            "label": label,
            "retry": retry,
            "timeout": timeout,
            "undo_retry": undo_retry,
            "undo_timeout": undo_timeout,
        }
        changes: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
        return ConfiguredAction(self.target, msgspec.structs.replace(self.settings, **changes))

    def after(self, *nodes: object) -> ConfiguredAction[P, T_co]:
        """Start only after these nodes, given as references or by name, have completed; adds to earlier ones."""
        return ConfiguredAction(
            self.target, msgspec.structs.replace(self.settings, after=(*self.settings.after, *nodes))
        )

    def when(self, flag: bool) -> ConfiguredAction[P, T_co | None]:
        """Run only if the flag is true; see `Action.when`.

        Raises:
            DefinitionError: The flag is no reference to a `bool`, or there is one already.
        """
        where = f"{author_line()}: {self.target.name}.when"
        source = source_of(flag)
        if source is None:
            raise DefinitionError(
                f"{where}: the flag is no reference to a value that an action or the params will give; for one that "
                "is known now use a plain `if`"
            )
        if not {bool, Any} & set(members(source.type)):
            raise DefinitionError(
                f"{where}: {source.shown} is {type_name(source.type)}; let an action return a bool"
            )
        if self.settings.flag is not None:
            raise DefinitionError(f"{where}: it has a flag already; let an action combine the two")
        placed: ConfiguredAction[P, T_co | None] = ConfiguredAction(
            self.target, msgspec.structs.replace(self.settings, flag=flag)
        )
        return placed
