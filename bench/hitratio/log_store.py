"""The disk store without its bytes: the same rules on records of which only the sizes are there.

Strategy: what shard.py and dropping.py do in files and an index is done here on lists, with the
store's own rules (`eviction.two_logs`), names, shards and sizes of records: slices first, then the
head, appended to the newest segment of a log until the disk is full; then the oldest of the log
that the rules name goes, and what they spare of it is appended to main. A test plays one trace
through this and through a real store and compares every request.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from cdn.hashing.digest import SHARDS, key_digest, shard_of
from cdn.storage.disk import LEAST_SEGMENTS, SEGMENT_SIZE
from cdn.storage.eviction.two_logs import Admission, Log, TwoLogs, name_of
from cdn.storage.logs import record_size
from cdn.storage.records import LARGEST_HEAD
from cdn.storage.segments import MOST_USES

SLICE = 1 << 20
"""Bytes of a slice: what the disk store keeps content in."""

LEAST_SHARD = LEAST_SEGMENTS * (SLICE + 2 * LARGEST_HEAD)
"""Bytes without which no store opens."""

_WHOLE_SHARD = LEAST_SEGMENTS * 16 * SLICE
"""A cache of less than sixteen of these has fewer shards here: with a slice or two in a segment it
would not be the replacement that is measured."""

_HEAD = 400
"""Bytes of an encoded head with half a dozen fields."""

_INDEX = 120
"""Bytes of the index for each record."""


class Piece(NamedTuple):
    """One record: `size` is its content's, `record` what it takes in a log. `number` is a slice's,
    None for the head."""

    name: int
    number: int | None
    size: int
    record: int


class Content(NamedTuple):
    """What is asked for. `shard` is below SHARDS."""

    shard: int
    head: Piece
    slices: tuple[Piece, ...]


def content_of(key: bytes, size: int, slice_size: int = SLICE, head: int = _HEAD) -> Content:
    """The records of `size` bytes under `key`, with a head of so many."""
    digest = key_digest(key)

    def piece(number: int | None, length: int) -> Piece:
        return Piece(name_of(digest, number), number, length, record_size(key, length))

    slices = (
        piece(number, min(slice_size, size - start))
        for number, start in enumerate(range(0, size, slice_size))
    )
    return Content(shard_of(digest), piece(None, head), tuple(slices))


class LogStore:
    """A disk of `size` bytes, at least LEAST_SHARD. `index`: bytes of it for each record."""

    def __init__(
        self,
        size: int,
        admission: Admission,
        shards: int | None = None,
        segment_size: int | None = None,
        index: int = _INDEX,
    ) -> None:
        # Half as many, and half again: keys are spread evenly over no other number.
        shards = shards or min(1 << max(size // _WHOLE_SHARD, 1).bit_length() - 1, SHARDS)
        share = size // shards
        segment_size = segment_size or min(SEGMENT_SIZE, share // LEAST_SEGMENTS)
        self._shards = [_Shard(share, segment_size, admission, index) for _ in range(shards)]

    @property
    def written(self) -> int:
        """Bytes that went to the disk."""
        return sum(shard.written for shard in self._shards)

    @property
    def used(self) -> int:
        """Bytes on disk."""
        return sum(shard.used for shard in self._shards)

    def request(self, content: Content) -> int:
        """Content is asked for whole; bytes of it that were there. The others are there now."""
        return self._shards[content.shard % len(self._shards)].request(content)


class _Segment:
    __slots__ = ("bytes", "log", "records")

    def __init__(self, log: Log) -> None:
        self.log = log
        self.bytes = 0
        self.records: list[tuple[Piece, Content]] = []


class _Shard:
    def __init__(self, share: int, segment_size: int, admission: Admission, index: int) -> None:
        self._reuse = admission is Admission.REUSE
        # In RAM there is less room for probation: a hundredth of the disk.
        in_ram = share // 100 if self._reuse else None
        self._rules = TwoLogs(share, admission, in_ram)
        self._segment_size = {
            Log.PROBATION: segment_size if in_ram is None else in_ram // LEAST_SEGMENTS,
            Log.MAIN: segment_size,
        }
        self.largest_record = segment_size if in_ram is None else min(segment_size, in_ram)
        self._index = index
        self._logs: dict[Log, deque[_Segment]] = {log: deque() for log in Log}
        self._ends: dict[Log, _Segment | None] = dict.fromkeys(Log)
        self._bytes = dict.fromkeys(Log, 0)
        self._where: dict[int, _Segment] = {}
        self._uses: dict[int, int] = {}
        self._slices: dict[int, int] = {}  # how many are there, by the name of their head
        self.written = 0

    @property
    def used(self) -> int:
        disk = (Log.MAIN,) if self._reuse else Log
        return sum(self._bytes[log] for log in disk) + self._index * len(self._where)

    def request(self, content: Content) -> int:
        found, missing = 0, []
        for piece in content.slices:
            if piece.name in self._where:
                self._use(piece, content)
                found += piece.size
            elif piece.record <= self.largest_record:
                missing.append(piece)
        for piece in missing:
            self._write(piece, content, self._rules.log_for(piece.name))
            self._slices[content.head.name] = self._slices.get(content.head.name, 0) + 1
        if missing:
            self._write(content.head, content, self._log_of_head(content))
        return found

    def _use(self, piece: Piece, content: Content) -> None:
        segment = self._where[piece.name]
        if self._rules.promotes_at_use and segment.log is Log.PROBATION:
            self._promote(piece, content)
            if self._where[content.head.name].log is Log.PROBATION:
                self._promote(content.head, content)
        elif self._uses[piece.name] < MOST_USES:
            self._uses[piece.name] += 1

    def _promote(self, piece: Piece, content: Content) -> None:
        segment = self._where[piece.name]
        segment.bytes -= piece.record
        self._bytes[segment.log] -= piece.record
        self._write(piece, content, Log.MAIN)

    def _log_of_head(self, content: Content) -> Log:
        written = (
            self._reuse and name in self._where and self._where[name].log is Log.MAIN
            for name, *_ in content.slices
        )
        return Log.MAIN if any(written) else Log.PROBATION

    # --- appending ------------------------------------------------------------------------------

    def _write(self, piece: Piece, content: Content, log: Log) -> None:
        while victim := self._victim(log, piece.record):
            self._drop(victim)
        self._append(piece, content, log, 0)

    def _victim(self, log: Log, size: int) -> Log | None:
        if self._reuse:
            return self._victim_of_two(log, size)
        probation = self._bytes[Log.PROBATION]
        main = self._bytes[Log.MAIN] + self._index * len(self._where)
        if log is Log.PROBATION:
            probation += size
        else:
            main += size
        victim = self._rules.next_to_drop(probation, main)
        if victim is None or self._bytes[victim]:
            return victim
        return next(filter(self._bytes.get, Log), None)

    def _victim_of_two(self, log: Log, size: int) -> Log | None:
        """Probation is in RAM, main alone on the disk."""
        if log is Log.PROBATION:
            return log if self._bytes[log] + size > self._rules.probation else None
        on_disk = self._bytes[log] + size + self._index * len(self._where)
        return log if self._bytes[log] and self._rules.next_to_drop(0, on_disk) else None

    def _append(self, piece: Piece, content: Content, log: Log, uses: int) -> None:
        end = self._ends[log]
        if end is None or end.bytes + piece.record > self._segment_size[log]:
            end = self._ends[log] = _Segment(log)
            self._logs[log].append(end)
        end.bytes += piece.record
        end.records.append((piece, content))
        self._bytes[log] += piece.record
        self._where[piece.name] = end
        self._uses[piece.name] = uses
        if not (self._reuse and log is Log.PROBATION):
            self.written += piece.record

    # --- dropping -------------------------------------------------------------------------------

    def _drop(self, log: Log) -> None:
        segment = self._logs[log].popleft()
        if segment is self._ends[log]:
            self._ends[log] = None
        held = [0] * (MOST_USES + 1)
        for piece, content in self._live(segment):
            if piece.number is not None:
                held[self._uses[piece.name]] += self._cost(segment, piece, content)
        sparing = self._rules.sparing(log, segment.bytes, held)
        for piece, content in self._live(segment):
            if piece.number is None:
                continue
            uses = self._uses[piece.name]
            if sparing.spares(uses, self._cost(segment, piece, content)):
                self._append(piece, content, Log.MAIN, self._rules.uses_left(log, uses))
            else:
                self._evict(piece, content)
        for piece, content in self._live(segment):
            if piece.number is None:
                self._append(piece, content, Log.MAIN, 0)
        self._bytes[log] -= segment.bytes

    def _live(self, segment: _Segment) -> Iterator[tuple[Piece, Content]]:
        where = self._where
        # A record may lie in a segment twice: the later one counts.
        last = {piece.name: number for number, (piece, _) in enumerate(segment.records)}
        for number, (piece, content) in enumerate(segment.records):
            if where.get(piece.name) is segment and last[piece.name] == number:
                yield piece, content

    def _cost(self, segment: _Segment, piece: Piece, content: Content) -> int:
        head = content.head
        with_head = piece.number == 0 and self._where.get(head.name) is segment
        return piece.record + head.record if with_head else piece.record

    def _evict(self, piece: Piece, content: Content) -> None:
        self._rules.forget(piece.name, piece.record)
        del self._where[piece.name], self._uses[piece.name]
        head = content.head.name
        self._slices[head] -= 1
        if not self._slices[head]:
            del self._slices[head]
            self._where.pop(head, None)
            self._uses.pop(head, None)
