"""Which record goes to which log, and which one stays: two FIFO queues and ghosts, as in S3-FIFO.

Strategy: what is new is on probation; what is used there moves to main, what is not leaves a ghost,
and comes back straight into main. Main keeps what was used since it was last looked at. Ghosts are
a table of fingerprints in which a newer one takes an older one's place: no object each.
"""

from __future__ import annotations

from array import array

from cdn.storage.segments import Log

PROBATION_SHARE = 10
"""Per cent of a shard that are probation's once all of it is in use."""

GHOSTS = 1 << 15
"""Fingerprints remembered per shard."""

MOST_LIVES = 3
"""Times that a record that is used no more is kept nevertheless."""

_ODD = 0x9E3779B97F4A7C15  # 2^64 / golden ratio: spreads the slices of one response
_MASK = (1 << 64) - 1


class TwoLogs:
    """The policy of one shard. A name is `name_of` a record."""

    def __init__(self) -> None:
        self._ghosts = array("I", bytes(4 * GHOSTS))

    @staticmethod
    def name_of(digest: bytes, number: int) -> int:
        """The same for every copy of one slice that there ever is."""
        return (int.from_bytes(digest[:8], "big") + (number + 1) * _ODD) & _MASK

    def log_for(self, name: int) -> Log:
        """Where a record that has just come goes."""
        slot, fingerprint = self._slot(name)
        if self._ghosts[slot] != fingerprint:
            return Log.PROBATION
        self._ghosts[slot] = 0
        return Log.MAIN

    def victim(self, probation: int, main: int) -> Log:
        """Which log gives up its oldest segment; both in bytes."""
        if not main or probation * 100 >= (probation + main) * PROBATION_SHARE:
            return Log.PROBATION if probation else Log.MAIN
        return Log.MAIN

    def keeps(self, log: Log, uses: int) -> bool:
        """Whether a record in a segment that goes is appended to main; `uses` since it was put
        where it is."""
        return uses > 0

    def uses_left(self, uses: int) -> int:
        """What a record that was kept has of its uses in its new place: when all of probation moves
        at once, what was used most is not the first to leave main."""
        return min(uses, MOST_LIVES) - 1

    def forget(self, log: Log, name: int) -> None:
        """The record was not kept."""
        if log is Log.PROBATION:
            slot, fingerprint = self._slot(name)
            self._ghosts[slot] = fingerprint

    @staticmethod
    def _slot(name: int) -> tuple[int, int]:
        return name % GHOSTS, (name >> 32) or 1
