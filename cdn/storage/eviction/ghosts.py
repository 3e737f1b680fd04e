"""What is remembered of keys that are gone: how often they were used.

Strategy: two generations of plain dictionaries. The young one takes what leaves; when it has seen
half the budget of bytes it becomes the old one, and the old one is forgotten. So no order is kept
and no size: a ghost costs a dictionary slot and an int. Keys are remembered by their hash: two with
the same 64 bits share a reputation, which harms nobody.
"""

from __future__ import annotations

from collections.abc import Hashable


class Ghosts:
    """Remembers what made up the last `budget` bytes that left, or at worst the last half of
    them."""

    def __init__(self, budget: int) -> None:
        self._generation = budget // 2
        self._young: dict[int, int] = {}
        self._old: dict[int, int] = {}
        self._seen = 0

    def remember(self, key: Hashable, size: int, uses: int) -> None:
        """`key`, of `size` bytes and used so often, leaves."""
        self._seen += size
        if self._seen > self._generation:
            self._old, self._young, self._seen = self._young, {}, size
        self._young[hash(key)] = uses

    def recall(self, key: Hashable) -> int:
        """How often `key` was used before it left, 0 where nothing is known. Forgets it."""
        if not self._young and not self._old:
            return 0
        name = hash(key)
        young, old = self._young.pop(name, 0), self._old.pop(name, 0)
        return young or old

    def __len__(self) -> int:
        return len(self._young) + len(self._old)
