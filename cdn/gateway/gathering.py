"""Content gathered from wherever it is: the store, what is arriving, and else from upstream.

Strategy: at every place where one source ends, look again. A slice that is there is read; one that
is on its way is waited for with the others; else it is fetched, and the next one with it, so that a
reader in a row does not wait at each. What turns out to be damaged or gone is simply fetched again.
"""

from __future__ import annotations

from collections.abc import Sequence

from cdn.gateway.exchange import Content, ContentCutShort
from cdn.gateway.fill import Arrived, Failed
from cdn.gateway.filling import Filling
from cdn.gateway.flights import Task, slice_flight
from cdn.gateway.representations import is_one_representation, representation_among
from cdn.gateway.seat import Seat
from cdn.semantics.delivery import Segment
from cdn.semantics.ranges import ByteRange
from cdn.semantics.slices import PresentSlices
from cdn.semantics.stored_response import StoredResponse
from cdn.storage.store import ContentToSend, Piece, SliceUnavailable, Store, StoredObject

TRIES = 3
"""Sources tried in a row that gave nothing."""


class Gathered:
    """A `Content`: `segments` of the representation `of`, which has slices. `task` is the request
    that wants them. `seat`, taken at what `arrived`, is used as far as it helps."""

    def __init__(
        self,
        filling: Filling,
        store: Store,
        task: Task,
        of: StoredResponse,
        segments: Sequence[Segment],
        seat: Seat | None = None,
        arrived: Arrived | None = None,
    ) -> None:
        self._filling = filling
        self._store = store
        self._task = task
        self._of = of
        self._size = of.slice_size
        self._segments = list(segments)
        self._position = self._stop = 0
        self._source: ContentToSend | Content | None = None
        self._ahead: tuple[int, Seat] | None = None
        self._vain = self._began = 0
        self._present: PresentSlices | None = PresentSlices()
        if seat is not None and arrived is not None:
            self._use(seat, arrived)

    def _use(self, seat: Seat, arrived: Arrived) -> None:
        """What was fetched to begin with: a stream, or the first slice that was missing."""
        if not arrived.is_slice:
            first = next((part for part in self._segments if isinstance(part, ByteRange)), None)
            within = first is not None and seat.reaches(first.start, self._size)
            if first is self._segments[0] and within:
                self._segments.pop(0)
                self._position, self._stop = first
                seat.read_only(*first)
                self._source = seat
                self._began = self._position
                return
            seat.leave()
            return
        self._ahead = (arrived.start // self._size, seat)

    async def read(self) -> Piece:
        """See `Content.read`. Raises ContentCutShort."""
        while True:
            if self._source is None:
                if self._position >= self._stop:
                    if not self._segments:
                        self.abort()
                        return b""
                    segment = self._segments.pop(0)
                    if not isinstance(segment, ByteRange):
                        return segment
                    self._position, self._stop = segment
                self._source = await self._find()
                self._began = self._position
            if piece := await self._read():
                return piece

    async def _read(self) -> Piece:
        """From the source there is; b"" where it has come to its end."""
        assert self._source is not None
        try:
            piece = await self._source.read()
        except (SliceUnavailable, ContentCutShort) as error:
            self._again(error)
            return b""
        if piece:
            self._vain = 0
            self._position += len(piece)
        elif self._position == self._began:
            self._again(ContentCutShort("what was to be there was not"))
        else:
            self._source = None
        return piece

    def _again(self, error: Exception) -> None:
        if self._source is not None:
            self._source.abort()
            self._source = None
        self._vain += 1
        if self._vain >= TRIES:
            self.abort()
            raise ContentCutShort(str(error)) from error

    def abort(self) -> None:
        """See `Content.abort`."""
        if self._source is not None:
            self._source.abort()
            self._source = None
        self._segments.clear()
        self._position = self._stop = 0
        self._leave_ahead()

    def _leave_ahead(self) -> None:
        if self._ahead is not None:
            self._ahead[1].leave()
            self._ahead = None

    # --- sources --------------------------------------------------------------------------------

    async def _find(self) -> ContentToSend | Content:
        number = self._position // self._size
        stored = await self._in_store()
        if stored is not None:
            return stored
        seat = self._seat_for(number)
        try:
            return await self._from_fill(seat, number)
        except BaseException:
            seat.leave()
            raise

    async def _in_store(self) -> ContentToSend | None:
        """What is stored from here on, up to the slice before the next gap; in that one, the gap is
        asked for ahead."""
        key, wanted = self._of.primary_key, ByteRange(self._position, self._stop)
        variants = self._store.lookup(key)
        if variants is None:
            variants = await self._store.lookup_soon(key)
        found = representation_among(variants, self._of)
        if found is None or isinstance(found.response.present, ByteRange):
            return None
        self._present = present = found.response.present
        gap = None if present is None else present.first_missing(wanted)
        if gap is None:
            return found.open_to_send([wanted])
        before = (gap - 1) * self._size
        if gap * self._size <= self._position:
            return None
        if self._position < before:
            return found.open_to_send([ByteRange(self._position, before)])
        self._fetch_ahead(gap)
        return found.open_to_send([ByteRange(self._position, gap * self._size)])

    def _seat_for(self, number: int) -> Seat:
        if self._ahead is not None and self._ahead[0] == number:
            _, seat = self._ahead
            self._ahead = None
            return seat
        self._leave_ahead()
        return self._join(number)

    def _join(self, number: int) -> Seat:
        task = self._task._replace(place=number, of=self._of)
        authorized = "authorization" in task.request.fields
        seat, _ = self._filling.join(slice_flight(self._of, number, authorized), task)
        return seat

    def _fetch_ahead(self, number: int) -> None:
        absent = self._present is not None and not self._present.has(number)
        if self._ahead is None and absent and number * self._size < self._stop:
            self._ahead = (number, self._join(number))

    async def _from_fill(self, seat: Seat, number: int) -> Content:
        match await seat.head():
            case Arrived(stored=stored) as arrived if is_one_representation(stored, self._of):
                stop = self._stop
                if arrived.is_slice:
                    stop = min(stop, (number + 1) * self._size)
                    self._fetch_ahead(number + 1)
                seat.read_only(self._position, stop)
                return seat
            case Arrived():
                raise ContentCutShort("it has changed upstream while it was on its way down")
            case Failed(error=error):
                self._filling.complain(self._task, error)
                raise ContentCutShort(str(error)) from error
            case _:
                seat.leave()
                return await self._filling.rest_of(self._task, self._of, self._position, self._stop)


class Stored:
    """A `Content` out of the store that nothing can be added to: what is damaged or gone of it is
    had from upstream, where a validator says that it fits."""

    def __init__(
        self, filling: Filling, task: Task, found: StoredObject, segments: Sequence[Segment]
    ) -> None:
        self._filling = filling
        self._task = task
        self._of = found.response
        parts = [segment for segment in segments if isinstance(segment, ByteRange)]
        self._stored = found.open_to_send(parts)
        self._rest: Content | None = None
        self._segments = list(segments)
        self._position = self._stop = 0
        self._first: Piece = b""

    async def prime(self) -> None:
        """Reads the first piece. Raises SliceUnavailable, while another answer can be given."""
        self._first = await self._next()

    async def read(self) -> Piece:
        """See `Content.read`. Raises ContentCutShort."""
        piece, self._first = self._first, b""
        try:
            return piece or await self._next()
        except SliceUnavailable:
            self._stored.abort()
            rest = self._filling.rest_of(self._task, self._of, self._position, self._stop)
            self._rest = await rest
            return await self._next()

    async def _next(self) -> Piece:
        if self._position >= self._stop:
            if self._rest is not None and self._segments:
                raise ContentCutShort("several ranges cannot be mended on their way down")
            if not self._segments:
                return b""
            segment = self._segments.pop(0)
            if not isinstance(segment, ByteRange):
                return segment
            self._position, self._stop = segment
        piece = await (self._stored if self._rest is None else self._rest).read()
        self._position += len(piece)
        return piece

    def abort(self) -> None:
        """See `Content.abort`."""
        self._stored.abort()
        if self._rest is not None:
            self._rest.abort()
