"""Ids for sagas that are given none."""

from __future__ import annotations

import os

from compensate.core.names import NewIds


def _unique() -> str:
    return f"{os.urandom(8).hex()}-"


ids = NewIds(_unique)
"""Ids of this process. The system is asked for random bits once a process, which saves a system call a saga."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=ids.renew)
