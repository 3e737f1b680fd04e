"""What the rim's tests share: a handler made of two functions, a served site, a raw client.

Strategy: real sockets on uvloop. The client reads to the end of the connection under one limit, so
a hang is a failed test; nothing sleeps to line things up.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from cdn.gateway.exchange import Answer, ContentCutShort, Outcome
from cdn.semantics.message import Fields, Response
from cdn.wire.rim import Deadlines
from cdn.wire.server import Http1Server
from cdn.wire.tls import TlsContext

LIMIT = 5.0
HOST = b"Host: a.example\r\n"
DATE = "Thu, 01 Jan 2026 00:00:00 GMT"

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


def text(content: bytes, *fields: tuple[str, str], status: int = 200, close: bool = False):
    """A small ready answer."""
    head = Response(status, Fields((("Content-Type", "text/plain"), *fields)))
    return Answer(head, (content,), len(content), Outcome(cache="hit"), close)


def streamed(content, length: int | None = None, status: int = 200):
    return Answer(Response(status, Fields(())), content, length, Outcome(cache="uri-miss"))


class Pieces:
    """Content that gives `pieces` in order; an exception among them is raised. It tells where it
    was read to, and whether it was given up."""

    def __init__(self, *pieces: bytes | Exception) -> None:
        self._pieces = list(pieces)
        self.reads = 0
        self.aborted = asyncio.Event()

    async def read(self) -> bytes:
        self.reads += 1
        piece = self._pieces.pop(0) if self._pieces else b""
        if isinstance(piece, Exception):
            raise piece
        return piece

    def abort(self) -> None:
        self.aborted.set()


class Unending(Pieces):
    """Waits for ever after its pieces."""

    async def read(self) -> bytes:
        return await super().read() or await asyncio.Event().wait()


CUT = ContentCutShort("the origin closed")


async def whole(exchange) -> bytes:
    """The request's content, all of it."""
    if exchange.content is None:
        return b""
    return b"".join([piece async for piece in exchange.content])


def say(exchange):
    """Answers with what was asked, at once."""
    request = exchange.request
    return text(f"{request.method} {request.authority} {request.target}".encode())


async def echo(exchange):
    """Answers with what was asked and its content."""
    content = await whole(exchange)
    return text(f"{exchange.request.method} {exchange.request.target} ".encode() + content)


def later(_exchange):
    return None


async def until(condition: Callable[[], bool]) -> None:
    """For a state that tells nobody when it changes."""
    async with asyncio.timeout(LIMIT):
        while not condition():
            await asyncio.sleep(0)


@dataclass
class Site:
    server: Http1Server
    finished: list = field(default_factory=list)
    bugs: list[str] = field(default_factory=list)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def port(self) -> int:
        return self.server.addresses[0][1]

    def on_finished(self, *report) -> None:
        self.finished.append(report)
        self.ended.set()

    async def talk(self, data: bytes) -> bytes:
        """Sends `data`, reads until the server closes. A reset ends it too."""
        async with self.client() as client:
            client.send(data)
            return await client.rest()

    @property
    def tls_port(self) -> int:
        return self.server.tls_addresses[0][1]

    @asynccontextmanager
    async def client(self, port: int | None = None, **tls) -> AsyncIterator["Client"]:
        """`tls` as for `asyncio.open_connection`."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port or self.port, **tls)
        try:
            yield Client(reader, writer)
        finally:
            writer.transport.abort()


@dataclass
class Client:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    reset: bool = False

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def until(self, mark: bytes) -> bytes:
        async with asyncio.timeout(LIMIT):
            return await self.reader.readuntil(mark)

    async def exactly(self, size: int) -> bytes:
        async with asyncio.timeout(LIMIT):
            return await self.reader.readexactly(size)

    async def answer(self) -> tuple[bytes, bytes]:
        """One answer with a Content-Length: its head and content."""
        head = await self.until(b"\r\n\r\n")
        size = re.search(rb"(?i)content-length: (\d+)", head)
        return head, await self.exactly(int(size[1]) if size else 0)

    async def rest(self) -> bytes:
        received = b""
        try:
            async with asyncio.timeout(LIMIT):
                while piece := await self.reader.read(65_536):
                    received += piece
        except ConnectionError:
            self.reset = True
        return received


@asynccontextmanager
async def served(
    now: Callable = say,
    answer: Callable = echo,
    tls: TlsContext | None = None,
    **deadlines: float,
):
    """A server on a free port whose handler is `now` and `answer`; on another one with `tls`."""

    class Desk:
        def answer_now(self, exchange):
            return now(exchange)

        async def answer(self, exchange):
            return await answer(exchange)

    site = Site(None)
    site.server = Http1Server(
        Desk(),
        name="edge-a",
        clock=lambda: 1_767_225_600.0,
        date=lambda: DATE,
        on_finished=site.on_finished,
        tls=tls,
        deadlines=Deadlines(**deadlines),
        report=site.bugs.append,
    )
    tls_listeners = [("127.0.0.1", 0)] if tls else []
    await site.server.start([("127.0.0.1", 0)], tls_listeners=tls_listeners)
    try:
        yield site
    finally:
        await site.server.drain(0)
