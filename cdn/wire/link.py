"""A viewer's connection as a link: what goes out over it, how long it may wait, and how it ends.

Strategy: no call here waits. What the client does not take yet stays with the transport, or in its
files (`sendfile`), and `room` says so: until it is done nothing more is to be written. One lazy
timer per connection watches all its deadlines.

It ends in one of four ways: closed, after what was written; lingering, where a client that still
sends is to read why (RFC 9112 §9.6); broken off, where its answer is not whole; aborted.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Sequence
from typing import cast

from cdn.storage.store import FileSpan, Piece
from cdn.wire.outbox import Outbox
from cdn.wire.rim import Rim
from cdn.wire.sendfile import FileSender

JOINED = 64 * 1024
"""Ready content up to this many bytes is copied to leave in one piece with its head."""

UNSENT = 128 * 1024
"""Bytes that the transport may hold, and that the kernel may hold unsent, before we pause."""

LINGER_BYTES = 256 * 1024
"""What is still read from a client that was refused, so that it can read why (RFC 9112 §9.6)."""


class Link(asyncio.Protocol):
    """One client's connection. `rim` is what it shares with the others of its server.

    What came and was not taken is in `buffer`, from `start` on. `room` is set while something
    waits for the client; it is `closing` once nothing more is answered; `outgoing` is set while it
    has anything there; since `quiet_since` (loop time) nothing has happened.

    A subclass reads, and fills in `close_if_idle` and three hooks: `_has_room`, `_gone`, `_due`.
    """

    def __init__(self, rim: Rim) -> None:
        self.rim = rim
        self.loop = asyncio.get_running_loop()
        self.client = ""
        self.transport: asyncio.Transport
        self.tls = False
        self.buffer: bytes | bytearray = b""
        self.start = 0
        self.reading = True
        self.room: asyncio.Future[None] | None = None
        self.closing = False
        self.outgoing: Outbox | None = None
        self.quiet_since = 0.0
        self._lingered = 0
        self._files: FileSender | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._unsent = 0
        self._unsent_since = 0.0

    # -- what a subclass fills in ------------------------------------------------------------

    def close_if_idle(self) -> None:
        """Draining: closes, if nothing of a request is here."""
        raise NotImplementedError

    def _has_room(self) -> None:
        """What waited has been taken."""
        raise NotImplementedError

    def _gone(self) -> None:
        """The client is gone, or given up: whatever is done for it ends."""
        raise NotImplementedError

    def _due(self, now: float) -> tuple[float, Callable[[], None]]:
        """When something is to be done if nothing happens before, and what, while nothing waits
        for the client and the connection is not closing."""
        raise NotImplementedError

    # -- what the transport tells ------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are asyncio's in shape, not by class.
        self.transport = transport = cast(asyncio.Transport, transport)
        self.tls = transport.get_extra_info("ssl_object") is not None
        # Where it holds anything we are paused: so files are sent only while it is empty.
        transport.set_write_buffer_limits(high=UNSENT if self.tls else 0)
        peer = transport.get_extra_info("peername")
        self.client = peer[0] if isinstance(peer, tuple) else "unix"
        counters = self.rim.counters
        counters.connections_open += 1
        counters.connections_total += 1
        self.rim.connections.add(self)
        self.rim.emptied.clear()
        self.quiet_since = self.loop.time()
        self.arm(self.quiet_since + self.rim.deadlines.idle)

    def connection_lost(self, exc: Exception | None) -> None:
        self.rim.counters.connections_open -= 1
        self.rim.connections.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        self._gone()
        self.closing = True
        if self._files is not None:
            self._files.close()
        if not self.rim.connections:
            self.rim.emptied.set()

    def pause_writing(self) -> None:
        self.room = self.loop.create_future()
        now = self.loop.time()
        self._unsent, self._unsent_since = self.waiting, now
        self.arm(now + self.rim.deadlines.stall / 4)

    def resume_writing(self) -> None:
        room, self.room = self.room, None
        if room is not None and not room.done():
            room.set_result(None)
        self._has_room()

    # -- reading -----------------------------------------------------------------------------

    def read_on(self, wanted: bool) -> None:
        """Back-pressure towards the client: begins to read again, or ceases."""
        if not self.transport.is_closing():
            self.reading = wanted
            if wanted:
                self.transport.resume_reading()
            else:
                self.transport.pause_reading()

    def drop(self, data: bytes) -> None:
        """Takes what comes while the connection is closing."""
        self._lingered += len(data)
        if self._lingered > LINGER_BYTES:
            self.transport.close()

    # -- sending -----------------------------------------------------------------------------

    def send_apart(self, head: bytes, pieces: Sequence[Piece], size: int) -> bool:
        """Head and content, `size` bytes. What the client does not take yet waits, and `room` says
        so. False: something waits (over TLS that is not looked at)."""
        if not self.tls and len(pieces) == 1 and isinstance(span := pieces[0], FileSpan):
            if not (self._files or self._open_files()).send_one(head, span):
                self.pause_writing()
        elif not any(isinstance(piece, FileSpan) for piece in pieces):
            if size <= JOINED:
                self.transport.write(b"".join((head, *_bytes(pieces))))
            else:
                self.transport.writelines((head, *_bytes(pieces)))
        elif self.tls:
            self.transport.write(b"".join((head, *_bytes(pieces))))
        else:
            self.send_files((head, *pieces), len(head) + size)
        return self.room is None or self.tls

    def send_files(self, pieces: Sequence[Piece], size: int) -> None:
        """`pieces`, `size` bytes, past the transport; not over TLS. `room` as in `send_apart`."""
        if not (self._files or self._open_files()).send(pieces, size):
            self.pause_writing()

    def _open_files(self) -> FileSender:
        fd = self.transport.get_extra_info("socket").fileno()
        files = self._files = FileSender(fd, self.loop, UNSENT, self._files_ended)
        return files

    def _files_ended(self, error: Exception | None) -> None:
        if error is not None:
            self.abort()
            return
        self.resume_writing()
        if self.closing:
            self.close()

    @property
    def sends_files(self) -> bool:
        return self._files is not None and self._files.left > 0

    @property
    def waiting(self) -> int:
        """Bytes that the kernel has not taken; once the connection is lost, with which its
        transport lets go of them: had not when that was last seen."""
        left = 0 if self._files is None else self._files.left
        left += self.transport.get_write_buffer_size()
        return left or (0 if self.room is None else self._unsent)

    # -- the end -----------------------------------------------------------------------------

    def let_out(self) -> None:
        """Has leave what is still on its way to the transport."""
        if self.outgoing is not None:
            self.outgoing.flush()

    def close(self) -> None:
        self.let_out()
        self.closing = True
        if not self.sends_files:
            self.transport.close()
        self.arm(self.loop.time() + self.rim.deadlines.stall)

    def linger(self) -> None:
        """RFC 9112 §9.6: closing with bytes unread would reset, and take our answer with it."""
        if self.transport.is_closing() or not self.transport.can_write_eof():
            self.close()
            return
        self.let_out()
        self.closing = True
        self.transport.write_eof()
        self.quiet_since = self.loop.time()
        self.arm(self.quiet_since + self.rim.deadlines.linger)
        if not self.reading:
            self.read_on(True)

    def break_off(self, until_close: bool) -> None:
        """Never a clean end: the client must see that its answer is not whole (RFC 9112 §8).
        `until_close`: the end of the connection would have been its end."""
        self.let_out()
        self.closing = True
        if until_close and not self.transport.is_closing():
            # Here a FIN would be the content's end: only a reset tells (RFC 9112 §9.8).
            sock = self.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def abort(self) -> None:
        """Gives the client up."""
        self._gone()
        self.closing = True
        self.transport.abort()

    # -- deadlines ---------------------------------------------------------------------------

    def arm(self, when: float) -> None:
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
            self.arm(due)

    def _next_deadline(self, now: float) -> tuple[float, Callable[[], None]]:
        deadlines = self.rim.deadlines
        unsent = self.transport.get_write_buffer_size()
        if self._files is not None:
            unsent += self._files.in_flight
        if unsent != self._unsent:
            self._unsent, self._unsent_since = unsent, now
        if unsent:
            stalled = self._unsent_since + deadlines.stall
            # Progress is only seen by looking, so look more often than it may last.
            return min(stalled, now + deadlines.stall / 4) if stalled > now else now, self.abort
        if self.closing:
            return self.quiet_since + deadlines.linger, self.transport.close
        return self._due(now)


def _bytes(pieces: Sequence[Piece]) -> list[bytes | memoryview]:
    return [piece.read() if isinstance(piece, FileSpan) else piece for piece in pieces]
