"""The disk store in miniature: segments and records, no bytes. Plays the rules of `two_logs`.

Strategy: what the store does on disk is done here on lists: append to the newest segment, ask the
rules whose oldest one goes, append what they spare, drop the rest. Counts what a disk would write.
"""

from __future__ import annotations

from collections import deque

from cdn.storage.eviction.two_logs import MOST_USES, Admission, Log, Record, TwoLogs


class _Segment:
    __slots__ = ("bytes", "records")

    def __init__(self) -> None:
        self.bytes = 0
        self.records: list[tuple[int, int]] = []


class _Log:
    def __init__(self, segment_size: int) -> None:
        self.segment_size = segment_size
        self.segments = deque([_Segment()])
        self.bytes = 0

    def append(self, name: int, size: int) -> None:
        newest = self.segments[-1]
        if newest.bytes + size > self.segment_size:
            newest = _Segment()
            self.segments.append(newest)
        newest.bytes += size
        newest.records.append((name, size))
        self.bytes += size

    def drop(self) -> list[tuple[int, int]]:
        oldest = self.segments.popleft()
        if not self.segments:
            self.segments.append(_Segment())
        self.bytes -= oldest.bytes
        return oldest.records


_LARGEST_SEGMENT = 16 * 64 * 1024 * 1024
"""One shard stands for the sixteen of a node here, and one segment for sixteen of 64 MiB."""


class LogStore:
    """A disk of `size` bytes, in ten segments at least. `written`: bytes that went to it."""

    def __init__(self, size: int, admission: Admission) -> None:
        self._reuse = admission is Admission.REUSE
        segment = min(size // 10, _LARGEST_SEGMENT)
        # In RAM there is less room for probation: a hundredth of the disk.
        probation = size // 100 if self._reuse else size // 10
        self.largest_record = min(segment, probation)
        self._rules = TwoLogs(size, probation, admission)
        self._probation = _Log(probation // 10 if self._reuse else segment)
        self._main = _Log(segment)
        self._where: dict[int, Log] = {}
        self._uses: dict[int, int] = {}
        self.written = 0

    @property
    def used(self) -> int:
        """Bytes on disk."""
        return self._main.bytes + (0 if self._reuse else self._probation.bytes)

    def __contains__(self, name: int) -> bool:
        return name in self._where

    def read(self, name: int, size: int) -> None:
        """A record that is in is used."""
        if self._rules.promotes_at_use and self._where[name] is Log.PROBATION:
            self._make_room(0, size)
            self._append(Log.MAIN, Record(name, size, 0))
        elif self._uses[name] < MOST_USES:
            self._uses[name] += 1

    def write(self, name: int, size: int) -> None:
        """A record that was not in is stored, unless no segment holds as much."""
        if size > self.largest_record:
            return
        log = self._rules.log_for(name)
        self._make_room(*((size, 0) if log is Log.PROBATION else (0, size)))
        self._append(log, Record(name, size, 0))

    def _make_room(self, probation: int, main: int) -> None:
        rules = self._rules
        while log := rules.next_to_drop(self._probation.bytes + probation, self._main.bytes + main):
            dropped = self._probation.drop() if log is Log.PROBATION else self._main.drop()
            live = [one for one in dropped if self._where.get(one[0]) is log]
            records = [Record(name, size, self._uses.pop(name)) for name, size in live]
            for record in records:
                del self._where[record.name]
            for record in rules.spared(log, records):
                self._append(Log.MAIN, record)

    def _append(self, log: Log, record: Record) -> None:
        in_ram = self._reuse and log is Log.PROBATION
        (self._probation if log is Log.PROBATION else self._main).append(record.name, record.size)
        self._where[record.name] = log
        self._uses[record.name] = record.uses
        self.written += 0 if in_ram else record.size
