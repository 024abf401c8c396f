"""Functions that give another value each time they are called: time and chance."""

from __future__ import annotations

import sys
from typing import Any, Final

_FUNCTIONS: Final[dict[str, tuple[str, ...]]] = {
    "time": (
        "time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "process_time", "gmtime",
        "localtime", "ctime", "asctime",
    ),
    "uuid": ("uuid1", "uuid4", "uuid6", "uuid7"),
    "secrets": ("token_bytes", "token_hex", "token_urlsafe", "randbelow", "randbits", "choice"),
    "os": ("urandom", "getpid"),
}  # fmt: skip
_METHODS: Final = ("now", "utcnow", "today")


def is_impure(found: Any) -> bool:
    """Whether an object is one of these functions of Python's own library. Looks only into modules already imported."""
    for module, names in _FUNCTIONS.items():
        loaded = sys.modules.get(module)
        if loaded is not None and any(found is getattr(loaded, name, loaded) for name in names):
            return True
    owner: Any = getattr(found, "__self__", None)
    if owner is None:
        return False
    days = sys.modules.get("datetime")
    if days is not None and isinstance(owner, type) and issubclass(owner, days.date):
        return getattr(found, "__name__", "") in _METHODS
    chance = sys.modules.get("random")
    return chance is not None and isinstance(owner, chance.Random) and found.__name__ != "seed"
