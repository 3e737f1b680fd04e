"""Heads of ordinary answers, read line by line: an origin repeats its lines from answer to answer.

Strategy: a line is judged by the expression of `http1` once and remembered with all that is asked
of it. Read here is the 200 that keeps the connection and says how long its content is, without a
name that comes twice; of anything else nothing is said, `http1.parse_head` reads it. What tells one
representation from the next is not remembered, nor is a line of unusual length. Heads that differ
in nothing else are known as a whole soon (`layouts`).
"""

from __future__ import annotations

import re

from cdn.semantics.delivery import OWN_FIELDS
from cdn.semantics.hop_by_hop import HOP_BY_HOP
from cdn.semantics.message import Fields, Response
from cdn.upstream.layouts import VARYING, Layouts, Line, PlainHead

MOST_LINES = 4096
LONGEST_LINE = 256
"""Of those that are remembered, in bytes: some 4 MiB in all, Python's own included."""

MAX_FIELDS = 256
_LONGEST_HEAD = 16 * 1024
_STATUS_LINE = b"HTTP/1.1 200 OK"
_FIELD_LINE = re.compile(
    rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]++)[ \t]*+:[ \t]*+([\t -~\x80-\xff]*+)", re.DOTALL
)
_OF_ONE = {
    name: name.lower() for name in ("Content-Length", "ETag", "Etag", "Last-Modified", "etag")
}
"""Names, as they are usually spelled, of what tells one representation from the next."""

_MARKS = len(": \r\n")
_UNUSUAL = HOP_BY_HOP - {"connection", "content-length"}
_MAX_LENGTH_DIGITS = 18


_lines: dict[bytes, Line] = {}
_layouts = Layouts()


def read_plain_head(data: bytes) -> PlainHead | None:
    """The head in `data`, up to its empty line's CRLF CRLF; None where it is for `parse_head` to
    read."""
    if len(data) > _LONGEST_HEAD:
        return None
    return _layouts.read(data) or _read_by_line(data)


def _read_by_line(data: bytes) -> PlainHead | None:
    texts = data.split(b"\r\n")
    if texts[0] != _STATUS_LINE or len(texts) > MAX_FIELDS:
        return None
    del texts[0]
    known, seen_before = [], True
    for text in texts:
        one = _lines.get(text)
        if one is None:
            one = _line(text)
            if one is None:
                return None
            seen_before = seen_before and one.name in VARYING
        known.append(one)
    index = {one.name: one.value for one in known}
    length = index.pop("content-length", "")
    if len(index) != len(known) - 1 or not (length.isascii() and length.isdigit()):
        return None  # a name that comes twice, or no length
    if "connection" in index and index.pop("connection").lower() != "keep-alive":
        return None
    if len(length) > _MAX_LENGTH_DIGITS:
        return None
    lines = [one.line for one in known if one.line is not None]
    relayed = b"".join([one.written for one in known])
    if seen_before:
        _layouts.learn(data, known)
    size = len(relayed) - _MARKS * len(lines) if OWN_FIELDS.isdisjoint(index) else None
    head = Response(200, Fields.indexed(lines, index, size), "OK")
    return PlainHead(head, relayed, int(length))


def _line(text: bytes) -> Line | None:
    """None for a line that is for `parse_head` to read, or to refuse."""
    name, _, value = text.decode("latin-1").partition(": ")
    lower = _OF_ONE.get(name)
    if lower is not None and value.isascii() and value.isprintable() and value.strip() == value:
        line = None if lower == "content-length" else (name, value)
        return Line(lower, value, line, b"" if line is None else text + b"\r\n")
    return _other_line(text)


def _other_line(text: bytes) -> Line | None:
    match = _FIELD_LINE.fullmatch(text)
    if match is None:
        return None
    name, value = match[1].decode("ascii"), match[2].decode("latin-1").rstrip(" \t")
    lower = name.lower()
    if lower in _UNUSUAL:
        return None
    line = None if lower in HOP_BY_HOP else (name, value)
    written = (
        b"" if line is None or lower in OWN_FIELDS else f"{name}: {value}\r\n".encode("latin-1")
    )
    known = Line(lower, value, line, written)
    if len(text) <= LONGEST_LINE:
        if len(_lines) >= MOST_LINES:
            _lines.clear()
        _lines[text] = known
    return known
