"""Plain misses at the rim: a request that goes upstream in the call that brought it.

Strategy: it has no exchange and no Task, its turn is its block of fields and the miss
(`gateway.plain`). An answer that comes whole is framed here, in one write, and leaves a record as
hot answers do. Wherever it takes more, its turn becomes as any other, and goes on with what has
been asked.
"""

from __future__ import annotations

from cdn.gateway.plain import PlainMiss
from cdn.observe.hits import Served
from cdn.semantics.message import Request, Response
from cdn.semantics.reuse import Fwd
from cdn.wire.answering import Answering
from cdn.wire.field_block import LONGEST_REQUEST_LINE, REQUEST_LINE, FieldBlock
from cdn.wire.response_head import encode_interim
from cdn.wire.turn import PlainTurn, Turn


class PlainAsker(Answering):
    """The rim's `gateway.plain.Asker`. A subclass reads, and offers requests to `ask_plainly`."""

    def ask_plainly(self, block: FieldBlock, head: bytes, end: int) -> bool:
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
        self.turn = PlainTurn(block, miss)
        return True

    @property
    def draining(self) -> bool:
        """See `Asker.draining`."""
        return self.rim.draining

    def answered(self, miss: PlainMiss, lines: bytes, content: bytes, cache_status: str) -> None:
        """See `Asker.answered`."""
        turn, self.turn = self.turn, None
        assert turn is not None
        assert turn.block is not None
        rim, size = self.rim, len(content)
        head = b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n" % (lines, size)
        assert rim.fast is not None
        self.quiet_since = self.loop.time()
        like, target = miss.form.request, miss.target.decode("ascii")
        served = Served(
            "GET", like.scheme, like.authority, target, 200, size, cache_status,
            miss.form.service.name, None, Fwd.URI_MISS, miss.name,
        )  # fmt: skip
        given = (served, turn.block.said, self.client, miss.arrived, "", miss)
        rim.fast.outbox.put(self, head, content, given)
        if self.start < len(self.buffer):
            self._serve()

    def takes_longer(self, miss: PlainMiss) -> None:
        """See `Asker.takes_longer`."""
        turn = self._as_any_other()
        turn.asked = miss.seated(turn.exchange)
        turn.task = self.loop.create_task(self.respond(turn))

    def broke(self, miss: PlainMiss, error: Exception) -> None:
        """See `Asker.broke`."""
        turn = self._as_any_other()
        turn.miss = None
        self.report_bug(turn, error)
        turn.answer = self.rim.errors.internal()
        self.send_at_once(turn, turn.answer)
        self._serve()

    def interim(self, head: Response) -> None:
        """See `Asker.interim`."""
        self.transport.write(encode_interim(head))

    def _as_any_other(self) -> Turn:
        turn = self.turn
        assert isinstance(turn, PlainTurn)
        self.rim.counters.requests += 1
        turn.become(self.transport.write)
        return turn

    def _gone(self) -> None:
        turn = self.turn
        if turn is not None and turn.miss is not None:
            turn.miss.leave()
            if turn.task is None:
                self._as_any_other()
        super()._gone()
