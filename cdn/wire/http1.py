"""HTTP/1.1 for viewers (RFC 9112): one asyncio.Protocol per connection.

Strategy: a connection owns its bytes. It finds the end of a head itself, has it judged whole
(`request_head`), and works at one request at a time; what a client pipelines waits as bytes, and
past a few of them the connection is read no further. An answer that is at hand leaves in the same
call that brought the request, with one write, or out of files (`sendfile`), and no Task; any other
runs in one Task, which is cancelled when the client goes. One lazy timer per connection watches all
its deadlines.

A client that half-closes is taken for gone, since nothing tells it from one that closed: what was
written still reaches it, an answer under way is given up.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Sequence
from typing import cast

from cdn.gateway.exchange import Answer, ContentCutShort, Outcome
from cdn.gateway.plain import PlainMiss
from cdn.observe.hits import Said, Served
from cdn.semantics.message import Fields, Request, Response
from cdn.semantics.reuse import Fwd
from cdn.storage.store import FileSpan, Piece
from cdn.wire.errors import RequestError
from cdn.wire.fastpath import Late
from cdn.wire.field_block import LONGEST_REQUEST_LINE, REQUEST_LINE, FieldBlock, read_head
from cdn.wire.next_part import NextPart
from cdn.wire.request_content import RequestContent
from cdn.wire.request_head import RequestHead, check_partial, parse_head
from cdn.wire.response_head import Framing, choose_framing, encode_head, encode_interim
from cdn.wire.rim import Rim
from cdn.wire.sendfile import FileSender
from cdn.wire.turn import PlainTurn, Turn

JOINED = 64 * 1024
"""Ready content up to this many bytes is copied to leave in one piece with its head."""

PIECE = 128 * 1024
"""No single write is longer than this many bytes, so that a slow client's progress shows."""

QUEUED = 16 * 1024
"""Bytes of pipelined requests that may wait behind the one being answered."""

UNSENT = 128 * 1024
"""Bytes that the transport may hold, and that the kernel may hold unsent, before we pause."""

LINGER_BYTES = 256 * 1024
"""What is still read from a client that was refused, so that it can read why (RFC 9112 §9.6)."""

LAST = 2048
"""Bytes of a head that is kept, to be known again; more would be felt by idle connections."""

NOBODY = Said("", "")

_CLIENT_GONE = Response(499, Fields(()))
_READY = (tuple, list)


