"""The garbage collector of a process that serves.

Strategy: a request leaves no cycles (tests/gateway/test_garbage.py, tests/wire/test_cycles.py), so
reference counts free all but a little, and the collector only walks what lives. So it walks what is
young, and what outlives that is frozen: still freed by its count, walked no more. (With 200,000
stored responses one walk over everything stopped the loop for 800 ms; ten objects each, cold in the
cache, at 0.4 us.) What was frozen and became a cycle later waits for such a walk: soon if young
walks find cycles, seldom if they find none, and where it can be when the process is quiet.
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

SUSPECT = 10_000
"""Objects in cycles that young walks have found, from which on there may be many frozen ones."""

HOUR = 3600.0
SUSPECTED = HOUR / 6, 6 * HOUR
TRUSTED = 24 * HOUR, 48 * HOUR
"""Seconds from one walk over everything to the next: where the process is quiet, and at last."""

SHARE = 0.001
"""Of the time, at most, is spent on walks over everything."""


class Collector:
    """What is frozen, and when all of it is walked. `now` are seconds that never step back, `cpu`
    those that the process has computed."""

    def __init__(self, now: float, cpu: float) -> None:
        self.frozen = False
        """Whether anything was since the last walk over everything."""
        self.found = 0
        """Objects in cycles since then."""
        self._walked_at = self._looked_at = now
        self._cpu = cpu
        self._took = 0.0

    def walked(self, phase: str, info: dict[str, int]) -> None:
        """A callback of `gc`: freezes what has outlived a walk."""
        if phase == "stop":
            gc.freeze()
            self.frozen = True
            self.found += info["collected"]

    def is_time(self, now: float, cpu: float) -> bool:
        """Whether to walk over everything. To be asked now and then: quiet is what was since."""
        quiet = cpu - self._cpu <= QUIET * (now - self._looked_at)
        self._looked_at, self._cpu = now, cpu
        soonest, latest = TRUSTED if self.found < SUSPECT else SUSPECTED
        since = now - self._walked_at
        if not self.frozen or since < max(soonest, self._took / SHARE):
            return False
        return quiet or since >= latest

    def walk(self, now: float) -> None:
        """Over everything, and freezes what is left."""
        began = time.process_time()
        gc.unfreeze()
        gc.collect()
        gc.freeze()
        self._took = time.process_time() - began
        self._walked_at = now
        self.frozen, self.found = False, 0


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
