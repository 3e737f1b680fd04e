"""Content negotiation by proxy: which stored variant answers a request (RFC 9111 §4.1).

Strategy: Vary nominates request fields; a variant is their values, normalised, in the order of
their names. Two requests select the same response where these are equal.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar

from cdn.semantics.message import Fields

Variant = tuple[tuple[str, str | None], ...]


class Selectable(Protocol):
    @property
    def variant(self) -> Variant: ...
    @property
    def response_time(self) -> float: ...


# RFC 9110 §12.5.2 to §12.5.4: names in these fields are case-insensitive, white space says nothing.
_CASELESS = frozenset({"accept-charset", "accept-encoding", "accept-language"})
_BLANKS = {ord(" "): None, ord("\t"): None}

S = TypeVar("S", bound=Selectable)


def nominated_fields(response: Fields) -> tuple[str, ...] | None:
    """Lower-case names that Vary nominates, sorted; None for `*`, which nothing matches."""
    value = response.get("vary")
    if value is None:
        return ()
    names = {name.strip().lower() for name in value.split(",")} - {""}
    return None if "*" in names else tuple(sorted(names))


def variant_key(nominated: Iterable[str], request: Fields) -> Variant:
    """The request's value of each nominated field, None where it is absent.

    Lines combine, and what is known to say nothing is dropped: outer white space everywhere, case
    and inner white space in negotiation by charset, coding and language (RFC 9111 §4.1).
    """
    return tuple((name, _normalized(name, request.get(name))) for name in nominated)


def _normalized(name: str, value: str | None) -> str | None:
    if value is None:
        return None
    if name in _CASELESS:
        return value.translate(_BLANKS).lower()
    return value.strip(" \t")


def variant_matches(variant: Variant, request: Fields) -> bool:
    """Whether a response stored under `variant` may be selected for this request."""
    return all(_normalized(name, request.get(name)) == value for name, value in variant)


def select(candidates: Iterable[S], request: Fields) -> S | None:
    """The stored response to use: of those that match, the most recent (RFC 9111 §4)."""
    best: S | None = None
    for candidate in candidates:
        if variant_matches(candidate.variant, request) and (
            best is None or candidate.response_time > best.response_time
        ):
            best = candidate
    return best
