"""What a client sends, by scenarios: how it is read, and what becomes of the connection."""

import asyncio

import pytest

from cdn.upstream.errors import RequestContentFailed
from tests.wire.rim_kit import (
    GET,
    HOST,
    LAST,
    chunked,
    contents,
    echo,
    later,
    post,
    served,
    text,
    until,
)

# -- persistence and order -----------------------------------------------------------------------


@pytest.mark.parametrize("now", [later, lambda e: None if e.request.target == "/x" else text(b"2")])
async def test_pipelined_requests_are_answered_in_order(now):
    async with served(now) as site:
        stream = GET + post(b"abc") + chunked(b"d", b"e" * 20) + GET + LAST
        answers = contents(await site.talk(stream))
    if now is later:
        wanted = [b"GET /x ", b"POST /p abc", b"POST /c d" + b"e" * 20, b"GET /x ", b"GET /last "]
    else:
        wanted = [b"GET /x ", b"2", b"2", b"GET /x ", b"2"]
    assert answers == wanted


async def test_a_flood_of_pipelined_requests_is_read_no_faster_than_it_is_answered():
    gate = asyncio.Event()

    async def gated(exchange):
        await gate.wait()
        return await echo(exchange)

    async with served(later, gated) as site, site.client() as client:
        client.writer.transport.set_write_buffer_limits(0)
        client.send(GET * 100_000)
        # The flood (4 MB) fits no buffer between us: it stays here until the gate opens.
        await until(lambda: site.server.counters.requests)
        (connection,) = site.server._rim.connections
        await until(lambda: not connection.reading)
        assert len(connection.buffer) < 600_000
        gate.set()
        for _ in range(1000):
            await client.answer()


@pytest.mark.parametrize("cut", [1, 7])
async def test_a_head_may_come_in_any_pieces(cut):
    stream = b"\r\n" + GET + b"\r\n" + post(b"abc") + LAST
    async with served(later) as site, site.client() as client:
        client.writer.transport.set_write_buffer_limits(0)
        for at in range(0, len(stream), cut):
            client.send(stream[at : at + cut])
            await client.writer.drain()
        assert contents(await client.rest()) == [b"GET /x ", b"POST /p abc", b"GET /last "]


