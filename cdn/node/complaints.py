"""Failing upstreams, told to the operator: which, how, and not too often.

Strategy: the first failure of a kind at an address is told at once, later ones are counted and told
together when a while has passed. Who goes out of service and comes back is always told. Clients
never learn an address, operators need it.
"""

from __future__ import annotations

from collections.abc import Callable

from cachetools import LRUCache

from cdn.observe.events import EventLog
from cdn.upstream.errors import RequestContentFailed, UpstreamError

QUIET = 10.0
"""Seconds between two lines about one kind of failure at one address."""


class Complaints:
    """`now` in seconds."""

    def __init__(self, events: EventLog, now: Callable[[], float]) -> None:
        self._events = events
        self._now = now
        self._told: LRUCache[tuple[str, type[UpstreamError]], tuple[float, int]] = LRUCache(1024)

    def failed(self, error: UpstreamError, url: str) -> None:
        """The request for `url` failed, broke off, or was served stale, because of `error`."""
        if isinstance(error, RequestContentFailed):
            return  # the client's own fault
        now, what = self._now(), (error.endpoint, type(error))
        told_at, untold = self._told.get(what, (-QUIET, 0))
        if now - told_at < QUIET:
            self._told[what] = told_at, untold + 1
            return
        self._told[what] = now, 0
        before = f", and {untold} more like it before" if untold else ""
        self._events.warning(f"upstream {error} (for {url}{before})")

    def health(self, name: str, out_for: float | None) -> None:
        """`name` is out of service for so many seconds, or back (None)."""
        if out_for is None:
            self._events.info(f"upstream {name} is back in service")
        else:
            self._events.warning(f"upstream {name} keeps failing: out of service for {out_for:g} s")
