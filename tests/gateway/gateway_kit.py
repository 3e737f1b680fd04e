"""What the gateway's scenarios share: a site before an origin, fields by name, nothing left over.

Strategy: each scenario ends with `settled`, so a seat, a flight, a task, a connection or a reserved
byte that is left behind fails it.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from cdn.semantics.ranges import ByteRange
from cdn.storage.memory import MemoryStore
from tests.kit import ManualClock, RawClient, Received, Reply, ScriptedOrigin, get
from tests.kit.cdn_nodes import LocalNode, local_edge, local_shield

FRESH = ("Cache-Control", "max-age=300")
ETAG = ("ETag", '"v1"')
HOST = ("Host", "www.example.com")
MIB = 1 << 20


def storable(content=b"content", *fields, **rest) -> Reply:
    return Reply(fields=[FRESH, ETAG, *fields], content=content, **rest)


def store_keys(_name: str) -> dict[str, str]:
    """Where the node of that name keeps responses: a test may say on a disk."""
    return {}


async def settled(node: LocalNode) -> None:
    """Waits until nothing is under way, and looks for what was left behind."""
    inner = node.node
    client, filling = inner._upstreams.client, inner.gateway.filling
    async with asyncio.timeout(5):
        while tasks := inner.background._tasks:
            await asyncio.wait(set(tasks))
        idle = {connection for pool in client._pools.values() for connection in pool}
        for connection in client._open - idle:
            await connection.lost
    assert len(filling._flights) == 0
    assert not filling.plain
    assert not filling._alone
    assert not filling._streams
    store = inner._store
    if isinstance(store, MemoryStore):
        assert store._reserved == inner.server._fast.hot.size
    else:
        await store.flush()
        assert not store._arrivals._by_key
    assert not any(inner._upstreams.in_flight.values())


@dataclass
class Site:
    """An origin, an edge before it, and what passes between them."""

    origin: ScriptedOrigin
    edge: LocalNode
    clock: ManualClock

    async def get(self, target="/a", *fields, method="GET", content=None) -> Received:
        url = self.edge.url + target
        return await get(url, [HOST, *fields], method=method, content=content)

    async def open(self) -> RawClient:
        return await RawClient.connect(self.edge.url)

    async def ask(self, target="/a", *fields, method="GET", content=None) -> RawClient:
        """A client whose request has been sent."""
        client = await self.open()
        await client.send_request(target, [HOST, *fields], method=method, content=content)
        return client

    def joined(self) -> int:
        """How many clients hold a seat at some fill."""
        filling = self.edge.node.gateway.filling
        fills = {*filling._alone, *(fill for _, fill in filling._flights.under_way())}
        return sum(len(fill._seats) for fill in fills)

    async def all_joined(self, n: int) -> None:
        """Until `n` clients wait at fills: they have been read off their sockets by then."""
        async with asyncio.timeout(5):
            while self.joined() < n:
                await asyncio.sleep(0)

    def stored(self, target="/a", host=HOST[1]):
        key = f"http://{host}{target}".encode()
        found = self.edge.node._store.lookup(key)
        assert found is not None, "not in the page cache any more"
        return found

    def stored_content(self, target="/a") -> bytes:
        (found,) = self.stored(target)
        return b"".join(found.ready([ByteRange(0, found.response.length)]))


@contextlib.asynccontextmanager
async def site(**keys) -> AsyncIterator[Site]:
    """An edge straight before an origin; `keys` as for `local_edge`."""
    clock, keys = ManualClock(), store_keys("edge") | keys
    async with ScriptedOrigin() as origin, local_edge(origin.url, clock=clock, **keys) as edge:
        yield Site(origin, edge, clock)
        await settled(edge)


@dataclass
class Tiers(Site):
    """A site with a shield between."""

    shield: LocalNode


@contextlib.asynccontextmanager
async def tiers(shield=None, **keys) -> AsyncIterator[Tiers]:
    """An edge before a shield before an origin; `shield` and `keys` as in their files."""
    clock, keys = ManualClock(), store_keys("edge") | keys
    of_shield = store_keys("shield") | (shield or {})
    async with (
        ScriptedOrigin() as origin,
        local_shield(origin.url, clock=clock, **of_shield) as behind,
        local_edge(shields={"shield-yokohama": behind.url}, clock=clock, **keys) as edge,
    ):
        yield Tiers(origin, edge, clock, behind)
        await settled(edge)
        await settled(behind)
