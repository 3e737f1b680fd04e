"""What goes up, and who may wait for it together.

Strategy: values only. A `Task` is one request on its way up; a `FlightKey` is all by which an
answer can be shared: requests that differ in it never wait for each other.
"""

from __future__ import annotations

from typing import NamedTuple

from cdn.gateway.exchange import Exchange
from cdn.gateway.services import DeliveryService
from cdn.semantics.message import Request
from cdn.semantics.ranges import ByteRange
from cdn.semantics.reuse import covers
from cdn.semantics.stored_response import StoredResponse
from cdn.semantics.vary import Variant
from cdn.storage.store import StoredObject


class FlightKey(NamedTuple):
    """`variant` is None while nobody knows what the response varies on; `authorized`: with
    Authorization (RFC 9111 §3.5). `place` is the one slice asked for, None for the whole; `etag`
    whose slice, None while nobody knows; `slice_size` what `place` counts by, in bytes."""

    primary: bytes
    variant: Variant | None
    authorized: bool
    place: int | None = None
    etag: str | None = None
    slice_size: int = 0


def slice_flight(of: StoredResponse, place: int, authorized: bool) -> FlightKey:
    """The flight that brings a slice of what is known to be there."""
    etag = of.validator.etag
    return FlightKey(of.primary_key, of.variant, authorized, place, etag, of.slice_size)


class Task(NamedTuple):
    """One request on its way up: whose, for which service, and what is stored for it already.
    `as_is`: it has gone up as the client sent it, the answer is that one client's. `place`: it asks
    for that slice, of the representation `of` where that is known."""

    exchange: Exchange
    service: DeliveryService
    key: bytes
    stored: StoredObject | None = None
    as_is: bool = False
    place: int | None = None
    of: StoredResponse | None = None

    @property
    def request(self) -> Request:
        return self.exchange.request

    @property
    def validate(self) -> StoredResponse | None:
        """What a 304 would freshen, and make an answer to this request."""
        stored = self.stored.response if self.stored else None
        if stored is None or self.as_is or self.place is not None or not stored.validator:
            return None
        return stored if covers(stored, self.request, stored.response_time) else None

    @property
    def part(self) -> StoredObject | None:
        """A part that came by itself, from the beginning on, where this request wants all."""
        stored = self.stored
        if stored is None or self.as_is or "range" in self.request.fields:
            return None
        present = stored.response.present
        return stored if isinstance(present, ByteRange) and present.start == 0 else None

    @property
    def slice_size(self) -> int:
        """Bytes of the slices that `place` counts."""
        return self.service.policy.slice_size if self.of is None else self.of.slice_size

    @property
    def slice(self) -> ByteRange:
        """The bytes of the slice `place`."""
        assert self.place is not None
        of, size = self.of, self.slice_size
        start = self.place * size
        stop = start + size
        return ByteRange(start, stop if of is None or of.length is None else min(stop, of.length))


class Passing:
    """A request on its way up without a fill. `disowned`: what it brings was purged meanwhile."""

    __slots__ = ("disowned", "key", "stamp")

    def __init__(self, key: bytes, stamp: int) -> None:
        self.key = key
        self.stamp = stamp
        self.disowned = False
