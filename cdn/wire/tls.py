"""TLS on a listener: the handshake that comes before HTTP, and the certificate by server name.

Strategy: every handshake begins on one context, made once and never replaced, which holds the
ticket keys: made before a fork, it lets a session be resumed at any worker, and after a reload.
What a reload replaces is the table of certificates behind it. From the first byte on a connection
is a `TlsTransport`; a handshake that fails is counted by reason and told to nobody else, since any
port scan makes thousands.

The Host of a request is not compared with the server name (421, RFC 9110 §15.5.20, is not sent):
the name chose a certificate and nothing else, the cache key is made of Host, there are no client
certificates to mix up, and HTTP/1.1 clients do not coalesce connections.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cdn.wire.rim import Rim
from cdn.wire.tls_counters import TlsCounters
from cdn.wire.tls_transport import TlsTransport

ALPN = ("http/1.1",)

AT_ONCE = 64
"""Connections accepted in a row, before others have their turn."""

PAUSE = 1.0
"""Seconds without accepting, where the system has no room for a connection."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """`names` are DNS names in lower case, `*.` for one label. `context` holds chain and key; of
    its settings only ALPN counts, which is set here."""

    names: tuple[str, ...]
    context: ssl.SSLContext


class TlsContext:
    """What handshakes begin on: TLS 1.2 and later, the standard library's ciphers."""

    def __init__(self, certificates: Sequence[Certificate]) -> None:
        self.ssl = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        # Not of the certificate's context: these were settled before the server name was read.
        self.ssl.minimum_version = ssl.TLSVersion.TLSv1_2
        self.ssl.sni_callback = self._choose
        self.use(certificates)

    def use(self, certificates: Sequence[Certificate]) -> None:
        """From the next handshake on. The first is also for clients that name no server, or one
        that is in none; where several have a name the first one counts."""
        by_name: dict[str, ssl.SSLContext] = {}
        for certificate in certificates:
            certificate.context.set_alpn_protocols(list(ALPN))
            for name in certificate.names:
                by_name.setdefault(name, certificate.context)
        self._default = certificates[0].context
        self._by_name = by_name

    def _choose(self, handshake: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        handshake.context = self.chosen(name)

    def chosen(self, name: str | None) -> ssl.SSLContext:
        """The context for a server name: its own, else that of its wildcard, else the first."""
        if not name:
            return self._default
        name = name.lower().rstrip(".")
        exact = self._by_name.get(name)
        if exact is not None:
            return exact
        # RFC 6125 §6.4.3: a wildcard is the whole leftmost label, and only that.
        return self._by_name.get(f"*.{name.partition('.')[2]}", self._default)


class TlsListener:
    """Accepts from `sock` from now on. It does so itself: uvloop's server drops connections without
    a word where there is no room. What is accepted is the rim's, so that draining waits.

    `connection` makes the protocol that has a connection once its handshake is done.
    """

    def __init__(
        self,
        sock: socket.socket,
        rim: Rim,
        context: TlsContext,
        counters: TlsCounters,
        connection: Callable[[], asyncio.Protocol],
    ) -> None:
        self.sock = sock
        self._rim = rim
        self._context = context
        self._counters = counters
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._pause: asyncio.TimerHandle | None = None
        self._adopting: set[asyncio.Task[None]] = set()
        sock.setblocking(False)
        self._listen()

    def close(self) -> None:
        """No more from here; handshakes under way go on."""
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self.sock)
        self.sock.close()

    def _listen(self) -> None:
        self._loop.add_reader(self.sock, self._accept)

    def _accept(self) -> None:
        for _ in range(AT_ONCE):
            try:
                sock, _ = self.sock.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:
                # Out of descriptors: without a pause this would be called again at once.
                self._loop.remove_reader(self.sock)
                self._pause = self._loop.call_later(PAUSE, self._listen)
                self._rim.report(f"cannot accept connections: {error.strerror}; again in a second")
                return
            sock.setblocking(False)
            context, counters = self._context.ssl, self._counters
            transport = TlsTransport(self._rim, context, counters, self._connection)
            task = self._loop.create_task(self._adopt(sock, transport))
            self._adopting.add(task)
            task.add_done_callback(self._adopting.discard)

    async def _adopt(self, sock: socket.socket, transport: TlsTransport) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: transport, sock)
        except OSError as error:
            transport.connection_lost(error)
