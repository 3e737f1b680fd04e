"""The index of one shard: where heads and slices lie. LMDB, so that nothing of it is Python's.

Strategy: three tables. `heads`: key digest + object id -> where the head is, and a bit for each
slice that is there; `slices`: object id + number -> where; `segments`: what a log consists of. It
is never synced while in use: when a process dies its pages live on, and after anything worse the
index is not believed but rebuilt from the segments.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import lmdb

from cdn.storage.eviction.two_logs import Log

_LOCATION = struct.Struct("<IIHI")
_ENTRY = struct.Struct("<Qq")
_HEAD_KEY = struct.Struct(">16sQ")
_SLICE_KEY = struct.Struct(">QI")
_SEGMENT_KEY = struct.Struct(">I")
_SEGMENT = struct.Struct("<BQI?")
_NEXT = struct.Struct("<QI")
_NEXT_KEY = b"next"

_MOST_READERS = 512
_PAGE = 4096


Row = tuple[bytes, bytes]
"""Of the table of heads, as it is stored."""


class IndexFailed(Exception):
    """LMDB could not do it; the message says why."""


class Location(NamedTuple):
    """Of a record; `length` is its content's, in bytes."""

    segment: int
    offset: int
    record: int
    length: int


class Entry(NamedTuple):
    """One object. `slices` has bit n set where slice n is there; `length` is the complete
    representation's, None where unknown."""

    object_id: int
    location: Location
    sequence: int
    length: int | None
    slices: int


class SegmentRow(NamedTuple):
    """One segment as far as it is indexed; `sealed`: its file has nothing beyond."""

    number: int
    log: Log
    size: int
    records: int
    sealed: bool


class Next(NamedTuple):
    """Counters that never go back: no record that is indexed has this sequence or a higher one,
    no segment that ever was indexed has this number or a higher one."""

    sequence: int
    segment: int


class Index:
    """`map_size` bounds the file, in bytes. Raises IndexFailed, here and everywhere. Look-ups are
    one read transaction each and may come from any thread; one `change` at a time."""

    def __init__(self, path: Path, map_size: int, readonly: bool = False) -> None:
        with translated():
            self._env = lmdb.open(
                str(path),
                map_size=map_size,
                subdir=False,
                readonly=readonly,
                create=not readonly,
                max_dbs=4,
                max_readers=_MOST_READERS,
                max_spare_txns=4,
                sync=False,
                readahead=False,
                mode=0o600,
            )
            self._heads = self._env.open_db(b"heads", create=not readonly)
            self._slices = self._env.open_db(b"slices", create=not readonly)
            self._segments = self._env.open_db(b"segments", create=not readonly)
            self._env.reader_check()

    def close(self) -> None:
        self._env.close()

    def sync(self) -> None:
        """All of it to the device, whoever wrote it."""
        with translated():
            self._env.sync(True)

    def reader_check(self) -> int:
        """Frees the places of readers whose process has died; returns how many."""
        with translated():
            return self._env.reader_check()

    @property
    def size(self) -> int:
        """Bytes of its file."""
        return (self._env.info()["last_pgno"] + 1) * _PAGE

    def heads(self, digest: bytes) -> list[Entry]:
        """All objects under a key's digest."""
        with translated(), self._env.begin() as txn:
            return _heads(txn.cursor(self._heads), digest)

    def rows(self, digest: bytes) -> list[Row]:
        """The same as it is stored: equal rows say the same. See `entry_of`."""
        found = []
        with translated(), self._env.begin(db=self._heads) as txn:
            cursor = txn.cursor()
            more = cursor.set_range(digest)
            while more and (row := cursor.item())[0].startswith(digest):
                found.append(row)
                more = cursor.next()
        return found

    def head(self, digest: bytes, object_id: int) -> Entry | None:
        """That object, where it is there."""
        with translated(), self._env.begin(db=self._heads) as txn:
            value = txn.get(_HEAD_KEY.pack(digest, object_id))
            return None if value is None else _entry(object_id, value)

    def all_heads(self) -> Iterator[tuple[bytes, Entry]]:
        """Digest and entry of every object, as they were when asked."""
        with translated(), self._env.begin() as txn:
            for key, value in txn.cursor(self._heads):
                digest, object_id = _HEAD_KEY.unpack(key)
                yield digest, _entry(object_id, value)

    def locate(self, object_id: int, numbers: Iterable[int]) -> dict[int, Location]:
        """Where those of an object's slices are that are there."""
        found = {}
        with translated(), self._env.begin(db=self._slices) as txn:
            for number in numbers:
                value = txn.get(_SLICE_KEY.pack(object_id, number))
                if value is not None:
                    found[number] = Location(*_LOCATION.unpack(value))
        return found

    def segments(self) -> list[SegmentRow]:
        """In the order of their numbers."""
        with translated(), self._env.begin(db=self._segments) as txn:
            return [
                SegmentRow(_SEGMENT_KEY.unpack(key)[0], *_segment(value))
                for key, value in txn.cursor()
                if key != _NEXT_KEY
            ]

    def counts(self) -> tuple[int, int]:
        """How many objects and slices there are."""
        with translated(), self._env.begin() as txn:
            return txn.stat(self._heads)["entries"], txn.stat(self._slices)["entries"]

    @contextlib.contextmanager
    def change(self) -> Iterator[Change]:
        """One write transaction, all or nothing."""
        with translated(), self._env.begin(write=True) as txn:
            yield Change(txn, self._heads, self._slices, self._segments)


