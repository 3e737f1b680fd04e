"""The protocol that every store meets, and what it hands out.

Strategy: a store keeps complete responses under their primary key, every variant by itself. Content
goes in as aligned slices through a writer that fails unless it is committed, and comes out as
pieces that share the store's own memory. Nothing here waits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from cdn.semantics.ranges import ByteRange
from cdn.semantics.stored_response import StoredResponse
from cdn.semantics.vary import Variant


class StoredObject(Protocol):
    """A stored response with its content at hand."""

    @property
    def response(self) -> StoredResponse: ...

    @property
    def variant(self) -> Variant: ...

    @property
    def response_time(self) -> float: ...

    @property
    def content_language(self) -> str | None: ...

    def read(self, part: ByteRange) -> Sequence[memoryview]:
        """The content's bytes of `part`, which lies within its length; nothing is copied. Stays
        readable after the object has been removed from its store."""
        ...


class SliceWriter(Protocol):
    """One response on its way in. Without `commit` it leaves no trace."""

    def write(self, piece: bytes) -> bool:
        """The next aligned slice (the last one may be short). False: there is no room for this
        response, the writer has been aborted."""
        ...

    def commit(self, response: StoredResponse) -> None:
        """All content is in: the response replaces what its key and variant named before."""
        ...

    def abort(self) -> None:
        """Gives the room back. Idempotent; nothing to do after `commit`."""
        ...


class Store(Protocol):
    """Keeps responses within a budget of bytes. All keys are primary keys."""

    def lookup(self, key: bytes) -> Sequence[StoredObject]:
        """All variants stored under `key`. Does not count as a use: see `touch`."""
        ...

    def touch(self, stored: StoredObject, uses: int = 1) -> None:
        """The response was used: replacement should know."""
        ...

    def open_writer(self, response: StoredResponse) -> SliceWriter | None:
        """None where the response can never fit (its length is known and too large)."""
        ...

    def freshen(self, stored: StoredObject, response: StoredResponse) -> None:
        """Replaces the head of a stored response, the content stays. No-op where it has gone."""
        ...

    def remove(self, key: bytes) -> int:
        """Removes all variants; returns how many there were."""
        ...
