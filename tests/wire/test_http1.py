"""A connection, by scenarios: what is asked, what is answered, and what becomes of it."""

import asyncio
import re

import pytest

from cdn.semantics.message import Fields, Response
from cdn.upstream.errors import RequestContentFailed
from cdn.wire.link import JOINED
from tests.wire.rim_kit import (
    CUT,
    HOST,
    Pieces,
    Unending,
    echo,
    later,
    served,
    streamed,
    text,
    until,
)

GET = b"GET /x HTTP/1.1\r\n" + HOST + b"\r\n"
LAST = b"GET /last HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n"


def post(content: bytes, *lines: bytes, target: bytes = b"/p") -> bytes:
    size = b"Content-Length: %d\r\n" % len(content)
    return b"POST " + target + b" HTTP/1.1\r\n" + HOST + size + b"".join(lines) + b"\r\n" + content


def chunked(*chunks: bytes) -> bytes:
    head = b"POST /c HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
    body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    return head + body + b"0\r\nX-Sum: 1\r\n\r\n"


def contents(received: bytes) -> list[bytes]:
    """The contents of answers that all declare their length."""
    found = []
    while received:
        head, _, received = received.partition(b"\r\n\r\n")
        size = int(re.search(rb"Content-Length: (\d+)", head)[1])
        found.append(received[:size])
        received = received[size:]
    return found


# -- persistence and order -----------------------------------------------------------------------


async def test_a_ready_answer_is_byte_for_byte_what_was_framed():
    async with served() as site, site.client() as client:
        client.send(GET)
        assert await client.answer() == (
            b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 16\r\n\r\n",
            b"GET a.example /x",
        )
        client.send(LAST)
        head, _ = await client.answer()
        assert b"\r\nConnection: close\r\n" in head
        assert await client.rest() == b""


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


# -- framing of answers --------------------------------------------------------------------------


@pytest.mark.parametrize("length", [5, None])
async def test_head_declares_and_sends_nothing(length):
    content = Pieces(b"never")

    def now(exchange):
        if exchange.request.target == "/streamed":
            return streamed(content, length)
        answer = text(b"")
        answer.length = length
        return answer

    async with served(now) as site:
        for target in (b"/ready", b"/streamed"):
            head = b"HEAD " + target + b" HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n"
            received = await site.talk(head)
            assert received.endswith(b"\r\n\r\n")
            assert (b"Content-Length: 5\r\n" in received) is (length == 5)
            assert b"chunked" not in received
    assert content.reads == 0
    assert content.aborted.is_set()


@pytest.mark.parametrize("status", [204, 304])
async def test_204_and_304_have_neither_length_nor_content(status):
    async with served(lambda _: text(b"", status=status)) as site, site.client() as client:
        client.send(GET + LAST)
        received = await client.rest()
    assert received.count(b"HTTP/1.1 %d " % status) == 2
    assert b"Content-Length" not in received
    assert b"chunked" not in received


async def test_a_second_content_length_is_never_sent():
    async with served(lambda _: text(b"abc", ("content-length", "7"))) as site:
        received = await site.talk(LAST)
    assert received.lower().count(b"content-length") == 1
    assert b"Content-Length: 3\r\n" in received


