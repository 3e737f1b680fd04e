"""The common case in one look says what all the rules say, or nothing."""

from hypothesis import given
from hypothesis import strategies as st

from cdn.semantics.delivery import Representation, deliver
from cdn.semantics.freshness import current_age, freshness_lifetime
from cdn.semantics.http_date import format_http_date
from cdn.semantics.message import Fields, Request, Response
from cdn.semantics.outline import Outline, OutlinedFields
from cdn.semantics.plain import delivered_plainly, stored_plainly
from cdn.semantics.policy import CachePolicy
from cdn.semantics.ranges import ByteRange
from cdn.semantics.reuse import Hit, decide
from cdn.semantics.slices import PresentSlices
from cdn.semantics.stored_response import make_stored_response
from cdn.semantics.storing import may_store, storable_fields
from cdn.semantics.vary import nominated_fields, variant_key

NOW = 1_767_225_600.0
LINES = st.sampled_from(
    [
        ("Date", format_http_date(NOW)),
        ("Date", format_http_date(NOW - 50)),
        ("Date", format_http_date(NOW + 50)),
        ("Date", "Thursday, 01-Jan-26 00:00:00 GMT"),
        ("Date", "now"),
        ("Age", "0"),
        ("Age", "60"),
        ("Age", "1, 2"),
        ("Cache-Control", "max-age=60"),
        ("Cache-Control", "s-maxage=0, max-age=60"),
        ("Cache-Control", "no-cache, max-age=60"),
        ("Cache-Control", 'no-cache="x-a", max-age=60'),
        ("Cache-Control", "private"),
        ("Cache-Control", "no-store"),
        ("Cache-Control", "must-understand, no-store, max-age=60"),
        ("Cache-Control", "public, must-revalidate, max-age=60, stale-if-error=5"),
        ("Cache-Control", "max-age=60" + " " * 300),
        ("Expires", format_http_date(NOW + 60)),
        ("Expires", "0"),
        ("Last-Modified", format_http_date(NOW - 9e5)),
        ("Last-Modified", format_http_date(NOW + 9e5)),
        ("ETag", 'W/"v1"'),
        ("Vary", "Accept-Encoding"),
        ("Vary", "*"),
        ("Set-Cookie", "a=b"),
        ("Proxy-Authenticate", "Basic"),
        ("Content-Type", "text/plain"),
        ("X-A", "1"),
    ]
)
POLICIES = st.sampled_from([CachePolicy(), CachePolicy(heuristic_fraction=0, normalize_vary=False)])
REQUEST = Request("GET", "http", "a", "/", Fields([("Accept-Encoding", "gzip, br;q=0.5")]))


def outlined(lines, varying):
    """The same fields, drawn by an outline that was asked about others before."""
    outline = Outline([(name, None if name in varying else value) for name, value in lines])
    number = len(outline.open)
    _stored(Response(200, OutlinedFields(outline, ("x",) * number), "OK"), NOW, CachePolicy())
    return OutlinedFields(outline, tuple(value for name, value in lines if name in varying))


def _stored(head, now, policy):
    return stored_plainly(
        primary_key=b"http://a/", request=REQUEST.fields, head=head, request_time=now,
        response_time=now, length=9, stamp=3, policy=policy,
    )  # fmt: skip


@given(
    lines=st.lists(LINES, max_size=7, unique_by=lambda line: line[0]),
    delay=st.sampled_from([-1.0, 0.0, 0.3, 30.0]),
    policy=POLICIES,
    varying=st.none() | st.sets(st.sampled_from(["Date", "Age", "Expires", "ETag"])),
)
def test_it_agrees_with_the_rules(lines, delay, policy, varying):
    head = Response(200, Fields(lines), "OK")
    if varying is not None:
        head = Response(200, outlined(lines, varying), "OK")
        assert (_stored(head, NOW, policy) is None) == (
            _stored(Response(200, Fields(lines), "OK"), NOW, policy) is None
        )
    times = {"request_time": NOW - delay, "response_time": NOW}
    plain = stored_plainly(
        primary_key=b"http://a/", request=REQUEST.fields, head=head, length=9, stamp=3,
        policy=policy, **times,
    )  # fmt: skip
    if plain is None:
        return
    assert may_store(REQUEST, head, policy) is None
    nominated = nominated_fields(head.fields)
    assert nominated is not None
    assert plain == make_stored_response(
        primary_key=b"http://a/",
        variant=variant_key(nominated, REQUEST.fields, policy.normalize_vary),
        response=head,
        fields=storable_fields(head.fields),
        length=9,
        stamp=3,
        slice_size=policy.slice_size,
        **times,
    )
    assert isinstance(decide(ANYONE, plain, policy, NOW), Hit)


