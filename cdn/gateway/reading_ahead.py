"""Reading ahead of who asks for one range after another: a film is played in order.

Strategy: a client whose range begins where its last one ended is in a row; the slice after what it
has just asked for is fetched for the store, before it asks. Only as long as the origin has sent no
more than two slices above what the client had in this row (RangeAmp).
"""

from __future__ import annotations

from collections.abc import Callable

from cachetools import LRUCache

from cdn.gateway.asked import Asked
from cdn.gateway.background import BackgroundTasks
from cdn.gateway.filling import Filling
from cdn.gateway.flights import slice_flight
from cdn.gateway.seat import read_for_the_store
from cdn.semantics.ranges import ByteRange, parse_range
from cdn.semantics.slices import PresentSlices
from cdn.semantics.stored_response import StoredResponse

MOST_ROWS = 4096
"""Clients and representations whose last range is remembered; the least recently used go first."""

Row = tuple[str, bytes, str | None]


class ReadingAhead:
    """`mine` tells whether a key's slices are this worker's to fetch."""

    def __init__(
        self, filling: Filling, background: BackgroundTasks, mine: Callable[[bytes], bool]
    ) -> None:
        self._filling = filling
        self._background = background
        self._mine = mine
        self._rows: LRUCache[Row, ByteRange] = LRUCache(MOST_ROWS)

    def used(self, asked: Asked, of: StoredResponse) -> None:
        """A request has been answered out of `of`, as far as it was there."""
        wanted, present = asked.request.fields.get("range"), of.present
        if wanted is None or of.length is None or not isinstance(present, PresentSlices):
            return
        parts = parse_range(wanted, of.length)
        if parts is None or len(parts) != 1:
            return
        row: Row = (asked.exchange.client, of.primary_key, of.validator.etag)
        before, (start, stop) = self._rows.get(row), parts[0]
        in_a_row = before is not None and before.stop == start
        begin = before.start if before is not None and in_a_row else start
        self._rows[row] = ByteRange(begin, stop)
        size = of.slice_size
        number, left = -(-stop // size), -stop % size
        soon = left <= size // 2 and begin % size + left <= size
        if in_a_row and soon and number * size < of.length and not present.has(number):
            self._fetch(asked, of, number)

    def _fetch(self, asked: Asked, of: StoredResponse, number: int) -> None:
        flight = slice_flight(of, number, "authorization" in asked.request.fields)
        if self._filling.is_under_way(flight) or not self._mine(of.primary_key):
            return
        seat, _ = self._filling.join(flight, asked.unseen().task()._replace(place=number, of=of))
        self._background.start(read_for_the_store(seat), "reading ahead")
