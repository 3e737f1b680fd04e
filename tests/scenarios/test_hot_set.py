"""The hot set under what wants to spoil it: unsafe methods, floods of new heads, a full store.

Strategy: a real node in this process, in RAM or on a disk, before a scripted origin. Rates are by
count, so many of one kind among so many of another, and whether an answer came from the fast path
is what the node's own counters say. Requests go in pipelined batches: many, and in a known order.
"""

import asyncio
import random
import re
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.gateway.gateway_kit import HOST, Site, site, storable
from tests.kit import Pattern, RawClient, Reply, ScriptedOrigin
from tests.scenarios.numbered import content_of
from tests.scenarios.running import metric
from tests.scenarios.workers import FRESH, both, hang_up, running

KIB, MIB = 1 << 10, 1 << 20
BATCH = 50
LENGTH = re.compile(rb"\r\nContent-Length: (\d+)")

BROWSERS = [
    [("User-Agent", agent), ("Accept", "*/*"), ("Accept-Language", language)]
    for agent, language in [
        ("Mozilla/5.0 (Windows NT 10.0; Win64; x64) Chrome/131.0.0.0", "ja,en-US;q=0.9,en;q=0.8"),
        ("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) Safari/605.1.15", "en-GB,en;q=0.9"),
        ("Mozilla/5.0 (X11; Linux x86_64; rv:133.0) Firefox/133.0", "en-US,en;q=0.5"),
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) Mobile/15E148", "ja"),
        ("Mozilla/5.0 (Windows NT 10.0) Edg/131.0.0.0", "de"),
    ]
]


@pytest.fixture(params=["memory", "disk"])
def store(request, tmp_path) -> dict[str, Any]:
    """A node's keys: 16 MiB of RAM, or a disk of 64 MiB."""
    if request.param == "memory":
        return {"memory": "16MiB"}
    cache = {"slice_size": "64KiB"}
    return {"store": str(tmp_path / "store"), "disk": "64MiB", "cache": cache}


def capacity(store: dict[str, Any]) -> int:
    """Bytes that a node of these keys keeps."""
    return (64 if "store" in store else 16) * MIB


