"""Dropping a segment: what is worth keeping moves to main, the rest goes with the file.

Strategy: walk the segment's headers, ask the index what of it is alive and the policy what of that
is kept. Slices first; a head stays as long as there is content. In small steps, so that the shard's
lock is never held for long, and each step whole: a process may die between any two.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from cdn.storage.index import Change, Entry, Location, SegmentRow
from cdn.storage.logs import record_size
from cdn.storage.records import HEADER_SIZE, Bytes, Kind
from cdn.storage.segments import Log, Placed, Segment, walk

if TYPE_CHECKING:
    from cdn.storage.shard import Shard

_STEP = 64
"""Records looked at while the lock is held."""

MAIN_KEEPS = 2
"""Of a segment of main, at most one part in so many is kept: dropping it always gains room."""


class Dropping:
    """Of the segment `row`, which is sealed. Raises OSError, IndexFailed."""

    def __init__(self, shard: Shard, row: SegmentRow) -> None:
        self._shard = shard
        self._row = row
        self._budget = row.size if row.log is Log.PROBATION else row.size // MAIN_KEEPS

    def run(self) -> None:
        row, shard = self._row, self._shard
        segment = shard.segments.get(row.number)
        if segment is not None:
            for kind in (Kind.SLICE, Kind.HEAD):
                self._all_of(kind, segment)
        with shard.lock, shard.index.change() as change:
            change.delete_segment(row.number)
        shard.logs.drop(row)

    def _all_of(self, kind: Kind, segment: Segment) -> None:
        records = (
            placed for placed in walk(segment.fd, self._row.size) if placed.header.kind == kind
        )
        while step := list(islice(records, _STEP)):
            with self._shard.lock:
                self._step(segment, step)

    def _step(self, segment: Segment, step: list[Placed]) -> None:
        logs = self._shard.logs
        with self._shard.index.change() as change:
            for placed in step:
                header = placed.header
                location = Location(self._row.number, placed.offset, placed.record, header.length)
                entry = change.head(header.digest, header.object_id)
                if header.kind == Kind.SLICE:
                    self._slice(change, segment, placed, location, entry)
                elif entry is not None and entry.location == location:
                    self._head(change, segment, placed, entry)
            rows = logs.flush()
            logs.put(change, rows)
        logs.committed(rows)

    def _slice(
        self,
        change: Change,
        segment: Segment,
        placed: Placed,
        location: Location,
        entry: Entry | None,
    ) -> None:
        shard, header = self._shard, placed.header
        if change.slice(header.object_id, header.number) != location:
            return
        if entry is None:
            change.delete_slice(header.object_id, header.number)
            return
        uses = segment.uses(placed.record)
        cost = header.size
        if entry.location.segment == self._row.number and header.number == 0:
            cost += record_size(b"", header.key_length + entry.location.length)
        keep = shard.policy.keeps(self._row.log, uses) and cost <= self._budget
        if keep and (moved := self._move(change, segment, placed)) is not None:
            self._budget -= cost
            change.put_slice(header.object_id, header.number, moved)
            self._carry_uses(moved, uses)
            shard.counters.slices_kept += 1
            return
        change.delete_slice(header.object_id, header.number)
        shard.without_slice(change, header.digest, entry, header.number)
        name = shard.policy.name_of(header.digest, header.number)
        shard.policy.forget(self._row.log, name)
        shard.counters.slices_evicted += 1

    def _head(self, change: Change, segment: Segment, placed: Placed, entry: Entry) -> None:
        uses = segment.uses(placed.record)
        if entry.slices or self._shard.policy.keeps(self._row.log, uses):
            sequence = self._shard.logs.sequence
            moved = self._move(change, segment, placed)
            if moved is not None:
                entry = entry._replace(location=moved, sequence=sequence)
                change.put_head(placed.header.digest, entry)
                self._carry_uses(moved, uses)
                return
        change.delete_head(placed.header.digest, entry.object_id)

    def _move(self, change: Change, segment: Segment, placed: Placed) -> Location | None:
        """Appends a record as it is to main; None where it cannot be read."""
        header, logs = placed.header, self._shard.logs
        data: Bytes = segment.read(placed.offset, header.size)
        if len(data) < header.size:
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
        left = self._shard.policy.uses_left(uses)
        segment = self._shard.segments.get(moved.segment)
        if left > 0 and segment is not None:
            segment.add_uses(moved.record, left)
