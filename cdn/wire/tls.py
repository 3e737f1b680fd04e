"""TLS on a listener: the handshake that comes before HTTP, and the certificate by server name.

Strategy: every handshake begins on one context, made once and never replaced, which holds the
ticket keys: made before a fork, it lets a session be resumed at any worker, and after a reload.
What a reload replaces is the table of certificates behind it. A handshake has a Task of its own;
what fails is counted by reason and told to nobody else, since any port scan makes thousands.

The Host of a request is not compared with the server name (421, RFC 9110 §15.5.20, is not sent):
the name chose a certificate and nothing else, the cache key is made of Host, there are no client
certificates to mix up, and HTTP/1.1 clients do not coalesce connections.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import cast

from cdn.wire.rim import Connection, Rim

ALPN = ("http/1.1",)

AT_ONCE = 64
"""Connections accepted in a row, before others have their turn."""

PAUSE = 1.0
"""Seconds without accepting, where the system has no room for a connection."""

_REASONS = {
    "HTTP_REQUEST": "not-tls",
    "WRONG_VERSION_NUMBER": "not-tls",
    "UNSUPPORTED_PROTOCOL": "version",
    "TLSV1_ALERT_PROTOCOL_VERSION": "version",
    "NO_SHARED_CIPHER": "cipher",
    "NO_SHARED_GROUPS": "cipher",
    "NO_SUITABLE_KEY_SHARE": "cipher",
    "NO_SUITABLE_SIGNATURE_ALGORITHM": "cipher",
    "NO_SHARED_SIGNATURE_ALGORITHMS": "cipher",
}
"""OpenSSL's words, and those of our counter."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """`names` are DNS names in lower case, `*.` for one label. `context` holds chain and key; of
    its settings only ALPN counts, which is set here."""

    names: tuple[str, ...]
    context: ssl.SSLContext


@dataclass(slots=True)
class TlsCounters:
    """`handshakes` by protocol version and "full" or "resumed"; `failures` by reason: closed,
    timeout, not-tls, version, cipher, certificate (the client refused it), other."""

    handshakes: Counter[tuple[str, str]] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)


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
    """Accepts from `sock` from now on. It accepts by itself: an `asyncio.Server` tells nobody of
    handshakes that fail. What is here counts as the rim's connections, so that draining waits.

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
            _Handshake(self._shake(sock), self._rim)

    async def _shake(self, sock: socket.socket) -> None:
        deadlines = self._rim.deadlines
        try:
            transport, _ = await self._loop.connect_accepted_socket(
                self._connection,
                sock,
                ssl=self._context.ssl,
                ssl_handshake_timeout=deadlines.head,
                # Until the client has taken all that was sent and said goodbye, too.
                ssl_shutdown_timeout=deadlines.stall,
            )
        except OSError as error:
            self._counters.failures[_reason(error)] += 1
            return
        done = transport.get_extra_info("ssl_object")
        if done is None:  # lost without an error
            self._counters.failures["closed"] += 1
            return
        kind = "resumed" if done.session_reused else "full"
        self._counters.handshakes[done.version(), kind] += 1
        if self._rim.draining:
            # After what came together with the handshake's end.
            connection = cast(Connection, transport.get_protocol())
            self._loop.call_soon(connection.close_if_idle)


class _Handshake:
    """A connection of the rim until TLS stands."""

    def __init__(self, work: Coroutine[None, None, None], rim: Rim) -> None:
        self._rim = rim
        self._task = asyncio.get_running_loop().create_task(work)
        self._task.add_done_callback(self._end)
        rim.connections.add(self)
        rim.emptied.clear()

    def _end(self, _: asyncio.Task[None]) -> None:
        self._rim.connections.discard(self)
        if not self._rim.connections:
            self._rim.emptied.set()

    def close_if_idle(self) -> None:
        """It may be about to ask, which its protocol will know."""

    def abort(self) -> None:
        """Draining is over."""
        self._task.cancel()


def _reason(error: OSError) -> str:
    if not isinstance(error, ssl.SSLError):
        return "timeout" if isinstance(error, ConnectionAbortedError) else "closed"
    told = error.reason or ""
    if "ALERT" in told and ("CERTIFICATE" in told or "UNKNOWN_CA" in told):
        return "certificate"
    return _REASONS.get(told, "other")
