"""Judging heads from upstream: what becomes of a response, for the store and for who waits.

Strategy: the rules are pure (`storing.may_store`, `validation.identifies`); this file performs what
they say: opens the writer, shows a head whose slices follow, leaves the marks, freshens what was
validated. It reads no content and waits for nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace

from cachetools import LRUCache, TLRUCache

from cdn.gateway.background import BackgroundTasks
from cdn.gateway.fill import Arrived, Freshened, HeadOutcome, NotASlice
from cdn.gateway.flights import Task
from cdn.gateway.representations import is_one_representation, representation_among
from cdn.gateway.slicing import has_slices
from cdn.semantics.groups import group_tags
from cdn.semantics.http_date import format_http_date
from cdn.semantics.message import Fields, Request, Response
from cdn.semantics.ranges import ByteRange, parse_content_range
from cdn.semantics.reuse import Decision, Forward, Hit, decide, stale_on_error
from cdn.semantics.search import SearchRule, loose_key, parse_no_vary_search, path_key
from cdn.semantics.slices import PresentSlices, slice_count
from cdn.semantics.stored_response import StoredResponse, make_stored_response
from cdn.semantics.storing import (
    NotStoredReason,
    may_store,
    may_update,
    speaks_for_all,
    storable_fields,
    whole_of_part,
)
from cdn.semantics.surrogate import received_by
from cdn.semantics.validation import freshen, identifies
from cdn.semantics.vary import nominated_fields, variant_key
from cdn.storage.store import SliceUnavailable, SliceWriter, Store, StoredContent, StoredObject
from cdn.upstream.errors import MalformedResponse
from cdn.upstream.exchange import UpstreamResponse

ANYONE = Request("GET", "http", "", "/", Fields())
"""A request that wants nothing in particular: what may be reused at all, may be for this one."""

MOST_RULES = 65_536
"""Paths whose No-Vary-Search is remembered."""

MOST_MARKS = 65_536
"""Marks of a kind kept at once; the least recently used go first."""

_OF_THE_MOMENT = frozenset({"age", "date", "via", "cache-status", "expires"})
"""Fields that differ between two answers of one representation, and say nothing new."""

Marks = TLRUCache[bytes, float]


class Judge:
    """`node` is this node's name, `clock` seconds since 1970. What is not `mine` by its primary key
    is another worker's to store."""

    def __init__(
        self,
        node: str,
        store: Store,
        clock: Callable[[], float],
        background: BackgroundTasks,
        mine: Callable[[bytes], bool],
    ) -> None:
        self._background = background
        self._node = node
        self._store = store
        self._clock = clock
        self._mine = mine
        self._marks = self._make_marks()
        self._unsliced = self._make_marks()
        self._rangeless = self._make_marks()
        self._rules: LRUCache[bytes, SearchRule] = LRUCache(MOST_RULES)
        self.has_marks = False  # plain, as the next one: every plain miss asks them
        self.has_rules = False  # and every hot answer this one

    def _make_marks(self) -> Marks:
        return TLRUCache(MOST_MARKS, ttu=lambda _, lifetime, now: now + lifetime, timer=self._clock)

    # --- what is remembered of heads ------------------------------------------------------------

    def names(self, key: bytes) -> tuple[bytes, ...]:
        """The names under which responses to this primary key may be stored, the likeliest first:
        looser ones where No-Vary-Search has said what does not matter."""
        if not self._rules or (rule := self._rules.get(path_key(key))) is None:
            return (key,)
        return (loose_key(key, rule), key)

    def marked(self, key: bytes) -> bool:
        """Whether hit-for-miss holds: what came last for this URL was for nobody else."""
        return self.has_marks and key in self._marks

    def unsliced(self, key: bytes) -> bool:
        """Whether slices were asked for, and what came was none that could be put together."""
        return key in self._unsliced or key in self._rangeless

    def rangeless(self, key: bytes) -> bool:
        """Whether a range was asked for, and the whole came."""
        return key in self._rangeless

    def forget_marks(self, key: bytes) -> None:
        """Whatever was said of this URL, it was purged."""
        self._marks.pop(key, None)
        self._unsliced.pop(key, None)
        self._rangeless.pop(key, None)

    # --- judging --------------------------------------------------------------------------------

    def received(self, head: Response) -> Response:
        """A head from upstream as this node goes by it: with a Date (RFC 9110 §6.6.1 has a
        recipient with a clock add it), and with what is meant for this node by name."""
        fields = received_by(head.fields, self._node)
        if "date" not in fields:
            fields = fields.adding(("Date", format_http_date(self._clock())))
        return head if fields is head.fields else head.with_fields(fields)

    def judge(
        self, task: Task, response: UpstreamResponse, asked_at: float, stamp: int, keep: bool
    ) -> HeadOutcome:
        """What becomes of a response to `task`, asked for at `asked_at` (seconds since 1970) and at
        the epoch `stamp`; unless it may be kept, it is only shared. Raises MalformedResponse where
        it answers nothing that was asked."""
        now, policy = self._clock(), task.service.policy
        head = self.received(response.head)
        if head.status == 304 and not task.as_is:
            return self._judge_not_modified(task, response, head, asked_at)
        if head.status in (206, 416) and task.place is not None:
            return self._judge_slice(task, response, head, asked_at, stamp, keep)
        reason = may_store(task.request, head, policy)
        stored = self._described(task, response, head, asked_at, stamp)
        if reason is None and head.status >= 500 and self._is_covered(task, now):
            reason = NotStoredReason.SERVER_ERROR
        if reason is None and head.status == 206 and (stored.present is None or not task.as_is):
            reason = NotStoredReason.PARTIAL  # not what it says, or not what was asked for
        if reason is None and isinstance(stored.present, ByteRange) and self._is_sliced(stored):
            return Arrived(head, stored, NotStoredReason.PARTIAL, None)  # more is there than comes
        if reason is not None:
            if reason.in_response and speaks_for_all(head.status):
                self._leave_mark(task)
                self._drop_unsuitable(task, now)
            return Arrived(head, stored, reason, None)
        self._mark(task, stored)
        writer = self._open_writer(stored, keep)
        if writer is None:
            return Arrived(head, stored, NotStoredReason.TOO_LARGE, None)
        return Arrived(head, stored, None, writer, sliced=self._shows_slices(task, stored, writer))

    def _open_writer(self, stored: StoredResponse, keep: bool) -> SliceWriter | None:
        if not keep or not self._mine(stored.primary_key):
            return None
        self._drop_outdated(stored)
        return self._store.open_writer(stored)

    def _drop_outdated(self, stored: StoredResponse) -> None:
        # RFC 9875 §3: what a group's invalidation has outdated is not joined by what comes later.
        key = stored.primary_key
        for held in self._store.lookup(key) or ():
            groups, stamp = held.response.groups, held.response.stamp
            if groups and self._store.epochs.outdated(group_tags(key, groups), stamp):
                self._store.remove(key)
                return

    def _described(
        self, task: Task, response: UpstreamResponse, head: Response, asked_at: float, stamp: int
    ) -> StoredResponse:
        """The response as it is, or would be, stored."""
        fields, request = head.fields, task.request
        length, present = response.length, None
        part = whole_of_part(fields, length) if head.status == 206 else None
        if part is not None:
            present, length = part
            fields = fields.without({"content-range"})
            head = Response(200, fields, "OK")
        rule = parse_no_vary_search(fields.get("no-vary-search"))
        if rule is not None:
            self._rules[path_key(task.key)] = rule
            self.has_rules = True
        policy = task.service.policy
        return make_stored_response(
            primary_key=task.key if rule is None else loose_key(task.key, rule),
            variant=variant_key(
                nominated_fields(fields) or (), request.fields, policy.normalize_vary
            ),
            response=head,
            fields=storable_fields(fields),
            request_time=asked_at,
            response_time=self._clock(),
            length=length,
            present=present,
            stamp=stamp,
            slice_size=policy.slice_size,
        )

    def _is_sliced(self, stored: StoredResponse) -> bool:
        """Whether slices of it are there already."""
        held = representation_among(self._store.lookup(stored.primary_key), stored)
        return held is not None and not isinstance(held.response.present, ByteRange)

    def _judge_not_modified(
        self, task: Task, response: UpstreamResponse, head: Response, asked_at: float
    ) -> Freshened:
        if not task.stored or not task.validate or not identifies(task.validate, head):
            raise MalformedResponse(response.source, "304, which answers nothing that was asked")
        fresh = freshen(task.validate, head, asked_at, self._clock())
        if may_update(task.request, head, task.service.policy):
            self._store.freshen(task.stored, fresh)
            self._mark(task, fresh)
        return Freshened(fresh)

    def _drop_unsuitable(self, task: Task, now: float) -> None:
        # RFC 9111 §4.3.3: a full answer says that what was stored is not suitable any more. While
        # fresh it is: only this one client would not have it.
        stored = task.stored
        if stored is not None and not isinstance(_for_anyone(stored.response, task, now), Hit):
            self._store.remove(stored.response.primary_key)

    def _mark(self, task: Task, stored: StoredResponse) -> None:
        if isinstance(_for_anyone(stored, task, self._clock()), Forward):
            # It is of no use to those who wait, nor to the next ones: they need not queue for it.
            self._leave_mark(task)
        elif task.key in self._marks:
            del self._marks[task.key]

    def _leave_mark(self, task: Task) -> None:
        self._marks[task.key] = task.service.policy.hit_for_miss
        self.has_marks = True

    def _is_covered(self, task: Task, now: float) -> bool:
        """Whether what is stored is served in place of this error: then it stays."""
        request, policy = task.request, task.service.policy
        return (
            task.stored is not None
            and stale_on_error(request, task.stored.response, policy, now, False) is not None
        )

    # --- slices ---------------------------------------------------------------------------------

    def _shows_slices(self, task: Task, stored: StoredResponse, writer: SliceWriter) -> bool:
        """Whether a whole response is seen from now on, slice by slice as it comes."""
        if task.as_is or stored.status != 200 or not has_slices(stored.as_whole()):
            return False
        if task.place is not None and (task.of is None or is_one_representation(task.of, stored)):
            # RFC 9110 §14.2: it does not do ranges; then nothing could be asked for later.
            self._rangeless[task.key] = task.service.policy.hit_for_miss
        if task.key in self._rangeless:
            return False
        return writer.show(replace(stored, present=PresentSlices(0, stored.slice_size)))

    def _judge_slice(
        self,
        task: Task,
        response: UpstreamResponse,
        head: Response,
        asked_at: float,
        stamp: int,
        keep: bool,
    ) -> Arrived | NotASlice:
        policy, wanted = task.service.policy, task.slice
        if head.status == 416:
            if task.of is not None:  # it has become shorter
                self._store.remove(task.of.primary_key)
            return NotASlice()
        part, size = parse_content_range(head.fields.get("content-range")) or (None, None)
        if part is None or size is None:
            return self._not_a_slice(task)
        if part.start != wanted.start or response.length not in (None, part.length):
            return self._not_a_slice(task)
        if part.stop != min(part.start + task.slice_size, size):
            if task.of is None or size == task.of.length:
                return self._not_a_slice(task)
            self._store.remove(task.of.primary_key)  # it ends elsewhere now
            return NotASlice()
        stored = self._described(task, response, head, asked_at, stamp)
        stored = replace(stored, slice_size=task.slice_size)
        reason = may_store(task.request, head, policy)
        if reason is not None and reason.in_response:
            self._leave_mark(task)
        if reason is None and part != (0, size) and not has_slices(stored.as_whole()):
            self._not_a_slice(task)  # RFC 9111 §3.4: nothing that it could be joined to
            reason = NotStoredReason.PARTIAL
        if reason is not None:
            return Arrived(head, stored, reason, None, part.start, is_slice=True, stop=part.stop)
        if part == (0, size):
            stored = stored.as_whole()
            self._mark(task, stored)
            writer = self._open_writer(stored, keep)
            whole = Response(200, head.fields.without({"content-range"}), "OK")
            return Arrived(whole, stored, _unless(writer), writer, is_slice=True, stop=size)
        stored = replace(stored, present=PresentSlices(0, stored.slice_size))
        return self._place(task, stored, head, part.stop, keep)

    def _not_a_slice(self, task: Task) -> NotASlice:
        self._unsliced[task.key] = task.service.policy.hit_for_miss
        return NotASlice()

    def _place(
        self, task: Task, stored: StoredResponse, head: Response, stop: int, keep: bool
    ) -> Arrived:
        """A slice of what is stored, or of what will be from now on."""
        self._drop_outdated(stored)
        held = representation_among(self._store.lookup(stored.primary_key), stored)
        of = task.of if held is None else held.response
        if of is not None and is_one_representation(of, stored):
            # RFC 9111 §3.4: the fields are those of the newest, what it does not say stays.
            own = head.with_fields(head.fields.without({"content-range"}))
            joined = freshen(of, own, stored.request_time, stored.response_time)
            stored = replace(
                joined,
                present=stored.present,
                stamp=stored.stamp,
                slice_size=stored.slice_size,
            )
        self._mark(task, stored)
        writer = self._open_writer(stored, keep)
        if writer is not None and (held is None or self._says_more(task, held.response, stored)):
            self._show(task, stored, writer)
        return Arrived(
            head,
            stored,
            _unless(writer),
            writer,
            task.slice.start,
            is_slice=True,
            sliced=True,
            stop=stop,
        )

    def _show(self, task: Task, stored: StoredResponse, writer: SliceWriter) -> None:
        before = _slices_of_part(task.stored, stored)
        writer.show(stored)
        another = self._store.open_writer(stored) if before else None
        if another is not None:
            self._background.start(_keep(before, another), "keeping a part")

    def _says_more(self, task: Task, held: StoredResponse, stored: StoredResponse) -> bool:
        if held.slice_size != stored.slice_size:  # a reload has changed it: it starts over
            return True
        if not isinstance(_for_anyone(held, task, self._clock()), Hit):
            return True
        return held.fields.without(_OF_THE_MOMENT) != stored.fields.without(_OF_THE_MOMENT)


