"""RFC 9110 §14, §15 (what the client gets), RFC 9111 §5.1 (Age), RFC 9211 (Cache-Status)."""

import math
from email.parser import BytesParser

import http_sf
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdn.semantics.delivery import (
    Delivery,
    Representation,
    age_field,
    cache_status,
    deliver,
    joined_status,
    via,
)
from cdn.semantics.message import Fields
from cdn.semantics.ranges import ByteRange
from cdn.semantics.reuse import Fwd
from cdn.semantics.storing import NotStoredReason
from tests.semantics.messages import NOW, asking, at, response

CONTENT = bytes(range(65, 91))
OWN = (("Age", "7"), ("Via", "1.1 edge"), ("Cache-Status", "edge; hit"))
ETAG = ("ETag", '"a"')
TYPE = ("Content-Type", "text/plain")


def _deliver(*asked, kept=(ETAG, TYPE), status=200, length=26, method="GET") -> Delivery:
    fields = response(*kept).fields
    selected = Representation(status, "Fine", fields, length)
    return deliver(asking(*asked, method=method), selected, OWN, NOW)


def _content(delivery: Delivery) -> bytes:
    assert delivery.segments is not None
    return b"".join(
        CONTENT[part.start : part.stop] if isinstance(part, ByteRange) else part
        for part in delivery.segments
    )


def test_the_whole():
    got = _deliver()
    assert (got.head.status, got.head.reason, got.length) == (200, "Fine", 26)
    assert _content(got) == CONTENT
    assert got.head.fields.get("accept-ranges") == "bytes"
    assert got.head.fields.lines[-3:] == OWN


def test_accept_ranges_of_the_origin_stays():
    got = _deliver(kept=[("Accept-Ranges", "none")])
    assert got.head.fields.get("accept-ranges") == "none"


def test_head_has_the_length_and_no_content():
    """RFC 9110 §9.3.2, §14.2: Range is defined for GET."""
    got = _deliver(("Range", "bytes=0-1"), method="HEAD")
    assert (got.head.status, got.segments, got.length) == (200, (), 26)


def test_an_empty_representation():
    got = _deliver(length=0)
    assert (got.segments, got.length) == ((), 0)
    assert _deliver(("Range", "bytes=0-"), length=0).head.status == 416
    assert _deliver(("Range", "bytes=-1"), length=0).head.status == 200


def test_content_whose_length_nobody_knows_is_sent_whole():
    """RFC 9110 §14.2: Range MAY be ignored."""
    got = _deliver(("Range", "bytes=0-1"), length=None)
    assert (got.head.status, got.segments, got.length) == (200, None, None)
    assert "accept-ranges" not in got.head.fields
    assert _deliver(length=None, method="HEAD").segments == ()


def test_this_nodes_fields_stand_once_whatever_was_stored():
    kept = [("Age", "99"), ("Via", "1.1 s"), ("Cache-Status", "s; hit"), ETAG]
    for asked in ([], [("If-None-Match", '"a"')], [("Range", "bytes=0-1")], [("If-Match", '"b"')],
                  [("Range", "bytes=99-")], [("Range", "bytes=0-1,5-6")]):  # fmt: skip
        got = _deliver(*asked, kept=kept)
        for name, value in OWN:
            assert got.head.fields.get_all(name.lower()) == [value]


def test_not_modified_has_the_fields_a_200_would_have_but_none_of_its_content():
    """RFC 9110 §15.4.5: most of `must` is a MUST; the rest guides the next cache's update
    (RFC 9111 §3.2), which may take over all but what tells how the content was coded and cut."""
    must = [("Cache-Control", "max-age=1"), ("Content-Location", "/b"), ("Date", at(-1)), ETAG,
            ("Expires", at(5)), ("Vary", "A"), ("Set-Cookie", "a"), ("X-A", "1"), TYPE,
            ("Content-Language", "ja")]  # fmt: skip
    content = [("Content-Encoding", "gzip"), ("Accept-Ranges", "x"), ("Content-MD5", "x")]
    got = _deliver(("If-None-Match", '"a"'), kept=must + content)
    assert (got.head.status, got.segments, got.length) == (304, (), None)
    assert list(got.head.fields) == [*must, *OWN]


def test_precondition_failed_carries_no_metadata_of_the_representation():
    """RFC 9110 §15.5.13."""
    got = _deliver(("If-Match", '"b"'))
    assert (got.head.status, got.segments, got.length) == (412, (), 0)
    assert got.head.fields.names() == {"date", "age", "via", "cache-status"}
    bare = Representation(200, "", Fields([ETAG]), 1)
    assert "date" not in deliver(asking(("If-Match", '"b"')), bare, OWN, NOW).head.fields


def test_one_range():
    """RFC 9110 §15.3.7.1."""
    got = _deliver(("Range", "bytes=2-4"), kept=[ETAG, TYPE, ("Content-Range", "bytes 0-1/2")])
    assert (got.head.status, got.head.reason, got.length) == (206, "Partial Content", 3)
    assert _content(got) == b"CDE"
    assert got.head.fields.get_all("content-range") == ["bytes 2-4/26"]
    assert (got.head.fields.get("etag"), got.head.fields.get("content-type")) == (
        '"a"',
        "text/plain",
    )


@pytest.mark.parametrize("value", ["bytes=0-1,1-5", "bytes=0-2,3-5", "bytes=90-,0-5"])
def test_several_that_come_to_one_are_one_part(value):
    """RFC 9110 §15.3.7.2: MUST NOT generate multipart for a single range asked for."""
    got = _deliver(("Range", value))
    assert got.head.fields.get("content-range") == "bytes 0-5/26"
    assert _content(got) == b"ABCDEF"


