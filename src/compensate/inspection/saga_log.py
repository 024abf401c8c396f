"""`SagaLog`: the log of one saga in the hand, as in steno and the Go library; for tools and tests.

Stores and executors do not need it. It keeps to the same rules as they do, since it asks the same `Fold`.
"""

from __future__ import annotations

from collections.abc import Iterable

from compensate.core.dag import Dag
from compensate.core.events import Event
from compensate.core.log import Fold
from compensate.core.plan import Plan
from compensate.core.states import SagaStatus
from compensate.errors import CorruptLog, IllegalRequest
from compensate.render.lines import event_line
from compensate.render.words import plain


class SagaLog:
    """The events of one saga, each checked against the dag and what came before.

    Args:
        dag: The saga's graph.
        saga_id: The saga's id.
    """

    def __init__(self, dag: Dag, saga_id: str) -> None:
        self.saga_id = saga_id
        self._plan = Plan(dag)
        self._events: list[Event] = []
        self._fold = Fold(self._plan, saga_id)

    @classmethod
    def recover(cls, dag: Dag, saga_id: str, events: Iterable[Event]) -> SagaLog:
        """The log that holds `events`, as a store has given them.

        Raises:
            CorruptLog: They cannot be; says which.
        """
        log = cls(dag, saga_id)
        for event in events:
            log._fold.apply(event)
            log._events.append(event)
        return log

    def record(self, event: Event) -> None:
        """Add an event.

        Raises:
            IllegalRequest: It cannot follow what is there; says why. The log is as before.
        """
        try:
            self._fold.apply(event)
        except CorruptLog as error:
            self._fold = Fold(self._plan, self.saga_id)  # the refused event may have left its mark
            for known in self._events:
                self._fold.apply(known)
            raise IllegalRequest(f"not recorded: {str(error).partition('; ')[0]}") from None
        self._events.append(event)

    @property
    def events(self) -> tuple[Event, ...]:
        """What was recorded, in order."""
        return tuple(self._events)

    @property
    def status(self) -> SagaStatus | None:
        """How the saga stands; `None` before it was created."""
        return self._fold.status

    @property
    def rolling_back(self) -> bool:
        """Whether rollback has begun (steno, Go: unwinding); stays true when it has ended."""
        return self._fold.rollback is not None

    def __len__(self) -> int:
        return len(self._events)

    def pretty(self) -> str:
        """The log for people: a head, then a line for each event."""
        direction = "back" if self.rolling_back else "forward"
        lines = [
            f"saga {self.saga_id}",
            f"dag {self._plan.dag.name}",
            f"status {self.status or 'not created'}, going {direction}, {len(self._events)} events",
        ]
        lines += [plain(event_line(event)) for event in self._events]
        return "\n".join(lines)

    __str__ = pretty

    def __repr__(self) -> str:
        return f"<SagaLog of {self.saga_id}: {len(self._events)} events, {self.status or 'not created'}>"
