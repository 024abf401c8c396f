"""Processes to which file permissions apply, also where the tests run as root, who may do everything."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

_PR_CAPBSET_DROP = 24
_CAPABILITIES = (1, 2, 3)  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER


def _give_up_privileges() -> None:
    """Run in the child before it executes the program, which then gets none of these."""
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in _CAPABILITIES:
        if libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl")


def run(arguments: Sequence[str], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python with these arguments, as a user who has no more than the permissions of files say."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **environment},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        preexec_fn=_give_up_privileges if os.geteuid() == 0 else None,
    )


_TYPE = """
import contextlib, io, json, sys
from compensate.cli import main
done = []
for words in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(words)
    done.append((code, out.getvalue(), err.getvalue()))
print(json.dumps(done))
"""


def commands(folder: Path, lines: Sequence[Sequence[str]]) -> list[tuple[int, str, str]]:
    """What each of these command lines came to, one after the other in one such process: code, stdout, stderr."""
    done = run(["-c", _TYPE, json.dumps(lines)], folder)
    assert done.returncode == 0, done.stderr
    return [(code, out, err) for code, out, err in json.loads(done.stdout)]


def assert_denied(path: Path) -> None:
    """That such a process may neither write the file nor make one in its folder (or in the folder `path`)."""
    probe = (
        "import sys, pathlib\n"
        "path = pathlib.Path(sys.argv[1])\n"
        "made = path if path.is_dir() else path.parent\n"
        "for target, mode in [(made / 'probe', 'x')] + ([] if path.is_dir() else [(path, 'r+')]):\n"
        "    try:\n"
        "        open(target, mode)\n"
        "    except PermissionError:\n"
        "        continue\n"
        "    sys.exit(f'{target} could be written')\n"
    )
    done = run(["-c", probe, str(path)], path.parent)
    assert done.returncode == 0, done.stderr
