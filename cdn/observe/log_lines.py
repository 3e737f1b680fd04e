"""The access log's lines: one for each request, in the combined format and a little more.

Strategy: what any request leaves, a `LogRecord`, is formatted whole. Hits are most of all requests:
their lines are put together of texts that were made once, for their answer and for their client.

A line, for a parser that knows the combined format and reads on:

    CLIENT - - [22/Nov/2026:12:00:00 +0000] "GET /a HTTP/1.1" 200 1024 "REFERER" "USER-AGENT"
    "edge-a; hit; ttl=295" 0.000213 "OPERATOR" SERVICE
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from cdn.observe.hits import Hit, Said, Served

BATCH = 256
"""Records formatted in one go: about a millisecond of the loop's time."""

BATCH_BYTES = 131_072
"""A batch ends here too: clients who fill their heads with what must be escaped hold the loop for
no more than three milliseconds."""

WRITE_BYTES = 256 << 10
"""Bytes of lines in one write, about."""

REMEMBERED = 256
"""Longer texts, in characters, are escaped afresh: whoever sends many fills no memory."""

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


class Lines(NamedTuple):
    """Records, so many, that are lines already; `ended` is the last one's time."""

    lines: bytes
    records: int
    ended: float


Waiting = LogRecord | Hit | Lines


class LineFormat:
    """Formats records; keeps the last second's time stamp."""

    def __init__(self, node: str, operator: str) -> None:
        self._member = f", {node};"
        # The only text that did not come as bytes.
        self._operator = _quoted(operator.encode().decode("latin-1"))
        self._second = math.nan
        self._stamp = ""
        self._starts: dict[str, str] = {}
        self._ends: dict[tuple[str, str], tuple[str, str]] = {}

    def batch(self, records: Iterable[Waiting]) -> tuple[bytes, int]:
        """Lines for the first of `records`, and for how many."""
        lines: list[bytes] = []
        made = made_bytes = size = 0
        for record in records:
            if isinstance(record, Lines):
                line = record.lines
            else:
                entry = record if isinstance(record, LogRecord) else record_of(record)
                line = self.line(entry).encode("ascii")
                made += 1
                made_bytes += len(line)
            lines.append(line)
            size += len(line)
            if made >= BATCH or made_bytes >= BATCH_BYTES or size >= WRITE_BYTES:
                break
        return b"".join(lines), len(lines)

    def hits(self, hits: Iterable[Hit]) -> bytes:
        """The same for all of `hits`, put together of what is text already."""
        lines: list[str] = []
        starts, short, most = self._starts, _SHORT, len(_SHORT)
        for served, said, client, ended, seconds, ttl in hits:
            if ended // 1 != self._second or (start := starts.get(client)) is None:
                start = self._start(client, ended)
            opening = served.text or self._text(served)
            member, end = served.text_end
            told = said.text or self._told(said)
            micros = int(seconds * 1e6 + 0.5)
            took = short[micros] if micros < most else _took(seconds)
            lines.append(f'{start}{opening} {told} {member}{ttl}" {took} {end}')
        return "".join(lines).encode("ascii")

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

    def _text(self, served: Served) -> str:
        asked = _escaped(f"{served.method} {served.target} HTTP/1.1")
        served.text = f'"{asked}" {served.status} {served.content_bytes}'
        # What most have in common is one text for all of them, and stays in the cache.
        key = own, service = self._own_member(served.member), served.service
        if (end := self._ends.get(key)) is None:
            if len(self._ends) >= BATCH:
                self._ends.clear()
            end = _quoted(own)[:-1], f"{self._operator} {_word(service)} whole\n"
            self._ends[key] = end
        served.text_end = end
        return served.text

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


def is_plain(text: str) -> bool:
    """Whether the log has it as it is; else it takes four characters for one at most."""
    return text.isascii() and text.isprintable() and '"' not in text and "\\" not in text


def _escaped(text: str) -> str:
    """ASCII without quotes, backslashes and controls; they and all other bytes are `\\xhh`."""
    if is_plain(text):
        return text
    return text.translate(_ESCAPES).encode("ascii", "backslashreplace").decode("ascii")


def _quoted(text: str) -> str:
    return f'"{_escaped(text)}"' if text else '"-"'


_quoted_often = lru_cache(maxsize=4096)(_quoted)


def _word(text: str) -> str:
    return _escaped(text).replace(" ", "\\x20") if text else "-"


def ended_of(record: Waiting) -> float:
    match record:
        case LogRecord():
            return record.time
        case Lines():
            return record.ended
    return record[3]


def records_in(record: Waiting) -> int:
    return record.records if isinstance(record, Lines) else 1


def text_in(record: Waiting) -> int:
    """Characters that the client chose, of what is lines already all."""
    match record:
        case LogRecord():
            texts = record.target, record.authority, record.referer, record.user_agent
            return sum(map(len, texts))
        case Lines():
            return len(record.lines)
    return record[1].size
