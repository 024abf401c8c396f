"""Saga ids as file names, and back.

No id leaves the folder, and no two ids meet in one name, not even where the file system takes `A` for `a`, or one
spelling of `é` for the other, or knows names like `con` that are no files: what is not a small ASCII letter, a digit,
`-`, `_` or an inner `.` is written as `%xx`, byte for byte. An id too long for that is cut and gets its hash; the log
itself says whose it is.
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Final
from urllib.parse import unquote

LOG: Final = ".log"
DOCUMENT: Final = ".json"

_PLAIN: Final = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789-_.")
_DEVICE: Final = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)")
_LONGEST: Final = 200
"""Of an encoded id. File systems allow 255 bytes a name; the rest is for endings."""

_KEPT: Final = 100
"""Of an id that is too long."""

_CUT: Final = "~"
"""Before the hash; an encoded character otherwise."""


def encode_id(saga_id: str) -> str:
    """The name under which a saga's files lie, without ending."""
    name = "".join(
        chr(byte) if byte in _PLAIN else f"%{byte:02x}" for byte in saga_id.encode("utf-8", "surrogatepass")
    )
    if name[:1] == "." or _DEVICE.match(name):
        name = f"%{ord(name[0]):02x}{name[1:]}"
    if len(name) <= _LONGEST:
        return name
    kept = re.sub(r"%.?$", "", name[:_KEPT])
    return f"{kept}{_CUT}{sha256(saga_id.encode('utf-8', 'surrogatepass')).hexdigest()}"


def decode_id(name: str) -> str:
    """The id behind an encoded one, for errors about a log that does not say; the name itself if it was cut."""
    return name if _CUT in name else unquote(name, errors="replace")
