"""RFC 9111 §3."""

import pytest

from cdn.semantics.cache_control import CacheControl
from cdn.semantics.message import Fields
from cdn.semantics.policy import CachePolicy
from cdn.semantics.storing import NotStoredReason, may_store, shares_cookies, storable_fields
from tests.semantics.messages import asking, at, response

POLICY = CachePolicy()
FRESH = ("Cache-Control", "max-age=60")
MODIFIED = ("Last-Modified", at(-60))


def _reason(*lines, status=200, asked=(), method="GET", policy=POLICY):
    return may_store(asking(*asked, method=method), response(*lines, status=status), policy)


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ([FRESH], 200),
        ([("Expires", at(60))], 200),
        ([("Cache-Control", "s-maxage=1")], 200),
        ([MODIFIED], 200),
        ([("ETag", '"a"')], 404),
        ([("Cache-Control", "public"), MODIFIED], 302),
        ([FRESH], 302),
        ([FRESH], 503),
        ([FRESH], 599),  # §4.2.2 is for heuristics; a final status with max-age may be stored
        ([("Cache-Control", "no-store, must-understand, max-age=1")], 200),
        ([("Cache-Control", 'private="x-a", max-age=1')], 200),
        ([("Cache-Control", "no-cache"), ("ETag", '"a"')], 200),
        ([("CDN-Cache-Control", "max-age=1"), ("Cache-Control", "no-store")], 200),
        ([FRESH, ("Set-Cookie", "a=b")], 200),
        ([("Expires", at(60)), ("Set-Cookie", "a=b")], 200),
    ],
)
def test_what_may_be_stored(lines, status):
    assert _reason(*lines, status=status) is None


@pytest.mark.parametrize(
    ("lines", "status", "reason"),
    [
        ([FRESH], 206, "PARTIAL"),
        ([FRESH], 304, "STATUS"),
        ([FRESH], 101, "STATUS"),
        ([("Cache-Control", "must-understand, max-age=1")], 299, "MUST_UNDERSTAND"),
        ([("Cache-Control", "no-store, must-understand, max-age=1")], 299, "MUST_UNDERSTAND"),
        ([("Cache-Control", "no-store, max-age=1")], 200, "NO_STORE"),
        ([("Cache-Control", "private, max-age=1")], 200, "PRIVATE"),
        ([FRESH, ("Vary", "a, *")], 200, "VARY_STAR"),
        ([MODIFIED, ("Set-Cookie", "a=b")], 200, "SET_COOKIE"),
        ([("Cache-Control", "max-age=0"), ("Set-Cookie", "a=b")], 200, "SET_COOKIE"),
        ([("Cache-Control", "no-cache, max-age=9"), ("Set-Cookie", "a=b")], 200, "SET_COOKIE"),
        ([("Expires", "0"), ("Set-Cookie", "a=b")], 200, "SET_COOKIE"),
        ([("Expires", at(9)), ("Date", "?"), ("Set-Cookie", "a=b")], 200, "SET_COOKIE"),
        ([MODIFIED], 302, "NO_FRESHNESS"),
        ([], 200, "NO_FRESHNESS"),
        ([("Cache-Control", "public")], 200, "NO_FRESHNESS"),
        ([MODIFIED], 500, "SERVER_ERROR"),
        ([("CDN-Cache-Control", "no-store"), FRESH], 200, "NO_STORE"),
        ([("CDN-Cache-Control", "public"), ("Expires", at(60))], 200, "NO_FRESHNESS"),
    ],
)
def test_what_may_not_be_stored_and_why(lines, status, reason):
    """RFC 9111 §3, §5.2.2.3, §5.2.2.5, §5.2.2.7, §4.1; RFC 9213 §2.2."""
    assert _reason(*lines, status=status) is NotStoredReason[reason]


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "DELETE", "OPTIONS", "get", "FOO"])
def test_only_get_brings_what_can_be_reused(method):
    assert _reason(FRESH, method=method) is NotStoredReason.METHOD


def test_a_requests_no_store_is_obeyed_where_the_policy_has_it_so():
    """RFC 9111 §5.2.1.5."""
    asked = [("Cache-Control", "no-store")]
    assert _reason(FRESH, asked=asked) is NotStoredReason.REQUEST_NO_STORE
    assert _reason(FRESH, asked=asked, policy=CachePolicy(request_directives=False)) is None


@pytest.mark.parametrize(
    ("value", "stored"),
    [("max-age=60", False), ("max-age=60, public", True), ("max-age=60, must-revalidate", True),
     ("s-maxage=60", True), ("max-age=60, proxy-revalidate", False)],
)  # fmt: skip
def test_answers_to_authorization(value, stored):
    """RFC 9111 §3.5."""
    reason = _reason(("Cache-Control", value), asked=[("Authorization", "Basic x")])
    assert reason is (None if stored else NotStoredReason.AUTHORIZATION)


def test_reasons_of_one_request_do_not_speak_for_others():
    """Hit-for-miss is left for what lies in the response, never for a server's error."""
    words = {reason.word for reason in NotStoredReason if not reason.in_response}
    assert words == {
        "method", "request-no-store", "authorization", "partial", "server-error", "too-large"
    }  # fmt: skip


@pytest.mark.parametrize("name", ["Connection", "Keep-Alive", "Proxy-Authenticate",
    "Content-Length",
    "Proxy-Authentication-Info", "Proxy-Authorization", "Proxy-Connection", "TE", "Trailer",
    "Transfer-Encoding", "Upgrade", "Age"])  # fmt: skip
def test_fields_of_one_connection_or_hop_are_not_kept(name):
    """RFC 9111 §3.1."""
    assert storable_fields(Fields([(name, "x"), ("A", "b")])) == Fields([("A", "b")])


def test_fields_that_the_response_keeps_back_are_not_kept():
    """RFC 9111 §5.2.2.4, §5.2.2.7: the qualified forms."""
    control = ("Cache-Control", 'max-age=1, private="Set-Cookie", no-cache="X-A, x-b"')
    fields = Fields([control, ("Set-Cookie", "a"), ("x-a", "1"), ("X-B", "2"), ("X-C", "3")])
    assert storable_fields(fields) == Fields([control, ("X-C", "3")])


def test_all_others_are_kept_unknown_ones_too():
    """RFC 9111 §3.1: caches are required to store fields they do not recognise."""
    fields = Fields([("X-New", "1"), ("Cache-Status", "s; hit"), ("Via", "1.1 s")])
    assert storable_fields(fields) == fields


def test_cookies_are_shared_only_for_as_long_as_the_origin_says():
    assert shares_cookies(CacheControl(), 1)
    assert not shares_cookies(CacheControl(), 0)
    assert not shares_cookies(CacheControl(), None)
    assert not shares_cookies(CacheControl(no_cache=True), 1)
