"""The world outside, in an SQLite file of its own: the other side of actions, which uses keys, and the recorder.

What is asked for under one key happens once. An undo of what never happened leaves a tombstone, so that the action
cannot happen after its undo, however late it comes. A change and its record are one transaction.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from compensate import Ctx, NoEffect
from compensate.testing.recorder import Call, SqliteRecorder


class Outside(SqliteRecorder):
    """Keeps what was done under each key, and records every call and change.

    Args:
        path: The file. Several processes may use it.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        self._lock = threading.RLock()  # type: ignore[assignment]  # `change` records while it holds it
        with self._lock:
            self._db.execute(
                "create table if not exists done (key text primary key, output text, undone integer not null)"
            )

    @contextmanager
    def _transaction(self) -> Generator[sqlite3.Connection]:
        with self._lock:
            self._db.execute("begin immediate")
            try:
                yield self._db
            except BaseException:
                self._db.execute("rollback")
                raise
            self._db.execute("commit")

    def do(self, ctx: Ctx[Any], call: Call, output: str) -> str:
        """Change the world under the action's key, once. Returns what the first call under that key was told."""
        with self._transaction() as db:
            row = db.execute("select output, undone from done where key = ?", (ctx.key,)).fetchone()
            if row is not None and row[1]:
                raise NoEffect(f"{ctx.key} was undone")
            if row is not None:
                return str(row[0])
            db.execute("insert into done values (?, ?, 0)", (ctx.key, output))
            call.effect(output)
            return output

    def undo(self, ctx: Ctx[Any], call: Call) -> None:
        """Take back what was done under the action's key, once; what was not done never will be."""
        with self._transaction() as db:
            row = db.execute("select undone from done where key = ?", (ctx.do_key,)).fetchone()
            if row is None:
                db.execute("insert into done values (?, null, 1)", (ctx.do_key,))
            elif not row[0]:
                db.execute("update done set undone = 1 where key = ?", (ctx.do_key,))
                call.effect()
