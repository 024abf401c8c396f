"""Test options, tests written as `async def`, and a limit that ends a hanging test with its stacks."""

from __future__ import annotations

import asyncio
import faulthandler
import functools
import inspect
import signal
import tempfile
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from types import FrameType
from typing import Any

import hypothesis
import pytest

DEFAULT_LIMIT = 120.0
# How much later than the loop's own limit the alarm rings: it is for what the loop cannot end by itself.
ALARM_GRACE = 20.0
DEFAULT_SEED = 1987

hypothesis.settings.register_profile("quick", deadline=None, derandomize=True, max_examples=100)
hypothesis.settings.register_profile("deep", deadline=None, derandomize=True, max_examples=2_000)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("compensate")
    group.addoption("--deep", action="store_true", help="run the long sweeps too (tests marked deep)")
    group.addoption(
        "--seed",
        type=int,
        default=DEFAULT_SEED,
        help=f"seed of the randomized sweeps (default: {DEFAULT_SEED})",
    )


def pytest_configure(config: pytest.Config) -> None:
    hypothesis.settings.load_profile("deep" if config.getoption("--deep") else "quick")


def pytest_report_header(config: pytest.Config) -> str:
    sweeps = "deep" if config.getoption("--deep") else "quick"
    return f"sweeps: {sweeps}, seed: {config.getoption('--seed')} (--seed=N chooses another)"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the deep tests unless they are asked for; they are not counted as skipped."""
    if config.getoption("--deep"):
        return
    left_out = [item for item in items if item.get_closest_marker("deep")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("deep")]


@pytest.fixture(scope="session")
def seed(request: pytest.FixtureRequest) -> int:
    """The seed of this run's randomized sweeps: fixed unless --seed says otherwise."""
    return int(str(request.config.getoption("--seed")))


@pytest.fixture(scope="session")
def deep(request: pytest.FixtureRequest) -> bool:
    """Whether this run was asked for the long sweeps."""
    return bool(request.config.getoption("--deep"))


# ------------------------------------------------------------------------------------- async tests


def stacks_of_tasks(tasks: set[asyncio.Task[Any]]) -> str:
    """What every given task is waiting for, one block a task."""
    blocks: list[str] = []
    for task in sorted(tasks, key=lambda task: task.get_name()):
        with tempfile.TemporaryFile("w+") as text:
            task.print_stack(file=text)
            text.seek(0)
            blocks.append(text.read())
    return "\n".join(blocks)


async def _within(limit: float, test: Callable[[], Awaitable[None]]) -> None:
    """Await the test; past the limit, fail with the stacks of all tasks. Errors nobody awaited fail it too."""
    lost: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, context: lost.append(context))

    async def run() -> None:
        await test()

    main = asyncio.create_task(run(), name="the test itself")
    done, _ = await asyncio.wait({main}, timeout=limit)
    if not done:
        stacks = stacks_of_tasks({task for task in asyncio.all_tasks() if task is not asyncio.current_task()})
        main.cancel()
        pytest.fail(f"the test still ran after {limit:g} s (time_limit); its tasks:\n{stacks}", pytrace=False)
    main.result()
    if lost:
        causes = [context.get("exception") for context in lost if context.get("exception")]
        messages = "\n".join(f"{context['message']}: {context.get('exception')!r}" for context in lost)
        raise AssertionError(f"errors that nobody awaited:\n{messages}") from (causes[0] if causes else None)


def run_async(test: Callable[[], Awaitable[None]], limit: float) -> None:
    """Run one async test on a loop of its own."""
    asyncio.run(_within(limit, test), debug=False)


def time_limit_of(item: pytest.Item) -> float:
    """The marker's seconds, or the default; none of it matters to a test that ends by itself."""
    marker = item.get_closest_marker("time_limit")
    return float(marker.args[0]) if marker else DEFAULT_LIMIT


def _blocking(test: Callable[..., Coroutine[Any, Any, None]], limit: float) -> Callable[..., None]:
    @functools.wraps(test)
    def call(*args: Any, **kwargs: Any) -> None:
        run_async(functools.partial(test, *args, **kwargs), limit)

    return call


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run `async def` tests, also those under @hypothesis.given (a fresh loop for every example)."""
    test = pyfuncitem.obj
    property_test = getattr(test, "hypothesis", None)
    if property_test is not None:
        if inspect.iscoroutinefunction(property_test.inner_test):
            property_test.inner_test = _blocking(property_test.inner_test, time_limit_of(pyfuncitem))
        return None
    if not inspect.iscoroutinefunction(test):
        return None
    # pytest has no public name for this; without it fixtures that a test only requests would be passed on.
    wanted = pyfuncitem._fixtureinfo.argnames
    given = {name: pyfuncitem.funcargs[name] for name in wanted}
    run_async(functools.partial(test, **given), time_limit_of(pyfuncitem))
    return True


# ------------------------------------------------------------------------------------------ limits


class StillRunning(BaseException):
    """A test, or the code that it runs, blocked for longer than its limit.

    Not an `Exception`, so that no `except Exception` on the way swallows it.
    """


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """End what no loop can end: a blocked thread, a process waited for, a loop that does not stop."""
    if not hasattr(signal, "SIGALRM") or threading.current_thread() is not threading.main_thread():
        return (yield)
    limit = time_limit_of(item) + ALARM_GRACE

    def ring(_signal: int, _frame: FrameType | None) -> None:
        faulthandler.dump_traceback(file=2, all_threads=True)
        raise StillRunning(
            f"{item.nodeid} still ran after {limit:g} s; the stacks of all threads are on stderr"
        )

    before = signal.signal(signal.SIGALRM, ring)
    # Rings again and again: the first one may land where it is swallowed.
    signal.setitimer(signal.ITIMER_REAL, limit, ALARM_GRACE)
    try:
        return (yield)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
