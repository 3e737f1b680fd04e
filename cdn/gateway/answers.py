"""Answers out of what was stored, what is arriving, and what is only passed on.

Strategy: `semantics.delivery` says which fields and which bytes; this file puts the bytes there.
Every answer ends with this node's Via and Cache-Status, and Age where it is not from the origin
just now.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cdn.gateway.exchange import Answer, Content, Outcome
from cdn.gateway.fill import Arrived
from cdn.gateway.relay import Relayed
from cdn.gateway.seat import Seat
from cdn.semantics.delivery import (
    Representation,
    Segment,
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
from cdn.semantics.validation import CONDITIONS
from cdn.storage.store import Piece, StoredObject
from cdn.upstream.exchange import UpstreamResponse

_NARROWING = CONDITIONS | {"range"}


Put = Callable[[Sequence[Segment]], Sequence[Piece] | Content | None]
"""Gives the bytes of what is to be sent, None where it cannot."""


def from_store(
    node: str,
    request: Request,
    put: Put,
    use: Hit | ServeStale,
    policy: CachePolicy,
    now: float,
    *,
    fwd: str | None = None,
    fwd_status: int | None = None,
    detail: str | None = None,
) -> Answer | None:
    """A stored response, as `use` has its head; with `fwd` the request had gone upstream first.
    None where `put` gives none."""
    response = use.stored
    status = cache_status(node, fwd=fwd, fwd_status=fwd_status, ttl=use.ttl, detail=detail)
    fields = _relayable(response.fields, policy, request)
    own = (age_field(use.age), via(fields, node), joined_status(fields, status))
    selected = Representation(response.status, response.reason, fields, response.length)
    delivery = deliver(request, selected, own, now)
    content = put(delivery.segments) if delivery.segments else ()
    if content is None:
        return None
    cache = fwd or ("hit" if isinstance(use, Hit) else "stale")
    return Answer(delivery.head, content, delivery.length, Outcome(cache=cache))


def at_once(stored: StoredObject) -> Put:
    """What can be had without waiting. Raises SliceUnavailable."""

    def put(segments: Sequence[Segment]) -> Sequence[Piece] | None:
        parts = [segment for segment in segments if isinstance(segment, ByteRange)]
        if len(parts) == len(segments):
            return stored.ready_to_send(parts)
        pieces: list[Piece] = []
        for segment in segments:
            if not isinstance(segment, ByteRange):
                pieces.append(segment)
            elif (ready := stored.ready_to_send([segment])) is None:
                return None
            else:
                pieces += ready
        return pieces

    return put


def from_slices(
    node: str,
    request: Request,
    arrived: Arrived,
    gather: Callable[[Sequence[Segment]], Content],
    policy: CachePolicy,
    now: float,
    *,
    fwd: str,
    leads: bool,
    source: str,
) -> Answer:
    """A representation of which a slice, or the first of all, has just been asked for."""
    stored = arrived.stored
    fields = _relayable(stored.fields, policy, request)
    status = cache_status(
        node,
        fwd=fwd,
        fwd_status=arrived.status if arrived.is_slice or _narrows(request) else None,
        stored=arrived.reason is None,
        collapsed=not leads,
    )
    own = _own_fields(node, arrived, status, now, leads)
    selected = Representation(stored.status, stored.reason, fields, stored.length)
    delivery = deliver(request, selected, own, now)
    outcome = Outcome(cache=fwd, collapsed=not leads, source=source)
    content = gather(delivery.segments) if delivery.segments else ()
    return Answer(delivery.head, content, delivery.length, outcome)


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
    status = cache_status(
        node,
        fwd=fwd,
        fwd_status=arrived.status if _narrows(request) else None,
        stored=arrived.reason is None,
        collapsed=not leads,
        detail=None if arrived.reason is None else arrived.reason.word,
    )
    own = _own_fields(node, arrived, status, now, leads)
    wanted = request.fields.get("range")
    specs = None if wanted is None else parse_range_specs(wanted)
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
    return Answer(delivery.head, seat.ready() or seat, delivery.length, outcome)


def from_part(
    node: str,
    request: Request,
    seat: Seat,
    arrived: Arrived,
    policy: CachePolicy,
    now: float,
    *,
    fwd: str,
) -> Answer | None:
    """A slice for the one who asked for it, of what cannot be stored in slices. None where it is
    not enough."""
    stored, came = arrived.stored, arrived.stored.present
    fields = _relayable(arrived.response.fields, policy, request).without({"content-range"})
    reason = "" if arrived.reason is None else arrived.reason.word
    status = cache_status(node, fwd=fwd, fwd_status=206, detail=reason)
    own = _own_fields(node, arrived, status, now, leads=True)
    selected = Representation(200, "OK", fields, stored.length)
    delivery = deliver(request, selected, own, now)
    outcome = Outcome(cache=fwd, source=seat.source)
    match delivery.segments, came:
        case (), _:
            seat.leave()
            return Answer(delivery.head, (), delivery.length, outcome)
        case (ByteRange() as part,), ByteRange() if came.covers(part):
            seat.read_only(*part)
            return Answer(delivery.head, seat, delivery.length, outcome)
        case _:
            return None


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


def _own_fields(
    node: str, arrived: Arrived, status: str, now: float, leads: bool
) -> tuple[FieldLine, ...]:
    received = arrived.response.fields
    own: tuple[FieldLine, ...] = (via(received, node), joined_status(received, status))
    if not leads or "age" in received:
        # RFC 9111 §5.1: without it, the response would seem to come from the origin just now.
        own = (age_field(current_age(arrived.stored, now)), *own)
    return own


def _narrows(request: Request) -> bool:
    """Whether the answer's status need not be the one that came."""
    return request.fields.any_of(_NARROWING)


def _relayable(fields: Fields, policy: CachePolicy, request: Request) -> Fields:
    # Edge Architecture §2.3: Surrogate-Control goes to surrogates only.
    if "surrogate-control" in fields and "surrogate-capability" not in request.fields:
        fields = fields.without({"surrogate-control"})
    if not policy.relay_cdn_cache_control and "cdn-cache-control" in fields:
        fields = fields.without({"cdn-cache-control"})
    return fields
