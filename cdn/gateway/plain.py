"""The plain miss: a GET for anyone, of which nothing is stored and nobody is on the way.

Strategy: no Task and no future. What follows from a request's field block alone is made once
(`Form`); the request is written to a kept connection in the call that brought it; an answer that
came whole, and is one to store, is judged, stored and handed down in the call that brought that.
While it is under way others find it (`Filling.plain`). Wherever it takes more than that (somebody
joins, the answer is unusual or comes in pieces, upstream fails), what there is goes on as the fill
that it would have been from the beginning, and everything is decided there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, cast

from cdn.gateway.asked import Asked
from cdn.gateway.exchange import Answer, Exchange
from cdn.gateway.forward import forwarded_request
from cdn.gateway.seat import Seat
from cdn.gateway.services import DeliveryService, ServiceTable
from cdn.semantics.delivery import OWN_FIELDS, cache_status, joined_status, shown_age, via
from cdn.semantics.freshness import current_age
from cdn.semantics.message import Fields, Request, Response
from cdn.semantics.plain import stored_plainly
from cdn.semantics.reuse import Fwd
from cdn.storage.store import Store
from cdn.upstream.begun import Begun
from cdn.upstream.response import WholeResponse
from cdn.upstream.router import PromptRouter, Upward

if TYPE_CHECKING:
    from cdn.gateway.gateway import Gateway

LARGEST = 64 * 1024
"""Bytes of content that are handed down with their head."""

_NOT_PLAIN = frozenset({"authorization", "cdn-loop", "surrogate-capability"})


Ready = tuple[bytes, bytes, str]
"""An answer, a 200: its field lines but those that frame it, its content, and its Cache-Status
once more."""


class Asker(Protocol):
    """Whose request it is: the rim's connection."""

    @property
    def draining(self) -> bool:
        """Whether its connections are to end."""
        ...

    def answered(self, miss: PlainMiss, lines: bytes, content: bytes, cache_status: str) -> None:
        """The answer: see `Ready`."""
        ...

    def takes_longer(self, miss: PlainMiss) -> None:
        """It is to be waited for: `PlainMiss.seated`, then `PlainMiss.answer`."""
        ...

    def broke(self, miss: PlainMiss, error: Exception) -> None:
        """A bug: there will be no answer."""
        ...

    def interim(self, head: Response) -> None:
        """A 1xx head on the way."""
        ...


class Form:
    """What follows from a field block, and a scheme, while the services are these. `router` is None
    where requests with it are none for this file."""

    __slots__ = ("origin", "own", "request", "router", "service", "services", "status", "upward")

    def __init__(self, services: ServiceTable, request: Request) -> None:
        self.services = services
        self.request = request
        self.router: PromptRouter | None = None
        self.origin = b""
        self.own = b""
        self.status = ""
        self.service: DeliveryService
        self.upward: Upward


class PlainMiss(Begun):
    """One such request. `disowned`: what it brings was purged meanwhile."""

    __slots__ = (
        "_misses",
        "_seat",
        "arrived",
        "asked_at",
        "asker",
        "client",
        "disowned",
        "form",
        "key",
        "stamp",
        "target",
    )

    def __init__(
        self,
        misses: PlainMisses,
        asker: Asker,
        form: Form,
        key: bytes,
        target: bytes,
        client: str,
        now: float,
        stamp: int,
    ) -> None:
        self.name = ""
        self.connection = self.response = self.error = self._waiter = None
        self.taken = False
        self._misses = misses
        self._seat: Seat | None = None
        self.asker: Asker | None = asker
        self.form = form
        self.key = key
        self.target = target
        self.client = client
        self.arrived = self.asked_at = now
        self.stamp = stamp
        self.disowned = False

    @property
    def request(self) -> Request:
        """As the rim would have read it."""
        like = self.form.request
        target = self.target.decode("ascii")
        return Request(like.method, like.scheme, like.authority, target, like.fields)

    def answered(self) -> None:
        """See `Begun.answered`."""
        try:
            ready = self._misses.finish(self)
        except Exception as error:
            asker = self.asker
            self.leave()
            assert asker is not None
            asker.broke(self, error)
            return
        if ready is None:
            self.go_on()
        else:
            assert self.asker is not None
            self.asker.answered(self, *ready)

    def interim(self, head: Response) -> None:
        """See `Begun.interim`."""
        if self.asker is not None:
            self.asker.interim(head)

    def go_on(self) -> None:
        """Goes on as a fill."""
        self.taken = True
        assert self.asker is not None
        self.asker.takes_longer(self)

    def seated(self, exchange: Exchange) -> Asked:
        """Takes the first seat at the fill that it has become."""
        asked = Asked(exchange, self.form.service, self.key)
        self._seat = self._misses.gateway.filling.take_over(asked.task(), self)
        return asked

    async def answer(self, asked: Asked) -> Answer:
        """The answer of that fill."""
        assert self._seat is not None
        return await self._misses.gateway.answer_seated(asked, self._seat)

    def leave(self) -> None:
        """The client is gone. Idempotent."""
        self.asker = None
        if self._seat is not None:
            self._seat.leave()
        elif not self.taken:
            self._misses.abandon(self)


