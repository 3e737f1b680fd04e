"""The next part of what a client asks for part by part.

Strategy: whoever seeks, or fetches piece by piece, sends the same head again and again, in which
the range alone differs. A connection keeps the last such head as what is before its range and what
is after; where the next one agrees with it in both, its range is all that is read of it.
"""

from __future__ import annotations

from cdn.wire.field_block import LONGEST_BLOCK, MOST_DIGITS, RANGE, WANTED, Part


class NextPart:
    """What follows a request for a part: the same bytes `before` and `after` the range."""

    __slots__ = ("_after", "_before", "_start", "_stop")

    def __init__(self, before: bytes, after: bytes) -> None:
        self._before = before
        self._after = after
        self._start = len(before)
        self._stop = -len(after)

    @classmethod
    def following(cls, head: bytes, end: int) -> NextPart | None:
        """What follows `head`, whose line ends at `end` and whose one range is valid; None where
        that is not worth keeping."""
        start = head.find(RANGE, end) + len(RANGE)
        found = WANTED.match(head, start) if start > end else None
        if found is None or len(head) > LONGEST_BLOCK:
            return None
        return cls(head[:start], head[found.end() :])

    def wanted(self, head: bytes) -> Part | None:
        """The range that `head` asks for; None where it is not such a head."""
        if not (head.startswith(self._before) and head.endswith(self._after)):
            return None
        # As `WANTED`, in half the time: this is read once for each part.
        begin, dash, end = head[self._start : self._stop].partition(b"-")
        if not (dash and begin.isdigit() and len(begin) <= MOST_DIGITS and len(end) <= MOST_DIGITS):
            return None
        first = int(begin)
        if not end:
            return first, None
        last = int(end) if end.isdigit() else -1
        return (first, last) if first <= last else None
