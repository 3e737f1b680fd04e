"""RFC 9111 §5.2 (Cache-Control), RFC 5861, RFC 9213 (CDN-Cache-Control)."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdn.semantics import cache_control
from cdn.semantics.cache_control import (
    MAX_DELTA,
    NOTHING_SAID,
    REMEMBERED,
    CacheControl,
    parse_cache_control,
    parse_targeted,
    request_directives,
    response_directives,
)
from cdn.semantics.message import Fields

HOSTILE = ["," * 32_768, " " * 32_768, '"' * 32_768, "@" * 32_768, "=" * 32_768, ", @" * 10_000,
           'a="' * 10_000, 'a="\\' * 8_000, 'a="' + "\\" * 32_768, "a " * 16_000 + "=",
           "a=(" * 10_000, "private=x," * 3_200, "no-cache=" + "a," * 16_000]  # fmt: skip


@pytest.mark.parametrize("value", [None, "", " ", ",,", "foo", "foo=bar", 'foo="max-age=3", bar'])
def test_unknown_directives_are_ignored(value):
    """RFC 9111 §5.2.3: a cache MUST ignore unrecognized cache directives."""
    assert parse_cache_control(value) == NOTHING_SAID


@pytest.mark.parametrize("name", ["no-store", "no-cache", "private", "public", "must-revalidate",
                                  "proxy-revalidate", "must-understand", "no-transform",
                                  "only-if-cached"])  # fmt: skip
def test_directives_without_argument_whatever_their_case(name):
    """RFC 9111 §5.2: directives are identified by a token, compared case-insensitively."""
    expected = CacheControl(**{name.replace("-", "_"): True})
    assert parse_cache_control(name) == expected
    assert parse_cache_control(f"x, {name.upper()}\t,y=1") == expected
    assert parse_cache_control(f"{name} junk") == expected
    assert parse_targeted(name) == expected
    assert parse_targeted(f"{name}=?0") == CacheControl()


@pytest.mark.parametrize("name", ["max-age", "s-maxage", "stale-while-revalidate", "min-fresh",
                                  "stale-if-error", "max-stale"])  # fmt: skip
@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("3600", 3600),
        ('"3600"', 3600),  # RFC 9111 §5.2: both forms of an argument ought to be accepted
        ("003600", 3600),
        ("0" * 30 + "1", 1),
        ("0", 0),
        ("2147483649", 2147483649),
        ("9" * 18, int("9" * 18)),
        ("9" * 40, MAX_DELTA),  # §1.2.2: at least 2^31, or the greatest that can be held
        ("9" * 5_000, MAX_DELTA),
        ("", 0),
        ("-1", 0),
        ("+1", 0),
        ("1.5", 0),
        ("a1", 0),
        ("1a", 0),
        ("1 a", 0),
        ("'1'", 0),
        ('"1', 0),
        ('"1" a', 1),
        (" 1", 0),
        ("²", 0),
    ],
)
def test_delta_seconds(name, written, seconds):
    """RFC 9111 §4.2.1: what is not a number of seconds makes the response stale."""
    directives = parse_cache_control(f"x, {name}={written} , y")
    assert directives == CacheControl(**{name.replace("-", "_"): seconds})


@pytest.mark.parametrize("value", ["max-age =60", "max-age= 60", "max-age 60", 'max-age "60"'])
def test_white_space_around_the_equals_sign_loses_the_argument(value):
    assert parse_cache_control(value).max_age == 0


def test_first_of_several_counts():
    """RFC 9111 §4.2.1: either the first occurrence should be used or the response be stale."""
    assert parse_cache_control("max-age=5, max-age=60").max_age == 5
    assert parse_cache_control("max-age=60, max-age=5").max_age == 60
    assert parse_cache_control("max-age=60, max-age").max_age == 60


def test_what_stands_in_a_quoted_string_is_no_directive():
    value = r'x="max-age=60, no-store, \"private", max-age=1, y="\\"'
    assert parse_cache_control(value) == CacheControl(max_age=1)


def test_max_stale_without_argument_is_any_staleness():
    """RFC 9111 §5.2.1.2."""
    assert parse_cache_control("max-stale").max_stale == MAX_DELTA
    assert parse_cache_control("max-stale=").max_stale == 0
    assert parse_cache_control("max-age").max_age == 0


@pytest.mark.parametrize("name", ["no_cache", "private"])
@pytest.mark.parametrize(
    ("arguments", "fields"),
    [
        (['="Set-Cookie, X-A"'], {"set-cookie", "x-a"}),
        (['="a"', '="B"'], {"a", "b"}),
        (["=a"], {"a"}),
        (["", '="a"'], None),
        (['="a"', ""], None),
        (['="a"', '=""'], None),
        (['=""'], None),
        (['="a b"'], None),
        (['="a, b'], None),  # no closing quote
    ],
)
def test_qualified_forms_hold_for_the_named_fields_only(name, arguments, fields):
    """RFC 9111 §5.2.2.4, §5.2.2.7. One occurrence that names none holds for the whole."""
    directive = name.replace("_", "-")
    directives = parse_cache_control(", ".join(directive + argument for argument in arguments))
    assert getattr(directives, name) is (fields is None)
    assert getattr(directives, f"{name}_fields") == (fields or set())


def test_a_shared_cache_keeps_nothing_that_is_for_one_client():
    """RFC 9111 §5.2.2.3: must-understand overrides no-store, not private."""
    assert not parse_cache_control("public").for_one_client
    assert parse_cache_control("private").for_one_client
    assert parse_cache_control("no-store").for_one_client
    assert not parse_cache_control("no-store, must-understand").for_one_client
    assert parse_cache_control("private, must-understand").for_one_client


@given(st.text(alphabet='max-age=0123456789s,no-chepriv"\\ \t;*é', max_size=60) | st.text())
def test_any_text_parses_and_no_freshness_is_longer_than_written(value):
    directives = parse_cache_control(value)
    written = [int(number) for number in re.findall(r"[0-9]+", value.replace("\\", ""))]
    for lifetime in (directives.max_age, directives.s_maxage, directives.stale_while_revalidate):
        assert lifetime is None or 0 <= lifetime <= max(written, default=0)
    parse_targeted(value)


def _remembered():
    caches = (cache_control._remembered, cache_control._targeted_remembered)
    return [cache.cache_info() for cache in caches]


@pytest.mark.parametrize("value", HOSTILE)
def test_hostile_values_cost_little_and_are_not_remembered(value):
    before = _remembered()
    began = time.process_time()
    parse_cache_control(value)
    parse_targeted(value)
    assert time.process_time() - began < 0.5
    assert _remembered() == before


def test_long_and_short_values_mean_the_same():
    padded = "max-age=60, private" + " " * REMEMBERED
    assert parse_cache_control(padded) == parse_cache_control("max-age=60, private")
    assert parse_targeted(padded) == parse_targeted("max-age=60, private")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("max-age=60", CacheControl(max_age=60)),
        ("max-age=60;x=1, foo", CacheControl(max_age=60)),  # §2.1: parameters are ignored
        ("max-age=60, max-age=30", CacheControl(max_age=30)),  # RFC 9651: the last one wins
        ("no-store, max-age=-1", CacheControl(no_store=True, max_age=0)),
        ('max-age="60"', CacheControl(max_age=60)),
        ("max-age=tok", CacheControl(max_age=0)),
        ("max-age=1.5", CacheControl(max_age=0)),
        ("max-age", CacheControl(max_age=0)),
        ("max-age=(1 2)", CacheControl(max_age=0)),
        ("max-age=@60", CacheControl(max_age=0)),
        ("no-store=(a b)", CacheControl(no_store=True)),
        ('private="X-A"', CacheControl(private_fields=frozenset({"x-a"}))),
        ("foo=:AAA=:", CacheControl()),
    ],
)
def test_targeted_directives(value, expected):
    """RFC 9213 §2.1: a Dictionary of cache directives."""
    assert parse_targeted(value) == expected


@pytest.mark.parametrize("value", ["", " ", "max-age=60,", "Max-Age=60", "max-age =60", "max-age=",
                                   "max-age=9999999999999999", "é=1", "a=日", "x=@99999999999999",
                                   '"max-age"=60', "max-age=60, &", "\x00"])  # fmt: skip
def test_broken_or_empty_targeted_field_is_as_if_absent(value):
    """RFC 9213 §2.2."""
    assert parse_targeted(value) is None
    fields = Fields([("CDN-Cache-Control", value), ("Cache-Control", "max-age=5")])
    assert response_directives(fields) == (CacheControl(max_age=5), False)


def test_targeted_field_is_used_alone():
    """RFC 9213 §2.2: Cache-Control is ignored where a valid targeted field is there."""
    fields = Fields([("Cache-Control", "no-store"), ("CDN-Cache-Control", "max-age=5")])
    assert response_directives(fields) == (CacheControl(max_age=5), True)
    assert request_directives(fields) == CacheControl(no_store=True)


def test_pragma_says_nothing():
    """RFC 9111 §5.4: deprecated."""
    assert request_directives(Fields([("Pragma", "no-cache")])) == NOTHING_SAID
