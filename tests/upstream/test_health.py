"""The circuit breaker, under a clock that only the test moves."""

import pytest

from cdn.upstream.health import HealthTracker, NodeState
from tests.upstream.scripted import Clock


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def health(clock):
    return HealthTracker(clock)


def fail(health, times=3):
    for _ in range(times):
        health.failed("a")


def probe(health, outcome):
    """One request to a node that is due for it."""
    assert health.usable("a")
    health.asking("a")
    outcome("a")


def test_an_unknown_node_is_usable(health):
    health.asking("a")
    health.succeeded("a")
    assert health.usable("a")
    assert health.states() == []


def test_three_failures_put_a_node_out_and_no_other(health):
    fail(health, 2)
    assert health.usable("a")
    fail(health, 1)
    assert not health.usable("a")
    assert health.usable("b")


def test_successes_between_do_not_hide_failures(health):
    for _ in range(3):
        health.succeeded("a")
        health.failed("a")
    assert not health.usable("a")


def test_failures_count_within_the_window_only(health, clock):
    fail(health, 2)
    clock.now += 10.0
    fail(health, 2)
    assert health.usable("a")
    clock.now += 9.9
    fail(health, 1)
    assert not health.usable("a")


def test_after_its_time_one_probe_is_let_through(health, clock):
    fail(health)
    clock.now += 9.9
    assert not health.usable("a")
    clock.now += 0.1
    assert health.usable("a")
    assert health.usable("a"), "asking whether costs nothing"
    health.asking("a")
    assert not health.usable("a")


def test_a_probe_that_succeeds_brings_the_node_back(health, clock):
    fail(health)
    clock.now += 10
    probe(health, health.succeeded)
    assert health.usable("a")
    fail(health, 2)
    assert health.usable("a"), "what was before does not count any more"


def test_the_out_time_doubles_up_to_two_minutes(health, clock):
    fail(health)
    lengths = []
    for _ in range(6):
        began = clock.now
        while not health.usable("a"):
            clock.now += 1
        lengths.append(clock.now - began)
        probe(health, health.failed)
    assert lengths == [10, 20, 40, 80, 120, 120]


def test_a_node_that_fails_again_soon_after_its_return_stays_out_longer(health, clock):
    fail(health)
    clock.now += 10
    probe(health, health.succeeded)
    fail(health)
    clock.now += 19.9
    assert not health.usable("a")
    clock.now += 0.1
    assert health.usable("a")


def test_a_window_without_failure_proves_a_node_healthy(health, clock):
    fail(health)
    clock.now += 10
    probe(health, health.succeeded)
    clock.now += 10
    health.succeeded("a")
    fail(health)
    clock.now += 10
    assert health.usable("a")


def test_a_recent_failure_leaves_it_unproven(health, clock):
    fail(health)
    clock.now += 10
    probe(health, health.succeeded)
    clock.now += 5
    fail(health, 1)
    clock.now += 5
    health.succeeded("a")
    fail(health, 2)
    clock.now += 10
    assert not health.usable("a")


def test_what_was_under_way_when_the_node_was_put_out_changes_nothing(health, clock):
    fail(health)
    fail(health, 20)
    health.succeeded("a")
    assert not health.usable("a")
    clock.now += 10
    assert health.usable("a")


def test_an_answer_from_before_does_not_outweigh_a_failed_probe(health, clock):
    fail(health)
    clock.now += 10
    probe(health, health.failed)
    health.succeeded("a")
    clock.now += 19.9
    assert not health.usable("a")


def test_a_probe_that_never_reports_does_not_keep_the_node_out(health, clock):
    fail(health)
    clock.now += 10
    health.asking("a")
    clock.now += 9.9
    assert not health.usable("a")
    clock.now += 0.1
    probe(health, health.succeeded)
    assert health.usable("a")


def test_states_tell_the_status_page(health, clock):
    fail(health)
    health.failed("b")
    assert health.states() == [
        NodeState("a", usable=False, failures=0, out_until=1010.0, ejections=1),
        NodeState("b", usable=True, failures=1, out_until=None, ejections=0),
    ]
    clock.now += 10
    probe(health, health.succeeded)
    assert health.states() == [
        NodeState("a", usable=True, failures=0, out_until=None, ejections=1),
        NodeState("b", usable=True, failures=0, out_until=None, ejections=0),
    ]
