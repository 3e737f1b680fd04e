"""Fields by an outline are the fields that their lines make."""

from hypothesis import given
from hypothesis import strategies as st

from cdn.semantics.message import Fields
from cdn.semantics.outline import Outline, OutlinedFields

NAMES = ("Date", "ETag", "Vary", "X-A", "x-b", "Age")
ASKED = frozenset({"date", "x-b", "nobody"})
LINES = st.lists(
    st.tuples(st.sampled_from(NAMES), st.text("ab,%s", max_size=3), st.booleans()),
    unique_by=lambda line: line[0],
)


def outlined(lines):
    """`lines` are a name, a value, and whether it varies."""
    outline = Outline([(name, None if varies else value) for name, value, varies in lines])
    return OutlinedFields(outline, tuple([value for _, value, varies in lines if varies]))


@given(LINES)
def test_whatever_is_asked(lines):
    fields, same = outlined(lines), Fields([(name, value) for name, value, _ in lines])
    assert fields == same
    assert hash(fields) == hash(same)
    assert repr(fields) == repr(same)
    assert list(fields) == list(same)
    assert len(fields) == len(same)
    assert fields.by_name() == same.by_name()
    assert fields.names() == same.names()
    for name in (*map(str.lower, NAMES), "nobody"):
        assert fields.get(name) == same.get(name)
        assert fields.get_all(name) == same.get_all(name)
        assert (name in fields) is (name in same)
    assert fields.any_of(ASKED) is same.any_of(ASKED)
    assert fields.written == same.written
    assert fields.without(set(ASKED)) == same.without(ASKED)
    for _ in range(2):
        less = fields.without(ASKED)
        assert less == same.without(ASKED)
        assert less.written == same.without(ASKED).written
    assert fields.without(ASKED).by_name() == same.without(ASKED).by_name()
    assert fields.adding(("X-C", "c")) == same.adding(("X-C", "c"))
    assert fields.replacing("Date", "now") == same.replacing("Date", "now")


def test_what_is_shared_weighs_nothing():
    own = ("ETag", '"v1"', True)
    fields = outlined([("Content-Type", "text/plain", False), own])
    assert fields.weight == outlined([own]).weight < outlined([own, ("Date", "now", True)]).weight


def test_fields_by_one_outline_are_apart():
    first = outlined([("ETag", "a", True), ("Vary", "b", False)])
    second = OutlinedFields(first.outline, ("c",))
    assert first.lines == (("ETag", "a"), ("Vary", "b"))
    assert second.lines == (("ETag", "c"), ("Vary", "b"))


def test_fields_without_some_keep_to_an_outline():
    fields = outlined([("Age", "7", True), ("ETag", "a", True), ("Vary", "b", False)])
    less = fields.without(frozenset({"age"}))
    assert isinstance(less, OutlinedFields)
    assert less.values == ("a",)
    assert fields.without(frozenset({"age"})).outline is less.outline