class Change:
    """What a write transaction can do; what it reads is as it has changed it."""

    def __init__(
        self,
        txn: lmdb.Transaction[bytes],
        heads: lmdb._Database,
        slices: lmdb._Database,
        segments: lmdb._Database,
    ) -> None:
        self._txn = txn
        self._heads = heads
        self._slices = slices
        self._segments = segments

    def heads(self, digest: bytes) -> list[Entry]:
        return _heads(self._txn.cursor(self._heads), digest)

    def head(self, digest: bytes, object_id: int) -> Entry | None:
        value = self._txn.get(_HEAD_KEY.pack(digest, object_id), db=self._heads)
        return None if value is None else _entry(object_id, value)

    def put_head(self, digest: bytes, entry: Entry) -> None:
        bits = entry.slices
        value = (
            _LOCATION.pack(*entry.location)
            + _ENTRY.pack(entry.sequence, -1 if entry.length is None else entry.length)
            + bits.to_bytes((bits.bit_length() + 7) // 8, "little")
        )
        self._txn.put(_HEAD_KEY.pack(digest, entry.object_id), value, db=self._heads)

    def delete_head(self, digest: bytes, object_id: int) -> None:
        self._txn.delete(_HEAD_KEY.pack(digest, object_id), db=self._heads)

    def slice(self, object_id: int, number: int) -> Location | None:
        value = self._txn.get(_SLICE_KEY.pack(object_id, number), db=self._slices)
        return None if value is None else Location(*_LOCATION.unpack(value))

    def put_slice(self, object_id: int, number: int, location: Location) -> None:
        key = _SLICE_KEY.pack(object_id, number)
        self._txn.put(key, _LOCATION.pack(*location), db=self._slices)

    def delete_slice(self, object_id: int, number: int) -> None:
        self._txn.delete(_SLICE_KEY.pack(object_id, number), db=self._slices)

    def put_segment(self, row: SegmentRow) -> None:
        value = _SEGMENT.pack(row.log, row.size, row.records, row.sealed)
        self._txn.put(_SEGMENT_KEY.pack(row.number), value, db=self._segments)

    def delete_segment(self, number: int) -> None:
        self._txn.delete(_SEGMENT_KEY.pack(number), db=self._segments)

    def next(self) -> Next:
        value = self._txn.get(_NEXT_KEY, db=self._segments)
        return Next(1, 1) if value is None else Next(*_NEXT.unpack(value))

    def put_next(self, following: Next) -> None:
        self._txn.put(_NEXT_KEY, _NEXT.pack(*following), db=self._segments)


def open_index(directory: Path, share: int) -> Index:
    """That of a shard which may have `share` bytes: its map is as large as it can ever need, since
    records are larger than what the index says of them."""
    return Index(directory / "index", share + (64 << 20))


def entry_of(row: Row) -> Entry:
    """What a row says."""
    key, value = row
    return _entry(_HEAD_KEY.unpack(key)[1], value)


def _heads(cursor: lmdb.Cursor[bytes], digest: bytes) -> list[Entry]:
    found = []
    more = cursor.set_range(digest)
    while more and (key := cursor.key()).startswith(digest):
        found.append(_entry(_HEAD_KEY.unpack(key)[1], cursor.value()))
        more = cursor.next()
    return found


def _entry(object_id: int, value: bytes) -> Entry:
    sequence, length = _ENTRY.unpack_from(value, _LOCATION.size)
    return Entry(
        object_id,
        Location(*_LOCATION.unpack_from(value)),
        sequence,
        None if length < 0 else length,
        int.from_bytes(value[_LOCATION.size + _ENTRY.size :], "little"),
    )


def _segment(value: bytes) -> tuple[Log, int, int, bool]:
    log, size, records, sealed = _SEGMENT.unpack(value)
    return Log(log), size, records, sealed


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """What LMDB raises, as IndexFailed."""
    try:
        yield
    except lmdb.Error as error:
        raise IndexFailed(str(error)) from error
