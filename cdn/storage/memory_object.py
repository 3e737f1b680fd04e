"""A stored response in RAM: its head, and those slices that are there.

Strategy: slices are bytes that fills, readers and the store share by reference; nothing is copied
on the way out. A reader that holds pieces needs the object no more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from cdn.semantics.ranges import ByteRange, slices_for
from cdn.semantics.slices import PresentSlices, slice_count
from cdn.semantics.stored_response import StoredResponse
from cdn.semantics.vary import Variant
from cdn.storage.store import SliceGone


@dataclass(slots=True, eq=False)
class MemoryObject:
    """`slices` are counted from where a part that came by itself begins, else from the
    representation's start; None for those that are not there. `size` is what the store accounts
    for, in bytes. `shown`: look-ups find it; `gone`: it is in the store no more; so many `writers`
    are at work on it."""

    response: StoredResponse
    slices: list[bytes | None] = field(default_factory=list)
    size: int = 0
    shown: bool = False
    gone: bool = False
    writers: int = 0

    @property
    def variant(self) -> Variant:
        return self.response.variant

    @property
    def response_time(self) -> float:
        return self.response.response_time

    @property
    def content_language(self) -> str | None:
        return self.response.fields.get("content-language")

    def ready(self, parts: Sequence[ByteRange]) -> list[memoryview]:
        """See `StoredObject.ready`: always at once. Raises SliceGone for what is not there."""
        response = self.response
        base = response.present.start if isinstance(response.present, ByteRange) else 0
        size, pieces = response.slice_size, []
        for start, stop in parts:
            for number in slices_for(ByteRange(start - base, stop - base), size):
                held = self.slices[number] if number < len(self.slices) else None
                if held is None:
                    raise SliceGone(number, "is not there")
                first = base + number * size
                pieces.append(memoryview(held)[max(0, start - first) : stop - first])
        return pieces

    def open(self, parts: Sequence[ByteRange]) -> Pieces:
        """See `StoredObject.open`."""
        return Pieces(self.ready(parts))

    def has(self, number: int) -> bool:
        """Whether that slice is there."""
        return number < len(self.slices) and self.slices[number] is not None

    def put(self, number: int, content: bytes) -> None:
        """A slice that was not there."""
        self.slices += [None] * (number + 1 - len(self.slices))
        self.slices[number] = content
        self.tell()

    def tell(self) -> None:
        """`response.present` says what is there."""
        response = self.response
        if isinstance(response.present, ByteRange) or response.length is None:
            return
        if response.present is None and self._is_one_whole_slice():
            return
        bits = sum(1 << number for number, held in enumerate(self.slices) if held is not None)
        whole = bits == (1 << slice_count(response.length, response.slice_size)) - 1
        present = None if whole else PresentSlices(bits, response.slice_size)
        if present != response.present:
            self.response = replace(response, present=present)

    def _is_one_whole_slice(self) -> bool:
        """As most of what is stored."""
        slices, length = self.slices, self.response.length
        return len(slices) == 1 and slices[0] is not None and len(slices[0]) == length

    @property
    def content_size(self) -> int:
        """Bytes of all slices that are there."""
        return sum(len(held) for held in self.slices if held is not None)


class Pieces:
    """A `StoredContent` that is all at hand."""

    __slots__ = ("_pieces",)

    def __init__(self, pieces: list[memoryview]) -> None:
        self._pieces = pieces

    async def read(self) -> bytes | memoryview:
        """See `StoredContent.read`."""
        return self._pieces.pop(0) if self._pieces else b""

    def abort(self) -> None:
        """See `StoredContent.abort`."""
        self._pieces.clear()
