"""S3-FIFO for a log-structured disk: two logs of segments, probation and main, and ghosts.

Strategy: rules without records. The store owns the segments and each record's uses; it asks here
which log a record enters, whose oldest segment goes, and which of its records are appended to main
before it is dropped. What is used on probation moves to main; main lets what is used go round
again, one use less; what goes leaves a ghost, and a ghost that comes back enters main at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import NamedTuple

from cdn.storage.eviction.ghost_table import GhostTable

MOST_USES = 3
"""Uses counted per record: two bits."""

_SPARED = 0.75
"""At most this of a segment is spared. Without a limit, the first miss after hours of hits would
rewrite the whole disk; this one costs no hits (measured)."""

_BYTES_PER_GHOST = 128 * 1024
_LEAST_GHOSTS = 1 << 15


class Log(Enum):
    PROBATION = "probation"
    MAIN = "main"


class Admission(Enum):
    """`ALL`: probation is on disk, a tenth of it. `REUSE`: probation is in RAM and a record is
    written to the disk at its second use: for the endurance of SSDs."""

    ALL = "all"
    REUSE = "reuse"


class Record(NamedTuple):
    """`name`: 64 bits of its digest; `size` in bytes on disk; `uses` since it was appended."""

    name: int
    size: int
    uses: int


class TwoLogs:
    """The rules of one shard whose disk holds `size` bytes. `probation`, in bytes, is part of them
    with `Admission.ALL`, and in RAM beside them with `Admission.REUSE`.

    `promotes_at_use`: whether a record on probation is appended to main as soon as it is used,
    not when its segment goes."""

    def __init__(self, size: int, probation: int, admission: Admission = Admission.ALL) -> None:
        self.size = size
        self.probation = probation
        self.promotes_at_use = admission is Admission.REUSE
        self._ghosts = GhostTable(2 * size, max(size // _BYTES_PER_GHOST, _LEAST_GHOSTS))

    def log_for(self, name: int) -> Log:
        """Where a new record is appended, with no uses."""
        return Log.MAIN if self._ghosts.recall(name) else Log.PROBATION

    def next_to_drop(self, probation: int, main: int) -> Log | None:
        """Whose oldest segment must go when the logs would hold so many bytes; None: they fit."""
        if self.promotes_at_use:
            if probation > self.probation:
                return Log.PROBATION
            return Log.MAIN if main > self.size else None
        if probation + main <= self.size:
            return None
        return Log.PROBATION if probation > self.probation else Log.MAIN

    def spared(self, log: Log, records: Iterable[Record]) -> list[Record]:
        """Of the live records of a log's oldest segment those to append to main, with the uses
        they go on with. The others have left ghosts: the caller drops them with the segment."""
        ranked = sorted(records, key=lambda record: -record.uses)
        room = int(_SPARED * sum(record.size for record in ranked))
        spared: list[Record] = []
        for record in ranked:
            if record.uses and record.size <= room:
                room -= record.size
                uses = record.uses - 1 if log is Log.MAIN else 0
                spared.append(record._replace(uses=uses))
            else:
                self._ghosts.remember(record.name, record.size)
        return spared
