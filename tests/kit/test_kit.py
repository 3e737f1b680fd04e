"""The kit must not lie: each promise that scenarios build on, checked on a bare socket."""

import asyncio
import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kit import (
    Counter,
    Gate,
    ManualClock,
    NoResponse,
    Pattern,
    RawClient,
    Reply,
    ScriptedOrigin,
    get,
    need,
    tls_contexts,
)
from tests.kit.pattern import PERIOD

MIB = 1 << 20


@pytest.fixture
async def origin():
    async with ScriptedOrigin() as origin:
        yield origin


# -- pattern, clock, waiting, need


@given(st.integers(0, 3 * PERIOD), st.integers(0, 70_000), st.integers(0, 70_000))
def test_pattern_is_the_same_however_it_is_read(start, first, second):
    pattern = Pattern(3 * PERIOD, seed=1)
    middle, stop = start + first, start + first + second
    assert pattern.read(start, middle) + pattern.read(middle, stop) == pattern.read(start, stop)


def test_pattern_tells_wrong_bytes_from_right_ones():
    pattern = Pattern(8 * MIB, seed=1)
    data = pattern.read(3 * MIB, 3 * MIB + 100)
    assert len(data) == 100
    assert pattern.verify(3 * MIB, data)
    assert not pattern.verify(3 * MIB, data[:-1] + bytes([data[-1] ^ 1]))
    # Misplaced by whole slices, of another content, past the end.
    assert not any(pattern.verify(n * MIB, data) for n in (0, 1, 2, 4, 5, 6, 7))
    assert not Pattern(8 * MIB, seed=2).verify(3 * MIB, data)
    assert not Pattern(3 * MIB + 99, seed=1).verify(3 * MIB, data)


def test_pattern_of_any_length_costs_nothing():
    pattern = Pattern(1 << 40)
    assert len(pattern) == 1 << 40
    assert len(pattern.read((1 << 40) - 10, 1 << 41)) == 10


def test_the_clock_moves_only_by_hand():
    clock = ManualClock(100.0)
    assert clock.now() == clock.now() == 100.0
    clock.advance(2.5)
    clock.advance(-1)
    assert clock.now() == 101.5


async def test_a_counter_wakes_its_waiters_when_it_gets_there(monkeypatch):
    counter = Counter("things")
    waiting = asyncio.ensure_future(counter.reached(2))
    counter.add()
    await asyncio.wait({waiting}, timeout=0.01)
    assert not waiting.done()
    counter.add()
    await waiting
    monkeypatch.setattr("tests.kit.waiting.LIMIT", 0.01)
    with pytest.raises(AssertionError, match="things: 2 of 3"):
        await counter.reached(3)


def test_need_skips_with_the_apt_line_and_fails_in_ci(monkeypatch):
    assert need("sh").endswith("/sh")
    monkeypatch.setenv("CI", "")
    with pytest.raises(pytest.skip.Exception, match="apt-get install no-such"):
        need("no-such-program", package="no-such")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="apt-get install no-such"):
        need("no-such-program", package="no-such")


# -- framing


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
async def test_every_framing_brings_the_content_whole(origin, framing):
    content = Pattern(300_000)
    origin.on("/a", Reply(fields=[("X-Seen", "yes")], content=content, framing=framing))
    answer = await get(f"{origin.url}/a")
    assert (answer.status, answer.reason, answer.complete) == (200, "OK", True)
    assert answer.field("x-seen") == "yes"
    assert len(answer.content) == 300_000
    assert content.verify(0, answer.content)
    (request,) = origin.requests
    assert request.finished


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("reset", [False, True])
async def test_a_cut_is_seen_as_a_cut(origin, framing, reset):
    gate = Gate(after=1000)
    origin.on(
        "/a", Reply(content=b"x" * 5000, framing=framing, cut_after=1000, reset=reset, gate=gate)
    )
    async with await RawClient.connect(origin.url) as client:
        await client.send_request("/a")
        incoming = await client.read_head()
        pieces = aiter(incoming)
        first = await anext(pieces)
        gate.open()
        rest = b"".join([piece async for piece in pieces])
    assert first + rest == b"x" * 1000
    assert not incoming.complete
    assert not origin.requests[0].finished


