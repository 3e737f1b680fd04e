"""Requests that were answered again as others were before: their records, by what they share.

Strategy: what is said of an answer is the same for all who get it, but for how long it is still
fresh, and what a client says of itself is the same in all its requests; each is put into text once.
What is left of a request is a tuple, which becomes a line or a `LogRecord` in batches, off the
request's path.

What is far away in memory costs a request more than to compute with it. So what is counted of an
answer is gathered in the answer, and what is written of it is one text of its own and two that it
shares with others.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True, eq=False)
class Served:
    """An answer; fields as in `LogRecord`, but that `member` ends where the seconds of its ttl
    follow, if any; `cache` is its `outcome`. `of` is what its giver knows it by, `uses` how often
    it was given since that was last told, `text` and `text_end` are the formatter's."""

    method: str
    scheme: str
    authority: str
    target: str
    status: int
    content_bytes: int
    member: str
    service: str
    of: object
    cache: str = "hit"
    source: str = ""
    text: str = field(default="", init=False)
    text_end: tuple[str, str] = field(default=("", ""), init=False)
    uses: int = field(default=0, init=False)


class Said:
    """What a client says of itself, in characters `size` in all; `text` is the formatter's."""

    __slots__ = ("referer", "size", "text", "user_agent")

    def __init__(self, referer: str, user_agent: str) -> None:
        self.referer = referer
        self.user_agent = user_agent
        self.size = len(referer) + len(user_agent)
        self.text: str | None = None


Hit = tuple[Served, Said, str, float, float, int | str]
"""One request: its answer, its client's words, the client's address, wall seconds at its end, how
many seconds it took, and for how many more its answer is fresh ("" where that is not said)."""
