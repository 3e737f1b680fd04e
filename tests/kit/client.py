"""A viewer that frames by hand, reads as slowly as it likes, and knows broken from whole.

Strategy: asyncio streams. A head is read first; its content then comes piece by piece, and
`complete` says whether the framing was satisfied (RFC 9112 §6.3 and §8) or the connection broke.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from tests.kit.reply import FieldLine
from tests.kit.waiting import LIMIT

Interim = tuple[int, list[FieldLine]]


class NoResponse(ConnectionError):
    """The connection ended before a whole response head."""


def combined(fields: Sequence[FieldLine], name: str) -> str | None:
    """All lines called `name`, joined by a comma (RFC 9110 §5.3), or None."""
    values = [value for line, value in fields if line.lower() == name.lower()]
    return ", ".join(values) if values else None


@dataclass
class Received:
    """A response read to its end. `complete` is False where the connection broke first."""

    status: int
    reason: str
    fields: list[FieldLine]
    interim: list[Interim]
    content: bytes = b""
    complete: bool = False

    def field(self, name: str) -> str | None:
        return combined(self.fields, name)


@dataclass
class Incoming:
    """A response whose head has come: `async for piece in incoming`, then `complete`.

    `trailers` are the field lines after the last chunk. A reader that stops reading stops the
    sender, once the buffers between them are full.
    """

    status: int
    reason: str
    fields: list[FieldLine]
    interim: list[Interim]
    reader: asyncio.StreamReader = field(repr=False)
    has_content: bool
    complete: bool = False
    trailers: list[FieldLine] = field(default_factory=list)

    def field(self, name: str) -> str | None:
        return combined(self.fields, name)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self._pieces():
                yield piece
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            return
        self.complete = True

    async def _pieces(self) -> AsyncIterator[bytes]:
        length = self.field("content-length")
        if not self.has_content:
            return
        if (self.field("transfer-encoding") or "").lower() == "chunked":
            while size := int((await _line(self.reader)).split(";")[0], 16):
                async for piece in self._exactly(size):
                    yield piece
                assert await _line(self.reader) == "", "a chunk is longer than its size says"
            while line := await _line(self.reader):
                self.trailers.append(_field_line(line))
        elif length is not None:
            async for piece in self._exactly(int(length)):
                yield piece
        else:
            while piece := await _within_limit(self.reader.read(65_536)):
                yield piece

    async def _exactly(self, n: int) -> AsyncIterator[bytes]:
        while n:
            piece = await _within_limit(self.reader.read(min(n, 65_536)))
            if not piece:
                raise asyncio.IncompleteReadError(b"", n)
            n -= len(piece)
            yield piece

    async def read(self) -> Received:
        """The rest of the content, all of it in memory."""
        content = b"".join([piece async for piece in self])
        return Received(self.status, self.reason, self.fields, self.interim, content, self.complete)


class RawClient:
    """One connection: `async with await RawClient.connect(url) as c`."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, authority: str
    ) -> None:
        self.reader, self.writer, self.authority = reader, writer, authority

    @classmethod
    async def connect(cls, url: str, *, tls: ssl.SSLContext | None = None) -> "RawClient":
        """Connects to the URL's host and port; https needs a context in `tls`."""
        parts = urlsplit(url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port, ssl=tls)
        return cls(reader, writer, parts.netloc)

    async def __aenter__(self) -> "RawClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Goes away at once, whatever is still on its way."""
        self.writer.transport.abort()

    async def send(self, data: bytes) -> None:
        """Bytes as they are: for requests that no decent client would send."""
        self.writer.write(data)
        await self.writer.drain()

    async def send_request(
        self,
        target: str,
        fields: Sequence[FieldLine] = (),
        *,
        method: str = "GET",
        content: bytes | None = None,
    ) -> None:
        """A proper request; Host and Content-Length are added unless `fields` has them."""
        lines = list(fields)
        if combined(fields, "host") is None:
            lines.insert(0, ("Host", self.authority))
        if content is not None and combined(fields, "transfer-encoding") is None:
            lines.append(("Content-Length", str(len(content))))
        head = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in lines)]
        await self.send(("\r\n".join(head) + "\r\n\r\n").encode("latin-1") + (content or b""))

    async def read_head(self, *, head: bool = False) -> Incoming:
        """The next final response; `head` where it answers a HEAD. Raises NoResponse."""
        interim: list[Interim] = []
        try:
            while True:
                version, status, reason = f"{await _line(self.reader)}  ".split(" ", 2)
                assert version in ("HTTP/1.1", "HTTP/1.0"), f"not a status line: {version!r}"
                fields: list[FieldLine] = []
                while line := await _line(self.reader):
                    fields.append(_field_line(line))
                if not status.startswith("1") or status == "101":
                    break
                interim.append((int(status), fields))
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError) as broken:
            raise NoResponse(f"connection ended before a response head: {broken}") from broken
        has_content = not head and status not in ("204", "304")
        return Incoming(
            int(status), reason.strip(), fields, interim, self.reader, has_content=has_content
        )

    async def read_response(self, *, head: bool = False) -> Received:
        """The next final response with its content. Raises NoResponse."""
        return await (await self.read_head(head=head)).read()

    async def get(
        self,
        target: str,
        fields: Sequence[FieldLine] = (),
        *,
        method: str = "GET",
        content: bytes | None = None,
    ) -> Received:
        """One exchange on this connection, which stays open."""
        await self.send_request(target, fields, method=method, content=content)
        return await self.read_response(head=method == "HEAD")

    async def read_to_close(self) -> bytes:
        """Whatever else comes until the peer closes; fails if it does not close."""
        rest = b""
        try:
            while piece := await _within_limit(self.reader.read(65_536)):
                rest += piece
        except ConnectionError:
            pass
        return rest


async def get(
    url: str,
    fields: Sequence[FieldLine] = (),
    *,
    method: str = "GET",
    content: bytes | None = None,
    tls: ssl.SSLContext | None = None,
) -> Received:
    """One exchange on a connection of its own."""
    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    async with await RawClient.connect(url, tls=tls) as client:
        return await client.get(target, fields, method=method, content=content)


async def _within_limit(reading: Awaitable[bytes]) -> bytes:
    try:
        async with asyncio.timeout(LIMIT):
            return await reading
    except TimeoutError:
        raise AssertionError(f"nothing came within {LIMIT:g} s") from None


async def _line(reader: asyncio.StreamReader) -> str:
    line = await _within_limit(reader.readuntil(b"\r\n"))
    return line[:-2].decode("latin-1")


def _field_line(line: str) -> FieldLine:
    name, colon, value = line.partition(":")
    assert colon == ":", f"not a field line: {line!r}"
    assert name == name.strip(), f"not a field line: {line!r}"
    return name, value.strip(" \t")
