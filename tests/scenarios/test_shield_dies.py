"""kill -9 of a shield under load: viewers notice nothing, not even in the middle of a film."""

import asyncio
import json
import signal
import sys
from itertools import count, islice
from pathlib import Path

import pytest

from cdn.hashing.ring import HashRing
from cdn.semantics.cache_key import key_of_url
from tests.kit import Counter, Gate, Pattern, RawClient, Reply, ScriptedOrigin, get
from tests.scenarios.numbered import PER_SECOND, USERS, content_of
from tests.scenarios.running import SHIELDS, finished, metric, small_cdn, started

FILM = 8 << 20
HALF = FILM // 2
FRESH = ("Cache-Control", "max-age=3600")


class Load:
    """The origin's side of the load: counts what is cold, so that a test can wait for more."""

    def __init__(self) -> None:
        self.cold = 0
        self._more = asyncio.Condition()

    def small(self, request) -> Reply:
        if request.path == "/cold":
            self.cold += 1
            self._told = asyncio.ensure_future(self._tell())
        fields = [FRESH, ("ETag", f'"{request.target}"')]
        return Reply(fields=fields, content=content_of(request.target), honours_ranges=True)

    async def _tell(self) -> None:
        async with self._more:
            self._more.notify_all()

    async def more(self, n: int) -> None:
        """Until `n` more cold requests have come."""
        enough = self.cold + n
        async with asyncio.timeout(60), self._more:
            await self._more.wait_for(lambda: self.cold >= enough)


def films_of(shield: str, edge: str, n: int) -> list[str]:
    """`n` targets that the ring gives to `shield`."""
    ring = HashRing(dict.fromkeys(SHIELDS, 1.0))
    targets = (f"/film?n={number}" for number in count())
    return list(islice((t for t in targets if ring.owner(key_of_url(edge + t)) == shield), n))


def film(target: str) -> Pattern:
    return Pattern(FILM, seed=int(target.rpartition("=")[2]))


async def watch(edge: str, target: str, under_way: Counter) -> None:
    async with await RawClient.connect(edge) as client:
        await client.send_request(target)
        incoming, received = await client.read_head(), 0
        assert incoming.status == 200
        async for piece in incoming:
            assert film(target).verify(received, piece), f"{target}: wrong after {received}"
            if not received:
                under_way.add()
            received += len(piece)
        assert incoming.complete, f"{target}: broken after {received}"
        assert received == FILM


def per_second(row: dict) -> float:
    return row["num_requests"] / (row["last_request_timestamp"] - row["start_time"])


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize("victim", SHIELDS)
async def test_no_viewer_notices_that_a_shield_was_killed(tmp_path, victim):
    load, gate, under_way = Load(), Gate(after=HALF), Counter("films under way")

    def film_reply(request) -> Reply:
        return Reply(
            fields=[FRESH, ("ETag", f'"{request.target}"')],
            content=film(request.target),
            gate=gate,
            honours_ranges=True,
        )

    async with ScriptedOrigin() as origin, small_cdn(tmp_path, origin.url) as cdn:
        edge = cdn.edge.url
        for path, script in (("/hot", load.small), ("/cold", load.small), ("/film", film_reply)):
            origin.on(path, script)
        locustfile = Path(__file__).with_name("cold_and_hot.py")
        command = [sys.executable, "-m", "locust", "-f", str(locustfile), "--headless", "--json"]
        command += ["-u", str(USERS), "-r", str(USERS), "--host", edge]
        async with started(*command) as locust:
            await load.more(500)
            films = films_of(victim, edge, 8)
            watching = [asyncio.ensure_future(watch(edge, one, under_way)) for one in films]
            await gate.reached(len(films))
            await under_way.reached(len(films))

            cdn.shields[victim].signal(signal.SIGKILL)
            await cdn.shields[victim].ended()
            gate.open()
            await asyncio.gather(*watching)
            await load.more(1000)
            locust.send_signal(signal.SIGTERM)
            told = await finished(locust)
        assert told.code == 0, told
        figures = {row["name"]: row for row in json.loads(told.out)}
        assert {row["num_failures"] for row in figures.values()} == {0}
        assert sum(map(per_second, figures.values())) > PER_SECOND / 2, "this machine is too slow"

        shields = {"tier": "shields"}
        admin = cdn.admin("edge-a")
        assert await metric(admin, "cdn_upstream_resumed_total", **shields) >= len(films)
        assert await metric(admin, "cdn_upstream_retries_total", **shields) >= 3
        assert await metric(admin, "cdn_upstream_failures_total", peer=victim) >= 3


@pytest.mark.parametrize("direct", [True, False], ids=["direct_to_origin", "shields only"])
async def test_with_every_shield_lost_an_edge_serves_what_it_may(tmp_path, direct):
    async with ScriptedOrigin() as origin, small_cdn(tmp_path, origin.url, direct=direct) as cdn:
        edge = cdn.edge.url
        stale = [("Cache-Control", "max-age=0"), ("ETag", '"old"')]
        origin.on("/stale", Reply(fields=stale, content=b"as it was", honours_conditions=True))
        origin.on("/cold", Reply(fields=[FRESH], content=b"new"))
        assert (await get(f"{edge}/stale")).content == b"as it was"
        for shield in cdn.shields.values():
            shield.signal(signal.SIGKILL)
            await shield.ended()

        # Ten tries: the first find out that nobody is there, the others know.
        for n in range(10):
            got = await get(f"{edge}/stale")
            assert (got.status, got.content) == (200, b"as it was")
            got = await get(f"{edge}/cold?n={n}")
            assert got.complete
            if direct:
                assert (got.status, got.content) == (200, b"new")
            else:
                assert got.status == 503
                assert "edge-a; error=" in got.field("Proxy-Status")
        assert direct or got.field("Retry-After") is not None
        assert origin.count("/cold") == (10 if direct else 0)
