"""Content negotiation by proxy: which stored variant answers a request (RFC 9111 §4.1).

Strategy: Vary nominates request fields; a variant is their values, normalised, in the order of
their names. Two requests select the same response where these are equal. What is normalised is
what is known to say nothing: white space around commas, and in the Accept fields case, the order of
equal weights, and how a weight is written. A service may forbid it; then values compare as they
are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Protocol, TypeVar

from cdn.semantics.message import Fields

Variant = tuple[tuple[str, str | None], ...]


class Selectable(Protocol):
    @property
    def variant(self) -> Variant: ...
    @property
    def response_time(self) -> float: ...
    @property
    def content_language(self) -> str | None: ...


_WEIGHED = frozenset({"accept-charset", "accept-encoding", "accept-language"})
_AROUND_COMMAS = re.compile(r"[ \t]*,[ \t]*")
_MEMBER = re.compile(r"([^;\s]+)\s*(?:;\s*q=([01](?:\.[0-9]{0,3})?)\s*)?", re.IGNORECASE)
_MOST_MEMBERS = 64

S = TypeVar("S", bound=Selectable)


def nominated_fields(response: Fields) -> tuple[str, ...] | None:
    """Lower-case names that Vary nominates, sorted; None for `*`, which nothing matches."""
    value = response.get("vary")
    if value is None:
        return ()
    names = {name.strip().lower() for name in value.split(",")} - {""}
    return None if "*" in names else tuple(sorted(names))


def variant_key(nominated: Iterable[str], request: Fields, normalize: bool = True) -> Variant:
    """The request's value of each nominated field, None where it is absent."""
    return tuple((name, _value(name, request.get(name), normalize)) for name in nominated)


def _value(name: str, value: str | None, normalize: bool) -> str | None:
    if value is None:
        return None
    if not normalize:
        return value.strip(" \t")
    if name in _WEIGHED and (members := _weighed(value)) is not None:
        return ",".join(f"{what};q={weight}" if weight != 1 else what for weight, what in members)
    if '"' in value:  # a comma may stand inside a quoted string
        return value.strip(" \t")
    return _AROUND_COMMAS.sub(",", value.strip(" \t"))


def _weighed(value: str) -> list[tuple[float, str]] | None:
    """Weights and names of a negotiation field, the heaviest first (RFC 9110 §12.4.2); None where
    it is none."""
    members = value.split(",")
    if len(members) > _MOST_MEMBERS:
        return None
    found = []
    for member in members:
        text = member.strip(" \t")
        if not text:
            continue
        match = _MEMBER.fullmatch(text)
        if match is None:
            return None
        found.append((float(match[2] or 1), match[1].lower()))
    return sorted(found, key=lambda one: (-one[0], one[1]))


def variant_matches(
    variant: Variant, request: Fields, normalize: bool = True, language: str | None = None
) -> bool:
    """Whether a response stored under `variant` may be selected for this request.

    `language` is its Content-Language: it also answers whoever wants that language above all
    others, whatever else they would take.
    """
    return all(
        _value(name, request.get(name), normalize) == value
        or (normalize and name == "accept-language" and _wants(request.get(name), language))
        for name, value in variant
    )


def _wants(accept_language: str | None, language: str | None) -> bool:
    if accept_language is None or language is None:
        return False
    members = _weighed(accept_language)
    if not members or members[0][1] != language.strip(" \t").lower():
        return False
    return len(members) == 1 or members[1][0] < members[0][0]


def select(candidates: Iterable[S], request: Fields, normalize: bool = True) -> S | None:
    """The stored response to use: of those that match, the most recent (RFC 9111 §4)."""
    best: S | None = None
    for candidate in candidates:
        if (best is None or candidate.response_time > best.response_time) and variant_matches(
            candidate.variant, request, normalize, candidate.content_language
        ):
            best = candidate
    return best
