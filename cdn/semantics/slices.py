"""Which aligned slices of a representation are kept (RFC 9111 §3.3).

Strategy: one integer with a bit for each slice: a set that is compared, joined and searched by
arithmetic, and that costs next to nothing for what is wholly there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from cdn.semantics.ranges import SLICE_SIZE, ByteRange, slices_for


class PresentSlices(NamedTuple):
    """`bits` has bit n set where bytes [n * slice_size, (n + 1) * slice_size) are kept, the last
    slice ending where the representation does."""

    bits: int = 0
    slice_size: int = SLICE_SIZE

    def has(self, number: int) -> bool:
        return bool(self.bits >> number & 1)

    def numbers(self) -> Iterator[int]:
        """Those that are kept, upwards."""
        bits = self.bits
        while bits:
            lowest = bits & -bits
            yield lowest.bit_length() - 1
            bits ^= lowest

    def __len__(self) -> int:
        return self.bits.bit_count()

    def __bool__(self) -> bool:
        return bool(self.bits)

    def covers(self, part: ByteRange) -> bool:
        """Whether every byte of `part` is kept."""
        return part.stop <= part.start or self.first_missing(part) is None

    def first_missing(self, part: ByteRange) -> int | None:
        """The first slice of `part` that is not kept, None where all are."""
        wanted = slices_for(part, self.slice_size)
        absent = ~(self.bits >> wanted.start) & ((1 << len(wanted)) - 1)
        return wanted.start + (absent & -absent).bit_length() - 1 if absent else None

    def next_kept(self, number: int) -> int | None:
        """The first slice that is kept from `number` on."""
        kept = self.bits >> number
        return number + (kept & -kept).bit_length() - 1 if kept else None

    def run(self) -> range:
        """The first slices in a row that are kept."""
        if not self.bits:
            return range(0)
        start = (self.bits & -self.bits).bit_length() - 1
        row = self.bits >> start
        return range(start, start + (~row & row + 1).bit_length() - 1)


def slice_count(length: int, slice_size: int) -> int:
    """How many slices a representation of `length` bytes has."""
    return -(-length // slice_size)
