"""The files of a folder of sagas: finding, reading and removing logs, and keeping their documents up to date.

Everything here expects the folder's lock to be held.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from compensate.codec.document import document_of
from compensate.codec.records import UNREADABLE
from compensate.errors import CompensateError, CorruptLog, Unavailable
from compensate.stores.base import StoredSaga
from compensate.stores.common import checked, exists, not_found
from compensate.stores.disk import TEMPORARY, Disk
from compensate.stores.file_log import Log, signature_of
from compensate.stores.file_names import DOCUMENT, LOG, decode_id, encode_id


class _Seq(msgspec.Struct):
    last_seq: int = 0


_decode_seq: Final = msgspec.json.Decoder(_Seq).decode


class Shelf:
    """The logs of a folder.

    Args:
        folder: Where they lie.
        disk: What writes.

    Attributes:
        outdated: Names (encoded ids) of sagas whose documents lag behind their logs.
    """

    def __init__(self, folder: Path, disk: Disk) -> None:
        self.outdated: dict[str, None] = {}
        self._folder = folder
        self._disk = disk
        self._logs: dict[str, Log] = {}
        """What was read, by name."""
        self._dags: set[str] = set()
        """Fingerprints that were checked."""

    def open(self) -> None:
        """Remove what a crash left of writes, and see which documents lag."""
        for path in self._folder.glob(f"{TEMPORARY}*"):
            self._disk.unlink(path)
        for log in self.scan():
            if log.error is None and self._lags(log):
                self.outdated[log.file] = None

    def close(self) -> None:
        """Forget what was read."""
        self._logs.clear()
        self.outdated.clear()

    def _path(self, name: str, ending: str) -> Path:
        return self._folder / f"{name}{ending}"

    # -- logs --------------------------------------------------------------

    def find(self, saga_id: str) -> Log:
        """The log of a saga, up to date.

        Raises:
            SagaNotFound: There is none.
            Unavailable: A failed write is still in it.
            OSError: It cannot be read.
        """
        name = encode_id(saga_id)
        log = self._logs.get(name) or Log(self._path(name, LOG), saga_id)
        try:
            log.refresh(self._disk)
        except FileNotFoundError:
            self._logs.pop(name, None)
            raise not_found(saga_id) from None
        self._logs[name] = log
        return log

    def scan(self) -> list[Log]:
        """All logs, up to date. One that cannot be read has its `error`, and holds up no other."""
        found: dict[str, Log] = {}
        with os.scandir(self._folder) as entries:
            for entry in entries:
                if not entry.name.endswith(LOG) or entry.name.startswith("."):
                    continue
                name = entry.name[: -len(LOG)]
                log = self._logs.get(name) or Log(self._path(name, LOG), decode_id(name))
                try:
                    log.refresh(self._disk, signature_of(entry.stat()))
                except FileNotFoundError:
                    continue
                except (OSError, Unavailable) as error:
                    log.signature = None
                    log.error = Unavailable(
                        f"saga {log.id}: {log.path}: it cannot be read: {error}; check the disk"
                    )
                found[name] = log
        self._logs = found
        return list(found.values())

    def load(self, log: Log) -> StoredSaga:
        """The whole saga, every line of its log checked.

        Raises:
            CorruptLog: It is damaged, or its end is missing.
            UnsupportedVersion: A newer version wrote it.
            Unavailable: A failed write is still in it.
            OSError: It cannot be read.
        """
        log.refresh(self._disk)
        dag, events = log.load()
        record = log.record()
        assert record is not None
        with suppress(FileNotFoundError):
            shown = _last_seq(self._path(log.file, DOCUMENT).read_bytes())
            if shown > record.last_seq:
                raise CorruptLog(
                    f"saga {log.id}: {log.path} ends at event {record.last_seq}, but its document shows event {shown}: "
                    "the end of the log was cut off; nothing was run; restore it from a copy. If the log is right, "
                    "remove the document"
                )
        return checked(record, dag, events, self._dags)

    def create(self, saga_id: str, lines: bytes) -> None:
        """A new log. Raises `SagaExists`, `OSError`."""
        name = encode_id(saga_id)
        path = self._path(name, LOG)
        if path.exists():
            raise exists(saga_id)
        self._make_room(self._path(name, DOCUMENT))
        self._disk.put(path, lines)

    def _make_room(self, document: Path) -> None:
        """A document without a log: what a deletion left, or some other program's, which is kept."""
        try:
            data = document.read_bytes()
        except FileNotFoundError:
            return
        if _last_seq(data):
            self._disk.unlink(document)
        else:
            self._disk.rename(document, document.with_name(f"{document.name}.before"))

    def remove(self, log: Log) -> None:
        """Forget a saga; the log goes last, so that it is there or not there as a whole. Raises `OSError`."""
        self._disk.unlink(self._path(log.file, DOCUMENT))
        self._disk.unlink(log.path)
        self._disk.sync_folder(self._folder)
        self._logs.pop(log.file, None)
        self.outdated.pop(log.file, None)

    # -- documents ---------------------------------------------------------

    def write_documents(self, most: int) -> None:
        """Bring up to `most` documents up to date. Raises `OSError`; those that are left stay outdated."""
        for name in list(self.outdated)[:most]:
            log = self._logs.get(name) or Log(self._path(name, LOG), decode_id(name))
            with suppress(CompensateError, FileNotFoundError):
                stored = self.load(log)
                document = document_of(stored.record.id, stored.record.name, stored.events)
                self._disk.put(self._path(name, DOCUMENT), document.json())
            self.outdated.pop(name)

    def _lags(self, log: Log) -> bool:
        """Whether the document of a log says something else than the log."""
        document = self._path(log.file, DOCUMENT)
        try:
            if document.stat().st_mtime_ns >= log.path.stat().st_mtime_ns:
                return False
            return _last_seq(document.read_bytes()) != log.sound().seq
        except FileNotFoundError:
            return True


def _last_seq(document: bytes) -> int:
    try:
        return _decode_seq(document).last_seq
    except UNREADABLE:
        return 0
