"""Upgrades of a node with a store under new connections: the scenario's own load and judge."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from bench.store.figures import Figure
from bench.store.place import Unusable, directory
from tests.kit import Reply, ScriptedOrigin
from tests.scenarios.numbered import content_of
from tests.scenarios.workers import FRESH, load, more, running

RATE = 500
TARGETS = 50


class Upgraded(NamedTuple):
    """`seconds` of load, in which `asked` connections were made; `slowest` in seconds."""

    seconds: float
    asked: int
    errors: list[str]
    slowest: float
    origin: int


def measure(given: Path | None, upgrades: int, step: Callable[[str], object]) -> Upgraded:
    """Raises Unusable."""
    with directory(given, 1 << 30) as place:
        try:
            with contextlib.redirect_stdout(sys.stderr):  # where the scenario tells of its node
                return asyncio.run(_measure(place, upgrades, step))
        except (AssertionError, TimeoutError) as error:
            raise Unusable(f"the node did not do what it should: {error!r}") from error


async def _measure(place: Path, upgrades: int, step: Callable[[str], object]) -> Upgraded:
    async with ScriptedOrigin() as origin:
        origin.on("/n", lambda request: Reply(fields=FRESH, content=content_of(request.target)))
        flags = "--store", str(place / "store-of-upgrades"), "--disk", "1GiB"
        async with running(origin, place, *flags) as node:
            async with load(node.url, RATE, TARGETS) as clients:
                await more(clients, RATE // 4)
                began, before = time.monotonic(), clients.done
                for number in range(upgrades):
                    step(f"upgrade {number + 1} of {upgrades}, {clients.done} connections")
                    await node.upgrade()
                    await more(clients, RATE // 4)
                seconds, asked = time.monotonic() - began, clients.done - before
            slowest = max(took for at, took in clients.answered if at >= began)
            return Upgraded(seconds, asked, clients.errors, slowest, origin.count("/n"))


def figures(of: Upgraded, upgrades: int) -> list[Figure]:
    return [
        Figure("upgrades", upgrades),
        Figure("new connections, one request each", of.asked),
        Figure("new connections a second", of.asked / of.seconds),
        Figure("refused, reset, wrong or unanswered", len(of.errors), "", 0),
        Figure("slowest answer", 1000 * of.slowest, "ms"),
        Figure(f"requests at the origin, for {TARGETS} objects", of.origin),
    ]
