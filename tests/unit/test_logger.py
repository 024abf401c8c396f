"""What the library writes to the logger `compensate`: each event once, with its fields, whoever runs the saga."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from collections.abc import Awaitable, Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import pytest

from compensate import (
    Coordinator,
    Ctx,
    Event,
    Inject,
    MemoryStore,
    NoEffect,
    Permanent,
    Retry,
    SagaExecutor,
    Stuck,
    Unavailable,
    Unknown,
    action,
    connect,
    saga,
)
from compensate.core import events as e
from compensate.core.standing import Standing
from compensate.runtime.clock import SystemClock
from compensate.runtime.log import FIELDS, WRITTEN

SECRET = "4929-1111-2222-3333"


class Records(logging.Handler):
    """Keeps the records, each also as a formatter with all fields writes it."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[Any] = []
        self.lines: list[str] = []
        self.setFormatter(logging.Formatter("%(message)s " + " ".join(f"%({name})s" for name in FIELDS)))

    def emit(self, record: logging.LogRecord) -> None:
        record_exception, record.exc_info = record.exc_info, None  # its traceback has lines of its own
        self.lines.append(self.format(record))
        record.exc_info = record_exception
        self.records.append(record)

    def told(self, level: int) -> list[str]:
        return [record.getMessage() for record in self.records if record.levelno == level]

    def kinds(self) -> list[tuple[str, str, str]]:
        return [(r.levelname, r.event, r.node) for r in self.records if r.event]


@pytest.fixture
def heard() -> Generator[Records, None, None]:
    logger = logging.getLogger("compensate")
    records, level = Records(), logger.level
    logger.addHandler(records)
    logger.setLevel(logging.DEBUG)
    yield records
    logger.removeHandler(records)
    logger.setLevel(level)
    for line in records.lines:
        assert line.isprintable(), line
        assert SECRET not in line


@action
async def open_account(card: str) -> str:
    return card


@open_account.undo
async def close_account(card: str) -> None:
    raise Permanent("there is money\non it\x1b[31m\r")


@action
async def send_card(card: str) -> None:
    raise RuntimeError("no\naddress")


@saga
def welcome(card: str) -> None:
    send_card(open_account(card))


STUCK = [
    ("INFO", "saga_created", ""),
    ("WARNING", "failed", "send_card"),
    ("WARNING", "saga_rollback", "send_card"),
    ("WARNING", "undo_failed", "open_account"),
    ("ERROR", "saga_stuck", "open_account"),
]


async def _coordinator(url: str) -> None:
    async with Coordinator(url, sagas=[welcome], poll=0.05) as c:
        await c.start(welcome.with_id("ann"), SECRET)
        while (await c.record("ann")).status != "stuck":  # noqa: ASYNC110 - nobody waits for the run
            await asyncio.sleep(0.01)


async def _awaited(url: str) -> None:
    async with Coordinator(url, sagas=[welcome]) as c:
        with pytest.raises(Stuck):
            await c.run(welcome.with_id("ann"), SECRET)


async def _executor(url: str) -> None:
    async with SagaExecutor(welcome, saga_id="ann", store=url) as executor:
        with pytest.raises(Stuck):
            await executor.execute(SECRET)


async def _connection(url: str) -> None:
    def run() -> None:
        with connect(url, sagas=[welcome]) as c:
            assert c.start(welcome.with_id("ann"), SECRET).ended() == "stuck"

    await asyncio.to_thread(run)


async def _recovered(url: str) -> None:
    """Paused by one process, gone on with by the next."""
    async with Coordinator(url, sagas=[welcome]) as c:
        await c.start(welcome.with_id("ann"), SECRET)
        await c.pause("ann", who="eve\n", reason="wait\x00")
        status = (await c.record("ann")).status
    async with Coordinator(url, sagas=[welcome], poll=0.05) as c:
        if status != "stuck":
            await (await c.resume("ann")).ended()


RUNNERS = [_coordinator, _awaited, _executor, _connection, _recovered]


