"""Looking into a store from outside, whether a node has it open or not.

Strategy: nothing is locked and no record is written. `verify` needs no index, only segments; `stat`
and `ls` ask the index, and refuse where it cannot be believed. Printing is the caller's.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cdn.semantics.ranges import ByteRange
from cdn.semantics.stored_response import StoredResponse
from cdn.semantics.vary import Variant
from cdn.storage.directory import (
    StoreState,
    StoreUnusable,
    current_boot,
    read_state,
    shard_path,
)
from cdn.storage.eviction.two_logs import Log
from cdn.storage.heads import decode_head
from cdn.storage.index import Entry, Index, IndexFailed
from cdn.storage.records import HEADER_SIZE, content_of, unpack
from cdn.storage.segments import Segment, Segments, segment_numbers, segment_path, walk

Progress = Callable[[int, int], None]
"""Called with bytes done and bytes in all."""


@dataclass(frozen=True, slots=True)
class Row:
    """One stored response, for a list. `stored` is bytes of content that are there, `length` the
    complete length (None: unknown); `response_time` in seconds since 1970."""

    key: bytes
    variant: Variant
    status: int
    length: int | None
    stored: int
    response_time: float


@dataclass(frozen=True, slots=True)
class Damage:
    """A record that is not as it was written; `key` is None where that cannot be told either."""

    segment: Path
    offset: int
    key: bytes | None


@dataclass(slots=True)
class Report:
    """What `verify` found: records that are alive, and bytes of all segments."""

    segments: int = 0
    records: int = 0
    bytes: int = 0
    damaged: list[Damage] = field(default_factory=list)


def look(directory: Path, size: int) -> tuple[str, str] | None:
    """What would keep a store of `size` bytes out of `directory`, as far as that shows from
    outside, and the mend."""
    try:
        read_state(directory)
    except StoreUnusable as error:
        what, _, mend = str(error).rpartition("; ")
        return what, mend
    if not directory.is_dir():
        return None  # it will be made
    room = os.statvfs(directory)
    if size > (there := room.f_blocks * room.f_frsize):
        return f"{directory} is on a disk of {there} bytes in all, and disk is {size}", "write less"
    return None


def stat(directory: Path, boot_id: str | None = None) -> dict[str, object]:
    """How the store is laid out and what it holds, sizes in bytes. Raises StoreUnusable."""
    state = _believed(directory, boot_id)
    totals = dict.fromkeys(
        ("objects", "slices", "segments", "probation_bytes", "main_bytes", "index_bytes"), 0
    )
    for number in range(state.shards):
        with _index(shard_path(directory, number)) as index:
            objects, slices = index.counts()
            totals["objects"] += objects
            totals["slices"] += slices
            totals["index_bytes"] += index.size
            for row in index.segments():
                totals["segments"] += 1
                log = "probation_bytes" if row.log is Log.PROBATION else "main_bytes"
                totals[log] += row.size
    return {
        "directory": str(directory),
        "shards": state.shards,
        "starts": state.starts,
        "closed_cleanly": state.clean,
        **totals,
    }


def ls(directory: Path, prefix: bytes = b"", boot_id: str | None = None) -> Iterator[Row]:
    """All responses whose key (a URL) begins with `prefix`. Raises StoreUnusable."""
    state = _believed(directory, boot_id)
    for number in range(state.shards):
        path = shard_path(directory, number)
        segments = Segments(path, state.starts)
        with _index(path) as index:
            for _, entry in index.all_heads():
                segment = segments.get(entry.location.segment)
                response = _head(segment, entry, prefix) if segment else None
                if response is not None:
                    yield _row(response, entry)


def verify(directory: Path, progress: Progress = lambda done, total: None) -> Report:
    """Reads every record that is alive and checks it. Raises StoreUnusable, OSError."""
    state = _state(directory)
    found = [
        (shard, number)
        for shard in (shard_path(directory, number) for number in range(state.shards))
        if shard.is_dir()
        for number in segment_numbers(shard)
    ]
    total = sum(_size(segment_path(*one)) for one in found)
    report = Report()
    for shard, number in found:
        # A running node may drop a segment meanwhile.
        with contextlib.suppress(FileNotFoundError):
            _verify(Segment(shard, number, 0), segment_path(shard, number), report)
        progress(min(report.bytes, total), total)
    return report


def clear_dead_readers(directory: Path) -> None:
    """Frees what processes that died while they read hold in the indexes, whose pages could not be
    used again. For a store that a node has open. Raises StoreUnusable."""
    for number in range(_state(directory).shards):
        with _index(shard_path(directory, number)) as index:
            index.reader_check()


def _verify(segment: Segment, path: Path, report: Report) -> None:
    size = os.fstat(segment.fd).st_size
    report.segments += 1
    report.bytes += size
    end = 0
    for placed in walk(segment.fd, size):
        end = placed.offset + placed.header.size
        if not placed.header.live:
            continue
        report.records += 1
        data = segment.read(placed.offset, placed.header.size)
        if content_of(data) is None:
            key = bytes(data[HEADER_SIZE : HEADER_SIZE + placed.header.key_length])
            report.damaged.append(Damage(path, placed.offset, key))
    # A record that is just being written ends the file; anything else is one that was.
    rest = segment.read(end, HEADER_SIZE)
    if any(rest) and unpack(rest) is None:
        report.damaged.append(Damage(path, end, None))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _state(directory: Path) -> StoreState:
    state = read_state(directory)
    if state is None:
        raise StoreUnusable(f"{directory} is not a store; name the directory given to --store")
    return state


def _believed(directory: Path, boot_id: str | None) -> StoreState:
    state = _state(directory)
    if not state.clean and state.boot_id != (boot_id or current_boot()):
        raise StoreUnusable(
            f"{directory} was in use when the machine went down; start its node once, which "
            "rebuilds the index"
        )
    return state


@contextlib.contextmanager
def _index(shard: Path) -> Iterator[Index]:
    path = shard / "index"
    try:
        index = Index(path, 2 * path.stat().st_size + (1 << 30), readonly=True)
    except (IndexFailed, OSError) as error:
        raise StoreUnusable(
            f"{path} cannot be read: {error}; run as the node's user, or start its node once"
        ) from error
    try:
        yield index
    finally:
        index.close()


def _head(segment: Segment, entry: Entry, prefix: bytes) -> StoredResponse | None:
    header = unpack(segment.read(entry.location.offset, HEADER_SIZE))
    if header is None or not header.live:
        return None
    record = content_of(segment.read(entry.location.offset, header.size))
    if record is None or not bytes(record[1]).startswith(prefix):
        return None
    try:
        return decode_head(bytes(record[1]), bytes(record[2]))
    except ValueError:
        return None


def _row(response: StoredResponse, entry: Entry) -> Row:
    size = response.slice_size
    present = response.present
    length = present.length if isinstance(present, ByteRange) else response.length
    stored = entry.slices.bit_count() * size
    if length is not None and entry.slices.bit_length() * size > length:
        stored -= entry.slices.bit_length() * size - length  # the last is short
    return Row(
        response.primary_key,
        response.variant,
        response.status,
        response.length,
        stored,
        response.response_time,
    )
