"""May a response be stored, and which of its fields (RFC 9111 §3).

Strategy: one list of "no"s in the RFC's order; each has a name, and each name knows whether it lies
in the response (then later requests need not queue for it: hit-for-miss) or in this one request.
"""

from __future__ import annotations

import math
from enum import Enum

from cdn.semantics.cache_control import CacheControl, request_directives, response_directives
from cdn.semantics.cache_key import is_url_of, resolve
from cdn.semantics.freshness import HEURISTIC_STATUSES
from cdn.semantics.http_date import parse_http_date
from cdn.semantics.message import Fields, Request, Response
from cdn.semantics.policy import CachePolicy
from cdn.semantics.ranges import ByteRange, parse_content_range
from cdn.semantics.stored_response import explicit_lifetime
from cdn.semantics.vary import nominated_fields

UNDERSTOOD_STATUSES = HEURISTIC_STATUSES | {302, 303, 307, 400, 401, 403, 416, 500, 502, 503, 504}
"""Status codes whose caching this cache implements, for must-understand (RFC 9111 §5.2.2.3)."""

NEVER_STORED_FIELDS = frozenset(
    # RFC 9111 §3.1: fields about this connection, this proxy hop, and the framing of one message.
    {
        "connection",
        "content-length",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authentication-info",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "age",  # counted on by `current_age`, generated anew at each use
    }
)


class NotStoredReason(Enum):
    """Why a response is not stored. `in_response`: it would be so for anybody's request."""

    METHOD = ("method", False)
    REQUEST_NO_STORE = ("request-no-store", False)
    AUTHORIZATION = ("authorization", False)
    PARTIAL = ("partial", False)
    STATUS = ("status", True)
    MUST_UNDERSTAND = ("must-understand", True)
    NO_STORE = ("no-store", True)
    PRIVATE = ("private", True)
    VARY_STAR = ("vary-star", True)
    SET_COOKIE = ("set-cookie", True)
    NO_FRESHNESS = ("no-freshness", True)
    SERVER_ERROR = ("server-error", False)
    TOO_LARGE = ("too-large", False)

    def __init__(self, word: str, in_response: bool) -> None:
        self.word = word
        self.in_response = in_response


def may_update(request: Request, response: Response, policy: CachePolicy) -> bool:
    """Whether a 304, or an answer to HEAD, may change what is stored: nothing of an answer to
    no-store is kept (RFC 9111 §5.2.1.5), and of one to Authorization as §3.5 has it."""
    obeyed = policy.request_directives and request_directives(request.fields).no_store
    directives, _ = response_directives(response.fields)
    return not obeyed and _authorization_forbids(request, directives) is None


def speaks_for_all(status: int) -> bool:
    """Whether an answer that may not be stored says something of the resource, not of one request:
    a 4xx but 404 and 410 blames its own client (too long, not allowed, too often), a 5xx nobody."""
    return status < 400 or status in (404, 410)


def may_store(request: Request, response: Response, policy: CachePolicy) -> NotStoredReason | None:
    """None where the response may be stored for later requests, else the first reason why not."""
    directives, targeted = response_directives(response.fields)
    return (
        _request_forbids(request, response, policy)
        or _status_forbids(response, directives)
        or _response_forbids(response, directives)
        or _authorization_forbids(request, directives)
        or _nothing_to_reuse_by(request, response, directives, targeted)
    )


def _request_forbids(
    request: Request, response: Response, policy: CachePolicy
) -> NotStoredReason | None:
    # RFC 9111 §3: the method is understood; of GET and HEAD only GET brings what can be reused.
    # RFC 9110 §9.3.3: an answer to POST may be, for GET, where it says that it is what is there.
    if request.method != "GET" and not (request.method == "POST" and _is_there(request, response)):
        return NotStoredReason.METHOD
    if policy.request_directives and request_directives(request.fields).no_store:
        return NotStoredReason.REQUEST_NO_STORE
    return None


def _is_there(request: Request, response: Response) -> bool:
    location = response.fields.get("content-location")
    if location is None or response.status != 200:
        return False
    url = resolve(request, location)
    return url is not None and is_url_of(url, request)


