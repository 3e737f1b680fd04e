"""Where an answer ends, and which bytes are no answer at all (RFC 9112 §6, §5, §2.2)."""

import asyncio

import pytest

from cdn.semantics.message import Fields
from cdn.upstream.errors import BodyCutShort, ClosedBeforeHead, MalformedResponse
from tests.upstream.scripted_peer import OK, Client, Close, Peer, answer, content_of


async def asked_twice(first, method="GET"):
    """The answer to a first request, its content, and the connections that two took."""
    async with Peer(first, OK) as peer, Client() as client:
        response = await client.get(peer, method)
        content = await content_of(response)
        assert await content_of(await client.get(peer)) == b"ok"
        return response, content, client.counters.opened


@pytest.mark.parametrize(
    ("first", "content", "length"),
    [
        (answer("Content-Length: 5", content=b"hello"), b"hello", 5),
        (answer("Content-Length: 0"), b"", 0),
        (answer("Content-Length: 5", "content-length:5 ", content=b"hello"), b"hello", 5),
        (answer("Content-Length: 5, 5", content=b"hello"), b"hello", 5),
        (answer("Content-Length : 5", content=b"hello"), b"hello", 5),
        (answer("Transfer-Encoding: chunked",
                content=b"5\r\nhello\r\n0\r\n\r\n"), b"hello", None),
        (answer("transfer-encoding: Chunked",
                content=b"5;a=b\r\nhello\r\n1\r\n!\r\n0\r\nX: y\r\n\r\n"), b"hello!", None),
        (answer("Transfer-Encoding: chunked", content=b"0\r\n\r\n"), b"", None),
        (answer("Connection: upgrade", "Upgrade: h2c", "Content-Length: 5", content=b"hello"),
         b"hello", 5),
        (answer("Connection: upgrade", "Upgrade: h2c", "Transfer-Encoding: chunked",
                content=b"5\r\nhello\r\n0\r\n\r\n"), b"hello", None),
        (answer(status="204 No Content"), b"", 0),
        (answer("Content-Length: 0", status="204 No Content"), b"", 0),
        (answer("Content-Length: 5", status="304 Not Modified"), b"", 5),
        (answer("Transfer-Encoding: chunked", status="304 Not Modified"), b"", None),
        (answer(status="304 Not Modified"), b"", None),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nhi", b"hi", 2),
    ],
)  # fmt: skip
async def test_a_clean_end_and_the_connection_carries_the_next_request(first, content, length):
    response, got, opened = await asked_twice(first)
    assert (got, response.length, opened) == (content, length, 1)


@pytest.mark.parametrize(
    ("first", "content", "length"),
    [
        (answer("Connection: close", "Content-Length: 2", content=b"hi"), b"hi", 2),
        (answer("Connection: x, CLOSE", "Content-Length: 2", content=b"hi"), b"hi", 2),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", b"hi", 2),
        (Close(answer(content=b"until the end")), b"until the end", None),
        (Close(answer("Transfer-Encoding: no-coding", content=b"2\r\nhi")), b"2\r\nhi", None),
        (Close(b"HTTP/1.0 200 OK\r\n\r\n"), b"", None),
        (answer("Content-Length: 2", content=b"hi\r\n"), b"hi", 2),
        (answer("Content-Length: 2", content=b"hi" + OK), b"hi", 2),
        (answer("Content-Length: 0", content=OK), b"", 0),
        (answer("Transfer-Encoding: chunked", content=b"2\r\nhi\r\n0\r\n\r\n\r\n"), b"hi", None),
        (answer("Transfer-Encoding: chunked", content=b"2\r\nhi\r\n0\r\n\r\n\n"), b"hi", None),
        (answer("Transfer-Encoding: chunked", content=b"2\r\nhi\r\n0\r\n\r\n" + OK), b"hi", None),
        (answer(status="304 Not Modified", content=b"hi"), b"", None),
        (answer("Content-Length: 2", status="204 No Content"), b"", 0),
        (answer("Transfer-Encoding: chunked", status="204 No Content"), b"", 0),
    ],
)
async def test_the_connection_is_not_used_again(first, content, length):
    response, got, opened = await asked_twice(first)
    assert (got, response.length, opened) == (content, length, 2)


