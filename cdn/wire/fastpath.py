"""A hit in two look-ups and one write: answers that are given again as bytes.

Strategy: what the full path has answered out of the store, and the gateway calls repeatable, is
kept as it was sent (`hot_answer`), under its primary key (`hot_responses`); a plain GET of what is
stored and fresh has its answer made here, out of the same rules.

Each answer leaves one record. Records are counted, logged and told to the store in batches, before
anything else is counted or logged, so their order is that of the answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from cdn.gateway.hot import Repeats
from cdn.observe.hits import Hit, Said, Served
from cdn.storage.store import Piece
from cdn.wire.field_block import FieldBlock, Part
from cdn.wire.hot_answer import LARGEST, MOST_SENT, HotAnswer
from cdn.wire.hot_responses import HotResponses, Room
from cdn.wire.ways import Way

BATCH = 256
"""Records that are dealt with at once: more would be felt by the request that waits."""

PAUSE = 0.01
"""Seconds between the first record and the batch it is in."""

OnHits = Callable[[Sequence[Hit], Sequence[Served]], None]
"""Takes records, and of each answer in them how often it was given (`Served.uses`)."""


class Viewer(Protocol):
    """Whose connection it is, at which address; `asked` is the name of its last answer, b"" where
    that holds for no next request."""

    client: str
    asked: bytes
    transport: asyncio.Transport

    def send_apart(self, head: bytes, pieces: Sequence[Piece], size: int) -> bool:
        """Sends head and content, `size` bytes. False: not all has left yet."""
        ...


class Late(NamedTuple):
    """A part that has not left whole yet: its record is its connection's to make. `client` is the
    viewer, `ttl` ends the member in `served`, `arrived` is the clock's seconds."""

    served: Served
    client: str
    arrived: float
    ttl: int


class FastPath:
    """Hot responses, and the records of those that were given. `clock` gives seconds since 1970;
    `on_hits` is handed the records in batches."""

    def __init__(
        self,
        repeats: Repeats,
        capacity: int,
        room: Room | None,
        *,
        clock: Callable[[], float],
        on_hits: OnHits,
    ) -> None:
        self.hot = HotResponses(repeats, capacity, room, clock)
        self.answers = 0
        self._named = self.hot.named
        self._judge = repeats.judge
        self._clock = clock
        self._on_hits = on_hits
        self._loop = asyncio.get_running_loop()
        self._most = {"http": MOST_SENT, "https": LARGEST}  # TLS is written from memory
        self._hits: list[Hit] = []
        self._used: list[Served] = []
        self._misses: list[Served] = []

    def answer(
        self,
        head: bytes,
        end: int,
        block: FieldBlock,
        said: Said,
        scheme: str,
        viewer: Viewer,
    ) -> bool | Late:
        """Sends the answer to a request, whose line ends at `end` and whose `block` is repeatable,
        while its client has `said` this of itself; False where the full path has to."""
        hot, client = self.hot, viewer.client
        way = block.ways.get(scheme)
        if way is None or way.standing is not None:
            way = hot.way(block, scheme, client)
            if way is None:
                return False
            client = way.client or client
        now = self._clock()
        found = self._named(way.named + head[:end])
        if (
            found is None
            or self._judge.has_rules
            or not (found.since <= now <= found.until or found.renew(now))
        ):
            found = self._look(head, end, block, way, scheme, now)
            if found is None:
                return False
        viewer.asked = b"" if way.standing else found.name
        return self._give(found, block.part, said, client, now, scheme, viewer)

    def answer_named(
        self, name: bytes, wanted: Part | None, said: Said, scheme: str, viewer: Viewer
    ) -> bool | Late:
        """`answer` of a request that differs from the one `asked` before in the part that is
        `wanted`, if at all."""
        now, found = self._clock(), self._named(name)
        if (
            found is None
            or self._judge.has_rules
            or not (found.since <= now <= found.until or found.renew(now))
        ):
            return False
        return self._give(found, wanted, said, viewer.client, now, scheme, viewer)

    def _give(
        self,
        found: HotAnswer,
        wanted: Part | None,
        said: Said,
        client: str,
        now: float,
        scheme: str,
        viewer: Viewer,
    ) -> bool | Late:
        served = found.served
        if not found.apart:
            if found.rest:
                viewer.transport.writelines((found.head, found.rest))
            else:
                viewer.transport.write(found.head)
        elif (part := found.part(wanted, self._most[scheme])) is None:
            return False
        else:
            begin, pieces, served = part
            if not viewer.send_apart(begin, pieces, served.content_bytes):
                self.hot.touch(found.of, 1)
                return Late(served, client, now, found.ttl)
        ended = self._clock()
        self._hits.append((served, said, client, ended, ended - now, found.ttl))
        served.uses += 1
        if served.uses == 1 or len(self._hits) >= BATCH:
            self._note(served)
        return True

    def _look(
        self, head: bytes, end: int, block: FieldBlock, way: Way, scheme: str, now: float
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
        return hot.find(block, way.told, method, key, now) or hot.make(
            block, way, head[:end], scheme, key, now
        )

    def note(self, served: Served, said: Said, client: str, ended: float, seconds: float) -> None:
        """Takes the record of an answer that was given by another short way."""
        self._hits.append((served, said, client, ended, seconds, ""))
        self._misses.append(served)
        served.uses = 1
        self._settle_soon()

    def _note(self, served: Served) -> None:
        """A record of an answer that has none yet, or the last of a batch, was appended."""
        if served.uses == 1:
            self._used.append(served)
        self._settle_soon()

    def _settle_soon(self) -> None:
        if len(self._hits) == 1:
            self._loop.call_later(PAUSE, self.settle)
        elif len(self._hits) >= BATCH:
            self.settle()

    def settle(self) -> None:
        """Counts, logs and tells the store what has not been yet."""
        hits, used, misses = self._hits, self._used, self._misses
        if not hits:
            return
        self._hits, self._used, self._misses = [], [], []
        self.answers += len(hits) - len(misses)
        self._on_hits(hits, [*used, *misses] if misses else used)
        self.hot.touch_all(used)
