"""RFC 9111 §4.1."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdn.semantics.message import Fields
from cdn.semantics.vary import Variant, nominated_fields, select, variant_key, variant_matches


@dataclass(frozen=True)
class Candidate:
    variant: Variant
    response_time: float
    content_language: str | None = None


def _fields(*lines: tuple[str, str]) -> Fields:
    return Fields(lines)


@pytest.mark.parametrize(
    ("vary", "names"),
    [
        ([], ()),
        (["Foo, bar ,BAZ"], ("bar", "baz", "foo")),
        (["Foo", "Foo, Bar"], ("bar", "foo")),
        ([""], ()),
        ([" , ,"], ()),
        (["*"], None),
        (["Foo, *"], None),
        (["*", "Foo"], None),
    ],
)
def test_nominated_fields(vary, names):
    """RFC 9110 §12.5.5; a Vary with a member "*" always fails to match."""
    assert nominated_fields(Fields(("Vary", value) for value in vary)) == names


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ([("Foo", "1")], [("foo", "1")], True),
        ([("Foo", "1")], [("foo", "2")], False),
        ([("Foo", "1")], [], False),
        ([("Foo", "")], [], False),
        ([], [], True),
        ([("Foo", "a")], [("Foo", "A")], False),
        ([("Foo", "1, 2")], [("Foo", "1"), ("Foo", "2")], True),
        ([("Foo", " 1\t")], [("Foo", "1")], True),
        ([("Foo", "1"), ("Bar", "x")], [("Foo", "1"), ("Bar", "y")], True),
    ],
)
def test_selecting_fields_match(one, other, same):
    """RFC 9111 §4.1: absent matches absent only; lines combine; outer white space goes."""
    assert variant_matches(variant_key(("foo",), Fields(one)), Fields(other)) is same


@pytest.mark.parametrize("name", ["Accept-Language", "Accept-Encoding", "Accept-Charset"])
def test_case_and_white_space_say_nothing_in_negotiation_by_language_coding_charset(name):
    """RFC 9111 §4.1: normalising in ways known to have the same semantics (RFC 9110 §12.5)."""
    variant = variant_key((name.lower(),), _fields((name, "en, de;q=0.5")))
    assert variant_matches(variant, _fields((name, " EN ,\tDe; q=0.5")))
    assert variant_matches(variant, _fields((name, "de;q=0.50, en;q=1.000")))
    assert not variant_matches(variant, _fields((name, "de, en;q=0.5")))
    assert not variant_matches(variant, _fields((name, " EN ,\tDe; q=0.5")), normalize=False)


@pytest.mark.parametrize(
    ("value", "same"),
    [("1,2", True), (" 1 ,\t2 ", True), ("2,1", False), ("1 2", False), ('"1",2', False)],
)
def test_white_space_around_commas_says_nothing_in_any_field(value, same):
    """RFC 9111 §4.1: by removing white space where the syntax allows it."""
    assert (
        variant_matches(variant_key(("foo",), _fields(("Foo", "1, 2"))), _fields(("Foo", value)))
        is same
    )


def test_commas_inside_quotes_are_left_alone():
    variant = variant_key(("foo",), _fields(("Foo", '"a, b"')))
    assert not variant_matches(variant, _fields(("Foo", '"a,b"')))


@pytest.mark.parametrize(
    ("wanted", "answers"),
    [
        ("fr;q=0.5, de;q=1.0", True),
        ("DE", True),
        ("de, fr", False),  # as good as de: the origin may have it
        ("de;q=0.5, fr", False),
        ("de-AT", False),
        ("not; a; list", False),
        (",".join(["de"] * 65), False),
        ("", False),
        (None, False),
    ],
)
def test_a_language_answers_whoever_wants_it_above_all(wanted, answers):
    """RFC 9110 §12.5.4; what an origin that has it would select, whatever else it has."""
    variant = variant_key(("accept-language",), _fields(("Accept-Language", "en, de")))
    request = _fields() if wanted is None else _fields(("Accept-Language", wanted))
    assert variant_matches(variant, request, language="de") is answers
    assert not variant_matches(variant, request, normalize=False, language="de")
    assert not variant_matches(variant, request)


@given(st.dictionaries(st.sampled_from("abc"), st.text(max_size=3)))
def test_a_request_matches_its_own_variant(values):
    fields = Fields(values.items())
    assert variant_matches(variant_key(("a", "b", "c"), fields), fields)


@given(
    st.lists(
        st.builds(
            Candidate,
            st.sampled_from([(), (("foo", "1"),), (("foo", "2"),), (("foo", None),)]),
            st.integers(0, 5),
        )
    ),
    st.sampled_from([(), (("Foo", "1"),), (("Foo", "2"),)]),
)
def test_of_those_that_match_the_most_recent_is_selected(candidates, lines):
    """RFC 9111 §4: when more than one suitable response is stored, use the most recent."""
    request = Fields(lines)
    matching = [one for one in candidates if variant_matches(one.variant, request)]
    selected = select(candidates, request)
    if not matching:
        assert selected is None
    else:
        assert selected in matching
        assert selected.response_time == max(one.response_time for one in matching)
