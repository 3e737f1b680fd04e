"""A cachetools Cache whose victims a replacement policy names."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from cachetools import Cache

from cdn.storage.eviction.policy import EvictionPolicy, K

V = TypeVar("V")


class PolicyCache(Cache[K, V]):
    """To look an item up is to use it."""

    def __init__(self, policy: EvictionPolicy[K], getsizeof: Callable[[V], int]) -> None:
        super().__init__(policy.budget, getsizeof)
        self._size_of = getsizeof
        self.policy = policy

    def __getitem__(self, key: K) -> V:
        self.policy.touch(key)
        return Cache.__getitem__(self, key)

    def __setitem__(self, key: K, value: V) -> None:
        policy = self.policy
        if key in policy:
            del self[key]
        Cache.__setitem__(self, key, value)
        policy.admit(key, self._size_of(value))

    def __delitem__(self, key: K) -> None:
        super().__delitem__(key)
        self.policy.remove(key)

    def popitem(self) -> tuple[K, V]:
        key = self.policy.evict()
        value = super().__getitem__(key)
        super().__delitem__(key)
        return key, value
