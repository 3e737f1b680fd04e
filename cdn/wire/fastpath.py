"""A hit in two look-ups and one write: answers that are given again as bytes.

Strategy: what the full path has answered out of the store, and the gateway calls repeatable, is
kept as it was sent, under its primary key, once for each way to ask that tells answers apart; a
plain GET of what is stored and fresh has its answer made here, out of the same rules. From one
second to the next such an answer differs in Age and in Cache-Status' ttl alone, which are written
anew when they have changed, so that both paths say the same at every moment. A key is forgotten as
soon as the gateway tells that it, or everything, has changed; when its answer is no longer fresh;
and when others are hotter, by the policy that governs RAM. Of large content the parts are given in
this way, out of the store.

Each answer leaves one record. Records are counted, logged and told to the store in batches, before
anything else is counted or logged, so their order is that of the answers.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Protocol

from cdn.gateway.exchange import Answer
from cdn.gateway.hot import Repeatable, Repeats, Standing
from cdn.observe.hits import Hit, Said, Served
from cdn.semantics.delivery import shown_age, shown_ttl
from cdn.semantics.freshness import current_age
from cdn.semantics.message import Request
from cdn.semantics.ranges import ByteRange
from cdn.storage.eviction.greedy_dual import GDG
from cdn.storage.store import Piece, SliceUnavailable
from cdn.wire.field_block import LONGEST_REQUEST_LINE, REQUEST_LINE, FieldBlock
from cdn.wire.response_head import choose_framing, encode_head

BATCH = 256
"""Records that are dealt with at once: more would be felt by the request that waits."""

PAUSE = 0.01
"""Seconds between the first record and the batch it is in."""

LARGEST = 128 * 1024
"""Bytes of content that are held for an answer, and sent for one."""

JOINED = 4096
"""Bytes of content that are kept a second time, behind their head."""

MOST_ANSWERS = 64
"""Of one key; the one that was made first goes first."""

MOST_SIZES = 16
"""Of parts, of which is remembered what is said of them."""

_OVERHEAD = 1_600
"""Bytes of an answer besides its head and content (tests/wire/test_fastpath.py keeps it honest)."""

_MARGIN = 1e-5
"""Seconds before a figure changes in which it is computed anew each time: floats round."""

OnHits = Callable[[Sequence[Hit], Sequence[Served]], None]
"""Takes records, and of each answer in them how often it was given (`Served.uses`)."""

Write = Callable[[bytes, bytes], object]
"""Sends two pieces, one behind the other; either may be empty."""

Send = Callable[[bytes, Sequence[Piece], int], object]
"""Head, content and how many bytes that is."""


class Room(Protocol):
    """Where bytes are accounted for. See `MemoryStore.reserve`."""

    def reserve(self, size: int) -> bool: ...

    def release(self, size: int) -> None: ...


class HotAnswer:
    """One answer: `head`, which is right from `since` to `until`, in the clock's seconds, while the
    answer is fresh for `ttl` more, and `rest` behind it. Where `ranged`, the head lacks its end,
    and a part of the content's `length` bytes is to follow, which are in `body` or, where they are
    more than `LARGEST`, in the store."""

    __slots__ = (
        "_after",
        "_before",
        "_between",
        "_joined",
        "_parts",
        "body",
        "head",
        "length",
        "of",
        "ranged",
        "rest",
        "served",
        "since",
        "ttl",
        "until",
    )

    def __init__(
        self, of: Repeatable, request: Request, answer: Answer, head: bytes, body: bytes | None
    ) -> None:
        self.of = of
        self.body = b"" if body is None else body
        self.length = len(body) if body is not None else of.response.length or 0
        status = answer.head.status
        self.ranged = status == 206 and b"\r\nContent-Range: bytes " in head
        if self.ranged:
            head = head[: head.rindex(b"\r\nContent-Range: ")]
        joins = self.length <= JOINED and not self.ranged
        self._joined = self.body if joins else b""
        self.rest = b"" if joins or self.ranged else self.body
        # The fields that a node adds stand together, at the end, and once (`delivery`).
        age = head.rindex(b"\r\nAge: ") + 7
        named = head.rindex(b"\r\nCache-Status: ") + 16
        line_end = head.find(b"\r\n", named)
        ttl = head.rindex(b"; ttl=", 0, None if line_end < 0 else line_end) + 6
        self._before = head[:age]
        self._between = head[head.index(b"\r\n", age) : ttl]
        self._after = b"" if line_end < 0 else head[line_end:]
        self.served = Served(
            request.method,
            request.scheme,
            request.authority,
            request.target,
            status,
            self.length,
            head[named:ttl].decode("latin-1"),
            of.service,
            of,
        )
        self.since, self.until = 1.0, 0.0
        self.ttl = 0
        self.head = b""
        self._parts: dict[int, Served] = {}

    def renew(self, now: float) -> bool:
        """Makes it right for `now`. False: it is not fresh any more."""
        age = current_age(self.of.response, now)
        ttl = self.of.lifetime - age
        if ttl <= 0:  # RFC 9111 §4.2: fresh is a lifetime greater than the age
            return False
        self.ttl = shown = shown_ttl(ttl)
        self.head = b"%b%d%b%d%b%b" % (
            self._before,
            shown_age(age),
            self._between,
            shown,
            self._after,
            self._joined,
        )
        self.since = now
        self.until = max(now, now + min(1 - age % 1, ttl % 1) - _MARGIN)
        return True

    def part(self, block: FieldBlock) -> tuple[bytes, Sequence[Piece], Served] | None:
        """The answer for the one range that `block` asks for: head, content, and what is said of
        it. None where the range cannot be satisfied, or not here."""
        assert block.part is not None
        (first, last), length = block.part, self.length
        if first >= length:
            return None
        stop = length if last is None else min(last + 1, length)
        pieces: Sequence[Piece] | None
        if length <= LARGEST:
            pieces = (memoryview(self.body)[first:stop],)
        elif stop - first > LARGEST:
            return None
        else:
            try:
                pieces = self.of.stored.ready_to_send((ByteRange(first, stop),))
            except SliceUnavailable:
                return None
            if pieces is None:
                return None
        told = b"\r\nContent-Range: bytes %d-%d/%d\r\nContent-Length: %d\r\n\r\n"
        head = self.head + told % (first, stop - 1, length, stop - first)
        return head, pieces, self._parts.get(stop - first) or self._part_served(stop - first)

    def _part_served(self, size: int) -> Served:
        """What is said of a part of so many bytes; clients mostly ask for parts of one size."""
        if len(self._parts) >= MOST_SIZES:
            self._parts.clear()
        of = self.served  # `replace` would take longer than all the rest
        served = self._parts[size] = Served(
            of.method,
            of.scheme,
            of.authority,
            of.target,
            of.status,
            size,
            of.member,
            of.service,
            of.of,
        )
        return served


class _Key:
    """All answers of one primary key."""

    __slots__ = ("answers", "nominated", "reserved", "size")

    def __init__(self, nominated: tuple[str, ...]) -> None:
        self.nominated = nominated
        self.answers: dict[str | tuple[str | None, ...], HotAnswer] = {}
        self.size = 0


class HotResponses:
    """Answers by primary key, up to `capacity` bytes. Where the store holds content in RAM,
    `shared`, it is not held twice, and what is held beside it is accounted for in `room`."""

    def __init__(
        self, repeats: Repeats, capacity: int, room: Room | None, clock: Callable[[], float]
    ) -> None:
        self._repeats = repeats
        self._room = room
        self._clock = clock
        self._keys: dict[bytes, _Key] = {}
        self._policy: GDG[bytes] = GDG(capacity)
        self._changes = 0
        repeats.tell(self.forget, self.forget_all)

    @property
    def size(self) -> int:
        """Bytes that are held."""
        return self._policy.used

    def __len__(self) -> int:
        return len(self._keys)

    def standing(self, block: FieldBlock, scheme: str, peer: str) -> Standing | None:
        """How `peer` is taken, who says in `block` for whom it asks."""
        known = block.standing
        if (
            known is None
            or known.rules != self._repeats.rules
            or known.peer != peer
            or known.scheme != scheme
        ):
            asked = Request("GET", scheme, block.origins.authorities[scheme], "/", block.fields)
            known = block.standing = self._repeats.standing(asked, peer)
        return known

    def find(
        self, block: FieldBlock, told: str, method: str, key: bytes, now: float
    ) -> HotAnswer | None:
        """The answer to give at `now`; `told` is what tells it from others, as in `narrowing`."""
        found = self._keys.get(key)
        if found is None:
            return None
        if method == "GET" and not found.nominated:
            answer = found.answers.get(told)
        else:
            answer = found.answers.get(_shape(block, told, method, found.nominated))
        if answer is None:
            return None
        if not answer.since <= now <= answer.until and not answer.renew(now):
            self.forget(key)
            return None
        of, repeats = answer.of, self._repeats
        if (of.tags or repeats.judge.has_rules) and not repeats.hold(of):
            self.forget(key)
            return None
        return answer

    def take(
        self, block: FieldBlock, request: Request, peer: str, answer: Answer, head: bytes
    ) -> None:
        """Keeps an answer that was just given to a `request` of `peer`, with `head`."""
        of = answer.repeatable
        if of is None or not block.repeatable:
            return
        told = block.narrowing
        if block.claims:
            standing = self.standing(block, request.scheme, peer)
            if standing is None:
                return
            told = _told(block, standing)
        status = answer.head.status
        # What one range brings is cut out of the whole; several, or none, the full path tells.
        if status == 416 or (status == 206 and block.part is None):
            return
        body: bytes | None = b""
        if answer.content and (of.response.length or 0) <= LARGEST:
            body = self._content(of)
            if body is None:
                return
        elif answer.content:
            if status != 206:
                return  # the whole of it the full path sends
            body = None
        made = HotAnswer(of, request, answer, head, body)
        if made.renew(self._clock()):
            self._put(of, _shape(block, told, request.method, of.nominated), made)

    def make(
        self,
        block: FieldBlock,
        told: str,
        standing: Standing | None,
        line: bytes,
        scheme: str,
        key: bytes,
        now: float,
    ) -> HotAnswer | None:
        """The first answer to a plain request with this line for what is stored and fresh."""
        if block.narrowing or not line.startswith(b"GET "):
            return None
        authority = block.origins.authorities[scheme]
        if standing is None:
            answer = self._repeats.first(key, authority, lambda: block.fields, now)
        else:
            named = standing.origin.partition(b"://")[2].decode("latin-1")
            answer = self._repeats.first(
                key, named, lambda: standing.fields, now, surrogate=standing.surrogate
            )
        if answer is None or len(line) > LONGEST_REQUEST_LINE:
            return None
        asked = REQUEST_LINE.fullmatch(line)
        of = answer.repeatable
        if asked is None or of is None or (of.response.length or 0) > LARGEST:
            return None
        body = self._content(of) if answer.length else b""
        if body is None:
            return None
        head = encode_head(answer.head, choose_framing(answer, None, "GET", 1), None)
        request = Request("GET", scheme, authority, asked[2].decode("ascii"), block.fields)
        made = HotAnswer(of, request, answer, head, body)
        if not made.renew(now):
            return None
        self._put(of, _shape(block, told, "GET", of.nominated), made)
        return made

    def _content(self, of: Repeatable) -> bytes | None:
        """The whole content that an answer is made of."""
        found = self._keys.get(of.key)
        for other in found.answers.values() if found else ():
            if other.of.response is of.response and other.body:
                return other.body
        try:
            pieces = of.stored.ready([ByteRange(0, of.response.length or 0)])
        except SliceUnavailable:
            return None
        if pieces is None:
            return None
        if len(pieces) == 1 and isinstance(pieces[0], memoryview):
            held = pieces[0].obj
            if isinstance(held, bytes) and len(held) == len(pieces[0]):
                return held
        return b"".join(pieces)

    def _put(self, of: Repeatable, shape: str | tuple[str | None, ...], made: HotAnswer) -> None:
        key = of.key
        found = self._keys.get(key)
        if found is None or found.nominated != of.nominated:
            found = _Key(of.nominated)
        size = found.size + self._size_of(found, made)
        if size > self._policy.budget // 8:
            return
        self.forget(key)
        changes = self._changes
        if self._room is not None and not self._room.reserve(size):
            return
        if self._changes != changes:  # room was made, perhaps by taking this very response out
            if self._room is not None:
                self._room.release(size)
            return
        found.answers[shape] = made
        found.size = size
        while len(found.answers) > MOST_ANSWERS:
            del found.answers[next(iter(found.answers))]
        self._keys[key] = found
        for victim in self._policy.admit(key, size):
            self._let_go(self._keys.pop(victim))

    def _size_of(self, found: _Key, made: HotAnswer) -> int:
        size = _OVERHEAD + 2 * len(made.head)
        if self._room is None and not any(o.body is made.body for o in found.answers.values()):
            size += len(made.body)
        return size

    def _let_go(self, key: _Key) -> None:
        if self._room is not None:
            self._room.release(key.size)

    def touch(self, of: Repeatable, uses: int) -> None:
        """An answer was given so many times."""
        self._repeats.touch(of, uses)
        with contextlib.suppress(KeyError):  # it has gone since
            self._policy.touch(of.key, uses)

    def forget(self, key: bytes) -> None:
        """Nothing of it is given again."""
        self._changes += 1
        found = self._keys.pop(key, None)
        if found is not None:
            self._policy.remove(key)
            self._let_go(found)

    def forget_all(self) -> None:
        """Nothing at all is given again."""
        for key in list(self._keys):
            self.forget(key)


def _told(block: FieldBlock, standing: Standing) -> str:
    """What tells the answers to a block that says for whom it asks: also who is answered, and what
    the log says of the target where that is not what the key says."""
    scheme, told = standing.scheme, "\nsurrogate" if standing.surrogate else ""
    if standing.origin != block.origins[scheme]:
        told += f"\n{scheme}://{block.origins.authorities[scheme]}"
    return f"{told}\n{block.narrowing}" if told else block.narrowing


def _shape(
    block: FieldBlock, told: str, method: str, nominated: tuple[str, ...]
) -> str | tuple[str | None, ...]:
    """What tells the answer to a request from others under its key."""
    shape = told if method == "GET" else f"{method}\n{told}"
    if not nominated:
        return shape
    fields = block.fields
    return (shape, *[fields.get(name) for name in nominated])


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
        self._clock = clock
        self._on_hits = on_hits
        self._loop = asyncio.get_running_loop()
        self._hits: list[Hit] = []
        self._used: list[Served] = []
        self._misses: list[Served] = []

    def answer(
        self,
        head: bytes,
        end: int,
        block: FieldBlock,
        scheme: str,
        peer: str,
        write: Write,
        send: Send,
    ) -> bool:
        """Sends the answer to a request, whose line ends at `end` and whose `block` is repeatable;
        False where the full path has to."""
        # A line that is no request line is nobody's key.
        if head[end - 9 : end] != b" HTTP/1.1":
            return False
        if head.startswith(b"GET /"):
            method, target = "GET", head[4 : end - 9]
        elif head.startswith(b"HEAD /"):
            method, target = "HEAD", head[5 : end - 9]
        else:
            return False
        hot, now = self.hot, self._clock()
        key, told, client = block.origins[scheme] + target, block.narrowing, peer
        standing: Standing | None = None
        if block.claims:
            standing = hot.standing(block, scheme, peer)
            if standing is None:
                return False
            key, told, client = standing.origin + target, _told(block, standing), standing.client
        found = hot.find(block, told, method, key, now) or hot.make(
            block, told, standing, head[:end], scheme, key, now
        )
        if found is None:
            return False
        served = found.served
        if not found.ranged:
            write(found.head, found.rest)
        elif (part := found.part(block)) is None:
            return False
        else:
            begin, pieces, served = part
            send(begin, pieces, served.content_bytes)
        ended = self._clock()
        self._hits.append((served, block.said, client, ended, ended - now, found.ttl))
        served.uses += 1
        if served.uses == 1 or len(self._hits) >= BATCH:
            self._note(served)
        return True

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
        for served in used:
            assert isinstance(served.of, Repeatable)
            self.hot.touch(served.of, served.uses)
            served.uses = 0
