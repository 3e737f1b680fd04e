"""The access log: one line a request, in the combined format and a little more.

Strategy: the request's path pays for a list append and the sum that bounds the list. A short timer
takes batches of at most 256 records, formats them on the loop (a thread would hold the GIL just as
long) and hands the bytes to the thread of a `LogFile`; one batch is in flight at a time. When the
disk does not keep up the list fills to its limits and what comes then is lost, counted and
reported, because viewers come before logs.

A line, for a parser that knows the combined format and reads on:

    CLIENT - - [22/Nov/2026:12:00:00 +0000] "GET /a HTTP/1.1" 200 1024 "REFERER" "USER-AGENT"
    "edge-a; hit; ttl=295" 0.000213 "OPERATOR" SERVICE
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from typing import NamedTuple

from cdn.observe.events import EventLog
from cdn.observe.hits import Hit, Said, Served
from cdn.observe.log_file import Done, LogFile

BATCH = 256
"""Records formatted in one go: about a millisecond of the loop's time."""

BATCH_BYTES = 131_072
"""A batch ends here too: clients who fill their heads with what must be escaped hold the loop for
no more than three milliseconds."""

PAUSE = 0.01
"""Seconds between the first record of a batch and its formatting."""

WAITING_LIMIT = 65_536
"""Records that wait for the disk; more are lost."""

WAITING_TEXT_LIMIT = 64 << 20
"""Characters of client's text in them: a head may be 48 KiB, and 65,536 such are 3 GiB."""

REMEMBERED = 256
"""Longer texts, in characters, are escaped afresh: whoever sends many fills no memory."""

COMPLAINT_INTERVAL = 60.0
"""Seconds, by the records' own times, between two lines about lost records."""

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_SHORT = [f"0.{micros:06}" for micros in range(1000)]
_ESCAPES = {code: f"\\x{code:02x}" for code in (*range(0x20), 0x22, 0x5C, 0x7F)}


class LogRecord(NamedTuple):
    """One finished request. `time` is wall seconds at its end, `seconds` how long it took.

    Text is decoded as ISO-8859-1, as in `Request`; absent is "". `cache_status` is the response's
    Cache-Status (RFC 9211), whole or this node's member alone. `outcome` is `Outcome.cache`,
    `source` who answered upstream. `complete` is false where the response was cut short.
    """

    time: float
    client: str
    method: str
    target: str
    authority: str
    scheme: str
    version: tuple[int, int]
    status: int
    content_bytes: int
    referer: str
    user_agent: str
    cache_status: str
    outcome: str
    service: str
    seconds: float
    complete: bool
    source: str


def record_of(hit: Hit) -> LogRecord:
    """The record of a request whose answer others have had before."""
    served, said, client, ended, seconds, ttl = hit
    return LogRecord(
        time=ended,
        client=client,
        method=served.method,
        target=served.target,
        authority=served.authority,
        scheme=served.scheme,
        version=(1, 1),
        status=served.status,
        content_bytes=served.content_bytes,
        referer=said.referer,
        user_agent=said.user_agent,
        cache_status=f"{served.member}{ttl}",
        outcome=served.cache,
        service=served.service,
        seconds=seconds,
        complete=True,
        source=served.source,
    )


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


