"""What an outside observer sees of sagas: effects, what was durable when, and every call of the store.

A recorder gives every record a number from one sequence, so that effects, durable events and store calls can be put
in one order afterwards. `Recorder` keeps them in memory. `SqliteRecorder` keeps them in a file of its own: each record
is committed by the process that acts before it goes on, so a process that is killed leaves exactly what happened.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType

from compensate.authoring.context import Ctx
from compensate.codec.records import from_rows, to_rows
from compensate.core.events import Event

Kind = Literal["begin", "effect", "returned", "raised"]
"""`begin`: user code was entered. `effect`: it changed the world. `returned`, `raised`: how it was left."""


class Effect(Struct, frozen=True):
    """One thing that user code really did.

    Attributes:
        order: Its number among all records.
        saga: The saga's id.
        node: Path of the node.
        direction: `do` or `undo`.
        kind: See `Kind`.
        attempt: The attempt that the code was told; 0: not known.
        key: The idempotency key that it was given; `""`: not known.
        value: As JSON. `begin`: the action's inputs by name, or what the undo was given; `returned`: what it
            returned; else what the author of the test likes. `None`: not known.
        actor: Which coordinator ran it; `""`: not known.
        durable: Seq of the last durable event at this time, if whoever recorded it looked; the checker works it out
            from the other records else.
    """

    order: int
    saga: str
    node: str
    direction: Literal["do", "undo"]
    kind: Kind
    attempt: int = 0
    key: str = ""
    value: bytes | None = None
    actor: str = ""
    durable: int | None = None


class Durable(Struct, frozen=True):
    """The events of a saga up to `seq` were known to be durable, by the coordinator `actor`."""

    order: int
    saga: str
    seq: int
    actor: str = ""


class Claimed(Struct, frozen=True):
    """An adoption: the saga's epoch after it, and the last seq that the adopter was shown."""

    saga: str
    epoch: int
    last_seq: int


OK: Final = "ok"
OPEN: Final = ""


class StoreCall(Struct):
    """One call of a store.

    Attributes:
        order: Number of the call.
        call: The method's name.
        saga: Whose; `""` where the call names none.
        actor: Which coordinator called.
        epoch: Given to `append` and `release`.
        events: Given to `append` and `create`.
        outcome: `ok`, the name of the error's class, or `""` while nothing came back.
        done: Number of the outcome.
        claimed: What `claim` and `claim_one` brought.
    """

    order: int
    call: str
    saga: str = ""
    actor: str = ""
    epoch: int = 0
    events: tuple[Event, ...] = ()
    outcome: str = OPEN
    done: int = 0
    claimed: tuple[Claimed, ...] = ()


class _Called(Struct, frozen=True, tag="called"):
    call: str
    saga: str
    actor: str
    epoch: int
    rows: list[tuple[int, int, float, str, str, int, bytes, int]]


class _Outcome(Struct, frozen=True, tag="outcome"):
    of: int
    outcome: str
    claimed: tuple[Claimed, ...]


class _Noted(Struct, frozen=True, tag="durable"):
    saga: str
    seq: int
    actor: str


class _Acted(Struct, frozen=True, tag="effect"):
    saga: str
    node: str
    direction: Literal["do", "undo"]
    kind: Kind
    attempt: int
    key: str
    value: bytes | None
    actor: str
    durable: int | None


_Record = _Called | _Outcome | _Noted | _Acted


class Call:
    """One run of user code, being recorded. See `Recorder.calling`."""

    def __init__(self, write: Callable[[Kind, bytes | None], int]) -> None:
        self._write = write
        self.left = False

    def effect(self, value: object = UNSET) -> None:
        """The world has been changed. To be called with the change, in one transaction where that can be had."""
        self._write("effect", encode(value))

    def returned(self, value: object) -> None:
        """The code is about to return `value`."""
        self._write("returned", encode(value))
        self.left = True


