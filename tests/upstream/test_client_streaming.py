"""Content in both directions: pace, deadlines, early answers, giving up."""

import asyncio

import pytest

from cdn.upstream.errors import (
    BodyCutShort,
    FirstByteTimeout,
    IdleTimeout,
    RequestContentFailed,
)
from cdn.upstream.exchange import Deadlines
from tests.upstream.scripted_peer import OK, Client, Peer, answer, content_of, on_both_loops, pieces

MIB = 1_048_576


# -- content of requests


async def read_chunked(reader):
    content = b""
    while size := int(await reader.readline(), 16):
        content += (await reader.readexactly(size + 2))[:-2]
    await reader.readline()
    return content


@on_both_loops
async def test_content_of_a_declared_length_and_chunked():
    got = []

    async def declared(reader, writer):
        got.append(await reader.readexactly(11))
        writer.write(OK)

    async def chunked(reader, writer):
        got.append(await read_chunked(reader))
        writer.write(OK)

    async with Peer(declared, chunked, OK) as peer, Client() as client:
        more = {"content": pieces(b"hello", b" world"), "content_length": 11}
        assert await content_of(await client.get(peer, "POST", **more)) == b"ok"
        more = {"content": pieces(b"hello", b"", b" world")}
        assert await content_of(await client.get(peer, "POST", **more)) == b"ok"
        await client.get(peer)
        assert got == [b"hello world"] * 2
        assert b"\r\nContent-Length: 11\r\n" in peer.heads[0]
        assert b"\r\nTransfer-Encoding: chunked\r\n" in peer.heads[1]
        assert client.counters.opened == 1


@on_both_loops
async def test_content_goes_up_at_the_pace_of_the_upstream():
    given = 0
    go_on = asyncio.Event()

    async def content():
        nonlocal given
        for _ in range(512):
            given += 65_536
            yield bytes(65_536)

    async def slow(reader, writer):
        await go_on.wait()
        await reader.readexactly(512 * 65_536)
        writer.write(OK)

    async with Peer(slow) as peer, Client() as client:
        more = {"content": content(), "content_length": 512 * 65_536}
        asking = asyncio.create_task(client.get(peer, "PUT", **more))
        await peer.asked.reached()
        before = -1
        while before != given:  # until nothing moves
            before = given
            for _ in range(100):
                await asyncio.sleep(0)
        assert given < 16 * MIB
        go_on.set()
        assert await content_of(await asking) == b"ok"
        assert given == 32 * MIB


@on_both_loops
async def test_an_early_answer_ends_the_sending_and_the_connection():
    left = asyncio.Event()

    async def endless():
        try:
            while True:
                yield b"x" * 1000
                await asyncio.sleep(0)
        finally:
            left.set()

    refusal = answer("Content-Length: 2", status="413 Content Too Large", content=b"no")
    async with Peer(refusal, OK) as peer, Client() as client:
        content = endless()
        response = await client.get(peer, "POST", content=content)
        assert (response.head.status, await content_of(response)) == (413, b"no")
        await content.aclose()  # nobody else is inside it
        assert left.is_set()
        await client.get(peer)
        assert client.counters.opened == 2


async def broken():
    yield b"hel"
    raise ConnectionResetError("the viewer went away")


@pytest.mark.parametrize(
    ("content", "length"),
    [
        (broken, 5),
        (broken, None),
        (lambda: pieces(b"hel"), 5),
        (lambda: pieces(b"hel", b"lo!"), 5),
    ],
)
async def test_content_that_the_client_does_not_give(content, length):
    async def wait(reader, _):
        await reader.readexactly(1000)

    async with Peer(wait) as peer, Client() as client:
        with pytest.raises(RequestContentFailed):
            await client.get(peer, "POST", content=content(), content_length=length)
        await peer.ended.reached()


@on_both_loops
async def test_the_first_byte_deadline_counts_from_the_end_of_the_content():
    async def slow_content():
        await asyncio.sleep(0.1)  # twice the deadline
        yield b"hi"

    async def silent(reader, _):
        await reader.readexactly(1000)

    deadlines = Deadlines(first_byte=0.05)
    async with Peer(OK, silent) as peer, Client() as client:
        more = {"content_length": 2, "deadlines": deadlines}
        response = await client.get(peer, "POST", content=slow_content(), **more)
        await content_of(response)
        with pytest.raises(FirstByteTimeout):
            await client.get(peer, "POST", content=slow_content(), **more)
        await peer.ended.reached()


async def test_an_upstream_that_takes_no_content_is_given_up():
    async def deaf(_, writer):
        writer.transport.pause_reading()
        await asyncio.Event().wait()

    async def endless():
        while True:
            yield bytes(65_536)

    async with Peer(deaf) as peer, Client() as client:
        with pytest.raises(FirstByteTimeout):
            await client.get(peer, "POST", content=endless(), deadlines=Deadlines(first_byte=0.05))


# -- content of answers


