"""A node of several workers, and load that notices everything.

Strategy: real processes. Load is many short connections at a bounded rate, each with one request,
so that whatever refuses, resets or forgets a connection shows as an error.
"""

import asyncio
import contextlib
import json
import os
import re
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

from tests.kit import RawClient, ScriptedOrigin
from tests.kit.cdn_nodes import NodeProcess, node_process
from tests.scenarios.numbered import content_of
from tests.scenarios.running import ask_admin

FRESH = [("Cache-Control", "max-age=3600"), ("ETag", '"v1"')]

MOST_IN_FLIGHT = 64


class Workers:
    """A node of several workers, and whoever supervises it now."""

    def __init__(self, node: NodeProcess, admin: str) -> None:
        self.node = node
        self.url = node.url
        self.admin = admin
        self.supervisor = node.process.pid

    def pids(self) -> list[int]:
        """The workers and the admin process, in the order of their start."""
        return children(self.supervisor)

    async def upgrade(self) -> None:
        before = len(self.node.lines)
        os.kill(self.supervisor, signal.SIGUSR2)
        line = await self.node.told("has taken over", after=before)
        self.supervisor = int(re.search(r"process (\d+) has", line)[1])

    async def status(self) -> dict:
        return json.loads((await ask_admin(self.admin, "/v1/status")).content)


def children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(one) for one in found.read_text().split()] if found.exists() else []


def state(pid: int) -> str:
    """As /proc has it; Z for one that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def alive(pid: int) -> bool:
    return state(pid) != "Z"


@contextlib.asynccontextmanager
async def stopped(pid: int) -> AsyncIterator[None]:
    """The process does nothing within the block."""
    os.kill(pid, signal.SIGSTOP)
    try:
        await until(lambda: state(pid) == "T")
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def left_behind(tmp_path: Path) -> list[Path]:
    return list(tmp_path.glob("cdn-*"))


async def until(holds, limit: float = 15.0) -> None:
    async with asyncio.timeout(limit):
        while not holds():
            await asyncio.sleep(0.01)


async def refused(url: str) -> None:
    """Waits until nobody listens there any more; who is still taken in is answered."""
    async with asyncio.timeout(5):
        while True:
            try:
                client = await RawClient.connect(url)
            except ConnectionRefusedError:
                return
            except ConnectionResetError:
                continue  # taken in by the kernel as the listener closed
            client.close()


async def all_gone(pids: list[int]) -> None:
    await until(lambda: not any(map(alive, pids)))


@contextlib.asynccontextmanager
async def running(origin: ScriptedOrigin, tmp_path: Path, *flags: str) -> AsyncIterator[Workers]:
    """An edge of two workers straight before the origin. It must end, and leave nothing behind."""
    admin = f"unix:{tmp_path}/edge.sock"
    words = ("--listen", "127.0.0.1:0", "--origin", origin.url, "--name", "edge-a")
    environ = {"TMPDIR": str(tmp_path)}
    async with node_process(
        "edge", *words, "--admin", admin, "--workers", "2", *flags, **environ
    ) as node:
        workers = Workers(node, admin)
        try:
            yield workers
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(workers.supervisor, signal.SIGTERM)
            try:
                await all_gone([workers.supervisor])
            finally:
                print(*node.lines, sep="\n")  # pytest shows it where a test fails
        assert not [line for line in node.lines if "bug" in line or "Traceback" in line]
    assert left_behind(tmp_path) == []


_clients: list[RawClient] = []


async def hang_up() -> None:
    """Closes what `spread` has opened."""
    for client in _clients:
        client.close()
    for client in _clients:
        with contextlib.suppress(ConnectionError):
            await client.writer.wait_closed()
    _clients.clear()


async def spread(url: str, n: int) -> list[RawClient]:
    """Connections, so many that every worker has some; closed at the test's end."""
    clients = [await RawClient.connect(url) for _ in range(n)]
    _clients.extend(clients)
    return clients


async def both(node: Workers, n: int) -> list[RawClient]:
    """At least `n` connections, in bursts until each of two workers has some: the kernel gives a
    worker that sleeps lightly all of a trickle."""
    clients = await spread(node.url, n)
    while len(clients) < 1_000:
        # The admin process was forked last and holds none.
        if all(connections(pid, node.url, 1) for pid in node.pids()[:2]):
            return clients
        burst = await asyncio.gather(*(RawClient.connect(node.url) for _ in range(32)))
        _clients.extend(burst)
        clients += burst
    raise AssertionError("one worker takes all connections")


def connections(pid: int, url: str, end: int) -> int:
    """How many established connections a process holds with the URL's port at its own `end` (1) or
    at the other (2)."""
    port = f":{urlsplit(url).port:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    inodes = {row[9] for row in rows if row[end].endswith(port) and row[3] == "01"}
    found = 0
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            found += fd.readlink().name.removeprefix("socket:[").rstrip("]") in inodes
    return found


class Load:
    """New connections at a bounded rate, one request each; `errors` are what went wrong."""

    def __init__(self, url: str, targets: int) -> None:
        self._host, self._port = urlsplit(url).hostname, urlsplit(url).port
        self._targets = targets
        self.done = 0
        self.in_flight = 0
        self.errors: list[str] = []
        self.answered: list[tuple[float, float]] = []
        """When each that was answered began, and how long it took."""

    async def _one(self, n: int) -> None:
        target = f"/n?{n % self._targets}"
        began = time.monotonic()
        try:
            reader, writer = await asyncio.open_connection(self._host, self._port)
        except OSError as error:
            self.errors.append(f"{target}: not connected: {error}")
            self.in_flight -= 1
            return
        try:
            writer.write(f"GET {target} HTTP/1.1\r\nHost: site.example\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(re.search(rb"(?i)content-length: (\d+)", head)[1])
            content = await reader.readexactly(length)
            if not head.startswith(b"HTTP/1.1 200") or content != content_of(target):
                self.errors.append(head.decode())
            self.answered.append((began, time.monotonic() - began))
        except (OSError, asyncio.IncompleteReadError) as error:
            self.errors.append(f"{target}: {type(error).__name__} {error}")
        finally:
            self.in_flight -= 1
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def run(self, rate: float, over: asyncio.Event) -> None:
        next_at = time.monotonic()
        async with asyncio.TaskGroup() as group:
            while not over.is_set():
                now = time.monotonic()
                # What a busy machine has no time for is left out, not made up for.
                next_at = max(next_at, now - 0.1)
                while next_at <= now and self.in_flight < MOST_IN_FLIGHT:
                    group.create_task(self._one(self.done))
                    self.done += 1
                    self.in_flight += 1
                    next_at += 1 / rate
                await asyncio.sleep(0.002)


@contextlib.asynccontextmanager
async def load(url: str, rate: float, targets: int = 50) -> AsyncIterator[Load]:
    over, clients = asyncio.Event(), Load(url, targets)
    task = asyncio.create_task(clients.run(rate, over))
    try:
        yield clients
    finally:
        over.set()
        await task


async def more(clients: Load, n: int) -> None:
    before = clients.done
    await until(lambda: clients.done >= before + n)
