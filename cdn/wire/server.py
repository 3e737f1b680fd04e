"""Listeners for HTTP/1.1, plain or over TLS: bound here or inherited, drained on request.

Strategy: a listener is a bound socket, however it came to be (this process, a supervisor, a Unix
path); the server only accepts from it. Draining is a count of connections that reaches nought.
Over TLS all is the same but the scheme: two rims that share all else.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial

from cdn.gateway.exchange import Handler
from cdn.gateway.plain import PlainMisses
from cdn.wire.errors import ErrorAnswers
from cdn.wire.fastpath import FastPath
from cdn.wire.field_block import FieldMemory
from cdn.wire.http1 import Http1Connection
from cdn.wire.link import UNSENT
from cdn.wire.rim import Counters, Deadlines, OnFinished, Rim
from cdn.wire.tls import TlsContext, TlsListener
from cdn.wire.tls_counters import TlsCounters

Address = tuple[str, int]
"""Host and port."""

BACKLOG = 4096
"""Connections that the kernel keeps until they are accepted (it cuts this to somaxconn)."""


class ListenFailed(Exception):
    """An address cannot be listened on; the message says which, why, and the mend."""


def bind(host: str, port: int) -> socket.socket:
    """A bound TCP socket for `host` (a name, or an address without brackets); port 0 is any.

    "::" is IPv6 alone, so that 0.0.0.0 may stand beside it. Raises ListenFailed.
    """
    shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = infos[0]
        sock = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ListenFailed(f"cannot listen on {shown}: {error.strerror}; mend `listen`") from error
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
    except OSError as error:
        sock.close()
        mend = "choose a free port of an address of this machine"
        raise ListenFailed(f"cannot listen on {shown}: {error.strerror}; {mend}") from error
    return sock


class Http1Server:
    """Serves `handler` on any number of listeners.

    `name` is the node's (a token, for Proxy-Status); `clock` the wall time in seconds; `date` an
    IMF-fixdate for the rim's own answers; `tls` is needed where some listeners speak it. With
    `fast` hot answers are given again without the handler, and plain misses go up by `misses`.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        name: str,
        clock: Callable[[], float],
        date: Callable[[], str],
        on_finished: OnFinished,
        tls: TlsContext | None = None,
        deadlines: Deadlines = Deadlines(),  # noqa: B008  # immutable
        report: Callable[[str], None] = lambda _: None,
        fast: FastPath | None = None,
        misses: PlainMisses | None = None,
    ) -> None:
        errors = ErrorAnswers(name, date)
        self._rim = Rim(handler, errors, "http", clock, on_finished, deadlines, report)
        if fast is not None:
            self._rim.fast, self._rim.memory = fast, FieldMemory()
            self._rim.misses = misses
        self._fast = fast
        self._tls_rim = replace(self._rim, scheme="https")
        self._tls = tls
        self._servers: list[asyncio.Server] = []
        self._tls_listeners: list[TlsListener] = []
        self.tls_counters = TlsCounters()

    @property
    def counters(self) -> Counters:
        return self._rim.counters

    @property
    def connections(self) -> int:
        """How many are open now."""
        return len(self._rim.connections)

    @property
    def addresses(self) -> list[Address]:
        """Each plain TCP listener's, the ports that were 0 now known."""
        return _addresses(sock for server in self._servers for sock in server.sockets)

    @property
    def tls_addresses(self) -> list[Address]:
        """The same of those that speak TLS."""
        return _addresses(listener.sock for listener in self._tls_listeners)

    async def start(
        self,
        listeners: Iterable[Address] = (),
        sockets: Iterable[socket.socket] = (),
        *,
        tls_listeners: Iterable[Address] = (),
        tls_sockets: Iterable[socket.socket] = (),
    ) -> None:
        """Accepts from `listeners`, bound here, and from `sockets`, bound already (TCP or Unix;
        the server closes them). Raises ListenFailed, and then listens on none of its own."""
        bound: list[socket.socket] = []
        bound_tls: list[socket.socket] = []
        try:
            bound.extend(bind(host, port) for host, port in listeners)
            bound_tls.extend(bind(host, port) for host, port in tls_listeners)
        except ListenFailed:
            for sock in (*bound, *bound_tls):
                sock.close()
            raise
        for sock in (*bound, *sockets):
            self._servers.append(await self._listen(sock))
        for sock in (*bound_tls, *tls_sockets):
            self._tls_listeners.append(self._listen_tls(sock))

    async def _listen(self, sock: socket.socket) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        connection = partial(Http1Connection, self._rim)
        if sock.family == socket.AF_UNIX:
            return await loop.create_unix_server(connection, sock=sock, backlog=BACKLOG)
        _leave_unsent(sock)
        return await loop.create_server(connection, sock=sock, backlog=BACKLOG)

    def _listen_tls(self, sock: socket.socket) -> TlsListener:
        assert self._tls is not None
        _leave_unsent(sock)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.listen(BACKLOG)
        connection = partial(Http1Connection, self._tls_rim)
        return TlsListener(sock, self._tls_rim, self._tls, self.tls_counters, connection)

    @property
    def fast_answers(self) -> int:
        """How many requests the fast path has answered."""
        self.settle()
        return 0 if self._fast is None else self._fast.answers

    @property
    def hot_bytes(self) -> int:
        """What hot responses take."""
        return 0 if self._fast is None else self._fast.hot.size

    def settle(self) -> None:
        """Reports every answer that was given and not been reported yet."""
        if self._fast is not None:
            self._fast.settle()

    def stop_accepting(self) -> None:
        """Closes the listeners; connections go on."""
        for server in self._servers:
            server.close()
        for listener in self._tls_listeners:
            listener.close()
        self._servers.clear()
        self._tls_listeners.clear()

    async def drain(self, limit: float) -> None:
        """Ends every connection: idle ones at once, those with a request in flight after its
        answer, and what is left after `limit` seconds by abort."""
        self.stop_accepting()
        for each in (self._rim, self._tls_rim):
            each.draining = True
            each.fast = each.misses = None  # they close no connection
        self.settle()
        rim = self._rim  # both have the same connections
        if not rim.connections:
            return
        for connection in list(rim.connections):
            connection.close_if_idle()
        try:
            async with asyncio.timeout(limit):
                await rim.emptied.wait()
        except TimeoutError:
            for connection in list(rim.connections):
                connection.abort()
            await rim.emptied.wait()


def _leave_unsent(sock: socket.socket) -> None:
    """Inherited by accepted sockets: a slow viewer costs what the network holds, not megabytes of
    kernel memory that nobody may ever read."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT)


def _addresses(sockets: Iterable[socket.socket]) -> list[Address]:
    names = (sock.getsockname() for sock in sockets)
    return [(name[0], name[1]) for name in names if isinstance(name, tuple)]
