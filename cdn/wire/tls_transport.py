"""TLS between a TCP transport and the protocol that speaks through it.

Strategy: to uvloop one Protocol per connection, to HTTP a Transport, and OpenSSL in memory between
them. What has come is decrypted, answered, encrypted and given to the kernel in one call; nothing
is kept here but a record that has not come whole, and what came before a pause in reading. So the
limits and the pauses of the TCP transport are those of the whole.

OpenSSL is asked for content only while it may have some. uvloop's own TLS has it end every read by
an exception, with 256 KiB allocated for each: 2.3 µs a request, where reading has 0.95 here; and an
idle connection has 50 KiB there, 20 here.

To close is to say so (RFC 8446 §6.1), then a FIN; what still comes is dropped unread until the
client has closed as well, since a reset would take our last bytes with it. An abort says nothing:
so the client can tell what was cut.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Iterable
from typing import Any, cast

from cdn.wire.rim import Connection, Rim
from cdn.wire.tls_counters import TlsCounters, reason_of

RECORD = 16 * 1024
"""No record has more bytes of content (RFC 8446 §5.1)."""

PIECE = 32 * 1024
"""Bytes encrypted at once: the room for them stays with the connection. (128 KiB would cost 4 %
less for large content, and 130 KiB more for ever.)"""

DROPPED = 256 * 1024
"""Bytes that a client may send after we have closed."""

REPLIES = 1 << 20
"""Bytes that may wait for a client that goes on asking for what TLS answers by itself."""

Bytes = bytes | bytearray | memoryview


class TlsTransport(asyncio.Protocol, asyncio.Transport):
    """A connection of `rim` until its handshake on `context` is done, within the deadline of a
    head; from then on the transport of what `connection` makes."""

    def __init__(
        self,
        rim: Rim,
        context: ssl.SSLContext,
        counters: TlsCounters,
        connection: Callable[[], asyncio.Protocol],
    ) -> None:
        self._rim = rim
        self._counters = counters
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._ssl = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._tcp: asyncio.Transport | None = None
        self._app: asyncio.Protocol | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._told = self._paused = self._closing = False
        self._dropped = 0
        rim.connections.add(self)
        rim.emptied.clear()

    # -- what the TCP transport tells --------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._tcp = cast(asyncio.Transport, transport)
        if self._closing:
            self._tcp.abort()
        else:
            self._timer = self._loop.call_later(self._rim.deadlines.head, self._late)

    def data_received(self, data: bytes) -> None:
        if self._closing:
            self._drop(data)
            return
        self._incoming.write(data)
        app = self._app
        if app is None:
            self._shake()
            return
        # A whole record is longer than its content: less than was asked for is all of it.
        size = len(data) or RECORD
        while not self._paused and not self._closing:
            # After a record that it refuses OpenSSL writes no more, but for the alert.
            cast(Connection, app).let_out()
            try:
                content = self._ssl.read(size)
            except ssl.SSLWantReadError:
                break  # a part of a record, or one for TLS itself
            except ssl.SSLError as error:
                self._fail(error)
                return
            if not content:  # close_notify
                app.eof_received()
                self.close()
                return
            app.data_received(content)
            if len(content) < size and not self._incoming.pending:
                break
            size = RECORD
        if self._outgoing.pending:
            self._reply()

    def eof_received(self) -> None:
        """Cut, if nothing said so before: no request is taken for whole by that, and to go on is
        as futile as after a clean end."""
        if self._app is not None and not self._closing:
            self._app.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing = True
        self._wait_no_more()
        app, self._app = self._app, None
        if app is not None:
            app.connection_lost(exc)
            return
        self._tell("closed")
        self._leave()

    def pause_writing(self) -> None:
        if self._app is not None:
            self._app.pause_writing()

    def resume_writing(self) -> None:
        if self._app is not None:
            self._app.resume_writing()

    # -- the handshake -----------------------------------------------------------------------

    def _shake(self) -> None:
        try:
            self._ssl.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return
        except ssl.SSLError as error:
            self._fail(error)
            return
        self._flush()
        self._wait_no_more()
        self._told = True
        self._counters.count(self._ssl)
        app = self._app = self._connection()
        app.connection_made(self)
        self._leave()
        self.data_received(b"")  # what came together with the handshake's end
        if self._rim.draining:
            cast(Connection, app).close_if_idle()

    def close_if_idle(self) -> None:
        """Draining: it may be about to ask, which its protocol will know."""

    def let_out(self) -> None:
        """Nothing is on its way during a handshake."""

    def _late(self) -> None:
        self._tell("timeout")
        self.abort()

    def _tell(self, reason: str) -> None:
        """Counts a handshake that failed, once."""
        if not self._told:
            self._told = True
            self._counters.failures[reason] += 1

    def _leave(self) -> None:
        """Is the rim's connection no more."""
        self._rim.connections.discard(self)
        if not self._rim.connections:
            self._rim.emptied.set()

    # -- what HTTP tells ---------------------------------------------------------------------

    def write(self, data: Bytes) -> None:
        if self._closing or not data:
            return
        if len(data) > PIECE:
            self.writelines((data,))
            return
        try:
            self._ssl.write(data)
        except ssl.SSLError:
            self.abort()  # by half a message of a handshake (RFC 8446 §5.1), which nobody sends
            return
        assert self._tcp is not None
        self._tcp.write(self._outgoing.read())

    def writelines(self, list_of_data: Iterable[Bytes]) -> None:
        pieces = list(list_of_data)
        if sum(map(len, pieces)) <= PIECE:
            self.write(b"".join(pieces))  # a record costs more than a copy
            return
        if self._closing:
            return
        encrypted = []
        try:
            for piece in [memoryview(piece) for piece in pieces]:
                for begin in range(0, len(piece), PIECE):
                    self._ssl.write(piece[begin : begin + PIECE])
                    encrypted.append(self._outgoing.read())
        except ssl.SSLError:
            self.abort()
            return
        assert self._tcp is not None
        self._tcp.writelines(encrypted)

    def close(self) -> None:
        """After what is written. The protocol hears nothing more but that the connection is lost:
        when the client has closed too, or has not for the deadline of a stall."""
        if self._closing:
            return
        self._closing = True
        tcp = self._tcp
        assert tcp is not None
        if tcp.is_closing():
            return
        with contextlib.suppress(ssl.SSLError):  # says that the client has not closed
            self._ssl.unwrap()
        self._flush()
        tcp.write_eof()
        if self._paused:
            tcp.resume_reading()
        self._timer = self._loop.call_later(self._rim.deadlines.stall, self._give_up)

    def abort(self) -> None:
        """At once, and without a word."""
        self._told = self._closing = True
        if self._tcp is not None:
            self._tcp.abort()

    def is_closing(self) -> bool:
        return self._closing

    def can_write_eof(self) -> bool:
        """TLS 1.2 cannot."""
        return False

    def pause_reading(self) -> None:
        if not self._paused and not self._closing:
            self._paused = True
            assert self._tcp is not None
            self._tcp.pause_reading()

    def resume_reading(self) -> None:
        if self._paused and not self._closing:
            self._paused = False
            self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        """First with what came before the pause."""
        if self._paused or self._closing:
            return
        self.data_received(b"")
        if not self._paused and not self._closing:
            assert self._tcp is not None
            self._tcp.resume_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "ssl_object":
            return self._ssl
        assert self._tcp is not None
        return self._tcp.get_extra_info(name, default)

    def get_write_buffer_size(self) -> int:
        assert self._tcp is not None
        return self._tcp.get_write_buffer_size()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        assert self._tcp is not None
        self._tcp.set_write_buffer_limits(high, low)

    # -- the end -----------------------------------------------------------------------------

    def _flush(self) -> None:
        assert self._tcp is not None
        if self._outgoing.pending:
            self._tcp.write(self._outgoing.read())

    def _reply(self) -> None:
        """What TLS answers by itself: to a KeyUpdate (RFC 8446 §4.6.3), or to the wish for another
        handshake."""
        self._flush()
        if self.get_write_buffer_size() > REPLIES:
            self.abort()

    def _fail(self, error: ssl.SSLError) -> None:
        """Closes, after the alert that says why (RFC 8446 §6.2)."""
        self._tell(reason_of(error))
        self._closing = True
        self._flush()
        assert self._tcp is not None
        self._tcp.close()
        self._wait_no_more()
        self._timer = self._loop.call_later(self._rim.deadlines.stall, self._give_up)

    def _drop(self, data: bytes) -> None:
        self._dropped += len(data)
        if self._dropped > DROPPED:
            assert self._tcp is not None
            self._tcp.close()

    def _give_up(self) -> None:
        """The client does not close. While it takes what was sent, the protocol watches it."""
        if self._app is not None and self.get_write_buffer_size():
            self._timer = self._loop.call_later(self._rim.deadlines.stall, self._give_up)
        else:
            self._timer = None
            self.abort()

    def _wait_no_more(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
