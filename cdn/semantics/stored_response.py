"""What is kept about a response (RFC 9111 §3): everything that later decisions need, derived once.

Strategy: an immutable value made when the head arrives. What depends on policy (heuristics, stale
windows) is not baked in, so that a reload's new policy holds for what is already stored.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace

from cdn.semantics.cache_control import CacheControl, response_directives
from cdn.semantics.groups import string_list
from cdn.semantics.http_date import parse_http_date, year_of
from cdn.semantics.message import Fields, Response
from cdn.semantics.ranges import SLICE_SIZE, ByteRange
from cdn.semantics.slices import PresentSlices
from cdn.semantics.value import value
from cdn.semantics.vary import Variant

_DIGITS = re.compile(r"[0-9]+")
_STRONG_ETAG = re.compile(r'"[\x21\x23-\x7e\x80-\xff]*"')


@value(frozen=True, slots=True)
class Validator:
    """What can be asked for again (RFC 9110 §8.8). `last_modified` in seconds since 1970."""

    etag: str | None = None
    last_modified: float | None = None

    @property
    def strong_etag(self) -> str | None:
        """The entity tag where it is a strong one: the only thing slices are combined by."""
        return self.etag if self.etag is not None and _STRONG_ETAG.fullmatch(self.etag) else None

    def __bool__(self) -> bool:
        return self.etag is not None or self.last_modified is not None


@value(frozen=True, slots=True)
class StoredResponse:
    """One variant's head. Times in seconds since 1970, ages and lifetimes in seconds.

    `explicit_lifetime` is what the response itself says, None where only a heuristic can tell.
    `initial_age` is RFC 9111 §4.2.3's corrected_initial_age, infinite for an Age nobody can read.
    `length` is the complete representation's length in bytes, None until its end has told.
    `present`: which of its bytes are kept, None for all; one part as it came, or aligned slices of
    `slice_size` bytes. `groups` are its Cache-Groups, `stamp` the epoch at which it was asked for.
    """

    primary_key: bytes
    variant: Variant
    status: int
    reason: str
    fields: Fields
    directives: CacheControl
    validator: Validator
    explicit_lifetime: float | None
    initial_age: float
    date: float
    request_time: float
    response_time: float
    length: int | None
    present: ByteRange | PresentSlices | None = None
    groups: frozenset[str] = frozenset()
    stamp: int = 0
    slice_size: int = SLICE_SIZE

    def with_length(self, length: int) -> StoredResponse:
        return self if self.length == length else replace(self, length=length)

    def as_whole(self) -> StoredResponse:
        """The same, were all of it kept."""
        return self if self.present is None else replace(self, present=None)


def make_stored_response(
    *,
    primary_key: bytes,
    variant: Variant,
    response: Response,
    fields: Fields,
    request_time: float,
    response_time: float,
    length: int | None,
    present: ByteRange | PresentSlices | None = None,
    stamp: int = 0,
    slice_size: int = SLICE_SIZE,
) -> StoredResponse:
    """`response` as received, `fields` what of it may be kept (`storing.storable_fields`).

    `request_time` and `response_time`: when the request went up and the head came, RFC 9111 §4.2.3.
    """
    directives, targeted = response_directives(response.fields)
    date = _date(response.fields, "date", response_time)
    received_at = response_time if date is None else date
    return StoredResponse(
        primary_key=primary_key,
        variant=variant,
        status=response.status,
        reason=response.reason,
        fields=fields,
        directives=directives,
        validator=validator_of(response.fields, response_time),
        explicit_lifetime=explicit_lifetime(
            response.fields, directives, targeted, received_at, response_time
        ),
        initial_age=corrected_initial_age(response.fields, date, request_time, response_time),
        date=received_at,
        request_time=request_time,
        response_time=response_time,
        length=length,
        present=present,
        groups=string_list(response.fields.get("cache-groups")),
        stamp=stamp,
        slice_size=slice_size,
    )


def validator_of(fields: Fields, now: float) -> Validator:
    """The validators of a response's fields."""
    return Validator(fields.get("etag"), _date(fields, "last-modified", now))


def _date(fields: Fields, name: str, now: float) -> float | None:
    value = fields.get(name)
    return None if value is None else parse_http_date(value, year_of(now))


def explicit_lifetime(
    fields: Fields, directives: CacheControl, targeted: bool, date: float, now: float
) -> float | None:
    """Seconds of freshness that a response dated `date` gives itself, None where it says nothing
    (RFC 9111 §4.2.1, in its order, for a shared cache)."""
    if directives.s_maxage is not None:
        return directives.s_maxage
    if directives.max_age is not None:
        return directives.max_age
    # RFC 9213 §2.2: beside a targeted field, Expires is ignored as well.
    if targeted or "expires" not in fields:
        return None
    lines = fields.get_all("expires")
    expires = parse_http_date(lines[0], year_of(now))
    # RFC 9111 §5.3: an invalid date, "0" above all, is a time in the past.
    return 0.0 if expires is None else max(0.0, expires - date)


def corrected_initial_age(
    fields: Fields, date: float | None, request_time: float, response_time: float
) -> float:
    """RFC 9111 §4.2.3 of a response dated `date`, in seconds."""
    # Both differences are clamped, so that a clock stepping back makes no
    # negative age.
    apparent_age = 0.0 if date is None or date > response_time else response_time - date
    corrected = _age_value(fields)
    if response_time > request_time:
        corrected += response_time - request_time
    return apparent_age if apparent_age > corrected else corrected


def _age_value(fields: Fields) -> float:
    if "age" not in fields:
        return 0.0
    # A value nobody can read could be any age: the response is taken for stale. So are repeated
    # lines, also where somebody on the way has joined them with comma and space (RFC 9110 §5.3).
    value = fields.get("age") or ""
    if value.isascii() and value.isdigit():
        return float(value)
    if ", " in value:
        return math.inf
    # RFC 9111 §5.1: of a list, the first member counts.
    first = value.partition(",")[0].strip(" \t")
    return float(first) if _DIGITS.fullmatch(first) else math.inf
