"""An origin that does exactly what its script says, lies and bad manners included.

Strategy: asyncio streams and framing by hand. One task per connection reads a request, records it,
and performs its reply; requests that were pipelined wait their turn. A peer that goes away ends the
exchange at once, even at a gate. `requests` and `seen` are all that a test needs to tell what came.
"""

import asyncio
import contextlib
import ssl
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace

from tests.kit.answering import perform
from tests.kit.recorded import HangUp, RecordedRequest, read_content, read_head
from tests.kit.reply import Reply
from tests.kit.waiting import Counter

Script = Reply | Sequence[Reply] | Callable[[RecordedRequest], Reply]


class _Reader(asyncio.StreamReader):
    """Tells at once that the peer has gone, even while nobody reads."""

    def __init__(self) -> None:
        super().__init__()
        self.gone = asyncio.Event()

    def feed_eof(self) -> None:
        super().feed_eof()
        self.gone.set()

    def set_exception(self, exc: Exception) -> None:
        super().set_exception(exc)
        self.gone.set()


class ScriptedOrigin:
    """`async with ScriptedOrigin() as origin`, or `start()` and `close()`."""

    def __init__(
        self, *, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
    ) -> None:
        self.host, self.port, self.tls = host, port, tls
        self.requests: list[RecordedRequest] = []
        self.connections = 0
        self._scripts: dict[str, Script] = {}
        self._replied: dict[str, int] = defaultdict(int)
        self._all = Counter("requests that the origin saw")
        self._by_path: dict[str, Counter] = {}
        self._failures: list[Exception] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> "ScriptedOrigin":
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            self._protocol, self.host, self.port, ssl=self.tls, backlog=1024
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stops listening and drops every connection; `start()` brings it back on its port.

        Raises what went wrong in a script's function, if anything did.
        """
        if self._server is None:
            return
        self._server.close()
        self._server = None
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._failures:
            raise self._failures[0]

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"

    def on(self, target: str, script: Script) -> None:
        """What requests for `target` get: a path for any query, or path and query for just that.

        A sequence gives each request the next reply and the last one for ever after; a function
        is given the recorded request. Whatever has no script gets 404.
        """
        self._scripts[target] = script
        self._replied[target] = 0

    def count(self, path: str | None = None) -> int:
        """How many requests came, for `path` (whatever its query) or at all."""
        return len([r for r in self.requests if path is None or r.path == path])

    async def seen(self, n: int = 1, path: str | None = None) -> None:
        """Until the heads of `n` requests have come, for `path` or at all."""
        await (self._all if path is None else self._counter(path)).reached(n)

    def _counter(self, path: str) -> Counter:
        if path not in self._by_path:
            self._by_path[path] = Counter(f"requests for {path} that the origin saw")
        return self._by_path[path]

    # -- connections

    def _protocol(self) -> asyncio.StreamReaderProtocol:
        reader = _Reader()

        def connected(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.connections += 1
            task = asyncio.ensure_future(self._connection(self.connections, reader, writer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        return asyncio.StreamReaderProtocol(reader, connected)

    async def _connection(self, number: int, reader: _Reader, writer: asyncio.StreamWriter) -> None:
        # `drain` then waits for the last byte: a reset takes nothing that was to be seen.
        # (asyncio's TLS transport pauses at its limit, the plain one above it: never at 0 there.)
        writer.transport.set_write_buffer_limits(high=1 if self.tls else 0, low=0)
        try:
            with contextlib.suppress(
                HangUp, ConnectionError, asyncio.IncompleteReadError, ssl.SSLError
            ):
                while await self._exchange(number, reader, writer):
                    pass
        except asyncio.CancelledError:
            writer.transport.abort()
            raise
        except Exception as failure:
            self._failures.append(failure)
        finally:
            writer.close()

    async def _exchange(self, number: int, reader: _Reader, writer: asyncio.StreamWriter) -> bool:
        """One request and its answer; whether another may follow."""
        request = await read_head(reader, number)
        self.requests.append(request)
        self._all.add()
        self._counter(request.path).add()
        try:
            await read_content(request, reader, writer)
            reply = self._reply(request)
            answering = asyncio.ensure_future(perform(reply, request, writer))
            gone = asyncio.ensure_future(reader.gone.wait())
            try:
                await asyncio.wait({answering, gone}, return_when=asyncio.FIRST_COMPLETED)
                if not answering.done():
                    writer.transport.abort()
                    raise HangUp
                answering.result()
            finally:
                gone.cancel()
                answering.cancel()
        finally:
            request.over.set()
        closes = "close" in (request.field("connection") or "").lower()
        return not (closes or reply.framing == "close" or request.version == "HTTP/1.0")

    def _reply(self, request: RecordedRequest) -> Reply:
        known = request.target if request.target in self._scripts else request.path
        script = self._scripts.get(known, Reply(404, content=b"no script for this\n"))
        if isinstance(script, Sequence):
            turn = min(self._replied[known], len(script) - 1)
            self._replied[known] += 1
            script = script[turn]
        reply = script if isinstance(script, Reply) else script(request)
        if callable(reply.content):
            return replace(reply, content=reply.content(request))
        return reply
