"""What a look-up in the disk store gives: a stored response, and which of its slices are there.

Strategy: a snapshot. The set of slices is one integer with a bit for each; `response.present` says
the same to those who think in one range: all, or the first bytes in a row that are there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from cdn.semantics.ranges import ByteRange, slices_for
from cdn.semantics.stored_response import StoredResponse
from cdn.semantics.vary import Variant
from cdn.storage.disk_content import DiskContent
from cdn.storage.incoming import Incoming


class SliceSet:
    """Numbers of slices, compact: `bits` has bit n set for slice n."""

    __slots__ = ("bits",)

    def __init__(self, bits: int = 0) -> None:
        self.bits = bits

    def __contains__(self, number: int) -> bool:
        return bool(self.bits >> number & 1)

    def __iter__(self) -> Iterator[int]:
        bits = self.bits
        while bits:
            lowest = bits & -bits
            yield lowest.bit_length() - 1
            bits ^= lowest

    def __len__(self) -> int:
        return self.bits.bit_count()

    def covers(self, numbers: range) -> bool:
        """Whether all of `numbers`, which go up by one, are in it."""
        wanted = (1 << len(numbers)) - 1
        return self.bits >> numbers.start & wanted == wanted

    def run(self) -> range:
        """The first numbers in a row."""
        if not self.bits:
            return range(0)
        start = (self.bits & -self.bits).bit_length() - 1
        row = self.bits >> start
        return range(start, start + (~row & row + 1).bit_length() - 1)


Open = Callable[["DiskObject", Sequence[ByteRange]], DiskContent]


class DiskObject:
    """One stored response. `slices_present` as they were when it was looked up; `object_id` is
    None while none of it is on the disk, `incoming` where all of it is."""

    __slots__ = ("_open", "incoming", "object_id", "response", "slice_size", "slices_present")

    def __init__(
        self,
        response: StoredResponse,
        slices: SliceSet,
        slice_size: int,
        object_id: int | None,
        incoming: Incoming | None,
        open_content: Open,
    ) -> None:
        self.response = _with_present(response, slices, slice_size)
        self.slices_present = slices
        self.slice_size = slice_size
        self.object_id = object_id
        self.incoming = incoming
        self._open = open_content

    @property
    def variant(self) -> Variant:
        return self.response.variant

    @property
    def response_time(self) -> float:
        return self.response.response_time

    @property
    def content_language(self) -> str | None:
        return self.response.fields.get("content-language")

    def has(self, part: ByteRange) -> bool:
        """Whether every byte of `part` is there."""
        return part.stop <= part.start or self.slices_present.covers(
            slices_for(part, self.slice_size)
        )

    def open(self, parts: Sequence[ByteRange]) -> DiskContent:
        """The bytes of `parts`, in their order; each within the response's length."""
        return self._open(self, parts)


def _with_present(response: StoredResponse, slices: SliceSet, slice_size: int) -> StoredResponse:
    length, present = response.length, None
    row = slices.run()
    start, stop = row.start * slice_size, row.stop * slice_size
    if length is None:
        present = ByteRange(start, stop)
    elif row.start or stop < length:
        present = ByteRange(start, min(stop, length))
    return response if present == response.present else replace(response, present=present)
