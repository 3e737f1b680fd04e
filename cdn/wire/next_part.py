"""The next part of what a client asks for part by part.

Strategy: whoever seeks, or fetches piece by piece, sends the same head again and again, in which
the range alone differs. A connection keeps the last such head as what is before its range and what
is after; where the next one agrees with it in both, its range is all that is read of it.
"""

from __future__ import annotations

from cdn.wire.field_block import LONGEST_BLOCK, RANGE, WANTED, Part, wanted_by


class NextPart:
    """What follows a request for a part: the same bytes `before` and `after` the range."""

    __slots__ = ("after", "before")

    def __init__(self, before: bytes, after: bytes) -> None:
        self.before = before
        self.after = after

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
        before = self.before
        found = WANTED.match(head, len(before)) if head.startswith(before) else None
        if found is None or head[found.end() :] != self.after:
            return None
        return wanted_by(found)
