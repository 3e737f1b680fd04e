"""SIEVE: one queue, one bit, and a hand that spares what was used (Zhang et al., NSDI'24).

Strategy: a ring of doubly linked nodes with a sentinel: newest after it, oldest before it. The
hand walks from old to new, clears the bits it meets and takes the first node without one; where it
stood it goes on next time. Nothing moves at a use.
"""

from __future__ import annotations

from typing import Generic, cast

from cdn.storage.eviction.policy import EvictionPolicy, K


class _Node(Generic[K]):
    __slots__ = ("key", "newer", "older", "size", "used")

    def __init__(self, key: K, size: int) -> None:
        self.key = key
        self.size = size
        self.used = False
        self.newer: _Node[K] = self
        self.older: _Node[K] = self


class Sieve(EvictionPolicy[K]):
    """See `EvictionPolicy`."""

    def __init__(self, budget: int) -> None:
        super().__init__(budget)
        self._nodes: dict[K, _Node[K]] = {}
        self._sentinel: _Node[K] = _Node(cast(K, None), 0)
        self._hand = self._sentinel

    def touch(self, key: K, uses: int = 1) -> None:
        self._nodes[key].used = True

    def evict(self) -> K:
        if not self._nodes:
            raise KeyError("nothing is in")
        node, sentinel = self._hand, self._sentinel
        while node is sentinel or node.used:
            node.used = False
            node = node.newer
        self._hand = node
        self.remove(node.key)
        return node.key

    def remove(self, key: K) -> None:
        node = self._nodes.pop(key)
        node.older.newer, node.newer.older = node.newer, node.older
        if self._hand is node:
            self._hand = node.newer
        self.used -= node.size

    def __contains__(self, key: object) -> bool:
        return key in self._nodes

    def __len__(self) -> int:
        return len(self._nodes)

    def _enter(self, key: K, size: int) -> None:
        node, sentinel = _Node(key, size), self._sentinel
        # The sentinel closes the ring: its newer neighbour is the oldest, its older the newest.
        node.older, node.newer = sentinel.older, sentinel
        node.older.newer = sentinel.older = node
        self._nodes[key] = node
