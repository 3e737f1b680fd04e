"""The life of one request: look up, decide, fill or forward, deliver.

Strategy: `answer_now` and `answer` are the one visible pipeline. `reuse.decide` returns the
decision as data; one `match` here performs it. What may be shared goes through a fill, of the whole
or of one slice, what may not goes straight through. A request waits for others at most twice (once
more where it turns out to want another variant); whoever waited in vain goes alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import assert_never

from cdn.gateway.answers import Put, at_once, from_fill, from_part, from_slices, from_store
from cdn.gateway.asked import Asked, heard, nobody
from cdn.gateway.background import BackgroundTasks
from cdn.gateway.counters import GatewayCounters
from cdn.gateway.exchange import Answer, Content, Exchange
from cdn.gateway.fallback import Fallback
from cdn.gateway.fill import Arrived, Failed, Freshened, NotASlice
from cdn.gateway.filling import Complain, Filling
from cdn.gateway.flights import FlightKey, Task
from cdn.gateway.gathering import Gathered, Stored
from cdn.gateway.hot import Repeatable, Repeats
from cdn.gateway.lookup import Looked, Lookup
from cdn.gateway.own_answers import own_error
from cdn.gateway.passing import PassingOn
from cdn.gateway.plain import PlainMisses
from cdn.gateway.reading_ahead import ReadingAhead
from cdn.gateway.seat import Seat, read_for_the_store
from cdn.gateway.services import ServiceTable
from cdn.gateway.slicing import has_slices, wanted_slice
from cdn.gateway.workers import OneWorker, Tag, Workers
from cdn.semantics.cache_control import request_directives
from cdn.semantics.cache_key import key_of_url, normalize_target, primary_key
from cdn.semantics.delivery import Segment
from cdn.semantics.forwarded import is_loop
from cdn.semantics.freshness import current_age, freshness_lifetime
from cdn.semantics.ranges import ByteRange
from cdn.semantics.reuse import (
    CACHEABLE_METHODS,
    Decision,
    Forward,
    Fwd,
    Hit,
    OnlyIfCachedMiss,
    ServeStale,
    decide,
)
from cdn.semantics.stored_response import StoredResponse
from cdn.semantics.vary import variant_matches
from cdn.storage.store import Piece, SliceUnavailable, Store, StoredObject

MOST_LOOKS = 8
"""Times that one request is decided on anew: each time something has changed, but not for ever."""


@dataclass(frozen=True, slots=True)
class Again:
    """Look again: the store has changed, or the answer was not for this request. `nominated`:
    what the response turned out to vary on; `alone`: no more waiting for others; `as_is`: nor
    asking for slices."""

    nominated: tuple[str, ...] | None = None
    alone: bool = False
    as_is: bool = False


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
        self._store = store
        self._clock = clock
        self._background = background
        self._ahead = ReadingAhead(self.filling, background, workers.mine)
        self.repeats = Repeats(
            name, services, store, self.filling.judge, clock,
            trusts=trusts, alone=isinstance(workers, OneWorker),
        )  # fmt: skip
        self._services = services
        self._trusts = trusts
        self._lookup = Lookup(store, self.filling.judge, clock)
        self._fallback = Fallback(name, store, clock, complain, self._with_waiting, self.counters)
        self.misses = PlainMisses(self, store, clock, workers.mine)
        self._passing = PassingOn(
            name, store, clock, background, self.filling, self._fallback, workers, self.counters,
            self.repeats,
        )  # fmt: skip

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
                answer = self._serve_now(asked, looked, use)
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
        ended = await self._seated(asked, Fwd.URI_MISS, None, seat, leads=True)
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
        answer = await self._serve(asked, looked, looked.decision)
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
                    answer = await self._serve(asked, looked, use)
                    if answer is not None:
                        return answer
                case OnlyIfCachedMiss():
                    return self._only_if_cached(asked)
                case Forward() as forward:
                    ended = await self._forward(asked, forward, looked, again)
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

    def _finish(self, asked: Asked, answer: Answer) -> Answer:
        answer.outcome.service = asked.service.name
        answer.outcome.client = asked.exchange.client
        return answer

    # --- out of the store -----------------------------------------------------------------------

    def _serve_now(self, asked: Asked, looked: Looked, use: Hit | ServeStale) -> Answer | None:
        """Without waiting, None where that is not possible."""
        assert looked.found is not None
        try:
            answer = self._from_store(asked, use, at_once(looked.found))
        except SliceUnavailable:
            return None
        if answer is not None:
            self._used(asked, looked, use)
            if isinstance(use, Hit):
                answer.repeatable = self._repeatable(asked, looked, use)
        return answer

    def _repeatable(self, asked: Asked, looked: Looked, use: Hit) -> Repeatable | None:
        assert looked.found is not None
        service = asked.service
        lifetime = freshness_lifetime(use.stored, service.policy)
        return self.repeats.made_of(
            asked.key, looked.found, looked.variants, lifetime, service.name
        )

    async def _serve(self, asked: Asked, looked: Looked, use: Hit | ServeStale) -> Answer | None:
        """None where it has just been lost."""
        assert looked.found is not None
        try:
            answer = self._from_store(asked, use, self._with_waiting(asked, looked.found))
            if answer is not None and isinstance(answer.content, Stored):
                await answer.content.prime()
        except SliceUnavailable:
            return None
        self._used(asked, looked, use)
        return answer

    def _from_store(self, asked: Asked, use: Hit | ServeStale, put: Put) -> Answer | None:
        policy, now = asked.service.policy, self._clock()
        return from_store(self.name, asked.request, put, use, policy, now)

    def _used(self, asked: Asked, looked: Looked, use: Hit | ServeStale) -> None:
        assert looked.found is not None
        self._store.touch(looked.found)
        if isinstance(use, ServeStale) and use.revalidate:
            self._revalidate(asked, looked)
        if use.stored.present is not None:
            self._ahead.used(asked, use.stored)

    def _with_waiting(self, asked: Asked, found: StoredObject) -> Put:
        """The content of what is stored, also where its device must be waited for."""

        def put(segments: Sequence[Segment]) -> Sequence[Piece] | Content | None:
            if (pieces := at_once(found)(segments)) is not None:
                return pieces
            if has_slices(found.response):
                return self._gathered(asked, found.response, segments)
            return Stored(self.filling, asked.task(found), found, segments)

        return put

    def _gathered(
        self,
        asked: Asked,
        of: StoredResponse,
        segments: Sequence[Segment],
        seat: Seat | None = None,
        arrived: Arrived | None = None,
    ) -> Gathered:
        return Gathered(self.filling, self._store, asked.task(), of, segments, seat, arrived)

    def _only_if_cached(self, asked: Asked) -> Answer:
        words = "not stored here, and the request asks for nothing else (only-if-cached)"
        return own_error(self.name, 504, words, self._clock(), method=asked.request.method)

    def _revalidate(self, asked: Asked, stale: Looked) -> None:
        flight = self._lookup.flight(asked, stale)
        if self.filling.is_under_way(flight):
            return
        seat, _ = self.filling.join(flight, asked.unseen().task(stale.found))
        whole = "range" not in asked.request.fields
        self._background.start(read_for_the_store(seat, whole), "revalidation")

    # --- upstream -------------------------------------------------------------------------------

    async def _forward(
        self, asked: Asked, forward: Forward, looked: Looked, again: Again
    ) -> Answer | Again:
        place = self._place(asked, forward, looked, again)
        if place is None and self._goes_through(asked, forward, again):
            return await self._passing.answer(asked, forward.reason, looked.found)
        flight = None
        if not again.alone and not self.filling.judge.marked(asked.key):
            flight = self._lookup.flight(asked, looked, again.nominated)
        return await self._fill(asked, forward.reason, looked.found, flight, place)

    def _place(self, asked: Asked, forward: Forward, looked: Looked, again: Again) -> int | None:
        """The first slice that the request lacks, where slices are what to ask for."""
        if looked.found is None and "range" not in asked.request.fields:
            return None  # of what nobody knows, the whole
        judge = self.filling.judge
        if again.as_is or again.alone or forward.validate is not None:
            return None
        if judge.marked(asked.key) or judge.unsliced(asked.key):
            return None
        found = None if looked.found is None else looked.found.response
        return wanted_slice(asked.request, found, asked.service.policy, self._clock())

    def _goes_through(self, asked: Asked, forward: Forward, again: Again) -> bool:
        """Whether the request goes up as it is: HEAD, and ranges that the whole is no way to, or
        that begin where a stored part ends."""
        if asked.request.method == "HEAD":
            return True
        if "range" not in asked.request.fields or forward.validate is not None:
            return False
        judge = self.filling.judge
        marked = judge.marked(asked.key)
        if judge.rangeless(asked.key) and not marked:
            return False
        return forward.reason is Fwd.PARTIAL or asked.seeks or marked or again.alone

    async def _fill(
        self,
        asked: Asked,
        reason: Fwd,
        found: StoredObject | None,
        flight: FlightKey | None,
        place: int | None,
    ) -> Answer | Again:
        """Through a fill: led, joined, or alone where `flight` is None."""
        task = asked.task(found)
        if flight is None:
            seat, leads = self.filling.alone(task), True
        else:
            if place is not None:
                task, flight = _of_slice(task, flight, place, reason)
            seat, leads = self.filling.join(flight, task)
        return await self._seated(asked, reason, found, seat, leads)

    async def _seated(
        self, asked: Asked, reason: Fwd, found: StoredObject | None, seat: Seat, leads: bool
    ) -> Answer | Again:
        seated = False
        try:
            head = await seat.head()
            match head:
                case Failed(error=error):
                    return self._fallback.failed(asked, found, error)
                case Freshened(stored=fresh) if leads and found is not None:
                    return await self._validated(asked, reason, found, fresh)
                case Freshened():
                    return Again(alone=True)
                case NotASlice():
                    return Again(as_is=True)
                case Arrived():
                    ended = self._not_this(asked, found, head, leads)
                    if ended is not None:
                        return ended
                    answer = self._from_fill(asked, reason, seat, head, leads)
                    seated = answer is not None
                    return answer or Again(as_is=True)
                case _:
                    assert_never(head)
        finally:
            if not seated:
                seat.leave()

    def _not_this(
        self, asked: Asked, found: StoredObject | None, head: Arrived, leads: bool
    ) -> Answer | Again | None:
        """What to do in place of handing this response down, if anything."""
        answer = self._fallback.instead_of_error(asked, found, head.response)
        if answer is not None or leads:
            return answer
        return self._not_for(asked, head)

    def _from_fill(
        self, asked: Asked, reason: Fwd, seat: Seat, head: Arrived, leads: bool
    ) -> Answer | None:
        """None where what came is a part, and not the one that is wanted."""
        policy, now = asked.service.policy, self._clock()
        if head.is_slice and isinstance(head.stored.present, ByteRange):
            return from_part(self.name, asked.request, seat, head, policy, now, fwd=reason)
        if not head.sliced:
            return from_fill(
                self.name, asked.request, seat, head, policy, now, fwd=reason, leads=leads
            )
        kept = False

        def gather(segments: Sequence[Segment]) -> Content:
            nonlocal kept
            kept = True
            self._ahead.used(asked, head.stored)
            return self._gathered(asked, head.stored, segments, seat, head)

        try:
            return from_slices(
                self.name, asked.request, head, gather, policy, now,
                fwd=reason, leads=leads, source=seat.source,
            )  # fmt: skip
        finally:
            if not kept:
                seat.leave()

    async def _validated(
        self, asked: Asked, reason: Fwd, found: StoredObject, fresh: StoredResponse
    ) -> Answer | Again:
        policy, now = asked.service.policy, self._clock()
        age = current_age(fresh, now)
        use = Hit(fresh, age, freshness_lifetime(fresh, policy) - age)
        try:
            answer = from_store(
                self.name, asked.request, self._with_waiting(asked, found), use, policy, now,
                fwd=reason, fwd_status=304,
            )  # fmt: skip
            if answer is not None and isinstance(answer.content, Stored):
                await answer.content.prime()
        except SliceUnavailable:
            answer = None
        return Again(alone=True) if answer is None else answer

    def _not_for(self, asked: Asked, head: Arrived) -> Again | None:
        """Why a follower cannot have what the leader got."""
        if not head.shareable:
            return Again(alone=True)
        fields, normalize = asked.request.fields, asked.service.policy.normalize_vary
        if not variant_matches(head.stored.variant, fields, normalize):
            return Again(nominated=tuple(name for name, _ in head.stored.variant))
        stored = replace(head.stored, present=None) if head.sliced else head.stored
        decision = decide(asked.request, stored, asked.service.policy, self._clock())
        return Again(alone=True) if isinstance(decision, Forward) else None

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


def _of_slice(task: Task, flight: FlightKey, place: int, reason: Fwd) -> tuple[Task, FlightKey]:
    """The same for one slice, of what is stored where it is that which lacks it."""
    of = task.stored.response if task.stored is not None and reason is Fwd.PARTIAL else None
    etag = None if of is None else of.validator.etag
    task = task._replace(place=place, of=of)
    return task, flight._replace(place=place, etag=etag, slice_size=task.slice_size)
