"""No request leaves a cycle: what it made is freed when it ends, without the garbage collector.

Strategy: a real node in this process, its collector off, requests of one kind, then one collection,
which tells what it found. The scripted origin and asyncio leave cycles of their own: what counts is
objects of the node's classes and frames of its functions, one of which is in any cycle it makes.
"""

import asyncio
import contextlib
import gc
import os
import re
import socket
from collections import Counter
from collections.abc import Awaitable, Callable
from types import FrameType

import pytest

from tests.gateway.gateway_kit import HOST, Site, site, storable
from tests.kit import Gate, Pattern, RawClient, Reply

MIB = 1 << 20
REQUESTS = 200
LIMIT = 30.0
LENGTH = re.compile(rb"\r\nContent-Length: (\d+)")


def request(target: str, *fields: str, method: str = "GET") -> bytes:
    return "\r\n".join([f"{method} {target} HTTP/1.1", ": ".join(HOST), *fields, "", ""]).encode()


async def answered(client: RawClient, method: str = "GET") -> bytes:
    head = await client.reader.readuntil(b"\r\n\r\n")
    length = LENGTH.search(head)
    if length and method != "HEAD" and b" 304 " not in head[:16]:
        await client.reader.readexactly(int(length[1]))
    return head


def of_the_node(thing: object) -> str:
    """The name of an object of ours, or of a frame; empty for what is somebody else's."""
    if isinstance(thing, FrameType):
        code = thing.f_code
        return code.co_qualname if f"{os.sep}cdn{os.sep}" in code.co_filename else ""
    kind = type(thing)
    return kind.__qualname__ if kind.__module__.partition(".")[0] == "cdn" else ""


Play = Callable[[Site, list[RawClient], int], Awaitable[None]]


def each(target: str, *fields: str, method: str = "GET", status: int = 200) -> Play:
    """One request after the other; `{n}` in a target or a field is a number of its own."""

    async def play(_: Site, clients: list[RawClient], n: int) -> None:
        asked = [one.replace("{n}", str(n)) for one in (target, *fields)]
        clients[0].writer.write(request(*asked, method=method))
        head = await answered(clients[0], method)
        assert head.startswith(b"HTTP/1.1 %d " % status), head

    return play


async def collapsed(at: Site, clients: list[RawClient], n: int) -> None:
    """Four clients who wait for one fill."""
    gate, target = Gate(), f"/held?{n}"
    at.origin.on(target, storable(b"held", gate=gate))
    before = at.edge.node.server.counters.requests
    for client in clients:
        client.writer.write(request(target))
    while at.edge.node.server.counters.requests < before + len(clients):
        await asyncio.sleep(0)
    await gate.reached()
    gate.open()
    for client in clients:
        assert b" 200 " in await answered(client)


async def gone(at: Site, _: list[RawClient], n: int) -> None:
    """A client who leaves before there is an answer."""
    gate, target = Gate(), f"/held?{n}"
    at.origin.on(target, storable(b"held", gate=gate))
    server = at.edge.node.server
    connections, requests = server.connections, server.counters.requests
    with contextlib.closing(socket.create_connection(server.addresses[0])) as viewer:
        viewer.sendall(request(target))
        while server.counters.requests == requests:
            await asyncio.sleep(0)
    while server.connections > connections:
        await asyncio.sleep(0)
    gate.open()
    await at.edge.settled()


async def gone_while_read(at: Site, _: list[RawClient], n: int) -> None:
    """A client who leaves in the midst of an answer that nobody else wants."""
    server = at.edge.node.server
    connections, target = server.connections, f"/big?{n}"
    with contextlib.closing(socket.create_connection(server.addresses[0])) as viewer:
        viewer.setblocking(False)
        viewer.sendall(request(target))
        while not received(viewer):
            await asyncio.sleep(0)
    while server.connections > connections:
        await asyncio.sleep(0)
    await at.edge.settled()


