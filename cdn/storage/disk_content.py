"""Content out of the disk store: read without stalling the loop, never handed out unverified.

Strategy: what is resident and has been verified is read at once, in small pieces, or left in its
segment by those who send it out of there. Everything else is read whole, slice by slice, in a
thread that also checks it; a small slice that is resident is checked at once. A slice's segment is
held open from some time before it is read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from itertools import islice
from typing import NamedTuple, TypeVar

from cdn.semantics.ranges import ByteRange, slices_for
from cdn.storage.incoming import Incoming
from cdn.storage.index import Location
from cdn.storage.records import HEADER_SIZE, content_of
from cdn.storage.segments import Segment
from cdn.storage.shard import Shard
from cdn.storage.store import FileSpan, Piece, SliceDamaged, SliceGone

PIECE = 256 << 10
"""Bytes read at once on the loop at most: copying them takes some 30 µs."""

SPAN = 1 << 20
"""Bytes left in a segment as one piece at most: on the loop it is asked whether they are
resident."""

LEAST_SENT = 24 << 10
"""Bytes; fewer are read, which costs less than sending them out of a file."""

CHECKED_ON_LOOP = 128 << 10
"""Bytes of a slice that is verified on the loop at most."""

HELD_AHEAD = 64
"""Slices whose segments are held open ahead of the one being read."""

Held = dict[int, tuple[Segment, Location]]

P = TypeVar("P", memoryview, Piece)


class Wanted(NamedTuple):
    """Bytes [start, stop) of a slice."""

    number: int
    start: int
    stop: int


class SliceSource:
    """Where the slices of one response are to be had. `incoming` has those that the index does not
    know yet; `object_id` is None where there are no others. Slices of `slice_size` bytes are
    counted from `base`. `single`: all content is one slice; it is used when the response is, so
    reading does not count, and its place is remembered. `is_use`: whether reading counts at all:
    not for those who read what is just being fetched for them."""

    __slots__ = (
        "_object_id",
        "_place",
        "base",
        "digest",
        "incoming",
        "is_use",
        "key",
        "readers",
        "shard",
        "single",
        "slice_size",
    )

    def __init__(
        self,
        shard: Shard,
        key: bytes,
        digest: bytes,
        slice_size: int,
        part: ByteRange | None,
        length: int | None,
        object_id: int | None,
        incoming: Incoming | None,
        readers: Executor,
        is_use: bool = True,
    ) -> None:
        self.is_use = is_use
        self.shard = shard
        self.key = key
        self.digest = digest
        self.slice_size = slice_size
        self.base = 0 if part is None else part.start
        self.incoming = incoming
        self.readers = readers
        content = length if part is None else part.length
        self.single = content is not None and content <= slice_size
        self._object_id = object_id
        self._place: Location | None = None

    @property
    def object_id(self) -> int | None:
        # Its first record may have been placed since it was looked up.
        return self._object_id if self.incoming is None else self.incoming.object_id

    def use_arriving(self, number: int) -> None:
        """One of the slices on their way is used."""
        incoming = self.incoming
        if self.is_use and incoming is not None and incoming.waiting is not None:
            incoming.waiting.use(incoming, number)

    def wanted(self, parts: Sequence[ByteRange]) -> list[Wanted]:
        """What the parts, in their order, touch of each slice."""
        wanted = []
        size = self.slice_size
        for part in parts:
            start, stop = part.start - self.base, part.stop - self.base
            for number in slices_for(ByteRange(start, stop), size):
                first = number * size
                wanted.append(Wanted(number, max(start - first, 0), min(stop - first, size)))
        return wanted

    def held(self, numbers: Iterable[int], placed: Mapping[int, Location]) -> Held:
        """Those slices that are there, with their segments held open."""
        place = self._place
        if place is not None and (segment := self.shard.segments.get(place.segment)) is not None:
            return {0: (segment, place)}
        object_id = self.object_id
        if object_id is None:
            return {}
        found = self.shard.locate(object_id, numbers, placed)
        if self.single and 0 in found:
            self._place = found[0][1]
        return found

    def ready(self, parts: Sequence[ByteRange], most: int) -> list[memoryview] | None:
        """See `StoredObject.ready`; `most` bytes in all."""
        return self._ready(parts, most, self.at_once)

    def ready_to_send(self, parts: Sequence[ByteRange], most: int) -> list[Piece] | None:
        """See `StoredObject.ready_to_send`; `most` bytes in all."""
        return self._ready(parts, most, self.at_once_to_send)

    def _ready(
        self,
        parts: Sequence[ByteRange],
        most: int,
        at_once: Callable[[Wanted, Segment, Location], P | None],
    ) -> list[P] | None:
        wanted = self.wanted(parts)
        if sum(stop - start for _, start, stop in wanted) > most:
            return None
        incoming = self.incoming
        arriving = dict(incoming.slices) if incoming else {}
        placed = dict(incoming.placed) if incoming else {}
        held = self.held([one.number for one in wanted if one.number not in arriving], placed)
        pieces: list[P] = []
        for one in wanted:
            content = arriving.get(one.number)
            if content is not None:
                pieces.append(memoryview(content)[one.start : one.stop])
                continue
            if one.number not in held:
                raise SliceGone(one.number, "has been evicted")
            piece = at_once(one, *held[one.number])
            if piece is None:
                return None
            pieces.append(piece)
        if not self.single:
            for segment, location in held.values():
                segment.add_uses(location.record)
            for number in arriving.keys() & {one.number for one in wanted}:
                self.use_arriving(number)
        return pieces

    def at_once(self, wanted: Wanted, segment: Segment, location: Location) -> memoryview | None:
        """The bytes without waiting; None where they are not resident, or too many to be checked.
        Raises SliceDamaged."""
        number, start, stop = wanted
        if stop > location.length:
            raise self._damaged(number, location)
        before = HEADER_SIZE + len(self.key)
        if segment.is_verified(location.record):
            data = segment.read_resident(location.offset + before + start, stop - start)
            return None if data is None else memoryview(data)
        size = before + location.length
        if size > CHECKED_ON_LOOP:
            return None
        data = segment.read_resident(location.offset, size)
        return None if data is None else self._check(number, segment, location, data)[start:stop]

    def at_once_to_send(self, wanted: Wanted, segment: Segment, location: Location) -> Piece | None:
        """The same, left in the segment where it is worth it."""
        number, start, stop = wanted
        if stop - start < LEAST_SENT or not segment.is_verified(location.record):
            return self.at_once(wanted, segment, location)
        if stop > location.length:
            raise self._damaged(number, location)
        offset = location.offset + HEADER_SIZE + len(self.key) + start
        if not segment.is_resident(offset, stop - start):
            return None
        return SegmentSpan(self, wanted, segment, location, offset)

    def checked(self, number: int, segment: Segment, location: Location) -> memoryview:
        """A whole slice; waits for the device. Raises SliceDamaged."""
        size = HEADER_SIZE + len(self.key) + location.length
        try:
            data = segment.read(location.offset, size)
        except OSError:  # the device says itself that it has lost it
            raise self._damaged(number, location) from None
        return self._check(number, segment, location, data)

    def _check(
        self, number: int, segment: Segment, location: Location, data: bytes | bytearray
    ) -> memoryview:
        record = content_of(data)
        if record is None:
            raise self._damaged(number, location)
        header, key, content = record
        if (header.object_id, header.number) != (self.object_id, number) or key != self.key:
            raise self._damaged(number, location)
        segment.set_verified(location.record)
        return content

    def _damaged(self, number: int, location: Location) -> SliceDamaged:
        object_id = self.object_id
        assert object_id is not None
        self._place = None
        self.shard.slice_damaged(self.digest, object_id, number, location)
        return SliceDamaged(number, "is damaged")


class SegmentSpan(FileSpan):
    """Bytes of a slice that were resident and verified."""

    __slots__ = ("_location", "_segment", "_source", "_wanted")
    may_leave = True

    def __init__(
        self, source: SliceSource, wanted: Wanted, segment: Segment, location: Location, offset: int
    ) -> None:
        super().__init__(segment.fd, offset, wanted.stop - wanted.start, segment)
        self._source = source
        self._wanted = wanted
        self._segment = segment
        self._location = location

    def is_resident(self, skip: int, length: int) -> bool:
        """See `FileSpan.is_resident`."""
        return self._segment.is_resident(self.offset + skip, length)

    def read_again(self, skip: int) -> memoryview:
        """See `FileSpan.read_again`: what comes from the device is checked again."""
        number, start, stop = self._wanted
        return self._source.checked(number, self._segment, self._location)[start + skip : stop]


class DiskContent:
    """See `StoredContent`. Closes its segments at the end, or by `abort`."""

    def __init__(self, source: SliceSource, parts: Sequence[ByteRange]) -> None:
        incoming = source.incoming
        self._source = source
        # In this order: what is being written goes from the one to the other, and into the index.
        self._arriving = dict(incoming.slices) if incoming else {}
        self._placed = dict(incoming.placed) if incoming else {}
        self._wanted = source.wanted(parts)
        self._next = 0
        self._position = self._wanted[0].start if self._wanted else 0
        self._held: Held = {}
        self._hold_ahead()

    async def read(self) -> bytes | memoryview:
        """The next piece, b"" at the end. Raises SliceDamaged and SliceGone, before any byte of
        that slice that has not been handed out."""
        piece: bytes | memoryview = await self.next_piece(PIECE, self._source.at_once)
        return piece  # which of the two, mypy finds out in two steps

    async def next_piece(
        self, most: int, at_once: Callable[[Wanted, Segment, Location], P | None]
    ) -> P | memoryview | bytes:
        """The same, `most` bytes of what is had by `at_once`."""
        piece: P | memoryview
        if self._next >= len(self._wanted):
            self.abort()
            return b""
        number, start, stop = self._wanted[self._next]
        arriving = self._arriving.get(number)
        if arriving is not None:
            if self._position == start and not self._source.single:
                self._source.use_arriving(number)
            piece = memoryview(arriving)[self._position : stop]
        else:
            piece = await self._read(number, self._position, stop, most, at_once)
        self._position += len(piece)
        if self._position >= stop:
            self._advance()
        return piece

    def abort(self) -> None:
        """Lets go of everything."""
        self._next = len(self._wanted)
        self._held = {}
        self._arriving = {}
        self._placed = {}

    def _advance(self) -> None:
        self._next += 1
        if self._next < len(self._wanted):
            self._position = self._wanted[self._next].start

    def _hold_ahead(self) -> None:
        ahead = [
            wanted.number
            for wanted in islice(self._wanted, self._next, self._next + HELD_AHEAD)
            if wanted.number not in self._arriving
        ]
        self._held = self._source.held(ahead, self._placed) if ahead else {}

    async def _read(
        self,
        number: int,
        start: int,
        stop: int,
        most: int,
        at_once: Callable[[Wanted, Segment, Location], P | None],
    ) -> P | memoryview:
        if number not in self._held:
            self._hold_ahead()
        if number not in self._held:
            raise SliceGone(number, "has been evicted")
        source, (segment, location) = self._source, self._held[number]
        if start == self._wanted[self._next].start and not source.single:
            segment.add_uses(location.record)
        verified = segment.is_verified(location.record)
        until = min(stop, start + most) if verified else stop
        data = at_once(Wanted(number, start, until), segment, location)
        if data is not None:
            return data
        loop = asyncio.get_running_loop()
        content = await loop.run_in_executor(
            source.readers, source.checked, number, segment, location
        )
        return content[start:stop]


class DiskContentToSend:
    """See `ContentToSend`."""

    def __init__(self, source: SliceSource, parts: Sequence[ByteRange]) -> None:
        self._source = source
        self._content = DiskContent(source, parts)

    async def read(self) -> Piece:
        """See `DiskContent.read`."""
        return await self._content.next_piece(SPAN, self._source.at_once_to_send)

    def abort(self) -> None:
        """See `DiskContent.abort`."""
        self._content.abort()
