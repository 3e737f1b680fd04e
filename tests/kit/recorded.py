"""Requests as the scripted origin got them, read off the wire by hand."""

import asyncio
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from tests.kit.reply import FieldLine, first


class HangUp(Exception):
    """The script says: close this connection now."""


@dataclass
class RecordedRequest:
    """A request as it came. `content` grows while it arrives; `connection` counts from 1.

    `finished`: the answer was written whole. `over`: set once no more of it will be written.
    """

    method: str
    target: str
    version: str
    fields: list[FieldLine]
    connection: int
    content: bytearray = field(default_factory=bytearray)
    finished: bool = False
    over: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    def field(self, name: str) -> str | None:
        """The value of the first field line called `name`."""
        return first(self.fields, name)


async def read_head(reader: asyncio.StreamReader, connection: int) -> RecordedRequest:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    request_line, *lines = head[:-4].split("\r\n")
    method, target, version = request_line.split(" ")
    pairs = (line.partition(":") for line in lines)
    fields = [(name, value.strip(" \t")) for name, _, value in pairs]
    return RecordedRequest(method, target, version, fields, connection)


async def read_content(
    request: RecordedRequest, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    if (request.field("expect") or "").lower() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    if (request.field("transfer-encoding") or "").lower().endswith("chunked"):
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            await _read_exactly(request, reader, size)
            await reader.readexactly(2)
        while await reader.readuntil(b"\r\n") != b"\r\n":
            pass
    else:
        await _read_exactly(request, reader, int(request.field("content-length") or 0))


async def _read_exactly(request: RecordedRequest, reader: asyncio.StreamReader, n: int) -> None:
    while n:
        piece = await reader.read(min(n, 65_536))
        if not piece:
            raise HangUp
        request.content += piece
        n -= len(piece)
