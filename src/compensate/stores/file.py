"""A store in one folder of readable files, for one or several processes of one machine.

Each saga has an append-only log `<id>.log` (see `file_log`), which alone counts, and a state document `<id>.json` (see
`codec.document`), which is derived from it. An append costs one fsync. Every operation holds the folder's lock for a
moment; epoch and seq are checked and the line is written under it, so that they hold between processes too. A
process that is stopped while it holds that lock keeps the others waiting, and never makes them wrong.

The document is rewritten up to `LAG` seconds after its log has grown (later under load), when the store is closed,
and when it is opened after a crash.

To list or claim sagas, every file is looked at: this store is for hundreds or some thousands of sagas.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from heapq import nsmallest
from pathlib import Path
from time import perf_counter
from typing import Final, TypeVar

import msgspec

from compensate.core.events import Event
from compensate.core.standing import Standing
from compensate.core.states import COMPLETED, ROLLED_BACK, STUCK, SagaStatus
from compensate.errors import CompensateError, SagaNotFound, Unavailable
from compensate.stores.base import (
    Answer,
    Damaged,
    Done,
    NewSaga,
    Page,
    Request,
    StoredSaga,
    Verb,
)
from compensate.stores.common import (
    another,
    claim_order,
    cursor_at,
    cursor_key,
    fits,
    in_hand,
    not_over,
    refusal,
)
from compensate.stores.disk import Disk, FolderLock, ReadOnly, Sealed, denied, not_ours
from compensate.stores.file_desk import Owners, Requests, Sheet, StoredRequest
from compensate.stores.file_log import Log, Signature, State, first_lines, next_state
from compensate.stores.file_names import encode_id
from compensate.stores.file_shelf import Shelf
from compensate.stores.liveness import Liveness

T = TypeVar("T")

LAG: Final = 0.2
"""Seconds after which a state document is rewritten."""

_SHARE: Final = 10
"""So many times longer than it takes to write the documents is waited before they are written again."""

_BATCH: Final = 64
"""Most documents written at once."""

_PAUSES: Final = (*(0.001 for _ in range(20)), *(0.01 for _ in range(498)))
"""Seconds between tries to get the folder's lock; five in all."""


def _died(state: State, owners: Owners, claimant: str) -> bool:
    """Whether a saga that `claimant` may claim has lost its process."""
    return state.died or (state.owner not in (None, claimant) and state.owner not in owners.drained)


def _order(log: Log, owners: Owners, claimant: str) -> tuple[int, float, str]:
    state = log.state
    # What is damaged says nothing reliable; somebody is told of it with the first claim.
    suspicion = 0 if state is None or log.error is not None else state.deaths + _died(state, owners, claimant)
    return claim_order(suspicion, log.created_at, log.id)


class _Busy(Exception):
    """Somebody else holds the folder's lock."""


