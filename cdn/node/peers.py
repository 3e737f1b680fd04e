"""A worker among the others of its node: its place, and the wiring to them.

Strategy: a `Place` is all that a worker must be told to find the others: a directory, whose files
are named for the supervisor's generation and the worker's index. Each worker answers there twice:
other workers on `.sock` (`gateway.owners`), the admin process on `.admin` (the admin API itself).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass

from cdn.control.workers import ADMIN_SUFFIX
from cdn.gateway.exchange import Handler
from cdn.gateway.filling import Complain
from cdn.gateway.gateway import Gateway
from cdn.gateway.owners import OtherWorkers, OwnedHandler, OwnerCounters, OwnerHandler
from cdn.hashing.digest import SHARDS
from cdn.upstream.owner_router import OwnerRouter, UnixClient, shards_of, socket_name
from cdn.wire.server import Http1Server


@dataclass(frozen=True, slots=True)
class Place:
    """The worker `index` of `workers`; `restarts` is how often one had to be started in this place
    because the one before had died."""

    directory: str
    generation: str
    index: int
    workers: int
    restarts: int = 0

    @property
    def socket(self) -> str:
        """Where it answers the other workers."""
        return os.path.join(self.directory, socket_name(self.generation, self.index))

    @property
    def admin(self) -> str:
        """Where it answers the admin process, which counts each life by itself."""
        life = f"{self.generation}-{self.index}-{self.restarts}"
        return os.path.join(self.directory, life + ADMIN_SUFFIX)

    def owns(self, shard: int) -> bool:
        """Whether it writes that shard of the keys."""
        return shard % self.workers == self.index

    def share(self, memory: int) -> int:
        """Its part of the node's bytes: as much as it owns of the keys."""
        return memory * shards_of(self.index, self.workers) // SHARDS


class Peers:
    """Made on the worker's loop. `monotonic` gives seconds for the pool."""

    def __init__(
        self,
        place: Place,
        monotonic: Callable[[], float],
        clock: Callable[[], float],
        complain: Complain,
    ) -> None:
        self._place = place
        self._clock = clock
        self._complain = complain
        self._client = UnixClient(monotonic)
        self._router = OwnerRouter(
            self._client, place.directory, place.generation, place.index, place.workers
        )
        self.workers = OtherWorkers(self._router, complain)
        self.counters = OwnerCounters()
        self._server: Http1Server | None = None

    def handler(self, gateway: Gateway, date: Callable[[], str]) -> Handler:
        """What answers viewers; the other workers are answered, once started, by `gateway`."""
        # No log line and no count of its own: the worker that the viewer asked has both.
        self._server = Http1Server(
            OwnedHandler(gateway),
            name=gateway.name,
            clock=self._clock,
            date=date,
            on_finished=lambda *_: None,
        )
        return OwnerHandler(gateway, self._router, self._clock, self._complain, self.counters)

    async def start(self) -> None:
        """Answers the other workers."""
        assert self._server is not None
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._place.socket)  # of the worker that died here
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(self._place.socket)
        await self._server.start(sockets=[sock])

    async def drain(self, limit: float) -> None:
        """Finishes what the others wait for."""
        assert self._server is not None
        await self._server.drain(limit)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._place.socket)

    async def close(self) -> None:
        """Ends the connections to the others."""
        await self._client.close()


async def drain_both(viewers: Http1Server, peers: Peers, grace: float, limit: float) -> None:
    """Ends a worker's listeners. A connection that was accepted just now, here or at another worker
    that ends, has `grace` seconds for its first request: nobody has told its client."""
    viewers.stop_accepting()
    await asyncio.sleep(grace)
    await asyncio.gather(viewers.drain(limit), peers.drain(limit))
