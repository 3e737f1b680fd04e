"""Content out of files: in order with what comes from RAM, at the pace of whoever reads it."""

import asyncio
import errno
import itertools
import os
import socket
import threading

import pytest

from cdn.gateway.exchange import Answer, Outcome
from cdn.semantics.message import Fields, Response
from cdn.storage.memory_file import MemoryFile
from cdn.storage.store import FileSpan, SliceDamaged
from cdn.wire.sendfile import FileSender
from cdn.wire.tls import Certificate, TlsContext
from tests.kit import Pattern
from tests.kit.tls import tls_contexts
from tests.wire.rim_kit import HOST, Pieces, later, served, streamed, until

SIZE = 12 << 20
CONTENT = Pattern(SIZE, seed=5).read(0, SIZE)


def get(target: str) -> bytes:
    return f"GET {target} HTTP/1.1\r\n".encode() + HOST + b"\r\n"


def ready(*pieces) -> Answer:
    size = sum(map(len, pieces))
    return Answer(Response(200, Fields(())), pieces, size, Outcome(cache="hit"))


@pytest.fixture(scope="module")
def file():
    kept = MemoryFile()
    held = kept.add(CONTENT)
    return lambda start=0, stop=SIZE: held.span(start, stop)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def stopped(site) -> None:
    """Until the client's connection takes nothing more."""
    (connection,) = site.server._rim.connections
    await until(lambda: connection.room is not None)


async def test_answers_out_of_ram_and_files_come_in_order(file):
    ram, small = os.urandom(3 << 20), b"small"
    answers = {
        "/file": lambda: ready(file()),
        "/ram": lambda: ready(ram[: 1 << 20], memoryview(ram)[1 << 20 :]),
        "/mixed": lambda: ready(
            b"--a\r\n", file(5, 1 << 20), b"\r\n--a\r\n", file(7, 400_000), b"--"
        ),
        "/small": lambda: ready(small),
    }
    content = {
        "/file": CONTENT,
        "/ram": ram,
        "/mixed": b"--a\r\n" + CONTENT[5 : 1 << 20] + b"\r\n--a\r\n" + CONTENT[7:400_000] + b"--",
        "/small": small,
    }
    asked = ["/small", "/file", "/ram", "/mixed", "/small", "/small", "/file"]
    async with served(lambda exchange: answers[exchange.request.target]()) as site:
        async with site.client() as client:
            client.writer.transport.pause_reading()
            client.send(b"".join(map(get, asked)))
            await until(lambda: bool(site.server._rim.connections))
            await stopped(site)
            assert len(site.finished) == 1
            client.writer.transport.resume_reading()
            for target in asked:
                assert (await client.answer())[1] == content[target]
        await until(lambda: len(site.finished) == len(asked))
    sent = [(finished[0].request.target, finished[3], finished[5]) for finished in site.finished]
    assert sent == [(target, len(content[target]), True) for target in asked]
    assert not site.bugs


async def test_a_head_and_one_span_arrive_whole_whatever_the_kernel_takes_of_them_at_once(
    file, monkeypatch
):
    """A socket with no room, with room for some of the head, of its lead, of the span, for all."""
    head = b"h" * 5_000
    whole = head + CONTENT[100:100_100]
    write, sendfile = os.write, os.sendfile
    rooms = [(0, 0), (3, 0), (4_999, 0), (5_000, 0), (5_010, 0), (SIZE, 0), (SIZE, 7), (SIZE, SIZE)]

    def written(fd, data):
        if not written.room:
            raise BlockingIOError
        return write(fd, data[: written.room])

    def sent(fd, source, offset, count):
        if not sent.room:
            sent.room = SIZE
            raise BlockingIOError
        return sendfile(fd, source, offset, min(count, sent.room))

    def written_apart(fd, pieces):
        return written(fd, b"".join(pieces))

    monkeypatch.setattr(os, "sendfile", sent)
    for (written.room, sent.room), mapped in itertools.product(rooms, (True, False)):
        span = file(100, 100_100)
        span.view = span.view if mapped else None
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            theirs.setblocking(False)
            ended = asyncio.get_running_loop().create_future()
            sender = FileSender(ours.fileno(), asyncio.get_running_loop(), 0, ended.set_result)
            with monkeypatch.context() as patched:
                patched.setattr(os, "write", written)
                patched.setattr(os, "writev", written_apart)
                at_once = sender.send_one(head, span)
            received = b""
            while len(received) < len(whole):
                received += await asyncio.get_running_loop().sock_recv(theirs, 1 << 20)
            assert received == whole
            if not at_once:
                assert await ended is None
            assert sender.left == 0
            sender.close()


