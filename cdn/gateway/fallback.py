"""When upstream fails: what is stored in its place, or the words for the client.

Strategy: `reuse.stale_on_error` says whether what is stored may be served; the error says what to
tell where it may not.
"""

from __future__ import annotations

from collections.abc import Callable

from cdn.gateway.answers import Put, from_store
from cdn.gateway.asked import Asked
from cdn.gateway.counters import GatewayCounters
from cdn.gateway.exchange import Answer
from cdn.gateway.own_answers import own_error
from cdn.semantics.message import Response
from cdn.semantics.reuse import CACHEABLE_METHODS, Fwd, stale_on_error
from cdn.storage.store import SliceUnavailable, Store, StoredObject
from cdn.upstream.errors import NoUpstreamLeft, UpstreamError

RETRY_AFTER = 10
"""Seconds told to a client when every upstream is out of service."""

STALE_IF_ERROR = frozenset({500, 502, 503, 504})
"""What counts as an error for stale-if-error (RFC 5861 §4)."""


class Fallback:
    """`name` is this node's; `put` gives the content of what is stored."""

    def __init__(
        self,
        name: str,
        store: Store,
        clock: Callable[[], float],
        complain: Callable[[UpstreamError, str], None],
        put: Callable[[Asked, StoredObject], Put],
        counters: GatewayCounters,
    ) -> None:
        self._counters = counters
        self._name = name
        self._store = store
        self._clock = clock
        self._complain = complain
        self._put = put

    def instead_of_error(
        self, asked: Asked, found: StoredObject | None, head: Response
    ) -> Answer | None:
        """What is stored, in place of a 5xx that came, where that is allowed."""
        if head.status not in STALE_IF_ERROR:
            return None
        # A shield that got no answer says so in Proxy-Status: then we are disconnected, too.
        disconnected = "error=" in (head.fields.get("proxy-status") or "")
        return self._stale(asked, found, disconnected, head.status, "stale-if-error")

    def failed(self, asked: Asked, found: StoredObject | None, error: UpstreamError) -> Answer:
        """The answer where none came."""
        self._complain(error, asked.request.url)
        if error.no_head:
            answer = self._stale(asked, found, True, None, error.proxy_error)
            if answer is not None:
                return answer
        return own_error(
            self._name,
            error.status,
            error.told,
            self._clock(),
            error=error.proxy_error,
            method=asked.request.method,
            retry_after=RETRY_AFTER if isinstance(error, NoUpstreamLeft) else None,
            source=error.endpoint,
        )

    def _stale(
        self,
        asked: Asked,
        found: StoredObject | None,
        disconnected: bool,
        fwd_status: int | None,
        detail: str,
    ) -> Answer | None:
        request, policy, now = asked.request, asked.service.policy, self._clock()
        if found is None or request.method not in CACHEABLE_METHODS:
            return None
        stale = stale_on_error(request, found.response, policy, now, disconnected)
        if stale is None:
            return None
        try:
            answer = from_store(
                self._name, request, self._put(asked, found), stale, policy, now,
                fwd=Fwd.STALE, fwd_status=fwd_status, detail=detail,
            )  # fmt: skip
        except SliceUnavailable:
            return None  # the store has just lost it
        if answer is not None:
            self._counters.stale_on_error += 1
            self._store.touch(found)
        return answer
