"""An answer that is given again as bytes: what of it changes from second to second is written anew.

Strategy: from one second to the next such an answer differs in Age and in Cache-Status' ttl alone,
which are written anew when they have changed, by the rules of the full path, so that both say the
same at every moment. Small content is kept a second time, behind its head; large content, and parts
of it, are given out of the store.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import inf

from cdn.gateway.exchange import Answer
from cdn.gateway.hot import Repeatable
from cdn.observe.hits import Served
from cdn.semantics.delivery import shown_age, shown_ttl
from cdn.semantics.message import Request
from cdn.semantics.ranges import ByteRange
from cdn.storage.store import Piece, SliceUnavailable
from cdn.wire.field_block import Part

LARGEST = 128 * 1024
"""Bytes of content that are held for an answer."""

MOST_SENT = 32 << 20
"""Bytes of content that are looked for in the store for one answer: so many need no Task."""

JOINED = 4096
"""Bytes of content that are kept a second time, behind their head."""

MOST_SIZES = 4
"""Of parts, of which is remembered what is said of them."""

_MARGIN = 1e-5
"""Seconds before a figure changes in which it is computed anew each time: floats round."""


Head = tuple[bytes, bytes, bytes]
"""What is before the figure of Age, between it and that of the ttl, and after both."""

_PartSaid = tuple[Served, bytes]
"""What is said of a part, and the end of its head, from the whole's length on."""


class _EachTime(Served):
    """What every use reads: a class of its own, so that it lies in one line or two of memory."""

    __slots__ = ("apart", "head", "rest", "ttl", "until")


class HotAnswer(_EachTime):
    """One answer: `head`, which is right `until` then, in the clock's seconds, while the answer is
    fresh for `ttl` more, and `rest` behind it. Where `ranged`, the head lacks its end, and a part
    of the content's `content_bytes` follows. What is not in `head` and `rest` is sent `apart`, as
    a `part` of `body` or, where content is over `LARGEST`, out of the store. By `name`, if any, it
    is found at once."""

    __slots__ = (
        "_after",
        "_before",
        "_between",
        "_initial_age",
        "_joined",
        "_lifetime",
        "_parts",
        "_response_time",
        "body",
        "name",
        "ranged",
    )

    of: Repeatable

    def __init__(
        self,
        asked: tuple[str, str, str, str],
        status: int,
        head: Head,
        member: str,
        of: Repeatable,
        body: bytes | None,
        *,
        ranged: bool = False,
    ) -> None:
        """To what was `asked`: method, scheme, authority and target. Where `body` is None, content
        stays in the store."""
        length = (of.response.length or 0) if body is None else len(body)
        super().__init__(*asked, status, length, member, of.service, of)
        self.name = b""
        # Beside the answer: what is far away in memory costs more than to compute with it.
        self._initial_age, self._response_time = of.response.initial_age, of.response.response_time
        self._lifetime = of.lifetime
        self.body = b"" if body is None else body
        self.ranged = ranged
        self.apart = ranged or body is None
        joins = length <= JOINED and not ranged
        self._joined = self.body if joins else b""
        self.rest = b"" if joins or ranged else self.body
        self._before, self._between, self._after = head
        self.until = -inf
        self.ttl = 0
        self.head = b""
        self._parts: dict[int, _PartSaid] | None = None

    @classmethod
    def given(
        cls, of: Repeatable, request: Request, answer: Answer, head: bytes, body: bytes | None
    ) -> HotAnswer:
        """As `answer` was given to `request`, with this `head`."""
        status = answer.head.status
        ranged = status == 206 and b"\r\nContent-Range: bytes " in head
        if ranged:
            head = head[: head.rindex(b"\r\nContent-Range: ")]
        # The fields that a node adds stand together, at the end, and once (`delivery`).
        age = head.rindex(b"\r\nAge: ") + 7
        named = head.rindex(b"\r\nCache-Status: ") + 16
        line_end = head.find(b"\r\n", named)
        ttl = head.rindex(b"; ttl=", 0, None if line_end < 0 else line_end) + 6
        after = b"" if line_end < 0 else head[line_end:]
        asked = request.method, request.scheme, request.authority, request.target
        parts = head[:age], head[head.index(b"\r\n", age) : ttl], after
        member = head[named:ttl].decode("latin-1")
        return cls(asked, status, parts, member, of, body, ranged=ranged)

    def renew(self, now: float) -> bool:
        """Makes it right for `now`. False: it is not fresh any more."""
        resident, age = now - self._response_time, self._initial_age
        if resident > 0:  # as `current_age`
            age += resident
        ttl = self._lifetime - age
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
        # No min() and max(): this is half of what a hit in a new second costs.
        aged, left = 1 - age % 1, ttl % 1
        until = now + (aged if aged < left else left) - _MARGIN
        self.until = until if until > now else now
        return True

    def part(self, wanted: Part | None, most: int) -> tuple[bytes, Sequence[Piece], Served] | None:
        """What is sent apart, the whole or the one range that is `wanted`, of at most `most` bytes:
        head, content, and what is said of it. None where the range cannot be satisfied, or not
        here."""
        # RFC 9110 §13.1.5: a range that If-Range takes back is answered with the whole.
        (first, last), length = (self.ranged and wanted) or (0, None), self.content_bytes
        if first >= length:
            return None
        stop = length if last is None else min(last + 1, length)
        pieces: Sequence[Piece] | None
        if length <= LARGEST:
            pieces = (memoryview(self.body)[first:stop],)
        elif stop - first > most:
            return None
        else:
            stored = self.of.stored
            piece = stored.in_one_piece(first, stop)
            try:
                pieces = (piece,) if piece else stored.ready_to_send((ByteRange(first, stop),))
            except SliceUnavailable:
                return None
            if pieces is None:
                return None
        if not self.ranged:
            return self.head, pieces, self
        parts, size = self._parts, stop - first
        served, end = (parts and parts.get(size)) or self._of_size(size)
        head = b"%b\r\nContent-Range: bytes %d-%d%b" % (self.head, first, stop - 1, end)
        return head, pieces, served

    def _of_size(self, size: int) -> _PartSaid:
        """What is said of a part of so many bytes; clients mostly ask for parts of one size."""
        parts = self._parts
        if parts is None or len(parts) >= MOST_SIZES:
            parts = self._parts = {}
        served = Served(  # `replace` would take longer than all the rest
            self.method,
            self.scheme,
            self.authority,
            self.target,
            self.status,
            size,
            self.member,
            self.service,
            self.of,
        )
        end = b"/%d\r\nContent-Length: %d\r\n\r\n" % (self.content_bytes, size)
        said = parts[size] = served, end
        return said

    def given_as(self) -> Iterable[Served]:
        """Whose uses are its own: itself, and the parts of it."""
        return (self, *(served for served, _ in (self._parts or {}).values()))
