"""Whole requests through the rim of a node, all but the sockets: what is hot, and what is new.

Strategy: a real node with its log and its counters, which has answered before; connections whose
transport takes what is written and does nothing with it. They ask in turn, and their answers leave
together; records are settled 256 at a time. That is as under load, and is in the figures.
"""

import itertools

import pytest

from bench.test_bench_fastpath import FIELDS, LINE
from cdn.wire.http1 import Http1Connection
from cdn.wire.outbox import MOST
from tests.gateway.gateway_kit import site, storable
from tests.kit import get

HEAD = LINE + FIELDS
CONTENT = bytes(1024)


class Nowhere:
    """A transport to nobody."""

    def __init__(self) -> None:
        self.written = b""

    def write(self, data: bytes) -> None:
        self.written = data

    def get_extra_info(self, name: str):
        return ("192.0.2.1", 1) if name == "peername" else None

    def set_write_buffer_limits(self, **_: int) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None:
        pass


class Desk:
    """Connections to a node, and what the node last wrote to any."""

    def __init__(self, server) -> None:
        self.server = server
        self.transport = Nowhere()
        self.connections = [Http1Connection(server._rim) for _ in range(MOST)]
        for connection in self.connections:
            connection.connection_made(self.transport)
        self._next = itertools.cycle(self.connections).__next__

    def ask(self, raw: bytes) -> None:
        """By the next of them."""
        self._next().data_received(raw)

    def answer(self) -> bytes:
        """The last one's head and content."""
        self.server._fast.outbox.flush()
        return self.transport.written


@pytest.fixture
async def desk(tmp_path):
    async with site(access_log=str(tmp_path / "log")) as at:
        at.edge.node._on_record = None  # nothing but the log itself
        at.origin.on("/poster.jpg", storable(CONTENT))
        await get(at.edge.url + "/poster.jpg", [("Host", "films.example")])
        desk = Desk(at.edge.node.server)
        yield desk
        for connection in desk.connections:
            connection.connection_lost(None)


def hot(desk: Desk, raw: bytes) -> bytes:
    """A request that is answered again as it was before."""
    for _ in range(2 * MOST):
        before = desk.server.fast_answers
        desk.ask(raw)
    assert desk.server.fast_answers == before + 1
    return raw


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (b"", b"200"),
        (b'If-None-Match: "v1"\r\n', b"304"),
        (b"Range: bytes=100-199\r\n", b"206"),
    ],
    ids=["whole", "not-modified", "part"],
)
def test_hot(benchmark, desk, lines, status):
    raw = hot(desk, HEAD + lines + b"\r\n")
    benchmark(desk.ask, raw)
    assert desk.answer()[9:12] == status


def test_hot_with_a_cookie_never_seen(benchmark, desk):
    hot(desk, HEAD + b"\r\n")
    fresh = (HEAD + b"Cookie: session=%d\r\n\r\n" % number for number in itertools.count())
    benchmark(lambda: desk.ask(next(fresh)))
    assert desk.answer()[9:12] == b"200"


def test_a_hit_on_the_full_path(benchmark, desk):
    before = desk.server.fast_answers
    benchmark(desk.ask, HEAD + b"Cache-Control: max-age=600\r\n\r\n")
    assert desk.answer()[9:12] == b"200"
    assert desk.server.fast_answers == before


def test_a_hit_that_becomes_hot(benchmark, desk):
    fresh = (HEAD + b'If-None-Match: "%d"\r\n\r\n' % number for number in itertools.count())
    benchmark(lambda: desk.ask(next(fresh)))
    assert desk.answer()[9:12] == b"200"


def test_a_batch_of_hits_settled(benchmark, desk):
    raw = hot(desk, HEAD + b"\r\n")

    def answered() -> None:
        for _ in range(255):
            desk.ask(raw)

    benchmark.pedantic(desk.server.settle, setup=answered, rounds=200)
