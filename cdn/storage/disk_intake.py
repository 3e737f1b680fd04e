"""What goes into the disk store: accepted on the loop, written and made durable behind its back.

Strategy: what was accepted is seen at once, see `incoming`. Whatever the disk does not take is
refused, and tried again later; so is what another process writes, as long as it does.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future

from cdn.hashing.digest import key_digest
from cdn.semantics.ranges import ByteRange
from cdn.semantics.stored_response import StoredResponse
from cdn.storage.disk_content import SliceSource
from cdn.storage.disk_lookup import Lookups
from cdn.storage.disk_object import DiskObject, as_kept
from cdn.storage.disk_writer import DiskWriter
from cdn.storage.eviction.two_logs import Log, name_of
from cdn.storage.heads import encode_head
from cdn.storage.incoming import Arrivals, Incoming, Put
from cdn.storage.index import IndexFailed
from cdn.storage.logs import record_size
from cdn.storage.records import LARGEST_HEAD
from cdn.storage.shard import DiskCounters, Shard, Shards, WriteFailed
from cdn.storage.trouble import Trouble
from cdn.storage.waiting import Waiting
from cdn.storage.write_behind import WriteBehind

MOST_SLICES = 1 << 20
"""Of one response: there is a bit for each in the index, written with every batch."""


class Intake:
    """`largest_slice` in bytes, `waiting_room` too: RAM for what waits for its second use, 0 where
    nothing waits. Called on the loop only, unless it says otherwise."""

    def __init__(
        self,
        shards: Shards,
        arrivals: Arrivals,
        lookups: Lookups,
        trouble: Trouble,
        counters: DiskCounters,
        readers: Executor,
        largest_slice: int,
        waiting_room: int = 0,
        on_change: Callable[[bytes], None] = lambda _: None,
    ) -> None:
        self._shards = shards
        self._arrivals = arrivals
        self._lookups = lookups
        self._trouble = trouble
        self._counters = counters
        self._readers = readers
        self._largest_slice = largest_slice
        self._on_change = on_change
        self._stopped = False
        self._syncing = threading.Lock()
        self._writing = WriteBehind(self._write, self._sync)
        self._waiting = (
            Waiting(waiting_room, arrivals, self._admit, self._forget) if waiting_room else None
        )

    # --- writers --------------------------------------------------------------------------------

    def open(self, response: StoredResponse, counts: bool = True) -> DiskWriter | None:
        """See `Store.open_writer`; a refusal `counts`."""
        digest = key_digest(response.primary_key)
        if not self._may_fit(response, self._shards.of(digest)) or not self._takes(digest):
            self._counters.refused += counts
            return None
        return DiskWriter(self, self._joined(response) or self._begun(response))

    def rejoin(self, stored: DiskObject, length: int | None) -> DiskWriter | None:
        """A writer for more of what a look-up gave. None while nothing is taken."""
        response, incoming = stored.response, stored.incoming
        if not self._takes(key_digest(response.primary_key)):
            self._counters.refused += 1
            return None
        if incoming is None or not self._arrivals.join(incoming, length):
            if stored.object_id is None:
                return None  # removed before any of it was written
            incoming = self._begun(response, stored.object_id)
        return DiskWriter(self, incoming)

    def _takes(self, digest: bytes) -> bool:
        """Whether that shard may be written to now."""
        if self._stopped or self._trouble.resting:
            return False
        try:
            return self._shards.of(digest).may_write()
        except OSError as error:
            self._trouble.failed(str(error))
            return False

    def _may_fit(self, response: StoredResponse, shard: Shard) -> bool:
        if len(response.primary_key) > LARGEST_HEAD // 2:
            return False
        if not 0 < response.slice_size <= self._largest_slice:
            return False
        part = response.present if isinstance(response.present, ByteRange) else None
        length = response.length if part is None else part.length
        whole_only = part is not None or response.validator.strong_etag is None
        return not whole_only or length is None or length <= shard.largest_whole

    def _joined(self, response: StoredResponse) -> Incoming | None:
        # RFC 9111 §3.4: only what has one strong validator is one representation.
        etag, length = response.validator.strong_etag, response.length
        if etag is None or isinstance(response.present, ByteRange):
            return None
        name = (response.variant, etag, response.slice_size)
        for incoming in self._arrivals.of(response.primary_key):
            same = (incoming.variant, incoming.etag, incoming.slice_size) == name
            agree = length is None or incoming.length in (None, length)
            if same and agree and incoming.part is None and self._arrivals.join(incoming, length):
                return incoming
        # Whoever wants to write has looked for it: the head is resident.
        for stored in self._lookups.find(response.primary_key, resident=False) or ():
            held = stored.response
            if (held.variant, held.validator.strong_etag, held.slice_size) != name:
                continue
            if isinstance(held.present, ByteRange) or length not in (None, held.length):
                continue
            if stored.object_id is not None:
                return self._begun(held, stored.object_id)
        return None

    def _begun(self, response: StoredResponse, object_id: int | None = None) -> Incoming:
        key = response.primary_key
        incoming = Incoming(
            key,
            key_digest(key),
            response.variant,
            response.slice_size,
            response.present if isinstance(response.present, ByteRange) else None,
            response.validator.strong_etag,
            response.length,
            object_id,
            kept=None if object_id is None else as_kept(response),
            headed=object_id is not None,
            waiting=self._waiting,
        )
        self._arrivals.add(incoming)
        return incoming

    def slice(self, incoming: Incoming, number: int, content: bytes) -> bool:
        """See `SliceWriter.write`."""
        if self._stopped or number >= MOST_SLICES:
            self._counters.refused += 1
            return False
        assert 0 < len(content) <= incoming.slice_size
        if self._is_there(incoming, number):
            return True
        put = Put(incoming, number, content)
        incoming.slices[number] = content
        self._arrivals.queue(incoming)
        if self._waiting is not None and self._is_new(incoming, number):
            if self._waiting.hold(put, number):
                return True
        elif self._admit([put]):
            return True
        self._arrivals.written(put)
        self._counters.refused += 1
        return False

    # --- probation in RAM -----------------------------------------------------------------------

    def _is_new(self, incoming: Incoming, number: int) -> bool:
        """Whether a slice is not known to have been there before."""
        policy = self._shards.of(incoming.digest).policy
        if not incoming.whole_only:
            return policy.log_for(name_of(incoming.digest, number)) is Log.PROBATION
        return (
            not incoming.admitted
            and policy.log_for(name_of(incoming.digest, None)) is Log.PROBATION
        )

    def _stays_in_ram(self, incoming: Incoming, head: StoredResponse) -> bool:
        """Whether a head need not be written yet because nothing else of it is. Raises
        IndexFailed."""
        waiting = self._waiting
        if waiting is None or incoming.admitted or incoming.headed:
            return False
        # RFC 9111 §4: the most recent response is the one to use, so what is older and on the disk
        # must not outlive it. And where there is no content there is nothing to wait for.
        on_disk = self._shards.of(incoming.digest).index.heads(incoming.digest)
        if not on_disk and head.length != 0:
            return True
        incoming.admitted = True
        for number in list(incoming.slices):
            waiting.use(incoming, number)
        return False

    def _admit(self, puts: list[Put]) -> bool:
        """Slices of one response go to the disk, all or none, and its head after them."""
        incoming = puts[0].incoming
        if self._stopped or self._trouble.resting or not self._writing.accept(puts[0]):
            return False
        for put in puts[1:]:
            self._writing.accept(put, must=True)
        if not incoming.admitted:
            incoming.admitted = True
            if self._waiting is not None and incoming.response and not incoming.headed:
                self._write_head(incoming, incoming.response, incoming.whole_only)
        return True

    def _forget(self, put: Put) -> None:
        """A slice was not used again in time."""
        incoming = put.incoming
        number = None if incoming.whole_only else put.number
        size = record_size(incoming.key, len(put.content))
        self._shards.of(incoming.digest).policy.forget(name_of(incoming.digest, number), size)

    # --- their slices and heads -----------------------------------------------------------------

    def _is_there(self, incoming: Incoming, number: int) -> bool:
        if number in incoming.slices or number in incoming.placed:
            return True
        if not incoming.headed or incoming.object_id is None:
            return False
        shard = self._shards.of(incoming.digest)
        return bool(shard.locate(incoming.object_id, (number,), {}))

    def head(self, incoming: Incoming, response: StoredResponse, whole: bool) -> bool:
        """See `SliceWriter.show` and `commit`; `whole`: it is not kept unless all of its content
        is there."""
        if self._stopped or self._trouble.resting:
            self._counters.refused += 1
            return False
        head = as_kept(response)
        if len(encode_head(head)) + len(incoming.key) > LARGEST_HEAD:
            return False
        try:
            if whole and not self._shards.of(incoming.digest).has_whole(incoming, head):
                return False
            if head == (incoming.response or incoming.kept):
                return self._is_kept(incoming)
            stays = self._stays_in_ram(incoming, head)
        except IndexFailed as error:
            self._trouble.failed(str(error))
            return False
        self._arrivals.show(incoming, head)
        self._on_change(incoming.key)
        return stays or self._write_head(incoming, head, whole)

    def _write_head(self, incoming: Incoming, head: StoredResponse, whole: bool) -> bool:
        self._arrivals.queue(incoming)
        put = Put(incoming, None, encode_head(head), head, whole)
        return self._writing.accept(put, must=True)

    def _is_kept(self, incoming: Incoming) -> bool:
        """Whether the head that it has is in, or on its way, and has not been removed."""
        if not incoming.headed or incoming.object_id is None:
            return not incoming.cancelled
        index = self._shards.of(incoming.digest).index
        return index.head(incoming.digest, incoming.object_id) is not None

    def source(self, incoming: Incoming) -> SliceSource:
        """Where what it has so far is to be read."""
        return SliceSource(
            self._shards.of(incoming.digest),
            incoming.key,
            incoming.digest,
            incoming.slice_size,
            incoming.part,
            incoming.length,
            incoming.object_id,
            incoming,
            self._readers,
            is_use=False,
        )

    def leave(self, incoming: Incoming) -> None:
        """A writer has ended."""
        self._arrivals.leave(incoming)

    def room(self) -> Future[None] | None:
        """See `WriteBehind.room`."""
        return self._writing.room()

    # --- the disk's side ------------------------------------------------------------------------

    def _write(self, batch: list[Put]) -> None:
        by_shard: dict[Shard, list[Put]] = {}
        for put in batch:
            by_shard.setdefault(self._shards.of(put.incoming.digest), []).append(put)
        for shard, puts in by_shard.items():
            if not self._trouble.resting:
                self._write_to(shard, puts)
            for put in puts:
                if not put.done:
                    self._arrivals.cancel(put.incoming)
                self._arrivals.written(put)

    def _write_to(self, shard: Shard, puts: list[Put]) -> None:
        try:
            shard.write(puts)
        except WriteFailed as error:
            self._counters.write_failures += 1
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
                    self._counters.write_failures += 1
                    self._trouble.failed(str(error))

    def flush(self) -> Future[None]:
        """See `WriteBehind.flush`."""
        return self._writing.flush()

    def stop(self) -> None:
        """From here on everything is refused."""
        self._stopped = True

    def close(self) -> None:
        """Writes what has been accepted. Waits for the disk."""
        self._stopped = True
        self._writing.close()
