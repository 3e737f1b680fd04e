"""The values in which roles and delivery services differ.

Strategy: rules never ask who they run for; they are handed one of these. What RFC 9111 leaves to
the cache is here, with the default that DESIGN and the RFC call for.
"""

from __future__ import annotations

from dataclasses import dataclass

from cdn.semantics.ranges import SLICE_SIZE


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """Times in seconds, sizes in bytes."""

    heuristic_fraction: float = 0.1
    """Of the time since Last-Modified (RFC 9111 §4.2.2); 0 turns heuristics off."""

    heuristic_limit: float = 86_400.0
    """No heuristic freshness lifetime is longer than this."""

    stale_when_disconnected: float = 86_400.0
    """How long past its freshness a response may be served when no upstream answers (§4.2.4)."""

    stale_if_error: float = 0.0
    """RFC 5861 §4 for responses that do not say it themselves."""

    stale_while_revalidate: float = 0.0
    """RFC 5861 §3 for responses that do not say it themselves."""

    hit_for_miss: float = 30.0
    """How long requests for a response that may not be stored go up without queueing."""

    request_directives: bool = True
    """Whether a client's Cache-Control (no-cache, max-age, …; RFC 9111 §5.2.1) is obeyed."""

    relay_cdn_cache_control: bool = True
    """Whether CDN-Cache-Control goes on downstream (RFC 9213 §2.1 lets a cache choose)."""

    normalize_vary: bool = True
    """Whether request fields that Vary names are compared by what they mean (RFC 9111 §4.1)."""

    slice_size: int = SLICE_SIZE
    """Of the aligned slices that content is fetched and kept in."""
