"""One owner for every key: what the workers of a node ask each other.

Strategy: two handlers around one gateway. `OwnerHandler` stands before the viewers: what it does
not own it has answered by the owner, over `OwnerRouter`. `OwnedHandler` stands before the other
workers' socket, and never forwards. The hop is invisible: request and answer travel as they are,
and beside them, in one field each, what HTTP does not say: who asks, and what log and metrics of
the worker that was asked shall say. A viewer's own field of that name is replaced, and the owner's
is taken off, so neither can be forged or leaks.

When the owner does not answer, the worker goes upstream itself and, not being the owner, stores
nothing (`Filling`).
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import dataclass, replace

from cdn.gateway.asked import Asked
from cdn.gateway.exchange import Answer, Exchange, Outcome
from cdn.gateway.filling import Complain
from cdn.gateway.gateway import Gateway
from cdn.gateway.own_answers import own_error
from cdn.gateway.relay import Relayed
from cdn.gateway.workers import Tag
from cdn.semantics.message import Fields, Request, Response
from cdn.upstream.errors import ConnectRefused, ConnectTimeout, MalformedResponse, UpstreamError
from cdn.upstream.exchange import UpstreamRequest, UpstreamResponse
from cdn.upstream.owner_router import OwnerRouter
from cdn.upstream.resume import Remainder, ResumingResponse
from cdn.upstream.router import may_retry

ASKED = "CDN-Worker-Asked"
"""On a request: the viewer's address, scheme, authority and HTTP/1 minor version. A request without
it is one of the workers' own: what to forget."""

INVALIDATION = "CDN-Worker-Invalidation"
"""On what is told another worker: by what name. One from before an upgrade gives none."""

LIFT = "/lift"
"""The target of what lifts an invalidation's bars. To one from before an upgrade it is as any: it
forgets the keys once more."""

ANSWERED = "CDN-Worker-Answered"
"""On an answer: the owner's `Outcome`."""


@dataclass(slots=True)
class OwnerCounters:
    """Plain counts, collected at scrape."""

    forwarded: int = 0
    lost: int = 0


class OtherWorkers:
    """`Workers` over a router; `complain` hears of those that did not answer."""

    def __init__(self, router: OwnerRouter, complain: Complain) -> None:
        self._router = router
        self._complain = complain
        self._numbers = itertools.count()

    def mine(self, key: bytes) -> bool:
        """See `Workers.mine`."""
        return self._router.mine(key)

    def invalidation(self) -> str:
        """See `Workers.invalidation`."""
        return f"{os.getpid()}-{next(self._numbers)}"

    async def forget(
        self, invalidation: str, keys: Collection[bytes], tags: Collection[Tag]
    ) -> bool:
        """See `Workers.forget`."""
        return await self._tell("/", invalidation, keys, tags)

    async def lift(self, invalidation: str, keys: Collection[bytes]) -> None:
        """See `Workers.lift`."""
        await self._tell(LIFT, invalidation, keys, ())

    async def _tell(
        self, target: str, invalidation: str, keys: Collection[bytes], tags: Collection[Tag]
    ) -> bool:
        texts = [key.decode("latin-1") for key in keys]
        groups = [(origin.decode("latin-1"), name) for origin, name in tags]
        content = json.dumps([texts, groups]).encode()
        errors = await self._router.tell_others(lambda: _message(target, invalidation, content))
        for error in errors:
            self._complain(error, "an invalidation")
        return not errors