@pytest.mark.parametrize(
    ("lines", "length"),
    [
        (["Content-Length: 1234567890123"], 1234567890123),
        (["Transfer-Encoding: chunked"], None),
        ([], None),
    ],
)
async def test_an_answer_to_head_has_no_content_whatever_it_says(lines, length):
    response, content, opened = await asked_twice(answer(*lines), "HEAD")
    assert (content, response.length, opened) == (b"", length, 1)


@pytest.mark.parametrize(
    "first",
    [
        answer("Content-Length: 5", "Transfer-Encoding: chunked", content=b"0\r\n\r\n"),
        answer("Content-Length: 5", "Content-Length: 6", content=b"hello"),
        answer("Content-Length: 5, 6", content=b"hello"),
        answer("Content-Length: 05, 5", content=b"hello"),
        answer("Content-Length: +5", content=b"hello"),
        answer("Content-Length: 5 5", content=b"hello"),
        answer("Content-Length: -1"),
        answer("Content-Length: 0x5", content=b"hello"),
        answer("Content-Length: \xb2", content=b"hi"),
        answer("Content-Length:", content=b""),
        answer("Content-Length: 9223372036854775809"),
        answer(f"Content-Length: {'9' * 5000}"),
        answer("Transfer-Encoding: gzip", content=b"hello"),
        answer("Transfer-Encoding: gzip, chunked", content=b"0\r\n\r\n"),
        answer("Transfer-Encoding: chunked, gzip", content=b"hello"),
        answer("Transfer-Encoding: chunked", "Transfer-Encoding: chunked", content=b"0\r\n\r\n"),
        answer("Transfer-Encoding:", content=b"hello"),
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        answer("A: b", " folded", "Content-Length: 0"),
        answer("A: b\rc", "Content-Length: 0"),
        answer("A: b\0c", "Content-Length: 0"),
        answer("A: b\x7fc", "Content-Length: 0"),
        answer("A: b\nContent-Length: 0"),
        answer("nocolon\nA: b", "Content-Length: 0"),
        answer("no colon", "Content-Length: 0"),
        answer(": empty name", "Content-Length: 0"),
        answer("a b: c", "Content-Length: 0"),
        b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 099 Low\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1  200 OK\r\nContent-Length: 0\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"hello",
        answer(status="101 Switching Protocols"),
        answer(status="103 Early Hints") * 33 + OK,
        answer(*["A: b"] * 257, "Content-Length: 0"),
        answer("A: " + "b" * 65_536, "Content-Length: 0"),
        answer("A: " + "b" * 70_000)[:-4],
    ],
)  # fmt: skip
async def test_a_malformed_answer_is_refused_and_the_connection_closed(first):
    async with Peer(first) as peer, Client() as client:
        with pytest.raises(MalformedResponse) as error:
            await client.get(peer)
        assert error.value.endpoint == str(peer.endpoint)
        await peer.ended.reached()


@pytest.mark.parametrize("status", [200, 299, 404, 599, 600, 999])
async def test_every_final_status_passes(status):
    response, _, _ = await asked_twice(answer("Content-Length: 0", status=f"{status} So it is"))
    assert (response.head.status, response.head.reason) == (status, "So it is")


@pytest.mark.parametrize("first", [b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
                                   b"HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n"])  # fmt: skip
async def test_a_reason_may_be_missing(first):
    response, _, _ = await asked_twice(first)
    assert (response.head.status, response.head.reason) == (200, "")


