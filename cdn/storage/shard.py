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

from cdn.hashing.digest import shard_of
from cdn.semantics.slices import slice_count
from cdn.semantics.stored_response import StoredResponse
from cdn.storage.dropping import Dropping
from cdn.storage.eviction.two_logs import Log, TwoLogs, name_of
from cdn.storage.heads import decode_head
from cdn.storage.incoming import Incoming, Put
from cdn.storage.index import Change, Entry, IndexFailed, Location, Row, entry_of, open_index
from cdn.storage.logs import Logs, record_size
from cdn.storage.memory import MOST_VARIANTS
from cdn.storage.records import KILLED, Kind, checksum, content_of, unpack
from cdn.storage.segments import Segment, Segments
from cdn.storage.writer_lock import WriterLock

TRIES = 3
"""Look-ups of what is being moved meanwhile."""

_WHOLE_SHARE = 2
"""What cannot be completed may have one part in so many of probation: it lies there whole until
its head is in."""


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


class NotResident(Exception):
    """The device would have to be waited for."""


class Shard:
    """`share` is its part of the store, `segment_size` a segment's, both in bytes; `session` the
    count of the node's starts; `is_owned`: this process is to write it, once it may. Whatever only
    kills (removal, damage) any process does, in one write transaction of LMDB each: the writer asks
    the index, in its own, for what it changes. Raises IndexFailed where the index cannot be
    read."""

    def __init__(
        self,
        directory: Path,
        share: int,
        segment_size: int,
        session: int,
        counters: DiskCounters,
        report: Callable[[str], None],
        is_owned: bool = True,
        policy: TwoLogs | None = None,
    ) -> None:
        self.directory = directory
        self.index = open_index(directory, share)
        self.segments = Segments(directory, session)
        self.logs = Logs(self.index, self.segments, segment_size)
        self._writer = WriterLock(directory)
        self._is_owned = is_owned
        self.policy = policy or TwoLogs(share)
        self.counters = counters
        self.lock = threading.RLock()
        self._report = report

    # --- finding --------------------------------------------------------------------------------

    def heads_of(
        self,
        key: bytes,
        digest: bytes,
        rows: Iterable[Row],
        known: Collection[int | None],
        resident: bool,
    ) -> tuple[list[tuple[Entry, StoredResponse | None]], bool]:
        """What the index's `rows` name that has this key, without the heads of `known` objects;
        and whether some were being moved: then there are other rows by now. `resident`: without
        waiting for the device; raises NotResident where that is not possible."""
        found: list[tuple[Entry, StoredResponse | None]] = []
        moved = False
        for entry in map(entry_of, rows):
            if entry.object_id in known:
                found.append((entry, None))
                continue
            if not entry.slices and entry.length != 0:
                continue
            segment = self.segments.get(entry.location.segment)
            if segment is None:
                moved = True
                continue
            head = self._read_head(segment, key, digest, entry, resident)
            if head is not None:
                found.append((entry, head))
        return found, moved

    def _read_head(
        self, segment: Segment, key: bytes, digest: bytes, entry: Entry, resident: bool
    ) -> StoredResponse | None:
        """None: not under this key, or not usable. Raises NotResident."""
        offset, size = entry.location.offset, record_size(key, entry.location.length)
        found = segment.read_resident(offset, size)
        if found is None and resident:
            raise NotResident
        data = segment.read(offset, size) if found is None else found
        record = content_of(data)
        if record is None:
            header = unpack(data)
            # xxhash is not collision-proof against an attacker: the full key decides.
            if header is None or header.key_length == len(key):
                self.head_damaged(digest, entry)
            return None
        header, own_key, content = record
        if own_key != key or header.object_id != entry.object_id:
            return None
        if not header.live:  # whoever killed it was killed itself, before the index knew
            self._forget(digest, entry)
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
        for _ in range(TRIES):
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
        if self._forget(digest, entry):
            self._tell_damage("head", entry.location)

    def _forget(self, digest: bytes, entry: Entry) -> bool:
        """Whether the index still had this, and has it no more."""
        with contextlib.suppress(IndexFailed), self.lock, self.index.change() as change:
            held = change.head(digest, entry.object_id)
            if held is not None and held.location == entry.location:
                self._delete_object(change, digest, held)
                return True
        return False

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

    def may_write(self) -> bool:
        """Whether this process is the shard's writer, now if not before. Raises OSError."""
        return self._is_owned and self._writer.take()

    def release(self) -> None:
        """Another process may write it from here on; nothing is being written here any more."""
        with self.lock:
            self._is_owned = False
            self.segments.let_go()
            self._writer.release()

    @property
    def largest_whole(self) -> int:
        """Bytes of content that is kept whole or not at all."""
        return self.policy.probation // _WHOLE_SHARE

    def has_whole(self, incoming: Incoming, response: StoredResponse) -> bool:
        """Whether all content of `response` is there: accepted, in a log, or in the index. Raises
        IndexFailed."""
        count = _slice_count(incoming, response)
        if count is None:
            return False
        bits = 0
        if incoming.headed and incoming.object_id is not None:
            entry = self.index.head(incoming.digest, incoming.object_id)
            bits = 0 if entry is None else entry.slices
        for number in list(incoming.slices):
            bits |= 1 << number
        for number, place in list(incoming.placed.items()):
            if self.logs.has(place.segment):
                bits |= 1 << number
        return bits == (1 << count) - 1

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
        log = self._log_for(put)
        size = record_size(incoming.key, len(put.content))
        if not self.logs.has_room(log, size) or self._victim(log, size):
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

    def _log_for(self, put: Put) -> Log:
        if self.policy.promotes_at_use:
            return Log.MAIN  # it was on probation before it came here
        # A head stays as long as there is content: no merit of its own, but where it is all.
        if put.number is None and (put.response is None or put.response.length != 0):
            return Log.PROBATION
        return self.policy.log_for(name_of(put.incoming.digest, put.number))

    def _commit(self, pending: list[tuple[Put, Location, int]]) -> None:
        rows = self.logs.flush()
        if not rows:
            return
        kept: list[Put] = []
        with self.lock:
            with self.index.change() as change:
                for put, location, sequence in pending:
                    if put.number is not None:
                        self._index_slice(change, put.incoming, put.number, location)
                    elif put.incoming.cancelled or not self._index_head(
                        change, put, location, sequence
                    ):
                        self._kill(location)
                        continue
                    kept.append(put)
                self.logs.put(change, rows)
            self.logs.committed(rows)
            for put in kept:
                put.done = True
                if put.number is None:
                    # Not before those who read find all of it in the index.
                    put.incoming.headed = True
                    put.incoming.placed.clear()

    def _index_slice(
        self, change: Change, incoming: Incoming, number: int, location: Location
    ) -> None:
        if incoming.cancelled or incoming.object_id is None:
            return
        entry = change.head(incoming.digest, incoming.object_id)
        if entry is None:
            # With a head it was evicted, or found damaged, while more of it came.
            if not incoming.headed:
                incoming.placed[number] = location
            return
        change.put_slice(incoming.object_id, number, location)
        change.put_head(incoming.digest, entry._replace(slices=entry.slices | 1 << number))
        self.counters.slices_stored += 1

    def _index_head(self, change: Change, put: Put, location: Location, sequence: int) -> bool:
        """False: it is not kept, because what it was a head of has gone meanwhile."""
        incoming, response = put.incoming, put.response
        assert response is not None
        assert incoming.object_id is not None
        own = change.head(incoming.digest, incoming.object_id)
        if own is None and incoming.headed:
            return False  # removed by another process, damaged, or evicted
        slices = 0 if own is None else own.slices
        placed = {
            number: place
            for number, place in incoming.placed.items()
            if self.logs.has(place.segment) and not slices >> number & 1
        }
        for number in placed:
            slices |= 1 << number
        if put.whole and slices.bit_count() != _slice_count(incoming, response):
            return False
        self._make_way(change, incoming)
        for number, place in placed.items():
            change.put_slice(incoming.object_id, number, place)
            self.counters.slices_stored += 1
        entry = Entry(incoming.object_id, location, sequence, response.length, slices)
        change.put_head(incoming.digest, entry)
        return True

    def _make_way(self, change: Change, incoming: Incoming) -> None:
        """What has its key and variant goes, and the oldest of too many variants."""
        held = change.heads(incoming.digest)
        surplus = len(held) + 1 - MOST_VARIANTS
        for entry in held:  # the oldest first
            if entry.object_id == incoming.object_id:
                self._kill(entry.location)
            elif surplus > 0 or self._is_named(entry, incoming):
                self._delete_object(change, incoming.digest, entry)
                surplus -= 1

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
        return self.index.size + sum(map(self.logs.size_of, Log))

    def _victim(self, log: Log, size: int) -> Log | None:
        """Whose oldest segment must go for `size` more bytes in `log`."""
        sizes = {each: self.logs.size_of(each) for each in Log}
        sizes[log] += size
        # The index takes room as well, as if it were main's.
        main = sizes[Log.MAIN] + self.index.size
        victim = self.policy.next_to_drop(sizes[Log.PROBATION], main)
        if victim is None or self.logs.size_of(victim):
            return victim
        return next(filter(self.logs.size_of, Log), None)

    @property
    def size_by_index(self) -> int:
        """The same as any process of the node sees it, as of the last commit."""
        return self.index.size + sum(row.size for row in self.index.segments())

    def _roll(self, log: Log, size: int) -> None:
        while self.logs.rows and (victim := self._victim(log, size)):
            oldest = self.logs.oldest(victim)
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
        self._writer.release()
        self.index.close()


def _slice_count(incoming: Incoming, response: StoredResponse) -> int | None:
    """How many slices all of its content is, None where that is not known."""
    length = response.length if incoming.part is None else incoming.part.length
    return None if length is None else slice_count(length, incoming.slice_size)


class Shards(tuple[Shard, ...]):
    """All of a store, in their order."""

    __slots__ = ()

    def of(self, digest: bytes) -> Shard:
        """The one in which keys with this digest are."""
        return self[shard_of(digest) % len(self)]
