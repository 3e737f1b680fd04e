"""Consistent hashing of keys over weighted nodes, and when a node has too much to do.

Strategy: every node stands at many points of a circle of 64-bit numbers, drawn from its name alone;
a key belongs to the node at the first point after the key's own. So any two machines with the same
configuration agree without talking, and a node that comes or goes moves only its own keys.
Bounded loads (Mirrokni, Thorup, Zadimoghaddam 2016) are applied on overload only: below that no key
leaves its owner, since each move costs the origin a fetch.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from math import isfinite

from xxhash import xxh3_64_intdigest

BUSY = 256
"""Requests in flight to one node, up to which it is never overloaded."""

EXCESS = 1.25
"""How many times its fair share a busy node may carry."""


class HashRing:
    """Nodes by name on the circle. Immutable; the order of `weights` does not matter."""

    __slots__ = ("_nodes", "_points", "_size")

    def __init__(self, weights: Mapping[str, float], points_per_weight: int = 1024) -> None:
        """Raises ValueError for no node at all, or a weight that is not a number above 0."""
        if not weights:
            raise ValueError("hash ring: no nodes; name at least one, with its weight")
        placed: list[tuple[int, str]] = []
        for name, weight in weights.items():
            if not (isfinite(weight) and weight > 0):
                raise ValueError(
                    f"hash ring: the weight of {name!r} is {weight}; give it a number above 0"
                )
            # Points are numbered, so a change of weight adds or takes away the last ones only. The
            # number is hashed with the name: as xxh3's seed it lets short names share their points.
            count = max(1, round(weight * points_per_weight))
            placed += [
                (xxh3_64_intdigest(f"{name}#{number}".encode()), name) for number in range(count)
            ]
        placed.sort()  # by name where two points coincide: independent of the mapping's order
        self._points = [point for point, _ in placed]
        self._nodes = [name for _, name in placed]
        self._size = len(weights)

    def __len__(self) -> int:
        """How many nodes there are."""
        return self._size

    def owner(self, key: bytes) -> str:
        """The node to which `key` belongs."""
        return self._nodes[self._after(key)]

    def owners(self, key: bytes) -> Iterator[str]:
        """Every node once, the owner first, then in the order in which they would inherit `key`."""
        start = self._after(key)
        seen: set[str] = set()
        for at in range(start, start + len(self._nodes)):
            name = self._nodes[at]
            if name not in seen:
                yield name
                seen.add(name)
                if len(seen) == self._size:
                    return

    def _after(self, key: bytes) -> int:
        # Minus the number of points, an index counts from the end: past the last point it is 0,
        # the first point again, and a walk of one whole circle stays within the list.
        return bisect_right(self._points, xxh3_64_intdigest(key)) - len(self._points)


def overloaded(node: str, in_flight: Mapping[str, int], weights: Mapping[str, float]) -> bool:
    """Whether `node` should be passed over for now: it has over 256 requests in flight *and* more
    than 1.25 times its share by weight of all that are in flight.

    `weights` names the nodes that may be asked at present, `node` among them: the work of one that
    is out of service has to go somewhere, and that is not the overload of those who take it.
    """
    mine = in_flight.get(node, 0)
    if mine <= BUSY:
        return False
    total = sum(in_flight.get(name, 0) for name in weights)
    return mine > EXCESS * total * weights[node] / sum(weights.values())
