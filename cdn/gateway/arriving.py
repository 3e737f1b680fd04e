"""Content as it arrives: pieces by their place, until nobody needs them any more.

Strategy: plain bookkeeping, no waiting. Pieces are handed out by reference; those that make up a
slice are joined once, and from then on readers and store share that one copy.
"""

from __future__ import annotations

from bisect import bisect_right


class Arriving:
    """Bytes [base, end) of a content; what came before `base` is forgotten, of what came before
    `sliced` slices have been made."""

    __slots__ = ("_pieces", "_starts", "base", "end", "sliced")

    def __init__(self, start: int = 0) -> None:
        self.base = start
        self.end = start
        self.sliced = start
        self._pieces: list[bytes] = []
        self._starts: list[int] = []

    @property
    def unsliced(self) -> int:
        """Bytes that have come since the last slice."""
        return self.end - self.sliced

    def append(self, piece: bytes) -> None:
        """What comes next; not empty."""
        self._starts.append(self.end)
        self._pieces.append(piece)
        self.end += len(piece)

    def next_slice(self, size: int) -> bytes:
        """The `size` bytes after the last slice, all of them here, as one piece."""
        first, begin = self._index(self.sliced), self.sliced
        joined = b"".join(self._pieces[first:])
        aligned, rest = joined[:size], joined[size:]
        self._pieces[first:], self._starts[first:] = [aligned], [begin]
        self.sliced = begin + size
        if rest:
            self._pieces.append(rest)
            self._starts.append(self.sliced)
        return aligned

    def at(self, position: int) -> bytes | memoryview:
        """What one piece holds from `position` on; `base` <= position < `end`."""
        index = self._index(position)
        piece, skip = self._pieces[index], position - self._starts[index]
        return memoryview(piece)[skip:] if skip else piece

    def forget(self, before: int) -> None:
        """Lets go of every piece that ends at or before this position; the last one stays."""
        drop = self._index(before)
        if drop > 0:
            self.base = self._starts[drop]
            del self._pieces[:drop], self._starts[:drop]

    def _index(self, position: int) -> int:
        return bisect_right(self._starts, position) - 1
