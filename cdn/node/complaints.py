"""Failing upstreams, told to the operator: which, how, and not too often.

Strategy: the first failure of an address is told at once, later ones are counted and told together
when a while has passed. Clients never learn the address, operators need it.
"""

from __future__ import annotations

from collections.abc import Callable

from cachetools import LRUCache

from cdn.observe.events import EventLog
from cdn.upstream.errors import UpstreamError

QUIET = 10.0
"""Seconds between two lines about one address."""


class Complaints:
    """`now` in seconds."""

    def __init__(self, events: EventLog, now: Callable[[], float]) -> None:
        self._events = events
        self._now = now
        self._told: LRUCache[str, tuple[float, int]] = LRUCache(1024)

    def __call__(self, error: UpstreamError) -> None:
        """A request failed, or was served stale, because of `error`."""
        now = self._now()
        told_at, untold = self._told.get(error.endpoint, (-QUIET, 0))
        if now - told_at < QUIET:
            self._told[error.endpoint] = told_at, untold + 1
            return
        self._told[error.endpoint] = now, 0
        before = f" (and {untold} more failures before)" if untold else ""
        self._events.warning(f"upstream {error}{before}")