async def test_a_close_after_the_last_byte_but_before_the_last_chunk_is_a_cut(origin):
    origin.on("/a", Reply(content=b"x" * 10, framing="chunked", cut_after=10))
    answer = await get(f"{origin.url}/a")
    assert (answer.content, answer.complete) == (b"x" * 10, False)


@pytest.mark.parametrize("reply", [Reply(disconnect=True), Reply(reset=True)])
async def test_no_answer_at_all(origin, reply):
    origin.on("/a", reply)
    with pytest.raises(NoResponse):
        await get(f"{origin.url}/a")
    assert origin.count("/a") == 1


async def test_a_reset_is_not_a_close(origin):
    origin.on("/close", Reply(disconnect=True))
    origin.on("/reset", Reply(reset=True))
    ends = []
    for target in ("/close", "/reset"):
        reader, writer = await asyncio.open_connection("127.0.0.1", origin.port)
        writer.write(f"GET {target} HTTP/1.1\r\n\r\n".encode())
        try:
            ends.append(await reader.read())
        except ConnectionResetError:
            ends.append("reset")
        writer.close()
    assert ends == [b"", "reset"]


async def test_a_declared_length_may_lie_both_ways(origin):
    origin.on("/more", Reply(content=b"12345", declared_length=9, cut_after=5))
    origin.on("/less", Reply(content=b"12345", declared_length=3))
    more = await get(f"{origin.url}/more")
    assert (more.content, more.complete) == (b"12345", False)
    async with await RawClient.connect(origin.url) as client:
        less = await client.get("/less")
        assert (less.content, less.complete) == (b"123", True)
        assert await client.reader.readexactly(2) == b"45"


async def test_answers_without_content(origin):
    origin.on("/a", Reply(content=b"12345"))
    origin.on("/204", Reply(204))
    async with await RawClient.connect(origin.url) as client:
        head = await client.get("/a", method="HEAD")
        assert (head.field("content-length"), head.content, head.complete) == ("5", b"", True)
        empty = await client.get("/204")
        assert (empty.status, empty.field("content-length"), empty.content) == (204, None, b"")
        assert (await client.get("/a")).content == b"12345"
    assert origin.connections == 1


async def test_interim_answers_come_first(origin):
    hints = (103, [("Link", "</a.css>; rel=preload")])
    origin.on("/a", Reply(content=b"x", interim=[hints]))
    answer = await get(f"{origin.url}/a")
    assert (answer.interim, answer.status) == ([hints], 200)


# -- requests


async def test_requests_are_recorded_as_they_came(origin):
    origin.on("/a", Reply())
    fields = [("Host", "h"), ("X-Two", "1"), ("x-two", "2")]
    await get(f"{origin.url}/a?q=1", fields, method="POST", content=b"hello")
    (request,) = origin.requests
    assert (request.method, request.target, request.path) == ("POST", "/a?q=1", "/a")
    assert request.fields == [*fields, ("Content-Length", "5")]
    assert request.content == b"hello"
    assert request.field("X-TWO") == "1"


async def test_chunked_requests_and_continue(origin):
    origin.on("/a", Reply())
    async with await RawClient.connect(origin.url) as client:
        await client.send(
            b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"
            b"3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nTrailer: t\r\n\r\n"
        )
        answer = await client.read_response()
        assert answer.interim == [(100, [])]
        assert (await client.get("/a")).status == 200
    assert [bytes(request.content) for request in origin.requests] == [b"abcde", b""]


async def test_pipelined_requests_are_answered_in_order(origin):
    gate = Gate()
    origin.on("/1", Reply(content=b"one", gate=gate))
    origin.on("/2", Reply(content=b"two"))
    async with await RawClient.connect(origin.url) as client:
        await client.send(b"GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\n")
        await gate.reached()
        assert origin.count() == 1
        gate.open()
        assert [(await client.read_response()).content for _ in "12"] == [b"one", b"two"]
    assert [request.connection for request in origin.requests] == [1, 1]


async def test_replies_by_turn_by_function_and_by_query(origin):
    origin.on("/turn", [Reply(content=b"1"), Reply(content=b"2")])
    origin.on("/echo", lambda request: Reply(content=request.target.encode()))
    origin.on("/late", Reply(content=lambda request: request.method.encode()))
    origin.on("/turn?v=2", Reply(content=b"query"))

    async def content(target):
        return (await get(origin.url + target)).content

    assert [await content("/turn") for _ in range(3)] == [b"1", b"2", b"2"]
    assert await content("/turn?v=2") == b"query"
    assert await content("/echo?x") == b"/echo?x"
    assert await content("/late") == b"GET"
    assert (await get(f"{origin.url}/none")).status == 404
    assert (origin.count("/turn"), origin.count()) == (4, 7)


