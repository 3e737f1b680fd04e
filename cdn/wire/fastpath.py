"""A hit in two look-ups and one write: answers that are given again as bytes.

Strategy: what the full path has answered out of the store, and the gateway calls repeatable, is
kept as it was sent (`hot_answer`), under its primary key (`hot_responses`); a plain GET of what is
stored and fresh has its answer made here, out of the same rules.

Each answer leaves one record. Records are logged in batches, before anything else is logged, so
their order is that of the answers. How often an answer was given is counted in it, and told to
those who count and to the policies once in a while, or when it is asked for: most of what many
clients get has been given many times by then, and is looked up in memory once for all of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from math import inf
from typing import Protocol

from cdn.gateway.hot import Repeatable, Repeats
from cdn.observe.hits import Hit, Said, Served
from cdn.storage.store import Piece
from cdn.wire.field_block import OWN, FieldBlock, Part
from cdn.wire.hot_answer import LARGEST, MOST_SENT, HotAnswer
from cdn.wire.hot_responses import HotResponses, Room
from cdn.wire.outbox import Given, Outbox, Sender
from cdn.wire.ways import Way

BATCH = 256
"""Records, about, that are dealt with at once: more would be felt by the request that waits."""

PAUSE = 0.1
"""Seconds between the first record and the batch it is in."""

TELL_EVERY = 1.0
"""Seconds between an answer's first use and the telling of all it had since."""

OnHits = Callable[[Sequence[Hit], Sequence[Served]], None]
"""Takes records, and those answers in them that were no hits."""

OnUses = Callable[[Sequence[Served]], None]
"""Takes answers with how often each was given (`Served.uses`) since it was last told."""


class Viewer(Sender, Protocol):
    """Whose connection it is, at which address; `asked` is the name of its last answer, b"" where
    that holds for no next request."""

    client: str
    asked: bytes

    def send_apart(self, head: bytes, pieces: Sequence[Piece], size: int) -> bool:
        """Sends head and content, `size` bytes. False: not all has left yet."""
        ...


