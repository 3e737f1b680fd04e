"""Every policy against a model that looks at everything, and the bounds that none may pass."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdn.storage.eviction.ghosts import Ghosts
from cdn.storage.eviction.greedy_dual import GDG, GDSF
from cdn.storage.eviction.lru import LRU
from cdn.storage.eviction.s3_fifo import S3Fifo
from cdn.storage.eviction.sieve import Sieve
from tests.storage.eviction_models import GdsfModel, LruModel, RamModel, S3FifoModel, SieveModel

PAIRS = [(LRU, LruModel), (Sieve, SieveModel), (S3Fifo, S3FifoModel), (GDSF, GdsfModel)]
PAIRS.append((GDG, RamModel))
POLICIES = [policy for policy, _ in PAIRS]

BUDGET = 100
CALLS = st.tuples(
    st.sampled_from(["ask", "ask", "ask", "ask", "remove", "evict"]),
    st.integers(0, 11),
)
SIZES = st.lists(st.integers(0, 40), min_size=12, max_size=12)


@pytest.mark.parametrize(("policy", "model"), PAIRS)
@settings(max_examples=150, deadline=None)
@given(calls=st.lists(CALLS, max_size=150), sizes=SIZES)
def test_the_victims_are_those_of_the_model(policy, model, calls, sizes):
    policy, model = policy(BUDGET), model(BUDGET)
    for call, key in calls:
        if call == "evict":
            if model.sizes:
                assert policy.evict() == model.evict()
        elif call == "remove":
            if key in model.sizes:
                policy.remove(key)
                model.remove(key)
        elif key in model.sizes:
            policy.touch(key)
            model.touch(key)
        else:
            victims = []
            while sum(model.sizes.values()) + sizes[key] > BUDGET:
                victims.append(model.evict())
            model.enter(key, sizes[key])
            assert policy.admit(key, sizes[key]) == victims
        assert policy.used == sum(model.sizes.values()) <= BUDGET
        assert {key for key in range(12) if key in policy} == set(model.sizes)
        assert len(policy) == len(model.sizes)


@pytest.mark.parametrize("policy", POLICIES)
def test_what_can_not_be_is_refused_and_changes_nothing(policy):
    policy = policy(BUDGET)
    policy.admit("in", 60)
    with pytest.raises(ValueError, match="101 bytes never fit"):
        policy.admit("huge", 101)
    for call in (lambda: policy.admit("in", 1), lambda: policy.touch("out")):
        with pytest.raises(KeyError):
            call()
    with pytest.raises(KeyError):
        policy.remove("out")
    assert ("in" in policy, policy.used) == (True, 60)
    assert policy.admit("whole", BUDGET) == ["in"]
    assert policy.evict() == "whole"
    with pytest.raises(KeyError):
        policy.evict()
    assert (len(policy), policy.used) == (0, 0)


# --- what each is for -----------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [S3Fifo, Sieve, GDG])
def test_a_scan_does_not_wash_out_what_is_used(policy):
    policy = policy(BUDGET)
    for key in range(8):
        policy.admit(key, 10)
        policy.touch(key, 3)
    victims = [victim for number in range(100, 112) for victim in policy.admit(number, 10)]
    assert min(victims) >= 100
    assert all(key in policy for key in range(8))


@pytest.mark.parametrize("policy", [GDSF, GDG])
def test_uses_told_at_the_last_look_are_in_time(policy):
    policy, untold = policy(BUDGET), {"used": 9, "other": 0}
    looked = []

    def tell(key):
        looked.append(key)
        if uses := untold.pop(key, 0):
            policy.touch(key, uses)

    policy.last_look = tell
    policy.admit("used", 10)
    policy.admit("other", 10)
    victims = [victim for number in range(12) for victim in policy.admit(number, 10)]
    assert ("used" in policy, "other" in policy, untold) == (True, False, {})
    assert set(victims) <= set(looked)  # nobody goes without


def test_ghosts_keep_a_reputation():
    policy = GDG(BUDGET)
    policy.admit("known", 10)
    policy.touch("known", 5)
    policy.remove("known")
    policy.admit("known", 10)  # its seventh use
    for number in range(40):
        policy.admit(number, 10)
    assert "known" in policy
    plain = GDG(BUDGET)
    plain.admit("unknown", 10)
    for number in range(40):
        plain.admit(number, 10)
    assert "unknown" not in plain


def test_small_ones_stay_and_yesterdays_crowd_goes():
    policy = GDG(BUDGET)
    policy.admit("large", 60)
    policy.admit("small", 1)
    assert policy.admit("next", 60) == ["large"]
    policy.touch("small", 1_000_000)
    goes = next(number for number in range(100_000) if "small" in policy.admit(number, 50))
    assert goes > 100  # not at once, but it does


# --- bounds ---------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9), st.integers(1, 30)), max_size=80))
def test_ghosts_are_those_of_the_last_bytes(steps):
    ghosts, left = Ghosts(BUDGET), []  # key, size, uses; the newest last
    for number, (leaves, key, size) in enumerate(steps, 1):
        if leaves:
            ghosts.remember(key, size, number)
            left.append((key, size, number))
            continue
        newest_first = left[::-1]
        found = next((n for n, item in enumerate(newest_first) if item[0] == key), None)
        recalled = ghosts.recall(key)
        if found is None:
            assert recalled == 0
            continue
        since = sum(item[1] for item in newest_first[: found + 1])
        if since <= BUDGET // 2:
            assert recalled == newest_first[found][2]
        if since > BUDGET + 30:
            assert recalled == 0
        left = [item if item[0] != key else (None, item[1], 0) for item in left]


def test_ghosts_are_bounded():
    ghosts = Ghosts(1000)
    for key in range(10_000):
        ghosts.remember(key, 10, 1)
        assert len(ghosts) <= 100


def test_a_heap_does_not_grow_where_nothing_is_evicted():
    policy = GDG(1 << 30)
    for _ in range(500):
        policy.admit("freshened", 10)
        policy.admit("purged", 10)
        policy.remove("freshened")
        policy.remove("purged")
    assert len(policy._heap) <= 64


def test_to_use_an_entry_is_to_touch_its_key_while_it_is_present():
    by_key, by_entry = GDG(100), GDG(100)
    for policy in (by_key, by_entry):
        for key in "abcdefghij":
            policy.admit(key, 10)
    entries = {key: by_entry.entry(key) for key in "abcdefghij"}
    for key, uses in (("a", 1), ("c", 3), ("b", 100), ("a", 2)):
        by_key.touch(key, uses)
        by_entry.use(entries[key], uses)
    gone = [by_entry.evict() for _ in range(5)]
    assert gone == [by_key.evict() for _ in range(5)]
    by_entry.remove("b")
    assert [key for key, entry in entries.items() if not entry.present] == sorted([*gone, "b"])
    with pytest.raises(KeyError):
        by_entry.entry("b")
