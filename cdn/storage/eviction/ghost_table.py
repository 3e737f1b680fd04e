"""Ghosts in eight bytes each, for a disk's millions: whether a record left not long ago.

Strategy: one array, a record's name says its slot, the newest in a slot wins. An entry is half of
the name and when it left, in bytes that have left since: a FIFO by bytes without any order kept.
"""

from __future__ import annotations

from array import array

_HALF = 0xFFFF_FFFF
_BUDGET = 1 << 16
"""The budget in ticks, the unit of time here: wraps only after 65,536 budgets."""


class GhostTable:
    """Remembers what made up the last `budget` bytes that left, in at most `slots` entries
    (rounded up to a power of two). Names are 64-bit hashes."""

    def __init__(self, budget: int, slots: int) -> None:
        self._slots = array("Q")  # grows when the first leaves: most tables of a node have no use
        self._count = 1 << (slots - 1).bit_length()
        self._budget = max(budget, 1)
        self._left = 0

    def remember(self, name: int, size: int) -> None:
        """The record called `name`, of `size` bytes, leaves."""
        if not self._slots:
            self._slots = array("Q", bytes(8 * self._count))
        self._left += size
        self._slots[name & (self._count - 1)] = (name >> 32) << 32 | self._tick()

    def recall(self, name: int) -> bool:
        """Whether that record left not long ago. Forgets it."""
        if not self._slots:
            return False
        slot = name & (self._count - 1)
        entry = self._slots[slot]
        if not entry or entry >> 32 != name >> 32:
            return False
        self._slots[slot] = 0
        return (self._tick() - entry) & _HALF <= _BUDGET

    def _tick(self) -> int:
        return (1 + self._left * _BUDGET // self._budget) & _HALF
