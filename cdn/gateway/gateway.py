"""The life of one request: look up, decide, fill or forward, deliver.

Strategy: `answer_now` and `answer` are the one visible pipeline. `reuse.decide` returns the
decision as data; one `match` here performs it. What may be shared goes through a fill, what may not
goes straight through. A request waits for others at most twice (once more where it turns out to
want another variant); whoever waited in vain goes alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import assert_never

from cdn.gateway.answers import from_fill, from_store, passed_on
from cdn.gateway.asked import Asked, believed, without_claims
from cdn.gateway.background import BackgroundTasks
from cdn.gateway.exchange import Answer, ContentCutShort, Exchange
from cdn.gateway.fill import Arrived, Failed, Freshened
from cdn.gateway.filling import Complain, Filling, FlightKey, Task
from cdn.gateway.forward import whole_request
from cdn.gateway.own_answers import own_error
from cdn.gateway.seat import Seat
from cdn.gateway.services import ServiceTable
from cdn.gateway.workers import OneWorker, Tag, Workers
from cdn.semantics.cache_control import request_directives
from cdn.semantics.cache_key import key_of_url, normalize_target, primary_key
from cdn.semantics.forwarded import is_loop
from cdn.semantics.freshness import current_age, freshness_lifetime
from cdn.semantics.groups import group_tags, invalidated_groups
from cdn.semantics.invalidation import invalidated_keys
from cdn.semantics.message import Response
from cdn.semantics.reuse import (
    CACHEABLE_METHODS,
    Decision,
    Forward,
    Fwd,
    Hit,
    OnlyIfCachedMiss,
    ServeStale,
    decide,
    stale_on_error,
)
from cdn.semantics.stored_response import StoredResponse
from cdn.semantics.storing import may_store, may_update
from cdn.semantics.validation import freshen, head_matches
from cdn.semantics.vary import select, variant_key, variant_matches
from cdn.storage.store import Store, StoredObject
from cdn.upstream.errors import NoUpstreamLeft, UpstreamError
from cdn.upstream.exchange import UpstreamResponse

RETRY_AFTER = 10
"""Seconds told to a client when every upstream is out of service."""

STALE_IF_ERROR = frozenset({500, 502, 503, 504})
"""What counts as an error for stale-if-error (RFC 5861 §4)."""


@dataclass(slots=True)
class GatewayCounters:
    """Plain counts, collected at scrape."""

    invalidated: int = 0
    purged: int = 0
    stale_on_error: int = 0


@dataclass(frozen=True, slots=True)
class Again:
    """Look again: the store has changed, or the answer was not for this request. `nominated`:
    what the response turned out to vary on; `alone`: no more waiting for others."""

    nominated: tuple[str, ...] | None = None
    alone: bool = False


class Gateway:
    """`name` is this node's name in Via, Cache-Status and CDN-Loop. `trusts` tells whether an
    exchange's peer is one of our own downstream nodes; `complain` hears of every upstream that
    failed a request; `workers` are the others of this node. `services` is swapped whole at
    reload."""

    def __init__(
        self,
        *,
        name: str,
        services: ServiceTable,
        store: Store,
        clock: Callable[[], float],
        background: BackgroundTasks,
        trusts: Callable[[Exchange], bool] = lambda _: False,
        complain: Complain = lambda _error, _url: None,
        workers: Workers = OneWorker(),  # noqa: B008  # has no state
    ) -> None:
        self.name = name
        self.services = services
        self.trusts = trusts
        self.counters = GatewayCounters()
        self.filling = Filling(name, store, clock, background, complain, workers.mine)
        self._store = store
        self._clock = clock
        self._background = background
        self._complain = complain
        self._workers = workers

    # --- the pipeline ---------------------------------------------------------------------------

    def answer_now(self, exchange: Exchange) -> Answer | None:
        """See `Handler.answer_now`."""
        asked = self.ask(exchange)
        return asked if isinstance(asked, Answer) else self.answer_asked_now(asked)

    async def answer(self, exchange: Exchange) -> Answer:
        """See `Handler.answer`."""
        asked = self.ask(exchange)
        return asked if isinstance(asked, Answer) else await self.answer_asked(asked)

    def answer_asked_now(self, asked: Asked) -> Answer | None:
        """`answer_now` of what `ask` has let in."""
        if asked.exchange.content is not None:
            return None
        decision, found = self._decide(asked)
        match decision:
            case Hit() | ServeStale():
                return self._finish(asked, self._serve(asked, found, decision))
            case OnlyIfCachedMiss():
                return self._finish(asked, self._only_if_cached(asked))
            case Forward():
                return None
            case _:
                assert_never(decision)

    async def answer_asked(self, asked: Asked) -> Answer:
        """`answer` to what `ask` has let in."""
        return self._finish(asked, await self._answer(asked))

    async def _answer(self, asked: Asked) -> Answer:
        if asked.exchange.content is not None or asked.request.method not in CACHEABLE_METHODS:
            reason = Fwd.BYPASS if asked.request.method in CACHEABLE_METHODS else Fwd.METHOD
            return await self._pass_on(asked, reason, None)
        nominated: tuple[str, ...] | None = None
        # What comes for one who forbids to store it (RFC 9111 §5.2.1.5) is for nobody who waits.
        obeyed = asked.service.policy.request_directives
        alone = obeyed and request_directives(asked.request.fields).no_store
        while True:
            decision, found = self._decide(asked)
            match decision:
                case Hit() | ServeStale():
                    return self._serve(asked, found, decision)
                case OnlyIfCachedMiss():
                    return self._only_if_cached(asked)
                case Forward(reason=reason, validate=validate):
                    if self._goes_through(asked, reason, validate):
                        return await self._pass_on(asked, reason, found)
                    flight = None if alone else self._flight(asked, found, nominated)
                    ended = await self._fill(asked, reason, found, flight)
                    if isinstance(ended, Answer):
                        return ended
                    alone = alone or ended.alone or nominated is not None
                    nominated = ended.nominated
                case _:
                    assert_never(decision)

    def _decide(self, asked: Asked) -> tuple[Decision, StoredObject | None]:
        policy = asked.service.policy
        variants = self._variants(asked)
        found = select(variants, asked.request.fields, policy.normalize_vary)
        stored = None if found is None else found.response
        return decide(asked.request, stored, policy, self._clock(), bool(variants)), found

    def _variants(self, asked: Asked) -> Sequence[StoredObject]:
        """What is stored for the request's URL, under the name where there is something."""
        for name in self.filling.names(asked.key):
            variants = self._store.lookup(name)
            if any(variant.response.groups for variant in variants):
                variants = [variant for variant in variants if not self._outdated(variant)]
            if variants:
                return variants
        return ()

    def _outdated(self, stored: StoredObject) -> bool:
        response = stored.response
        tags = group_tags(response.primary_key, response.groups)
        return self.filling.epochs.outdated(tags, response.stamp)

    # --- who asks, and whom for -----------------------------------------------------------------

    def ask(self, exchange: Exchange) -> Asked | Answer:
        """Who asks for what; the refusal of what is not to be answered here."""
        if self.trusts(exchange):
            exchange = believed(exchange)
        elif "surrogate-capability" in exchange.request.fields:
            exchange = without_claims(exchange)
        return self.ask_believed(exchange)

    def ask_believed(self, exchange: Exchange) -> Asked | Answer:
        """The same of an exchange that says the truth about its viewer."""
        request = exchange.request
        service = self.services.match(request.authority)
        if not request.authority:
            return self._refuse(exchange, 400, "no Host: say which site the request is for")
        if service is None:
            words = f"no delivery service is named {request.authority!r} here"
            return self._refuse(exchange, 421, words, "destination_not_found")
        if is_loop(request.fields, self.name):
            words = "the request came back to where it had been: upstream leads round in a circle"
            return self._refuse(exchange, 508, words, "proxy_loop_detected")
        return Asked(exchange, service, primary_key(request))

    def _refuse(
        self, exchange: Exchange, status: int, words: str, error: str = "http_request_error"
    ) -> Answer:
        method = exchange.request.method
        return own_error(self.name, status, words, self._clock(), error=error, method=method)

    def _finish(self, asked: Asked, answer: Answer) -> Answer:
        answer.outcome.service = asked.service.name
        answer.outcome.client = asked.exchange.client
        return answer

    # --- out of the store -----------------------------------------------------------------------

    def _serve(
        self, asked: Asked, found: StoredObject | None, decision: Hit | ServeStale
    ) -> Answer:
        assert found is not None
        self._store.touch(found)
        if isinstance(decision, ServeStale) and decision.revalidate:
            self._revalidate(asked, found)
        policy, now = asked.service.policy, self._clock()
        return from_store(self.name, asked.request, found, decision, policy, now)

    def _only_if_cached(self, asked: Asked) -> Answer:
        words = "not stored here, and the request asks for nothing else (only-if-cached)"
        return own_error(self.name, 504, words, self._clock(), method=asked.request.method)

    def _revalidate(self, asked: Asked, stale: StoredObject) -> None:
        flight = self._flight(asked, stale, None)
        if self.filling.is_under_way(flight):
            return
        unseen = replace(asked, exchange=replace(asked.exchange, send_interim=None))
        seat, _ = self.filling.join(flight, unseen.task(stale))
        self._background.start(_read_for_the_store(seat), "revalidation")

    # --- upstream -------------------------------------------------------------------------------

    def _goes_through(self, asked: Asked, reason: Fwd, validate: StoredResponse | None) -> bool:
        """Whether the request goes up as it is: HEAD, and ranges that the whole is no way to, or
        that begin where a stored part ends."""
        if asked.request.method == "HEAD":
            return True
        if "range" not in asked.request.fields or validate is not None:
            return False
        return reason is Fwd.PARTIAL or asked.seeks or self.filling.marked(asked.key)

    def _flight(
        self, asked: Asked, found: StoredObject | None, nominated: tuple[str, ...] | None
    ) -> FlightKey:
        if nominated is None and (variants := self._variants(asked)):
            latest = found or max(variants, key=lambda variant: variant.response_time)
            nominated = tuple(name for name, _ in latest.variant)
        fields = asked.request.fields
        normalize = asked.service.policy.normalize_vary
        variant = None if nominated is None else variant_key(nominated, fields, normalize)
        name = self.filling.names(asked.key)[0]
        return FlightKey(name, variant, "authorization" in fields)

    async def _fill(
        self,
        asked: Asked,
        reason: Fwd,
        found: StoredObject | None,
        flight: FlightKey | None,
    ) -> Answer | Again:
        """Through a fill: led, joined, or alone where `flight` is None."""
        task = asked.task(found)
        if flight is None or self.filling.marked(asked.key):
            seat, leads = self.filling.alone(task), True
        else:
            seat, leads = self.filling.join(flight, task)
        seated = False
        try:
            head = await seat.head()
            match head:
                case Failed(error=error):
                    return self._failed(asked, found, error)
                case Freshened(stored=fresh):
                    if not leads or found is None:
                        return Again(alone=True)
                    return self._validated(asked, reason, found, fresh)
                case Arrived():
                    if (answer := self._instead_of_error(asked, found, head.response)) is not None:
                        return answer
                    if not leads and (again := self._not_for(asked, head)) is not None:
                        return again
                    seated = True
                    return from_fill(
                        self.name, asked.request, seat, head, asked.service.policy, self._clock(),
                        fwd=reason, leads=leads,
                    )  # fmt: skip
                case _:
                    assert_never(head)
        finally:
            if not seated:
                seat.leave()

    def _validated(
        self, asked: Asked, reason: Fwd, found: StoredObject, fresh: StoredResponse
    ) -> Answer:
        policy, now = asked.service.policy, self._clock()
        age = current_age(fresh, now)
        use = Hit(fresh, age, freshness_lifetime(fresh, policy) - age)
        return from_store(
            self.name, asked.request, found, use, policy, now, fwd=reason, fwd_status=304
        )

    def _not_for(self, asked: Asked, head: Arrived) -> Again | None:
        """Why a follower cannot have what the leader got."""
        if not head.shareable:
            return Again(alone=True)
        fields, normalize = asked.request.fields, asked.service.policy.normalize_vary
        if not variant_matches(head.stored.variant, fields, normalize):
            return Again(nominated=tuple(name for name, _ in head.stored.variant))
        decision = decide(asked.request, head.stored, asked.service.policy, self._clock())
        return Again(alone=True) if isinstance(decision, Forward) else None

    async def _pass_on(self, asked: Asked, reason: Fwd, found: StoredObject | None) -> Answer:
        task = asked.task(found, as_is=True)
        asked_at = self._clock()
        try:
            response, passing = await self.filling.fetch_passing(task, asked.request)
        except UpstreamError as error:
            return self._failed(asked, found, error)
        if (answer := self._instead_of_error(asked, found, response.head)) is not None:
            response.abort()
            return answer
        head = self.filling.received(response.head)
        current = self.filling.is_current(passing, head)
        try:
            await self._invalidate(asked, head)
        except BaseException:
            response.abort()
            raise
        if current and _may_be_carried(asked, head):
            carried = await self._carry(task, response, head, asked_at, reason)
            if carried is not None:
                return carried
        if asked.request.method == "HEAD" and found is not None and head.status == 200:
            self._update_by_head(asked, found, head, response)
        policy = asked.service.policy
        carried_on = self.filling.relayed(task, response)
        return passed_on(self.name, asked.request, head, response, carried_on, policy, fwd=reason)

    async def _invalidate(self, asked: Asked, head: Response) -> None:
        # RFC 9111 §4.4: before the answer goes down, nothing outdated is left to be served.
        keys = invalidated_keys(asked.request, head)
        tags = group_tags(asked.key, invalidated_groups(asked.request, head))
        if keys or tags:
            self.forget(keys, tags)
            # Done to its end, even where the client goes away.
            telling = self._workers.forget(keys, tags)
            await asyncio.shield(self._background.start(telling, "invalidation"))

    def forget(self, keys: Iterable[bytes], tags: Iterable[Tag]) -> None:
        """An unsafe method has outdated these; only what this worker holds is removed."""
        for key in keys:
            self.counters.invalidated += self._remove(key)
        self.filling.epochs.purge(tags)

    async def _carry(
        self, task: Task, response: UpstreamResponse, head: Response, asked_at: float, fwd: Fwd
    ) -> Answer | None:
        """Through a fill after all, where what came for one may be stored for others: a part of
        the whole, or what POST says is now there. None where it may not."""
        policy = task.service.policy
        if may_store(task.request, head, policy) is not None:
            return None
        seat = self.filling.carry(task, response, asked_at)
        try:
            arrived = await seat.head()
        except BaseException:
            seat.leave()
            raise
        assert isinstance(arrived, Arrived)
        # Its conditions have been met upstream.
        request = replace(whole_request(task.request, None), method="GET")
        return from_fill(
            self.name, request, seat, arrived, policy, self._clock(), fwd=fwd, leads=True
        )

    def _update_by_head(
        self, asked: Asked, found: StoredObject, head: Response, response: UpstreamResponse
    ) -> None:
        # RFC 9111 §4.3.5: a HEAD freshens the stored GET response, or shows that it is outdated.
        if not may_update(asked.request, head, asked.service.policy):
            return
        if head_matches(found.response, head, response.length):
            now = self._clock()
            asked_at = min(now, asked.exchange.arrived)
            self._store.freshen(found, freshen(found.response, head, asked_at, now))
        else:
            self.counters.invalidated += self._remove(asked.key)

    # --- when upstream fails --------------------------------------------------------------------

    def _instead_of_error(
        self, asked: Asked, found: StoredObject | None, head: Response
    ) -> Answer | None:
        """What is stored, in place of a 5xx that came, where that is allowed."""
        if head.status not in STALE_IF_ERROR:
            return None
        # A shield that got no answer says so in Proxy-Status: then we are disconnected, too.
        disconnected = "error=" in (head.fields.get("proxy-status") or "")
        return self._stale(asked, found, disconnected, head.status, "stale-if-error")

    def _failed(self, asked: Asked, found: StoredObject | None, error: UpstreamError) -> Answer:
        self._complain(error, asked.request.url)
        if error.no_head:
            answer = self._stale(asked, found, True, None, error.proxy_error)
            if answer is not None:
                return answer
        return own_error(
            self.name,
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
        self.counters.stale_on_error += 1
        self._store.touch(found)
        return from_store(
            self.name, request, found, stale, policy, now,
            fwd=Fwd.STALE, fwd_status=fwd_status, detail=detail,
        )  # fmt: skip

    # --- purge ----------------------------------------------------------------------------------

    def purge(self, url: str) -> int:
        """Removes a URL with all its variants; what is on its way will not be stored. Returns how
        many stored responses went. Raises ValueError with words for the operator."""
        _, authority, _ = normalize_target(url)
        if self.services.match(authority) is None:
            raise ValueError(f"no delivery service is named {authority!r} here; see cdn status")
        removed = self._remove(key_of_url(url))
        self.counters.purged += removed
        return removed

    def _remove(self, key: bytes) -> int:
        self.filling.disown(key)
        return sum(map(self._store.remove, self.filling.names(key)))


def _may_be_carried(asked: Asked, head: Response) -> bool:
    """Whether an answer to a request that went up as it was could be stored: a part of what GET
    would bring, or all of it, or what POST has put there."""
    if head.status not in (200, 206):
        return False
    method, content = asked.request.method, asked.exchange.content
    return method == "POST" or (method == "GET" and content is None)


async def _read_for_the_store(seat: Seat) -> None:
    """Holds a fill open to its end for nobody but the store."""
    try:
        head = await seat.head()
        if isinstance(head, Arrived):
            while seat.for_the_store and await seat.read():
                pass
    except ContentCutShort:
        pass  # what was stored stays, and the next request tries again
    finally:
        seat.leave()
