"""The garbage collector of a process that serves.

Strategy: a request leaves no cycles (tests/gateway/test_garbage.py, tests/wire/test_cycles.py), so
reference counts free all but a little, and the collector only walks what lives. So it walks what is
young, and what outlives that is frozen: still freed by its count, walked no more (the middle
generation's walks, 100,000 objects in 30 ms each, were the p99 of misses). What little was frozen
and became a cycle later waits for a walk over everything, which stops the loop for some 50 ns an
object: that is done when the process has been quiet, and seldom.
"""

from __future__ import annotations

import asyncio
import gc
import time

YOUNG = 10_000
"""Objects more than before until the young are walked: some 700 stored misses. Of 700, 10,000 and
50,000 the second cost least: more do not stay in the processor's cache."""

LOOK_EVERY = 10.0
"""Seconds between two looks at whether the process is quiet."""

QUIET = 0.05
"""The share of a core that a quiet process uses at most."""

SOONEST, LATEST = 600.0, 6 * 3600.0
"""Seconds from one walk over everything to the next, by when the process is quiet."""

SHARE = 0.001
"""Of the time, at most, is spent on walks over everything."""


class Collector:
    """What is frozen, and when all of it is walked. `now` are seconds that never step back, `cpu`
    those that the process has computed."""

    def __init__(self, now: float, cpu: float) -> None:
        self.frozen = False
        """Whether anything was since the last walk over everything."""
        self._walked_at = self._looked_at = now
        self._cpu = cpu
        self._took = 0.0

    def walked(self, phase: str, info: dict[str, int]) -> None:
        """A callback of `gc`: freezes what has outlived a walk."""
        if phase == "stop":
            gc.freeze()
            self.frozen = True

    def is_time(self, now: float, cpu: float) -> bool:
        """Whether to walk over everything. To be asked now and then: quiet is what was since."""
        quiet = cpu - self._cpu <= QUIET * (now - self._looked_at)
        self._looked_at, self._cpu = now, cpu
        since = now - self._walked_at
        if not self.frozen or since < max(SOONEST, self._took / SHARE):
            return False
        return quiet or since >= LATEST

    def walk(self, now: float) -> None:
        """Over everything, and freezes what is left."""
        began = time.process_time()
        gc.unfreeze()
        gc.collect()
        gc.freeze()
        self._took = time.process_time() - began
        self._walked_at = now
        self.frozen = False


def settle() -> None:
    """To be called once, by the loop of a process that is ready to serve."""
    loop = asyncio.get_running_loop()
    collector = Collector(loop.time(), time.process_time())
    collector.walk(loop.time())
    gc.set_threshold(YOUNG)
    gc.callbacks.append(collector.walked)

    def look() -> None:
        now = loop.time()
        if collector.is_time(now, time.process_time()):
            collector.walk(now)
        loop.call_later(LOOK_EVERY, look)

    loop.call_later(LOOK_EVERY, look)
