"""What the checks are made of."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final, Protocol, TypeAlias

from compensate.codec.records import encode_dag, fingerprint
from compensate.core import events as e
from compensate.core.dag import ActionNode, Dag, Ref
from compensate.core.events import Event
from compensate.core.standing import PLAIN, Standing
from compensate.core.states import SagaStatus
from compensate.errors import (
    CompensateError,
)
from compensate.stores.base import Damaged, Done, NewSaga, Store, StoredSaga


class Place(Protocol):
    """Somewhere to keep sagas."""

    def store(self) -> Store:
        """A store over this place, not opened. All stores of a place see the same sagas, also at once.

        A store in memory returns itself each time.
        """
        ...

    def damage(self, saga_id: str) -> bool:
        """Alter the middle of a saga's log behind the stores' backs. `False`: there is no way to."""
        ...


Check: TypeAlias = Callable[[Place], Awaitable[None]]

CHECKS: Final[list[Check]] = []
"""Every check. Their names are sentences."""

NOW: Final = 1_000.0
LEASE: Final = 30.0
RUNNING: Final = PLAIN["running"]
ROLLING_BACK: Final = PLAIN["rolling_back"]
COMPLETED: Final = PLAIN["completed"]
STUCK: Final = PLAIN["stuck"]
LATER: Final = NOW + LEASE
"""When a lease taken at `NOW` has run out."""

DAG: Final = encode_dag(Dag("order", (ActionNode("reserve", "reserve"),), output=Ref("reserve")))

ODD_IDS: Final = (
    "it's",
    'a "quoted" id',
    "percent%20sign",
    "back\\slash",
    "semi;colon--",
    "star*and?mark",
    "Upper",
    "upper",
    "naïve-Ünïcödé",
    "naïve".replace("ï", "i\u0308"),
    "日本語の注文",
    "🧾🚚",
    "..hidden",
    "con",
    "a:b|c<d>e",
    "x" * 200,
    "é" * 200,
    "🧾" * 200,
)
"""Ids that file systems, SQL and JSON might stumble over."""


def check(function: Check) -> Check:
    """Make a function one of `CHECKS`."""
    CHECKS.append(function)
    return function


# -- tools -----------------------------------------------------------------


@asynccontextmanager
async def opened(place: Place) -> AsyncGenerator[Store]:
    """A store, open for the time of the block."""
    store = place.store()
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def done(write: Done) -> None:
    """Wait for a write."""
    if write is not None:
        await write


async def refused(kind: type[CompensateError], call: Callable[[], object]) -> CompensateError:
    """The error of that kind that `call` raises, now or when it is awaited."""
    caught: CompensateError | None = None
    try:
        made = call()
        if isinstance(made, Awaitable):
            await made
    except kind as error:
        caught = error
    assert caught is not None, f"{kind.__name__} was not raised"
    assert str(caught), f"{kind.__name__} says nothing"
    return caught


def new(saga_id: str, at: float = NOW, status: SagaStatus = "running", name: str = "order") -> NewSaga:
    """A saga of one event."""
    created = Event(1, 1, at, e.SAGA_CREATED, data=e.Created(b'{"cents":5}', deadline=at + 60))
    return NewSaga(saga_id, name, fingerprint(DAG), DAG, [created], PLAIN[status], at)


def steps(seq: int, count: int = 2, epoch: int = 1, at: float = NOW) -> list[Event]:
    """Some events about nodes, from `seq` on."""
    return [
        Event(number, epoch, at, e.COMPLETED, f"reserve[{number}]", 1, e.Completed(b'{"hold":"x"}'))
        if number % 2
        else Event(number, epoch, at, e.STARTED, f"reserve[{number}]", 1)
        for number in range(seq, seq + count)
    ]


def saga_event(seq: int, kind: str, data: e.Data = None, epoch: int = 1) -> list[Event]:
    """One event about the saga itself."""
    return [Event(seq, epoch, NOW, kind, data=data)]


async def end(store: Store, saga_id: str, status: SagaStatus, *, parked: str = "", epoch: int = 1) -> None:
    """Bring a saga of one event to an end."""
    kinds: dict[SagaStatus, str] = {
        "completed": e.SAGA_COMPLETED,
        "rolled_back": e.SAGA_ROLLED_BACK,
        "stuck": e.SAGA_STUCK,
    }
    data = e.SagaStuck(parked=parked) if status == "stuck" else None
    standing = Standing(status, parked=bool(parked))
    await done(store.append(saga_id, epoch, 1, saga_event(2, kinds[status], data, epoch), standing))


def ids(claimed: Sequence[StoredSaga | Damaged]) -> list[str]:
    """Whose they are."""
    return [saga.saga_id if isinstance(saga, Damaged) else saga.record.id for saga in claimed]
