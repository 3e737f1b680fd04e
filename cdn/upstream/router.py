"""Where a miss goes next: what every router is and shares.

Strategy: a router knows names and addresses, never sockets: beneath it is a `Fetcher`. It decides
by the facts that each kind of error carries, and tells `HealthTracker` and its own counters what
happened. `origin_router.py` and `shield_router.py` hold the two kinds.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Protocol

from cdn.semantics.message import Request
from cdn.upstream.begun import Begun
from cdn.upstream.errors import UpstreamError
from cdn.upstream.exchange import (
    Deadlines,
    Endpoint,
    UpstreamRequest,
    UpstreamResponse,
    repeatable,
)
from cdn.upstream.health import HealthTracker


class Router(Protocol):
    """What a fill needs of the world upstream."""

    async def fetch(self, primary_key: bytes, request: UpstreamRequest) -> UpstreamResponse:
        """The response to `request`, from wherever `primary_key` belongs. Raises UpstreamError.

        Whoever gets the response reads it to its end or aborts it.
        """
        ...


class Upward:
    """What a request's field block is upstream: `lines` as they go on the wire, up to what is said
    of its viewer, and what follows that."""

    __slots__ = ("host", "lines", "rest")

    def __init__(self, lines: str, rest: str = "", host: str | None = None) -> None:
        self.lines = lines.encode("latin-1")
        self.rest = rest.encode("latin-1") + b"\r\n"
        self.host = host


class PromptRouter(Router, Protocol):
    """A router that can ask at once, where a kept connection is at hand."""

    def upward(self, head: Request) -> Upward:
        """What a GET with the fields of `head` brings up."""
        ...

    def begin(
        self, primary_key: bytes, target: bytes, upward: Upward, client: str, begun: Begun
    ) -> bool:
        """Sends it on its way. False: nothing was done, it takes a `fetch`."""
        ...

    def completed(self, begun: Begun) -> None:
        """The whole response has come, to nobody who took it over."""
        ...

    def given_up(self, begun: Begun) -> None:
        """Nobody will take it over."""
        ...

    async def fetch(
        self, primary_key: bytes, request: UpstreamRequest, begun: Begun | None = None
    ) -> UpstreamResponse:
        """As `Router.fetch`, where `begun` is what `begin` has begun of `request`."""
        ...


class Fetcher(Protocol):
    """What a router needs of the client beneath it."""

    def begin(
        self,
        endpoint: Endpoint,
        head: bytes,
        tls_name: str | None,
        deadlines: Deadlines,
        begun: Begun,
    ) -> bool:
        """Sends `head`, a GET without content, where that can be done at once."""
        ...

    async def fetch(
        self,
        endpoint: Endpoint,
        request: UpstreamRequest,
        deadlines: Deadlines,
        begun: Begun | None = None,
    ) -> UpstreamResponse:
        """The response head of one try at one endpoint, of the one `begun` if there is one. Raises
        UpstreamError."""
        ...


@dataclass(slots=True)
class RouterCounters:
    """Plain totals, collected at scrape."""

    requests: int = 0
    """Requests handed to the router."""

    retries: int = 0
    """Second tries, at another node or address."""

    resumed: int = 0
    """Contents that broke at one shield and went on from another."""

    fallbacks: int = 0
    """Requests that went past all shields."""

    failures: Counter[str] = field(default_factory=Counter)
    """Failures of a node itself, by its name."""


class Tries:
    """Single tries, with what they tell about a node's health."""

    def __init__(
        self,
        fetcher: Fetcher,
        health: HealthTracker,
        deadlines: Deadlines,
        counters: RouterCounters | None = None,
    ) -> None:
        self.health = health
        self.counters = RouterCounters() if counters is None else counters
        self._fetcher = fetcher
        self._deadlines = deadlines

    def begin(
        self, name: str, endpoint: Endpoint, head: bytes, tls_name: str | None, begun: Begun
    ) -> bool:
        """One try at the node `name`, where that can be done at once."""
        if not self._fetcher.begin(endpoint, head, tls_name, self._deadlines, begun):
            return False
        self.health.asking(name)
        begun.name = name
        self.counters.requests += 1
        return True

    async def ask(
        self,
        name: str,
        endpoint: Endpoint,
        request: UpstreamRequest,
        begun: Begun | None = None,
    ) -> UpstreamResponse:
        """One try at the node `name`, or what comes of the one `begun`. Raises UpstreamError."""
        try:
            if begun is None:
                self.health.asking(name)
                response = await self._fetcher.fetch(endpoint, request, self._deadlines)
            else:
                response = await self._fetcher.fetch(endpoint, request, self._deadlines, begun)
        except UpstreamError as error:
            if error.node_failed:
                self.failed(name)
            raise
        self.health.succeeded(name)
        return response

    def failed(self, name: str) -> None:
        """The node `name` failed."""
        self.counters.failures[name] += 1
        self.health.failed(name)


def may_retry(request: UpstreamRequest, error: UpstreamError) -> bool:
    """Whether another upstream may be asked after a `fetch` raised `error`."""
    return error.retry_elsewhere and repeatable(request)
