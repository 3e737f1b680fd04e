"""A fill: one upstream response on its way to the store and to everyone who waits, as it arrives.

Strategy: a fill is a task of its own, so nobody's going away ends it for the others. Content is cut
into aligned slices that the store and all readers (`seat.py`) share; what the store has, and every
reader has passed, is kept no longer here: who comes late reads it from there. What cannot be stored
is shared all the same, out of a window: read ahead of the fastest reader a little, kept for the
slowest up to 4 MiB; who holds the others up longer goes on alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Protocol

from cdn.gateway.arriving import Arriving
from cdn.gateway.exchange import Content
from cdn.gateway.seat import Seat
from cdn.semantics.message import Response
from cdn.semantics.ranges import ByteRange
from cdn.semantics.stored_response import StoredResponse
from cdn.semantics.storing import NotStoredReason
from cdn.semantics.value import value
from cdn.storage.store import SliceWriter, StoredContent
from cdn.upstream.errors import BodyCutShort, MalformedResponse, UpstreamError
from cdn.upstream.exchange import UpstreamResponse

WINDOW = 4 << 20
"""Bytes by which the slowest reader may be behind the newest before it is read for from the store;
of what is not stored, before the others wait for it."""

READ_AHEAD = 256 << 10
"""Bytes read ahead of the fastest reader of what is not, or may turn out not to be, stored."""

JOINABLE = 2 << 20
"""Bytes from the start that are kept for late comers of what is not stored."""

PATIENCE = 1.0
"""Seconds in all for which one reader may hold the others up."""

WORTH_FINISHING = 1 << 20
"""With less than this missing, in bytes, a fill nobody waits for is finished for the store."""

GIVEN_UP = "given up on this side"


@value(frozen=True, slots=True)
class Arrived:
    """A head came and content follows, from the byte `start` on. `stored` describes it as it is, or
    would be, stored; `reason` is why it is not, None where it is being stored. `is_slice`: it is
    the one slice that was asked for, and ends at `stop`. `sliced`: look-ups know of it already, and
    what is missing of it can be asked for slice by slice."""

    response: Response
    stored: StoredResponse
    reason: NotStoredReason | None
    writer: SliceWriter | None
    start: int = 0
    is_slice: bool = False
    sliced: bool = False
    stop: int | None = None

    @property
    def status(self) -> int:
        """As it came."""
        return 206 if self.is_slice else self.response.status

    @property
    def shareable(self) -> bool:
        """Whether others than the one who asked may have it."""
        return self.reason is None or self.reason is NotStoredReason.TOO_LARGE


@value(frozen=True, slots=True)
class Freshened:
    """A 304 made a stored response usable again: look the store up."""

    stored: StoredResponse


@value(frozen=True, slots=True)
class NotASlice:
    """A slice was asked for, and what came is none that could be put together with others."""


@value(frozen=True, slots=True)
class Failed:
    """No head came."""

    error: UpstreamError


HeadOutcome = Arrived | Freshened | NotASlice | Failed


@dataclass(slots=True)
class FillCounters:
    """Plain counts, collected at scrape."""

    begun: int = 0
    stored: int = 0
    cut_short: int = 0
    abandoned: int = 0
    gone_alone: int = 0


class Errand(Protocol):
    """What a fill goes up for, and what it needs of the gateway. It knows nothing of the fill
    itself: a cycle per request would be the garbage collector's to find."""

    @property
    def counters(self) -> FillCounters: ...

    async def fetch(self) -> tuple[UpstreamResponse, float]:
        """The upstream's answer, and when it was asked (seconds)."""

    def on_head(self, response: UpstreamResponse, asked_at: float, disowned: bool) -> HeadOutcome:
        """Judges it; what was `disowned` is not stored. Raises UpstreamError where it is no answer
        to what was asked."""

    def shown(self, fill: Fill, arrived: Arrived) -> None:
        """Look-ups know of what comes, `arrived.sliced`."""

    def landed(self, fill: Fill) -> None:
        """No one may join any more."""

    async def go_on_alone(self, fill: Fill, start: int, stop: int | None) -> Content:
        """The bytes from one position to another (None: the end). Raises ContentCutShort."""

    def is_there(self, stored: StoredResponse, number: int) -> bool:
        """Whether a slice has come by another way."""

    def cut_short(self, error: UpstreamError) -> None:
        """Why content ended before its time."""


