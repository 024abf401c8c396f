"""The kit tells the author of a store what is wrong with it, and does not hang on it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from compensate.core.events import Event
from compensate.core.standing import Standing
from compensate.stores.base import Damaged, Done, Store, StoredSaga
from compensate.stores.memory import MemoryStore
from compensate.testing.conformance import CHECKS


class Unfenced(MemoryStore):
    """Takes the events of whoever owned the saga once."""

    def append(
        self,
        saga_id: str,
        epoch: int,
        expected_seq: int,
        events: Sequence[Event],
        standing: Standing,
        created_at: float | None = None,
    ) -> Done:
        saga = self._sagas.get(saga_id)
        if saga is not None and epoch < saga.epoch:
            return None
        return super().append(saga_id, epoch, expected_seq, events, standing, created_at)


class Halving(MemoryStore):
    """Writes the first event of several."""

    def append(
        self,
        saga_id: str,
        epoch: int,
        expected_seq: int,
        events: Sequence[Event],
        standing: Standing,
        created_at: float | None = None,
    ) -> Done:
        return super().append(saga_id, epoch, expected_seq, events[:1], standing, created_at)


class Hoarding(MemoryStore):
    """Lets nobody claim what its owner left."""

    async def claim(self, owner: str, now: float, **how: Any) -> list[StoredSaga | Damaged]:
        return []


class Here:
    def __init__(self, store: Store) -> None:
        self._store = store

    def store(self) -> Store:
        return self._store

    def damage(self, saga_id: str) -> bool:
        return False


async def _failing(kind: type[MemoryStore]) -> set[str]:
    failing: set[str] = set()
    for check in CHECKS:
        try:
            await asyncio.wait_for(check(Here(kind())), 20)
        except TimeoutError:
            pytest.fail(f"{check.__name__} hangs")
        except Exception:  # whatever: the check has failed
            failing.add(check.__name__)
    return failing


@pytest.mark.parametrize("kind", [Unfenced, Halving, Hoarding])
async def test_a_store_with_a_defect_fails_and_no_check_hangs(kind: type[MemoryStore]) -> None:
    assert "nothing_of_an_older_epoch_is_added_after_a_claim" in await _failing(kind)


async def test_a_sound_store_fails_in_nothing() -> None:
    assert await _failing(MemoryStore) == set()
