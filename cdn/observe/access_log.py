"""The access log: one line a request, in the combined format and a little more.

Strategy: the request's path pays for a list append and the sum that bounds the list. A short timer
takes batches of at most 256 records, formats them on the loop (a thread would hold the GIL just as
long) and hands the bytes to the thread of a `LogFile`; one batch is in flight at a time. Hits come
in batches, and become lines at once: what lines are made of is still near in memory then. When the
disk does not keep up the list fills to its limits and what comes then is lost, counted and
reported, because viewers come before logs.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from cdn.observe.events import EventLog
from cdn.observe.hits import Hit
from cdn.observe.log_file import Done, LogFile
from cdn.observe.log_lines import (
    BATCH_BYTES,
    LineFormat,
    Lines,
    LogRecord,
    Waiting,
    ended_of,
    records_in,
    text_in,
)

PAUSE = 0.1
"""Seconds between the first record of a write and the write, and between two writes."""

AT_ONCE = 1024
"""Records that wait for no pause."""

WAITING_LIMIT = 65_536
"""Records that wait for the disk; more are lost."""

WAITING_TEXT_LIMIT = 64 << 20
"""Characters of client's text in them: a head may be 48 KiB, and 65,536 such are 3 GiB. A line
counts whole."""

COMPLAINT_INTERVAL = 60.0
"""Seconds, by the records' own times, between two lines about lost records."""


@dataclass(slots=True)
class AccessLogCounts:
    records: int = field(default=0, metadata={"help": "Access log records written."})
    lost_records: int = field(
        default=0,
        metadata={"help": "Access log records lost because the log failed or did not keep up."},
    )
    writes: int = field(default=0, metadata={"help": "Batches of access log records written."})
    failed_writes: int = field(
        default=0, metadata={"help": "Batches of access log records that could not be written."}
    )


class AccessLogUnusable(Exception):
    """The access log cannot be opened: one line for the operator, who named the path."""


class AccessLog:
    """Writes records to `path` ("-" is standard output). Made on the loop that uses it.

    Raises AccessLogUnusable when the path cannot be opened. After that nothing raises: what goes
    wrong is in `counts`, and in `events` once a minute.
    """

    def __init__(self, path: str, *, node: str, operator: str, events: EventLog) -> None:
        try:
            self._file = LogFile(path)
        except OSError as error:
            raise AccessLogUnusable(
                f"access log {path}: {error.strerror}: "
                "name a file in a directory that the node may write to, or - for standard output"
            ) from None
        self.counts = AccessLogCounts()
        self._format = LineFormat(node, operator)
        self._events = events
        self._loop = asyncio.get_running_loop()
        self._waiting: list[Waiting] = []
        self._waiting_records = 0
        self._waiting_text = 0
        self._room = WAITING_LIMIT
        self._in_flight = 0
        self._closing = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._complained = -math.inf

    def append(self, record: LogRecord | Hit) -> None:
        """Takes a record, or loses it when too many wait. Never blocks, never raises."""
        if not self._has_room(1, text_in(record)):
            self._lose(
                1, ended_of(record), "it takes them too slowly, look at its disk or its reader"
            )
            return
        self._wait(record)

    def extend(self, hits: Sequence[Hit]) -> None:
        """`append` for some, not many more than a batch, that came at about one time."""
        text = sum([hit[1].size for hit in hits])
        if text <= BATCH_BYTES and self._has_room(len(hits), text):
            self._wait(Lines(self._format.hits(hits), len(hits), hits[-1][3]))
            return
        for hit in hits:
            self.append(hit)

    def _has_room(self, records: int, text: int) -> bool:
        return (
            self._waiting_records + records <= self._room
            and self._waiting_text + text <= WAITING_TEXT_LIMIT
        )

    def _wait(self, record: Waiting) -> None:
        self._waiting.append(record)
        self._waiting_records += records_in(record)
        self._waiting_text += text_in(record)
        if self._idle.is_set():
            self._idle.clear()
            self._loop.call_later(PAUSE, self._write)

    def reopen(self) -> None:
        """Opens the path anew, after logrotate has moved the file away."""
        self._file.reopen(self._on_loop(self._reopened))

    async def close(self, limit: float = 5.0) -> None:
        """Writes all that waits, for at most `limit` seconds, and closes the file."""
        self._closing = True
        try:
            async with asyncio.timeout(limit):
                await self._idle.wait()
        except TimeoutError:
            self._lose(
                self._waiting_records + self._in_flight,
                math.inf,
                "the node ended before they were written",
            )
            self._waiting.clear()
        self._room = 0
        self._file.close()

    def _write(self) -> None:
        if not self._waiting:
            self._idle.set()
            return
        lines, count = self._format.batch(self._waiting)
        batch, self._waiting = self._waiting[:count], self._waiting[count:]
        self._waiting_text -= sum(map(text_in, batch))
        self._in_flight = sum(map(records_in, batch))
        self._waiting_records -= self._in_flight
        last = ended_of(batch[-1])
        self._file.write(lines, self._on_loop(lambda error: self._written(last, error)))

    def _written(self, when: float, error: OSError | None) -> None:
        if error is None:
            self.counts.writes += 1
            self.counts.records += self._in_flight
        else:
            self.counts.failed_writes += 1
            self._lose(self._in_flight, when, f"{error.strerror}")
        self._in_flight = 0
        if self._closing or self._waiting_records >= AT_ONCE:
            self._write()
        else:
            self._loop.call_later(PAUSE, self._write)

    def _reopened(self, error: OSError | None) -> None:
        if error is not None:
            self._events.warning(
                f"access log {self._file.path}: {error.strerror}: not reopened, the file that was "
                "open is written on; mend the path and reload"
            )

    def _lose(self, records: int, when: float, why: str) -> None:
        self.counts.lost_records += records
        # Either way: the wall clock may step back.
        if abs(when - self._complained) >= COMPLAINT_INTERVAL:
            self._complained = when
            self._events.warning(
                f"access log {self._file.path}: {self.counts.lost_records} records lost so far: "
                f"{why}"
            )

    def _on_loop(self, done: Done) -> Done:
        def call(error: OSError | None) -> None:
            # RuntimeError: the loop was closed while the disk held the write.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(done, error)

        return call
