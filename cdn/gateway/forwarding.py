"""Having answered from upstream what the store cannot: through a fill, or straight through.

Strategy: what may be shared goes through a fill, of the whole or of the one slice that lacks; what
may not goes up as it is. A fill's head is data (`Arrived`, `Freshened` …), and one `match` performs
it. Where what came is not for this request, or it came for naught, the pipeline is told to look
`Again`, and what has been learnt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import assert_never

from cdn.gateway.answers import from_fill, from_part, from_slices
from cdn.gateway.asked import Asked
from cdn.gateway.exchange import Answer, Content
from cdn.gateway.fallback import Fallback
from cdn.gateway.fill import Arrived, Failed, Freshened, NotASlice
from cdn.gateway.filling import Filling
from cdn.gateway.flights import FlightKey, Task
from cdn.gateway.lookup import Looked, Lookup
from cdn.gateway.passing import PassingOn
from cdn.gateway.seat import Seat
from cdn.gateway.serving import Serving
from cdn.gateway.slicing import wanted_slice
from cdn.semantics.delivery import Segment
from cdn.semantics.ranges import ByteRange
from cdn.semantics.reuse import Forward, Fwd, decide
from cdn.semantics.vary import variant_matches
from cdn.storage.store import StoredObject


@dataclass(frozen=True, slots=True)
class Again:
    """Look again: the store has changed, or the answer was not for this request. `nominated`:
    what the response turned out to vary on; `alone`: no more waiting for others; `as_is`: nor
    asking for slices."""

    nominated: tuple[str, ...] | None = None
    alone: bool = False
    as_is: bool = False


class Forwarding:
    """`name` is this node's."""

    def __init__(
        self,
        name: str,
        clock: Callable[[], float],
        filling: Filling,
        lookup: Lookup,
        serving: Serving,
        fallback: Fallback,
        passing: PassingOn,
    ) -> None:
        self._name = name
        self._clock = clock
        self._filling = filling
        self._lookup = lookup
        self._serving = serving
        self._fallback = fallback
        self._passing = passing

    async def answer(
        self, asked: Asked, forward: Forward, looked: Looked, again: Again
    ) -> Answer | Again:
        """The answer to what was decided to be forwarded, after what was learnt `again`."""
        place = self._place(asked, forward, looked, again)
        if place is None and self._goes_through(asked, forward, again):
            return await self._passing.answer(asked, forward.reason, looked.found)
        flight = None
        if not again.alone and not self._filling.judge.marked(asked.key):
            flight = self._lookup.flight(asked, looked, again.nominated)
        return await self._fill(asked, forward.reason, looked.found, flight, place)

    async def seated(
        self, asked: Asked, reason: Fwd, found: StoredObject | None, seat: Seat, leads: bool
    ) -> Answer | Again:
        """The answer out of the fill at which `seat` is; `found` is what is stored."""
        seated = False
        try:
            head = await seat.head()
            match head:
                case Failed(error=error):
                    return self._fallback.failed(asked, found, error)
                case Freshened(stored=fresh) if leads and found is not None:
                    answer = await self._serving.validated(asked, reason, found, fresh)
                    return answer or Again(alone=True)
                case Freshened():
                    return Again(alone=True)
                case NotASlice():
                    return Again(as_is=True)
                case Arrived():
                    ended = self._not_this(asked, found, head, leads)
                    if ended is not None:
                        return ended
                    answer = self._from_fill(asked, reason, seat, head, leads)
                    seated = answer is not None
                    return answer or Again(as_is=True)
                case _:
                    assert_never(head)
        finally:
            if not seated:
                seat.leave()

    # --- which way ------------------------------------------------------------------------------

    def _place(self, asked: Asked, forward: Forward, looked: Looked, again: Again) -> int | None:
        """The first slice that the request lacks, where slices are what to ask for."""
        if looked.found is None and "range" not in asked.request.fields:
            return None  # of what nobody knows, the whole
        judge = self._filling.judge
        if again.as_is or again.alone or forward.validate is not None:
            return None
        if judge.marked(asked.key) or judge.unsliced(asked.key):
            return None
        found = None if looked.found is None else looked.found.response
        return wanted_slice(asked.request, found, asked.service.policy, self._clock())

    def _goes_through(self, asked: Asked, forward: Forward, again: Again) -> bool:
        """Whether the request goes up as it is: HEAD, and ranges that the whole is no way to, or
        that begin where a stored part ends."""
        if asked.request.method == "HEAD":
            return True
        if "range" not in asked.request.fields or forward.validate is not None:
            return False
        judge = self._filling.judge
        marked = judge.marked(asked.key)
        if judge.rangeless(asked.key) and not marked:
            return False
        return forward.reason is Fwd.PARTIAL or asked.seeks or marked or again.alone

    async def _fill(
        self,
        asked: Asked,
        reason: Fwd,
        found: StoredObject | None,
        flight: FlightKey | None,
        place: int | None,
    ) -> Answer | Again:
        """Through a fill: led, joined, or alone where `flight` is None."""
        task = asked.task(found)
        if flight is None:
            seat, leads = self._filling.alone(task), True
        else:
            if place is not None:
                task, flight = _of_slice(task, flight, place, reason)
            seat, leads = self._filling.join(flight, task)
        return await self.seated(asked, reason, found, seat, leads)

    # --- what came ------------------------------------------------------------------------------

    def _not_this(
        self, asked: Asked, found: StoredObject | None, head: Arrived, leads: bool
    ) -> Answer | Again | None:
        """What to do in place of handing this response down, if anything."""
        answer = self._fallback.instead_of_error(asked, found, head.response)
        if answer is not None or leads:
            return answer
        return self._not_for(asked, head)

    def _not_for(self, asked: Asked, head: Arrived) -> Again | None:
        """Why a follower cannot have what the leader got."""
        if not head.shareable:
            return Again(alone=True)
        fields, normalize = asked.request.fields, asked.service.policy.normalize_vary
        if not variant_matches(head.stored.variant, fields, normalize):
            return Again(nominated=tuple(name for name, _ in head.stored.variant))
        stored = replace(head.stored, present=None) if head.sliced else head.stored
        decision = decide(asked.request, stored, asked.service.policy, self._clock())
        return Again(alone=True) if isinstance(decision, Forward) else None

    def _from_fill(
        self, asked: Asked, reason: Fwd, seat: Seat, head: Arrived, leads: bool
    ) -> Answer | None:
        """None where what came is a part, and not the one that is wanted."""
        policy, now = asked.service.policy, self._clock()
        if head.is_slice and isinstance(head.stored.present, ByteRange):
            return from_part(self._name, asked.request, seat, head, policy, now, fwd=reason)
        if not head.sliced:
            return from_fill(
                self._name, asked.request, seat, head, policy, now, fwd=reason, leads=leads
            )
        kept = False

        def gather(segments: Sequence[Segment]) -> Content:
            nonlocal kept
            kept = True
            return self._serving.arriving(asked, head, seat, segments)

        try:
            return from_slices(
                self._name, asked.request, head, gather, policy, now,
                fwd=reason, leads=leads, source=seat.source,
            )  # fmt: skip
        finally:
            if not kept:
                seat.leave()


def _of_slice(task: Task, flight: FlightKey, place: int, reason: Fwd) -> tuple[Task, FlightKey]:
    """The same for one slice, of what is stored where it is that which lacks it."""
    of = task.stored.response if task.stored is not None and reason is Fwd.PARTIAL else None
    etag = None if of is None else of.validator.etag
    task = task._replace(place=place, of=of)
    return task, flight._replace(place=place, etag=etag, slice_size=task.slice_size)
