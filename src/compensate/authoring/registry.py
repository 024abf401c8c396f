"""The registry: actions and saga definitions by name, as stored sagas look for them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from compensate.authoring.actions import Action
from compensate.authoring.sagas import Saga
from compensate.core.dag import Dag, action_nodes
from compensate.errors import ActionNotFound, DefinitionError, SagaNotFound


class ActionRegistry:
    """Actions by name, and the saga definitions that use them."""

    def __init__(self) -> None:
        self._actions: dict[str, Action[..., Any]] = {}
        self._sagas: dict[str, Saga[..., Any]] = {}

    def register(self, action: Action[..., Any]) -> None:
        """Add an action; adding the same one again changes nothing.

        Raises:
            DefinitionError: Another action has its name.
        """
        if type(action) is not Action:
            raise DefinitionError(f"register: {action!r} is no action; decorate the function with @action")
        self._check(action)
        self._actions.setdefault(action.name, action)

    def _check(self, action: Action[..., Any]) -> None:
        known = self._actions.get(action.name, action)
        if known is not action:
            raise DefinitionError(
                f"two actions are named {action.name!r}: {_both(known, action)}; stored sagas find actions by name, so "
                f"{_remedy(known, action, '@action')}"
            )

    def register_saga(self, saga: Saga[..., Any], *, graphs: bool = False) -> None:
        """Add a saga definition and every action that it uses.

        Variants of one definition (`with_id`, `options`) are the same saga, and so are two that were made of equal dags
        with equal types. Where a file was loaded twice (run as a script, and imported too), each loading has made
        definitions of its own, whose classes differ: they are two.

        Args:
            saga: The definition.
            graphs: Whether a name may stand for many graphs that are made at run time, by `saga_from_dag` or by a
                function in which one `@saga` is written. Those do not clash then; the first keeps the name.

        Raises:
            DefinitionError: Another saga, or another action, has the name. Nothing was added.
        """
        known = self._sagas.get(saga.name)
        if (
            known is not None
            and not known.definition.same_as(saga.definition)
            and not (graphs and known.definition.akin_to(saga.definition))
        ):
            raise DefinitionError(
                f"two sagas are named {saga.name!r}: {_both(known, saga)}; stored sagas are known by that name, so "
                f"{_remedy(known, saga, '@saga')}"
            )
        for action in saga.actions.values():
            self._check(action)
        for action in saga.actions.values():
            self._actions.setdefault(action.name, action)
        self._sagas.setdefault(saga.name, saga)

    @property
    def sagas(self) -> Mapping[str, Saga[..., Any]]:
        """The saga definitions by name."""
        return MappingProxyType(self._sagas)

    def get(self, name: str) -> Action[..., Any]:
        """The action of that name.

        Raises:
            ActionNotFound: There is none; the message says which names come near.
        """
        try:
            return self._actions[name]
        except KeyError:
            raise ActionNotFound(_unknown("action", name, self._actions)) from None

    def get_saga(self, name: str) -> Saga[..., Any]:
        """The saga definition of that name.

        Raises:
            SagaNotFound: There is none; the message says which names come near.
        """
        try:
            return self._sagas[name]
        except KeyError:
            raise SagaNotFound(_unknown("saga", name, self._sagas)) from None

    def names(self) -> tuple[str, ...]:
        """Names of all actions, in the order in which they came."""
        return tuple(self._actions)

    def saga_names(self) -> tuple[str, ...]:
        """Names of all saga definitions, in the order in which they came."""
        return tuple(self._sagas)

    def __contains__(self, name: object) -> bool:
        return name in self._actions

    def __len__(self) -> int:
        return len(self._actions)


def action_names(dag: Dag) -> tuple[str, ...]:
    """Names of the actions that a dag runs, subsagas included, each once."""
    return tuple(dict.fromkeys(node.action for _, node in action_nodes(dag)))


def actions_of(dag: Dag, registry: ActionRegistry) -> dict[str, Action[..., Any]]:
    """The actions that a dag runs, subsagas included, by name.

    Raises:
        ActionNotFound: The registry does not know one; the message names the dag and the node.
    """
    actions: dict[str, Action[..., Any]] = {}
    for path, node in action_nodes(dag):
        try:
            actions[node.action] = registry.get(node.action)
        except ActionNotFound as error:
            raise ActionNotFound(
                f"dag {dag.name}: {error}; node {path!r} runs it; register it before the dag is used"
            ) from None
    return actions


def _both(known: Action[..., Any] | Saga[..., Any], other: Action[..., Any] | Saga[..., Any]) -> str:
    """Both places, with the modules in which the files were loaded if the places are the same."""
    if known.where != other.where:
        return f"{known.where} and {other.where}"
    return f"{known.where}, in module {_module(known)!r}, and {other.where}, in module {_module(other)!r}"


def _module(one: Action[..., Any] | Saga[..., Any]) -> str:
    return one.fn.__module__ if isinstance(one, Action) else one.definition.module


def _remedy(
    known: Action[..., Any] | Saga[..., Any], other: Action[..., Any] | Saga[..., Any], how: str
) -> str:
    if known.where != other.where:
        return f"give one of them another: {how}(name=...)"
    if _module(known) == _module(other):
        return "define it once, outside of the function that makes it anew at every call"
    return (
        "load the file once: import it under one name everywhere, and start the program from another file if it is run "
        "as a script too"
    )


def _unknown(what: str, name: str, known: dict[str, Any]) -> str:
    from difflib import get_close_matches  # not at every import of the package

    near = get_close_matches(str(name), known, n=3)
    if near:
        hint = f"did you mean {' or '.join(repr(one) for one in near)}?"
    elif known:
        hint = f"known are {', '.join(sorted(known)[:10])}{', …' if len(known) > 10 else ''}"
    else:
        hint = f"no {what} is registered"
    return f"no {what} is named {str(name)[:60]!r}; {hint}"
