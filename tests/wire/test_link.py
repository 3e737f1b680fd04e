"""A connection as a link: what waits for a slow client, and what is not waited for."""

import asyncio

import pytest

from cdn.upstream.errors import RequestContentFailed
from tests.wire.rim_kit import GET, Pieces, echo, later, post, served, streamed, text, until


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