class FastPath:
    """Hot responses, and the records of those that were given. `clock` gives seconds since 1970;
    `on_hits` is handed the records in batches, `on_uses` in time how often answers were given."""

    def __init__(
        self,
        repeats: Repeats,
        capacity: int,
        room: Room | None,
        *,
        clock: Callable[[], float],
        on_hits: OnHits,
        on_uses: OnUses,
    ) -> None:
        self.hot = HotResponses(repeats, capacity, room, clock, self._tell)
        self.answers = 0
        self._named = self.hot.named
        self._judge = repeats.judge
        self._clock = clock
        self._latest = -inf
        self._on_hits = on_hits
        self._on_uses = on_uses
        self._loop = asyncio.get_running_loop()
        self._most = {"http": MOST_SENT, "https": LARGEST}  # TLS is written from memory
        self._hits: list[Hit] = []
        self.outbox = Outbox(self.left)
        self._put = self.outbox.put
        self._used: dict[Served, None] = {}  # in order, and each once
        self._telling: list[Served] = []
        self._misses: list[Served] = []

    def answer(
        self,
        head: bytes,
        end: int,
        block: FieldBlock,
        said: Said,
        scheme: str,
        viewer: Viewer,
        *,
        besides: bool = False,
    ) -> bool:
        """Sends the answer to a request, whose line ends at `end` and whose `block` is repeatable,
        while its client has `said` this of itself; False where the full path has to. `besides`: the
        request has lines of its client's own (`field_block.OWN`) that the block has not."""
        hot, client = self.hot, viewer.client
        way = block.ways.get(scheme)
        if way is None or way.standing is not None:
            way = hot.way(block, scheme, client)
            if way is None:
                return False
            client = way.client or client
        now = self._clock()
        if now < self._latest:
            self._stepped_back()
        self._latest = now
        found = self._named(way.named + head[:end])
        if found is None or self._judge.has_rules or (now > found.until and not found.renew(now)):
            found = self._look(head, end, block, way, scheme, now, besides)
            if found is None:
                return False
        if not self._give(found, block.part, said, client, now, scheme, viewer, head):
            return False  # and its last answer is still the one before
        viewer.asked = b"" if way.standing else found.name
        return True

    def answer_named(
        self, name: bytes, wanted: Part | None, said: Said, scheme: str, viewer: Viewer, head: bytes
    ) -> bool:
        """`answer` of a request that differs from the one `asked` before in the part that is
        `wanted`, if at all."""
        now = self._clock()
        if now < self._latest:
            self._stepped_back()
        self._latest = now
        found = self._named(name)
        if found is None or self._judge.has_rules or (now > found.until and not found.renew(now)):
            return False
        return self._give(found, wanted, said, viewer.client, now, scheme, viewer, head)

    def _stepped_back(self) -> None:
        """A node's clock never does. Heads say until when they are right, not since when."""
        self.hot.forget_all()

    def _give(
        self,
        found: HotAnswer,
        wanted: Part | None,
        said: Said,
        client: str,
        now: float,
        scheme: str,
        viewer: Viewer,
        head: bytes,
    ) -> bool:
        if not found.apart:
            self._put(viewer, found.head, found.rest, (found, said, client, now, found.ttl, head))
            return True
        part = found.part(wanted, self._most[scheme])
        if part is None:
            return False
        begin, pieces, served = part
        given = (served, said, client, now, found.ttl, head)
        if viewer.send_apart(begin, pieces, served.content_bytes):
            self.left((given,))
        else:
            viewer.see_off(given)
        return True

    def left(self, given: Sequence[Given]) -> None:
        """They have left whole, just now."""
        hits, ended = self._hits, self._clock()
        if not hits:
            self._loop.call_later(PAUSE, self.report)
        for served, said, client, arrived, ttl, _ in given:
            hits.append((served, said, client, ended, ended - arrived, ttl))
            served.uses += 1
            if ttl == "":
                self._misses.append(served)
            elif served.uses == 1:
                self._used[served] = None
                if len(self._used) == 1:
                    self._loop.call_later(TELL_EVERY, self._tell_in_turns)
        if len(hits) >= BATCH:
            self.report()

    def broke_off(self, given: Given) -> None:
        """What was given never left whole: a hit was asked for all the same."""
        of = given[0].of
        if isinstance(of, Repeatable):
            self.hot.touch(of, 1)

    def _look(
        self,
        head: bytes,
        end: int,
        block: FieldBlock,
        way: Way,
        scheme: str,
        now: float,
        besides: bool,
    ) -> HotAnswer | None:
        """The answer to a request that has no name yet, or where the named one is to be looked at
        again."""
        # A line that is no request line is nobody's key.
        if head[end - 9 : end] != b" HTTP/1.1":
            return None
        if head.startswith(b"GET /"):
            method, target = "GET", head[4 : end - 9]
        elif head.startswith(b"HEAD /"):
            method, target = "HEAD", head[5 : end - 9]
        else:
            return None
        hot, key = self.hot, way.origin + target
        found = hot.find(block, way.told, method, key, now)
        if found is None:
            return hot.make(block, way, head[:end], scheme, key, now, besides=besides)
        return None if besides and not OWN.isdisjoint(found.of.nominated) else found

    def report(self) -> None:
        """Hands on the records that have not been yet."""
        hits, misses = self._hits, self._misses
        if not hits:
            return
        self._hits, self._misses = [], []
        self.answers += len(hits) - len(misses)
        self._on_hits(hits, misses)

    def settle(self) -> None:
        """Hands on and tells all that has not been yet."""
        self.outbox.flush()
        self.report()
        used, telling, self._used, self._telling = self._used, self._telling, {}, []
        self._tell(telling)
        self._tell(list(used))

    def _tell_in_turns(self) -> None:
        """Tells how often answers were given, between requests, which feel a batch at most."""
        if not self._telling:
            self._telling, self._used = list(self._used), {}
        told = self._telling[-BATCH:]
        del self._telling[-BATCH:]
        self._tell(told)
        if self._telling:
            self._loop.call_soon(self._tell_in_turns)

    def _tell(self, used: Sequence[Served]) -> None:
        self._on_uses(used)
        touch = self.hot.touch
        for served in used:
            of, uses = served.of, served.uses
            assert isinstance(of, Repeatable)
            served.uses = 0
            if uses:  # else it was told out of its turn
                touch(of, uses)
