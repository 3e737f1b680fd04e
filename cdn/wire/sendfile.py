"""Content sent out of files, without a copy.

Strategy: a second descriptor of the connection's socket, since uvloop has no sendfile. Its bytes
and the transport's would overtake each other: it begins only while the transport's buffer is empty,
and nothing is written to the transport until it has ended. All pieces go this way, those of the
head and between parts too. What the kernel does not take now waits for the socket to become
writable. Spans are of what is in RAM when they are given; of those that have waited it is asked
again, and what is there no more is read in a thread, so the loop waits for no device.

Measured (wrk on another core, CPU of the sender): 64 KiB 17 µs against 24 by write, 1 MiB 130
against 215, 10 MiB 1.5 ms against 2.3; below some 24 KiB a write is cheaper. No MSG_MORE for the
head: of 64 KiB that begin within a page it makes 45 µs where there were 25, since head and 17 pages
are more than one packet holds. A head before one span takes along what is before its first page's
end: the pages of what is left of 64 KiB fit one packet. Where the file is mapped one call gathers
the two. (All 64 KiB gathered out of the map cost as much as this while nothing else is in the
caches, more beside others.)
TCP_NOTSENT_LOWAT of 128 KiB makes 10 MiB cost 2.8 ms: it is raised while much is sent, which costs
no memory, for what waits in the kernel are pages of the file. A turn costs some 30 µs: with 512 KiB
or 1 MiB in each 10 MiB cost a quarter and a twentieth more, with 4 or 8 MiB no less.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import mmap
import os
import socket
import struct
import termios
from collections import deque
from collections.abc import Callable, Iterable

from cdn.storage.store import FileSpan, Piece, SliceUnavailable

AT_ONCE = 2 << 20
"""Bytes sent in one turn of the loop at most: a third of a millisecond."""

ASKED = 256 << 10
"""Bytes of which is asked at once whether they are still in RAM."""

LONG = 256 << 10
"""More bytes than this may wait in the kernel, up to `UNSENT`."""

UNSENT = 4 << 20

_PAGE = mmap.PAGESIZE

_NOT_SERVED = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}


class FileSender:
    """Sends on the connection whose socket has the descriptor `fd`. `ended` is called when what
    `send` has left is sent, or with the error why it never will be. `unsent` is the socket's
    TCP_NOTSENT_LOWAT."""

    def __init__(
        self,
        fd: int,
        loop: asyncio.AbstractEventLoop,
        unsent: int,
        ended: Callable[[Exception | None], None],
    ) -> None:
        self._sock = socket.socket(fileno=os.dup(fd))
        self._fd = self._sock.fileno()
        self._loop = loop
        self._unsent = unsent
        self._ended = ended
        self._pieces: deque[Piece] = deque()
        self._done = 0
        self._waits = self._is_long = False
        self._reading: asyncio.Task[None] | None = None
        self.left = 0

    @property
    def in_flight(self) -> int:
        """Bytes to be sent and bytes not acknowledged, while there are any of the first kind: it
        changes as long as the client takes something."""
        if not self.left:
            return 0
        told = fcntl.ioctl(self._fd, termios.TIOCOUTQ, b"\0\0\0\0")
        return self.left + int(struct.unpack("i", told)[0])

    def send_one(self, head: bytes, span: FileSpan) -> bool:
        """`send` of these two, while nothing waits: at once where the kernel takes them whole."""
        fd, file, offset, length, view = self._fd, span.fd, span.offset, span.length, span.view
        sent, before = 0, len(head)
        if length > LONG:
            return self.send((head, span), before + length)
        lead = min(length, _PAGE - offset % _PAGE)
        try:
            if view is None:
                sent = os.write(fd, head + os.pread(file, lead, offset))
            else:
                sent = os.writev(fd, (head, view[:lead]))
            if sent == before + lead:
                sent += os.sendfile(fd, file, offset + lead, length - lead)
                if sent == before + length:
                    return True
        except OSError:
            pass  # `send` meets it again, and deals with it
        if sent < before:
            return self.send((head[sent:], span), before + length - sent)
        self._done = sent - before
        return self.send((span,), before + length - sent)

    def send(self, pieces: Iterable[Piece], size: int) -> bool:
        """Sends `pieces`, `size` bytes. False: not all yet, `ended` will be called."""
        self._pieces.extend(pieces)
        self.left = size
        if size > LONG and self._sock.family != socket.AF_UNIX:
            self._is_long = True
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT)
        try:
            if self._push():
                self._settle()
                return True
        except OSError as error:
            self._settle()
            self._loop.call_soon(self._ended, error)
            return False
        self._wait()
        return False

    def close(self) -> None:
        """Lets go of everything; `ended` is not called."""
        self._ended = _nobody
        self._settle()
        self._sock.close()

    def _go_on(self) -> None:
        try:
            if not self._push(waited=True):
                return
        except OSError as error:
            self._end(error)
        else:
            self._end(None)

    def _end(self, error: Exception | None) -> None:
        self._settle()
        self._ended(error)

    async def _read_again(self, span: FileSpan, skip: int) -> None:
        """Goes on with what the device gives back of a piece."""
        try:
            piece = await self._loop.run_in_executor(None, span.read_again, skip)
        except (OSError, SliceUnavailable) as error:
            self._reading = None
            self._end(error)
            return
        self._reading = None
        self._pieces[0], self._done = piece, 0
        self._wait()

    def _wait(self) -> None:
        self._waits = True
        self._loop.add_writer(self._fd, self._go_on)

    def _wait_no_more(self) -> None:
        if self._waits:
            self._waits = False
            self._loop.remove_writer(self._fd)

    def _settle(self) -> None:
        self._wait_no_more()
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None
        if self._is_long:
            self._is_long = False
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, self._unsent)
        self._pieces.clear()
        self._done = 0

    def _push(self, waited: bool = False) -> bool:
        """Whether all is sent. Raises OSError."""
        pieces, stop = self._pieces, self.left - AT_ONCE
        try:
            while pieces:
                if self.left <= stop:
                    return False
                piece = pieces[0]
                most = AT_ONCE
                if waited and isinstance(piece, FileSpan) and piece.may_leave:
                    most = min(ASKED, len(piece) - self._done)
                    if not piece.is_resident(self._done, most):
                        self._wait_no_more()
                        reading = self._read_again(piece, self._done)
                        self._reading = self._loop.create_task(reading)
                        return False
                sent = self._send_some(piece, most)
                self.left -= sent
                self._done += sent
                if self._done >= len(piece):
                    pieces.popleft()
                    self._done = 0
        except BlockingIOError:
            return False
        return True

    def _send_some(self, piece: Piece, most: int) -> int:
        if isinstance(piece, FileSpan):
            offset, length = piece.offset + self._done, min(most, piece.length - self._done)
            try:
                sent = os.sendfile(self._fd, piece.fd, offset, length)
            except OSError as error:
                if error.errno not in _NOT_SERVED:
                    raise
                sent = self._sock.send(os.pread(piece.fd, length, offset))
            if not sent:
                raise OSError(errno.EIO, "a file is shorter than it was")
            return sent
        return self._sock.send(memoryview(piece)[self._done :] if self._done else piece)


def _nobody(_: Exception | None) -> None:
    """Is told when a sender has been closed."""
