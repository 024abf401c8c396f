"""Standing: what a store keeps beside a saga's log, so that sagas can be listed and claimed without reading logs."""

from __future__ import annotations

from typing import Final

import msgspec

from compensate.core import states as s


class Standing(msgspec.Struct, frozen=True, gc=False):
    """How a saga stands after the events that are written together with it.

    The machine computes it; stores write it as it is given and derive nothing from events.

    Attributes:
        status: The saga's status.
        paused: Whether it is paused.
        parked: Whether it is stuck only until code that knows it is back.
        deaths: The largest number of times in a row that a process died while one node ran, over the nodes that are
            to be run again. 0 once those nodes have had another outcome, or were given up.
    """

    status: s.SagaStatus
    paused: bool = False
    parked: bool = False
    deaths: int = 0


PLAIN: Final[dict[s.SagaStatus, Standing]] = {
    status: Standing(status) for status in (s.RUNNING, s.ROLLING_BACK, s.COMPLETED, s.ROLLED_BACK, s.STUCK)
}
"""The standing of a saga of each status that is neither paused nor parked, and near which no process died."""
