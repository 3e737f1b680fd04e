"""Requests that go up as they are, and what their answers mean for what is stored.

Strategy: the answer is one client's alone, but it may show that something stored is outdated
(RFC 9111 §4.4, §4.3.5), or be fit for the store nevertheless: then it goes down through a fill.
What an unsafe method outdates is removed in every worker, and after that no bar stands in any
(`hot` tells why in that order).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace

from cdn.gateway.answers import from_fill, passed_on
from cdn.gateway.asked import Asked
from cdn.gateway.background import BackgroundTasks
from cdn.gateway.counters import GatewayCounters
from cdn.gateway.exchange import Answer
from cdn.gateway.fallback import Fallback
from cdn.gateway.fill import Arrived
from cdn.gateway.filling import Filling
from cdn.gateway.flights import Task
from cdn.gateway.forward import whole_request
from cdn.gateway.hot import Repeats
from cdn.gateway.workers import Tag, Workers
from cdn.semantics.groups import group_tags, invalidated_groups
from cdn.semantics.invalidation import invalidated_keys
from cdn.semantics.message import Response
from cdn.semantics.reuse import Fwd
from cdn.semantics.storing import may_store, may_update
from cdn.semantics.validation import freshen, head_matches
from cdn.storage.store import Store, StoredObject
from cdn.upstream.errors import UpstreamError
from cdn.upstream.exchange import UpstreamResponse


class PassingOn:
    """`name` is this node's; `workers` are its others, told of what an unsafe method outdates;
    `repeats` has their keys barred meanwhile."""

    def __init__(
        self,
        name: str,
        store: Store,
        clock: Callable[[], float],
        background: BackgroundTasks,
        filling: Filling,
        fallback: Fallback,
        workers: Workers,
        counters: GatewayCounters,
        repeats: Repeats,
    ) -> None:
        self._name = name
        self._store = store
        self._clock = clock
        self._background = background
        self._filling = filling
        self._fallback = fallback
        self._workers = workers
        self._counters = counters
        self._repeats = repeats

    async def answer(self, asked: Asked, reason: Fwd, found: StoredObject | None) -> Answer:
        """The answer from upstream; `found` is what is stored for the request."""
        task = asked.task(found, as_is=True)
        asked_at = self._clock()
        try:
            response, passing = await self._filling.fetch_passing(task, asked.request)
        except UpstreamError as error:
            return self._fallback.failed(asked, found, error)
        instead = self._fallback.instead_of_error(asked, found, response.head)
        if instead is not None:
            response.abort()
            return instead
        head = self._filling.judge.received(response.head)
        current = self._filling.is_current(passing, head)
        try:
            await self._invalidate(asked, head)
        except BaseException:
            response.abort()
            raise
        if current and _may_be_carried(asked, head):
            carried = await self._carry(task, response, head, asked_at, reason)
            if carried is not None:
                return carried
        if asked.request.method == "HEAD" and found is not None and head.status == 200:
            self._update_by_head(asked, found, head, response)
        policy = asked.service.policy
        relayed = self._filling.relayed(task, response)
        return passed_on(self._name, asked.request, head, response, relayed, policy, fwd=reason)

    async def _invalidate(self, asked: Asked, head: Response) -> None:
        # RFC 9111 §4.4: before the answer goes down, nothing outdated is left to be served.
        keys = invalidated_keys(asked.request, head)
        tags = group_tags(asked.key, invalidated_groups(asked.request, head))
        if keys or tags:
            invalidation = self._workers.invalidation()
            await self.forget(invalidation, keys, tags)
            # Done to its end, even where the client goes away.
            telling = self._have_forgotten(invalidation, keys, tags)
            await asyncio.shield(self._background.start(telling, "invalidation"))

    async def _have_forgotten(
        self, invalidation: str, keys: Collection[bytes], tags: Collection[Tag]
    ) -> None:
        if await self._workers.forget(invalidation, keys, tags) and keys:
            for key in keys:
                self._repeats.lift(key, invalidation)
            await self._workers.lift(invalidation, keys)

    async def forget(self, invalidation: str, keys: Iterable[bytes], tags: Collection[Tag]) -> None:
        """An unsafe method has outdated these; only what this worker holds is removed."""
        for key in keys:
            self._counters.invalidated += self.remove(key)
            self._repeats.bar(key, invalidation)
        if tags:
            # A store on a disk waits for its device.
            await asyncio.shield(asyncio.to_thread(self._store.epochs.purge, tags))

    def remove(self, key: bytes) -> int:
        """Removes a URL's responses, and those on their way; returns how many were stored."""
        self._filling.disown(key)
        self._repeats.changed(key)
        return sum(map(self._store.remove, self._filling.judge.names(key)))

    async def _carry(
        self, task: Task, response: UpstreamResponse, head: Response, asked_at: float, fwd: Fwd
    ) -> Answer | None:
        """Through a fill after all, where what came for one may be stored for others: a part of
        the whole, or what POST says is now there. None where it may not."""
        policy = task.service.policy
        if may_store(task.request, head, policy) is not None:
            return None
        seat = self._filling.carry(task, response, asked_at)
        try:
            arrived = await seat.head()
        except BaseException:
            seat.leave()
            raise
        assert isinstance(arrived, Arrived)
        # Its conditions have been met upstream.
        request = replace(whole_request(task.request, None), method="GET")
        return from_fill(
            self._name, request, seat, arrived, policy, self._clock(), fwd=fwd, leads=True
        )

    def _update_by_head(
        self, asked: Asked, found: StoredObject, head: Response, response: UpstreamResponse
    ) -> None:
        # RFC 9111 §4.3.5: a HEAD freshens the stored GET response, or shows that it is outdated.
        if not may_update(asked.request, head, asked.service.policy):
            return
        if head_matches(found.response, head, response.length):
            now = self._clock()
            asked_at = min(now, asked.exchange.arrived)
            self._store.freshen(found, freshen(found.response, head, asked_at, now))
        else:
            self._counters.invalidated += self.remove(asked.key)


def _may_be_carried(asked: Asked, head: Response) -> bool:
    """Whether an answer to a request that went up as it was could be stored: a part of what GET
    would bring, or all of it, or what POST has put there."""
    if head.status not in (200, 206):
        return False
    method, content = asked.request.method, asked.exchange.content
    return method == "POST" or (method == "GET" and content is None)
