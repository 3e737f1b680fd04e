"""What a stored miss of 1 KiB costs by parts: up and back, judged, filled, stored, and as a whole;
and what a plain one costs that takes the short way.

Strategy: no viewer's socket, and an origin's only where the client is measured; that one is in a
process of its own. Every miss has a URL of its own. Where a loop is needed a hundred are run in a
row, so that starting it counts little: figures there are of a hundred.
"""

import asyncio
import functools
import itertools
import subprocess
import sys

import pytest
import uvloop

from cdn.gateway.background import BackgroundTasks
from cdn.gateway.exchange import Exchange
from cdn.gateway.flights import Task
from cdn.gateway.gateway import Gateway
from cdn.gateway.services import DeliveryService, ServiceTable
from cdn.semantics.message import Fields, Request, Response
from cdn.semantics.policy import CachePolicy
from cdn.storage.memory import MemoryStore
from cdn.upstream.client import UpstreamClient
from cdn.upstream.connection import Connection
from cdn.upstream.exchange import Deadlines, Endpoint, UpstreamRequest
from cdn.upstream.heads import read_plain_head
from cdn.upstream.health import HealthTracker
from cdn.upstream.origin_router import OriginRouter

NOW = 1_767_225_600.0
CONTENT = bytes(1024)
MISSES = 100
LINES = (("Host", "www.example.net"), ("User-Agent", "bench"), ("Accept", "*/*"))
HEAD = Response(
    200,
    Fields(
        (
            ("Date", "Thu, 01 Jan 2026 00:00:00 GMT"),
            ("Content-Type", "application/octet-stream"),
            ("Last-Modified", "Wed, 31 Dec 2025 00:00:00 GMT"),
            ("ETag", '"67404d10-400"'),
            ("Cache-Control", "public, max-age=86400"),
            ("Accept-Ranges", "bytes"),
        )
    ),
    "OK",
)
WIRE = "HTTP/1.1 200 OK\r\nContent-Length: 1024\r\n"
WIRE += "".join(f"{name}: {value}\r\n" for name, value in HEAD.fields) + "\r\n"
ORIGIN = f"""
import asyncio
class Peer(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
    def data_received(self, data):
        self.transport.write({WIRE.encode() + CONTENT!r})
async def main():
    server = await asyncio.get_running_loop().create_server(Peer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""

numbers = itertools.count()


class Came:
    """An `UpstreamResponse` whose content has come with its head."""

    head, length, source = HEAD, len(CONTENT), "origin"

    def __init__(self):
        self.content = CONTENT

    async def read(self):
        content, self.content = self.content, b""
        return content

    def abort(self):
        pass


class Near:
    """A `Router` to an origin that answers at once."""

    async def fetch(self, primary_key, request):
        return Came()


class Node:
    def __init__(self):
        self.store = MemoryStore(1 << 30)
        self.service = DeliveryService("bench", ("*",), CachePolicy(), Near())
        self.gateway = Gateway(
            name="edge",
            services=ServiceTable((self.service,)),
            store=self.store,
            clock=lambda: NOW,
            background=BackgroundTasks(pytest.fail),
        )

    def task(self) -> Task:
        one = exchange()
        return Task(one, self.service, one.request.url.encode())


def exchange() -> Exchange:
    target = f"/miss/{next(numbers)}"
    return Exchange(Request("GET", "http", "www.example.net", target, Fields(LINES)), "::1", NOW)


@pytest.fixture
def node() -> Node:
    return Node()


@pytest.fixture
def loop():
    loop = uvloop.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture
def origin():
    with subprocess.Popen([sys.executable, "-c", ORIGIN], stdout=subprocess.PIPE) as running:
        yield Endpoint("http", "127.0.0.1", int(running.stdout.readline()))
        running.kill()


class Wire:
    """A transport that keeps what was written last."""

    written = b""

    def write(self, data):
        self.written = data

    def is_closing(self):
        return False


class ShortWay:
    """Plain misses between a viewer and an origin, both without a socket."""

    def __init__(self, node: Node) -> None:
        loop = asyncio.get_running_loop()
        self.client = UpstreamClient(loop.time)
        origin = Endpoint("http", "127.0.0.1", 9)
        router = OriginRouter(self.client, [origin], HealthTracker(loop.time))
        service = DeliveryService("bench", ("*",), CachePolicy(), router)
        node.gateway.services = ServiceTable((service,))
        self.misses = node.gateway.misses
        pool = self.client._pool(origin, None)
        self.upstream = Connection(
            origin,
            self.client.counters,
            loop,
            self.client._room,
            functools.partial(self.client._keep, pool),
            functools.partial(self.client._forget, pool),
        )
        self.upstream.connection_made(Wire())
        self.client._keep(pool, self.upstream)
        request = Request("GET", "http", "www.example.net", "/", Fields(LINES))
        self.form = self.misses.form(request)
        self.draining = False
        self.size = 0

    def answered(self, miss, lines, content, cache_status):
        self.size = len(content)

    def miss(self) -> int:
        target = b"/miss/%d" % next(numbers)
        assert self.misses.begin(self, self.form, target, "::1") is not None
        answer = WIRE.encode() + CONTENT
        self.upstream.get_buffer(-1)[: len(answer)] = answer
        self.upstream.buffer_updated(len(answer))
        return self.size


def test_read_a_head(benchmark):
    head = WIRE.encode()[:-4]
    assert benchmark(read_plain_head, head).length == len(CONTENT)


def test_store_at_once(benchmark, node):
    judge = node.gateway.filling.judge

    def described():
        return (judge._described(node.task(), Came(), HEAD, NOW, 0), CONTENT), {}

    assert benchmark.pedantic(node.store.put, setup=described, rounds=2000)


def test_a_hundred_plain_misses(benchmark, loop, node):
    async def misses(way: ShortWay) -> int:
        return sum([way.miss() for _ in range(MISSES)])

    async def made() -> ShortWay:
        return ShortWay(node)

    way = loop.run_until_complete(made())
    assert benchmark(lambda: loop.run_until_complete(misses(way))) == MISSES * len(CONTENT)


def test_a_hundred_gets_on_a_kept_connection(benchmark, loop, origin):
    client = UpstreamClient(loop.time)
    request = UpstreamRequest(exchange().request)

    async def gets() -> int:
        size = 0
        for _ in range(MISSES):
            response = await client.fetch(origin, request, Deadlines())
            size += len(await response.read())
        return size

    assert benchmark(lambda: loop.run_until_complete(gets())) == MISSES * len(CONTENT)
    loop.run_until_complete(client.close())


def test_judge(benchmark, node):
    judge = node.gateway.filling.judge

    def judged():
        arrived = judge.judge(node.task(), Came(), NOW, 0, True)
        arrived.writer.abort()
        return arrived

    assert benchmark(judged).shareable


def test_store(benchmark, node):
    judge = node.gateway.filling.judge

    def described():
        task = node.task()
        return (judge._described(task, Came(), HEAD, NOW, 0),), {}

    def stored(response):
        writer = node.store.open_writer(response)
        writer.write(0, CONTENT)
        return writer.commit(response)

    assert benchmark.pedantic(stored, setup=described, rounds=2000)


def test_a_hundred_fills(benchmark, loop, node):
    filling = node.gateway.filling

    async def fills() -> int:
        before = filling.counters.stored
        for _ in range(MISSES):
            seat = filling.alone(node.task())
            await seat.head()
            seat.leave()
        return filling.counters.stored - before

    assert benchmark(lambda: loop.run_until_complete(fills())) == MISSES


def test_a_hundred_misses(benchmark, loop, node):
    gateway = node.gateway

    async def misses() -> int:
        size = 0
        for _ in range(MISSES):
            one = exchange()
            assert gateway.answer_now(one) is None
            answer = await asyncio.ensure_future(gateway.answer(one))
            size += sum(map(len, answer.content))
        return size

    assert benchmark(lambda: loop.run_until_complete(misses())) == MISSES * len(CONTENT)
