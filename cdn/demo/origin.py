"""The demo's origin: a directory of real files behind aiohttp, and a count of who asked for what.

Strategy: aiohttp's FileResponse does validators, conditions, ranges and sendfile. It knows If-Range
only as a date, ranges only one at a time, and answers HEAD with 206; where that is not what
RFC 9110 §14.2 says, Range is taken out of its sight. The files that are there at the start are
served and no others, so no target can climb out of the directory.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from aiohttp import hdrs, web
from aiohttp.abc import AbstractStreamWriter

from cdn.demo.site import MEDIA

COUNT = "/_origin/count"
"""Where the counts are, as a JSON object of path to requests; it does not count itself."""


class DemoOrigin:
    """A running origin. `counts`: requests per path since the start, HEAD and 304 included."""

    def __init__(self, directory: Path) -> None:
        self.counts: Counter[str] = Counter()
        self.port = 0
        self._files = {f"/{file.relative_to(directory)}": file for file in directory.rglob("*.*")}
        self._files["/"] = directory / "index.html"
        application = web.Application()
        application.router.add_get(COUNT, self._count)
        application.router.add_get("/{path:.*}", self._file)
        # In flight when it is told to stop: as long as a Ctrl-C may take.
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.5)

    async def start(self, host: str, port: int) -> None:
        """Listens; `port` 0 chooses one. Raises OSError."""
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port, backlog=1024)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def close(self) -> None:
        """Stops listening and ends what is in flight."""
        await self._runner.cleanup()

    async def _count(self, _: web.Request) -> web.Response:
        return web.json_response(self.counts, headers={hdrs.CACHE_CONTROL: "no-store"})

    async def _file(self, request: web.Request) -> web.StreamResponse:
        self.counts[request.path] += 1
        file = self._files.get(request.path)
        if file is None:
            return web.Response(status=404, text=f"the origin has no {request.path}\n")
        media_type, cache_control = MEDIA[file.suffix[1:]]
        fields = {hdrs.CONTENT_TYPE: media_type, hdrs.CACHE_CONTROL: cache_control}
        return _File(file, headers=fields)


async def serve(host: str, port: int, directory: Path) -> DemoOrigin:
    """An origin that listens and serves `directory`; `close` it. Raises OSError."""
    origin = DemoOrigin(directory)
    await origin.start(host, port)
    return origin


class _File(web.FileResponse):
    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        if hdrs.RANGE in request.headers and not self._range_applies(request):
            fields = request.headers.copy()
            del fields[hdrs.RANGE]
            request = request.clone(headers=fields)
        return await super().prepare(request)

    def _range_applies(self, request: web.BaseRequest) -> bool:
        if request.method != hdrs.METH_GET or "," in request.headers[hdrs.RANGE]:
            return False
        if_range = request.headers.get(hdrs.IF_RANGE, "")
        if not if_range.endswith('"'):
            return True
        file = self._path.stat()
        # Strong comparison with the ETag that FileResponse makes (RFC 9110 §13.1.5).
        return if_range == f'"{file.st_mtime_ns:x}-{file.st_size:x}"'
