"""Nodes for scenarios: in this process with a clock of the test's, or as processes to be killed.

Strategy: both are the real thing, made from the same configuration as an operator's. A process is
up when it says so on stderr; nothing here waits by the clock alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import edge.role
import shield.role
from cdn.config.models import EdgeConfig, ShieldConfig
from cdn.config.values import Context
from cdn.node.clock import Clock
from cdn.node.node import Node
from cdn.observe.events import EventLog
from cdn.observe.log_lines import LogRecord
from tests.kit.clock import ManualClock

LOOPBACK = {"prefixes": ["127.0.0.0/8", "::1/128"]}


class LocalNode:
    """A node on this loop. `url` is where it listens, `log` every request it has answered."""

    def __init__(self, raw: dict[str, Any], clock: ManualClock | None, fast: bool = True) -> None:
        model = EdgeConfig if raw["role"] == "edge" else ShieldConfig
        assemble = edge.role.assemble if raw["role"] == "edge" else shield.role.assemble
        self.config = model.model_validate(raw, context=Context(Path(), {}))
        self._log: list[LogRecord] = []
        self.events = io.StringIO()
        now = Clock() if clock is None else Clock(clock.now, clock.now)
        events = EventLog(self.config.name, now.now, self.events)
        self.node = Node(
            self.config,
            assemble,
            lambda: self.config,
            clock=now,
            events=events,
            on_record=self._log.append,
            fast=fast,
        )
        self.url = ""

    @property
    def log(self) -> list[LogRecord]:
        self.node.server.settle()
        return self._log

    async def start(self) -> None:
        await self.node.start()
        host, port = self.node.server.addresses[0]
        self.url = f"http://{host}:{port}"

    async def settled(self) -> None:
        """Waits until nothing goes on that no client waits for."""
        async with asyncio.timeout(10):
            while len(self.node.background):
                await asyncio.sleep(0)

    def outcomes(self) -> list[str]:
        """The outcome word of every request answered, in order."""
        return [record.outcome for record in self.log]


@contextlib.asynccontextmanager
async def local_node(
    raw: dict[str, Any], clock: ManualClock | None, fast: bool = True
) -> AsyncIterator[LocalNode]:
    node = LocalNode(raw, clock, fast)
    await node.start()
    try:
        yield node
    finally:
        await node.node.stop(limit=0.5)


def local_edge(
    origin: str | None = None,
    *,
    shields: dict[str, str] | None = None,
    name: str = "edge-a",
    clock: ManualClock | None = None,
    cache: dict[str, Any] | None = None,
    fast: bool = True,
    **keys: Any,
) -> contextlib.AbstractAsyncContextManager[LocalNode]:
    """An edge for any Host before `origin`, or before `shields` (name to URL); `keys` and `cache`
    are as in its file and in its service's."""
    service = {"name": "site", "hosts": ["*"], "origins": [origin] if origin else []}
    raw = {
        "role": "edge",
        "name": name,
        "listen": ["127.0.0.1:0"],
        "shields": [{"name": who, "url": url} for who, url in (shields or {}).items()],
        "direct_to_origin": not shields,
        "services": [service | {"cache": cache or {}}],
    }
    return local_node(raw | keys, clock, fast)


def local_shield(
    origin: str,
    *,
    name: str = "shield-yokohama",
    clock: ManualClock | None = None,
    cache: dict[str, Any] | None = None,
    fast: bool = True,
    **keys: Any,
) -> contextlib.AbstractAsyncContextManager[LocalNode]:
    """A shield for any Host before `origin`, which believes edges on loopback."""
    service = {"name": "site", "hosts": ["*"], "origins": [origin], "cache": cache or {}}
    raw = {
        "role": "shield",
        "name": name,
        "listen": ["127.0.0.1:0"],
        "edges": LOOPBACK,
        "services": [service],
    }
    return local_node(raw | keys, clock, fast)


class NodeProcess:
    """`cdn …` as a process of its own. `url` is its first listener, `lines` what it told so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.url = ""
        self.lines: list[str] = []
        self._silent = False
        self._news = asyncio.Condition()
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stderr is not None
        while line := await self.process.stderr.readline():
            async with self._news:
                self.lines.append(line.decode().rstrip())
                self._news.notify_all()
        async with self._news:
            self._silent = True
            self._news.notify_all()

    async def told(self, words: str, after: int = 0) -> str:
        """Waits for the first line, past `after` lines, that has `words` in it."""

        def found() -> str | None:
            for line in self.lines[after:]:
                if words in line:
                    return line
            assert not self._silent, f"ended without {words!r}: {self.lines}"
            return None

        async with asyncio.timeout(30), self._news:
            while (line := found()) is None:
                await self._news.wait()
        return line

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def end(self) -> int:
        """SIGTERM, and its exit code."""
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.terminate()
        return await self.ended()

    async def ended(self) -> int:
        code = await self.process.wait()
        await self._reader
        return code


@contextlib.asynccontextmanager
async def node_process(*arguments: str, **environ: str) -> AsyncIterator[NodeProcess]:
    """Runs `cdn ARGUMENTS…` until the block ends; it is up when the block begins."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "cdn",
        *arguments,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | environ,
    )
    node = NodeProcess(process)
    try:
        listening = await node.told("listening on ")
        node.url = f"http://{listening.rpartition(' on ')[2].partition(',')[0]}"
        yield node
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            try:
                async with asyncio.timeout(10):
                    await process.wait()
            except TimeoutError:
                process.kill()
        await node.ended()