class LineFormat:
    """Formats records; keeps the last second's time stamp."""

    def __init__(self, node: str, operator: str) -> None:
        self._member = f", {node};"
        # The only text that did not come as bytes.
        self._operator = _quoted(operator.encode().decode("latin-1"))
        self._second = math.nan
        self._stamp = ""
        self._starts: dict[str, str] = {}
        self._members: dict[str, str] = {}
        self._ends: dict[str, str] = {}

    def batch(self, records: Iterable[LogRecord | Hit]) -> tuple[bytes, int]:
        """Lines for the first of `records`, and for how many."""
        lines: list[str] = []
        size, starts = 0, self._starts
        for record in islice(records, BATCH):
            if isinstance(record, LogRecord):
                line = self.line(record)
            else:  # `line` of what `record_of` makes of it, put together of what is text already
                served, said, client, ended, seconds, ttl = record
                if ended // 1 != self._second or (start := starts.get(client)) is None:
                    start = self._start(client, ended)
                opening, member, end = served.texts or self._texts(served)
                told = said.text or self._told(said)
                took = _took(seconds)
                line = f'{start}{opening} {told} {member}{ttl}" {took} {end}'
            lines.append(line)
            size += len(line)
            if size >= BATCH_BYTES:
                break
        return "".join(lines).encode("ascii"), len(lines)

    def line(self, record: LogRecord) -> str:
        """One line with its end, ASCII whatever the record holds."""
        major, minor = record.version
        asked = f"{record.method} {record.target} HTTP/{major}.{minor}" if record.method else ""
        request = _quoted(asked)
        return (
            f"{_word(record.client)} - - [{self._time(record.time)}] {request} "
            f"{record.status} {record.content_bytes} "
            f"{_quoted(record.referer)} {_quoted(record.user_agent)} "
            f"{_quoted(self._own_member(record.cache_status))} {_took(record.seconds)} "
            f"{self._operator} {_word(record.service)} {'whole' if record.complete else 'cut'}\n"
        )

    def _told(self, said: Said) -> str:
        agent = said.user_agent  # many have one, each has its own Referer
        shown = _quoted_often(agent) if len(agent) <= REMEMBERED else _quoted(agent)
        said.text = f"{_quoted(said.referer)} {shown}"
        return said.text

    def _start(self, client: str, ended: float) -> str:
        start = f"{_word(client)} - - [{self._time(ended)}] "
        if len(self._starts) < BATCH:
            self._starts[client] = start
        return start

    def _texts(self, served: Served) -> tuple[str, str, str]:
        asked = _escaped(f"{served.method} {served.target} HTTP/1.1")
        opening = f'"{asked}" {served.status} {served.content_bytes}'
        # What most have in common is one text for all of them, and stays in the cache.
        own, service = self._own_member(served.member), served.service
        if (member := self._members.get(own)) is None:
            if len(self._members) >= BATCH:
                self._members.clear()
            member = self._members[own] = _quoted(own)[:-1]
        if (end := self._ends.get(service)) is None:
            end = self._ends[service] = f"{self._operator} {_word(service)} whole\n"
        served.texts = opening, member, end
        return served.texts

    def _own_member(self, cache_status: str) -> str:
        # RFC 9211 §2: each cache appends its member, so ours is the last that has our name.
        start = cache_status.rfind(self._member)
        return cache_status if start < 0 else cache_status[start + 2 :]

    def _time(self, seconds: float) -> str:
        second = math.floor(seconds)
        if second != self._second:
            t = time.gmtime(second)
            # Not strftime: its %b speaks the operator's language, log analysers do not.
            self._stamp = (
                f"{t.tm_mday:02}/{_MONTHS[t.tm_mon - 1]}/{t.tm_year}"
                f":{t.tm_hour:02}:{t.tm_min:02}:{t.tm_sec:02} +0000"
            )
            self._second = second
            self._starts.clear()
        return self._stamp


def _took(seconds: float) -> str:
    """With six digits: out of a table where it took less than a millisecond, as hits do."""
    micros = int(seconds * 1e6 + 0.5)
    return _SHORT[micros] if micros < len(_SHORT) else f"{seconds:.6f}"


def _escaped(text: str) -> str:
    """ASCII without quotes, backslashes and controls; they and all other bytes are `\\xhh`."""
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return text
    return text.translate(_ESCAPES).encode("ascii", "backslashreplace").decode("ascii")


def _quoted(text: str) -> str:
    return f'"{_escaped(text)}"' if text else '"-"'


_quoted_often = lru_cache(maxsize=4096)(_quoted)


def _word(text: str) -> str:
    return _escaped(text).replace(" ", "\\x20") if text else "-"


def _ended(record: LogRecord | Hit) -> float:
    return record.time if isinstance(record, LogRecord) else record[3]


def _text(record: LogRecord | Hit) -> int:
    """Characters that the client chose."""
    if not isinstance(record, LogRecord):
        return record[1].size
    return len(record.target) + len(record.authority) + len(record.referer) + len(record.user_agent)


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
        self._waiting: list[LogRecord | Hit] = []
        self._waiting_text = 0
        self._room = WAITING_LIMIT
        self._in_flight = 0
        self._closing = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._complained = -math.inf

    def append(self, record: LogRecord | Hit) -> None:
        """Takes a record, or loses it when too many wait. Never blocks, never raises."""
        text = self._waiting_text + _text(record)
        if len(self._waiting) >= self._room or text > WAITING_TEXT_LIMIT:
            self._lose(
                1, _ended(record), "it takes them too slowly, look at its disk or its reader"
            )
            return
        self._waiting.append(record)
        self._waiting_text = text
        self._wake()

    def _wake(self) -> None:
        if self._idle.is_set():
            self._idle.clear()
            self._loop.call_later(PAUSE, self._write)

    def extend(self, hits: Sequence[Hit]) -> None:
        """`append` for many that came at about one time."""
        text = self._waiting_text + sum([hit[1].size for hit in hits])
        if len(self._waiting) + len(hits) > self._room or text > WAITING_TEXT_LIMIT:
            for hit in hits:
                self.append(hit)
            return
        self._waiting += hits
        self._waiting_text = text
        self._wake()

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
                len(self._waiting) + self._in_flight,
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
        self._waiting_text -= sum(map(_text, batch)) if self._waiting else self._waiting_text
        self._in_flight = count
        last = _ended(batch[-1])
        self._file.write(lines, self._on_loop(lambda error: self._written(last, error)))

    def _written(self, when: float, error: OSError | None) -> None:
        if error is None:
            self.counts.writes += 1
            self.counts.records += self._in_flight
        else:
            self.counts.failed_writes += 1
            self._lose(self._in_flight, when, f"{error.strerror}")
        self._in_flight = 0
        if self._closing or len(self._waiting) >= BATCH:
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
