"""GreedyDual by size and frequency: GDSF (Squid), and GDG, which remembers those that left.

Strategy: priority = clock + g(uses) x size^(alpha - 1). The lowest goes first and the clock rises
to it, so what nobody uses any more is overtaken by what comes (Cao and Irani, USITS'97;
Cherkasova, HPL-98-69R1). Alpha 0 serves the most requests (GDSF), alpha 1 would serve the most
bytes; 0.5 loses little of either. Priorities only rise, so a use changes two attributes and never
the heap, which is mended where its lowest is looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush, heapreplace
from typing import ClassVar, Generic

from cdn.storage.eviction.ghosts import Ghosts
from cdn.storage.eviction.policy import EvictionPolicy, K

MOST_USES = 63
"""More are not counted: yesterday's crowd must not outlive today's. Costs no hits (measured)."""


class Entry(Generic[K]):
    """What a policy knows of a key, while it is `present`; `clock` is as it was at its last use."""

    __slots__ = ("clock", "key", "present", "size", "uses", "weight")

    def __init__(self, key: K, size: int, uses: int, weight: float, clock: float) -> None:
        self.key = key
        self.size = size
        self.uses = uses
        self.weight = weight
        self.clock = clock
        self.present = True


class GDSF(EvictionPolicy[K]):
    """See `EvictionPolicy`. Of equal priorities the one that entered first goes first."""

    alpha: ClassVar[float] = 0.0
    first_use: ClassVar[float] = 1.0
    """What the first use counts; the n-th makes n."""

    def __init__(self, budget: int) -> None:
        super().__init__(budget)
        self.last_look: Callable[[K], None] | None = None
        """Called with who goes next: what is told of its uses then is in time to save it."""
        self._entries: dict[K, Entry[K]] = {}
        # Priority when last looked at, order of entering, entry.
        self._heap: list[tuple[float, int, Entry[K]]] = []
        self._clock = 0.0
        self._entered = 0

    def touch(self, key: K, uses: int = 1) -> None:
        self.use(self._entries[key], uses)

    def entry(self, key: K) -> Entry[K]:
        """By which `use` needs no look-up, while it is present. Raises KeyError."""
        return self._entries[key]

    def use(self, entry: Entry[K], uses: int) -> None:
        """`touch` of the key whose entry this is."""
        uses += entry.uses
        if uses > MOST_USES:  # noqa: PLR1730 (every hit passes here, and min() costs a fifth of it)
            uses = MOST_USES
        entry.uses = uses
        entry.clock = self._clock  # its priority is computed when it is asked for

    def _priority(self, entry: Entry[K]) -> float:
        uses = entry.uses
        return entry.clock + (uses if uses > 1 else self.first_use) * entry.weight

    def evict(self) -> K:
        heap = self._heap
        if not self._entries:
            raise KeyError("nothing is in")
        while True:
            priority, number, entry = heap[0]
            if not entry.present:
                heappop(heap)
                continue
            if (risen := self._priority(entry)) <= priority and self.last_look is not None:
                self.last_look(entry.key)
                risen = self._priority(entry)
            if risen <= priority:
                break
            heapreplace(heap, (risen, number, entry))
        heappop(heap)
        self._clock = priority
        entry.present = False
        del self._entries[entry.key]
        self._leave(entry)
        return entry.key

    def remove(self, key: K) -> None:
        entry = self._entries.pop(key)
        entry.present = False
        self._leave(entry)
        # Removals without evictions (a store that is never full) must not grow the heap.
        if len(self._heap) > 2 * len(self._entries) + 64:
            self._heap = [item for item in self._heap if item[2].present]
            heapify(self._heap)

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def _uses_before(self, key: K) -> int:
        return 0

    def _leave(self, entry: Entry[K]) -> None:
        self.used -= entry.size

    def _enter(self, key: K, size: int) -> None:
        before = self._uses_before(key)
        uses = min(1 + before, MOST_USES) if before else 1
        weight = (size or 1) ** (self.alpha - 1)
        self._entries[key] = entry = Entry(key, size, uses, weight, self._clock)
        self._entered = number = self._entered + 1
        heappush(self._heap, (self._priority(entry), number, entry))


class GDG(GDSF[K]):
    """GreedyDual with ghosts: who comes back is taken up with the uses it had. A first use counts
    little, for most keys never see a second. Ghosts are worth twice the budget."""

    alpha = 0.5
    first_use = 0.3

    def __init__(self, budget: int) -> None:
        super().__init__(budget)
        self._ghosts = Ghosts(2 * budget)

    def _uses_before(self, key: K) -> int:
        return self._ghosts.recall(key)

    def _leave(self, entry: Entry[K]) -> None:
        super()._leave(entry)
        self._ghosts.remember(entry.key, entry.size, entry.uses)
