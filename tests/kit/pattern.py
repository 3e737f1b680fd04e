"""Content of any length without memory: deterministic bytes at every offset.

Strategy: one pseudo-random block per seed, repeated. Its length is prime, so bytes that land at a
wrong offset differ from what belongs there whatever round number they are off by.
"""

from dataclasses import dataclass
from functools import lru_cache
from random import Random

PERIOD = 1_048_573
"""The largest prime below 1 MiB."""


@lru_cache(maxsize=16)
def _block(seed: int) -> bytes:
    # Twice the period: any stretch of at most one period is a single slice of it.
    return Random(seed).randbytes(PERIOD) * 2


@dataclass(frozen=True)
class Pattern:
    """`length` bytes that differ from those of every other `seed`."""

    length: int
    seed: int = 0

    def __len__(self) -> int:
        return self.length

    def read(self, start: int, stop: int) -> bytes:
        """Bytes `start` to `stop` (exclusive), clipped to the length."""
        block, stop = _block(self.seed), min(stop, self.length)
        pieces = []
        while start < stop:
            at = start % PERIOD
            pieces.append(block[at : at + min(stop - start, PERIOD)])
            start += len(pieces[-1])
        return b"".join(pieces)

    def verify(self, offset: int, data: bytes) -> bool:
        """Whether `data` is what belongs at `offset`."""
        return offset + len(data) <= self.length and data == self.read(offset, offset + len(data))
