"""Segments: the files that the disk store's logs are made of.

Strategy: records are appended and never moved; a file is dropped as a whole. A `Segment` is an open
file that closes when its last holder lets go of it, so a reader is not disturbed by the drop.
Beside it lies a file of marks, a byte a record, shared by all processes: verified since the node's
start, and how often used. Losing a mark costs a checksum, so marks are written without locks and
never synced.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from cdn.storage.eviction.two_logs import Log
from cdn.storage.records import HEADER_SIZE, Bytes, Header, unpack

MOST_RECORDS = 1 << 16
"""Of one segment, so that a record's number fits in two bytes of the index."""

MOST_USES = 63
"""A mark counts no further."""

MOST_OPEN = 16
"""Segments that a shard keeps open besides those in use: two file descriptors each."""

_VERIFIED = 0x80
_USES = bytes(mark & ~_VERIFIED for mark in range(256))
_SESSION_SIZE = 8
_ASIDE = memoryview(bytearray(128 << 10))
"""Where bytes are read to that nobody wants."""

_MOST_BUFFERS = 1000  # under IOV_MAX, which is 1024 on Linux


class Placed(NamedTuple):
    """A record found by walking: where it begins, the how manieth it is, and its header."""

    offset: int
    record: int
    header: Header


def segment_path(directory: Path, number: int) -> Path:
    return directory / f"{number:08x}.segment"


def marks_path(directory: Path, number: int) -> Path:
    return directory / f"{number:08x}.marks"


def segment_numbers(directory: Path) -> list[int]:
    """All segments that have a file, in the order of their numbers."""
    names = (name.partition(".") for name in os.listdir(directory))
    return sorted(int(stem, 16) for stem, _, suffix in names if suffix == "segment")


