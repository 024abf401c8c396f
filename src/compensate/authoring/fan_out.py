"""Fan-out: one action or saga over a list that is known only when the saga runs."""

from __future__ import annotations

from collections.abc import Callable, Collection
from inspect import Parameter
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from compensate.authoring.actions import Action
from compensate.authoring.options import ConfiguredAction
from compensate.authoring.placement import DEFAULT, NodeOptions, is_node_source
from compensate.authoring.signatures import author_line
from compensate.authoring.tracing import add_node
from compensate.errors import DefinitionError

P = ParamSpec("P")
T = TypeVar("T")
Item = TypeVar("Item")


def fan_out(
    action: Callable[Concatenate[Item, P], T], items: Collection[Item], /, *args: P.args, **kwargs: P.kwargs
) -> list[T]:
    """Run an action or a saga once for every item of a list; returns a reference to the list of outputs, in its order.

    The elements are nodes `reserve[0]`, `reserve[1]` and so on; the size is recorded in the log, and each element is
    run, retried and undone by itself. Where a saga is given each element is a subsaga of its own, with nodes
    `disk[0]/create`, `disk[0]/attach` and so on, which is undone node by node. An empty list gives an empty list.

    Args:
        action: An action or saga, or one with settings: `fan_out(reserve.options(name="holds").after(paid), lines)`.
        items: A reference to a list, or a list of values and references. Each item is the first argument.
        args: The same for all elements: the arguments after the first.
        kwargs: The same for all elements, by name.

    Raises:
        DefinitionError: Outside of a `@saga` function, the items or arguments do not fit, or it has a `when`.
    """
    given: Any = action
    if is_node_source(given) and not isinstance(given, Action):
        given = given.after()  # a saga, with the settings of its own options
    settings: NodeOptions = DEFAULT
    target = cast("Any", given)
    if isinstance(given, ConfiguredAction):
        placed = cast("ConfiguredAction[..., Any]", given)
        settings, target = placed.settings, placed.target
    where = f"{author_line()}: fan_out"
    if not is_node_source(target):
        raise DefinitionError(
            f"{where}: it runs actions and sagas, not {type(target).__name__} "
            f"{getattr(target, '__name__', target)!r}; decorate the function with @action or @saga"
        )
    if not target.params:
        raise DefinitionError(f"{where}: {target.name} takes no parameter that an item could be given as")
    if settings.flag is not None:
        raise DefinitionError(
            f"{where}: {target.name} has a `when`; fan out over an empty list to run none, or put the fan-out into a "
            "saga and call that with `.when(flag)`"
        )
    first = next(iter(target.params))
    if target.signature.parameters[first].kind is Parameter.KEYWORD_ONLY:
        raise DefinitionError(
            f"{where}: the first parameter of {target.name} is keyword-only; an item needs a place"
        )
    return add_node(target, settings, (items, *args), kwargs, fan=True)  # type: ignore[no-any-return]
