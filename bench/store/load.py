"""Who asks the edge, each in a process of its own: python -m bench.store.load WHAT PORT SECONDS …

Strategy: `probe` asks for small objects at a steady rate, and counts each answer's time from when
it was due, not from when a connection became free: a stall is in every request that fell into it.
`readers` take large ones as fast as they come, and throw them away in the kernel, so that little of
the core goes to them.
"""

from __future__ import annotations

import json
import selectors
import socket
import sys
import time
from collections import deque

from bench.store.place import request

_CONNECTIONS = 8
_DISCARDED = bytearray(1 << 20)


def probe(port: int, seconds: float, rate: float, targets: int, size: int) -> list[float]:
    """Seconds of every answer."""
    selector = selectors.DefaultSelector()
    free: deque[socket.socket] = deque()
    due: dict[socket.socket, float] = {}
    got: dict[socket.socket, bytes] = {}
    for _ in range(_CONNECTIONS):
        client = socket.create_connection(("127.0.0.1", port))
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        selector.register(client, selectors.EVENT_READ)
        free.append(client)
    taken: list[float] = []
    waiting: deque[float] = deque()
    begin = time.monotonic()
    next_at, asked, count = begin, 0, int(seconds * rate)
    while len(taken) < count:
        now = time.monotonic()
        while next_at <= now and asked + len(waiting) < count:
            waiting.append(now)  # not its own delay, which a timer's milliseconds add to
            next_at += 1 / rate
        while waiting and free:
            client = free.popleft()
            due[client] = waiting.popleft()
            client.sendall(request(f"/small/{asked % targets}"))
            asked += 1
        pause = max(next_at - time.monotonic(), 0) if asked + len(waiting) < count else 1.0
        for event, _ in selector.select(pause):
            client = event.fileobj  # type: ignore[assignment]
            answer = got[client] = got.get(client, b"") + client.recv(1 << 16)
            head, _, content = answer.partition(b"\r\n\r\n")
            if len(content) < size:
                continue  # what was cold comes in two pieces
            if not head.startswith(b"HTTP/1.1 200") or b"edge-bench; hit" not in head:
                raise SystemExit(f"no hit: {head!r}")
            del got[client]
            taken.append(time.monotonic() - due.pop(client))
            free.append(client)
    return taken


def readers(port: int, seconds: float, clients: int, files: int, size: int) -> int:
    """Bytes read in all. Clients of one file begin at different places of it."""
    selector = selectors.DefaultSelector()
    each = -(-clients // files)
    for number in range(clients):
        client = socket.create_connection(("127.0.0.1", port))
        first = number // files * (size // each)
        client.sendall(request(f"/large/{number % files}", f"Range: bytes={first}-\r\n"))
        client.settimeout(10)
        if not client.recv(12).startswith(b"HTTP/1.1 206"):
            raise SystemExit("no file")
        client.setblocking(False)
        selector.register(client, selectors.EVENT_READ)
    print("reading", flush=True)
    total, end = 0, time.monotonic() + seconds
    while (now := time.monotonic()) < end:
        for event, _ in selector.select(end - now):
            client = event.fileobj  # type: ignore[assignment]
            # tcp(7): what is truncated is discarded, and not copied.
            got = client.recv_into(_DISCARDED, len(_DISCARDED), socket.MSG_TRUNC)
            if not got:
                raise SystemExit("a file has ended: larger ones, or shorter rounds")
            total += got
    return total


if __name__ == "__main__":
    port, seconds, *numbers = map(float, sys.argv[2:])
    if sys.argv[1] == "probe":
        rate, *rest = numbers
        print(json.dumps(probe(int(port), seconds, rate, *map(int, rest))))
    else:
        print(readers(int(port), seconds, *map(int, numbers)))
