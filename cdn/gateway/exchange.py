"""What a rim hands the gateway and gets back.

Strategy: `Exchange` is one request with where it came from; `Answer` is one response ready to be
framed. The gateway decides every field but the framing ones (Content-Length, Transfer-Encoding,
Connection, Trailer), which belong to the rim's connection.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from cdn.semantics.message import Request, Response
from cdn.semantics.value import value
from cdn.storage.store import Piece

if TYPE_CHECKING:
    from cdn.gateway.hot import Repeatable


class Content(Protocol):
    """Content that arrives piece by piece: `read` gives b"" once at its end."""

    async def read(self) -> Piece:
        """The next piece. Raises `ContentCutShort` where the rest will never come."""
        ...

    def abort(self) -> None:
        """The reader wants no more. Idempotent; nothing to do after the end."""
        ...


class ContentCutShort(Exception):
    """The rest of an answer's content will not come: the client's connection must be broken, not
    ended cleanly (RFC 9112 §8). The message says why, for the log."""


@value(frozen=True, slots=True)
class Exchange:
    """One request as the rim got it.

    `client` is the peer's address (no port; "unix" for a Unix socket). `content` is the request's
    content, None where framing says there is none (iterated at most once; a piece at a time, never
    b""); `content_length` its length in bytes where declared, None for chunked. `send_interim`
    relays a 1xx head to the client; the rim drops it for HTTP/1.0. `arrived` is `Clock.now()`.
    """

    request: Request
    client: str
    arrived: float
    content: AsyncIterator[bytes] | None = None
    content_length: int | None = None
    send_interim: Callable[[Response], None] | None = None


@dataclass(slots=True)
class Outcome:
    """What log and metrics say of an answer, in the words of RFC 9211.

    `cache` is "hit", "stale", a `fwd` reason ("uri-miss", "bypass", …) or "" for the node's own
    answers; `error` is a Proxy-Status error type or ""; `client` is the viewer where a trusted
    downstream named one.
    """

    service: str = ""
    cache: str = ""
    error: str = ""
    collapsed: bool = False
    source: str = ""
    client: str = ""


@dataclass(slots=True)
class Answer:
    """One response for the rim to frame and send.

    `content`: ready pieces (sent as they are) or a `Content` to be read to its end.
    `length`: bytes of content if known, else None (the rim then sends chunked to HTTP/1.1 and
    closes after the content for HTTP/1.0). For an answer to HEAD: the Content-Length to declare,
    None to declare none; and `content` is empty. 204 and 304 carry no content and no length.
    `close`: the connection must not be used again after this answer. `repeatable`: what it was
    made of, where it may be given again while that holds.
    """

    head: Response
    content: Sequence[Piece] | Content
    length: int | None
    outcome: Outcome
    close: bool = False
    repeatable: Repeatable | None = None


class Handler(Protocol):
    """What a rim needs of the gateway."""

    def answer_now(self, exchange: Exchange) -> Answer | None:
        """The answer, where it can be had without waiting (a hit in RAM, an error of ours);
        None means: call `answer`. Never raises."""
        ...

    async def answer(self, exchange: Exchange) -> Answer:
        """The answer, after as much waiting as it takes. Never raises but CancelledError
        (the client went away)."""
        ...
