"""LRU, the least recently used goes first: what nginx and Varnish do.

Strategy: an ordered dictionary of sizes, the coldest at its front.
"""

from __future__ import annotations

from collections import OrderedDict

from cdn.storage.eviction.policy import EvictionPolicy, K


class LRU(EvictionPolicy[K]):
    """See `EvictionPolicy`."""

    def __init__(self, budget: int) -> None:
        super().__init__(budget)
        self._sizes: OrderedDict[K, int] = OrderedDict()

    def touch(self, key: K, uses: int = 1) -> None:
        self._sizes.move_to_end(key)

    def evict(self) -> K:
        key, size = self._sizes.popitem(last=False)
        self.used -= size
        return key

    def remove(self, key: K) -> None:
        self.used -= self._sizes.pop(key)

    def __contains__(self, key: object) -> bool:
        return key in self._sizes

    def __len__(self) -> int:
        return len(self._sizes)

    def _enter(self, key: K, size: int) -> None:
        self._sizes[key] = size
