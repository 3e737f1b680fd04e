"""Going on with a response whose upstream died in the middle of its content.

Strategy: `Remainder` is the pure part: which bytes of which representation are still to come, how
to ask for them, and whether an answer is exactly them. `ResumingResponse` reads on as if nothing
had happened, once. Bytes of two responses are joined only under one strong ETag (RFC 9110 §8.8.3,
RFC 9111 §3.4); Last-Modified is not strong enough, for two versions can share a second.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from cdn.semantics.message import Fields, Request, Response
from cdn.semantics.ranges import parse_content_range
from cdn.semantics.stored_response import Validator
from cdn.upstream.errors import BodyCutShort
from cdn.upstream.exchange import UpstreamResponse

_CONDITIONS = frozenset(
    ("range", "if-range", "if-match", "if-none-match", "if-modified-since", "if-unmodified-since")
)


@dataclass(frozen=True, slots=True)
class Remainder:
    """Bytes `first` to `last` of the representation that `etag` (strong) names; `complete` is its
    whole length, None where the upstream did not know."""

    etag: str
    first: int
    last: int
    complete: int | None

    @classmethod
    def of(cls, method: str, head: Response, length: int | None) -> Remainder | None:
        """All the content that `head` and its framing's `length` promise; None where it could not
        be resumed: not GET, no strong ETag, or not known which bytes these are."""
        etag = _strong_etag(head.fields)
        if method != "GET" or etag is None or not length:
            return None
        if head.status == 200:
            return cls(etag, 0, length - 1, length)
        ranged = _content_range(head.fields) if head.status == 206 else None
        if ranged is None or ranged[1] - ranged[0] + 1 != length:
            return None
        return cls(etag, *ranged)

    def after(self, count: int) -> Remainder:
        """What is still to come when `count` bytes have."""
        return replace(self, first=self.first + count)

    def request(self, head: Request) -> Request:
        """`head`, asking for these bytes only, and only if they still are of the same
        representation (RFC 9110 §13.1.5). Its own conditions were answered the first time."""
        fields = head.fields.without(_CONDITIONS).adding(
            ("Range", f"bytes={self.first}-{self.last}"), ("If-Range", self.etag)
        )
        return head.with_fields(fields)

    def is_whole(self, head: Response, length: int | None) -> bool:
        """Whether an answer is these very bytes. A server may send less or more than was asked
        (RFC 9110 §15.3.7), so nothing is taken for granted."""
        ranged = _content_range(head.fields)
        return (
            head.status == 206
            and _strong_etag(head.fields) == self.etag
            and ranged is not None
            and ranged[:2] == (self.first, self.last)
            and (ranged[2] == self.complete or None in (ranged[2], self.complete))
            and length == self.last - self.first + 1
        )


GoOn = Callable[[Remainder], Awaitable[UpstreamResponse | None]]
"""Asks another upstream for the remainder: its answer if it is just that, else None."""


class ResumingResponse:
    """A response that survives one cut of its content."""

    def __init__(self, response: UpstreamResponse, whole: Remainder, go_on: GoOn) -> None:
        self._first = self._current = response
        self._whole = whole
        self._go_on: GoOn | None = go_on
        self._received = 0
        self._aborted = False

    @property
    def head(self) -> Response:
        return self._first.head

    @property
    def length(self) -> int | None:
        return self._first.length

    @property
    def source(self) -> str:
        return self._first.source

    async def read(self) -> bytes:
        """Raises BodyCutShort where the cut could not be mended: the first one's own error."""
        try:
            piece = await self._current.read()
        except BodyCutShort:
            go_on, self._go_on = self._go_on, None
            if go_on is None:
                raise
            rest = await go_on(self._whole.after(self._received))
            if rest is None:
                raise
            if self._aborted:
                rest.abort()
                raise
            self._current = rest
            piece = await rest.read()
        self._received += len(piece)
        return piece

    def abort(self) -> None:
        self._aborted = True
        self._go_on = None
        self._current.abort()


def _strong_etag(fields: Fields) -> str | None:
    return Validator(fields.get("etag")).strong_etag


def _content_range(fields: Fields) -> tuple[int, int, int | None] | None:
    """First, last, complete length (RFC 9110 §14.4); None where there is none to rely on."""
    found = parse_content_range(fields.get("content-range"))
    return None if found is None else (found[0].start, found[0].stop - 1, found[1])
