"""HTTP/1.1 for viewers (RFC 9112): one asyncio.Protocol per connection, which reads.

Strategy: a connection owns its bytes. It finds the end of a head itself, has it judged whole
(`request_head`), and works at one request at a time; what a client pipelines waits as bytes, and
past a few of them the connection is read no further. A request is tried by the shortest way first:
as one before it (`fastpath`), as a plain miss (`plain_asker`), then by the handler. How an answer
is sent is `answering`'s, what holds of any connection `link`'s.

A client that half-closes is taken for gone, since nothing tells it from one that closed: what was
written still reaches it, an answer under way is given up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cdn.observe.hits import Said
from cdn.wire.errors import RequestError
from cdn.wire.field_block import FieldBlock, read_head
from cdn.wire.next_part import NextPart
from cdn.wire.plain_asker import PlainAsker
from cdn.wire.request_content import RequestContent
from cdn.wire.request_head import RequestHead, check_partial, parse_head
from cdn.wire.response_head import choose_framing, encode_head
from cdn.wire.rim import Rim
from cdn.wire.turn import Turn

QUEUED = 16 * 1024
"""Bytes of pipelined requests that may wait behind the one being answered."""

LAST = 2048
"""Bytes of a head that is kept, to be known again; more would be felt by idle connections."""

NOBODY = Said("", "")


class Http1Connection(PlainAsker):
    """One client's connection: reads its requests, and begins one at a time."""

    def __init__(self, rim: Rim) -> None:
        super().__init__(rim)
        self.asked = b""
        self._scanned = 0
        self._head_since: float | None = None
        self._content: RequestContent | None = None
        self._last = b""
        self._said = NOBODY
        self._next_part: NextPart | None = None

    # -- what the transport and the server tell ----------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self.outgoing is not None:
            self.outgoing.flush()
        if (
            self.turn is None
            and self._content is None
            and self.room is None
            and not self.closing
            and self.start == len(self.buffer)
            and self._serve_one(data)
        ):
            return
        if self.closing:
            self.drop(data)
            return
        if self._content is not None:
            self.quiet_since = self.loop.time()
            data = self._take_content(data)
        if self.start < len(self.buffer):
            # An own growing copy only here: most reads are one whole head.
            if self.start or isinstance(self.buffer, bytes):
                self.buffer = bytearray(self.buffer[self.start :])
                self._scanned -= self.start
                self.start = 0
            self.buffer += data
        else:
            self.buffer, self.start, self._scanned = data, 0, 0
        self._serve()

    def eof_received(self) -> bool:
        if self.turn is not None and not self._written:
            self.abort()
        else:
            self.close()
        return self.sends_files

    def close_if_idle(self) -> None:
        """Draining: nothing of a request is here, so nothing is lost."""
        if self.turn is None and self._content is None and self.start == len(self.buffer):
            self.close()

    # -- requests ----------------------------------------------------------------------------

    def _serve_one(self, data: bytes) -> bool:
        """Begins the request that `data` is; False where it is more or less than one, or none."""
        memory = self.rim.memory
        if memory is None:
            return False
        if (data == self._last or self._next_part is not None) and self._answer_named(data):
            return True
        end = data.find(b"\r\n")
        # What is remembered ends where a head does.
        block = memory.recent.get(len(data) - end - 2)
        if block is None or not data.endswith(block.raw):
            fields = data[end + 2 :]
            block = memory.blocks.get(fields)
            if block is not None:
                memory.met(block)
            elif fields.find(b"\r\n\r\n") != len(fields) - 4:
                return False
            else:
                own = memory.own(fields)
                if own is not None and self._answer_again(*own, data, end, besides=True):
                    memory.blocks.see(fields)
                    return True
                block = memory.block(fields)
        if block is None:
            return False
        answered = self._answer_again(block, block.said, data, end)
        if not answered and not self.ask_plainly(block, data, end):
            self.buffer = data
            self.start = self._scanned = len(data)
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
        while not (self.turn or self._content or self.room or self.closing):
            if self.start < len(self.buffer):
                self.let_out()
                if self.room is not None:
                    break
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
        buffer, start = self.buffer, self.start
        if buffer[start : start + 2] == b"\r\n":
            start += 2  # RFC 9112 §2.2: one empty line before a request is ignored
        end = buffer.find(b"\r\n\r\n", max(start, self._scanned - 3))
        if end >= 0:
            self._head_since = None
            self.start = self._scanned = end + 4
            if start == 0 and self.start == len(buffer) and isinstance(buffer, bytes):
                return buffer
            return bytes(buffer[start : end + 4])
        if start < len(buffer):
            check_partial(buffer, start, max(start, self._scanned - 1))
            self._scanned = len(buffer)
        if self.start < len(buffer) and self._head_since is None:
            self._head_since = self.loop.time()
            self.arm(self._head_since + self.rim.deadlines.head)
        return None

    def _answer_again(
        self, block: FieldBlock, said: Said, head: bytes, end: int, *, besides: bool = False
    ) -> bool:
        """Answers a request, whose line ends at `end`, as one before it; False if that is not at
        hand. `said` is what its client says of itself, `besides` as in `FastPath.answer`."""
        rim = self.rim
        fast = rim.fast
        if fast is None or not block.repeatable:
            return False
        if not fast.answer(head, end, block, said, rim.scheme, self, besides=besides):
            return False
        # A client that polls, seeks, or fetches piece by piece asks the same again, but for a part.
        self._said = said
        self._next_part = NextPart.following(head, end) if block.part is not None else None
        known = block.part is None or self._next_part is not None
        self._last = head if known and len(head) <= LAST else b""
        self.quiet_since = self.loop.time()
        return True

    def _answer_named(self, head: bytes) -> bool:
        """The same of a request that is the last again, or asks for the next part of it."""
        rim, wanted = self.rim, None
        if self._next_part is not None:
            wanted = self._next_part.wanted(head)
            if wanted is None:
                return False
        assert rim.fast is not None
        if not rim.fast.answer_named(self.asked, wanted, self._said, rim.scheme, self, head):
            return False
        self.quiet_since = self.loop.time()
        return True

    def _begin(self, head: RequestHead, block: FieldBlock | None = None) -> None:
        self.rim.counters.requests += 1
        if head.chunked or head.content_length:
            self._content = RequestContent(head.content_length, self.client, self._content_wanted)
        arrived = self.rim.clock()
        write = self.transport.write
        turn = self.turn = Turn(head, self._content, self.client, arrived, write, block)
        if self._content is not None:
            data = bytes(self.buffer[self.start :])
            self.buffer, self.start, self._scanned = self._take_content(data), 0, 0
        try:
            answer = self.rim.handler.answer_now(turn.exchange)
        except Exception as error:
            self.report_bug(turn, error)
            answer = self.rim.errors.internal()
        turn.answer = answer
        if answer is None or not self.send_at_once(turn, answer):
            turn.task = self.loop.create_task(self.respond(turn))

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
        self.linger()
        answer.outcome.client = self.client
        if self.rim.fast is not None:
            self.rim.fast.report()
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
            if self.turn is None:
                self.linger()
        if content.complete:
            self._content = None
        elif self.turn is None and not content.worth_discarding:
            self.linger()
        return rest

    def _content_wanted(self) -> None:
        """The handler reads: the client may send (RFC 9110 §10.1.1), and we may read on."""
        turn = self.turn
        if turn is None or self._content is None:
            return
        if turn.expects_continue and turn.framing is None:
            turn.expects_continue = False
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.quiet_since = self.loop.time()
        self.arm(self.quiet_since + self.rim.deadlines.stall)
        self._govern_reading()

    def _govern_reading(self) -> None:
        """Back-pressure towards the client: reads only what there is a place for."""
        if self.closing:
            wanted = True
        elif self._content is not None:
            wanted = not self._content.full
        elif self.turn is not None or self.room is not None:
            wanted = len(self.buffer) - self.start <= QUEUED
        else:
            wanted = True
        if wanted is not self.reading:
            self.read_on(wanted)

    # -- deadlines ---------------------------------------------------------------------------

    def _due(self, now: float) -> tuple[float, Callable[[], None]]:
        deadlines = self.rim.deadlines
        if self.turn is not None:
            if self._content is not None and self._content.awaited:
                return self.quiet_since + deadlines.stall, self._content_stalled
            return now + deadlines.idle, _nothing
        if self._content is not None:
            return self.quiet_since + deadlines.head, self.close
        if self._head_since is not None:
            return self._head_since + deadlines.head, self._head_late
        return self.quiet_since + deadlines.idle, self.close

    def _content_stalled(self) -> None:
        if self._content is not None:
            self._content.fail("the client sent nothing of its content for too long")

    def _head_late(self) -> None:
        detail = "the request's head took over 10 s; send it whole at once"
        self._refuse(RequestError(408, "head-timeout", detail))


def _nothing() -> None:
    """A turn under way has the gateway's deadlines, not ours."""
