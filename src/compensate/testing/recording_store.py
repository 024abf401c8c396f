"""A store that notes every call of another one, for the checker."""

from __future__ import annotations

from collections.abc import Awaitable, Collection, Generator, Sequence
from typing import Any, TypeVar

from compensate.core.events import Event
from compensate.core.standing import Standing
from compensate.core.states import SagaStatus
from compensate.stores.base import (
    Answer,
    Damaged,
    Done,
    NewSaga,
    Page,
    Request,
    Store,
    StoredSaga,
    Verb,
)
from compensate.testing.recorder import OK, Claimed, Recorder

T = TypeVar("T")


class _Noting:
    """An acknowledgement still to come; its outcome is noted when it is awaited."""

    def __init__(self, done: Awaitable[None], recorder: Recorder, call: int) -> None:
        self._done = done
        self._recorder = recorder
        self._call = call

    def __await__(self) -> Generator[Any, None, None]:
        try:
            yield from self._done.__await__()
        except BaseException as error:
            self._recorder.came_back(self._call, type(error).__name__)
            raise
        self._recorder.came_back(self._call, OK)


class RecordingStore:
    """Does what `store` does and notes every call with its outcome. One for each coordinator.

    Args:
        store: The real one.
        recorder: Where calls are noted, in one order with effects.
        actor: The name of the coordinator that uses it, in the records.
    """

    def __init__(self, store: Store, recorder: Recorder, actor: str = "") -> None:
        self._store = store
        self._recorder = recorder
        self._actor = actor

    @property
    def url(self) -> str:
        """As `Store.url`."""
        return self._store.url

    async def open(self) -> None:
        """As `Store.open`."""
        await self._store.open()

    async def close(self) -> None:
        """As `Store.close`."""
        await self._store.close()

    # -- owners ------------------------------------------------------------

    async def join(self, owner: str, now: float, lease: float) -> None:
        """As `Store.join`."""
        await self._plain("join", self._store.join(owner, now, lease))

    async def renew(self, owner: str, now: float, lease: float) -> bool:
        """As `Store.renew`."""
        return await self._plain("renew", self._store.renew(owner, now, lease))

    async def leave(self, owner: str, keep: Collection[str] = ()) -> None:
        """As `Store.leave`."""
        await self._plain("leave", self._store.leave(owner, keep))

    def retire(self, owner: str) -> None:
        """As `Store.retire`."""
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
        """As `Store.claim`."""
        call = self._recorder.called("claim", "", self._actor)
        try:
            claimed = await self._store.claim(
                owner, now, limit=limit, parked=parked, least=least, below=below
            )
        except BaseException as error:
            self._recorder.came_back(call, type(error).__name__)
            raise
        self._recorder.came_back(call, OK, [_claimed(one) for one in claimed if isinstance(one, StoredSaga)])
        return claimed

    async def claim_one(self, saga_id: str, owner: str, now: float) -> StoredSaga | None:
        """As `Store.claim_one`."""
        call = self._recorder.called("claim_one", saga_id, self._actor)
        try:
            stored = await self._store.claim_one(saga_id, owner, now)
        except BaseException as error:
            self._recorder.came_back(call, type(error).__name__)
            raise
        self._recorder.came_back(call, OK, [] if stored is None else [_claimed(stored)])
        return stored

    def release(self, saga_id: str, epoch: int, created_at: float | None = None) -> Done:
        """As `Store.release`."""
        call = self._recorder.called("release", saga_id, self._actor, epoch)
        return self._write(call, lambda: self._store.release(saga_id, epoch, created_at))

    # -- logs --------------------------------------------------------------

    def create(self, saga: NewSaga, owner: str) -> Done:
        """As `Store.create`."""
        call = self._recorder.called("create", saga.id, self._actor, 1, saga.events)
        return self._write(call, lambda: self._store.create(saga, owner))

    def append(
        self,
        saga_id: str,
        epoch: int,
        expected_seq: int,
        events: Sequence[Event],
        standing: Standing,
        created_at: float | None = None,
    ) -> Done:
        """As `Store.append`."""
        call = self._recorder.called("append", saga_id, self._actor, epoch, events)
        return self._write(
            call, lambda: self._store.append(saga_id, epoch, expected_seq, events, standing, created_at)
        )

    # -- reading -----------------------------------------------------------

    async def load(self, saga_id: str) -> StoredSaga:
        """As `Store.load`."""
        return await self._plain("load", self._store.load(saga_id), saga_id)

    async def events(self, saga_id: str, after: int = 0) -> list[Event]:
        """As `Store.events`."""
        return await self._plain("events", self._store.events(saga_id, after), saga_id)

    async def page(
        self,
        *,
        status: SagaStatus | None = None,
        name: str | None = None,
        cursor: str | None = None,
        limit: int = 100,
    ) -> Page:
        """As `Store.page`."""
        return await self._store.page(status=status, name=name, cursor=cursor, limit=limit)

    async def delete(self, saga_id: str) -> None:
        """As `Store.delete`."""
        await self._plain("delete", self._store.delete(saga_id), saga_id)

    # -- operators' requests -----------------------------------------------

    async def post(self, saga_id: str, verb: Verb, data: bytes, now: float) -> int:
        """As `Store.post`."""
        return await self._plain("post", self._store.post(saga_id, verb, data, now), saga_id)

    async def requests(self, owner: str) -> Sequence[Request]:
        """As `Store.requests`."""
        return await self._store.requests(owner)

    async def answer(self, number: int, answer: Answer) -> None:
        """As `Store.answer`."""
        await self._store.answer(number, answer)

    async def answered(self, number: int) -> Answer | None:
        """As `Store.answered`."""
        return await self._store.answered(number)

    # -- noting ------------------------------------------------------------

    async def _plain(self, name: str, done: Awaitable[T], saga_id: str = "") -> T:
        call = self._recorder.called(name, saga_id, self._actor)
        try:
            result = await done
        except BaseException as error:
            self._recorder.came_back(call, type(error).__name__)
            raise
        self._recorder.came_back(call, OK)
        return result

    def _write(self, call: int, write: Any) -> Done:
        try:
            done: Done = write()
        except BaseException as error:
            self._recorder.came_back(call, type(error).__name__)
            raise
        if done is None:
            self._recorder.came_back(call, OK)
            return None
        return _Noting(done, self._recorder, call)


def _claimed(stored: StoredSaga) -> Claimed:
    return Claimed(stored.record.id, stored.record.epoch, stored.record.last_seq)
