"""Beginning fills: what is asked upstream, by whom, and who may share the answer.

Strategy: one table of flights, keyed by what an answer can be shared by. A fill that brings more
than one slice of a known representation is found by that, too. What a head means is `judging.py`'s.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from cdn.gateway.background import BackgroundTasks
from cdn.gateway.collapse import Collapse, Follower, Leader
from cdn.gateway.completing import Completed, is_rest
from cdn.gateway.exchange import Content, ContentCutShort
from cdn.gateway.fill import Arrived, Fill, FillCounters, HeadOutcome
from cdn.gateway.flights import FlightKey, Passing, Task, slice_flight
from cdn.gateway.forward import forwarded_request, rest_request, whole_request
from cdn.gateway.judging import Judge
from cdn.gateway.relay import Relayed
from cdn.gateway.representations import representation_among
from cdn.gateway.seat import Seat
from cdn.semantics.groups import group_tags, string_list
from cdn.semantics.message import Request, Response
from cdn.semantics.ranges import ByteRange
from cdn.semantics.stored_response import StoredResponse
from cdn.semantics.validation import identifies
from cdn.semantics.vary import Variant
from cdn.storage.store import Store, StoredObject
from cdn.upstream.errors import UpstreamError
from cdn.upstream.exchange import UpstreamRequest, UpstreamResponse

if TYPE_CHECKING:
    from cdn.gateway.plain import PlainMiss

Complain = Callable[[UpstreamError, str], None]
"""Hears of every upstream that failed a request, and of the request's URL."""

