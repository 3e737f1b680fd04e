"""One response on its way to the disk.

Strategy: slices are taken in any order and by any number of writers at once; what one of them wrote
under a committed head stays, whatever becomes of the writer. Without a head nothing is kept.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from cdn.semantics.stored_response import StoredResponse
from cdn.storage.heads import encode_head
from cdn.storage.incoming import Incoming
from cdn.storage.records import LARGEST_HEAD, LARGEST_NUMBER

if TYPE_CHECKING:
    from cdn.storage.disk import DiskStore


class DiskWriter:
    """Handed out by `DiskStore.open_writer`; ends with `commit` or `abort`."""

    def __init__(self, store: DiskStore, incoming: Incoming) -> None:
        self._store = store
        self._incoming: Incoming | None = incoming

    def write_slice(self, number: int, content: bytes) -> bool:
        """Takes an aligned slice (all but the last of full size). It is there for look-ups at once
        where there is a head. False: refused, because the disk is too slow or takes no more, or
        because the response has been purged or replaced; other slices may still be taken."""
        incoming = self._incoming
        if incoming is None or incoming.cancelled or number > LARGEST_NUMBER:
            return False
        assert 0 < len(content) <= self._store.slice_size
        return self._store.accept_slice(incoming, number, content)

    async def room(self) -> None:
        """Waits until the disk has caught up."""
        future = self._store.room()
        if future is not None:
            await asyncio.wrap_future(future)

    def commit_head(self, response: StoredResponse) -> bool:
        """Puts the response in, in place of the one with its key and variant, with those slices
        that are there; more may follow. False: it has been purged or replaced meanwhile, or its
        fields are too long."""
        incoming = self._incoming
        if incoming is None or incoming.cancelled:
            return False
        content = encode_head(response)
        if len(content) + len(incoming.key) > LARGEST_HEAD:
            return False
        return self._store.accept_head(incoming, response, content)

    def commit(self, response: StoredResponse) -> bool:
        """The last thing that is written: `commit_head`, and the writer has ended."""
        done = self.commit_head(response)
        self.abort()
        return done

    def abort(self) -> None:
        """The writer has ended. What there is a head for stays. Idempotent."""
        incoming, self._incoming = self._incoming, None
        if incoming is not None:
            self._store.leave(incoming)