async def test_an_unknown_length_is_chunked_for_1_1_and_until_close_for_1_0():
    async with served(lambda _: streamed(Pieces(b"abc", b"de"))) as site:
        modern = await site.talk(LAST)
        old = await site.talk(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    head, _, content = modern.partition(b"\r\n\r\n")
    assert b"Transfer-Encoding: chunked" in head
    assert content == b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    head, _, content = old.partition(b"\r\n\r\n")
    assert b"chunked" not in head
    assert b"Content-Length" not in head
    assert b"Connection: close" in head
    assert content == b"abcde"


async def test_large_ready_content_is_sent_whole():
    pieces = (b"a" * JOINED, memoryview(b"b" * 300_000), b"", b"c")

    def now(_):
        answer = text(b"")
        answer.content, answer.length = pieces, JOINED + 300_001
        return answer

    async with served(now) as site:
        received = await site.talk(GET + LAST)
    assert contents(received) == [b"".join(pieces)] * 2


@pytest.mark.parametrize(
    "answer",
    [
        lambda: streamed(Pieces(b"abc", CUT), 10),
        lambda: streamed(Pieces(b"abc"), 10),
        lambda: streamed(Pieces(b"abc", b"x" * 8), 10),
        lambda: streamed(Pieces(b"abc", CUT)),
        lambda: streamed(Pieces(b"abc", RuntimeError("a bug"))),
    ],
)
async def test_a_broken_answer_is_never_ended_cleanly(answer):
    made = answer()
    async with served(lambda _: made) as site:
        received = await site.talk(GET + LAST)
        assert received.count(b"HTTP/1.1") == 1
        assert not received.endswith(b"0\r\n\r\n")
        content = received.partition(b"\r\n\r\n")[2]
        assert content in (b"abc", b"3\r\nabc\r\n")
        assert site.finished[0][5] is False
        assert made.content.aborted.is_set()


async def test_a_ready_answer_of_another_length_than_declared_is_not_sent():
    def now(_):
        answer = text(b"abc")
        answer.length = 5
        return answer

    async with served(now) as site:
        assert await site.talk(GET) == b""


async def test_content_until_close_that_breaks_is_reset():
    async with served(lambda _: streamed(Pieces(b"abc", CUT))) as site, site.client() as client:
        client.send(b"GET / HTTP/1.0\r\n\r\n")
        await client.rest()
        assert client.reset


async def test_interim_heads_go_before_the_final_one_and_never_to_1_0():
    senders = []

    async def answer(exchange):
        exchange.send_interim(Response(103, Fields((("Link", "</a>"),))))
        senders.append(exchange.send_interim)
        return text(b"done")

    async with served(later, answer) as site:
        async with site.client() as client:
            client.send(GET)
            early = await client.until(b"\r\n\r\n")
            assert early == b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
            await client.answer()
            senders[0](Response(103, Fields(())))  # too late: it must not be in the next answer
            client.send(LAST)
            assert (await client.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 103")
            assert b"103" not in await client.rest()
        assert b"103" not in await site.talk(b"GET / HTTP/1.0\r\n\r\n")


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


# -- the end of a client -------------------------------------------------------------------------


async def test_a_client_that_goes_cancels_the_answer():
    began, cancelled = asyncio.Event(), asyncio.Event()

    async def answer(_):
        began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async with served(later, answer) as site:
        async with site.client() as client:
            client.send(GET)
            await began.wait()
        await asyncio.wait_for(cancelled.wait(), 5)
        exchange, head, _, sent, _, complete = site.finished[0]
        assert (exchange.request.target, head.status, sent, complete) == ("/x", 499, 0, False)


async def test_a_client_that_goes_aborts_the_content():
    content = Unending(b"abc")
    async with served(lambda _: streamed(content, 10)) as site:
        async with site.client() as client:
            client.send(GET)
            await client.until(b"abc")
        await asyncio.wait_for(content.aborted.wait(), 5)
        await site.ended.wait()
        assert site.finished[0][3:4] + site.finished[0][5:] == (3, False)
        assert len(site.finished) == 1


async def test_a_client_that_goes_in_its_content_fails_the_reader():
    failed = asyncio.get_running_loop().create_future()

    async def read(content):
        try:
            async for _ in content:
                pass
        except RequestContentFailed as failure:
            failed.set_result(failure)

    reading = []

    async def answer(exchange):
        reading.append(asyncio.create_task(read(exchange.content)))  # as a fill would
        await asyncio.Event().wait()

    async with served(later, answer) as site:
        async with site.client() as client:
            client.send(post(b"abc")[:-1])
            await until(lambda: bool(reading))
        assert "closed its connection" in str(await asyncio.wait_for(failed, 5))


async def test_a_slow_client_holds_the_content_back():
    piece = bytes(64 * 1024)

    class Endless(Pieces):
        async def read(self):
            self.reads += 1
            return piece

    content = Endless()
    async with served(lambda _: streamed(content, 1 << 30)) as site, site.client() as client:
        client.send(GET)
        await client.until(b"\r\n\r\n")
        (connection,) = site.server._rim.connections
        await until(lambda: connection.room is not None)
        for _ in range(100):
            await client.exactly(64 * 1024)
            # Beyond what the two kernels' buffers hold, nothing is read ahead of the client.
            assert connection.transport.get_write_buffer_size() < 256 * 1024
        assert content.reads * len(piece) < (6 << 20) + (12 << 20)


# -- errors and reports --------------------------------------------------------------------------


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


@pytest.mark.parametrize("where", ["now", "later"])
async def test_a_handler_that_breaks_is_a_500_of_ours(where):
    def broken(_):
        raise RuntimeError("a bug")

    async def broken_later(_):
        raise RuntimeError("a bug")

    async with served(broken if where == "now" else later, broken_later) as site:
        received = await site.talk(GET)
    assert received.startswith(b"HTTP/1.1 500 ")
    assert b"error=proxy_internal_error" in received
    assert b"a bug" not in received
    (told,) = site.bugs
    assert told == "bug: the handler broke on http://a.example/x: RuntimeError: a bug"


async def test_reports_and_counters():
    async with served() as site:
        await site.talk(GET + LAST)
        assert [report[0].request.target for report in site.finished] == ["/x", "/last"]
        exchange, head, outcome, sent, seconds, complete = site.finished[0]
        assert (exchange.client, exchange.arrived) == ("127.0.0.1", 1_767_225_600.0)
        assert (head.status, outcome.cache, sent, complete) == (200, "hit", 16, True)
        assert 0 <= seconds < 5
        counters = site.server.counters
        assert (counters.requests, counters.connections_total) == (2, 1)


# -- deadlines -----------------------------------------------------------------------------------


async def test_an_idle_connection_just_closes():
    async with served(idle=0.05) as site:
        assert await site.talk(b"") == b""
        received = await site.talk(GET)
        assert received.endswith(b"GET a.example /x")
        assert b"Connection: close" not in received


async def test_a_head_that_takes_too_long_is_408():
    async with served(head=0.05) as site, site.client() as client:
        client.send(GET + GET[:20])
        await client.answer()
        assert (await client.rest()).startswith(b"HTTP/1.1 408 ")


async def test_a_client_that_takes_nothing_is_aborted():
    content = Pieces(*[bytes(1 << 20)] * 64)
    async with served(lambda _: streamed(content, 64 << 20), stall=0.1) as site:
        async with site.client() as client:
            client.writer.transport.pause_reading()
            client.send(GET)
            await asyncio.wait_for(content.aborted.wait(), 5)
            assert site.server.connections <= 1
        assert site.finished[0][5] is False


async def test_content_that_stops_coming_fails_its_reader():
    async def answer(exchange):
        with pytest.raises(RequestContentFailed, match="for too long"):
            await echo(exchange)
        return text(b"", status=408)

    async with served(later, answer, stall=0.05) as site:
        received = await site.talk(post(b"abc")[:-1])
    assert received.startswith(b"HTTP/1.1 408 ")
    assert b"Connection: close" in received


async def test_content_that_nobody_needs_must_come_soon():
    async with served(head=0.05) as site:
        assert (await site.talk(post(b"abc")[:-1])).endswith(b"POST a.example /p")


async def test_a_refused_client_that_goes_on_sending_is_closed_in_time():
    async with served(linger=0.05) as site:
        async with site.client() as client:
            client.send(b"nonsense\r\n\r\n")
            assert (await client.rest()).startswith(b"HTTP/1.1 400 ")
            await asyncio.wait_for(site.server._rim.emptied.wait(), 5)
