"""A request as the pipeline sees it: who asks, whom for, and under which key.

Strategy: pure. A peer that is one of our own nodes is believed about its viewer before anything
else is looked at; nobody else is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from cdn.gateway.exchange import Exchange
from cdn.gateway.flights import Task
from cdn.gateway.services import DeliveryService
from cdn.semantics.cache_key import normalize_authority
from cdn.semantics.forwarded import forwarded_client, last_forwarded
from cdn.semantics.message import Request
from cdn.semantics.ranges import parse_range_specs
from cdn.semantics.value import value
from cdn.storage.store import StoredObject

SEEK = 2 << 20
"""A range that begins further in than this, in bytes, begins no fill of the whole."""


@value(frozen=True, slots=True)
class Asked:
    """A request that a delivery service will answer; `exchange` as its peer is believed."""

    exchange: Exchange
    service: DeliveryService
    key: bytes

    @property
    def request(self) -> Request:
        return self.exchange.request

    @property
    def seeks(self) -> bool:
        """Whether it wants only what lies far in, which the whole is no way to."""
        wanted = self.request.fields.get("range")
        specs = None if wanted is None else parse_range_specs(wanted)
        return specs is not None and any(first is None or first > SEEK for first, _ in specs)

    def unseen(self) -> Asked:
        """The same on behalf of nobody who waits."""
        return replace(self, exchange=replace(self.exchange, send_interim=None))

    def task(self, stored: StoredObject | None = None, as_is: bool = False) -> Task:
        return Task(self.exchange, self.service, self.key, stored, as_is)


def nobody(_: Exchange) -> bool:
    """Whom a node of the viewers' own tier trusts."""
    return False


def heard(exchange: Exchange, trusts: Callable[[Exchange], bool]) -> Exchange:
    """`exchange` as this node takes it, by whom it `trusts`."""
    if trusts(exchange):
        return _believed(exchange)
    if "surrogate-capability" in exchange.request.fields:
        return _without_claims(exchange)
    return exchange


def _without_claims(exchange: Exchange) -> Exchange:
    """`exchange` of a viewer who says to be a surrogate."""
    request = exchange.request
    fields = request.fields.without({"surrogate-capability"})
    return replace(exchange, request=request.with_fields(fields))


def _believed(exchange: Exchange) -> Exchange:
    """`exchange` with the viewer's scheme and address as our own downstream node tells them."""
    told = last_forwarded(exchange.request.fields)
    request = exchange.request
    scheme = told.get("proto", "")
    if scheme in ("http", "https") and scheme != request.scheme:
        authority = normalize_authority(scheme, request.authority)
        request = replace(request, scheme=scheme, authority=authority)
    client = forwarded_client(told["for"]) if told.get("for") else exchange.client
    return replace(exchange, request=request, client=client)
