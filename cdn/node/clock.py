"""The one clock. Everything below is handed time.

Strategy: wall time that only goes forward: it runs by the monotonic clock, and follows the wall
clock only where that is ahead. A wall clock stepped back must make no stored response younger.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from cdn.semantics.http_date import format_http_date

TOLERANCE = 0.5
"""Seconds that the wall clock may run ahead before we follow it."""

LOOK_EVERY = 0.1
"""Seconds between two looks at the wall clock: each hit asks twice what time it is."""


class Clock:
    """`wall` gives seconds since 1970, `monotonic` seconds that never step back."""

    def __init__(
        self,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._offset = wall() - monotonic()
        self._look_at = 0.0
        self._date = (0, "")

    def now(self) -> float:
        """Seconds since 1970, never less than before."""
        at = self._monotonic()
        if at >= self._look_at:
            self._follow(at)
        return at + self._offset

    def _follow(self, at: float) -> None:
        self._look_at = at + LOOK_EVERY
        ahead = self._wall() - at - self._offset
        if ahead > TOLERANCE:
            self._offset += ahead

    def date(self) -> str:
        """Now as an IMF-fixdate."""
        second = int(self.now())
        if second != self._date[0]:
            self._date = (second, format_http_date(second))
        return self._date[1]
