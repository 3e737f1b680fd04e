"""Validation: conditions that we send, conditions that we answer (RFC 9111 §4.3, RFC 9110 §13).

Strategy: upward, the client's own conditions are replaced by those of the stored response, so that
one answer serves whoever waits; downward, preconditions are evaluated against what was selected.
"""

from __future__ import annotations

import re
from dataclasses import replace
from enum import Enum, auto

from cdn.semantics.http_date import format_http_date, parse_http_date, year_of
from cdn.semantics.message import Fields, Request, Response
from cdn.semantics.stored_response import (
    StoredResponse,
    Validator,
    make_stored_response,
    validator_of,
)
from cdn.semantics.storing import shares_cookies, storable_fields
from cdn.semantics.vary import nominated_fields

CONDITIONS = frozenset(
    {"if-match", "if-none-match", "if-modified-since", "if-unmodified-since", "if-range"}
)

_ENTITY_TAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')

# RFC 9111 §3.2: a 304 carries no content, so what describes content stays as it was stored; and a
# validator says which response is meant, it is no news about it.
_NOT_UPDATED = frozenset(
    {"content-encoding", "content-length", "content-md5", "content-range", "etag"}
)


class Precondition(Enum):
    """How a request's conditions end (RFC 9110 §13.2.2)."""

    PASSED = auto()
    NOT_MODIFIED = auto()
    FAILED = auto()


def conditional_request(fields: Fields, stored: StoredResponse) -> Fields:
    """Request fields that ask whether `stored` is still good (RFC 9111 §4.3.1)."""
    lines = []
    if stored.validator.etag is not None:
        lines.append(("If-None-Match", stored.validator.etag))
    modified = stored.fields.get("last-modified")
    if modified is not None and stored.validator.last_modified is not None:
        lines.append(("If-Modified-Since", modified))
    return fields.without(CONDITIONS).adding(*lines)


def identifies(stored: StoredResponse, not_modified: Response) -> bool:
    """Whether a 304 is about this stored response (RFC 9111 §4.3.4).

    A strong validator in it must be the stored one's, a weak one must match it weakly; without
    any, it answers our question.
    """
    fields = not_modified.fields
    new, old = validator_of(fields, stored.date), stored.validator
    if new.strong_etag is not None:
        return new.etag == old.etag
    if new.etag is not None:
        return old.etag is not None and _opaque(new.etag) == _opaque(old.etag)
    return new.last_modified in (None, old.last_modified)


def freshen(
    stored: StoredResponse, response: Response, request_time: float, response_time: float
) -> StoredResponse:
    """The stored response with a 304's (or a HEAD's) fields taken over (RFC 9111 §3.2)."""
    news = response.fields.without(_NOT_UPDATED)
    merged = storable_fields(stored.fields.without(news.names()).adding(*news.lines))
    if "date" not in response.fields:
        # RFC 9110 §6.6.1: a recipient with a clock dates what came without.
        merged = merged.replacing("Date", format_http_date(response_time))
    updated = merged
    if "age" in response.fields:  # counts for the new age, is not stored
        updated = merged.adding(("Age", response.fields.get("age") or ""))
    made = make_stored_response(
        primary_key=stored.primary_key,
        variant=stored.variant,
        response=Response(stored.status, updated, stored.reason),
        fields=merged,
        request_time=request_time,
        response_time=response_time,
        length=stored.length,
        present=stored.present,
        stamp=stored.stamp,
        slice_size=stored.slice_size,
    )
    if "set-cookie" in news and not shares_cookies(made.directives, made.explicit_lifetime):
        made = replace(made, fields=merged.without({"set-cookie"}))
    if nominated_fields(merged) != tuple(name for name, _ in stored.variant):
        # RFC 9111 §4.1: nobody knows for which requests the new Vary selects this response, so
        # each asks whether it may have it.
        made = replace(made, directives=replace(made.directives, no_cache=True))
    # The 304 is about the stored entity tag; Last-Modified may be news.
    validator = replace(stored.validator, last_modified=made.validator.last_modified)
    return replace(made, validator=validator)


def head_matches(stored: StoredResponse, head: Response, length: int | None) -> bool:
    """Whether a 200 to HEAD is about the stored GET response (RFC 9111 §4.3.5): else the stored
    one is out of date."""
    if head.status != stored.status:
        return False
    if length is not None and stored.length is not None and length != stored.length:
        return False
    etag, modified = head.fields.get("etag"), head.fields.get("last-modified")
    return (etag is None or etag == stored.validator.etag) and (
        modified is None or modified == stored.fields.get("last-modified")
    )


def evaluate_preconditions(
    request: Request, status: int, fields: Fields, now: float
) -> Precondition:
    """Conditions of a GET or HEAD against the selected response, in RFC 9110 §13.2.2's order.

    If-Match and If-Unmodified-Since are evaluated as the origin would, If-Range is a matter of the
    range (`range_applies`).
    """
    if not request.fields.any_of(CONDITIONS):
        return Precondition.PASSED
    if not 200 <= status < 300:
        return Precondition.PASSED  # RFC 9110 §13.2.1: only where the answer would be a success
    headers = request.fields
    etag = fields.get("etag")
    if (value := headers.get("if-match")) is not None:
        if not _any_matches(value, etag, weak=False):
            return Precondition.FAILED
    elif (value := headers.get("if-unmodified-since")) is not None:
        since, modified = _date(value, now), _date(fields.get("last-modified"), now)
        if since is not None and modified is not None and modified > since:
            return Precondition.FAILED
    if (value := headers.get("if-none-match")) is not None:
        # RFC 9110 §13.1.3: If-Modified-Since is ignored beside If-None-Match.
        matched = _any_matches(value, etag, weak=True)
        return Precondition.NOT_MODIFIED if matched else Precondition.PASSED
    if (value := headers.get("if-modified-since")) is not None:
        since = _date(value, now)
        # RFC 9111 §4.3.2: without Last-Modified, Date stands in for it.
        modified = _date(fields.get("last-modified") or fields.get("date"), now)
        if since is not None and modified is not None and modified <= since:
            return Precondition.NOT_MODIFIED
    return Precondition.PASSED


def _any_matches(value: str, etag: str | None, weak: bool) -> bool:
    if value.strip(" \t") == "*":
        return True
    if etag is None:
        return False
    if weak:
        # RFC 9110 §8.8.3.2: If-None-Match compares weakly, W/ does not count. An origin's tag
        # without quotes is no entity-tag, but clients hand back what they were given.
        own = _opaque(etag)
        given = _ENTITY_TAG.findall(value) or [value.strip(" \t")]
        return any(_opaque(tag) == own for tag in given)
    return not etag.startswith("W/") and etag in _ENTITY_TAG.findall(value)


def _opaque(etag: str) -> str:
    return etag.removeprefix("W/")


def range_applies(request: Request, fields: Fields, now: float) -> bool:
    """Whether Range holds for the selected response (RFC 9110 §13.1.5): If-Range must match its
    strong validator exactly."""
    condition = request.fields.get("if-range")
    if condition is None:
        return True
    if '"' in condition:
        etag = fields.get("etag")
        return condition == etag and Validator(etag).strong_etag is not None
    # A date is strong only where Date is at least a second later (RFC 9110 §8.8.2.2).
    modified, date = _date(fields.get("last-modified"), now), _date(fields.get("date"), now)
    return (
        modified is not None
        and date is not None
        and date - modified >= 1
        and _date(condition, now) == modified
    )


def _date(value: str | None, now: float) -> float | None:
    return None if value is None else parse_http_date(value, year_of(now))
