"""One scripted answer, and what HTTP's own rules make of it for a given request.

Strategy: a `Reply` says what goes on the wire, lies included. Only the two automatic behaviours
that a reply asks for (conditions, ranges) turn it into another reply; both are pure.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from typing import Any, Literal

from tests.kit.pattern import Pattern
from tests.kit.waiting import Gate

Content = bytes | Pattern
FieldLine = tuple[str, str]


@dataclass(frozen=True)
class Reply:
    """What the origin answers. `fields` go out as given and in order, then framing.

    `content`: bytes, a Pattern, or a callable that is given the recorded request.
    `declared_length`: the Content-Length to claim in place of the true one.
    `cut_after`: close after that many bytes of content. `disconnect`: close without an answer.
    `reset`: where the connection would be closed by these two, or else at once, reset it (RST).
    `interim`: 1xx answers before the final one. `gate`: where to wait for the test.
    `trickle`: bytes of content per second. `honours_conditions`: answer 304 where the request's
    conditions say so; `honours_ranges`: answer a single Range, If-Range heeded, with 206 or 416.
    """

    status: int = 200
    fields: Sequence[FieldLine] = ()
    content: Content | Callable[[Any], Content] = b""
    framing: Literal["length", "chunked", "close"] = "length"
    declared_length: int | None = None
    cut_after: int | None = None
    reset: bool = False
    disconnect: bool = False
    interim: Sequence[tuple[int, Sequence[FieldLine]]] = ()
    gate: Gate | None = None
    trickle: float | None = None
    honours_conditions: bool = False
    honours_ranges: bool = False

    def field(self, name: str) -> str | None:
        """The value of the first field line called `name`."""
        return first(self.fields, name)


def first(fields: Sequence[FieldLine], name: str) -> str | None:
    """The value of the first line called `name`, in any spelling, or None."""
    return next((value for line, value in fields if line.lower() == name.lower()), None)


def read(content: Content, start: int, stop: int) -> bytes:
    """Bytes `start` to `stop` (exclusive) of either kind of content."""
    return content.read(start, stop) if isinstance(content, Pattern) else content[start:stop]


def fitted(reply: Reply, method: str, fields: Sequence[FieldLine]) -> tuple[Reply, range]:
    """The reply that a request with these fields gets, and the stretch of its content to send.

    A callable content has been called by then.
    """
    assert isinstance(reply.content, bytes | Pattern)
    whole = range(len(reply.content))
    if reply.status != 200 or method not in ("GET", "HEAD"):
        return reply, whole
    # Conditions come before ranges (RFC 9110 §13.2.2).
    if reply.honours_conditions and _not_modified(reply, fields):
        # Validators and cache fields stay; those that describe the content go (RFC 9110 §15.4.5).
        kept = [line for line in reply.fields if not line[0].lower().startswith("content-")]
        return replace(reply, status=304, fields=kept), range(0)
    wanted = first(fields, "range")
    # Range means something with GET only (RFC 9110 §14.2).
    if reply.honours_ranges and method == "GET" and wanted and _if_range_holds(reply, fields):
        return _ranged(reply, whole, wanted)
    return reply, whole


def _not_modified(reply: Reply, fields: Sequence[FieldLine]) -> bool:
    etag, modified = reply.field("etag"), reply.field("last-modified")
    asked = first(fields, "if-none-match")
    if asked is not None:
        tags = [tag.strip().removeprefix("W/") for tag in asked.split(",")]
        return etag is not None and ("*" in tags or etag.removeprefix("W/") in tags)
    since = first(fields, "if-modified-since")
    if since is None or modified is None:
        return False
    return parsedate_to_datetime(modified) <= parsedate_to_datetime(since)


def _if_range_holds(reply: Reply, fields: Sequence[FieldLine]) -> bool:
    # Strong comparison, or exactly the same date (RFC 9110 §13.1.5).
    validator = first(fields, "if-range")
    if validator is None:
        return True
    if validator.endswith('"'):
        return not validator.startswith("W/") and validator == reply.field("etag")
    return validator == reply.field("last-modified")


def _ranged(reply: Reply, whole: range, wanted: str) -> tuple[Reply, range]:
    unit, _, spec = wanted.partition("=")
    begin, dash, end = spec.strip().partition("-")
    if unit.strip() != "bytes" or not dash or not (begin + end).isdigit():
        return reply, whole
    if begin and end and int(end) < int(begin):
        return reply, whole  # an invalid range is no range (RFC 9110 §14.1.1)
    size = len(whole)
    part = whole[int(begin) :] if begin else whole[max(0, size - int(end)) :]
    if begin and end:
        part = whole[int(begin) : int(end) + 1]
    if not part:
        unsatisfied = [*reply.fields, ("Content-Range", f"bytes */{size}")]
        return replace(reply, status=416, fields=unsatisfied), part
    content_range = ("Content-Range", f"bytes {part.start}-{part.stop - 1}/{size}")
    return replace(reply, status=206, fields=[*reply.fields, content_range]), part
