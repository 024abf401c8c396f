"""Adoption: how a coordinator comes to run sagas that are stored already."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from compensate.core import states as s
from compensate.errors import CompensateError, CorruptLog, SagaNotFound, StoreError, Unavailable
from compensate.runtime.execution import Change, Execution
from compensate.runtime.host import Host
from compensate.runtime.suspects import Suspects
from compensate.stores.base import Damaged, StoredSaga

_BATCH: Final = 1_000
"""How many sagas are claimed, or looked at, at once."""

_REST: Final = 20.0
"""How many times as long as it took to list the parked sagas they are not listed again."""

_LONGEST_REST: Final = 10.0
"""Most seconds between two looks at the parked sagas, besides the coordinator's poll."""

_OPEN: Final[tuple[s.SagaStatus, ...]] = (s.RUNNING, s.ROLLING_BACK, s.STUCK)


class Adoption:
    """Claims sagas for a host.

    One claim at a time, and until its sagas are live: a second claim of a saga would raise its epoch and fence the
    first. What a claim of unknown outcome may have brought is looked for later, since a store gives nobody a saga
    that a living coordinator owns.

    Suspects (see `suspects`) are left out of all this, except where an operator asks something of one.

    Args:
        host: Runs what is claimed.
        recovers: Whether it goes on with every saga that nobody alive owns, or only with those that are asked for.
    """

    def __init__(self, host: Host, *, recovers: bool = True) -> None:
        self._host = host
        self._recovers = recovers
        self.suspects = Suspects(host, self._next_suspect)
        self._put_off: dict[str, int] = {}
        """Suspects that are to be gone on with here in their turn, and how suspicious they are."""
        self._lock = asyncio.Lock()
        self._unsure = False
        self._wanted: set[str] = set()
        """Sagas that are to be gone on with here once their owner lets go of them."""
        self._tried: dict[str, tuple[int, int]] = {}
        """Parked sagas that the code here does not fit, with the last event and the code that were tried."""
        self._rests_until = 0.0

    async def all(self) -> None:
        """Go on with every saga that nobody alive owns; parked ones are left to `parked`.

        Raises:
            Unavailable: The store cannot be reached. Trying again is safe.
        """
        host = self._host
        while not host.stopping:
            async with self._lock:
                try:
                    claimed = await host.setting.store.claim(
                        host.owner,
                        host.setting.clock.now(),
                        limit=_BATCH,
                        below=self.suspects.threshold,
                    )
                except StoreError:
                    self._unsure = True
                    raise
                await host.adopt_all(claimed)
            if len(claimed) < _BATCH:
                return

    async def parked(self) -> None:
        """Go on with the parked sagas that the code here fits.

        Each is held against the code without being claimed, and claimed only if it fits: processes that cannot run a
        saga do not take it from each other, and none raises its epoch. What was tried once is not read again until it,
        or the code, has changed. Where listing them took long the next look comes later, so that thousands of parked
        sagas cost a small share of the time.

        Raises:
            Unavailable: The store cannot be reached. Trying again is safe.
        """
        host, clock = self._host, asyncio.get_running_loop().time
        if clock() < self._rests_until:
            return
        listing = 0.0
        seen: dict[str, tuple[int, int]] = {}
        cursor: str | None = None
        while not host.stopping:
            begun = clock()
            page = await host.setting.store.page(status=s.STUCK, cursor=cursor, limit=_BATCH)
            listing += clock() - begun
            fitting: list[str] = []
            for record in page.records:
                if not record.parked or record.id in host.live:
                    continue
                now = (record.last_seq, host.code)
                if self._tried.get(record.id) == now or not await self._fits(record.id):
                    seen[record.id] = now
                else:
                    fitting.append(record.id)
            await self._take_up(fitting)
            cursor = page.cursor
            if cursor is None:
                self._tried = seen
                break
        self._rests_until = clock() + min(_LONGEST_REST, listing * _REST)

    async def _fits(self, saga_id: str) -> bool:
        host = self._host
        try:
            return host.misfit(await host.setting.store.load(saga_id)) is None
        except Unavailable:
            raise
        except CompensateError:
            return False  # it is damaged or gone; whoever asks for it is told

    async def _take_up(self, saga_ids: Sequence[str]) -> None:
        """Claim these parked sagas, unless somebody else has, and go on with them side by side."""
        if not saga_ids:
            return
        async with self._lock:
            claimed: list[StoredSaga | Damaged] = []
            try:
                for saga_id in saga_ids:
                    if saga_id in self._host.live:
                        continue
                    try:
                        stored = await self._claim(saga_id)
                    except SagaNotFound:
                        continue
                    except CorruptLog as error:
                        claimed.append(Damaged(saga_id, error))
                        continue
                    if stored is not None:
                        claimed.append(stored)
            finally:
                await self._host.adopt_all(claimed)  # of those before one that failed too

    async def orphans(self) -> None:
        """Go on with sagas that are ours but do not run here: a start, claim or release came to nobody knows what.

        Raises:
            Unavailable: The store cannot be reached. Trying again is safe.
        """
        host = self._host
        if self._unsure:
            await self._find_own()
            self._unsure = False
        for saga_id in sorted(host.orphans):
            async with self._lock:
                execution = host.live.get(saga_id)
                if execution is not None and execution.starting:
                    continue  # another start of the id, which may yet find the orphan in its way, and then be cut off
                # Before the claim: what becomes an orphan meanwhile has to be looked for again.
                host.orphans.discard(saga_id)
                claimed: StoredSaga | Damaged | None = None
                try:
                    if execution is None:
                        claimed = await self._claim(saga_id)
                except SagaNotFound:
                    pass  # it was not stored after all
                except CorruptLog as error:
                    claimed = Damaged(saga_id, error)
                if claimed is not None and not await self._puts_off(claimed):
                    await host.adopt_all([claimed])
        self._wanted |= host.fenced
        host.fenced.clear()
        await self._try_wanted()

    async def _find_own(self) -> None:
        host = self._host
        async with self._lock:
            for status in _OPEN:
                cursor: str | None = None
                while True:
                    page = await host.setting.store.page(status=status, cursor=cursor, limit=_BATCH)
                    host.orphans.update(
                        record.id
                        for record in page.records
                        if record.owner == host.owner and record.id not in host.live
                    )
                    cursor = page.cursor
                    if cursor is None:
                        break

    async def wanted(self, saga_id: str) -> None:
        """Go on with one saga: now, or when whoever else alive owns it no longer does; with a suspect in its turn.

        Raises: What `Store.claim_one` and `Host.adopt` raise.
        """
        if not await self._go_on(saga_id):
            self._wanted.add(saga_id)

    async def _go_on(self, saga_id: str) -> bool:
        """Go on with one saga. Returns `False` if somebody else alive owns it."""
        async with self._lock:
            if saga_id in self._host.live:
                return True
            claimed = await self._claim(saga_id)
            if claimed is not None and not await self._puts_off(claimed):
                await self._host.adopt(claimed)
            return claimed is not None

    async def _try_wanted(self) -> None:
        for saga_id in sorted(self._wanted):
            try:
                record = (await self._host.setting.store.load(saga_id)).record
                if (record.status not in s.ENDS or record.parked) and not await self._go_on(saga_id):
                    continue
            except Unavailable:
                raise
            except SagaNotFound:
                pass  # it has been deleted
            except CompensateError as error:
                self._host.report_damaged(saga_id, error)
            self._wanted.discard(saga_id)

    async def one(self, saga_id: str, change: Change | None = None) -> bool | None:
        """Go on with one saga, unless it runs here already.

        Args:
            saga_id: Which.
            change: An operator's request, to be applied first.

        Returns:
            `None` if somebody else alive owns it; `False` if the request has to be put to the execution that is live
            here.

        Raises: What `Store.claim_one` and `Host.adopt` raise.
        """
        async with self._lock:
            if self._host.find(saga_id) is not None:
                return False
            claimed = await self._claim(saga_id)
            return None if claimed is None else await self._host.adopt(claimed, change)

    # -- suspects ----------------------------------------------------------

    def try_suspects(self) -> None:
        """Begin to run suspects in the background, one after the other."""
        self.suspects.look()

    def under_way(self) -> list[asyncio.Task[None]]:
        """Background tasks; to be cancelled at shutdown."""
        return self.suspects.under_way()

    async def _puts_off(self, claimed: StoredSaga | Damaged) -> bool:
        """Whether a saga that was claimed is a suspect. It is released then, and run in its turn."""
        if isinstance(claimed, Damaged):
            return False
        record = claimed.record
        if record.status in s.ENDS or record.suspicion < self.suspects.threshold:
            return False
        self._put_off[record.id] = record.suspicion
        try:
            done = self._host.setting.store.release(record.id, record.epoch)
            if done is not None:
                await done
        except StoreError:
            # It may still be ours, and no store gives a saga to anybody while its owner lives.
            self._host.orphans.add(record.id)
            raise
        return True

    async def _next_suspect(self) -> tuple[bool, Execution | None]:
        """Claim and adopt the next suspect: see `suspects.Take`."""
        host = self._host
        store, now = host.setting.store, host.setting.clock.now()
        async with self._lock:
            if self._recovers:
                try:
                    found = await store.claim(host.owner, now, limit=1, least=self.suspects.threshold)
                except StoreError:
                    self._unsure = True
                    raise
                claimed = found[0] if found else None
                self._put_off.clear()  # such a claim finds them too
                more = claimed is not None
            else:
                claimed = await self._claim_put_off()
                more = bool(self._put_off)
            if claimed is None:
                return more, None
            more = await host.adopt_or_report(claimed) and more
            return more, None if isinstance(claimed, Damaged) else host.live.get(claimed.record.id)

    async def _claim_put_off(self) -> StoredSaga | Damaged | None:
        """Claim the least suspicious of the sagas that were put off."""
        if not self._put_off:
            return None
        saga_id = min(self._put_off, key=lambda saga_id: (self._put_off[saga_id], saga_id))
        del self._put_off[saga_id]
        try:
            claimed = await self._claim(saga_id)
        except SagaNotFound:
            return None
        except CorruptLog as error:
            return Damaged(saga_id, error)
        if claimed is None:
            self._wanted.add(saga_id)  # somebody else alive has it now
        return claimed

    async def _claim(self, saga_id: str) -> StoredSaga | None:
        host = self._host
        try:
            return await host.setting.store.claim_one(saga_id, host.owner, host.setting.clock.now())
        except Unavailable:
            host.orphans.add(saga_id)
            raise
