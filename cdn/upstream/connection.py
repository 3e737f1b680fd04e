"""One connection to an upstream: a Protocol that carries one exchange at a time.

Strategy: no Task but for a request's content. Whoever waits (for the head, for content) waits on a
future; one timer per connection, which is not cancelled but outlives its deadline and looks again,
watches for all of them. Anything but a clean end closes the connection: there is no way back from
doubt.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import cast

from cdn.semantics.hop_by_hop import end_to_end
from cdn.semantics.message import Response
from cdn.upstream.begun import Begun
from cdn.upstream.errors import (
    BodyCutShort,
    ClosedBeforeHead,
    FirstByteTimeout,
    IdleTimeout,
    MalformedResponse,
    RequestContentFailed,
    UpstreamError,
)
from cdn.upstream.exchange import (
    Deadlines,
    Endpoint,
    OnInterim,
    UpstreamRequest,
    UpstreamResponse,
)
from cdn.upstream.heads import read_plain_head
from cdn.upstream.http1 import (
    END_OF_HEAD,
    ChunkedContent,
    Framing,
    Malformed,
    ResponseHead,
    check_partial_head,
    content_framing,
    frame_content,
    may_persist,
    parse_head,
)
from cdn.upstream.response import PAUSE_AT, StreamedResponse, WholeResponse

_MAX_INTERIM = 32

RECEIVED = 256 * 1024
"""Bytes that are received at once, as much as either loop would."""

HELD = 64 * 1024
"""Bytes of content, as its head says, up to which one who waits for no head is told of all at
once."""

HELD_FOR = 0.05
"""Seconds for which that is put off: most content that follows its head in a write of its own is
here sooner, and what trickles is not to be kept from anybody."""


@dataclass(slots=True)
class UpstreamCounters:
    """Since the start. Bytes are those of HTTP: heads and framing, not TLS."""

    opened: int = 0
    reused: int = 0
    requests: int = 0
    bytes_in: int = 0
    bytes_out: int = 0


class Room:
    """Where what comes is received: shared by connections of one loop, for each has dealt with it
    when the next receives."""

    __slots__ = ("buffer", "view")

    def __init__(self) -> None:
        self.buffer = bytearray(RECEIVED)
        self.view = memoryview(self.buffer)


class Connection(asyncio.BufferedProtocol):
    """`on_idle` is called when it can carry another exchange, `on_lost` once it is gone."""

    def __init__(
        self,
        endpoint: Endpoint,
        counters: UpstreamCounters,
        loop: asyncio.AbstractEventLoop,
        room: Room,
        on_idle: Callable[[Connection], None],
        on_lost: Callable[[Connection], None],
    ) -> None:
        self.name = str(endpoint)
        self.loop = loop
        self.lost: asyncio.Future[None] = loop.create_future()
        self.answer_begun = False
        """Whether any byte of the current exchange's answer has come."""
        self._counters = counters
        self._room = room
        self._on_idle = on_idle
        self._on_lost = on_lost
        self._tls = endpoint.scheme == "https"
        self._tls_ended = False
        self._closing = False
        self._reading_paused = False
        self._deadline = math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf
        # The exchange under way.
        self._method = ""
        self._on_interim: OnInterim | None = None
        self._idle_seconds = 0.0
        self._head: asyncio.Future[UpstreamResponse] | Begun | None = None
        self._partial = b""
        self._held = 0
        self._interim = 0
        self._response: StreamedResponse | None = None
        self._persist = True
        self._left: int | None = None
        self._chunked: ChunkedContent | None = None
        # Sending the request's content.
        self._sending = False
        self._writing_paused = False
        self._writable: asyncio.Future[None] | None = None

    # -- the exchange

    async def exchange(
        self, head: bytes, request: UpstreamRequest, deadlines: Deadlines
    ) -> UpstreamResponse:
        """Sends `head` (already encoded) and the content; returns once the final head has come."""
        if not self.usable():  # closed between connecting and now
            raise ClosedBeforeHead(self.name, "closed before it was asked")
        waiter: asyncio.Future[UpstreamResponse] = self.loop.create_future()
        self._ask(head, request.head.method, request.on_interim, deadlines, waiter)
        sender = None
        if request.content is None:
            self.watch(deadlines.first_byte)
        else:
            self._sending = True
            sender = self.loop.create_task(
                self._send_content(request.content, request.content_length, deadlines, waiter)
            )
        try:
            try:
                return await waiter
            finally:
                # An early answer ends the sending (RFC 9112 §9.5). Wait for that: the iterator
                # is the caller's again from here on.
                if sender is not None and sender.cancel():
                    await asyncio.wait((sender,))
        except asyncio.CancelledError:
            if waiter.cancelled():
                self.close()
            elif waiter.exception() is None:
                waiter.result().abort()
            raise

    def begin(self, head: bytes, method: str, deadlines: Deadlines, begun: Begun) -> None:
        """Sends `head`, which is all of a request without content; `begun` is told what comes of
        it. The connection is usable."""
        begun.connection = self
        self._ask(head, method, begun.interim, deadlines, begun)
        self.watch(deadlines.first_byte)

    def _ask(
        self,
        head: bytes,
        method: str,
        on_interim: OnInterim | None,
        deadlines: Deadlines,
        waiter: asyncio.Future[UpstreamResponse] | Begun,
    ) -> None:
        self.answer_begun = False
        self._method = method
        self._on_interim = on_interim
        self._idle_seconds = deadlines.idle
        self._interim = 0
        self._partial, self._held = b"", 0
        self._head = waiter
        counters = self._counters
        counters.requests += 1
        counters.bytes_out += len(head)
        self._transport.write(head)

    def usable(self) -> bool:
        return not self._closing and not self._transport.is_closing()

    def close(self) -> None:
        """Closes at once; whoever waits is told by `connection_lost`. Idempotent."""
        self._closing = True
        self._transport.abort()

    def _fail(self, error: UpstreamError) -> None:
        waiter, response = self._head, self._response
        self._head = self._response = None
        self.close()
        if waiter is not None and not waiter.done():
            waiter.set_exception(error)
        if response is not None:
            response.finish(error)

    # -- the deadline

    def watch(self, seconds: float) -> None:
        """From now on somebody waits for the peer, for `seconds` at most."""
        deadline = self._deadline = self.loop.time() + seconds
        if deadline < self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._arm(deadline)

    def unwatch(self) -> None:
        self._deadline = math.inf

    def _arm(self, deadline: float) -> None:
        self._timer_at = deadline
        self._timer = self.loop.call_at(deadline, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._timer_at = math.inf
        deadline = self._deadline
        if deadline > self.loop.time():
            if deadline != math.inf:
                self._arm(deadline)
        elif self._held:
            self._release()
        elif self._response is not None:
            detail = f"no content for {self._idle_seconds:g} s"
            self._fail(IdleTimeout(self.name, detail))
        elif self._sending:
            self._fail(FirstByteTimeout(self.name, "takes no more of the request's content"))
        else:
            self._fail(FirstByteTimeout(self.name, "no response head within the deadline"))

    # -- sending

    def _write(self, data: bytes) -> None:
        self._counters.bytes_out += len(data)
        self._transport.write(data)

    async def _send_content(
        self,
        content: AsyncIterator[bytes],
        length: int | None,
        deadlines: Deadlines,
        waiter: asyncio.Future[UpstreamResponse],
    ) -> None:
        try:
            async for data in frame_content(content, length):
                if self._head is not waiter or self._closing:
                    return
                self._write(data)
                if self._writing_paused:
                    await self._drain(deadlines.first_byte)
        except Exception as error:  # whatever the client's side raises is the client's
            if self._head is waiter:
                detail = f"the request's content ended early: {error!r}"
                self._fail(RequestContentFailed(self.name, detail))
        else:
            if self._head is waiter:
                self._sending = False
                self.watch(deadlines.first_byte)

    async def _drain(self, seconds: float) -> None:
        # A peer that stops taking content is as silent as one that does not answer.
        self.watch(seconds)
        self._writable = self.loop.create_future()
        try:
            await self._writable
        finally:
            self._writable = None
        if self._response is None:
            self.unwatch()

    def pause_writing(self) -> None:
        self._writing_paused = True

    def resume_writing(self) -> None:
        self._writing_paused = False
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    # -- receiving

    def resume_reading(self) -> None:
        if self._reading_paused:
            self._reading_paused = False
            self._transport.resume_reading()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._room.view

    def buffer_updated(self, nbytes: int) -> None:
        self._counters.bytes_in += nbytes
        try:
            if self._response is not None:
                self._content_received(self._response, bytes(self._room.view[:nbytes]))
            elif self._head is not None and not self._head.cancelled():
                self.answer_begun = True
                self._head_received(self._head, nbytes)
            else:
                self.close()  # nobody asked: it must not become the next answer
        except Malformed as error:
            if self._response is None:
                self._fail(MalformedResponse(self.name, str(error)))
            else:
                self._fail(BodyCutShort(self.name, str(error)))

    def _head_received(self, waiter: asyncio.Future[UpstreamResponse] | Begun, nbytes: int) -> None:
        room = self._room
        data: bytes | bytearray = room.buffer
        view = room.view
        if self._partial:
            data, self._partial = self._partial + view[:nbytes], b""
            view, nbytes = memoryview(data), len(data)
            if self._held > nbytes:
                self._partial = data
                return
        plain = self._method == "GET" and not self._sending
        if not (plain and self._came_whole(waiter, data, view, nbytes)):
            self._heads_received(waiter, bytes(view[:nbytes]))

    def _heads_received(
        self, waiter: asyncio.Future[UpstreamResponse] | Begun, data: bytes
    ) -> None:
        self._held = 0
        while True:
            end = data.find(END_OF_HEAD)
            if end < 0:
                check_partial_head(data)
                self._partial = data
                return
            head = parse_head(data, end)
            data = data[end + 4 :]
            if head.status >= 200:
                break
            self._interim_received(head)
            if not data:
                return
        self._begin_response(waiter, head, data)

    def _came_whole(
        self,
        waiter: asyncio.Future[UpstreamResponse] | Begun,
        data: bytes | bytearray,
        view: memoryview,
        nbytes: int,
    ) -> bool:
        """Takes what is one ordinary answer, with nothing missing and nothing over, as the first
        `nbytes` of `data`, which is seen through `view`; or holds what will soon be one."""
        end = data.find(END_OF_HEAD, 0, nbytes)
        plain = None if end < 0 else read_plain_head(bytes(view[:end]))
        if plain is None or not plain.length:
            return False
        size = end + 4 + plain.length
        if nbytes != size:
            if self._held or nbytes > size:
                return False
            return self._hold(waiter, bytes(view[:nbytes]), size)
        self._held = 0
        self._head = self._on_interim = None
        self._deadline = math.inf
        if self.usable():
            self._on_idle(self)
        # The one copy of content: just as long as it is, for it is to be stored.
        waiter.set_result(WholeResponse(plain, bytes(view[end + 4 : size]), self.name))
        return True

    def _hold(
        self, waiter: asyncio.Future[UpstreamResponse] | Begun, data: bytes, size: int
    ) -> bool:
        if not isinstance(waiter, Begun) or waiter.taken or size > HELD:
            return False
        self._partial, self._held = data, size
        self.watch(HELD_FOR)
        return True

    def _release(self) -> None:
        """What was held goes on as what it is, a head and some of its content."""
        waiter, data = self._head, self._partial
        self._partial, self._held = b"", 0
        assert waiter is not None
        end = data.index(END_OF_HEAD)
        self._begin_response(waiter, parse_head(data, end), data[end + 4 :])

    def _interim_received(self, head: ResponseHead) -> None:
        self._interim += 1
        if head.status == 101:
            raise Malformed("101 without having been asked to switch")  # RFC 9110 §15.2.2
        if self._interim > _MAX_INTERIM:
            raise Malformed(f"more than {_MAX_INTERIM} interim responses")
        if head.status != 100 and self._on_interim is not None:
            self._on_interim(Response(head.status, end_to_end(head.fields), head.reason))

    def _begin_response(
        self,
        waiter: asyncio.Future[UpstreamResponse] | Begun,
        head: ResponseHead,
        data: bytes,
    ) -> None:
        framing, length = content_framing(self._method, head)
        self._persist = may_persist(head) and framing is not Framing.UNTIL_CLOSE
        self._left = length if framing is Framing.LENGTH else None
        self._chunked = ChunkedContent() if framing is Framing.CHUNKED else None
        self.unwatch()
        response = StreamedResponse(
            Response(head.status, end_to_end(head.fields), head.reason),
            length,
            self,
            self._idle_seconds,
        )
        self._head = self._on_interim = None
        self._response = response
        waiter.set_result(response)
        if framing is Framing.NONE or self._left == 0:
            self._message_ended(surplus=bool(data))
        elif data:
            self._content_received(response, data)

    def _content_received(self, response: StreamedResponse, data: bytes) -> None:
        ended = surplus = False
        if self._left is not None:
            surplus = len(data) > self._left
            if surplus:
                data = data[: self._left]
            self._left -= len(data)
            ended = self._left == 0
        elif self._chunked is not None:
            data, ended, surplus = self._chunked.feed(data)
        if data:
            response.feed(data)
        if ended:
            self._message_ended(surplus=surplus)
        elif response.buffered >= PAUSE_AT and not self._reading_paused:
            self._reading_paused = True
            self._transport.pause_reading()

    def _message_ended(self, *, surplus: bool) -> None:
        response = self._response
        assert response is not None
        self._response = self._chunked = None
        self.unwatch()
        response.finish(None)
        # RFC 9112 §9.3: another exchange only after both messages have ended, with nothing over.
        if self._persist and not surplus and not self._sending and self.usable():
            self._on_idle(self)
        else:
            self.close()

    def eof_received(self) -> None:
        # uvloop calls this for a close_notify, not where a TLS connection was just cut.
        self._tls_ended = True

    def connection_lost(self, exc: Exception | None) -> None:
        cut = exc is not None or self._closing or (self._tls and not self._tls_ended)
        self._closing = True
        if self._timer is not None:
            self._timer.cancel()
        self.resume_writing()
        if self._held and self._head is not None:
            self._release()
        waiter, response = self._head, self._response
        self._head = self._response = None
        how = f"closed ({exc})" if exc is not None else "closed"
        if waiter is not None and not waiter.done():
            waiter.set_exception(ClosedBeforeHead(self.name, f"{how} before a whole response head"))
        if response is not None:
            # RFC 9112 §8: only content read until close ends so, and over TLS only by
            # close_notify (§9.8).
            whole = not cut and self._left is None and self._chunked is None
            error = None if whole else BodyCutShort(self.name, f"{how} before the content's end")
            response.finish(error)
        self.lost.set_result(None)
        self._on_lost(self)
