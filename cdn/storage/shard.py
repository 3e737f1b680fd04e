"""One shard of the disk store: heads and slices found, written, killed.

Strategy: any process of the node reads a shard, one writes it. Records go to the logs, then the
index learns of a whole batch at once. A head leaves the index only killed where it lies (or with
its segment), so a rebuild never brings back what was purged or replaced.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cdn.semantics.stored_response import StoredResponse
from cdn.storage.dropping import Dropping
from cdn.storage.heads import decode_head
from cdn.storage.incoming import Incoming, Put
from cdn.storage.index import Change, Entry, Index, IndexFailed, Location
from cdn.storage.logs import Logs, record_size
from cdn.storage.memory import MOST_VARIANTS
from cdn.storage.records import KILLED, Kind, checksum, content_of, unpack
from cdn.storage.segments import Log, Segment, Segments
from cdn.storage.two_logs import TwoLogs

_TRIES = 3
"""Look-ups of what is being moved meanwhile."""


@dataclass(slots=True)
class DiskCounters:
    """Plain counts, collected at scrape. `written` and `rewritten` are bytes of records: new ones,
    and those that were kept when their segment went."""

    written: int = 0
    rewritten: int = 0
    slices_stored: int = 0
    slices_kept: int = 0
    slices_evicted: int = 0
    segments_dropped: int = 0
    damaged: int = 0
    refused: int = 0
    write_failures: int = 0


class WriteFailed(Exception):
    """The disk took no more; the message says why."""


class _NotResident(Exception):
    """The device would have to be waited for."""


class Shard:
    """`share` is its part of the store, `segment_size` a segment's, both in bytes; `session` the
    count of the node's starts. Raises IndexFailed where the index cannot be read."""

    def __init__(
        self,
        directory: Path,
        share: int,
        segment_size: int,
        session: int,
        counters: DiskCounters,
        report: Callable[[str], None],
    ) -> None:
        self.directory = directory
        self.index = open_index(directory, share)
        self.segments = Segments(directory, session)
        self.logs = Logs(self.index, self.segments, segment_size)
        self.policy = TwoLogs()
        self.counters = counters
        self.lock = threading.RLock()
        self._share = share
        self._segment_size = segment_size
        self._report = report

    # --- finding --------------------------------------------------------------------------------

    def find(
        self, key: bytes, digest: bytes, known: Collection[int | None], resident: bool
    ) -> list[tuple[Entry, StoredResponse | None]] | None:
        """All objects under `key`; the heads of `known` ones are left out. `resident`: without
        waiting for the device, None where that is not possible."""
        for _ in range(_TRIES):
            found: list[tuple[Entry, StoredResponse | None]] = []
            moved = False
            for entry in self.index.heads(digest):
                if not entry.slices and entry.length != 0:
                    continue
                if entry.object_id in known:
                    found.append((entry, None))
                    continue
                segment = self.segments.get(entry.location.segment)
                if segment is None:
                    moved = True
                    continue
                try:
                    head = self._read_head(segment, key, digest, entry, resident)
                except _NotResident:
                    return None
                if head is not None:
                    found.append((entry, head))
            if not moved:
                break
        return found

    def _read_head(
        self, segment: Segment, key: bytes, digest: bytes, entry: Entry, resident: bool
    ) -> StoredResponse | None:
        """None: not under this key, or not usable. Raises _NotResident."""
        offset, size = entry.location.offset, record_size(key, entry.location.length)
        data = segment.read_resident(offset, size)
        if data is None:
            if resident:
                raise _NotResident
            data = segment.read(offset, size)
        record = content_of(data)
        if record is None:
            header = unpack(data)
            # xxhash is not collision-proof against an attacker: the full key decides.
            if header is None or header.key_length == len(key):
                self.head_damaged(digest, entry)
            return None
        header, own_key, content = record
        if not header.live or own_key != key or header.object_id != entry.object_id:
            return None
        try:
            return decode_head(key, bytes(content))
        except ValueError:
            self.head_damaged(digest, entry)
            return None

    def locate(
        self, object_id: int, numbers: Iterable[int], placed: Mapping[int, Location]
    ) -> dict[int, tuple[Segment, Location]]:
        """Slices that are there, with their segments held open; `placed` ones are not in the
        index."""
        wanted, found = list(numbers), {}
        for number in placed.keys() & set(wanted):
            segment = self.segments.get(placed[number].segment)
            if segment is not None:
                found[number] = (segment, placed[number])
        wanted = [number for number in wanted if number not in found]
        for _ in range(_TRIES):
            try:
                places = self.index.locate(object_id, wanted)
            except IndexFailed:
                return found  # a look-up that fails as well tells of it
            for number, location in places.items():
                segment = self.segments.get(location.segment)
                if segment is not None:
                    found[number] = (segment, location)
            wanted = [number for number in places if number not in found]
            if not wanted:
                break
        return found

    # --- damage ---------------------------------------------------------------------------------

    def head_damaged(self, digest: bytes, entry: Entry) -> None:
        """A head is not as it was written: the object is gone."""
        with contextlib.suppress(IndexFailed), self.lock, self.index.change() as change:
            held = change.head(digest, entry.object_id)
            if held is None or held.location != entry.location:
                return
            self._delete_object(change, digest, held)
        self._tell_damage("head", entry.location)

    def slice_damaged(self, digest: bytes, object_id: int, number: int, location: Location) -> None:
        """A slice is not as it was written: it is gone."""
        with contextlib.suppress(IndexFailed), self.lock, self.index.change() as change:
            if change.slice(object_id, number) != location:
                return
            change.delete_slice(object_id, number)
            entry = change.head(digest, object_id)
            if entry is not None:
                self.without_slice(change, digest, entry, number)
        self._tell_damage(f"slice {number}", location)

    def _tell_damage(self, what: str, location: Location) -> None:
        self.counters.damaged += 1
        where = f"{self.directory}, segment {location.segment:08x}, byte {location.offset}"
        self._report(
            f"the disk changed what was written: a {what} in {where} is damaged; it is fetched "
            "again; replace the disk if this repeats"
        )

    def without_slice(self, change: Change, digest: bytes, entry: Entry, number: int) -> None:
        """One bit less; an object without any content is none."""
        left = entry._replace(slices=entry.slices & ~(1 << number))
        if left.slices:
            change.put_head(digest, left)
        else:
            self._delete_object(change, digest, left)

    def _delete_object(self, change: Change, digest: bytes, entry: Entry) -> None:
        self._kill(entry.location)
        change.delete_head(digest, entry.object_id)

    def _kill(self, location: Location) -> None:
        segment = self.segments.get(location.segment)
        if segment is not None:
            os.pwrite(segment.fd, KILLED, location.offset)
            self.logs.touched(segment)

    # --- writing --------------------------------------------------------------------------------

    def remove(self, key: bytes, digest: bytes) -> set[int]:
        """All objects under `key` are gone, also for the next process, when this returns."""
        removed = set()
        with self.lock, self.index.change() as change:
            for entry in change.heads(digest):
                if self._key_at(entry.location) in (key, None):
                    self._delete_object(change, digest, entry)
                    removed.add(entry.object_id)
        return removed

    def _key_at(self, location: Location) -> bytes | None:
        record = self._record_at(location)
        return None if record is None else record[0]

    def _record_at(self, location: Location) -> tuple[bytes, bytes] | None:
        """Key and content of a record that is alive; None where it cannot be read."""
        segment = self.segments.get(location.segment)
        if segment is None:
            return None
        header = unpack(segment.read(location.offset, record_size(b"", 0)))
        if header is None or not header.live:
            return None
        record = content_of(segment.read(location.offset, header.size))
        return None if record is None else (bytes(record[1]), bytes(record[2]))

    def write(self, puts: Sequence[Put]) -> None:
        """Appends and indexes all that has not been cancelled. Raises WriteFailed: what of it is
        not `Put.done` is in neither log nor index."""
        try:
            self.logs.take_over()
            pending: list[tuple[Put, Location, int]] = []
            for put in puts:
                if not put.incoming.cancelled:
                    self._append(put, pending)
            self._commit(pending)
        except (OSError, IndexFailed) as error:
            self.logs.abandon()
            raise WriteFailed(str(error)) from error

    def _append(self, put: Put, pending: list[tuple[Put, Location, int]]) -> None:
        incoming, number = put.incoming, put.number or 0
        kind = Kind.HEAD if put.number is None else Kind.SLICE
        log = self.policy.log_for(self.policy.name_of(incoming.digest, number))
        size = record_size(incoming.key, len(put.content))
        if not self.logs.has_room(log, size):
            self._commit(pending)
            pending.clear()
            self._roll(log, size)
        sequence = self.logs.sequence
        if incoming.object_id is None:
            incoming.object_id = sequence
        location = self.logs.append(
            log,
            kind,
            incoming.digest,
            incoming.object_id,
            number,
            incoming.key,
            put.content,
            checksum(incoming.key, put.content),
        )
        self.counters.written += size
        pending.append((put, location, sequence))

    def _commit(self, pending: list[tuple[Put, Location, int]]) -> None:
        rows = self.logs.flush()
        if not rows:
            return
        with self.lock:
            with self.index.change() as change:
                for put, location, sequence in pending:
                    if put.number is not None:
                        self._index_slice(change, put.incoming, put.number, location)
                    elif put.incoming.cancelled:
                        self._kill(location)
                    else:
                        self._index_head(change, put, location, sequence)
                self.logs.put(change, rows)
            self.logs.committed(rows)
        for put, _, _ in pending:
            put.done = True

    def _index_slice(
        self, change: Change, incoming: Incoming, number: int, location: Location
    ) -> None:
        if incoming.cancelled or incoming.object_id is None:
            return
        if not incoming.headed:
            incoming.placed[number] = location
            return
        entry = change.head(incoming.digest, incoming.object_id)
        if entry is None:
            return  # evicted, or found damaged, while more of it came
        change.put_slice(incoming.object_id, number, location)
        change.put_head(incoming.digest, entry._replace(slices=entry.slices | 1 << number))
        self.counters.slices_stored += 1

    def _index_head(self, change: Change, put: Put, location: Location, sequence: int) -> None:
        incoming, response = put.incoming, put.response
        assert response is not None
        assert incoming.object_id is not None
        slices = 0
        held = change.heads(incoming.digest)
        surplus = len(held) + 1 - MOST_VARIANTS
        for entry in held:  # the oldest first
            if entry.object_id == incoming.object_id:
                slices = entry.slices
                self._kill(entry.location)
            elif surplus > 0 or self._is_named(entry, incoming):
                self._delete_object(change, incoming.digest, entry)
                surplus -= 1
        for number, place in incoming.placed.items():
            if self.logs.has(place.segment):
                change.put_slice(incoming.object_id, number, place)
                slices |= 1 << number
                self.counters.slices_stored += 1
        incoming.placed.clear()
        incoming.headed = True
        change.put_head(
            incoming.digest,
            Entry(incoming.object_id, location, sequence, response.length, slices),
        )

    def _is_named(self, entry: Entry, incoming: Incoming) -> bool:
        """Whether an object has this key and variant, or can be of no use to anyone."""
        record = self._record_at(entry.location)
        if record is None:
            return True
        key, content = record
        try:
            return key == incoming.key and decode_head(key, content).variant == incoming.variant
        except ValueError:
            return True

    # --- room -----------------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """Bytes in use, the index included."""
        return self.index.size + sum(row.size for row in self.logs.rows)

    def _roll(self, log: Log, size: int) -> None:
        self._seal(log)
        while self.logs.rows and self.size + self._segment_size > self._share:
            sizes = self.logs.size_of(Log.PROBATION), self.logs.size_of(Log.MAIN)
            oldest = self.logs.oldest(self.policy.victim(*sizes))
            if self.logs.is_end(oldest):
                self._seal(oldest.log)
            Dropping(self, oldest).run()
            self.counters.segments_dropped += 1
        if not self.logs.has_room(log, size):
            self._seal(log)
            self.logs.begin_segment(log)

    def _seal(self, log: Log) -> None:
        with self.lock, self.index.change() as change:
            self.logs.seal(log, change)

    # --- becoming durable -----------------------------------------------------------------------

    def sync(self) -> None:
        """What has been written so far survives the loss of power. Raises OSError."""
        with self.lock:
            dirty, renamed = self.logs.undurable()
        for segment in dirty:
            os.fdatasync(segment.fd)
        if renamed:
            self.segments.sync_names()

    def close(self) -> None:
        self.index.close()


def open_index(directory: Path, share: int) -> Index:
    """Its map is as large as it can ever need: records are larger than what the index says of
    them."""
    return Index(directory / "index", share + (64 << 20))
