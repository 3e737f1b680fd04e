"""Field blocks of plain requests: read line by line, and remembered.

Strategy: a client repeats its fields from request to request, and clients repeat each other's. A
line is judged by the strict expression of `request_head` once and remembered with what it says; a
block is put together out of lines, and remembered whole. What frames content, concerns this hop or
is in any way unusual is not read here at all: `request_head.parse_head` judges it, and refuses what
is to be refused. Both memories take in what they see for the second time and are bounded by bytes:
what is used stays when they turn over, so a flood of ever new fields costs no more than the
reading, and drives out nothing that is in use. Nothing of a connection is remembered.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Generic, TypeVar

from cdn.gateway.plain import Form
from cdn.observe.hits import Said
from cdn.semantics.cache_control import NOTHING_SAID, parse_cache_control
from cdn.semantics.hop_by_hop import HOP_BY_HOP
from cdn.semantics.message import FieldLine, Fields, Request
from cdn.wire.errors import RequestError
from cdn.wire.request_head import FIELD_LINE, RequestHead, normal_authority, parse_head
from cdn.wire.ways import Way

MEMORY = 16 << 20
"""Bytes of blocks, and again of lines, that are remembered at most; Python's own included."""

MOST_SEEN = 65_536
"""Blocks or lines of which it is known that they were seen once."""

LONGEST_LINE = 1024
"""Bytes of a line that is remembered by itself."""

LONGEST_OWN = 4096
"""Bytes of any line in a block."""

LONGEST_BLOCK = 8 * 1024
MOST_LINES = 40
"""In a block; browsers send half as many. Python takes more for a line than its text."""

MOST_HOSTS = 4096
MOST_RECENT = 256

_BLOCK_OVERHEAD = 2_000
_LINE_OVERHEAD = 600
"""Bytes of one in a memory besides its text: measured with tracemalloc (tests/wire)."""

_NOT_PLAIN = (HOP_BY_HOP - {"connection"}) | {"expect"}

_NARROWING = (
    "if-match",
    "if-none-match",
    "if-modified-since",
    "if-unmodified-since",
    "if-range",
    "range",
)
_TOLD_APART = frozenset({*_NARROWING, "cache-control"})
"""Fields by which an answer out of the store differs, besides those that Vary nominates."""

_CLAIMS = frozenset({"forwarded", "surrogate-capability", "cdn-loop"})
"""Fields by which a node says for whom it asks: what they mean depends on who it is."""

_LONGEST_NARROWING = 512

MOST_DIGITS = 18
"""Of a position in content: as many bytes as nobody has."""

_PART = re.compile(rf"bytes=([0-9]{{1,{MOST_DIGITS}}})-([0-9]{{0,{MOST_DIGITS}}})")
RANGE = b"\r\nRange: bytes="
WANTED = re.compile(rb"([0-9]{1,%d})-([0-9]{0,%d})(?=\r\n)" % (MOST_DIGITS, MOST_DIGITS))
_A_PART = b"0-0"
"""What stands for any one range in blocks that differ in it alone."""

REQUEST_LINE = re.compile(rb"(GET|HEAD) (/[\x21\x22\x24-\x7e]*+) HTTP/1\.1")
LONGEST_REQUEST_LINE = 8 * 1024

Part = tuple[int, int | None]
"""First and last byte of a range; None: to the end."""

_NO_PART: Part | None = None

_COOKIE = b"\r\nCookie: "
_REFERER = b"\r\nReferer: "
_FORWARDED = b"\r\nForwarded: "
_OWN = (_COOKIE, _REFERER, _FORWARDED)
"""How the lines begin that differ from request to request of one client, and tell no answer from
another unless Vary nominates them."""

OWN = frozenset({"cookie", "referer"})
"""Fields that `FieldMemory.own` leaves out of its block."""

T = TypeVar("T")


