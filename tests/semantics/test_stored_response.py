"""RFC 9111 §4.2.1 (lifetime), §4.2.3 (age), RFC 9110 §8.8 (validators): derived once at arrival."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdn.semantics.message import Fields
from cdn.semantics.stored_response import Validator, validator_of
from tests.semantics.messages import NOW, at, stored


@pytest.mark.parametrize(
    ("lines", "lifetime"),
    [
        ([], None),
        ([("Cache-Control", "max-age=60")], 60),
        ([("Cache-Control", "max-age=60, s-maxage=5")], 5),
        ([("Cache-Control", "s-maxage=60, max-age=0"), ("Expires", at(-10))], 60),
        ([("Cache-Control", "max-age=x"), ("Expires", at(10))], 0),
        ([("Expires", at(10))], 10),
        ([("Expires", at(10)), ("Date", at(4))], 6),
        ([("Expires", at(-10))], 0),
        ([("Expires", "0")], 0),  # §5.3: an invalid date is a time in the past
        ([("Expires", "")], 0),
        ([("Expires", at(10)), ("Expires", at(99))], 10),  # §4.2.1: the first one
        ([("CDN-Cache-Control", "max-age=7"), ("Cache-Control", "s-maxage=60")], 7),
        ([("CDN-Cache-Control", "public"), ("Expires", at(10))], None),  # RFC 9213 §2.2
    ],
)
def test_lifetime_as_a_shared_cache_reads_it(lines, lifetime):
    assert stored(*lines).explicit_lifetime == lifetime


def test_without_a_date_the_response_is_dated_when_it_came():
    one = stored(("Expires", at(10)), ("Date", "yesterday"))
    assert (one.date, one.explicit_lifetime, one.initial_age) == (NOW, 10, 0)


@pytest.mark.parametrize(
    ("age", "seconds"),
    [
        ("0", 0),
        (" 60\t", 60),
        ("60,0", 60),
        ("0,7200", 0),
        ("0, 0", math.inf),
        ("60, 60", math.inf),
        ("9" * 400, math.inf),
        ("", math.inf),
        ("abc", math.inf),
        ("-60", math.inf),
        ("60.0", math.inf),
        ("60;a=b", math.inf),
        ("²", math.inf),
    ],
)
def test_age_received(age, seconds):
    """RFC 9111 §5.1: of a list the first member; what cannot be read, or came on several lines
    (RFC 9110 §5.3 joins them with comma and space), could be any age."""
    assert stored(("Age", age)).initial_age == seconds


@given(
    st.none() | st.integers(0, 10**9),
    st.none() | st.integers(-(10**6), 10**6),
    st.integers(-100, 100),
)
def test_corrected_initial_age(age, dated, delay):
    """RFC 9111 §4.2.3: max(apparent_age, age_value + response_delay), each at least 0: a clock
    that stepped back while the response was on its way makes it no younger."""
    lines = [] if age is None else [("Age", str(age))]
    lines.append(("Date", "?" if dated is None else at(dated)))
    one = stored(*lines, delay=delay)
    apparent = max(0, -(dated or 0))
    assert one.initial_age == max(apparent, (age or 0) + max(0, delay))


@pytest.mark.parametrize(
    ("etag", "strong"),
    [('"a"', True), ('""', True), ('"ü"', True), ('W/"a"', False), ("a", False), ('"a', False),
     ('"a", "b"', False), ('"a b"', False), (None, False)],
)  # fmt: skip
def test_strong_validators(etag, strong):
    """RFC 9110 §8.8.3."""
    assert Validator(etag).strong_etag == (etag if strong else None)


def test_validators_of_a_response():
    fields = Fields([("ETag", 'W/"a"'), ("Last-Modified", at(-60))])
    assert validator_of(fields, NOW) == Validator('W/"a"', NOW - 60)
    assert validator_of(Fields([("Last-Modified", "x")]), NOW) == Validator()
    assert not Validator()
    assert Validator("a")
    assert Validator(last_modified=0.0)


def test_the_length_may_be_told_at_the_end():
    one = stored(("ETag", '"a"'), length=None)
    assert one.with_length(7).length == 7
    assert one.with_length(7).fields == one.fields
