"""What goes up, which connections carry it, and what callers are told when it fails."""

import asyncio
import socket
import ssl
import subprocess

import pytest

from cdn.semantics.message import Fields
from cdn.upstream.client import FRESH
from cdn.upstream.errors import (
    BodyCutShort,
    ClosedBeforeHead,
    ConnectRefused,
    ConnectTimeout,
    MalformedResponse,
    NameNotResolved,
    TlsFailed,
)
from cdn.upstream.exchange import Deadlines, Endpoint
from tests.upstream.scripted_peer import (
    OK,
    Client,
    Clock,
    Close,
    Peer,
    answer,
    content_of,
    on_both_loops,
    on_uvloop,
    pieces,
)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# -- the head that goes up


async def test_the_head_goes_up_byte_for_byte():
    fields = Fields([("hOST", "Www.Example.com"), ("X-A", "1"), ("x-a", "\xe9"), ("Cookie", "a=b")])
    async with Peer(OK) as peer, Client() as client:
        await client.get(peer, target="/A%2f/../b?q=%7E&&", fields=fields)
    assert peer.heads == [
        b"GET /A%2f/../b?q=%7E&& HTTP/1.1\r\n"
        b"hOST: Www.Example.com\r\nX-A: 1\r\nx-a: \xe9\r\nCookie: a=b\r\n\r\n"
    ]


