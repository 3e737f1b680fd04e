"""How an answer is framed, and the bytes of its head (RFC 9112 §6).

Strategy: framing is decided once, before the first byte, from the answer and the request's
version; it is always explicit. Pure: no connection, no clock.
"""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import NamedTuple

from cdn.gateway.exchange import Answer
from cdn.semantics.message import FieldLine, Fields, Response

_PHRASES = {status.value: status.phrase for status in HTTPStatus}


class Framing(NamedTuple):
    """`length` is what Content-Length says (None: no such field). Where there is content and no
    length it is chunked, or else the end of the connection is its end."""

    length: int | None
    chunked: bool
    has_content: bool

    @property
    def until_close(self) -> bool:
        return self.has_content and not self.chunked and self.length is None


def choose_framing(answer: Answer, ready: int | None, method: str, minor: int) -> Framing:
    """`ready` is the content's size in bytes where all of it is at hand, else None; `minor` is
    the request's HTTP/1 minor version."""
    status = answer.head.status
    if status in (204, 304):  # RFC 9110 §8.6: no Content-Length in 204; 304 may do without
        return Framing(None, False, False)
    if method == "HEAD":
        return Framing(answer.length, False, False)
    length = answer.length if answer.length is not None else ready
    # RFC 9112 §6.1: no Transfer-Encoding to a client of HTTP/1.0.
    return Framing(length, length is None and minor > 0, True)


def encode_head(head: Response, framing: Framing, connection: str | None) -> bytes:
    """The head's bytes; `connection` is the value of its Connection field, if it needs one."""
    reason = head.reason or _PHRASES.get(head.status, "")
    lines = [f"HTTP/1.1 {head.status} {reason}\r\n", *_lines(head.fields.lines)]
    if framing.length is not None:
        lines.append(f"Content-Length: {framing.length}\r\n")
    elif framing.chunked:
        lines.append("Transfer-Encoding: chunked\r\n")
    if connection is not None:
        lines.append(f"Connection: {connection}\r\n")
    lines.append("\r\n")
    return "".join(lines).encode("latin-1")


def encode_opening(reason: str, fields: Fields, more: Iterable[FieldLine]) -> bytes:
    """How the head of a 200 begins, where others are to follow `fields`, which frame nothing, and
    `more`."""
    opening = f"HTTP/1.1 200 {reason or _PHRASES[200]}\r\n{fields.written}"
    return "".join((opening, *_lines(more))).encode("latin-1")


def _lines(fields: Iterable[FieldLine]) -> list[str]:
    # RFC 9112 §6.3: two Content-Lengths would be a fault of ours; the rim's own is the true one.
    return [
        f"{name}: {value}\r\n"
        for name, value in fields
        if len(name) != 14 or name.lower() != "content-length"
    ]


def encode_interim(head: Response) -> bytes:
    """A 1xx head: no framing, no content (RFC 9110 §15.2)."""
    return encode_head(head, Framing(None, False, False), None)
