"""The store of a node without a disk: RAM, byte-accounted; GDG says who goes first.

Strategy: an index from primary key to variants keeps the objects, a replacement policy their sum
and their order. Writers reserve each slice as it comes, so what is still arriving
counts and no crowd of fills outgrows the budget; when a writer ends, what it brought is the
object's. Sizes are what an object costs the process, not only its content: a million small objects
are mostly fields and Python.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Sequence

from cdn.semantics.ranges import ByteRange
from cdn.semantics.stored_response import StoredResponse
from cdn.semantics.vary import Variant
from cdn.storage.eviction.greedy_dual import GDG
from cdn.storage.memory_file import LEAST, FiledSlice, MemoryFile, paged
from cdn.storage.memory_object import MemoryObject, Pieces, occupied_by
from cdn.storage.purge_epochs import PurgeEpochs
from cdn.storage.store import StoredObject

_OBJECT_OVERHEAD = 1_400
"""Bytes of an object besides fields and content: dataclasses, keys, dictionary entries, and what
replacement keeps of it and of those that left (some 300). Measured with tracemalloc
(tests/storage/test_memory.py keeps it honest)."""

MOST_VARIANTS = 128
"""Of one primary key; the oldest goes first. Every look-up walks them all, and a client may send
whatever it likes in a field that Vary nominates."""

_BYTES_OVERHEAD = sys.getsizeof(b"")

_NOMINATED_OVERHEAD = 160
"""Bytes of a field that Vary nominates besides its text: a tuple and two str."""


class MemoryCounters:
    """Plain counts, collected at scrape: what there is, is asked of the store itself then."""

    __slots__ = ("_store", "evictions", "refused")

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.evictions = 0
        self.refused = 0

    @property
    def objects(self) -> int:
        return self._store.objects

    @property
    def bytes(self) -> int:
        """With those of what is arriving."""
        return self._store.occupied


Name = bytes | tuple[bytes, Variant]
"""What the policy calls an object: by its key alone where it is for every request."""


def _name(response: StoredResponse) -> Name:
    variant = response.variant
    return (response.primary_key, variant) if variant else response.primary_key


class MemoryStore:
    """`capacity` in bytes, fields and overhead included. Of one response at most an eighth of it
    is stored."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.largest_object = capacity // 8
        self.counters = MemoryCounters(self)
        self.epochs = PurgeEpochs()
        self.on_change: Callable[[bytes], None] = lambda _: None
        self.on_last_look: Callable[[bytes], None] = lambda _: None
        """Called with the key of what goes next: it may be `touch`ed to stay."""
        self._reserved = 0
        self._file: MemoryFile | None = None
        self._policy: GDG[Name] = GDG(capacity)
        self._policy.last_look = self._last_look
        self._variants: dict[bytes, tuple[MemoryObject, ...]] = {}
        self._arriving: dict[Name, MemoryObject] = {}

    @property
    def objects(self) -> int:
        """Stored responses."""
        return len(self._policy)

    @property
    def occupied(self) -> int:
        """Bytes that they, and those on their way in, count against `capacity`."""
        return self._policy.used + self._reserved

    def lookup(self, key: bytes) -> Sequence[MemoryObject]:
        return self._variants.get(key, ())

    async def lookup_soon(self, key: bytes) -> Sequence[MemoryObject]:
        return self.lookup(key)

    def touch(self, stored: StoredObject, uses: int = 1) -> None:
        assert isinstance(stored, MemoryObject)
        entry = stored.entry
        if entry is None or not entry.present:
            try:
                entry = stored.entry = self._policy.entry(_name(stored.response))
            except KeyError:
                return  # it has gone since it was looked up
        self._policy.use(entry, uses)

    def open_writer(self, response: StoredResponse) -> MemoryWriter | None:
        stored = self._joined(response)
        overhead = 0 if stored else _overhead(response)
        if overhead + _expected(response) > self.largest_object or not self.reserve(overhead):
            self.counters.refused += 1
            return None
        if stored is None:
            stored = MemoryObject(response)
            self._arriving[_name(response)] = stored
        return MemoryWriter(self, stored, overhead)

    def put(self, response: StoredResponse, content: bytes) -> bool:
        """See `Store.put`: of what nothing is stored yet."""
        key, name = response.primary_key, _name(response)
        size = _overhead(response) + len(content)
        if size > self.largest_object or key in self._variants or name in self._arriving:
            return False
        if not self.reserve(size):
            return False
        self._reserved -= size
        stored = MemoryObject(response, [content], size, shown=True)
        self._variants[key] = (stored,)
        self._policy.admit(name, size)
        self.on_change(key)
        return True

    def _joined(self, response: StoredResponse) -> MemoryObject | None:
        # RFC 9111 §3.4: only what has one strong validator is one representation.
        etag, held = response.validator.strong_etag, self._held(response)
        held = held or self._arriving.get(_name(response))
        if etag is None or held is None or isinstance(response.present, ByteRange):
            return None
        known = held.response
        same = (known.validator.strong_etag, known.length, known.slice_size) == (
            etag,
            response.length,
            response.slice_size,
        )
        return held if same and not isinstance(known.present, ByteRange) else None

    def _held(self, response: StoredResponse) -> MemoryObject | None:
        for stored in self._variants.get(response.primary_key, ()):
            if stored.variant == response.variant:
                return stored
        return None

    def freshen(self, stored: StoredObject, response: StoredResponse) -> None:
        held = self._held(stored.response)
        if held is not None and held is stored:
            self.insert(held, response)

    def remove(self, key: bytes) -> int:
        found = self._variants.get(key, ())
        for stored in found:
            self._remove(stored)
        return len(found)

    def reserve(self, size: int) -> bool:
        """Takes `size` bytes for content on its way in, evicting as needed. False: no room."""
        if self._reserved + size > self.capacity:
            return False
        self._reserved += size
        if self._policy.used + self._reserved > self.capacity:
            self._evict()
        return True

    def release(self, size: int) -> None:
        """Gives reserved bytes back."""
        self._reserved -= size

    def filed(self, content: bytes) -> bytes | FiledSlice:
        """How a slice is kept."""
        if len(content) <= LEAST:
            return content
        with contextlib.suppress(OSError):
            if self._file is None:
                self._file = MemoryFile()
            return self._file.add(content)
        return content

    def insert(self, stored: MemoryObject, response: StoredResponse, arriving: int = 0) -> bool:
        """Puts an object in with this head, in place of the one with its key and variant;
        `arriving` bytes of its content are reserved by writers that are at work on it. Where those
        on their way have reserved what it would need, it is dropped instead: False."""
        key, held = response.primary_key, self._held(response)
        if held is not None:
            self._remove(held)
        stored.response, stored.shown, stored.gone = response, True, False
        self.arrived(stored)
        stored.tell()
        stored.size = _overhead(response) + stored.occupied - arriving
        if not self.reserve(stored.size):
            stored.gone = True
            self.counters.evictions += 1
            return False
        self._reserved -= stored.size
        found = self._variants.get(key, ())
        if len(found) >= MOST_VARIANTS:
            self._remove(found[0])
            self.counters.evictions += 1
        self._variants[key] = (*self._variants.get(key, ()), stored)
        self._policy.admit(_name(response), stored.size)
        self.on_change(key)
        return True

    def arrived(self, stored: MemoryObject) -> None:
        """Nobody joins it any more as something that is not seen yet."""
        name = _name(stored.response)
        if self._arriving.get(name) is stored:
            del self._arriving[name]

    def drop(self, stored: MemoryObject) -> None:
        """Takes an object out that nothing came of."""
        if self._held(stored.response) is stored:
            self._remove(stored)

    def _last_look(self, name: Name) -> None:
        self.on_last_look(name if isinstance(name, bytes) else name[0])

    def _evict(self) -> None:
        policy = self._policy
        while policy.used + self._reserved > self.capacity and len(policy):
            name = policy.evict()
            key, variant = (name, ()) if isinstance(name, bytes) else name
            self._forget(key, next(one for one in self._variants[key] if one.variant == variant))
            self.counters.evictions += 1

    def _remove(self, stored: MemoryObject) -> None:
        self._policy.remove(_name(stored.response))
        self._forget(stored.response.primary_key, stored)

    def _forget(self, key: bytes, stored: MemoryObject) -> None:
        stored.gone = True
        others = tuple([one for one in self._variants[key] if one is not stored])
        if others:
            self._variants[key] = others
        else:
            del self._variants[key]
        self.on_change(key)


