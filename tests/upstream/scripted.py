"""A `Fetcher` that answers from a script, and the requests that go with it."""

import asyncio
from collections import defaultdict

from cdn.semantics.message import Fields, Request, Response
from cdn.upstream.exchange import Deadlines, Endpoint, UpstreamRequest


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Answer:
    """A response whose content is `pieces`; a piece that is an exception is raised."""

    def __init__(self, status=200, fields=(), pieces=(), length=None, source="fetcher"):
        self.head = Response(status, Fields(fields))
        self.length = length
        self.source = source
        self.pieces = list(pieces)
        self.aborted = False

    async def read(self):
        if not self.pieces:
            return b""
        piece = self.pieces.pop(0)
        if isinstance(piece, Exception):
            raise piece
        return piece

    def abort(self):
        self.aborted = True


class Hanging:
    """A script line: the try never ends by itself; `reached` says that it has begun."""

    def __init__(self):
        self.reached = asyncio.Event()


class ScriptedFetcher:
    """Each host answers its own lines in turn: an answer, an error to raise, or `Hanging`.
    A host with one line left repeats it."""

    def __init__(self, **lines):
        self.lines = defaultdict(list, {host: list(answers) for host, answers in lines.items()})
        self.asked = []
        self.requests = []
        self.deadlines = []

    async def fetch(
        self, endpoint: Endpoint, request: UpstreamRequest, deadlines: Deadlines
    ) -> Answer:
        self.asked.append(endpoint.host)
        self.requests.append(request)
        self.deadlines.append(deadlines)
        lines = self.lines[endpoint.host]
        line = lines.pop(0) if len(lines) > 1 else lines[0]
        if isinstance(line, Hanging):
            line.reached.set()
            await asyncio.Event().wait()
        if isinstance(line, Exception):
            raise line
        return line


def endpoint(host):
    return Endpoint("http", host, 8080)


def get(*fields, method="GET", **rest):
    head = Request(
        method, "https", "www.example.com", "/film", Fields((("Host", "www.example.com"), *fields))
    )
    return UpstreamRequest(head, **rest)


async def one_piece():
    yield b"content"


async def read_all(response):
    pieces = []
    while piece := await response.read():
        pieces.append(piece)
    return b"".join(pieces)
