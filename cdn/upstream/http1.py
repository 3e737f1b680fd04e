"""HTTP/1.1 as an upstream speaks it: heads and framing, without any I/O (RFC 9112).

Strategy: a head is cut at its empty line and matched as a whole by two patterns, so whatever is
not a line of the grammar (obs-fold, a bare CR or LF, control bytes) is refused, never repaired.
How the content ends is decided here and not by the parser, because llhttp refuses a repeated
Content-Length, does not know to which method an answer belongs, and unwraps `gzip, chunked`
without undoing the gzip. Only chunked content goes to llhttp, behind a head of our own making.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from enum import Enum
from typing import NamedTuple

import httptools

from cdn.semantics.hop_by_hop import HOP_BY_HOP, connection_options
from cdn.semantics.message import Fields, Request
from cdn.upstream.exchange import UpstreamRequest

MAX_HEAD = 65_536
MAX_FIELDS = 256
END_OF_HEAD = b"\r\n\r\n"

_STATUS_LINE = re.compile(r"HTTP/1\.([0-9]) ([1-9][0-9]{2})(?: ([\t -~\x80-\xff]*))?\r\n")
# Possessive, so that no line costs more than one pass. White space before the colon is taken out
# as RFC 9112 §5.1 asks of a proxy for responses.
_FIELD_LINE = re.compile(
    r"^([!#$%&'*+\-.^_`|~0-9A-Za-z]++)[ \t]*+:[ \t]*+([\t -~\x80-\xff]*+)\r\n", re.MULTILINE
)
# RFC 9112 §7.2 and §12.3; with any of them content is not what it seems.
_CODINGS = frozenset(
    {"", "chunked", "compress", "x-compress", "deflate", "gzip", "x-gzip", "identity"}
)
_MAX_LENGTH_DIGITS = 18


class Malformed(Exception):
    """The peer broke the protocol; the message says how. `connection.py` adds which peer."""


class ResponseHead(NamedTuple):
    minor: int
    status: int
    reason: str
    fields: Fields


class Framing(Enum):
    NONE = "no content"
    LENGTH = "Content-Length"
    CHUNKED = "chunked"
    UNTIL_CLOSE = "until the connection is closed"


def encode_head(request: UpstreamRequest) -> bytes:
    """The head as it goes on the wire, with our framing.

    Raises ValueError where a caller let through what would break the head: that is a bug here,
    never the client's or the upstream's fault.
    """
    head = request.head
    start = f"{head.method} {head.target} HTTP/1.1\r\n"
    fields = encode_fields(head)
    framing = ""
    if request.content is not None and request.content_length is None:
        framing = "Transfer-Encoding: chunked\r\n"
    elif request.content_length is not None or head.method in ("POST", "PUT", "PATCH"):
        # RFC 9110 §8.6: a method that expects content says 0 where there is none.
        framing = f"Content-Length: {request.content_length or 0}\r\n"
    if request.content is None and request.content_length:
        raise ValueError(
            f"{head.url}: content of {request.content_length} bytes promised, none given"
        )
    if start.count(" ") != 2 or not _breaks(start, 1):
        raise _unsendable(head)
    return f"{start}{fields}{framing}\r\n".encode("latin-1")


def encode_fields(head: Request) -> str:
    """Its end-to-end lines as they go on the wire. Raises ValueError as `encode_head` does."""
    text = head.fields.encoded
    if text is None:
        text = head.fields.encoded = _encode_fields(head)
    return text


def _encode_fields(head: Request) -> str:
    lines = [
        f"{name}: {value}\r\n" for name, value in head.fields if name.lower() not in HOP_BY_HOP
    ]
    text = "".join(lines)
    if not _breaks(text, len(lines)):
        raise _unsendable(head)
    return text


def _breaks(text: str, lines: int) -> bool:
    """Whether so many lines end in `text`, and nothing else in it ends one."""
    return text.count("\r") == lines == text.count("\n") and "\0" not in text


def _unsendable(head: Request) -> ValueError:
    return ValueError(f"{head.url!r}: a space, CR, LF or NUL where the head cannot carry it")


async def frame_content(content: AsyncIterator[bytes], length: int | None) -> AsyncIterator[bytes]:
    """A request's content as it goes on the wire: chunked, or `length` bytes as they are.

    Raises ValueError where the pieces do not add up to `length`, and whatever `content` raises.
    """
    if length is None:
        async for piece in content:
            if piece:  # an empty chunk would be the last one
                yield b"%x\r\n%b\r\n" % (len(piece), piece)
        yield b"0\r\n\r\n"
        return
    left = length
    while left:
        piece = await anext(content, b"")
        if not 0 < len(piece) <= left:
            raise ValueError(f"{length - left + len(piece)} bytes where {length} were declared")
        left -= len(piece)
        yield piece


def parse_head(data: bytes, end: int) -> ResponseHead:
    """The head in `data[:end]`, `end` being where its empty line's CRLF CRLF begins."""
    if end > MAX_HEAD:
        raise Malformed(f"a head of more than {MAX_HEAD} bytes")
    text = data[: end + 2].decode("latin-1")
    start = _STATUS_LINE.match(text)
    if start is None:
        raise Malformed(f"not a status line: {text[:60]!r}")
    lines = _FIELD_LINE.findall(text, start.end())
    # Each match ends with its line's only LF; as many matches as LFs means every line is one.
    if len(lines) != text.count("\n", start.end()):
        raise Malformed("a field line that RFC 9112 §5 does not allow")
    if len(lines) > MAX_FIELDS:
        raise Malformed(f"more than {MAX_FIELDS} fields")
    if " \r" in text or "\t\r" in text:
        lines = [(name, value.rstrip(" \t")) for name, value in lines]
    return ResponseHead(int(start[1]), int(start[2]), start[3] or "", Fields(lines))