def _unless(writer: SliceWriter | None) -> NotStoredReason | None:
    return NotStoredReason.TOO_LARGE if writer is None else None


def _slices_of_part(
    found: StoredObject | None, stored: StoredResponse
) -> list[tuple[int, StoredContent]]:
    """The slices that lie within a part that came by itself before, opened."""
    part = None if found is None else found.response.present
    if found is None or stored.length is None or not isinstance(part, ByteRange):
        return []
    if not is_one_representation(found.response, stored):
        return []
    size, slices = stored.slice_size, []
    for number in range(-(-part.start // size), slice_count(part.stop, size)):
        whole = ByteRange(number * size, min((number + 1) * size, stored.length))
        if part.covers(whole):
            with contextlib.suppress(SliceUnavailable):
                slices.append((number, found.open([whole])))
    return slices


async def _keep(slices: list[tuple[int, StoredContent]], writer: SliceWriter) -> None:
    try:
        for number, content in slices:
            pieces = []
            while piece := await content.read():
                pieces.append(piece)
            await writer.room()
            writer.write(number, b"".join(pieces))
    except SliceUnavailable:
        pass  # it is fetched when it is wanted
    finally:
        writer.abort()


def _for_anyone(stored: StoredResponse, task: Task, now: float) -> Decision:
    """What would become of a request that wants nothing in particular, were all of it kept."""
    return decide(ANYONE, stored.as_whole(), task.service.policy, now)
