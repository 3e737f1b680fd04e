"""No-Vary-Search."""

import pytest

from cdn.semantics.search import SearchRule, loose_key, parse_no_vary_search, path_key

NONE: frozenset[str] = frozenset()


def key(target: str) -> bytes:
    return f"http://a.example{target}".encode()


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        ("key-order", SearchRule(NONE, NONE, True)),
        ("params", SearchRule(None, NONE, False)),
        ('params=("a" "b")', SearchRule(frozenset("ab"), NONE, False)),
        ('params, except=("id"), key-order', SearchRule(None, frozenset({"id"}), True)),
        ('params=("a"), key-order', SearchRule(frozenset("a"), NONE, True)),
        ("key-order;x=1", SearchRule(NONE, NONE, True)),
        (None, None),
        ("", None),
        ("params=?0", None),
        ("key-order=?0", None),
        ("params=()", None),
        ("params=1", None),
        ("params=(a)", None),
        ('params=("a"), except=("b")', None),
        ('except=("b")', None),
        ("params, except=1", None),
        ("key-order=1", None),
        ('params=("a"', None),
        ("x" * 2000, None),
    ],
)
def test_a_field_is_a_rule_or_nothing(value, rule):
    assert parse_no_vary_search(value) == rule


@pytest.mark.parametrize(
    ("value", "one", "other", "same"),
    [
        ("key-order", "/?a=1&b=2", "/?b=2&a=1", True),
        ("key-order", "/?a=1&a=2", "/?a=2&a=1", False),  # among equal keys order is data
        ("key-order", "/?a=1", "/?a=2", False),
        ("key-order", "/x?a=1", "/y?a=1", False),
        ("params", "/?a=1", "/", True),
        ('params=("a")', "/?a=1&b=2", "/?b=2&a=3", True),
        ('params=("a")', "/?b=2&c=3", "/?c=3&b=2", False),
        ('params=("a")', "/?%61=1", "/?a=2", True),
        ('params=("a")', "/?b=", "/", False),
        ('params, except=("id")', "/?id=1&x=1", "/?y=2&id=1", True),
        ('params, except=("id")', "/?id=1", "/?id=2", False),
    ],
)
def test_targets_have_one_name_where_the_rule_says_so(value, one, other, same):
    rule = parse_no_vary_search(value)
    assert rule is not None
    assert (loose_key(key(one), rule) == loose_key(key(other), rule)) is same


def test_names_under_two_rules_never_meet_nor_meet_a_target():
    rules = [parse_no_vary_search(value) for value in ("params", "key-order", 'params=("b")')]
    names = {loose_key(key("/?a=1"), rule) for rule in rules if rule}
    assert len(names) == 3
    assert all(name.startswith(path_key(key("/?a=1")) + b"#") for name in names)
