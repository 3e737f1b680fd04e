"""What goes upstream: the client's request as it is, with what the protocol asks of a proxy.

Strategy: pure functions from one request head to another. Target and Host go up byte for byte;
a viewer's own claims about who it is are dropped, since upstream would key or trust by them.
"""

from __future__ import annotations

from functools import lru_cache

from cdn.semantics.cache_key import normalize_authority
from cdn.semantics.delivery import via
from cdn.semantics.forwarded import cdn_loop
from cdn.semantics.message import FieldLine, Fields, Request
from cdn.semantics.stored_response import StoredResponse
from cdn.semantics.surrogate import capability
from cdn.semantics.validation import CONDITIONS, conditional_request

EDGE_SECRET_FIELD = "CDN-Edge-Secret"  # noqa: S105 - the field's name
"""By this field, with a shared secret as its value, a shield knows one of its edges."""

_NARROWING = CONDITIONS | {"range"}

_CLAIMS = frozenset(
    {
        "forwarded",
        "x-real-ip",
        "via",
        "cdn-loop",
        "surrogate-capability",
        EDGE_SECRET_FIELD.lower(),
    }
)


REMEMBERED = 256
"""Field blocks, which a client repeats from request to request, whose upward form is kept."""


def forwarded_request(request: Request, node: str) -> Request:
    """`request` with this node added to Via, CDN-Loop and Surrogate-Capability, and Host as it was
    keyed."""
    fields = _forwarded_fields(
        request.fields.lines, request.version, request.scheme, request.authority, node
    )
    return request.with_fields(fields)


@lru_cache(REMEMBERED)
def _forwarded_fields(
    lines: tuple[FieldLine, ...], version: tuple[int, int], scheme: str, authority: str, node: str
) -> Fields:
    fields = Fields(lines)
    kept = fields.without(_CLAIMS.union(filter(_is_x_forwarded, fields.names())))
    host = fields.get("host")
    # RFC 9112 §3.2.2: an absolute-form target has overruled Host; otherwise it stays as it came.
    if host is None or normalize_authority(scheme, host) != authority:
        kept = kept.replacing("Host", authority)
    return kept.adding(via(fields, node, version), cdn_loop(fields, node), capability(fields, node))


def _is_x_forwarded(name: str) -> bool:
    return name.startswith("x-forwarded-")


def whole_request(request: Request, validate: StoredResponse | None) -> Request:
    """Asks for the whole representation, on no condition of the client's: the answer is for all
    who wait. With `validate`, on condition that it has changed (RFC 9111 §4.3.1)."""
    fields = request.fields.without(_NARROWING)
    if validate is not None:
        fields = conditional_request(fields, validate)
    return request if fields is request.fields else request.with_fields(fields)


def rest_request(request: Request, etag: str | None, position: int, stop: int | None) -> Request:
    """Asks for bytes [position, stop) of the representation that has this strong entity tag, if
    there is one to go by (RFC 9110 §13.1.5)."""
    last = "" if stop is None else str(stop - 1)
    fields = request.fields.without(_NARROWING).adding(("Range", f"bytes={position}-{last}"))
    return request.with_fields(fields if etag is None else fields.adding(("If-Range", etag)))