@pytest.mark.parametrize("run", RUNNERS)
async def test_whoever_runs_it_a_stuck_saga_is_an_error_with_nodes_reasons_and_choices(
    run: Callable[[str], Awaitable[None]], heard: Records, tmp_path: Path
) -> None:
    await run(f"sqlite:///{tmp_path}/s.db")
    decided = {"saga_paused", "saga_resumed"}
    assert [kind for kind in heard.kinds() if kind[1] not in decided] == STUCK
    (stuck,) = [record for record in heard.records if record.levelno == logging.ERROR]
    assert stuck.getMessage() == (
        "saga ann of welcome is stuck and needs an operator: open_account: Permanent: there is money on it [31m "
        "(choose: retry, skip, resolve); it was being rolled back after node 'send_card' failed: "
        "RuntimeError: no address; once the cause is mended, retry it (compensate retry -- ann open_account), "
        "or choose otherwise"
    )
    assert (stuck.saga, stuck.definition, stuck.node) == ("ann", "welcome", "open_account")
    assert stuck.nodes == ("open_account",)
    assert stuck.choices == {"open_account": ("retry", "skip", "resolve")}
    assert stuck.reason == "open_account: Permanent: there is money on it [31m"
    for record in heard.records:
        assert record.saga == "ann"
        assert record.owner
        assert record.epoch >= 1
        assert "ann" in record.getMessage()
    # Nobody is told again, by whatever reads the log.
    heard.records.clear()
    async with Coordinator(f"sqlite:///{tmp_path}/s.db", sagas=[welcome]) as c:
        assert await c.attach("ann").ended() == "stuck"
    assert heard.records == []


