"""TLS between a TCP transport and a protocol: what crosses it, in which order, and how it ends.

Strategy: both sides in memory. The TCP transport writes down what it is told, the client is
OpenSSL's, and a protocol of the test notes what it hears; so every byte has its turn. What needs a
real peer is at the end: a node's connection, with `openssl s_client` or a socket.
"""

import asyncio
import contextlib
import gc
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from cdn.wire.link import UNSENT
from cdn.wire.rim import Deadlines, Rim
from cdn.wire.tls import Certificate, TlsContext
from cdn.wire.tls_counters import TlsCounters
from cdn.wire.tls_transport import DROPPED, PIECE, REPLIES, TlsTransport
from tests.kit import need, tls_contexts
from tests.wire.rim_kit import HOST, LIMIT, Unending, served, streamed, text, until
from tests.wire.test_cycles import of_the_node

GET = b"GET /x HTTP/1.1\r\n" + HOST + b"\r\n"
VERSIONS = ("TLSv1_2", "TLSv1_3")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The server's context and the client's."""
    return tls_contexts(tmp_path_factory.mktemp("tls") / "a", "a.example")


class Tcp:
    """Notes what it is told: `told` has the calls, `sent` the bytes that the client has to read."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.sent = bytearray()
        self.waiting = 0
        self.closing = False

    def write(self, data: bytes) -> None:
        assert "write_eof" not in self.told
        if not self.closing:
            self.told.append("write")
            self.sent += data

    def writelines(self, pieces: list[bytes]) -> None:
        assert max(map(len, pieces)) < PIECE + 1_024
        self.write(b"".join(pieces))

    def is_closing(self) -> bool:
        return self.closing

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def __getattr__(self, name: str):
        assert name in ("write_eof", "close", "abort", "pause_reading", "resume_reading"), name

        def note() -> None:
            self.closing = self.closing or name in ("close", "abort")
            self.told.append(name)

        return note


