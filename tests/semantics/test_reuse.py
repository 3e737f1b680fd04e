"""RFC 9111 §4 (reuse), §5.2.1 (what clients ask for), §4.2.4 and RFC 5861 (stale)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdn.semantics.freshness import current_age, freshness_lifetime
from cdn.semantics.policy import CachePolicy
from cdn.semantics.reuse import (
    Forward,
    Fwd,
    Hit,
    OnlyIfCachedMiss,
    ServeStale,
    decide,
    stale_on_error,
)
from cdn.semantics.validation import freshen
from tests.semantics.messages import NOW, asking, at, response, stored

POLICY = CachePolicy()
DEAF = CachePolicy(request_directives=False)
ETAG = ("ETag", '"a"')


def _decide(kept, after=0.0, wants=None, policy=POLICY):
    lines = [] if wants is None else [("Cache-Control", wants)]
    return decide(asking(*lines), kept, policy, NOW + after)


def _kept(control, *lines):
    return stored(("Cache-Control", control), *lines)


def test_nothing_stored():
    """RFC 9211 §2.2: uri-miss, vary-miss."""
    assert decide(asking(), None, POLICY, NOW) == Forward(Fwd.URI_MISS)
    assert decide(asking(), None, POLICY, NOW, other_variants=True) == Forward(Fwd.VARY_MISS)


@pytest.mark.parametrize("method", ["POST", "PUT", "OPTIONS", "FOO"])
def test_other_methods_go_up(method):
    """RFC 9111 §4: the request method must allow the stored response to be used."""
    decision = decide(asking(method=method), _kept("max-age=60"), POLICY, NOW)
    assert decision == Forward(Fwd.METHOD)


def test_head_is_answered_from_a_stored_get():
    """RFC 9110 §9.3.2."""
    assert isinstance(decide(asking(method="HEAD"), _kept("max-age=60"), POLICY, NOW), Hit)


def test_fresh_is_a_lifetime_greater_than_the_age():
    """RFC 9111 §4.2: response_is_fresh = (freshness_lifetime > current_age)."""
    kept = stored(("Cache-Control", "max-age=60"), ("Age", "10"), ETAG)
    assert _decide(kept, 49) == Hit(kept, 59, 1)
    assert _decide(kept, 50) == Forward(Fwd.STALE, kept)


@given(st.integers(0, 100), st.integers(0, 100), st.floats(-200, 200), st.integers(-50, 50))
def test_hits_are_fresh_and_without_windows_nothing_stale_is_served(lifetime, age, now, date):
    kept = stored(("Cache-Control", f"max-age={lifetime}"), ("Age", str(age)), ("Date", at(date)))
    decision = _decide(kept, now)
    fresh = freshness_lifetime(kept, POLICY) > current_age(kept, NOW + now)
    assert isinstance(decision, Hit if fresh else Forward)


def test_without_a_validator_there_is_nothing_to_validate_by():
    assert _decide(_kept("max-age=1"), 2) == Forward(Fwd.STALE)


@pytest.mark.parametrize("control", ["no-cache, max-age=60", "private, max-age=60",
                                     "no-store, max-age=60"])  # fmt: skip
def test_what_may_be_used_only_after_validation(control):
    """RFC 9111 §5.2.2.4; and what a 304 has made private (§5.2.2.7) since it was stored."""
    public = _kept("max-age=60, stale-while-revalidate=60", ETAG)
    kept = freshen(public, response(("Cache-Control", control), ETAG, status=304), NOW, NOW)
    assert _decide(kept) == Forward(Fwd.STALE, kept)
    assert _decide(kept, 61, "max-stale") == Forward(Fwd.STALE, kept)
    for disconnected in (False, True):
        generous = CachePolicy(stale_if_error=99)
        assert stale_on_error(asking(), kept, generous, NOW + 70, disconnected) is None


def test_qualified_no_cache_leaves_the_rest_usable():
    """RFC 9111 §5.2.2.4."""
    assert isinstance(_decide(_kept('no-cache="x-a", max-age=60')), Hit)


@pytest.mark.parametrize(
    ("wants", "after", "outcome"),
    [
        ("no-cache", 0, Fwd.REQUEST),
        ("no-store", 0, Fwd.REQUEST),
        ("max-age=10", 10, Hit),
        ("max-age=10", 11, Fwd.REQUEST),
        ("max-age=0", 0, Hit),
        ("max-age=0", 1, Fwd.REQUEST),
        ("max-age=x", 1, Fwd.REQUEST),
        ("max-age=10, max-stale=5", 15, Hit),
        ("max-age=10, max-stale=5", 16, Fwd.REQUEST),
        ("max-age=1, max-stale", 160, ServeStale),
        ("min-fresh=10", 50, Hit),
        ("min-fresh=10", 51, Fwd.REQUEST),
        ("min-fresh=10", 61, Fwd.STALE),
        ("max-stale", 600, ServeStale),
        ("max-stale=5", 65, ServeStale),
        ("max-stale=5", 66, Fwd.STALE),
        ("max-stale=x", 61, Fwd.STALE),
        ("foo", 0, Hit),
    ],
)
def test_what_the_client_takes(wants, after, outcome):
    """RFC 9111 §5.2.1, of a response that is fresh for 60 s."""
    kept = _kept("max-age=60", ETAG)
    decision = _decide(kept, after, wants)
    if isinstance(outcome, Fwd):
        assert decision == Forward(outcome, kept)
    else:
        assert isinstance(decision, outcome)
        assert decision.ttl == 60 - after
    assert isinstance(_decide(kept, after, wants, DEAF), Hit if after < 60 else Forward)


@pytest.mark.parametrize("control", ["must-revalidate", "proxy-revalidate", "s-maxage=60"])
def test_a_client_cannot_ask_for_what_the_response_forbids(control):
    """RFC 9111 §5.2.2.2, §5.2.2.8, §5.2.2.10: MUST NOT be reused stale."""
    kept = _kept(f"max-age=60, {control}, stale-while-revalidate=99, stale-if-error=99")
    assert _decide(kept, 61, "max-stale") == Forward(Fwd.STALE)
    assert _decide(kept, 61) == Forward(Fwd.STALE)
    asked = asking(("Cache-Control", "stale-if-error=99"))
    for disconnected in (False, True):
        assert stale_on_error(asked, kept, POLICY, NOW + 61, disconnected) is None


@pytest.mark.parametrize(
    ("after", "wants", "served"),
    [(60, None, True), (64, None, True), (65, None, False), (61, "max-age=100", False),
     (61, "min-fresh=0", False), (61, "max-stale=2", True), (63, "max-stale=2", False)],
)  # fmt: skip
def test_stale_while_revalidate(after, wants, served):
    """RFC 5861 §3; RFC 9111 §5.2.1.1: with max-age alone the client wants nothing stale."""
    kept = _kept("max-age=60, stale-while-revalidate=5", ETAG)
    expected = ServeStale(kept, after, 60 - after, revalidate=True)
    assert _decide(kept, after, wants) == (expected if served else Forward(Fwd.STALE, kept))


def test_only_if_cached():
    """RFC 9111 §5.2.1.7."""
    asked = asking(("Cache-Control", "only-if-cached"))
    assert decide(asked, None, POLICY, NOW) == OnlyIfCachedMiss()
    assert decide(asked, _kept("max-age=1"), POLICY, NOW + 2) == OnlyIfCachedMiss()
    assert isinstance(decide(asked, _kept("max-age=1"), POLICY, NOW), Hit)
    assert decide(asked, None, DEAF, NOW) == Forward(Fwd.URI_MISS)


@pytest.mark.parametrize(
    ("control", "wants", "after", "disconnected", "served"),
    [
        ("max-age=60", None, 61, False, False),
        ("max-age=60, stale-if-error=5", None, 64, False, True),
        ("max-age=60, stale-if-error=5", None, 65, False, False),
        ("max-age=60", "stale-if-error=5", 64, False, True),  # RFC 5861 §4: in requests as well
        ("max-age=60", "stale-if-error=5", 65, False, False),
        ("max-age=60", None, 61, True, True),
        ("max-age=60", None, 60 + 86_399, True, True),
        ("max-age=60", None, 60 + 86_400, True, False),
        ("public", None, 1, True, False),
        ("no-cache, max-age=60", None, 1, True, False),
    ],
)
def test_stale_in_place_of_an_error(control, wants, after, disconnected, served):
    """RFC 5861 §4; RFC 9111 §4.2.4: disconnected."""
    kept = _kept(control, ETAG)
    asked = asking() if wants is None else asking(("Cache-Control", wants))
    decision = stale_on_error(asked, kept, POLICY, NOW + after, disconnected)
    expected = ServeStale(kept, after, 60 - after, revalidate=False)
    assert decision == (expected if served else None)


def test_an_unreadable_age_is_never_served():
    kept = stored(("Cache-Control", "max-age=60"), ("Age", "x"))
    assert _decide(kept) == Forward(Fwd.STALE)
    assert stale_on_error(asking(), kept, POLICY, NOW, disconnected=True) is None
    assert stale_on_error(asking(), kept, DEAF, NOW, disconnected=True) is None