def test_several_ranges():
    """RFC 9110 §15.3.7.2, §14.6: parts in the order asked, each with its Content-Range."""
    got = _deliver(("Range", "bytes=20-21,0-1,-1"), kept=[ETAG, TYPE, ("Content-Range", "x")])
    assert got.head.status == 206
    assert "content-range" not in got.head.fields
    (media_type,) = got.head.fields.get_all("content-type")
    assert media_type.startswith("multipart/byteranges; boundary=")
    body = _content(got)
    assert len(body) == got.length
    head = f"Content-Type: {media_type}\r\n\r\n".encode()
    parts = BytesParser().parsebytes(head + body).get_payload()
    assert [
        (part["Content-Range"], part.get_payload(), part["Content-Type"]) for part in parts
    ] == [
        ("bytes 20-21/26", "UV", "text/plain"),
        ("bytes 0-1/26", "AB", "text/plain"),
        ("bytes 25-25/26", "Z", "text/plain"),
    ]


def test_parts_have_a_type_only_where_the_whole_has_one():
    got = _deliver(("Range", "bytes=0-1,5-6"), kept=[ETAG])
    assert b"Content-Type" not in _content(got)


def test_unsatisfiable():
    """RFC 9110 §15.5.17."""
    got = _deliver(("Range", "bytes=26-"))
    assert (got.head.status, got.segments, got.length) == (416, (), 0)
    assert got.head.fields.get("content-range") == "bytes */26"
    assert "etag" not in got.head.fields


@pytest.mark.parametrize(
    ("asked", "status", "got_status"),
    [
        ([("Range", "pages=1-2")], 200, 200),
        ([("Range", "bytes=1-0")], 200, 200),
        ([("Range", "bytes=0-1")], 404, 404),
        ([("Range", "bytes=0-1")], 203, 203),
        ([("Range", "bytes=0-1"), ("If-Range", '"a"')], 200, 206),
        ([("Range", "bytes=0-1"), ("If-Range", '"b"')], 200, 200),
        ([("Range", "bytes=99-"), ("If-Range", '"b"')], 200, 200),
        ([("Range", "bytes=0-1"), ("If-None-Match", '"a"')], 200, 304),
        ([("Range", "bytes=0-1"), ("If-None-Match", '"b"')], 200, 206),
        ([("If-None-Match", '"a"')], 404, 404),
    ],
)
def test_when_a_range_holds(asked, status, got_status):
    """RFC 9110 §13.2.2, §14.2: after the preconditions, of what would be a 200."""
    assert _deliver(*asked, status=status).head.status == got_status


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=5))
def test_the_length_told_is_the_length_sent(pairs):
    value = ",".join(f"{min(pair)}-{max(pair)}" for pair in pairs)
    got = _deliver(("Range", "bytes=" + value))
    assert len(_content(got)) == got.length


@pytest.mark.parametrize(
    ("age", "text"),
    [(0, "0"), (0.9, "0"), (59.99, "59"), (2**31, "2147483648"), (1e300, "2147483648"),
     (math.inf, "2147483648")],
)  # fmt: skip
def test_age_in_whole_seconds(age, text):
    """RFC 9111 §5.1, §1.2.2."""
    assert age_field(age) == ("Age", text)


def test_via_and_cache_status_come_after_those_before():
    """RFC 9110 §7.6.3; RFC 9211 §2: the last is nearest the client."""
    fields = Fields([("Via", "1.0 a"), ("via", "1.1 b"), ("Cache-Status", "s; hit")])
    assert via(Fields(), "edge") == ("Via", "1.1 edge")
    assert via(fields, "edge", (1, 0)) == ("Via", "1.0 a, 1.1 b, 1.0 edge")
    assert joined_status(Fields(), "e; hit") == ("Cache-Status", "e; hit")
    assert joined_status(fields, "e; hit") == ("Cache-Status", "s; hit, e; hit")


def test_cache_status_members_read_as_the_rfcs():
    assert cache_status("edge", ttl=295.7) == "edge; hit; ttl=295"
    assert cache_status("edge", fwd="uri-miss", stored=True, collapsed=True) == (
        "edge; fwd=uri-miss; stored; collapsed"
    )
    assert cache_status("edge", fwd="stale", fwd_status=304, ttl=-3.0, detail="timeout") == (
        "edge; fwd=stale; fwd-status=304; ttl=-3; detail=timeout"
    )


@given(
    st.sampled_from(["edge-8080", "yokohama", "a.b_c"]),
    st.none() | st.sampled_from(list(Fwd)),
    st.none() | st.integers(100, 599),
    st.none() | st.floats(allow_nan=False),
    st.booleans(),
    st.booleans(),
    st.none() | st.sampled_from([reason.word for reason in NotStoredReason]),
)
def test_cache_status_is_a_structured_list(node, fwd, status, ttl, stored, collapsed, detail):
    """RFC 9211 §2, RFC 9651 §3.1: one member, a token with parameters of the right types."""
    member = cache_status(node, fwd=fwd, fwd_status=status, ttl=ttl, stored=stored,
                          collapsed=collapsed, detail=detail)  # fmt: skip
    ((name, parameters),) = http_sf.parse(member.encode(), tltype="list")
    assert str(name) == node
    assert ("hit" in parameters) is (fwd is None)
    assert str(parameters.get("fwd", "")) == (fwd or "")
    assert parameters.get("fwd-status") == status
    assert parameters.get("stored", False) is stored
    assert parameters.get("collapsed", False) is collapsed
    assert isinstance(parameters.get("ttl", 0), int)
