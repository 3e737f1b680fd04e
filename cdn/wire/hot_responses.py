"""Hot answers under their primary keys, within a budget of bytes.

Strategy: once for each way to ask that tells answers apart. Where neither Vary nor a group has a
say, an answer has a name too, by which way and request line find it in one look-up. A key is
forgotten, names and all, as soon as the gateway tells that it, or everything, has changed; when its
answer is no longer fresh; and when others are hotter, by the policy that governs RAM.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from cdn.gateway.exchange import Answer
from cdn.gateway.hot import Repeatable, Repeats
from cdn.observe.hits import Served
from cdn.observe.log_lines import is_plain
from cdn.semantics.delivery import OWN_FIELDS, cache_status, joined_status, via
from cdn.semantics.message import Fields, Request
from cdn.semantics.plain import delivered_plainly
from cdn.semantics.ranges import ByteRange
from cdn.storage.eviction.greedy_dual import GDG
from cdn.storage.store import SliceUnavailable
from cdn.wire.field_block import LONGEST_REQUEST_LINE, REQUEST_LINE, FieldBlock
from cdn.wire.hot_answer import LARGEST, MOST_SIZES, Head, HotAnswer
from cdn.wire.response_head import choose_framing, encode_head, encode_opening
from cdn.wire.ways import Way

MOST_ANSWERS = 64
"""Of one key; the one that was made first goes first."""

MOST_ASKED = 16_384
"""Keys of which is remembered, at 64 bytes each, that one of our own nodes has asked for them."""

_OVERHEAD = 1_600
"""Bytes of an answer besides its head, target and content (tests/wire/test_fastpath.py keeps it
honest)."""

_PART_OVERHEAD = 500
"""Of what is said of the parts of one size, besides the target."""


Shape = str | tuple[str | None, ...]
"""What tells an answer from others of its key."""


class Room(Protocol):
    """Where bytes are accounted for. See `MemoryStore.reserve`."""

    on_last_look: Callable[[bytes], None]

    def reserve(self, size: int) -> bool: ...

    def release(self, size: int) -> None: ...


class _Key:
    """All answers of one primary key."""

    __slots__ = ("answers", "nominated", "size")

    def __init__(self, nominated: tuple[str, ...]) -> None:
        self.nominated = nominated
        self.answers: dict[Shape, HotAnswer] = {}
        self.size = 0


class HotResponses:
    """Answers by primary key, up to `capacity` bytes. Where the store holds content in RAM,
    `shared`, it is not held twice, and what is held beside it is accounted for in `room`."""

    def __init__(
        self,
        repeats: Repeats,
        capacity: int,
        room: Room | None,
        clock: Callable[[], float],
        tell: Callable[[Sequence[Served]], None] = lambda _: None,
    ) -> None:
        self._repeats = repeats
        self._room = room
        self._clock = clock
        self._keys: dict[bytes, _Key] = {}
        self._named: dict[bytes, HotAnswer] = {}
        self.named: Callable[[bytes], HotAnswer | None] = self._named.get
        """The answer of a name: as it was made, whatever has come up since but a change of key."""
        self._tell = tell
        self._policy: GDG[bytes] = GDG(capacity)
        self._policy.last_look = self._last_look
        if room is not None:
            room.on_last_look = self._last_look
        self._changes = 0
        self._asked: set[int] = set()
        self._member = cache_status(repeats.node, ttl=0)[:-1]
        _, passed = via(Fields(), repeats.node)
        self._between = _own_fields(passed, self._member)
        repeats.tell(self.forget, self.forget_all)

    @property
    def size(self) -> int:
        """Bytes that are held."""
        return self._policy.used

    def __len__(self) -> int:
        return len(self._keys)

    def way(self, block: FieldBlock, scheme: str, peer: str) -> Way | None:
        """How requests of `peer` with `block` are taken; None where that is for the full path."""
        way = block.ways.get(scheme)
        if way is not None and (way.standing is None or self.stands(way, peer)):
            return way
        standing = None
        if block.claims:
            asked = Request("GET", scheme, block.origins.authorities[scheme], "/", block.fields)
            standing = self._repeats.standing(asked, peer)
            if standing is None:
                return None
        way = block.ways[scheme] = Way(block, scheme, standing)
        return way

    def stands(self, way: Way, peer: str) -> bool:
        """Whether what `peer` says for others is taken as it was."""
        standing = way.standing
        assert standing is not None
        return standing.rules == self._repeats.rules and standing.peer == peer

    def holds(self, answer: HotAnswer) -> bool:
        """Whether nothing has come up that only a look tells; else its key is forgotten."""
        of, repeats = answer.of, self._repeats
        if (of.tags or repeats.judge.has_rules) and not repeats.hold(of):
            self.forget(of.key)
            return False
        return True

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
        if now > answer.until and not answer.renew(now):
            self.forget(key)
            return None
        return answer if self.holds(answer) else None

    def take(
        self, block: FieldBlock, request: Request, peer: str, answer: Answer, head: bytes
    ) -> None:
        """Keeps an answer that was just given to a `request` of `peer`, with `head`."""
        of = answer.repeatable
        if of is None or not block.repeatable:
            return
        way = self.way(block, request.scheme, peer)
        if way is None:
            return
        status = answer.head.status
        # What one range brings is cut out of the whole; several, or none, the full path tells.
        if status == 416 or (status == 206 and block.part is None):
            return
        body: bytes | None = b""
        if answer.content and (of.response.length or 0) > LARGEST:
            body = None
        elif answer.content:
            body = self._content(of)
            if body is None:
                return
        made = HotAnswer.given(of, request, answer, head, body)
        if made.renew(self._clock()):
            shape = _shape(block, way.told, request.method, of.nominated)
            line = f"{request.method} {request.target} HTTP/1.1".encode("ascii")
            self._put(of, shape, made, way.named + line)

    def make(
        self,
        block: FieldBlock,
        way: Way,
        line: bytes,
        scheme: str,
        key: bytes,
        now: float,
        *,
        besides: bool = False,
    ) -> HotAnswer | None:
        """The first answer to a plain request with this line for what is stored and fresh;
        `besides` as in `FastPath.answer`."""
        if block.narrowing or not line.startswith(b"GET "):
            return None
        if len(line) > LONGEST_REQUEST_LINE:
            return None
        authority = named = block.origins.authorities[scheme]
        standing, name = way.standing, way.named + line
        if standing is not None:
            named = standing.origin.partition(b"://")[2].decode("latin-1")
        surrogate = standing is not None and standing.surrogate
        of = self._repeats.plain(key, named)
        if of is not None:
            made = self._plain(of, scheme, authority, line)
            if made is not None and surrogate and self._seldom(key):
                return made if made.renew(now) else None
            if made is not None:
                return self._kept(made, way.told, now, name)
        if besides:  # its own lines may have a say in what is selected
            return None
        whose = block if standing is None else standing
        answer = self._repeats.first(key, named, lambda: whose.fields, now, surrogate=surrogate)
        if answer is None:
            return None
        asked = REQUEST_LINE.fullmatch(line)
        of = answer.repeatable
        if asked is None or of is None:
            return None
        body, held = None, (of.response.length or 0) <= LARGEST
        if held:
            body = self._content(of) if answer.length else b""
            if body is None:
                return None
        head = encode_head(answer.head, choose_framing(answer, None, "GET", 1), None)
        request = Request("GET", scheme, authority, asked[2].decode("ascii"), block.fields)
        made = HotAnswer.given(of, request, answer, head, body)
        return self._kept(made, _shape(block, way.told, "GET", of.nominated), now, name)

    def _seldom(self, key: bytes) -> bool:
        """Whether one of our own nodes, which store what they are given, asks for it anew: what is
        kept for them is asked for no second time as a rule, and costs more than it spares."""
        digest, asked = hash(key), self._asked
        if digest in asked:
            return False
        if len(asked) >= MOST_ASKED:
            asked.clear()
        asked.add(digest)
        return True

    def _plain(self, of: Repeatable, scheme: str, authority: str, line: bytes) -> HotAnswer | None:
        """The answer to a GET with this line, where that follows from what is stored alone."""
        response = of.response
        told, length = delivered_plainly(response), response.length or 0
        if told is None:
            return None
        body = None
        if length <= LARGEST:
            body = self._content(of) if length else b""
            if body is None:
                return None
        member, between = self._member, self._between
        received = response.fields
        if received.any_of(OWN_FIELDS):  # it came through another node
            _, passed = via(received, self._repeats.node)
            _, member = joined_status(received, member)
            between = _own_fields(passed, member)
        head: Head = (
            encode_opening(response.reason, *told) + b"Age: ",
            between,
            b"\r\nContent-Length: %d\r\n\r\n" % length,
        )
        # What is found under its key is a target: `key` is as the line has it.
        target = line[4:-9].decode("latin-1")
        return HotAnswer(("GET", scheme, authority, target), 200, head, member, of, body)

    def _kept(self, made: HotAnswer, shape: Shape, now: float, name: bytes) -> HotAnswer | None:
        if not made.renew(now):
            return None
        self._put(made.of, shape, made, name)
        return made

    def _content(self, of: Repeatable) -> bytes | None:
        """The whole content that an answer is made of."""
        found = self._keys.get(of.key)
        if found is not None:
            for other in found.answers.values():
                if other.of.response is of.response and other.body:
                    return other.body
        try:
            pieces = of.stored.ready((ByteRange(0, of.response.length or 0),))
        except SliceUnavailable:
            return None
        if pieces is None:
            return None
        if len(pieces) == 1 and isinstance(piece := pieces[0], memoryview):
            held = piece.obj
            if isinstance(held, bytes) and len(held) == len(piece):
                return held
        return b"".join(pieces)

    def _put(self, of: Repeatable, shape: Shape, made: HotAnswer, name: bytes) -> None:
        key = of.key
        known = found = self._keys.get(key)
        if found is None or found.nominated != of.nominated:
            found = _Key(of.nominated)
        size = found.size + self._size_of(found, made)
        if size > self._policy.budget // 8:
            return
        if known is not None:
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
        if not (of.nominated or of.tags):
            made.name = name
        entry = self._policy.entry(key)
        for answer in found.answers.values():  # forgotten above
            answer.of.entry = entry
            if answer.name:
                self._named[answer.name] = answer

    def _size_of(self, found: _Key, made: HotAnswer) -> int:
        # The target is in key and name, by itself, and in the texts for the log: escaped there.
        target = made.target
        logged = len(target) if is_plain(target) else 4 * len(target)
        size = _OVERHEAD + 2 * len(made.head) + 3 * len(target) + logged
        if made.ranged:
            size += MOST_SIZES * (_PART_OVERHEAD + logged)
        if self._room is None and not any(o.body is made.body for o in found.answers.values()):
            size += len(made.body)
        return size

    def _let_go(self, key: _Key) -> None:
        for answer in key.answers.values():
            self._named.pop(answer.name, None)
        if self._room is not None:
            self._room.release(key.size)

    def _last_look(self, key: bytes) -> None:
        """Its response, or its answers, go next: what is to be told of them is told now."""
        found = self._keys.get(key)
        if found is not None:
            given = [one for answer in found.answers.values() for one in answer.given_as()]
            self._tell([served for served in given if served.uses])

    def touch(self, of: Repeatable, uses: int) -> None:
        """An answer was given so many times."""
        self._repeats.touch(of.stored, uses)
        entry = of.entry
        if entry is not None and entry.present:  # else it has gone since
            self._policy.use(entry, uses)

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


def _own_fields(passed: str, member: str) -> bytes:
    """What is between the figures of Age and of the ttl that ends `member`."""
    return f"\r\nVia: {passed}\r\nCache-Status: {member}".encode("latin-1")


def _shape(block: FieldBlock, told: str, method: str, nominated: tuple[str, ...]) -> Shape:
    """What tells the answer to a request from others under its key."""
    shape = told if method == "GET" else f"{method}\n{told}"
    if not nominated:
        return shape
    fields = block.fields
    return (shape, *[fields.get(name) for name in nominated])