class TwiceSeen(Generic[T]):
    """Remembers by bytes what it is given for the second time, up to `budget` bytes at `overhead`
    each besides the text itself."""

    def __init__(self, budget: int, overhead: int) -> None:
        self._half = budget // 2
        self._overhead = overhead
        self._young: dict[bytes, T] = {}
        self._old: dict[bytes, T] = {}
        self._size = 0
        self._seen: set[int] = set()
        self.get: Callable[[bytes], T | None] = self._young.get
        """What was taken in since the memory turned over last; see `recall`."""

    def recall(self, name: bytes) -> T | None:
        """What `get` has no more, but had when the memory turned over."""
        known = self._old.get(name)
        if known is not None:
            self._take(name, known)
        return known

    def offer(self, name: bytes, value: T) -> None:
        """Takes it in where `name` was offered, or seen, before."""
        if self.was_seen(name):
            self._take(name, value)
        else:
            self.see(name)

    def was_seen(self, name: bytes) -> bool:
        """Whether it would be taken in."""
        return hash(name) in self._seen

    def see(self, name: bytes) -> None:
        """It is known from now on that there was such a one."""
        if len(self._seen) >= MOST_SEEN:
            self._seen.clear()
        self._seen.add(hash(name))

    def _take(self, name: bytes, value: T) -> None:
        self._size += self._overhead + 3 * len(name)
        if self._size > self._half:
            self._old, self._young = self._young, {}
            self.get = self._young.get
            self._size = self._overhead + 3 * len(name)
        self._young[name] = value


_Line = tuple[str, FieldLine]
"""The lower-case name, and the line."""


class NotPlain(Exception):
    """A field line is not for this file to read."""


class FieldBlock:
    """The fields of a request that has no content and ends no connection. `origins` is how the
    primary keys begin of what they can ask for, by scheme. `repeatable`: nothing in it but
    `narrowing`, which compares as text, and what Vary nominates, tells its answers from another's;
    `part` is the one range, first and last byte (None: to the end), that `narrowing` does not tell.
    `claims`: it says for whom it asks. `lines` gives its lines, when they are asked for; `ways` are
    how requests with it were taken last, `forms` what a miss with it is, both by scheme. `raw` is
    what it is known by where it is remembered.
    """

    __slots__ = (
        "_fields",
        "_lines",
        "claims",
        "forms",
        "narrowing",
        "origins",
        "part",
        "raw",
        "repeatable",
        "said",
        "ways",
    )

    def __init__(
        self,
        lines: Callable[[], list[_Line]],
        said: Said,
        origins: Origins,
        like: FieldBlock | None = None,
    ) -> None:
        self.raw = b""
        self.said = said
        self.origins = origins
        self._lines = lines
        self._fields: Fields | None = None
        self.ways: dict[str, Way] = {}
        self.forms: dict[str, Form] = {}
        if like is None:
            self.narrowing, self.part, self.repeatable, self.claims = "", _NO_PART, True, False
        else:
            self.claims = like.claims
            self.narrowing, self.part, self.repeatable = like.narrowing, like.part, like.repeatable

    @property
    def fields(self) -> Fields:
        """As in `Request.fields`."""
        if self._fields is None:
            lines = self._lines()
            self._fields = Fields([line for name, line in lines if name != "connection"])
        return self._fields


class Origins(dict[str, bytes]):
    """How the primary keys of a host begin, by scheme. Raises RequestError where `host` is none."""

    def __init__(self, host: str) -> None:
        super().__init__()
        self.authorities = {"http": "", "https": ""}
        for scheme in self.authorities:
            authority = normal_authority(host, scheme)
            self.authorities[scheme] = authority
            self[scheme] = f"{scheme}://{authority}".encode("latin-1")


