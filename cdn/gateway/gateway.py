"""The life of one request: look up, decide, fill or forward, deliver.

Strategy: `answer_now` and `answer` are the one visible pipeline. `reuse.decide` returns the
decision as data; one `match` here performs it: `serving` out of the store, or `forwarding`. A
request waits for others at most twice (once more where it turns out to want another variant);
whoever waited in vain goes alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import assert_never

from cdn.gateway.asked import Asked, heard, nobody
from cdn.gateway.background import BackgroundTasks
from cdn.gateway.counters import GatewayCounters
from cdn.gateway.exchange import Answer, Exchange
from cdn.gateway.fallback import Fallback
from cdn.gateway.filling import Complain, Filling
from cdn.gateway.forwarding import Again, Forwarding
from cdn.gateway.hot import Repeats
from cdn.gateway.lookup import Lookup
from cdn.gateway.own_answers import own_error
from cdn.gateway.passing import PassingOn
from cdn.gateway.plain import PlainMisses
from cdn.gateway.seat import Seat
from cdn.gateway.services import ServiceTable
from cdn.gateway.serving import Serving
from cdn.gateway.workers import OneWorker, Tag, Workers
from cdn.semantics.cache_control import request_directives
from cdn.semantics.cache_key import key_of_url, normalize_target, primary_key
from cdn.semantics.forwarded import is_loop
from cdn.semantics.reuse import (
    CACHEABLE_METHODS,
    Decision,
    Forward,
    Fwd,
    Hit,
    OnlyIfCachedMiss,
    ServeStale,
)
from cdn.storage.store import Store

MOST_LOOKS = 8
"""Times that one request is decided on anew: each time something has changed, but not for ever."""


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
        trusts: Callable[[Exchange], bool] = nobody,
        complain: Complain = lambda _error, _url: None,
        workers: Workers = OneWorker(),  # noqa: B008  # has no state
    ) -> None:
        self.name = name
        self.counters = GatewayCounters()
        self.filling = Filling(name, store, clock, background, complain, workers.mine)
        self._clock = clock
        self.repeats = Repeats(
            name, services, store, self.filling.judge, clock,
            trusts=trusts, alone=isinstance(workers, OneWorker),
        )  # fmt: skip
        self._services = services
        self._trusts = trusts
        self._lookup = Lookup(store, self.filling.judge, clock)
        self._serving = Serving(
            name, store, clock, background, self.filling, self._lookup, self.repeats, workers.mine
        )
        put = self._serving.with_waiting
        fallback = Fallback(name, store, clock, complain, put, self.counters)
        self.misses = PlainMisses(self, store, clock, workers.mine)
        self._passing = PassingOn(
            name, store, clock, background, self.filling, fallback, workers, self.counters,
            self.repeats,
        )  # fmt: skip
        self._forwarding = Forwarding(
            name, clock, self.filling, self._lookup, self._serving, fallback, self._passing
        )

    @property
    def services(self) -> ServiceTable:
        return self._services

    @services.setter
    def services(self, services: ServiceTable) -> None:
        self._services = self.repeats.services = services
        self.repeats.all_changed()

    @property
    def trusts(self) -> Callable[[Exchange], bool]:
        return self._trusts

    @trusts.setter
    def trusts(self, trusts: Callable[[Exchange], bool]) -> None:
        self._trusts = self.repeats.trusts = trusts
        self.repeats.all_changed()

    @property
    def trusts_nobody(self) -> bool:
        """Whether every peer is a viewer."""
        return self._trusts is nobody

    # --- the pipeline ---------------------------------------------------------------------------

    def answer_now(self, exchange: Exchange) -> Answer | None:
        """See `Handler.answer_now`."""
        asked = self.ask(exchange)
        return asked if isinstance(asked, Answer) else self.answer_asked_now(asked)

    async def answer(self, exchange: Exchange) -> Answer:
        """See `Handler.answer`."""
        asked = self.ask(exchange)
        return asked if isinstance(asked, Answer) else await self.answer_asked(asked)

    def answer_asked_now(self, asked: Asked, owns: bool = True) -> Answer | None:
        """`answer_now` of what `ask` has let in. Where this worker does not own the key: only what
        is stored and needs nothing else."""
        if asked.exchange.content is not None or (looked := self._lookup.now(asked)) is None:
            return None
        match looked.decision:
            case _ if not (owns or _needs_nothing(looked.decision)):
                return None
            case Hit() | ServeStale() as use:
                answer = self._serving.now(asked, looked, use)
                return None if answer is None else self._finish(asked, answer)
            case OnlyIfCachedMiss():
                return self._finish(asked, self._only_if_cached(asked))
            case Forward():
                return None
            case _:
                assert_never(looked.decision)

    async def answer_asked(self, asked: Asked) -> Answer:
        """`answer` to what `ask` has let in."""
        return self._finish(asked, await self._answer(asked))

    async def answer_seated(self, asked: Asked, seat: Seat) -> Answer:
        """`answer` to what has gone up already, as nothing is stored of it; `seat` leads."""
        ended = await self._forwarding.seated(asked, Fwd.URI_MISS, None, seat, leads=True)
        if not isinstance(ended, Answer):
            ended = await self._answer(asked)
        return self._finish(asked, ended)

    async def answer_stored(self, asked: Asked) -> Answer | None:
        """An answer to what `ask` has let in that needs nothing but what is stored; else None."""
        if asked.exchange.content is not None:
            return None
        looked = await self._lookup.soon(asked)
        if not isinstance(looked.decision, Hit | ServeStale) or not _needs_nothing(looked.decision):
            return None
        answer = await self._serving.soon(asked, looked, looked.decision)
        return None if answer is None else self._finish(asked, answer)

    async def _answer(self, asked: Asked) -> Answer:
        if asked.exchange.content is not None or asked.request.method not in CACHEABLE_METHODS:
            reason = Fwd.BYPASS if asked.request.method in CACHEABLE_METHODS else Fwd.METHOD
            return await self._passing.answer(asked, reason, None)
        # What comes for one who forbids to store it (RFC 9111 §5.2.1.5) is for nobody who waits.
        obeyed = asked.service.policy.request_directives
        again = Again(alone=obeyed and request_directives(asked.request.fields).no_store)
        for _ in range(MOST_LOOKS):
            looked = await self._lookup.soon(asked)
            match looked.decision:
                case Hit() | ServeStale() as use:
                    answer = await self._serving.soon(asked, looked, use)
                    if answer is not None:
                        return answer
                case OnlyIfCachedMiss():
                    return self._only_if_cached(asked)
                case Forward() as forward:
                    ended = await self._forwarding.answer(asked, forward, looked, again)
                    if isinstance(ended, Answer):
                        return ended
                    alone = again.alone or ended.alone or again.nominated is not None
                    again = Again(ended.nominated, alone, again.as_is or ended.as_is)
                case _:
                    assert_never(looked.decision)
        return await self._passing.answer(asked, Fwd.MISS, None)

    # --- who asks, and whom for -----------------------------------------------------------------

    def ask(self, exchange: Exchange) -> Asked | Answer:
        """Who asks for what; the refusal of what is not to be answered here."""
        return self.ask_believed(heard(exchange, self._trusts))

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

    def _only_if_cached(self, asked: Asked) -> Answer:
        words = "not stored here, and the request asks for nothing else (only-if-cached)"
        return own_error(self.name, 504, words, self._clock(), method=asked.request.method)

    def _finish(self, asked: Asked, answer: Answer) -> Answer:
        answer.outcome.service = asked.service.name
        answer.outcome.client = asked.exchange.client
        return answer

    # --- purge ----------------------------------------------------------------------------------

    def purge(self, url: str, invalidation: str = "") -> int:
        """Removes a URL with all its variants; what is on its way will not be stored. Returns how
        many stored responses went. The key is barred until `lift` is told of the `invalidation`.
        Raises ValueError with words for the operator."""
        _, authority, _ = normalize_target(url)
        if self.services.match(authority) is None:
            raise ValueError(f"no delivery service is named {authority!r} here; see cdn status")
        key = key_of_url(url)
        removed = self._passing.remove(key)
        self.repeats.bar(key, invalidation)
        self.counters.purged += removed
        return removed

    async def forget(self, invalidation: str, keys: Iterable[bytes], tags: Collection[Tag]) -> None:
        """See `PassingOn.forget`."""
        await self._passing.forget(invalidation, keys, tags)

    def lift(self, invalidation: str, keys: Iterable[bytes]) -> None:
        """All workers have forgotten what that invalidation has outdated."""
        for key in keys:
            self.repeats.lift(key, invalidation)


def _needs_nothing(decision: Decision) -> bool:
    """Whether it can be performed without anything from upstream, now or in the background."""
    match decision:
        case Hit() | ServeStale(revalidate=False):
            return True
        case _:
            return False