class App(asyncio.Protocol):
    """Notes what it hears; `on_data` may answer."""

    def __init__(self) -> None:
        self.heard: list[bytes | str] = []
        self.leaving: list[bytes] = []
        self.lost = 0
        self.on_data = lambda data: None

    def connection_made(self, transport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.heard.append(data)
        self.on_data(data)

    def let_out(self) -> None:
        for data in self.leaving:
            self.transport.write(data)
        self.leaving.clear()

    def eof_received(self) -> None:
        self.heard.append("eof")

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost += 1

    def pause_writing(self) -> None:
        self.heard.append("pause")

    def resume_writing(self) -> None:
        self.heard.append("resume")


class Talk:
    """A connection, its handshake done unless `hands` is False."""

    def __init__(self, made, version: str = "TLSv1_3", hands: bool = True, **deadlines) -> None:
        server, client = made
        self.rim = Rim(None, None, "https", None, None, Deadlines(**deadlines), None)
        self.counters, self.app, self.tcp = TlsCounters(), App(), Tcp()
        self.transport = TlsTransport(self.rim, server, self.counters, lambda: self.app)
        self.transport.connection_made(self.tcp)
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        client.minimum_version = client.maximum_version = ssl.TLSVersion[version]
        self.client = client.wrap_bio(self._in, self._out, server_hostname="a.example")
        client.minimum_version = ssl.TLSVersion.TLSv1_2
        client.maximum_version = ssl.TLSVersion.MAXIMUM_SUPPORTED
        self.hello = self._shake()
        if hands:
            self.transport.data_received(self.hello)
            last = self._shake()
            self.transport.data_received(last)
            self.read()
            assert self.counters.handshakes.total() == 1
            self.tcp.told.clear()

    def _shake(self) -> bytes:
        self._take()
        with contextlib.suppress(ssl.SSLWantReadError):
            self.client.do_handshake()
        return self._out.read()

    def _take(self) -> None:
        self._in.write(bytes(self.tcp.sent))
        self.tcp.sent.clear()

    def sealed(self, *contents: bytes) -> bytes:
        """Each of them in a record."""
        for content in contents:
            self.client.write(content)
        return self._out.read()

    def said_goodbye(self) -> bytes:
        with contextlib.suppress(ssl.SSLError):
            self.client.unwrap()
        return self._out.read()

    def read(self) -> bytes:
        """All content that has come for the client. Its end, if that was said, is in `ended`."""
        self._take()
        received = b""
        self.ended = True
        try:
            while piece := self.client.read(65_536):
                received += piece
        except ssl.SSLZeroReturnError:
            pass
        except ssl.SSLWantReadError:
            self.ended = False
        return received

    def send(self, *contents: bytes) -> None:
        self.transport.data_received(self.sealed(*contents))


# -- reading


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_byte_at_a_time(made, version):
    talk = Talk(made, version, hands=False)
    for byte in talk.hello:
        talk.transport.data_received(bytes([byte]))
    for byte in talk._shake():
        talk.transport.data_received(bytes([byte]))
    assert talk.read() == b""
    for byte in talk.sealed(b"abc", bytes(16_384)):
        talk.transport.data_received(bytes([byte]))
    assert b"".join(talk.app.heard) == b"abc" + bytes(16_384)
    talk.transport.connection_lost(None)


@pytest.mark.parametrize("version", VERSIONS)
async def test_what_comes_with_the_handshakes_end(made, version):
    talk = Talk(made, version, hands=False)
    talk.transport.data_received(talk.hello)
    last = talk._shake()
    if version == "TLSv1_2":  # whose client has the last word but one
        talk.transport.data_received(last)
        last = talk._shake()
    talk.transport.data_received(last + talk.sealed(b"abc", b"def") + talk.said_goodbye())
    assert talk.app.heard == [b"abc", b"def", "eof"]
    talk.transport.connection_lost(None)


async def test_many_records_in_one_read_and_one_in_many(made):
    talk = Talk(made)
    talk.send(b"a", b"", b"bc", bytes(16_384), b"d")
    assert talk.app.heard == [b"a", b"bc", bytes(16_384), b"d"]
    sealed = talk.sealed(b"e" * 16_384, b"f", b"g")
    for part in (sealed[:3], sealed[3:9_000], sealed[9_000:-30], sealed[-30:]):
        talk.transport.data_received(part)
    assert b"".join(talk.app.heard[4:]) == b"e" * 16_384 + b"fg"


async def test_a_pause_holds_what_has_come_and_then_what_comes(made):
    talk = Talk(made)
    talk.app.on_data = lambda data: talk.transport.pause_reading() if data == b"b" else None
    talk.send(b"a", b"b", b"c", b"b", b"d")
    assert talk.app.heard == [b"a", b"b"]
    assert talk.tcp.told == ["pause_reading"]
    talk.transport.resume_reading()
    assert talk.app.heard == [b"a", b"b"]  # not within the call of one who is not done
    await asyncio.sleep(0)
    assert talk.app.heard == [b"a", b"b", b"c", b"b"]
    assert talk.tcp.told == ["pause_reading", "pause_reading"]
    talk.transport.resume_reading()
    await asyncio.sleep(0)
    assert talk.app.heard == [b"a", b"b", b"c", b"b", b"d"]
    assert talk.tcp.told[2:] == ["resume_reading"]


async def test_a_goodbye_is_answered_and_nothing_after_it_is_heard(made):
    talk = Talk(made)
    talk.transport.data_received(talk.sealed(b"a") + talk.said_goodbye())
    assert talk.app.heard == [b"a", "eof"]
    assert talk.read() == b""
    assert talk.ended
    assert talk.tcp.told == ["write", "write_eof"]
    talk.transport.connection_lost(None)
    assert talk.app.lost == 1


async def test_a_cut_gives_nothing_of_the_record_that_it_cuts(made):
    talk = Talk(made)
    talk.transport.data_received(talk.sealed(b"a", b"b")[:-1])
    talk.transport.eof_received()
    talk.transport.connection_lost(None)
    assert talk.app.heard == [b"a", "eof"]
    assert talk.app.lost == 1


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_record_that_was_changed_ends_all_with_an_alert(made, version):
    talk = Talk(made, version)
    sealed = bytearray(talk.sealed(b"a", b"b"))
    sealed[-1] ^= 1
    more = talk.sealed(b"c"), talk.sealed(b"d")
    talk.transport.data_received(bytes(sealed) + more[0])
    assert talk.app.heard == [b"a"]
    assert talk.tcp.told == ["write", "close"]
    with pytest.raises(ssl.SSLError, match="BAD_RECORD_MAC"):
        talk.read()
    talk.transport.data_received(more[1])
    talk.transport.write(b"x")
    talk.transport.close()
    assert talk.tcp.told == ["write", "close"]
    talk.transport.connection_lost(None)
    assert (talk.app.heard, talk.app.lost) == ([b"a"], 1)


async def test_what_was_answered_leaves_before_the_alert(made):
    talk = Talk(made)
    talk.app.on_data = lambda data: talk.app.leaving.append(b"answer")
    changed = bytearray(talk.sealed(b"a", b"b"))
    changed[-1] ^= 1
    talk.transport.data_received(bytes(changed))
    assert talk.tcp.told == ["write", "write", "close"]
    talk._take()
    assert talk.client.read(100) == b"answer"
    with pytest.raises(ssl.SSLError, match="BAD_RECORD_MAC"):
        talk.client.read(100)


# -- writing


async def test_an_answer_in_pieces_is_one_record_and_one_write(made):
    talk = Talk(made)
    talk.app.on_data = lambda _: talk.transport.writelines((b"head ", bytearray(b"content")))
    talk.send(b"?")
    assert talk.tcp.told == ["write"]
    assert len(talk.tcp.sent) == 5 + len(b"head content") + 1 + 16  # RFC 8446 §5.2
    assert talk.read() == b"head content"


async def test_large_content_is_encrypted_piece_by_piece_and_written_once(made):
    talk = Talk(made)
    content = bytes(range(256)) * 4_096
    talk.transport.writelines((b"head ", memoryview(content)))
    talk.transport.write(b"")
    talk.transport.write(content)
    assert talk.tcp.told == ["write", "write"]
    assert talk.read() == b"head " + content * 2


async def test_room_is_the_tcp_transports(made):
    talk = Talk(made)
    talk.transport.pause_writing()
    talk.tcp.waiting = 17
    assert talk.transport.get_write_buffer_size() == 17
    talk.transport.resume_writing()
    assert talk.app.heard == ["pause", "resume"]


@pytest.mark.parametrize("end", ["close", "abort", "lost"])
async def test_nothing_is_written_after_the_end(made, end):
    talk = Talk(made)
    talk.transport.write(b"a")
    if end == "lost":
        talk.transport.connection_lost(None)
    else:
        getattr(talk.transport, end)()
    assert talk.transport.is_closing()
    told = list(talk.tcp.told)
    talk.transport.write(b"b")
    talk.transport.writelines((b"c", bytes(PIECE)))
    talk.transport.close()
    talk.transport.pause_reading()
    talk.transport.resume_reading()
    talk.send(b"d")
    await asyncio.sleep(0)
    assert talk.tcp.told == told
    assert talk.app.heard == []
    if end != "lost":
        talk.transport.connection_lost(None)
    assert talk.app.lost == 1


# -- the end


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_close_says_so_and_an_abort_does_not(made, version):
    for close in (True, False):
        talk = Talk(made, version)
        talk.transport.write(b"abc")
        if close:
            talk.transport.close()
            assert talk.tcp.told == ["write", "write", "write_eof"]
        else:
            talk.transport.abort()
            assert talk.tcp.told == ["write", "abort"]
        assert talk.read() == b"abc"
        assert talk.ended is close
        talk.transport.connection_lost(None)


async def test_what_comes_after_a_close_is_dropped_and_not_without_end(made):
    talk = Talk(made)
    talk.transport.pause_reading()
    talk.transport.close()
    assert talk.tcp.told[-1] == "resume_reading"  # or the client's end would not be seen
    for _ in range(DROPPED // 65_536):
        talk.transport.data_received(bytes(65_536))
    assert "close" not in talk.tcp.told
    talk.transport.data_received(b"x")
    assert talk.tcp.told[-1] == "close"


async def test_a_client_that_never_closes_is_cut(made):
    talk = Talk(made, stall=0.01)
    talk.tcp.waiting = 1  # it takes what was sent, as far as anyone knows here
    talk.transport.close()
    before = talk.transport._timer
    await until(lambda: talk.transport._timer is not before)
    assert "abort" not in talk.tcp.told
    talk.tcp.waiting = 0
    await until(lambda: talk.tcp.told[-1] == "abort")
    talk.transport.connection_lost(None)
    assert talk.app.lost == 1


async def test_a_handshake_that_fails_says_why_and_is_counted_once(made):
    talk = Talk(made, hands=False)
    talk.transport.data_received(b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00")
    assert talk.tcp.told == ["write", "close"]
    assert talk.tcp.sent[0] == 21  # an alert
    assert talk.transport in talk.rim.connections
    talk.transport.connection_lost(None)
    assert talk.rim.emptied.is_set()
    assert talk.counters.failures == {"other": 1}
    assert not hasattr(talk.app, "transport")


async def test_draining_ends_a_handshake_before_its_connection_is_watched(made):
    talk = Talk(made, hands=False)
    early = TlsTransport(talk.rim, made[0], talk.counters, App)
    early.close_if_idle()
    early.abort()
    tcp = Tcp()
    early.connection_made(tcp)
    assert tcp.told == ["abort"]
    early.connection_lost(None)
    assert talk.rim.connections == {talk.transport}
    assert not talk.counters.failures


# -- with real peers


@pytest.fixture
def tls(made):
    return TlsContext([Certificate(("a.example",), made[0])])


async def test_a_client_that_takes_nothing_stops_the_answer(made, tls):
    content = Unending(*[bytes(65_536)] * 1_000)
    async with served(lambda _: streamed(content), tls=tls) as site:
        trust = {"ssl": made[1], "server_hostname": "a.example"}
        async with site.client(site.tls_port, **trust) as client:
            client.writer.transport.pause_reading()
            client.send(GET)
            await until(lambda: site.server.counters.requests == 1)
            (connection,) = site.server._rim.connections
            await until(lambda: connection.room is not None)
            read = -1
            while read != content.reads:  # what the kernel takes, it may take later
                read = content.reads
                assert connection.transport.get_write_buffer_size() < UNSENT + 2 * PIECE
                for _ in range(1_000):
                    await asyncio.sleep(0)
            assert read < 200
            client.writer.transport.resume_reading()
            await until(lambda: content.reads > read)


async def test_replies_that_nobody_takes_end_the_connection(made):
    talk = Talk(made)
    talk.transport._outgoing.write(b"what OpenSSL says of itself")
    talk.send(b"a")
    assert talk.tcp.told == ["write"]
    talk.tcp.waiting = REPLIES + 1
    talk.transport._outgoing.write(b"and again")
    talk.send(b"b")
    assert talk.tcp.told == ["write", "write", "abort"]


@dataclass
class OpensslClient:
    process: asyncio.subprocess.Process
    stdin: asyncio.StreamWriter
    stdout: asyncio.StreamReader
    stderr: asyncio.StreamReader


@contextlib.asynccontextmanager
async def openssl_client(port: int, version: str) -> AsyncIterator[OpensslClient]:
    """`openssl s_client`, whose own commands are letters on a line (R, k, K, Q)."""
    process = await asyncio.create_subprocess_exec(
        need("openssl"), "s_client", "-connect", f"127.0.0.1:{port}", version,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin
    assert process.stdout
    assert process.stderr
    try:
        yield OpensslClient(process, process.stdin, process.stdout, process.stderr)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.debian
@pytest.mark.parametrize("letter", ["k", "K"])
async def test_keys_are_updated(tls, letter):
    """K asks for an update of the other side's as well."""
    async with served(tls=tls) as site:
        async with asyncio.timeout(LIMIT), openssl_client(site.tls_port, "-tls1_3") as client:
            for _ in range(3):
                client.stdin.write(GET)
                await client.stdout.readuntil(b"GET a.example /x")
                client.stdin.write(letter.encode() + b"\n")
                await client.stderr.readuntil(b"KEYUPDATE")
            client.stdin.write(GET)
            await client.stdout.readuntil(b"GET a.example /x")
            client.stdin.write(b"Q\n")
            await client.process.wait()
            await until(lambda: site.server.connections == 0)
        assert len(site.finished) == 4
        assert site.server.counters.connections_total == 1


@pytest.mark.debian
async def test_another_handshake_on_the_connection_is_refused(tls):
    """OpenSSL refuses by a warning; its own client then leaves."""
    async with served(tls=tls) as site:
        async with asyncio.timeout(LIMIT), openssl_client(site.tls_port, "-tls1_2") as client:
            client.stdin.write(GET)
            await client.stdout.readuntil(b"GET a.example /x")
            client.stdin.write(b"R\n")
            assert b"no renegotiation" in await client.stderr.read()
            await client.process.wait()
            await until(lambda: site.server.connections == 0)
        assert site.server.tls_counters.handshakes.total() == 1


async def test_connections_leave_no_cycle(made, tls):
    def visit(port: int) -> None:
        with socket.create_connection(("127.0.0.1", port), timeout=LIMIT) as sock:
            with made[1].wrap_socket(sock, server_hostname="a.example") as secure:
                secure.sendall(GET)
                assert secure.recv(65_536).startswith(b"HTTP/1.1 200 ")

    def fail(port: int) -> None:
        with socket.create_connection(("127.0.0.1", port), timeout=LIMIT) as sock:
            sock.sendall(GET)
            while sock.recv(65_536):
                pass

    async with served(lambda _: text(b"x"), tls=tls) as site:
        for visitor in (visit, fail):
            await asyncio.to_thread(visitor, site.tls_port)
            await until(lambda: site.server.connections == 0)
            gc.collect()
            gc.disable()
            gc.set_debug(gc.DEBUG_SAVEALL)
            try:
                for _ in range(20):
                    await asyncio.to_thread(visitor, site.tls_port)
                    await until(lambda: site.server.connections == 0)
                gc.collect()
                left = [name for one in gc.garbage if (name := of_the_node(one))]
            finally:
                gc.set_debug(0)
                gc.garbage.clear()
                gc.enable()
            assert left == []
