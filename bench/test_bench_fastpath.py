"""Micro-benchmarks of the fast path, step by step: fields, the hot answer, its second, its record.

Strategy: one answer out of a store in RAM is made hot as the full path would have it; each step is
measured by itself, and then all of them with the write taken out.
"""

import pytest

from cdn.gateway.exchange import Answer, Outcome
from cdn.gateway.hot import Repeats
from cdn.gateway.services import ServiceTable
from cdn.observe.log_lines import LineFormat
from cdn.observe.metrics import RequestCounts
from cdn.semantics.message import Fields, Request, Response
from cdn.semantics.ranges import ByteRange
from cdn.semantics.stored_response import make_stored_response
from cdn.storage.memory import MemoryStore
from cdn.wire.fastpath import FastPath
from cdn.wire.field_block import FieldMemory
from cdn.wire.hot_answer import LARGEST, HotAnswer
from cdn.wire.request_head import parse_head

NOW = 1_767_225_600.0
KEY = b"http://films.example/poster.jpg"
CONTENT = bytes(1024)
LINE = b"GET /poster.jpg HTTP/1.1\r\n"
FIELDS = (
    b"Host: films.example\r\n"
    b"User-Agent: Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
    b"Chrome/131.0.0.0 Safari/537.36\r\n"
    b'sec-ch-ua: "Google Chrome";v="131", "Chromium";v="131", "Not_A Brand";v="24"\r\n'
    b'sec-ch-ua-mobile: ?0\r\nsec-ch-ua-platform: "Windows"\r\n'
    b"Accept: image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8\r\n"
    b"Sec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: no-cors\r\nSec-Fetch-Dest: image\r\n"
    b"Accept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: ja,en-US;q=0.9,en;q=0.8\r\n"
)
HEAD = LINE + FIELDS + b"\r\n"


class Nobody:
    """Takes what is sent."""

    client = "192.0.2.1"
    asked = b""
    closing = tls = False
    outgoing = room = None

    def __init__(self) -> None:
        self.transport = self

    def write(self, data: bytes) -> None:
        pass


class Names:
    has_rules = False

    def names(self, key: bytes) -> tuple[bytes, ...]:
        return (key,)


class Desk:
    """A fast path with one hot answer, by a clock that the benchmark sets."""

    def __init__(self) -> None:
        self.now = NOW
        self.hits: list[list] = []
        self.uses: list[int] = []
        store = MemoryStore(64 << 20)
        fields = Fields((("Cache-Control", "max-age=3600"), ("ETag", '"v1"')))
        stored = make_stored_response(
            primary_key=KEY,
            variant=(),
            response=Response(200, fields),
            fields=fields,
            request_time=NOW,
            response_time=NOW,
            length=len(CONTENT),
        )
        writer = store.open_writer(stored)
        writer.write(0, CONTENT)
        writer.commit(stored)
        (found,) = store.lookup(KEY)
        repeats = Repeats("edge-a", ServiceTable(()), store, Names(), lambda: self.now, alone=True)
        self.fast = FastPath(
            repeats,
            8 << 20,
            store,
            clock=lambda: self.now,
            on_hits=lambda hits, _: self.hits.append(list(hits)),
            on_uses=lambda used: self.uses.extend([served.uses for served in used]),
        )
        self.memory, self.viewer = FieldMemory(), Nobody()
        self.block = self.memory.block(HEAD[len(LINE) :])
        of = repeats.made_of(KEY, found, [found], 3600.0, "films")
        own = (("Age", "0"), ("Via", "1.1 edge-a"), ("Cache-Status", "edge-a; hit; ttl=3600"))
        lines = (*fields.lines, *own, ("Content-Length", "1024"))
        ready = found.ready([ByteRange(0, len(CONTENT))])
        answer = Answer(Response(200, Fields(lines)), ready, 1024, Outcome(), repeatable=of)
        text = "".join(f"{name}: {value}\r\n" for name, value in lines)
        head = f"HTTP/1.1 200 OK\r\n{text}\r\n".encode()
        request = Request("GET", "http", "films.example", "/poster.jpg", self.block.fields)
        self.fast.hot.take(self.block, request, "192.0.2.1", answer, head)

    def answer(self) -> bool:
        block, said = self.block, self.block.said
        return self.fast.answer(HEAD, len(LINE) - 2, block, said, "http", self.viewer)


@pytest.fixture
async def desk():
    return Desk()


def test_strict_parser(benchmark):
    assert benchmark(parse_head, HEAD, "http").keep_alive


def test_fields_remembered(benchmark, desk):
    fields = HEAD[len(LINE) :]
    for _ in range(2):
        desk.memory.block(fields)
    assert benchmark(lambda: desk.memory.block(fields + b"")) is not None


def test_fields_with_a_cookie_never_seen(benchmark, desk):
    fresh = (FIELDS + b"Cookie: session=%d\r\n\r\n" % number for number in range(10_000_000))
    assert benchmark(lambda: desk.memory.block(next(fresh))) is not None


def test_hot_answer(benchmark, desk):
    assert benchmark(desk.fast.hot.find, desk.block, "", "GET", KEY, NOW) is not None


def test_hot_answer_in_another_second(benchmark, desk):
    answer = desk.fast.hot.find(desk.block, "", "GET", KEY, NOW)
    assert benchmark(answer.renew, NOW + 1)


def test_part_of_a_hot_answer(benchmark, desk):
    whole = desk.fast.hot.find(desk.block, "", "GET", KEY, NOW)
    head = b"HTTP/1.1 206 Partial Content\r\nAge: ", b"", b""
    asked = "GET", "http", "films.example", "/poster.jpg"
    answer = HotAnswer(asked, 206, head, whole.member, whole.of, whole.body, ranged=True)
    assert answer.renew(NOW)
    head, pieces, served = benchmark(answer.part, (100, 199), LARGEST)
    assert head.endswith(b"\r\nContent-Range: bytes 100-199/1024\r\nContent-Length: 100\r\n\r\n")
    assert (pieces, served.content_bytes) == ((CONTENT[100:200],), 100)


def test_all_but_the_write(benchmark, desk):
    assert benchmark(desk.answer)


def test_records_of_a_batch(benchmark, desk):
    for _ in range(256):
        desk.answer()
    desk.fast.settle()
    hits, lines, counts = desk.hits[0], LineFormat("edge-a", "catv"), RequestCounts()

    def told() -> int:
        counts.time_hits(hits)
        return lines.hits(hits).count(b"\n")

    assert benchmark(told) == len(hits) == sum(desk.uses)
