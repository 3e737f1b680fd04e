"""The two logs of a shard as its one writer has them: which segments there are, and their ends.

Strategy: a record goes to the end of its log, and the caller is told when that end is full. A
segment counts only as far as the index knows it: what a dead process left beyond is cut off before
anything is written, so no record ever comes back that the index has not known.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable

from cdn.storage.eviction.two_logs import Log
from cdn.storage.index import Change, Index, IndexFailed, Location, Next, SegmentRow
from cdn.storage.records import HEADER_SIZE, Bytes, Kind, pack
from cdn.storage.segments import MOST_RECORDS, Segment, Segments, SegmentWriter

TERM = 1 << 32
"""Sequences by which every writer's begin beyond its predecessor's: what that one gave out and did
not get into the index, and somebody may still know an object by, is never given out again."""


class Logs:
    """Only the shard's writer may call these, one at a time. Raises OSError and
    IndexFailed."""

    def __init__(self, index: Index, segments: Segments, segment_size: int) -> None:
        self._index = index
        self._segments = segments
        self._segment_size = segment_size
        self._ends: dict[Log, SegmentWriter] = {}
        self._rows: dict[int, SegmentRow] = {}
        self._sizes = dict.fromkeys(Log, 0)
        self._next = Next(1, 1)  # with what is on the disk: see `take_over`
        self._dirty: set[Segment] = set()
        self._renamed = False
        self._owned = False

    # --- what there is --------------------------------------------------------------------------

    @property
    def rows(self) -> list[SegmentRow]:
        """The oldest first."""
        return list(self._rows.values())

    def has(self, number: int) -> bool:
        """Whether that segment is still there."""
        return number in self._rows

    def size_of(self, log: Log) -> int:
        """Bytes in its segments, those included that wait to be flushed."""
        return self._sizes[log]

    def oldest(self, log: Log) -> SegmentRow:
        return next(row for row in self.rows if row.log is log)

    def take_over(self) -> None:
        """Before the first write: learns what there is, cuts off what the index does not know."""
        if self._owned:
            return
        rows = {row.number: row for row in self._index.segments()}
        for number in self._segments.numbers():
            if number not in rows:
                self._segments.drop(number)
        with self._index.change() as change:
            for row in rows.values():
                if not row.sealed:
                    self._cut(row)
                    change.put_segment(row._replace(sealed=True))
            last = Next(*map(max, self._next, change.next()))
            self._next = last._replace(sequence=last.sequence + TERM)
            change.put_next(self._next)
        self._rows = rows
        self._sizes = dict.fromkeys(Log, 0)
        for row in rows.values():
            self._sizes[row.log] += row.size
        self._renamed = self._owned = True

    def _cut(self, row: SegmentRow) -> None:
        segment = self._segments.get(row.number)
        if segment is not None and os.fstat(segment.fd).st_size > row.size:
            os.ftruncate(segment.fd, row.size)
            self._dirty.add(segment)

    # --- appending ------------------------------------------------------------------------------

    def has_room(self, log: Log, size: int) -> bool:
        """Whether a record of `size` bytes fits at the end of the log's last segment."""
        end = self._ends.get(log)
        return (
            end is not None and end.size + size <= self._segment_size and end.records < MOST_RECORDS
        )

    def append(
        self,
        log: Log,
        kind: Kind,
        digest: bytes,
        object_id: int,
        number: int,
        key: Bytes,
        content: Bytes,
        check: int,
    ) -> Location:
        """Its place, from the next `flush` on; it must have room."""
        header = pack(
            kind, digest, object_id, self._next.sequence, number, len(key), len(content), check
        )
        self._next = self._next._replace(sequence=self._next.sequence + 1)
        end = self._ends[log]
        offset, record = end.add(header, key, content)
        self._sizes[log] += end.size - offset
        return Location(end.segment.number, offset, record, len(content))

    @property
    def sequence(self) -> int:
        """Of the next record."""
        return self._next.sequence

    def flush(self) -> list[SegmentRow]:
        """What was appended to the kernel. The rows that the index needs to know of it."""
        rows = []
        for end in self._ends.values():
            if end.flush():
                number = end.segment.number
                rows.append(SegmentRow(number, end.log, end.size, end.records, False))
        return rows

    def put(self, change: Change, rows: Iterable[SegmentRow]) -> None:
        """What `flush` gave, as part of a change."""
        for row in rows:
            change.put_segment(row)
        change.put_next(self._next)

    def committed(self, rows: Iterable[SegmentRow]) -> None:
        """The change has been made."""
        for row in rows:
            self._rows[row.number] = row
            if self.is_end(row):
                self._dirty.add(self._ends[row.log].segment)

    def begin_segment(self, log: Log) -> None:
        """A new end for a log, whose last one was sealed."""
        number = self._next.segment
        segment = self._segments.create(number)
        self._next = self._next._replace(segment=number + 1)
        self._renamed = True
        self._ends[log] = SegmentWriter(segment, log)
        self._rows[number] = SegmentRow(number, log, 0, 0, False)

    def is_end(self, row: SegmentRow) -> bool:
        """Whether a log goes on in this segment."""
        end = self._ends.get(row.log)
        return end is not None and end.segment.number == row.number

    def seal(self, log: Log, change: Change) -> None:
        """The log's last segment has all that it will ever have, and that has been flushed."""
        end = self._ends.pop(log, None)
        if end is not None:
            number = end.segment.number
            row = SegmentRow(number, log, end.size, end.records, True)
            self.put(change, [row])
            self.committed([row])
            self._dirty.add(end.segment)

    def drop(self, row: SegmentRow) -> None:
        """A segment of which the index knows nothing any more."""
        del self._rows[row.number]
        self._sizes[row.log] -= row.size
        self._renamed = True
        self._segments.drop(row.number)

    def abandon(self) -> None:
        """After a failure: back to what the index knows, now or before the next write."""
        self._ends.clear()
        self._owned = False
        with contextlib.suppress(OSError, IndexFailed):
            self.take_over()

    # --- becoming durable -----------------------------------------------------------------------

    def touched(self, segment: Segment) -> None:
        """Something was written over in it."""
        self._dirty.add(segment)

    def undurable(self) -> tuple[set[Segment], bool]:
        """Segments written to since this was last asked, and whether one came or went."""
        dirty, renamed = self._dirty, self._renamed
        self._dirty, self._renamed = set(), False
        return dirty, renamed


def record_size(key: Bytes, length: int) -> int:
    """Bytes of a record with `length` bytes of content."""
    return HEADER_SIZE + len(key) + length
