"""RFC 9111 §4.3 (validation upward), RFC 9110 §13 (conditions from below)."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdn.semantics.message import Fields
from cdn.semantics.policy import CachePolicy
from cdn.semantics.reuse import Forward, decide
from cdn.semantics.validation import (
    CONDITIONS,
    Precondition,
    conditional_request,
    evaluate_preconditions,
    freshen,
    head_matches,
    identifies,
    range_applies,
)
from tests.semantics.messages import NOW, asking, at, response, stored

FRESH = ("Cache-Control", "max-age=60")
ETAG = ("ETag", '"a"')
LM = ("Last-Modified", at(-60))


def test_our_question_replaces_the_clients():
    """RFC 9111 §4.3.1."""
    asked = Fields([("If-Match", "x"), ("If-None-Match", '"z"'), ("If-Range", "y"), ("A", "b"),
                    ("If-Modified-Since", at(0)), ("If-Unmodified-Since", at(0))])  # fmt: skip
    both = conditional_request(asked, stored(ETAG, LM))
    assert list(both) == [("A", "b"), ("If-None-Match", '"a"'), ("If-Modified-Since", at(-60))]
    assert list(conditional_request(asked, stored(("ETag", 'W/"a"')))) == [
        ("A", "b"), ("If-None-Match", 'W/"a"')]  # fmt: skip
    assert list(conditional_request(asked, stored(LM)))[1:] == [("If-Modified-Since", at(-60))]
    assert list(conditional_request(asked, stored(("Last-Modified", "x")))) == [("A", "b")]
    assert not CONDITIONS & conditional_request(asked, stored()).names()


@pytest.mark.parametrize(
    ("kept", "told", "same"),
    [
        ([ETAG], [ETAG], True),
        ([ETAG], [("ETag", '"b"')], False),
        ([("ETag", 'W/"a"')], [ETAG], False),  # MUST match a strong one strongly
        ([ETAG], [("ETag", 'W/"a"')], True),
        ([("ETag", 'W/"a"')], [("ETag", 'W/"a"')], True),
        ([("ETag", 'W/"a"')], [("ETag", 'W/"b"')], False),
        ([LM], [("ETag", 'W/"b"')], False),
        ([ETAG], [], True),
        ([LM], [LM], True),
        ([LM], [("Last-Modified", at(-50))], False),
        ([ETAG, LM], [LM], True),
        ([ETAG, LM], [ETAG, ("Last-Modified", at(-50))], True),
    ],
)
def test_which_stored_response_a_304_is_about(kept, told, same):
    """RFC 9111 §4.3.4."""
    assert identifies(stored(*kept), response(*told, status=304)) is same


def test_freshening_takes_new_fields_and_keeps_the_others():
    """RFC 9111 §3.2, §4.3.4."""
    old = stored(ETAG, LM, FRESH, ("Age", "50"), ("X-Old", "1"), ("X-Both", "1"),
                 ("Content-Type", "text/a"), ("Content-Encoding", "gzip"))  # fmt: skip
    told = response(("X-Both", "2"), ("x-both", "3"), ("X-New", "4"), ("Content-Encoding", "br"),
                    ("ETag", 'W/"a"'), ("Content-Length", "3"), ("Content-Range", "x"),
                    ("Cache-Control", "max-age=90"), ("Date", at(100)), ("Age", "7"),
                    ("Connection", "x"), status=304)  # fmt: skip
    new = freshen(old, told, NOW + 99, NOW + 100)
    assert dict(new.fields) == {
        "ETag": '"a"', "Last-Modified": at(-60), "X-Old": "1", "X-Both": "2", "x-both": "3",
        "Content-Type": "text/a", "Content-Encoding": "gzip", "X-New": "4",
        "Cache-Control": "max-age=90", "Date": at(100),
    }  # fmt: skip
    assert (new.explicit_lifetime, new.initial_age, new.response_time) == (90, 8, NOW + 100)
    assert (new.status, new.length, new.validator) == (200, old.length, old.validator)


def test_freshening_dates_what_came_without_a_date():
    """RFC 9110 §6.6.1."""
    told = response(ETAG, status=304)
    new = freshen(
        stored(ETAG, FRESH), told.with_fields(told.fields.without({"date"})), NOW, NOW + 5
    )
    assert new.fields.get("date") == at(5)
    assert (new.date, new.initial_age) == (NOW + 5, 5)


def test_a_newer_last_modified_is_taken_over_with_its_heuristic():
    new = freshen(
        stored(ETAG, LM), response(ETAG, ("Last-Modified", at(-10)), status=304), NOW, NOW
    )
    assert (new.validator.etag, new.validator.last_modified) == ('"a"', NOW - 10)


def test_a_304_keeps_back_what_either_response_says_is_not_for_sharing():
    """RFC 9111 §5.2.2.7."""
    old = stored(ETAG, ("Cache-Control", 'max-age=60, private="X-Me"'))
    assert "x-me" not in freshen(old, response(("X-Me", "1"), status=304), NOW, NOW).fields
    old = stored(ETAG, FRESH, ("X-Me", "1"))
    told = response(("Cache-Control", 'max-age=60, private="X-Me"'), status=304)
    assert "x-me" not in freshen(old, told, NOW, NOW).fields


@pytest.mark.parametrize(
    ("kept", "told", "shared"),
    [([FRESH], [], True), ([LM], [], False), ([FRESH], [("Cache-Control", "no-cache")], False),
     ([FRESH], [("Cache-Control", "max-age=0")], False), ([LM], [FRESH], True)],
)  # fmt: skip
def test_a_cookie_in_a_304_is_shared_only_with_explicit_freshness(kept, told, shared):
    head = response(ETAG, ("Set-Cookie", "a=b"), *told, status=304)
    assert ("set-cookie" in freshen(stored(ETAG, *kept), head, NOW, NOW).fields) is shared


@pytest.mark.parametrize("vary", ["Accept, Cookie", "*", "Cookie", ""])
def test_a_new_vary_is_asked_about_each_time(vary):
    """RFC 9111 §4.1: for which requests it would now be selected, nobody knows."""
    asked = asking(("Accept", "x"))
    old = stored(ETAG, FRESH, ("Vary", "Accept"), request=asked)
    same = freshen(old, response(("Vary", "accept"), status=304), NOW, NOW)
    assert not isinstance(decide(asked, same, CachePolicy(), NOW), Forward)
    new = freshen(old, response(("Vary", vary), status=304), NOW, NOW)
    assert isinstance(decide(asked, new, CachePolicy(), NOW), Forward)


@pytest.mark.parametrize(
    ("lines", "status", "length", "same"),
    [
        ([ETAG, LM], 200, 10, True),
        ([], 200, None, True),
        ([ETAG], 404, 10, False),
        ([ETAG], 200, 11, False),
        ([("ETag", '"b"')], 200, 10, False),
        ([("Last-Modified", at(0))], 200, 10, False),
    ],
)
def test_what_a_head_says_of_the_stored_get(lines, status, length, same):
    """RFC 9111 §4.3.5."""
    head = response(*lines, status=status)
    assert head_matches(stored(ETAG, LM), head, length) is same


PASSED, NOT_MODIFIED, FAILED = Precondition.PASSED, Precondition.NOT_MODIFIED, Precondition.FAILED
LONG_AGO = ("If-Unmodified-Since", at(-99))


@pytest.mark.parametrize(
    ("conditions", "selected", "outcome"),
    [
        ([], [ETAG], PASSED),
        # RFC 9110 §13.1.2: If-None-Match, weak comparison.
        ([("If-None-Match", '"a"')], [ETAG], NOT_MODIFIED),
        ([("If-None-Match", 'W/"a"')], [ETAG], NOT_MODIFIED),
        ([("If-None-Match", '"a"')], [("ETag", 'W/"a"')], NOT_MODIFIED),
        ([("If-None-Match", '"x,y", W/"z" ,"a"')], [ETAG], NOT_MODIFIED),
        ([("If-None-Match", '"x"'), ("If-None-Match", '"a"')], [ETAG], NOT_MODIFIED),
        ([("If-None-Match", '"b"')], [ETAG], PASSED),
        ([("If-None-Match", '"b, a"')], [ETAG], PASSED),
        ([("If-None-Match", '"A"')], [ETAG], PASSED),
        ([("If-None-Match", "")], [ETAG], PASSED),
        ([("If-None-Match", '"a"')], [LM], PASSED),
        ([("If-None-Match", "*")], [], NOT_MODIFIED),
        ([("If-None-Match", " * ")], [ETAG], NOT_MODIFIED),
        ([("If-None-Match", "a")], [("ETag", "a")], NOT_MODIFIED),
        ([("If-None-Match", "b")], [("ETag", "a")], PASSED),
        # §13.1.3: If-Modified-Since, ignored beside If-None-Match.
        ([("If-None-Match", '"b"'), ("If-Modified-Since", at(0))], [ETAG, LM], PASSED),
        ([("If-None-Match", '"a"'), ("If-Modified-Since", at(-99))], [ETAG, LM], NOT_MODIFIED),
        ([("If-Modified-Since", at(-60))], [LM], NOT_MODIFIED),
        ([("If-Modified-Since", at(-61))], [LM], PASSED),
        ([("If-Modified-Since", "yesterday")], [LM], PASSED),
        ([("If-Modified-Since", at(0))], [("Last-Modified", "x")], PASSED),
        # RFC 9111 §4.3.2: without Last-Modified its Date is compared.
        ([("If-Modified-Since", at(0))], [], NOT_MODIFIED),
        ([("If-Modified-Since", at(-1))], [], PASSED),
        # RFC 9110 §13.1.1: If-Match, strong comparison.
        ([("If-Match", '"a"')], [ETAG], PASSED),
        ([("If-Match", '"b", "a"')], [ETAG], PASSED),
        ([("If-Match", "*")], [], PASSED),
        ([("If-Match", '"b"')], [ETAG], FAILED),
        ([("If-Match", 'W/"a"')], [ETAG], FAILED),
        ([("If-Match", 'W/"a"')], [("ETag", 'W/"a"')], FAILED),
        ([("If-Match", '"a"')], [("ETag", 'W/"a"')], FAILED),
        ([("If-Match", '"a"')], [], FAILED),
        # §13.1.4: If-Unmodified-Since, ignored beside If-Match, without a date, or an invalid one.
        ([LONG_AGO], [LM], FAILED),
        ([("If-Unmodified-Since", at(-60))], [LM], PASSED),
        ([LONG_AGO], [], PASSED),
        ([("If-Unmodified-Since", "x")], [LM], PASSED),
        ([("If-Match", '"a"'), LONG_AGO], [ETAG, LM], PASSED),
        # §13.2.2: first what must hold, then what must not.
        ([("If-Match", '"b"'), ("If-None-Match", '"a"')], [ETAG], FAILED),
        ([("If-Match", '"a"'), ("If-None-Match", '"a"')], [ETAG], NOT_MODIFIED),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_preconditions(conditions, selected, outcome, method):
    fields = response(*selected).fields
    asked = asking(*conditions, method=method)
    assert evaluate_preconditions(asked, 200, fields, NOW) is outcome
    # RFC 9110 §13.2.1: ignored where the answer without them is neither 2xx nor 412.
    assert evaluate_preconditions(asked, 404, fields, NOW) is PASSED
    assert evaluate_preconditions(asked, 304, fields, NOW) is PASSED


@given(st.integers(-(10**6), 10**6), st.integers(-(10**6), 0))
def test_not_modified_means_not_later(since, modified):
    asked = asking(("If-Modified-Since", at(since)))
    fields = response(("Last-Modified", at(modified))).fields
    expected = NOT_MODIFIED if modified <= since else PASSED
    assert evaluate_preconditions(asked, 200, fields, NOW) is expected


@pytest.mark.parametrize("value", ['W/"' * 10_000, '"' * 32_768, "W/" * 16_000, '"a' * 16_000])
def test_hostile_conditions_cost_little(value):
    began = time.process_time()
    for name in ("If-Match", "If-None-Match", "If-Range", "If-Modified-Since"):
        evaluate_preconditions(asking((name, value)), 200, response(ETAG, LM).fields, NOW)
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize(
    ("condition", "selected", "applies"),
    [
        (None, [], True),
        ('"a"', [ETAG], True),
        ('"b"', [ETAG], False),
        ('"a"', [], False),
        ('W/"a"', [ETAG], False),
        ('W/"a"', [("ETag", 'W/"a"')], False),  # MUST use strong comparison
        ('"a"', [("ETag", 'W/"a"')], False),
        ('"a", "b"', [("ETag", '"a", "b"')], False),
        ("a", [("ETag", "a")], False),
        (at(-60), [LM], True),
        (at(-59), [LM], False),  # exact, not "not later"
        (at(-61), [LM], False),
        (at(0), [("Last-Modified", at(0))], False),  # §8.8.2.2: as young as its Date, weak
        (at(-1), [("Last-Modified", at(-1))], True),
        (at(-60), [ETAG], False),
        ("x", [LM], False),
        ("x", [("Last-Modified", "x")], False),
    ],
)
def test_if_range(condition, selected, applies):
    """RFC 9110 §13.1.5."""
    asked = asking() if condition is None else asking(("If-Range", condition))
    assert range_applies(asked, response(*selected).fields, NOW) is applies


def test_if_range_by_date_needs_a_date():
    fields = Fields([LM, ("Date", "x")])
    assert not range_applies(asking(("If-Range", at(-60))), fields, NOW)
