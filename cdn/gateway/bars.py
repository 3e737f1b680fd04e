"""Bars: keys of which nothing is repeated while their responses are being removed.

Strategy: a bar is put up by one invalidation in every worker as it is told to forget a key, and
taken down, by the name of that invalidation, once all have forgotten: so those of several that
overlap hold each for itself. What is never taken down (its originator has died, or a worker did not
answer) falls by itself when it is due. All stand equally long, so the oldest are due first.
"""

from __future__ import annotations

from collections.abc import Callable

BARRED = 60.0
"""Seconds: longer than any worker is waited for until an invalidation is answered."""

MOST_BARS = 65_536
"""Bars that stand at once; where there would be more, nothing is repeated until all are due."""


class Bars:
    """`clock` gives seconds since 1970; `most` bars are told apart."""

    def __init__(self, clock: Callable[[], float], most: int = MOST_BARS) -> None:
        self._clock = clock
        self._most = most
        self._due: dict[tuple[bytes, str], float] = {}
        self._of: dict[bytes, int] = {}
        self._all_due = 0.0

    def __len__(self) -> int:
        return len(self._due)

    def put_up(self, key: bytes, invalidation: str) -> bool:
        """Bars the key; False where that is all keys now."""
        now = self._clock()
        self._fall(now)
        # One that is put up again stands as long as a new one, and behind those before it.
        self.take_down(key, invalidation)
        if len(self._due) >= self._most:
            self._all_due = now + BARRED
            self._due.clear()
            self._of.clear()
            return False
        self._due[key, invalidation] = now + BARRED
        self._of[key] = self._of.get(key, 0) + 1
        return True

    def take_down(self, key: bytes, invalidation: str) -> None:
        """That invalidation needs no bar any more; what others have put up stands."""
        if self._due.pop((key, invalidation), None) is not None:
            self._one_less(key)

    def stand(self, key: bytes) -> bool:
        """Whether the key is barred."""
        if not self._due and not self._all_due:
            return False
        now = self._clock()
        self._fall(now)
        return key in self._of or self._all_due > now

    def _fall(self, now: float) -> None:
        while self._due:
            oldest = next(iter(self._due))
            if self._due[oldest] > now:
                return
            del self._due[oldest]
            self._one_less(oldest[0])

    def _one_less(self, key: bytes) -> None:
        left = self._of[key] - 1
        if left:
            self._of[key] = left
        else:
            del self._of[key]