async def test_a_saga_adopted_from_another_process_that_gets_stuck_is_told_of_where_it_runs(
    heard: Records, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/s.db"
    died = await asyncio.create_subprocess_exec(sys.executable, "-c", _DIES, url)
    assert await died.wait() == 9
    async with Coordinator(url, sagas=[welcome_later]) as c:
        assert await c.attach("ann").ended() == "stuck"
    assert ("WARNING", "in_doubt", "send_later") in heard.kinds()
    (told,) = heard.told(logging.ERROR)
    assert "after node 'send_later' failed" in told
    assert {record.epoch for record in heard.records} == {2}


_DIES = """
import asyncio, os, sys
from compensate import Coordinator, action, saga
@action
async def open_account(card: str) -> str: return card
@open_account.undo
async def close_account(card: str) -> None: ...
@action
async def send_later(card: str) -> None: os._exit(9)
@saga
def welcome_later(card: str) -> None: send_later(open_account(card))
async def main():
    async with Coordinator(sys.argv[1], sagas=[welcome_later]) as c:
        await c.run(welcome_later.with_id("ann"), "x")
asyncio.run(main())
"""


@action
async def send_later(card: str) -> None:
    raise RuntimeError("no address")


@saga
def welcome_later(card: str) -> None:
    send_later(open_account(card))


# -- which events ------------------------------------------------------------


def test_every_type_of_event_is_written_or_known_to_be_ordinary() -> None:
    ordinary = {
        e.STARTED,
        e.COMPLETED,
        e.UNDO_STARTED,
        e.UNDONE,
        e.BRANCH_TAKEN,
        e.BRANCH_SKIPPED,
        e.EXPANDED,
    }
    assert set(e.PAYLOADS) == ordinary | WRITTEN
    assert not ordinary & WRITTEN


def test_no_field_clashes_with_those_of_the_logging_module() -> None:
    record = logging.LogRecord("", 0, "", 0, "", (), None)
    assert not set(FIELDS) & {*vars(record), "message", "asctime"}


@action(retry=Retry(3, first=0.01, jitter=0.0))
async def flaky(ctx: Ctx[None], card: str) -> str:
    if ctx.attempt == 1:
        raise ConnectionError("try again")
    if ctx.attempt == 2:
        raise Unknown("no reply")
    return card


@flaky.undo(retry=Retry(2, first=0.01, jitter=0.0))
async def unflaky(ctx: Ctx[None], card: str) -> None:
    if ctx.attempt == 1:
        raise ConnectionError("try the undo again")


@action
async def decline(card: str) -> None:
    raise NoEffect("declined")


@saga
def pay(card: str) -> None:
    decline(flaky(card))


async def test_attempts_doubts_rollbacks_and_ends_are_told_in_their_order(heard: Records) -> None:
    async with Coordinator("memory://", sagas=[pay]) as c:
        assert await (await c.start(pay.with_id("p"), SECRET)).ended() == "rolled_back"
    assert heard.kinds() == [
        ("INFO", "saga_created", ""),
        ("WARNING", "failed", "flaky"),
        ("WARNING", "in_doubt", "flaky"),
        ("WARNING", "failed", "decline"),
        ("WARNING", "saga_rollback", "decline"),
        ("WARNING", "undo_failed", "flaky"),
        ("INFO", "saga_rolled_back", "decline"),
    ]
    assert [record.attempt for record in heard.records] == [0, 1, 2, 1, 0, 1, 0]
    assert [record.getMessage() for record in heard.records] == [
        "saga p of pay started",
        "saga p of pay: node 'flaky' failed: ConnectionError: try again (attempt 1, the next one in 10 ms)",
        (
            "saga p of pay: node 'flaky' is in doubt, it may or may not have taken effect: it could not tell: "
            "Unknown: no reply (attempt 2, the next one in 20 ms)"
        ),
        "saga p of pay: node 'decline' failed and took no effect: NoEffect: declined (attempt 1, not tried again)",
        "saga p of pay is being rolled back: node 'decline' failed: NoEffect: declined",
        (
            "saga p of pay: the undo of node 'flaky' failed: ConnectionError: try the undo again "
            "(attempt 1, the next one in 10 ms)"
        ),
        "saga p of pay was rolled back: node 'decline' failed: NoEffect: declined",
    ]


async def test_what_operators_decide_is_told_with_who_and_why(heard: Records) -> None:
    async with Coordinator("memory://", sagas=[welcome, pay]) as c:
        assert await (await c.start(welcome.with_id("ann"), SECRET)).ended() == "stuck"
        assert await (await c.retry("ann", "open_account", who="eve", reason="once\nmore")).ended() == "stuck"
        assert await (await c.skip("ann", "open_account", who="bob")).ended() == "rolled_back"
    assert heard.told(logging.INFO) == [
        "saga ann of welcome started",
        "saga ann of welcome: node 'open_account' is to be retried, decided by eve: once more",
        "saga ann of welcome: node 'open_account' was skipped and its effect stays, decided by bob",
        "saga ann of welcome was rolled back: node 'send_card' failed: RuntimeError: no address",
    ]


async def test_a_parked_saga_is_an_error_once_and_goes_on_as_information(
    heard: Records, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/s.db"
    async with Coordinator(url, sagas=[pay]) as c:
        await c.start(pay.with_id("p"), SECRET)
        await c.pause("p")
    heard.records.clear()
    for _ in range(2):
        async with Coordinator(url) as c:
            assert await c.attach("p").ended() == "stuck"
    (parked,) = heard.records
    assert (parked.levelname, parked.event, parked.saga) == ("ERROR", "saga_stuck", "p")
    assert "is parked" in parked.getMessage()
    assert "flaky" in parked.reason or "decline" in parked.reason
    heard.records.clear()
    async with Coordinator(url, sagas=[pay]) as c:
        assert await (await c.resume("p")).ended() == "rolled_back"
    assert heard.kinds()[0] == ("INFO", "saga_unparked", "")


# -- when --------------------------------------------------------------------


class Doubtful(MemoryStore):
    """Says of some appends that their outcome is unknown; they were done, or not."""

    def __init__(self, done: bool) -> None:
        super().__init__()
        self.done = done
        self.fired = 0
        self._last: list[str] = []

    def append(
        self,
        saga_id: str,
        epoch: int,
        expected_seq: int,
        events: Sequence[Event],
        standing: Standing,
        created_at: float | None = None,
    ) -> None:
        key = [event.type for event in events]
        failing = self._last != key  # each kind of write fails once
        self._last = key
        if self.done or not failing:
            super().append(saga_id, epoch, expected_seq, events, standing, created_at)
        if failing:
            self.fired += 1
            raise Unavailable("the connection broke")


@pytest.mark.parametrize("done", [True, False])
async def test_each_event_is_told_once_although_writes_fail(done: bool, heard: Records) -> None:
    store = Doubtful(done)
    told: list[str] = []

    def observe(saga_id: str, events: Sequence[Event]) -> None:
        told.extend(event.type for event in events)

    async with Coordinator(store, sagas=[welcome], observers=[observe]) as c:
        assert await (await c.start(welcome.with_id("ann"), SECRET)).ended() == "stuck"
        stored = [event.type for event in (await c.get("ann")).events]
    assert store.fired >= 3
    assert [kind for _, kind, _ in heard.kinds()] == [kind for kind in stored if kind in WRITTEN]
    assert "saga_stuck" in stored
    assert told == stored
    executor = SagaExecutor(welcome, saga_id="bob", store=store)
    with pytest.raises(Stuck):
        await executor.execute(SECRET)
    assert executor.events == (await store.load("bob")).events


# -- what is around sagas ------------------------------------------------------


class Jumps(SystemClock):
    """A clock that is set forward."""

    ahead = 0.0

    def now(self) -> float:
        return super().now() + self.ahead


async def test_a_lost_lease_is_an_error(heard: Records) -> None:
    clock = Jumps()
    async with Coordinator("memory://", clock=clock, lease=0.3, owner="w1"):
        clock.ahead = 1_000
        while not heard.records:  # noqa: ASYNC110 - a handler rings no bell
            await asyncio.sleep(0.01)
    assert heard.records[0].levelname == "ERROR"
    assert heard.records[0].owner == "w1"
    assert "lease had run out" in heard.records[0].getMessage()


async def test_a_saga_that_somebody_else_has_adopted_is_an_error(heard: Records) -> None:
    store = MemoryStore()
    gate = asyncio.Event()

    @action
    async def waits(x: int) -> int:
        await gate.wait()
        return x

    @saga
    def slow(x: int) -> int:
        return waits(x)

    async with Coordinator(store, sagas=[slow], owner="w1") as c:
        run = await c.start(slow.with_id("s"), 1)
        await store.join("w2", 0.0, 1e12)
        await store.leave("w1")
        assert await store.claim_one("s", "w2", 0.0) is not None
        gate.set()
        while not heard.told(logging.ERROR):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        del run
    (fenced,) = [record for record in heard.records if record.levelno == logging.ERROR]
    assert (fenced.saga, fenced.owner, fenced.epoch) == ("s", "w1", 1)
    assert "somebody else has adopted it" in fenced.getMessage()


class Falsy(Exception):
    def __len__(self) -> int:
        return 0


class Rude(Exception):
    def __bool__(self) -> bool:
        raise ValueError("the truth value is ambiguous")

    def __str__(self) -> str:
        raise ValueError("no text")

    __repr__ = __str__


@pytest.mark.parametrize("kind", [Falsy, Rude, ValueError])
async def test_an_observer_that_raises_whatever_it_likes_is_reported_with_its_traceback(
    kind: type[Exception], heard: Records
) -> None:
    def observe(saga_id: str, events: Sequence[Event]) -> None:
        raise kind("a\nb")

    async with Coordinator("memory://", sagas=[pay], observers=[observe]) as c:
        assert await (await c.start(pay.with_id("p"), SECRET)).ended() == "rolled_back"
    reports = [record for record in heard.records if not record.event]
    assert reports
    for record in reports:
        assert (record.levelname, record.saga) == ("ERROR", "p")
        assert record.owner
        assert "an observer raised" in record.getMessage()
        assert kind.__name__ in record.getMessage()
        if kind is not Rude:  # nothing can write its traceback
            assert record.exc_info is not None
            assert record.exc_info[0] is kind


class Broken(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.asked += 1
        raise OSError("the log's disk is full")


async def test_a_handler_that_raises_disturbs_no_saga(capsys: pytest.CaptureFixture[str]) -> None:
    logger, broken = logging.getLogger("compensate"), Broken()
    logger.addHandler(broken)
    try:
        async with Coordinator("memory://", sagas=[pay]) as c:
            assert await (await c.start(pay, SECRET)).ended() == "rolled_back"
    finally:
        logger.removeHandler(broken)
    assert broken.asked
    assert "the log's disk is full" in capsys.readouterr().err


def test_where_no_logging_is_configured_errors_alone_go_to_stderr() -> None:
    def stderr(then: str) -> str:
        program = _DIES.replace("os._exit(9)", "raise ValueError('no')").replace("...", then)
        program = program.replace("await c.run(", "await (await c.start(").replace('"x")', '"x")).ended()')
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", program, "memory://"],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return done.stderr

    assert stderr("return None") == ""
    told = stderr("raise ValueError('stays')").splitlines()
    assert len(told) == 1, told
    assert told[0].startswith("saga ann of welcome_later is stuck and needs an operator: open_account:")


async def test_a_fault_that_no_saga_can_meet_has_the_fields_too(heard: Records) -> None:
    async with Coordinator("memory://", sagas=[pay], inject={"nowhere": Inject(fail="before")}):
        pass
    (warned,) = heard.records
    assert (warned.levelname, warned.node) == ("WARNING", "nowhere")


async def test_a_text_without_end_is_cut(heard: Records) -> None:
    @action
    async def long() -> None:
        raise ValueError("x" * 100_000)

    @saga
    def talks() -> None:
        long()

    async with Coordinator("memory://", sagas=[talks]) as c:
        assert await (await c.start(talks)).ended() == "rolled_back"
    assert max(len(record.getMessage()) for record in heard.records) < 2_100
