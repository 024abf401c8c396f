"""What the file store has acknowledged survives a loss of power: its system calls, as the kernel sees them.

A file counts once it was synced, a name once its folder was. So before an operation returns, each file that got a name
must have been synced before it got it, and each folder in which a name was made, changed or removed after that.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.time_limit(120)]

_NAME = r'"((?:[^"\\]|\\.)*)"'
_CHANGES = {
    "rename": re.compile(rf"rename(?:at2?)?\(.*{_NAME}(?:, \w+)?\) += 0"),
    "unlink": re.compile(rf"unlink(?:at)?\(.*{_NAME}(?:, \w+)?\) += 0"),
    "mkdir": re.compile(rf"mkdir(?:at)?\(.*{_NAME}, \w+\) += 0"),
}
_FROM = re.compile(rf"rename(?:at2?)?\([^\"]*{_NAME}")
_SYNC = re.compile(r"(?:fsync|fdatasync)\(\d+<([^>]*)>\) += 0")
_WRITE = re.compile(r"pwrite64\(\d+<([^>]*)>")
_SAID = re.compile(r'write\(2.*"(begin|end) ([a-z ]+)\\n"')

UNSYNCED = (".owners/", "-owners/")
"""Folders of locks, which mean nothing after a loss of power."""


class Seen:
    """What one operation did."""

    def __init__(self) -> None:
        self.changed: list[tuple[str, str]] = []
        self.pending: dict[str, str] = {}
        """Folders whose names were changed, and not synced since."""
        self.unsynced: set[str] = set()
        """Files that were written, and not synced since."""
        self.wrong: list[str] = []


def trace(folder: Path, url: str) -> dict[str, Seen]:
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed (Debian: apt-get install strace)")
    calls = (
        "trace=rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,openat,fsync,fdatasync,pwrite64,write"
    )
    command = [strace, "-f", "-y", "-s", "300", "-o", str(folder / "trace"), "-e", calls]
    command += [sys.executable, "-m", "tests.support.synced", url]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Seen] = {}
    seen: Seen | None = None
    for line in (folder / "trace").read_text().splitlines():
        if said := _SAID.search(line):
            seen = found.setdefault(said[2], Seen()) if said[1] == "begin" else None
        elif seen is not None and str(folder) in line:
            note(line, seen)
    return found


def note(line: str, seen: Seen) -> None:
    if (synced := _SYNC.search(line)) is not None:
        seen.pending.pop(synced[1], None)
        seen.unsynced.discard(synced[1])
    elif (written := _WRITE.search(line)) is not None:
        seen.unsynced.add(written[1])
    for kind, pattern in _CHANGES.items():
        changed = pattern.search(line)
        if changed is None or any(folder in changed[1] for folder in UNSYNCED):
            continue
        if changed[1].endswith(UNSYNCED[0][:-1]) or changed[1].endswith(UNSYNCED[1][:-1]):
            continue
        if kind == "rename" and (old := _FROM.search(line)) is not None and old[1] in seen.unsynced:
            seen.wrong.append(f"{changed[1]} got its name before its content was safe")
        seen.changed.append((kind, Path(changed[1]).name))
        seen.pending[str(Path(changed[1]).parent)] = line


def check(found: dict[str, Seen]) -> None:
    for name, seen in found.items():
        assert not seen.wrong, (name, seen.wrong)
        assert not seen.pending, f"{name} returned before these names were safe: {seen.pending}"
        assert not seen.unsynced, f"{name} returned before these files were safe: {seen.unsynced}"


def test_every_name_that_the_file_store_makes_or_removes_is_synced_before_it_counts(tmp_path: Path) -> None:
    folder = (tmp_path / "not" / "there" / "yet").resolve()
    found = trace(tmp_path.resolve(), f"file:///{folder}")
    changed = {name: set(seen.changed) for name, seen in found.items()}
    assert {("mkdir", "not"), ("mkdir", "there"), ("mkdir", "yet")} <= changed["open"]
    for name, file in (
        ("join", ".owners.data"),
        ("create", "a.log"),
        ("renew", ".owners.data"),
        ("post", ".requests.data"),
        ("answer", ".requests.data"),
        ("leave", ".owners.data"),
        ("close", "a.json"),
    ):
        assert ("rename", file) in changed[name], (name, changed)
    assert {("unlink", "a.log"), ("unlink", "a.json")} <= changed["delete"]
    assert changed["append"] <= {("rename", "a.json")}
    check(found)
