"""Dropping a segment: what is worth keeping moves to main, the rest goes with the file.

Strategy: walk the segment's headers, ask the index what of it is alive and the policy what of that
is spared, for which it must know first how much of it was used how often. Slices first; a head
stays as long as there is content. In small steps, so that the shard's
lock is never held for long, and each step whole: a process may die between any two.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from cdn.storage.eviction.two_logs import Log, Sparing, name_of
from cdn.storage.index import Change, Entry, Location, SegmentRow
from cdn.storage.logs import record_size
from cdn.storage.records import HEADER_SIZE, LIVE, Kind
from cdn.storage.segments import MOST_USES, Placed, Segment, walk

if TYPE_CHECKING:
    from cdn.storage.shard import Shard

_STEP = 64
"""Records looked at while the lock is held."""


class Dropping:
    """Of the segment `row`, which is sealed. Raises OSError, IndexFailed."""

    def __init__(self, shard: Shard, row: SegmentRow) -> None:
        self._shard = shard
        self._row = row

    def run(self) -> None:
        row, shard = self._row, self._shard
        segment = shard.segments.get(row.number)
        if segment is not None:
            sparing = shard.policy.sparing(row.log, row.size, self._held(segment))
            for kind in (Kind.SLICE, Kind.HEAD):
                self._all_of(kind, segment, sparing)
        with shard.lock, shard.index.change() as change:
            change.delete_segment(row.number)
        shard.logs.drop(row)

    def _held(self, segment: Segment) -> list[int]:
        """Bytes of what is alive, by uses. What was never used is not asked for."""
        held = [0] * (MOST_USES + 1)
        uses = segment.all_uses(self._row.records)
        for placed in walk(segment.fd, self._row.size):
            header, used = placed.header, uses[placed.record]
            if used and header.kind == Kind.SLICE:
                index = self._shard.index
                places = index.locate(header.object_id, (header.number,))
                if places.get(header.number) == self._location(placed):
                    entries = index.heads(header.digest)
                    heads = (one for one in entries if one.object_id == header.object_id)
                    held[used] += self._cost(placed, next(heads, None))
        return held

    def _cost(self, placed: Placed, entry: Entry | None) -> int:
        """Of sparing a slice, in bytes: where its head lies here too, that is spared with it."""
        header = placed.header
        if header.number or entry is None or entry.location.segment != self._row.number:
            return header.size
        return header.size + record_size(b"", header.key_length + entry.location.length)

    def _location(self, placed: Placed) -> Location:
        return Location(self._row.number, placed.offset, placed.record, placed.header.length)

    def _all_of(self, kind: Kind, segment: Segment, sparing: Sparing) -> None:
        records = (
            placed for placed in walk(segment.fd, self._row.size) if placed.header.kind == kind
        )
        while step := list(islice(records, _STEP)):
            with self._shard.lock:
                self._step(segment, step, sparing)

    def _step(self, segment: Segment, step: list[Placed], sparing: Sparing) -> None:
        logs = self._shard.logs
        with self._shard.index.change() as change:
            for placed in step:
                header = placed.header
                entry = change.head(header.digest, header.object_id)
                if header.kind == Kind.SLICE:
                    self._slice(change, segment, placed, entry, sparing)
                elif entry is not None and entry.location == self._location(placed):
                    self._head(change, segment, placed, entry)
            rows = logs.flush()
            logs.put(change, rows)
        logs.committed(rows)

    def _slice(
        self,
        change: Change,
        segment: Segment,
        placed: Placed,
        entry: Entry | None,
        sparing: Sparing,
    ) -> None:
        shard, header = self._shard, placed.header
        if change.slice(header.object_id, header.number) != self._location(placed):
            return
        if entry is None:
            change.delete_slice(header.object_id, header.number)
            return
        uses = segment.uses(placed.record)
        spared = sparing.spares(uses, self._cost(placed, entry))
        if spared and (moved := self._move(change, segment, placed)) is not None:
            change.put_slice(header.object_id, header.number, moved)
            self._carry_uses(moved, uses)
            shard.counters.slices_kept += 1
            return
        change.delete_slice(header.object_id, header.number)
        shard.without_slice(change, header.digest, entry, header.number)
        shard.policy.forget(name_of(header.digest, header.number), header.size)
        shard.counters.slices_evicted += 1

    def _head(self, change: Change, segment: Segment, placed: Placed, entry: Entry) -> None:
        uses = segment.uses(placed.record)
        # What has no content is its head, and too small to be weighed.
        if entry.slices or uses:
            sequence = self._shard.logs.sequence
            moved = self._move(change, segment, placed)
            if moved is not None:
                entry = entry._replace(location=moved, sequence=sequence)
                change.put_head(placed.header.digest, entry)
                self._carry_uses(moved, uses)
                return
        change.delete_head(placed.header.digest, entry.object_id)
        header = placed.header
        self._shard.policy.forget(name_of(header.digest, None), header.size)

    def _move(self, change: Change, segment: Segment, placed: Placed) -> Location | None:
        """Appends a record as it is to main; None where it cannot be read, or was killed by a
        process that was killed itself before the index knew."""
        header, logs = placed.header, self._shard.logs
        data = segment.read(placed.offset, header.size)
        if len(data) < header.size or not data.startswith(LIVE):
            return None
        if not logs.has_room(Log.MAIN, header.size):
            logs.flush()
            logs.seal(Log.MAIN, change)
            logs.begin_segment(Log.MAIN)
        key_end = HEADER_SIZE + header.key_length
        view = memoryview(data)
        self._shard.counters.rewritten += header.size
        return logs.append(
            Log.MAIN,
            Kind(header.kind),
            header.digest,
            header.object_id,
            header.number,
            view[HEADER_SIZE:key_end],
            view[key_end:],
            header.check,  # of what was written: damage stays damage
        )

    def _carry_uses(self, moved: Location, uses: int) -> None:
        left = self._shard.policy.uses_left(self._row.log, uses)
        segment = self._shard.segments.get(moved.segment)
        if left > 0 and segment is not None:
            segment.add_uses(moved.record, left)
