"""One saga's log as a file: a line for the head, then a line for every write, each with a checksum.

A line is eight hex digits, a space, JSON, and a line break. The digits are the CRC of the JSON, begun with that of the
line before; so a line that was edited, swapped or taken out is noticed. The first line says what never changes: id,
name, fingerprint, dag. Every other says how the saga stands after it, and holds the events of one append (none for a
claim or a release). One line is one write: after a crash it is there as a whole, or counts as not written.

What a crash can leave is a last line that lacks its end, or whole blocks of it. That is cut off before the next write.
Anything else that does not fit is damage, and refused: it may have been acknowledged.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final, TypeAlias
from zlib import crc32

import msgspec
from msgspec import Raw

from compensate.codec.records import UNREADABLE, decode_data, encode_data
from compensate.core.events import Event
from compensate.core.standing import Standing
from compensate.core.states import ENDS, SagaStatus
from compensate.errors import CompensateError, CorruptLog, SerializeFailed, Unavailable, UnsupportedVersion
from compensate.stores.base import NewSaga, SagaRecord
from compensate.stores.disk import Disk
from compensate.stores.file_names import DOCUMENT, LOG, encode_id

FORMAT: Final = 1
"""Version of the files. The first line of a log keeps its form in every version."""

_ADVICE: Final = "nothing was run; restore it from a copy, or have it looked at"
_BLOCK: Final = 512
"""The least that disks write at once."""

_NO_DATA: Final = Raw(b"")
_BREAKS: Final = bytes.maketrans(b"\n\r", b"  ")

Signature: TypeAlias = tuple[int, int, int]
"""What changes when a file does: inode, size, time of the last change."""


class Head(msgspec.Struct, frozen=True):
    """The first line."""

    format: int
    id: str
    name: str
    fingerprint: str
    created_at: float
    dag: Raw


class State(msgspec.Struct, frozen=True, omit_defaults=True):
    """Any other line: how the saga stands after it, and its events."""

    seq: int
    epoch: int
    at: float
    status: SagaStatus
    owner: str | None = None
    paused: bool = False
    parked: bool = False
    deaths: int = 0
    died: bool = False
    events: list[Raw] = []


class _StoredEvent(msgspec.Struct, frozen=True, omit_defaults=True):
    seq: int
    epoch: int
    at: float
    type: str
    node: str = ""
    attempt: int = 0
    data: Raw = _NO_DATA


class _Format(msgspec.Struct, frozen=True):
    format: int


_encode: Final = msgspec.json.Encoder().encode
_decode_head: Final = msgspec.json.Decoder(Head).decode
_decode_format: Final = msgspec.json.Decoder(_Format).decode
_decode_state: Final = msgspec.json.Decoder(State).decode
_decode_event: Final = msgspec.json.Decoder(_StoredEvent).decode
_decode_text: Final = msgspec.json.Decoder(str).decode


def frame(data: bytes, before: int) -> tuple[bytes, int]:
    """A line for JSON that follows the line with the checksum `before`, and its own checksum."""
    checksum = crc32(data, before)
    return b"%08x %b\n" % (checksum, data), checksum


def _unframe(line: bytes, before: int) -> bytes | None:
    """The JSON of a line (without its break); `None` if it is not the line that was written here."""
    data = line[9:]
    return data if line[:9] == b"%08x " % crc32(data, before) else None


def next_state(epoch: int, owner: str | None, events: Sequence[Event], standing: Standing) -> State:
    """The line of an append; an end releases the saga."""
    last = events[-1]
    return State(
        last.seq,
        epoch,
        float(last.at),
        standing.status,
        None if standing.status in ENDS else owner,
        standing.paused,
        standing.parked,
        standing.deaths,
        False,
        _encoded_events(events),
    )


def _encoded_events(events: Sequence[Event]) -> list[Raw]:
    raws: list[Raw] = []
    for event in events:
        data = encode_data(event.data)
        if b"\n" in data or b"\r" in data:
            # Only between tokens can JSON hold a line break; a space says the same there.
            data = data.translate(_BREAKS)
        stored = _StoredEvent(
            event.seq,
            event.epoch,
            event.at,
            event.type,
            event.node,
            event.attempt,
            Raw(data) if data else _NO_DATA,
        )
        raws.append(Raw(_encode(stored)))
    return raws


def first_lines(saga: NewSaga, owner: str) -> bytes:
    """A new saga's log.

    Raises:
        SerializeFailed: Its dag cannot be written as text.
    """
    dag: Raw = Raw(saga.dag)
    if not saga.dag.startswith(b"{") or b"\n" in saga.dag or b"\r" in saga.dag:
        # As text then: its bytes, of which the fingerprint is made, must come back as they are.
        try:
            dag = Raw(_encode(saga.dag.decode()))
        except UnicodeDecodeError as error:
            raise SerializeFailed(
                f"saga {saga.id}: its dag is no text: {error}; nothing was stored"
            ) from None
    head, checksum = frame(
        _encode(Head(FORMAT, saga.id, saga.name, saga.fingerprint, float(saga.at), dag)), 0
    )
    state = next_state(1, owner, saga.events, saga.standing)
    return head + frame(_encode(state), checksum)[0]


def signature_of(status: os.stat_result) -> Signature:
    """Of a file as it is now."""
    return status.st_ino, status.st_size, status.st_mtime_ns


class Log:
    """A log file, as far as it has been read.

    Every method expects the folder's lock to be held.

    Args:
        path: Of the file.
        saga_id: Whose it should be, for messages, while it has not been read.

    Attributes:
        file: Its name without ending.
        state: After the last good line; `None`: there is none.
        error: What is wrong with the file; `None`: nothing.
        signature: Of the file when it was read.
    """

    __slots__ = (
        "_checksum",
        "_good",
        "_lines",
        "_suspect",
        "created_at",
        "error",
        "file",
        "fingerprint",
        "id",
        "name",
        "path",
        "signature",
        "state",
    )

    def __init__(self, path: Path, saga_id: str) -> None:
        self.path = path
        self.file = path.name.removesuffix(LOG)
        self.id = saga_id
        self.signature: Signature | None = None
        self._suspect = 0
        """Size of the file after a write that failed and could not be taken back."""
        self._forget()

    def _forget(self) -> None:
        self.name = self.fingerprint = ""
        self.created_at = 0.0
        self.state: State | None = None
        self.error: CompensateError | None = None
        self._good = self._lines = self._checksum = 0

    # -- reading -----------------------------------------------------------

    def refresh(self, disk: Disk, signature: Signature | None = None) -> None:
        """Read what was added to the file since it was last read.

        Raises:
            FileNotFoundError: It is gone.
            OSError: It cannot be read.
            Unavailable: A failed write cannot be taken back.
        """
        if self._suspect:
            self._take_back(disk)
        seen = signature or signature_of(self.path.stat())
        if seen == self.signature:
            return
        with self.path.open("rb") as file:
            seen = signature_of(os.fstat(file.fileno()))
            before = self.signature
            if before is None or before[0] != seen[0] or seen[1] <= before[1] or self.error is not None:
                self._forget()
            file.seek(self._good)
            self._read(file.read())
        self.signature = seen

    def load(self) -> tuple[bytes, list[Event]]:
        """The dag and all events, from the whole file, every line checked.

        Raises:
            CorruptLog: The file is damaged; says where.
            UnsupportedVersion: A newer version wrote it, or an event in it.
            OSError: It cannot be read.
        """
        with self.path.open("rb") as file:
            self.signature = signature_of(os.fstat(file.fileno()))
            data = file.read()
        self._forget()
        lines: list[tuple[int, State]] = []
        dag = self._read(data, lines)
        if self.error is not None:
            raise self.error
        events: list[Event] = []
        for number, state in lines:
            self._decode_events(number, state, events)
        return dag, events

    def _read(self, data: bytes, lines: list[tuple[int, State]] | None = None) -> bytes:
        """Take in what follows the last good line; the dag, if `data` begins with the head."""
        dag = b""
        at = 0
        start = self._good
        try:
            while (end := data.find(b"\n", at)) >= 0:
                text = _unframe(data[at:end], self._checksum)
                if text is None:
                    if end == len(data) - 1 and _has_holes(data[at:], start + at):
                        break
                    raise self._damaged("it was altered after it was written")
                if self._lines == 0:
                    dag = self._take_head(text)
                else:
                    state = self._take_state(text)
                    if lines is not None:
                        lines.append((self._lines + 1, state))
                self._checksum = crc32(text, self._checksum)
                self._lines += 1
                at = end + 1
                self._good = start + at
            self._check_tail(data[at:], start + at)
        except (CorruptLog, UnsupportedVersion) as error:
            self.error = error
        return dag

    def _check_tail(self, tail: bytes, offset: int) -> None:
        if self._lines < 2:
            # A new log gets its name when it is whole, so this is no write that was cut off.
            raise self._damaged("it is not whole, or no log of a saga")
        if tail and _unframe(tail[:-1], self._checksum) is not None and not _has_holes(tail, offset):
            raise self._damaged("its line break was altered after it was written")

    def _take_head(self, text: bytes) -> bytes:
        try:
            version = _decode_format(text).format
            if version > FORMAT:
                raise UnsupportedVersion(
                    f"saga {self.id}: {self.path}: format {version}; this compensate reads up to {FORMAT}: upgrade"
                )
            head = _decode_head(text)
            dag = bytes(head.dag)
            if dag.startswith(b'"'):
                dag = _decode_text(dag).encode()
        except UNREADABLE as error:
            raise self._damaged(f"it is no head of a log ({error})") from None
        if encode_id(head.id) != self.file:
            raise self._damaged(f"it is the log of another saga, {head.id!r}: the file was renamed")
        self.id = head.id
        self.name = head.name
        self.fingerprint = head.fingerprint
        self.created_at = head.created_at
        return dag

    def _take_state(self, text: bytes) -> State:
        try:
            state = _decode_state(text)
        except UNREADABLE as error:
            raise self._damaged(f"it does not decode ({error})") from None
        before = self.state
        seq, epoch = (0, 1) if before is None else (before.seq, before.epoch)
        if state.seq != seq + len(state.events) or state.epoch < epoch:
            raise self._damaged(f"it cannot follow event {seq} of epoch {epoch}")
        # The events are kept by `load` alone.
        self.state = msgspec.structs.replace(state, events=[]) if state.events else state
        return state

    def _decode_events(self, number: int, state: State, events: list[Event]) -> None:
        for raw in state.events:
            seq = len(events) + 1
            where = f"saga {self.id}: {self.path}, line {number}, event {seq}"
            try:
                stored = _decode_event(raw)
                data = decode_data(stored.type, bytes(stored.data))
            except UNREADABLE as error:
                raise CorruptLog(f"{where}: it does not decode: {error}; {_ADVICE}") from None
            except CorruptLog as error:
                raise CorruptLog(f"{where}: {error}; {_ADVICE}") from None
            except UnsupportedVersion as error:
                raise UnsupportedVersion(f"{where}: {error}") from None
            if stored.seq != seq or stored.epoch > state.epoch:
                raise CorruptLog(
                    f"{where}: it has seq {stored.seq} and epoch {stored.epoch} in a line of epoch {state.epoch}; "
                    f"{_ADVICE}"
                )
            events.append(Event(seq, stored.epoch, stored.at, stored.type, stored.node, stored.attempt, data))

    def _damaged(self, why: str) -> CorruptLog:
        return CorruptLog(f"saga {self.id}: {self.path}, line {self._lines + 1}: {why}; {_ADVICE}")

    def sound(self) -> State:
        """How the saga stands. Raises `CorruptLog` or `UnsupportedVersion` if the file is not sound."""
        if self.error is not None:
            raise self.error
        assert self.state is not None
        return self.state

    def record(self) -> SagaRecord | None:
        """How the saga stands, as far as the file is sound; `None` if not even its beginning is."""
        state = self.state
        if state is None:
            return None
        return SagaRecord(
            self.id,
            self.name,
            self.fingerprint,
            state.status,
            state.paused,
            state.parked,
            state.epoch,
            state.owner,
            state.seq,
            self.created_at,
            state.at,
            state.deaths,
            state.died,
        )

    # -- writing -----------------------------------------------------------

    def add(self, disk: Disk, state: State) -> None:
        """Write a line. The file has just been refreshed and is sound.

        Raises:
            OSError: It could not be written, or not be made durable. It was taken back, or will be before anything
                else is done with this log.
        """
        line, checksum = frame(_encode(state), self._checksum)
        good = self._good
        descriptor = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        try:
            signature, self.signature = self.signature, None  # whatever stops us here, the file is read again
            assert signature is not None
            if signature[1] > good:
                disk.truncate(descriptor, good)  # what a crash has left of a line
                disk.sync(descriptor)
            try:
                disk.write(descriptor, line, good)
                disk.sync(descriptor)
            except OSError:
                self._suspect = good + len(line)
                self._cut(disk, descriptor)
                raise
            self.signature = signature_of(os.fstat(descriptor))
        finally:
            os.close(descriptor)
        self._good = good + len(line)
        self._checksum = checksum
        self._lines += 1
        self.state = msgspec.structs.replace(state, events=[]) if state.events else state

    def _cut(self, disk: Disk, descriptor: int, document: Path | None = None) -> bool:
        """Take a failed write back, and a document that shows it; whether that could be done."""
        try:
            if document is not None:
                disk.unlink(document)
            disk.truncate(descriptor, self._good)
            disk.sync(descriptor)
        except OSError:
            return False
        self._suspect = 0
        return True

    def _take_back(self, disk: Disk) -> None:
        descriptor = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        try:
            if os.fstat(descriptor).st_size > self._suspect:
                self._suspect = 0  # another process has built on it, so it was there
                return
            # Another process may have made a document of it meanwhile, which would say more than the log.
            if not self._cut(disk, descriptor, self.path.with_name(f"{self.file}{DOCUMENT}")):
                raise Unavailable(
                    f"saga {self.id}: {self.path}: a write failed and cannot be taken back; check the disk, then read "
                    "the log again"
                )
        finally:
            os.close(descriptor)
            self.signature = None


def _has_holes(line: bytes, offset: int) -> bool:
    """Whether blocks of a line never reached the disk: zeros, from its start or a block's to its end or a block's."""
    holes = [match.span() for match in re.finditer(rb"\0+", line)]
    return bool(holes) and all(
        (begin == 0 or (offset + begin) % _BLOCK == 0) and (end == len(line) or (offset + end) % _BLOCK == 0)
        for begin, end in holes
    )
