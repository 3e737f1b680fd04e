"""RFC 9111 §4.2, RFC 5861."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdn.semantics.cache_control import parse_cache_control
from cdn.semantics.freshness import (
    HEURISTIC_STATUSES,
    current_age,
    freshness_lifetime,
    stale_forbidden,
    stale_window,
)
from cdn.semantics.policy import CachePolicy
from tests.semantics.messages import NOW, at, stored

POLICY = CachePolicy()
DAY = 86_400


@given(
    st.integers(0, 10**6),
    st.integers(-1000, 1000),
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=8),
)
def test_age_is_never_negative_and_never_less_as_time_passes(age, dated, moments):
    """RFC 9111 §4.2.3: current_age = corrected_initial_age + resident_time."""
    one = stored(("Age", str(age)), ("Date", at(dated)))
    ages = [current_age(one, NOW + moment) for moment in sorted(moments)]
    assert all(value >= one.initial_age >= age >= 0 for value in ages)
    assert ages == sorted(ages)


def test_a_wall_clock_that_steps_back_makes_nothing_younger_than_it_came():
    one = stored(("Age", "30"))
    assert current_age(one, NOW + 12.5) == 42.5
    assert current_age(one, NOW - 1000) == 30


def test_an_age_that_nobody_can_read_stays_so():
    assert current_age(stored(("Age", "x")), NOW + 1) == math.inf


@pytest.mark.parametrize("status", sorted(HEURISTIC_STATUSES - {206}))
def test_heuristic_of_a_tenth_since_last_modified(status):
    """RFC 9111 §4.2.2, RFC 9110 §15.1."""
    one = stored(("Last-Modified", at(-1000)), status=status)
    assert freshness_lifetime(one, POLICY) == 100


@pytest.mark.parametrize("status", [201, 202, 302, 303, 307, 400, 403, 500, 503])
def test_no_heuristic_for_other_statuses_but_with_public(status):
    modified = ("Last-Modified", at(-1000))
    assert freshness_lifetime(stored(modified, status=status), POLICY) == 0
    public = stored(modified, ("Cache-Control", "public"), status=status)
    assert freshness_lifetime(public, POLICY) == 100


@pytest.mark.parametrize(
    ("lines", "policy", "seconds"),
    [
        ([("Last-Modified", at(-1000)), ("Date", at(-500))], POLICY, 50),
        ([("Last-Modified", at(1000))], POLICY, 0),
        ([("Last-Modified", "x")], POLICY, 0),
        ([], POLICY, 0),
        ([("Last-Modified", at(-(10**9)))], POLICY, DAY),
        ([("Last-Modified", at(-1000))], CachePolicy(heuristic_fraction=0), 0),
        ([("Last-Modified", at(-1000)), ("Cache-Control", "max-age=7")], POLICY, 7),
        ([("Last-Modified", at(-1000)), ("Expires", "0")], POLICY, 0),
    ],
)
def test_bounds_of_the_heuristic(lines, policy, seconds):
    """RFC 9111 §4.2.2: MUST NOT be used beside an explicit expiration time."""
    assert freshness_lifetime(stored(*lines), policy) == seconds


@pytest.mark.parametrize(
    ("value", "forbidden"),
    [("max-age=1", False), ("must-revalidate", True), ("proxy-revalidate", True),
     ("no-cache", True),
     ('no-cache="a"', False), ("s-maxage=9", True), ("no-store", True), ("private", True),
     ("no-store, must-understand", False), ("public, immutable", False)],
)  # fmt: skip
def test_a_response_may_forbid_its_stale_use(value, forbidden):
    """RFC 9111 §4.2.4, §5.2.2.10."""
    directives = parse_cache_control(value)
    assert stale_forbidden(directives) is forbidden
    one = stored(("Cache-Control", value + ", stale-if-error=5, stale-while-revalidate=5"))
    generous = CachePolicy(stale_if_error=60, stale_while_revalidate=60)
    if forbidden:
        assert stale_window(one, generous) == (0, 0, 0)


@pytest.mark.parametrize(
    ("value", "policy", "window"),
    [
        ("max-age=1", POLICY, (0, 0, DAY)),
        ("max-age=1, stale-while-revalidate=5", POLICY, (5, 0, DAY)),
        ("max-age=1, stale-if-error=5", POLICY, (0, 5, DAY)),
        (f"max-age=1, stale-if-error={2 * DAY}", POLICY, (0, 2 * DAY, 2 * DAY)),
        ("max-age=1", CachePolicy(10.0, 0, 1, 2, 3), (3, 2, 2)),
        (
            "max-age=1, stale-if-error=0, stale-while-revalidate=0",
            CachePolicy(stale_if_error=9, stale_while_revalidate=9),
            (0, 0, DAY),
        ),
        ("public", POLICY, (0, 0, 0)),  # never said to be fresh: nothing to extend
    ],
)
def test_stale_windows(value, policy, window):
    """RFC 5861 §3, §4; RFC 9111 §4.2.4. The response's own words come before the policy's."""
    assert stale_window(stored(("Cache-Control", value)), policy) == window
