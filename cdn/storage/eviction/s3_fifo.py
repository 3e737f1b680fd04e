"""S3-FIFO: a small queue on probation, a main one, and ghosts (Yang et al., SOSP'23).

Strategy: what is new waits in a tenth of the bytes; used twice there it moves on to main, else it
leaves a ghost, and a ghost that comes back goes to main at once. Main lets what was used go round
again, one use less. Sizes count in bytes, and what is larger than the small queue may enter too.
"""

from __future__ import annotations

from collections import OrderedDict

from cdn.storage.eviction.ghosts import Ghosts
from cdn.storage.eviction.policy import EvictionPolicy, K

MOST_USES = 3
_USES_TO_MAIN = 2


class _Entry:
    __slots__ = ("size", "uses")

    def __init__(self, size: int) -> None:
        self.size = size
        self.uses = 0


class S3Fifo(EvictionPolicy[K]):
    """See `EvictionPolicy`."""

    def __init__(self, budget: int) -> None:
        super().__init__(budget)
        self._small: OrderedDict[K, _Entry] = OrderedDict()
        self._main: OrderedDict[K, _Entry] = OrderedDict()
        self._small_used = 0
        self._small_budget = budget // 10
        self._ghosts = Ghosts(budget)

    def touch(self, key: K, uses: int = 1) -> None:
        entry = self._small.get(key) or self._main[key]
        entry.uses = min(entry.uses + uses, MOST_USES)

    def evict(self) -> K:
        while True:
            if self._small_used > self._small_budget or not self._main:
                key, entry = self._small.popitem(last=False)
                self._small_used -= entry.size
                if entry.uses < _USES_TO_MAIN:
                    self._ghosts.remember(key, entry.size, 1)
                    break
                entry.uses = 0
            else:
                key, entry = self._main.popitem(last=False)
                if not entry.uses:
                    break
                entry.uses -= 1
            self._main[key] = entry
        self.used -= entry.size
        return key

    def remove(self, key: K) -> None:
        entry = self._main.pop(key, None)
        if entry is None:
            entry = self._small.pop(key)
            self._small_used -= entry.size
        self._ghosts.remember(key, entry.size, 1)
        self.used -= entry.size

    def __contains__(self, key: object) -> bool:
        return key in self._small or key in self._main

    def __len__(self) -> int:
        return len(self._small) + len(self._main)

    def _enter(self, key: K, size: int) -> None:
        if self._ghosts.recall(key):
            self._main[key] = _Entry(size)
        else:
            self._small[key] = _Entry(size)
            self._small_used += size
