"""Responses on their way to the disk: seen by look-ups before the disk has them.

Strategy: what a writer has handed over is kept in RAM until it is in the index, and look-ups lay it
over what the index says. It is taken away once the index has it: whoever looks here first and there
second misses nothing.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cdn.semantics.ranges import ByteRange
from cdn.semantics.stored_response import StoredResponse
from cdn.semantics.vary import Variant
from cdn.storage.index import Location
from cdn.storage.records import Bytes

if TYPE_CHECKING:
    from cdn.storage.waiting import Waiting


@dataclass(slots=True, eq=False)
class Incoming:
    """One object that is being written to, by as many as `writers`.

    `slice_size` in bytes; `part`: of the representation only that is on its way, and slices are
    counted from its beginning. `etag` is its strong entity tag, None where it has none; `length`
    the complete length, where known. `object_id` is None until its first record is placed.
    `response` is the head to show, None while there is none; `headed`: the index has a head, and
    `kept` is that where a writer joined what was there. `slices` have been accepted and are not in
    the index yet; those that are `placed` lie in a log and wait for the head, without which the
    index takes none. `waiting` has those that are not to be written before they are used again,
    `admitted`: something of it is to be written, its head as well. `cancelled`: purged, replaced,
    or failed: nothing of it goes in any more.
    """

    key: bytes
    digest: bytes
    variant: Variant
    slice_size: int
    part: ByteRange | None = None
    etag: str | None = None
    length: int | None = None
    object_id: int | None = None
    response: StoredResponse | None = None
    kept: StoredResponse | None = None
    headed: bool = False
    slices: dict[int, Bytes] = field(default_factory=dict)
    placed: dict[int, Location] = field(default_factory=dict)
    writers: int = 1
    queued: int = 0
    cancelled: bool = False
    waiting: Waiting | None = None
    admitted: bool = False

    @property
    def whole_only(self) -> bool:
        """Whether what is missing of it could never be fetched (RFC 9111 §3.4)."""
        return self.etag is None or self.part is not None

    @property
    def bits(self) -> int:
        """A bit for each slice that is accepted or placed."""
        bits = 0
        for number in (*list(self.slices), *list(self.placed)):
            bits |= 1 << number
        return bits

    @property
    def idle(self) -> bool:
        """Nobody writes to it and nothing of it waits."""
        return not self.writers and not self.queued


@dataclass(slots=True, eq=False)
class Put:
    """One thing to be written: a slice, or a head where `number` is None, which is not kept where
    it must be `whole` and is not. `done`: it was written."""

    incoming: Incoming
    number: int | None
    content: Bytes
    response: StoredResponse | None = None
    whole: bool = False
    done: bool = False


class Arrivals:
    """All that is on its way, by primary key. May be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_key: dict[bytes, list[Incoming]] = {}

    def of(self, key: bytes) -> list[Incoming]:
        """In the order in which they began."""
        if key not in self._by_key:
            return []
        with self._lock:
            return list(self._by_key.get(key, ()))

    def join(self, incoming: Incoming, length: int | None) -> bool:
        """One more writer, which takes the complete length for this; False where it is over."""
        with self._lock:
            if incoming.cancelled or incoming.idle:
                return False
            incoming.writers += 1
            incoming.length = incoming.length or length
            return True

    def add(self, incoming: Incoming) -> None:
        with self._lock:
            self._by_key.setdefault(incoming.key, []).append(incoming)

    def show(self, incoming: Incoming, response: StoredResponse) -> None:
        """It has this head now. Others of its name are outdated (RFC 9111 §4: the most recent)."""
        incoming.response, incoming.length = response, response.length
        for other in self.of(incoming.key):
            if other is not incoming and other.variant == incoming.variant and other.response:
                self.cancel(other)

    def cancel(self, incoming: Incoming) -> None:
        """Nothing of it is to be seen, or written, any more."""
        with self._lock:
            incoming.cancelled = True
            incoming.slices.clear()
            self._drop(incoming)

    def queue(self, incoming: Incoming) -> None:
        """One more thing of it is to be written."""
        with self._lock:
            incoming.queued += 1

    def written(self, put: Put) -> None:
        """What was queued is in the index, or never will be."""
        incoming = put.incoming
        with self._lock:
            incoming.queued -= 1
            if put.number is not None and incoming.slices.get(put.number) is put.content:
                del incoming.slices[put.number]
            if incoming.idle:
                self._drop(incoming)

    def leave(self, incoming: Incoming) -> None:
        """A writer has ended."""
        with self._lock:
            incoming.writers -= 1
            if not incoming.writers and incoming.response is None and not incoming.headed:
                incoming.cancelled = True  # nobody will ever give it a head
            if incoming.idle:
                self._drop(incoming)

    def _drop(self, incoming: Incoming) -> None:
        held = self._by_key.get(incoming.key, [])
        if incoming in held:
            held.remove(incoming)
        if not held:
            self._by_key.pop(incoming.key, None)
