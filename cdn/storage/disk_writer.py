"""One response on its way to the disk.

Strategy: slices are taken in any order and by any number of writers at once; what one of them wrote
under a head that was shown stays, whatever becomes of the writer. Without a head nothing is kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cdn.semantics.ranges import ByteRange
from cdn.semantics.stored_response import StoredResponse
from cdn.storage.disk_content import DiskContent
from cdn.storage.incoming import Incoming

if TYPE_CHECKING:
    from cdn.storage.disk_intake import Intake


class DiskWriter:
    """See `SliceWriter`. Handed out by `DiskStore.open_writer`; ends with `commit` or `abort`, and
    what it brought can still be opened then."""

    def __init__(self, intake: Intake, incoming: Incoming) -> None:
        self._intake = intake
        self._incoming = incoming
        self._ended = False

    def write(self, number: int, content: bytes) -> bool:
        """See `SliceWriter.write`. False also: the disk is too slow, or takes no more; other slices
        may still be taken."""
        if self._ended or self._incoming.cancelled:
            return False
        return self._intake.slice(self._incoming, number, content)

    def open(self, parts: Sequence[ByteRange]) -> DiskContent:
        """See `SliceWriter.open`."""
        return DiskContent(self._intake.source(self._incoming), parts)

    async def room(self) -> None:
        """Waits until the disk has caught up."""
        future = self._intake.room()
        if future is not None:
            await asyncio.wrap_future(future)

    def show(self, response: StoredResponse) -> bool:
        """See `SliceWriter.show`. False also: its fields are too long."""
        if self._ended or self._incoming.cancelled:
            return False
        return self._intake.head(self._incoming, response, whole=False)

    def commit(self, response: StoredResponse) -> bool:
        """See `SliceWriter.commit`."""
        if self._ended or self._incoming.cancelled:
            done = False
        else:
            # RFC 9111 §3.4: without a strong validator it could never be completed.
            whole = response.validator.strong_etag is None and (
                response.present is None or isinstance(response.present, ByteRange)
            )
            done = self._intake.head(self._incoming, response, whole)
        self.abort()
        return done

    def abort(self) -> None:
        """See `SliceWriter.abort`."""
        if not self._ended:
            self._ended = True
            self._intake.leave(self._incoming)
