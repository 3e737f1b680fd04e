"""A crowd asks for one cold film while it trickles out of the origin: it leaves the origin once."""

import asyncio
import contextlib

import pytest

from tests.kit import Pattern, RawClient, Reply, ScriptedOrigin
from tests.scenarios.running import small_cdn

FILM = Pattern(20 << 20)
PACE = 10 << 20
CROWD = 100
FIELDS = [("Cache-Control", "max-age=3600"), ("ETag", '"film"'), ("Content-Type", "video/mp4")]


async def watch(client: RawClient, origin: ScriptedOrigin) -> bool:
    """Checks every byte; whether the first one came before the origin had sent the last."""
    incoming = await client.read_head()
    assert incoming.status == 200
    early, received = None, 0
    async for piece in incoming:
        if early is None:
            early = not origin.requests[0].finished
        assert FILM.verify(received, piece), f"wrong bytes after {received}"
        received += len(piece)
    assert incoming.complete, f"broken after {received} bytes"
    assert received == len(FILM)
    return bool(early)


# An eighth of the memory is the most that one object may take of it.
@pytest.mark.parametrize(
    ("memory", "stored"), [("512MiB", True), ("64MiB", False)], ids=["storable", "too large"]
)
async def test_a_hundred_clients_on_two_edges_cost_the_origin_one_request(tmp_path, memory, stored):
    async with ScriptedOrigin() as origin, contextlib.AsyncExitStack() as running:
        film = Reply(fields=FIELDS, content=FILM, trickle=PACE, honours_ranges=True)
        origin.on("/film", film)
        cdn = await running.enter_async_context(
            small_cdn(tmp_path, origin.url, edges=("edge-a", "edge-b"), memory=memory)
        )
        urls = [edge.url for edge in cdn.edges.values()]
        clients = [
            await running.enter_async_context(await RawClient.connect(urls[n % 2]))
            for n in range(CROWD)
        ]
        # One Host on both edges: it is what the film is keyed by.
        for client in clients:
            await client.send_request("/film", [("Host", "films.example")])
        early = await asyncio.gather(*(watch(client, origin) for client in clients))
        assert early == [True] * CROWD
        assert origin.count() == 1, [request.fields for request in origin.requests]

        again = await clients[0].get("/film", [("Host", "films.example"), ("Range", "bytes=0-9")])
        assert again.status == 206
        assert again.content == FILM.read(0, 10)
        assert origin.count() == (1 if stored else 2)
