"""Slices that lie in a file in RAM, so that they are sent without a copy.

Strategy: a file in memory (memfd) to whose end slices are written and whose pages are given back
slice by slice, when the last who holds a slice lets go of it. No place in it is ever written twice:
what a socket still has to send of a slice that has gone stays as it was.
"""

from __future__ import annotations

import mmap
import os

from cdn.storage.store import FileSpan

LEAST = 128 << 10
"""Smaller slices stay bytes: what is sent of them is joined with its head, or kept ready."""

LEAST_SENT = 24 << 10
"""Bytes; fewer are read, which costs less than sending them out of a file."""

_PAGE = mmap.ALLOCATIONGRANULARITY


def paged(size: int) -> int:
    """Bytes of RAM that a slice of `size` bytes occupies there: whole pages."""
    return -(-size // _PAGE) * _PAGE


class MemoryFile:
    """One such file. Raises OSError where the system has none."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("slices")
        self._end = 0

    def __del__(self) -> None:
        # With a store that goes as garbage its slices may go after it.
        os.close(self.fd)
        self.fd = -1

    def add(self, content: bytes) -> FiledSlice:
        """Copies a slice there. Raises OSError."""
        offset, size = self._end, len(content)
        self._end += paged(size)
        view = memoryview(content)
        written = 0
        try:
            while written < size:
                written += os.pwrite(self.fd, view[written:], offset + written)
        except OSError:
            self._end = offset
            os.ftruncate(self.fd, offset)
            raise
        return FiledSlice(self, offset, size)

    def release(self, offset: int, length: int) -> None:
        """Gives the pages of one slice back."""
        if self.fd < 0:
            return
        with mmap.mmap(self.fd, length, offset=offset) as mapped:
            mapped.madvise(mmap.MADV_REMOVE)


class FiledSlice:
    """One slice there."""

    __slots__ = ("_file", "_length", "_offset")

    def __init__(self, file: MemoryFile, offset: int, length: int) -> None:
        self._file = file
        self._offset = offset
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __del__(self) -> None:
        self._file.release(self._offset, self._length)

    def span(self, start: int, stop: int) -> FileSpan | bytes:
        """Its bytes [start, stop), to be sent."""
        stop = min(stop, self._length)
        if stop - start < LEAST_SENT:
            return self.read(start, stop)
        return FileSpan(self._file.fd, self._offset + start, stop - start, self)

    def read(self, start: int, stop: int) -> bytes:
        """A copy of them."""
        return FileSpan(
            self._file.fd, self._offset + start, min(stop, self._length) - start, self
        ).read()
