"""Puts one scripted reply on the wire, lies included.

Strategy: content goes out in pieces that are cut where the script wants to wait or to hang up; what
has been written is drained before either, so that the peer has seen exactly that much.
"""

import asyncio
import socket
import struct
from collections.abc import Sequence
from http import HTTPStatus

from tests.kit.pattern import Pattern
from tests.kit.recorded import HangUp, RecordedRequest
from tests.kit.reply import FieldLine, Reply, fitted, read

PIECE = 65_536
"""Bytes of content that are written at a time."""


async def perform(reply: Reply, request: RecordedRequest, writer: asyncio.StreamWriter) -> None:
    """Answers `request`. Raises HangUp where the connection is to be closed."""
    await _Answering(request, reply, writer).run()


class _Answering:
    """Performs one reply to one request."""

    def __init__(
        self, request: RecordedRequest, reply: Reply, writer: asyncio.StreamWriter
    ) -> None:
        self.request, self.writer = request, writer
        self.reply, self.part = fitted(reply, request.method, request.fields)
        self.due = 0.0

    async def run(self) -> None:
        reply, write = self.reply, self.writer.write
        for status, fields in reply.interim:
            write(_head(status, fields))
            await self.writer.drain()
        if reply.gate is not None and reply.gate.after is None:
            await reply.gate.pass_through()
        if reply.disconnect or (reply.reset and reply.cut_after is None):
            self._hang_up()
        write(_head(reply.status, [*reply.fields, *self._framing()]))
        if self._has_content():
            await self._send_content()
        await self.writer.drain()
        self.request.finished = True

    def _has_content(self) -> bool:
        # RFC 9110 §6.4.1: answers to HEAD, 1xx, 204 and 304 have no content.
        return self.request.method != "HEAD" and self.reply.status not in (204, 304)

    def _framing(self) -> list[FieldLine]:
        reply = self.reply
        if reply.status in (204, 304):
            return []
        if reply.framing == "chunked":
            return [("Transfer-Encoding", "chunked")]
        if reply.framing == "close":
            return [("Connection", "close")]
        declared = reply.declared_length
        return [("Content-Length", str(len(self.part) if declared is None else declared))]

    async def _send_content(self) -> None:
        sent = 0
        await self._pause_or_cut(sent)
        while sent < len(self.part):
            stop = self._next_stop(sent)
            await self._send_piece(self._read(sent, stop))
            sent = stop
            await self._pause_or_cut(sent)
        if self.reply.framing == "chunked":
            self.writer.write(b"0\r\n\r\n")

    async def _pause_or_cut(self, sent: int) -> None:
        gate = self.reply.gate
        if gate is not None and gate.after == sent:
            await gate.pass_through()
        if self.reply.cut_after == sent:
            self._hang_up()

    def _next_stop(self, sent: int) -> int:
        """Where the piece that begins at `sent` ends: gate and cut fall between two pieces."""
        gate, pace = self.reply.gate, self.reply.trickle
        size = PIECE if pace is None else max(1, int(pace / 100))
        marks = (gate.after if gate else None, self.reply.cut_after)
        ahead = [mark for mark in marks if mark is not None and mark > sent]
        return min(sent + size, len(self.part), *ahead)

    def _read(self, start: int, stop: int) -> bytes:
        content = self.reply.content
        assert isinstance(content, bytes | Pattern)
        first_byte = self.part.start
        return read(content, first_byte + start, first_byte + stop)

    async def _send_piece(self, piece: bytes) -> None:
        if self.reply.trickle is not None:
            now = asyncio.get_running_loop().time()
            self.due = max(self.due, now) + len(piece) / self.reply.trickle
            await asyncio.sleep(self.due - now)
        if self.reply.framing == "chunked":
            piece = b"%x\r\n%b\r\n" % (len(piece), piece)
        self.writer.write(piece)
        await self.writer.drain()

    def _hang_up(self) -> None:
        if self.reply.reset:
            connection: socket.socket = self.writer.get_extra_info("socket")
            # SO_LINGER with no time makes close() send RST in place of FIN.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.writer.transport.abort()
        raise HangUp


def _head(status: int, fields: Sequence[FieldLine]) -> bytes:
    try:
        reason = HTTPStatus(status).phrase
    except ValueError:
        reason = "Unheard Of"
    lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in fields)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