def _status_forbids(response: Response, directives: CacheControl) -> NotStoredReason | None:
    status = response.status
    # RFC 9111 §3.3: a part is stored where it says which part of how much it is.
    if status == 206 and whole_of_part(response.fields, None) is None:
        return NotStoredReason.PARTIAL
    if status < 200 or status == 304:
        return NotStoredReason.STATUS
    # RFC 9111 §5.2.2.3: must-understand overrides no-store where the status is understood.
    if directives.must_understand and status not in UNDERSTOOD_STATUSES:
        return NotStoredReason.MUST_UNDERSTAND
    return None


def _response_forbids(response: Response, directives: CacheControl) -> NotStoredReason | None:
    if directives.no_store and not directives.must_understand:
        return NotStoredReason.NO_STORE
    if directives.private:
        return NotStoredReason.PRIVATE
    # RFC 9111 §4.1: what varies on everything never matches again.
    if nominated_fields(response.fields) is None:
        return NotStoredReason.VARY_STAR
    return None


def _authorization_forbids(request: Request, directives: CacheControl) -> NotStoredReason | None:
    # RFC 9111 §3.5: only with a directive that says so for shared caches.
    if "authorization" in request.fields and not (
        directives.public or directives.must_revalidate or directives.s_maxage is not None
    ):
        return NotStoredReason.AUTHORIZATION
    return None


def _nothing_to_reuse_by(
    request: Request, response: Response, directives: CacheControl, targeted: bool
) -> NotStoredReason | None:
    # Expires counts from Date (RFC 9111 §4.2.1); without one it is a time in the past here.
    date = parse_http_date(response.fields.get("date") or "")
    dated = math.inf if date is None else date
    lifetime = explicit_lifetime(response.fields, directives, targeted, dated, date or 0.0)
    if "set-cookie" in response.fields and not shares_cookies(directives, lifetime):
        return NotStoredReason.SET_COOKIE
    if lifetime is not None:
        return None
    if request.method == "POST":  # RFC 9110 §9.3.3: with explicit freshness only
        return NotStoredReason.METHOD
    # RFC 9111 §3: without explicit freshness, a status that is heuristically cacheable, or public.
    if response.status not in HEURISTIC_STATUSES and not directives.public:
        return (
            NotStoredReason.SERVER_ERROR if response.status >= 500 else NotStoredReason.NO_FRESHNESS
        )
    # It may be stored, but could neither be fresh nor be validated: of no use to anybody.
    if not ("etag" in response.fields or "last-modified" in response.fields):
        return NotStoredReason.NO_FRESHNESS
    return None


def shares_cookies(directives: CacheControl, lifetime: float | None) -> bool:
    """Whether Set-Cookie may be kept: a cookie was set for one viewer, unless the origin says for
    how long, in seconds, all may share it. "Not at all" is no time."""
    return bool(lifetime) and not directives.no_cache


def whole_of_part(fields: Fields, length: int | None) -> tuple[ByteRange, int] | None:
    """The part that a 206 with `length` bytes of content (None: not known yet) carries, and how
    long the whole is; None where that cannot be relied on (RFC 9110 §14.4, §15.3.7)."""
    part, size = parse_content_range(fields.get("content-range")) or (None, None)
    if part is None or size is None:
        return None
    if length is None or length == part.length:
        return part, size
    # Some senders count the last byte wrong. A part that is said to reach the end ends where its
    # content ends; any other could be anything.
    if part.stop != size or not length or length > part.length:
        return None
    stop = part.start + length
    return ByteRange(part.start, stop), stop


def storable_fields(fields: Fields) -> Fields:
    """The fields that are kept (RFC 9111 §3.1): without those that the response's own directives
    keep out of shared caches, or want validated at each use (no-cache="…", private="…")."""
    directives, _ = response_directives(fields)
    named = directives.no_cache_fields | directives.private_fields
    return fields.without(NEVER_STORED_FIELDS | named if named else NEVER_STORED_FIELDS)
