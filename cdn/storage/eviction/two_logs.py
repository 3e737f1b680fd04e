"""S3-FIFO for a log-structured disk: two logs of segments, probation and main, and ghosts.

Strategy: rules without records. The store owns the segments and each record's uses; it asks here
which log a record enters, whose oldest segment goes, and what of it is appended to main before it
is dropped. What is used twice on probation moves to main; main lets what is used go round again,
one use less; what goes leaves a ghost, and a ghost that comes back enters main at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, IntEnum

from cdn.storage.eviction.ghost_table import GhostTable

PROBATION_SHARE = 15
"""Per cent of the disk that are probation's once all of it is in use. Ten cost 0.4 byte points on
downloads, where much is used again soon or never; twenty cost 0.3 on films (measured)."""

USES_TO_MAIN = 2
"""On probation; main asks for one use. Asking for one here too costs 0.5 byte points on downloads,
and writes a seventh more (measured)."""

MOST_USES = 3
"""Rounds that main grants for uses before the last one, at most this many less one."""

SPARED = 0.75
"""At most this of a segment is appended again, the most used first. Without a limit, the first miss
after hours of hits would rewrite the whole disk; this one costs no hits (measured)."""

GHOSTS = 2
"""Bytes that left and are remembered, in bytes of the disk."""

_BYTES_PER_GHOST = 128 << 10
_LEAST_GHOSTS = 1 << 15

_ODD = 0x9E3779B97F4A7C15  # 2^64 / golden ratio: spreads the slices of one response
_MASK = (1 << 64) - 1


class Log(IntEnum):
    """The two logs of a shard: what is new, and what was worth keeping."""

    PROBATION = 1
    MAIN = 2


class Admission(Enum):
    """`ALL`: probation is on disk. `REUSE`: probation is in RAM and a record is written to the disk
    at its second use: for the endurance of SSDs."""

    ALL = "all"
    REUSE = "reuse"


def name_of(digest: bytes, number: int | None) -> int:
    """Of slice `number` of the key with this digest, or of its head: the same for every copy of
    it that there ever is."""
    nth = 0 if number is None else number + 1
    return (int.from_bytes(digest[:8], "big") + nth * _ODD) & _MASK


class TwoLogs:
    """The rules of one shard whose disk holds `size` bytes. With `Admission.ALL` probation is part
    of them, with `Admission.REUSE` it is beside them, in RAM, and may have `probation` bytes.

    State: eight bytes per ghost, one ghost per 128 KiB of `size` and at least 32,768: 256 KiB for a
    shard of up to 4 GiB, 64 MiB for all shards of a disk of 1 TiB. Taken when the first leaves.

    `promotes_at_use`: whether a record on probation is appended to main as soon as it is used,
    not when its segment goes."""

    def __init__(
        self, size: int, admission: Admission = Admission.ALL, probation: int | None = None
    ) -> None:
        self.size = size
        self.probation = size * PROBATION_SHARE // 100 if probation is None else probation
        self.promotes_at_use = admission is Admission.REUSE
        self._ghosts = GhostTable(GHOSTS * size, max(size // _BYTES_PER_GHOST, _LEAST_GHOSTS))

    def log_for(self, name: int) -> Log:
        """Where a record that has just come is appended, with no uses."""
        return Log.MAIN if self._ghosts.recall(name) else Log.PROBATION

    def next_to_drop(self, probation: int, main: int) -> Log | None:
        """Whose oldest segment must go when the logs on the disk would hold so many bytes; None:
        they fit."""
        if probation + main <= self.size:
            return None
        least = 0 if self.promotes_at_use else self.probation
        return Log.PROBATION if probation > least or not main else Log.MAIN

    def sparing(self, log: Log, size: int, held: Sequence[int]) -> Sparing:
        """What is spared of a log's oldest segment, of `size` bytes; `held[n]` are those of its
        live records that were used n times since they were put there."""
        least = USES_TO_MAIN if log is Log.PROBATION else 1
        return Sparing(int(size * SPARED), least, held)

    def uses_left(self, log: Log, uses: int) -> int:
        """What a record that was spared has of its uses in its new place."""
        return min(uses, MOST_USES) - 1 if log is Log.MAIN else 0

    def forget(self, name: int, size: int) -> None:
        """A record, of `size` bytes, was not spared: it leaves a ghost."""
        self._ghosts.remember(name, size)


class Sparing:
    """Asked record by record, in any order: the most used are spared as far as there is room, and
    of those who are used alike whoever is asked for first. `least`: uses below which there is no
    sparing."""

    def __init__(self, room: int, least: int, held: Sequence[int]) -> None:
        above = 0
        bar = len(held)
        while bar > least and above + held[bar - 1] <= room:
            bar -= 1
            above += held[bar]
        # Who is used `bar` times or more is spared, whoever is used once less while room is left.
        self._bar = bar
        self._last = max(bar - 1, least)
        self._above = above
        self._left = room - above

    def spares(self, uses: int, size: int) -> bool:
        """Whether this record is spared; its room is taken then."""
        if uses >= self._bar and size <= self._above:  # uses may have grown since they were counted
            self._above -= size
            return True
        if uses < self._last or size > self._left:
            return False
        self._left -= size
        return True
