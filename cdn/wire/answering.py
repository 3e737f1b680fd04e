"""How a request is answered on its connection: from the answer's head to the record of it.

Strategy: an answer that is at hand leaves in one call, with one write or out of files, and no Task.
Any other runs in the one Task of its turn, piece by piece as the client takes them, which is
cancelled when the client goes. Framing is decided before the first byte, and with it what becomes
of the connection. Every turn ends once, and leaves one record; an answer that did not become whole
never ends cleanly.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

from cdn.gateway.exchange import Answer, ContentCutShort, Outcome
from cdn.gateway.plain import PlainMiss
from cdn.semantics.message import Fields, Response
from cdn.storage.store import FileSpan, Piece
from cdn.wire.link import JOINED, Link
from cdn.wire.outbox import Given
from cdn.wire.request_head import RequestHead, parse_head
from cdn.wire.response_head import Framing, choose_framing, encode_head
from cdn.wire.rim import Rim
from cdn.wire.turn import LateTurn, Turn

PIECE = 128 * 1024
"""No single write is longer than this many bytes, so that a slow client's progress shows."""

_CLIENT_GONE = Response(499, Fields(()))
_READY = (tuple, list)


class Answering(Link):
    """The link of a client that is answered: `turn` is its request, while there is one.

    A subclass begins turns, and fills in one hook more: `_serve`.
    """

    def __init__(self, rim: Rim) -> None:
        super().__init__(rim)
        self.turn: Turn | None = None
        self._written = False

    def _serve(self) -> None:
        """The last turn may have ended, or there is room again: begins what can be begun."""
        raise NotImplementedError

    # -- what is at hand ---------------------------------------------------------------------

    def send_at_once(self, turn: Turn, answer: Answer) -> bool:
        """Sends all of a ready answer; False if it takes more than that. What the client does not
        take at once is by reference, and the answer ends with it."""
        content = answer.content
        if not isinstance(content, _READY):
            return False
        size = sum(map(len, content))
        if size > JOINED and self.tls:
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
        if self.room is None or self.tls:
            self._end(turn, True)
        else:
            self._written = True
        return True

    def see_off(self, given: Given, *, begun: bool = True) -> None:
        """See `Sender.see_off`: what is left is waited for like that of any other answer."""
        asked = given[-1]
        if isinstance(asked, PlainMiss):
            read = partial(RequestHead, asked.request, None, False, True, False)
        else:
            read = partial(parse_head, asked, self.rim.scheme)
        self.turn = turn = LateTurn(given, read, begun)
        self._written = True
        if not begun:
            self._end(turn, False)

    def _seen_off(self, turn: LateTurn, complete: bool) -> bool:
        """Whether that was all: it has left whole, like others."""
        fast = self.rim.fast
        if complete and fast is not None:
            self.turn = None
            self._written = False
            self.quiet_since = self.loop.time()
            fast.left((turn.given,))
            return True
        if fast is not None:
            fast.broke_off(turn.given)
        self.rim.counters.requests += 1
        turn.become(self.transport.write, self.client)
        return False

    def _keep(self, turn: Turn, answer: Answer, head: bytes) -> None:
        """Has an answer given again, where it is one to any connection."""
        fast, block = self.rim.fast, turn.block
        # After waiting, what is stored may be another already.
        if fast is not None and block is not None and turn.task is None and not turn.close:
            fast.hot.take(block, turn.exchange.request, self.client, answer, head)

    # -- what is waited for ------------------------------------------------------------------

    async def respond(self, turn: Turn) -> None:
        """The Task of an answer that is not at hand, or not small."""
        complete = False
        try:
            if turn.miss is not None and turn.asked is not None:
                turn.answer = await turn.miss.answer(turn.asked)
            elif turn.answer is None:
                turn.answer = await self.rim.handler.answer(turn.exchange)
            if self.room is not None:
                await self.room  # of interim responses
            if self.send_at_once(turn, turn.answer):
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
            self.report_bug(turn, error)
            if turn.framing is None:
                self._give_up(turn)
                turn.answer = self.rim.errors.internal()
                self.send_at_once(turn, turn.answer)
        self._end(turn, complete)
        self._serve()

    def report_bug(self, turn: Turn, error: Exception) -> None:
        kind = type(error).__name__
        self.rim.report(f"bug: the handler broke on {turn.exchange.request.url}: {kind}: {error}")

    async def _send_piecewise(self, turn: Turn, answer: Answer) -> None:
        """Head, then content as fast as the client takes it. Raises ContentCutShort."""
        content = answer.content
        ready = sum(map(len, content)) if isinstance(content, Sequence) else None
        head, framing = self._frame(turn, answer, ready)
        self.transport.write(head)
        if not framing.has_content:
            self._give_up(turn)
            return
        if self.room is not None:
            await self.room
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
            if not framing.chunked and not self.tls:
                turn.sent += len(piece)
                self.send_files((piece,), len(piece))
                if self.room is not None:
                    await self.room
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
            if self.room is not None:
                await self.room

    # -- framing, and the end ----------------------------------------------------------------

    def _frame(self, turn: Turn, answer: Answer, ready: int | None) -> tuple[bytes, Framing]:
        """Decides framing and what becomes of the connection; returns the head's bytes."""
        turn.interim.open = False
        request = turn.exchange.request
        minor = request.version[1]
        framing = turn.framing = choose_framing(answer, ready, request.method, minor)
        content = turn.content
        turn.close = (
            answer.close
            or not turn.keep_alive
            or self.rim.draining
            or framing.until_close
            or (
                content is not None
                and not content.complete
                and (turn.expects_continue or not content.worth_discarding)
            )
        )
        connection = "close" if turn.close else None if minor else "keep-alive"
        return encode_head(answer.head, framing, connection), framing

    def _end(self, turn: Turn, complete: bool) -> None:
        """The answer is written, or will never be. Once per turn."""
        if turn is not self.turn or (isinstance(turn, LateTurn) and self._seen_off(turn, complete)):
            return
        self.turn = None
        self._written = False
        turn.interim.open = False
        self.quiet_since = now = self.loop.time()
        content = turn.content
        if content is not None and content.complete:
            content = None
        if not complete:
            turn.sent = max(0, turn.sent - self.waiting)
            self._give_up(turn)
            self.break_off(turn.framing is not None and turn.framing.until_close)
        elif turn.close or self.rim.draining or (content is not None and content.failed):
            if content is None and self.start == len(self.buffer):
                self.close()
            else:
                self.linger()
        elif content is not None:
            content.discard()
            self.arm(now + self.rim.deadlines.head)
        answer = turn.answer
        head, outcome = (answer.head, answer.outcome) if answer else (_CLIENT_GONE, Outcome())
        # Not the loop's time, which stands still between two turns of the loop.
        seconds = max(0.0, self.rim.clock() - turn.exchange.arrived)
        if self.rim.fast is not None:
            self.rim.fast.report()  # records come in the order of the answers
        self.rim.on_finished(turn.exchange, head, outcome, turn.sent, seconds, complete)

    def _give_up(self, turn: Turn) -> None:
        if turn.answer is not None and not isinstance(turn.answer.content, Sequence):
            turn.answer.content.abort()

    # -- what the link tells -----------------------------------------------------------------

    def _has_room(self) -> None:
        if self._written and self.turn is not None:
            self._end(self.turn, True)
        self._serve()

    def _gone(self) -> None:
        turn = self.turn
        if turn is None:
            return
        if turn.content is not None and not turn.content.complete:
            turn.content.fail("the client closed its connection before the content's end")
        if turn.task is not None:
            turn.task.cancel()
        self._end(turn, False)
