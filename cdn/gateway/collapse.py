"""Collapsed forwarding (RFC 9111 §4): of those who ask for one thing, one asks upstream.

Strategy: generic single flight. A flight is whatever `begin` returns and runs by itself, so that
it survives whoever began it; it leaves the table when its owner says so. No HTTP here.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
F = TypeVar("F")


@dataclass(frozen=True, slots=True)
class Leader(Generic[F]):
    """There was no flight: this one has just begun."""

    flight: F


@dataclass(frozen=True, slots=True)
class Follower(Generic[F]):
    """Somebody is under way already."""

    flight: F


class Collapse(Generic[K, F]):
    """At most one flight per key."""

    def __init__(self) -> None:
        self._flights: dict[K, F] = {}

    def join(self, key: K, begin: Callable[[], F]) -> Leader[F] | Follower[F]:
        """The flight under way for `key`, else a new one by `begin`."""
        flight = self._flights.get(key)
        if flight is not None:
            return Follower(flight)
        self._flights[key] = flight = begin()
        return Leader(flight)

    def land(self, key: K, flight: F) -> None:
        """Later comers shall not join `flight`. No-op where another has taken its place."""
        if self._flights.get(key) is flight:
            del self._flights[key]

    def under_way(self) -> Iterator[tuple[K, F]]:
        """A snapshot of all flights."""
        return iter(list(self._flights.items()))

    def __contains__(self, key: K) -> bool:
        return key in self._flights

    def __len__(self) -> int:
        return len(self._flights)
