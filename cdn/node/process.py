"""A node as a process: the loop, the signals, the end.

Strategy: SIGHUP reloads, SIGTERM and SIGINT drain, a second one ends at once. Whatever keeps a node
from starting is one line on stderr and exit code 1.
"""

from __future__ import annotations

import asyncio
import signal
import sys

import uvloop

from cdn.config.models import NodeConfig
from cdn.control.api import AdminUnusable
from cdn.node.assembly import Assemble
from cdn.node.clock import Clock
from cdn.node.collector import settle
from cdn.node.node import Load, Node, stderr_events
from cdn.node.scheduling import run_in_batches
from cdn.node.store_keeper import StoreKeeper
from cdn.observe.access_log import AccessLogUnusable
from cdn.observe.events import tell_why_not
from cdn.storage.directory import StoreUnusable
from cdn.wire.server import ListenFailed


def run_node(config: NodeConfig, assemble: Assemble, load: Load, keeper: StoreKeeper | None) -> int:
    """Runs a node to its end; returns the process's exit code. `keeper` is the disk store's."""
    code, sound = 1, False
    try:
        sound = uvloop.run(_serve(config, assemble, load, keeper))
        code = 0
    except (ListenFailed, AdminUnusable, AccessLogUnusable, StoreUnusable) as error:
        tell_why_not(config.role, error, sys.stderr)
    except KeyboardInterrupt:
        code = 130
    finally:
        if keeper is not None:
            keeper.end(clean=sound)
    return code


async def _serve(
    config: NodeConfig, assemble: Assemble, load: Load, keeper: StoreKeeper | None
) -> bool:
    """Whether the store has been closed soundly."""
    clock = Clock()
    events = stderr_events(config.name, clock)
    lock_fd = None if keeper is None else keeper.lock_fd
    node = Node(config, assemble, load, clock=clock, events=events, lock_fd=lock_fd)
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()

    def stop() -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
            # Python's own handler for SIGINT would wait until the loop wakes for another reason.
            signal.signal(number, signal.SIG_DFL)
        stopping.set()

    def no_upgrade() -> None:
        events.warning("upgrade: only with workers: 2 or more; this node must be started anew")

    reload_at_sighup(node)
    loop.add_signal_handler(signal.SIGUSR2, no_upgrade)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    try:
        await node.start()
        settle()
        if config.scheduling == "batch":
            run_in_batches(events)
        listening = ", ".join([*node.listening, *(f"{at} (TLS)" for at in node.tls_listening)])
        events.info(f"listening on {listening}")
        await stopping.wait()
        events.info("draining: no new connections, those in flight finish")
    finally:
        await node.stop()
    events.info("stopped")
    return node.closed_soundly


def reload_at_sighup(node: Node) -> None:
    """From now on."""
    loop = asyncio.get_running_loop()
    reloads: set[asyncio.Task[object]] = set()

    def reload() -> None:
        task: asyncio.Task[object] = loop.create_task(node.reload())
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    loop.add_signal_handler(signal.SIGHUP, reload)