async def test_fields_of_the_other_connection_stay_behind():
    names = ["Connection", "Keep-Alive", "TE", "Transfer-Encoding", "content-length", "Upgrade",
             "Proxy-Connection", "Trailer"]  # fmt: skip
    fields = Fields([("Host", "a"), *((name, "x") for name in names)])
    async with Peer(OK) as peer, Client() as client:
        await client.get(peer, fields=fields)
    assert peer.heads == [b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"]


@pytest.mark.parametrize(("method", "length", "sent"), [("POST", None, True), ("GET", 0, True),
                                                        ("DELETE", None, False)])  # fmt: skip
async def test_no_content_is_declared_where_the_method_expects_some(method, length, sent):
    async with Peer(OK) as peer, Client() as client:
        await client.get(peer, method, content_length=length)
    assert (b"\r\nContent-Length: 0\r\n" in peer.heads[0]) is sent


@pytest.mark.parametrize(
    "bad",
    [
        {"target": "/a\r\nX: y"},
        {"target": "/a b"},
        {"method": "GET\n"},
        {"fields": Fields([("Host", "a\r\nX: y")])},
        {"fields": Fields([("X\n", "a")])},
        {"fields": Fields([("X", "a\0")])},
        {"fields": Fields([("X", "\u20ac")])},
        {"content_length": 5},
    ],
)
async def test_what_would_break_the_head_is_a_bug_and_is_not_sent(bad):
    async with Peer(OK) as peer, Client() as client:
        with pytest.raises(ValueError):
            await client.get(peer, **bad)
        assert client.counters.opened == 0


# -- reuse


@on_both_loops
async def test_connections_are_reused_and_counted():
    async with Peer(OK, OK, OK) as peer, Client() as client:
        for _ in range(3):
            response = await client.get(peer)
            assert response.source == str(peer.endpoint)
            assert await content_of(response) == b"ok"
            assert await response.read() == b""
            response.abort()
        counters = client.counters
        assert (counters.opened, counters.reused, counters.requests) == (1, 2, 3)
        assert counters.bytes_in == 3 * len(OK)
        assert counters.bytes_out == sum(map(len, peer.heads))
        assert peer.opened.value == 1


async def test_a_connection_is_free_once_the_answer_has_come_read_or_not():
    async with Peer(OK, OK) as peer, Client() as client:
        first = await client.get(peer)
        second = await client.get(peer)
        assert await content_of(first) == await content_of(second) == b"ok"
        assert client.counters.opened == 1


async def test_other_endpoints_and_tls_names_have_connections_of_their_own():
    async with Peer(OK, OK) as peer, Client() as client:
        await client.get(peer)
        await client.get(peer, tls_name="other")
        assert client.counters.opened == 2


async def held(count):
    """Answers that come only when all `count` requests are there."""
    barrier = asyncio.Barrier(count)

    async def hold(_, writer):
        await barrier.wait()
        writer.write(OK)

    return [hold] * count


async def test_no_more_idle_connections_are_kept_than_asked():
    async with Peer(*await held(3)) as peer, Client(idle_per_endpoint=2) as client:
        await asyncio.gather(*(client.get(peer) for _ in range(3)))
        await peer.ended.reached(1)
        assert peer.opened.value == 3


async def test_an_idle_connection_grows_too_old():
    clock = Clock()
    async with Peer(OK, OK, OK) as peer, Client(clock, idle_seconds=60) as client:
        await client.get(peer)
        clock.now += 59
        await client.get(peer)
        assert client.counters.opened == 1
        clock.now += 61
        await client.get(peer)
        assert client.counters.opened == 2
        await peer.ended.reached()


async def test_what_must_not_be_repeated_goes_where_the_last_answer_is_fresh():
    clock = Clock()
    async with Peer(*[OK] * 5) as peer, Client(clock, idle_seconds=60) as client:
        await client.get(peer)
        clock.now += FRESH
        await client.get(peer, method="POST")
        assert client.counters.opened == 2
        await client.get(peer)
        clock.now += FRESH / 2
        await client.get(peer, method="POST")  # the newest first
        clock.now += 2 * FRESH
        await client.get(peer)
        assert client.counters.opened == 2


@on_both_loops
async def test_connections_that_nobody_needs_are_closed_without_a_request():
    loop = asyncio.get_running_loop()
    async with Peer(OK) as peer, Client(loop.time, idle_seconds=0.02) as client:
        await client.get(peer)
        await peer.ended.reached()


@on_both_loops
async def test_a_connection_closed_while_idle_is_replaced_unseen():
    """The peer reads the second request and closes without a byte, as in the race."""
    async with Peer(OK, Close(), OK) as peer, Client() as client:
        await client.get(peer)
        assert await content_of(await client.get(peer)) == b"ok"
        assert (len(peer.heads), client.counters.opened) == (3, 2)


async def test_it_is_replaced_once_only():
    async with Peer(OK, Close(), Close(), OK) as peer, Client() as client:
        await client.get(peer)
        with pytest.raises(ClosedBeforeHead):
            await client.get(peer)
        assert len(peer.heads) == 3


@pytest.mark.parametrize(
    ("method", "content", "second"),
    [
        ("POST", False, Close()),
        ("PUT", True, Close()),
        ("GET", False, Close(b"HTTP/1.1 2")),
    ],
)
async def test_what_may_have_been_acted_on_is_not_asked_again(method, content, second):
    async with Peer(OK, second, OK) as peer, Client() as client:
        await client.get(peer)
        more = {"content": pieces(b"x"), "content_length": 1} if content else {}
        with pytest.raises(ClosedBeforeHead):
            await client.get(peer, method, **more)
        assert len(peer.heads) == 2


@on_both_loops
async def test_close_closes_idle_and_busy_connections_alike():
    async def half(reader, writer):
        writer.write(answer("Content-Length: 5", content=b"he"))
        await reader.readexactly(1)

    async with Peer(half, OK) as peer:
        client = Client()
        busy = await client.get(peer)
        await client.get(peer)
        await client.close()
        await peer.ended.reached(2)
        with pytest.raises(BodyCutShort):
            await content_of(busy)


# -- connecting


@on_both_loops
async def test_nothing_listens_there():
    async with Client() as client:
        with pytest.raises(ConnectRefused):
            await client.get(Endpoint("http", "127.0.0.1", free_port()))


@on_both_loops
async def test_a_name_without_an_address():
    async with Client() as client:
        with pytest.raises(NameNotResolved):
            await client.get(Endpoint("http", "no-such-name.invalid", 80))
        with pytest.raises(NameNotResolved):
            await client.get(Endpoint("http", "a" * 300, 80))


async def test_ipv6():
    try:
        peer = await Peer(OK, host="::1").__aenter__()
    except OSError:
        pytest.skip("no IPv6 on this machine's loopback")
    async with Client() as client:
        response = await client.get(peer)
        assert response.source == f"http://[::1]:{peer.port}"
    await peer.__aexit__()


async def test_a_name_server_that_does_not_answer(monkeypatch):
    async def getaddrinfo(*_, **__):
        await asyncio.Event().wait()

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    async with Client() as client:
        with pytest.raises(ConnectTimeout):
            await client.get(
                Endpoint("http", "slow.example", 80), deadlines=Deadlines(connect=0.02)
            )


@on_both_loops
async def test_a_peer_that_speaks_or_hangs_up_before_it_is_asked():
    for first in (b"", b"220 mail.example ESMTP\r\n"):

        async def serve(_, writer, first=first):
            writer.write(first)
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server, Client() as client:
            port = server.sockets[0].getsockname()[1]
            with pytest.raises((ClosedBeforeHead, MalformedResponse)):
                await client.get(Endpoint("http", "127.0.0.1", port))


def resolve_to(monkeypatch, *addresses):
    async def getaddrinfo(_host, port, **_):
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses
        ]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)


