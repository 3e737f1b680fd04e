"""What the supervisor's children do: a worker serves viewers, the admin process speaks for all.

Strategy: each child holds one end of a socket pair. On it it says that it is ready, and hears when
all the others are, too; when the other end closes, the supervisor is dead or wants it gone, and it
ends: so none is ever orphaned.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import uvloop

from cdn.config.models import NodeConfig
from cdn.control.api import AdminServer, AdminUnusable
from cdn.control.workers import AllWorkers
from cdn.node.assembly import Assemble
from cdn.node.clock import Clock
from cdn.node.collector import settle
from cdn.node.node import Load, Node, stderr_events
from cdn.node.peers import Place
from cdn.node.process import reload_at_sighup
from cdn.node.scheduling import run_in_batches
from cdn.observe.access_log import AccessLogUnusable
from cdn.observe.events import tell_why_not
from cdn.storage.directory import StoreUnusable
from cdn.wire.tls import TlsContext

READY = b"1"
RELOADED = b"2"
GO = b"3"
STOP_WRITING = b"4"

UNSOUND = 3
"""The exit code of a worker whose part of the disk store may not be durable."""


def run_worker(
    config: NodeConfig,
    assemble: Assemble,
    load: Load,
    place: Place,
    sockets: Sequence[socket.socket],
    tls_sockets: Sequence[socket.socket],
    channel: socket.socket,
    lock_fd: int | None,
    tls: TlsContext | None,
) -> int:
    """Runs a worker to its end; returns the process's exit code. `sockets` and `tls_sockets` are
    the viewers', `lock_fd` the disk store's, `tls` what all workers' handshakes begin on."""

    async def serve() -> int:
        clock = Clock()
        events = stderr_events(f"{config.name}/{place.index}", clock)
        node = Node(
            config,
            assemble,
            load,
            clock=clock,
            events=events,
            place=place,
            lock_fd=lock_fd,
            tls=tls,
        )
        stopping = asyncio.Event()
        heard = _Ears(
            channel,
            stopping,
            lambda: node.background.start(node.stop_writing(), "letting go of the store"),
        )
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, heard.stop)
        reload_at_sighup(node)
        try:
            await node.start()
            settle()
            if config.scheduling == "batch":
                run_in_batches(events)
            _tell(channel, READY)
            await heard.go.wait()
            if not stopping.is_set():
                await node.serve_on(sockets, tls_sockets)
            await stopping.wait()
        finally:
            await node.stop()
        if heard.end:
            events.error("the supervisor is gone: this worker has ended, too")
            with contextlib.suppress(OSError):  # others are still there: the last one does it
                os.rmdir(place.directory)
        return 0 if node.closed_soundly else UNSOUND

    return _run(config, serve())


def run_admin(
    config: NodeConfig, directory: str, sock: socket.socket, channel: socket.socket
) -> int:
    """Runs the admin listener on `sock`, for the workers in `directory`, until the supervisor wants
    it gone; at SIGTERM it says that the node is draining."""

    async def serve() -> int:
        assert config.admin is not None
        events = stderr_events(config.name, Clock())
        server = AdminServer(token=config.admin.token, events=events)
        workers = AllWorkers(
            directory,
            config.name,
            config.role,
            lambda: _tell(channel, RELOADED),
            shared_store=config.store is not None,
        )
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, setattr, server, "draining", True)
        _Ears(channel, ended, lambda: None)
        await server.start_on(workers, sock)
        _tell(channel, READY)
        await ended.wait()
        await server.stop()
        return 0

    return _run(config, serve())


def _run(config: NodeConfig, work: Coroutine[Any, Any, int]) -> int:
    try:
        return uvloop.run(work)
    except (AdminUnusable, AccessLogUnusable, StoreUnusable) as error:
        tell_why_not(config.role, error, sys.stderr)
        return 1


def _tell(channel: socket.socket, word: bytes) -> None:
    with contextlib.suppress(OSError):  # the supervisor is gone, which is told elsewhere
        channel.send(word)


class _Ears:
    """What the supervisor says: `go`, that a successor writes from now on, and its `end`, which
    sets `stopping` and lets nobody wait."""

    def __init__(
        self, channel: socket.socket, stopping: asyncio.Event, stop_writing: Callable[[], object]
    ) -> None:
        self.go = asyncio.Event()
        self.end = False
        self._channel = channel
        self._stopping = stopping
        self._stop_writing = stop_writing
        asyncio.get_running_loop().add_reader(channel, self._hear)

    def stop(self) -> None:
        """The same by signal."""
        self._stopping.set()
        self.go.set()

    def _hear(self) -> None:
        words = self._channel.recv(64)
        if GO in words:
            self.go.set()
        if STOP_WRITING in words:
            self._stop_writing()
        if not words:
            self.go.set()
            self.end = True
            asyncio.get_running_loop().remove_reader(self._channel)
            self._stopping.set()
