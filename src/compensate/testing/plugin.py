"""The pytest plugin: fixtures for tests of sagas. It is there as soon as the library is installed.

Everything is imported when a fixture is first used, so that runs that use none pay nothing for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from compensate.testing.bench import VirtualCoordinator
    from compensate.testing.virtual_time import VirtualTime


@pytest.fixture
def virtual_time() -> Iterator[VirtualTime]:
    """Time that does not wait: the `Clock` of the fixture `coordinator`; `virtual_time.elapsed` tells it."""
    from compensate.testing.virtual_time import VirtualTime

    time = VirtualTime()
    yield time
    time.close()


@pytest.fixture
def coordinator(virtual_time: VirtualTime) -> Iterator[VirtualCoordinator]:
    """A coordinator on a store in memory and virtual time: `async with coordinator:`, or `with coordinator as c:`.

    Set `coordinator.deps` first if actions need some. A fault that was ordered and did not happen fails the test.
    """
    from compensate.testing.bench import VirtualCoordinator

    coordinator = VirtualCoordinator(virtual_time)
    yield coordinator
    coordinator.check_faults()


@pytest.fixture
def inject(coordinator: VirtualCoordinator) -> Callable[..., None]:
    """Has something go wrong at a node of the sagas that `coordinator` runs; see `VirtualCoordinator.inject`."""
    return coordinator.inject


@pytest.fixture(name="prove_saga")
def prove_saga_fixture() -> Callable[..., Any]:
    """`compensate.testing.prove_saga`."""
    from compensate.testing.proof import prove_saga

    return prove_saga
