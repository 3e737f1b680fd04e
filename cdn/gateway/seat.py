"""A seat: one client's place at a fill, and the content that it reads there.

Strategy: whoever wants a fill holds a seat from the moment of joining, so that the fill knows for
whom it goes on; the seat becomes a reader when the head has come. What the fill has let go of is
read from the store; who is too slow for the window of what is not stored goes on by a request of
its own, unseen by the client.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cdn.gateway.exchange import Content, ContentCutShort
from cdn.storage.store import Piece, SliceUnavailable, StoredContent

if TYPE_CHECKING:
    from cdn.gateway.fill import Fill, HeadOutcome

REACH = 2
"""Slices ahead of a stream: who wants what lies further on has it fetched by itself."""


class Seat:
    """A `Content`: bytes [position, stop) of a fill's. `held` is how many seconds the others have
    waited for this one; `dropped`: they wait no longer."""

    __slots__ = ("_alone", "_fill", "_kept", "dropped", "held", "position", "stop")

    def __init__(self, fill: Fill) -> None:
        self._fill: Fill | None = fill
        self._alone: Content | None = None
        self._kept: StoredContent | None = None
        self.position = 0
        self.stop: int | None = None
        self.held = 0.0
        self.dropped = False

    async def head(self) -> HeadOutcome:
        """Waits for the head."""
        assert self._fill is not None
        return await self._fill.head()

    @property
    def length(self) -> int | None:
        """Bytes of the fill's content in all, where known."""
        return None if self._fill is None else self._fill.stop

    @property
    def source(self) -> str:
        """Who upstream answers."""
        return "" if self._fill is None else self._fill.source

    @property
    def for_the_store(self) -> bool:
        """Whether reading on still brings something into the store."""
        return self._fill is not None and self._fill.storing

    @property
    def sliced(self) -> bool:
        """Whether what is missing of it can be asked for slice by slice."""
        arrived = None if self._fill is None else self._fill.arrived
        return arrived is not None and arrived.sliced

    def reaches(self, position: int, slice_size: int) -> bool:
        """Whether `position` is at hand, or soon will be."""
        if self._fill is None:
            return False
        content = self._fill.content
        return content.base <= position <= content.end + REACH * slice_size

    def read_only(self, start: int, stop: int) -> None:
        """Narrows the seat to a part of the content, before the first `read`."""
        self.position, self.stop = start, stop
        if self._fill is not None:
            self._fill.moved()

    def ready(self) -> tuple[bytes | memoryview] | None:
        """All that is left to be read, where it has come and is one piece; the seat is left then.
        Most of what is small comes with its head: it needs no reader that is woken for it."""
        fill, stop = self._fill, self.stop
        if fill is None or stop is None or not fill.complete:
            return None
        if not fill.content.base <= self.position < stop <= fill.content.end:
            return None
        piece = fill.content.at(self.position)
        if len(piece) < stop - self.position:
            return None
        piece = self._taken(fill, piece)
        self.leave()
        return (piece,)

    async def read(self) -> Piece:
        """See `Content.read`. Raises ContentCutShort."""
        if self._alone is not None:
            return await self._alone.read()
        while (fill := self._fill) is not None:
            if self.stop is not None and self.position >= self.stop:
                break
            if self.dropped:
                return await self._go_on_alone(fill)
            if self.position < fill.content.base:
                if piece := await self._read_kept(fill):
                    return piece
                continue
            if self.position < fill.content.end:
                return self._take(fill)
            if fill.complete:
                break
            if fill.error is not None:
                self.leave()
                raise ContentCutShort(fill.error)
            await fill.news()
        self.leave()
        return b""

    async def _go_on_alone(self, fill: Fill) -> Piece:
        self._alone = await fill.alone(self.position, self.stop)
        self.leave()
        return await self._alone.read()

    async def _read_kept(self, fill: Fill) -> bytes | memoryview:
        """What the fill has let go of; b"" to look again."""
        piece: bytes | memoryview = b""
        try:
            if self._kept is None:
                self._kept = fill.kept(self.position)
            if self._kept is not None:
                piece = await self._kept.read()
        except SliceUnavailable:
            self._kept = None
        if piece:
            return self._taken(fill, piece)
        self.dropped = self._kept is None
        self._kept = None  # at the end of what there was; there may be more
        return b""

    def _take(self, fill: Fill) -> bytes | memoryview:
        return self._taken(fill, fill.content.at(self.position))

    def _taken(self, fill: Fill, piece: bytes | memoryview) -> bytes | memoryview:
        if self.stop is not None and len(piece) > self.stop - self.position:
            piece = memoryview(piece)[: self.stop - self.position]
        self.position += len(piece)
        fill.moved()
        return piece

    def leave(self) -> None:
        """Leaves the fill. Idempotent."""
        fill, self._fill = self._fill, None
        if fill is not None:
            fill.leave(self)
        kept, self._kept = self._kept, None
        if kept is not None:
            kept.abort()

    def abort(self) -> None:
        """See `Content.abort`."""
        self.leave()
        if self._alone is not None:
            self._alone.abort()


async def read_for_the_store(seat: Seat, whole: bool = True) -> None:
    """Holds a fill open to its end for nobody but the store. Unless the `whole` is wanted, only
    where the rest could not be asked for later."""
    try:
        await seat.head()
        if not whole and seat.sliced:
            return
        while seat.for_the_store and await seat.read():
            pass
    except ContentCutShort:
        pass  # what was stored stays, and the next request tries again
    finally:
        seat.leave()
