"""An answer, by scenarios: its framing, its end, and who is told of it."""

import asyncio

import pytest

from cdn.semantics.message import Fields, Response
from cdn.upstream.errors import RequestContentFailed
from cdn.wire.link import JOINED
from tests.wire.rim_kit import (
    CUT,
    GET,
    HOST,
    LAST,
    Pieces,
    Unending,
    contents,
    later,
    post,
    served,
    streamed,
    text,
    until,
)

# -- framing of answers --------------------------------------------------------------------------


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


# -- bugs and records ----------------------------------------------------------------------------


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
