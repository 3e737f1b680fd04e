"""To the origin shields, along the ring.

Strategy: a primary key's owner on the ring is asked; one that is out of service or overloaded is
passed over for the next in ring order. One retry at another shield, then the origin directly if
that is allowed. A content that breaks in the middle goes on from another shield (`resume.py`).
In-flight requests are counted here, from the try to the end of the content.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from ipaddress import ip_address

from cdn.hashing.ring import BUSY, HashRing, overloaded
from cdn.semantics.message import FieldLine, Fields, Request, Response
from cdn.upstream.begun import Begun
from cdn.upstream.errors import NoUpstreamLeft, UpstreamError
from cdn.upstream.exchange import (
    Deadlines,
    Endpoint,
    UpstreamRequest,
    UpstreamResponse,
    repeatable,
)
from cdn.upstream.health import HealthTracker
from cdn.upstream.http1 import encode_fields
from cdn.upstream.resume import Remainder, ResumingResponse
from cdn.upstream.router import (
    Fetcher,
    Router,
    RouterCounters,
    Tries,
    Upward,
    may_retry,
)

SHIELD_DEADLINES = Deadlines(connect=3.0, first_byte=40.0, idle=30.0)
"""The first byte may take longer than all tries of the shield together: a slow origin is not taken
for a dead shield."""

REMEMBERED = 256
"""Field blocks whose form for shields is kept."""

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110 §5.6.2


class ShieldRouter:
    """A `Router` to shields by name; a response's `source` is that name."""

    def __init__(
        self,
        fetcher: Fetcher,
        shields: Mapping[str, Endpoint],
        weights: Mapping[str, float],
        health: HealthTracker,
        deadlines: Deadlines = SHIELD_DEADLINES,
        *,
        fields: Sequence[FieldLine] = (),
        fallback: Router | None = None,
        in_flight: Counter[str] | None = None,
        counters: RouterCounters | None = None,
    ) -> None:
        """`fields` (such as the shared secret) are told to shields only, never to `fallback`.
        `in_flight` (requests per shield, from the try to the end of the content) and `counters` are
        those to go on with: several routers of one node may share them.
        Raises ValueError where `shields` and `weights` do not name the same nodes, or none."""
        if shields.keys() != weights.keys():
            odd = ", ".join(sorted(shields.keys() ^ weights.keys()))
            raise ValueError(f"shields: {odd}: give each shield both an endpoint and a weight")
        self._tries = Tries(fetcher, health, deadlines, counters)
        self._shields = dict(shields)
        self._weights = dict(weights)
        self._ring = HashRing(weights)
        self._only = next(iter(shields)) if len(shields) == 1 else None
        self._fields = tuple(fields)
        self._own_names = frozenset(("forwarded", *(name.lower() for name, _ in fields)))
        # A viewer repeats its fields from request to request.
        self._told = lru_cache(REMEMBERED)(self._introduce)
        self._fallback = fallback
        self.in_flight = Counter() if in_flight is None else in_flight

    @property
    def counters(self) -> RouterCounters:
        return self._tries.counters

    def upward(self, head: Request) -> Upward:
        """See `PromptRouter.upward`."""
        fields = head.fields.without(self._own_names).adding(*self._fields)
        _, _, rest = forwarded(head, None).partition(";")
        lines = encode_fields(head.with_fields(fields))
        return Upward(f"{lines}Forwarded: for=", f";{rest}\r\n")

    def begin(
        self, primary_key: bytes, target: bytes, upward: Upward, client: str, begun: Begun
    ) -> bool:
        """See `PromptRouter.begin`."""
        name = self._next(primary_key)
        if name is None:
            return False
        asker = _client(client).encode("latin-1")
        head = b"GET %b HTTP/1.1\r\n%b%b%b" % (target, upward.lines, asker, upward.rest)
        if not self._tries.begin(name, self._shields[name], head, None, begun):
            return False
        self.in_flight[name] += 1
        return True

    def completed(self, begun: Begun) -> None:
        """See `PromptRouter.completed`."""
        self._tries.health.succeeded(begun.name)
        self.in_flight[begun.name] -= 1

    def given_up(self, begun: Begun) -> None:
        """See `PromptRouter.given_up`."""
        self.in_flight[begun.name] -= 1

    async def fetch(
        self, primary_key: bytes, request: UpstreamRequest, begun: Begun | None = None
    ) -> UpstreamResponse:
        """Raises the last try's UpstreamError, NoUpstreamLeft where every shield is out."""
        if begun is None:
            self.counters.requests += 1
        upward = self._introduced(request)
        try:
            answer = await self._ask_along_ring(primary_key, upward, begun)
        except UpstreamError as error:
            lost = isinstance(error, NoUpstreamLeft) or may_retry(request, error)
            if self._fallback is None or not lost:
                raise
            self.counters.fallbacks += 1
            return await self._fallback.fetch(primary_key, request)
        return self._resuming(primary_key, upward, answer)

    async def _ask_along_ring(
        self, primary_key: bytes, request: UpstreamRequest, begun: Begun | None
    ) -> UpstreamResponse:
        first = self._next(primary_key) if begun is None else begun.name
        if first is None:
            raise NoUpstreamLeft(", ".join(self._shields), "every shield is out of service")
        try:
            answer = await self._ask(first, request, begun)
        except UpstreamError as error:
            if not may_retry(request, error):
                raise
            second = self._next(primary_key, first)
            if second is None:
                raise self._lost(error) from error
            return await self._ask_last(second, request)
        if sheds_load(answer.head) and repeatable(request):
            second = self._next(primary_key, first)
            if second is not None:
                self.counters.retries += 1
                return await self._ask_instead(second, request, answer)
        return answer

    async def _ask_last(self, name: str, request: UpstreamRequest) -> UpstreamResponse:
        """One retry; where that fails as well and there are no more, every shield is lost."""
        self.counters.retries += 1
        try:
            return await self._ask(name, request)
        except UpstreamError as error:
            if len(self._shields) > 2 or not may_retry(request, error):
                raise
            raise self._lost(error) from error

    def _lost(self, error: UpstreamError) -> NoUpstreamLeft:
        return NoUpstreamLeft(", ".join(self._shields), f"no shield answers; the last: {error}")

    async def _ask_instead(
        self, name: str, request: UpstreamRequest, refusal: UpstreamResponse
    ) -> UpstreamResponse:
        """The answer of the shield `name`; the `refusal` that we have, if it gives none."""
        try:
            answer = await self._ask(name, request)
        except UpstreamError:
            return refusal
        except BaseException:
            refusal.abort()
            raise
        refusal.abort()
        return answer

    async def _ask(
        self, name: str, request: UpstreamRequest, begun: Begun | None = None
    ) -> UpstreamResponse:
        if begun is None:
            self.in_flight[name] += 1
        try:
            response = await self._tries.ask(name, self._shields[name], request, begun)
        except BaseException:
            self.in_flight[name] -= 1
            raise
        return _InFlight(response, name, request.head.method, self._one_less)

    def _one_less(self, name: str) -> None:
        self.in_flight[name] -= 1

    def _next(self, primary_key: bytes, past: str | None = None) -> str | None:
        """The shield to ask, None where all (but `past`) are out. When all are overloaded none
        is: there is nobody to relieve the owner."""
        health, only = self._tries.health, self._only
        owner = only or self._ring.owner(primary_key)
        if owner != past and health.usable(owner) and (only or self.in_flight[owner] <= BUSY):
            return owner
        if only:
            return None
        usable = [
            name for name in self._ring.owners(primary_key) if name != past and health.usable(name)
        ]
        weights = {name: self._weights[name] for name in usable}
        for name in usable:
            if not overloaded(name, self.in_flight, weights):
                return name
        return usable[0] if usable else None

    def _resuming(
        self, primary_key: bytes, request: UpstreamRequest, answer: UpstreamResponse
    ) -> UpstreamResponse:
        whole = Remainder.of(request.head.method, answer.head, answer.length)
        if whole is None:
            return answer

        async def go_on(missing: Remainder) -> UpstreamResponse | None:
            other = self._next(primary_key, answer.source)
            if other is None:
                return None
            head = missing.request(request.head)
            try:
                rest = await self._ask(other, replace(request, head=head, on_interim=None))
            except UpstreamError:
                return None
            if not missing.is_whole(rest.head, rest.length):
                rest.abort()
                return None
            # Only now: a shield also cuts short what its origin cut short, and a provider's broken
            # origin must not put shields out for all. Its death shows when another can go on.
            self._tries.failed(answer.source)
            self.counters.resumed += 1
            return rest

        return ResumingResponse(answer, whole, go_on)

    def _introduced(self, request: UpstreamRequest) -> UpstreamRequest:
        """`request` as shields see it. A TLS name, if any, is the origin's, not the shield's."""
        head = request.head
        fields = self._told(head.fields, forwarded(head, request.client))
        return UpstreamRequest(
            head.with_fields(fields),
            request.content,
            request.content_length,
            request.on_interim,
            None,
            request.client,
        )

    def _introduce(self, fields: Fields, asker: str) -> Fields:
        return fields.without(self._own_names).adding(*self._fields, ("Forwarded", asker))


