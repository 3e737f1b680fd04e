"""RFC 9110 §5.6.7."""

import time
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdn.semantics import http_date
from cdn.semantics.http_date import format_http_date, parse_http_date, year_of

FIRST = int(datetime(1, 1, 1, tzinfo=UTC).timestamp())
LAST = int(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp())
EXAMPLE = 784111777.0


@pytest.mark.parametrize(
    "text",
    [
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
        "sun, 06 nov 1994 08:49:37 gmt",
        "Mon, 06 Nov 1994 08:49:37 GMT",
    ],
)
def test_the_three_formats_of_the_rfc(text):
    assert parse_http_date(text, 2026) == EXAMPLE


@given(st.integers(FIRST, LAST))
def test_imf_fixdate_round_trips(seconds):
    assert parse_http_date(format_http_date(seconds)) == seconds


@given(st.integers(0, LAST), st.sampled_from(["%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"]))
def test_obsolete_formats_round_trip(seconds, form):
    moment = datetime.fromtimestamp(seconds, UTC)
    text = moment.strftime(form)
    if "%Y" in form:
        text = text[:-4].rstrip() + f" {moment.year:04}"
    assert parse_http_date(text, moment.year) == seconds


def test_the_senders_form():
    assert format_http_date(EXAMPLE + 0.9) == "Sun, 06 Nov 1994 08:49:37 GMT"
    assert format_http_date(-1) == "Wed, 31 Dec 1969 23:59:59 GMT"


@pytest.mark.parametrize(
    ("digits", "this_year", "year"),
    [("94", 2026, 1994), ("26", 2026, 2026), ("76", 2026, 2076), ("77", 2026, 1977),
     ("10", 2090, 2010), ("00", 1999, 1900)],
)  # fmt: skip
def test_two_digit_years(digits, this_year, year):
    """More than 50 years in the future is the most recent past year with the same digits."""
    parsed = parse_http_date(f"Monday, 06-Nov-{digits} 08:49:37 GMT", this_year)
    assert parsed is not None
    assert year_of(parsed) == year


@given(st.integers(0, 99), st.integers(1, 9_900))
def test_two_digit_years_are_never_over_50_years_ahead(digits, this_year):
    parsed = parse_http_date(f"Monday, 06-Nov-{digits:02} 08:49:37 GMT", this_year)
    if parsed is not None:  # the year 0 is none
        assert year_of(parsed) % 100 == digits
        assert this_year - 100 < year_of(parsed) <= this_year + 50


@pytest.mark.parametrize("text", ["", "0", "-1", "Sun, 06 Nov 1994 08:49:37", "Sun, 06 Nov 1994",
    "Sun, 6 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:37 UTC",
    "Sun, 31 Feb 1994 08:49:37 GMT",
    "Sun, 06 Nov 94 08:49:37 GMT", "Sun, 06 Foo 1994 08:49:37 GMT", "Sun, 06 Nov 1994 24:49:37 GMT",
    "Sun, 06 Nov 1994 08:49:37 GMT ", " Sun, 06 Nov 1994 08:49:37 GMT",
    "Sun, 06 Nov 0000 08:49:37 GMT",
    "Sun, 06 Nov 10000 08:49:37 GMT", "Sun, 06 Nov ١٩٩٤ 08:49:37 GMT",
    "ſun, 06 Nov 1994 08:49:37 GMT",
    "Sun,  06 Nov 1994 08:49:37 GMT", "1994-11-06T08:49:37Z"])  # fmt: skip
def test_anything_else_is_no_date(text):
    assert parse_http_date(text) is None


def test_a_leap_second_is_the_second_before():
    assert parse_http_date("Sat, 31 Dec 2016 23:59:60 GMT") == parse_http_date(
        "Sat, 31 Dec 2016 23:59:59 GMT"
    )


@given(st.text(max_size=40), st.integers(1, 9999))
def test_no_text_raises(text, this_year):
    parse_http_date(text, this_year)


def test_long_values_cost_nothing_and_are_not_remembered():
    before, began = http_date._parse.cache_info(), time.process_time()
    assert parse_http_date("S" * 32_768) is None
    assert time.process_time() - began < 0.1
    assert http_date._parse.cache_info() == before
