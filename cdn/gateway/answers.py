"""Answers out of what was stored, what is arriving, and what is only passed on.

Strategy: `semantics.delivery` says which fields and which bytes; this file puts the bytes there.
Every answer ends with this node's Via and Cache-Status, and Age where it is not from the origin
just now.
"""

from __future__ import annotations

from collections.abc import Sequence

from cdn.gateway.exchange import Answer, Content, Outcome
from cdn.gateway.fill import Arrived
from cdn.gateway.relay import Relayed
from cdn.gateway.seat import Seat
from cdn.semantics.delivery import (
    Representation,
    age_field,
    cache_status,
    deliver,
    joined_status,
    via,
)
from cdn.semantics.freshness import current_age
from cdn.semantics.message import FieldLine, Fields, Request, Response
from cdn.semantics.policy import CachePolicy
from cdn.semantics.ranges import ByteRange, parse_range_specs
from cdn.semantics.reuse import Hit, ServeStale
from cdn.storage.store import StoredObject
from cdn.upstream.exchange import UpstreamResponse

_NARROWING = (
    "if-match",
    "if-none-match",
    "if-modified-since",
    "if-unmodified-since",
    "if-range",
    "range",
)


def from_store(
    node: str,
    request: Request,
    content: StoredObject,
    use: Hit | ServeStale,
    policy: CachePolicy,
    now: float,
    *,
    fwd: str | None = None,
    fwd_status: int | None = None,
    detail: str | None = None,
) -> Answer:
    """A stored response. Its head in `use` is newer than `content`'s own where it has just been
    validated; with `fwd` the request had gone upstream first."""
    response = use.stored
    status = cache_status(node, fwd=fwd, fwd_status=fwd_status, ttl=use.ttl, detail=detail)
    fields = _relayable(response.fields, policy, request)
    own = (age_field(use.age), via(fields, node), joined_status(fields, status))
    selected = Representation(response.status, response.reason, fields, response.length)
    delivery = deliver(request, selected, own, now)
    pieces: list[bytes | memoryview] = []
    for segment in delivery.segments or ():
        if isinstance(segment, ByteRange):
            pieces += content.read(segment)
        else:
            pieces.append(segment)
    cache = fwd or ("hit" if isinstance(use, Hit) else "stale")
    return Answer(delivery.head, pieces, delivery.length, Outcome(cache=cache))


def from_fill(
    node: str,
    request: Request,
    seat: Seat,
    arrived: Arrived,
    policy: CachePolicy,
    now: float,
    *,
    fwd: str,
    leads: bool,
) -> Answer:
    """A response that is arriving. Who asked for it gets every field; who joined gets what may be
    stored of it."""
    received = arrived.response if leads else arrived.stored
    fields = _relayable(received.fields, policy, request)
    narrowed = any(name in request.fields for name in _NARROWING)
    status = cache_status(
        node,
        fwd=fwd,
        fwd_status=arrived.response.status if narrowed else None,
        stored=arrived.reason is None,
        collapsed=not leads,
        detail=None if arrived.reason is None else arrived.reason.word,
    )
    own: tuple[FieldLine, ...] = (via(fields, node), joined_status(fields, status))
    if not leads or "age" in arrived.response.fields:
        # RFC 9111 §5.1: without it, the response would seem to come from the origin just now.
        own = (age_field(current_age(arrived.stored, now)), *own)
    specs = parse_range_specs(request.fields.get("range") or "")
    if specs is not None and len(specs) > 1:
        # Several ranges may want what has gone by already: the whole is an answer too
        # (RFC 9110 §14.2).
        request = request.with_fields(request.fields.without({"range"}))
    head = arrived.response
    selected = Representation(head.status, head.reason, fields, seat.length)
    delivery = deliver(request, selected, own, now)
    outcome = Outcome(cache=fwd, collapsed=not leads, source=seat.source)
    match delivery.segments:
        case ():
            seat.leave()
            return Answer(delivery.head, (), delivery.length, outcome)
        case (ByteRange(start, stop),):
            seat.read_only(start, stop)
    return Answer(delivery.head, seat, delivery.length, outcome)


def passed_on(
    node: str,
    request: Request,
    head: Response,
    response: UpstreamResponse,
    relayed: Relayed,
    policy: CachePolicy,
    *,
    fwd: str,
) -> Answer:
    """A response that only goes through, its content `relayed`."""
    own = (via(head.fields, node), joined_status(head.fields, cache_status(node, fwd=fwd)))
    fields = _relayable(head.fields, policy, request).without({"via", "cache-status"}).adding(*own)
    bodiless = request.method == "HEAD" or head.status in (204, 304)
    content: Sequence[bytes] | Content = () if bodiless else relayed
    if bodiless:
        response.abort()
    length = None if head.status in (204, 304) else response.length
    outcome = Outcome(cache=fwd, source=response.source)
    return Answer(head.with_fields(fields), content, length, outcome)


def _relayable(fields: Fields, policy: CachePolicy, request: Request) -> Fields:
    # Edge Architecture §2.3: Surrogate-Control goes to surrogates only.
    if "surrogate-control" in fields and "surrogate-capability" not in request.fields:
        fields = fields.without({"surrogate-control"})
    if not policy.relay_cdn_cache_control and "cdn-cache-control" in fields:
        fields = fields.without({"cdn-cache-control"})
    return fields
