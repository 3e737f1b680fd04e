"""One request and its answer on a connection, until the answer's last byte is written."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from cdn.gateway.exchange import Answer, Exchange
from cdn.semantics.message import Response
from cdn.wire.request_content import RequestContent
from cdn.wire.request_head import RequestHead
from cdn.wire.response_head import Framing, encode_interim


class Turn:
    """`arrived` is wall time, `started` the loop's; `framing` is set once the final head is
    decided; `sent` counts bytes of the answer's content."""

    __slots__ = (
        "_write_interim",
        "answer",
        "close",
        "content",
        "exchange",
        "expects_continue",
        "framing",
        "keep_alive",
        "sent",
        "started",
        "task",
    )

    def __init__(
        self,
        head: RequestHead,
        content: RequestContent | None,
        client: str,
        arrived: float,
        started: float,
        write_interim: Callable[[Turn, bytes], None],
    ) -> None:
        self.content = content
        self.keep_alive = head.keep_alive
        self.expects_continue = head.expects_continue
        self.answer: Answer | None = None
        self.framing: Framing | None = None
        self.close = False
        self.sent = 0
        self.started = started
        self.task: asyncio.Task[None] | None = None
        self._write_interim = write_interim
        self.exchange = Exchange(
            head.request, client, arrived, content, head.content_length, self.send_interim
        )

    def send_interim(self, head: Response) -> None:
        """RFC 9110 §15.2: before the final head only, and never to HTTP/1.0."""
        if self.framing is None and self.exchange.request.version[1]:
            self._write_interim(self, encode_interim(head))