class Recorder:
    """Keeps records in memory. Safe to use from several threads.

    ```python
    recorder = Recorder()


    @action
    def reserve(ctx: Ctx[Deps], room: str) -> Hold:
        with recorder.calling(ctx, {"room": room}) as call:
            hold = ctx.deps.hotel.reserve(room, key=ctx.key)
            call.effect(hold)
            call.returned(hold)
            return hold


    Coordinator(url, observers=[recorder.observer()])
    ```
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._records: list[_Record] = []

    # -- writing -----------------------------------------------------------

    @contextmanager
    def calling(
        self, ctx: Ctx[Any], value: object = UNSET, *, actor: str = ""
    ) -> Generator[Call, None, None]:
        """Record one run of an action or undo: its begin, and that it raised if it does.

        Args:
            ctx: What it was given.
            value: The action's inputs as a dict by parameter name, or what the undo was given. Values are recorded
                as JSON, so that what the log says can be compared.
            actor: Which coordinator runs it.
        """

        def write(kind: Kind, value: bytes | None) -> int:
            return self.note(
                ctx.saga_id,
                ctx.node,
                ctx.direction,
                kind,
                attempt=ctx.attempt,
                key=ctx.key,
                value=value,
                actor=actor,
            )

        write("begin", encode(value))
        call = Call(write)
        try:
            yield call
        except BaseException as error:
            write("raised", encode(type(error).__qualname__))
            raise
        else:
            if not call.left:
                write("returned", None)

    def note(
        self,
        saga: str,
        node: str,
        direction: Literal["do", "undo"],
        kind: Kind,
        *,
        attempt: int = 0,
        key: str = "",
        value: bytes | None = None,
        actor: str = "",
        durable: int | None = None,
    ) -> int:
        """Record one thing that user code did; `value` is JSON. Returns its number."""
        return self._add(_Acted(saga, node, direction, kind, attempt, key, value, actor, durable))

    def observer(self, actor: str = "") -> Callable[[str, Sequence[Event]], None]:
        """An observer of durable events, for `Coordinator(observers=[...])`."""

        def observe(saga_id: str, events: Sequence[Event]) -> None:
            if events:
                self._add(_Noted(saga_id, events[-1].seq, actor))

        return observe

    def called(self, call: str, saga: str, actor: str, epoch: int = 0, events: Sequence[Event] = ()) -> int:
        """Record that a store is called; returns the number to give to `came_back`."""
        return self._add(_Called(call, saga, actor, epoch, to_rows(events, 0)))

    def came_back(self, of: int, outcome: str, claimed: Iterable[Claimed] = ()) -> None:
        """Record how the call `of` ended."""
        self._add(_Outcome(of, outcome, tuple(claimed)))

    def _add(self, record: _Record) -> int:
        with self._lock:
            self._records.append(record)
            return len(self._records)

    # -- reading -----------------------------------------------------------

    def _all(self) -> Iterable[tuple[int, _Record]]:
        with self._lock:
            return list(enumerate(self._records, start=1))

    def effects(self, saga_id: str | None = None) -> list[Effect]:
        """What user code did, in order; of one saga, or of all."""
        return [
            Effect(order, r.saga, r.node, r.direction, r.kind, r.attempt, r.key, r.value, r.actor, r.durable)
            for order, r in self._all()
            if isinstance(r, _Acted) and saga_id in (None, r.saga)
        ]

    def durables(self, saga_id: str | None = None) -> list[Durable]:
        """When what was known to be durable, in order."""
        return [
            Durable(order, r.saga, r.seq, r.actor)
            for order, r in self._all()
            if isinstance(r, _Noted) and saga_id in (None, r.saga)
        ]

    def calls(self, saga_id: str | None = None) -> list[StoreCall]:
        """Calls of stores with their outcomes, in the order of the calls."""
        calls: dict[int, StoreCall] = {}
        for order, r in self._all():
            if isinstance(r, _Called):
                events = from_rows(r.saga, r.rows, 0, r.rows[0][0] - 1) if r.rows else []
                calls[order] = StoreCall(order, r.call, r.saga, r.actor, r.epoch, tuple(events))
            elif isinstance(r, _Outcome):
                call = calls[r.of]
                call.outcome, call.done, call.claimed = r.outcome, order, r.claimed
        return [
            call
            for call in calls.values()
            if saga_id in (None, call.saga) or any(c.saga == saga_id for c in call.claimed)
        ]


class SqliteRecorder(Recorder):
    """Keeps records in a SQLite file that several processes may write to at once.

    A record is committed on return, so it outlives `kill -9` of its process (not a power cut: nothing is synced).

    Args:
        path: The file, made if it is not there. Never the file of the sagas' store.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self._db = sqlite3.connect(path, timeout=60, isolation_level=None, check_same_thread=False)
        self._db.execute("pragma journal_mode = wal")
        self._db.execute("pragma synchronous = normal")
        self._db.execute(
            "create table if not exists record (n integer primary key autoincrement, json blob not null)"
        )

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    def _add(self, record: _Record) -> int:
        with self._lock:
            cursor = self._db.execute("insert into record (json) values (?)", (msgspec.json.encode(record),))
            return int(cursor.lastrowid or 0)

    def _all(self) -> Iterable[tuple[int, _Record]]:
        with self._lock:
            rows = self._db.execute("select n, json from record order by n").fetchall()
        return [(n, _decoder.decode(json)) for n, json in rows]


_decoder: Final = msgspec.json.Decoder(_Called | _Outcome | _Noted | _Acted)


def encode(value: object) -> bytes | None:
    """A value as JSON; `None` for `UNSET`. Pydantic models are dumped by themselves."""
    if isinstance(value, UnsetType):
        return None
    return msgspec.json.encode(value, enc_hook=_dump)


def _dump(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json", by_alias=True)
    raise TypeError(f"a recorder cannot write a {type(value).__name__} as JSON")


# -- what is left of the effects -----------------------------------------------


def standing(effects: Iterable[Effect]) -> list[Effect]:
    """Effects that were not undone: those of actions with no effect of their node's undo behind them."""
    left: dict[tuple[str, str], list[Effect]] = {}
    for effect in sorted(effects, key=lambda effect: effect.order):
        if effect.kind != "effect":
            continue
        if effect.direction == "do":
            left.setdefault((effect.saga, effect.node), []).append(effect)
        else:
            left.pop((effect.saga, effect.node), None)
    return [effect for of_node in left.values() for effect in of_node]


def assert_clean_slate(effects: Iterable[Effect]) -> None:
    """Raise `AssertionError`, naming the nodes, unless every effect was undone."""
    left = standing(effects)
    if left:
        shown = ", ".join(f"{effect.saga}/{effect.node} (record {effect.order})" for effect in left)
        raise AssertionError(f"{len(left)} effects were not undone: {shown}")