def check_partial_head(data: bytes) -> None:
    """Refuses early what can never become a head, so that nobody waits for its end."""
    if len(data) > MAX_HEAD:
        raise Malformed(f"a head of more than {MAX_HEAD} bytes")
    if not data.startswith(b"HTTP/1."[: len(data)]):
        raise Malformed(f"not HTTP/1: {data[:40]!r}")
    if data.count(b"\n") != data.count(b"\r\n"):
        raise Malformed("a bare LF in the head")


def content_framing(method: str, head: ResponseHead) -> tuple[Framing, int | None]:
    """How the content of a final response ends, and its length (RFC 9112 §6.3).

    The length of an answer to HEAD and of a 304 is what Content-Length said, if anything.
    """
    length = _content_length(head.fields)
    coding = head.fields.get("transfer-encoding")
    if coding is not None:
        if length is not None:
            raise Malformed("both Transfer-Encoding and Content-Length")
        if head.minor == 0:
            raise Malformed("Transfer-Encoding in HTTP/1.0")  # RFC 9112 §6.1: faulty framing
    if method == "HEAD" or head.status == 304:
        return Framing.NONE, length
    if head.status == 204:
        return Framing.NONE, 0
    if coding is not None:
        codings = {one.strip(" \t").lower() for one in coding.split(",")}
        if coding.lower() == "chunked":
            return Framing.CHUNKED, None
        # §6.3 rule 4: without chunked at the end, until close. Real codings are of no use to us: we
        # asked for none (no TE) and undo none. A name that is no coding codes nothing.
        if codings & _CODINGS:
            raise Malformed(f"a transfer coding that was not asked for: {coding[:60]!r}")
        return Framing.UNTIL_CLOSE, None
    if length is not None:
        return Framing.LENGTH, length
    return Framing.UNTIL_CLOSE, None


def _content_length(fields: Fields) -> int | None:
    value = fields.get("content-length")
    if value is None:
        return None
    if "," in value:
        # RFC 9110 §8.6: one valid value, repeated, counts as that value.
        first, *others = (one.strip(" \t") for one in value.split(","))
        value = first if all(other == first for other in others) else "several that differ"
    if not value.isascii() or not value.isdigit() or len(value) > _MAX_LENGTH_DIGITS:
        raise Malformed(f"Content-Length is not one number: {value[:60]!r}")
    return int(value)


def may_persist(head: ResponseHead) -> bool:
    """Whether the peer keeps the connection after this response (RFC 9112 §9.3)."""
    if head.status == 204 and (
        "transfer-encoding" in head.fields or head.fields.get("content-length") not in (None, "0")
    ):
        # RFC 9112 §6.1, RFC 9110 §8.6 forbid both here: such a peer may yet send the content.
        return False
    options = connection_options(head.fields)
    return "close" not in options and (head.minor > 0 or "keep-alive" in options)


class _Sink:
    """What llhttp reports. Apart from `ChunkedContent`, lest parser and owner form a cycle."""

    __slots__ = ("ended", "pieces")

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.ended = False

    def on_body(self, data: bytes) -> None:
        self.pieces.append(data)

    def on_message_complete(self) -> None:
        self.ended = True


class ChunkedContent:
    """Undoes the chunked coding (RFC 9112 §7.1); trailers are dropped."""

    # Connection: close makes llhttp refuse bytes after the end instead of parsing them.
    _HEAD = b"HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"

    __slots__ = ("_parser", "_sink", "_tail")

    def __init__(self) -> None:
        self._sink = _Sink()
        self._parser = httptools.HttpResponseParser(self._sink)
        self._parser.feed_data(self._HEAD)
        self._tail = b""

    def feed(self, data: bytes) -> tuple[bytes, bool, bool]:
        """The content in `data`, whether it has ended, and whether bytes followed its end."""
        sink = self._sink
        surplus = False
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            if not sink.ended:
                raise Malformed(f"chunked content that cannot be read: {error}") from None
            surplus = True
        content = b"".join(sink.pieces)
        sink.pieces.clear()
        # llhttp passes over CR and LF after the end. The end itself is one empty line.
        tail = self._tail = (self._tail + data[-6:])[-6:]
        if sink.ended and (not tail.endswith(END_OF_HEAD) or tail == b"\r\n\r\n\r\n"):
            surplus = True
        return content, sink.ended, surplus