@on_both_loops
async def test_addresses_are_tried_in_turn(monkeypatch):
    resolve_to(monkeypatch, "127.0.0.2", "127.0.0.1")
    async with Peer(OK) as peer, Client() as client:
        await client.get(Endpoint("http", "two.example", peer.port))
        assert peer.opened.value == 1


@pytest.fixture
def full():
    """A listener whose queue is full: the next connection attempt gets no answer."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.3", 0))
        listener.listen(0)
        filling = []
        for _ in range(4):
            one = socket.socket()
            one.setblocking(False)
            one.connect_ex(listener.getsockname())
            filling.append(one)
        yield listener.getsockname()
        for one in filling:
            one.close()


@on_both_loops
async def test_connect_deadline(full):
    async with Client() as client:
        with pytest.raises(ConnectTimeout):
            await client.get(Endpoint("http", *full), deadlines=Deadlines(connect=0.05))


async def test_a_dead_address_leaves_time_for_the_next(full, monkeypatch):
    dead, port = full
    resolve_to(monkeypatch, dead, "127.0.0.1")
    server = await asyncio.start_server(Peer(OK)._serve, "127.0.0.1", port)
    async with server, Client() as client:
        response = await client.get(
            Endpoint("http", "two.example", port), deadlines=Deadlines(connect=2.0)
        )
        assert await content_of(response) == b"ok"


@on_both_loops
async def test_a_cancelled_connect_leaves_nothing(full):
    async with Client() as client:
        asking = asyncio.create_task(client.get(Endpoint("http", *full)))
        await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert client.counters.opened == 0


# -- TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    here = tmp_path_factory.mktemp("tls")
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-days", "2", "-subj", "/CN=origin.example",
         "-addext", "subjectAltName=DNS:origin.example,IP:127.0.0.1",
         "-keyout", here / "key.pem", "-out", here / "cert.pem"],
        capture_output=True, check=False,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    return here


@pytest.fixture
def serving(certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    context.names = []
    context.sni_callback = lambda _socket, name, _context: context.names.append(name)
    return context


@pytest.fixture
def trusting(certificate):
    return ssl.create_default_context(cafile=str(certificate / "cert.pem"))


@on_both_loops
async def test_https_with_sni_and_reuse(serving, trusting):
    async with Peer(OK, OK, tls=serving) as peer, Client(ssl_context=trusting) as client:
        for _ in range(2):
            response = await client.get(peer, tls_name="origin.example")
            assert await content_of(response) == b"ok"
        assert serving.names == ["origin.example"]


@on_both_loops
async def test_the_certificate_must_be_for_the_name(serving, trusting):
    async with Peer(OK, tls=serving) as peer, Client(ssl_context=trusting) as client:
        with pytest.raises(TlsFailed, match="other"):
            await client.get(peer, tls_name="other.example")


async def test_the_host_is_verified_where_no_name_is_given(serving, trusting):
    async with Peer(OK, tls=serving) as peer, Client(ssl_context=trusting) as client:
        assert await content_of(await client.get(peer)) == b"ok"


@on_both_loops
async def test_an_unknown_certificate_is_refused_by_default(serving):
    async with Peer(OK, tls=serving) as peer, Client() as client:
        with pytest.raises(TlsFailed):
            await client.get(peer)


@on_both_loops
async def test_a_peer_that_speaks_no_tls_or_hangs_up():
    for first in (OK, Close()):

        async def serve(reader, writer, first=first):
            await reader.read(1)
            writer.write(first.data if isinstance(first, Close) else first)
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server, Client() as client:
            port = server.sockets[0].getsockname()[1]
            with pytest.raises(TlsFailed):
                await client.get(Endpoint("https", "127.0.0.1", port))


@on_uvloop  # asyncio's loop does not tell the two apart
async def test_only_close_notify_ends_content_read_until_close(serving, trusting):
    async def cut(_, writer):
        writer.write(answer(content=b"hel"))
        await writer.drain()
        writer.transport.abort()

    async with Peer(Close(answer(content=b"hello")), cut, tls=serving) as peer:
        async with Client(ssl_context=trusting) as client:
            assert await content_of(await client.get(peer)) == b"hello"
            response = await client.get(peer)
            with pytest.raises(BodyCutShort):
                await content_of(response)