async def test_the_connection_closes_when_it_should(origin):
    origin.on("/a", Reply())
    for request in (b"GET /a HTTP/1.0\r\n\r\n", b"GET /a HTTP/1.1\r\nConnection: close\r\n\r\n"):
        async with await RawClient.connect(origin.url) as client:
            await client.send(request)
            assert (await client.read_response()).complete
            assert await client.read_to_close() == b""


async def test_a_mistake_in_a_script_fails_the_test():
    origin = ScriptedOrigin()
    await origin.start()
    origin.on("/a", lambda _request: {}["no such key"])
    with pytest.raises(NoResponse):
        await get(f"{origin.url}/a")
    with pytest.raises(KeyError, match="no such key"):
        await origin.close()


async def test_an_origin_comes_back_on_its_port(origin):
    origin.on("/a", Reply(content=b"x"))
    url = f"{origin.url}/a"
    async with await RawClient.connect(url) as client:
        await client.get("/a")
        await origin.close()
        assert await client.read_to_close() == b""
    with pytest.raises(ConnectionRefusedError):
        await get(url)
    await origin.start()
    assert (await get(url)).content == b"x"


# -- gates, pace, peers that leave


async def test_a_gate_before_the_head_holds_everything(origin):
    gate = Gate()
    origin.on("/a", Reply(content=b"x", gate=gate))
    answers = [asyncio.ensure_future(get(f"{origin.url}/a")) for _ in range(2)]
    await gate.reached(2)
    await origin.seen(2, "/a")
    assert not any(answer.done() for answer in answers)
    gate.open()
    assert [answer.content for answer in await asyncio.gather(*answers)] == [b"x", b"x"]


async def test_a_gate_within_the_content_lets_just_so_much_through(origin):
    gate, content = Gate(after=100_001), Pattern(200_000)
    origin.on("/a", Reply(content=content, gate=gate))
    async with await RawClient.connect(origin.url) as client:
        await client.send_request("/a")
        incoming = await client.read_head()
        pieces, got = aiter(incoming), b""
        while len(got) < 100_001:
            got += await anext(pieces)
        await gate.reached()
        assert len(got) == 100_001
        assert not origin.requests[0].finished
        gate.open()
        got += b"".join([piece async for piece in pieces])
    assert incoming.complete
    assert got == content.read(0, 200_000)


async def test_a_client_that_leaves_at_a_gate_ends_the_exchange(origin):
    gate = Gate()
    origin.on("/a", Reply(gate=gate))
    async with await RawClient.connect(origin.url) as client:
        await client.send_request("/a")
        await gate.reached()
    async with asyncio.timeout(5):
        await origin.requests[0].over.wait()
    assert not origin.requests[0].finished


async def test_a_client_that_does_not_read_holds_the_origin_back(origin, monkeypatch):
    content = Pattern(64 * MIB)
    gate = Gate(after=64 * MIB)
    origin.on("/a", Reply(content=content, gate=gate))
    async with await RawClient.connect(origin.url) as client:
        await client.send_request("/a")
        incoming = await client.read_head()
        at = 0
        async for piece in incoming:
            assert content.verify(at, piece)
            at += len(piece)
            if at >= MIB:
                break
    async with asyncio.timeout(5):
        await origin.requests[0].over.wait()
    assert not origin.requests[0].finished
    monkeypatch.setattr("tests.kit.waiting.LIMIT", 0.01)
    with pytest.raises(AssertionError, match="0 of 1"):
        await gate.reached()


async def test_a_trickle_takes_its_time(origin):
    origin.on("/a", Reply(content=b"x" * 50_000, trickle=500_000))
    loop = asyncio.get_running_loop()
    begun = loop.time()
    answer = await get(f"{origin.url}/a")
    assert answer.complete
    assert loop.time() - begun >= 0.09


# -- TLS