class FieldMemory:
    """Reads blocks; remembers blocks and lines."""

    def __init__(self, budget: int = MEMORY) -> None:
        self.blocks: TwiceSeen[FieldBlock] = TwiceSeen(budget, _BLOCK_OVERHEAD)
        self.recent: dict[int, FieldBlock] = {}
        """The one met last of those with so many bytes: to compare costs a tenth of a look-up, for
        which the bytes have to be copied and hashed."""
        self._lines: TwiceSeen[_Line] = TwiceSeen(budget, _LINE_OVERHEAD)
        self._origins: dict[str, Origins] = {}

    def block(self, raw: bytes) -> FieldBlock | None:
        """The block that `raw` is, from after the request line up to and with the empty line; None
        where it is for `parse_head` to judge."""
        block = self.blocks.get(raw)
        if block is None:
            # Not remembered itself: the next part is another.
            if (start := raw.find(RANGE)) >= 0 and (block := self._like_another_part(raw, start)):
                return block
            block = self.blocks.recall(raw)
        if block is None:
            block = self._like_another(raw) or self._read(raw)
            if block is not None:
                block.raw = raw
                self.blocks.offer(raw, block)
        return block

    def met(self, block: FieldBlock) -> None:
        """A remembered block was asked for by another than the recent one of its size."""
        if len(self.recent) >= MOST_RECENT:
            self.recent.clear()
        self.recent[len(block.raw)] = block

    def own(self, raw: bytes) -> tuple[FieldBlock, Said] | None:
        """The remembered block from which `raw` differs in a Cookie and a Referer alone, and what
        its client says of itself; None where there is none, or `raw` is worth remembering."""
        if self.blocks.was_seen(raw):
            return None
        get, rest = self.blocks.get, raw
        start = raw.find(_COOKIE)
        if start >= 0:
            stop = raw.find(b"\r\n", start + 2)
            if _plain_text(raw, start + len(_COOKIE), stop) is None:
                return None
            if raw.find(_COOKIE, stop) >= 0:
                return None
            rest = raw[:start] + raw[stop:]
            if (block := get(rest)) is not None:
                return block, block.said
        start = rest.find(_REFERER)
        if start < 0:
            return None
        stop = rest.find(b"\r\n", start + 2)
        referer = _plain_text(rest, start + len(_REFERER), stop)
        block = get(rest[:start] + rest[stop:])
        # A second line, maybe in another spelling, is for all the rules.
        if referer is None or block is None or block.said.referer:
            return None
        return block, Said(referer.strip(" "), block.said.user_agent)

    def _like_another(self, raw: bytes) -> FieldBlock | None:
        """A block that differs from another in a line of its client's own."""
        for begin in _OWN:
            start = raw.find(begin)
            if start < 0:
                continue
            end = raw.find(b"\r\n", start + 2)
            if end - start > LONGEST_OWN or not FIELD_LINE.fullmatch(raw, start + 2, end):
                return None
            if raw.find(begin, end) >= 0:
                return None  # of one line only: a head full of them is no reason to go on
            other = self.block(raw[:start] + raw[end:])
            if other is None:
                return None
            said = other.said
            if begin is _REFERER:
                if said.referer:
                    return None  # a second line, in another spelling
                value = raw[start + len(begin) : end].strip(b" \t").decode("latin-1")
                said = Said(value, said.user_agent)
            block = FieldBlock(lambda: self._lines_of(raw), said, other.origins, other)
            block.claims = block.claims or begin is _FORWARDED
            return block
        return None

    def _like_another_part(self, raw: bytes, start: int) -> FieldBlock | None:
        """A block that differs from another in which one range it wants."""
        start += len(RANGE)
        found = WANTED.match(raw, start)
        wanted = None if found is None else wanted_by(found)
        if found is None or wanted is None or found[0] == _A_PART:
            return None
        like = raw[:start] + _A_PART + raw[found.end() :]
        other = self.blocks.get(like) or self.block(like)
        if other is None or other.part is None:
            return None
        block = FieldBlock(partial(self._lines_of, raw), other.said, other.origins, other)
        block.part = wanted
        return block

    def _lines_of(self, raw: bytes) -> list[_Line]:
        """Raises NotPlain."""
        get, line = self._lines.get, self._line
        return [get(text) or line(text) for text in raw[:-4].split(b"\r\n")]

    def _read(self, raw: bytes) -> FieldBlock | None:
        if len(raw) > LONGEST_BLOCK:
            return None
        try:
            lines = self._lines_of(raw)
        except NotPlain:
            return None
        index = dict(lines)
        host = index.get("host")
        if host is None or len(lines) > MOST_LINES:
            return None
        if len(index) < len(lines) and sum([name == "host" for name, _ in lines]) > 1:
            return None
        origins = self._origins.get(host[1]) or self._named(host[1])
        if origins is None:
            return None
        block = FieldBlock(lambda: lines, _said(lines, index), origins)
        if not _TOLD_APART.isdisjoint(index):
            _tell_apart(block)
        block.claims = not _CLAIMS.isdisjoint(index)
        return block

    def _named(self, host: str) -> Origins | None:
        try:
            origins = Origins(host)
        except RequestError:
            return None
        if len(self._origins) >= MOST_HOSTS:
            self._origins.clear()
        self._origins[host] = origins
        return origins

    def _line(self, text: bytes) -> _Line:
        line = self._lines.recall(text)
        if line is not None:
            return line
        if len(text) > LONGEST_OWN or not FIELD_LINE.fullmatch(text):
            raise NotPlain
        name, _, value = text.decode("latin-1").partition(":")
        lower, value = name.lower(), value.strip(" \t")
        if lower in _NOT_PLAIN or (lower == "connection" and value.lower() != "keep-alive"):
            raise NotPlain
        line = (lower, (name, value))
        if len(text) <= LONGEST_LINE:
            self._lines.offer(text, line)
        return line


