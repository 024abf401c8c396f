"""The real name of the module that a program was started with, which is called `__main__` inside it."""

from __future__ import annotations

import sys
from typing import Any

from compensate.errors import resolve_main_with


def real_module(name: str) -> str:
    """The name under which other programs import the module that is loaded here as `name`.

    `python -m pkg.shop` says it itself. For `python pkg/shop.py` it is found by the file: its name, behind those of the
    packages (folders with an `__init__.py`) that it lies in. A `__main__.py` belongs to the folder that it lies in.

    Args:
        name: `__main__`, or `__mp_main__` as a child of `multiprocessing` calls it.

    Returns:
        The name; `name` itself where there is no file, as in an interactive session.
    """
    module: Any = sys.modules.get(name)
    spec = getattr(module, "__spec__", None)
    if spec is not None and spec.name not in ("__main__", "__mp_main__"):
        return str(spec.name)
    file = getattr(module, "__file__", None)
    if not isinstance(file, str):
        return name
    from pathlib import Path  # only who runs a script has to wait for it

    path = Path(file).absolute()
    folder, parts = path.parent, [path.stem]
    while folder != folder.parent and (parts == ["__main__"] or (folder / "__init__.py").exists()):
        parts.insert(0, folder.name)
        folder = folder.parent
    return ".".join(parts)


resolve_main_with(real_module)
