"""Slices that lie in a file in RAM, so that they are sent without a copy.

Strategy: a file in memory (memfd) to whose end slices are written and whose pages are given back
slice by slice, when the last who holds a slice lets go of it. No place in it is ever written twice:
what a socket still has to send of a slice that has gone stays as it was. It is mapped in stretches,
for what is copied out of it; slices that lie one behind the other are sent as one.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence

from cdn.storage.store import FileSpan

LEAST = 128 << 10
"""Smaller slices stay bytes: what is sent of them is joined with its head, or kept ready."""

LEAST_SENT = 24 << 10
"""Bytes; fewer are read, which costs less than sending them out of a file."""

WINDOW = 1 << 30
"""Bytes of the file that are mapped at once: addresses, not memory."""

_PAGE = mmap.ALLOCATIONGRANULARITY


def paged(size: int) -> int:
    """Bytes of RAM that a slice of `size` bytes occupies there: whole pages."""
    return -(-size // _PAGE) * _PAGE


class MemoryFile:
    """One such file. Raises OSError where the system has none."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("slices")
        self._end = 0
        self._window: Window | None = None

    def __del__(self) -> None:
        # With a store that goes as garbage its slices may go after it.
        os.close(self.fd)
        self.fd = -1

    def add(self, content: bytes) -> FiledSlice:
        """Copies a slice there. Raises OSError."""
        offset, size = self._end, len(content)
        window = self._window
        if window is None or offset + paged(size) > window.stop:
            window = self._window = Window(self.fd, offset, max(WINDOW, paged(size)))
        view = memoryview(content)
        written = 0
        try:
            while written < size:
                written += os.pwrite(self.fd, view[written:], offset + written)
        except OSError:
            window.release(offset, size)
            raise
        self._end = offset + paged(size)
        return FiledSlice(self, window, offset, size)


class Window:
    """A stretch of a file that is mapped: `length` bytes from `start` on. Raises OSError."""

    def __init__(self, fd: int, start: int, length: int) -> None:
        self.start = start
        self.stop = start + length
        os.ftruncate(fd, self.stop)
        self._mapped = mmap.mmap(fd, length, offset=start)
        self.view = memoryview(self._mapped).toreadonly()

    def release(self, offset: int, length: int) -> None:
        """Gives the pages of a slice back."""
        self._mapped.madvise(mmap.MADV_REMOVE, offset - self.start, length)


class Stretch:
    """`length` bytes there from `offset` on, which are kept as long as this is."""

    __slots__ = ("_at", "file", "length", "offset", "window")

    def __init__(self, file: MemoryFile, window: Window, offset: int, length: int) -> None:
        self.file = file
        self.window = window
        self.offset = offset
        self.length = length
        self._at = offset - window.start

    def __len__(self) -> int:
        return self.length

    def span(self, start: int, stop: int) -> FileSpan | bytes:
        """Its bytes [start, stop), to be sent."""
        at, size = self._at + start, min(stop, self.length) - start
        view = self.window.view[at : at + size]
        if size < LEAST_SENT:
            return bytes(view)
        return FileSpan(self.file.fd, self.offset + start, size, self, view)

    def read(self, start: int, stop: int) -> bytes:
        """A copy of them."""
        at = self._at
        return bytes(self.window.view[at + start : at + min(stop, self.length)])


class FiledSlice(Stretch):
    """One slice there."""

    __slots__ = ()

    def __del__(self) -> None:
        self.window.release(self.offset, self.length)


class Run(Stretch):
    """Slices that lie one behind the other."""

    __slots__ = ("_slices",)

    def __init__(self, slices: Sequence[FiledSlice]) -> None:
        first, last = slices[0], slices[-1]
        length = last.offset + last.length - first.offset
        super().__init__(first.file, first.window, first.offset, length)
        self._slices = tuple(slices)

    @classmethod
    def of(cls, slices: Sequence[object]) -> Run | None:
        """What all of them make; None where they do not lie so."""
        run: list[FiledSlice] = []
        for held in slices:
            if not isinstance(held, FiledSlice):
                return None
            if run and (
                held.offset != run[-1].offset + run[-1].length or held.window is not run[0].window
            ):
                return None
            run.append(held)
        return cls(run) if run else None
