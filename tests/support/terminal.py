"""Runs the command line on a terminal of its own."""

from __future__ import annotations

import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Generator
from contextlib import contextmanager
from fcntl import ioctl

from tests.support.cli import Place


@contextmanager
def in_terminal(
    place: Place, rows: int, columns: int, *words: str
) -> Generator[tuple[subprocess.Popen[bytes], int], None, None]:
    """Run `compensate` on a terminal of its own."""
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    with subprocess.Popen(
        [sys.executable, "-m", "compensate", *words],
        cwd=place.path,
        env=place.environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        close_fds=True,
    ) as process:
        os.close(theirs)
        try:
            yield process, ours
        finally:
            if process.poll() is None:
                process.kill()
            os.close(ours)


def read_until(terminal: int, text: str, seen: str = "") -> str:
    """Read the terminal until `text` has come (or, if it is empty, until its program has gone)."""
    while not text or text not in seen:
        try:
            more = os.read(terminal, 65536)
        except OSError:
            more = b""
        if not more:
            assert not text, f"{text!r} never came: {seen!r}"
            break
        seen += more.decode("utf-8", "replace")
    return seen


def shown(place: Place, columns: int, *words: str) -> list[str]:
    """Every line that a command puts on a terminal so wide, without colours, before the terminal breaks any."""
    with in_terminal(place, 24, columns, *words) as (process, terminal):
        text = read_until(terminal, "")
        process.wait(60)
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text).replace("\r", "").splitlines()
