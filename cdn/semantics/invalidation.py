"""Invalidation by unsafe methods (RFC 9111 §4.4).

Strategy: a successful answer to an unsafe method names the URIs whose stored responses it outdates;
whoever holds a store removes them, all variants, before the answer goes down.
"""

from __future__ import annotations

from cdn.semantics.cache_key import key_of_url, primary_key, resolve
from cdn.semantics.message import Request, Response

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
"""RFC 9110 §9.2.1; a method that is not known to be safe is taken for unsafe."""


def invalidated_keys(request: Request, response: Response) -> frozenset[bytes]:
    """Primary keys to remove: the target's, and those of Location and Content-Location where they
    are of the same origin (RFC 9111 §4.4: else anyone could purge anyone)."""
    if request.method in SAFE_METHODS or not 200 <= response.status < 400:
        return frozenset()
    keys = {primary_key(request)}
    origin = f"{request.scheme}://{request.authority}/".encode("latin-1")
    for name in ("location", "content-location"):
        reference = response.fields.get(name)
        url = resolve(request, reference) if reference is not None else None
        if url is None:
            continue
        try:
            key = key_of_url(url)
        except ValueError:
            continue
        if key.startswith(origin):
            keys.add(key)
    return frozenset(keys)
