"""Whole heads known again: where two differ only in what tells one representation from the next,
the second is read in one match.

Strategy: a `_Layout` is an order of lines: one expression, whose groups are the values that vary
and the runs of lines between them. Runs that came a few times, word for word, each of their lines
judged, have an outline from then on, and how such a head is written on. An outline costs as much as
the fields of two or three responses: what comes seldom gets none.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from cdn.semantics.delivery import OWN_FIELDS
from cdn.semantics.message import FieldLine, Response
from cdn.semantics.outline import Outline, OutlinedFields, picker

VARYING = frozenset(
    {"age", "cache-status", "content-length", "date", "etag", "expires", "last-modified"}
)
"""Names of what differs from answer to answer. Other lines that do make a head one of a kind."""

SIGHTS = 8
"""As often must runs have come before they have an outline."""

MOST_LAYOUTS = 8
MOST_OUTLINES = 1024
"""With what they know: some 2 MiB in all. Whoever brings more begins anew with none."""

_STATUS_LINE = rb"HTTP/1\.1 200 OK"
_RUN = rb"((?:\r\n[^\r\n]*+){%d})"
_VALUE = rb"\r\n%b: ([!-~](?:[ -~]*[!-~])?)"
_LENGTH = rb"\r\n%b: ([0-9]{1,18})"
_LENGTH_NAME = "content-length"
_BY_THE_SECOND = frozenset({"date", "expires"})


class PlainHead(NamedTuple):
    """`relayed` are its end-to-end lines as they are written on, but for those that every node
    writes itself; `length` is its content's, in bytes."""

    head: Response
    relayed: bytes
    length: int


class Line(NamedTuple):
    """A line that was judged: its name in lower case, its value; the line, None where it belongs to
    this hop; how it is written on."""

    name: str
    value: str
    line: FieldLine | None
    written: bytes


class _Layout:
    """`names` are those of the lines that vary, as they are spelled; None where one does not."""

    __slots__ = ("by_the_second", "length", "match", "outlines", "runs", "values")

    def __init__(self, names: Sequence[bytes | None]) -> None:
        form = _STATUS_LINE
        self.by_the_second: list[int] = []
        runs: list[int] = []
        values: list[int] = []
        for at, (name, times) in enumerate(_grouped(names)):
            if name is None:
                runs.append(at)
                form += _RUN % times
            elif (lower := _lower(name)) == _LENGTH_NAME:
                self.length = at
                form += _LENGTH % re.escape(name)
            else:
                if lower in _BY_THE_SECOND:
                    self.by_the_second.append(len(values))
                values.append(at)
                form += _VALUE % re.escape(name)
        self.match = re.compile(form).fullmatch
        self.runs, self.values = picker(runs), picker(values)
        self.outlines: dict[tuple[bytes, ...], Outline] = {}


class Layouts:
    """Those that were met, and what is known by them."""

    def __init__(self) -> None:
        self._by_names: dict[tuple[bytes | None, ...], _Layout] = {}
        self._order: list[_Layout] = []
        self._sights: Counter[tuple[bytes, ...]] = Counter()
        self._known = 0

    def read(self, data: bytes) -> PlainHead | None:
        """The head in `data`, but for its empty line; None for one that is not known."""
        for layout in self._order:
            if (match := layout.match(data)) is None:
                continue
            groups = match.groups()
            outline = layout.outlines.get(layout.runs(groups))
            if outline is None:
                return None
            if layout is not self._order[0]:
                self._order.remove(layout)
                self._order.insert(0, layout)
            values = [value.decode("ascii") for value in layout.values(groups)]
            for at in layout.by_the_second:
                values[at] = sys.intern(values[at])
            fields = OutlinedFields(outline, tuple(values))
            relayed = fields.without(OWN_FIELDS).written.encode("latin-1")
            return PlainHead(Response(200, fields, "OK"), relayed, int(groups[layout.length]))
        return None

    def learn(self, data: bytes, lines: Sequence[Line]) -> None:
        """`data` is a plain head, `lines` are its own, no two by one name."""
        names = tuple([_varying(text) for text in data.split(b"\r\n")[1:]])
        if not any(name is not None and _lower(name) == _LENGTH_NAME for name in names):
            return  # it is there, but not in the usual spelling
        if self._known >= MOST_OUTLINES:
            self._forget()
        layout = self._by_names.get(names)
        if layout is None:
            if len(self._order) >= MOST_LAYOUTS:
                self._forget()
            layout = self._by_names[names] = _Layout(names)
            self._order.append(layout)
        if (match := layout.match(data)) is None:
            return  # a value out of the ordinary
        runs = layout.runs(match.groups())
        if len(self._sights) >= MOST_OUTLINES:
            self._sights.clear()
        self._sights[runs] += 1
        if self._sights[runs] >= SIGHTS:
            del self._sights[runs]
            self._known += 1
            layout.outlines[runs] = _outline(names, lines)

    def _forget(self) -> None:
        self._by_names.clear()
        self._order.clear()
        self._known = 0


def _outline(names: Sequence[bytes | None], lines: Sequence[Line]) -> Outline:
    drawn: list[tuple[str, str | None]] = []
    for name, (_, _, line, _) in zip(names, lines, strict=True):
        if line is not None:
            drawn.append((line[0], line[1] if name is None else None))
    return Outline(drawn)


def _varying(text: bytes) -> bytes | None:
    name, colon, _ = text.partition(b": ")
    return name if colon and _lower(name) in VARYING else None


def _lower(name: bytes) -> str:
    return name.decode("latin-1").lower()


def _grouped(names: Sequence[bytes | None]) -> Iterator[tuple[bytes | None, int]]:
    """Names, and None with how many lines follow each other that have none."""
    for name, same in groupby(names):
        yield name, len(list(same))
