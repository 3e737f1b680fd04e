"""Cache directives: Cache-Control (RFC 9111 §5.2) and CDN-Cache-Control (RFC 9213).

Strategy: both fields parse into one frozen `CacheControl`; rules read attributes and never text.
A number that is no number is 0, so that broken freshness means stale (RFC 9111 §4.2.1), and where
a directive is repeated the first one counts; only no-cache and private hold as far as any of theirs
says. Results for values of usual length are remembered, since sites repeat themselves.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import http_sf

from cdn.semantics.message import Fields
from cdn.semantics.surrogate import for_all

MAX_DELTA = 2**63 - 1
"""Longer times count as this many seconds (RFC 9111 §1.2.2 asks for 2^31 at least)."""

REMEMBERED = 256
"""Longer values, in characters, are parsed afresh: whoever sends many fills no memory."""

_NAME = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_TOKEN = re.compile(_NAME)
_BETWEEN = re.compile(r"[ \t,]*")
_DIRECTIVE = re.compile(
    rf"(?P<name>{_NAME})"
    r"(?P<junk>[^,=\"]*)"
    r"(?:=(?:\"(?P<quoted>(?:[^\"\\]|\\.)*)\"|(?P<bare>[^,]*)))?"
    r"[^,]*"
)
_SECONDS = re.compile(r"[0-9]+")
_TO_COMMA = re.compile(r"[^,]*")

Argument = str | int | bool | None


@dataclass(frozen=True, slots=True)
class CacheControl:
    """Directives that were present. Times in seconds; None where a directive is absent."""

    max_age: int | None = None
    s_maxage: int | None = None
    no_store: bool = False
    no_cache: bool = False
    no_cache_fields: frozenset[str] = frozenset()
    private: bool = False
    private_fields: frozenset[str] = frozenset()
    public: bool = False
    must_revalidate: bool = False
    proxy_revalidate: bool = False
    must_understand: bool = False
    no_transform: bool = False
    stale_while_revalidate: int | None = None
    stale_if_error: int | None = None
    max_stale: int | None = None
    min_fresh: int | None = None
    only_if_cached: bool = False

    @property
    def for_one_client(self) -> bool:
        """Whether a shared cache may not keep the response for others (RFC 9111 §5.2.2.5,
        §5.2.2.7; §5.2.2.3: must-understand overrides no-store)."""
        return self.private or (self.no_store and not self.must_understand)


NOTHING_SAID = CacheControl()


def _seconds(argument: Argument) -> int:
    if isinstance(argument, str) and _SECONDS.fullmatch(argument):
        # RFC 9111 §1.2.2: what is too large to hold counts as the largest that can be held.
        digits = argument.lstrip("0")
        return int(digits or "0") if len(digits) < 19 else MAX_DELTA
    if isinstance(argument, int) and not isinstance(argument, bool):
        return max(0, argument)
    # RFC 9111 §4.2.1: invalid freshness information means stale.
    return 0


def _field_names(arguments: Sequence[Argument]) -> frozenset[str]:
    """What a directive is limited to; nothing where one occurrence of it has no list of names."""
    named: set[str] = set()
    for argument in arguments:
        text = argument if isinstance(argument, str) else ""
        names = {name.strip(" \t").lower() for name in text.split(",")} - {""}
        if not names or not all(map(_TOKEN.fullmatch, names)):
            return frozenset()
        named |= names
    return frozenset(named)


def _collect(arguments: dict[str, list[Argument]]) -> CacheControl:
    def flag(name: str) -> bool:
        return name in arguments and arguments[name][0] is not False

    def delta(name: str) -> int | None:
        return _seconds(arguments[name][0]) if name in arguments else None

    no_cache_fields = _field_names(arguments.get("no-cache", ()))
    private_fields = _field_names(arguments.get("private", ()))
    max_stale = delta("max-stale")
    if max_stale is not None and arguments["max-stale"][0] in (None, True):
        max_stale = MAX_DELTA  # RFC 9111 §5.2.1.2: without an argument, of any age
    return CacheControl(
        max_age=delta("max-age"),
        s_maxage=delta("s-maxage"),
        no_store=flag("no-store"),
        # The qualified forms forbid only the named fields (RFC 9111 §5.2.2.4, §5.2.2.7).
        no_cache=flag("no-cache") and not no_cache_fields,
        no_cache_fields=no_cache_fields,
        private=flag("private") and not private_fields,
        private_fields=private_fields,
        public=flag("public"),
        must_revalidate=flag("must-revalidate"),
        proxy_revalidate=flag("proxy-revalidate"),
        must_understand=flag("must-understand"),
        no_transform=flag("no-transform"),
        stale_while_revalidate=delta("stale-while-revalidate"),
        stale_if_error=delta("stale-if-error"),
        max_stale=max_stale,
        min_fresh=delta("min-fresh"),
        only_if_cached=flag("only-if-cached"),
    )


def parse_cache_control(value: str | None) -> CacheControl:
    """Reads a combined Cache-Control value (RFC 9111 §5.2); never raises.

    Unknown directives are ignored. A known one with stray white space around its "=" has lost its
    argument.
    """
    if not value:
        return NOTHING_SAID
    return _remembered(value) if len(value) <= REMEMBERED else _parse(value)


def _parse(value: str) -> CacheControl:
    arguments: dict[str, list[Argument]] = {}
    position = 0
    while (position := _end(_BETWEEN, value, position)) < len(value):
        match = _DIRECTIVE.match(value, position)
        if match is None:  # a list member that begins with no token says nothing
            position = _end(_TO_COMMA, value, position)
            continue
        position = match.end()
        arguments.setdefault(match["name"].lower(), []).append(_argument(match))
    return _collect(arguments)


_remembered = lru_cache(maxsize=4096)(_parse)


def _end(pattern: re.Pattern[str], value: str, position: int) -> int:
    match = pattern.match(value, position)
    return match.end() if match else position


def _argument(match: re.Match[str]) -> Argument:
    quoted, bare, junk = match["quoted"], match["bare"], match["junk"]
    if junk.strip(" \t") or (junk and (quoted, bare) != (None, None)):
        return ""
    if quoted is not None:
        return re.sub(r"\\(.)", r"\1", quoted)
    # "max-age= 1" is no argument; trailing white space belongs to the list.
    return None if bare is None else bare.rstrip(" \t")


def parse_targeted(value: str) -> CacheControl | None:
    """Reads CDN-Cache-Control, a structured Dictionary (RFC 9213 §2.1); None where its syntax is
    invalid or it is empty, which means: as if the field were not there (§2.2)."""
    return _targeted_remembered(value) if len(value) <= REMEMBERED else _parse_targeted(value)


def _parse_targeted(value: str) -> CacheControl | None:
    try:
        members = http_sf.parse(value.encode("latin-1"), tltype="dictionary")
    except ValueError:
        return None
    if not isinstance(members, dict) or not members:
        return None
    arguments: dict[str, list[Argument]] = {}
    for name, member in members.items():
        # Parameters carry no meaning here (RFC 9213 §2.1): the bare item is the argument.
        item = member[0] if isinstance(member, tuple) else member
        # A value of a kind that no directive has is a broken argument, not an absent directive.
        arguments[name] = [item if isinstance(item, str | int) else ""]
    return _collect(arguments)


_targeted_remembered = lru_cache(maxsize=1024)(_parse_targeted)


def response_directives(fields: Fields) -> tuple[CacheControl, bool]:
    """What governs a response in this cache, and whether it came from a targeted field.

    RFC 9213 §2.2: a valid, non-empty targeted field is used alone; Cache-Control and Expires are
    then ignored. Surrogate-Control is such a field, too.
    """
    surrogate = fields.get("surrogate-control")
    if surrogate is not None and (for_us := for_all(surrogate)) is not None:
        return parse_cache_control(for_us), True
    targeted = fields.get("cdn-cache-control")
    if targeted is not None and (directives := parse_targeted(targeted)) is not None:
        return directives, True
    return parse_cache_control(fields.get("cache-control")), False


def request_directives(fields: Fields) -> CacheControl:
    """The client's own directives (RFC 9111 §5.2.1). Pragma is deprecated and not read (§5.4)."""
    return parse_cache_control(fields.get("cache-control"))