class Fill:
    """See above. `run` is its task's work; `take_seat` is how to get at it. `content` is what has
    come, `complete` says that this is all, `error` why the rest will not come; `stop` is where its
    content is said to end, in bytes."""

    __slots__ = (
        "_errand",
        "_loop",
        "_news",
        "_outcome",
        "_progress",
        "_seats",
        "_task",
        "_writer",
        "arrived",
        "complete",
        "content",
        "disowned",
        "error",
        "source",
        "stop",
    )

    def __init__(self, errand: Errand) -> None:
        self._errand = errand
        self._loop = asyncio.get_running_loop()
        self._outcome: HeadOutcome | None = None
        self._seats: set[Seat] = set()
        self._task: asyncio.Task[None] | None = None
        self._writer: SliceWriter | None = None
        self._news: set[asyncio.Future[None]] = set()
        self._progress: asyncio.Future[None] | None = None
        self.content = Arriving()
        self.complete = False
        self.disowned = False
        self.error: str | None = None
        self.stop: int | None = None
        self.arrived: Arrived | None = None
        self.source = ""

    # --- those who wait -----------------------------------------------------------------------

    def take_seat(self) -> Seat:
        """Joins: the fill goes on at least as long as the seat is held."""
        seat = Seat(self)
        if self.arrived is not None:
            seat.position = self.arrived.start
        self._seats.add(seat)
        return seat

    def started_by(self, task: asyncio.Task[None]) -> None:
        """`task` runs `run`; it is cancelled when nobody wants the fill any more."""
        self._task = task

    @property
    def joinable(self) -> bool:
        """Whether one who comes now would get all of it."""
        start = 0 if self.arrived is None else self.arrived.start
        whole = self.content.base == start or self._writer is not None
        return whole and self.error is None and not self.disowned

    @property
    def storing(self) -> bool:
        """Whether what comes is on its way into the store."""
        return self._writer is not None

    def disown(self) -> None:
        """What this fill brings was purged meanwhile: it is not stored and takes no new followers;
        those who have it go on reading."""
        self.disowned = True
        self._stop_storing()
        self._end_if_unwanted()

    def leave(self, seat: Seat) -> None:
        """The seat's holder wants no more."""
        self._seats.discard(seat)
        self.moved()
        self._end_if_unwanted()

    def _end_if_unwanted(self) -> None:
        over = self.complete or self.error is not None
        if self._seats or over or self._task is None or self._worth_finishing():
            return
        self._errand.counters.abandoned += 1
        self.error = GIVEN_UP
        self._errand.landed(self)
        self._task.cancel()

    def _worth_finishing(self) -> bool:
        if self._writer is None or self.stop is None or self.arrived is None:
            return False
        worth = WORTH_FINISHING
        if self.arrived.sliced:  # what is missing can be asked for: no more than a slice is sent
            worth = min(worth, self.arrived.stored.slice_size)
        return self.stop - self.content.end < worth

    async def head(self) -> HeadOutcome:
        """Waits for the head; a waiter's cancellation cancels nobody else."""
        while self._outcome is None:
            await self.news()
        return self._outcome

    async def news(self) -> None:
        """Until more has come, or it is known that nothing more will."""
        future = self._loop.create_future()
        self._news.add(future)
        try:
            await future
        finally:
            self._news.discard(future)

    def _tell(self) -> None:
        if not self._news:
            return
        waiting, self._news = self._news, set()
        for future in waiting:
            if not future.done():
                future.set_result(None)

    def alone(self, position: int, stop: int | None) -> Awaitable[Content]:
        """The rest from `position` on for one who was dropped. Raises ContentCutShort."""
        self._errand.counters.gone_alone += 1
        return self._errand.go_on_alone(self, position, stop)

    # --- the one who brings -------------------------------------------------------------------

    async def run(self) -> None:
        """Fetches, judges, stores and spreads. Every expected error ends in `error` or `Failed`."""
        self._errand.counters.begun += 1
        response: UpstreamResponse | None = None
        try:
            response, asked_at = await self._errand.fetch()
            self.source = response.source
            outcome = self._errand.on_head(response, asked_at, self.disowned)
            if isinstance(outcome, Arrived):
                self._begin(outcome, response)
            self._outcome = outcome
            self._tell()
            if isinstance(outcome, Arrived):
                await self._pump(response)
        except UpstreamError as error:
            self._fail(error)
        finally:
            if response is not None:
                response.abort()
            if self._outcome is None:
                self._outcome = Failed(UpstreamError("this node", GIVEN_UP))
            if not self.complete and self.error is None:
                self.error = GIVEN_UP
            self._stop_storing()
            self._errand.landed(self)
            self._tell()
            self._task = None  # which has this fill in its frame

    def _begin(self, arrived: Arrived, response: UpstreamResponse) -> None:
        self.arrived = arrived
        if arrived.start:
            self.content = Arriving(arrived.start)
            for seat in self._seats:
                seat.position = arrived.start
        self.stop = arrived.stop
        if self.stop is None and response.length is not None:
            self.stop = arrived.start + response.length
        self._writer = arrived.writer
        if self.disowned:
            self._stop_storing()
        if not arrived.shareable:
            self._errand.landed(self)
        if arrived.sliced:
            self._errand.shown(self, arrived)

    def _fail(self, error: UpstreamError) -> None:
        error.__traceback__ = None  # which has this fill in its frames
        if self._outcome is None:
            self._outcome = Failed(error)
        if self.arrived is not None:
            self._errand.counters.cut_short += 1
            self._errand.cut_short(error)
        self.error = str(error)

    async def _pump(self, response: UpstreamResponse) -> None:
        assert self.arrived is not None
        stored = self.arrived.stored
        while piece := await response.read():
            self.content.append(piece)
            if self.stop is not None and self.content.end > self.stop:
                raise MalformedResponse(self.source, "more content than its head says")
            while self._writer is not None and self.content.unsliced >= stored.slice_size:
                self._store(stored.slice_size)
                if self._meets_what_is_there():
                    self._finish()
                    return
            if self.content.end == self.stop and response.length is not None:
                break  # all that framing has promised: nothing more can come
            self._trim()
            self._tell()
            while self._is_ahead():
                await self._wait_for_readers()
            if self._writer is not None:
                await self._writer.room()
        if self.stop is not None and self.content.end != self.stop:
            came, wanted = self.content.end - self.arrived.start, self.stop - self.arrived.start
            raise BodyCutShort(self.source, f"{came} of {wanted} bytes came")
        self._finish()

    def _store(self, size: int) -> None:
        assert self.arrived is not None
        number = self.content.sliced // self.arrived.stored.slice_size
        piece = self.content.next_slice(size)
        if self._writer is not None and not self._writer.write(number, piece):
            self._stop_storing()  # no room: from here on out of a window

    def _meets_what_is_there(self) -> bool:
        """Whether a stream of slices has come to one that is there: readers go on with that."""
        arrived, place = self.arrived, self.content.sliced
        if arrived is None or not arrived.sliced or place == self.stop:
            return False
        return self._errand.is_there(arrived.stored, place // arrived.stored.slice_size)

    def _finish(self) -> None:
        arrived, writer = self.arrived, self._writer
        assert arrived is not None
        if writer is not None and self.content.unsliced and self._is_at_end():
            self._store(self.content.unsliced)
            writer = self._writer
        if writer is not None:
            self._writer = None
            self._commit(writer, arrived)
        self.complete = True

    def _is_at_end(self) -> bool:
        return self.stop is None or self.content.end == self.stop

    def _commit(self, writer: SliceWriter, arrived: Arrived) -> None:
        stored, length = arrived.stored, self.content.end - arrived.start
        if arrived.sliced:
            writer.abort()  # all that was shown stays
        elif isinstance(stored.present, ByteRange):
            if stored.present.length != length:
                writer.abort()  # it was not the part that it said it was
                return
            writer.commit(stored)
        else:
            writer.commit(stored.with_length(length))
        self._errand.counters.stored += 1

    def kept(self, position: int) -> StoredContent | None:
        """What is kept here no longer, from `position` on, as the store has it."""
        arrived = self.arrived
        if arrived is None or arrived.writer is None or position >= self.content.base:
            return None
        present = arrived.stored.present
        first = present.start if isinstance(present, ByteRange) else 0
        return arrived.writer.open([ByteRange(first + position, first + self.content.base)])

    def _stop_storing(self) -> None:
        if self._writer is not None:
            self._writer.abort()
            self._writer = None

    # --- pace and window, where nothing is stored -----------------------------------------------

    def _is_ahead(self) -> bool:
        """Whether readers are to be waited for. What has a place in the store comes as fast as it
        can, but for what can be asked for later slice by slice; of what has no known length, nobody
        knows that it will find one."""
        if not self._seats or self.content.end == self.stop:
            return False
        if self._writer is not None and self.stop is not None:
            arrived = self.arrived
            slice_size = arrived.stored.slice_size if arrived is not None else 0
            return arrived is not None and arrived.sliced and self._lead() >= slice_size
        return self._lead() >= READ_AHEAD or (self._writer is None and self._lag() >= WINDOW)

    def _lead(self) -> int:
        return self.content.end - max(seat.position for seat in self._seats)

    def _lag(self) -> int:
        return self.content.end - min(seat.position for seat in self._seats)

    async def _wait_for_readers(self) -> None:
        slowest = min(self._seats, key=lambda seat: seat.position)
        starving = self._writer is None and self._lead() < READ_AHEAD
        began = self._loop.time()
        self._progress = self._loop.create_future()
        try:
            async with asyncio.timeout(PATIENCE - slowest.held if starving else None):
                await self._progress
        except TimeoutError:
            self._seats.discard(slowest)
            slowest.dropped = True
        finally:
            self._progress = None
            if starving:
                slowest.held += self._loop.time() - began
        self._trim()

    def moved(self) -> None:
        """A reader took something, or left: there may be room."""
        if self._progress is not None and not self._progress.done():
            self._progress.set_result(None)

    def _trim(self) -> None:
        start = 0 if self.arrived is None else self.arrived.start
        end = self.content.end
        slowest = min((seat.position for seat in self._seats), default=end)
        if self._writer is not None:
            self.content.forget(min(max(slowest, end - WINDOW), self.content.sliced))
        elif end - start > JOINABLE:
            self.content.forget(slowest)
            if self.content.base > start:
                self._errand.landed(self)
