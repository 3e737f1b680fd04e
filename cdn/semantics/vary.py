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

    Lines combine and outer white space is dropped; nothing else is known to be safe for a field
    we do not know (RFC 9111 §4.1).
    """
    return tuple((name, _normalized(request.get(name))) for name in nominated)


def _normalized(value: str | None) -> str | None:
    return None if value is None else value.strip(" \t")


def variant_matches(variant: Variant, request: Fields) -> bool:
    """Whether a response stored under `variant` may be selected for this request."""
    return all(_normalized(request.get(name)) == value for name, value in variant)


def select(candidates: Iterable[S], request: Fields) -> S | None:
    """The stored response to use: of those that match, the most recent (RFC 9111 §4)."""
    best: S | None = None
    for candidate in candidates:
        if variant_matches(candidate.variant, request) and (
            best is None or candidate.response_time > best.response_time
        ):
            best = candidate
    return best