async def test_the_head_keeps_order_and_spelling_and_loses_what_is_hop_by_hop():
    response, _, _ = await asked_twice(
        answer("x-ODD: \xe9 ", "Connection: keep-alive, X-Own", "X-Own: 1", "Keep-Alive: timeout=5",
               "Set-Cookie: a=1", "Content-Length: 2", "Set-Cookie:b=2", "Empty:", content=b"hi")
    )  # fmt: skip
    assert response.head.fields == Fields(
        [("x-ODD", "\xe9"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("Empty", "")]
    )


async def test_interim_responses_are_relayed_but_100():
    hints = answer("Link: </a>", status="103 Early Hints")
    seen = []
    first = answer(status="100 Continue") + hints + answer(status="102 Processing") + OK
    async with Peer(first) as peer, Client() as client:
        assert await content_of(await client.get(peer, on_interim=seen.append)) == b"ok"
    assert [(one.status, one.fields.get("link")) for one in seen] == [(103, "</a>"), (102, None)]


@pytest.mark.parametrize(
    "data",
    [
        answer(status="103 Early Hints") + answer("Content-Length: 5", content=b"hello"),
        answer("Transfer-Encoding: chunked", content=b"3\r\nhel\r\n2\r\nlo\r\n0\r\nX: y\r\n\r\n"),
    ],
)  # fmt: skip
async def test_an_answer_may_come_byte_by_byte(data):
    async def trickle(_, writer):
        for n in range(len(data)):
            writer.write(data[n : n + 1])
            await asyncio.sleep(0)

    async with Peer(trickle, OK) as peer, Client() as client:
        assert await content_of(await client.get(peer)) == b"hello"
        await content_of(await client.get(peer))
        assert client.counters.opened == 1


@pytest.mark.parametrize(
    "first",
    [
        Close(answer("Content-Length: 10", content=b"hello")),
        Close(answer("Transfer-Encoding: chunked", content=b"5\r\nhello\r\n")),
        Close(answer("Transfer-Encoding: chunked", content=b"5\r\nhello\r\n0\r\n")),
    ],
)
async def test_content_that_ends_before_its_framing_is_cut_short(first):
    async with Peer(first) as peer, Client() as client:
        response = await client.get(peer)
        assert await response.read() == b"hello"
        for _ in range(2):
            with pytest.raises(BodyCutShort):
                await response.read()


@pytest.mark.parametrize(
    "first",
    [
        answer("Transfer-Encoding: chunked", content=b"5\r\nhello\r\nxyz\r\n"),
        answer("Transfer-Encoding: chunked", content=b"5\r\nhelloo\r\n0\r\n\r\n"),
        answer("Transfer-Encoding: chunked", content=b"5\r\nhello\r\n5 \r\n"),
        answer("Transfer-Encoding: chunked", content=b"5\r\nhello\r\nFFFFFFFFFFFFFFFFF\r\n"),
    ],
)
async def test_chunked_content_that_cannot_be_read_is_cut_short(first):
    async with Peer(first) as peer, Client() as client:
        response = await client.get(peer)
        with pytest.raises(BodyCutShort):
            await content_of(response)
        await peer.ended.reached()


@pytest.mark.parametrize("first", [Close(), Close(b"HTTP/1.1 200 OK\r\nA"),
                                   Close(answer(status="103 Early Hints"))])  # fmt: skip
async def test_closed_before_a_whole_head(first):
    async with Peer(first) as peer, Client() as client:
        with pytest.raises(ClosedBeforeHead):
            await client.get(peer)
        assert len(peer.heads) == 1


async def test_bytes_nobody_asked_for_close_an_idle_connection():
    unsolicited = asyncio.Event()

    async def twice(reader, writer):
        writer.write(OK)
        await unsolicited.wait()
        writer.write(answer("Content-Length: 4", content=b"evil"))
        await reader.read()
        raise ConnectionError

    async with Peer(twice, OK) as peer, Client() as client:
        await content_of(await client.get(peer))
        unsolicited.set()
        await peer.ended.reached()
        assert await content_of(await client.get(peer)) == b"ok"
        assert client.counters.opened == 2
