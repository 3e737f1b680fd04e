"""RFC 9110 §14."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdn.semantics.ranges import (
    MAX_RANGES,
    ByteRange,
    cut,
    parse_content_range,
    parse_range,
    parse_range_specs,
    slices_for,
)

BIG = st.sampled_from([2**31, 2**63 - 1, 2**63, 2**64, 10**30])
POSITION = st.integers(0, 40) | BIG
SPEC = st.tuples(st.none(), POSITION) | st.tuples(POSITION, st.none() | POSITION)


def _written(specs: list[tuple[int | None, int | None]]) -> str:
    def text(number: int | None) -> str:
        return "" if number is None else str(number)

    return "bytes=" + ", ".join(f"{text(first)}-{text(last)}" for first, last in specs)


def _wanted(spec: tuple[int | None, int | None], size: int) -> set[int]:
    """Byte by byte, as RFC 9110 §14.1.2 says it."""
    first, last = spec
    if first is None:
        return {byte for byte in range(size) if byte >= size - last}
    return {byte for byte in range(size) if byte >= first and (last is None or byte <= last)}


@given(st.lists(SPEC, min_size=1, max_size=MAX_RANGES), st.integers(1, 40))
def test_ranges_against_a_model_that_counts_bytes(specs, size):
    found = parse_range(_written(specs), size)
    if any(None not in spec and spec[1] < spec[0] for spec in specs):
        assert found is None  # §14.1.1: an int-range whose last-pos is less is invalid
        return
    wanted = [_wanted(spec, size) for spec in specs]
    assert found is not None
    covered = [set(range(part.start, part.stop)) for part in found]
    assert set().union(*covered) == set().union(*wanted)
    assert all(0 <= part.start < part.stop <= size for part in found)
    for index, part in enumerate(found):  # §15.3.7.2: neither overlapping nor touching
        for other in found[index + 1 :]:
            assert part.stop < other.start or other.stop < part.start
    if len(found) == len(specs):  # nothing was joined: in the order asked
        assert covered == wanted


@pytest.mark.parametrize(
    ("value", "ranges"),
    [
        ("bytes=0-499", [(0, 500)]),
        ("bytes=500-999", [(500, 1000)]),
        ("bytes=-500", [(9500, 10000)]),
        ("bytes=9500-", [(9500, 10000)]),
        ("bytes=0-0,-1", [(0, 1), (9999, 10000)]),
        ("bytes= 0-999, 4500-5499, -1000", [(0, 1000), (4500, 5500), (9000, 10000)]),
        ("bytes=500-700,601-999", [(500, 1000)]),
        ("BYTES=,0-1,,", [(0, 2)]),
        ("bytes=9999-99999999999999999999", [(9999, 10000)]),
        ("bytes=10000-", []),
        ("bytes=-0", []),
        ("bytes=-99999", [(0, 10000)]),
        ("bytes=5-5,3-3,4-4", [(3, 6)]),
    ],
)
def test_the_rfcs_examples_and_their_edges(value, ranges):
    """RFC 9110 §14.1.2, for a representation of 10000 bytes."""
    assert parse_range(value, 10_000) == ranges


@pytest.mark.parametrize("value", ["", "bytes", "bytes=", "bytes=,", "bytes=-", "bytes=a-b",
    "bytes=1", "bytes=1-0", "bytes=0-1,1-0", "bytes=0-1 2-3", "bytes=--1", "bytes=+1-2",
    "items=0-1", "bytes=0x1-2", "bytes=1-2;3-4", "bytes=²-", "bytes=0-" + "9" * 80])  # fmt: skip
def test_a_value_that_is_invalid_or_of_another_unit_is_ignored(value):
    """RFC 9110 §14.2: a server MAY ignore Range; an unknown unit MUST be."""
    assert parse_range(value, 100) is None


def test_many_ranges_are_ignored():
    """RFC 9110 §17.15: denial of service by Range."""
    at_most = ",".join(f"{4 * n}-{4 * n}" for n in range(MAX_RANGES))
    assert len(parse_range(f"bytes={at_most}", 1000)) == MAX_RANGES
    assert parse_range(f"bytes={at_most},90-90", 1000) is None


def test_nothing_of_an_empty_representation_can_be_told():
    """RFC 9110 §14.1.2: first-pos must be less than the length; a suffix is satisfiable if its
    length is not zero."""
    assert parse_range("bytes=0-", 0) == []
    assert parse_range("bytes=-0", 0) == []
    assert parse_range("bytes=-5", 0) is None


def test_specs_are_had_before_the_size_is_known():
    assert parse_range_specs("bytes=1-2,3-,-4") == [(1, 2), (3, None), (None, 4)]
    assert parse_range_specs("pages=1-2") is None


@given(st.text() | st.text(alphabet="bytes=0123456789-, ", max_size=40), st.integers(0, 50))
def test_no_text_raises(value, size):
    parse_range(value, size)
    parse_content_range(value)


@pytest.mark.parametrize("value", ["bytes=" + "9" * 32_000, "bytes=" + "," * 32_000, " " * 32_000,
    "bytes=" + "1-2," * 8_000, "bytes" + " " * 32_000,
    "bytes 0-" + "9" * 32_000 + "/*"])  # fmt: skip
def test_hostile_values_cost_little(value):
    began = time.process_time()
    parse_range(value, 1 << 30)
    parse_content_range(value)
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize(
    ("value", "part"),
    [
        ("bytes 42-1233/1234", ((42, 1234), 1234)),
        ("bytes 42-1233/*", ((42, 1234), None)),
        ("Bytes 0-0/1", ((0, 1), 1)),
        ("bytes */1234", None),
        ("bytes 5-4/10", None),
        ("bytes 0-10/10", None),
        ("bytes 0-1", None),
        ("items 0-1/2", None),
        ("bytes 0-1/" + "9" * 5_000, None),
        ("", None),
        (None, None),
    ],
)
def test_content_range(value, part):
    """RFC 9110 §14.4: invalid where last-pos < first-pos or complete-length <= last-pos."""
    assert parse_content_range(value) == part


@given(st.binary(max_size=60), st.integers(1, 20), st.data())
def test_cut_equals_slicing_the_joined_content(content, size, data):
    slices = [content[at : at + size] for at in range(0, len(content), size)]
    start = data.draw(st.integers(0, max(0, len(content) - 1)))
    stop = data.draw(st.integers(min(start + 1, len(content)), len(content)))
    part = ByteRange(start, stop)
    pieces = cut(slices, part, size)
    assert b"".join(pieces) == content[start:stop]
    assert sum(map(len, pieces)) == part.length
    assert all(any(piece.obj is one for one in slices) for piece in pieces)  # nothing is copied


@given(st.integers(0, 200), st.integers(1, 200), st.integers(1, 64))
def test_slices_are_those_that_hold_a_byte_of_the_part(start, length, size):
    part = ByteRange(start, start + length)
    assert list(slices_for(part, size)) == sorted({at // size for at in range(*part)})
