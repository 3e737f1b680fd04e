"""A response whose content is arriving, as its reader sees it.

Strategy: the response owns what has arrived, so its connection is free for the next exchange as
soon as the last byte is here, read or not. Until then each side is held to the other's pace: the
peer is read no further while much lies unread, and is watched only while a reader waits for it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from cdn.semantics.message import Response
from cdn.upstream.errors import BodyCutShort, UpstreamError
from cdn.upstream.layouts import PlainHead

if TYPE_CHECKING:
    from cdn.upstream.connection import Connection

PAUSE_AT = 65_536
"""Bytes unread at which the peer is read no further. One read of the loop's (256 KiB) may come on
top, which keeps a response's buffer near 256 KiB."""

_COALESCE = 65_536


class WholeResponse:
    """An `UpstreamResponse` whose content has come with its head. `relayed` are the head's lines
    as they are written on (`PlainHead`)."""

    __slots__ = ("content", "head", "length", "relayed", "source")

    def __init__(self, plain: PlainHead, content: bytes, source: str) -> None:
        self.head, self.relayed, self.length = plain
        self.content = content
        self.source = source

    async def read(self) -> bytes:
        content, self.content = self.content, b""
        return content

    def abort(self) -> None:
        self.content = b""


class StreamedResponse:
    """An `UpstreamResponse` whose content arrives over a `Connection`."""

    __slots__ = (
        "_connection",
        "_error",
        "_idle",
        "_pieces",
        "_waiter",
        "buffered",
        "head",
        "length",
        "source",
    )

    def __init__(
        self, head: Response, length: int | None, connection: Connection, idle: float
    ) -> None:
        self.head = head
        self.length = length
        self.source = connection.name
        self.buffered = 0
        self._connection: Connection | None = connection
        self._idle = idle
        self._pieces: deque[bytes] = deque()
        self._error: UpstreamError | None = None
        self._waiter: asyncio.Future[None] | None = None

    async def read(self) -> bytes:
        pieces = self._pieces
        while not pieces:
            if self._error is not None:
                raise self._error
            if self._connection is None:
                return b""
            await self._more(self._connection)
        piece = pieces.popleft()
        if pieces and len(piece) + len(pieces[0]) <= _COALESCE:
            run = [piece]
            size = len(piece)
            while pieces and size + len(pieces[0]) <= _COALESCE:
                size += len(pieces[0])
                run.append(pieces.popleft())
            piece = b"".join(run)
        self.buffered -= len(piece)
        if self._connection is not None and self.buffered < PAUSE_AT:
            self._connection.resume_reading()
        return piece

    async def _more(self, connection: Connection) -> None:
        # The peer is idle only while somebody waits for it: a slow reader here is not its fault.
        self._waiter = connection.loop.create_future()
        connection.watch(self._idle)
        try:
            await self._waiter
        finally:
            self._waiter = None
            if self._connection is not None:
                connection.unwatch()

    def abort(self) -> None:
        connection = self._connection
        if connection is not None:
            self.finish(BodyCutShort(self.source, "given up on this side"))
            connection.close()
        self._pieces.clear()

    def feed(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self.buffered += len(piece)
        self._wake()

    def finish(self, error: UpstreamError | None) -> None:
        """The content has ended; with `error`, before its framing said so."""
        self._connection = None
        self._error = error
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
