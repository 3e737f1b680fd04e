"""Straight to a content provider's origin.

Strategy: the addresses in the order of configuration, healthy ones first, one retry at the next.
An address that is out of service is still asked when nothing better is left: an origin has no
substitute, and three resets among thousands of answers must not take a provider off the air.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cdn.semantics.message import Request
from cdn.upstream.begun import Begun
from cdn.upstream.errors import UpstreamError
from cdn.upstream.exchange import Deadlines, Endpoint, UpstreamRequest, UpstreamResponse
from cdn.upstream.health import HealthTracker
from cdn.upstream.http1 import encode_fields
from cdn.upstream.router import Fetcher, RouterCounters, Tries, Upward, may_retry

ORIGIN_DEADLINES = Deadlines(connect=3.0, first_byte=15.0, idle=30.0)


class OriginRouter:
    """A `Router` to one origin. In `health` an address is called by its `str(Endpoint)`."""

    def __init__(
        self,
        fetcher: Fetcher,
        endpoints: Sequence[Endpoint],
        health: HealthTracker,
        deadlines: Deadlines = ORIGIN_DEADLINES,
        *,
        host: str | None = None,
        counters: RouterCounters | None = None,
    ) -> None:
        """`host` is asked for in place of the viewer's Host, and its name (without a port) is then
        sent as SNI and verified; by default each endpoint's own host is. `counters` are those to go
        on with. Raises ValueError where `endpoints` is empty."""
        if not endpoints:
            raise ValueError("origin: no addresses; give at least one endpoint")
        self._tries = Tries(fetcher, health, deadlines, counters)
        self._endpoints = tuple((str(endpoint), endpoint) for endpoint in endpoints)
        self._host = host

    @property
    def counters(self) -> RouterCounters:
        return self._tries.counters

    def upward(self, head: Request) -> Upward:
        """See `PromptRouter.upward`."""
        return Upward(encode_fields(self._with_host(head)), host=self._tls_name)

    def begin(
        self, primary_key: bytes, target: bytes, upward: Upward, client: str, begun: Begun
    ) -> bool:
        """See `PromptRouter.begin`."""
        name, endpoint = self._endpoints[0]
        if len(self._endpoints) > 1:
            name, endpoint = min(self._endpoints, key=self._is_out)
        head = b"GET %b HTTP/1.1\r\n%b%b" % (target, upward.lines, upward.rest)
        return self._tries.begin(name, endpoint, head, upward.host, begun)

    def completed(self, begun: Begun) -> None:
        """See `PromptRouter.completed`."""
        self._tries.health.succeeded(begun.name)

    def given_up(self, begun: Begun) -> None:
        """See `PromptRouter.given_up`."""

    def _with_host(self, head: Request) -> Request:
        if self._host is None:
            return head
        return head.with_fields(head.fields.replacing("Host", self._host))

    @property
    def _tls_name(self) -> str | None:
        return None if self._host is None else _name(self._host)

    async def fetch(
        self, primary_key: bytes, request: UpstreamRequest, begun: Begun | None = None
    ) -> UpstreamResponse:
        """Raises the last try's UpstreamError."""
        if self._host is not None:
            request = replace(request, head=self._with_host(request.head), tls_name=self._tls_name)
        first, *others = sorted(self._endpoints, key=self._is_out)
        if begun is None:
            self.counters.requests += 1
        else:  # `first` may be another by now
            others = [named for named in (first, *others) if named[0] != begun.name]
            first = next(named for named in self._endpoints if named[0] == begun.name)
        try:
            return await self._tries.ask(*first, request, begun)
        except UpstreamError as error:
            if not others or not may_retry(request, error):
                raise
        self.counters.retries += 1
        return await self._tries.ask(*others[0], request)

    def _is_out(self, named: tuple[str, Endpoint]) -> bool:
        return not self._tries.health.usable(named[0])


def _name(host: str) -> str:
    return host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