class Http1Connection(asyncio.Protocol):
    """One client's connection. `rim` is what it shares with the others of its server."""

    def __init__(self, rim: Rim) -> None:
        self.rim = rim
        self.loop = asyncio.get_running_loop()
        self.client = ""
        self.transport: asyncio.Transport
        self._buffer: bytes | bytearray = b""
        self._start = 0
        self._scanned = 0
        self._turn: Turn | None = None
        self._content: RequestContent | None = None
        self._closing = False
        self._lingered = 0
        self._reading = True
        self._room: asyncio.Future[None] | None = None
        self._written = False
        self._files: FileSender | None = None
        self.asked = b""
        self._last = b""
        self._said = NOBODY
        self._next_part: NextPart | None = None
        self._tls = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._quiet_since = 0.0
        self._head_since: float | None = None
        self._unsent = 0
        self._unsent_since = 0.0

    # -- what the transport tells ------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are asyncio's in shape, not by class.
        self.transport = transport = cast(asyncio.Transport, transport)
        self._tls = transport.get_extra_info("ssl_object") is not None
        # Where it holds anything we are paused: so files are sent only while it is empty.
        transport.set_write_buffer_limits(high=UNSENT if self._tls else 0)
        peer = transport.get_extra_info("peername")
        self.client = peer[0] if isinstance(peer, tuple) else "unix"
        counters = self.rim.counters
        counters.connections_open += 1
        counters.connections_total += 1
        self.rim.connections.add(self)
        self.rim.emptied.clear()
        self._quiet_since = self.loop.time()
        self._arm(self._quiet_since + self.rim.deadlines.idle)

    def data_received(self, data: bytes) -> None:
        if (
            self._turn is None
            and self._content is None
            and self._room is None
            and not self._closing
            and self._start == len(self._buffer)
            and self._serve_one(data)
        ):
            return
        if self._closing:
            self._lingered += len(data)
            if self._lingered > LINGER_BYTES:
                self.transport.close()
            return
        if self._content is not None:
            self._quiet_since = self.loop.time()
            data = self._take_content(data)
        if self._start < len(self._buffer):
            # An own growing copy only here: most reads are one whole head.
            if self._start or isinstance(self._buffer, bytes):
                self._buffer = bytearray(self._buffer[self._start :])
                self._scanned -= self._start
                self._start = 0
            self._buffer += data
        else:
            self._buffer, self._start, self._scanned = data, 0, 0
        self._serve()

    def eof_received(self) -> bool:
        if self._turn is not None:
            self._lose()
        else:
            self._close()
        return self._sends_files

    def connection_lost(self, exc: Exception | None) -> None:
        self.rim.counters.connections_open -= 1
        self.rim.connections.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        self._abandon()
        if self._files is not None:
            self._files.close()
        if not self.rim.connections:
            self.rim.emptied.set()

    def pause_writing(self) -> None:
        self._room = self.loop.create_future()
        self._unsent = 0
        self._arm(self.loop.time() + self.rim.deadlines.stall / 4)

    def resume_writing(self) -> None:
        room, self._room = self._room, None
        if room is not None and not room.done():
            room.set_result(None)
        if self._written and self._turn is not None:
            self._end(self._turn, True)
        self._serve()

    # -- what the server tells ---------------------------------------------------------------

    def close_if_idle(self) -> None:
        """Draining: nothing of a request is here, so nothing is lost."""
        if self._turn is None and self._content is None and self._start == len(self._buffer):
            self._close()

    def abort(self) -> None:
        """Draining is over."""
        self._lose()

    # -- requests ----------------------------------------------------------------------------

    def _serve_one(self, data: bytes) -> bool:
        """Begins the request that `data` is; False where it is more or less than one, or none."""
        memory = self.rim.memory
        if memory is None:
            return False
        if (data == self._last or self._next_part is not None) and self._answer_named(data):
            return True
        end = data.find(b"\r\n")
        fields = data[end + 2 :]
        # What is remembered ends where a head does.
        block = memory.blocks.get(fields)
        if block is None:
            if fields.find(b"\r\n\r\n") != len(fields) - 4:
                return False
            own = memory.own(fields)
            if own is not None and self._answer_again(*own, data, end):
                memory.blocks.see(fields)
                return True
            block = memory.block(fields)
        if block is None:
            return False
        answered = self._answer_again(block, block.said, data, end)
        if not answered and not self._ask_plainly(block, data, end):
            self._buffer = data
            self._start = self._scanned = len(data)
            try:
                head = read_head(data, end, block, self.rim.scheme)
            except RequestError as fault:
                self._refuse(fault)
            else:
                self._begin(head, block)
            self._govern_reading()
        return True

    def _serve(self) -> None:
        """Begins every request that can be begun now, in order."""
        while not (self._turn or self._content or self._room or self._closing):
            try:
                raw = self._next_head()
                if raw is None:
                    break
                if self.rim.memory is None:
                    head, block = parse_head(raw, self.rim.scheme), None
                else:
                    end = raw.find(b"\r\n")
                    block = self.rim.memory.block(raw[end + 2 :])
                    if block is not None and self._answer_again(block, block.said, raw, end):
                        continue
                    head = read_head(raw, end, block, self.rim.scheme)
            except RequestError as fault:
                self._refuse(fault)
                break
            self._begin(head, block)
        self._govern_reading()

    def _next_head(self) -> bytes | None:
        """The next whole head, None until there is one. Raises RequestError."""
        buffer, start = self._buffer, self._start
        if buffer[start : start + 2] == b"\r\n":
            start += 2  # RFC 9112 §2.2: one empty line before a request is ignored
        end = buffer.find(b"\r\n\r\n", max(start, self._scanned - 3))
        if end >= 0:
            self._head_since = None
            self._start = self._scanned = end + 4
            if start == 0 and self._start == len(buffer) and isinstance(buffer, bytes):
                return buffer
            return bytes(buffer[start : end + 4])
        if start < len(buffer):
            check_partial(buffer, start, max(start, self._scanned - 1))
            self._scanned = len(buffer)
        if self._start < len(buffer) and self._head_since is None:
            self._head_since = self.loop.time()
            self._arm(self._head_since + self.rim.deadlines.head)
        return None

    def _answer_again(self, block: FieldBlock, said: Said, head: bytes, end: int) -> bool:
        """Answers a request, whose line ends at `end`, as one before it; False if that is not at
        hand. `said` is what its client says of itself."""
        rim = self.rim
        fast = rim.fast
        if fast is None or not block.repeatable:
            return False
        given = fast.answer(head, end, block, said, rim.scheme, self)
        if given is False:
            return False
        # A client that polls, seeks, or fetches piece by piece asks the same again, but for a part.
        self._last, self._said = head if len(head) <= LAST else b"", said
        self._next_part = NextPart.following(head, end) if block.part is not None else None
        if given is not True:
            self._see_off(given, read_head(head, end, block, rim.scheme))
        self._quiet_since = self.loop.time()
        return True

    def _answer_named(self, head: bytes) -> bool:
        """The same of a request that is the last again, or asks for the next part of it."""
        rim, wanted = self.rim, None
        if self._next_part is not None:
            wanted = self._next_part.wanted(head)
            if wanted is None:
                return False
        assert rim.fast is not None
        given = rim.fast.answer_named(self.asked, wanted, self._said, rim.scheme, self)
        if given is False:
            return False
        if given is not True:
            self._see_off(given, parse_head(head, rim.scheme))
        self._quiet_since = self.loop.time()
        return True

    def _see_off(self, late: Late, head: RequestHead) -> None:
        """The rest of a part is waited for like that of any answer: then it is told whether all
        has left."""
        self.rim.counters.requests += 1
        write, served = self.transport.write, late.served
        turn = self._turn = Turn(head, None, self.client, late.arrived, write)
        told = Fields((("Cache-Status", f"{served.member}{late.ttl}"),))
        outcome = Outcome(served.service, served.cache, client=late.client)
        size = turn.sent = served.content_bytes
        turn.answer = Answer(Response(served.status, told), (), size, outcome)
        turn.framing = Framing(size, False, True)
        self._written = True

    def _send(self, head: bytes, rest: bytes) -> None:
        if rest:
            self.transport.writelines((head, rest))
        else:
            self.transport.write(head)

    # -- plain misses (`gateway.plain.Asker`) ------------------------------------------------

    def _ask_plainly(self, block: FieldBlock, head: bytes, end: int) -> bool:
        """Sends a request, whose line ends at `end`, upstream at once; False if it takes more."""
        misses = self.rim.misses
        if misses is None or not block.repeatable or block.narrowing or block.part or block.claims:
            return False
        line = REQUEST_LINE.fullmatch(head, 0, end) if end <= LONGEST_REQUEST_LINE else None
        if line is None or line[1] != b"GET":
            return False
        scheme = self.rim.scheme
        form = block.forms.get(scheme)
        if form is None or form.services is not misses.gateway.services:
            request = Request("GET", scheme, block.origins.authorities[scheme], "/", block.fields)
            form = block.forms[scheme] = misses.form(request)
        miss = misses.begin(self, form, line[2], self.client)
        if miss is None:
            return False
        self._turn = PlainTurn(block, miss)
        return True

    @property
    def draining(self) -> bool:
        """See `Asker.draining`."""
        return self.rim.draining

    def answered(self, miss: PlainMiss, lines: bytes, content: bytes, cache_status: str) -> None:
        """See `Asker.answered`."""
        turn, self._turn = self._turn, None
        assert turn is not None
        assert turn.block is not None
        rim, size = self.rim, len(content)
        self._send(b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n" % (lines, size), content)
        self._quiet_since = self.loop.time()
        like, target = miss.form.request, miss.target.decode("ascii")
        served = Served(
            "GET", like.scheme, like.authority, target, 200, size, cache_status,
            miss.form.service.name, None, Fwd.URI_MISS, miss.name,
        )  # fmt: skip
        ended = rim.clock()
        assert rim.fast is not None
        rim.fast.note(served, turn.block.said, self.client, ended, max(0.0, ended - miss.arrived))
        if self._start < len(self._buffer):
            self._serve()

    def takes_longer(self, miss: PlainMiss) -> None:
        """See `Asker.takes_longer`."""
        turn = self._turn
        assert isinstance(turn, PlainTurn)
        self.rim.counters.requests += 1
        turn.become(self.transport.write)
        turn.asked = miss.seated(turn.exchange)
        turn.task = self.loop.create_task(self._respond(turn))

    def broke(self, miss: PlainMiss, error: Exception) -> None:
        """See `Asker.broke`."""
        turn = self._turn
        assert isinstance(turn, PlainTurn)
        self.rim.counters.requests += 1
        turn.become(self.transport.write)
        self._report_bug(turn, error)
        turn.answer = self.rim.errors.internal()
        self._send_at_once(turn, turn.answer)
        self._serve()

    def interim(self, head: Response) -> None:
        """See `Asker.interim`."""
        self.transport.write(encode_interim(head))

    # -- all others --------------------------------------------------------------------------

    def _begin(self, head: RequestHead, block: FieldBlock | None = None) -> None:
        self.rim.counters.requests += 1
        if head.chunked or head.content_length:
            self._content = RequestContent(head.content_length, self.client, self._content_wanted)
        arrived = self.rim.clock()
        write = self.transport.write
        turn = self._turn = Turn(head, self._content, self.client, arrived, write, block)
        if self._content is not None:
            data = bytes(self._buffer[self._start :])
            self._buffer, self._start, self._scanned = self._take_content(data), 0, 0
        try:
            answer = self.rim.handler.answer_now(turn.exchange)
        except Exception as error:
            self._report_bug(turn, error)
            answer = self.rim.errors.internal()
        turn.answer = answer
        if answer is None or not self._send_at_once(turn, answer):
            turn.task = self.loop.create_task(self._respond(turn))

    def _report_bug(self, turn: Turn, error: Exception) -> None:
        kind = type(error).__name__
        self.rim.report(f"bug: the handler broke on {turn.exchange.request.url}: {kind}: {error}")

    def _refuse(self, fault: RequestError) -> None:
        """Answers for the gateway: the head is no request. Nothing after it is believed."""
        self.rim.counters.protocol_errors[fault.reason] += 1
        answer = self.rim.errors.refusal(fault)
        assert isinstance(answer.content, Sequence)
        content = answer.content[0]
        assert isinstance(content, bytes)
        framing = choose_framing(answer, len(content), "GET", 1)
        self.transport.write(encode_head(answer.head, framing, "close") + content)
        began = self._head_since
        seconds = 0.0 if began is None else self.loop.time() - began
        self._linger()
        answer.outcome.client = self.client
        if self.rim.fast is not None:
            self.rim.fast.settle()
        self.rim.on_finished(None, answer.head, answer.outcome, len(content), seconds, True)

    # -- request content ---------------------------------------------------------------------

    def _take_content(self, data: bytes) -> bytes:
        """Hands content on; returns what follows it."""
        content = self._content
        assert content is not None
        if content.failed:
            return b""
        try:
            rest = content.feed(data)
        except RequestError as fault:
            self.rim.counters.protocol_errors[fault.reason] += 1
            rest = b""  # the reader was told; nothing after this is believed
            if self._turn is None:
                self._linger()
        if content.complete:
            self._content = None
        elif self._turn is None and not content.worth_discarding:
            self._linger()
        return rest

    def _content_wanted(self) -> None:
        """The handler reads: the client may send (RFC 9110 §10.1.1), and we may read on."""
        turn = self._turn
        if turn is None or self._content is None:
            return
        if turn.expects_continue and turn.framing is None:
            turn.expects_continue = False
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._quiet_since = self.loop.time()
        self._arm(self._quiet_since + self.rim.deadlines.stall)
        self._govern_reading()

    def _govern_reading(self) -> None:
        """Back-pressure towards the client: reads only what there is a place for."""
        if self._closing:
            wanted = True
        elif self._content is not None:
            wanted = not self._content.full
        elif self._turn is not None or self._room is not None:
            wanted = len(self._buffer) - self._start <= QUEUED
        else:
            wanted = True
        if wanted is not self._reading and not self.transport.is_closing():
            self._reading = wanted
            if wanted:
                self.transport.resume_reading()
            else:
                self.transport.pause_reading()

    # -- answers -----------------------------------------------------------------------------

    def _frame(self, turn: Turn, answer: Answer, ready: int | None) -> tuple[bytes, Framing]:
        """Decides framing and what becomes of the connection; returns the head's bytes."""
        turn.interim.open = False
        request = turn.exchange.request
        minor = request.version[1]
        framing = turn.framing = choose_framing(answer, ready, request.method, minor)
        unread = self._content
        turn.close = (
            answer.close
            or not turn.keep_alive
            or self.rim.draining
            or framing.until_close
            or (unread is not None and (turn.expects_continue or not unread.worth_discarding))
        )
        connection = "close" if turn.close else None if minor else "keep-alive"
        return encode_head(answer.head, framing, connection), framing

    def _send_at_once(self, turn: Turn, answer: Answer) -> bool:
        """Sends all of a ready answer; False if it takes more than that. What the client does not
        take at once is by reference, and the answer ends with it."""
        content = answer.content
        if not isinstance(content, _READY):
            return False
        size = sum(map(len, content))
        if size > JOINED and self._tls:
            return False
        head, framing = self._frame(turn, answer, size)
        if not framing.has_content:
            self.transport.write(head)
        elif size == framing.length:
            turn.sent = size
            self.send_apart(head, content, size)
        else:
            self.rim.report(f"bug: {turn.exchange.request.url}: {size} bytes for {framing.length}")
            self._end(turn, False)
            return True
        if answer.repeatable is not None:
            self._keep(turn, answer, head)
        if self._room is None or self._tls:
            self._end(turn, True)
        else:
            self._written = True
        return True

    def send_apart(self, head: bytes, pieces: Sequence[Piece], size: int) -> bool:
        """Head and content, `size` bytes. What the client does not take yet waits, and `_room` says
        so. False: something waits (over TLS that is not looked at)."""
        if not self._tls and len(pieces) == 1 and isinstance(span := pieces[0], FileSpan):
            if not (self._files or self._open_files()).send_one(head, span):
                self.pause_writing()
        elif not any(isinstance(piece, FileSpan) for piece in pieces):
            if size <= JOINED:
                self.transport.write(b"".join((head, *_bytes(pieces))))
            else:
                self.transport.writelines((head, *_bytes(pieces)))
        elif self._tls:
            self.transport.write(b"".join((head, *_bytes(pieces))))
        else:
            self._send_files((head, *pieces), len(head) + size)
        return self._room is None or self._tls

    def _send_files(self, pieces: Sequence[Piece], size: int) -> None:
        if not (self._files or self._open_files()).send(pieces, size):
            self.pause_writing()

    def _open_files(self) -> FileSender:
        fd = self.transport.get_extra_info("socket").fileno()
        files = self._files = FileSender(fd, self.loop, UNSENT, self._files_ended)
        return files

    def _files_ended(self, error: Exception | None) -> None:
        if error is not None:
            self._lose()
            return
        self.resume_writing()
        if self._closing:
            self._close()

    @property
    def _sends_files(self) -> bool:
        return self._files is not None and self._files.left > 0

    def _keep(self, turn: Turn, answer: Answer, head: bytes) -> None:
        """Has an answer given again, where it is one to any connection."""
        fast, block = self.rim.fast, turn.block
        # After waiting, what is stored may be another already.
        if fast is not None and block is not None and turn.task is None and not turn.close:
            fast.hot.take(block, turn.exchange.request, self.client, answer, head)

    async def _respond(self, turn: Turn) -> None:
        """The Task of an answer that is not at hand, or not small."""
        complete = False
        try:
            if turn.miss is not None and turn.asked is not None:
                turn.answer = await turn.miss.answer(turn.asked)
            elif turn.answer is None:
                turn.answer = await self.rim.handler.answer(turn.exchange)
            if self._room is not None:
                await self._room  # of interim responses
            if self._send_at_once(turn, turn.answer):
                self._serve()
                return
            await self._send_piecewise(turn, turn.answer)
            complete = True
        except ContentCutShort:
            pass  # whoever cut it has told why
        except asyncio.CancelledError:
            self._end(turn, False)
            turn.task = None  # which keeps this error, and with it this frame
            raise
        except Exception as error:
            self._report_bug(turn, error)
            if turn.framing is None:
                self._give_up(turn)
                turn.answer = self.rim.errors.internal()
                self._send_at_once(turn, turn.answer)
        self._end(turn, complete)
        self._serve()

    async def _send_piecewise(self, turn: Turn, answer: Answer) -> None:
        """Head, then content as fast as the client takes it. Raises ContentCutShort."""
        content = answer.content
        ready = sum(map(len, content)) if isinstance(content, Sequence) else None
        head, framing = self._frame(turn, answer, ready)
        self.transport.write(head)
        if not framing.has_content:
            self._give_up(turn)
            return
        if self._room is not None:
            await self._room
        if isinstance(content, Sequence):
            for piece in content:
                await self._send_piece(turn, framing, piece)
        else:
            while piece := await content.read():
                await self._send_piece(turn, framing, piece)
        if framing.length is not None and turn.sent != framing.length:
            raise ContentCutShort(f"{turn.sent} bytes of content where {framing.length} were due")
        if framing.chunked:
            self.transport.write(b"0\r\n\r\n")

    async def _send_piece(self, turn: Turn, framing: Framing, piece: Piece) -> None:
        if framing.length is not None and turn.sent + len(piece) > framing.length:
            raise ContentCutShort(f"more content than the {framing.length} bytes that were due")
        if isinstance(piece, FileSpan):
            if not framing.chunked and not self._tls:
                turn.sent += len(piece)
                self._send_files((piece,), len(piece))
                if self._room is not None:
                    await self._room
                return
            piece = piece.read()
        view = memoryview(piece) if len(piece) > PIECE else piece
        for begin in range(0, len(piece), PIECE):
            part = view if view is piece else view[begin : begin + PIECE]
            if framing.chunked:
                self.transport.writelines((b"%x\r\n" % len(part), part, b"\r\n"))
            else:
                self.transport.write(part)
            turn.sent += len(part)
            if self._room is not None:
                await self._room

    # -- the end of an answer, and of the connection -----------------------------------------

    def _end(self, turn: Turn, complete: bool) -> None:
        """The answer is written, or will never be. Once per turn."""
        if turn is not self._turn:
            return
        self._turn = None
        self._written = False
        turn.interim.open = False
        self._quiet_since = now = self.loop.time()
        if not complete:
            turn.sent = max(0, turn.sent - self._waiting)
            self._give_up(turn)
            self._break(turn)
        elif (
            turn.close or self.rim.draining or (self._content is not None and self._content.failed)
        ):
            if self._content is None and self._start == len(self._buffer):
                self._close()
            else:
                self._linger()
        elif self._content is not None:
            self._content.discard()
            self._arm(now + self.rim.deadlines.head)
        answer = turn.answer
        head, outcome = (answer.head, answer.outcome) if answer else (_CLIENT_GONE, Outcome())
        # Not the loop's time, which stands still between two turns of the loop.
        seconds = max(0.0, self.rim.clock() - turn.exchange.arrived)
        if self.rim.fast is not None:
            self.rim.fast.settle()  # records come in the order of the answers
        self.rim.on_finished(turn.exchange, head, outcome, turn.sent, seconds, complete)

    def _abandon(self) -> None:
        """The client is gone."""
        turn = self._turn
        if turn is not None:
            if turn.content is not None and not turn.content.complete:
                turn.content.fail("the client closed its connection before the content's end")
            if turn.miss is not None:
                turn.miss.leave()
            if turn.task is not None:
                turn.task.cancel()
            elif isinstance(turn, PlainTurn):
                self.rim.counters.requests += 1
                turn.become(self.transport.write)
            self._end(turn, False)
        self._closing = True

    def _lose(self) -> None:
        self._abandon()
        self.transport.abort()

    def _give_up(self, turn: Turn) -> None:
        if turn.answer is not None and not isinstance(turn.answer.content, Sequence):
            turn.answer.content.abort()

    def _break(self, turn: Turn | None = None) -> None:
        """Never a clean end: the client must see that its answer is not whole (RFC 9112 §8)."""
        self._closing = True
        cut = turn is not None and turn.framing is not None and turn.framing.until_close
        if cut and not self.transport.is_closing():
            # Here a FIN would be the content's end: only a reset tells (RFC 9112 §9.8).
            sock = self.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def _close(self) -> None:
        self._closing = True
        if not self._sends_files:
            self.transport.close()
        self._arm(self.loop.time() + self.rim.deadlines.stall)

    def _linger(self) -> None:
        """RFC 9112 §9.6: closing with bytes unread would reset, and take our answer with it."""
        if self.transport.is_closing() or not self.transport.can_write_eof():
            self._close()
            return
        self._closing = True
        self.transport.write_eof()
        self._quiet_since = self.loop.time()
        self._arm(self._quiet_since + self.rim.deadlines.linger)
        self._govern_reading()

    @property
    def _waiting(self) -> int:
        """Bytes that the kernel has not taken."""
        left = 0 if self._files is None else self._files.left
        return self.transport.get_write_buffer_size() + left

    # -- deadlines ---------------------------------------------------------------------------

    def _arm(self, when: float) -> None:
        """At `when` (loop time), or earlier, all deadlines are looked at again."""
        if self._timer is not None:
            if self._timer_at <= when:
                return
            self._timer.cancel()
        self._timer_at = when
        self._timer = self.loop.call_at(when, self._look_at_deadlines)

    def _look_at_deadlines(self) -> None:
        self._timer = None
        now = self.loop.time()
        due, act = self._next_deadline(now)
        if due <= now:
            act()
            due = now + self.rim.deadlines.stall
        if self in self.rim.connections:
            self._arm(due)

    def _next_deadline(self, now: float) -> tuple[float, Callable[[], None]]:
        """When something is to be done if nothing happens before, and what."""
        deadlines = self.rim.deadlines
        unsent = self.transport.get_write_buffer_size()
        if self._files is not None:
            unsent += self._files.in_flight
        if unsent != self._unsent:
            self._unsent, self._unsent_since = unsent, now
        if unsent:
            stalled = self._unsent_since + deadlines.stall
            # Progress is only seen by looking, so look more often than it may last.
            return min(stalled, now + deadlines.stall / 4) if stalled > now else now, self._lose
        if self._closing:
            return self._quiet_since + deadlines.linger, self.transport.close
        if self._turn is not None:
            if self._content is not None and self._content.awaited:
                return self._quiet_since + deadlines.stall, self._content_stalled
            return now + deadlines.idle, _nothing
        if self._content is not None:
            return self._quiet_since + deadlines.head, self._close
        if self._head_since is not None:
            return self._head_since + deadlines.head, self._head_late
        return self._quiet_since + deadlines.idle, self._close

    def _content_stalled(self) -> None:
        if self._content is not None:
            self._content.fail("the client sent nothing of its content for too long")

    def _head_late(self) -> None:
        detail = "the request's head took over 10 s; send it whole at once"
        self._refuse(RequestError(408, "head-timeout", detail))


def _bytes(pieces: Sequence[Piece]) -> list[bytes | memoryview]:
    return [piece.read() if isinstance(piece, FileSpan) else piece for piece in pieces]


def _nothing() -> None:
    """A turn under way has the gateway's deadlines, not ours."""
