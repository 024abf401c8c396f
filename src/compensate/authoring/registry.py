"""The registry: actions and saga definitions by name, as stored sagas look for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from compensate.authoring.actions import Action
from compensate.core.dag import Dag, action_nodes
from compensate.errors import ActionNotFound, DefinitionError, SagaNotFound

if TYPE_CHECKING:
    from compensate.authoring.sagas import Saga


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
        known = self._actions.setdefault(action.name, action)
        if known is not action:
            raise DefinitionError(
                f"two actions are named {action.name!r}: {known.where} and {action.where}; stored sagas find actions "
                "by name, so give one of them another: @action(name=...)"
            )

    def register_saga(self, saga: Saga[..., Any]) -> None:
        """Add a saga definition and every action that it uses.

        Raises:
            DefinitionError: Another saga, or another action, has the name.
        """
        known = self._sagas.get(saga.name)
        if known is not None and known.definition is not saga.definition:
            raise DefinitionError(
                f"two sagas are named {saga.name!r}: {known.where} and {saga.where}; give one of them another: "
                "@saga(name=...)"
            )
        for action in saga.actions.values():
            self.register(action)
        self._sagas.setdefault(saga.name, saga)

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
    return tuple(dict.fromkeys(node.action for node in action_nodes(dag)))


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
