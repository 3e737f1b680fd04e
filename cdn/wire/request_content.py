"""A request's content: taken off the connection as it comes, read by the handler at its own pace.

Strategy: framing is pure and pushes (`feed` returns what lies behind the content's end, so that a
pipelined request is never mistaken for content or content for a request); reading pulls, and says
to the connection when it wants more. In between lie at most a few reads' worth of bytes.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import AsyncIterator, Callable

from cdn.upstream.errors import RequestContentFailed
from cdn.wire.errors import RequestError
from cdn.wire.request_head import FIELD_LINE

HELD = 64 * 1024
"""Bytes that may wait for the handler before the connection is read no further."""

DISCARDED = 256 * 1024
"""Bytes of content that nobody needed which are read to keep the connection (RFC 9112 §9.3)."""

_MAX_LINE = 1024
_MAX_OVERHEAD = 16 * 1024
# RFC 9112 §7.1; 15 digits are more than any content has.
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})((?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?)")


class ChunkedDecoder:
    """RFC 9112 §7.1, strictly. Extensions and trailers are dropped, and bounded (§7.1.1)."""

    def __init__(self) -> None:
        self.done = False
        self._left = 0
        self._expected = "size"
        self._partial = b""
        self._overhead = 0

    def feed(self, data: bytes) -> tuple[list[bytes], bytes]:
        """Pieces of content, and what follows the last chunk. Raises RequestError."""
        data, pos = self._partial + data, 0
        self._partial = b""
        pieces: list[bytes] = []
        while not self.done and pos < len(data):
            if self._left:
                pieces.append(data[pos : pos + self._left])
                pos += len(pieces[-1])
                self._left -= len(pieces[-1])
                continue
            end = data.find(b"\r\n", pos, pos + _MAX_LINE + 2)
            if end < 0:
                self._partial = data[pos:]
                if b"\n" in self._partial or len(self._partial) > _MAX_LINE:
                    raise _malformed("a line that does not end, soon, in CR LF")
                return pieces, b""
            self._take_line(data[pos:end])
            pos = end + 2
        return pieces, data[pos:]

    def _take_line(self, line: bytes) -> None:
        if self._expected == "size":
            match = _CHUNK_LINE.fullmatch(line)
            if match is None:
                raise _malformed("a chunk size that is not hexadecimal")
            self._left = int(match[1], 16)
            self._spend(len(match[2]))
            self._expected = "end of chunk" if self._left else "trailer"
        elif self._expected == "end of chunk":
            if line:
                raise _malformed("a chunk longer than its size")
            self._expected = "size"
        elif line:  # RFC 9112 §7.1.2: trailers may be discarded
            if not FIELD_LINE.fullmatch(line):
                raise _malformed("a trailer that is not a field line")
            self._spend(len(line))
        else:
            self.done = True

    def _spend(self, overhead: int) -> None:
        self._overhead += overhead
        if self._overhead > _MAX_OVERHEAD:
            raise _malformed("over 16 KiB of extensions and trailers")


def _malformed(what: str) -> RequestError:
    return RequestError(400, "chunked-content", f"{what} in chunked content; see RFC 9112 7.1")


class RequestContent(AsyncIterator[bytes]):
    """`length` in bytes, None for chunked. `client` names who sends it, for errors. `wanted` is
    called when the reader waits for bytes or has made room for more.

    Iteration raises RequestContentFailed where the rest will not come.
    """

    def __init__(self, length: int | None, client: str, wanted: Callable[[], None]) -> None:
        self.complete = False
        self.failed = False
        self._left = length
        self._decoder = ChunkedDecoder() if length is None else None
        self._client = client
        self._wanted = wanted
        self._failure = ""
        self._pieces: deque[bytes] = deque()
        self._held = 0
        self._discarding = False
        self._discarded = 0
        self._reader: asyncio.Future[None] | None = None

    @property
    def full(self) -> bool:
        """The handler is behind: the connection should not be read now."""
        return self._held >= HELD

    @property
    def awaited(self) -> bool:
        """The handler waits for the client."""
        return self._reader is not None

    @property
    def worth_discarding(self) -> bool:
        """The rest is, or may be, short enough to be read only to keep the connection."""
        return not self.failed and (self._left or 0) + self._discarded <= DISCARDED

    def feed(self, data: bytes) -> bytes:
        """Takes what is content; returns what comes after it. Raises RequestError where the
        chunks are malformed; the reader is told so too."""
        if self._decoder is not None:
            try:
                pieces, rest = self._decoder.feed(data)
            except RequestError as fault:
                self.fail(fault.detail)
                raise
            self.complete = self._decoder.done
        else:
            assert self._left is not None
            pieces, rest = [data[: self._left]], data[self._left :]
            self._left -= len(pieces[0])
            self.complete = self._left == 0
        for piece in pieces:
            if self._discarding:
                self._discarded += len(piece)
            elif piece:
                self._pieces.append(piece)
                self._held += len(piece)
        self._wake()
        return rest

    def fail(self, detail: str) -> None:
        """The rest will not come; `detail` says why."""
        self.failed = True
        self._failure = detail
        self._wake()

    def discard(self) -> None:
        """The answer has ended: what is here and what comes is needed by nobody."""
        self._discarding = True
        self._discarded = self._held
        self._held = 0
        self._pieces.clear()
        self._failure = self._failure or "read after the answer's end"
        self._wake()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    async def __anext__(self) -> bytes:
        while not self._pieces:
            if self._failure:
                raise RequestContentFailed(self._client, self._failure)
            if self.complete:
                raise StopAsyncIteration
            self._reader = asyncio.get_running_loop().create_future()
            try:
                self._wanted()
                await self._reader
            finally:
                self._reader = None
        piece = self._pieces.popleft()
        self._held -= len(piece)
        self._wanted()
        return piece
