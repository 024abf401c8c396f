"""How a coordinator runs sagas near which processes have died: after the others, one at a time, least suspicious first."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from compensate import Coordinator, DefinitionError, SagaExecutor, action, saga
from compensate.core.states import STUCK
from compensate.runtime.clock import SystemClock
from compensate.stores.memory import MemoryStore
from compensate.testing.virtual_time import virtual_time


class Ahead:
    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def now(self) -> float:
        return SystemClock().now() + self.seconds