def received(viewer: socket.socket) -> bytes:
    with contextlib.suppress(BlockingIOError, ConnectionResetError):
        return viewer.recv(65_536)
    return b""


async def cut_short(at: Site, _: list[RawClient], n: int) -> None:
    """An origin that closes before the end."""
    server = at.edge.node.server
    connections = server.connections
    with contextlib.closing(socket.create_connection(server.addresses[0])) as viewer:
        viewer.setblocking(False)
        viewer.sendall(request(f"/cut?{n}"))
        while not received(viewer):
            await asyncio.sleep(0)
        while server.connections > connections:
            received(viewer)
            await asyncio.sleep(0)
    await at.edge.settled()


def visitor(target: str) -> Play:
    """A client who comes, is answered and leaves."""

    async def play(at: Site, _: list[RawClient], n: int) -> None:
        server = at.edge.node.server
        connections = server.connections
        with contextlib.closing(socket.create_connection(server.addresses[0])) as viewer:
            viewer.setblocking(False)
            viewer.sendall(request(target.replace("{n}", str(n))))
            while not received(viewer):
                await asyncio.sleep(0)
        while server.connections > connections:
            await asyncio.sleep(0)

    return play


KINDS: dict[str, Play] = {
    "hot": each("/a"),
    "hot-head": each("/a", method="HEAD"),
    "hot-cookie": each("/a", "Cookie: session={n}"),
    "hot-304": each("/a", 'If-None-Match: "v1"', status=304),
    "hot-range": each("/a", "Range: bytes={n}-300", status=206),
    "not-hot": each("/a", "Cache-Control: max-age=600"),
    "big": each("/big"),
    "big-range": each("/big", "Range: bytes=100000-{n}00000", status=206),
    "miss": each("/n?{n}"),
    "miss-head": each("/n?{n}", method="HEAD"),
    "miss-big": each("/big?{n}"),
    "miss-range": each("/big?{n}", "Range: bytes=100-200", status=206),
    "pass": each("/never?{n}"),
    "not-found": each("/none?{n}", status=404),
    "validated": each("/a", "Cache-Control: no-cache"),
    "post": each("/a", "Content-Length: 0", method="POST"),
    "only-if-cached": each("/n?{n}", "Cache-Control: only-if-cached", status=504),
    "unreachable": each("/broken?{n}", status=502),
    "stale-if-error": each("/fails", status=200),
    "collapsed": collapsed,
    "cut-short": cut_short,
    "gone-while-read": gone_while_read,
    "gone": gone,
    "visitor": visitor("/a"),
    "visitor-miss": visitor("/n?{n}"),
}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_request_leaves_no_cycle(kind):
    async with site() as at, contextlib.AsyncExitStack() as opened:
        at.origin.on("/a", storable(bytes(4096), honours_conditions=True))
        at.origin.on("/n", storable())
        at.origin.on("/big", storable(Pattern(2 * MIB), honours_ranges=True))
        at.origin.on("/never", Reply(fields=[("Cache-Control", "no-store")], content=b"x"))
        at.origin.on("/broken", Reply(disconnect=True))
        at.origin.on("/cut", Reply(content=Pattern(MIB), cut_after=MIB // 2))
        failing = [("Cache-Control", "max-age=0, stale-if-error=600"), ("ETag", '"v1"')]
        at.origin.on("/fails", [Reply(fields=failing, content=b"x"), Reply(disconnect=True)])
        clients = [await opened.enter_async_context(await at.open()) for _ in range(4)]
        play, rounds = KINDS[kind], REQUESTS // 4
        for n in range(1, 5):
            await play(at, clients, n)
        gc.collect()
        gc.disable()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            async with asyncio.timeout(LIMIT):
                for n in range(5, 5 + rounds):
                    await play(at, clients, n)
            await at.edge.settled()
            at.edge.node.server.settle()
            gc.collect()
            left = Counter(name for one in gc.garbage if (name := of_the_node(one)))
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
        assert left.total() < rounds / 20, left
