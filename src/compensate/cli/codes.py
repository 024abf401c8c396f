"""Exit codes, for scripts to tell apart what a saga came to and what went wrong."""

from __future__ import annotations

import signal
from typing import Final

from compensate.core import states as s
from compensate.errors import (
    DefinitionError,
    DeserializeFailed,
    IllegalRequest,
    NameInvalid,
    NotFound,
    ParamsInvalid,
    SagaExists,
    StoreError,
    StoreUrlInvalid,
)

OK: Final = 0
UNEXPECTED: Final = 1
BAD_INPUT: Final = 2
ROLLED_BACK: Final = 3
STUCK: Final = 4
NOT_FOUND: Final = 5
STORE: Final = 6
REFUSED: Final = 7
CHECK_FAILED: Final = 8
INTERRUPTED: Final = 128 + signal.SIGINT
TERMINATED: Final = 128 + signal.SIGTERM

MEANINGS: Final[dict[int, str]] = {
    OK: "done; of a saga: it completed",
    UNEXPECTED: "an error that nobody foresaw",
    BAD_INPUT: "bad input: usage, params, ids, a store url, code that does not load or is defined wrongly",
    ROLLED_BACK: "the saga was rolled back ('rollback' itself then ends with 0)",
    STUCK: "the saga is stuck and needs an operator; 'show' says what can be done",
    NOT_FOUND: "no such saga or node",
    STORE: "the store is not there, cannot be reached, is damaged, or newer than this version",
    REFUSED: "refused, and nothing was changed: the request makes no sense now, or the id is taken",
    CHECK_FAILED: "'check' found stored sagas that this code could not go on with",
    INTERRUPTED: "interrupted by ctrl-C; the saga can be resumed",
    TERMINATED: "ended by SIGTERM; the saga can be resumed",
}
"""Every exit code and what it says."""

_STATUS: Final[dict[s.SagaStatus, int]] = {
    s.RUNNING: OK,
    s.ROLLING_BACK: OK,
    s.COMPLETED: OK,
    s.ROLLED_BACK: ROLLED_BACK,
    s.STUCK: STUCK,
}

_ERRORS: Final[tuple[tuple[type[BaseException], int], ...]] = (
    (StoreUrlInvalid, BAD_INPUT),  # before StoreError, of which it is one
    (StoreError, STORE),
    (NotFound, NOT_FOUND),
    (SagaExists, REFUSED),
    (IllegalRequest, REFUSED),
    (ParamsInvalid, BAD_INPUT),
    (NameInvalid, BAD_INPUT),
    (DefinitionError, BAD_INPUT),
    (DeserializeFailed, BAD_INPUT),
)


def of_status(status: s.SagaStatus) -> int:
    """The code for what a saga came to."""
    return _STATUS[status]


def of_error(error: BaseException) -> int:
    """The code for an error."""
    for kind, code in _ERRORS:
        if isinstance(error, kind):
            return code
    return UNEXPECTED


def worst(codes: list[int]) -> int:
    """The code for several sagas: that of the one that needs most attention."""
    return next((code for code in (STORE, REFUSED, STUCK, ROLLED_BACK) if code in codes), OK)


def table() -> str:
    """The codes for `--help`."""
    return "\n".join(f"  {code:>3}  {meaning}" for code, meaning in MEANINGS.items())
