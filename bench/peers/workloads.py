"""What is asked of every cache, and what is aimed at.

Strategy: a workload is data: the play of load.lua and its numbers, what is asked before the clock
starts, and the share of requests that may reach the origin, so that nobody is measured at another
work than the one in the table.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from bench.peers.origin import BIG, CLASSES, FILM, MEDIAN, SIZES, SMALL

HITS, MISSES = (0.0, 0.01), (0.99, 1.01)
"""Shares of requests that reach the origin."""

PART = 64 << 10
MEAN = sum(SIZES) // len(SIZES)
assert MEDIAN < MEAN


@dataclass(frozen=True, slots=True)
class Workload:
    """`target` bounds our CPU / nginx's, in idle our KiB per connection; `floor_target` our CPU and
    our p99 / p50 over the floor's. `prepare` are paths that are asked for twice first, `content` is
    what the floor answers."""

    name: str
    what: str
    target: float
    play: str
    words: dict[str, object] = field(default_factory=dict)
    connections: int = 64
    prepare: tuple[str, ...] = ("/hot",)
    origin: tuple[float, float] = HITS
    content: int = SMALL
    floor_target: float | None = None
    tls: bool = False
    two_tier: bool = False

    @property
    def is_idle(self) -> bool:
        return self.play == "idle"

    @property
    def is_zipf(self) -> bool:
        return self.play == "zipf"


_ZIPF: dict[str, object] = {"classes": CLASSES}

WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload(
            "hot-1k",
            "one 1 KiB object, 64 connections",
            0.60,
            "one",
            {"path": "/hot"},
            floor_target=1.5,
        ),
        Workload(
            "zipf",
            "20,000 objects, log-normal sizes (median 8 KiB), Zipf 0.9, heads of five browsers, "
            "a tenth with a Cookie and a Referer of its own",
            0.75,
            "zipf",
            _ZIPF,
            content=MEAN,
        ),
        Workload(
            "unique-head",
            "one 1 KiB object, every request with a head never seen before",
            0.95,
            "heads",
            {"path": "/hot"},
        ),
        Workload(
            "cond",
            "one 1 KiB object, every other request with an If-None-Match that matches (304)",
            0.75,
            "cond",
            {"path": "/hot"},
        ),
        Workload(
            "range",
            "64 KiB at random offsets of a 256 MiB object",
            1.0,
            "range",
            {"path": "/film", "size": FILM, "part": PART},
            connections=32,
            prepare=("/film",),
            content=PART,
        ),
        Workload(
            "big",
            "10 MiB bodies",
            1.0,
            "one",
            {"path": "/big"},
            connections=8,
            prepare=("/big",),
            content=BIG,
        ),
        Workload("miss", "every URL new, 1 KiB, stored", 1.0, "new", origin=MISSES),
        Workload(
            "mix-90",
            "zipf with a tenth of misses",
            0.85,
            "zipf",
            {**_ZIPF, "misses": 0.1},
            origin=(0.07, 0.13),
            content=MEAN,
        ),
        Workload(
            "two-tier",
            "edge misses that hit the shield, the CPU of both",
            1.0,
            "new",
            two_tier=True,
        ),
        Workload("tls-1k", "hot-1k over TLS 1.3", 1.0, "one", {"path": "/hot"}, tls=True),
        Workload("idle", "idle keep-alive connections, RSS of each", 8.0, "idle"),
    )
}
