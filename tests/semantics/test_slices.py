"""Sets of slices: what they cover, what they lack."""

from hypothesis import given
from hypothesis import strategies as st

from cdn.semantics.ranges import ByteRange
from cdn.semantics.slices import PresentSlices, slice_count

NUMBERS = st.frozensets(st.integers(0, 40))


def kept(*numbers, slice_size=10):
    return PresentSlices(sum(1 << number for number in numbers), slice_size)


def test_a_part_is_covered_where_every_slice_of_it_is_kept():
    some = kept(1, 2, 4)
    assert some.covers(ByteRange(10, 30))
    assert some.covers(ByteRange(15, 16))
    assert some.covers(ByteRange(5, 5))
    assert not some.covers(ByteRange(9, 11))
    assert not some.covers(ByteRange(29, 31))
    assert not some.covers(ByteRange(0, 10))


def test_nothing_kept_is_false_and_has_no_row():
    assert not kept()
    assert kept().run() == range(0)
    assert len(kept(3, 7)) == 2


def test_slices_of_a_length():
    assert [slice_count(length, 10) for length in (0, 1, 10, 11)] == [0, 1, 1, 2]


@given(NUMBERS, st.integers(0, 400), st.integers(1, 60))
def test_it_is_a_set_of_numbers(numbers, start, length):
    some, part = kept(*numbers), ByteRange(start, start + length)
    wanted = range(part.start // 10, (part.stop - 1) // 10 + 1)
    lacking = [number for number in wanted if number not in numbers]
    assert list(some.numbers()) == sorted(numbers)
    assert all(some.has(number) == (number in numbers) for number in range(45))
    assert some.first_missing(part) == (lacking[0] if lacking else None)
    assert some.covers(part) == (not lacking)
    after = [number for number in sorted(numbers) if number >= wanted.start]
    assert some.next_kept(wanted.start) == (after[0] if after else None)


@given(NUMBERS)
def test_the_first_row(numbers):
    row = kept(*numbers).run()
    assert set(row) <= numbers
    if numbers:
        assert row.start == min(numbers)
        assert row.stop not in numbers
