"""One request and its answer on a connection, until the answer's last byte is written."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from cdn.gateway.asked import Asked
from cdn.gateway.exchange import Answer, Exchange, Outcome
from cdn.gateway.plain import PlainMiss
from cdn.semantics.message import Fields, Response
from cdn.wire.field_block import FieldBlock
from cdn.wire.outbox import Given
from cdn.wire.request_content import RequestContent
from cdn.wire.request_head import RequestHead
from cdn.wire.response_head import Framing, encode_interim


class InterimSender:
    """Relays 1xx heads while it is open: until the final head, and never to HTTP/1.0 (RFC 9110
    §15.2). It knows nothing of its turn, so that a turn is no cycle and is freed at its end."""

    __slots__ = ("_write", "open")

    def __init__(self, write: Callable[[bytes], None], minor: int) -> None:
        self._write = write
        self.open = minor > 0

    def __call__(self, head: Response) -> None:
        if self.open:
            self._write(encode_interim(head))


class Turn:
    """`arrived` is wall time; `framing` is set once the final head is decided; `sent` counts bytes
    of the answer's content. `block` are the fields of a plain request, `miss` is what it began as;
    `asked` is set where that goes on."""

    __slots__ = (
        "answer",
        "asked",
        "block",
        "close",
        "content",
        "exchange",
        "expects_continue",
        "framing",
        "interim",
        "keep_alive",
        "miss",
        "sent",
        "task",
    )

    def __init__(
        self,
        head: RequestHead,
        content: RequestContent | None,
        client: str,
        arrived: float,
        write: Callable[[bytes], None],
        block: FieldBlock | None = None,
    ) -> None:
        self.content = content
        self.block = block
        self.keep_alive = head.keep_alive
        self.expects_continue = head.expects_continue
        self.answer: Answer | None = None
        self.framing: Framing | None = None
        self.close = False
        self.sent = 0
        self.task: asyncio.Task[None] | None = None
        self.asked: Asked | None = None
        self.miss: PlainMiss | None = None
        request = head.request
        self.interim = InterimSender(write, request.version[1])
        self.exchange = Exchange(
            request, client, arrived, content, head.content_length, self.interim
        )


class LateTurn(Turn):
    """One whose answer was `given` by a short way, and has not left whole at once; `read` gives the
    request's head. `become` makes it as any other, of whose answer nothing has left unless it has
    `begun` to."""

    __slots__ = ("_begun", "_read", "given")

    def __init__(self, given: Given, read: Callable[[], RequestHead], begun: bool) -> None:
        self.content = None
        self.block = None
        self.task = None
        self.miss = None
        self.given = given
        self._read = read
        self._begun = begun

    def become(self, write: Callable[[bytes], None], client: str) -> None:
        """From here on by the general path: its answer may break off."""
        served, _, viewer, arrived, ttl, _ = self.given
        super().__init__(self._read(), None, client, arrived, write)
        told = Fields((("Cache-Status", f"{served.member}{ttl}"),))
        outcome = Outcome(served.service, served.cache, source=served.source, client=viewer)
        size = served.content_bytes
        self.sent = size if self._begun else 0
        self.answer = Answer(Response(served.status, told), (), size, outcome)
        self.framing = Framing(size, False, True)


class PlainTurn(Turn):
    """One that is a plain miss: `become` makes it as any other."""

    __slots__ = ()

    def __init__(self, block: FieldBlock, miss: PlainMiss) -> None:
        self.content = None
        self.block = block
        self.task = None
        self.miss = miss

    def become(self, write: Callable[[bytes], None]) -> None:
        """From here on by the general path."""
        miss = self.miss
        assert miss is not None
        head = RequestHead(miss.request, None, False, True, False)
        super().__init__(head, None, miss.client, miss.arrived, write, self.block)
        self.miss = miss
