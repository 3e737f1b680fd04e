"""Freshness (RFC 9111 §4.2): how long a response is fresh, how old it is, how stale it may be used.

Strategy: pure arithmetic over a `StoredResponse`, a policy and a moment. Nothing here decides;
`reuse.decide` does.
"""

from __future__ import annotations

from typing import NamedTuple

from cdn.semantics.cache_control import CacheControl
from cdn.semantics.policy import CachePolicy
from cdn.semantics.stored_response import StoredResponse

HEURISTIC_STATUSES = frozenset({200, 203, 204, 206, 300, 301, 308, 404, 405, 410, 414, 501})
"""Heuristically cacheable by default (RFC 9110 §15.1)."""


class StaleWindow(NamedTuple):
    """Seconds past the freshness lifetime, per reason (RFC 5861 §3, §4; RFC 9111 §4.2.4)."""

    while_revalidate: float = 0.0
    if_error: float = 0.0
    when_disconnected: float = 0.0


def freshness_lifetime(stored: StoredResponse, policy: CachePolicy) -> float:
    """Seconds, from the response's generation, for which it is fresh (RFC 9111 §4.2.1)."""
    if stored.explicit_lifetime is not None:
        return stored.explicit_lifetime
    modified = stored.validator.last_modified
    if modified is None:
        return 0.0
    # RFC 9111 §4.2.2: a heuristic needs a status that is heuristically cacheable, or public.
    if stored.status not in HEURISTIC_STATUSES and not stored.directives.public:
        return 0.0
    fraction = policy.heuristic_fraction * (stored.date - modified)
    return min(max(0.0, fraction), policy.heuristic_limit)


def current_age(stored: StoredResponse, now: float) -> float:
    """Seconds since the response was generated or validated at the origin (RFC 9111 §4.2.3)."""
    # A wall clock that stepped back makes no response younger than it came.
    resident = now - stored.response_time
    return stored.initial_age + resident if resident > 0 else stored.initial_age


def stale_forbidden(directives: CacheControl) -> bool:
    """Whether the response itself forbids its stale use in a shared cache (RFC 9111 §4.2.4).

    s-maxage counts: it carries the meaning of proxy-revalidate (§5.2.2.10).
    """
    return (
        directives.must_revalidate
        or directives.proxy_revalidate
        or directives.no_cache
        or directives.for_one_client  # by a 304 that came after it was stored
        or directives.s_maxage is not None
    )


def stale_window(stored: StoredResponse, policy: CachePolicy) -> StaleWindow:
    """How far past its freshness a response may be used, for each reason there is."""
    directives = stored.directives
    if stale_forbidden(directives):
        return StaleWindow()
    revalidate, error = directives.stale_while_revalidate, directives.stale_if_error
    on_error = policy.stale_if_error if error is None else error
    # A response that never said how long it is good for was never meant for others: it is not
    # handed on when its origin has gone.
    shareable = freshness_lifetime(stored, policy) > 0 or stored.explicit_lifetime is not None
    return StaleWindow(
        while_revalidate=policy.stale_while_revalidate if revalidate is None else revalidate,
        if_error=on_error,
        when_disconnected=max(on_error, policy.stale_when_disconnected) if shareable else on_error,
    )
