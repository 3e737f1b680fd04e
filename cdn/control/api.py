"""The operators' HTTP API of a node.

Strategy: a handful of handlers over the `Node` protocol, and two middlewares: one asks for the
token before anything else is looked at, one turns every error into JSON that says what is wrong and
what to do instead. A Unix socket needs no token: its file's mode says who may.

    GET  /healthz     200 "ok", or 503 "draining"; no token, so that any load balancer may ask
    GET  /v1/status   JSON
    GET  /metrics     Prometheus text
    POST /v1/purge    {"url": "https://host/path"}  ->  {"removed": 2}
    POST /v1/reload   200 {"ok": true, "messages": []}, or 409 with ok false and file:line
"""

from __future__ import annotations

import contextlib
import hmac
import os
import socket
import stat
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from cdn.control.protocol import NoAnswer, Node, ReloadReport
from cdn.observe.events import EventLog
from cdn.observe.metrics import CONTENT_TYPE

__all__ = ["AdminServer", "AdminUnusable", "Listen", "Node", "ReloadReport"]

Listen = tuple[str, int] | str
"""(host, port), port 0 for any free one; or the path of a Unix socket."""

INVALIDATION = "CDN-Worker-Invalidation"
"""On a purge that the admin process has several workers do: its name, in a field, because a worker
from before an upgrade takes no other content."""

PURGED = "/v1/purged"
"""Where it tells them that all have done it; none but it has a use for that."""

BODY_LIMIT = 1 << 20
"""Bytes of content in a request."""