class PlainMisses:
    """See above. `clock` gives seconds since 1970; a key that is not `mine` is another worker's."""

    def __init__(
        self,
        gateway: Gateway,
        store: Store,
        clock: Callable[[], float],
        mine: Callable[[bytes], bool],
    ) -> None:
        self.gateway = gateway
        self._filling = gateway.filling
        self._judge = gateway.filling.judge
        self._epochs = gateway.filling.epochs
        self._store = store
        self._clock = clock
        self._mine = mine

    def form(self, request: Request) -> Form:
        """What follows from the field block of `request`, a GET without conditions, Range and
        directives; whatever its target."""
        gateway = self.gateway
        form = Form(gateway.services, request)
        service = gateway.services.match(request.authority) if request.authority else None
        if service is None or not gateway.trusts_nobody:
            return form
        # Not isinstance: against a Protocol that takes longer than all the rest of a miss.
        if request.fields.any_of(_NOT_PLAIN) or not hasattr(service.router, "upward"):
            return form
        node = gateway.name
        form.service = service
        form.origin = f"{request.scheme}://{request.authority}".encode("latin-1")
        form.router = cast(PromptRouter, service.router)
        form.upward = form.router.upward(forwarded_request(request, node))
        form.status = cache_status(node, fwd=Fwd.URI_MISS, stored=True)
        _, passed = via(Fields(), node)
        form.own = f"Via: {passed}\r\nCache-Status: {form.status}\r\n".encode("latin-1")
        return form

    def begin(self, asker: Asker, form: Form, target: bytes, client: str) -> PlainMiss | None:
        """Sends a request on its way; None where that takes more than this file."""
        router, filling = form.router, self._filling
        if router is None:
            return None
        key = form.origin + target
        found = self._store.lookup(key)
        if found is None or found:
            return None
        judge = self._judge
        if judge.has_rules and judge.names(key) != (key,):
            return None
        if judge.marked(key) or filling.is_wanted(key) or not self._mine(key):
            return None
        now = self._clock()
        miss = PlainMiss(self, asker, form, key, target, client, now, self._epochs.now)
        if not router.begin(key, target, form.upward, client, miss):
            return None
        filling.plain[key] = miss
        return miss

    def finish(self, miss: PlainMiss) -> Ready | None:
        """Stores what has come. None: nothing was done, it takes more than that."""
        response, form, asker, key = miss.response, miss.form, miss.asker, miss.key
        if not isinstance(response, WholeResponse) or asker is None or asker.draining:
            return None
        policy = form.service.policy
        if response.length > min(LARGEST, policy.slice_size):
            return None
        found = self._store.lookup(key)
        if miss.disowned or found is None or found or self._judge.marked(key):
            return None
        now, received = self._clock(), response.head.fields
        stored = stored_plainly(
            primary_key=key,
            request=form.request.fields,
            head=response.head,
            request_time=miss.asked_at,
            response_time=now,
            length=response.length,
            stamp=miss.stamp,
            policy=policy,
        )
        if stored is None or not self._store.put(stored, response.content):
            return None
        counters = self._filling.counters
        counters.begun += 1
        counters.stored += 1
        del self._filling.plain[key]
        assert form.router is not None
        form.router.completed(miss)
        head, status = form.own, form.status
        if received.any_of(OWN_FIELDS):
            _, passed = via(received, self.gateway.name)
            _, status = joined_status(received, status)
            own = f"Via: {passed}\r\nCache-Status: {status}\r\n"
            if "age" in received:  # RFC 9111 §5.1, as in `answers`
                own = f"Age: {shown_age(current_age(stored, now))}\r\n{own}"
            head = own.encode("latin-1")
        if "accept-ranges" not in received:
            head = b"Accept-Ranges: bytes\r\n" + head
        return response.relayed + head, response.content, status

    def abandon(self, miss: PlainMiss) -> None:
        """Nobody waits for it any more, and nothing of it has come."""
        counters = self._filling.counters
        counters.begun += 1
        counters.abandoned += 1
        if self._filling.plain.get(miss.key) is miss:
            del self._filling.plain[miss.key]
        assert miss.form.router is not None
        miss.form.router.given_up(miss)
        miss.give_up()
