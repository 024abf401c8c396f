"""The floors: bare loops that do the same work, with no graph, no retries, no types and no recovery."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

Do = Callable[[int], Awaitable[int]]
Undo = Callable[[int], Awaitable[None]]


async def loop(pairs: Sequence[tuple[Do, Undo]], x: int) -> int:
    """A chain in memory: each action, and when one raises the undos backwards."""
    done: list[tuple[Undo, int]] = []
    try:
        for do, undo in pairs:
            x = await do(x)
            done.append((undo, x))
    except Exception:
        for undo, output in reversed(done):
            await undo(output)
        raise
    return x


async def gather(do: Do, xs: Sequence[int]) -> list[int]:
    """A fan-out in memory."""
    return await asyncio.gather(*(do(x) for x in xs))


class Log:
    """A log in SQLite: a row a saga, a row an event, both written by every commit; durable as ours is."""

    def __init__(self, path: Path) -> None:
        self.connection = sqlite3.connect(path, isolation_level=None)
        self.connection.execute("PRAGMA journal_mode = WAL")
        self.connection.execute("PRAGMA synchronous = FULL")
        self.connection.executescript(
            "CREATE TABLE IF NOT EXISTS sagas (id INTEGER PRIMARY KEY, status TEXT, owner TEXT, last_seq INTEGER);"
            "CREATE TABLE IF NOT EXISTS events (saga INTEGER, seq INTEGER, at REAL, type TEXT, node TEXT, data BLOB,"
            " PRIMARY KEY (saga, seq)) WITHOUT ROWID;"
        )
        self.commits = 0

    def create(self, sagas: Sequence[int], x: int, node: str) -> None:
        """Begin sagas in one transaction: params, and the first action started."""
        now, data = time.time(), json.dumps({"x": x})
        self.connection.execute("BEGIN IMMEDIATE")
        self.connection.executemany(
            "INSERT INTO sagas VALUES (?, 'running', 'me', 2)", [(saga,) for saga in sagas]
        )
        self._write(
            [
                row
                for saga in sagas
                for row in ((saga, 1, now, "created", "", data), (saga, 2, now, "started", node, ""))
            ]
        )

    def append(
        self, sagas: Sequence[int], seq: int, events: Sequence[tuple[str, str, Any]], status: str
    ) -> None:
        """The same events for all sagas, in one transaction."""
        now = time.time()
        self.connection.execute("BEGIN IMMEDIATE")
        self.connection.executemany(
            "UPDATE sagas SET last_seq = ?, status = ? WHERE id = ? AND last_seq = ?",
            [(seq + len(events), status, saga, seq) for saga in sagas],
        )
        rows: list[tuple[Any, ...]] = []
        for saga in sagas:
            for k, (kind, node, value) in enumerate(events, 1):
                rows.append((saga, seq + k, now, kind, node, "" if value is None else json.dumps(value)))
        self._write(rows)

    def _write(self, rows: list[tuple[Any, ...]]) -> None:
        self.connection.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?)", rows)
        self.connection.execute("COMMIT")
        self.commits += 1


async def logged(log: Log, sagas: Sequence[int], pairs: Sequence[tuple[Do, Undo]], x: int) -> int:
    """Chains in SQLite, in step; one transaction wherever something starts that may not start before it is on disk."""
    names = [f"step{k}" for k in range(len(pairs))]
    log.create(sagas, x, names[0])
    done: list[tuple[str, Undo, int]] = []
    seq = 2
    try:
        for k, (do, undo) in enumerate(pairs):
            for _ in sagas:
                y = await do(x)
            x = y
            done.append((names[k], undo, x))
            last = k == len(pairs) - 1
            events = [
                ("completed", names[k], x),
                ("end", "", None) if last else ("started", names[k + 1], None),
            ]
            log.append(sagas, seq, events, "completed" if last else "running")
            seq += 2
    except Exception as error:
        done.reverse()
        failed = [
            ("failed", names[len(done)], str(error)),
            ("rollback", "", None),
            ("undo_started", done[0][0], None),
        ]
        log.append(sagas, seq, failed, "rolling_back")
        seq += 3
        for k, (name, undo, output) in enumerate(done):
            for _ in sagas:
                await undo(output)
            last = k == len(done) - 1
            events = [
                ("undone", name, None),
                ("end", "", None) if last else ("undo_started", done[k + 1][0], None),
            ]
            log.append(sagas, seq, events, "rolled_back" if last else "rolling_back")
            seq += 2
        raise
    return x
