"""Parts of representations: which may be stored, and which requests they answer (RFC 9111 §3.3)."""

from dataclasses import replace

import pytest

from cdn.semantics.message import Fields
from cdn.semantics.policy import CachePolicy
from cdn.semantics.ranges import ByteRange
from cdn.semantics.reuse import (
    Forward,
    Fwd,
    Hit,
    OnlyIfCachedMiss,
    covers,
    decide,
    stale_on_error,
)
from cdn.semantics.storing import NotStoredReason, may_store, whole_of_part
from tests.semantics.messages import NOW, asking, response, stored

POLICY = CachePolicy()
FRESH = ("Cache-Control", "max-age=60")
PART = replace(stored(FRESH, ("ETag", '"a"'), length=100), present=ByteRange(10, 20))


@pytest.mark.parametrize(
    ("told", "length", "whole"),
    [
        ("bytes 4-9/10", 6, (ByteRange(4, 10), 10)),
        ("bytes 4-9/10", None, (ByteRange(4, 10), 10)),
        ("bytes 4-9/10", 5, (ByteRange(4, 9), 9)),  # said to reach the end, which came earlier
        ("bytes 4-8/10", 4, None),
        ("bytes 4-9/10", 7, None),
        ("bytes 4-9/10", 0, None),
        ("bytes 4-9/*", 6, None),
        ("items 4-9/10", 6, None),
        ("bytes 9-4/10", 6, None),
        (None, 6, None),
    ],
)
def test_which_part_of_how_much(told, length, whole):
    """RFC 9110 §14.4, §15.3.7"""
    fields = Fields([] if told is None else [("Content-Range", told)])
    assert whole_of_part(fields, length) == whole


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ([("Content-Range", "bytes 0-4/10")], None),
        ([("Content-Range", "bytes 0-4/*")], NotStoredReason.PARTIAL),
        ([("Content-Type", "multipart/byteranges; boundary=x")], NotStoredReason.PARTIAL),
    ],
)
def test_a_part_is_stored_where_it_says_what_it_is(lines, reason):
    """RFC 9111 §3.3"""
    head = response(FRESH, *lines, status=206)
    assert may_store(asking(("Range", "bytes=0-4")), head, POLICY) is reason


@pytest.mark.parametrize(
    ("wanted", "enough"),
    [
        ("bytes=10-19", True),
        ("bytes=12-13", True),
        ("bytes=12-13, 15-16", True),
        ("bytes=9-12", False),
        ("bytes=10-20", False),
        ("bytes=10-", False),
        ("bytes=-5", False),
        ("bytes=200-", False),
        ("nonsense", False),
        (None, False),
    ],
)
def test_a_part_answers_what_lies_within_it(wanted, enough):
    request = asking() if wanted is None else asking(("Range", wanted))
    assert covers(PART, request, NOW) is enough
    decision = decide(request, PART, POLICY, NOW)
    assert isinstance(decision, Hit) if enough else decision == Forward(Fwd.PARTIAL)


def test_a_part_answers_no_range_under_another_validator():
    """RFC 9110 §13.1.5"""
    assert not covers(PART, asking(("Range", "bytes=10-19"), ("If-Range", '"b"')), NOW)


def test_head_is_answered_by_the_head_of_a_part():
    assert covers(PART, asking(method="HEAD"), NOW)


def test_a_whole_answers_everything():
    assert covers(stored(FRESH), asking(("Range", "bytes=0-1")), NOW)


def test_a_part_is_no_answer_to_only_if_cached_or_instead_of_an_error():
    wants = asking(("Cache-Control", "only-if-cached"))
    assert decide(wants, PART, POLICY, NOW) == OnlyIfCachedMiss()
    assert stale_on_error(asking(), PART, POLICY, NOW, disconnected=True) is None


@pytest.mark.parametrize(
    ("lines", "status", "reason"),
    [
        ([FRESH, ("Content-Location", "/a")], 200, None),
        ([FRESH, ("Content-Location", "http://example.com/a")], 200, None),
        ([FRESH], 200, NotStoredReason.METHOD),
        ([FRESH, ("Content-Location", "/b")], 200, NotStoredReason.METHOD),
        ([FRESH, ("Content-Location", "http://[/a")], 200, NotStoredReason.METHOD),
        ([FRESH, ("Content-Location", "mailto:a@example.com")], 200, NotStoredReason.METHOD),
        ([FRESH, ("Content-Location", "/a")], 201, NotStoredReason.METHOD),
        ([("ETag", '"a"'), ("Content-Location", "/a")], 200, NotStoredReason.METHOD),
    ],
)
def test_an_answer_to_post_is_stored_where_it_says_that_it_is_what_is_there(lines, status, reason):
    """RFC 9110 §9.3.3: explicit freshness, and a Content-Location that is the target."""
    head = response(*lines, status=status)
    assert may_store(asking(method="POST"), head, POLICY) is reason
