"""Beginning fills: what is asked, how the head is judged, and who may share the answer.

Strategy: one table of flights, keyed by what an answer can be shared by. The head's judgement is
pure (`storing.may_store`, `validation.identifies`); this file performs it: opens the writer, leaves
the hit-for-miss mark, freshens what was validated.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import NamedTuple

from cachetools import LRUCache, TLRUCache

from cdn.gateway.background import BackgroundTasks
from cdn.gateway.collapse import Collapse, Follower, Leader
from cdn.gateway.completing import Completed, is_rest
from cdn.gateway.exchange import Content, ContentCutShort, Exchange
from cdn.gateway.fill import (
    Arrived,
    Fill,
    FillCounters,
    FillParts,
    Freshened,
    HeadOutcome,
)
from cdn.gateway.forward import forwarded_request, rest_request, whole_request
from cdn.gateway.relay import Relayed
from cdn.gateway.seat import Seat
from cdn.gateway.services import DeliveryService
from cdn.semantics.groups import group_tags, string_list
from cdn.semantics.http_date import format_http_date
from cdn.semantics.message import Fields, Request, Response
from cdn.semantics.ranges import ByteRange
from cdn.semantics.reuse import Decision, Forward, Hit, covers, decide, stale_on_error
from cdn.semantics.search import SearchRule, loose_key, parse_no_vary_search, path_key
from cdn.semantics.stored_response import StoredResponse, make_stored_response
from cdn.semantics.storing import (
    NotStoredReason,
    may_store,
    may_update,
    speaks_for_all,
    storable_fields,
    whole_of_part,
)
from cdn.semantics.surrogate import received_by
from cdn.semantics.validation import freshen, identifies
from cdn.semantics.vary import Variant, nominated_fields, variant_key
from cdn.storage.purge_epochs import PurgeEpochs
from cdn.storage.store import Store, StoredObject
from cdn.upstream.errors import MalformedResponse, UpstreamError
from cdn.upstream.exchange import UpstreamRequest, UpstreamResponse

ANYONE = Request("GET", "http", "", "/", Fields())
"""A request that wants nothing in particular: what may be reused at all, may be for this one."""

MOST_RULES = 65_536
"""Paths whose No-Vary-Search is remembered."""

MOST_MARKS = 65_536
"""Hit-for-miss marks kept at once; the least recently used go first."""


Complain = Callable[[UpstreamError, str], None]
"""Hears of every upstream that failed a request, and of the request's URL."""


class FlightKey(NamedTuple):
    """Requests that differ in one of these never wait for each other. `variant` is None while
    nobody knows what the response varies on; `authorized`: with Authorization (RFC 9111 §3.5)."""

    primary: bytes
    variant: Variant | None
    authorized: bool


class Task(NamedTuple):
    """One request on its way up: whose, for which service, and what is stored for it already.
    `as_is`: it has gone up as the client sent it, the answer is that one client's."""

    exchange: Exchange
    service: DeliveryService
    key: bytes
    stored: StoredObject | None = None
    as_is: bool = False

    @property
    def request(self) -> Request:
        return self.exchange.request

    @property
    def validate(self) -> StoredResponse | None:
        """What a 304 would freshen, and make an answer to this request."""
        stored = self.stored.response if self.stored else None
        if stored is None or self.as_is or not stored.validator:
            return None
        return stored if covers(stored, self.request, stored.response_time) else None

    @property
    def part(self) -> StoredObject | None:
        """What is stored from the beginning on, where this request wants all of it."""
        stored = self.stored
        if stored is None or self.as_is or "range" in self.request.fields:
            return None
        present = stored.response.present
        return stored if isinstance(present, ByteRange) and present.start == 0 else None


class Passing:
    """A request on its way up without a fill. `disowned`: what it brings was purged meanwhile."""

    __slots__ = ("disowned", "key", "stamp")

    def __init__(self, key: bytes, stamp: int) -> None:
        self.key = key
        self.stamp = stamp
        self.disowned = False