class OwnerHandler:
    """A `Handler` for viewers. `clock` gives seconds since 1970."""

    def __init__(
        self,
        gateway: Gateway,
        router: OwnerRouter,
        clock: Callable[[], float],
        complain: Complain,
        counters: OwnerCounters,
    ) -> None:
        self.counters = counters
        self._gateway = gateway
        self._router = router
        self._clock = clock
        self._complain = complain

    def answer_now(self, exchange: Exchange) -> Answer | None:
        """See `Handler.answer_now`."""
        asked = self._gateway.ask(exchange)
        if isinstance(asked, Answer):
            return asked
        return self._gateway.answer_asked_now(asked, owns=self._owns(asked))

    async def answer(self, exchange: Exchange) -> Answer:
        """See `Handler.answer`."""
        asked = self._gateway.ask(exchange)
        if isinstance(asked, Answer):
            return asked
        if not self._owns(asked):
            # Any worker reads what is stored on disk; what is to be asked upstream is its owner's.
            answer = await self._gateway.answer_stored(asked) or await self._by_owner(asked)
            if answer is not None:
                return answer
        return await self._gateway.answer_asked(asked)

    def _owns(self, asked: Asked) -> bool:
        return self._router.mine(self._gateway.filling.judge.names(asked.key)[0])

    async def _by_owner(self, asked: Asked) -> Answer | None:
        """The owner's answer; None where it gives none, and nothing is lost by asking again."""
        self.counters.forwarded += 1
        request = _to_owner(asked.exchange)
        try:
            response = await self._router.fetch(asked.key, request)
            told = response.head.fields.get(ANSWERED.lower())
            if told is None:
                response.abort()
                raise MalformedResponse(response.source, "it refused what another worker took")
        except UpstreamError as error:
            self._complain(error, asked.request.url)
            self.counters.lost += 1
            # Not connected: nothing was sent, no content was read.
            if isinstance(error, ConnectRefused | ConnectTimeout) or may_retry(request, error):
                return None
            return own_error(
                self._gateway.name,
                error.status,
                error.told,
                self._clock(),
                error=error.proxy_error,
                method=asked.request.method,
                source=error.endpoint,
            )
        return self._as_it_is(asked, response, told)

    def _as_it_is(self, asked: Asked, response: UpstreamResponse, told: str) -> Answer:
        service, cache, error, collapsed, source = json.loads(told)
        outcome = Outcome(service, cache, error, collapsed, source, asked.exchange.client)
        head = response.head.with_fields(response.head.fields.without({ANSWERED.lower()}))
        if asked.request.method == "HEAD" or head.status in (204, 304):
            response.abort()
            return Answer(head, (), None if head.status == 204 else response.length, outcome)
        content = Relayed(
            self._going_on(asked, response),
            lambda cut: self._complain(cut, asked.request.url),
        )
        return Answer(head, content, response.length, outcome)

    def _going_on(self, asked: Asked, response: UpstreamResponse) -> UpstreamResponse:
        """`response`, of which a viewer elsewhere shall not see that its owner died."""
        whole = Remainder.of(asked.request.method, response.head, response.length)
        if whole is None:
            return response

        async def go_on(missing: Remainder) -> UpstreamResponse | None:
            wanted = missing.request(asked.request)
            try:
                rest = await self._gateway.filling.fetch(asked.task(), wanted)
            except UpstreamError:
                return None
            if missing.is_whole(rest.head, rest.length):
                return rest
            rest.abort()
            return None

        return ResumingResponse(response, whole, go_on)


class OwnedHandler:
    """A `Handler` for the node's other workers."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def answer_now(self, exchange: Exchange) -> Answer | None:
        """See `Handler.answer_now`."""
        if ASKED.lower() not in exchange.request.fields:
            return None
        asked = self._gateway.ask_believed(_from_worker(exchange))
        now = asked if isinstance(asked, Answer) else self._gateway.answer_asked_now(asked)
        return None if now is None else _telling(now)

    async def answer(self, exchange: Exchange) -> Answer:
        """See `Handler.answer`."""
        if ASKED.lower() not in exchange.request.fields:
            return await self._told(exchange)
        asked = self._gateway.ask_believed(_from_worker(exchange))
        if isinstance(asked, Answer):
            return _telling(asked)
        return _telling(await self._gateway.answer_asked(asked))

    async def _told(self, exchange: Exchange) -> Answer:
        assert exchange.content is not None
        texts, groups = json.loads(b"".join([piece async for piece in exchange.content]))
        keys = [text.encode("latin-1") for text in texts]
        invalidation = exchange.request.fields.get(INVALIDATION.lower()) or ""
        if exchange.request.target == LIFT:
            self._gateway.lift(invalidation, keys)
        else:
            tags = [(origin.encode("latin-1"), name) for origin, name in groups]
            await self._gateway.forget(invalidation, keys, tags)
        return Answer(Response(204, Fields()), (), None, Outcome())


def _to_owner(exchange: Exchange) -> UpstreamRequest:
    request = exchange.request
    told = json.dumps((exchange.client, request.scheme, request.authority, request.version[1]))
    return UpstreamRequest(
        head=request.with_fields(request.fields.replacing(ASKED, told)),
        content=exchange.content,
        content_length=exchange.content_length,
        on_interim=exchange.send_interim,
    )


def _from_worker(exchange: Exchange) -> Exchange:
    fields = exchange.request.fields
    client, scheme, authority, minor = json.loads(fields.get(ASKED.lower()) or "")
    request = replace(
        exchange.request,
        scheme=scheme,
        authority=authority,
        fields=fields.without({ASKED.lower()}),
        version=(1, minor),
    )
    return replace(exchange, request=request, client=client)


def _telling(answer: Answer) -> Answer:
    told = answer.outcome
    line = json.dumps((told.service, told.cache, told.error, told.collapsed, told.source))
    answer.head = answer.head.with_fields(answer.head.fields.replacing(ANSWERED, line))
    return answer


def _message(target: str, invalidation: str, content: bytes) -> UpstreamRequest:
    async def pieces() -> AsyncIterator[bytes]:
        yield content

    fields = Fields((("Host", "worker"), (INVALIDATION, invalidation)))
    head = Request("POST", "http", "worker", target, fields)
    return UpstreamRequest(head, pieces(), len(content))