def counted(at: Site, name: str, **labels: str) -> int:
    """What the edge's metrics say of it now."""
    at.edge.node.server.settle()
    return sum(
        int(sample.value)
        for family in text_string_to_metric_families(at.edge.node.declared.render().decode())
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def hits(at: Site) -> int:
    return counted(at, "cdn_requests_total", cache="hit")


def fast(at: Site) -> int:
    return counted(at, "cdn_hot_answers_total")


def request(target: str, fields=(), method="GET") -> bytes:
    lines = [f"{name}: {value}" for name, value in (HOST, *fields)]
    lines += ["Content-Length: 0"] if method == "POST" else []
    return "\r\n".join([f"{method} {target} HTTP/1.1", *lines, "", ""]).encode()


async def played(client: RawClient, heads: Sequence[bytes]) -> list[bytes]:
    """The answers to `heads`, which are sent some at a time without waiting for each."""
    got = []
    async with asyncio.timeout(60):
        for at in range(0, len(heads), BATCH):
            batch = heads[at : at + BATCH]
            await client.send(b"".join(batch))
            for _ in batch:
                head = await client.reader.readuntil(b"\r\n\r\n")
                length = LENGTH.search(head)
                got.append(head + await client.reader.readexactly(int(length[1]) if length else 0))
    return got


async def make_hot(at: Site, client: RawClient, heads: Sequence[bytes]) -> None:
    """Until each of `heads` is answered again as it was before."""
    for _ in range(3):
        before = fast(at)
        await played(client, heads)
    assert fast(at) - before == len(heads)


def zipf(draw: random.Random, n: int) -> Iterator[int]:
    """Ranks below `n`, each drawn with 1 / rank ** 0.9."""
    weights = [1 / rank**0.9 for rank in range(1, n + 1)]
    while True:
        yield from draw.choices(range(n), weights, k=1000)


# --- unsafe methods -----------------------------------------------------------------------------


async def test_a_post_in_every_hundred_requests_leaves_hits_fast(store):
    """100 POST a second beside ten thousand others, half of them to what is hot, by Zipf's law as
    all else; a tenth of the requests has a Cookie and a Referer of its own."""
    draw, n = random.Random(1), 500
    ranks = zipf(draw, n)

    def answer(asked):
        return Reply() if asked.method == "POST" else storable(content_of(asked.target))

    def drawn(number: int) -> bytes:
        if number % 200 == 0:
            return request(f"/form?{number}", method="POST")
        if number % 100 == 0:
            return request(f"/n?{next(ranks)}", method="POST")
        own = [("Referer", f"http://www.example.com/{number}"), ("Cookie", f"session={number}")]
        fields = [*draw.choice(BROWSERS), *(own if number % 10 == 5 else [])]
        return request(f"/n?{next(ranks)}", fields)

    async with site(**store) as at:
        at.origin.on("/n", answer)
        at.origin.on("/form", answer)
        async with await at.open() as client:
            await make_hot(at, client, [request(f"/n?{rank}", BROWSERS[0]) for rank in range(n)])
            before = hits(at), fast(at), len(at.edge.log)
            await played(client, [drawn(number) for number in range(6000)])
            of_all, of_them_fast = hits(at) - before[0], fast(at) - before[1]
        posts = [one.target for one in at.edge.log[before[2] :] if one.method == "POST"]
        assert (len(posts), len([one for one in posts if one.startswith("/n")])) == (60, 30)
        assert of_all > 5800
        assert of_them_fast / of_all >= 0.95


@pytest.mark.usefixtures("unmeasured")
async def test_of_two_workers_on_one_disk_a_post_in_every_hundred_leaves_hits_fast(tmp_path):
    """Also after more different URLs than a worker bars one by one were ever invalidated: what an
    unsafe method does to other workers ends with its answer."""
    draw, n = random.Random(1), 500
    ranks = zipf(draw, n)

    def answer(asked):
        return (
            Reply()
            if asked.method == "POST"
            else Reply(fields=FRESH, content=content_of(asked.target))
        )

    flags = ("--store", str(tmp_path / "store"), "--disk", "1GiB")
    async with ScriptedOrigin() as origin, running(origin, tmp_path, *flags) as node:
        origin.on("/n", answer)
        origin.on("/form", answer)

        async def counts() -> tuple[float, float]:
            of_all = await metric(node.admin, "cdn_requests_total", cache="hit")
            return of_all, await metric(node.admin, "cdn_hot_answers_total")

        try:
            clients = (await both(node, 8))[:40]
            everything = [request(f"/n?{rank}", BROWSERS[0]) for rank in range(n)]
            for client in clients * 3:
                await played(client, everything)
            for kind in ("/form?{}", "/n?{}"):
                before = await counts()
                for number in range(100):
                    rank = number if kind.startswith("/form") else next(ranks)
                    post = request(kind.format(rank), method="POST")
                    gets = [request(f"/n?{next(ranks)}", draw.choice(BROWSERS)) for _ in range(99)]
                    await played(draw.choice(clients), [post, *gets])
                of_all, of_them_fast = (b - a for a, b in zip(before, await counts(), strict=True))
                assert of_all > 9_700
                assert of_them_fast / of_all >= 0.95
        finally:
            await hang_up()


# --- floods of new heads ------------------------------------------------------------------------


def never_seen(kind: str, number: int) -> bytes:
    """A request whose head nobody has sent before."""
    unique = f"{number:08x}"
    match kind:
        case "cookies":
            return request("/n?0", [*BROWSERS[0], ("Cookie", f"session={unique}")])
        case "fields":
            return request("/n?0", [*BROWSERS[0], (f"X-{unique}", unique)])
        case "conditions":
            return request("/n?0", [*BROWSERS[0], ("If-None-Match", f'"{unique}"')])
        case "ranges":
            return request("/n?0", [*BROWSERS[0], ("Range", f"bytes={number % 31}-{number}")])
        case "hosts":
            line = request("/n?0", BROWSERS[0])
            return line.replace(HOST[1].encode(), f"{unique}.example".encode())
        case "targets":
            return request(f"/none/{unique}", BROWSERS[0])
    raise AssertionError(kind)


@pytest.mark.parametrize(
    ("kind", "flood"),
    [
        ("cookies", 20_000),
        ("fields", 10_000),
        ("conditions", 10_000),
        ("ranges", 10_000),
        ("hosts", 3_000),
        ("targets", 3_000),
    ],
)
async def test_a_flood_of_new_heads_evicts_nothing_hot(kind, flood):
    n = 100
    async with site(memory="16MiB") as at:
        at.origin.on("/n", lambda asked: storable(content_of(asked.target)))
        warm = [request(f"/n?{rank}", fields) for rank in range(n) for fields in BROWSERS[:2]]
        async with await at.open() as client:
            await make_hot(at, client, warm)
            before = at.origin.count("/n")
            for start in range(0, flood, 1000):
                await played(client, [never_seen(kind, start + one) for one in range(1000)])
            asked = fast(at), at.origin.count("/n")
            # Nobody asked for it meanwhile, and it is as hot as it was.
            await played(client, warm)
            assert fast(at) - asked[0] == len(warm)
            assert at.origin.count("/n") == asked[1]
        assert counted(at, "cdn_hot_bytes") <= (16 * MIB) // 8
        if kind != "hosts":
            assert asked[1] == before


async def test_a_flood_of_targets_that_are_stored_evicts_nothing_that_is_asked_for(store):
    """Twice what the node keeps goes through it, and each target of the flood comes once."""
    n, size = 50, 64 * KIB
    flood = 2 * capacity(store) // size
    async with site(**store) as at:
        at.origin.on("/n", lambda asked: storable(content_of(asked.target)))
        at.origin.on("/flood", storable(Pattern(size)))
        warm = [request(f"/n?{rank}", BROWSERS[0]) for rank in range(n)]
        async with await at.open() as client:
            await make_hot(at, client, warm)
            before, asked = fast(at), 0
            for start in range(0, flood, BATCH):
                await played(client, [request(f"/flood?{start + one}") for one in range(BATCH)])
                await played(client, warm)
                asked += len(warm)
            assert (fast(at) - before) / asked >= 0.99
        assert at.origin.count("/n") == n


# --- who is only ever served hot ----------------------------------------------------------------


async def test_served_only_hot_it_outlives_turns_of_the_store(store):
    """Two turns of a disk's log and more, twelve of RAM, where first uses last longer: what nobody
    asks for again goes; what is only ever answered hot, and so never looked up, stays."""
    size = 60 * KIB
    if "store" in store:
        fills = 9 * capacity(store) // size // 4
    else:
        store, fills = {"memory": "4MiB"}, 12 * 4 * MIB // size
    async with site(**store) as at:
        for path in ("/hot", "/cold", "/fill"):
            at.origin.on(path, storable(Pattern(size)))
        hot = request("/hot", BROWSERS[0])
        async with await at.open() as client:
            await played(client, [request("/cold")])
            await make_hot(at, client, [hot])
            before, asked = fast(at), 0
            for number in range(fills):
                await played(client, [request(f"/fill?{number}")])
                if number % 5 == 0:
                    await played(client, [hot] * 2)
                    asked += 2
            assert fast(at) - before == asked
            # What the store itself has, without what is kept ready to be sent.
            assert (await at.edge.node.reload()).ok
            (got,) = await played(client, [hot])
            assert b"; hit; " in got
            assert got.endswith(Pattern(size).read(0, size))
            assert at.origin.count("/hot") == 1
            await played(client, [request("/cold"), request("/fill?0")])
            assert (at.origin.count("/cold"), at.origin.count("/fill")) == (2, fills + 1)