async def test_content_that_is_read_comes_out_of_files_too(file):
    pieces = [CONTENT[:10], file(10, 1 << 20), file(1 << 20, 9 << 20), CONTENT[9 << 20 :]]

    async def answer(exchange):
        length = None if exchange.request.target == "/unknown" else SIZE
        return streamed(Pieces(*pieces), length)

    async with served(later, answer) as site, site.client() as client:
        client.send(get("/known") + get("/unknown"))
        assert (await client.answer())[1] == CONTENT
        assert b"Transfer-Encoding: chunked" in await client.until(b"\r\n\r\n")
        received = b""
        while size := int(await client.until(b"\r\n"), 16):
            received += (await client.exactly(size + 2))[:-2]
        assert received == CONTENT


async def test_over_tls_files_are_read(file, tmp_path):
    made, trust = tls_contexts(tmp_path, "a.example")
    context = TlsContext([Certificate(("a.example",), made)])
    async with served(lambda _: ready(b"a", file()), tls=context) as site:
        port = site.tls_port
        async with site.client(port, ssl=trust, server_hostname="a.example") as client:
            client.send(get("/a") * 2)
            for _ in range(2):
                assert (await client.answer())[1] == b"a" + CONTENT


async def test_where_sendfile_does_not_serve_files_are_read(file, monkeypatch):
    def unserved(*_):
        raise OSError(errno.EINVAL, "not with this file")

    monkeypatch.setattr(os, "sendfile", unserved)
    async with served(lambda _: ready(file())) as site, site.client() as client:
        client.send(get("/a"))
        assert (await client.answer())[1] == CONTENT


async def test_a_client_that_takes_nothing_of_a_file_is_aborted(file):
    async with served(lambda _: ready(file(), file(), file()), stall=0.1) as site:
        async with site.client() as client:
            before = descriptors()
            client.writer.transport.pause_reading()
            client.send(get("/a"))
            await until(lambda: bool(site.finished))
            await until(lambda: descriptors() < before)
    _, _, _, sent, _, complete = site.finished[0]
    assert not complete
    assert 0 < sent < 3 * SIZE


async def test_a_client_that_goes_lets_go_of_the_file(file):
    async with served(lambda _: ready(file(), file())) as site:
        before = descriptors()
        async with site.client() as client:
            client.writer.transport.pause_reading()
            client.send(get("/a"))
            await until(lambda: bool(site.server._rim.connections))
            await stopped(site)
            assert descriptors() == before + 3  # both ends, and what files are sent on
        await until(lambda: bool(site.finished))
        await until(lambda: descriptors() == before)
    assert site.finished[0][5] is False


async def test_a_file_that_is_shorter_than_it_was_ends_no_answer_cleanly():
    fd = os.memfd_create("short")
    os.write(fd, CONTENT[: 1 << 20])
    try:
        async with served(lambda _: ready(FileSpan(fd, 0, SIZE, None))) as site:
            received = await site.talk(get("/a"))
            assert received.partition(b"\r\n\r\n")[2] == CONTENT[: 1 << 20]
            await until(lambda: bool(site.finished))
        assert site.finished[0][3:6:2] == (1 << 20, False)
    finally:
        os.close(fd)


class Leaving(FileSpan):
    """Is not resident any more when it is looked at. `again` gives what the device gives."""

    may_leave = True

    def __init__(self, span: FileSpan, again) -> None:
        super().__init__(span.fd, span.offset, span.length, span.holder)
        self.again = again
        self.threads: set[int] = set()

    def is_resident(self, skip: int, length: int) -> bool:
        return False

    def read_again(self, skip: int) -> memoryview:
        self.threads.add(threading.get_ident())
        return self.again(skip)


async def test_what_has_left_ram_while_it_waited_is_read_in_a_thread(file):
    span = Leaving(file(), lambda skip: memoryview(CONTENT)[skip:])
    async with served(lambda _: ready(b"a", span, b"z")) as site, site.client() as client:
        client.writer.transport.pause_reading()
        client.send(get("/a"))
        await until(lambda: bool(site.server._rim.connections))
        await stopped(site)
        client.writer.transport.resume_reading()
        assert (await client.answer())[1] == b"a" + CONTENT + b"z"
    assert span.threads
    assert threading.get_ident() not in span.threads


async def test_what_the_device_has_lost_meanwhile_cuts_the_answer_short(file):
    def lost(skip: int) -> memoryview:
        raise SliceDamaged(0, "is damaged")

    span = Leaving(file(), lost)
    async with served(lambda _: ready(span)) as site, site.client() as client:
        client.writer.transport.pause_reading()
        client.send(get("/a"))
        await until(lambda: bool(site.finished))
        client.writer.transport.resume_reading()
        received = (await client.rest()).partition(b"\r\n\r\n")[2]
    assert len(received) < SIZE
    assert CONTENT.startswith(received)
    assert site.finished[0][5] is False
