"""HTTP/1.1 to upstreams: connect, keep, reuse, and translate what goes wrong.

Strategy: a stack of idle connections per endpoint and TLS name, newest first, so that what is not
needed grows old and is closed. A pooled connection may have been closed by its peer just as we
wrote to it; that, and only that, is tried again here (RFC 9112 §9.3.1). All other retries are the
router's. Nothing is followed, decoded, remembered or added.
"""

from __future__ import annotations

import asyncio
import functools
import socket
import ssl
from collections.abc import Callable

from cdn.upstream.begun import Begun
from cdn.upstream.connection import Connection, Room, UpstreamCounters
from cdn.upstream.errors import (
    CertificateRefused,
    ClosedBeforeHead,
    ConnectRefused,
    ConnectTimeout,
    NameNotResolved,
    TlsFailed,
    UpstreamError,
)
from cdn.upstream.exchange import (
    Deadlines,
    Endpoint,
    UpstreamRequest,
    UpstreamResponse,
    repeatable,
)
from cdn.upstream.http1 import encode_head

_Pool = dict[Connection, float]
"""Idle connections with when they became so, oldest first."""

FRESH = 1.0
"""Seconds that a connection may have been idle for a request that must not be sent again: peers
close theirs after some seconds, perhaps just when we write."""


