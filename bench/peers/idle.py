"""What a connection costs that says nothing.

Strategy: sockets of this process, each of which asked once and got its answer, so that the server
has been through a whole request on all of them; then the server's RSS is compared with before.
"""

from __future__ import annotations

import contextlib
import resource
import socket
import struct

from bench.peers.contenders import HOST
from bench.peers.processes import Unusable
from bench.peers.server import Server

REQUEST = b"GET /hot HTTP/1.1\r\nHost: www.example.net\r\nUser-Agent: idle\r\n\r\n"
SPARE = 1000
"""Descriptors left for everything else."""


def connections_possible(wanted: int) -> int:
    """How many of `wanted` the limit of descriptors allows, which servers inherit."""
    return min(wanted, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE)


def bytes_per_connection(server: Server, number: int) -> float:
    """RSS that each of `number` idle connections adds. Raises Unusable."""
    before = server.memory()
    with contextlib.ExitStack() as opened:
        for _ in range(number):
            link = opened.enter_context(socket.create_connection((HOST, server.place.port), 30))
            # A reset at the end: ten thousand sockets in TIME_WAIT would be in the way.
            link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            link.sendall(REQUEST)
            _read_answer(server.name, link)
        return (server.memory() - before) / number


def _read_answer(name: str, link: socket.socket) -> None:
    got = b""
    while (end := got.find(b"\r\n\r\n")) < 0 or len(got) < end + 4 + 1024:
        piece = link.recv(8192)
        if not piece:
            raise Unusable(f"{name} closed a connection that was to stay idle")
        got += piece
