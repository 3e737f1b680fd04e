"""The disk store: what workers share, and what outlives them.

Strategy: a key's digest names its shard; a shard is two logs and an index. Look-ups take what the
index knows and lay over it what is still on its way. Everything is written behind the loop's back;
what the disk will not take is refused, and tried again later. RAM is the page cache.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from cdn.hashing.digest import key_digest
from cdn.semantics.ranges import SLICE_SIZE, ByteRange
from cdn.semantics.stored_response import StoredResponse
from cdn.semantics.vary import Variant
from cdn.storage.directory import Report, StoreDirectory, StoreUnusable
from cdn.storage.disk_content import DiskContent, wanted_slices
from cdn.storage.disk_object import DiskObject, SliceSet
from cdn.storage.disk_writer import DiskWriter
from cdn.storage.incoming import Arrivals, Incoming, Put
from cdn.storage.index import IndexFailed
from cdn.storage.records import LARGEST_HEAD
from cdn.storage.recovery import Progress, rebuild
from cdn.storage.shard import DiskCounters, Shard, WriteFailed, open_index
from cdn.storage.trouble import Trouble
from cdn.storage.write_behind import WriteBehind

SHARDS = 16

SEGMENT_SIZE = 64 << 20
"""Bytes of a segment where the store has room for ten of them in every shard."""

LEAST_SEGMENTS = 10
"""In a shard: fewer, and a log is no queue."""

_READERS = 4
"""Threads that wait for the device."""

_TOUCHED_SLICES = 4
"""What is used without `open` is small."""


class DiskStore:
    """Made by `open`. `size` and everything below it in bytes; `counters` are plain counts.

    Of the processes of one node, each may read all of it; a key is written by one of them.
    """

    def __init__(
        self, directory: StoreDirectory, share: int, segment_size: int, report: Report
    ) -> None:
        self.slice_size = directory.state.slice_size
        self.counters = DiskCounters()
        self._directory = directory
        self._report = report
        killed = directory.begin()
        self._shards = [
            Shard(path, share, segment_size, directory.state.starts, self.counters, report)
            for path in directory.shards
        ]
        self._arrivals = Arrivals()
        self._trouble = Trouble(str(directory.path), report)
        self._syncing = threading.Lock()
        self._readers = ThreadPoolExecutor(_READERS, "store-reader")
        # What a killed process wrote may be in the page cache only, and nobody knows where.
        self._catching_up = threading.Thread(target=os.sync, name="store-catching-up", daemon=True)
        if killed:
            self._catching_up.start()
        self._writing = WriteBehind(self._write, self._sync)

    @classmethod
    def open(
        cls,
        directory: Path,
        size: int,
        *,
        slice_size: int = SLICE_SIZE,
        segment_size: int | None = None,
        shards: int = SHARDS,
        boot_id: str | None = None,
        lock_fd: int | None = None,
        report: Report,
        progress: Progress | None = None,
    ) -> DiskStore:
        """The store in `directory`, which is made if need be. `lock_fd` is another process's
        (`lock_fd` of its store), inherited, where this one takes part in its node. After the
        machine went down without `close` the index is rebuilt first, and `progress` called.
        Raises StoreUnusable."""
        least = slice_size + 2 * LARGEST_HEAD
        share = size // shards
        segment_size = segment_size or min(SEGMENT_SIZE, share // LEAST_SEGMENTS)
        if segment_size < least or share < LEAST_SEGMENTS * segment_size:
            enough = shards * LEAST_SEGMENTS * max(least, segment_size)
            raise StoreUnusable(
                f"{directory}: a store of {size} bytes is too small for {shards} shards of "
                f"{LEAST_SEGMENTS} segments with slices of {slice_size}; give it {enough} or more"
            )
        owned = StoreDirectory(directory, shards, slice_size, boot_id, lock_fd)
        try:
            with contextlib.ExitStack() as undo:
                undo.callback(owned.close)
                for path in owned.shards:
                    path.mkdir(mode=0o700, exist_ok=True)
                if lock_fd is None and not owned.index_believed:
                    _rebuild(owned, share, report, progress)
                store = cls(owned, share, segment_size, report)
                undo.pop_all()
                return store
        except (OSError, IndexFailed) as error:
            raise StoreUnusable(
                f"{directory} cannot be used: {error}; see that its disk is sound and has room, "
                "or empty it"
            ) from error

    @property
    def lock_fd(self) -> int:
        """The descriptor that holds the directory's lock; make it inheritable to share it."""
        return self._directory.lock_fd

    # --- finding --------------------------------------------------------------------------------

    def lookup(self, key: bytes) -> Sequence[DiskObject]:
        """All variants stored under `key`. Reads heads from the device where it must: see
        `lookup_resident`."""
        return self._find(key, False) or ()

    def lookup_resident(self, key: bytes) -> Sequence[DiskObject] | None:
        """The same without waiting; None where the device would have to be waited for."""
        return self._find(key, True)

    async def lookup_soon(self, key: bytes) -> Sequence[DiskObject]:
        """The same; the loop waits for nothing."""
        found = self._find(key, True)
        if found is None:
            loop = asyncio.get_running_loop()
            found = await loop.run_in_executor(self._readers, self._find, key, False)
        return found or ()

    def _find(self, key: bytes, resident: bool) -> list[DiskObject] | None:
        # What is arriving is looked at first: it goes when the index has it, not before.
        arriving = [
            (incoming, incoming.response, _bits(incoming)) for incoming in self._arrivals.of(key)
        ]
        known = {incoming.object_id for incoming, response, _ in arriving if response}
        digest = key_digest(key)
        try:
            stored = self._shard(digest).find(key, digest, known - {None}, resident)
        except (IndexFailed, OSError) as error:
            self._trouble.failed(str(error))
            stored = []
        if stored is None:
            return None
        slices = {entry.object_id: entry.slices for entry, _ in stored}
        joined = {incoming.object_id: (incoming, bits) for incoming, _, bits in arriving}
        found: dict[Variant, DiskObject] = {}
        for entry, response in stored:
            if response is not None:
                incoming, bits = joined.get(entry.object_id, (None, 0))
                found[response.variant] = self._object(
                    response, entry.slices | bits, entry.object_id, incoming
                )
        for incoming, response, bits in arriving:
            if response is not None:
                object_id = incoming.object_id
                if object_id is not None:
                    bits |= slices.get(object_id, 0)  # noqa: PLW2901
                found[response.variant] = self._object(response, bits, object_id, incoming)
        return list(found.values())

    def _object(
        self, response: StoredResponse, bits: int, object_id: int | None, incoming: Incoming | None
    ) -> DiskObject:
        slices = SliceSet(bits)
        return DiskObject(response, slices, self.slice_size, object_id, incoming, self._open)

    def _open(self, stored: DiskObject, parts: Sequence[ByteRange]) -> DiskContent:
        key = stored.response.primary_key
        digest = key_digest(key)
        incoming = stored.incoming
        # Its first record may have been placed since it was looked up.
        object_id = incoming.object_id if incoming else stored.object_id
        return DiskContent(
            self._shard(digest),
            key,
            digest,
            object_id,
            incoming,
            wanted_slices(parts, self.slice_size),
            self._readers,
        )

    def _shard(self, digest: bytes) -> Shard:
        return self._shards[digest[-1] % len(self._shards)]

    def touch(self, stored: DiskObject, uses: int = 1) -> None:
        """The response was used so many times without `open`: replacement should know. Reading
        counts by itself, slice by slice."""
        object_id = stored.object_id
        if object_id is None:
            return
        digest = key_digest(stored.response.primary_key)
        shard = self._shard(digest)
        try:
            places = [
                entry.location
                for entry in shard.index.heads(digest)
                if entry.object_id == object_id
            ]
            first = shard.index.locate(object_id, range(_TOUCHED_SLICES))
            for location in (*places, *first.values()):
                segment = shard.segments.get(location.segment)
                if segment is not None:
                    segment.add_uses(location.record, uses)
        except (IndexFailed, OSError) as error:
            self._trouble.failed(str(error))

    # --- changing -------------------------------------------------------------------------------

    def open_writer(self, response: StoredResponse) -> DiskWriter | None:
        """A writer for content of `response`: of what is there already under the same key, variant
        and strong entity tag, else of something new, which replaces what is there when its head is
        committed. None while the disk takes no more."""
        if self._trouble.resting or len(response.primary_key) > LARGEST_HEAD // 2:
            self.counters.refused += 1
            return None
        return DiskWriter(self, self._joined(response) or self._begun(response))

    def _joined(self, response: StoredResponse) -> Incoming | None:
        # RFC 9111 §3.4: only what has one strong validator is one representation.
        etag, length = response.validator.strong_etag, response.length
        if etag is None:
            return None
        for incoming in self._arrivals.of(response.primary_key):
            same = (incoming.variant, incoming.etag) == (response.variant, etag)
            agree = length is None or incoming.length in (None, length)
            if same and agree and self._arrivals.join(incoming, length):
                return incoming
        for stored in self.lookup(response.primary_key):
            held = stored.response
            if (held.variant, held.validator.strong_etag) != (response.variant, etag):
                continue
            if stored.object_id is not None and length in (None, held.length):
                return self._begun(held, stored.object_id)
        return None

    def _begun(self, response: StoredResponse, object_id: int | None = None) -> Incoming:
        key = response.primary_key
        incoming = Incoming(
            key,
            key_digest(key),
            response.variant,
            response.validator.strong_etag,
            response.length,
            object_id,
            headed=object_id is not None,
        )
        self._arrivals.add(incoming)
        return incoming

    def accept_slice(self, incoming: Incoming, number: int, content: bytes) -> bool:
        """See `DiskWriter.write_slice`."""
        if self._is_there(incoming, number):
            return True
        put = Put(incoming, number, content)
        incoming.slices[number] = content
        self._arrivals.queue(incoming)
        if not self._trouble.resting and self._writing.accept(put):
            return True
        self._arrivals.written(put)
        self.counters.refused += 1
        return False

    def _is_there(self, incoming: Incoming, number: int) -> bool:
        if number in incoming.slices or number in incoming.placed:
            return True
        if not incoming.headed or incoming.object_id is None:
            return False
        shard = self._shard(incoming.digest)
        return bool(shard.locate(incoming.object_id, (number,), {}))

    def accept_head(self, incoming: Incoming, response: StoredResponse, content: bytes) -> bool:
        """See `DiskWriter.commit_head`."""
        if self._trouble.resting:
            self.counters.refused += 1
            return False
        self._arrivals.queue(incoming)
        self._arrivals.show(incoming, response)
        return self._writing.accept(Put(incoming, None, content, response), must=True)

    def leave(self, incoming: Incoming) -> None:
        """See `DiskWriter.abort`."""
        self._arrivals.leave(incoming)

    def room(self) -> Future[None] | None:
        """See `WriteBehind.room`."""
        return self._writing.room()

    def freshen(self, stored: DiskObject, response: StoredResponse) -> None:
        """Replaces the head of a stored response, the content stays. No-op where it has gone."""
        for held in self.lookup(stored.response.primary_key):
            same_id = held.object_id is not None and held.object_id == stored.object_id
            if not same_id and (held.incoming is None or held.incoming is not stored.incoming):
                continue
            incoming = held.incoming
            if incoming is None or not self._arrivals.join(incoming, response.length):
                incoming = self._begun(held.response, held.object_id)
            writer = DiskWriter(self, incoming)
            writer.commit(response)

    def remove(self, key: bytes) -> int:
        """Removes all variants, also those on their way; returns how many there were. They do not
        come back if this process is killed; nor if the machine goes down, once `flush` is done."""
        digest = key_digest(key)
        arriving = self._arrivals.of(key)
        for incoming in arriving:
            self._arrivals.cancel(incoming)
        removed: set[int] = set()
        try:
            removed = self._shard(digest).remove(key, digest)
        except (IndexFailed, OSError) as error:
            self._trouble.failed(str(error))
        shown = [i for i in arriving if i.response and i.object_id not in removed]
        return len(removed) + len(shown)

    # --- the disk's side ------------------------------------------------------------------------

    def _write(self, batch: list[Put]) -> None:
        by_shard: dict[int, list[Put]] = {}
        for put in batch:
            number = put.incoming.digest[-1] % len(self._shards)
            by_shard.setdefault(number, []).append(put)
        for number, puts in by_shard.items():
            if not self._trouble.resting:
                self._write_to(self._shards[number], puts)
            for put in puts:
                if not put.done:
                    self._arrivals.cancel(put.incoming)
                self._arrivals.written(put)

    def _write_to(self, shard: Shard, puts: list[Put]) -> None:
        try:
            shard.write(puts)
        except WriteFailed as error:
            self.counters.write_failures += 1
            self._trouble.failed(str(error))
        else:
            self._trouble.worked()

    def _sync(self) -> None:
        # Whoever waits for durability waits for a sync that is under way as well.
        with self._syncing:
            for shard in self._shards:
                try:
                    shard.sync()
                except OSError as error:
                    self.counters.write_failures += 1
                    self._trouble.failed(str(error))

    def status(self) -> dict[str, object]:
        """For operators: `state` is "ok" or "failing", `why` what the disk said; sizes in bytes.
        Asks the index of every shard."""
        objects = slices = 0
        for shard in self._shards:
            counts = shard.index.counts()
            objects, slices = objects + counts[0], slices + counts[1]
        return {
            "state": "ok" if self._trouble.why is None else "failing",
            "why": self._trouble.why or "",
            "objects": objects,
            "slices": slices,
            "bytes": sum(shard.size for shard in self._shards),
        }

    async def flush(self) -> None:
        """Until all that was accepted, and every removal, survives the loss of power too."""
        await asyncio.wrap_future(self._writing.flush())

    def close(self) -> None:
        """Writes what has been accepted and marks the store clean. Waits for the disk."""
        self._writing.close()
        self._trouble.close()
        self._readers.shutdown()
        if self._catching_up.is_alive():
            self._catching_up.join()
        try:
            for shard in self._shards:
                shard.index.sync()
            if self._trouble.why is None:
                self._directory.mark_clean()
        except (IndexFailed, StoreUnusable) as error:
            self._report(f"{self._directory.path} could not be closed cleanly: {error}")
        for shard in self._shards:
            shard.close()
        self._directory.close()


def _bits(incoming: Incoming) -> int:
    bits = 0
    for number in (*list(incoming.slices), *list(incoming.placed)):
        bits |= 1 << number
    return bits


def _rebuild(
    directory: StoreDirectory, share: int, report: Report, progress: Progress | None
) -> None:
    report(f"{directory.path}: the machine went down while it was in use: rebuilding its index")
    found = rebuild(
        directory.shards,
        lambda shard: open_index(shard, share),
        progress or (lambda done, total: None),
    )
    report(f"{directory.path}: the index is whole again, {found} responses were found")
