"""Byte ranges (RFC 9110 §14) and the aligned slices that content is kept in.

Strategy: arithmetic on half-open byte positions [start, stop). A Range value that is malformed, of
another unit, or abusive is ignored, as a server may (§14.2): the answer is then the whole.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

SLICE_SIZE = 1 << 20
"""Bytes of one slice unless a store says otherwise."""

MAX_RANGES = 16
"""More ranges than this in one request are an attack, or as good as one (RFC 9110 §14.2)."""

_RANGES = re.compile(r"bytes[ \t]*=(.*)", re.IGNORECASE | re.DOTALL)
_SPEC = re.compile(r"([0-9]*)-([0-9]*)")
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19}|\*)", re.IGNORECASE)


class ByteRange(NamedTuple):
    """Bytes from `start` up to but not including `stop`."""

    start: int
    stop: int

    @property
    def length(self) -> int:
        return self.stop - self.start

    def covers(self, part: ByteRange) -> bool:
        """Whether every byte of `part` is in it."""
        return self.start <= part.start and part.stop <= self.stop


Spec = tuple[int | None, int | None]
"""first-pos and last-pos as sent; (None, n) is a suffix of n bytes."""


def parse_range_specs(value: str) -> list[Spec] | None:
    """The ranges of a Range field before any size is known, None where it is to be ignored."""
    match = _RANGES.fullmatch(value.strip(" \t"))
    if match is None:
        return None
    specs: list[Spec] = []
    for member in match[1].split(","):
        text = member.strip(" \t")
        if not text:
            continue
        spec = _SPEC.fullmatch(text)
        if spec is None or text == "-" or len(text) > 80:
            return None
        first = int(spec[1]) if spec[1] else None
        last = int(spec[2]) if spec[2] else None
        if first is not None and last is not None and last < first:
            return None  # RFC 9110 §14.1.1: an invalid int-range makes the whole invalid
        specs.append((first, last))
    return specs or None


def parse_range(value: str, size: int) -> list[ByteRange] | None:
    """The satisfiable ranges of a representation of `size` bytes, in the order asked.

    None: ignore the field and send the whole. An empty list: none can be satisfied (416).
    Overlapping or touching ranges are joined when there is more than one (RFC 9110 §15.3.7.2).
    """
    specs = parse_range_specs(value)
    if specs is None or len(specs) > MAX_RANGES:
        return None
    if size == 0 and any(first is None and last for first, last in specs):
        return None  # RFC 9110 §14.1.2: satisfiable, by no bytes, which Content-Range cannot say
    ranges = [found for spec in specs if (found := _satisfiable(spec, size)) is not None]
    return _coalesce(ranges)


def _satisfiable(spec: Spec, size: int) -> ByteRange | None:
    first, last = spec
    if first is None:
        suffix = min(last or 0, size)
        return ByteRange(size - suffix, size) if suffix else None
    if first >= size:
        return None
    return ByteRange(first, size if last is None else min(last + 1, size))


def _coalesce(ranges: list[ByteRange]) -> list[ByteRange]:
    joined: list[ByteRange] = []
    for part in ranges:
        start, stop = part
        kept = []
        for other in joined:
            if start <= other.stop and other.start <= stop:
                start, stop = min(start, other.start), max(stop, other.stop)
            else:
                kept.append(other)
        joined = [*kept, ByteRange(start, stop)]
    return joined


def parse_content_range(value: str | None) -> tuple[ByteRange, int | None] | None:
    """The part that a 206 carries, and the complete length if told (RFC 9110 §14.4)."""
    match = _CONTENT_RANGE.fullmatch(value or "")
    if match is None:
        return None
    start, stop = int(match[1]), int(match[2]) + 1
    size = None if match[3] == "*" else int(match[3])
    if stop <= start or (size is not None and stop > size):
        return None
    return ByteRange(start, stop), size


def slices_for(part: ByteRange, slice_size: int = SLICE_SIZE) -> range:
    """Numbers of the slices that `part` touches."""
    return range(part.start // slice_size, -(-part.stop // slice_size))


def cut(slices: Sequence[bytes], part: ByteRange, size: int = SLICE_SIZE) -> list[memoryview]:
    """The pieces of `part` out of content kept as slices of `size` bytes; nothing is copied."""
    pieces = []
    for number in slices_for(part, size):
        base = number * size
        piece = memoryview(slices[number])
        pieces.append(piece[max(0, part.start - base) : part.stop - base])
    return pieces
