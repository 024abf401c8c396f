"""A store in memory that is slow and fails: every operation takes a while, and some come to nobody knows what."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import TypeVar

from compensate.core.events import Event
from compensate.core.standing import Standing
from compensate.core.states import SagaStatus
from compensate.errors import Unavailable
from compensate.stores.base import Answer, Damaged, Done, NewSaga, Page, Request, StoredSaga, Verb
from compensate.stores.memory import MemoryStore

T = TypeVar("T")


class Troubled:
    """One coordinator's way to a store that several share.

    Like that of a real store, a write that its caller gives up may be done all the same, and writes are done in the
    order in which they were asked for.

    Args:
        store: The store.
        draw: Of what is drawn.
        slowest: Seconds that an operation takes at most, before and after it is done.
        failing: How often one fails; half of those are done all the same.
    """

    def __init__(
        self, store: MemoryStore, draw: random.Random, *, slowest: float = 0.02, failing: float = 0.05
    ) -> None:
        self.fired: Counter[str] = Counter()
        self.slowest = slowest
        self.failing = failing
        self.closed = False
        self._store = store
        self._draw = draw
        self._turn = asyncio.Lock()

    @property
    def url(self) -> str:
        return self._store.url

    async def _do(self, name: str, operation: Callable[[], Awaitable[T]]) -> T:
        if self.closed:
            raise Unavailable(f"{name}: the store is closed")
        draw = self._draw
        before, after = draw.random() * self.slowest, draw.random() * self.slowest
        fails = draw.choice(("before", "after")) if draw.random() < self.failing else ""

        async def work() -> T:
            async with self._turn:
                await asyncio.sleep(before)
                if fails == "before":
                    self.fired[f"{name} not done"] += 1
                    raise Unavailable(f"{name}: the store failed, and nothing was done")
                result = await operation()
            await asyncio.sleep(after)
            if fails == "after":
                self.fired[f"{name} done"] += 1
                raise Unavailable(f"{name}: the store failed; it was done all the same")
            return result

        task = asyncio.create_task(work())
        task.add_done_callback(_hear)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            self.fired[f"{name} given up"] += 1
            raise

    async def open(self) -> None:
        """Nothing is to be opened; the store is shared."""

    async def close(self) -> None:
        async with self._turn:
            self.closed = True

    async def join(self, owner: str, now: float, lease: float) -> None:
        await self._store.join(owner, now, lease)

    async def renew(self, owner: str, now: float, lease: float) -> bool:
        return await self._do("renew", lambda: self._store.renew(owner, now, lease))

    async def leave(self, owner: str, keep: Collection[str] = ()) -> None:
        async with self._turn:
            await self._store.leave(owner, keep)

    def retire(self, owner: str) -> None:
        self._store.retire(owner)

    async def claim(
        self,
        owner: str,
        now: float,
        *,
        limit: int,
        parked: bool = False,
        least: int = 0,
        below: int | None = None,
    ) -> list[StoredSaga | Damaged]:
        return await self._do(
            "claim",
            lambda: self._store.claim(owner, now, limit=limit, parked=parked, least=least, below=below),
        )

    async def claim_one(self, saga_id: str, owner: str, now: float) -> StoredSaga | None:
        return await self._do("claim_one", lambda: self._store.claim_one(saga_id, owner, now))

    def release(self, saga_id: str, epoch: int, created_at: float | None = None) -> Awaitable[None]:
        return self._do("release", lambda: _written(lambda: self._store.release(saga_id, epoch, created_at)))

    def create(self, saga: NewSaga, owner: str) -> Awaitable[None]:
        return self._do("create", lambda: _written(lambda: self._store.create(saga, owner)))

    def append(
        self,
        saga_id: str,
        epoch: int,
        expected_seq: int,
        events: Sequence[Event],
        standing: Standing,
        created_at: float | None = None,
    ) -> Awaitable[None]:
        return self._do(
            "append",
            lambda: _written(
                lambda: self._store.append(saga_id, epoch, expected_seq, events, standing, created_at)
            ),
        )

    async def load(self, saga_id: str) -> StoredSaga:
        return await self._do("load", lambda: self._store.load(saga_id))

    async def events(self, saga_id: str, after: int = 0) -> list[Event]:
        return await self._do("events", lambda: self._store.events(saga_id, after))

    async def page(
        self,
        *,
        status: SagaStatus | None = None,
        name: str | None = None,
        cursor: str | None = None,
        limit: int = 100,
    ) -> Page:
        return await self._do(
            "page", lambda: self._store.page(status=status, name=name, cursor=cursor, limit=limit)
        )

    async def delete(self, saga_id: str) -> None:
        await self._do("delete", lambda: self._store.delete(saga_id))

    async def post(self, saga_id: str, verb: Verb, data: bytes, now: float) -> int:
        return await self._do("post", lambda: self._store.post(saga_id, verb, data, now))

    async def requests(self, owner: str) -> Sequence[Request]:
        return await self._do("requests", lambda: self._store.requests(owner))

    async def answer(self, number: int, answer: Answer) -> None:
        await self._do("answer", lambda: self._store.answer(number, answer))

    async def answered(self, number: int) -> Answer | None:
        return await self._do("answered", lambda: self._store.answered(number))


async def _written(write: Callable[[], Done]) -> None:
    done = write()
    if done is not None:
        await done


def _hear(task: asyncio.Task[T]) -> None:
    """What it raised is nobody's if its caller has given it up."""
    if not task.cancelled():
        task.exception()
