"""What the scenarios run: a small CDN from files, the command line, locust.

Strategy: every part is a process with a socket of its own, made and ended here. A CDN's end is
part of each test: nodes that were not killed drain and exit with 0, and none has told of a bug.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.kit import RawClient, Received
from tests.kit.cdn_nodes import NodeProcess, node_process

ROOT = Path(__file__).parents[2]
SHIELDS = ("shield-yokohama", "shield-saitama")


@dataclass
class SmallCdn:
    """Running shields and edges by name, and the directory of their files."""

    directory: Path
    shields: dict[str, NodeProcess] = field(default_factory=dict)
    edges: dict[str, NodeProcess] = field(default_factory=dict)

    @property
    def service(self) -> Path:
        """The one delivery service's file."""
        return self.directory / "services" / "site.yaml"

    def admin(self, name: str) -> str:
        return f"unix:{self.directory}/{name}.sock"

    @property
    def edge(self) -> NodeProcess:
        """The first edge."""
        return next(iter(self.edges.values()))


def service_file(origin: str, hosts: str = '"*"', more: str = "") -> str:
    """The service's YAML: its name, hosts and origins are lines 1 to 3."""
    return f"name: site\nhosts: [{hosts}]\norigins: [{origin}]\n{more}"


@contextlib.asynccontextmanager
async def small_cdn(
    directory: Path,
    origin: str,
    *,
    shields: Sequence[str] = SHIELDS,
    edges: Sequence[str] = ("edge-a",),
    memory: str = "512MiB",
    hosts: str = '"*"',
    direct: bool = False,
) -> AsyncIterator[SmallCdn]:
    """Edges before shields before `origin`; without shields, or with all of them lost and where
    that is `direct`, the edges ask it themselves."""
    cdn = SmallCdn(directory)
    cdn.service.parent.mkdir()
    cdn.service.write_text(service_file(origin, hosts))
    async with contextlib.AsyncExitStack() as running:
        for name in shields:
            told = "edges:\n  prefixes: [127.0.0.0/8]\n"
            cdn.shields[name] = await _start(running, cdn, "shield", name, memory, told)
        named = "".join(
            f"  - name: {name}\n    url: {node.url}\n" for name, node in cdn.shields.items()
        )
        told = f"shields:\n{named}" if shields else ""
        told += f"direct_to_origin: {str(direct or not shields).lower()}\n"
        for name in edges:
            cdn.edges[name] = await _start(running, cdn, "edge", name, memory, told)
        try:
            yield cdn
        finally:
            # pytest shows it where a test fails.
            for name, node in (cdn.edges | cdn.shields).items():
                print(f"--- {name}", *node.lines, sep="\n")
        for name, node in (cdn.edges | cdn.shields).items():
            assert await ended_well(node), (name, node.lines)


async def _start(
    running: contextlib.AsyncExitStack,
    cdn: SmallCdn,
    role: str,
    name: str,
    memory: str,
    more: str,
) -> NodeProcess:
    file = cdn.directory / f"{name}.yaml"
    file.write_text(
        f"role: {role}\nname: {name}\nlisten: 127.0.0.1:0\nmemory: {memory}\n"
        f"admin:\n  listen: {cdn.admin(name)}\nservices: services/*.yaml\n{more}"
    )
    return await running.enter_async_context(node_process(role, "-c", str(file)))


async def ended_well(node: NodeProcess) -> bool:
    """Ends a node that still runs: with 0 (or by our SIGKILL before), and without a bug told."""
    killed = node.process.returncode is not None
    code = await node.end()
    faults = [line for line in node.lines if "bug" in line or "Traceback" in line]
    return (killed or code == 0) and not faults


@dataclass(frozen=True)
class Finished:
    """A command that has ended."""

    code: int
    out: str
    err: str


@contextlib.asynccontextmanager
async def started(*command: str, **environ: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A command that runs at the project's root, in a process group of its own which has its id;
    the block's end is that of all its processes."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=ROOT,
        start_new_session=True,
        env=os.environ | environ,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.communicate()


async def run(*command: str, limit: float = 60.0, **environ: str) -> Finished:
    """Runs a command to its end, for `limit` seconds at most."""
    async with started(*command, **environ) as process:
        return await finished(process, limit)


async def finished(process: asyncio.subprocess.Process, limit: float = 60.0) -> Finished:
    """Waits for the end of what was `started`."""
    async with asyncio.timeout(limit):
        out, err = await process.communicate()
    assert process.returncode is not None
    return Finished(process.returncode, out.decode(), err.decode())


async def cdn_command(*arguments: str, **environ: str) -> Finished:
    """`cdn ARGUMENTS…`"""
    return await run(sys.executable, "-m", "cdn", *arguments, **environ)


async def ask_admin(
    admin: str, target: str, *, method: str = "GET", token: str = "", content: bytes | None = None
) -> Received:
    """One exchange with a node's admin listener, unix:/PATH or HOST:PORT."""
    if admin.startswith("unix:"):
        reader, writer = await asyncio.open_unix_connection(admin.removeprefix("unix:"))
        client = RawClient(reader, writer, "localhost")
    else:
        client = await RawClient.connect(f"http://{admin}")
    fields = [("Authorization", f"Bearer {token}")] if token else []
    async with client:
        return await client.get(target, fields, method=method, content=content)


async def metric(admin: str, name: str, **labels: str) -> float:
    """The sum of a metric's samples that have these labels; AssertionError where none has."""
    told = await ask_admin(admin, "/metrics")
    assert told.status == 200
    values = [
        sample.value
        for family in text_string_to_metric_families(told.content.decode())
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
    assert values, f"no {name} with {labels}"
    return sum(values)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on just now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
