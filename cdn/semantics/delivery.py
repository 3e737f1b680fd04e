"""What the client gets: the response head and which bytes of the content (RFC 9110 §14, §15).

Strategy: a `Delivery` is a head without framing fields and a list of segments: literal bytes, or
ranges of the selected representation. Whoever holds the content turns ranges into bytes; no content
passes through here. Via, Age and Cache-Status are written here and nowhere else.
"""

from __future__ import annotations

from cdn.semantics.message import FieldLine, Fields, Request, Response
from cdn.semantics.ranges import ByteRange, parse_range
from cdn.semantics.validation import Precondition, evaluate_preconditions, range_applies
from cdn.semantics.value import value

MAX_AGE_FIELD = 2**31
"""RFC 9111 §1.2.2: what a delta-seconds too large to represent is written as."""

MAX_TTL = 999_999_999_999_999
"""RFC 8941 §3.3.1 allows fifteen digits."""

Segment = bytes | ByteRange

# RFC 9110 §15.4.5: a 304 carries metadata only to guide cache updates, and by RFC 9111 §3.2 these
# fields are never updated. The others stay: the next tier freshens what it has stored by them.
_CONTENT_FIELDS = frozenset(
    {
        "accept-ranges",
        "content-encoding",
        "content-md5",
        "content-range",
    }
)

TAKES_RANGES = ("Accept-Ranges", "bytes")

OWN_FIELDS = frozenset({"age", "via", "cache-status"})
"""Fields that every node writes itself, after all others."""


@value(frozen=True, slots=True)
class Delivery:
    """`segments` in the order to send; None: the whole content to its end, whose length nobody
    knows yet. `length` is the sum of the segments in bytes, for HEAD what GET would have had."""

    head: Response
    segments: tuple[Segment, ...] | None
    length: int | None


@value(frozen=True, slots=True)
class Representation:
    """The selected response: its status and fields as received, its complete length if known."""

    status: int
    reason: str
    fields: Fields
    length: int | None


def deliver(
    request: Request, selected: Representation, own_fields: tuple[FieldLine, ...], now: float
) -> Delivery:
    """Answers a GET or HEAD from a complete representation (RFC 9110 §13.2.2, §14.2).

    `own_fields` are this node's (Age, Via, Cache-Status) and end every answer, 304 and 206 too.
    """
    # Asked of the fields as they are: a stored response's are indexed already.
    received = selected.fields
    fields = received.without(OWN_FIELDS)
    match evaluate_preconditions(request, selected.status, received, now):
        case Precondition.NOT_MODIFIED:
            kept = fields.without(_CONTENT_FIELDS).adding(*own_fields)
            return Delivery(Response(304, kept, "Not Modified"), (), None)
        case Precondition.FAILED:
            kept = Fields((*_dated(received), *own_fields))
            return Delivery(Response(412, kept, "Precondition Failed"), (), 0)
        case Precondition.PASSED:
            pass
    length = selected.length
    if length is None:
        head = Response(selected.status, fields.adding(*own_fields), selected.reason)
        return Delivery(head, None if request.method == "GET" else (), None)
    if selected.status == 200:
        wanted = request.fields.get("range")
        # RFC 9110 §14.2: Range is defined for GET alone, and holds where If-Range does.
        if wanted is not None and request.method == "GET" and range_applies(request, received, now):
            ranges = parse_range(wanted, length)
            if ranges is not None:
                if "accept-ranges" not in received:
                    fields = fields.adding(TAKES_RANGES)
                # RFC 9110 §14.4: on a 200 Content-Range meant nothing; here it is ours to write.
                fields = fields.without({"content-range"})
                return _partial(fields, own_fields, ranges, length)
        if "accept-ranges" not in received:
            own_fields = (TAKES_RANGES, *own_fields)
    head = Response(selected.status, fields.adding(*own_fields), selected.reason)
    whole: tuple[Segment, ...] = (ByteRange(0, length),) if length else ()
    return Delivery(head, whole if request.method == "GET" else (), length)


def _dated(fields: Fields) -> tuple[FieldLine, ...]:
    date = fields.get("date")
    return (("Date", date),) if date is not None else ()


