"""Runs the command line as people do: real processes, in a folder with a saga's code."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SHOP = Path(__file__).with_name("shop.py")
LIMIT = 60.0
"""Seconds after which a process that does not end fails the test. Nothing is measured by it."""


class Result:
    """What a process came to."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code = code
        self.out = out
        self.err = err

    @property
    def json(self) -> Any:
        """The one document on stdout."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        """The objects on stdout, one a line."""
        return [json.loads(line) for line in self.out.splitlines()]


class Started:
    """A process that goes on."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def end(self) -> Result:
        """Wait for its end."""
        out, err = self.process.communicate(timeout=LIMIT)
        return Result(self.process.returncode, out, err)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal; it must be alive."""
        assert self.process.poll() is None, "it had ended before"
        self.process.send_signal(number)

    def line(self) -> str:
        """The next line on stdout."""
        assert self.process.stdout is not None
        return self.process.stdout.readline()


class Place:
    """A folder in which commands are typed.

    Attributes:
        path: The folder. `shop.py` is in it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        shutil.copy(SHOP, path / "shop.py")
        ours = ("COMPENSATE_", "COLUMNS", "LINES", "FORCE_COLOR", "NO_COLOR")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        self.environment = kept | {"PYTHONUTF8": "1", "TERM": "xterm"}
        self._started: list[subprocess.Popen[str]] = []

    def start(self, *words: str, **environment: str) -> Started:
        """Start `compensate` with these words."""
        process = subprocess.Popen(
            [sys.executable, "-m", "compensate", *words],
            cwd=self.path,
            env=self.environment | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._started.append(process)
        return Started(process)

    def type(self, *words: str, **environment: str) -> Result:
        """Run `compensate` with these words to its end."""
        return self.start(*words, **environment).end()

    def hold(self, name: str) -> None:
        """Close a gate of the saga's world."""
        (self.path / f"hold.{name}").touch()

    def let(self, name: str) -> None:
        """Open it."""
        (self.path / f"hold.{name}").unlink()

    def breaks(self, name: str) -> None:
        """Make something fail."""
        (self.path / f"break.{name}").touch()

    def mend(self, name: str) -> None:
        """Make it work again."""
        (self.path / f"break.{name}").unlink()

    def effects(self) -> list[str]:
        """What has happened, in order."""
        try:
            return (self.path / "effects").read_text().splitlines()
        except FileNotFoundError:
            return []

    def wait_for(self, effect: str) -> None:
        """Wait until something has happened."""
        wait_until(lambda: effect in self.effects(), f"{effect!r} to happen")

    def close(self) -> None:
        """Kill what a failed test left behind."""
        for process in self._started:
            if process.poll() is None:
                process.kill()
            process.communicate()


def wait_until(true: Callable[[], bool], what: str) -> None:
    """Wait for something that will be true."""
    end = time.monotonic() + LIMIT
    while not true():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.01)
