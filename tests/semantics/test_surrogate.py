"""Surrogate-Control and Surrogate-Capability (W3C Edge Architecture)."""

import pytest

from cdn.semantics.cache_control import response_directives
from cdn.semantics.message import Fields
from cdn.semantics.surrogate import capability, for_all, received_by


@pytest.mark.parametrize(
    ("value", "directives"),
    [
        ("max-age=60", "max-age=60"),
        ("MaX-aGe=60", "MaX-aGe=60"),
        ("foobar, max-age=60", "max-age=60"),
        ("max-age=60+30", "max-age=60"),
        ("no-store-remote", "no-store"),
        ("max-age=60;abc", None),
        ("no-store;abc, max-age=5", "max-age=5"),
        ('content="ESI/1.0"', None),
        ("", None),
    ],
)
def test_directives_that_are_for_all(value, directives):
    assert for_all(value) == directives


def test_it_rules_over_the_other_two_fields():
    fields = Fields(
        [
            ("Surrogate-Control", "max-age=1"),
            ("CDN-Cache-Control", "max-age=2"),
            ("Cache-Control", "max-age=3, no-store"),
        ]
    )
    directives, targeted = response_directives(fields)
    assert (directives.max_age, directives.no_store, targeted) == (1, False, True)


def test_where_it_says_nothing_the_others_rule():
    fields = Fields([("Surrogate-Control", "foo"), ("Cache-Control", "max-age=3")])
    assert response_directives(fields)[0].max_age == 3


def test_what_is_for_this_node_by_name_is_for_us():
    fields = Fields([("Surrogate-Control", "no-store;other, max-age=60;edge-a")])
    assert for_all(received_by(fields, "edge-a").get("surrogate-control") or "") == "max-age=60"
    assert for_all(received_by(fields, "edge-b").get("surrogate-control") or "") is None


@pytest.mark.parametrize("lines", [[], [("Surrogate-Control", "max-age=60")]])
def test_what_names_nobody_is_left_as_it_is(lines):
    assert received_by(Fields(lines), "edge-a") == Fields(lines)


def test_a_node_tells_what_it_can_after_those_before_it():
    first = capability(Fields(), "edge-a")
    assert first == ("Surrogate-Capability", 'edge-a="Surrogate/1.0"')
    assert capability(Fields([first]), "s")[1] == 'edge-a="Surrogate/1.0", s="Surrogate/1.0"'
