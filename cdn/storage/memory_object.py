"""A stored response in RAM: its head, and those slices that are there.

Strategy: small slices are bytes that fills, readers and the store share by reference; large ones
lie in a file in RAM. Nothing is copied on the way out, unless a large one is wanted as bytes. A
reader that holds pieces needs the object no more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from cdn.semantics.ranges import ByteRange, slices_for
from cdn.semantics.slices import PresentSlices, slice_count
from cdn.semantics.stored_response import StoredResponse
from cdn.semantics.vary import Variant
from cdn.storage.eviction.greedy_dual import Entry
from cdn.storage.memory_file import FiledSlice, Run, paged
from cdn.storage.store import Piece, SliceGone

Touched = tuple[bytes | FiledSlice, int, int]
"""A slice, and the bytes [start, stop) of it."""


@dataclass(slots=True, eq=False)
class MemoryObject:
    """`slices` are counted from where a part that came by itself begins, else from the
    representation's start; None for those that are not there. `size` is what the store accounts
    for, in bytes. `shown`: look-ups find it; `gone`: it is in the store no more; so many `writers`
    are at work on it; `entry` is what replacement knew it by when it was used last; `run` is what
    all slices make in the file, None until that is asked, False where they do not lie so."""

    response: StoredResponse
    slices: list[bytes | FiledSlice | None] = field(default_factory=list)
    size: int = 0
    shown: bool = False
    gone: bool = False
    writers: int = 0
    entry: Entry[bytes | tuple[bytes, Variant]] | None = None
    run: Run | Literal[False] | None = None

    @property
    def variant(self) -> Variant:
        return self.response.variant

    @property
    def response_time(self) -> float:
        return self.response.response_time

    @property
    def content_language(self) -> str | None:
        return self.response.fields.get("content-language")

    def ready(self, parts: Sequence[ByteRange]) -> list[bytes | memoryview]:
        """See `StoredObject.ready`: always at once. Raises SliceGone for what is not there."""
        slices = self.slices
        if len(slices) == 1 and len(parts) == 1 and self.response.present is None:
            only, (start, stop) = slices[0], parts[0]
            if only.__class__ is bytes and 0 <= start < stop <= len(only):
                return [memoryview(only)[start:stop]]
        return [
            held.read(start, stop) if isinstance(held, FiledSlice) else memoryview(held)[start:stop]
            for held, start, stop in self._touched(parts)
        ]

    def ready_to_send(self, parts: Sequence[ByteRange]) -> list[Piece]:
        """See `StoredObject.ready_to_send`, and `ready`."""
        if len(parts) == 1 and (piece := self.in_one_piece(*parts[0])) is not None:
            return [piece]
        return [
            held.span(start, stop) if isinstance(held, FiledSlice) else memoryview(held)[start:stop]
            for held, start, stop in self._touched(parts)
        ]

    def in_one_piece(self, start: int, stop: int) -> Piece | None:
        """See `StoredObject.in_one_piece`."""
        response, run = self.response, self.run
        if response.present is not None or start >= stop:
            return None
        if run is None:
            run = self.run = Run.of(self.slices) or False
        if run is not False:
            return run.span(start, stop) if stop <= run.length else None
        number, first = divmod(start, response.slice_size)
        held = self.slices[number] if number < len(self.slices) else None
        last = stop - start + first
        if held.__class__ is FiledSlice and last <= held.length:
            return held.span(first, last)
        return None

    def open(self, parts: Sequence[ByteRange]) -> Pieces:
        """See `StoredObject.open`."""
        return Pieces(self._touched(parts))

    def open_to_send(self, parts: Sequence[ByteRange]) -> PiecesToSend:
        """See `StoredObject.open_to_send`."""
        return PiecesToSend(self.ready_to_send(parts))

    def _touched(self, parts: Sequence[ByteRange]) -> list[Touched]:
        """What the parts, in their order, touch. Raises SliceGone."""
        response = self.response
        base = response.present.start if isinstance(response.present, ByteRange) else 0
        size, touched = response.slice_size, []
        for start, stop in parts:
            for number in slices_for(ByteRange(start - base, stop - base), size):
                held = self.slices[number] if number < len(self.slices) else None
                if held is None:
                    raise SliceGone(number, "is not there")
                first = base + number * size
                touched.append((held, max(0, start - first), min(stop - first, len(held))))
        return touched

    def has(self, number: int) -> bool:
        """Whether that slice is there."""
        return number < len(self.slices) and self.slices[number] is not None

    def put(self, number: int, content: bytes | FiledSlice) -> None:
        """A slice that was not there."""
        self.slices += [None] * (number + 1 - len(self.slices))
        self.slices[number] = content
        self.run = None
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

    @property
    def occupied(self) -> int:
        """Bytes of RAM that they take."""
        return sum(occupied_by(held) for held in self.slices if held is not None)


def occupied_by(held: bytes | FiledSlice) -> int:
    """Bytes of RAM that a slice takes, but for what Python adds."""
    return paged(len(held)) if isinstance(held, FiledSlice) else len(held)


class Pieces:
    """A `StoredContent` that is all at hand."""

    __slots__ = ("_touched",)

    def __init__(self, touched: list[Touched]) -> None:
        self._touched = touched

    async def read(self) -> bytes | memoryview:
        """See `StoredContent.read`."""
        if not self._touched:
            return b""
        held, start, stop = self._touched.pop(0)
        if isinstance(held, FiledSlice):
            return held.read(start, stop)
        return memoryview(held)[start:stop]

    def abort(self) -> None:
        """See `StoredContent.abort`."""
        self._touched.clear()


class PiecesToSend:
    """A `ContentToSend` that is all at hand."""

    __slots__ = ("_pieces",)

    def __init__(self, pieces: list[Piece]) -> None:
        self._pieces = pieces

    async def read(self) -> Piece:
        """See `StoredContent.read`."""
        return self._pieces.pop(0) if self._pieces else b""

    def abort(self) -> None:
        """See `StoredContent.abort`."""
        self._pieces.clear()
