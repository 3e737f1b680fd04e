"""A fill: one upstream response on its way to the store and to everyone who waits, as it arrives.

Strategy: a fill is a task of its own, so nobody's going away ends it for the others. Everyone who
wants it holds a seat from the moment of joining; a seat becomes a reader when the head has come.
Content is assembled into aligned slices that the store and all readers share by reference. What
cannot be stored is shared all the same, out of a window: read ahead of the fastest reader a little,
kept for the slowest up to 4 MiB; who holds the others up longer goes on alone.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from cdn.gateway.exchange import Content, ContentCutShort
from cdn.semantics.message import Response
from cdn.semantics.ranges import SLICE_SIZE
from cdn.semantics.stored_response import StoredResponse
from cdn.semantics.storing import NotStoredReason
from cdn.storage.store import SliceWriter
from cdn.upstream.errors import BodyCutShort, UpstreamError
from cdn.upstream.exchange import UpstreamResponse

WINDOW = 4 << 20
"""Bytes by which the slowest reader of what is not stored may be behind the newest."""

READ_AHEAD = 256 << 10
"""Bytes that are read ahead of the fastest reader of what is not stored."""

JOINABLE = 2 << 20
"""Bytes from the start that are kept for late comers of what is not stored."""

PATIENCE = 1.0
"""Seconds in all for which one reader may hold the others up."""

WORTH_FINISHING = 1 << 20
"""With less than this missing, in bytes, a fill nobody waits for is finished for the store."""


@dataclass(frozen=True, slots=True)
class Arrived:
    """A head came and content follows. `stored` describes it as it is, or would be, stored;
    `reason` is why it is not, None where it is being stored."""

    response: Response
    stored: StoredResponse
    reason: NotStoredReason | None
    writer: SliceWriter | None

    @property
    def shareable(self) -> bool:
        """Whether others than the one who asked may have it."""
        return self.reason is None or self.reason is NotStoredReason.TOO_LARGE


@dataclass(frozen=True, slots=True)
class Freshened:
    """A 304 made a stored response usable again: look the store up."""

    stored: StoredResponse


@dataclass(frozen=True, slots=True)
class Failed:
    """No head came."""

    error: UpstreamError


HeadOutcome = Arrived | Freshened | Failed
OnHead = Callable[[UpstreamResponse, float], HeadOutcome]
GoOnAlone = Callable[["Fill", int, int | None], Awaitable[Content]]


@dataclass(slots=True)
class FillCounters:
    """Plain counts, collected at scrape."""

    begun: int = 0
    stored: int = 0
    cut_short: int = 0
    abandoned: int = 0
    gone_alone: int = 0


@dataclass(slots=True)
class FillParts:
    """What a fill needs of the gateway. `fetch` gives the upstream's answer and when it was asked
    (seconds); `on_head` judges it; `landed` is called once no one may join any more."""

    fetch: Callable[[], Awaitable[tuple[UpstreamResponse, float]]]
    on_head: OnHead
    landed: Callable[[Fill], None]
    go_on_alone: GoOnAlone
    counters: FillCounters = field(default_factory=FillCounters)


class Fill:
    """See above. `run` is its task's work; `take_seat` is how to get at it."""

    def __init__(self, parts: FillParts) -> None:
        loop = asyncio.get_running_loop()
        self._parts = parts
        self._clock = loop.time
        self._head: asyncio.Future[HeadOutcome] = loop.create_future()
        self._seats: set[Seat] = set()
        self._task: asyncio.Task[None] | None = None
        self._writer: SliceWriter | None = None
        self._written = 0
        self._pieces: list[bytes] = []
        self._starts: list[int] = []
        self._news: list[asyncio.Future[None]] = []
        self._progress: asyncio.Future[None] | None = None
        self.base = 0
        self.end = 0
        self.complete = False
        self.disowned = False
        self.error: str | None = None
        self.length: int | None = None
        self.arrived: Arrived | None = None
        self.source = ""

    # --- those who wait -----------------------------------------------------------------------

    def take_seat(self) -> Seat:
        """Joins: the fill goes on at least as long as the seat is held."""
        seat = Seat(self)
        self._seats.add(seat)
        return seat

    def started_by(self, task: asyncio.Task[None]) -> None:
        """`task` runs `run`; it is cancelled when nobody wants the fill any more."""
        self._task = task

    @property
    def joinable(self) -> bool:
        """Whether one who comes now would get all of it."""
        return self.base == 0 and self.error is None and not self.disowned

    def disown(self) -> None:
        """What this fill brings was purged meanwhile: it is not stored and takes no new followers;
        those who have it go on reading."""
        self.disowned = True
        if self._writer is not None:
            self._writer.abort()
            self._writer = None

    def leave(self, seat: Seat) -> None:
        """The seat's holder wants no more."""
        self._seats.discard(seat)
        self.moved()
        if not self._seats and not self.complete and self._task and not self._worth_finishing():
            self._parts.counters.abandoned += 1
            self._parts.landed(self)
            self._task.cancel()

    def _worth_finishing(self) -> bool:
        return (
            self._writer is not None
            and self.length is not None
            and self.length - self.end < WORTH_FINISHING
        )

    async def head(self) -> HeadOutcome:
        """Waits for the head; a waiter's cancellation cancels nobody else."""
        return await asyncio.shield(self._head)

    # --- the one who brings -------------------------------------------------------------------

    async def run(self) -> None:
        """Fetches, judges, stores and spreads. Every expected error ends in `error` or `Failed`."""
        self._parts.counters.begun += 1
        response: UpstreamResponse | None = None
        try:
            response, asked_at = await self._parts.fetch()
            self.source = response.source
            outcome = self._parts.on_head(response, asked_at)
            if isinstance(outcome, Arrived):
                self._begin(outcome, response)
            self._head.set_result(outcome)
            if isinstance(outcome, Arrived):
                await self._pump(response)
        except UpstreamError as error:
            if self._head.done():
                self._cut_short(str(error))
            else:
                self._head.set_result(Failed(error))
        finally:
            if response is not None:
                response.abort()
            if not self._head.done():
                self._head.set_result(Failed(UpstreamError("upstream", "the fill was given up")))
            if not self.complete:
                self._cut_short("the fill was given up")
            self._parts.landed(self)

    def _begin(self, arrived: Arrived, response: UpstreamResponse) -> None:
        self.arrived = arrived
        self.length = response.length
        self._writer = arrived.writer
        if self.disowned:
            self.disown()
        if not arrived.shareable:
            self._parts.landed(self)

    async def _pump(self, response: UpstreamResponse) -> None:
        while piece := await response.read():
            self._append(piece)
            while self._writer is None and self._seats and not self._has_room():
                await self._wait_for_readers()
        if self.length is not None and self.end != self.length:
            raise BodyCutShort(self.source, f"{self.end} of {self.length} bytes came")
        self._finish()

    def _append(self, piece: bytes) -> None:
        self._starts.append(self.end)
        self._pieces.append(piece)
        self.end += len(piece)
        while self._writer is not None and self.end - self._written >= SLICE_SIZE:
            self._assemble(SLICE_SIZE)
        if self._writer is None:
            self._trim()
        self._wake()

    def _assemble(self, size: int) -> None:
        """Joins the unwritten pieces, of which `size` bytes make the next slice."""
        first = bisect_right(self._starts, self._written) - 1
        joined = self._pieces[first] if first == len(self._pieces) - 1 else b""
        if not joined:
            joined = b"".join(self._pieces[first:])
        aligned = joined if len(joined) == size else joined[:size]
        rest = b"" if aligned is joined else joined[size:]
        del self._pieces[first:], self._starts[first:]
        self._pieces.append(aligned)
        self._starts.append(self._written)
        self._written += size
        if rest:
            self._pieces.append(rest)
            self._starts.append(self._written)
        if self._writer is not None and not self._writer.write(aligned):
            self._writer = None  # no room: from here on out of a window

    def _finish(self) -> None:
        arrived = self.arrived
        if self._writer is not None and self.end > self._written:
            self._assemble(self.end - self._written)
        if self._writer is not None and arrived is not None:
            self._writer.commit(arrived.stored.with_length(self.end))
            self._parts.counters.stored += 1
        self._writer = None
        self.complete = True
        self.length = self.end
        self._wake()

    def _cut_short(self, why: str) -> None:
        if self.error is None and not self.complete:
            self.error = why
            if self.arrived is not None:
                self._parts.counters.cut_short += 1
        if self._writer is not None:
            self._writer.abort()
            self._writer = None
        self._wake()

    # --- the window, where nothing is stored ----------------------------------------------------

    def _trim(self) -> None:
        if self.end <= JOINABLE:
            return
        slowest = min((seat.position for seat in self._seats), default=self.end)
        drop = bisect_right(self._starts, slowest) - 1
        if drop > 0:
            self.base = self._starts[drop]
            del self._pieces[:drop], self._starts[:drop]
            self._parts.landed(self)

    def _has_room(self) -> bool:
        positions = [seat.position for seat in self._seats]
        return self.end - max(positions) < READ_AHEAD and self.end - min(positions) < WINDOW

    async def _wait_for_readers(self) -> None:
        slowest = min(self._seats, key=lambda seat: seat.position)
        starving = self.end - max(seat.position for seat in self._seats) < READ_AHEAD
        self._progress = asyncio.get_running_loop().create_future()
        began = self._clock()
        try:
            async with asyncio.timeout(PATIENCE - slowest.held if starving else None):
                await self._progress
        except TimeoutError:
            self._seats.discard(slowest)
            slowest.dropped = True
        finally:
            self._progress = None
            if starving:
                slowest.held += self._clock() - began
        self._trim()

    def moved(self) -> None:
        """A reader took something: there may be room."""
        if self._progress is not None and not self._progress.done():
            self._progress.set_result(None)

    # --- reading ------------------------------------------------------------------------------

    def piece_at(self, position: int) -> bytes | memoryview:
        """What is here of the content from `position` on; `base` <= position < `end`."""
        index = bisect_right(self._starts, position) - 1
        piece, skip = self._pieces[index], position - self._starts[index]
        return memoryview(piece)[skip:] if skip else piece

    def news(self) -> asyncio.Future[None]:
        """Done when more has come, or nothing more will."""
        future = asyncio.get_running_loop().create_future()
        self._news.append(future)
        return future

    def _wake(self) -> None:
        waiting, self._news = self._news, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    def alone(self, position: int, stop: int | None) -> Awaitable[Content]:
        """The rest from `position` on for one who fell out of the window."""
        self._parts.counters.gone_alone += 1
        return self._parts.go_on_alone(self, position, stop)


