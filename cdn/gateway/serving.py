"""Serving what is stored: its bytes wherever they are, and what its use brings about.

Strategy: what is resident is answered without waiting; else the answer's content waits for the
device, or is gathered slice by slice. A use counts for replacement; it may begin a revalidation, or
reading ahead, and neither is waited for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cdn.gateway.answers import Put, at_once, from_store
from cdn.gateway.asked import Asked
from cdn.gateway.background import BackgroundTasks
from cdn.gateway.exchange import Answer, Content
from cdn.gateway.fill import Arrived
from cdn.gateway.filling import Filling
from cdn.gateway.gathering import Gathered, Stored
from cdn.gateway.hot import Repeatable, Repeats
from cdn.gateway.lookup import Looked, Lookup
from cdn.gateway.reading_ahead import ReadingAhead
from cdn.gateway.seat import Seat, read_for_the_store
from cdn.gateway.slicing import has_slices
from cdn.semantics.delivery import Segment
from cdn.semantics.freshness import current_age, freshness_lifetime
from cdn.semantics.reuse import Fwd, Hit, ServeStale
from cdn.semantics.stored_response import StoredResponse
from cdn.storage.store import Piece, SliceUnavailable, Store, StoredObject


class Serving:
    """`name` is this node's; `repeats` says which answers may be given again; `mine` whether a
    key's slices are this worker's to fetch."""

    def __init__(
        self,
        name: str,
        store: Store,
        clock: Callable[[], float],
        background: BackgroundTasks,
        filling: Filling,
        lookup: Lookup,
        repeats: Repeats,
        mine: Callable[[bytes], bool],
    ) -> None:
        self._name = name
        self._store = store
        self._clock = clock
        self._background = background
        self._filling = filling
        self._lookup = lookup
        self._repeats = repeats
        self._ahead = ReadingAhead(filling, background, mine)

    def now(self, asked: Asked, looked: Looked, use: Hit | ServeStale) -> Answer | None:
        """Without waiting, None where that is not possible."""
        assert looked.found is not None
        try:
            answer = self._from_store(asked, use, at_once(looked.found))
        except SliceUnavailable:
            return None
        if answer is not None:
            self._used(asked, looked, use)
            if isinstance(use, Hit):
                answer.repeatable = self._repeatable(asked, looked, use)
        return answer

    async def soon(self, asked: Asked, looked: Looked, use: Hit | ServeStale) -> Answer | None:
        """With as much waiting as it takes; None where it has just been lost."""
        assert looked.found is not None
        try:
            answer = self._from_store(asked, use, self.with_waiting(asked, looked.found))
            if answer is not None and isinstance(answer.content, Stored):
                await answer.content.prime()
        except SliceUnavailable:
            return None
        self._used(asked, looked, use)
        return answer

    async def validated(
        self, asked: Asked, reason: Fwd, found: StoredObject, fresh: StoredResponse
    ) -> Answer | None:
        """`found`, of which upstream has said that it is still right, and so `fresh`; None where it
        has just been lost."""
        policy, now = asked.service.policy, self._clock()
        age = current_age(fresh, now)
        use = Hit(fresh, age, freshness_lifetime(fresh, policy) - age)
        try:
            answer = from_store(
                self._name, asked.request, self.with_waiting(asked, found), use, policy, now,
                fwd=reason, fwd_status=304,
            )  # fmt: skip
            if answer is not None and isinstance(answer.content, Stored):
                await answer.content.prime()
        except SliceUnavailable:
            return None
        return answer

    def with_waiting(self, asked: Asked, found: StoredObject) -> Put:
        """The content of what is stored, also where its device must be waited for."""

        def put(segments: Sequence[Segment]) -> Sequence[Piece] | Content | None:
            if (pieces := at_once(found)(segments)) is not None:
                return pieces
            if has_slices(found.response):
                return self._gathered(asked, found.response, segments)
            return Stored(self._filling, asked.task(found), found, segments)

        return put

    def arriving(
        self, asked: Asked, head: Arrived, seat: Seat, segments: Sequence[Segment]
    ) -> Content:
        """The content of what comes in slices, out of the store as far as it is there."""
        self._ahead.used(asked, head.stored)
        return self._gathered(asked, head.stored, segments, seat, head)

    def _from_store(self, asked: Asked, use: Hit | ServeStale, put: Put) -> Answer | None:
        policy, now = asked.service.policy, self._clock()
        return from_store(self._name, asked.request, put, use, policy, now)

    def _gathered(
        self,
        asked: Asked,
        of: StoredResponse,
        segments: Sequence[Segment],
        seat: Seat | None = None,
        arrived: Arrived | None = None,
    ) -> Gathered:
        return Gathered(self._filling, self._store, asked.task(), of, segments, seat, arrived)

    def _repeatable(self, asked: Asked, looked: Looked, use: Hit) -> Repeatable | None:
        assert looked.found is not None
        service = asked.service
        lifetime = freshness_lifetime(use.stored, service.policy)
        return self._repeats.made_of(
            asked.key, looked.found, looked.variants, lifetime, service.name
        )

    def _used(self, asked: Asked, looked: Looked, use: Hit | ServeStale) -> None:
        assert looked.found is not None
        self._store.touch(looked.found)
        if isinstance(use, ServeStale) and use.revalidate:
            self._revalidate(asked, looked)
        if use.stored.present is not None:
            self._ahead.used(asked, use.stored)

    def _revalidate(self, asked: Asked, stale: Looked) -> None:
        flight = self._lookup.flight(asked, stale)
        if self._filling.is_under_way(flight):
            return
        seat, _ = self._filling.join(flight, asked.unseen().task(stale.found))
        whole = "range" not in asked.request.fields
        self._background.start(read_for_the_store(seat, whole), "revalidation")
