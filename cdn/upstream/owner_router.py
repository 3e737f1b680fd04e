"""To the worker of this node that owns a key.

Strategy: 16 fixed shards of the key's digest, dealt out to the workers in turn, so that every
worker knows every owner from the configuration alone. Workers answer each other in HTTP/1.1 on Unix
sockets in a directory of mode 0700; a socket there is a worker that lives, of this generation or,
during an upgrade, of the one before. A worker binds its socket itself, so it is refused at once
when the worker is dead, and nobody waits for the next one.
"""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Callable

from cdn.hashing.digest import SHARDS, key_digest, shard_of
from cdn.upstream.client import UpstreamClient
from cdn.upstream.connection import Connection
from cdn.upstream.errors import (
    ConnectRefused,
    ConnectTimeout,
    MalformedResponse,
    UpstreamError,
)
from cdn.upstream.exchange import Deadlines, Endpoint, UpstreamRequest, UpstreamResponse

OWNER_DEADLINES = Deadlines(connect=10.0, first_byte=600.0, idle=600.0)
"""An owner that waits for its upstream is not to be given up before the upstream is. The kernel
connects or refuses at once: who takes long over it is this worker itself, under too much load to be
given more."""

TELLING_DEADLINES = Deadlines(connect=10.0, first_byte=10.0, idle=10.0)
"""What another worker is told it does at once, or it does nothing at all any more."""

SUFFIX = ".sock"


def owner_of(key: bytes, workers: int) -> int:
    """The index of the worker, of so many, that owns the primary key."""
    return shard_of(key_digest(key)) % workers


def shards_of(index: int, workers: int) -> int:
    """How many of the shards the worker `index` owns."""
    return len(range(index, SHARDS, workers))


def socket_name(generation: str, index: int) -> str:
    """The file on which a worker of a supervisor's `generation` answers the others."""
    return f"{generation}-{index}{SUFFIX}"


class UnixEndpoint(Endpoint):
    """A Unix socket: `host` is its path."""

    __slots__ = ()

    def __str__(self) -> str:
        return f"unix:{self.host}"


class UnixClient(UpstreamClient):
    """The same pool and the same translation of errors, over Unix sockets."""

    async def _connect(
        self,
        endpoint: Endpoint,
        tls_name: str | None,
        pool: dict[Connection, float],
        seconds: float,
    ) -> Connection:
        loop = asyncio.get_running_loop()

        def protocol() -> Connection:
            return Connection(
                endpoint,
                self.counters,
                loop,
                self._room,
                functools.partial(self._keep, pool),
                functools.partial(self._forget, pool),
            )

        try:
            async with asyncio.timeout(seconds):
                _, connection = await loop.create_unix_connection(protocol, endpoint.host)
        except TimeoutError:
            raise ConnectTimeout(str(endpoint), f"no connection within {seconds:g} s") from None
        except OSError as error:
            raise ConnectRefused(str(endpoint), f"cannot connect: {error}") from None
        if not connection.lost.done():
            self._open.add(connection)
        self.counters.opened += 1
        return connection


class OwnerRouter:
    """A `Router` from the worker `index` of a node to the others; `directory` holds their sockets.

    There is one try: whoever asks knows what to do without the owner.
    """

    def __init__(
        self, client: UnixClient, directory: str, generation: str, index: int, workers: int
    ) -> None:
        self._client = client
        self._directory = directory
        self._index = index
        self._workers = workers
        self._own_name = socket_name(generation, index)
        self._endpoints = [
            self._endpoint(socket_name(generation, other)) for other in range(workers)
        ]

    def _endpoint(self, name: str) -> UnixEndpoint:
        return UnixEndpoint("http", os.path.join(self._directory, name), 0)

    def mine(self, primary_key: bytes) -> bool:
        """Whether this worker is the key's owner."""
        return owner_of(primary_key, self._workers) == self._index

    async def fetch(self, primary_key: bytes, request: UpstreamRequest) -> UpstreamResponse:
        """The owner's answer. Raises UpstreamError."""
        owner = self._endpoints[owner_of(primary_key, self._workers)]
        return await self._client.fetch(owner, request, OWNER_DEADLINES)

    async def tell_others(self, message: Callable[[], UpstreamRequest]) -> list[UpstreamError]:
        """Sends every other worker a request whose answer has no content, and returns when all have
        answered: with the errors of those that live and did not. `message` makes it anew for each.
        """
        names = (name for name in os.listdir(self._directory) if name.endswith(SUFFIX))
        others = [self._endpoint(name) for name in names if name != self._own_name]
        errors = await asyncio.gather(*(self._tell(other, message()) for other in others))
        return [error for error in errors if error is not None]

    async def _tell(self, other: Endpoint, message: UpstreamRequest) -> UpstreamError | None:
        try:
            answer = await self._client.fetch(other, message, TELLING_DEADLINES)
        except ConnectRefused:
            return None  # dead, and its store with it
        except UpstreamError as error:
            return error
        answer.abort()
        if answer.head.status != 204:
            return MalformedResponse(str(other), f"it answered {answer.head.status}")
        return None
