"""The ring's promises: balance, few moves, agreement between machines."""

from collections import Counter
from statistics import pstdev

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdn.hashing.ring import HashRing, overloaded

KEYS = [b"http://www.example.com/assets/%d.css" % number for number in range(100_000)]
SOME_KEYS = KEYS[:300]

weights_of_nodes = st.dictionaries(
    st.text(st.characters(codec="ascii"), min_size=1, max_size=12),
    st.floats(0.1, 4.0),
    min_size=2,
    max_size=6,
)


def equal_nodes(count: int) -> dict[str, float]:
    return {f"shield-{number}": 1.0 for number in range(1, count + 1)}


@pytest.mark.parametrize("count", [1, 2, 4, 9])
def test_one_more_node_takes_its_share_and_nothing_else_moves(count):
    before, after = HashRing(equal_nodes(count)), HashRing(equal_nodes(count + 1))
    moved_to = [new for key in KEYS if (new := after.owner(key)) != before.owner(key)]
    assert set(moved_to) == {f"shield-{count + 1}"}
    assert len(moved_to) / len(KEYS) <= 1 / (count + 1) + 0.02


def test_load_over_ten_equal_nodes_is_even():
    ring = HashRing(equal_nodes(10))
    load = Counter(map(ring.owner, KEYS))
    assert len(load) == 10
    assert pstdev(load.values()) < 0.05 * len(KEYS) / 10


def test_a_node_gets_keys_by_its_weight():
    ring = HashRing({"small": 0.5, "plain": 1.0, "large": 2.5})
    load = Counter(map(ring.owner, KEYS))
    for name, weight in {"small": 0.5, "plain": 1.0, "large": 2.5}.items():
        assert load[name] / len(KEYS) == pytest.approx(weight / 4, abs=0.03)


def test_names_of_one_character_do_not_share_their_points():
    # Hashed with the number as a seed they did: one node then got all that two should have.
    ring = HashRing({str(number): 1 for number in range(10)})
    load = Counter(map(ring.owner, KEYS))
    assert min(load.values()) > 0.85 * len(KEYS) / 10


def test_owners_do_not_change_with_the_program():
    # Every node must come to the same answer: a change here is a change of the whole cache.
    ring = HashRing({"yokohama": 1, "saitama": 1})
    owners = [ring.owner(b"http://example.com/%d" % number) for number in range(8)]
    assert owners == [
        "yokohama",
        "yokohama",
        "saitama",
        "yokohama",
        "yokohama",
        "saitama",
        "yokohama",
        "yokohama",
    ]


def test_a_tiny_weight_still_has_a_place():
    ring = HashRing({"tiny": 0.0001, "plain": 1})
    assert set(ring.owners(b"key")) == {"tiny", "plain"}


@settings(max_examples=25, deadline=None)
@given(weights=weights_of_nodes, order=st.randoms(use_true_random=False))
def test_the_order_of_the_configuration_does_not_matter(weights, order):
    names = list(weights)
    order.shuffle(names)
    ring, shuffled = HashRing(weights, 64), HashRing({name: weights[name] for name in names}, 64)
    assert [list(ring.owners(key)) for key in SOME_KEYS] == [
        list(shuffled.owners(key)) for key in SOME_KEYS
    ]


@settings(max_examples=25, deadline=None)
@given(weights=weights_of_nodes, data=st.data())
def test_a_node_that_goes_leaves_its_keys_to_the_next_owner_and_others_alone(weights, data):
    gone = data.draw(st.sampled_from(sorted(weights)))
    ring = HashRing(weights, 64)
    without = HashRing({name: weight for name, weight in weights.items() if name != gone}, 64)
    for key in SOME_KEYS:
        heirs = [name for name in ring.owners(key) if name != gone]
        assert list(without.owners(key)) == heirs


@settings(max_examples=25, deadline=None)
@given(weights=weights_of_nodes, key=st.binary())
def test_owners_are_all_nodes_once_and_the_owner_first(weights, key):
    ring = HashRing(weights, 64)
    owners = list(ring.owners(key))
    assert owners[0] == ring.owner(key)
    assert sorted(owners) == sorted(weights)
    assert len(ring) == len(weights)


def test_a_ring_of_nobody_is_refused():
    with pytest.raises(ValueError, match="no nodes; name at least one"):
        HashRing({})


@pytest.mark.parametrize("weight", [0, -1, float("nan"), float("inf")])
def test_a_weight_that_is_no_weight_is_refused(weight):
    with pytest.raises(ValueError, match=r"the weight of 'a' is .*; give it a number above 0"):
        HashRing({"a": weight})


EQUAL = {"a": 1.0, "b": 1.0}


@pytest.mark.parametrize(
    ("in_flight", "weights", "expected"),
    [
        ({}, EQUAL, False),
        ({"a": 256}, EQUAL, False),  # not busy, however uneven
        ({"a": 257}, EQUAL, True),
        ({"a": 500, "b": 500}, EQUAL, False),  # busy, but so are all
        ({"a": 500, "b": 300}, EQUAL, False),  # exactly 1.25 × the mean
        ({"a": 501, "b": 300}, EQUAL, True),
        ({"a": 501, "b": 300}, {"a": 2.0, "b": 1.0}, False),  # twice the weight, twice the work
        ({"a": 2000, "b": 5}, {"a": 1.0}, False),  # nobody else may be asked
        ({"a": 300, "gone": 9000}, EQUAL, True),  # the work of one that is out counts for nothing
    ],
)
def test_overload_needs_a_busy_node_and_an_unfair_share(in_flight, weights, expected):
    assert overloaded("a", in_flight, weights) is expected


@given(
    in_flight=st.dictionaries(st.sampled_from("abcd"), st.integers(0, 5000)),
    weights=st.fixed_dictionaries({name: st.floats(0.1, 10) for name in "abcd"}),
)
def test_somebody_is_never_overloaded(in_flight, weights):
    assert not all(overloaded(name, in_flight, weights) for name in weights)