Representation = tuple[bytes, Variant, str]
"""Primary key, variant and strong entity tag."""


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
        self._flights: Collapse[FlightKey, Fill] = Collapse()
        self._streams: dict[Representation, Fill] = {}
        self._alone: dict[Fill, bytes] = {}
        self._passing: set[Passing] = set()
        self.plain: dict[bytes, PlainMiss] = {}
        """What is on its way and no fill yet, by primary key. Who wants to join makes it one."""
        self.judge = Judge(node, store, clock, background, mine)
        self.epochs = store.epochs
        self.counters = FillCounters()

    # --- flights --------------------------------------------------------------------------------

    def is_under_way(self, flight: FlightKey) -> bool:
        """Whether somebody is asking for this already."""
        miss = self.plain.get(flight.primary)
        return flight in self._flights or (miss is not None and flight == _plain_flight(miss))

    def is_wanted(self, key: bytes) -> bool:
        """Whether somebody is asking for a URL of which nothing is known."""
        if key in self.plain:
            return True
        return len(self._flights) > 0 and FlightKey(key, None, False) in self._flights

    def join(self, flight: FlightKey, task: Task) -> tuple[Seat, bool]:
        """A seat at the flight under way, or at a new one; and whether it leads."""
        if task.of is not None and (seat := self._seat_at_stream(task)) is not None:
            return seat, False
        miss = self.plain.get(flight.primary)
        if miss is not None and flight == _plain_flight(miss):
            miss.go_on()
        joined = self._flights.join(flight, lambda: self._begin(task, flight))
        if isinstance(joined, Follower) and not joined.flight.joinable:
            self._flights.land(flight, joined.flight)
            joined = self._flights.join(flight, lambda: self._begin(task, flight))
        return joined.flight.take_seat(), isinstance(joined, Leader)

    def _seat_at_stream(self, task: Task) -> Seat | None:
        """Where the slice wanted is, or soon will be, part of what comes anyway."""
        assert task.of is not None
        stream = self._streams.get(_representation(task.of))
        if stream is None or not stream.joinable:
            return None
        seat = stream.take_seat()
        if seat.reaches(task.slice.start, task.of.slice_size):
            return seat
        seat.leave()
        return None

    def alone(self, task: Task) -> Seat:
        """A seat at a fill that nobody else joins; what it brings may still be stored."""
        return self._begin(task, None).take_seat()

    def carry(self, task: Task, response: UpstreamResponse, asked_at: float) -> Seat:
        """A seat at a fill of what has come already, for one client and the store."""
        return self._begin(task, None, (response, asked_at)).take_seat()

    def take_over(self, task: Task, miss: PlainMiss) -> Seat:
        """A seat at the fill that a plain miss goes on as."""
        flight = _plain_flight(miss)
        fill = Fill(_Errand(self, task, flight, miss.stamp, begun=miss))
        if miss.disowned:
            fill.disowned = True
        else:
            del self.plain[miss.key]
            self._flights.join(flight, lambda: fill)
        fill.started_by(self._background.start(fill.run(), "fill"))
        return fill.take_seat()

    def relayed(
        self, task: Task, response: UpstreamResponse, skip: int = 0, limit: int | None = None
    ) -> Relayed:
        """A response's content straight down to one client."""
        return Relayed(response, self._complainer(task), skip, limit)

    def complain(self, task: Task, error: UpstreamError) -> None:
        """An upstream failed a request."""
        self._complain(error, task.request.url)

    def _complainer(self, task: Task) -> Callable[[UpstreamError], None]:
        return lambda error: self._complain(error, task.request.url)

    def disown(self, key: bytes) -> None:
        """Responses under `key` were purged: those on their way are not stored either."""
        names = self.judge.names(key)
        for flight, fill in self._flights.under_way():
            if flight.primary in names:
                fill.disown()
                self._flights.land(flight, fill)
        for fill, primary in list(self._alone.items()):
            if primary in names:
                fill.disown()
        for name in names:
            if (miss := self.plain.pop(name, None)) is not None:
                miss.disowned = True
        for passing in self._passing:
            passing.disowned = passing.disowned or passing.key in names
        self.judge.forget_marks(key)

    # --- asking ---------------------------------------------------------------------------------

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
        return await task.service.router.fetch(task.key, self._upward(task, request))

    async def fetch_begun(self, task: Task, miss: PlainMiss) -> UpstreamResponse:
        """The one that is under way. Raises UpstreamError."""
        router, request = miss.form.router, whole_request(task.request, None)
        assert router is not None
        return await router.fetch(task.key, self._upward(task, request), miss)

    def _upward(self, task: Task, request: Request) -> UpstreamRequest:
        exchange = task.exchange
        return UpstreamRequest(
            head=forwarded_request(request, self._node),
            content=exchange.content,
            content_length=exchange.content_length,
            on_interim=exchange.send_interim,
            client=exchange.client,
        )

    def _begin(
        self,
        task: Task,
        flight: FlightKey | None,
        came: tuple[UpstreamResponse, float] | None = None,
    ) -> Fill:
        fill = Fill(_Errand(self, task, flight, self.epochs.now, came))
        if flight is None:
            self._alone[fill] = task.key
        fill.started_by(self._background.start(fill.run(), "fill"))
        return fill

    def shown(self, fill: Fill, flight: FlightKey | None, arrived: Arrived) -> None:
        """Now that it is known what comes, whoever knows it is there finds it by that."""
        stored, named = arrived.stored, _named(flight, arrived)
        if named is not None and named != flight:
            self._flights.join(named, lambda: fill)
        elif named is None:
            self._streams.setdefault(_representation(stored), fill)

    def landed(self, fill: Fill, flight: FlightKey | None) -> None:
        """Nobody joins any more."""
        if flight is None:
            self._alone.pop(fill, None)
        else:
            self._flights.land(flight, fill)
        arrived = fill.arrived
        if arrived is None or not arrived.sliced:
            return
        if (named := _named(flight, arrived)) is not None:
            self._flights.land(named, fill)
        elif self._streams.get(name := _representation(arrived.stored)) is fill:
            del self._streams[name]

    def is_there(self, stored: StoredResponse, number: int) -> bool:
        """Whether a slice has come, or comes, by another way than a stream."""
        found = representation_among(self._store.lookup(stored.primary_key), stored)
        if found is None:
            return False
        if found.response.present is None or found.response.present.covers(
            ByteRange(number * stored.slice_size, number * stored.slice_size + 1)
        ):
            return True
        flights = (slice_flight(stored, number, authorized) for authorized in (False, True))
        return any(flight in self._flights for flight in flights)

    async def fetch_slice(self, task: Task) -> tuple[UpstreamResponse, float]:
        asked_at, (start, stop) = self._clock(), task.slice
        etag = None if task.of is None else task.of.validator.strong_etag
        return await self.fetch(task, rest_request(task.request, etag, start, stop)), asked_at

    async def fetch_whole(self, task: Task) -> tuple[UpstreamResponse, float]:
        """The whole, or the rest of what is stored of it, and when it was asked for."""
        if task.part is not None:
            asked_at = self._clock()
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

    # --- going on alone -------------------------------------------------------------------------

    async def rest_of(
        self, task: Task, stored: StoredResponse, position: int, stop: int | None
    ) -> Content:
        """Bytes [position, stop) (None: to the end) of a response for one reader who can have them
        no other way: by Range where a strong validator says that they fit, else afresh where some
        validator does. Raises ContentCutShort."""
        validator, request = stored.validator, task.request
        limit = None if stop is None else stop - position
        if not validator:
            raise ContentCutShort("its rest cannot be had: it is not stored and has no validator")
        try:
            if (etag := validator.strong_etag) is not None:
                response = await self.fetch(task, rest_request(request, etag, position, stop))
                end = stored.length if stop is None else stop
                if is_rest(response.head, etag, position, end):
                    return self.relayed(task, response, limit=limit)
            else:
                response = await self.fetch(task, whole_request(request, None))
        except UpstreamError as error:
            raise ContentCutShort(str(error)) from error
        if _is_the_same(response.head, stored):
            return self.relayed(task, response, position, limit)
        response.abort()
        raise ContentCutShort("its rest cannot be had: the response has changed")


