"""What messages mean, read anew from the RFC: directives, lifetimes, ages, conditions, ranges.

Strategy: small pure functions over the origin's events and the clients' requests, for the judge
(`machine_rules.py`). Numbers of clauses without more are RFC 9111's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tests.conformance.machine_origin import Event, seconds_of
from tests.kit import Received
from tests.kit.reply import FieldLine

HEURISTICALLY = frozenset({200, 203, 204, 206, 300, 301, 308, 404, 405, 410, 414, 501})

Directives = dict[str, str]


@dataclass(eq=False)
class Asking:
    """A request as a client sent it, at the origin's `moment`, with X-Ask `number`."""

    number: int
    target: str
    method: str
    lines: list[FieldLine]
    moment: int

    def field(self, name: str) -> str | None:
        return next((value for line, value in self.lines if line.lower() == name), None)

    @property
    def directives(self) -> Directives:
        return directives(self.field("cache-control"))


# -- what governs reuse


def directives(value: str | None) -> Directives:
    """§5.2; where a directive is repeated the first one counts. Plans quote no commas."""
    found: Directives = {}
    for member in (value or "").lower().split(","):
        name, _, argument = member.strip().partition("=")
        if name:
            found.setdefault(name, argument.strip('"'))
    return found


def seconds(said: Directives, name: str, unsaid: int) -> int:
    """A directive's time in seconds; `unsaid` without it, or without an argument of its own."""
    return int(said.get(name) or unsaid)


def governing(event: Event) -> tuple[Directives, bool]:
    """RFC 9213 §2.2: CDN-Cache-Control alone, where there is one; and whether there was."""
    targeted = event.field("cdn-cache-control")
    return directives(targeted or event.field("cache-control")), targeted is not None


def shut_out(said: Directives) -> bool:
    """§5.2.2.5, §5.2.2.7; must-understand overrides no-store (§5.2.2.3)."""
    no_store = "no-store" in said and "must-understand" not in said
    return no_store or said.get("private") == ""


def lifetime_of(event: Event) -> tuple[float, bool]:
    """§4.2.1, §4.2.2: seconds, and whether the response said so itself."""
    said, targeted = governing(event)
    for name in ("s-maxage", "max-age"):
        if name in said:
            return seconds(said, name, 0), True
    expires, modified = event.field("expires"), event.version.modified
    if expires is not None and not targeted:
        return max(0.0, seconds_of(expires) - event.date), True
    if modified is None or not (event.version.plan.status in HEURISTICALLY or "public" in said):
        return 0.0, False
    return min(max(0.0, 0.1 * (event.date - modified)), 86_400.0), False


def age_of(event: Event, now: float) -> float:
    """§4.2.3, for one cache beside the origin. A clock that steps back makes nothing younger."""
    apparent = max(0.0, event.time - event.date)
    return max(apparent, float(event.field("age") or 0)) + max(0.0, now - event.time)


# -- conditions and ranges (RFC 9110 §13, §14)


def unchanged(asking: Asking, event: Event) -> bool:
    """Whether 304 is the answer: §13.1.2, else §13.1.3; Date stands in for Last-Modified."""
    if (tags := asking.field("if-none-match")) is not None:
        opaque = (event.version.etag or "nothing").removeprefix("W/")
        return tags == "*" or opaque in re.findall(r'"[^"]*"', tags)
    since = asking.field("if-modified-since")
    return since is not None and (event.version.modified or event.date) <= seconds_of(since)


def range_holds(asking: Asking, event: Event) -> bool:
    """§13.1.5: by strong comparison, or exactly the date of a strong Last-Modified (§8.8.2.2)."""
    condition, modified = asking.field("if-range"), event.version.modified
    if condition is None or condition.endswith('"'):
        return condition is None or (condition == event.version.etag and condition[:2] != "W/")
    strong = modified is not None and event.date - modified >= 1
    return strong and seconds_of(condition) == modified


def requested(value: str | None, size: int) -> list[tuple[int, int]] | None:
    """What of `size` bytes a Range asks for, as [start, stop); None where it is no valid Range."""
    if value is None:
        return None
    wanted = []
    for first, last in re.findall(r"(\d*)-(\d*)", value):
        if first and last and int(last) < int(first):
            return None
        start = int(first) if first else max(0, size - int(last))
        stop = size if not (first and last) else min(size, int(last) + 1)
        if start < stop:
            wanted.append((start, stop))
    return wanted


def parts_of(got: Received) -> list[tuple[int, int, int | None, bytes]]:
    """A 206's parts: start, stop, complete length, bytes. Nothing of a multipart cut short."""
    boundary = re.search(r"multipart/byteranges; boundary=(\S+)", got.field("content-type") or "")
    if boundary is None:
        return [(*_content_range(got.field("content-range")), got.content)]
    if not got.complete:
        return []
    delimiter = b"\r\n--" + boundary[1].encode()
    first, *parts, last = (b"\r\n" + got.content).split(delimiter)
    assert (first.strip(), last.strip()) == (b"", b"--"), "RFC 9110 §14.6: not well framed"
    found = []
    for part in parts:
        head, _, content = part.partition(b"\r\n\r\n")
        line = re.search(rb"(?i)content-range: (.*)", head)
        found.append((*_content_range(line and line[1].decode()), content))
    return found


def _content_range(value: str | None) -> tuple[int, int, int | None]:
    match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", (value or "").strip())
    assert match, f"RFC 9110 §14.4: a 206 with Content-Range {value!r}"
    return int(match[1]), int(match[2]) + 1, None if match[3] == "*" else int(match[3])