STOP_LIMIT = 2.0
"""Seconds that requests in flight get when the server stops."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_MENDS = {
    404: "ask GET /healthz, /v1/status, /metrics or POST /v1/purge, /v1/reload",
    405: "see the Allow field for the methods that do",
    413: f"send at most {BODY_LIMIT} bytes",
    415: "send JSON in UTF-8",
}


class AdminUnusable(Exception):
    """The admin listener cannot be opened as configured: one line for the operator."""


class AdminServer:
    """Answers operators. Set `draining` when the node begins to drain."""

    def __init__(self, *, token: str | None, events: EventLog) -> None:
        self.draining = False
        self._token = token
        self._events = events
        self._runner: web.AppRunner | None = None
        self._socket_file: tuple[str, os.stat_result] | None = None

    async def start(self, node: Node, listen: Listen) -> Listen:
        """Listens, and returns where (with the port that was found for port 0).

        Raises AdminUnusable: the address is taken, or TCP was asked for without a token.
        """
        if not isinstance(listen, str) and not self._token:
            raise AdminUnusable(
                f"admin {listen[0]}:{listen[1]}: no token: "
                "give one in the token file, or listen on unix:/path"
            )
        sock = bind_admin(listen)
        if isinstance(listen, str):
            self._socket_file = listen, os.stat(listen)
        await self.start_on(node, sock)
        return listen if isinstance(listen, str) else (listen[0], sock.getsockname()[1])

    async def start_on(self, node: Node, sock: socket.socket) -> None:
        """Listens on a socket of `bind_admin`, whose file is not this server's to remove."""
        is_unix = sock.family == socket.AF_UNIX
        app = web.Application(
            middlewares=[self._errors, *([] if is_unix else [self._authorize])],
            client_max_size=BODY_LIMIT,
        )
        handlers = _Handlers(self, node)
        app.add_routes(
            [
                web.get("/healthz", handlers.healthz),
                web.get("/v1/status", handlers.status),
                web.get("/metrics", handlers.metrics),
                web.post("/v1/purge", handlers.purge),
                web.post(PURGED, handlers.purge),
                web.post("/v1/reload", handlers.reload),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=STOP_LIMIT)
        await self._runner.setup()
        await web.SockSite(self._runner, sock).start()

    async def stop(self) -> None:
        """Ends the listener; requests in flight get `STOP_LIMIT`."""
        if self._runner is not None:
            await self._runner.cleanup()
        if self._socket_file is not None:
            path, ours = self._socket_file
            # A successor may already have put its own socket there.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.stat(path), ours):
                    os.unlink(path)

    @web.middleware
    async def _authorize(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path != "/healthz":
            # RFC 6750 §2.1; the scheme's name is case-insensitive (RFC 9110 §11.1).
            scheme, _, given = request.headers.get("Authorization", "").partition(" ")
            expected = (self._token or "").encode()
            given_bytes = given.strip().encode("utf-8", "surrogateescape")
            if scheme.lower() != "bearer" or not hmac.compare_digest(given_bytes, expected):
                return _error(
                    401,
                    "no valid token",
                    "send Authorization: Bearer TOKEN with the token of this node",
                    {"WWW-Authenticate": "Bearer"},
                )
        return await handler(request)

    @web.middleware
    async def _errors(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except web.HTTPException as refusal:
            allow = {"Allow": refusal.headers["Allow"]} if "Allow" in refusal.headers else {}
            what = f"{request.method} {request.path}: {refusal.reason}"
            return _error(
                refusal.status,
                what,
                _MENDS.get(refusal.status, _MENDS[404]),
                allow,
            )
        except NoAnswer as silent:
            # Not done, as far as anybody knows: a success would be a lie.
            what = f"{request.method} {request.path}: worker {silent}"
            self._events.error(f"admin: {what}")
            return _error(504, what, "ask again, and look at the node's log if it stays so")
        except Exception as fault:
            # Ours, whatever it is: the operator gets a line, here and in the node's log.
            what = f"{request.method} {request.path}: {type(fault).__name__}: {fault}"
            self._events.error(f"admin: {what}: this is a fault of the node, please report it")
            return _error(500, what, "this is a fault of the node, please report it")


class _Handlers:
    def __init__(self, server: AdminServer, node: Node) -> None:
        self._server = server
        self._node = node

    async def healthz(self, _: web.Request) -> web.Response:
        if self._server.draining:
            return web.Response(status=503, text="draining\n")
        return web.Response(text="ok\n")

    async def status(self, _: web.Request) -> web.Response:
        return web.json_response(await self._node.status())

    async def metrics(self, _: web.Request) -> web.Response:
        told = await self._node.metrics()
        return web.Response(body=told, headers={"Content-Type": CONTENT_TYPE})

    async def purge(self, request: web.Request) -> web.Response:
        mend = 'send JSON like {"url": "https://host/path"}'
        try:
            asked: Any = await request.json()
        except (ValueError, RecursionError):
            return _error(400, "the content is not JSON", mend)
        if not isinstance(asked, dict) or asked.keys() != {"url"}:
            return _error(400, 'the content is not an object with "url" alone', mend)
        url = asked["url"]
        if not isinstance(url, str):
            return _error(400, '"url" is not a string', mend)
        try:
            invalidation = request.headers.get(INVALIDATION, "")
            if request.path == PURGED:
                await self._node.purged(url, invalidation)
                return web.Response(status=204)
            removed = await self._node.purge(url, invalidation)
        except ValueError as error:
            return _error(400, str(error), "give the URL as viewers ask for it, with its host")
        return web.json_response({"removed": removed})

    async def reload(self, _: web.Request) -> web.Response:
        report = await self._node.reload()
        answer = {"ok": report.ok, "messages": report.messages}
        return web.json_response(answer, status=200 if report.ok else 409)


def _error(
    status: int, error: str, mend: str, headers: dict[str, str] | None = None
) -> web.Response:
    return web.json_response({"error": error, "mend": mend}, status=status, headers=headers)


def bind_admin(listen: Listen) -> socket.socket:
    """A bound socket for the admin listener. Raises AdminUnusable."""
    return _bind_unix(listen) if isinstance(listen, str) else _bind_tcp(*listen)


def _bind_tcp(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        # create_server appends the address in brackets; it has been said.
        why = str(error.strerror).partition(" (")[0]
        raise AdminUnusable(
            f"admin {host}:{port}: {why}: choose an address of this machine and a port that is free"
        ) from None


def _bind_unix(path: str) -> socket.socket:
    _make_way(path)
    sock = socket.socket(socket.AF_UNIX)
    # The mode is there from the first moment: no one slips in between bind and chmod.
    umask = os.umask(0o177)
    try:
        sock.bind(path)
    except OSError as error:
        sock.close()
        raise AdminUnusable(
            f"admin unix:{path}: {error.strerror or error}: "
            "name a path of at most 107 bytes in a directory that the node may write to"
        ) from None
    finally:
        os.umask(umask)
    sock.listen()
    return sock


def _make_way(path: str) -> None:
    """Removes the socket file that a dead process left; nothing else is touched."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise AdminUnusable(f"admin unix:{path}: a file that is no socket: name another path")
        with socket.socket(socket.AF_UNIX) as probe:
            # A full backlog must not hold the node up, and means that someone lives there.
            probe.setblocking(False)
            probe.connect(path)
    except ConnectionRefusedError:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except BlockingIOError:
        raise _alive(path) from None
    except OSError as error:
        why = error.strerror or error
        raise AdminUnusable(f"admin unix:{path}: {why}: name another path") from None
    else:
        raise _alive(path)


def _alive(path: str) -> AdminUnusable:
    return AdminUnusable(
        f"admin unix:{path}: a running node answers there: stop it, or name another path"
    )
