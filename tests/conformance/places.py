"""The stores under test: where each keeps its sagas, and how to harm them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

from compensate.stores import open_store
from compensate.stores.base import Store
from compensate.stores.file_names import encode_id
from compensate.testing.conformance import Place


class MemoryPlace:
    def __init__(self, _folder: Path) -> None:
        self._store = open_store("memory://")

    def store(self) -> Store:
        return self._store

    def damage(self, saga_id: str) -> bool:
        return False


class SqlitePlace:
    def __init__(self, folder: Path) -> None:
        self.path = folder / "sagas.db"

    def store(self) -> Store:
        return open_store(f"sqlite:///{self.path}")

    def damage(self, saga_id: str) -> bool:
        connection = sqlite3.connect(self.path)
        with connection:
            changed = connection.execute(
                "UPDATE events SET node = node || 'x' WHERE seq = 3 AND saga = (SELECT number FROM sagas WHERE id = ?)",
                (saga_id,),
            )
            assert changed.rowcount == 1
        connection.close()
        return True


class FilePlace:
    def __init__(self, folder: Path) -> None:
        self.path = folder / "sagas"

    def store(self) -> Store:
        return open_store(f"file:///{self.path}")

    def damage(self, saga_id: str) -> bool:
        log = self.path / f"{encode_id(saga_id)}.log"
        data = log.read_bytes()
        assert data.count(b'{"seq":3,"epoch"') == 1
        log.write_bytes(data.replace(b'{"seq":3,"epoch"', b'{"seq":3, "epoc"'))
        return True


PLACES: dict[str, Callable[[Path], Place]] = {"memory": MemoryPlace, "sqlite": SqlitePlace, "file": FilePlace}
