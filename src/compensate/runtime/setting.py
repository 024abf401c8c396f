"""What the executions of one coordinator (or executor) share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from typing import Any

from compensate.authoring import Action
from compensate.core.events import Event
from compensate.errors import DefinitionError, IllegalRequest
from compensate.runtime.calls.threads import Job, Straggler
from compensate.runtime.clock import Clock, SteadyClock
from compensate.runtime.inject import Inject, checked
from compensate.runtime.log import Report
from compensate.runtime.slots import Slots
from compensate.stores.base import Store
from compensate.stores.common import STATUSES

Observer = Callable[[str, Sequence[Event]], None]
"""Called with a saga's id and events that have just become durable, in their order, by the process that wrote them.

It runs on the coordinator's event loop, before the saga goes on, so it must not block; it may start a task. What it
raises is written to the log and changes nothing. Events whose write the process did not survive are not told.
"""


def check_numbers(
    lease: float, poll: float, grace: float, drain: float, max_actions: int, threads: int, crashes: int
) -> None:
    """Refuse settings of a coordinator that make no sense.

    Raises:
        DefinitionError: Names the first of them.
    """
    for name, seconds in (("lease", lease), ("poll", poll)):
        if not 0 < seconds < math.inf:
            raise DefinitionError(f"Coordinator: {name} is {seconds}; give seconds above 0")
    for name, seconds in (("grace", grace), ("drain", drain)):
        if not seconds >= 0:
            raise DefinitionError(f"Coordinator: {name} is {seconds}; give seconds, 0 or more")
    for name, count in (("max_actions", max_actions), ("threads", threads)):
        if count < 1:
            raise DefinitionError(f"Coordinator: {name} is {count}; give 1 or more")
    check_crashes("Coordinator", crashes)


def check_crashes(whose: str, crashes: int) -> None:
    """Refuse a number of deaths that cannot be reached.

    Raises:
        DefinitionError: It is below 1.
    """
    if crashes < 1:
        raise DefinitionError(f"{whose}: crashes is {crashes}; give 1 or more")


def check_page(status: object, limit: object) -> None:
    """Refuse what no page can be asked for with.

    Raises:
        IllegalRequest: Says which.
    """
    if not isinstance(limit, int) or limit < 1:
        raise IllegalRequest(f"a page of {limit!r} sagas; give a limit of 1 or more")
    if status is not None and status not in STATUSES:
        raise IllegalRequest(f"no saga has status {status!r}; give one of {', '.join(sorted(STATUSES))}")


def require_deps(actions: Iterable[Action[..., Any]], deps: object, *, advice: str = "give deps=...") -> None:
    """Refuse actions and undos that take `Ctx[Deps]` where there are no deps: each call of them would fail.

    Args:
        actions: All that may run.
        deps: What they would get as `ctx.deps`.
        advice: How deps are given, for the message.

    Raises:
        DefinitionError: Names the first action or undo.
    """
    if deps is not None:
        return
    for action in actions:
        if action.needs_deps:
            raise DefinitionError(
                f"{action.needs_deps}, but there are no deps; nothing was started; {advice}, or annotate the parameter "
                "Ctx[None] if it needs none"
            )


class Setting:
    """What the executions of one coordinator share."""

    __slots__ = ("clock", "deps", "inject", "left_behind", "observers", "pool", "report", "slots", "store")

    def __init__(
        self,
        store: Store,
        clock: Clock,
        deps: Any = None,
        *,
        slots: Slots | None = None,
        pool: Executor | None = None,
        observers: Sequence[Observer] = (),
        inject: Mapping[str, Inject] | None = None,
        report: Report,
    ) -> None:
        self.store = store
        self.clock = SteadyClock(clock)
        self.deps = deps
        self.slots = slots
        self.pool = pool
        self.observers = observers
        self.inject = checked("inject=", inject)
        self.report = report
        self.left_behind: dict[Job | Straggler, str] = {}
        """What still runs though nothing waits for it any more, with the ids of its sagas."""