class Filling:
    """`node` is this node's name, `clock` seconds since 1970. What is not `mine` by its primary key
    is another worker's to store: it is only shared in flight."""

    def __init__(
        self,
        node: str,
        store: Store,
        clock: Callable[[], float],
        background: BackgroundTasks,
        complain: Complain,
        mine: Callable[[bytes], bool] = lambda _: True,
    ) -> None:
        self._node = node
        self._store = store
        self._clock = clock
        self._background = background
        self._complain = complain
        self._mine = mine
        self._flights: Collapse[FlightKey, Fill] = Collapse()
        self._alone: dict[Fill, bytes] = {}
        self._passing: set[Passing] = set()
        self._marks: TLRUCache[bytes, float] = TLRUCache(
            MOST_MARKS, ttu=lambda _, lifetime, now: now + lifetime, timer=clock
        )
        self._rules: LRUCache[bytes, SearchRule] = LRUCache(MOST_RULES)
        self.epochs = PurgeEpochs()
        self.counters = FillCounters()

    def names(self, key: bytes) -> tuple[bytes, ...]:
        """The names under which responses to this primary key may be stored, the likeliest first:
        looser ones where No-Vary-Search has said what does not matter."""
        if not self._rules or (rule := self._rules.get(path_key(key))) is None:
            return (key,)
        return (loose_key(key, rule), key)

    def marked(self, key: bytes) -> bool:
        """Whether hit-for-miss holds: what came last for this URL was for nobody else."""
        return key in self._marks

    def is_under_way(self, flight: FlightKey) -> bool:
        """Whether somebody is asking for this already."""
        return flight in self._flights

    def join(self, flight: FlightKey, task: Task) -> tuple[Seat, bool]:
        """A seat at the flight under way, or at a new one; and whether it leads."""
        joined = self._flights.join(flight, lambda: self._begin(task, flight))
        if isinstance(joined, Follower) and not joined.flight.joinable:
            self._flights.land(flight, joined.flight)
            joined = self._flights.join(flight, lambda: self._begin(task, flight))
        return joined.flight.take_seat(), isinstance(joined, Leader)

    def alone(self, task: Task) -> Seat:
        """A seat at a fill that nobody else joins; what it brings may still be stored."""
        return self._begin(task, None).take_seat()

    def carry(self, task: Task, response: UpstreamResponse, asked_at: float) -> Seat:
        """A seat at a fill of what has come already, for one client and the store."""

        async def fetched() -> tuple[UpstreamResponse, float]:
            return response, asked_at

        return self._begin(task, None, fetched).take_seat()

    def relayed(
        self, task: Task, response: UpstreamResponse, skip: int = 0, limit: int | None = None
    ) -> Relayed:
        """A response's content straight down to one client."""
        return Relayed(response, self._complainer(task), skip, limit)

    def _complainer(self, task: Task) -> Callable[[UpstreamError], None]:
        return lambda error: self._complain(error, task.request.url)

    def disown(self, key: bytes) -> None:
        """Responses under `key` were purged: those on their way are not stored either."""
        names = self.names(key)
        for flight, fill in self._flights.under_way():
            if flight.primary in names:
                fill.disown()
                self._flights.land(flight, fill)
        for fill, primary in list(self._alone.items()):
            if primary in names:
                fill.disown()
        for passing in self._passing:
            passing.disowned = passing.disowned or passing.key in names
        self._marks.pop(key, None)

    async def fetch_passing(self, task: Task, request: Request) -> tuple[UpstreamResponse, Passing]:
        """As `fetch`, and what was purged while it waited. Raises UpstreamError."""
        passing = Passing(task.key, self.epochs.now)
        self._passing.add(passing)
        try:
            return await self.fetch(task, request), passing
        finally:
            self._passing.discard(passing)

    def is_current(self, passing: Passing, head: Response) -> bool:
        """Whether nothing that this head describes was purged since it was asked for."""
        tags = group_tags(passing.key, string_list(head.fields.get("cache-groups")))
        return not passing.disowned and not self.epochs.outdated(tags, passing.stamp)

    async def fetch(self, task: Task, request: Request) -> UpstreamResponse:
        """One exchange upstream. Raises UpstreamError."""
        exchange = task.exchange
        return await task.service.router.fetch(
            task.key,
            UpstreamRequest(
                head=forwarded_request(request, self._node),
                content=exchange.content,
                content_length=exchange.content_length,
                on_interim=exchange.send_interim,
                client=exchange.client,
            ),
        )

    def _begin(
        self,
        task: Task,
        flight: FlightKey | None,
        fetched: Callable[[], Awaitable[tuple[UpstreamResponse, float]]] | None = None,
    ) -> Fill:
        stamp = self.epochs.now

        async def fetch() -> tuple[UpstreamResponse, float]:
            return await self._fetch_whole(task)

        def landed(fill: Fill) -> None:
            self._alone.pop(fill, None)
            if flight is not None:
                self._flights.land(flight, fill)

        fill = Fill(
            FillParts(
                fetch=fetched or fetch,
                on_head=lambda response, asked_at: self._judge(task, response, asked_at, stamp),
                landed=landed,
                go_on_alone=lambda fill, start, stop: self._go_on_alone(task, fill, start, stop),
                cut_short=self._complainer(task),
                counters=self.counters,
            )
        )
        if flight is None:
            self._alone[fill] = task.key
        fill.started_by(self._background.start(fill.run(), "fill"))
        return fill

    async def _fetch_whole(self, task: Task) -> tuple[UpstreamResponse, float]:
        asked_at = self._clock()
        if task.part is not None:
            completed = await self._fetch_rest(task, task.part)
            if completed is not None:
                return completed, asked_at
        validate, request = task.validate, task.request
        asked_at = self._clock()
        response = await self.fetch(task, whole_request(request, validate))
        if validate and response.head.status == 304 and not identifies(validate, response.head):
            # RFC 9111 §4.3.4: it is about a response that we do not have.
            response.abort()
            asked_at = self._clock()
            response = await self.fetch(task, whole_request(request, None))
        return response, asked_at

    async def _fetch_rest(self, task: Task, part: StoredObject) -> UpstreamResponse | None:
        """The whole, out of what is stored from its beginning and the rest from upstream, or as
        upstream has it now; None where it takes another request. RFC 9111 §3.4 joins nothing
        without a strong validator; but an origin that heeds no Range saves asking twice."""
        present = part.response.present
        assert isinstance(present, ByteRange)
        etag = part.response.validator.strong_etag
        response = await self.fetch(task, rest_request(task.request, etag, present.stop, None))
        if is_rest(response.head, etag, present.stop, part.response.length):
            return Completed(part, response)
        if response.head.status == 200:
            return response
        response.abort()
        return None

    def _judge(
        self, task: Task, response: UpstreamResponse, asked_at: float, stamp: int
    ) -> HeadOutcome:
        now, policy = self._clock(), task.service.policy
        head = self.received(response.head)
        if head.status == 304 and not task.as_is:
            return self._judge_not_modified(task, response, head, asked_at)
        reason = may_store(task.request, head, policy)
        stored = self._described(task, response, head, asked_at, stamp)
        if reason is None and head.status >= 500 and self._is_covered(task, now):
            reason = NotStoredReason.SERVER_ERROR
        if reason is None and head.status == 206 and (stored.present is None or not task.as_is):
            reason = NotStoredReason.PARTIAL  # not what it says, or not what was asked for
        if reason is not None:
            if reason.in_response and speaks_for_all(head.status):
                self._marks[task.key] = policy.hit_for_miss
                self._drop_unsuitable(task, now)
            return Arrived(head, stored, reason, None)
        self._mark(task, stored)
        writer = self._store.open_writer(stored) if self._mine(task.key) else None
        too_large = None if writer is not None else NotStoredReason.TOO_LARGE
        return Arrived(head, stored, too_large, writer)

    def _described(
        self, task: Task, response: UpstreamResponse, head: Response, asked_at: float, stamp: int
    ) -> StoredResponse:
        """The response as it is, or would be, stored."""
        fields, request = head.fields, task.request
        length, present = response.length, None
        part = whole_of_part(fields, length) if head.status == 206 else None
        if part is not None:
            present, length = part
            fields = fields.without({"content-range"})
            head = Response(200, fields, "OK")
        rule = parse_no_vary_search(fields.get("no-vary-search"))
        if rule is not None:
            self._rules[path_key(task.key)] = rule
        return make_stored_response(
            primary_key=task.key if rule is None else loose_key(task.key, rule),
            variant=variant_key(
                nominated_fields(fields) or (), request.fields, task.service.policy.normalize_vary
            ),
            response=head,
            fields=storable_fields(fields),
            request_time=asked_at,
            response_time=self._clock(),
            length=length,
            present=present,
            stamp=stamp,
        )

    def received(self, head: Response) -> Response:
        """A head from upstream as this node goes by it: with a Date (RFC 9110 §6.6.1 has a
        recipient with a clock add it), and with what is meant for this node by name."""
        fields = received_by(head.fields, self._node)
        if "date" not in fields:
            fields = fields.adding(("Date", format_http_date(self._clock())))
        return head if fields is head.fields else head.with_fields(fields)

    def _judge_not_modified(
        self, task: Task, response: UpstreamResponse, head: Response, asked_at: float
    ) -> Freshened:
        if not task.stored or not task.validate or not identifies(task.validate, head):
            raise MalformedResponse(response.source, "304, which answers nothing that was asked")
        fresh = freshen(task.validate, head, asked_at, self._clock())
        if may_update(task.request, head, task.service.policy):
            self._store.freshen(task.stored, fresh)
            self._mark(task, fresh)
        return Freshened(fresh)

    def _drop_unsuitable(self, task: Task, now: float) -> None:
        # RFC 9111 §4.3.3: a full answer says that what was stored is not suitable any more. While
        # fresh it is: only this one client would not have it.
        stored = task.stored
        if stored is not None and not isinstance(_for_anyone(stored.response, task, now), Hit):
            self._store.remove(stored.response.primary_key)

    def _mark(self, task: Task, stored: StoredResponse) -> None:
        if isinstance(_for_anyone(stored, task, self._clock()), Forward):
            # It is of no use to those who wait, nor to the next ones: they need not queue for it.
            self._marks[task.key] = task.service.policy.hit_for_miss
        else:
            self._marks.pop(task.key, None)

    def _is_covered(self, task: Task, now: float) -> bool:
        """Whether what is stored is served in place of this error: then it stays."""
        request, policy = task.request, task.service.policy
        return (
            task.stored is not None
            and stale_on_error(request, task.stored.response, policy, now, False) is not None
        )

    async def _go_on_alone(
        self, task: Task, fill: Fill, position: int, stop: int | None
    ) -> Content:
        """The rest for a reader that fell out of a window: by Range where a strong validator says
        that the bytes fit, else afresh where some validator does. Raises ContentCutShort."""
        arrived = fill.arrived
        assert arrived is not None
        validator, request = arrived.stored.validator, task.request
        limit = None if stop is None else stop - position
        if not validator:
            raise ContentCutShort("too slow for what is not stored and has no validator")
        try:
            if (etag := validator.strong_etag) is not None:
                response = await self.fetch(task, rest_request(request, etag, position, stop))
                if is_rest(response.head, etag, position, stop):
                    return self.relayed(task, response, limit=limit)
            else:
                response = await self.fetch(task, whole_request(request, None))
        except UpstreamError as error:
            raise ContentCutShort(str(error)) from error
        if _same_representation(response.head, arrived.response):
            return self.relayed(task, response, position, limit)
        response.abort()
        raise ContentCutShort("a slow reader's rest could not be had: the response has changed")


def _for_anyone(stored: StoredResponse, task: Task, now: float) -> Decision:
    """What would become of a request that wants nothing in particular, were all of it kept."""
    return decide(ANYONE, replace(stored, present=None), task.service.policy, now)


def _same_representation(head: Response, first: Response) -> bool:
    """Whether the same URL gave the same thing again, by the validators there are."""
    return head.status == first.status and all(
        head.fields.get(name) == first.fields.get(name) for name in ("etag", "last-modified")
    )
