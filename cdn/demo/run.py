"""`cdn demo`: an origin, two shields and two edges on loopback, in one process and one terminal.

Strategy: real nodes on real sockets, on one event loop, so that nothing can be left behind. It
brings them up, fetches a few objects twice through each edge, shows what happened, and says whether
that is what a CDN should do; then it follows requests live until it is told to stop.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop
from rich import box
from rich.console import Console
from rich.table import Table

from cdn.config.models import EdgeConfig, NodeConfig, ShieldConfig
from cdn.config.values import Context
from cdn.demo.files import make_files
from cdn.demo.follow import Follower
from cdn.demo.origin import DemoOrigin, serve
from cdn.demo.site import ASSETS, PLAYLIST, SEGMENTS
from cdn.demo.visit import SITE, Visit, failures, visit_all
from cdn.node.assembly import Assemble
from cdn.node.clock import Clock
from cdn.node.node import Node
from cdn.observe.events import EventLog
from cdn.observe.log_lines import LogRecord
from cdn.storage.directory import StoreUnusable
from cdn.wire.server import ListenFailed

HOST = "127.0.0.1"
FIRST_PORT = 8080
DISK = "1GiB"
"""Of each node, with --store."""

STOP_LIMIT = 1.0
"""Seconds that requests in flight get at Ctrl-C."""

SHIELDS = ("shield-yokohama", "shield-saitama")
EDGES = {"edge-a": "Example Net", "edge-b": "Example CATV"}
SHOWN = ("/", PLAYLIST, SEGMENTS[0].path, ASSETS[0].path, ASSETS[1].path)
"""What is fetched: small pages, a playlist, a segment of a film."""


@dataclass(slots=True)
class Cdn:
    """The running parts."""

    origin: DemoOrigin
    shields: dict[str, str] = field(default_factory=dict)
    edges: dict[str, str] = field(default_factory=dict)
    admin: dict[str, str] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)


def run_demo(
    assemble_edge: Assemble,
    assemble_shield: Assemble,
    *,
    check: bool,
    port: int | None,
    store: Path | None,
    as_json: bool,
) -> int:
    """With a `store` each node keeps what it stores in a directory below it, named as the node.
    Returns the exit code: 1 where something did not happen as it should."""
    demo = _Demo(assemble_edge, assemble_shield, port, store)
    try:
        return uvloop.run(demo.run(check=check, as_json=as_json))
    except (ListenFailed, StoreUnusable, OSError) as error:
        Console(stderr=True).print(f"cdn demo: {error}", style="red", highlight=False)
        return 1


class _Demo:
    def __init__(
        self,
        assemble_edge: Assemble,
        assemble_shield: Assemble,
        port: int | None,
        store: Path | None,
    ) -> None:
        self._assemble = {"edge": assemble_edge, "shield": assemble_shield}
        self._port = port
        self._store = store
        self._clock = Clock()
        self._events = io.StringIO()
        self._follower: Follower | None = None

    async def run(self, *, check: bool, as_json: bool) -> int:
        console = Console(stderr=as_json)
        loop, stopped = asyncio.get_running_loop(), asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stopped.set)
        with tempfile.TemporaryDirectory(prefix="cdn-demo-") as directory:
            with console.status("making the origin's files, starting two shields and two edges"):
                parts = contextlib.AsyncExitStack()
                cdn = await parts.enter_async_context(self._up(Path(directory)))
            async with parts:
                visits = await visit_all(cdn.edges, SHOWN, cdn.origin)
                wrong = failures(visits)
                if as_json:
                    print(json.dumps([visit.row() for visit in visits], indent=2))
                else:
                    _show(console, visits, wrong)
                if not check and not as_json:
                    _hints(console, cdn)
                    for node in cdn.nodes:  # of the visits nothing more is to be told
                        node.server.settle()
                    self._follower = Follower(console)
                    await self._follower.until(stopped)
        return 1 if wrong else 0

    @contextlib.asynccontextmanager
    async def _up(self, directory: Path) -> AsyncIterator[Cdn]:
        site = directory / "site"
        site.mkdir()
        await asyncio.to_thread(make_files, site)
        ports = _ports(self._port)
        async with contextlib.AsyncExitStack() as running:
            cdn = Cdn(await serve(HOST, ports["origin"], site))
            running.push_async_callback(cdn.origin.close)
            origin = f"http://{HOST}:{cdn.origin.port}"
            for name in SHIELDS:
                raw: dict[str, Any] = {"role": "shield", "edges": {"prefixes": ["127.0.0.0/8"]}}
                cdn.shields[name] = await self._start(
                    running, cdn, directory, name, ports[name], origin, raw
                )
            for name, operator in EDGES.items():
                shields = [{"name": shield, "url": url} for shield, url in cdn.shields.items()]
                raw = {"role": "edge", "operator": operator, "shields": shields}
                cdn.edges[name] = await self._start(
                    running, cdn, directory, name, ports[name], origin, raw
                )
            yield cdn

    async def _start(
        self,
        running: contextlib.AsyncExitStack,
        cdn: Cdn,
        directory: Path,
        name: str,
        port: int,
        origin: str,
        raw: dict[str, Any],
    ) -> str:
        admin = f"unix:{directory}/{name}.sock"
        raw |= {
            "name": name,
            "listen": [f"{HOST}:{port}"],
            "admin": {"listen": admin},
            "memory": "256MiB",
            "services": [{"name": "demo", "hosts": ["*"], "origins": [origin]}],
        }
        if self._store is not None:
            raw |= {"store": str(self._store.absolute() / name), "disk": DISK}
        model = EdgeConfig if raw["role"] == "edge" else ShieldConfig
        config: NodeConfig = model.model_validate(raw, context=Context(directory, {}))
        node = Node(
            config,
            self._assemble[config.role],
            lambda: config,
            clock=self._clock,
            events=EventLog(name, self._clock.now, self._events),
            on_record=self._recorder(name),
        )
        await node.start()
        if self._store is not None:  # what the demo shows begins with a miss
            for path in SHOWN:
                await node.purge(f"http://{SITE}{path}")
        running.push_async_callback(node.stop, STOP_LIMIT)
        cdn.nodes.append(node)
        cdn.admin[name] = admin
        host, bound = node.server.addresses[0]
        return f"http://{host}:{bound}"

    def _recorder(self, name: str) -> Callable[[LogRecord], None]:
        def record(record: LogRecord) -> None:
            if self._follower is not None:
                self._follower.tell(name, record)

        return record


def _ports(first: int | None) -> dict[str, int]:
    """A port for each part: consecutive ones from `first`, or from 8080 where those are free, else
    any (0)."""
    names = (*EDGES, *SHIELDS, "origin")
    start = FIRST_PORT if first is None else first
    chosen = {name: start + n for n, name in enumerate(names)}
    if first is None and not all(map(_is_free, chosen.values())):
        return dict.fromkeys(names, 0)
    return chosen


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _show(console: Console, visits: list[Visit], wrong: list[str]) -> None:
    # No padding at the edges: then all of it fits into 80 columns.
    title = f"What happened (viewers of http://{SITE}/)"
    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("object", min_width=17, overflow="fold")
    for heading in ("edge", "first", "through", "there", "second"):
        table.add_column(heading, no_wrap=True)
    table.add_column("origin\nfetches", justify="right")
    for visit in visits:
        table.add_row(*map(str, visit.row().values()), end_section=visit.last)
    console.print(table)
    if wrong:
        for line in wrong:
            console.print(f"not as it should be: {line}", style="red", highlight=False)
    else:
        console.print("Each object left the origin once; every second fetch was a hit.")


def _hints(console: Console, cdn: Cdn) -> None:
    for name, url in (cdn.edges | cdn.shields).items():
        console.print(f"  {name:16} {url}   admin {cdn.admin[name]}", highlight=False)
    console.print(f"  {'origin':16} http://{HOST}:{cdn.origin.port}", highlight=False)
    edge, admin = cdn.edges["edge-a"], cdn.admin["edge-a"].removeprefix("unix:")
    purge = {"url": f"http://{SITE}/"}
    console.print("\nTry in another terminal:", highlight=False)
    for line in (
        f"curl -si -H 'Host: {SITE}' {edge}/ | grep -iE '^(http|age|via|cache-status)'",
        f"curl -s -r 1000-1099 -H 'Host: {SITE}' -o /dev/null -D - {edge}{SEGMENTS[0].path}",
        f"curl -s --unix-socket {admin} -d '{json.dumps(purge)}' http://edge-a/v1/purge",
    ):
        console.print(f"  {line}", highlight=False, soft_wrap=True)
    console.print("\nRequests as they come; Ctrl-C ends everything.", highlight=False)
