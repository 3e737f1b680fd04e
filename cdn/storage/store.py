"""The protocol that every store meets, and what it hands out.

Strategy: a store keeps responses under their primary key, every variant by itself. Content goes in
as aligned slices through a writer, in any order; what is there of a response is part of what a
look-up says. What can be had at once is given at once; whatever has to wait for a device is a
coroutine, and says so by its name.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from cdn.semantics.ranges import ByteRange
from cdn.semantics.stored_response import StoredResponse
from cdn.semantics.vary import Variant


class SliceUnavailable(Exception):
    """Slice `number` has to be fetched again; the store does not claim to have it any more."""

    def __init__(self, number: int, why: str) -> None:
        super().__init__(f"slice {number} {why}")
        self.number = number


class SliceGone(SliceUnavailable):
    """It made room for others after it was looked up."""


class SliceDamaged(SliceUnavailable):
    """The device does not give back what was written to it."""


class FileSpan:
    """A piece of content that is sent out of a file: `length` bytes of `fd` from `offset` on, which
    are in RAM. `holder` is what keeps them there, and the file open; `view` shows them where the
    file is mapped, and is right while there is a holder."""

    __slots__ = ("fd", "holder", "length", "offset", "view")
    may_leave = False
    """Whether it can become other than resident."""

    def __init__(
        self, fd: int, offset: int, length: int, holder: object, view: memoryview | None = None
    ) -> None:
        self.fd = fd
        self.offset = offset
        self.length = length
        self.holder = holder
        self.view = view

    def __len__(self) -> int:
        return self.length

    def is_resident(self, skip: int, length: int) -> bool:
        """Whether so many bytes after the first `skip` are still in RAM."""
        return True

    def read_again(self, skip: int) -> memoryview:
        """What follows them, where it is not; waits for the device. Raises SliceUnavailable."""
        return memoryview(self.read())[skip:]

    def read(self) -> bytes:
        """A copy. Raises OSError."""
        return os.pread(self.fd, self.length, self.offset)


Piece = bytes | memoryview | FileSpan
"""Of content."""


class StoredContent(Protocol):
    """The bytes of some parts, in their order."""

    async def read(self) -> bytes | memoryview:
        """The next piece, b"" at the end. Raises SliceUnavailable, before any byte of that slice
        that has not been handed out."""
        ...

    def abort(self) -> None:
        """The reader wants no more. Idempotent."""
        ...


class ContentToSend(Protocol):
    """See `StoredContent`."""

    async def read(self) -> Piece: ...

    def abort(self) -> None: ...


class StoredObject(Protocol):
    """A stored response; its `present` says which of its bytes were there when it was looked
    up."""

    @property
    def response(self) -> StoredResponse: ...

    @property
    def variant(self) -> Variant: ...

    @property
    def response_time(self) -> float: ...

    @property
    def content_language(self) -> str | None: ...

    def ready(self, parts: Sequence[ByteRange]) -> Sequence[bytes | memoryview] | None:
        """The bytes of `parts`, each of which is present, where they can be had at once and
        cheaply, else None. Raises SliceUnavailable."""
        ...

    def ready_to_send(self, parts: Sequence[ByteRange]) -> Sequence[Piece] | None:
        """The same, of which some may be left in their files."""
        ...

    def in_one_piece(self, start: int, stop: int) -> Piece | None:
        """The same of one part that is present, where it lies in one piece that is in RAM for
        certain; else None."""
        ...

    def open(self, parts: Sequence[ByteRange]) -> StoredContent:
        """The same to be read piece by piece. Stays readable after the object has been removed."""
        ...

    def open_to_send(self, parts: Sequence[ByteRange]) -> ContentToSend:
        """The same, of which some may be left in their files."""
        ...


class SliceWriter(Protocol):
    """One response on its way in. What was never shown leaves no trace."""

    def write(self, number: int, content: bytes) -> bool:
        """Takes an aligned slice, all but the representation's last of full size, in any order;
        those of a part (`present` is a ByteRange) are counted from its beginning. False: there is
        no room, or the response has been removed or replaced."""
        ...

    def open(self, parts: Sequence[ByteRange]) -> StoredContent:
        """What has been written so far, shown or not."""
        ...

    async def room(self) -> None:
        """Waits until the store has caught up."""
        ...

    def show(self, response: StoredResponse) -> bool:
        """Puts the response in with what there is of it, in place of what its key and variant
        named before; more slices may follow. False: it has been removed or replaced meanwhile."""
        ...

    def commit(self, response: StoredResponse) -> bool:
        """The last thing that is written: `show`, and the writer has ended. False: not kept."""
        ...

    def abort(self) -> None:
        """The writer has ended; what was shown stays with what there is of it. Idempotent; nothing
        to do after `commit`."""
        ...


class Epochs(Protocol):
    """See `purge_epochs.PurgeEpochs`."""

    @property
    def now(self) -> int: ...

    def purge(self, tags: Iterable[tuple[bytes, str]]) -> None: ...

    def outdated(self, tags: Iterable[tuple[bytes, str]], stamp: int) -> bool: ...


class Store(Protocol):
    """Keeps responses within a budget of bytes. All keys are primary keys. `on_change` is called
    with a key before any call returns that changes, in this process, what is stored under it."""

    on_change: Callable[[bytes], None]

    @property
    def epochs(self) -> Epochs: ...

    def lookup(self, key: bytes) -> Sequence[StoredObject] | None:
        """All variants stored under `key`; None where a device would have to be waited for. Does
        not count as a use: see `touch`."""
        ...

    async def lookup_soon(self, key: bytes) -> Sequence[StoredObject]:
        """The same with waiting."""
        ...

    def touch(self, stored: StoredObject, uses: int = 1) -> None:
        """The response was used: replacement should know. It counts for the head and for content
        of one slice; of more, reading counts slice by slice."""
        ...

    def open_writer(self, response: StoredResponse) -> SliceWriter | None:
        """A writer for what is there already under the same key, variant, length and strong entity
        tag (RFC 9111 §3.4), else for something new. None where it can never fit, or the store takes
        nothing now."""
        ...

    def put(self, response: StoredResponse, content: bytes) -> bool:
        """Stores a whole response, of one slice, at once. False: nothing was done; what stands in
        the way, if anything, `open_writer` tells."""
        ...

    def freshen(self, stored: StoredObject, response: StoredResponse) -> None:
        """Replaces the head of a stored response, the content stays. No-op where it has gone."""
        ...

    def remove(self, key: bytes) -> int:
        """Removes all variants; returns how many there were."""
        ...