async def test_https_with_a_certificate_for_a_name(tmp_path):
    server, client = tls_contexts(tmp_path, "localhost")
    async with ScriptedOrigin(tls=server) as origin:
        origin.on("/a", Reply(content=b"x", framing="close"))
        answer = await get(f"https://localhost:{origin.port}/a", tls=client)
        assert (answer.content, answer.complete) == (b"x", True)
        with pytest.raises(ssl.SSLCertVerificationError):
            await get(f"{origin.url}/a", tls=client)  # by address: not in the certificate


# -- conditions and ranges

VALIDATORS = [
    ("ETag", '"v1"'),
    ("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT"),
    ("Content-Type", "text/plain"),
]


@pytest.mark.parametrize(
    ("condition", "status"),
    [
        (("If-None-Match", '"v1"'), 304),
        (("If-None-Match", 'W/"v1"'), 304),
        (("If-None-Match", '"v0", "v1"'), 304),
        (("If-None-Match", "*"), 304),
        (("If-None-Match", '"v2"'), 200),
        (("If-Modified-Since", "Thu, 01 Jan 2026 00:00:00 GMT"), 304),
        (("If-Modified-Since", "Wed, 31 Dec 2025 23:59:59 GMT"), 200),
        (("X-None", "x"), 200),
    ],
)
async def test_conditions_are_honoured_where_asked_for(origin, condition, status):
    origin.on("/a", Reply(fields=VALIDATORS, content=b"x", honours_conditions=True))
    origin.on("/plain", Reply(fields=VALIDATORS, content=b"x"))
    answer = await get(f"{origin.url}/a", [condition])
    assert answer.status == status
    assert answer.field("etag") == '"v1"'
    assert answer.content == (b"" if status == 304 else b"x")
    assert (answer.field("content-type") is None) == (status == 304)
    assert (await get(f"{origin.url}/plain", [condition])).status == 200


@pytest.mark.parametrize(
    ("fields", "status", "content_range", "content"),
    [
        ([("Range", "bytes=2-4")], 206, "bytes 2-4/10", b"234"),
        ([("Range", "bytes=7-")], 206, "bytes 7-9/10", b"789"),
        ([("Range", "bytes=-3")], 206, "bytes 7-9/10", b"789"),
        ([("Range", "bytes=-30")], 206, "bytes 0-9/10", b"0123456789"),
        ([("Range", "bytes=5-99")], 206, "bytes 5-9/10", b"56789"),
        ([("Range", "bytes=10-")], 416, "bytes */10", b""),
        ([("Range", "bytes=-0")], 416, "bytes */10", b""),
        ([("Range", "bytes=4-2")], 200, None, b"0123456789"),
        ([("Range", "bytes=0-1,4-5")], 200, None, b"0123456789"),
        ([("Range", "lines=0-1")], 200, None, b"0123456789"),
        ([("Range", "bytes=2-4"), ("If-Range", '"v1"')], 206, "bytes 2-4/10", b"234"),
        ([("Range", "bytes=2-4"), ("If-Range", 'W/"v1"')], 200, None, b"0123456789"),
        ([("Range", "bytes=2-4"), ("If-Range", '"v2"')], 200, None, b"0123456789"),
        ([("Range", "bytes=2-4"), ("If-Range", VALIDATORS[1][1])], 206, "bytes 2-4/10", b"234"),
    ],
)
async def test_ranges_are_honoured_where_asked_for(origin, fields, status, content_range, content):
    origin.on("/a", Reply(fields=VALIDATORS, content=b"0123456789", honours_ranges=True))
    origin.on("/plain", Reply(fields=VALIDATORS, content=b"0123456789"))
    answer = await get(f"{origin.url}/a", fields)
    assert (answer.status, answer.field("content-range")) == (status, content_range)
    assert (answer.content, answer.complete) == (content, True)
    assert (await get(f"{origin.url}/plain", fields)).status == 200
    assert (await get(f"{origin.url}/a", fields, method="HEAD")).status == 200


async def test_a_range_of_a_pattern_is_cut_where_it_should_be(origin):
    pattern = Pattern(5 * MIB)
    origin.on("/a", Reply(content=pattern, honours_ranges=True, cut_after=1000))
    answer = await get(f"{origin.url}/a", [("Range", f"bytes={2 * MIB}-{3 * MIB - 1}")])
    assert (answer.status, answer.complete) == (206, False)
    assert answer.field("content-length") == str(MIB)
    assert answer.content == pattern.read(2 * MIB, 2 * MIB + 1000)
