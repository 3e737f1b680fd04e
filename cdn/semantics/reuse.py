"""The decision (RFC 9111 §4): what a cache does with a request, given what it has stored.

Strategy: `decide` looks and returns data; nothing is done here. The caller performs the decision in
one `match`. Reasons for forwarding are the words of RFC 9211 §2.2, here as in logs and metrics.
"""

from __future__ import annotations

import math
from enum import StrEnum

from cdn.semantics.cache_control import NOTHING_SAID, CacheControl, request_directives
from cdn.semantics.freshness import current_age, freshness_lifetime, stale_forbidden, stale_window
from cdn.semantics.message import Request
from cdn.semantics.policy import CachePolicy
from cdn.semantics.ranges import parse_range
from cdn.semantics.stored_response import StoredResponse
from cdn.semantics.validation import Precondition, evaluate_preconditions, range_applies
from cdn.semantics.value import value


class Fwd(StrEnum):
    """Why a request goes upstream (RFC 9211 §2.2)."""

    BYPASS = "bypass"
    METHOD = "method"
    URI_MISS = "uri-miss"
    VARY_MISS = "vary-miss"
    MISS = "miss"
    REQUEST = "request"
    STALE = "stale"
    PARTIAL = "partial"


@value(frozen=True, slots=True)
class Hit:
    """Answer from the store. `age` and `ttl` (freshness left) in seconds."""

    stored: StoredResponse
    age: float
    ttl: float


@value(frozen=True, slots=True)
class ServeStale:
    """Answer from the store although stale; `revalidate`: and freshen it meanwhile."""

    stored: StoredResponse
    age: float
    ttl: float
    revalidate: bool


@value(frozen=True, slots=True)
class Forward:
    """Ask upstream; `validate` is a stored response that a 304 would make usable."""

    reason: Fwd
    validate: StoredResponse | None = None


@value(frozen=True, slots=True)
class OnlyIfCachedMiss:
    """504: the client wants only what is stored, and nothing is (RFC 9111 §5.2.1.7)."""


Decision = Hit | ServeStale | Forward | OnlyIfCachedMiss

CACHEABLE_METHODS = frozenset({"GET", "HEAD"})


def decide(
    request: Request,
    stored: StoredResponse | None,
    policy: CachePolicy,
    now: float,
    other_variants: bool = False,
) -> Decision:
    """`stored` is the selected response (`vary.select`), None where there is none; then
    `other_variants` tells whether the URI has others. `now`: seconds since 1970."""
    if request.method not in CACHEABLE_METHODS:
        return Forward(Fwd.METHOD)
    wants = request_directives(request.fields) if policy.request_directives else NOTHING_SAID
    if stored is None:
        if wants.only_if_cached:
            return OnlyIfCachedMiss()
        return Forward(Fwd.VARY_MISS if other_variants else Fwd.URI_MISS)
    if not covers(stored, request, now):
        return OnlyIfCachedMiss() if wants.only_if_cached else Forward(Fwd.PARTIAL)
    decision = _reuse(stored, wants, policy, now)
    if wants.only_if_cached and isinstance(decision, Forward):
        return OnlyIfCachedMiss()
    return decision


def _reuse(
    stored: StoredResponse, wants: CacheControl, policy: CachePolicy, now: float
) -> Hit | ServeStale | Forward:
    age = current_age(stored, now)
    ttl = freshness_lifetime(stored, policy) - age
    validate = stored if stored.validator else None
    if _needs_validation(stored.directives):
        return Forward(Fwd.STALE, validate)
    # RFC 9111 §5.2.1.4, §5.2.1.1, §5.2.1.5 and §5.2.1.3: what this client will take.
    if wants.no_cache or wants.no_store:
        return Forward(Fwd.REQUEST, validate)
    if wants.max_age is not None and age > wants.max_age + (wants.max_stale or 0):
        return Forward(Fwd.REQUEST, validate)
    # RFC 9111 §4.2: fresh is a lifetime greater than the age.
    if ttl > 0:
        if wants.min_fresh is not None and ttl < wants.min_fresh:
            return Forward(Fwd.REQUEST, validate)
        return Hit(stored, age, ttl)
    if -ttl <= _most_stale(wants):
        if -ttl < stale_window(stored, policy).while_revalidate:
            return ServeStale(stored, age, ttl, revalidate=True)
        # RFC 9111 §5.2.1.2: a client may ask for what is stale, unless the response forbids it.
        if wants.max_stale is not None and not stale_forbidden(stored.directives):
            return ServeStale(stored, age, ttl, revalidate=False)
    return Forward(Fwd.STALE, validate)


def _needs_validation(directives: CacheControl) -> bool:
    # RFC 9111 §5.2.2.4: no-cache is used only after validation. What has become private since it
    # was stored (a 304 said so) is asked for anew each time as well.
    return directives.no_cache or directives.for_one_client


def _most_stale(wants: CacheControl) -> float:
    """How far past its freshness, in seconds, the client takes a response: one that says how fresh
    it wants it, and no max-stale, takes none that is stale (RFC 9111 §5.2.1.1 to §5.2.1.3)."""
    if wants.max_stale is not None:
        return wants.max_stale
    return math.inf if wants.max_age is None and wants.min_fresh is None else -1.0


def covers(stored: StoredResponse, request: Request, now: float) -> bool:
    """Whether what is kept of the content is enough for the request (RFC 9111 §3.3)."""
    present = stored.present
    if present is None or request.method == "HEAD":
        return True
    # RFC 9110 §13.2.2: 304 and 412 have no content, and come before any range.
    outcome = evaluate_preconditions(request, stored.status, stored.fields, now)
    if outcome is not Precondition.PASSED:
        return True
    wanted = request.fields.get("range")
    if wanted is None or stored.length is None or not range_applies(request, stored.fields, now):
        return False
    parts = parse_range(wanted, stored.length)
    return bool(parts) and all(map(present.covers, parts or ()))


def stale_on_error(
    request: Request, stored: StoredResponse, policy: CachePolicy, now: float, disconnected: bool
) -> ServeStale | None:
    """What may be served in place of an error: a 5xx that came (RFC 5861 §4), or no answer at all
    (`disconnected`, RFC 9111 §4.2.4)."""
    if _needs_validation(stored.directives) or not covers(stored, request, now):
        return None
    window = stale_window(stored, policy)
    allowed = window.when_disconnected if disconnected else window.if_error
    if policy.request_directives:
        asked = request_directives(request.fields).stale_if_error
        if asked is not None and not stale_forbidden(stored.directives):
            allowed = max(allowed, asked)
    age = current_age(stored, now)
    ttl = freshness_lifetime(stored, policy) - age
    if -ttl < allowed:
        return ServeStale(stored, age, ttl, revalidate=False)
    return None
