"""The interface of every replacement policy: keys and bytes in, victims out.

Strategy: a policy knows keys and sizes, never objects. It decides; the caller removes. No clock, no
I/O, no randomness: the same calls give the same victims. Making room is the same loop for all, so
a policy says only how a key enters, what a use means, and who goes next.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class EvictionPolicy(ABC, Generic[K]):
    """`budget` and `used` in bytes, as the caller counts them; `used` never exceeds `budget`."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.used = 0

    def admit(self, key: K, size: int) -> list[K]:
        """Takes a new key in, and returns those that had to go for it, first victim first.
        Raises ValueError where it can never fit, KeyError where it is in already."""
        if size > self.budget:
            raise ValueError(f"{size} bytes never fit into a budget of {self.budget}: ask before")
        if key in self:
            raise KeyError(key)
        victims: list[K] = []
        while self.used + size > self.budget:
            victims.append(self.evict())
        self._enter(key, size)
        self.used += size
        return victims

    @abstractmethod
    def touch(self, key: K, uses: int = 1) -> None:
        """The key was used so many times. Raises KeyError where it is not in."""

    @abstractmethod
    def evict(self) -> K:
        """Takes the next victim out and names it. Raises KeyError where nothing is in."""

    @abstractmethod
    def remove(self, key: K) -> None:
        """The caller takes the key out for reasons of its own (purged, replaced). How popular it
        was is remembered where the policy remembers any. Raises KeyError where it is not in."""

    @abstractmethod
    def __contains__(self, key: object) -> bool: ...

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def _enter(self, key: K, size: int) -> None:
        """There is room: takes the key in. `used` is the caller's to raise."""