async def test_http_1_0_closes_unless_it_asked_to_stay():
    async with served() as site:
        answer = await site.talk(b"GET /x HTTP/1.0\r\n\r\n")
        assert b"\r\nConnection: close\r\n" in answer
        async with site.client() as client:
            for _ in range(2):
                client.send(b"GET /x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
                head, content = await client.answer()
                assert b"\r\nConnection: keep-alive\r\n" in head
                assert content == b"GET  /x"


async def test_an_answer_may_ask_to_close():
    async with served(lambda _: text(b"bye", close=True)) as site:
        assert b"Connection: close" in await site.talk(GET)


async def test_an_upgrade_is_ignored_and_its_content_is_content():
    upgrade = (b"Connection: upgrade\r\n", b"Upgrade: h2c\r\n")
    async with served(later) as site:
        received = await site.talk(post(b"abc", *upgrade) + post(b"", *upgrade) + LAST)
    assert contents(received) == [b"POST /p abc", b"POST /p ", b"GET /last "]


# -- request content -----------------------------------------------------------------------------


async def test_100_is_sent_only_when_the_content_is_read():
    asked = asyncio.Event()
    go = asyncio.Event()

    async def answer(exchange):
        asked.set()
        await go.wait()
        return await echo(exchange)

    async with served(later, answer) as site, site.client() as client:
        head = post(b"", b"Expect: 100-continue\r\n").replace(b"Length: 0", b"Length: 3")
        client.send(head)
        await asked.wait()
        go.set()
        assert await client.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(b"abc" + LAST)
        assert contents(await client.rest()) == [b"POST /p abc", b"GET /last "]


async def test_an_expectation_that_is_not_met_closes():
    async with served(lambda _: text(b"no", status=413)) as site:
        head = post(b"", b"Expect: 100-continue\r\n").replace(b"Length: 0", b"Length: 3")
        received = await site.talk(head)
    assert received.startswith(b"HTTP/1.1 413 ")
    assert b"Connection: close" in received
    assert b"100 Continue" not in received


async def test_content_that_nobody_needed_is_discarded_if_it_is_little():
    async with served() as site:
        received = await site.talk(post(b"a" * 200_000) + chunked(b"b" * 200_000) + LAST)
    assert len(contents(received)) == 3


@pytest.mark.parametrize("size", [300_000, None])
async def test_much_content_that_nobody_needed_closes_the_connection(size):
    head = b"Content-Length: 300000" if size else b"Transfer-Encoding: chunked"
    async with served() as site, site.client() as client:
        client.send(b"POST / HTTP/1.1\r\n" + HOST + head + b"\r\n\r\n")
        answer, content = await client.answer()
        assert content == b"POST a.example /"
        assert (b"Connection: close" in answer) is (size is not None)
        client.send((b"" if size else b"%x\r\n" % 300_000) + b"a" * 300_000)
        assert await client.rest() == b""


async def test_content_is_read_no_faster_than_the_handler_takes_it():
    gate = asyncio.Event()
    size = 32 * 1024 * 1024

    async def answer(exchange):
        await gate.wait()
        return text(b"%d" % sum([len(piece) async for piece in exchange.content]))

    async with served(later, answer) as site, site.client() as client:
        client.send(post(b"").replace(b"Length: 0", b"Length: %d" % size) + bytes(size))
        await until(lambda: site.server.connections)
        (connection,) = site.server._rim.connections
        await until(lambda: not connection.reading)
        assert connection._content._held < 600_000
        gate.set()
        assert await client.answer() == (
            b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 8\r\n\r\n",
            b"%d" % size,
        )


async def test_malformed_chunks_reach_the_handler_and_close_the_connection():
    caught = []

    async def answer(exchange):
        try:
            return await echo(exchange)
        except RequestContentFailed as failed:
            caught.append(failed)
            return text(b"bad", status=400)

    async with served(later, answer) as site:
        received = await site.talk(chunked(b"abc").replace(b"3\r\n", b"x\r\n") + LAST)
        assert site.server.counters.protocol_errors == {"chunked-content": 1}
    assert received.count(b"HTTP/1.1") == 1
    assert b"Connection: close" in received
    assert len(caught) == 1


# -- refusals ------------------------------------------------------------------------------------


async def test_a_refusal_says_what_is_wrong_and_closes():
    async with served() as site:
        received = await site.talk(b"GET / HTTP/1.1\r\n\r\n" + LAST)
        head, _, content = received.partition(b"\r\n\r\n")
        assert head.split(b"\r\n") == [
            b"HTTP/1.1 400 Bad Request",
            b"Date: Thu, 01 Jan 2026 00:00:00 GMT",
            b"Content-Type: text/plain; charset=utf-8",
            b"Cache-Control: no-store",
            b"Proxy-Status: edge-a; error=http_request_error; "
            b'details="send exactly one Host field (RFC 9112 section 3.2)"',
            b"Content-Length: %d" % len(content),
            b"Connection: close",
        ]
        assert content == b"400 Bad Request: send exactly one Host field (RFC 9112 section 3.2)\n"
        assert site.server.counters.protocol_errors == {"host": 1}
        exchange, answer, outcome, sent, _, complete = site.finished[0]
        assert (exchange, answer.status, sent, complete) == (None, 400, len(content), True)
        assert outcome.error == "http_request_error"


@pytest.mark.parametrize(
    ("stream", "status"),
    [
        (b"GET / HTTP/1.1\nHost: a.example\n\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00", 400),
        (b"\r\n\r\n" + GET, 400),
        (b"GET /" + b"a" * 40_000, 414),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 40_000, 431),
        (b"TRACE / HTTP/1.1\r\n" + HOST + b"\r\n", 405),
    ],
)
async def test_a_head_that_can_no_longer_be_one_is_refused_at_once(stream, status):
    async with served() as site:
        received = await site.talk(stream)
    assert received.startswith(b"HTTP/1.1 %d " % status)
    assert received.count(b"HTTP/1.1 ") == 1
