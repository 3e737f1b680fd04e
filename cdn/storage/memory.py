"""The store of a node without a disk: RAM, byte-accounted; GDG says who goes first.

Strategy: cachetools keeps objects and sum, a replacement policy their order; beside it an index
from primary key to variants. Writers reserve each slice as it comes, so what is still arriving
counts and no crowd of fills outgrows the budget. Sizes are what an object costs the process, not
only its content: a million small objects are mostly fields and Python.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from cachetools import Cache

from cdn.semantics.ranges import ByteRange, cut
from cdn.semantics.stored_response import StoredResponse
from cdn.semantics.vary import Variant
from cdn.storage.eviction.greedy_dual import GDG
from cdn.storage.eviction.policy import EvictionPolicy, K
from cdn.storage.store import StoredObject

_OBJECT_OVERHEAD = 2_000
"""Bytes of an object besides texts and content: dataclasses, keys, dictionary entries, and what
replacement keeps of it and of those that left (some 300). Measured with tracemalloc
(tests/storage/test_memory.py keeps it honest)."""

MOST_VARIANTS = 128
"""Of one primary key; the oldest goes first. Every look-up walks them all, and a client may send
whatever it likes in a field that Vary nominates."""

_LINE_OVERHEAD = 160
"""Bytes of a field line besides its text: a tuple and two str."""


@dataclass(slots=True)
class MemoryCounters:
    """Plain counts, collected at scrape."""

    objects: int = 0
    bytes: int = 0
    evictions: int = 0
    refused: int = 0


@dataclass(slots=True, eq=False)
class MemoryObject:
    """One stored response; `slices` are of `ranges.SLICE_SIZE` bytes but the last, counted from
    where what is present begins."""

    response: StoredResponse
    slices: list[bytes]
    size: int

    @property
    def variant(self) -> Variant:
        return self.response.variant

    @property
    def response_time(self) -> float:
        return self.response.response_time

    @property
    def content_language(self) -> str | None:
        return self.response.fields.get("content-language")

    def read(self, part: ByteRange) -> Sequence[memoryview]:
        present = self.response.present
        base = present.start if isinstance(present, ByteRange) else 0
        return cut(self.slices, ByteRange(part.start - base, part.stop - base))


Name = tuple[bytes, Variant]
V = TypeVar("V")


class PolicyCache(Cache[K, V]):
    """A cachetools Cache that evicts what `policy` names; to look an item up is to use it."""

    def __init__(self, policy: EvictionPolicy[K], getsizeof: Callable[[V], int]) -> None:
        super().__init__(policy.budget, getsizeof)
        self.policy = policy

    def __getitem__(self, key: K) -> V:
        self.policy.touch(key)
        return Cache.__getitem__(self, key)

    def __setitem__(self, key: K, value: V) -> None:
        if key in self:
            del self[key]
        super().__setitem__(key, value)
        self.policy.admit(key, int(self.getsizeof(value)))

    def __delitem__(self, key: K) -> None:
        super().__delitem__(key)
        self.policy.remove(key)

    def popitem(self) -> tuple[K, V]:
        key = self.policy.evict()
        value = super().__getitem__(key)
        super().__delitem__(key)
        return key, value


class MemoryStore:
    """`capacity` in bytes, fields and overhead included. Of one response at most an eighth of it
    is stored."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.largest_object = capacity // 8
        self.counters = MemoryCounters()
        self._reserved = 0
        self._objects: PolicyCache[Name, MemoryObject] = PolicyCache(
            GDG(capacity), getsizeof=lambda stored: stored.size
        )
        self._variants: dict[bytes, dict[Variant, MemoryObject]] = {}

    def lookup(self, key: bytes) -> Sequence[MemoryObject]:
        found = self._variants.get(key)
        return () if found is None else tuple(found.values())

    def touch(self, stored: StoredObject, uses: int = 1) -> None:
        response = stored.response
        try:
            self._objects.policy.touch((response.primary_key, response.variant), uses)
        except KeyError:
            return  # it has gone since it was looked up

    def open_writer(self, response: StoredResponse) -> MemoryWriter | None:
        overhead = _overhead(response)
        present = response.present
        content = present.length if isinstance(present, ByteRange) else response.length or 0
        if overhead + content > self.largest_object or not self.reserve(overhead):
            self.counters.refused += 1
            return None
        return MemoryWriter(self, overhead)

    def freshen(self, stored: StoredObject, response: StoredResponse) -> None:
        held = self._variants.get(stored.response.primary_key, {}).get(stored.variant)
        if held is None or held is not stored:
            return
        content = sum(map(len, held.slices))
        self._remove((stored.response.primary_key, stored.variant))
        self.insert(MemoryObject(response, held.slices, content + _overhead(response)))

    def remove(self, key: bytes) -> int:
        variants = list(self._variants.get(key, ()))
        for variant in variants:
            self._remove((key, variant))
        return len(variants)

    def reserve(self, size: int) -> bool:
        """Takes `size` bytes for content on its way in, evicting as needed. False: no room."""
        if self._reserved + size > self.capacity:
            return False
        self._reserved += size
        self._evict()
        return True

    def release(self, size: int) -> None:
        """Gives reserved bytes back."""
        self._reserved -= size
        self._count()

    def insert(self, stored: MemoryObject) -> None:
        """Puts a complete response in, in place of the one with its key and variant. Where those
        on their way have reserved what it would need, it is dropped instead."""
        key, variant = name = (stored.response.primary_key, stored.variant)
        if name in self._objects:
            self._remove(name)
        if not self.reserve(stored.size):
            self.counters.evictions += 1
            return
        self._reserved -= stored.size
        variants = self._variants.get(key, {})
        if len(variants) >= MOST_VARIANTS:
            self._remove((key, next(iter(variants))))
            self.counters.evictions += 1
        self._objects[name] = stored
        self._variants.setdefault(key, {})[variant] = stored
        self._count()

    def _evict(self) -> None:
        while self._objects and self._objects.currsize + self._reserved > self.capacity:
            name, _ = self._objects.popitem()
            self._forget(name)
            self.counters.evictions += 1
        self._count()

    def _remove(self, name: Name) -> None:
        del self._objects[name]
        self._forget(name)
        self._count()

    def _forget(self, name: Name) -> None:
        key, variant = name
        variants = self._variants[key]
        del variants[variant]
        if not variants:
            del self._variants[key]

    def _count(self) -> None:
        self.counters.objects = len(self._objects)
        self.counters.bytes = int(self._objects.currsize) + self._reserved


class MemoryWriter:
    """See `SliceWriter`. Also gives up when the content outgrows an eighth of the store."""

    def __init__(self, store: MemoryStore, overhead: int) -> None:
        self._store: MemoryStore | None = store
        self._slices: list[bytes] = []
        self._size = overhead

    def write(self, piece: bytes) -> bool:
        store = self._store
        if store is None:
            return False
        size = len(piece)
        if self._size + size > store.largest_object or not store.reserve(size):
            store.counters.refused += 1
            self.abort()
            return False
        self._size += size
        self._slices.append(piece)
        return True

    def commit(self, response: StoredResponse) -> None:
        store = self._store
        if store is None:
            return
        self._store = None
        store.release(self._size)
        store.insert(MemoryObject(response, self._slices, self._size))

    def abort(self) -> None:
        store = self._store
        if store is not None:
            self._store = None
            store.release(self._size)
            self._slices = []


def _overhead(response: StoredResponse) -> int:
    lines = sum(len(name) + len(value) + _LINE_OVERHEAD for name, value in response.fields.lines)
    variant = sum(len(name) + len(value or "") + _LINE_OVERHEAD for name, value in response.variant)
    return _OBJECT_OVERHEAD + sys.getsizeof(response.primary_key) + lines + variant
