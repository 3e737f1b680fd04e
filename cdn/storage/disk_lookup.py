"""Look-ups in the disk store: what the index knows, and over it what is still on its way.

Strategy: one read transaction gives the rows of a digest. Where they are what they were at the last
look-up, so is the result, whoever may have written meanwhile; else heads are read and decoded.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Executor
from typing import NamedTuple

from cdn.hashing.digest import key_digest
from cdn.semantics.ranges import ByteRange
from cdn.semantics.stored_response import StoredResponse
from cdn.semantics.vary import Variant
from cdn.storage.disk_content import SliceSource
from cdn.storage.disk_object import DiskObject, with_present
from cdn.storage.incoming import Arrivals, Incoming
from cdn.storage.index import Entry, IndexFailed, Row
from cdn.storage.shard import TRIES, NotResident, Shard, Shards
from cdn.storage.trouble import Trouble

MOST_KNOWN = 4096
"""Keys of which a process remembers the last result: some 3 KiB each."""


class _Known(NamedTuple):
    key: bytes
    rows: list[Row]
    found: Sequence[DiskObject]


Arriving = list[tuple[Incoming, StoredResponse | None, int]]
"""What is on its way, as it was at one moment: its head, and a bit for each slice."""


class Lookups:
    """May be asked from any thread. Raises nothing: an index that fails is told of as trouble, and
    has nothing."""

    def __init__(
        self, shards: Shards, arrivals: Arrivals, trouble: Trouble, readers: Executor
    ) -> None:
        self._shards = shards
        self._arrivals = arrivals
        self._trouble = trouble
        self._readers = readers
        self._lock = threading.Lock()
        self._known: OrderedDict[bytes, _Known] = OrderedDict()

    def find(self, key: bytes, resident: bool) -> Sequence[DiskObject] | None:
        """All variants stored under `key`. `resident`: without waiting for the device, None where
        that is not possible."""
        # What is arriving is looked at first: it goes when the index has it, not before.
        arriving: Arriving = [
            (incoming, incoming.response, incoming.bits) for incoming in self._arrivals.of(key)
        ]
        digest = key_digest(key)
        shard = self._shards.of(digest)
        try:
            return self._find(shard, key, digest, arriving, resident)
        except NotResident:
            return None
        except (IndexFailed, OSError) as error:
            self._trouble.failed(str(error))
            return self._laid_over(shard, key, digest, [], arriving)

    def forget(self, digest: bytes) -> None:
        """What was read for a key holds no more, though the index is as it was."""
        with self._lock:
            self._known.pop(digest, None)

    def _find(
        self, shard: Shard, key: bytes, digest: bytes, arriving: Arriving, resident: bool
    ) -> Sequence[DiskObject]:
        heads = {incoming.object_id for incoming, response, _ in arriving if response} - {None}
        for _ in range(TRIES):
            rows = shard.index.rows(digest)
            if not arriving:
                known = self._known.get(digest)
                if known is not None and known.rows == rows and known.key == key:
                    return known.found
                if not rows:
                    return ()
            stored, moved = shard.heads_of(key, digest, rows, heads, resident)
            if not moved:
                break
        found = self._laid_over(shard, key, digest, stored, arriving)
        if not arriving and not moved:
            self._remember(digest, _Known(key, rows, found))
        return found

    def _remember(self, digest: bytes, known: _Known) -> None:
        with self._lock:
            self._known[digest] = known
            self._known.move_to_end(digest)
            if len(self._known) > MOST_KNOWN:
                self._known.popitem(last=False)

    def _laid_over(
        self,
        shard: Shard,
        key: bytes,
        digest: bytes,
        stored: Sequence[tuple[Entry, StoredResponse | None]],
        arriving: Arriving,
    ) -> Sequence[DiskObject]:
        entries = {entry.object_id: entry for entry, _ in stored}
        joined = {incoming.object_id: (incoming, bits) for incoming, _, bits in arriving}
        found: dict[Variant, DiskObject] = {}
        for entry, head in stored:
            if head is not None:
                incoming, bits = joined.get(entry.object_id, (None, 0))
                bits |= entry.slices
                self._put(found, shard, digest, head, bits, entry, incoming)
        for incoming, head, bits in arriving:
            if head is not None:
                held = None if incoming.object_id is None else entries.get(incoming.object_id)
                bits |= 0 if held is None else held.slices  # noqa: PLW2901
                self._put(found, shard, digest, head, bits, held, incoming)
        return tuple(found.values())

    def _put(
        self,
        found: dict[Variant, DiskObject],
        shard: Shard,
        digest: bytes,
        head: StoredResponse,
        bits: int,
        entry: Entry | None,
        incoming: Incoming | None,
    ) -> None:
        response = with_present(head, bits)
        if response is None:
            found.pop(head.variant, None)
            return
        source = SliceSource(
            shard,
            head.primary_key,
            digest,
            head.slice_size,
            head.present if isinstance(head.present, ByteRange) else None,
            head.length,
            None if entry is None else entry.object_id,
            incoming,
            self._readers,
        )
        found[head.variant] = DiskObject(response, entry and entry.location, source)
