"""Rebuilding the index from the segments, for when the machine went down with it.

Strategy: walk the headers twice. First the heads: of those with one key and variant the latest
counts, killed ones never. Then the slices of those heads; the latest copy counts. Nothing is
believed but what has a checksum; the first thing in a segment that is no record ends it, and is cut
off. Content is verified when it is first used, as after any start.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from cdn.semantics.stored_response import StoredResponse
from cdn.storage.directory import shard_path
from cdn.storage.eviction.two_logs import Log
from cdn.storage.heads import decode_head
from cdn.storage.index import Change, Entry, Index, Location, Next, SegmentRow, open_index
from cdn.storage.records import HEADER_SIZE, KILLED, Kind, content_of, unpack
from cdn.storage.segments import (
    Placed,
    Segment,
    Segments,
    marks_path,
    segment_numbers,
    segment_path,
    walk,
)

Progress = Callable[[int, int], None]
"""Called with bytes done and bytes in all."""


def rebuild(directory: Path, shards: int, size: int, progress: Progress) -> int:
    """Makes the index of every shard of a store of `size` bytes anew; returns how many objects were
    found. Nobody else may have it open. Needs no other part of the store, so a child process can
    run it. Raises OSError and IndexFailed."""
    paths = [shard_path(directory, number) for number in range(shards)]
    for path in paths:
        path.mkdir(mode=0o700, exist_ok=True)
    total = 2 * sum(map(_size, paths))
    done = objects = 0
    for shard in paths:
        for name in ("index", "index-lock"):
            (shard / name).unlink(missing_ok=True)
        index = open_index(shard, size // shards)
        try:
            for step in _Rebuild(shard, index).run():
                done += step
                progress(done, total)
            index.sync()
            objects += index.counts()[0]
        finally:
            index.close()
    return objects


def _size(shard: Path) -> int:
    return sum(segment_path(shard, number).stat().st_size for number in segment_numbers(shard))


class _Rebuild:
    """Of one shard."""

    def __init__(self, path: Path, index: Index) -> None:
        self._path = path
        self._index = index
        self._segments = Segments(path, 0)
        self._sequence = 0

    def run(self) -> Iterator[int]:
        """Yields the bytes of each segment when it has been walked."""
        numbers = self._segments.numbers()
        for number in numbers:
            marks_path(self._path, number).unlink(missing_ok=True)
            yield self._heads_of(number)
        for number in numbers:
            yield self._slices_of(number)
        self._drop_empty()

    def _heads_of(self, number: int) -> int:
        segment = self._open(number)
        file_size = os.fstat(segment.fd).st_size
        size = records = 0
        with self._index.change() as change:
            for placed in walk(segment.fd, file_size):
                header = placed.header
                size, records = placed.offset + header.size, records + 1
                self._sequence = max(self._sequence, header.sequence)
                if header.kind == Kind.HEAD and header.live:
                    self._head(change, segment, placed)
            # Which log it was of is not known any more; main takes nothing for new that is old.
            change.put_segment(SegmentRow(number, Log.MAIN, size, records, True))
            change.put_next(Next(self._sequence + 1, number + 1))
        if size < file_size:
            os.ftruncate(segment.fd, size)
        return file_size

    def _head(self, change: Change, segment: Segment, placed: Placed) -> None:
        header = placed.header
        response = _response(segment, placed.offset)
        if response is None:
            return
        for other in change.heads(header.digest):
            if other.object_id != header.object_id:
                before = _response(self._open(other.location.segment), other.location.offset)
                if before is None or (before.primary_key, before.variant) != (
                    response.primary_key,
                    response.variant,
                ):
                    continue
            if other.sequence > header.sequence:
                return
            change.delete_head(header.digest, other.object_id)
        location = Location(segment.number, placed.offset, placed.record, header.length)
        entry = Entry(header.object_id, location, header.sequence, response.length, 0)
        change.put_head(header.digest, entry)

    def _slices_of(self, number: int) -> int:
        segment = self._open(number)
        size = os.fstat(segment.fd).st_size
        with self._index.change() as change:
            for placed in walk(segment.fd, size):
                if placed.header.kind == Kind.SLICE:
                    self._slice(change, number, placed)
        return size

    def _slice(self, change: Change, number: int, placed: Placed) -> None:
        header = placed.header
        entry = change.head(header.digest, header.object_id)
        if entry is None:
            return
        held = change.slice(header.object_id, header.number)
        if held is not None and self._sequence_at(held) > header.sequence:
            return
        location = Location(number, placed.offset, placed.record, header.length)
        change.put_slice(header.object_id, header.number, location)
        bits = entry.slices | 1 << header.number
        change.put_head(header.digest, entry._replace(slices=bits))

    def _sequence_at(self, location: Location) -> int:
        header = unpack(self._open(location.segment).read(location.offset, HEADER_SIZE))
        return 0 if header is None else header.sequence

    def _drop_empty(self) -> None:
        """A head without content would be found, and be of no use."""
        empty = [
            (digest, entry)
            for digest, entry in self._index.all_heads()
            if not entry.slices and entry.length != 0
        ]
        with self._index.change() as change:
            for digest, entry in empty:
                os.pwrite(self._open(entry.location.segment).fd, KILLED, entry.location.offset)
                change.delete_head(digest, entry.object_id)

    def _open(self, number: int) -> Segment:
        segment = self._segments.get(number)
        if segment is None:
            raise FileNotFoundError(2, "a segment went away while it was read", str(self._path))
        return segment


def _response(segment: Segment, offset: int) -> StoredResponse | None:
    """The head that begins at `offset`; None where it is not as it was written."""
    header = unpack(segment.read(offset, HEADER_SIZE))
    if header is None:
        return None
    record = content_of(segment.read(offset, header.size))
    if record is None:
        return None
    try:
        return decode_head(bytes(record[1]), bytes(record[2]))
    except ValueError:
        return None
