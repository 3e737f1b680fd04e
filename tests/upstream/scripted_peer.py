"""An upstream that says byte for byte what a test told it to, and remembers what it was asked.

Strategy: each request head takes the next answer, whichever connection it came over. `Peer` counts
what a test may wait for. `on_both_loops` runs a test under asyncio's loop and under uvloop's.
"""

import asyncio
import functools
import inspect
import ssl

import pytest
import uvloop

from cdn.semantics.message import Fields, Request
from cdn.upstream.client import UpstreamClient
from cdn.upstream.exchange import Deadlines, Endpoint, UpstreamRequest
from tests.kit.waiting import Counter


class Close:
    """Sends `data`, then closes the connection."""

    def __init__(self, data=b""):
        self.data = data


class Peer:
    """`answers`: bytes to send, a `Close`, or an async callable given (reader, writer)."""

    def __init__(self, *answers, host="127.0.0.1", tls: ssl.SSLContext | None = None):
        self.answers = list(answers)
        self.heads = []
        self.opened = Counter("connections opened")
        self.asked = Counter("requests")
        self.ended = Counter("connections ended by the client")
        self._host = host
        self._tls = tls

    async def __aenter__(self):
        self.server = await asyncio.start_server(self._serve, self._host, 0, ssl=self._tls)
        self.port = self.server.sockets[0].getsockname()[1]
        self.endpoint = Endpoint("https" if self._tls else "http", self._host, self.port)
        return self

    async def __aexit__(self, *_):
        self.server.close()

    async def _serve(self, reader, writer):
        self.opened.add()
        try:
            while True:
                self.heads.append(await reader.readuntil(b"\r\n\r\n"))
                self.asked.add()
                answer = self.answers.pop(0)
                if isinstance(answer, Close):
                    writer.write(answer.data)
                    break
                if callable(answer):
                    await answer(reader, writer)
                else:
                    writer.write(answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.ended.add()
        finally:
            writer.close()


def on(**factories):
    """Runs a test under each of these event loops instead of pytest's own."""

    def decorate(test):
        @functools.wraps(test)
        def run(loop_factory, **fixtures):
            with asyncio.Runner(loop_factory=loop_factory) as runner:
                runner.run(test(**fixtures))

        own = inspect.signature(test).parameters.values()
        factory = inspect.Parameter("loop_factory", inspect.Parameter.KEYWORD_ONLY)
        run.__signature__ = inspect.Signature([*own, factory])
        return pytest.mark.parametrize("loop_factory", factories.values(), ids=list(factories))(run)

    return decorate


on_uvloop = on(uvloop=uvloop.new_event_loop)
on_both_loops = on(asyncio=asyncio.new_event_loop, uvloop=uvloop.new_event_loop)


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class Client(UpstreamClient):
    """Closes itself at the end of an `async with`; `get` asks in one line."""

    def __init__(self, clock=None, **options):
        super().__init__(clock or Clock(), **options)

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self.close()

    async def get(self, peer, method="GET", target="/a", **more):
        deadlines = more.pop("deadlines", Deadlines())
        fields = more.pop("fields", Fields([("Host", "www.example.com")]))
        head = Request(method, "http", "www.example.com", target, fields)
        endpoint = peer if isinstance(peer, Endpoint) else peer.endpoint
        return await self.fetch(endpoint, UpstreamRequest(head, **more), deadlines)


async def pieces(*data):
    for piece in data:
        yield piece


async def content_of(response):
    pieces = []
    while piece := await response.read():
        pieces.append(piece)
    return b"".join(pieces)


def answer(*lines, content=b"", status="200 OK"):
    head = "\r\n".join((f"HTTP/1.1 {status}", *lines))
    return head.encode("latin-1") + b"\r\n\r\n" + content


OK = answer("Content-Length: 2", content=b"ok")