class FileStore:
    """Keeps sagas in the files of a folder, which is made if it is not there, for its owner's eyes alone.

    Args:
        folder: On a local disk.
        disk: What writes; tests give their own.

    Attributes:
        url: How it was named.
    """

    def __init__(self, folder: str | Path, *, disk: Disk | None = None) -> None:
        self.url = f"file:///{folder}"
        self._folder = Path(folder).absolute()
        self._given = disk or Disk()
        self._disk = self._given
        self._lock = FolderLock(self._folder / ".lock")
        self._shelf = Shelf(self._folder, self._disk)
        self._liveness = Liveness(self._folder / ".owners")
        self._owners = Sheet(self._folder / ".owners.data", Owners)
        self._requests = Sheet(self._folder / ".requests.data", Requests)
        self._open = False
        self._joined: set[str] = set()
        self._shown: set[tuple[str, str, Signature | None]] = set()
        """Owners and damaged logs that they were told of."""
        self._timer: asyncio.TimerHandle | None = None
        self._lag = LAG

    async def open(self) -> None:
        """As `Store.open`. Opening an open store does nothing."""
        if self._open:
            return
        self._check_writable()
        try:
            self._make_folder()
            self._lock.open()
        except OSError as error:
            self._lock.close()
            raise Unavailable(
                f"{self.url}: it cannot be opened: {error}; name a folder on a local disk that you may write to"
            ) from error
        self._open = True
        try:
            await self._run("opening it", self._begin)
        except BaseException:
            self._open = False
            self._lock.close()
            raise

    async def look(self) -> None:
        """Open it to be read alone: nothing is made, tidied up or written. For a folder that may not be written."""
        if not os.access(self._folder, os.R_OK | os.X_OK):
            raise not_ours(self.url, self._folder, "read")
        self._lock.open(looking=True)
        self._disk = Sealed()
        self._shelf = Shelf(self._folder, self._disk)
        self._open = True

    def _check_writable(self) -> None:
        for place in (self._folder, self._folder / ".lock"):
            if os.access(place, os.F_OK) and not os.access(place, os.W_OK):
                raise not_ours(self.url, place)

    def _make_folder(self) -> None:
        missing = [self._folder, *self._folder.parents]
        missing = [path for path in missing if not path.exists()]
        for path in reversed(missing):
            path.mkdir(mode=0o700, exist_ok=True)
            self._disk.sync_folder(path.parent)
        if not self._folder.is_dir():
            raise NotADirectoryError(f"{self._folder} is a file")

    def _begin(self) -> None:
        self._liveness.sweep(self._owners.read().leases)
        self._requests.read()
        self._shelf.open()
        with suppress(OSError):
            self._shelf.write_documents(_BATCH)

    async def close(self) -> None:
        """As `Store.close`. Owners that did not leave count as dead from now on."""
        if not self._open:
            return
        try:
            with suppress(Unavailable):  # documents can wait
                await self._run("closing it", lambda: self._shelf.write_documents(len(self._shelf.outdated)))
        finally:
            self._open = False
            if self._disk is not self._given:  # it was open to be read alone
                self._disk = self._given
                self._shelf = Shelf(self._folder, self._disk)
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            self._lock.close()
            self._liveness.close()
            self._joined.clear()
            self._shelf.close()

    # -- the lock ----------------------------------------------------------

    def _locked(self, doing: str, work: Callable[[], T]) -> T:
        """Do something under the folder's lock. Raises `_Busy` if somebody else holds it."""
        if not self._open:
            raise Unavailable(f"{self.url}: it is not open; nothing was done; await open() first")
        try:
            if not self._lock.take():
                raise _Busy
            try:
                return work()
            finally:
                self._lock.drop()
        except OSError as error:
            if denied(error):
                raise ReadOnly(
                    f"{self.url}: {doing}: it is read-only here: {error}; nothing was changed; run as a user "
                    "who may read and write all of the folder"
                ) from error
            raise Unavailable(
                f"{self.url}: {doing}: {error}; check the disk, then read the log again before going on"
            ) from error

    async def _run(self, doing: str, work: Callable[[], T]) -> T:
        for pause in _PAUSES:
            try:
                return self._locked(doing, work)
            except _Busy:
                await asyncio.sleep(pause)
        raise Unavailable(
            f"{self.url}: {doing}: another process has kept the folder locked for {sum(_PAUSES):.0f} s; nothing was "
            "done; look for a process that is stopped"
        )

    def _now_or_soon(self, doing: str, work: Callable[[], None]) -> Done:
        try:
            self._locked(doing, work)
        except _Busy:
            return asyncio.get_running_loop().create_task(self._run(doing, work))
        return None

    # -- owners ------------------------------------------------------------

    async def join(self, owner: str, now: float, lease: float) -> None:
        """As `Store.join`."""

        def join() -> None:
            if not self._liveness.hold(owner):
                raise Unavailable(
                    f"{self.url}: another living process goes by the owner name {owner}; take another"
                )
            owners = self._owners.read()
            if owner not in self._joined:
                # Left by an earlier life of that name.
                self._release_all(owner, died=owner not in owners.drained)
            owners.forget(owner)
            owners.leases[owner] = now + lease
            self._owners.write(self._disk)
            self._joined.add(owner)

        await self._run(f"letting owner {owner} join", join)

    async def renew(self, owner: str, now: float, lease: float) -> bool:
        """As `Store.renew`."""

        def renew() -> bool:
            owners = self._owners.read()
            if not owners.alive(owner, now):
                return False
            if owner not in owners.drained:
                owners.leases[owner] = now + lease
                self._owners.write(self._disk)
            return True

        return await self._run(f"renewing the lease of {owner}", renew)

    async def leave(self, owner: str, keep: Collection[str] = ()) -> None:
        """As `Store.leave`."""

        def leave() -> None:
            self._release_all(owner, keep)
            owners = self._owners.read()
            if keep:
                self._liveness.keep(owner)
                if owner in owners.leases and owner not in owners.drained:
                    owners.drained.append(owner)
                    self._owners.write(self._disk)
                return
            if owners.forget(owner):
                self._owners.write(self._disk)
            self._joined.discard(owner)
            self._liveness.drop(owner)

        await self._run(f"letting owner {owner} leave", leave)

    def retire(self, owner: str) -> None:
        """As `Store.retire`."""
        self._liveness.retire(owner)

    def _release_all(self, owner: str, keep: Collection[str] = (), *, died: bool = False) -> None:
        for log in self._shelf.scan():
            if log.error is None and log.sound().owner == owner and log.id not in keep:
                state = log.sound()
                log.add(self._disk, msgspec.structs.replace(state, owner=None, died=state.died or died))

    def _bury(self, owner: str) -> Owners:
        """Forget the other owners whose processes are gone; those that are left."""
        owners = self._owners.read()
        dead = self._liveness.seize([other for other in owners.leases if other != owner])
        if dead:
            try:
                for other in dead:
                    if other in owners.drained:
                        self._release_all(other)
                    owners.forget(other)
                self._owners.write(self._disk)
            except BaseException:
                self._liveness.spare(dead)
                raise
            self._liveness.bury(dead)
        return owners

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
        """As `Store.claim`. A damaged log is not written to; its claimant is told of it once."""

        def claim() -> list[StoredSaga | Damaged]:
            owners = self._bury(owner)
            free = [
                (_order(log, owners, owner), log)
                for log in self._shelf.scan()
                if self._is_free(log, owners, owner, now, parked=parked)
            ]
            asked = [
                (order, log)
                for order, log in free
                if order[0] >= least and (below is None or order[0] < below)
            ]
            claimed: list[StoredSaga | Damaged] = []
            for _, log in nsmallest(limit, asked, key=lambda one: one[0]):
                try:
                    claimed.append(self._take(log, owners, owner))
                except CompensateError as error:
                    self._shown.add((owner, log.file, log.signature))
                    claimed.append(Damaged(log.id, error))
                except OSError:
                    if not claimed:
                        raise
                    break  # those that were claimed must be known
            return claimed

        return await self._run("claiming sagas", claim)

    def _is_free(self, log: Log, owners: Owners, owner: str, now: float, *, parked: bool) -> bool:
        state = log.state
        if (owner, log.file, log.signature) in self._shown:
            return False
        if state is None:
            return True  # nobody can tell whose it is, but somebody must be told
        if state.status in (COMPLETED, ROLLED_BACK) or (
            state.status == STUCK and not (parked and state.parked)
        ):
            return False
        return state.owner != owner and (state.owner is None or not owners.alive(state.owner, now))

    def _take(self, log: Log, owners: Owners, owner: str) -> StoredSaga:
        stored = self._shelf.load(log)  # what cannot be read is not claimed
        state = log.sound()
        epoch, died = state.epoch + 1, _died(state, owners, owner)
        log.add(self._disk, msgspec.structs.replace(state, epoch=epoch, owner=owner, died=died))
        record = msgspec.structs.replace(stored.record, epoch=epoch, owner=owner, died=died)
        return msgspec.structs.replace(stored, record=record)

    async def claim_one(self, saga_id: str, owner: str, now: float) -> StoredSaga | None:
        """As `Store.claim_one`."""

        def claim() -> StoredSaga | None:
            owners = self._bury(owner)
            log = self._shelf.find(saga_id)
            holder = log.sound().owner
            if holder is not None and holder != owner and owners.alive(holder, now):
                return None
            return self._take(log, owners, owner)

        return await self._run(f"claiming saga {saga_id}", claim)

    def release(self, saga_id: str, epoch: int, created_at: float | None = None) -> Done:
        """As `Store.release`."""

        def release() -> None:
            with suppress(SagaNotFound):
                log = self._shelf.find(saga_id)
                state = log.sound()
                same = state.epoch == epoch and created_at in (None, log.created_at)
                if same and state.owner is not None:
                    log.add(self._disk, msgspec.structs.replace(state, owner=None))

        return self._now_or_soon(f"releasing saga {saga_id}", release)

    # -- logs --------------------------------------------------------------

    def create(self, saga: NewSaga, owner: str) -> Done:
        """As `Store.create`.

        Raises:
            SerializeFailed: Its dag is no text. Nothing was changed.
        """
        if not fits(saga.events, 1, 0):
            raise refusal(saga.id, 1, 0, saga.events, 1, 0)
        lines = first_lines(saga, owner)

        def create() -> None:
            self._shelf.create(saga.id, lines)
            self._outdated(encode_id(saga.id))

        return self._now_or_soon(f"creating saga {saga.id}", create)

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

        def append() -> None:
            log = self._shelf.find(saga_id)
            state = log.sound()
            if created_at is not None and log.created_at != created_at:
                raise another(saga_id)
            if state.epoch != epoch or state.seq != expected_seq or not fits(events, epoch, expected_seq):
                raise refusal(saga_id, epoch, expected_seq, events, state.epoch, state.seq)
            log.add(self._disk, next_state(epoch, state.owner, events, standing))
            self._outdated(log.file)

        return self._now_or_soon(f"appending to saga {saga_id}", append)

    # -- reading -----------------------------------------------------------

    async def load(self, saga_id: str) -> StoredSaga:
        """As `Store.load`."""
        return await self._run(f"reading saga {saga_id}", lambda: self._shelf.load(self._shelf.find(saga_id)))

    async def events(self, saga_id: str, after: int = 0) -> list[Event]:
        """As `Store.events`."""
        return (await self.load(saga_id)).events[max(after, 0) :]

    async def page(
        self,
        *,
        status: SagaStatus | None = None,
        name: str | None = None,
        cursor: str | None = None,
        limit: int = 100,
    ) -> Page:
        """As `Store.page`. A damaged log counts as far as it is sound."""
        at, saga_id = (None, "") if cursor is None else cursor_key(cursor)
        records = [log.record() for log in await self._run("listing sagas", self._shelf.scan)]
        asked = [
            record
            for record in records
            if record is not None
            and (status is None or record.status == status)
            and (name is None or record.name == name)
            and (at is None or (-record.created_at, record.id) > (-at, saga_id))
        ]
        found = nsmallest(limit + 1, asked, key=lambda record: (-record.created_at, record.id))
        return Page(found[:limit], cursor_at(found[limit - 1]) if len(found) > limit else None)

    async def delete(self, saga_id: str) -> None:
        """As `Store.delete`."""

        def delete() -> None:
            log = self._shelf.find(saga_id)
            state = log.sound()
            if state.status not in (COMPLETED, ROLLED_BACK):
                raise not_over(saga_id, state.status)
            if state.owner is not None and state.owner in self._owners.read().leases:
                raise in_hand(saga_id, state.owner)
            requests = self._requests.read()
            if any(request.saga_id == saga_id for request in requests.requests):
                requests.requests = [request for request in requests.requests if request.saga_id != saga_id]
                self._requests.write(self._disk)
            self._shelf.remove(log)

        await self._run(f"deleting saga {saga_id}", delete)

    # -- operators' requests -----------------------------------------------

    async def post(self, saga_id: str, verb: Verb, data: bytes, now: float) -> int:
        """As `Store.post`."""

        def post() -> int:
            self._shelf.find(saga_id)
            requests = self._requests.read()
            requests.posted += 1
            requests.requests.append(StoredRequest(requests.posted, saga_id, verb, data, now))
            self._requests.write(self._disk)
            return requests.posted

        return await self._run(f"leaving a request for saga {saga_id}", post)

    async def requests(self, owner: str) -> Sequence[Request]:
        """As `Store.requests`."""

        def requests() -> list[Request]:
            return [
                Request(request.number, request.saga_id, request.verb, request.data)
                for request in self._requests.read().requests
                if request.error is None and self._owner(request.saga_id) == owner
            ]

        return await self._run("reading requests", requests)

    def _owner(self, saga_id: str) -> str | None:
        try:
            return self._shelf.find(saga_id).sound().owner
        except CompensateError:
            return None

    async def answer(self, number: int, answer: Answer) -> None:
        """As `Store.answer`."""

        def reply() -> None:
            for request in self._requests.read().requests:
                if request.number == number and request.error is None:
                    request.error = answer.error
                    self._requests.write(self._disk)
                    return

        await self._run(f"answering request {number}", reply)

    async def answered(self, number: int) -> Answer | None:
        """As `Store.answered`."""

        def answered() -> Answer | None:
            for request in self._requests.read().requests:
                if request.number == number and request.error is not None:
                    return Answer(request.error)
            return None

        return await self._run("reading requests", answered)

    # -- documents ---------------------------------------------------------

    def _outdated(self, name: str) -> None:
        """The log has grown: its document is rewritten soon."""
        self._shelf.outdated[name] = None
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._lag, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        began = perf_counter()
        with suppress(_Busy, CompensateError):  # later, then
            self._locked("writing documents", lambda: self._shelf.write_documents(_BATCH))
        self._lag = max(LAG, _SHARE * (perf_counter() - began))
        if self._shelf.outdated and self._open:
            self._timer = asyncio.get_running_loop().call_later(self._lag, self._on_timer)