@on_both_loops
async def test_much_content_arrives_whole_and_the_peer_waits_for_the_reader():
    size = 32 * MIB
    data = bytes(range(256)) * (size // 256)
    sent = 0

    async def send(_, writer):
        nonlocal sent
        writer.write(answer(f"Content-Length: {size}"))
        for start in range(0, size, MIB):
            writer.write(data[start : start + MIB])
            await writer.drain()
            sent = start + MIB

    async with Peer(send, OK) as peer, Client() as client:
        response = await client.get(peer)
        before = -1
        while before != sent:  # until nothing moves
            before = sent
            for _ in range(100):
                await asyncio.sleep(0)
        assert sent < 16 * MIB
        assert client.counters.bytes_in < 512 * 1024
        assert await content_of(response) == data
        await client.get(peer)
        assert client.counters.opened == 1


async def test_small_pieces_that_wait_are_read_as_one():
    async def send(_, writer):
        writer.write(answer(f"Content-Length: {10 * 4096}"))
        for _ in range(10):
            writer.write(bytes(4096))
            await asyncio.sleep(0)
        writer.write(OK)  # more than was promised: the client closes

    async with Peer(send) as peer, Client() as client:
        response = await client.get(peer)
        await peer.ended.reached()  # by then all of it is here
        assert len(await response.read()) == 10 * 4096
        assert await response.read() == b""


@on_both_loops
async def test_first_byte_deadline():
    async def half_a_head(reader, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nA: b\r\n")
        await reader.readexactly(1)

    async with Peer(half_a_head) as peer, Client() as client:
        with pytest.raises(FirstByteTimeout):
            await client.get(peer, deadlines=Deadlines(first_byte=0.05))
        await peer.ended.reached()


@on_both_loops
async def test_a_shorter_deadline_after_a_longer_one_holds():
    async def silent(reader, _):
        await reader.readexactly(1)

    async with Peer(OK, silent) as peer, Client() as client:
        await client.get(peer, deadlines=Deadlines(first_byte=30))
        with pytest.raises(FirstByteTimeout):
            await client.get(peer, deadlines=Deadlines(first_byte=0.05))


@on_both_loops
async def test_an_upstream_that_falls_silent_while_somebody_reads():
    async def half(reader, writer):
        writer.write(answer("Content-Length: 5", content=b"he"))
        await reader.readexactly(1)

    async with Peer(half) as peer, Client() as client:
        response = await client.get(peer, deadlines=Deadlines(first_byte=0.01, idle=0.05))
        assert await response.read() == b"he"
        with pytest.raises(IdleTimeout):
            await response.read()
        await peer.ended.reached()


async def test_a_slow_reader_is_not_an_idle_upstream():
    go_on = asyncio.Event()

    async def half(_, writer):
        writer.write(answer("Content-Length: 5", content=b"he"))
        await go_on.wait()
        writer.write(b"llo")

    async with Peer(half) as peer, Client() as client:
        response = await client.get(peer, deadlines=Deadlines(first_byte=0.03, idle=0.03))
        await asyncio.sleep(0.1)  # three times both deadlines, and nobody reads
        asyncio.get_running_loop().call_soon(go_on.set)
        assert await content_of(response) == b"hello"


# -- giving up


@on_both_loops
async def test_a_cancelled_fetch_closes_its_connection():
    async def silent(reader, _):
        await reader.readexactly(1)

    async with Peer(silent) as peer, Client() as client:
        asking = asyncio.create_task(client.get(peer))
        await peer.asked.reached()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await peer.ended.reached()


@on_both_loops
async def test_a_fetch_cancelled_as_its_head_arrives_closes_its_connection():
    async def half(reader, writer):
        writer.write(answer("Content-Length: 5", content=b"he"))
        await reader.readexactly(1)

    async with Peer(half) as peer, Client() as client:
        asking = asyncio.create_task(client.get(peer))
        await peer.asked.reached()
        while client.counters.bytes_in == 0:
            await asyncio.sleep(0)
        asking.cancel()
        try:
            response = await asking
        except asyncio.CancelledError:
            pass
        else:
            response.abort()
        await peer.ended.reached()


@on_both_loops
async def test_abort_closes_the_connection_and_wakes_the_reader():
    async def half(reader, writer):
        writer.write(answer("Content-Length: 5", content=b"he"))
        await reader.readexactly(1)

    async with Peer(half) as peer, Client() as client:
        response = await client.get(peer)
        assert await response.read() == b"he"
        reading = asyncio.create_task(response.read())
        await asyncio.sleep(0)
        response.abort()
        response.abort()
        with pytest.raises(BodyCutShort):
            await reading
        await peer.ended.reached()


async def test_a_cancelled_read_may_be_tried_again():
    go_on = asyncio.Event()

    async def half(_, writer):
        writer.write(answer("Content-Length: 5", content=b"he"))
        await go_on.wait()
        writer.write(b"llo")

    async with Peer(half) as peer, Client() as client:
        response = await client.get(peer)
        assert await response.read() == b"he"
        reading = asyncio.create_task(response.read())
        await asyncio.sleep(0)
        reading.cancel()
        await asyncio.wait((reading,))
        go_on.set()
        assert await content_of(response) == b"llo"
