"""Cache-Groups and Cache-Group-Invalidation (RFC 9875): responses that are invalidated together.

Strategy: both are structured Lists of Strings; a group belongs to one origin, so its name is kept
with the origin it came from. Members are compared character by character (§2.1).
"""

from __future__ import annotations

import http_sf

from cdn.semantics.invalidation import SAFE_METHODS
from cdn.semantics.message import Request, Response

MOST_GROUPS = 128
"""RFC 9875 §2.1: a cache must support at least 128 members; more are ignored."""

LONGEST_NAME = 128
"""RFC 9875 §2.1: and names of at least 32 characters."""


def string_list(value: str | None) -> frozenset[str]:
    """The Strings of a structured List (RFC 9651 §3.1); nothing where the syntax is invalid."""
    if value is None:
        return frozenset()
    try:
        members = http_sf.parse(value.encode("latin-1"), tltype="list")
    except ValueError:
        return frozenset()
    assert isinstance(members, list)
    names = []
    for member in members:
        item = member[0] if isinstance(member, tuple) else member
        if not isinstance(item, str):
            return frozenset()  # RFC 9651 §1.2: a member of a wrong type makes the field unusable
        names.append(item)
    return frozenset(name for name in names[:MOST_GROUPS] if len(name) <= LONGEST_NAME)


def group_tags(primary_key: bytes, groups: frozenset[str]) -> list[tuple[bytes, str]]:
    """Groups with the origin (scheme and authority) that they belong to (RFC 9875 §2)."""
    scheme, _, rest = primary_key.partition(b"://")
    origin = scheme + b"://" + rest.partition(b"/")[0]
    return [(origin, group) for group in groups]


def invalidated_groups(request: Request, response: Response) -> frozenset[str]:
    """Groups that a successful answer to an unsafe method invalidates (RFC 9875 §3)."""
    if request.method in SAFE_METHODS or not 200 <= response.status < 400:
        return frozenset()
    return string_list(response.fields.get("cache-group-invalidation"))
