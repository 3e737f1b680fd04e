"""The common cases of storing and delivering (RFC 9111 §3, §4), in one look: a 200 to a plain GET,
fresh and for all.

Strategy: nothing new is decided here. Whatever `may_store`, `make_stored_response`, `decide` and
`deliver` might say anything else of than "stored, a hit for anyone" is left to them; of the rest
this gives the same value for a fraction of the steps (tests/semantics/test_plain.py holds the two
together).
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from cdn.semantics.cache_control import REMEMBERED, CacheControl, parse_cache_control
from cdn.semantics.delivery import OWN_FIELDS, TAKES_RANGES
from cdn.semantics.freshness import freshness_lifetime
from cdn.semantics.http_date import parse_http_date, year_of
from cdn.semantics.message import FieldLine, Fields, Response
from cdn.semantics.outline import OutlinedFields
from cdn.semantics.policy import CachePolicy
from cdn.semantics.stored_response import (
    StoredResponse,
    Validator,
    corrected_initial_age,
    explicit_lifetime,
)
from cdn.semantics.storing import NEVER_STORED_FIELDS
from cdn.semantics.vary import Variant, nominated_fields, variant_key

_UNUSUAL = frozenset(
    {
        "cache-groups",
        "cdn-cache-control",
        "content-range",
        "no-vary-search",
        "set-cookie",
        "surrogate-control",
    }
)
"""Fields of a response with which it takes all the rules."""


def stored_plainly(
    *,
    primary_key: bytes,
    request: Fields,
    head: Response,
    request_time: float,
    response_time: float,
    length: int,
    stamp: int,
    policy: CachePolicy,
) -> StoredResponse | None:
    """What is stored of a 200 to a GET whose fields are `request`: no Authorization, no directives,
    no conditions and no Range among them. None where all the rules must be asked."""
    fields = head.fields
    known = _known(fields)
    written = fields.get("date")
    if known.directives is None or known.nominated is None or written is None:
        return None
    year = year_of(response_time)
    date = parse_http_date(written, year)
    if date is None:
        return None
    variant: Variant = ()
    if known.nominated:
        variant = variant_key(known.nominated, request, policy.normalize_vary)
    modified = fields.get("last-modified")
    validator = Validator(
        fields.get("etag"), None if modified is None else parse_http_date(modified, year)
    )
    stored = StoredResponse(
        primary_key,
        variant,
        200,
        head.reason,
        fields.without(NEVER_STORED_FIELDS),
        known.directives,
        validator,
        explicit_lifetime(fields, known.directives, False, date, response_time),
        corrected_initial_age(fields, date, request_time, response_time),
        date,
        request_time,
        response_time,
        length,
        None,
        frozenset(),
        stamp,
        policy.slice_size,
    )
    # RFC 9111 §4.2: fresh is a lifetime greater than the age, which is the initial one as it comes.
    return stored if freshness_lifetime(stored, policy) > stored.initial_age else None


class Known(NamedTuple):
    """What of a head is the same in all answers with its outline. `directives` is None where it
    takes all the rules, `nominated` (by Vary) where Vary is "*"."""

    directives: CacheControl | None
    nominated: tuple[str, ...] | None


def _known(fields: Fields) -> Known:
    if not isinstance(fields, OutlinedFields):
        return _look(fields)
    known = fields.outline.known
    if known is None:
        known = fields.outline.known = _look(fields)
    return known


def _look(fields: Fields) -> Known:
    index = fields.by_name()
    usual = _usual(index.get("cache-control") or "") if _UNUSUAL.isdisjoint(index) else None
    return Known(usual, nominated_fields(fields) if "vary" in index else ())


_WRITTEN_ANEW = OWN_FIELDS | {"content-length"}

_FOR_SOME = frozenset({"cdn-cache-control", "surrogate-control"})
"""Fields of a stored response that not everybody gets."""


def delivered_plainly(stored: StoredResponse) -> tuple[Fields, tuple[FieldLine, ...]] | None:
    """The fields, and lines after them, with which a stored response, while it is fresh, answers a
    plain GET with its whole content, but for its length and those that end every hit
    (`OWN_FIELDS`). None where all the rules must be asked."""
    directives, fields = stored.directives, stored.fields
    if stored.status != 200 or stored.present is not None or stored.length is None:
        return None
    if directives.no_cache or directives.for_one_client or fields.any_of(_FOR_SOME):
        return None
    return fields.without(_WRITTEN_ANEW), () if "accept-ranges" in fields else (TAKES_RANGES,)


def _usual(value: str) -> CacheControl | None:
    """The directives, where they forbid nothing and ask for nothing at each use."""
    return _remembered(value) if len(value) <= REMEMBERED else None


@lru_cache(maxsize=1024)
def _remembered(value: str) -> CacheControl | None:
    told = parse_cache_control(value)
    barred = told.no_store or told.private or told.no_cache or told.must_understand
    return None if barred or told.no_cache_fields or told.private_fields else told
