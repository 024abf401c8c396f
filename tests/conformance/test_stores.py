"""Every store keeps the contract."""

from pathlib import Path

import pytest

from compensate.testing.conformance import CHECKS, Check
from tests.conformance.places import PLACES


@pytest.mark.parametrize("kind", PLACES)
@pytest.mark.parametrize("check", CHECKS, ids=[check.__name__ for check in CHECKS])
async def test_every_store_keeps_the_contract(check: Check, kind: str, tmp_path: Path) -> None:
    await check(PLACES[kind](tmp_path))