class MemoryWriter:
    """See `SliceWriter`. Also gives up when the content outgrows an eighth of the store."""

    def __init__(self, store: MemoryStore, stored: MemoryObject, overhead: int) -> None:
        self._store: MemoryStore | None = store
        self._stored = stored
        self._reserved = overhead
        self._overhead = overhead
        stored.writers += 1

    def write(self, number: int, content: bytes) -> bool:
        store, stored = self._store, self._stored
        if store is None or stored.gone:
            return False
        if stored.has(number):
            return True
        size = paged(len(content)) if len(content) > LEAST else len(content)
        largest = store.largest_object - self._reserved - stored.size
        if size > largest or not store.reserve(size):
            store.counters.refused += 1
            return False
        held = store.filed(content)
        kept = occupied_by(held)
        store.release(size - kept)  # there may be no such file
        self._reserved += kept
        stored.put(number, held)
        return True

    def open(self, parts: Sequence[ByteRange]) -> Pieces:
        return self._stored.open(parts)

    async def room(self) -> None:
        return  # RAM is as fast as whoever writes to it

    def show(self, response: StoredResponse) -> bool:
        store = self._store
        if store is None or self._stored.gone:
            return False
        self._give_back(self._overhead)
        self._overhead = 0
        return store.insert(self._stored, response, arriving=self._reserved)

    def commit(self, response: StoredResponse) -> bool:
        if self._store is None or self._stored.gone or not self._is_sound(response):
            self.abort()
            return False
        return self._end(response, commits=True)

    def _is_sound(self, response: StoredResponse) -> bool:
        """What cannot be completed later (RFC 9111 §3.4) is kept whole or not at all."""
        if response.validator.strong_etag is not None:
            return True
        part = response.present
        length = part.length if isinstance(part, ByteRange) else response.length
        return length == self._stored.content_size

    def abort(self) -> None:
        if self._store is not None:
            self._end(self._stored.response)

    def _give_back(self, size: int) -> None:
        assert self._store is not None
        self._reserved -= size
        self._store.release(size)

    def _end(self, response: StoredResponse, commits: bool = False) -> bool:
        store, stored = self._store, self._stored
        assert store is not None
        self._give_back(self._reserved)
        self._store = None
        stored.writers -= 1
        if not stored.writers:
            store.arrived(stored)
        if not (stored.shown or commits) or stored.gone:
            return False
        if not stored.writers and not stored.content_size and response.length != 0:
            store.drop(stored)  # of which nothing came
            return False
        return store.insert(stored, response)


def _expected(response: StoredResponse) -> int:
    """Bytes of content that are to come as far as they are known: of slices, nobody knows which."""
    match response.present:
        case None:
            return response.length or 0
        case ByteRange() as part:
            return part.length
        case _:
            return 0


def _overhead(response: StoredResponse) -> int:
    size = _OBJECT_OVERHEAD + _BYTES_OVERHEAD + len(response.primary_key) + response.fields.weight
    for name, value in response.variant:
        size += len(name) + len(value or "") + _NOMINATED_OVERHEAD
    return size
