"""The shapes that the client, the router and the gateway hand each other.

Strategy: plain values and one protocol for a response in flight. Whoever wraps a response (the
router does, to go on at another shield when one dies) offers the same protocol again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import NamedTuple, Protocol

from cdn.semantics.message import Request, Response
from cdn.semantics.value import value

_IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"})  # RFC 9110 §9.2.2

OnInterim = Callable[[Response], None]
"""Called with each 1xx head (but 100 and 101) before the final one."""


class Endpoint(NamedTuple):
    """One peer to connect to. `host` is a name or an address without brackets."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


@value(frozen=True, slots=True)
class Deadlines:
    """Seconds: to be connected, to the whole response head, between two pieces of content."""

    connect: float = 3.0
    first_byte: float = 15.0
    idle: float = 30.0


@value(frozen=True, slots=True)
class UpstreamRequest:
    """A request ready to go up: `head.fields` holds all but framing (Host included).

    `content` is iterated at most once; `content_length` is its length in bytes where the client
    declared one, None for chunked. `tls_name` is the name for SNI and verification, by default
    the endpoint's host. `client` is the viewer's address: told to shields in Forwarded (RFC 7239),
    to origins never.
    """

    head: Request
    content: AsyncIterator[bytes] | None = None
    content_length: int | None = None
    on_interim: OnInterim | None = None
    tls_name: str | None = None
    client: str | None = None


class UpstreamResponse(Protocol):
    """A response whose head has come and whose content is being read."""

    @property
    def head(self) -> Response:
        """The final response head, hop-by-hop and framing fields already taken out
        (Content-Length stays out: see `length`; RFC 9112 §6.3)."""
        ...

    @property
    def length(self) -> int | None:
        """Bytes of content that framing promises; None when only its end will tell.
        For an answer to HEAD and for 304: what Content-Length said, and no content comes."""
        ...

    @property
    def source(self) -> str:
        """Who answered, for logs: an upstream's name or address."""
        ...

    async def read(self) -> bytes:
        """The next piece of content, b"" once at its end. Raises BodyCutShort or IdleTimeout.
        The peer is not read further while nobody reads here (back-pressure)."""
        ...

    def abort(self) -> None:
        """Gives the rest up and closes the connection; nothing to do after the end. Idempotent."""
        ...


def repeatable(request: UpstreamRequest) -> bool:
    """Whether `request` may be sent again: content is gone once it is read, and a proxy must not
    repeat what is not idempotent (RFC 9110 §9.2.2)."""
    return request.content is None and request.head.method in _IDEMPOTENT