STORED_LINES = st.one_of(
    LINES,
    st.sampled_from(
        [
            ("Via", "1.1 shield"),
            ("Cache-Status", "shield; hit"),
            ("Accept-Ranges", "none"),
            ("Content-Range", "bytes 0-1/2"),
            ("CDN-Cache-Control", "max-age=60"),
            ("Surrogate-Control", "max-age=60"),
        ]
    ),
)
ANYONE = Request("GET", "http", "", "/", Fields())
OWN = (("Age", "0"), ("Via", "1.1 edge"), ("Cache-Status", "edge; hit; ttl=60"))


@given(
    lines=st.lists(STORED_LINES, max_size=7, unique_by=lambda line: line[0]),
    status=st.sampled_from([200, 200, 200, 206, 301, 404]),
    length=st.sampled_from([None, 0, 9]),
    present=st.sampled_from([None, None, ByteRange(0, 4), PresentSlices(0, 1 << 20)]),
    policy=POLICIES,
)
def test_a_plain_hit_is_delivered_as_the_rules_have_it(lines, status, length, present, policy):
    head = Response(status, Fields(lines), "")
    stored = make_stored_response(
        primary_key=b"http://a/", variant=(), response=head, fields=storable_fields(head.fields),
        request_time=NOW, response_time=NOW, length=length, present=present,
    )  # fmt: skip
    plain = delivered_plainly(stored)
    if plain is None:
        return
    told, more = plain
    fresh = freshness_lifetime(stored, policy) > current_age(stored, NOW)
    assert isinstance(decide(ANYONE, stored, policy, NOW), Hit) is fresh
    selected = Representation(stored.status, stored.reason, stored.fields, stored.length)
    delivery = deliver(ANYONE, selected, OWN, NOW)
    assert delivery.head == Response(200, told.adding(*more, *OWN), "")
    assert delivery.segments == ((ByteRange(0, length),) if length else ())
    kept_from_some = {"surrogate-control", "cdn-cache-control"}
    assert not stored.fields.any_of(kept_from_some)


def test_what_most_origins_send_is_delivered_plainly():
    lines = [("Date", format_http_date(NOW)), ("ETag", '"v1"'), ("Cache-Control", "max-age=60")]
    head = Response(200, Fields(lines), "OK")
    stored = make_stored_response(
        primary_key=b"http://a/", variant=(), response=head, fields=head.fields,
        request_time=NOW, response_time=NOW, length=9,
    )  # fmt: skip
    assert delivered_plainly(stored) == (Fields(lines), (("Accept-Ranges", "bytes"),))


def test_what_is_stored_never_says_how_long_an_answer_is():
    fields = Fields((("Content-Length", "5"), ("Age", "7"), ("ETag", '"v1"')))
    stored = make_stored_response(
        primary_key=b"http://a/", variant=(), response=Response(200, fields, "OK"), fields=fields,
        request_time=NOW, response_time=NOW, length=9,
    )  # fmt: skip
    told, _ = delivered_plainly(stored)
    assert told == Fields((("ETag", '"v1"'),))


def test_what_most_origins_send_is_common():
    lines = [
        ("Server", "x"), ("Date", format_http_date(NOW)), ("Content-Type", "text/css"),
        ("Last-Modified", format_http_date(NOW - 100)), ("ETag", '"v1"'),
        ("Cache-Control", "public, max-age=86400"), ("Vary", "Accept-Encoding"),
    ]  # fmt: skip
    assert stored_plainly(
        primary_key=b"http://a/", request=REQUEST.fields, head=Response(200, Fields(lines), "OK"),
        request_time=NOW, response_time=NOW, length=9, stamp=0, policy=CachePolicy(),
    )  # fmt: skip