class Segment:
    """One open segment. `session` counts the node's starts: marks of an earlier one are void.
    Raises FileNotFoundError where it has been dropped. May be used from any thread."""

    def __init__(self, directory: Path, number: int, session: int, create: bool = False) -> None:
        self.number = number
        self.fd = self._marks = -1
        self._session = session
        self._verified = bytearray(MOST_RECORDS // 8)  # a bit each: spares asking the marks
        self._marks_path = marks_path(directory, number)
        flags = os.O_RDWR | (os.O_CREAT | os.O_EXCL if create else 0)
        self.fd = os.open(segment_path(directory, number), flags, 0o600)
        # What the kernel would read ahead by itself would be resident and not verified.
        os.posix_fadvise(self.fd, 0, 0, os.POSIX_FADV_RANDOM)

    def __del__(self) -> None:
        for fd in (self.fd, self._marks):
            if fd >= 0:
                os.close(fd)

    @property
    def dropped(self) -> bool:
        """Whether the file has no name any more."""
        return os.fstat(self.fd).st_nlink == 0

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes, fewer only at the end of the file. May wait for the device; OSError."""
        # pread, unlike preadv, needs no buffer that was zeroed before, with the GIL held.
        data = os.pread(self.fd, size, offset)
        while len(data) < size:
            more = os.pread(self.fd, size - len(data), offset + len(data))
            if not more:
                break
            data += more
        return data

    def read_resident(self, offset: int, size: int) -> bytearray | None:
        """`size` bytes without waiting; None where some of them are not in the page cache."""
        data = bytearray(size)
        try:
            count = os.preadv(self.fd, [data], offset, os.RWF_NOWAIT)
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                return None  # whoever reads and waits will learn why
            count = os.preadv(self.fd, [data], offset)  # tmpfs: all of it is resident
        return data if count == size else None

    def is_resident(self, offset: int, size: int) -> bool:
        """Whether all of these bytes are in the page cache, asked without waiting."""
        try:
            while size > 0:
                # Into one buffer that stays in the processor's cache: half of what a copy costs.
                count = os.preadv(self.fd, [_ASIDE[:size]], offset, os.RWF_NOWAIT)
                if count < min(size, len(_ASIDE)):
                    return False
                offset += count
                size -= count
        except OSError as error:
            return error.errno == errno.EOPNOTSUPP  # tmpfs
        return True

    def is_verified(self, record: int) -> bool:
        """Whether this record's checksum has been found right since the node's start."""
        byte, bit = record >> 3, 1 << (record & 7)
        if self._verified[byte] & bit:
            return True
        verified = bool(self._mark(record) & _VERIFIED)
        if verified:
            self._verified[byte] |= bit
        return verified

    def uses(self, record: int) -> int:
        """How often the record was used, as far as marks count."""
        return self._mark(record) & ~_VERIFIED

    def all_uses(self, records: int) -> bytes:
        """The same of the first `records` records at once."""
        if self._marks < 0 and not self._open_marks(os.O_RDWR):
            return bytes(records)
        marks = os.pread(self._marks, records, _SESSION_SIZE)
        return marks.translate(_USES).ljust(records, b"\0")

    def set_verified(self, record: int) -> None:
        """The record's checksum is right."""
        self._set_mark(record, self._mark(record) | _VERIFIED)

    def add_uses(self, record: int, uses: int = 1) -> None:
        """The record was used so many times more."""
        mark = self._mark(record)
        now = mark & _VERIFIED | min(MOST_USES, (mark & ~_VERIFIED) + uses)
        if now != mark:
            self._set_mark(record, now)

    def _mark(self, record: int) -> int:
        if self._marks < 0 and not self._open_marks(os.O_RDWR):
            return 0
        found = os.pread(self._marks, 1, _SESSION_SIZE + record)
        return found[0] if found else 0

    def _set_mark(self, record: int, mark: int) -> None:
        # A disk that is full can still be read from; a mark is only lost.
        with contextlib.suppress(OSError):
            if self._marks >= 0 or self._open_marks(os.O_RDWR | os.O_CREAT):
                os.pwrite(self._marks, bytes((mark,)), _SESSION_SIZE + record)

    def _open_marks(self, flags: int) -> bool:
        if self.dropped:
            return False
        try:
            self._marks = os.open(self._marks_path, flags, 0o600)
            session = self._session.to_bytes(_SESSION_SIZE, "little")
            if os.pread(self._marks, _SESSION_SIZE, 0) != session:
                os.ftruncate(self._marks, 0)
                os.pwrite(self._marks, session, 0)
        except OSError:
            return False
        return True


class Segments:
    """A shard's segments as this process has them open. May be used from any thread."""

    def __init__(self, directory: Path, session: int) -> None:
        self._directory = directory
        self._session = session
        self._lock = threading.Lock()
        self._open: OrderedDict[int, Segment] = OrderedDict()

    def get(self, number: int) -> Segment | None:
        """None where it has been dropped. Raises OSError."""
        with self._lock:
            segment = self._open.get(number)
            if segment is not None:
                self._open.move_to_end(number)
                return segment
            # Another process may have dropped what is held here: let its space go.
            for held in [held for held in self._open.values() if held.dropped]:
                del self._open[held.number]
            try:
                segment = Segment(self._directory, number, self._session)
            except FileNotFoundError:
                return None
            self._keep(segment)
            return segment

    def create(self, number: int) -> Segment:
        """A new one. Raises OSError."""
        segment = Segment(self._directory, number, self._session, create=True)
        with self._lock:
            self._keep(segment)
        return segment

    def drop(self, number: int) -> None:
        """Takes the files away; whoever holds the segment goes on reading."""
        with self._lock:
            self._open.pop(number, None)
        for path in (segment_path(self._directory, number), marks_path(self._directory, number)):
            path.unlink(missing_ok=True)

    def let_go(self) -> None:
        """Nothing is kept open but by those who read: the next writer may give a number, of which
        the index never knew, to another segment."""
        with self._lock:
            self._open.clear()

    def numbers(self) -> list[int]:
        """Of all that have a file."""
        return segment_numbers(self._directory)

    def sync_names(self) -> None:
        """Which segments there are becomes durable."""
        fd = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def _keep(self, segment: Segment) -> None:
        self._open[segment.number] = segment
        if len(self._open) > MOST_OPEN:
            self._open.popitem(last=False)


class SegmentWriter:
    """The end of a log. What is added has its place at once, and is in the file after `flush`.

    `size` and `records` are as after the next flush.
    """

    def __init__(self, segment: Segment, log: Log) -> None:
        self.segment = segment
        self.log = log
        self.size = self.records = 0
        self._buffers: list[Bytes] = []
        self._written = 0

    def add(self, *buffers: Bytes) -> tuple[int, int]:
        """Appends one record; returns its offset and number."""
        offset, record = self.size, self.records
        self._buffers += buffers
        self.size += sum(map(len, buffers))
        self.records += 1
        return offset, record

    def flush(self) -> bool:
        """Hands all that was added to the kernel; whether there was any. Raises OSError."""
        if not self._buffers:
            return False
        buffers, self._buffers = self._buffers, []
        for at in range(0, len(buffers), _MOST_BUFFERS):
            self._write(buffers[at : at + _MOST_BUFFERS])
        return True

    def _write(self, buffers: list[Bytes]) -> None:
        total = sum(map(len, buffers))
        count = os.pwritev(self.segment.fd, buffers, self._written)
        self._written += count
        if count < total:
            self._write([b"".join(buffers)[count:]])


def walk(fd: int, size: int) -> Iterator[Placed]:
    """The records of a segment in order, killed ones too, up to `size` bytes or the first thing
    that is no whole record; content is not read. Raises OSError."""
    offset = record = 0
    while record < MOST_RECORDS:
        header = unpack(os.pread(fd, HEADER_SIZE, offset))
        if header is None or offset + header.size > size:
            return
        yield Placed(offset, record, header)
        offset += header.size
        record += 1
