"""Cache-Groups (RFC 9875)."""

import pytest

from cdn.semantics.groups import group_tags, invalidated_groups, string_list
from cdn.semantics.message import Fields, Request, Response


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ('"a", "b"', {"a", "b"}),
        ('"a";x=1', {"a"}),
        ('"A"', {"A"}),  # §2.1: compared character by character
        ("", set()),
        (None, set()),
        ("token", set()),
        ('"a", 1', set()),
        ('"a", ("b")', set()),
        ('"a', set()),
        (f'"{"x" * 129}", "b"', {"b"}),
        ('"ü"', set()),
    ],
)
def test_names_are_a_list_of_strings(value, names):
    """RFC 9875 §2: a structured List of Strings; anything else is as if it were not there."""
    assert string_list(value) == names


def test_at_least_128_groups_are_supported():
    """RFC 9875 §2.1"""
    value = ", ".join(f'"group-{n:026}"' for n in range(200))
    assert {f"group-{n:026}" for n in range(128)} == string_list(value)


def test_a_group_belongs_to_its_origin():
    """RFC 9875 §2: the same name at another origin is another group."""
    tags = {
        tag
        for key in (b"http://a.example/x", b"https://a.example/x", b"http://a.example:81/x")
        for tag in group_tags(key, frozenset({"g"}))
    }
    assert tags == {
        (b"http://a.example", "g"),
        (b"https://a.example", "g"),
        (b"http://a.example:81", "g"),
    }


@pytest.mark.parametrize(
    ("method", "status", "names"),
    [("POST", 200, {"g"}), ("PUT", 303, {"g"}), ("GET", 200, set()), ("POST", 500, set())],
)
def test_only_an_unsafe_method_that_succeeded_invalidates_groups(method, status, names):
    """RFC 9875 §3"""
    request = Request(method, "http", "a.example", "/", Fields())
    response = Response(status, Fields([("Cache-Group-Invalidation", '"g"')]))
    assert invalidated_groups(request, response) == names
