"""Beginning fills: what is asked, how the head is judged, and who may share the answer.

Strategy: one table of flights, keyed by what an answer can be shared by. The head's judgement is
pure (`storing.may_store`, `validation.identifies`); this file performs it: opens the writer, leaves
the hit-for-miss mark, freshens what was validated.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from cachetools import TLRUCache

from cdn.gateway.background import BackgroundTasks
from cdn.gateway.collapse import Collapse, Follower, Leader
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
from cdn.semantics.http_date import format_http_date
from cdn.semantics.message import Fields, Request, Response
from cdn.semantics.ranges import parse_content_range
from cdn.semantics.reuse import Forward, Hit, decide, stale_on_error
from cdn.semantics.stored_response import StoredResponse, make_stored_response
from cdn.semantics.storing import NotStoredReason, may_store, storable_fields
from cdn.semantics.validation import freshen, identifies
from cdn.semantics.vary import Variant, nominated_fields, variant_key
from cdn.storage.store import Store, StoredObject
from cdn.upstream.errors import MalformedResponse, UpstreamError
from cdn.upstream.exchange import UpstreamRequest, UpstreamResponse

ANYONE = Request("GET", "http", "", "/", Fields())
"""A request that wants nothing in particular: what may be reused at all, may be for this one."""

MOST_MARKS = 65_536
"""Hit-for-miss marks kept at once; the least recently used go first."""


class FlightKey(NamedTuple):
    """Requests that differ in one of these never wait for each other. `variant` is None while
    nobody knows what the response varies on; `authorized`: with Authorization (RFC 9111 §3.5)."""

    primary: bytes
    variant: Variant | None
    authorized: bool


class Task(NamedTuple):
    """One request on its way up: whose, for which service, and what is stored for it already."""

    exchange: Exchange
    service: DeliveryService
    key: bytes
    stored: StoredObject | None = None

    @property
    def validate(self) -> StoredResponse | None:
        """What a 304 would freshen."""
        return self.stored.response if self.stored and self.stored.response.validator else None


class Filling:
    """`node` is this node's name, `clock` seconds since 1970."""

    def __init__(
        self, node: str, store: Store, clock: Callable[[], float], background: BackgroundTasks
    ) -> None:
        self._node = node
        self._store = store
        self._clock = clock
        self._background = background
        self._flights: Collapse[FlightKey, Fill] = Collapse()
        self._alone: dict[Fill, bytes] = {}
        self._marks: TLRUCache[bytes, float] = TLRUCache(
            MOST_MARKS, ttu=lambda _, lifetime, now: now + lifetime, timer=clock
        )
        self.counters = FillCounters()

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

    def disown(self, key: bytes) -> None:
        """Responses under `key` were purged: those on their way are not stored either."""
        for flight, fill in self._flights.under_way():
            if flight.primary == key:
                fill.disown()
                self._flights.land(flight, fill)
        for fill, primary in list(self._alone.items()):
            if primary == key:
                fill.disown()
        self._marks.pop(key, None)

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

    def _begin(self, task: Task, flight: FlightKey | None) -> Fill:
        async def fetch() -> tuple[UpstreamResponse, float]:
            return await self._fetch_whole(task)

        def landed(fill: Fill) -> None:
            self._alone.pop(fill, None)
            if flight is not None:
                self._flights.land(flight, fill)

        fill = Fill(
            FillParts(
                fetch=fetch,
                on_head=lambda response, asked_at: self._judge(task, response, asked_at),
                landed=landed,
                go_on_alone=lambda fill, start, stop: self._go_on_alone(task, fill, start, stop),
                counters=self.counters,
            )
        )
        if flight is None:
            self._alone[fill] = task.key
        fill.started_by(self._background.start(fill.run(), "fill"))
        return fill

    async def _fetch_whole(self, task: Task) -> tuple[UpstreamResponse, float]:
        validate = task.validate
        asked_at = self._clock()
        request = task.exchange.request
        response = await self.fetch(task, whole_request(request, validate))
        if validate and response.head.status == 304 and not identifies(validate, response.head):
            # RFC 9111 §4.3.4: it is about a response that we do not have.
            response.abort()
            asked_at = self._clock()
            response = await self.fetch(task, whole_request(request, None))
        return response, asked_at

    def _judge(self, task: Task, response: UpstreamResponse, asked_at: float) -> HeadOutcome:
        now, policy = self._clock(), task.service.policy
        head = dated(response.head, now)
        if head.status == 304:
            return self._judge_not_modified(task, response, head, asked_at)
        request = task.exchange.request
        reason = may_store(request, head, policy)
        nominated = nominated_fields(head.fields) or ()
        stored = make_stored_response(
            primary_key=task.key,
            variant=variant_key(nominated, request.fields),
            response=head,
            fields=storable_fields(head.fields),
            request_time=asked_at,
            response_time=now,
            length=response.length,
        )
        if reason is None and head.status >= 500 and self._is_covered(task, now):
            reason = NotStoredReason.SERVER_ERROR
        if reason is None and head.status == 206:
            reason = NotStoredReason.PARTIAL  # nobody asked for a part: it goes to the asker alone
        if reason is not None:
            if reason.in_response and head.status < 500:
                self._marks[task.key] = policy.hit_for_miss
                self._drop_unsuitable(task, now)
            return Arrived(head, stored, reason, None)
        self._mark(task, stored)
        writer = self._store.open_writer(stored)
        too_large = None if writer is not None else NotStoredReason.TOO_LARGE
        return Arrived(head, stored, too_large, writer)

    def _judge_not_modified(
        self, task: Task, response: UpstreamResponse, head: Response, asked_at: float
    ) -> Freshened:
        if not task.stored or not task.validate or not identifies(task.validate, head):
            raise MalformedResponse(response.source, "304, which answers nothing that was asked")
        fresh = freshen(task.validate, head, asked_at, self._clock())
        self._store.freshen(task.stored, fresh)
        self._mark(task, fresh)
        return Freshened(fresh)

    def _drop_unsuitable(self, task: Task, now: float) -> None:
        # RFC 9111 §4.3.3: a full answer says that what was stored is not suitable any more. While
        # fresh it is: only this one client would not have it.
        stored = task.stored
        if stored is not None and not isinstance(
            decide(ANYONE, stored.response, task.service.policy, now), Hit
        ):
            self._store.remove(task.key)

    def _mark(self, task: Task, stored: StoredResponse) -> None:
        if isinstance(decide(ANYONE, stored, task.service.policy, self._clock()), Forward):
            # It is of no use to those who wait, nor to the next ones: they need not queue for it.
            self._marks[task.key] = task.service.policy.hit_for_miss
        else:
            self._marks.pop(task.key, None)

    def _is_covered(self, task: Task, now: float) -> bool:
        """Whether what is stored is served in place of this error: then it stays."""
        request, policy = task.exchange.request, task.service.policy
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
        validator, request = arrived.stored.validator, task.exchange.request
        limit = None if stop is None else stop - position
        if not validator:
            raise ContentCutShort("too slow for what is not stored and has no validator")
        try:
            if (etag := validator.strong_etag) is not None:
                response = await self.fetch(task, rest_request(request, etag, position, stop))
                if _is_rest(response.head, etag, position, stop):
                    return Relayed(response, limit=limit)
            else:
                response = await self.fetch(task, whole_request(request, None))
        except UpstreamError as error:
            raise ContentCutShort(str(error)) from error
        if _same_representation(response.head, arrived.response):
            return Relayed(response, skip=position, limit=limit)
        response.abort()
        raise ContentCutShort("a slow reader's rest could not be had: the response has changed")


def _is_rest(head: Response, etag: str, position: int, stop: int | None) -> bool:
    part = parse_content_range(head.fields.get("content-range"))
    return (
        head.status == 206
        and part is not None
        and part[0].start == position
        and part[0].stop == (part[1] if stop is None else stop)
        and head.fields.get("etag") == etag
    )


def _same_representation(head: Response, first: Response) -> bool:
    """Whether the same URL gave the same thing again, by the validators there are."""
    return head.status == first.status and all(
        head.fields.get(name) == first.fields.get(name) for name in ("etag", "last-modified")
    )


def dated(head: Response, now: float) -> Response:
    """With a Date: RFC 9110 §6.6.1 has a recipient with a clock add what came without."""
    if "date" in head.fields:
        return head
    return head.with_fields(head.fields.adding(("Date", format_http_date(now))))