class UpstreamClient:
    """Sends requests to endpoints and streams their answers.

    `clock` gives seconds that never step back. At most `idle_per_endpoint` connections are kept
    for an endpoint between requests, each for `idle_seconds` (up to twice that when no request
    comes by). `ssl_context` replaces the system's certificates and verification.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        idle_per_endpoint: int = 64,
        idle_seconds: float = 60.0,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self.counters = UpstreamCounters()
        self._clock = clock
        self._idle_per_endpoint = idle_per_endpoint
        self._idle_seconds = idle_seconds
        self._ssl_context = ssl_context
        self._room = Room()
        self._open: set[Connection] = set()
        self._pools: dict[tuple[Endpoint, str | None], _Pool] = {}
        self._sweep_timer: asyncio.TimerHandle | None = None

    async def fetch(
        self,
        endpoint: Endpoint,
        request: UpstreamRequest,
        deadlines: Deadlines,
        begun: Begun | None = None,
    ) -> UpstreamResponse:
        """The answer, its head arrived; with `begun`, what came of that. Raises a kind of
        `UpstreamError`; ValueError for a request that must not be sent, which is a bug of the
        caller's."""
        head = encode_head(request)
        pool = self._pool(endpoint, request.tls_name)
        may_repeat = repeatable(request)
        if begun is not None:
            connection = begun.connection
        else:
            connection = self._take_idle(pool, self._idle_seconds if may_repeat else FRESH)
        if connection is not None:
            try:
                if begun is not None:
                    return await begun.result()
                return await connection.exchange(head, request, deadlines)
            except ClosedBeforeHead:
                # RFC 9112 §9.3.1: closed while idle, and safe to ask again (RFC 9110 §9.2.2).
                if connection.answer_begun or not may_repeat:
                    raise
        connection = await self._connect(endpoint, request.tls_name, pool, deadlines.connect)
        return await connection.exchange(head, request, deadlines)

    def begin(
        self,
        endpoint: Endpoint,
        head: bytes,
        tls_name: str | None,
        deadlines: Deadlines,
        begun: Begun,
    ) -> bool:
        """Sends `head`, a GET without content, where a kept connection is at hand."""
        connection = self._take_idle(self._pool(endpoint, tls_name), self._idle_seconds)
        if connection is None:
            return False
        connection.begin(head, "GET", deadlines, begun)
        return True

    async def close(self) -> None:
        """Closes every connection; what is in flight fails. Returns when all are closed."""
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()
            self._sweep_timer = None
        if self._open:
            gone = [connection.lost for connection in self._open]
            for connection in self._open:
                connection.close()
            await asyncio.wait(gone)

    # -- the pool

    def _pool(self, endpoint: Endpoint, tls_name: str | None) -> _Pool:
        pool = self._pools.get((endpoint, tls_name))
        if pool is None:
            pool = self._pools[endpoint, tls_name] = _Pool()
        return pool

    def _take_idle(self, pool: _Pool, most: float) -> Connection | None:
        """The one that was idle last, for less than `most` seconds."""
        while pool:
            connection, since = pool.popitem()
            idle = self._clock() - since
            if connection.usable() and idle < self._idle_seconds:
                if idle < most:
                    self.counters.reused += 1
                    return connection
                pool[connection] = since
                return None
            connection.close()
        return None

    def _keep(self, pool: _Pool, connection: Connection) -> None:
        pool[connection] = self._clock()
        connection.resume_reading()  # to hear of its end, and of bytes nobody asked for
        if len(pool) > self._idle_per_endpoint:
            oldest = next(iter(pool))
            del pool[oldest]
            oldest.close()
        if self._sweep_timer is None:
            self._sweep_timer = connection.loop.call_later(self._idle_seconds, self._sweep)

    def _forget(self, pool: _Pool, connection: Connection) -> None:
        pool.pop(connection, None)
        self._open.discard(connection)

    def _sweep(self) -> None:
        self._sweep_timer = None
        newest_too_old = self._clock() - self._idle_seconds
        for pool in self._pools.values():
            for connection, since in pool.items():
                if since <= newest_too_old:
                    connection.close()
        if any(self._pools.values()):
            loop = asyncio.get_running_loop()
            self._sweep_timer = loop.call_later(self._idle_seconds, self._sweep)

    # -- connecting

    async def _connect(
        self, endpoint: Endpoint, tls_name: str | None, pool: _Pool, seconds: float
    ) -> Connection:
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        try:
            async with asyncio.timeout_at(until):
                addresses = await loop.getaddrinfo(
                    endpoint.host, endpoint.port, type=socket.SOCK_STREAM
                )
        except TimeoutError:
            raise ConnectTimeout(str(endpoint), f"no address within {seconds:g} s") from None
        except (OSError, UnicodeError) as error:
            raise NameNotResolved(str(endpoint), f"name not resolved: {error}") from None

        def protocol() -> Connection:
            return Connection(
                endpoint,
                self.counters,
                loop,
                self._room,
                functools.partial(self._keep, pool),
                functools.partial(self._forget, pool),
            )

        tls = endpoint.scheme == "https"
        failure: OSError = OSError("no address")
        for tried, (family, _, _, _, address) in enumerate(addresses):
            # Each address gets its share of what is left, lest a dead first one eat it all.
            share = (until - loop.time()) / (len(addresses) - tried)
            try:
                async with asyncio.timeout(share):
                    # Both loops set TCP_NODELAY.
                    _, connection = await loop.create_connection(
                        protocol,
                        str(address[0]),
                        endpoint.port,
                        family=family,
                        ssl=self._tls() if tls else None,
                        server_hostname=(tls_name or endpoint.host) if tls else None,
                    )
            except OSError as error:
                failure = error
                continue
            if not connection.lost.done():
                self._open.add(connection)
            self.counters.opened += 1
            return connection
        raise _translated(endpoint, failure, seconds) from None

    def _tls(self) -> ssl.SSLContext:
        if self._ssl_context is None:
            self._ssl_context = ssl.create_default_context()
        return self._ssl_context


def _translated(endpoint: Endpoint, error: OSError, seconds: float) -> UpstreamError:
    name = str(endpoint)
    if isinstance(error, TimeoutError):
        return ConnectTimeout(name, f"no connection within {seconds:g} s")
    if isinstance(error, ssl.SSLCertVerificationError):
        return CertificateRefused(name, f"certificate refused: {error}")
    hung_up = isinstance(error, ConnectionResetError | ConnectionAbortedError)
    if isinstance(error, ssl.SSLError) or (hung_up and endpoint.scheme == "https"):
        return TlsFailed(name, f"TLS handshake failed: {error}")
    return ConnectRefused(name, f"cannot connect: {error}")
