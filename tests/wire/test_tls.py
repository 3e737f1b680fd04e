"""TLS on listeners: who is let in, under which certificate, and what HTTP then sees.

Strategy: certificates of the kit, real handshakes on loopback; the client's side is asyncio's, or
OpenSSL's in memory where a session must be kept.
"""

import asyncio
import socket
import ssl
import struct

import pytest

from cdn.wire.tls import Certificate, TlsContext
from tests.kit import tls_contexts
from tests.wire.rim_kit import (
    CUT,
    HOST,
    LIMIT,
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
NAMES = ("a.example", "b.example")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """By name: the server's context and the client's."""
    here = tmp_path_factory.mktemp("tls")
    return {
        "a.example": tls_contexts(here / "a", "a.example"),
        "b.example": tls_contexts(here / "b", "b.example", "*.b.example"),
        "again": tls_contexts(here / "again", "a.example"),
    }


def certificate(made, name: str) -> Certificate:
    names = ("b.example", "*.b.example") if name == "b.example" else ("a.example",)
    return Certificate(names, made[name][0])


@pytest.fixture
def tls(made):
    return TlsContext([certificate(made, name) for name in NAMES])


@pytest.fixture
def trust(made):
    """By name: what a client of it hands to `Site.client`."""
    return {name: {"ssl": made[name][1], "server_hostname": name} for name in NAMES}


def scheme(exchange):
    return text(exchange.request.url.encode())


# -- which certificate


@pytest.mark.parametrize(
    ("name", "whose"),
    [
        ("a.example", "a.example"),
        ("A.Example.", "a.example"),
        ("b.example", "b.example"),
        ("www.b.example", "b.example"),
        ("x.www.b.example", "a.example"),  # a wildcard is one label
        ("www.a.example", "a.example"),
        ("example", "a.example"),
        ("", "a.example"),
        (None, "a.example"),
    ],
)
def test_the_certificate_of_a_name(made, tls, name, whose):
    assert tls.chosen(name) is made[whose][0]


async def test_each_name_is_shown_its_own_and_the_first_is_for_the_rest(tls, trust):
    async with served(tls=tls) as site:
        for name in NAMES:
            async with site.client(site.tls_port, **trust[name]) as client:
                client.send(GET)
                assert (await client.answer())[1] == b"GET a.example /x"
        unknown = {"ssl": trust["a.example"]["ssl"], "server_hostname": "a.example"}
        unknown["ssl"].check_hostname = False
        async with site.client(site.tls_port, **unknown | {"server_hostname": "no"}) as client:
            client.send(GET)
            await client.answer()
        unknown["ssl"].check_hostname = True


async def test_new_certificates_are_for_new_handshakes(made, tls, trust):
    async with served(tls=tls) as site:
        async with site.client(site.tls_port, **trust["a.example"]) as before:
            tls.use([certificate(made, "again")])
            before.send(GET)
            assert (await before.answer())[1] == b"GET a.example /x"
        after = {"ssl": made["again"][1], "server_hostname": "a.example"}
        async with site.client(site.tls_port, **after) as client:
            client.send(GET)
            assert (await client.answer())[1] == b"GET a.example /x"


# -- what HTTP sees


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
async def test_the_scheme_is_https_and_plain_listeners_keep_theirs(tls, trust, version):
    context = trust["a.example"]["ssl"]
    context.set_alpn_protocols(["h2", "http/1.1"])
    context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    async with (
        served(scheme, tls=tls) as site,
        site.client(site.tls_port, **trust["a.example"]) as secure,
        site.client() as plain,
    ):
        for client, url in ((secure, b"https://a.example/x"), (plain, b"http://a.example/x")):
            for _ in range(2):
                client.send(GET)
                assert (await client.answer())[1] == url
        done = secure.writer.get_extra_info("ssl_object")
        assert done.selected_alpn_protocol() == "http/1.1"
        assert site.server.tls_counters.handshakes == {(done.version(), "full"): 1}
        assert site.finished[0][0].client == "127.0.0.1"
    context.minimum_version, context.maximum_version = (
        ssl.TLSVersion.TLSv1_2,
        ssl.TLSVersion.MAXIMUM_SUPPORTED,
    )


async def test_large_content_and_requests_with_content(tls, trust):
    content = bytes(range(256)) * 20_000

    def now(exchange):
        return None if exchange.content else text(content)

    async with served(now, echo, tls=tls) as site:
        async with site.client(site.tls_port, **trust["a.example"]) as client:
            client.send(GET)
            assert (await client.answer())[1] == content
            sent = b"x" * 300_000
            client.send(b"PUT /p HTTP/1.1\r\n" + HOST + b"Content-Length: 300000\r\n\r\n" + sent)
            assert (await client.answer())[1] == b"PUT /p " + sent


async def test_a_refused_upload_can_read_why(tls, trust):
    async with served(tls=tls) as site:
        async with site.client(site.tls_port, **trust["a.example"]) as client:
            client.send(b"PUT /p HTTP/1.1\r\n" + HOST + b"Content-Length: x\r\n\r\n")
            client.send(bytes(200_000))
            assert (await client.rest()).startswith(b"HTTP/1.1 400 ")


async def test_content_that_ends_with_the_connection_is_told_from_what_was_cut(tls, trust):
    old = b"GET / HTTP/1.0\r\n" + HOST + b"\r\n"
    for pieces, cut in (((b"abc",), False), ((b"abc", CUT), True)):
        async with served(lambda _, p=pieces: streamed(Pieces(*p)), tls=tls) as site:
            async with site.client(site.tls_port, **trust["a.example"]) as client:
                client.send(old)
                received = await client.rest()
                assert client.reset is cut
                assert cut or received.endswith(b"\r\n\r\nabc")


# -- handshakes that fail


async def failed(site, reason: str) -> None:
    await until(lambda: site.server.tls_counters.failures[reason] == 1)
    await until(lambda: site.server.connections == 0)
    assert site.server.tls_counters.failures == {reason: 1}
    assert not site.server.tls_counters.handshakes
    assert not site.bugs
    assert not site.finished


async def test_http_on_the_port_for_tls(tls):
    async with served(tls=tls) as site, site.client(site.tls_port) as client:
        client.send(GET)
        await client.rest()
        await failed(site, "not-tls")


async def test_a_client_that_does_not_trust_the_certificate(tls, trust):
    async with served(tls=tls) as site:
        with pytest.raises(ssl.SSLCertVerificationError):  # and says so, as asyncio does not
            await asyncio.to_thread(resume, site.tls_port, trust["a.example"]["ssl"])
        await failed(site, "certificate")


@pytest.mark.filterwarnings("ignore:.*TLSv1_1 is deprecated")
async def test_versions_before_1_2(tls):
    old = ssl.create_default_context()
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.minimum_version = ssl.TLSVersion.TLSv1_1
    old.maximum_version = ssl.TLSVersion.TLSv1_1
    async with served(tls=tls) as site:
        with pytest.raises(ssl.SSLError):
            await asyncio.to_thread(resume, site.tls_port, old)
        await failed(site, "version")


async def test_a_client_that_leaves_before_the_end(tls):
    async with served(tls=tls) as site:
        async with site.client(site.tls_port):
            await until(lambda: site.server.connections == 1)
        await failed(site, "closed")


async def test_a_client_that_resets_before_the_end(tls):
    async with served(tls=tls) as site, site.client(site.tls_port) as client:
        await until(lambda: site.server.connections == 1)
        sock = client.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.writer.transport.abort()
        await failed(site, "closed")


async def test_a_client_that_says_nothing(tls):
    async with served(tls=tls, head=0.05) as site, site.client(site.tls_port) as client:
        assert await client.rest() == b""
        await failed(site, "timeout")


# -- sessions


def resume(port: int, context: ssl.SSLContext, session=None) -> tuple[bool, ssl.SSLSession]:
    """A request on a connection of its own: whether `session` was resumed, and the one to resume
    next. Blocks; only the socket of the ssl module keeps sessions."""
    with socket.create_connection(("127.0.0.1", port), timeout=LIMIT) as sock:
        with context.wrap_socket(sock, server_hostname="b.example", session=session) as secure:
            secure.sendall(GET)
            assert secure.recv(65_536).startswith(b"HTTP/1.1 200 ")
            return secure.session_reused, secure.session


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
async def test_sessions_are_resumed_also_after_new_certificates(made, tls, version):
    context = ssl.create_default_context(cafile=None)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion[version.replace(".", "_")]
    async with served(tls=tls) as site:
        resumed, session = await asyncio.to_thread(resume, site.tls_port, context)
        assert not resumed
        tls.use([certificate(made, "again"), certificate(made, "b.example")])
        resumed, _ = await asyncio.to_thread(resume, site.tls_port, context, session)
        assert resumed
        expected = {(version, "full"): 1, (version, "resumed"): 1}
        await until(lambda: site.server.tls_counters.handshakes == expected)


# -- draining


async def test_draining_closes_the_idle_and_lets_the_others_finish(tls, trust):
    began, gate = asyncio.Event(), asyncio.Event()

    async def answer(exchange):
        began.set()
        await gate.wait()
        return await echo(exchange)

    async with (
        served(later, answer, tls=tls) as site,
        site.client(site.tls_port, **trust["a.example"]) as busy,
        site.client(site.tls_port, **trust["b.example"]) as idle,
    ):
        busy.send(GET)
        await began.wait()
        port = site.tls_port
        draining = asyncio.create_task(site.server.drain(5))
        assert await idle.rest() == b""
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        gate.set()
        received = await busy.rest()
        await draining
        assert received.startswith(b"HTTP/1.1 200 ")
        assert b"\r\nConnection: close\r\n" in received


async def test_a_handshake_that_ends_while_draining_is_closed_cleanly(tls, trust):
    async with served(tls=tls) as site:
        reader, writer = await asyncio.open_connection("127.0.0.1", site.tls_port)
        await until(lambda: site.server.connections == 1)
        draining = asyncio.create_task(site.server.drain(5))
        await until(lambda: not site.server.tls_addresses)
        await writer.start_tls(trust["a.example"]["ssl"], server_hostname="a.example")
        assert await asyncio.wait_for(reader.read(), LIMIT) == b""
        await asyncio.wait_for(draining, LIMIT)
        writer.transport.abort()


async def test_draining_aborts_handshakes_and_answers_at_its_limit(tls, trust):
    content = Unending(b"abc")
    async with (
        served(lambda _: streamed(content, 10), tls=tls) as site,
        site.client(site.tls_port, **trust["a.example"]) as busy,
        site.client(site.tls_port) as silent,
    ):
        busy.send(GET)
        await busy.until(b"abc")
        await until(lambda: site.server.connections == 2)
        await asyncio.wait_for(site.server.drain(0.05), LIMIT)
        assert content.aborted.is_set()
        assert await silent.rest() == b""
        assert await busy.rest() == b""


async def test_accepting_pauses_where_the_system_has_no_room(tls, trust, monkeypatch):
    monkeypatch.setattr("cdn.wire.tls.PAUSE", 0.01)
    async with served(tls=tls) as site:
        (listener,) = site.server._tls_listeners
        real, calls = listener.sock, []

        class Full:
            def __getattr__(self, name):
                return getattr(real, name)

            def accept(self):
                calls.append("accept")
                if len(calls) == 1:
                    raise OSError(24, "Too many open files")
                return real.accept()

        listener.sock = Full()
        async with site.client(site.tls_port, **trust["a.example"]) as client:
            client.send(GET)
            assert (await client.answer())[1] == b"GET a.example /x"
        listener.sock = real
        assert site.bugs == ["cannot accept connections: Too many open files; again in a second"]