class Seat:
    """One client's place at a fill, and the `Content` it reads: bytes [position, stop)."""

    __slots__ = ("_alone", "_fill", "dropped", "held", "position", "stop")

    def __init__(self, fill: Fill) -> None:
        self._fill: Fill | None = fill
        self._alone: Content | None = None
        self.position = 0
        self.stop: int | None = None
        self.held = 0.0
        self.dropped = False

    async def head(self) -> HeadOutcome:
        """Waits for the head."""
        assert self._fill is not None
        return await self._fill.head()

    @property
    def length(self) -> int | None:
        """Bytes of content in all, where known."""
        return None if self._fill is None else self._fill.length

    @property
    def source(self) -> str:
        """Who upstream answers."""
        return "" if self._fill is None else self._fill.source

    def read_only(self, start: int, stop: int) -> None:
        """Narrows the seat to a part of the content, before the first `read`."""
        self.position, self.stop = start, stop
        if self._fill is not None:
            self._fill.moved()

    async def read(self) -> bytes | memoryview:
        """See `Content.read`. Raises ContentCutShort."""
        if self._alone is not None:
            return await self._alone.read()
        while (fill := self._fill) is not None:
            if self.stop is not None and self.position >= self.stop:
                break
            if self.dropped or self.position < fill.base:
                self._alone = await fill.alone(self.position, self.stop)
                self.leave()
                return await self._alone.read()
            if self.position < fill.end:
                return self._take(fill)
            if fill.complete:
                break
            if fill.error is not None:
                self.leave()
                raise ContentCutShort(fill.error)
            await fill.news()
        self.leave()
        return b""

    def _take(self, fill: Fill) -> bytes | memoryview:
        piece = fill.piece_at(self.position)
        if self.stop is not None and len(piece) > self.stop - self.position:
            piece = memoryview(piece)[: self.stop - self.position]
        self.position += len(piece)
        fill.moved()
        return piece

    def leave(self) -> None:
        """Leaves the fill. Idempotent."""
        fill, self._fill = self._fill, None
        if fill is not None:
            fill.leave(self)

    def abort(self) -> None:
        """See `Content.abort`."""
        self.leave()
        if self._alone is not None:
            self._alone.abort()
