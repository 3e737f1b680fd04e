"""What a full store costs a start, and what of it is in RAM afterwards.

Strategy: a store of very many small objects and one of none, each started again and again in turn:
with their files in RAM, and with none of them there, as after the machine's own start. Private
memory is told in both parts: anonymous, which is the process's own, and pages of files that nobody
else has mapped just now, which the kernel may take back at any time.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import NamedTuple

from bench.store.figures import Figure
from bench.store.filling import fill
from bench.store.place import Edge, Unusable, cores, directory, drop, edge, memory, request
from cdn.hashing.digest import SHARDS
from cdn.storage import inspect

DISK = SHARDS << 30
SIZE = 512
ASKED = 10_000
FIRST = "/o/0"
FILES = (".segment", ".marks", "index", "epochs")

Step = Callable[[str], object]


class Start(NamedTuple):
    """`ready` in seconds; `anonymous` and `private` are bytes of memory."""

    ready: float
    anonymous: int
    private: int


class Starts(NamedTuple):
    """Of the full store and the empty one; `hits` of `ASKED`, and `asked` is the node then."""

    full: list[Start]
    empty: list[Start]
    cold_full: list[Start]
    cold_empty: list[Start]
    hits: int
    asked: Start
    stat: dict[str, int]


def measure(given: Path | None, objects: int, rounds: int, step: Step) -> Starts:
    """Raises Unusable."""
    with directory(given, objects * 4096) as place:
        full, empty = place / f"store-of-{objects}", place / "store-of-none"
        _fill(full, objects, step)
        _fill(empty, 0, step)
        told = inspect.stat(full)
        stat = {name: int(str(told[name])) for name in ("objects", "slices", "index_bytes")}
        if stat["objects"] != objects:
            raise Unusable(f"{full} has {stat['objects']} objects: empty it")
        starts: dict[tuple[bool, bool], list[Start]] = {}
        core = cores()[0]
        for number in range(rounds):
            for cold in (False, True):
                step(f"starts, {number + 1} of {rounds}, {'cold' if cold else 'warm'}")
                for store in (empty, full):
                    if cold:
                        drop(store, FILES)
                    with edge(store, DISK, core, FIRST) as node:
                        starts.setdefault((store == full, cold), []).append(_start(node))
        step(f"asking for {ASKED} of them")
        with edge(full, DISK, core, FIRST) as node:
            hits = _hits(node, objects)
            asked = _start(node)
        of = [starts[key] for key in ((True, False), (False, False), (True, True), (False, True))]
        return Starts(*of, hits, asked, stat)


def _fill(store: Path, objects: int, step: Step) -> None:
    mark = store.parent / f"{store.name}.filled"
    if mark.exists():
        return
    done = 0

    def told(_: int) -> None:
        nonlocal done
        done += 1
        if done % 10_000 == 0:
            step(f"storing {done:,} of {objects:,} objects")

    fill(store, DISK, ((f"/o/{number}", SIZE) for number in range(objects)), b"x" * SIZE, told)
    mark.touch()


def _start(node: Edge) -> Start:
    held = memory(node.process.pid)
    return Start(node.ready, held["Anonymous"], held["Private"])


def _hits(node: Edge, objects: int) -> int:
    dice, hits = random.Random(1), 0
    with socket.create_connection(("127.0.0.1", node.port), 10) as client:
        for _ in range(ASKED):
            client.sendall(request(f"/o/{dice.randrange(objects)}"))
            answer = client.recv(1 << 16)
            while len(answer.partition(b"\r\n\r\n")[2]) < SIZE:
                answer += client.recv(1 << 16)
            hits += answer.startswith(b"HTTP/1.1 200") and b"edge-bench; hit" in answer
    return hits


def figures(of: Starts, objects: int) -> list[Figure]:
    def ready(starts: list[Start]) -> float:
        return median(start.ready for start in starts)

    def more(name: str) -> float:
        full, empty = (
            median(getattr(start, name) for start in starts) for starts in (of.full, of.empty)
        )
        return float(full - empty) / objects

    records = of.stat["objects"] + of.stat["slices"]
    return [
        Figure("ready with nothing stored", ready(of.empty), "s"),
        Figure(f"ready with {objects:,} objects", ready(of.full), "s", 1.2 * ready(of.empty) + 0.1),
        Figure("the same, nothing stored, no file in RAM", ready(of.cold_empty), "s"),
        Figure(
            f"the same, {objects:,} objects, no file in RAM",
            ready(of.cold_full),
            "s",
            1.2 * ready(of.cold_empty) + 0.1,
        ),
        Figure(f"of {ASKED:,} asked for by chance, no hits", ASKED - of.hits, "", 0),
        Figure("private memory per object, at rest", more("private"), "bytes", 100),
        Figure("of that anonymous", more("anonymous"), "bytes"),
        Figure(
            f"the same, after {ASKED:,} were asked for",
            (of.asked.private - median(start.private for start in of.empty)) / objects,
            "bytes",
            100,
        ),
        Figure(
            "of that anonymous",
            (of.asked.anonymous - median(start.anonymous for start in of.empty)) / objects,
            "bytes",
        ),
        Figure("index per record (cdn store stat)", of.stat["index_bytes"] / records, "bytes", 200),
        Figure("index per object, head and slice", of.stat["index_bytes"] / objects, "bytes"),
    ]
