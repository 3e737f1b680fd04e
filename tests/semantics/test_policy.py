"""The defaults in which RFC 9111 leaves a choice."""

from dataclasses import FrozenInstanceError

import pytest

from cdn.semantics.policy import CachePolicy


def test_defaults():
    policy = CachePolicy()
    assert policy.heuristic_fraction == 0.1  # RFC 9111 §4.2.2: a typical setting
    assert policy.stale_when_disconnected == 24 * 3600
    assert (policy.stale_if_error, policy.stale_while_revalidate) == (0, 0)
    assert policy.hit_for_miss == 30


def test_a_policy_does_not_change_under_those_who_hold_it():
    with pytest.raises(FrozenInstanceError):
        CachePolicy().hit_for_miss = 1.0
