"""Which fields belong to one connection and which travel on (RFC 9110 §7.6.1).

Strategy: one rule for both directions and both sides of a node. What frames the content
(Content-Length, Transfer-Encoding, Trailer) counts as the connection's own too: each rim frames
anew, and trailers are dropped.
"""

from __future__ import annotations

from functools import lru_cache

from cdn.semantics.message import Fields

HOP_BY_HOP = frozenset(
    {
        "connection",
        "content-length",  # each rim frames for itself (RFC 9112 §6)
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Lower-case names that never travel on, listed in Connection or not. Proxy-Authenticate and
Proxy-Authorization do travel: a gateway is not the proxy they speak to (RFC 9110 §11.7)."""

# RFC 9110 §7.6.1: Connection must not list a field meant for all recipients of the content. A
# sender that lists one would have us key, store, age or authorise wrongly, or hide a loop.
_FOR_ALL_RECIPIENTS = frozenset(
    {
        "age",
        "authorization",
        "cache-control",
        "cdn-cache-control",
        "cdn-loop",
        "content-encoding",
        "content-range",
        "content-type",
        "date",
        "expires",
        "host",
        "vary",
        "via",
    }
)


def connection_options(fields: Fields) -> frozenset[str]:
    """The options in Connection, lower case: `close`, `keep-alive`, names of fields."""
    value = fields.get("connection")
    return frozenset() if value is None else _options(value)


@lru_cache(maxsize=64)
def _options(value: str) -> frozenset[str]:
    return frozenset(option.strip(" \t").lower() for option in value.split(","))


def end_to_end(fields: Fields) -> Fields:
    """`fields` without what belongs to the connection they came over, in order as they came.

    Content-Length is taken out as well: read it first where it is needed.
    """
    value = fields.get("connection")
    return fields.without(HOP_BY_HOP if value is None else _struck(value))


@lru_cache(maxsize=64)
def _struck(connection: str) -> frozenset[str]:
    return HOP_BY_HOP | (_options(connection) - _FOR_ALL_RECIPIENTS)