class _Errand:
    """See `Errand`: for this task and flight, begun at the epoch `stamp`; `came` is what need not
    be fetched any more, `begun` what is being fetched."""

    __slots__ = ("_begun", "_came", "_filling", "_flight", "_stamp", "_task")

    def __init__(
        self,
        filling: Filling,
        task: Task,
        flight: FlightKey | None,
        stamp: int,
        came: tuple[UpstreamResponse, float] | None = None,
        begun: PlainMiss | None = None,
    ) -> None:
        self._begun = begun
        self._filling = filling
        self._task = task
        self._flight = flight
        self._stamp = stamp
        self._came = came

    @property
    def counters(self) -> FillCounters:
        return self._filling.counters

    async def fetch(self) -> tuple[UpstreamResponse, float]:
        if self._came is not None:
            return self._came
        if self._begun is not None:
            begun, self._begun = self._begun, None
            return await self._filling.fetch_begun(self._task, begun), begun.asked_at
        if self._task.place is None:
            return await self._filling.fetch_whole(self._task)
        return await self._filling.fetch_slice(self._task)

    def on_head(self, response: UpstreamResponse, asked_at: float, disowned: bool) -> HeadOutcome:
        judge = self._filling.judge
        return judge.judge(self._task, response, asked_at, self._stamp, not disowned)

    def shown(self, fill: Fill, arrived: Arrived) -> None:
        self._filling.shown(fill, self._flight, arrived)

    def landed(self, fill: Fill) -> None:
        if self._begun is not None:  # its task was cancelled before it began
            begun, self._begun = self._begun, None
            assert begun.form.router is not None
            begun.form.router.given_up(begun)
            begun.give_up()
        self._filling.landed(fill, self._flight)

    async def go_on_alone(self, fill: Fill, start: int, stop: int | None) -> Content:
        assert fill.arrived is not None
        return await self._filling.rest_of(self._task, fill.arrived.stored, start, stop)

    def is_there(self, stored: StoredResponse, number: int) -> bool:
        return self._filling.is_there(stored, number)

    def cut_short(self, error: UpstreamError) -> None:
        self._filling.complain(self._task, error)


def _plain_flight(miss: PlainMiss) -> FlightKey:
    return FlightKey(miss.key, None, False)


def _representation(stored: StoredResponse) -> Representation:
    assert stored.validator.etag is not None
    return stored.primary_key, stored.variant, stored.validator.etag


def _named(flight: FlightKey | None, arrived: Arrived) -> FlightKey | None:
    """The name of a slice's flight once it is known whose slice it is; None for a stream."""
    if flight is None or flight.place is None or not arrived.is_slice:
        return None
    return slice_flight(arrived.stored, flight.place, flight.authorized)


def _is_the_same(head: Response, stored: StoredResponse) -> bool:
    """Whether the same URL gave the same thing again, by the validators there are."""
    return head.status == stored.status and all(
        head.fields.get(name) == stored.fields.get(name) for name in ("etag", "last-modified")
    )