def _partial(
    fields: Fields, own_fields: tuple[FieldLine, ...], ranges: list[ByteRange], size: int
) -> Delivery:
    if not ranges:
        # RFC 9110 §15.5.17: says how long the representation is.
        lines = (*_dated(fields), *own_fields, ("Content-Range", f"bytes */{size}"))
        return Delivery(Response(416, Fields(lines), "Range Not Satisfiable"), (), 0)
    if len(ranges) == 1:
        line = ("Content-Range", _content_range(ranges[0], size))
        head = Response(206, fields.adding(*own_fields, line), "Partial Content")
        return Delivery(head, (ranges[0],), ranges[0].length)
    return _multipart(fields, own_fields, ranges, size)


def _content_range(part: ByteRange, size: int) -> str:
    return f"bytes {part.start}-{part.stop - 1}/{size}"


def _multipart(
    fields: Fields, own_fields: tuple[FieldLine, ...], ranges: list[ByteRange], size: int
) -> Delivery:
    # RFC 9110 §14.6. The boundary need only differ from the content around it; the parts' own
    # lengths are told by their Content-Range.
    boundary = f"part-{size:x}-{ranges[0].start:x}-{ranges[-1].stop:x}"
    content_type = fields.get("content-type")
    segments: list[Segment] = []
    for part in ranges:
        opening = f"\r\n--{boundary}\r\n"
        if content_type is not None:
            opening += f"Content-Type: {content_type}\r\n"
        opening += f"Content-Range: {_content_range(part, size)}\r\n\r\n"
        segments += [opening.encode("latin-1"), part]
    segments.append(f"\r\n--{boundary}--\r\n".encode("latin-1"))
    kept = fields.without({"content-type"}).adding(
        *own_fields, ("Content-Type", f"multipart/byteranges; boundary={boundary}")
    )
    length = sum(len(s) if isinstance(s, bytes) else s.length for s in segments)
    return Delivery(Response(206, kept, "Partial Content"), tuple(segments), length)


def cache_status(
    node: str,
    *,
    fwd: str | None = None,
    fwd_status: int | None = None,
    ttl: float | None = None,
    stored: bool = False,
    collapsed: bool = False,
    detail: str | None = None,
) -> str:
    """This node's member of Cache-Status (RFC 9211 §2); without `fwd` it is a hit.

    `node` and `detail` are tokens; `ttl` in seconds, negative where stale.
    """
    member = f"{node}; hit" if fwd is None else f"{node}; fwd={fwd}"
    if fwd_status is not None:
        member += f"; fwd-status={fwd_status}"
    if ttl is not None:
        member += f"; ttl={shown_ttl(ttl)}"
    if stored:
        member += "; stored"
    if collapsed:
        member += "; collapsed"
    if detail is not None:
        member += f"; detail={detail}"
    return member


def shown_ttl(ttl: float) -> int:
    """The seconds that `ttl` is in Cache-Status (RFC 9211 §2.4)."""
    if -MAX_AGE_FIELD <= ttl <= MAX_TTL:
        return int(ttl)
    return MAX_TTL if ttl > 0 else -MAX_AGE_FIELD


def shown_age(age: float) -> int:
    """The whole seconds that `age` is in Age (RFC 9111 §5.1)."""
    return int(age) if age < MAX_AGE_FIELD else MAX_AGE_FIELD


def age_field(age: float) -> FieldLine:
    return ("Age", str(shown_age(age)))


def via(fields: Fields, node: str, version: tuple[int, int] = (1, 1)) -> FieldLine:
    """Via with this node after those before it (RFC 9110 §7.6.3)."""
    own = f"{version[0]}.{version[1]} {node}"
    before = fields.get("via")
    return ("Via", own if before is None else f"{before}, {own}")


def joined_status(fields: Fields, own: str) -> FieldLine:
    """Cache-Status with this node's member last: nearest the client (RFC 9211 §2)."""
    before = fields.get("cache-status")
    return ("Cache-Status", own if before is None else f"{before}, {own}")
