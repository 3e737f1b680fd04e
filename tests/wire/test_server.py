"""Listeners of every kind, and the way out of service."""

import asyncio
import socket

import pytest

from cdn.wire.server import Http1Server, ListenFailed, bind
from tests.wire.rim_kit import DATE, HOST, Pieces, Unending, echo, later, say, served, streamed

GET = b"GET /x HTTP/1.1\r\n" + HOST + b"\r\n"


def make_server() -> Http1Server:
    class Desk:
        answer_now = staticmethod(say)

    return Http1Server(
        Desk(), name="edge-a", clock=lambda: 0.0, date=lambda: DATE, on_finished=lambda *_: None
    )


async def ask(reader, writer) -> bytes:
    writer.write(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    return answer.partition(b"\r\n\r\n")[2]


async def test_several_listeners_ipv4_and_ipv6_on_one_port():
    port = bind("127.0.0.1", 0)
    number = port.getsockname()[1]
    server = make_server()
    await server.start([("::", number)], [port])
    assert sorted(server.addresses) == [("127.0.0.1", number), ("::", number)]
    for host in ("127.0.0.1", "::1"):
        assert await ask(*await asyncio.open_connection(host, number)) == b"GET a.example /x"
    await server.drain(0)


async def test_a_unix_socket_is_a_listener_too(tmp_path):
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(tmp_path / "rim"))
    server = make_server()
    await server.start(sockets=[sock])
    assert server.addresses == []
    answer = await ask(*await asyncio.open_unix_connection(str(tmp_path / "rim")))
    assert answer == b"GET a.example /x"
    await server.drain(0)


async def test_an_address_that_is_taken_is_named_and_nothing_else_is_kept():
    with bind("127.0.0.1", 0) as taken:
        taken.listen()
        number = taken.getsockname()[1]
        server = make_server()
        with pytest.raises(ListenFailed, match=rf"127\.0\.0\.1:{number}: Address already in use"):
            await server.start([("::1", 0), ("127.0.0.1", number)])
        assert server.addresses == []


def test_a_host_that_does_not_exist_is_named():
    with pytest.raises(ListenFailed, match=r"cannot listen on \[not::an::address\]:80: "):
        bind("not::an::address", 80)


async def test_draining_closes_the_idle_and_lets_the_others_finish():
    began, gate = asyncio.Event(), asyncio.Event()

    async def answer(exchange):
        began.set()
        await gate.wait()
        return await echo(exchange)

    async with (
        served(later, answer, linger=0.05) as site,
        site.client() as busy,
        site.client() as idle,
    ):
        busy.send(GET + GET)
        await began.wait()
        port = site.port
        draining = asyncio.create_task(site.server.drain(5))
        assert await idle.rest() == b""
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        assert site.server.connections == 1
        gate.set()
        received = await busy.rest()
        await draining
        assert received.count(b"HTTP/1.1 200") == 1  # the second request may go elsewhere
        assert b"\r\nConnection: close\r\n" in received
        assert site.server.connections == 0


async def test_draining_aborts_what_is_left_at_its_limit():
    content = Unending(b"abc")
    async with served(lambda _: streamed(content, 10)) as site, site.client() as client:
        client.send(GET)
        await client.until(b"abc")
        await asyncio.wait_for(site.server.drain(0.05), 5)
        assert content.aborted.is_set()
        assert await client.rest() == b""
        assert site.finished[0][5] is False


async def test_an_answer_under_way_ends_whole_while_draining():
    gate = asyncio.Event()

    class Gated(Pieces):
        async def read(self):
            if self.reads:
                await gate.wait()
            return await super().read()

    async with served(lambda _: streamed(Gated(b"abc", b"de"), 5)) as site, site.client() as client:
        client.send(GET)
        await client.until(b"abc")
        draining = asyncio.create_task(site.server.drain(5))
        gate.set()
        assert await client.exactly(2) == b"de"
        await asyncio.wait_for(draining, 5)
        assert await client.rest() == b""