class _InFlight:
    """A shield's answer, which gives its place in the count back once."""

    def __init__(
        self, response: UpstreamResponse, name: str, method: str, done: Callable[[str], None]
    ) -> None:
        self._response = response
        self._done: Callable[[str], None] | None = done
        self.source = name
        # Nobody need read where no content will come (RFC 9112 §6.3).
        if method == "HEAD" or response.head.status in (204, 304) or response.length == 0:
            self._end()

    @property
    def head(self) -> Response:
        return self._response.head

    @property
    def length(self) -> int | None:
        return self._response.length

    async def read(self) -> bytes:
        try:
            piece = await self._response.read()
        except UpstreamError:
            self._end()
            raise
        if not piece:
            self._end()
        return piece

    def abort(self) -> None:
        self._response.abort()
        self._end()

    def _end(self) -> None:
        done, self._done = self._done, None
        if done is not None:
            done(self.source)


def sheds_load(head: Response) -> bool:
    """Whether a shield's answer says that the shield itself has too much to do.

    A 503 that it relays or has stored bears its Cache-Status (RFC 9211 §2); one that it makes
    because of its upstream is explained by Proxy-Status (RFC 9209 §2). Neither would be cured at
    another shield, whose asking costs the origin a fetch. A 503 without both comes from whatever
    stands before the shield's cache.
    """
    known = head.fields.names()
    return head.status == 503 and "cache-status" not in known and "proxy-status" not in known


def forwarded(head: Request, client: str | None) -> str:
    """The Forwarded element (RFC 7239 §4) that tells for whom, how and for which host we ask."""
    return f"for={_client(client)};proto={head.scheme};host={_value(head.authority)}"


def _value(text: str) -> str:
    """A token, or a quoted-string: a colon (a port, an IPv6 address) is no token character."""
    if _TOKEN.fullmatch(text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


@lru_cache(REMEMBERED)
def _client(client: str | None) -> str:
    return _value(_node(client))


def _node(client: str | None) -> str:
    """RFC 7239 §6: IPv6 in brackets, "unknown" for what is no address (a Unix socket). A zone
    means nothing to others, and the grammar has no place for it."""
    try:
        address = ip_address((client or "").partition("%")[0])
    except ValueError:
        return "unknown"
    return str(address) if address.version == 4 else f"[{address}]"
