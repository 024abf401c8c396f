"""The command line: thin, over the coordinator's and the stores' public API."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

_EXTRA: Final = frozenset({"click", "rich"})


def main(arguments: Sequence[str] | None = None, *, name: str = "compensate") -> int:
    """Run the command line.

    Args:
        arguments: Without the program's name; by default those of the process.
        name: What the program is called in its messages.

    Returns:
        The exit code; see `compensate.cli.codes`.
    """
    try:
        # Here and not above: whoever uses the library alone need not have them.
        import click  # noqa: F401  # pyright: ignore[reportUnusedImport]
        import rich  # noqa: F401  # pyright: ignore[reportUnusedImport]
    except ModuleNotFoundError as error:
        if error.name not in _EXTRA:
            raise
        sys.stderr.write(
            f"{name}: error: the command line needs {error.name}, which is not installed; "
            "install it with the extra: pip install 'compensate[cli]'\n"
        )
        return 2
    from compensate.cli.app import run

    return run(sys.argv[1:] if arguments is None else list(arguments), name)
