"""What a folder of sagas keeps beside the logs: who owns them and until when, and operators' requests.

Two small JSON files, each replaced as a whole. Every function expects the folder's lock to be held.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Generic, TypeVar

import msgspec

from compensate.codec.records import UNREADABLE
from compensate.errors import CorruptLog, UnsupportedVersion
from compensate.stores.base import Verb
from compensate.stores.disk import Disk
from compensate.stores.file_log import FORMAT, Signature, signature_of


class Owners(msgspec.Struct):
    """Until when each owner that joined and was not forgotten has its lease, and which of them left and kept sagas."""

    format: int = FORMAT
    leases: dict[str, float] = {}
    drained: list[str] = []

    def alive(self, owner: str, now: float) -> bool:
        """Whether the owner's lease holds. A drained owner needs none: the end of its process is seen."""
        until = self.leases.get(owner)
        return until is not None and (now < until or owner in self.drained)

    def forget(self, owner: str) -> bool:
        """Forget an owner; whether it was known."""
        if owner in self.drained:
            self.drained.remove(owner)
        return self.leases.pop(owner, None) is not None


class StoredRequest(msgspec.Struct, omit_defaults=True):
    """A request. `error`: why it was refused; empty: it was carried out; `None`: not answered yet."""

    number: int
    saga_id: str
    verb: Verb
    data: bytes
    at: float
    error: str | None = None


class Requests(msgspec.Struct):
    """The requests for sagas that are there. `posted`: the last number given."""

    format: int = FORMAT
    posted: int = 0
    requests: list[StoredRequest] = []


class _Format(msgspec.Struct):
    format: int


S = TypeVar("S", Owners, Requests)

_decode_format: Final = msgspec.json.Decoder(_Format).decode


class Sheet(Generic[S]):
    """One of the two files, read again when it has changed.

    Args:
        path: Where it lies; it need not be there.
        kind: What it holds.
    """

    def __init__(self, path: Path, kind: type[S]) -> None:
        self._path = path
        self._kind: type[S] = kind
        self._decode: Any = msgspec.json.Decoder(kind).decode
        self._seen: Signature | None = None
        self._content: S = kind()

    def read(self) -> S:
        """What it holds. Whoever changes that writes it or forgets it.

        Raises:
            UnsupportedVersion: A newer version wrote it.
            CorruptLog: It is damaged.
            OSError: It cannot be read.
        """
        try:
            seen = signature_of(self._path.stat())
            if seen != self._seen:
                self._content = self._parse(self._path.read_bytes())
                self._seen = seen
        except FileNotFoundError:
            self.forget()
        return self._content

    def _parse(self, data: bytes) -> S:
        try:
            version = _decode_format(data).format
            if version > FORMAT:
                raise UnsupportedVersion(
                    f"{self._path}: format {version}; this compensate reads up to {FORMAT}; upgrade"
                )
            content: S = self._decode(data)
        except UNREADABLE as error:
            raise CorruptLog(
                f"{self._path}: it does not decode: {error}; restore it from a copy, or remove it while no process "
                "uses the folder"
            ) from None
        return content

    def write(self, disk: Disk) -> None:
        """Make what was read and changed durable. Raises `OSError`; nothing was changed then."""
        try:
            disk.put(self._path, msgspec.json.format(msgspec.json.encode(self._content), indent=1) + b"\n")
            self._seen = signature_of(self._path.stat())
        except BaseException:
            self.forget()
            raise

    def forget(self) -> None:
        """Read it anew next time."""
        self._seen = None
        self._content = self._kind()