def wanted_by(found: re.Match[bytes]) -> Part | None:
    """The range that `WANTED` found, where it is valid."""
    begin, end = found.groups()
    first, last = int(begin), int(end) if end else None
    return None if last is not None and last < first else (first, last)


def _plain_text(raw: bytes, start: int, stop: int) -> str | None:
    """The value of a line, where it is printable ASCII: what `FIELD_LINE` allows, and less."""
    text = raw[start:stop].decode("latin-1")
    plain = text.isascii() and text.isprintable() and stop - start <= LONGEST_OWN
    return text if plain else None


def _said(lines: list[_Line], index: dict[str, FieldLine]) -> Said:
    if len(index) < len(lines):  # RFC 9110 §5.3: repeated field lines combine
        fields = Fields([line for _, line in lines])
        return Said(fields.get("referer") or "", fields.get("user-agent") or "")
    referer, agent = index.get("referer"), index.get("user-agent")
    return Said(referer[1] if referer else "", agent[1] if agent else "")


def _part(wanted: str) -> Part | None:
    """The one range that a Range field asks for, where it is valid."""
    part = _PART.fullmatch(wanted)
    if part is None or (part[2] and int(part[1]) > int(part[2])):
        return None
    return int(part[1]), int(part[2]) if part[2] else None


def _tell_apart(block: FieldBlock) -> None:
    """Sets what tells the block's answers from those of others."""
    fields = block.fields
    directives = parse_cache_control(fields.get("cache-control"))
    if directives != NOTHING_SAID:
        block.repeatable = False
        return
    wanted = fields.get("range")
    if wanted is not None:
        block.part = _part(wanted)
    told = [
        f"{name}\n" if name == "range" and block.part else f"{name}:{fields.get(name)}\n"
        for name in _NARROWING
        if name in fields
    ]
    block.narrowing = "".join(told)
    block.repeatable = len(block.narrowing) <= _LONGEST_NARROWING


def read_head(raw: bytes, end: int, block: FieldBlock | None, scheme: str) -> RequestHead:
    """`parse_head` of a head whose request line ends at `end` and whose fields are `block`, where
    that could be read. Raises RequestError."""
    line = (
        None if block is None or end > LONGEST_REQUEST_LINE else REQUEST_LINE.fullmatch(raw, 0, end)
    )
    if block is None or line is None:
        return parse_head(raw, scheme)
    method, target = line[1].decode("ascii"), line[2].decode("ascii")
    request = Request(method, scheme, block.origins.authorities[scheme], target, block.fields)
    return RequestHead(request, None, False, True, False)
