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
        self._date = (0, "")

    def now(self) -> float:
        """Seconds since 1970, never less than before."""
        now = self._monotonic() + self._offset
        ahead = self._wall() - now
        if ahead > TOLERANCE:
            self._offset += ahead
            now += ahead
        return now

    def date(self) -> str:
        """Now as an IMF-fixdate."""
        second = int(self.now())
        if second != self._date[0]:
            self._date = (second, format_http_date(second))
        return self._date[1]
