"""Content out of the disk store: read without stalling the loop, never handed out unverified.

Strategy: what is resident and has been verified is read at once, in small pieces. Everything else
is read whole, slice by slice, in a thread that also checks it; a small slice that is resident is
checked at once. A slice's segment is held open from some time before it is read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor
from itertools import islice
from typing import NamedTuple

from cdn.semantics.ranges import ByteRange, slices_for
from cdn.storage.incoming import Incoming
from cdn.storage.index import Location
from cdn.storage.records import HEADER_SIZE, content_of
from cdn.storage.segments import Segment
from cdn.storage.shard import Shard

PIECE = 256 << 10
"""Bytes read at once on the loop at most: copying them takes some 30 µs."""

CHECKED_ON_LOOP = 128 << 10
"""Bytes of a slice that is verified on the loop at most."""

HELD_AHEAD = 64
"""Slices whose segments are held open ahead of the one being read."""


class SliceUnavailable(Exception):
    """Slice `number` has to be fetched again; the store does not claim to have it any more."""

    def __init__(self, number: int, why: str) -> None:
        super().__init__(f"slice {number} {why}")
        self.number = number


class SliceGone(SliceUnavailable):
    """It made room for others after it was looked up."""


class SliceDamaged(SliceUnavailable):
    """The device does not give back what was written to it."""


class Wanted(NamedTuple):
    """Bytes [start, stop) of a slice."""

    number: int
    start: int
    stop: int


def wanted_slices(parts: Sequence[ByteRange], slice_size: int) -> list[Wanted]:
    """What the parts, in their order, touch of each slice."""
    wanted = []
    for part in parts:
        for number in slices_for(part, slice_size):
            base = number * slice_size
            start, stop = max(part.start - base, 0), min(part.stop - base, slice_size)
            wanted.append(Wanted(number, start, stop))
    return wanted


class DiskContent:
    """A `Content` (see the gateway). `incoming` has slices that the index does not know yet;
    `object_id` is None where there are no others. Closes its segments at the end, or by `abort`."""

    def __init__(
        self,
        shard: Shard,
        key: bytes,
        digest: bytes,
        object_id: int | None,
        incoming: Incoming | None,
        wanted: list[Wanted],
        readers: Executor,
    ) -> None:
        self._shard = shard
        self._key = key
        self._digest = digest
        self._object_id = object_id
        self._arriving = dict(incoming.slices) if incoming else {}
        self._placed = dict(incoming.placed) if incoming else {}
        self._wanted = wanted
        self._next = 0
        self._position = wanted[0].start if wanted else 0
        self._held: dict[int, tuple[Segment, Location]] = {}
        self._readers = readers
        self._hold_ahead()

    async def read(self) -> bytes | memoryview:
        """The next piece, b"" at the end. Raises SliceDamaged and SliceGone, before any byte of
        that slice that has not been handed out."""
        if self._next >= len(self._wanted):
            self.abort()
            return b""
        number, _, stop = self._wanted[self._next]
        arriving = self._arriving.get(number)
        if arriving is not None:
            piece = memoryview(arriving)[self._position : stop]
        else:
            piece = await self._read(number, self._position, stop)
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
        if self._object_id is None:
            return
        ahead = [
            wanted.number
            for wanted in islice(self._wanted, self._next, self._next + HELD_AHEAD)
            if wanted.number not in self._arriving
        ]
        self._held = self._shard.locate(self._object_id, ahead, self._placed)

    async def _read(self, number: int, start: int, stop: int) -> memoryview:
        if number not in self._held:
            self._hold_ahead()
        if number not in self._held:
            raise SliceGone(number, "has been evicted")
        segment, location = self._held[number]
        if start == self._wanted[self._next].start:
            segment.add_uses(location.record)
        if stop > location.length:
            raise self._damaged(number, location)
        if segment.is_verified(location.record):
            offset = location.offset + HEADER_SIZE + len(self._key) + start
            data = segment.read_resident(offset, min(stop - start, PIECE))
            if data is not None:
                return memoryview(data)
        content = self._checked_at_once(number, segment, location)
        if content is None:
            loop = asyncio.get_running_loop()
            content = await loop.run_in_executor(
                self._readers, self._checked, number, segment, location
            )
        return content[start:stop]

    def _checked_at_once(
        self, number: int, segment: Segment, location: Location
    ) -> memoryview | None:
        size = HEADER_SIZE + len(self._key) + location.length
        if size > CHECKED_ON_LOOP:
            return None
        data = segment.read_resident(location.offset, size)
        return None if data is None else self._check(number, segment, location, data)

    def _checked(self, number: int, segment: Segment, location: Location) -> memoryview:
        size = HEADER_SIZE + len(self._key) + location.length
        try:
            data = segment.read(location.offset, size)
        except OSError:  # the device says itself that it has lost it
            raise self._damaged(number, location) from None
        return self._check(number, segment, location, data)

    def _check(
        self, number: int, segment: Segment, location: Location, data: bytearray
    ) -> memoryview:
        record = content_of(data)
        if record is None:
            raise self._damaged(number, location)
        header, key, content = record
        if (header.object_id, header.number) != (self._object_id, number) or key != self._key:
            raise self._damaged(number, location)
        segment.set_verified(location.record)
        return content

    def _damaged(self, number: int, location: Location) -> SliceDamaged:
        assert self._object_id is not None
        self._shard.slice_damaged(self._digest, self._object_id, number, location)
        return SliceDamaged(number, "is damaged")
