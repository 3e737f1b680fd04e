"""What a look-up in the disk store gives: a stored response, and which of its content is there.

Strategy: a snapshot. What of the content is there is part of the response, derived from a bit for
each slice. It knows where its head lies, so that a use is counted without asking the index.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cdn.semantics.ranges import ByteRange
from cdn.semantics.slices import PresentSlices, slice_count
from cdn.semantics.stored_response import StoredResponse
from cdn.semantics.vary import Variant
from cdn.storage.disk_content import DiskContent, DiskContentToSend, SliceSource
from cdn.storage.incoming import Incoming
from cdn.storage.index import Location
from cdn.storage.store import Piece

READY = 256 << 10
"""Bytes had at once at most."""

READY_TO_SEND = 1 << 20
"""The same of what is left in its files: asking whether 1 MiB is resident takes some 60 µs."""


class DiskObject:
    """One stored response. `head` is the place of its head, None while that is on its way."""

    __slots__ = ("head", "response", "source")

    def __init__(
        self, response: StoredResponse, head: Location | None, source: SliceSource
    ) -> None:
        self.response = response
        self.head = head
        self.source = source

    @property
    def variant(self) -> Variant:
        return self.response.variant

    @property
    def response_time(self) -> float:
        return self.response.response_time

    @property
    def content_language(self) -> str | None:
        return self.response.fields.get("content-language")

    @property
    def object_id(self) -> int | None:
        """None while none of it is on the disk."""
        return self.source.object_id

    @property
    def incoming(self) -> Incoming | None:
        """What of it is on its way."""
        return self.source.incoming

    def ready(self, parts: Sequence[ByteRange]) -> list[memoryview] | None:
        """See `StoredObject.ready`: what is resident, and verified or small enough to be."""
        return self.source.ready(parts, READY)

    def ready_to_send(self, parts: Sequence[ByteRange]) -> Sequence[Piece] | None:
        """See `StoredObject.ready_to_send`."""
        return self.source.ready_to_send(parts, READY_TO_SEND)

    def in_one_piece(self, start: int, stop: int) -> Piece | None:
        """See `StoredObject.in_one_piece`: what is resident has to be asked."""
        return None

    def open(self, parts: Sequence[ByteRange]) -> DiskContent:
        """See `StoredObject.open`."""
        return DiskContent(self.source, parts)

    def open_to_send(self, parts: Sequence[ByteRange]) -> DiskContentToSend:
        """See `StoredObject.open_to_send`."""
        return DiskContentToSend(self.source, parts)

    def add_uses(self, uses: int) -> None:
        """See `Store.touch`. Raises OSError, IndexFailed."""
        source, head = self.source, self.head
        segments = source.shard.segments
        if head is not None and (segment := segments.get(head.segment)) is not None:
            segment.add_uses(head.record, uses)
        if source.single:
            source.use_arriving(0)
        if source.single and source.object_id is not None:
            for segment, place in source.held((0,), {}).values():
                segment.add_uses(place.record, uses)


def as_kept(response: StoredResponse) -> StoredResponse:
    """The head as it is written: which slices are there is the index's business."""
    if response.present is None or isinstance(response.present, ByteRange):
        return response
    return replace(response, present=None)


def with_present(head: StoredResponse, bits: int) -> StoredResponse | None:
    """`head` as kept, with what is there by a bit for each slice. Of a part that came by itself,
    its beginning, as far as that is whole; None where there is no such."""
    part, size = head.present, head.slice_size
    present: ByteRange | PresentSlices | None
    if isinstance(part, ByteRange):
        first = (~bits & bits + 1).bit_length() - 1  # so many slices in a row
        if not first:
            return None
        present = ByteRange(part.start, min(part.start + first * size, part.stop))
    elif head.length is not None and bits == (1 << slice_count(head.length, size)) - 1:
        present = None
    else:
        present = PresentSlices(bits, size)
    return head if present == part else replace(head, present=present)
